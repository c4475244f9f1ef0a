/** Questions about the IP packet at an offset, and the sum of its pseudo header (RFC 9293 §3.1, RFC 8200 §8.1). */
import { fold16, swap16 } from './checksum.ts'
import type { PacketMemory } from './pinned-memory.ts'
import {
  IPV4_DONT_FRAGMENT,
  IPV4_FRAGMENT_AT,
  IPV4_FRAGMENT_OFFSET_MASK,
  IPV4_MORE_FRAGMENTS,
  IPV4_PROTOCOL_AT,
  IPV4_SOURCE_AT,
  IPV6_HEADER_BYTES,
  IPV6_NEXT_HEADER_AT,
  IPV6_SOURCE_AT,
} from './wire/headers.ts'

export function ipVersion(bytes: Uint8Array, at: number): number {
  return (bytes[at] ?? 0) >>> 4
}

export function ipv4HeaderBytes(bytes: Uint8Array, at: number): number {
  return ((bytes[at] ?? 0) & 0x0f) * 4
}

/**
 * Offset from `at` of the header of `protocol`, or 0 when the packet is another protocol's, is a
 * fragment, or has IPv6 extension headers. The packet's IP header has been checked for length.
 */
export function transportOffset(memory: PacketMemory, at: number, protocol: number): number {
  const { bytes, view } = memory
  if (ipVersion(bytes, at) === 4) {
    if (bytes[at + IPV4_PROTOCOL_AT] !== protocol) return 0
    const fragment = view.getUint16(at + IPV4_FRAGMENT_AT)
    if ((fragment & (IPV4_FRAGMENT_OFFSET_MASK | IPV4_MORE_FRAGMENTS)) !== 0) return 0
    return ipv4HeaderBytes(bytes, at)
  }
  return bytes[at + IPV6_NEXT_HEADER_AT] === protocol ? IPV6_HEADER_BYTES : 0
}

/**
 * Folded sum of the pseudo header of the packet at `at` for a transport part of `lengthBytes`; 0 for
 * the sum without the length.
 */
export function pseudoHeaderSum(
  memory: PacketMemory,
  at: number,
  protocol: number,
  lengthBytes: number,
): number {
  const seed = swap16(protocol) + swap16(lengthBytes)
  return ipVersion(memory.bytes, at) === 4
    ? fold16(seed + addressSum4(memory, at))
    : memory.checksum(at + IPV6_SOURCE_AT, 32, seed)
}

/** Eight bytes are summed faster here than by a call. */
function addressSum4(memory: PacketMemory, at: number): number {
  const { view } = memory
  const source = at + IPV4_SOURCE_AT
  return (
    view.getUint16(source, true) +
    view.getUint16(source + 2, true) +
    view.getUint16(source + 4, true) +
    view.getUint16(source + 6, true)
  )
}

/** IPv4 without Don't Fragment; IPv6 routers never fragment (RFC 8200 §4.5). */
export function mayBeFragmented(memory: PacketMemory, at: number): boolean {
  if (ipVersion(memory.bytes, at) !== 4) return false
  return (memory.view.getUint16(at + IPV4_FRAGMENT_AT) & IPV4_DONT_FRAGMENT) === 0
}

/** fe80::/10, RFC 4291 §2.5.6. */
export function isLinkLocal(bytes: Uint8Array, at: number): boolean {
  return bytes[at] === 0xfe && ((bytes[at + 1] ?? 0) & 0xc0) === 0x80
}

export function isUnspecified(view: DataView, at: number): boolean {
  return isLoopbackOrUnspecified(view, at) && view.getUint32(at + 12) === 0
}

export function isLoopbackOrUnspecified(view: DataView, at: number): boolean {
  return (
    view.getUint32(at) === 0 &&
    view.getUint32(at + 4) === 0 &&
    view.getUint32(at + 8) === 0 &&
    view.getUint32(at + 12) <= 1
  )
}
