/**
 * The packet that LCP, the NCPs, PAP and CHAP share (RFC 1661 §5).
 *
 * ```
 *  0                   1                   2                   3
 *  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |     Code      |  Identifier   |            Length             |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |    Data ...
 * +-+-+-+-+
 * ```
 */
import { copyBytes, putBytes, putU16, u16 } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'

const IDENTIFIER_AT = 1
const LENGTH_AT = 2
export const controlHeaderBytes = 4

/** RFC 1661 §5; 12 and 13 are RFC 1570 §2. Codes 1 to 7 are those of every control protocol. */
export const ControlCode = {
  configureRequest: 1,
  configureAck: 2,
  configureNak: 3,
  configureReject: 4,
  terminateRequest: 5,
  terminateAck: 6,
  codeReject: 7,
  protocolReject: 8,
  echoRequest: 9,
  echoReply: 10,
  discardRequest: 11,
  identification: 12,
  timeRemaining: 13,
} as const

/** A control packet whose data is a copy of its own. */
export interface ControlPacket {
  readonly code: number
  readonly identifier: number
  readonly data: Uint8Array
}

/** The only place that looks at lengths. Bytes behind the length field are padding (RFC 1661 §2). */
export function checkControlPacket(bytes: Uint8Array, at: number, length: number): WireFault {
  if (length < controlHeaderBytes) return WireFault.truncated
  const declared = u16(bytes, at + LENGTH_AT)
  if (declared < controlHeaderBytes) return WireFault['length-too-small']
  if (declared > length) return WireFault['length-overrun']
  return WireFault.none
}

/** Cannot fail after `checkControlPacket`. */
export function parseControlPacket(bytes: Uint8Array, at: number): ControlPacket {
  const end = at + u16(bytes, at + LENGTH_AT)
  return {
    code: bytes[at] ?? 0,
    identifier: bytes[at + IDENTIFIER_AT] ?? 0,
    data: copyBytes(bytes, at + controlHeaderBytes, end), // copied: outlives the burst
  }
}

export function controlPacketBytes(packet: ControlPacket): number {
  return controlHeaderBytes + packet.data.length
}

export function putControlPacket(packet: ControlPacket, out: Uint8Array, at: number): number {
  out[at] = packet.code
  out[at + IDENTIFIER_AT] = packet.identifier
  putU16(out, at + LENGTH_AT, controlPacketBytes(packet))
  return putBytes(out, at + controlHeaderBytes, packet.data)
}

/** The packet as bytes of its own. */
export function encodeControlPacket(packet: ControlPacket): Uint8Array {
  const out = new Uint8Array(controlPacketBytes(packet))
  putControlPacket(packet, out, 0)
  return out
}
