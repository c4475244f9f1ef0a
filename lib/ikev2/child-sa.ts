/** One Child SA as the IKE SA remembers it; keys and counters are with ESP. RFC 7296 §2.8. */
import { putU32, u32 } from '../core/bytes.ts'
import type { EspSuite } from './suite.ts'
import type { TrafficSelector } from './wire/traffic-selector.ts'

/** What packets may be, by the addresses on our side and on the peer's. */
export interface SelectorPair {
  readonly local: readonly TrafficSelector[]
  readonly remote: readonly TrafficSelector[]
}

export interface ChildSa {
  readonly inboundSpi: number
  readonly outboundSpi: number
  readonly suite: EspSuite
  readonly mode: 'tunnel' | 'transport'
  readonly selectors: SelectorPair
  /** Our Delete is on its way. */
  isDeleting: boolean
  /** Inbound SPI of the Child SA that came in its place. */
  replacedBy: number | undefined
}

export function spiBytes(spi: number): Uint8Array {
  const out = new Uint8Array(4)
  putU32(out, 0, spi)
  return out
}

export function spiNumber(bytes: Uint8Array): number {
  return u32(bytes, 0)
}

/** Order of nonces in collisions (RFC 7296 §2.8.1): byte by byte, a prefix is lower. */
export function compareNonces(a: Uint8Array, b: Uint8Array): number {
  const common = Math.min(a.length, b.length)
  for (let i = 0; i < common; i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0)
    if (difference !== 0) return difference
  }
  return a.length - b.length
}

export function lowestNonce(...nonces: readonly Uint8Array[]): Uint8Array {
  return nonces.reduce((lowest, nonce) => (compareNonces(nonce, lowest) < 0 ? nonce : lowest))
}
