/**
 * The SAs that packets come in by: RFC 4301 §4.4.2, for unicast, so the SPI alone says which. The
 * peer's address is no part of the key: a NAT may change it at any time.
 */

import { u32 } from '../core/bytes.ts'
import { type RandomSource, randomBytes } from '../core/random.ts'
import { spiOf } from './esp.ts'
import { DropCounters, EspDrop } from './esp-drop.ts'
import type { InboundSa } from './inbound-sa.ts'

/** RFC 4303 §2.1: 1 to 255 are reserved, and 0 never travels. */
const firstSpi = 256
/** Draws before giving up: with 2^31 SPIs taken each draw would still succeed every other time. */
const maxDraws = 64

export class SaDatabase<Owner> {
  readonly #entries = new Map<number, { readonly sa: InboundSa; readonly owner: Owner }>()
  /** The entry of the last `find`: neighbours mostly belong together, and big numbers hash slowly. */
  #lastSpi = 0
  #lastEntry: { readonly sa: InboundSa; readonly owner: Owner } | undefined
  /** SPIs that IKE has offered and whose SA does not stand yet. */
  readonly #reserved = new Set<number>()
  /** Packets that no SA could be asked about. */
  readonly drops = new DropCounters()

  get size(): number {
    return this.#entries.size
  }

  /** An SPI that nobody uses, kept until `add` or `release`. */
  reserveSpi(random: RandomSource): number {
    for (let draw = 0; draw < maxDraws; draw++) {
      const spi = u32(randomBytes(random, 4), 0)
      if (spi < firstSpi || this.#entries.has(spi) || this.#reserved.has(spi)) continue
      this.#reserved.add(spi)
      return spi
    }
    throw new RangeError('no free SPI in 64 draws: the random source repeats itself')
  }

  /** Gives back an SPI whose SA never came to be. */
  release(spi: number): void {
    this.#reserved.delete(spi)
  }

  add(sa: InboundSa, owner: Owner): void {
    this.#reserved.delete(sa.spi)
    this.#lastEntry = undefined
    this.#entries.set(sa.spi, { sa, owner })
  }

  /** Takes an SA out and closes it. */
  remove(spi: number): void {
    this.#lastEntry = undefined
    this.#entries.get(spi)?.sa.close()
    this.#entries.delete(spi)
  }

  /** The SA and its owner, without a count. */
  get(spi: number): { readonly sa: InboundSa; readonly owner: Owner } | undefined {
    return this.#entries.get(spi)
  }

  /** The SA of an ESP packet; undefined is counted: too short, or an SPI that nobody has. */
  find(
    view: DataView,
    at: number,
    lengthBytes: number,
  ): { readonly sa: InboundSa; readonly owner: Owner } | undefined {
    const spi = spiOf(view, at, lengthBytes)
    if (spi === this.#lastSpi && this.#lastEntry !== undefined) return this.#lastEntry
    const entry = this.#entries.get(spi)
    this.#lastSpi = spi
    this.#lastEntry = entry
    if (entry === undefined)
      this.drops.count(spi === 0 ? EspDrop.truncated : EspDrop['unknown-spi'])
    return entry
  }
}
