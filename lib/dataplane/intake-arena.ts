/** Room for received tunnel data of one burst: handed out from the bottom up, all given back at once. */
import { InvariantError } from '../core/errors.ts'
import type { PinnedMemory } from './dataplane.ts'

/** Data starts at a multiple of this, so that headers in it are aligned more often than not. */
const ALIGN_BYTES = 16

export class IntakeArena {
  /** The largest piece that one call may ask for. */
  readonly maxPieceBytes: number
  readonly #firstAt: number
  readonly #sizeBytes: number
  #usedBytes = 0

  constructor(memory: PinnedMemory, sizeBytes: number) {
    this.#firstAt = memory.allocate(sizeBytes)
    this.#sizeBytes = sizeBytes
    this.maxPieceBytes = Math.floor(sizeBytes / 8)
  }

  get isEmpty(): boolean {
    return this.#usedBytes === 0
  }

  /** Offset of `lengthBytes` free bytes, or -1 when the arena is full. */
  take(lengthBytes: number): number {
    if (!(lengthBytes >= 0 && lengthBytes <= this.maxPieceBytes)) {
      throw new InvariantError(
        `intake of ${lengthBytes} bytes: at most ${this.maxPieceBytes} at a time`,
      )
    }
    const end = this.#usedBytes + lengthBytes
    if (end > this.#sizeBytes) return -1
    const at = this.#firstAt + this.#usedBytes
    this.#usedBytes = Math.min(this.#sizeBytes, (end + ALIGN_BYTES - 1) & ~(ALIGN_BYTES - 1))
    return at
  }

  reset(): void {
    this.#usedBytes = 0
  }
}
