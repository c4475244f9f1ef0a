/**
 * Dynamic authorization, RFC 5176: a RADIUS server ends sessions and changes them. Packets in, answers
 * out. Strangers are not answered; what is answered twice is done once.
 */
import { copyBytes, toHex, u16 } from '../../core/bytes.ts'
import type { Clock, WallClock } from '../../core/clock.ts'
import { assertNever } from '../../core/errors.ts'
import { Counters, faultName } from '../../core/faults.ts'
import {
  formatIpv4,
  formatIpv6Network,
  type Ipv4Network,
  type Ipv6Network,
  isInIpv4Network,
  isInIpv6Network,
  parseIpv4,
  parseIpv6,
  unmapped,
} from '../../core/ip-address.ts'
import type { Logger } from '../../core/log.ts'
import type { Secret } from '../../core/secret.ts'
import type { Session, SessionChange } from '../session.ts'
import type { SessionRegistry } from '../session-registry.ts'
import { userKey } from '../users/user-store.ts'
import { checkDynamicRequest, sealResponse } from './authenticity.ts'
import { filtersOf, ratesOf, routesOf } from './authorization.ts'
import { type NasIdentity, nasAttributes } from './nas.ts'
import { AttributeList, bytesOf, bytesOfAll, prefixOf, textOf, u32Of } from './wire/attributes.ts'
import { type AttributeName, dictionary } from './wire/dictionary.ts'
import {
  checkRadiusPacket,
  parseRadiusPacket,
  type RadiusAttribute,
  RadiusCode,
  type RadiusPacket,
} from './wire/packet.ts'

/** Who may ask. */
export interface DynamicClient {
  readonly network: ({ readonly family: 4 } & Ipv4Network) | ({ readonly family: 6 } & Ipv6Network)
  readonly secret: Secret
  readonly needsMessageAuthenticator: boolean
  /** Requests without Event-Timestamp could be played again. */
  readonly needsEventTimestamp: boolean
}

export interface DynamicAuthorizationOptions {
  readonly clients: readonly DynamicClient[]
  readonly sessions: SessionRegistry
  readonly nas: NasIdentity
  readonly clock: Clock
  readonly wallClock: WallClock
  readonly log: Logger
}

/** RFC 5176 §3.6. */
const ErrorCause = {
  'unsupported-attribute': 401,
  'missing-attribute': 402,
  'nas-mismatch': 403,
  'unsupported-service': 405,
  'invalid-value': 407,
  'no-session': 503,
  'many-sessions': 508,
} as const

type ErrorCause = keyof typeof ErrorCause

/** RFC 5176 §6.3: how far a request's time may be from ours, seconds. */
const timestampWindowSeconds = 300
/** As long as a request could pass again, ms. */
const memoryMs = 2 * timestampWindowSeconds * 1000
/** Answers that are remembered; only those who know a secret add to them. */
const mostRemembered = 16_384

/** RFC 5176 §3: what names a session; all that is given must fit. */
const identifying = [
  'Acct-Session-Id',
  'Acct-Multi-Session-Id',
  'User-Name',
  'Framed-IP-Address',
  'Framed-IPv6-Prefix',
  'Calling-Station-Id',
  'NAS-Port',
] as const satisfies readonly AttributeName[]

/** What may stand in any request. */
const framing = [
  'NAS-Identifier',
  'NAS-IP-Address',
  'NAS-IPv6-Address',
  'Called-Station-Id',
  'NAS-Port-Type',
  'NAS-Port-Id',
  'Event-Timestamp',
  'Message-Authenticator',
  'Proxy-State',
  'Reply-Message',
  'Class',
] as const satisfies readonly AttributeName[]

const changing = [
  'Session-Timeout',
  'Idle-Timeout',
  'Acct-Interim-Interval',
  'Filter-Id',
  'NAS-Filter-Rule',
  'Framed-Route',
  'Framed-IPv6-Route',
  'MikroTik-Rate-Limit',
  'WISPr-Bandwidth-Max-Up',
  'WISPr-Bandwidth-Max-Down',
] as const satisfies readonly AttributeName[]

const allowedInDisconnect = numbersOf(identifying, framing, ['Acct-Terminate-Cause'])
const allowedInChange = numbersOf(identifying, framing, changing)

export class DynamicAuthorization {
  readonly #options: DynamicAuthorizationOptions
  /** Answers by the authenticator of their request, which is made over all of it; oldest first. */
  readonly #remembered = new Map<
    string,
    { readonly answer: Uint8Array; readonly untilMs: number }
  >()
  readonly counters = new Counters()

