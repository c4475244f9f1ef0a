/** The Identification payloads IDi and IDr, RFC 7296 §3.5: ID type, three reserved bytes, data. */
import { putBytes } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'
import type { PayloadCodec } from './payload-codec.ts'

const HEADER_BYTES = 4

/** RFC 7296 §3.5; ID_NULL of RFC 7619 §3. */
export const IdType = {
  ID_IPV4_ADDR: 1,
  ID_FQDN: 2,
  ID_RFC822_ADDR: 3,
  ID_IPV6_ADDR: 5,
  ID_DER_ASN1_DN: 9,
  ID_DER_ASN1_GN: 10,
  ID_KEY_ID: 11,
  ID_NULL: 13,
} as const

export interface Identification {
  readonly idType: number
  readonly data: Uint8Array
}

export interface IdentificationPayload<Name extends 'IDi' | 'IDr' = 'IDi' | 'IDr'>
  extends Identification {
  readonly type: Name
}

function identificationCodec<Name extends 'IDi' | 'IDr'>(
  type: Name,
): PayloadCodec<IdentificationPayload<Name>> {
  return {
    check: body => {
      if (body.length < HEADER_BYTES) return WireFault.truncated
      const dataBytes = body.length - HEADER_BYTES
      if (body[0] === IdType.ID_IPV4_ADDR && dataBytes !== 4) return WireFault['bad-value']
      if (body[0] === IdType.ID_IPV6_ADDR && dataBytes !== 16) return WireFault['bad-value']
      return WireFault.none
    },
    parse: body => ({ type, idType: body[0] ?? 0, data: body.subarray(HEADER_BYTES) }),
    bodyBytes: payload => HEADER_BYTES + payload.data.length,
    encode: (payload, out, at) => {
      out[at] = payload.idType
      out.fill(0, at + 1, at + HEADER_BYTES)
      return putBytes(out, at + HEADER_BYTES, payload.data)
    },
  }
}

export const initiatorIdCodec = identificationCodec('IDi')
export const responderIdCodec = identificationCodec('IDr')

/** The payload body that AUTH covers (RFC 7296 §2.15): type, reserved, data. */
export function identificationBody(identification: Identification): Uint8Array {
  const out = new Uint8Array(HEADER_BYTES + identification.data.length)
  initiatorIdCodec.encode({ ...identification, type: 'IDi' }, out, 0)
  return out
}
