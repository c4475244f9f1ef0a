/**
 * Asks a silent peer whether it lives: RFC 3706. Numbers and times only; the messages are the
 * machine's.
 */
import { putU32, u32 } from '../core/bytes.ts'
import { type RandomSource, randomU32 } from '../core/random.ts'

/** Implementation constants. */
export const defaultDpdAfterMs = 30_000
const retryMs = 5_000
const mostTries = 5

export type DpdVerdict =
  | { readonly type: 'silent' }
  /** Send R-U-THERE with this sequence number. */
  | { readonly type: 'ask'; readonly sequence: Uint8Array }
  | { readonly type: 'gone' }

export class DeadPeerDetection {
  readonly #afterMs: number
  #sequence: number
  #lastAliveMs = 0
  #tries = 0
  #deadlineMs = Number.POSITIVE_INFINITY

  /** `afterMs` 0 never asks. */
  constructor(random: RandomSource, afterMs: number) {
    this.#afterMs = afterMs
    // Half of the numbers are left to count up (RFC 3706 §6.2).
    this.#sequence = randomU32(random) >>> 1
  }

  /** Before phase 1 is up, and with peers that cannot answer, nobody is asked. */
  start(nowMs: number, canAnswer: boolean): void {
    this.#lastAliveMs = nowMs
    if (canAnswer && this.#afterMs > 0) this.#deadlineMs = nowMs + this.#afterMs
  }

  stop(): void {
    this.#deadlineMs = Number.POSITIVE_INFINITY
  }

  /** Something authentic came. */
  heard(nowMs: number): void {
    this.#lastAliveMs = nowMs
    this.#tries = 0
  }

  isAnswer(data: Uint8Array): boolean {
    return u32(data, 0) === this.#sequence
  }

  nextDeadlineMs(): number {
    return this.#deadlineMs
  }

  onTimeout(nowMs: number): DpdVerdict {
    if (nowMs < this.#deadlineMs) return { type: 'silent' }
    if (nowMs - this.#lastAliveMs < this.#afterMs) {
      this.#tries = 0
      this.#deadlineMs = this.#lastAliveMs + this.#afterMs
      return { type: 'silent' }
    }
    if (this.#tries === mostTries) {
      this.stop()
      return { type: 'gone' }
    }
    this.#tries++
    this.#sequence = (this.#sequence + 1) >>> 0
    this.#deadlineMs = nowMs + retryMs
    const sequence = new Uint8Array(4)
    putU32(sequence, 0, this.#sequence)
    return { type: 'ask', sequence }
  }
}
