/** The Authentication payload, RFC 7296 §3.8: method, three reserved bytes, data. */
import { putBytes } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'
import type { PayloadCodec } from './payload-codec.ts'

const HEADER_BYTES = 4

/** IANA registry "IKEv2 Authentication Method": RFC 7296 §3.8, RFC 4754 §2, RFC 7427 §3. */
export const AuthMethod = {
  RSA_SIGNATURE: 1,
  SHARED_KEY: 2,
  ECDSA_SHA256_P256: 9,
  ECDSA_SHA384_P384: 10,
  ECDSA_SHA512_P521: 11,
  NULL: 13,
  DIGITAL_SIGNATURE: 14,
} as const

export interface AuthenticationPayload {
  readonly type: 'AUTH'
  readonly method: number
  readonly data: Uint8Array
}

export const authenticationCodec: PayloadCodec<AuthenticationPayload> = {
  check: body => (body.length < HEADER_BYTES ? WireFault.truncated : WireFault.none),
  parse: body => ({ type: 'AUTH', method: body[0] ?? 0, data: body.subarray(HEADER_BYTES) }),
  bodyBytes: payload => HEADER_BYTES + payload.data.length,
  encode: (payload, out, at) => {
    out[at] = payload.method
    out.fill(0, at + 1, at + HEADER_BYTES)
    return putBytes(out, at + HEADER_BYTES, payload.data)
  },
}
