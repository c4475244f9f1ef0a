/**
 * AVPs inside EAP-TTLS, RFC 5281 §10.1: those of Diameter.
 *
 *  |                         AVP Code                              |
 *  |V M r r r r r r|              AVP Length                       |
 *  |                   Vendor-ID, when V is set                    |
 *  |  Data ..., padded to 4 bytes
 */
import { concatBytes, copyBytes, putBytes, putU32, u32 } from '../core/bytes.ts'

const HEADER_BYTES = 8
const VENDOR_BYTES = 4
const FLAG_VENDOR = 0x80
const FLAG_MANDATORY = 0x40
/** Ours: one log-in takes three, EAP a few dozen pieces. */
const MOST_AVPS = 64

export interface Avp {
  readonly code: number
  /** 0: of RADIUS. */
  readonly vendorId: number
  readonly isMandatory: boolean
  readonly data: Uint8Array
}

/** Undefined when it is malformed. Every AVP has a header, so the loop makes progress. */
export function parseAvps(bytes: Uint8Array): Avp[] | undefined {
  const avps: Avp[] = []
  let at = 0
  while (at < bytes.length) {
    if (avps.length >= MOST_AVPS || bytes.length - at < HEADER_BYTES) return undefined
    const flags = bytes[at + 4] ?? 0
    const lengthBytes = u32(bytes, at + 4) & 0xffffff
    const hasVendor = (flags & FLAG_VENDOR) !== 0
    const headBytes = HEADER_BYTES + (hasVendor ? VENDOR_BYTES : 0)
    if (lengthBytes < headBytes || lengthBytes > bytes.length - at) return undefined
    avps.push({
      code: u32(bytes, at),
      vendorId: hasVendor ? u32(bytes, at + HEADER_BYTES) : 0,
      isMandatory: (flags & FLAG_MANDATORY) !== 0,
      data: copyBytes(bytes, at + headBytes, at + lengthBytes),
    })
    at += (lengthBytes + 3) & ~3
  }
  return avps
}

function encodeAvp({ code, vendorId, isMandatory, data }: Avp): Uint8Array {
  const headBytes = HEADER_BYTES + (vendorId === 0 ? 0 : VENDOR_BYTES)
  const lengthBytes = headBytes + data.length
  const out = new Uint8Array((lengthBytes + 3) & ~3)
  putU32(out, 0, code)
  putU32(out, 4, lengthBytes)
  out[4] = (vendorId === 0 ? 0 : FLAG_VENDOR) | (isMandatory ? FLAG_MANDATORY : 0)
  if (vendorId !== 0) putU32(out, HEADER_BYTES, vendorId)
  putBytes(out, headBytes, data)
  return out
}

export function encodeAvps(avps: readonly Avp[]): Uint8Array {
  return concatBytes(...avps.map(encodeAvp))
}
