/** The Key Exchange payload, RFC 7296 §3.4: group number, two reserved bytes, public value. */
import { putBytes, putU16, u16 } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'
import type { PayloadCodec } from './payload-codec.ts'

const HEADER_BYTES = 4

export interface KeyExchangePayload {
  readonly type: 'KE'
  /** Transform ID of type 4 or of an additional key exchange. */
  readonly group: number
  readonly publicValue: Uint8Array
}

export const keyExchangeCodec: PayloadCodec<KeyExchangePayload> = {
  check: body => (body.length < HEADER_BYTES ? WireFault.truncated : WireFault.none),
  parse: body => ({ type: 'KE', group: u16(body, 0), publicValue: body.subarray(HEADER_BYTES) }),
  bodyBytes: payload => HEADER_BYTES + payload.publicValue.length,
  encode: (payload, out, at) =>
    putBytes(out, putU16(out, putU16(out, at, payload.group), 0), payload.publicValue),
}
