/** NAT detection by hashes of SPIs, address and port, RFC 7296 §2.23. */
import { equalBytes, putU16 } from '../core/bytes.ts'
import { digest } from '../crypto/hash.ts'
import { addressBytes, type Endpoint, type Path } from './path.ts'
import { allPayloads } from './wire/message.ts'
import { type NotifyPayload, notify } from './wire/notify.ts'
import { NotifyType } from './wire/notify-type.ts'
import type { Payload } from './wire/payload.ts'

export interface NatState {
  readonly isLocalBehindNat: boolean
  readonly isPeerBehindNat: boolean
}

export interface SpiPair {
  readonly initiatorSpi: Uint8Array
  readonly responderSpi: Uint8Array
}

/** SHA-1 of SPIi, SPIr, address, port. */
export function natHash(spis: SpiPair, endpoint: Endpoint): Uint8Array {
  const port = new Uint8Array(2)
  putU16(port, 0, endpoint.port)
  return digest('sha1', spis.initiatorSpi, spis.responderSpi, addressBytes(endpoint.address), port)
}

/**
 * The two notifications. `forcesEncapsulation` lies about our own address, so that the peer finds a
 * NAT and encapsulates ESP in UDP: for networks that drop protocol 50.
 */
export function natNotifies(
  spis: SpiPair,
  path: Path,
  forcesEncapsulation: boolean,
): NotifyPayload[] {
  const source = natHash(spis, path.local)
  if (forcesEncapsulation) source[0] = (source[0] ?? 0) ^ 0xff
  return [
    notify(NotifyType.NAT_DETECTION_SOURCE_IP, source),
    notify(NotifyType.NAT_DETECTION_DESTINATION_IP, natHash(spis, path.peer)),
  ]
}

/** What the peer's notifications say; undefined when it sent none and so cannot NAT traversal. */
export function detectNat(
  payloads: readonly Payload[],
  spis: SpiPair,
  path: Path,
): NatState | undefined {
  const notifies = allPayloads(payloads, 'N')
  const sources = notifies.filter(n => n.notifyType === NotifyType.NAT_DETECTION_SOURCE_IP)
  const destinations = notifies.filter(
    n => n.notifyType === NotifyType.NAT_DETECTION_DESTINATION_IP,
  )
  if (sources.length === 0 || destinations.length === 0) return undefined
  const peerHash = natHash(spis, path.peer)
  const localHash = natHash(spis, path.local)
  return {
    isLocalBehindNat: !destinations.some(n => equalBytes(n.data, localHash)),
    // A multi-homed peer sends one hash per address of its own.
    isPeerBehindNat: !sources.some(n => equalBytes(n.data, peerHash)),
  }
}