  constructor(options: DynamicAuthorizationOptions) {
    this.#options = options
  }

  /** Undefined: nothing is said. */
  answer(bytes: Uint8Array, fromAddress: string): Uint8Array | undefined {
    const client = this.#clientOf(unmapped(fromAddress))
    if (client === undefined) return this.#drop('unknown-client')
    const fault = checkRadiusPacket(bytes)
    if (fault) return this.#drop(`malformed-${faultName(fault)}`)
    const disbelief = checkDynamicRequest(bytes, client.secret, client.needsMessageAuthenticator)
    if (disbelief !== undefined) return this.#drop(disbelief)
    const request = parseRadiusPacket(copyBytes(bytes, 0, u16(bytes, 2)))
    const isDisconnect = request.code === RadiusCode['Disconnect-Request']
    if (!isDisconnect && request.code !== RadiusCode['CoA-Request']) return this.#drop('wrong-code')
    const key = `${request.identifier} ${toHex(request.authenticator)}`
    const before = this.#recall(key)
    if (before !== undefined) {
      this.counters.count('repeated')
      return copyBytes(before)
    }
    const staleness = this.#staleness(request, client)
    if (staleness !== undefined) return this.#drop(staleness)
    const outcome = isDisconnect ? this.#disconnect(request) : this.#change(request)
    const answer = this.#seal(request, isDisconnect, outcome, client.secret)
    if (answer !== undefined) this.#remember(key, answer)
    this.#log(request, isDisconnect, outcome, fromAddress)
    return answer
  }

  #drop(counter: string): undefined {
    this.counters.count(counter)
    return undefined
  }

  #clientOf(address: string): DynamicClient | undefined {
    const ipv4 = parseIpv4(address)
    const ipv6 = parseIpv6(address)
    return this.#options.clients.find(({ network }) =>
      network.family === 4
        ? ipv4 !== undefined && isInIpv4Network(network, ipv4)
        : ipv6 !== undefined && isInIpv6Network(network, ipv6),
    )
  }

  #staleness({ attributes }: RadiusPacket, client: DynamicClient): string | undefined {
    const timestamp = u32Of(attributes, 'Event-Timestamp')
    if (timestamp === undefined) {
      return client.needsEventTimestamp ? 'missing-event-timestamp' : undefined
    }
    const nowSeconds = this.#options.wallClock.now().getTime() / 1000
    return Math.abs(nowSeconds - timestamp) > timestampWindowSeconds ? 'stale' : undefined
  }

  #recall(key: string): Uint8Array | undefined {
    const nowMs = this.#options.clock.nowMs()
    for (const [oldest, { untilMs }] of this.#remembered) {
      if (untilMs > nowMs) break
      this.#remembered.delete(oldest)
    }
    return this.#remembered.get(key)?.answer
  }

  #remember(key: string, answer: Uint8Array): void {
    const untilMs = this.#options.clock.nowMs() + memoryMs
    this.#remembered.set(key, { answer: copyBytes(answer), untilMs })
    if (this.#remembered.size <= mostRemembered) return
    for (const oldest of this.#remembered.keys()) {
      this.#remembered.delete(oldest)
      break
    }
  }

  /** Undefined: done. */
  #disconnect({ attributes }: RadiusPacket): ErrorCause | undefined {
    const found = this.#select(attributes, allowedInDisconnect)
    if (!isFound(found)) return found
    return found.disconnect('admin-reset') ? undefined : 'no-session'
  }

  #change({ attributes }: RadiusPacket): ErrorCause | undefined {
    const found = this.#select(attributes, allowedInChange)
    if (!isFound(found)) return found
    const change = changeOf(attributes)
    if (Object.keys(change).length === 0) return 'missing-attribute'
    return found.change(change) === undefined ? undefined : 'invalid-value'
  }

  #select(list: readonly RadiusAttribute[], allowed: ReadonlySet<number>): Session | ErrorCause {
    // RFC 5176 §3.2: Authorize Only would have us ask; we do not.
    if (u32Of(list, 'Service-Type') !== undefined) return 'unsupported-service'
    if (list.some(({ vendor, type }) => !allowed.has(vendor * 256 + type))) {
      return 'unsupported-attribute'
    }
    if (!this.#isForUs(list)) return 'nas-mismatch'
    if (!identifying.some(name => bytesOf(list, name) !== undefined)) return 'missing-attribute'
    const [first, ...others] = this.#candidates(list).filter(session => isMeant(session, list))
    if (first === undefined) return 'no-session'
    return others.length > 0 ? 'many-sessions' : first
  }

  #isForUs(list: readonly RadiusAttribute[]): boolean {
    const own = nasAttributes(this.#options.nas)
    const names = ['NAS-Identifier', 'NAS-IP-Address', 'NAS-IPv6-Address'] as const
    return names.every(name => {
      const said = bytesOf(list, name)
      const ours = bytesOf(own, name)
      return said === undefined || ours === undefined || toHex(said) === toHex(ours)
    })
  }

  #candidates(list: readonly RadiusAttribute[]): Session[] {
    const { sessions } = this.#options
    const named = textOf(list, 'Acct-Session-Id') ?? textOf(list, 'User-Name')
    if (named !== undefined) return sessions.find(named)
    return sessions.list().flatMap(({ id }) => sessions.find(id))
  }

  #seal(
    request: RadiusPacket,
    isDisconnect: boolean,
    outcome: ErrorCause | undefined,
    secret: Secret,
  ): Uint8Array | undefined {
    const { identifier, authenticator, attributes } = request
    const list = new AttributeList()
    if (outcome !== undefined) list.u32('Error-Cause', ErrorCause[outcome])
    // RFC 5176 §2.3: proxies find their way back by it.
    for (const value of bytesOfAll(attributes, 'Proxy-State')) list.bytes('Proxy-State', value)
    const verb = isDisconnect ? 'Disconnect' : 'CoA'
    const code = RadiusCode[`${verb}-${outcome === undefined ? 'ACK' : 'NAK'}`]
    return sealResponse({ code, identifier, attributes: list.attributes }, authenticator, secret)
  }

  #log(
    { attributes }: RadiusPacket,
    isDisconnect: boolean,
    outcome: ErrorCause | undefined,
    from: string,
  ): void {
    this.counters.count(outcome ?? (isDisconnect ? 'disconnected' : 'changed'))
    this.#options.log.info(
      {
        event: isDisconnect ? 'radius-disconnect' : 'radius-change',
        from,
        user: textOf(attributes, 'User-Name'),
        session: textOf(attributes, 'Acct-Session-Id'),
        refused: outcome,
      },
      isDisconnect ? 'radius asks for a disconnect' : 'radius asks for a change',
    )
  }
}

