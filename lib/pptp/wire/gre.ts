/**
 * The enhanced GRE header that carries PPP (RFC 2637 §4.1), read and written by numbers.
 *
 * ```
 *  0                   1                   2                   3
 *  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |C|R|K|S|s|Recur|A| Flags | Ver |         Protocol Type         |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |    Key (HW) Payload Length    |       Key (LW) Call ID        |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |                  Sequence Number (Optional)                   |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |               Acknowledgment Number (Optional)                |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * ```
 */
import { putU16, putU32, u16, u32 } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'

const VERSION_AT = 1
const PROTOCOL_AT = 2
const PAYLOAD_LENGTH_AT = 4
const CALL_ID_AT = 6
const FIRST_OPTIONAL_AT = 8

export const GRE_HEADER_MIN_BYTES = 8
/** With sequence and acknowledgment number. */
export const GRE_HEADER_MAX_BYTES = 16

/** Specification constants, RFC 2637 §4.1. */
const KEY_PRESENT = 0x20
const SEQUENCE_PRESENT = 0x10
const ACKNOWLEDGMENT_PRESENT = 0x80
/** Checksum, routing, strict source route, recursion control: all zero. */
const FIRST_RESERVED = 0xcf
const SECOND_RESERVED = 0x78
const VERSION_MASK = 0x07
const ENHANCED_VERSION = 1
const PPP_PROTOCOL = 0x880b

/** Whether `length` bytes at `at` are one enhanced GRE packet; bytes behind the payload are padding. */
export function checkGre(bytes: Uint8Array, at: number, length: number): WireFault {
  if (length < GRE_HEADER_MIN_BYTES) return WireFault.truncated
  const first = bytes[at] ?? 0
  const second = bytes[at + VERSION_AT] ?? 0
  if ((second & VERSION_MASK) !== ENHANCED_VERSION) return WireFault['bad-version']
  if (u16(bytes, at + PROTOCOL_AT) !== PPP_PROTOCOL) return WireFault['bad-magic']
  const isBad = (first & FIRST_RESERVED) !== 0 || (second & SECOND_RESERVED) !== 0
  if (isBad || (first & KEY_PRESENT) === 0) return WireFault['bad-flags']
  const payloadBytes = grePayloadBytes(bytes, at)
  // RFC 2637 §4.1: the sequence number is there exactly when there is a payload.
  if (payloadBytes > 0 && !greHasSequence(bytes, at)) return WireFault['bad-flags']
  return greHeaderBytes(bytes, at) + payloadBytes > length
    ? WireFault['length-overrun']
    : WireFault.none
}

export function grePayloadBytes(bytes: Uint8Array, at: number): number {
  return u16(bytes, at + PAYLOAD_LENGTH_AT)
}

/** The call id that the receiver of the packet has given to the call. */
export function greCallId(bytes: Uint8Array, at: number): number {
  return u16(bytes, at + CALL_ID_AT)
}

export function greHasSequence(bytes: Uint8Array, at: number): boolean {
  return ((bytes[at] ?? 0) & SEQUENCE_PRESENT) !== 0
}

export function greHasAcknowledgment(bytes: Uint8Array, at: number): boolean {
  return ((bytes[at + VERSION_AT] ?? 0) & ACKNOWLEDGMENT_PRESENT) !== 0
}

export function greHeaderBytes(bytes: Uint8Array, at: number): number {
  return (
    FIRST_OPTIONAL_AT +
    (greHasSequence(bytes, at) ? 4 : 0) +
    (greHasAcknowledgment(bytes, at) ? 4 : 0)
  )
}

/** Only when `greHasSequence`. */
export function greSequence(bytes: Uint8Array, at: number): number {
  return u32(bytes, at + FIRST_OPTIONAL_AT)
}

/** Only when `greHasAcknowledgment`. */
export function greAcknowledgment(bytes: Uint8Array, at: number): number {
  return u32(bytes, at + FIRST_OPTIONAL_AT + (greHasSequence(bytes, at) ? 4 : 0))
}

/** Writes the 12-byte header of a packet with a payload at `at`; returns the offset behind it. */
export function putGreData(
  out: Uint8Array,
  at: number,
  payloadBytes: number,
  callId: number,
  sequence: number,
): number {
  putFixed(out, at, KEY_PRESENT | SEQUENCE_PRESENT, ENHANCED_VERSION, payloadBytes, callId)
  return putU32(out, at + FIRST_OPTIONAL_AT, sequence)
}

/** The same with an acknowledgment: 16 bytes. */
export function putGreDataWithAcknowledgment(
  out: Uint8Array,
  at: number,
  payloadBytes: number,
  callId: number,
  sequence: number,
  acknowledgment: number,
): number {
  const second = ACKNOWLEDGMENT_PRESENT | ENHANCED_VERSION
  putFixed(out, at, KEY_PRESENT | SEQUENCE_PRESENT, second, payloadBytes, callId)
  return putU32(out, putU32(out, at + FIRST_OPTIONAL_AT, sequence), acknowledgment)
}

/** A packet that does nothing but acknowledge: 12 bytes. */
export function putGreAcknowledgment(
  out: Uint8Array,
  at: number,
  callId: number,
  acknowledgment: number,
): number {
  putFixed(out, at, KEY_PRESENT, ACKNOWLEDGMENT_PRESENT | ENHANCED_VERSION, 0, callId)
  return putU32(out, at + FIRST_OPTIONAL_AT, acknowledgment)
}

function putFixed(
  out: Uint8Array,
  at: number,
  first: number,
  second: number,
  payloadBytes: number,
  callId: number,
): void {
  out[at] = first
  out[at + VERSION_AT] = second
  putU16(out, putU16(out, putU16(out, at + PROTOCOL_AT, PPP_PROTOCOL), payloadBytes), callId)
}
