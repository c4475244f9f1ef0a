/** Randomness as a value. */
import { randomFillSync } from 'node:crypto'
import { u32 } from './bytes.ts'

export interface RandomSource {
  /** Overwrites `out` with random bytes. */
  fill(out: Uint8Array): void
}

/** The operating system's CSPRNG. */
export const systemRandom: RandomSource = {
  fill: out => {
    randomFillSync(out)
  },
}

/** Repeatable and not secret: tests, simulations and the fault injector. xorshift32. */
export class SeededRandom implements RandomSource {
  #state: number

  constructor(seed: number) {
    this.#state = (seed | 0) === 0 ? 0x9e3779b9 : seed | 0
  }

  next(): number {
    let x = this.#state
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    this.#state = x
    return x >>> 0
  }

  fill(out: Uint8Array): void {
    for (let i = 0; i < out.length; i++) out[i] = this.next() >>> 11
  }
}

/** `length` fresh random bytes. */
export function randomBytes(random: RandomSource, length: number): Uint8Array {
  const out = new Uint8Array(length)
  random.fill(out)
  return out
}

/** A random 32-bit number that is not zero: magic numbers, identifiers. */
export function randomU32(random: RandomSource): number {
  for (;;) {
    const value = u32(randomBytes(random, 4), 0)
    if (value !== 0) return value
  }
}
