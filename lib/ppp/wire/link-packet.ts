/**
 * Data of the LCP packets that are not about options: Echo-Request and Echo-Reply (RFC 1661 §5.8),
 * Identification and Time-Remaining (RFC 1570 §2.1, §2.2), Protocol-Reject (RFC 1661 §5.7).
 *
 * ```
 *  0                   1                   2                   3
 *  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |                         Magic-Number                          |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |    Data ...       (Time-Remaining: seconds, 32 bits, then text)
 * +-+-+-+-+
 * ```
 */
import { copyBytes, putBytes, putU16, putU32, u16, u32 } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'

export const magicNumberBytes = 4
const timeRemainingBytes = 8
const rejectedProtocolBytes = 2

/** For every packet that begins with a magic number. */
export function checkMagicPacket(data: Uint8Array): WireFault {
  return data.length < magicNumberBytes ? WireFault.truncated : WireFault.none
}

export function magicOf(data: Uint8Array): number {
  return u32(data, 0)
}

export function encodeMagicPacket(magicNumber: number, rest: Uint8Array): Uint8Array {
  const data = new Uint8Array(magicNumberBytes + rest.length)
  putBytes(data, putU32(data, 0, magicNumber), rest)
  return data
}

/** What follows the magic number. */
export function restOf(data: Uint8Array): Uint8Array {
  return copyBytes(data, magicNumberBytes)
}

export function checkTimeRemaining(data: Uint8Array): WireFault {
  return data.length < timeRemainingBytes ? WireFault.truncated : WireFault.none
}

/** Seconds; 0xffffffff means forever. */
export function secondsRemaining(data: Uint8Array): number {
  return u32(data, magicNumberBytes)
}

export function checkProtocolReject(data: Uint8Array): WireFault {
  return data.length < rejectedProtocolBytes ? WireFault.truncated : WireFault.none
}

export function rejectedProtocolOf(data: Uint8Array): number {
  return u16(data, 0)
}

/** Quotes as much of `information` as keeps the data within `maxBytes`. */
export function encodeProtocolReject(
  protocol: number,
  information: Uint8Array,
  maxBytes: number,
): Uint8Array {
  const quotedBytes = Math.max(0, Math.min(information.length, maxBytes - rejectedProtocolBytes))
  const data = new Uint8Array(rejectedProtocolBytes + quotedBytes)
  putBytes(data, putU16(data, 0, protocol), copyBytes(information, 0, quotedBytes))
  return data
}

/** The bytes as text when all of them are printable ASCII, else undefined. */
export function printableText(bytes: Uint8Array): string | undefined {
  let text = ''
  for (const byte of bytes) {
    if (byte < 0x20 || byte > 0x7e) return undefined
    text += String.fromCharCode(byte)
  }
  return text === '' ? undefined : text
}
