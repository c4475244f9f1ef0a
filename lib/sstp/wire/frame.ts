/**
 * SSTP packets on the byte stream ([MS-SSTP] §2.2.1): where one ends and the next begins.
 *
 *  0                   1                   2                   3
 *  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 * +---------------+-------------+-+-------+-----------------------+
 * |    Version    |  Reserved   |C|   R   |        Length         |
 * +---------------+-------------+-+-------+-----------------------+
 * |  C = 0: a PPP frame;  C = 1: a control message …
 * +---------------------------------------------------------------+
 *
 * Length counts the whole packet with these four bytes. Reserved bits are ignored.
 */
import { WireFault } from '../../core/faults.ts'

const FLAGS_AT = 1
const LENGTH_AT = 2
const CONTROL_BIT = 0x01
const LENGTH_HIGH_MASK = 0x0f

export const FRAME_HEADER_BYTES = 4
/** The length field has 12 bits. */
export const MAX_FRAME_BYTES = 0xfff
/** The largest PPP frame, from the address field on, that one SSTP packet carries. */
export const MAX_PPP_FRAME_BYTES = MAX_FRAME_BYTES - FRAME_HEADER_BYTES
/** Version 1.0 as one byte. */
export const SSTP_VERSION = 0x10

/** The header is not complete yet. */
export const needMore = 0

/**
 * Length in bytes of the packet that starts at `at`, `needMore` while its header is not complete, or
 * a negated WireFault after which the stream cannot be followed any more (§3.1.5.1). The body may
 * still be on its way: compare the length with `end - at`. Every positive result is at least
 * FRAME_HEADER_BYTES, so a loop over it makes progress.
 */
export function frameBytes(buf: Uint8Array, at: number, end: number): number {
  if (end - at < FRAME_HEADER_BYTES) return needMore
  if (buf[at] !== SSTP_VERSION) return -WireFault['bad-version']
  const length =
    (((buf[at + LENGTH_AT] ?? 0) & LENGTH_HIGH_MASK) << 8) | (buf[at + LENGTH_AT + 1] ?? 0)
  return length < FRAME_HEADER_BYTES ? -WireFault['length-too-small'] : length
}

/** Whether the packet at `at` is a control message. Only after `frameBytes`. */
export function isControlFrame(buf: Uint8Array, at: number): boolean {
  return ((buf[at + FLAGS_AT] ?? 0) & CONTROL_BIT) !== 0
}

/** Writes the header of a packet of `lengthBytes` in all and returns the offset after it. */
export function putFrameHeader(
  out: Uint8Array,
  at: number,
  isControl: boolean,
  lengthBytes: number,
): number {
  out[at] = SSTP_VERSION
  out[at + FLAGS_AT] = isControl ? CONTROL_BIT : 0
  out[at + LENGTH_AT] = lengthBytes >>> 8
  out[at + LENGTH_AT + 1] = lengthBytes
  return at + FRAME_HEADER_BYTES
}
