/**
 * The ICMPv6 messages that a router exchanges with the one host of a point-to-point link: Neighbor
 * Discovery (RFC 4861 §4) and echo (RFC 4443 §4), with their IPv6 header (RFC 8200 §3).
 *
 *     0                   1                   2                   3
 *     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 *    |Version| Traffic class |              Flow label               |
 *    |        Payload length         |  Next header  |   Hop limit   |
 *    |                     Source address (16)                       |
 *    |                   Destination address (16)                    |
 *    |     Type      |     Code      |           Checksum            |
 *    |                        message body ...                       |
 */
import { copyBytes, putBytes, putU16, putU32, u16 } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'

const PAYLOAD_LENGTH_AT = 4
const NEXT_HEADER_AT = 6
const HOP_LIMIT_AT = 7
const SOURCE_AT = 8
const DESTINATION_AT = 24
const TYPE_AT = 40
const CODE_AT = 41
const CHECKSUM_AT = 42
const BODY_AT = 44

export const ipv6HeaderBytes = 40
const nextHeaderIcmpv6 = 58

/** RFC 4443 §4, RFC 4861 §4. */
export const Icmpv6Type = {
  EchoRequest: 128,
  EchoReply: 129,
  RouterSolicitation: 133,
  RouterAdvertisement: 134,
  NeighborSolicitation: 135,
  NeighborAdvertisement: 136,
} as const

/** RFC 4861 §4.6, RFC 8106 §5.1. */
const OptionType = { PrefixInformation: 3, Mtu: 5, RecursiveDnsServer: 25 } as const

/** RFC 4861 §4: Neighbor Discovery has come over no router when its hop limit is still 255. */
const discoveryHopLimit = 255
/** RFC 4861 §4.6.2. */
const flagAutonomous = 0x40
/** RFC 4861 §4.4. */
const flagRouter = 0x80
const flagSolicited = 0x40
/** RFC 4861 §4.2: DNS servers and the like are to be had by DHCPv6. */
const flagOther = 0x40

export type LinkMessage =
  | { readonly type: 'router-solicitation'; readonly source: Uint8Array }
  | {
      readonly type: 'neighbor-solicitation'
      readonly source: Uint8Array
      readonly target: Uint8Array
    }
  | {
      readonly type: 'echo-request'
      readonly source: Uint8Array
      readonly destination: Uint8Array
      /** Identifier, sequence number and data. */
      readonly body: Uint8Array
    }
  /** Well-formed, and not for a router to answer. */
  | { readonly type: 'other' }

export interface RouterAdvertisement {
  readonly type: 'router-advertisement'
  readonly source: Uint8Array
  readonly destination: Uint8Array
  readonly routerLifetimeSeconds: number
  /** Whether DHCPv6 is answered here. */
  readonly hasDhcpv6: boolean
  /** 16 bytes, of which the first 8 count; hosts make their addresses in it (SLAAC, RFC 4862). */
  readonly prefix: Uint8Array
  readonly prefixLength: number
  readonly validLifetimeSeconds: number
  readonly preferredLifetimeSeconds: number
  readonly mtuBytes: number
  readonly dnsServers: readonly Uint8Array[]
  readonly dnsLifetimeSeconds: number
}

export type RouterMessage =
  | RouterAdvertisement
  | {
      readonly type: 'neighbor-advertisement'
      readonly source: Uint8Array
      readonly destination: Uint8Array
      readonly target: Uint8Array
      /** False answers duplicate address detection (RFC 4861 §7.2.4). */
      readonly isSolicited: boolean
    }
  | {
      readonly type: 'echo-reply'
      readonly source: Uint8Array
      readonly destination: Uint8Array
      readonly body: Uint8Array
    }

/** Whether it is ICMPv6 right behind the IPv6 header; other packets are no concern of this file. */
export function isIcmpv6(packet: Uint8Array): boolean {
  return (packet[0] ?? 0) >>> 4 === 6 && packet[NEXT_HEADER_AT] === nextHeaderIcmpv6
}

/** The rules of RFC 4861 §6.1.1 and §7.1.1 for those that are answered. */
export function checkLinkMessage(packet: Uint8Array): WireFault {
  if (packet.length < BODY_AT) return WireFault.truncated
  if (!isIcmpv6(packet)) return WireFault['unknown-type']
  const lengthBytes = u16(packet, PAYLOAD_LENGTH_AT)
  if (lengthBytes < BODY_AT - ipv6HeaderBytes) return WireFault['length-too-small']
  if (ipv6HeaderBytes + lengthBytes > packet.length) return WireFault['length-overrun']
  if (icmpv6Checksum(packet, lengthBytes) !== 0) return WireFault['bad-checksum']
  const end = ipv6HeaderBytes + lengthBytes
  switch (packet[TYPE_AT]) {
    case Icmpv6Type.RouterSolicitation:
      return checkDiscovery(packet, BODY_AT + 4, end)
    case Icmpv6Type.NeighborSolicitation:
      if (packet[BODY_AT + 4] === 0xff) return WireFault['bad-value']
      return checkDiscovery(packet, BODY_AT + 20, end)
    case Icmpv6Type.EchoRequest:
      if (packet[CODE_AT] !== 0) return WireFault['bad-value']
      return end < BODY_AT + 4 ? WireFault.truncated : WireFault.none
    default:
      return WireFault.none
  }
}

