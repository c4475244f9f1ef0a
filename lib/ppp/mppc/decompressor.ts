/**
 * MPPC, receiving (RFC 2118). The history is the output: a packet is decoded behind the last one, and
 * whoever sent it cannot make us read before the history or write behind it.
 */
import { MppeBit } from '../mppe/mppe-packet.ts'
import { historyBytes, largeOffset, mediumOffset } from './history.ts'

const malformed = -1

export class MppcDecompressor {
  readonly #history = new Uint8Array(historyBytes)
  #end = 0
  #lastAt = 0
  #lastBytes = 0
  /** The history is not what the peer's is, until a packet begins anew. */
  #isWaiting = false
  // The bit reader.
  #from = 0
  #fromEnd = 0
  #accumulator = 0
  #accumulatedBits = 0
  #bytes: Uint8Array = new Uint8Array(0)
  #isExhausted = false

  /**
   * Whether the packet with `head` may be decompressed: none was lost before it, or it begins anew. For
   * links without MPPE, which looks after that by itself.
   */
  follows(isNext: boolean, head: number): boolean {
    if ((head & MppeBit.flushed) !== 0) this.#isWaiting = false
    else if (!isNext) this.#isWaiting = true
    return !this.#isWaiting
  }

  /**
   * Takes the packet with head `head`, `length` bytes at `at`. Returns the length of its plain form, or
   * a negative number: it is malformed, and so are all until the peer begins anew. A compressed
   * packet's plain form is had with `copyLast`; any other is what it was.
   */
  decompress(head: number, bytes: Uint8Array, at: number, length: number): number {
    if ((head & MppeBit.flushed) !== 0) {
      this.#isWaiting = false
      this.#end = 0
    }
    if (this.#isWaiting) return malformed
    if ((head & MppeBit.compressed) === 0) {
      // Not in the history: RFC 2118 §3.2, the sender begins anew after it.
      return length
    }
    if ((head & MppeBit.atFront) !== 0) this.#end = 0
    this.#bytes = bytes
    this.#from = at
    this.#fromEnd = at + length
    this.#accumulator = 0
    this.#accumulatedBits = 0
    this.#isExhausted = false
    this.#lastAt = this.#end
    if (!this.#decode()) {
      this.#isWaiting = true
      return malformed
    }
    this.#lastBytes = this.#end - this.#lastAt
    return this.#lastBytes
  }

  /** Copies the plain form of the packet that was decompressed last. */
  copyLast(to: Uint8Array, at: number): void {
    const history = this.#history
    const from = this.#lastAt
    for (let i = 0; i < this.#lastBytes; i++) to[at + i] = history[from + i] ?? 0
  }

  #decode(): boolean {
    const history = this.#history
    // Padding is fewer than 8 zero bits, and no symbol is shorter than 8 bits.
    while (this.#bitsLeft() >= 8) {
      let end = this.#end
      if (this.#take(1) === 0) {
        if (end >= historyBytes) return false
        history[end] = this.#take(7)
        this.#end = end + 1
        continue
      }
      if (this.#take(1) === 0) {
        if (end >= historyBytes) return false
        history[end] = 0x80 | this.#take(7)
        this.#end = end + 1
        continue
      }
      const offset = this.#takeOffset()
      const length = this.#takeLength()
      if (this.#isExhausted || length === 0 || offset === 0 || offset > end) return false
      if (end + length > historyBytes) return false
      for (let i = 0; i < length; i++, end++) history[end] = history[end - offset] ?? 0
      this.#end = end
    }
    return !this.#isExhausted
  }

  /** Behind the first two ones. */
  #takeOffset(): number {
    if (this.#take(1) === 0) return largeOffset + this.#take(13)
    return this.#take(1) === 0 ? mediumOffset + this.#take(8) : this.#take(6)
  }

  /** 0 when no length begins so. */
  #takeLength(): number {
    if (this.#take(1) === 0) return 3
    for (let n = 2; n <= 12; n++) {
      if (this.#take(1) === 0) return (1 << n) | this.#take(n)
      if (this.#isExhausted) return 0
    }
    return 0
  }

  #bitsLeft(): number {
    return (this.#fromEnd - this.#from) * 8 + this.#accumulatedBits
  }

  #take(count: number): number {
    while (this.#accumulatedBits < count) {
      if (this.#from >= this.#fromEnd) {
        this.#isExhausted = true
        return 0
      }
      this.#accumulator = ((this.#accumulator << 8) | (this.#bytes[this.#from++] ?? 0)) & 0xffffff
      this.#accumulatedBits += 8
    }
    this.#accumulatedBits -= count
    return (this.#accumulator >>> this.#accumulatedBits) & ((1 << count) - 1)
  }
}
