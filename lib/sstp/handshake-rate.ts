/**
 * How many handshakes one address may start in a second: the handshake is the first thing that costs
 * us more than it costs a stranger. A fixed window keeps what must be remembered to one second's worth.
 */
import type { Clock } from '../core/clock.ts'

const WINDOW_MS = 1_000

export class HandshakeRate {
  readonly #clock: Clock
  readonly #perSecond: number
  readonly #counts = new Map<string, number>()
  #windowStartMs: number

  constructor(clock: Clock, perSecond: number) {
    this.#clock = clock
    this.#perSecond = perSecond
    this.#windowStartMs = clock.nowMs()
  }

  /** Whether `address` may start one more now; if so, it is counted. */
  take(address: string): boolean {
    const nowMs = this.#clock.nowMs()
    if (nowMs - this.#windowStartMs >= WINDOW_MS) {
      this.#windowStartMs = nowMs
      this.#counts.clear()
    }
    const count = this.#counts.get(address) ?? 0
    if (count >= this.#perSecond) return false
    this.#counts.set(address, count + 1)
    return true
  }
}