/** Cannot fail after `checkLinkMessage`. Everything is copied. */
export function parseLinkMessage(packet: Uint8Array): LinkMessage {
  const end = ipv6HeaderBytes + u16(packet, PAYLOAD_LENGTH_AT)
  const source = copyBytes(packet, SOURCE_AT, DESTINATION_AT)
  switch (packet[TYPE_AT]) {
    case Icmpv6Type.RouterSolicitation:
      return { type: 'router-solicitation', source }
    case Icmpv6Type.NeighborSolicitation:
      return {
        type: 'neighbor-solicitation',
        source,
        target: copyBytes(packet, BODY_AT + 4, BODY_AT + 20),
      }
    case Icmpv6Type.EchoRequest:
      return {
        type: 'echo-request',
        source,
        destination: copyBytes(packet, DESTINATION_AT, TYPE_AT),
        body: copyBytes(packet, BODY_AT, end),
      }
    default:
      return { type: 'other' }
  }
}

/** Of the whole packet with its IPv6 header. */
export function encodedBytes(message: RouterMessage): number {
  switch (message.type) {
    case 'router-advertisement':
      return BODY_AT + 12 + 32 + 8 + dnsOptionBytes(message.dnsServers)
    case 'neighbor-advertisement':
      return BODY_AT + 20
    case 'echo-reply':
      return BODY_AT + message.body.length
  }
}

/** Writes the packet at the start of `out` and returns its end. */
export function encodeRouterMessage(message: RouterMessage, out: Uint8Array): number {
  const end = encodedBytes(message)
  putU32(out, 0, 0x6000_0000)
  putU16(out, PAYLOAD_LENGTH_AT, end - ipv6HeaderBytes)
  out[NEXT_HEADER_AT] = nextHeaderIcmpv6
  out[HOP_LIMIT_AT] = discoveryHopLimit
  putBytes(out, SOURCE_AT, message.source)
  putBytes(out, DESTINATION_AT, message.destination)
  out[CODE_AT] = 0
  switch (message.type) {
    case 'router-advertisement':
      out[TYPE_AT] = Icmpv6Type.RouterAdvertisement
      putAdvertisement(message, out)
      break
    case 'neighbor-advertisement':
      out[TYPE_AT] = Icmpv6Type.NeighborAdvertisement
      putU32(out, BODY_AT, (flagRouter | (message.isSolicited ? flagSolicited : 0)) * 0x100_0000)
      putBytes(out, BODY_AT + 4, message.target)
      break
    case 'echo-reply':
      out[TYPE_AT] = Icmpv6Type.EchoReply
      putBytes(out, BODY_AT, message.body)
      break
  }
  putU16(out, CHECKSUM_AT, 0)
  putU16(out, CHECKSUM_AT, icmpv6Checksum(out, end - ipv6HeaderBytes))
  return end
}

/** RFC 4861 §4.2 with the options of §4.6.2, §4.6.4 and RFC 8106 §5.1. */
function putAdvertisement(message: RouterAdvertisement, out: Uint8Array): void {
  // Current hop limit 64; no M flag, for addresses are made in the prefix.
  let at = putU16(out, BODY_AT, (64 << 8) | (message.hasDhcpv6 ? flagOther : 0))
  at = putU16(out, at, message.routerLifetimeSeconds)
  // Reachable time and retransmission timer: unspecified.
  at = putU32(out, at, 0)
  at = putU32(out, at, 0)
  at = putU16(out, at, (OptionType.PrefixInformation << 8) | 4)
  // No L flag: there is nobody else on the link to look for (RFC 8273 §4).
  at = putU16(out, at, (message.prefixLength << 8) | flagAutonomous)
  at = putU32(out, at, message.validLifetimeSeconds)
  at = putU32(out, at, message.preferredLifetimeSeconds)
  at = putU32(out, at, 0)
  at = putBytes(out, at, message.prefix)
  at = putU16(out, at, (OptionType.Mtu << 8) | 1)
  at = putU16(out, at, 0)
  at = putU32(out, at, message.mtuBytes)
  if (message.dnsServers.length === 0) return
  at = putU16(out, at, (OptionType.RecursiveDnsServer << 8) | (1 + 2 * message.dnsServers.length))
  at = putU16(out, at, 0)
  at = putU32(out, at, message.dnsLifetimeSeconds)
  for (const server of message.dnsServers) at = putBytes(out, at, server)
}

function dnsOptionBytes(servers: readonly Uint8Array[]): number {
  return servers.length === 0 ? 0 : 8 + 16 * servers.length
}

function checkDiscovery(packet: Uint8Array, optionsAt: number, end: number): WireFault {
  if (packet[HOP_LIMIT_AT] !== discoveryHopLimit || packet[CODE_AT] !== 0) {
    return WireFault['bad-value']
  }
  if (end < optionsAt) return WireFault.truncated
  for (let at = optionsAt; at < end; ) {
    // RFC 4861 §4.6: in units of 8 bytes, and never 0.
    const lengthBytes = (packet[at + 1] ?? 0) * 8
    if (lengthBytes === 0) return WireFault['length-too-small']
    if (at + lengthBytes > end) return WireFault['length-overrun']
    at += lengthBytes
  }
  return WireFault.none
}

/** RFC 4443 §2.3 over pseudo-header and message: 0 when the checksum in the packet is right. */
function icmpv6Checksum(packet: Uint8Array, lengthBytes: number): number {
  let sum = lengthBytes + nextHeaderIcmpv6
  for (let at = SOURCE_AT; at < TYPE_AT; at += 2) sum += u16(packet, at)
  const end = TYPE_AT + lengthBytes
  for (let at = TYPE_AT; at + 1 < end; at += 2) sum += u16(packet, at)
  if (lengthBytes % 2 !== 0) sum += (packet[end - 1] ?? 0) << 8
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x1_0000)
  return ~sum & 0xffff
}
