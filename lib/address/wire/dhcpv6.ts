/**
 * DHCPv6 between a client on a point-to-point link and its router, whole IPv6 packets: RFC 8415 §8, §21,
 * RFC 3646. Relay messages are none of ours.
 *
 *     0                   1                   2                   3
 *     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 *    |    msg-type   |               transaction-id                  |
 *    |          option-code          |           option-len          |
 *    |                          option-data ...                      |
 */
import { concatBytes, copyBytes, putBytes, putU16, putU32, u16, u32 } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'
import type { Ipv6Network } from '../../core/ip-address.ts'

const IPV6_HEADER_BYTES = 40
const UDP_HEADER_BYTES = 8
const PAYLOAD_LENGTH_AT = 4
const NEXT_HEADER_AT = 6
const SOURCE_AT = 8
const DESTINATION_AT = 24
const MESSAGE_AT = IPV6_HEADER_BYTES + UDP_HEADER_BYTES
const NEXT_HEADER_UDP = 17
const CLIENT_PORT = 546
const SERVER_PORT = 547
const OPTION_HEADER_BYTES = 4
/** RFC 8415 §11.1: 128 bytes and the type. */
const DUID_MAX_BYTES = 130
/** Ours: associations that one message may name. */
const MOST_ASSOCIATIONS = 8

/** RFC 8415 §7.3. */
export const Dhcpv6Type = {
  solicit: 1,
  advertise: 2,
  request: 3,
  confirm: 4,
  renew: 5,
  rebind: 6,
  reply: 7,
  release: 8,
  decline: 9,
  informationRequest: 11,
} as const

/** RFC 8415 §21, RFC 3646. */
const Option = {
  clientId: 1,
  serverId: 2,
  addresses: 3,
  temporaryAddresses: 4,
  optionRequest: 6,
  statusCode: 13,
  rapidCommit: 14,
  dnsServers: 23,
  domainList: 24,
  prefixes: 25,
  prefix: 26,
} as const

/** RFC 8415 §21.13. */
export const Dhcpv6Status = { success: 0, noAddresses: 2, noPrefix: 6 } as const

/** An identity association: what a client calls something that it wants. */
export interface Association {
  readonly kind: 'addresses' | 'temporary-addresses' | 'prefixes'
  readonly id: number
  /** Of `prefixes`: those that the client has, or would like. */
  readonly prefixes: readonly Ipv6Network[]
}

export interface Dhcpv6Request {
  readonly type: number
  /** 24 bits. */
  readonly transactionId: number
  /** 16 bytes, link-local. */
  readonly source: Uint8Array
  readonly clientId: Uint8Array | undefined
  readonly serverId: Uint8Array | undefined
  readonly isRapid: boolean
  readonly associations: readonly Association[]
}

/** Whether an IP packet is UDP right behind the IPv6 header, to the port of DHCPv6 servers. */
export function isForDhcpv6Server(packet: Uint8Array): boolean {
  return (
    (packet[0] ?? 0) >>> 4 === 6 &&
    packet.length >= MESSAGE_AT &&
    packet[NEXT_HEADER_AT] === NEXT_HEADER_UDP &&
    u16(packet, IPV6_HEADER_BYTES + 2) === SERVER_PORT
  )
}

/** Checks a packet that `isForDhcpv6Server`; `parseDhcpv6Request` takes what this found good. */
export function checkDhcpv6Request(packet: Uint8Array): WireFault {
  const lengthBytes = u16(packet, PAYLOAD_LENGTH_AT)
  const end = IPV6_HEADER_BYTES + lengthBytes
  if (end > packet.length) return WireFault['length-overrun']
  if (u16(packet, IPV6_HEADER_BYTES + 4) !== lengthBytes) return WireFault['bad-value']
  if (lengthBytes < UDP_HEADER_BYTES + 4) return WireFault.truncated
  if (udpChecksum(packet, lengthBytes) !== 0) return WireFault['bad-checksum']
  let ids = 0
  let associations = 0
  for (let at = MESSAGE_AT + 4; at < end; at += OPTION_HEADER_BYTES + u16(packet, at + 2)) {
    const fault = checkOption(packet, at, end)
    if (fault) return fault
    const code = u16(packet, at)
    if (code === Option.clientId || code === Option.serverId) {
      if ((ids & code) !== 0) return WireFault.duplicate
      ids |= code
      const idBytes = u16(packet, at + 2)
      if (idBytes < 3 || idBytes > DUID_MAX_BYTES) return WireFault['bad-value']
    }
    const headBytes = associationHeadBytes(code)
    if (headBytes === 0) continue
    if (++associations > MOST_ASSOCIATIONS) return WireFault['too-many']
    const inner = checkAssociation(packet, at, headBytes)
    if (inner) return inner
  }
  return WireFault.none
}

