/**
 * Payloads whose body is one field: Nonce (RFC 7296 §3.9), Vendor ID (§3.12), Encrypted (§3.14) and
 * EAP (§3.16). What an EAP body holds is checked by whoever runs EAP.
 */
import { putBytes } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'
import type { PayloadCodec } from './payload-codec.ts'

/** RFC 7296 §3.9. */
export const NONCE_MIN_BYTES = 16
export const NONCE_MAX_BYTES = 256

/** RFC 3748 §4: code, identifier, length. */
const EAP_HEADER_BYTES = 4

export interface OpaquePayload<Name extends string> {
  readonly type: Name
  readonly data: Uint8Array
}

export type NoncePayload = OpaquePayload<'Nonce'>
export type VendorIdPayload = OpaquePayload<'V'>
export type EncryptedPayload = OpaquePayload<'SK'>
export type EapPayload = OpaquePayload<'EAP'>

function opaqueCodec<Name extends string>(
  type: Name,
  minBytes: number,
  maxBytes: number,
): PayloadCodec<OpaquePayload<Name>> {
  return {
    check: body => {
      if (body.length < minBytes) return WireFault.truncated
      return body.length > maxBytes ? WireFault.oversize : WireFault.none
    },
    parse: body => ({ type, data: body }),
    bodyBytes: payload => payload.data.length,
    encode: (payload, out, at) => putBytes(out, at, payload.data),
  }
}

const BODY_MAX_BYTES = 65_531

export const nonceCodec = opaqueCodec('Nonce', NONCE_MIN_BYTES, NONCE_MAX_BYTES)
export const vendorIdCodec = opaqueCodec('V', 0, BODY_MAX_BYTES)
export const encryptedCodec = opaqueCodec('SK', 0, BODY_MAX_BYTES)
export const eapCodec = opaqueCodec('EAP', EAP_HEADER_BYTES, BODY_MAX_BYTES)