function isFound(found: Session | ErrorCause): found is Session {
  return typeof found !== 'string'
}

/** Whether everything that the request says of its session is true of this one. */
function isMeant(session: Session, list: readonly RadiusAttribute[]): boolean {
  const status = session.status()
  return identifying.every(name => {
    if (bytesOf(list, name) === undefined) return true
    switch (name) {
      case 'Acct-Session-Id':
        return session.id === textOf(list, name)
      case 'Acct-Multi-Session-Id':
        return status.bundle !== undefined && session.id === textOf(list, name)
      case 'User-Name':
        return userKey(session.userName ?? '') === userKey(textOf(list, name) ?? '')
      case 'Framed-IP-Address':
        return status.ipv4 === formatIpv4(u32Of(list, name) ?? 0)
      case 'Framed-IPv6-Prefix': {
        const prefix = prefixOf(list, name)
        return prefix !== undefined && status.ipv6 === formatIpv6Network(prefix)
      }
      case 'Calling-Station-Id':
        return session.peerAddress === textOf(list, name)
      case 'NAS-Port':
        return session.number === u32Of(list, name)
      default:
        return assertNever(name)
    }
  })
}

function changeOf(list: readonly RadiusAttribute[]): SessionChange {
  const sessionTimeoutSeconds = u32Of(list, 'Session-Timeout')
  const idleTimeoutSeconds = u32Of(list, 'Idle-Timeout')
  const interimIntervalSeconds = u32Of(list, 'Acct-Interim-Interval')
  return {
    ...filtersOf(list),
    ...ratesOf(list),
    ...routesOf(list),
    ...(sessionTimeoutSeconds !== undefined && { sessionTimeoutSeconds }),
    ...(idleTimeoutSeconds !== undefined && { idleTimeoutSeconds }),
    ...(interimIntervalSeconds !== undefined && {
      interimIntervalSeconds: Math.max(60, interimIntervalSeconds),
    }),
  }
}

function numbersOf(...lists: (readonly AttributeName[])[]): ReadonlySet<number> {
  return new Set(
    lists.flat().map(name => {
      const [vendor, type] = dictionary[name]
      return vendor * 256 + type
    }),
  )
}