function checkOption(packet: Uint8Array, at: number, end: number): WireFault {
  if (at + OPTION_HEADER_BYTES > end) return WireFault.truncated
  return at + OPTION_HEADER_BYTES + u16(packet, at + 2) > end
    ? WireFault['length-overrun']
    : WireFault.none
}

/** Fixed bytes of an association before its own options; 0 for other options. */
function associationHeadBytes(code: number): number {
  if (code === Option.addresses || code === Option.prefixes) return 12
  return code === Option.temporaryAddresses ? 4 : 0
}

function checkAssociation(packet: Uint8Array, at: number, headBytes: number): WireFault {
  const dataAt = at + OPTION_HEADER_BYTES
  const end = dataAt + u16(packet, at + 2)
  if (dataAt + headBytes > end) return WireFault.truncated
  for (let one = dataAt + headBytes; one < end; ) {
    const fault = checkOption(packet, one, end)
    if (fault) return fault
    const isPrefix = u16(packet, one) === Option.prefix
    if (isPrefix && u16(packet, one + 2) < 25) return WireFault.truncated
    if (isPrefix && (packet[one + OPTION_HEADER_BYTES + 8] ?? 0) > 128) {
      return WireFault['bad-value']
    }
    one += OPTION_HEADER_BYTES + u16(packet, one + 2)
  }
  return WireFault.none
}

/** Everything is copied. */
export function parseDhcpv6Request(packet: Uint8Array): Dhcpv6Request {
  const end = IPV6_HEADER_BYTES + u16(packet, PAYLOAD_LENGTH_AT)
  let clientId: Uint8Array | undefined
  let serverId: Uint8Array | undefined
  let isRapid = false
  const associations: Association[] = []
  for (let at = MESSAGE_AT + 4; at < end; at += OPTION_HEADER_BYTES + u16(packet, at + 2)) {
    const dataAt = at + OPTION_HEADER_BYTES
    const dataEnd = dataAt + u16(packet, at + 2)
    switch (u16(packet, at)) {
      case Option.clientId:
        clientId = copyBytes(packet, dataAt, dataEnd)
        break
      case Option.serverId:
        serverId = copyBytes(packet, dataAt, dataEnd)
        break
      case Option.rapidCommit:
        isRapid = true
        break
      case Option.addresses:
        associations.push({ kind: 'addresses', id: u32(packet, dataAt), prefixes: [] })
        break
      case Option.temporaryAddresses:
        associations.push({ kind: 'temporary-addresses', id: u32(packet, dataAt), prefixes: [] })
        break
      case Option.prefixes: {
        const prefixes = prefixesIn(packet, dataAt + 12, dataEnd)
        associations.push({ kind: 'prefixes', id: u32(packet, dataAt), prefixes })
        break
      }
      default:
        break
    }
  }
  return {
    type: packet[MESSAGE_AT] ?? 0,
    transactionId: u32(packet, MESSAGE_AT) & 0xff_ffff,
    source: copyBytes(packet, SOURCE_AT, DESTINATION_AT),
    clientId,
    serverId,
    isRapid,
    associations,
  }
}

function prefixesIn(packet: Uint8Array, from: number, end: number): Ipv6Network[] {
  const prefixes: Ipv6Network[] = []
  for (let at = from; at < end; at += OPTION_HEADER_BYTES + u16(packet, at + 2)) {
    if (u16(packet, at) !== Option.prefix) continue
    const prefixLength = packet[at + 12] ?? 0
    prefixes.push({ address: copyBytes(packet, at + 13, at + 29), prefixLength })
  }
  return prefixes
}

export interface DelegatedPrefix {
  readonly network: Ipv6Network
  /** Both 0: the client must stop using it. */
  readonly preferredSeconds: number
  readonly validSeconds: number
}

export interface AssociationReply {
  readonly kind: Association['kind']
  readonly id: number
  readonly prefixes: readonly DelegatedPrefix[]
  /** Absent: it is as it should be. */
  readonly status?: number
}

export interface Dhcpv6Reply {
  readonly type: number
  readonly transactionId: number
  /** 16 bytes each. */
  readonly source: Uint8Array
  readonly destination: Uint8Array
  readonly clientId: Uint8Array | undefined
  readonly serverId: Uint8Array
  readonly isRapid: boolean
  readonly status?: number
  readonly associations: readonly AssociationReply[]
  readonly dnsServers: readonly Uint8Array[]
  readonly domain?: string
}

