/**
 * The Encrypted Fragment payload, RFC 7383 §2.5.
 *
 *  |        Fragment Number        |        Total Fragments        |
 *  |            Initialization Vector, encrypted content, ICV      |
 */
import { putBytes, putU16, u16 } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'
import type { PayloadCodec } from './payload-codec.ts'

/** Fragment number and total. */
export const FRAGMENT_FIELDS_BYTES = 4

/** Ours: more fragments than any client sends; the RFC allows 65535. */
export const FRAGMENTS_MAX = 64

export interface EncryptedFragmentPayload {
  readonly type: 'SKF'
  /** From 1. */
  readonly fragmentNumber: number
  readonly totalFragments: number
  readonly data: Uint8Array
}

export const encryptedFragmentCodec: PayloadCodec<EncryptedFragmentPayload> = {
  check: body => {
    if (body.length < FRAGMENT_FIELDS_BYTES) return WireFault.truncated
    const total = u16(body, 2)
    if (total > FRAGMENTS_MAX) return WireFault['too-many']
    const number = u16(body, 0)
    return number === 0 || number > total ? WireFault['bad-value'] : WireFault.none
  },
  parse: body => ({
    type: 'SKF',
    fragmentNumber: u16(body, 0),
    totalFragments: u16(body, 2),
    data: body.subarray(FRAGMENT_FIELDS_BYTES),
  }),
  bodyBytes: payload => FRAGMENT_FIELDS_BYTES + payload.data.length,
  encode: (payload, out, at) => {
    putU16(out, at, payload.fragmentNumber)
    putU16(out, at + 2, payload.totalFragments)
    return putBytes(out, at + FRAGMENT_FIELDS_BYTES, payload.data)
  },
}
