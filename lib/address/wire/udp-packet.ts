/**
 * IPv4 and UDP headers around a payload that stands at its place already (RFC 791 §3.1, RFC 768).
 *
 *    | IPv4 header (20) | source port (2) | destination port (2) | length (2) | checksum (2) | payload ... |
 */
import { putU16, putU32 } from '../../core/bytes.ts'

const IPV4_HEADER_BYTES = 20
const UDP_HEADER_BYTES = 8
const SOURCE_AT = 12
const PROTOCOL_UDP = 17

/** Where the payload stands. */
export const udpPayloadAt = IPV4_HEADER_BYTES + UDP_HEADER_BYTES

/** Addresses in host order. */
export interface UdpEnds {
  readonly source: number
  readonly destination: number
  readonly sourcePort: number
  readonly destinationPort: number
}

/** Writes the first `udpPayloadAt` bytes of `out`, checksums included; the packet has `lengthBytes`. */
export function putUdpHeaders(out: Uint8Array, lengthBytes: number, ends: UdpEnds): void {
  out.fill(0, 0, udpPayloadAt)
  out[0] = 0x45
  putU16(out, 2, lengthBytes)
  out[8] = 64
  out[9] = PROTOCOL_UDP
  putU32(out, SOURCE_AT, ends.source)
  putU32(out, SOURCE_AT + 4, ends.destination)
  putU16(out, 10, ~sumOf(out, 0, IPV4_HEADER_BYTES, 0) & 0xffff)
  const udp = IPV4_HEADER_BYTES
  putU16(out, udp, ends.sourcePort)
  putU16(out, udp + 2, ends.destinationPort)
  putU16(out, udp + 4, lengthBytes - udp)
  const pseudo = PROTOCOL_UDP + lengthBytes - udp
  const checksum = ~sumOf(out, SOURCE_AT, 8, sumOf(out, udp, lengthBytes - udp, pseudo)) & 0xffff
  // RFC 768: 0 would say that there is none.
  putU16(out, udp + 6, checksum === 0 ? 0xffff : checksum)
}

/** RFC 1071. */
function sumOf(bytes: Uint8Array, at: number, lengthBytes: number, seed: number): number {
  let sum = seed
  for (let i = at; i < at + lengthBytes; i += 2) {
    sum += ((bytes[i] ?? 0) << 8) | (i + 1 < at + lengthBytes ? (bytes[i + 1] ?? 0) : 0)
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  return sum
}
