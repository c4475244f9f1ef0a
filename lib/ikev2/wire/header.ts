/**
 * The IKE header, RFC 7296 §3.1.
 *
 *  0                   1                   2                   3
 *  |               IKE SA initiator's SPI (8 octets)              |
 *  |               IKE SA responder's SPI (8 octets)              |
 *  | Next payload  | MjVer | MnVer | Exchange type |     Flags     |
 *  |                          Message ID                           |
 *  |                            Length                             |
 */
import { putBytes, putU32, u32 } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'

export const HEADER_BYTES = 28
export const SPI_BYTES = 8

/** Ours: the longest message that we hold, fragments put together. */
export const MESSAGE_MAX_BYTES = 65_536

const RESPONDER_SPI_AT = 8
const NEXT_PAYLOAD_AT = 16
const VERSION_AT = 17
const EXCHANGE_TYPE_AT = 18
const FLAGS_AT = 19
const MESSAGE_ID_AT = 20
const LENGTH_AT = 24

const VERSION = 0x20
const FLAG_INITIATOR = 0x08
const FLAG_HIGHER_VERSION = 0x10
const FLAG_RESPONSE = 0x20

export interface Header {
  readonly initiatorSpi: Uint8Array
  readonly responderSpi: Uint8Array
  readonly nextPayload: number
  readonly exchangeType: number
  /** Sent by the original initiator of this IKE SA. */
  readonly isFromInitiator: boolean
  readonly isResponse: boolean
  /** The sender could speak a higher major version. */
  readonly canHigherVersion: boolean
  readonly messageId: number
  /** Whole message, header included. */
  readonly lengthBytes: number
}

/** What is wrong with the header of a datagram of exactly this message. */
export function checkHeader(buf: Uint8Array): WireFault {
  if (buf.length < HEADER_BYTES) return WireFault.truncated
  if ((buf[VERSION_AT] ?? 0) >>> 4 !== VERSION >>> 4) return WireFault['bad-version']
  const lengthBytes = u32(buf, LENGTH_AT)
  if (lengthBytes < HEADER_BYTES) return WireFault['length-too-small']
  if (lengthBytes > MESSAGE_MAX_BYTES) return WireFault.oversize
  if (lengthBytes > buf.length) return WireFault['length-overrun']
  if (lengthBytes < buf.length) return WireFault['bad-value']
  return WireFault.none
}

/** Views into `buf`; after `checkHeader`. */
export function parseHeader(buf: Uint8Array): Header {
  const flags = buf[FLAGS_AT] ?? 0
  return {
    initiatorSpi: buf.subarray(0, RESPONDER_SPI_AT),
    responderSpi: buf.subarray(RESPONDER_SPI_AT, NEXT_PAYLOAD_AT),
    nextPayload: buf[NEXT_PAYLOAD_AT] ?? 0,
    exchangeType: buf[EXCHANGE_TYPE_AT] ?? 0,
    isFromInitiator: (flags & FLAG_INITIATOR) !== 0,
    isResponse: (flags & FLAG_RESPONSE) !== 0,
    canHigherVersion: (flags & FLAG_HIGHER_VERSION) !== 0,
    messageId: u32(buf, MESSAGE_ID_AT),
    lengthBytes: u32(buf, LENGTH_AT),
  }
}

/** Writes 28 bytes and returns the offset after them. */
export function encodeHeader(header: Header, out: Uint8Array, at: number): number {
  putBytes(out, at, header.initiatorSpi)
  putBytes(out, at + RESPONDER_SPI_AT, header.responderSpi)
  out[at + NEXT_PAYLOAD_AT] = header.nextPayload
  out[at + VERSION_AT] = VERSION
  out[at + EXCHANGE_TYPE_AT] = header.exchangeType
  out[at + FLAGS_AT] =
    (header.isFromInitiator ? FLAG_INITIATOR : 0) |
    (header.isResponse ? FLAG_RESPONSE : 0) |
    (header.canHigherVersion ? FLAG_HIGHER_VERSION : 0)
  putU32(out, at + MESSAGE_ID_AT, header.messageId)
  return putU32(out, at + LENGTH_AT, header.lengthBytes)
}
