/**
 * Counts what peers do wrong, and says it in the log, but for each reason at most once a second:
 * whoever can open a connection must not be able to fill the disk.
 */
import type { Clock } from '../core/clock.ts'
import { Counters } from '../core/faults.ts'
import type { Logger } from '../core/log.ts'

const LOG_INTERVAL_MS = 1_000

export class Remarks {
  readonly counters = new Counters()
  readonly #clock: Clock
  readonly #log: Logger
  readonly #last = new Map<string, { loggedMs: number; suppressed: number }>()

  constructor(clock: Clock, log: Logger) {
    this.#clock = clock
    this.#log = log
  }

  /** `reason` is one of ours, never text of a peer. */
  note(reason: string, peer: string): void {
    this.counters.count(reason)
    const nowMs = this.#clock.nowMs()
    const last = this.#last.get(reason)
    if (last !== undefined && nowMs - last.loggedMs < LOG_INTERVAL_MS) {
      last.suppressed++
      return
    }
    const suppressed = last?.suppressed ?? 0
    this.#last.set(reason, { loggedMs: nowMs, suppressed: 0 })
    this.#log.debug({ event: 'pptp-remark', reason, peer, suppressed }, 'pptp peer')
  }
}
