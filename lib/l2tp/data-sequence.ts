/**
 * Sequence numbers of one session's data messages (RFC 2661 §5.4): numbers for what we send, and a
 * judgement on what arrives. Numbers only, for it runs per packet.
 */
import { serialAdd16, serialDistance16 } from '../core/serial.ts'

export class DataSequence {
  #nextSend = 0
  #nextReceive = 0
  #lateCount = 0
  #lostCount = 0

  /** Ns for the next data message. */
  take(): number {
    const ns = this.#nextSend
    this.#nextSend = serialAdd16(ns, 1)
    return ns
  }

  /**
   * Whether a message with this number is in order. A late or repeated one is not (PPP must not see
   * frames out of order); a gap is taken as loss, and the count moves past it.
   */
  accept(ns: number): boolean {
    const ahead = serialDistance16(this.#nextReceive, ns)
    if (ahead < 0) {
      this.#lateCount++
      return false
    }
    this.#lostCount += ahead
    this.#nextReceive = serialAdd16(ns, 1)
    return true
  }

  /** Messages dropped because a later one had come before. */
  get lateCount(): number {
    return this.#lateCount
  }

  /** Numbers that were passed over; a late message stays counted here too. */
  get lostCount(): number {
    return this.#lostCount
  }
}
