/**
 * DHCP between a client with an address and its server, whole IPv4 packets: RFC 2131 §2, RFC 2132,
 * RFC 3396, RFC 3442, [MS-DHCPE] §2.2.8. The UDP checksum of a request is not looked at: it came
 * through a tunnel that has its own, or that has checked the whole frame.
 *
 *     0                   1                   2                   3
 *     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 *    |     op (1)    |   htype (1)   |   hlen (1)    |   hops (1)    |
 *    |                            xid (4)                            |
 *    |           secs (2)            |           flags (2)           |
 *    |                          ciaddr  (4)                          |
 *    |                          yiaddr  (4)                          |
 *    |                          siaddr  (4)                          |
 *    |                          giaddr  (4)                          |
 *    |                          chaddr  (16)                         |
 *    |                          sname   (64)                         |
 *    |                          file    (128)                        |
 *    |                       magic cookie (4)                        |
 *    |                          options (variable)                   |
 */
import { copyBytes, putBytes, putU16, putU32, u16, u32 } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'
import type { Ipv4Network } from '../../core/ip-address.ts'
import { putUdpHeaders, udpPayloadAt } from './udp-packet.ts'

const IPV4_HEADER_BYTES = 20
const UDP_HEADER_BYTES = 8
const TOTAL_LENGTH_AT = 2
const FRAGMENT_AT = 6
const PROTOCOL_AT = 9
const SOURCE_AT = 12
const PROTOCOL_UDP = 17
export const SERVER_PORT = 67
export const CLIENT_PORT = 68

const XID_AT = 4
const FLAGS_AT = 10
const CIADDR_AT = 12
const GIADDR_AT = 24
const CHADDR_AT = 28
const CHADDR_BYTES = 16
const COOKIE_AT = 236
const OPTIONS_AT = 240
export const MAGIC_COOKIE = 0x63825363
const BOOTREQUEST = 1
const BOOTREPLY = 2
/** RFC 1542 §2.1: what relays and old clients expect at least, from `op` on. */
const SMALLEST_MESSAGE_BYTES = 300
/** Fields longer than a byte can tell are several options in a row (RFC 3396 §5). */
const OPTION_MAX_BYTES = 255

/** RFC 2132 §9.6. */
export const DhcpMessageType = {
  discover: 1,
  offer: 2,
  request: 3,
  decline: 4,
  ack: 5,
  nak: 6,
  release: 7,
  inform: 8,
} as const

/** RFC 2132; 82 is RFC 3046, 121 RFC 3442, 249 [MS-DHCPE] §2.2.8. */
export const DhcpOption = {
  pad: 0,
  dnsServers: 6,
  domainName: 15,
  requestedAddress: 50,
  leaseTime: 51,
  messageType: 53,
  serverIdentifier: 54,
  parameterRequestList: 55,
  messageSize: 57,
  renewalTime: 58,
  rebindingTime: 59,
  clientIdentifier: 61,
  relayAgentInformation: 82,
  classlessRoutes: 121,
  microsoftClasslessRoutes: 249,
  end: 255,
} as const

export interface DhcpRequest {
  readonly messageType: number
  /** Chosen by the client, repeated in the answer. */
  readonly transactionId: number
  readonly flags: number
  /** IPv4 addresses in host order: the client's own as its packet and its message say. */
  readonly source: number
  readonly clientAddress: number
  /** Not zero: it came over a relay. */
  readonly relayAddress: number
  readonly hardwareType: number
  readonly hardwareLength: number
  /** 16 bytes, of which `hardwareLength` count. */
  readonly hardwareAddress: Uint8Array
  /** Codes of the options that the client would like; empty when it does not say. */
  readonly wantedOptions: readonly number[]
}

/** Whether an IP packet is UDP over IPv4 to the port of DHCP servers, in one piece. */
export function isForDhcpServer(packet: Uint8Array): boolean {
  const at = udpAt(packet)
  return at > 0 && u16(packet, at + 2) === SERVER_PORT
}

/** Where UDP begins, 0 when the packet is something else. */
function udpAt(packet: Uint8Array): number {
  const first = packet[0] ?? 0
  const headerBytes = (first & 15) * 4
  if (first >>> 4 !== 4 || headerBytes < IPV4_HEADER_BYTES) return 0
  if (packet.length < headerBytes + UDP_HEADER_BYTES) return 0
  const isFragment = (u16(packet, FRAGMENT_AT) & 0x3fff) !== 0
  return packet[PROTOCOL_AT] === PROTOCOL_UDP && !isFragment ? headerBytes : 0
}

/** Checks a packet that `isForDhcpServer`; `parseDhcpRequest` takes what this found good. */
export function checkDhcpRequest(packet: Uint8Array): WireFault {
  const udp = udpAt(packet)
  const end = udp + u16(packet, udp + 4)
  if (end < udp + UDP_HEADER_BYTES) return WireFault['length-too-small']
  if (end > packet.length || end > u16(packet, TOTAL_LENGTH_AT)) return WireFault['length-overrun']
  const message = udp + UDP_HEADER_BYTES
  if (end < message + OPTIONS_AT) return WireFault.truncated
  if (u32(packet, message + COOKIE_AT) !== MAGIC_COOKIE) return WireFault['bad-magic']
  if (packet[message] !== BOOTREQUEST) return WireFault['bad-value']
  if ((packet[message + 2] ?? 0) > CHADDR_BYTES) return WireFault['length-overrun']
  let hasType = false
  for (let at = message + OPTIONS_AT; at < end; ) {
    const code = packet[at]
    if (code === DhcpOption.end) break
    if (code === DhcpOption.pad) {
      at++
      continue
    }
    if (at + 2 > end) return WireFault.truncated
    const lengthBytes = packet[at + 1] ?? 0
    if (at + 2 + lengthBytes > end) return WireFault['length-overrun']
    if (code === DhcpOption.messageType) {
      if (hasType) return WireFault.duplicate
      if (lengthBytes !== 1) return WireFault['bad-value']
      hasType = true
    }
    at += 2 + lengthBytes
  }
  return hasType ? WireFault.none : WireFault.missing
}

