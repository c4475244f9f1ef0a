/**
 * The DHCP server inside a tunnel: it leases nothing, it tells a client that has its address already
 * what else there is to know (RFC 2131 §4.3.5). Stock Windows clients ask so for the routes of a split
 * tunnel, whatever the tunnel is.
 */
import { utf8 } from '../core/bytes.ts'
import { Counters, faultName } from '../core/faults.ts'
import type { Ipv4Network } from '../core/ip-address.ts'
import {
  addressList,
  checkDhcpRequest,
  classlessRoutes,
  DhcpMessageType,
  DhcpOption,
  type DhcpReply,
  type DhcpRequest,
  dhcpReplyBytes,
  encodeDhcpReply,
  isForDhcpServer,
  parseDhcpRequest,
} from './wire/dhcp.ts'

/** The same for all clients. IPv4 addresses in host order. */
export interface DhcpSettings {
  /** Ours in the tunnels. */
  readonly serverAddress: number
  readonly dnsServers: readonly number[]
  /** Suffix of names; absent: none is told. */
  readonly domain?: string
  /** What to route into the tunnel; empty: nothing is said, and the client's own setting holds. */
  readonly routes: readonly Ipv4Network[]
}

/** Who answers a client's questions to DHCP servers. */
export interface DhcpLink {
  /** The packet to answer an IP packet of the link with, if there is one already. */
  answer(packet: Uint8Array): Uint8Array | undefined
  close?(): void
}

export class DhcpResponder implements DhcpLink {
  /** What was answered and what was not, by reason. */
  readonly counters: Counters
  readonly #settings: DhcpSettings
  readonly #clientAddress: number

  /** `counters` may be shared by all sessions. */
  constructor(settings: DhcpSettings, clientAddress: number, counters = new Counters()) {
    this.#settings = settings
    this.#clientAddress = clientAddress
    this.counters = counters
  }

  /** The packet to answer an IP packet of the link with, if any. Keeps nothing of `packet`. */
  answer(packet: Uint8Array): Uint8Array | undefined {
    if (!isForDhcpServer(packet)) return undefined
    const fault = checkDhcpRequest(packet)
    if (fault) {
      this.counters.count(`dhcp-malformed-${faultName(fault)}`)
      return undefined
    }
    const request = parseDhcpRequest(packet)
    const refusal = this.#refusal(request)
    if (refusal !== undefined) {
      this.counters.count(refusal)
      return undefined
    }
    this.counters.count('dhcp-answered')
    const reply: DhcpReply = {
      request,
      messageType: DhcpMessageType.ack,
      serverAddress: this.#settings.serverAddress,
      clientAddress: this.#clientAddress,
      options: this.#options(request.wantedOptions),
    }
    const out = new Uint8Array(dhcpReplyBytes(reply))
    encodeDhcpReply(reply, out)
    return out
  }

  /** Addresses are not ours to lease here; who says to have another than it was given is not answered. */
  #refusal(request: DhcpRequest): string | undefined {
    if (request.messageType !== DhcpMessageType.inform) return 'dhcp-not-inform'
    if (request.relayAddress !== 0) return 'dhcp-relayed'
    const claimed = [request.source, request.clientAddress]
    const isOwn = claimed.every(address => address === 0 || address === this.#clientAddress)
    return isOwn ? undefined : 'dhcp-other-address'
  }

  /** In the order of the numbers; the two forms of routes only once, as the client reads them. */
  #options(wanted: readonly number[]): DhcpReply['options'] {
    const { serverAddress, dnsServers, domain, routes } = this.#settings
    const options: { code: number; value: Uint8Array }[] = []
    const wants = (code: number) => wanted.length === 0 || wanted.includes(code)
    if (dnsServers.length > 0 && wants(DhcpOption.dnsServers)) {
      options.push({ code: DhcpOption.dnsServers, value: addressList(dnsServers) })
    }
    if (domain !== undefined && wants(DhcpOption.domainName)) {
      options.push({ code: DhcpOption.domainName, value: utf8(domain) })
    }
    const code = wanted.includes(DhcpOption.microsoftClasslessRoutes)
      ? DhcpOption.microsoftClasslessRoutes
      : DhcpOption.classlessRoutes
    if (routes.length > 0 && wants(code)) {
      options.push({ code, value: classlessRoutes(routes, serverAddress) })
    }
    return options
  }
}
