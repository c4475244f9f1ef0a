/**
 * The ISAKMP header: RFC 2408 §3.1.
 *
 *     |                       Initiator Cookie                        |
 *     |                       Responder Cookie                        |
 *     |  Next Payload | MjVer | MnVer | Exchange Type |     Flags     |
 *     |                          Message ID                           |
 *     |                            Length                             |
 */
import { copyBytes, putBytes, putU32, u32 } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'

export interface IsakmpHeader {
  readonly initiatorCookie: Uint8Array
  readonly responderCookie: Uint8Array
  readonly nextPayload: number
  readonly exchangeType: number
  readonly flags: number
  readonly messageId: number
  /** Header and payloads, bytes. */
  readonly length: number
}

export const COOKIE_BYTES = 8
export const HEADER_BYTES = 28
const version1 = 0x10

/** RFC 2408 §3.1. */
export const HeaderFlag = { encryption: 1, commit: 2, authenticationOnly: 4 } as const

/** Implementation constant: with certificate chains and 100 transforms to spare. */
export const LONGEST_MESSAGE_BYTES = 16_384

/** What is wrong with a datagram of `length` bytes at `at`, without the non-ESP marker. */
export function checkHeader(buf: Uint8Array, at: number, length: number): WireFault {
  if (length < HEADER_BYTES) return WireFault.truncated
  if (((buf[at + 17] ?? 0) & 0xf0) !== version1) return WireFault['bad-version']
  const promised = u32(buf, at + 24)
  if (promised < HEADER_BYTES) return WireFault['length-too-small']
  if (promised > length) return WireFault['length-overrun']
  if (promised > LONGEST_MESSAGE_BYTES) return WireFault.oversize
  return WireFault.none
}

/** After `checkHeader` found nothing. */
export function parseHeader(buf: Uint8Array, at: number): IsakmpHeader {
  return {
    initiatorCookie: copyBytes(buf, at, at + COOKIE_BYTES),
    responderCookie: copyBytes(buf, at + 8, at + 8 + COOKIE_BYTES),
    nextPayload: buf[at + 16] ?? 0,
    exchangeType: buf[at + 18] ?? 0,
    flags: buf[at + 19] ?? 0,
    messageId: u32(buf, at + 20),
    length: u32(buf, at + 24),
  }
}

export function encodeHeader(header: IsakmpHeader, out: Uint8Array, at: number): number {
  const to = putBytes(out, putBytes(out, at, header.initiatorCookie), header.responderCookie)
  out[to] = header.nextPayload
  out[to + 1] = version1
  out[to + 2] = header.exchangeType
  out[to + 3] = header.flags
  return putU32(out, putU32(out, to + 4, header.messageId), header.length)
}