export function parseDhcpRequest(packet: Uint8Array): DhcpRequest {
  const udp = udpAt(packet)
  const end = udp + u16(packet, udp + 4)
  const message = udp + UDP_HEADER_BYTES
  let messageType = 0
  let wantedOptions: readonly number[] = []
  for (let at = message + OPTIONS_AT; at < end && packet[at] !== DhcpOption.end; ) {
    const code = packet[at]
    if (code === DhcpOption.pad) {
      at++
      continue
    }
    const next = at + 2 + (packet[at + 1] ?? 0)
    if (code === DhcpOption.messageType) messageType = packet[at + 2] ?? 0
    if (code === DhcpOption.parameterRequestList) wantedOptions = [...packet.subarray(at + 2, next)]
    at = next
  }
  return {
    messageType,
    transactionId: u32(packet, message + XID_AT),
    flags: u16(packet, message + FLAGS_AT),
    source: u32(packet, SOURCE_AT),
    clientAddress: u32(packet, message + CIADDR_AT),
    relayAddress: u32(packet, message + GIADDR_AT),
    hardwareType: packet[message + 1] ?? 0,
    hardwareLength: packet[message + 2] ?? 0,
    hardwareAddress: copyBytes(packet, message + CHADDR_AT, message + CHADDR_AT + CHADDR_BYTES),
    wantedOptions,
  }
}

export interface DhcpReply {
  readonly request: DhcpRequest
  readonly messageType: number
  /** Ours and the client's, host order. */
  readonly serverAddress: number
  readonly clientAddress: number
  /** After message type and server identifier, in this order. */
  readonly options: readonly { readonly code: number; readonly value: Uint8Array }[]
}

/** What `putOption` writes. */
export function optionBytes(lengthBytes: number): number {
  return lengthBytes + 2 * Math.max(1, Math.ceil(lengthBytes / OPTION_MAX_BYTES))
}

export function dhcpReplyBytes({ options }: DhcpReply): number {
  const all = options.reduce((sum, { value }) => sum + optionBytes(value.length), 3 + 6 + 1)
  const message = Math.max(OPTIONS_AT + all, SMALLEST_MESSAGE_BYTES)
  return udpPayloadAt + message
}

/** Fills the first `dhcpReplyBytes` of `out`: IPv4, UDP, BOOTREPLY. Gives the bytes written. */
export function encodeDhcpReply(reply: DhcpReply, out: Uint8Array): number {
  const { request, serverAddress, clientAddress } = reply
  const lengthBytes = dhcpReplyBytes(reply)
  out.fill(0, 0, lengthBytes)
  const message = udpPayloadAt
  out[message] = BOOTREPLY
  out[message + 1] = request.hardwareType
  out[message + 2] = request.hardwareLength
  putU32(out, message + XID_AT, request.transactionId)
  putU16(out, message + FLAGS_AT, request.flags)
  // RFC 2131 §4.3.5: ciaddr as it came, yiaddr zero, for nothing is leased.
  putU32(out, message + CIADDR_AT, request.clientAddress)
  putBytes(out, message + CHADDR_AT, request.hardwareAddress)
  putU32(out, message + COOKIE_AT, MAGIC_COOKIE)
  let at = message + OPTIONS_AT
  at = putOption(out, at, DhcpOption.messageType, Uint8Array.of(reply.messageType))
  at = putOption(out, at, DhcpOption.serverIdentifier, addressList([serverAddress]))
  for (const { code, value } of reply.options) at = putOption(out, at, code, value)
  out[at] = DhcpOption.end
  putUdpHeaders(out, lengthBytes, {
    source: serverAddress,
    destination: clientAddress,
    sourcePort: SERVER_PORT,
    destinationPort: CLIENT_PORT,
  })
  return lengthBytes
}

/** One option, or several in a row where it is long. Gives the offset after it. */
export function putOption(out: Uint8Array, at: number, code: number, value: Uint8Array): number {
  let next = at
  for (let from = 0; from === 0 || from < value.length; from += OPTION_MAX_BYTES) {
    const end = Math.min(value.length, from + OPTION_MAX_BYTES)
    out[next] = code
    out[next + 1] = end - from
    next = putBytes(out, next + 2, copyBytes(value, from, end))
  }
  return next
}

/** Addresses in host order, four bytes each. */
export function addressList(addresses: readonly number[]): Uint8Array {
  const out = new Uint8Array(4 * addresses.length)
  addresses.forEach((address, i) => {
    putU32(out, 4 * i, address)
  })
  return out
}

/** RFC 3442: prefix length, as many bytes of the network as it covers, router. */
export function classlessRoutes(networks: readonly Ipv4Network[], router: number): Uint8Array {
  const bytes: number[] = []
  for (const { address, prefixLength } of networks) {
    const network = addressList([address]).subarray(0, Math.ceil(prefixLength / 8))
    bytes.push(prefixLength, ...network, ...addressList([router]))
  }
  return Uint8Array.from(bytes)
}
