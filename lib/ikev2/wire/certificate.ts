/** Certificate and Certificate Request payloads, RFC 7296 §3.6 and §3.7: encoding byte, data. */
import { putBytes } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'
import type { PayloadCodec } from './payload-codec.ts'

/** RFC 7296 §3.6, those in use. */
export const CertificateEncoding = {
  PKCS7: 1,
  X509_SIGNATURE: 4,
  CRL: 7,
  HASH_AND_URL_X509: 12,
  HASH_AND_URL_BUNDLE: 13,
  RAW_PUBLIC_KEY: 15,
} as const

/** SHA-1 of a trust anchor's SubjectPublicKeyInfo (RFC 7296 §3.7). */
export const AUTHORITY_HASH_BYTES = 20

export interface CertificatePayload {
  readonly type: 'CERT'
  readonly encoding: number
  readonly data: Uint8Array
}

export interface CertificateRequestPayload {
  readonly type: 'CERTREQ'
  readonly encoding: number
  /** For X.509: the hashes of `AUTHORITY_HASH_BYTES`, one after the other. */
  readonly authorities: Uint8Array
}

export const certificateCodec: PayloadCodec<CertificatePayload> = {
  check: body => (body.length < 1 ? WireFault.truncated : WireFault.none),
  parse: body => ({ type: 'CERT', encoding: body[0] ?? 0, data: body.subarray(1) }),
  bodyBytes: payload => 1 + payload.data.length,
  encode: (payload, out, at) => {
    out[at] = payload.encoding
    return putBytes(out, at + 1, payload.data)
  },
}

export const certificateRequestCodec: PayloadCodec<CertificateRequestPayload> = {
  check: body => {
    if (body.length < 1) return WireFault.truncated
    return body[0] === CertificateEncoding.X509_SIGNATURE &&
      (body.length - 1) % AUTHORITY_HASH_BYTES !== 0
      ? WireFault['bad-value']
      : WireFault.none
  },
  parse: body => ({ type: 'CERTREQ', encoding: body[0] ?? 0, authorities: body.subarray(1) }),
  bodyBytes: payload => 1 + payload.authorities.length,
  encode: (payload, out, at) => {
    out[at] = payload.encoding
    return putBytes(out, at + 1, payload.authorities)
  },
}
