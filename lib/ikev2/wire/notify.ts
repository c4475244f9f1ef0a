/**
 * The Notify payload, RFC 7296 §3.10.
 *
 *  |  Protocol ID  |   SPI Size    |      Notify Message Type      |
 *  |  SPI, then notification data                                  |
 */
import { putBytes, putU16, u16 } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'
import type { PayloadCodec } from './payload-codec.ts'

const HEADER_BYTES = 4

export interface NotifyPayload {
  readonly type: 'N'
  /** Zero when the notification is about the IKE SA (RFC 7296 §3.10). */
  readonly protocolId: number
  readonly spi: Uint8Array
  readonly notifyType: number
  readonly data: Uint8Array
}

const nothing = new Uint8Array(0)

/** A notification about the IKE SA itself. */
export function notify(notifyType: number, data: Uint8Array = nothing): NotifyPayload {
  return { type: 'N', protocolId: 0, spi: nothing, notifyType, data }
}

export const notifyCodec: PayloadCodec<NotifyPayload> = {
  check: body => {
    if (body.length < HEADER_BYTES) return WireFault.truncated
    return HEADER_BYTES + (body[1] ?? 0) > body.length
      ? WireFault['length-overrun']
      : WireFault.none
  },
  parse: body => {
    const dataAt = HEADER_BYTES + (body[1] ?? 0)
    return {
      type: 'N',
      protocolId: body[0] ?? 0,
      spi: body.subarray(HEADER_BYTES, dataAt),
      notifyType: u16(body, 2),
      data: body.subarray(dataAt),
    }
  },
  bodyBytes: payload => HEADER_BYTES + payload.spi.length + payload.data.length,
  encode: (payload, out, at) => {
    out[at] = payload.protocolId
    out[at + 1] = payload.spi.length
    putU16(out, at + 2, payload.notifyType)
    return putBytes(out, putBytes(out, at + HEADER_BYTES, payload.spi), payload.data)
  },
}
