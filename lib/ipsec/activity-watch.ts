/**
 * Watches whether a pair of SAs is in use, by comparing counters at every poll: nothing is done per
 * packet. Idle: no packet either way (netsh `idletimeout`). Outage: we send and nothing authentic
 * comes back, or nothing comes at all (netsh `nwoutagetime`): the peer has lost its network.
 */

export interface ActivityLimits {
  /** `Infinity` switches the watch off. */
  readonly idleMs: number
  readonly outageMs: number
}

export type ActivityEvent = 'idle' | 'outage'

export class ActivityWatch {
  readonly #limits: ActivityLimits
  #received = 0
  #sent = 0
  #lastUsedMs: number
  #lastHeardMs: number
  #isTold = false

  constructor(limits: ActivityLimits, nowMs: number) {
    this.#limits = limits
    this.#lastUsedMs = nowMs
    this.#lastHeardMs = nowMs
  }

  get lastUsedMs(): number {
    return this.#lastUsedMs
  }

  get lastHeardMs(): number {
    return this.#lastHeardMs
  }

  /** Something authentic came outside the SAs: an answered liveness check (RFC 7296 §2.4). */
  heard(nowMs: number): void {
    this.#lastHeardMs = Math.max(this.#lastHeardMs, nowMs)
    this.#isTold = false
  }

  /**
   * Takes the packets carried so far (they may start anew after a rekey) and says what has run out,
   * once until there is activity again. Precise to the distance between polls.
   */
  poll(nowMs: number, receivedPackets: number, sentPackets: number): ActivityEvent | undefined {
    if (receivedPackets !== this.#received) this.#lastHeardMs = nowMs
    if (receivedPackets !== this.#received || sentPackets !== this.#sent) {
      this.#lastUsedMs = nowMs
      this.#isTold = false
    }
    this.#received = receivedPackets
    this.#sent = sentPackets
    const event = this.#runOut(nowMs)
    if (event === undefined || this.#isTold) return undefined
    this.#isTold = true
    return event
  }

  /** The earliest time at which `poll` can have something to say, monotonic ms. */
  nextDeadlineMs(): number {
    if (this.#isTold) return Number.POSITIVE_INFINITY
    return Math.min(
      this.#lastUsedMs + this.#limits.idleMs,
      this.#lastHeardMs + this.#limits.outageMs,
    )
  }

  #runOut(nowMs: number): ActivityEvent | undefined {
    if (nowMs - this.#lastHeardMs >= this.#limits.outageMs) return 'outage'
    return nowMs - this.#lastUsedMs >= this.#limits.idleMs ? 'idle' : undefined
  }
}
