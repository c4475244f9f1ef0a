/**
 * The DHCPv6 server of one link: tells DNS servers and domain (RFC 8415 §18.3.8, "stateless"), which is
 * how older Windows learns them, and delegates one prefix to a client that is a router (§6.3). Addresses
 * come from router advertisements alone.
 */
import { createHash } from 'node:crypto'
import { concatBytes, copyBytes, equalBytes, utf8 } from '../core/bytes.ts'
import { Counters, faultName } from '../core/faults.ts'
import type { Ipv6Network } from '../core/ip-address.ts'
import {
  type Association,
  type AssociationReply,
  checkDhcpv6Request,
  type DelegatedPrefix,
  type Dhcpv6Request,
  Dhcpv6Status,
  Dhcpv6Type,
  dhcpv6ReplyOf,
  isForDhcpv6Server,
  parseDhcpv6Request,
} from './wire/dhcpv6.ts'

/** A client asks again after half of it; the prefix is its session's, and ends with that. */
const preferredSeconds = 3600
const validSeconds = 7200
/** RFC 8415 §11.5: a DUID that is a UUID. */
const uuidDuid = Uint8Array.of(0, 4)

/** The same for all links of a server, and after each start. */
export function serverDuid(serverName: string): Uint8Array {
  const hash = Uint8Array.from(createHash('sha256').update(utf8(serverName)).digest())
  return concatBytes(uuidDuid, copyBytes(hash, 0, 16))
}

export interface Dhcpv6Options {
  /** Ours on the link, 16 bytes. */
  readonly linkLocalAddress: Uint8Array
  readonly serverId: Uint8Array
  readonly dnsServers: readonly Uint8Array[]
  readonly domain?: string
  /** The prefix behind this client; asked when the client wants one, and always the same. */
  readonly delegate: () => Ipv6Network | undefined
}

/** RFC 8415 §16: what a message must and must not have. */
const rules: Readonly<
  Record<number, { readonly client: boolean; readonly server: 'ours' | 'none' | 'any' }>
> = {
  [Dhcpv6Type.solicit]: { client: true, server: 'none' },
  [Dhcpv6Type.request]: { client: true, server: 'ours' },
  [Dhcpv6Type.renew]: { client: true, server: 'ours' },
  [Dhcpv6Type.rebind]: { client: true, server: 'none' },
  [Dhcpv6Type.release]: { client: true, server: 'ours' },
  [Dhcpv6Type.decline]: { client: true, server: 'ours' },
  [Dhcpv6Type.informationRequest]: { client: false, server: 'any' },
}

export class Dhcpv6Responder {
  readonly counters: Counters
  readonly #options: Dhcpv6Options

  /** `counters` may be shared by all sessions. */
  constructor(options: Dhcpv6Options, counters = new Counters()) {
    this.#options = options
    this.counters = counters
  }

  /** The packet to answer an IPv6 packet of the link with, if any. Keeps nothing of `packet`. */
  answer(packet: Uint8Array): Uint8Array | undefined {
    if (!isForDhcpv6Server(packet)) return undefined
    const fault = checkDhcpv6Request(packet)
    if (fault) {
      this.counters.count(`dhcpv6-malformed-${faultName(fault)}`)
      return undefined
    }
    const request = parseDhcpv6Request(packet)
    const refusal = this.#refusal(request)
    if (refusal !== undefined) {
      this.counters.count(refusal)
      return undefined
    }
    this.counters.count('dhcpv6-answered')
    return this.#reply(request)
  }

  #refusal({ type, source, clientId, serverId, associations }: Dhcpv6Request): string | undefined {
    const rule = rules[type]
    if (rule === undefined) return 'dhcpv6-unknown-type'
    if (source[0] !== 0xfe || ((source[1] ?? 0) & 0xc0) !== 0x80) return 'dhcpv6-not-from-link'
    if (rule.client && clientId === undefined) return 'dhcpv6-without-client'
    const isOurs = serverId !== undefined && equalBytes(serverId, this.#options.serverId)
    if (rule.server === 'none' && serverId !== undefined) return 'dhcpv6-with-server'
    if (rule.server === 'ours' && !isOurs) return 'dhcpv6-other-server'
    if (rule.server === 'any' && serverId !== undefined && !isOurs) return 'dhcpv6-other-server'
    const isInformation = type === Dhcpv6Type.informationRequest
    return isInformation && associations.length > 0 ? 'dhcpv6-information-with-ia' : undefined
  }

  #reply(request: Dhcpv6Request): Uint8Array {
    const { linkLocalAddress, serverId, dnsServers, domain } = this.#options
    const { type, transactionId, source, clientId, isRapid } = request
    const isSolicit = type === Dhcpv6Type.solicit
    const isEnd = type === Dhcpv6Type.release || type === Dhcpv6Type.decline
    return dhcpv6ReplyOf({
      type: isSolicit && !isRapid ? Dhcpv6Type.advertise : Dhcpv6Type.reply,
      transactionId,
      source: linkLocalAddress,
      destination: source,
      clientId,
      serverId,
      isRapid: isSolicit && isRapid,
      // §18.3.7, §18.3.6: the prefix stays the session's, so there is nothing to do.
      ...(isEnd && { status: Dhcpv6Status.success }),
      associations: isEnd ? [] : this.#associations(request),
      dnsServers,
      ...(domain !== undefined && { domain }),
    })
  }

  /** One prefix for the first who wants one. */
  #associations({ associations }: Dhcpv6Request): AssociationReply[] {
    let isGiven = false
    return associations.map(one => {
      if (one.kind !== 'prefixes') {
        return { kind: one.kind, id: one.id, prefixes: [], status: Dhcpv6Status.noAddresses }
      }
      const network = isGiven ? undefined : this.#options.delegate()
      isGiven ||= network !== undefined
      this.counters.count(network === undefined ? 'dhcpv6-no-prefix' : 'dhcpv6-delegated')
      return this.#prefixes(one, network)
    })
  }

  /** §18.3.4: what the client has and should not have is told with lifetimes of 0. */
  #prefixes({ kind, id, prefixes }: Association, network: Ipv6Network | undefined) {
    const current: DelegatedPrefix[] =
      network === undefined ? [] : [{ network, preferredSeconds, validSeconds }]
    const stale = prefixes
      .filter(one => one.address.some(byte => byte !== 0) && !isSame(one, network))
      .map(one => ({ network: one, preferredSeconds: 0, validSeconds: 0 }))
    return {
      kind,
      id,
      prefixes: [...current, ...stale],
      ...(network === undefined && { status: Dhcpv6Status.noPrefix }),
    }
  }
}

function isSame(a: Ipv6Network, b: Ipv6Network | undefined): boolean {
  return b !== undefined && a.prefixLength === b.prefixLength && equalBytes(a.address, b.address)
}
