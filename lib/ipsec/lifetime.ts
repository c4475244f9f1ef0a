/**
 * How long an SA may be used: RFC 4301 §4.4.2.1. A soft limit asks for a rekey, a hard limit ends the
 * SA. Volumes are counted per packet; time is looked at when somebody polls.
 */

import { u16 } from '../core/bytes.ts'
import type { RandomSource } from '../core/random.ts'

export interface LifetimeLimits {
  /** `Infinity` where there is no limit. */
  readonly timeMs: number
  readonly bytes: number
  readonly packets: number
}

export interface LifetimeOptions {
  readonly soft: LifetimeLimits
  readonly hard: LifetimeLimits
}

export const unlimited: LifetimeLimits = {
  timeMs: Number.POSITIVE_INFINITY,
  bytes: Number.POSITIVE_INFINITY,
  packets: Number.POSITIVE_INFINITY,
}

export type LifetimeMeasure = 'time' | 'bytes' | 'packets'

export interface LifetimeEvent {
  readonly limit: 'soft' | 'hard'
  readonly measure: LifetimeMeasure
}

/** Packets and bytes that one SA carried, with its limits. */
export class Lifetime {
  readonly #soft: LifetimeLimits
  readonly #hard: LifetimeLimits
  readonly #startMs: number
  readonly #hasHardVolume: boolean
  #packets = 0
  #bytes = 0
  #isSoftTold = false
  #isHardTold = false

  constructor(options: LifetimeOptions, nowMs: number) {
    this.#soft = options.soft
    this.#hard = options.hard
    this.#startMs = nowMs
    const { packets, bytes } = options.hard
    this.#hasHardVolume = packets !== unlimited.packets || bytes !== unlimited.bytes
  }

  get packets(): number {
    return this.#packets
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Whether a hard volume limit has been reached: the SA must not carry another packet. */
  get isSpent(): boolean {
    return this.#hasHardVolume && this.#isVolumeSpent()
  }

  /** One packet of `lengthBytes` was carried. */
  count(lengthBytes: number): void {
    this.#packets++
    this.#bytes += lengthBytes
  }

  /** A limit that was passed since the last call; each is reported once, a hard one before a soft one. */
  poll(nowMs: number): LifetimeEvent | undefined {
    if (this.#isHardTold) return undefined
    const hard = this.#passed(this.#hard, nowMs)
    if (hard !== undefined) {
      this.#isHardTold = true
      return { limit: 'hard', measure: hard }
    }
    if (this.#isSoftTold) return undefined
    const soft = this.#passed(this.#soft, nowMs)
    if (soft === undefined) return undefined
    this.#isSoftTold = true
    return { limit: 'soft', measure: soft }
  }

  /** When the next time limit runs out, monotonic ms; `Infinity` when none does. */
  nextDeadlineMs(): number {
    if (this.#isHardTold) return Number.POSITIVE_INFINITY
    const next = this.#isSoftTold
      ? this.#hard.timeMs
      : Math.min(this.#soft.timeMs, this.#hard.timeMs)
    return this.#startMs + next
  }

  #isVolumeSpent(): boolean {
    return this.#packets >= this.#hard.packets || this.#bytes >= this.#hard.bytes
  }

  #passed(limits: LifetimeLimits, nowMs: number): LifetimeMeasure | undefined {
    if (nowMs - this.#startMs >= limits.timeMs) return 'time'
    if (this.#bytes >= limits.bytes) return 'bytes'
    return this.#packets >= limits.packets ? 'packets' : undefined
  }
}

/**
 * Soft limits for hard ones: `marginShare` (for example 0.1) earlier, and by up to as much again at
 * random, so that two sides with equal limits rarely rekey at once.
 */
export function softLimits(
  hard: LifetimeLimits,
  marginShare: number,
  random: RandomSource,
): LifetimeLimits {
  const draw = new Uint8Array(2)
  random.fill(draw)
  const share = 1 - marginShare * (1 + u16(draw, 0) / 0x1_0000)
  return {
    timeMs: hard.timeMs * share,
    bytes: hard.bytes * share,
    packets: hard.packets * share,
  }
}
