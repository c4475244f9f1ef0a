/**
 * The ESP packet: RFC 4303 §2.
 *
 *    0                   1                   2                   3
 *    0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 *   +---------------------------------------------------------------+
 *   |               Security Parameters Index (SPI)                 |
 *   |                      Sequence Number                          |
 *   |                    IV, then payload data                      |
 *   |               +-----------------------------------------------+
 *   |               |     Padding (0-255 bytes)                     |
 *   |               |               |  Pad Length   | Next Header   |
 *   |         Integrity Check Value (variable)                      |
 *   +---------------------------------------------------------------+
 */
import { PACKET_HEADER_BYTES } from '../crypto/packet-cipher.ts'

export const SEQUENCE_AT = 4
export const HEADER_BYTES = PACKET_HEADER_BYTES
/** Pad length and next header. */
export const TRAILER_BYTES = 2
/** The trailer ends on a 4-byte boundary whatever the cipher (§2.4). */
const alignmentBytes = 4
/** Header, trailer with its alignment and the shortest ICV: nothing shorter can be ESP of ours. */
export const MIN_PACKET_BYTES = HEADER_BYTES + alignmentBytes + 8

/** IANA protocol numbers that ESP's next header carries here. */
export const NextHeader = {
  ipv4: 4,
  udp: 17,
  ipv6: 41,
  /** A dummy packet (§2.6). */
  none: 59,
  /** RFC 9347. */
  aggfrag: 144,
} as const

/** What the encrypted part, trailer included, is a multiple of, bytes. */
export function bodyAlignment(blockBytes: number): number {
  return Math.max(blockBytes, alignmentBytes)
}

/** Length of the encrypted part for a payload: payload, padding, trailer. */
export function bodyBytes(payloadBytes: number, alignment: number): number {
  // Alignments are powers of two.
  return (payloadBytes + TRAILER_BYTES + alignment - 1) & -alignment
}

/** The longest payload whose encrypted part is at most `limitBytes`. */
export function largestPayload(limitBytes: number, alignment: number): number {
  return (limitBytes & -alignment) - TRAILER_BYTES
}

/**
 * Writes padding 1, 2, 3… (§2.4) and the trailer behind a payload that ends at `at`; the encrypted
 * part ends at `end`.
 */
export function putTrailer(out: Uint8Array, at: number, end: number, nextHeader: number): void {
  const padLength = end - at - TRAILER_BYTES
  for (let i = 0; i < padLength; i++) out[at + i] = i + 1
  out[end - 2] = padLength
  out[end - 1] = nextHeader
}

/**
 * Length of the payload of a decrypted part that stands from `at` to `end`, or -1 when the padding
 * reaches past its start or is not 1, 2, 3… (§2.4: the receiver SHOULD inspect it).
 */
export function payloadBytes(bytes: Uint8Array, at: number, end: number): number {
  const padLength = bytes[end - 2] ?? 0
  const length = end - TRAILER_BYTES - padLength - at
  if (length < 0) return -1
  let difference = 0
  for (let i = 0; i < padLength; i++) difference |= (bytes[at + length + i] ?? 0) ^ ((i + 1) & 0xff)
  return difference === 0 ? length : -1
}

/** The SPI of a packet, 0 when it is too short to have one. */
export function spiOf(view: DataView, at: number, lengthBytes: number): number {
  return lengthBytes >= HEADER_BYTES ? view.getUint32(at) : 0
}
