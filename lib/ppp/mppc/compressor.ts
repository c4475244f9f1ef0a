/**
 * MPPC, sending (RFC 2118): a sliding history of 8 KiB and one candidate a hash. It allocates nothing
 * per packet and never expands: what does not shrink is sent as it is, and the history begins anew.
 */
import { MppeBit } from '../mppe/mppe-packet.ts'
import { historyBytes, largeOffset, mediumOffset, minMatchBytes } from './history.ts'

const hashBits = 12
const hashSize = 1 << hashBits
/** Matches are not sought further than this; what is found is good enough. */
const maxMatchBytes = historyBytes - 1

export class MppcCompressor {
  readonly #history = new Uint8Array(historyBytes)
  /** Place in the history of the last three bytes with this hash, plus one; 0: none. */
  readonly #last = new Uint16Array(hashSize)
  readonly #out = new Uint8Array(historyBytes)
  /** Packets begin anew each time, for peers without state. */
  readonly #isStateless: boolean
  #end = 0
  #isFlushDue = true
  #isResetBySelf = false
  /** Length of the last packet that was compressed. */
  compressedBytes = 0
  // The bit writer.
  #outAt = 0
  #accumulator = 0
  #accumulatedBits = 0
  #limit = 0

  constructor(isStateless: boolean) {
    this.#isStateless = isStateless
  }

  /** The peer has lost its history: the next packet begins anew. */
  reset(): void {
    this.#isFlushDue = true
  }

  /**
   * Compresses `length` bytes at `at` in place, when that makes them fewer. Returns the bits A, B and C
   * of the packet's head; with C the packet has `compressedBytes` now.
   */
  compress(bytes: Uint8Array, at: number, length: number): number {
    if (length >= historyBytes) {
      this.#isFlushDue = true
      return 0
    }
    let head = 0
    if (this.#isFlushDue || this.#isStateless) {
      head |= MppeBit.flushed
      this.#clear()
      this.#isFlushDue = false
    }
    if (this.#isResetBySelf || this.#end + length > historyBytes) {
      head |= MppeBit.atFront
      this.#clear()
      this.#isResetBySelf = false
    }
    const start = this.#end
    const history = this.#history
    for (let i = 0; i < length; i++) history[start + i] = bytes[at + i] ?? 0
    this.#end = start + length
    if (!this.#encode(start, start + length, length)) {
      // RFC 2118 §3.2: sent as it is, and both histories begin anew.
      this.#isFlushDue = true
      return 0
    }
    const out = this.#out
    const outBytes = this.#outAt
    for (let i = 0; i < outBytes; i++) bytes[at + i] = out[i] ?? 0
    this.compressedBytes = outBytes
    // RFC 2118 §3.1: at the front of the history, B says so, whatever the reason.
    return head | MppeBit.compressed | (start === 0 ? MppeBit.atFront : 0)
  }

  #clear(): void {
    this.#end = 0
    this.#last.fill(0)
  }

  /** Encodes history[from, end); false when that is not shorter than `length`. */
  #encode(from: number, end: number, length: number): boolean {
    const history = this.#history
    const last = this.#last
    this.#outAt = 0
    this.#accumulator = 0
    this.#accumulatedBits = 0
    this.#limit = length - 1
    let at = from
    while (at < end) {
      if (this.#outAt >= this.#limit) return false
      const a = history[at] ?? 0
      if (end - at < minMatchBytes) {
        this.#putLiteral(a)
        at++
        continue
      }
      const hash = hashOf(a, history[at + 1] ?? 0, history[at + 2] ?? 0)
      const candidate = (last[hash] ?? 0) - 1
      last[hash] = at + 1
      const matched = candidate < 0 ? 0 : this.#matchBytes(candidate, at, end)
      if (matched < minMatchBytes) {
        this.#putLiteral(a)
        at++
        continue
      }
      this.#putOffset(at - candidate)
      this.#putLength(matched)
      // The ends of a match are worth finding; its middle hardly ever is.
      const next = at + matched
      if (next + 1 < end) {
        const near = next - 1
        last[hashOf(history[near] ?? 0, history[near + 1] ?? 0, history[near + 2] ?? 0)] = near + 1
      }
      at = next
    }
    if (this.#accumulatedBits > 0) this.#putBits(0, 8 - this.#accumulatedBits)
    return this.#outAt <= this.#limit
  }

  #matchBytes(candidate: number, at: number, end: number): number {
    const history = this.#history
    const most = Math.min(end - at, maxMatchBytes)
    let matched = 0
    while (matched < most && history[candidate + matched] === history[at + matched]) matched++
    return matched
  }

  #putLiteral(byte: number): void {
    if (byte < 0x80) this.#putBits(byte, 8)
    else this.#putBits(0x100 | (byte & 0x7f), 9)
  }

  #putOffset(offset: number): void {
    if (offset < mediumOffset) this.#putBits(0x3c0 | offset, 10)
    else if (offset < largeOffset) this.#putBits(0xe00 | (offset - mediumOffset), 12)
    else this.#putBits(0xc000 | (offset - largeOffset), 16)
  }

  #putLength(length: number): void {
    if (length === minMatchBytes) {
      this.#putBits(0, 1)
      return
    }
    // 2^n to 2^(n+1) - 1: n - 1 ones, a zero, and the n low bits.
    const n = 31 - Math.clz32(length)
    this.#putBits(((1 << (n - 1)) - 1) << 1, n)
    this.#putBits(length & ((1 << n) - 1), n)
  }

  #putBits(value: number, count: number): void {
    this.#accumulator = (this.#accumulator << count) | value
    let bits = this.#accumulatedBits + count
    while (bits >= 8) {
      bits -= 8
      this.#out[this.#outAt++] = this.#accumulator >>> bits
    }
    this.#accumulator &= (1 << bits) - 1
    this.#accumulatedBits = bits
  }
}

function hashOf(a: number, b: number, c: number): number {
  return ((((a << 16) | (b << 8) | c) * 0x9e35) >>> 8) & (hashSize - 1)
}
