/**
 * The receiver's anti-replay window, RFC 4303 §3.4.3, kept as RFC 6479 §2 keeps it: a ring of words
 * that slides by clearing whole words, so that the cost does not depend on the window's size.
 *
 * A sequence number is a JavaScript number here. With extended sequence numbers the receiver is told
 * the low 32 bits and infers the rest (RFC 4303 appendix A); beyond 2^53 nothing is accepted.
 */
import { EspDrop } from './esp-drop.ts'

export const MIN_WINDOW_PACKETS = 64
export const MAX_WINDOW_PACKETS = 65_536
const wordBits = 32
const lowRange = 2 ** 32

const noRing = new Uint32Array(0)

export class ReplayWindow {
  readonly sizePackets: number
  readonly #hasEsn: boolean
  /** Made by the first packet: an SA that waits takes no room for it. */
  #ring: Uint32Array = noRing
  readonly #ringMask: number
  /** The highest sequence number that was authentic. */
  #top = 0
  /** The halves of it. */
  #topHigh = 0
  #topLow = 0

  /** `sizePackets` is raised to 64 and cut to 65,536. */
  constructor(sizePackets: number, hasEsn: boolean) {
    this.sizePackets = Math.min(Math.max(sizePackets, MIN_WINDOW_PACKETS), MAX_WINDOW_PACKETS)
    this.#hasEsn = hasEsn
    // One word more than the window: the word that the top is in may be partly ahead of it.
    const words = Math.ceil(this.sizePackets / wordBits) + 1
    this.#ringMask = 2 ** Math.ceil(Math.log2(words)) - 1
  }

  get top(): number {
    return this.#top
  }

  /**
   * The high 32 bits that go with the low ones of a packet: 0 without ESN, otherwise those that put
   * it nearest to the window (RFC 4303 appendix A2.2). -1 when that lies before the first packet.
   */
  highOf(low: number): number {
    return this.#hasEsn ? this.#inferred(low) : 0
  }

  /** Before the ICV is checked: 0 when the packet may be new, otherwise why it is not. */
  check(high: number, low: number): 0 | EspDrop {
    const sequence = high * lowRange + low
    // Below 0: the high half was -1.
    if (sequence <= 0) return sequence === 0 ? EspDrop['zero-sequence'] : EspDrop['too-old']
    if (sequence > this.#top) {
      return sequence <= Number.MAX_SAFE_INTEGER ? 0 : EspDrop['too-old']
    }
    if (this.#top - sequence >= this.sizePackets) return EspDrop['too-old']
    const word = this.#ring[(low >>> 5) & this.#ringMask] ?? 0
    return (word >>> (low & 31)) & 1 ? EspDrop.replayed : 0
  }

  /** After the ICV was right: notes a packet that passed `check`. */
  accept(high: number, low: number): void {
    const sequence = high * lowRange + low
    if (this.#ring === noRing) this.#ring = new Uint32Array(this.#ringMask + 1)
    if (sequence > this.#top) {
      // Mostly it is the next one, in the same word.
      if (sequence !== this.#top + 1 || (low & (wordBits - 1)) === 0) this.#slide(sequence, low)
      this.#top = sequence
      this.#topHigh = high
      this.#topLow = low
    }
    const index = (low >>> 5) & this.#ringMask
    this.#ring[index] = (this.#ring[index] ?? 0) | (1 << (low & 31))
  }

  #inferred(low: number): number {
    const topHigh = this.#topHigh
    const bottom = this.#topLow - this.sizePackets + 1
    if (bottom >= 0) return low >= bottom ? topHigh : topHigh + 1
    return low >= bottom + lowRange ? topHigh - 1 : topHigh
  }

  /** Clears the words between that of the top and that of `sequence`, this one included. */
  #slide(sequence: number, low: number): void {
    const words = Math.floor(sequence / wordBits) - Math.floor(this.#top / wordBits)
    const cleared = Math.min(words, this.#ring.length)
    // 2^32 is a multiple of the ring's bits, so the low half alone says which word.
    const from = low >>> 5
    for (let i = 0; i < cleared; i++) this.#ring[(from - i) & this.#ringMask] = 0
  }
}
