/** Reassembly of one fragmented message, RFC 7383 §2.6. Holds authenticated fragments only. */
import { copyBytes } from '../core/bytes.ts'
import { MESSAGE_MAX_BYTES } from './wire/header.ts'

/** Ours: how long an incomplete message is kept. */
export const FRAGMENTS_LIFETIME_MS = 15_000

export type FragmentOutcome = 'stored' | 'complete' | 'duplicate' | 'smaller-total' | 'oversize'

export class FragmentSet {
  readonly messageId: number
  #total = 0
  #innerType = 0
  #bytes = 0
  readonly #parts = new Map<number, Uint8Array>()
  /** Largest datagram seen: our answer may be as large (RFC 7383 §2.5.1). */
  #largestBytes = 0

  constructor(messageId: number) {
    this.messageId = messageId
  }

  get innerType(): number {
    return this.#innerType
  }

  get largestBytes(): number {
    return this.#largestBytes
  }

  add(
    fragmentNumber: number,
    totalFragments: number,
    innerType: number,
    plaintext: Uint8Array,
    datagramBytes: number,
  ): FragmentOutcome {
    if (totalFragments < this.#total) return 'smaller-total'
    if (totalFragments > this.#total) {
      // The sender has cut the message anew, smaller (RFC 7383 §2.5.2).
      this.#parts.clear()
      this.#bytes = 0
      this.#total = totalFragments
      this.#largestBytes = 0
    }
    if (this.#parts.has(fragmentNumber)) return 'duplicate'
    if (this.#bytes + plaintext.length > MESSAGE_MAX_BYTES) return 'oversize'
    // copied: outlives the datagram
    this.#parts.set(fragmentNumber, copyBytes(plaintext))
    this.#bytes += plaintext.length
    this.#largestBytes = Math.max(this.#largestBytes, datagramBytes)
    if (fragmentNumber === 1) this.#innerType = innerType
    return this.#parts.size === this.#total ? 'complete' : 'stored'
  }

  /** All parts in order; after `complete`. */
  join(): Uint8Array {
    const out = new Uint8Array(this.#bytes)
    let at = 0
    for (let number = 1; number <= this.#total; number++) {
      const part = this.#parts.get(number)
      if (part === undefined) continue
      out.set(part, at)
      at += part.length
    }
    return out
  }
}
