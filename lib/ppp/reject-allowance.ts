/** How many packets of nonsense are answered by a reject: a burst, then one each period. */

// Implementation constants.

const rejectBurst = 10
const rejectPeriodMs = 500

export class RejectAllowance {
  #tokens = rejectBurst
  #sinceMs = 0

  /** Takes one; false when there is none left. */
  take(nowMs: number): boolean {
    const earned = Math.floor((nowMs - this.#sinceMs) / rejectPeriodMs)
    if (earned > 0) {
      this.#tokens = Math.min(rejectBurst, this.#tokens + earned)
      this.#sinceMs += earned * rejectPeriodMs
    }
    if (this.#tokens === 0) return false
    this.#tokens--
    return true
  }
}
