/**
 * EAP packets, RFC 3748 §4.
 *
 *  |     Code      |  Identifier   |            Length             |
 *  |     Type      |  Type-Data ... (Requests and Responses only)  |
 */
import { putBytes, putU16, u16 } from '../core/bytes.ts'
import { WireFault } from '../core/faults.ts'

export const EAP_HEADER_BYTES = 4
const TYPE_AT = 4

export const EapCode = { Request: 1, Response: 2, Success: 3, Failure: 4 } as const

/** RFC 3748 §5 and the IANA registry "EAP Method Types". */
export const EapType = {
  Identity: 1,
  Notification: 2,
  Nak: 3,
  'MD5-Challenge': 4,
  GTC: 6,
  TLS: 13,
  TTLS: 21,
  PEAP: 25,
  MSCHAPv2: 26,
  Expanded: 254,
} as const

export type EapPacket =
  | {
      readonly code: 'request' | 'response'
      readonly identifier: number
      readonly eapType: number
      readonly typeData: Uint8Array
    }
  | { readonly code: 'success' | 'failure'; readonly identifier: number }

const codes = { request: 1, response: 2, success: 3, failure: 4 } as const

/** Bytes after the length field's end are padding of the lower layer (RFC 3748 §4.1) and ignored. */
export function checkEapPacket(buf: Uint8Array): WireFault {
  if (buf.length < EAP_HEADER_BYTES) return WireFault.truncated
  const lengthBytes = u16(buf, 2)
  if (lengthBytes < EAP_HEADER_BYTES) return WireFault['length-too-small']
  if (lengthBytes > buf.length) return WireFault['length-overrun']
  switch (buf[0]) {
    case EapCode.Request:
    case EapCode.Response:
      return lengthBytes > EAP_HEADER_BYTES ? WireFault.none : WireFault['length-too-small']
    case EapCode.Success:
    case EapCode.Failure:
      return WireFault.none
    default:
      return WireFault['unknown-type']
  }
}

/** After `checkEapPacket`; holds a view into `buf`. */
export function parseEapPacket(buf: Uint8Array): EapPacket {
  const identifier = buf[1] ?? 0
  if (buf[0] === EapCode.Success) return { code: 'success', identifier }
  if (buf[0] === EapCode.Failure) return { code: 'failure', identifier }
  return {
    code: buf[0] === EapCode.Request ? 'request' : 'response',
    identifier,
    eapType: buf[TYPE_AT] ?? 0,
    typeData: buf.subarray(TYPE_AT + 1, u16(buf, 2)),
  }
}

export function eapPacketBytes(packet: EapPacket): number {
  return 'eapType' in packet ? TYPE_AT + 1 + packet.typeData.length : EAP_HEADER_BYTES
}

export function encodeEapPacket(packet: EapPacket, out: Uint8Array, at: number): number {
  out[at] = codes[packet.code]
  out[at + 1] = packet.identifier
  putU16(out, at + 2, eapPacketBytes(packet))
  if (!('eapType' in packet)) return at + EAP_HEADER_BYTES
  out[at + TYPE_AT] = packet.eapType
  return putBytes(out, at + TYPE_AT + 1, packet.typeData)
}

export function eapPacketOf(packet: EapPacket): Uint8Array {
  const out = new Uint8Array(eapPacketBytes(packet))
  encodeEapPacket(packet, out, 0)
  return out
}
