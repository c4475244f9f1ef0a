/**
 * A simulated network between machines: loss, duplication, reordering and latency from a seed, time
 * from a manual clock. Nothing sleeps; `run` moves the clock to whatever happens next.
 */
import { ManualClock } from '../../lib/core/clock.ts'
import { SeededRandom } from '../../lib/core/random.ts'

export interface LossyLinkOptions {
  readonly seed: number
  readonly latencyMs?: number
  readonly lossPercent?: number
  readonly duplicatePercent?: number
  /** Share of packets that are held back by up to 10 latencies. */
  readonly reorderPercent?: number
}

export interface Station {
  nextDeadlineMs(): number
  onDeadline(nowMs: number): void
}

interface InFlight {
  readonly atMs: number
  readonly order: number
  readonly deliver: () => void
}

export class LossyLink {
  readonly clock = new ManualClock()
  readonly #random: SeededRandom
  readonly #options: Required<LossyLinkOptions>
  readonly #stations: Station[] = []
  #inFlight: InFlight[] = []
  #order = 0
  sentCount = 0
  lostCount = 0

  constructor(options: LossyLinkOptions) {
    this.#options = {
      latencyMs: 20,
      lossPercent: 0,
      duplicatePercent: 0,
      reorderPercent: 0,
      ...options,
    }
    this.#random = new SeededRandom(options.seed)
  }

  add(station: Station): void {
    this.#stations.push(station)
  }

  /** Carries a copy of `bytes`; the copy is overwritten after delivery, so that nobody can keep it. */
  send(bytes: Uint8Array, receive: (bytes: Uint8Array) => void): void {
    this.sentCount++
    if (this.#percent() < this.#options.lossPercent) {
      this.lostCount++
      return
    }
    const copies = this.#percent() < this.#options.duplicatePercent ? 2 : 1
    for (let i = 0; i < copies; i++) {
      const copy = Uint8Array.from(bytes)
      let delayMs = this.#options.latencyMs * (1 + i)
      if (this.#percent() < this.#options.reorderPercent) {
        delayMs += (this.#options.latencyMs * this.#percent()) / 10
      }
      const deliver = () => {
        receive(copy)
        copy.fill(0xa5)
      }
      this.#inFlight.push({ atMs: this.clock.nowMs() + delayMs, order: this.#order++, deliver })
    }
  }

  /** Runs until `isDone`, until `forMs` have passed, or until nothing is left to happen. */
  run(forMs: number, isDone: () => boolean = () => false): boolean {
    const endMs = this.clock.nowMs() + forMs
    for (let steps = 0; steps < 200_000; steps++) {
      if (isDone()) return true
      this.#inFlight.sort((a, b) => a.atMs - b.atMs || a.order - b.order)
      const packetMs = this.#inFlight[0]?.atMs ?? Number.POSITIVE_INFINITY
      let timerMs = Number.POSITIVE_INFINITY
      let station: Station | undefined
      for (const candidate of this.#stations) {
        if (candidate.nextDeadlineMs() >= timerMs) continue
        timerMs = candidate.nextDeadlineMs()
        station = candidate
      }
      const nextMs = Math.min(packetMs, timerMs)
      if (nextMs > endMs) {
        this.clock.set(endMs)
        return isDone()
      }
      this.clock.set(nextMs)
      if (packetMs <= timerMs) {
        const [next, ...rest] = this.#inFlight
        this.#inFlight = rest
        next?.deliver()
      } else station?.onDeadline(this.clock.nowMs())
    }
    throw new Error('the simulation does not come to rest')
  }

  #percent(): number {
    return this.#random.next() % 100
  }
}
