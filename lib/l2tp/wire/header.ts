/**
 * The header of L2TPv2 control and data messages (RFC 2661 §3.1).
 *
 *      0                   1                   2                   3
 *     |T|L|x|x|S|x|O|P|x|x|x|x|  Ver  |          Length (opt)         |
 *     |           Tunnel ID           |           Session ID          |
 *     |             Ns (opt)          |             Nr (opt)          |
 *     |      Offset Size (opt)        |    Offset pad... (opt)        |
 *
 * Data messages pass here per packet: numbers in, numbers out, nothing allocated.
 */
import { putU16, u16 } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'

/** T: a control message. */
const T = 0x8000
/** L: the Length field is present. */
const L = 0x4000
/** S: Ns and Nr are present. */
const S = 0x0800
/** O: the Offset Size field is present. */
const O = 0x0200
/** P: a data message to be preferred in queues. */
const P = 0x0100
const versionMask = 0x000f
const version = 2

/** Fixed length of a control header: T, L and S are set, O is not. */
export const CONTROL_HEADER_BYTES = 12
/** The data header that we send: L set, no sequence numbers. */
export const DATA_HEADER_BYTES = 8
/** The data header that we send when sequence numbers are asked for. */
export const SEQUENCED_DATA_HEADER_BYTES = 12
const shortestHeaderBytes = 6

/**
 * What is wrong with the `length` bytes at `at`. After `none` the accessors below cannot read past
 * them, and the payload is at least 0 bytes long.
 */
export function checkHeader(buf: Uint8Array, at: number, length: number): WireFault {
  if (length < shortestHeaderBytes) return WireFault.truncated
  const flags = u16(buf, at)
  if ((flags & versionMask) !== version) return WireFault['bad-version']
  // §3.1: in control messages L and S must be set, O and P must not.
  if ((flags & T) !== 0 && (flags & (L | S | O | P)) !== (L | S)) return WireFault['bad-flags']
  const fixed = fixedBytes(flags)
  if (length < fixed) return WireFault.truncated
  const end = (flags & L) !== 0 ? u16(buf, at + 2) : length
  if (end < fixed) return WireFault['length-too-small']
  if (end > length) return WireFault['length-overrun']
  if ((flags & O) !== 0 && fixed + u16(buf, at + fixed - 2) > end) {
    return WireFault['length-overrun']
  }
  return WireFault.none
}

export function isControl(buf: Uint8Array, at: number): boolean {
  return ((buf[at] ?? 0) & 0x80) !== 0
}

/** Only a data message has this bit (§3.1, P). */
export function isPriority(buf: Uint8Array, at: number): boolean {
  return ((buf[at] ?? 0) & 0x01) !== 0
}

export function hasSequence(buf: Uint8Array, at: number): boolean {
  return (u16(buf, at) & S) !== 0
}

export function tunnelIdOf(buf: Uint8Array, at: number): number {
  return u16(buf, at + lengthFieldBytes(u16(buf, at)) + 2)
}

export function sessionIdOf(buf: Uint8Array, at: number): number {
  return u16(buf, at + lengthFieldBytes(u16(buf, at)) + 4)
}

/** Meaningful only when `hasSequence`. */
export function nsOf(buf: Uint8Array, at: number): number {
  return u16(buf, at + lengthFieldBytes(u16(buf, at)) + 6)
}

/** Meaningful only when `hasSequence`. */
export function nrOf(buf: Uint8Array, at: number): number {
  return u16(buf, at + lengthFieldBytes(u16(buf, at)) + 8)
}

/** Where the payload begins, relative to the header: behind the offset pad. */
export function headerBytes(buf: Uint8Array, at: number): number {
  const flags = u16(buf, at)
  const fixed = fixedBytes(flags)
  return (flags & O) !== 0 ? fixed + u16(buf, at + fixed - 2) : fixed
}

/** Header and payload together: the Length field where present, else all of `length`. */
export function messageBytes(buf: Uint8Array, at: number, length: number): number {
  return (u16(buf, at) & L) !== 0 ? u16(buf, at + 2) : length
}

/** Writes a control header; `length` counts header and AVPs. Returns the offset after it. */
export function encodeControlHeader(
  out: Uint8Array,
  at: number,
  length: number,
  tunnelId: number,
  sessionId: number,
  ns: number,
  nr: number,
): number {
  let to = putU16(out, at, T | L | S | version)
  to = putU16(out, to, length)
  to = putU16(out, to, tunnelId)
  to = putU16(out, to, sessionId)
  to = putU16(out, to, ns)
  return putU16(out, to, nr)
}

/**
 * Writes a data header (`40 02`) into the headroom before a payload; returns where the message
 * starts, `DATA_HEADER_BYTES` before `payloadAt`.
 */
export function encodeDataHeader(
  out: Uint8Array,
  payloadAt: number,
  payloadBytes: number,
  tunnelId: number,
  sessionId: number,
): number {
  const at = payloadAt - DATA_HEADER_BYTES
  putU16(out, at, L | version)
  putU16(out, at + 2, DATA_HEADER_BYTES + payloadBytes)
  putU16(out, at + 4, tunnelId)
  putU16(out, at + 6, sessionId)
  return at
}

/** As `encodeDataHeader`, with Ns; Nr is reserved in data messages and 0 (§3.1). */
export function encodeSequencedDataHeader(
  out: Uint8Array,
  payloadAt: number,
  payloadBytes: number,
  tunnelId: number,
  sessionId: number,
  ns: number,
): number {
  const at = payloadAt - SEQUENCED_DATA_HEADER_BYTES
  putU16(out, at, L | S | version)
  putU16(out, at + 2, SEQUENCED_DATA_HEADER_BYTES + payloadBytes)
  putU16(out, at + 4, tunnelId)
  putU16(out, at + 6, sessionId)
  putU16(out, at + 8, ns)
  putU16(out, at + 10, 0)
  return at
}

function lengthFieldBytes(flags: number): number {
  return (flags & L) !== 0 ? 2 : 0
}

function fixedBytes(flags: number): number {
  return (
    shortestHeaderBytes +
    lengthFieldBytes(flags) +
    ((flags & S) !== 0 ? 4 : 0) +
    ((flags & O) !== 0 ? 2 : 0)
  )
}
