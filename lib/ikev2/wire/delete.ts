/**
 * The Delete payload, RFC 7296 §3.11.
 *
 *  |  Protocol ID  |   SPI Size    |          Num of SPIs          |
 *  |  SPIs                                                         |
 */
import { putBytes, putU16, u16 } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'
import type { PayloadCodec } from './payload-codec.ts'
import { ProtocolId } from './security-association.ts'

const HEADER_BYTES = 4
const ESP_SPI_BYTES = 4

/** Ours: more Child SAs than one IKE SA of ours can have. */
const SPIS_MAX = 256

export interface DeletePayload {
  readonly type: 'D'
  readonly protocolId: number
  /** The sender's inbound SPIs; empty for the IKE SA itself. */
  readonly spis: readonly Uint8Array[]
}

export const deleteCodec: PayloadCodec<DeletePayload> = {
  check: body => {
    if (body.length < HEADER_BYTES) return WireFault.truncated
    const spiBytes = body[1] ?? 0
    const count = u16(body, 2)
    if (count > SPIS_MAX) return WireFault['too-many']
    // The IKE SA is deleted without an SPI, all others have SPIs of 4 bytes (RFC 7296 §3.11).
    const expectedSpiBytes = body[0] === ProtocolId.IKE ? 0 : ESP_SPI_BYTES
    if (spiBytes !== expectedSpiBytes) return WireFault['bad-value']
    if (spiBytes === 0 && count !== 0) return WireFault['bad-value']
    return HEADER_BYTES + spiBytes * count === body.length
      ? WireFault.none
      : WireFault['length-overrun']
  },
  parse: body => {
    const spis: Uint8Array[] = []
    const spiBytes = body[1] ?? 0
    for (let i = 0; i < u16(body, 2); i++) {
      const at = HEADER_BYTES + i * spiBytes
      spis.push(body.subarray(at, at + spiBytes))
    }
    return { type: 'D', protocolId: body[0] ?? 0, spis }
  },
  bodyBytes: payload => payload.spis.reduce((sum, spi) => sum + spi.length, HEADER_BYTES),
  encode: (payload, out, at) => {
    out[at] = payload.protocolId
    out[at + 1] = payload.spis[0]?.length ?? 0
    let next = putU16(out, at + 2, payload.spis.length)
    for (const spi of payload.spis) next = putBytes(out, next, spi)
    return next
  },
}
