/** Time as a value. Nothing outside this file reads a clock of the operating system. */

/** Monotonic milliseconds; only differences mean something. */
export interface Clock {
  nowMs(): number
}

// The global is a getter that costs more than the clock behind it.
const { performance: monotonic } = globalThis

export const systemClock: Clock = {
  nowMs: () => monotonic.now(),
}

/** Wall time, for logs, accounting and certificates only: it may jump. */
export interface WallClock {
  now(): Date
}

export const systemWallClock: WallClock = {
  now: () => new Date(),
}

/** A clock that stands still until it is moved: tests and simulations. */
export class ManualClock implements Clock {
  #nowMs: number

  constructor(startMs = 0) {
    this.#nowMs = startMs
  }

  nowMs(): number {
    return this.#nowMs
  }

  advance(byMs: number): void {
    this.#nowMs += byMs
  }

  set(nowMs: number): void {
    this.#nowMs = Math.max(this.#nowMs, nowMs)
  }
}
