/**
 * The head of a multilink fragment (RFC 1990 §3), behind the PPP protocol 0x003d, with long or short
 * sequence numbers.
 *
 * ```
 *  0                   1                   2                   3
 *  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |B|E|0|0|0|0|0|0|        Sequence Number (24 bits)              |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |B|E|0|0| Sequence Number (12)  |   or so, when the receiver has asked for it (§5.1.2)
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * ```
 */
import { putU16, putU32, u16, u32 } from '../../core/bytes.ts'

/** The first octet. */
export const FragmentBit = { begin: 0x80, end: 0x40 } as const

/** How sequence numbers are written. */
export interface SequenceForm {
  readonly headerBytes: number
  readonly bits: number
  /** Every number modulo this plus one. */
  readonly mask: number
}

export const longSequence: SequenceForm = { headerBytes: 4, bits: 24, mask: 0xff_ffff }
export const shortSequence: SequenceForm = { headerBytes: 2, bits: 12, mask: 0x0fff }

/** Only when there are `headerBytes` bytes at `at`. */
export function fragmentSequence(form: SequenceForm, bytes: Uint8Array, at: number): number {
  return (form.headerBytes === 2 ? u16(bytes, at) : u32(bytes, at)) & form.mask
}

/** Writes the head at `at`; returns the offset behind it. */
export function putFragmentHeader(
  form: SequenceForm,
  out: Uint8Array,
  at: number,
  flags: number,
  sequence: number,
): number {
  return form.headerBytes === 2
    ? putU16(out, at, (flags << 8) | sequence)
    : putU32(out, at, ((flags << 24) | sequence) >>> 0)
}

/** How far `to` is ahead of `from`: negative when it is behind. */
export function sequenceDistance(form: SequenceForm, from: number, to: number): number {
  const unused = 32 - form.bits
  return ((to - from) << unused) >> unused
}
