/** A peer may take a protocol down to negotiate it again, but not without end. */

// Implementation constants: renegotiations within a period, after which the peer is at fault.

const maxRenegotiations = 32
const renegotiationPeriodMs = 60_000

/** For people. */
export const tooManyRenegotiations = `more than ${maxRenegotiations} renegotiations a minute`

export class RenegotiationLimit {
  #count = 0
  #sinceMs = 0

  /** Counts one; true when it is one too many. */
  exceeds(nowMs: number): boolean {
    if (nowMs - this.#sinceMs > renegotiationPeriodMs) {
      this.#sinceMs = nowMs
      this.#count = 0
    }
    return ++this.#count > maxRenegotiations
  }
}
