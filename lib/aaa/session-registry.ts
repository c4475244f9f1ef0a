/**
 * Every call of every protocol, from the first packet to its accounting line. The registry knows how
 * many there may be, when one has been idle or up for too long, and that each ends once, for one
 * reason.
 */

import { toHex } from '../core/bytes.ts'
import type { Clock, WallClock } from '../core/clock.ts'
import { systemWallClock } from '../core/clock.ts'
import { DisconnectCause } from '../core/disconnect-cause.ts'
import type { Ipv4Network, Ipv6Network } from '../core/ip-address.ts'
import { type Logger, silentLogger } from '../core/log.ts'
import { type RandomSource, randomBytes, systemRandom } from '../core/random.ts'
import type { TimerWheel } from '../core/timers.ts'
import { FilterCatalogue } from './filter-catalogue.ts'
import { sourceKey } from './lockout.ts'
import { AccessPolicies } from './policy/access-policies.ts'
import {
  type CallDescription,
  type Refusal,
  Session,
  type SessionHost,
  type SessionStatus,
} from './session.ts'
import { userKey } from './users/user-store.ts'

/** `Infinity` for no limit. */
export interface SessionLimits {
  readonly sessions: number
  readonly sessionsPerUser: number
  readonly sessionsPerSource: number
  readonly sessionsPerProtocol: ReadonlyMap<string, number>
  readonly idleTimeoutMs: number
  readonly sessionTimeoutMs: number
}

export type SessionEvent =
  | { readonly type: 'up'; readonly session: SessionStatus }
  | { readonly type: 'down'; readonly session: SessionStatus; readonly cause: DisconnectCause }

export interface SessionRegistryOptions {
  readonly limits: SessionLimits
  /** Absent: none. */
  readonly policies?: AccessPolicies
  readonly filters?: FilterCatalogue
  readonly clock: Clock
  readonly wheel: TimerWheel
  readonly wallClock?: WallClock
  readonly random?: RandomSource
  readonly log?: Logger
}

/** Session identifiers: unguessable, and unique across restarts (Acct-Session-Id, RFC 2866 §5.5). */
const idBytes = 12

export class SessionRegistry {
  readonly #clock: Clock
  readonly #wheel: TimerWheel
  readonly #wallClock: WallClock
  readonly #random: RandomSource
  readonly #log: Logger
  readonly #sessions = new Map<string, Session>()
  readonly #byNumber = new Map<number, Session>()
  readonly #perUser = new Map<string, number>()
  readonly #perSource = new Map<string, number>()
  readonly #perProtocol = new Map<string, number>()
  readonly #observers = new Set<(event: SessionEvent) => void>()
  readonly #changeObservers = new Set<(session: SessionStatus) => void>()
  readonly #host: SessionHost
  /** Those with networks behind their clients. */
  readonly #routed = new Set<Session>()
  #limits: SessionLimits
  #policies: AccessPolicies
  #filters: FilterCatalogue
  #callCount = 0
  #lastNumber = 0
  #isDraining = false

  constructor(options: SessionRegistryOptions) {
    this.#limits = options.limits
    this.#policies = options.policies ?? new AccessPolicies([])
    this.#filters = options.filters ?? new FilterCatalogue()
    this.#clock = options.clock
    this.#wheel = options.wheel
    this.#wallClock = options.wallClock ?? systemWallClock
    this.#random = options.random ?? systemRandom
    this.#log = options.log ?? silentLogger
    this.#host = this.#makeHost()
  }

  /** New limits; sessions that are up keep the timeouts that they came up with. */
  setLimits(limits: SessionLimits): void {
    this.#limits = limits
  }

  /** New policies for those who come; filters also for changes of those who are there. */
  setPolicies(policies: AccessPolicies, filters: FilterCatalogue): void {
    this.#policies = policies
    this.#filters = filters
  }

  /** From now on no call is admitted. */
  drain(): void {
    this.#isDraining = true
  }