/** The whole packet. */
export function dhcpv6ReplyOf(reply: Dhcpv6Reply): Uint8Array {
  const head = new Uint8Array(4)
  putU32(head, 0, reply.type * 0x100_0000 + reply.transactionId)
  const message = concatBytes(
    head,
    ...(reply.clientId === undefined ? [] : [optionOf(Option.clientId, reply.clientId)]),
    optionOf(Option.serverId, reply.serverId),
    ...(reply.isRapid ? [optionOf(Option.rapidCommit)] : []),
    ...(reply.status === undefined ? [] : [statusOf(reply.status)]),
    ...reply.associations.map(associationOf),
    ...(reply.dnsServers.length === 0 ? [] : [optionOf(Option.dnsServers, ...reply.dnsServers)]),
    ...(reply.domain === undefined ? [] : [optionOf(Option.domainList, domainOf(reply.domain))]),
  )
  const packet = new Uint8Array(MESSAGE_AT + message.length)
  const lengthBytes = UDP_HEADER_BYTES + message.length
  putU32(packet, 0, 0x6000_0000)
  putU16(packet, PAYLOAD_LENGTH_AT, lengthBytes)
  packet[NEXT_HEADER_AT] = NEXT_HEADER_UDP
  packet[7] = 255
  putBytes(packet, SOURCE_AT, reply.source)
  putBytes(packet, DESTINATION_AT, reply.destination)
  putU16(packet, IPV6_HEADER_BYTES, SERVER_PORT)
  putU16(packet, IPV6_HEADER_BYTES + 2, CLIENT_PORT)
  putU16(packet, IPV6_HEADER_BYTES + 4, lengthBytes)
  putBytes(packet, MESSAGE_AT, message)
  const checksum = udpChecksum(packet, lengthBytes)
  // RFC 8200 §8.1: 0 is not allowed.
  putU16(packet, IPV6_HEADER_BYTES + 6, checksum === 0 ? 0xffff : checksum)
  return packet
}

function optionOf(code: number, ...parts: Uint8Array[]): Uint8Array {
  const data = concatBytes(...parts)
  const option = new Uint8Array(OPTION_HEADER_BYTES + data.length)
  putU16(option, 0, code)
  putU16(option, 2, data.length)
  putBytes(option, OPTION_HEADER_BYTES, data)
  return option
}

function statusOf(status: number): Uint8Array {
  return optionOf(Option.statusCode, Uint8Array.of(status >>> 8, status & 0xff))
}

/** RFC 8415 §21.4, §21.5, §21.21; T1 and T2 are half and four fifths of the preferred lifetime. */
function associationOf({ kind, id, prefixes, status }: AssociationReply): Uint8Array {
  const head = new Uint8Array(kind === 'temporary-addresses' ? 4 : 12)
  putU32(head, 0, id)
  const preferredSeconds = Math.max(0, ...prefixes.map(one => one.preferredSeconds))
  if (head.length > 4) {
    putU32(head, 4, Math.floor(preferredSeconds * 0.5))
    putU32(head, 8, Math.floor(preferredSeconds * 0.8))
  }
  const codes = {
    addresses: Option.addresses,
    'temporary-addresses': Option.temporaryAddresses,
    prefixes: Option.prefixes,
  }
  return optionOf(
    codes[kind],
    head,
    ...prefixes.map(prefixOf),
    ...(status === undefined ? [] : [statusOf(status)]),
  )
}

function prefixOf({ network, preferredSeconds, validSeconds }: DelegatedPrefix): Uint8Array {
  const data = new Uint8Array(25)
  putU32(data, 0, preferredSeconds)
  putU32(data, 4, validSeconds)
  data[8] = network.prefixLength
  putBytes(data, 9, network.address)
  return optionOf(Option.prefix, data)
}

/** RFC 1035 §3.1, uncompressed. */
function domainOf(name: string): Uint8Array {
  const bytes = name
    .split('.')
    .filter(label => label !== '')
    .flatMap(label => [label.length, ...[...label].map(letter => letter.charCodeAt(0))])
  return Uint8Array.from([...bytes, 0])
}

/** RFC 8200 §8.1 over pseudo-header and datagram: 0 when the checksum in the packet is right. */
function udpChecksum(packet: Uint8Array, lengthBytes: number): number {
  let sum = lengthBytes + NEXT_HEADER_UDP
  for (let at = SOURCE_AT; at < IPV6_HEADER_BYTES; at += 2) sum += u16(packet, at)
  const end = IPV6_HEADER_BYTES + lengthBytes
  for (let at = IPV6_HEADER_BYTES; at + 1 < end; at += 2) sum += u16(packet, at)
  if (lengthBytes % 2 !== 0) sum += (packet[end - 1] ?? 0) << 8
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x1_0000)
  return ~sum & 0xffff
}
