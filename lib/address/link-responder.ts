/**
 * The router's side of a point-to-point IPv6 link: tells the client its prefix, its MTU and its DNS
 * servers, and answers for the router's link-local address (RFC 4861, RFC 8106, RFC 5072 §5).
 */
import { equalBytes, putBytes } from '../core/bytes.ts'
import { FaultCounters } from '../core/faults.ts'
import type { Ipv6Network } from '../core/ip-address.ts'
import {
  checkLinkMessage,
  encodedBytes,
  encodeRouterMessage,
  isIcmpv6,
  parseLinkMessage,
  type RouterMessage,
} from './wire/icmpv6.ts'

/** RFC 4861 §6.2.1: AdvDefaultLifetime, AdvValidLifetime, AdvPreferredLifetime. */
export const routerLifetimeSeconds = 1800
const validLifetimeSeconds = 2_592_000
const preferredLifetimeSeconds = 604_800
/** RFC 8106 §5.1: three times the interval between advertisements. */
const dnsLifetimeSeconds = routerLifetimeSeconds
/** RFC 4861 §6.2.1 MaxRtrAdvInterval: a third of the lifetime, so that two may get lost. */
export const advertisementIntervalMs = (routerLifetimeSeconds / 3) * 1000

/** ff02::1, RFC 4291 §2.7.1. */
const allNodes = Uint8Array.of(0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1)

export interface LinkResponderOptions {
  /** Ours, 8 bytes, as IPV6CP has settled it (RFC 5072 §4.1). */
  readonly interfaceId: Uint8Array
  /** The session's /64. */
  readonly prefix: Ipv6Network
  /** At least 1280 (RFC 8200 §5). */
  readonly mtuBytes: number
  readonly dnsServers: readonly Uint8Array[]
  /** Whether clients may ask us by DHCPv6. */
  readonly hasDhcpv6?: boolean
}

export class LinkResponder {
  readonly faults: FaultCounters
  readonly #options: LinkResponderOptions
  readonly #linkLocal: Uint8Array

  /** `faults` may be shared by all sessions. */
  constructor(options: LinkResponderOptions, faults = new FaultCounters()) {
    this.#options = options
    this.#linkLocal = linkLocalAddress(options.interfaceId)
    this.faults = faults
  }

  get linkLocalAddress(): Uint8Array {
    return this.#linkLocal
  }

  /**
   * The packet to answer an IPv6 packet of the link with, if any. Keeps nothing of `packet`. What is
   * not for a router to answer is ignored; what is malformed is counted.
   */
  answer(packet: Uint8Array): Uint8Array | undefined {
    if (!isIcmpv6(packet)) return undefined
    const fault = checkLinkMessage(packet)
    if (fault) {
      this.faults.count(fault)
      return undefined
    }
    const message = parseLinkMessage(packet)
    switch (message.type) {
      case 'router-solicitation':
        return this.#advertisement(destinationOf(message.source))
      case 'neighbor-solicitation': {
        if (!equalBytes(message.target, this.#linkLocal)) return undefined
        const isSolicited = !isUnspecified(message.source)
        return encoded({
          type: 'neighbor-advertisement',
          source: this.#linkLocal,
          destination: destinationOf(message.source),
          target: message.target,
          isSolicited,
        })
      }
      case 'echo-request': {
        if (!equalBytes(message.destination, this.#linkLocal)) return undefined
        // RFC 4443 §2.2: no answer to a source that does not name one node.
        if (isUnspecified(message.source) || message.source[0] === 0xff) return undefined
        const { source, body } = message
        return encoded({ type: 'echo-reply', source: this.#linkLocal, destination: source, body })
      }
      case 'other':
        return undefined
    }
  }

  /** To all nodes of the link, unasked: once when the link comes up, then every interval. */
  advertisement(): Uint8Array {
    return this.#advertisement(allNodes)
  }

  #advertisement(destination: Uint8Array): Uint8Array {
    const { prefix, mtuBytes, dnsServers, hasDhcpv6 = false } = this.#options
    return encoded({
      type: 'router-advertisement',
      source: this.#linkLocal,
      destination,
      routerLifetimeSeconds,
      hasDhcpv6,
      prefix: prefix.address,
      prefixLength: prefix.prefixLength,
      validLifetimeSeconds,
      preferredLifetimeSeconds,
      mtuBytes,
      dnsServers,
      dnsLifetimeSeconds,
    })
  }
}

/** fe80::/64 and the interface identifier (RFC 5072 §5). */
export function linkLocalAddress(interfaceId: Uint8Array): Uint8Array {
  const address = new Uint8Array(16)
  address[0] = 0xfe
  address[1] = 0x80
  putBytes(address, 8, interfaceId)
  return address
}

/** RFC 4861 §6.2.6, §7.2.4: who has no address yet is answered through all nodes. */
function destinationOf(source: Uint8Array): Uint8Array {
  return isUnspecified(source) ? allNodes : source
}

function isUnspecified(address: Uint8Array): boolean {
  return address.every(byte => byte === 0)
}

function encoded(message: RouterMessage): Uint8Array {
  const packet = new Uint8Array(encodedBytes(message))
  encodeRouterMessage(message, packet)
  return packet
}