  /** Takes a call in before it has proved anything, or says why not. Refusals are logged here. */
  admit(call: CallDescription): Session | Refusal {
    const source = sourceKey(call.peerAddress)
    const refusal = this.#refusalOf(call, source)
    if (refusal !== undefined) {
      this.#log.info(
        { event: 'call-refused', ...refusal, proto: call.protocol, peer: call.peerLabel },
        'call refused',
      )
      return refusal
    }
    const session = new Session(
      this.#nextNumber(),
      toHex(randomBytes(this.#random, idBytes)),
      call,
      this.#host,
    )
    this.#sessions.set(session.id, session)
    this.#byNumber.set(session.number, session)
    this.#callCount++
    change(this.#perSource, source, 1)
    change(this.#perProtocol, call.protocol, 1)
    return session
  }

  /** Calls, links of bundles among them. */
  get size(): number {
    return this.#callCount
  }

  /** Calls that are up, without those being set up or closed. */
  get upCount(): number {
    let count = 0
    for (const session of this.#sessions.values()) if (session.state === 'up') count++
    return count
  }

  countOf(userName: string): number {
    return this.#perUser.get(userKey(userName)) ?? 0
  }

  /** In the order in which they came; links of a bundle are in the status of its session. */
  list(): SessionStatus[] {
    return [...this.#sessions.values()]
      .filter(session => !session.isLink)
      .map(session => session.status())
  }

  /** By id, by number, or all of a user. A single link of a bundle is found by id and number. */
  find(nameOrId: string): Session[] {
    const one = this.#sessions.get(nameOrId) ?? this.#byNumber.get(Number(nameOrId))
    const key = userKey(nameOrId)
    const named = [...this.#sessions.values()].filter(
      ({ userName, isLink }) => !isLink && userName !== undefined && userKey(userName) === key,
    )
    return one === undefined || named.includes(one) ? named : [one, ...named]
  }

  /** How many sessions this ends; a link of a bundle, `7.2`, counts as one. */
  disconnect(nameOrId: string, cause: DisconnectCause = 'admin-reset'): number {
    const [session = '', link = ''] = /^(\d+)\.(\d+)$/.exec(nameOrId)?.slice(1) ?? []
    const named = this.#byNumber.get(Number(session))?.link(Number(link))
    if (named !== undefined) return named.disconnect(cause) ? 1 : 0
    return this.find(nameOrId).filter(session => session.disconnect(cause)).length
  }

  /** How many quarantines this ends. */
  release(nameOrId: string): number {
    return this.find(nameOrId).filter(session => session.release()).length
  }

  disconnectAll(cause: DisconnectCause): number {
    return [...this.#sessions.values()].filter(session => session.disconnect(cause)).length
  }

  /** Tells of sessions that come up and go down, for accounting and events; returns the way to stop. */
  observe(observer: (event: SessionEvent) => void): () => void {
    this.#observers.add(observer)
    return () => this.#observers.delete(observer)
  }

  /** Tells when what holds for a session that is up has changed. */
  observeChanges(observer: (session: SessionStatus) => void): () => void {
    this.#changeObservers.add(observer)
    return () => this.#changeObservers.delete(observer)
  }

  /** Networks behind the clients of sessions that are up. */
  networks(): { readonly ipv4: Ipv4Network[]; readonly ipv6: Ipv6Network[] } {
    const ipv4: Ipv4Network[] = []
    const ipv6: Ipv6Network[] = []
    for (const { state, authorization } of this.#routed) {
      if (state !== 'up' || authorization === undefined) continue
      const { ipv4Routes, ipv6Routes, delegatedIpv6Prefix, ipv6Prefix } = authorization
      ipv4.push(...(ipv4Routes ?? []))
      ipv6.push(...(ipv6Routes ?? []))
      if (delegatedIpv6Prefix !== undefined) ipv6.push(delegatedIpv6Prefix)
      if (ipv6Prefix !== undefined) ipv6.push(ipv6Prefix)
    }
    return { ipv4, ipv6 }
  }

  #makeHost(): SessionHost {
    return {
      clock: this.#clock,
      wheel: this.#wheel,
      wallClock: this.#wallClock,
      log: this.#log,
      admitUser: user => this.#admitUser(user),
      policies: () => this.#policies,
      filters: () => this.#filters,
      timeouts: () => this.#limits,
      changed: session => {
        this.#noteNetworks(session)
        const status = session.status()
        for (const observer of this.#changeObservers) observer(status)
      },
      up: (session, status) => {
        this.#noteNetworks(session)
        this.#tell({ type: 'up', session: status })
      },
      callOver: ({ peerAddress, protocol }) => {
        this.#callCount--
        change(this.#perSource, sourceKey(peerAddress), -1)
        change(this.#perProtocol, protocol, -1)
      },
      down: (session, status, cause, wasUp) => {
        this.#forget(session)
        if (wasUp) this.#tell({ type: 'down', session: status, cause })
      },
    }
  }

  #noteNetworks(session: Session): void {
    const { ipv4Routes, ipv6Routes, delegatedIpv6Prefix, ipv6Prefix } = session.authorization ?? {}
    const networks = ipv4Routes ?? ipv6Routes ?? delegatedIpv6Prefix ?? ipv6Prefix
    if (networks === undefined) this.#routed.delete(session)
    else this.#routed.add(session)
  }

  #refusalOf({ protocol, peerAddress }: CallDescription, source: string): Refusal | undefined {
    const limits = this.#limits
    if (this.#isDraining) return { cause: 'nas-reboot', reason: 'the server is stopping' }
    if (this.#callCount >= limits.sessions) {
      return { cause: 'session-limit', reason: `limits.sessions: ${limits.sessions}` }
    }
    const mostOfProtocol = limits.sessionsPerProtocol.get(protocol) ?? Number.POSITIVE_INFINITY
    if ((this.#perProtocol.get(protocol) ?? 0) >= mostOfProtocol) {
      return { cause: 'session-limit', reason: `limits.perProtocol.${protocol}: ${mostOfProtocol}` }
    }
    if ((this.#perSource.get(source) ?? 0) >= limits.sessionsPerSource) {
      return {
        cause: 'session-limit',
        reason: `limits.perSource: ${limits.sessionsPerSource} from ${peerAddress}`,
      }
    }
    return undefined
  }

  /** Counts a session of the user, unless there are too many. */
  #admitUser({ userName, maxSessions }: { userName: string; maxSessions?: number }) {
    const key = userKey(userName)
    const most = maxSessions ?? this.#limits.sessionsPerUser
    if ((this.#perUser.get(key) ?? 0) >= most) {
      return { cause: 'session-limit', reason: `${most} session(s) of user ${userName}` } as const
    }
    change(this.#perUser, key, 1)
    return undefined
  }

  #forget(session: Session): void {
    this.#routed.delete(session)
    this.#sessions.delete(session.id)
    this.#byNumber.delete(session.number)
    const { leader, userName } = session
    if (leader === undefined && userName !== undefined) change(this.#perUser, userKey(userName), -1)
  }

  /** Small numbers for people and for NAS-Port; 32 bits, and never one that is in use. */
  #nextNumber(): number {
    do this.#lastNumber = (this.#lastNumber % 0xffff_ffff) + 1
    while (this.#byNumber.has(this.#lastNumber))
    return this.#lastNumber
  }

  #tell(event: SessionEvent): void {
    for (const observer of this.#observers) observer(event)
  }
}

function change(counts: Map<string, number>, key: string, by: number): void {
  const count = (counts.get(key) ?? 0) + by
  if (count > 0) counts.set(key, count)
  else counts.delete(key)
}

/** Tells the two answers of `admit` apart. */
export function isRefusal(answer: Session | Refusal): answer is Refusal {
  return !(answer instanceof Session)
}

/** Acct-Terminate-Cause of a cause (RFC 2866 §5.10). */
export function terminateCause(cause: DisconnectCause): number {
  return DisconnectCause[cause]
}
