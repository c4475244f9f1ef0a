/**
 * Delivers accounting records in order: those of one session one after the other, those of many
 * sessions side by side, Accounting-On and -Off alone. While no server answers one record at a time is
 * tried; nothing is given up.
 */
import type { Clock, WallClock } from '../../../core/clock.ts'
import type { Logger } from '../../../core/log.ts'
import type { TimerWheel, WheelEntry } from '../../../core/timers.ts'
import type { RadiusExchange } from '../client.ts'
import type { JournalEntry } from './journal.ts'

export interface DeliveryOptions {
  readonly exchange: RadiusExchange
  /** The record is confirmed. */
  settled(sequence: number): void
  readonly clock: Clock
  readonly wallClock: WallClock
  readonly wheel: TimerWheel
  readonly log: Logger
}

/** Records on their way at a time. */
const mostInFlight = 128
/** Between two tries while no server answers, ms. */
const retryMs = 5000

export class AccountingDelivery implements WheelEntry {
  readonly #options: DeliveryOptions
  /** By session; the first of each is the next to go, or on its way. */
  readonly #chains = new Map<string, JournalEntry[]>()
  /** Sessions whose first record is not on its way. */
  readonly #ready: string[] = []
  /** Waits until everything before it is through. */
  #barrier: JournalEntry | undefined
  /** What came after the barrier. */
  #later: JournalEntry[] = []
  #size = 0
  #inFlight = 0
  #isDown = false
  #isPaused = false
  #isStopped = false
  #idle: (() => void)[] = []

  constructor(options: DeliveryOptions) {
    this.#options = options
  }

  /** In the order in which it happened. */
  add(entry: JournalEntry): void {
    this.#size++
    if (this.#barrier !== undefined) this.#later.push(entry)
    else this.#enqueue(entry)
    this.#pump()
  }

  /** Records that are not confirmed. */
  get size(): number {
    return this.#size
  }

  /** No server answers at present. */
  get isDown(): boolean {
    return this.#isDown
  }

  /** Resolves when everything is confirmed. */
  whenIdle(): Promise<void> {
    if (this.size === 0) return Promise.resolve()
    return new Promise(resolve => {
      this.#idle.push(resolve)
    })
  }

  /** Nothing is sent from now on. */
  stop(): void {
    this.#isStopped = true
    this.#options.wheel.cancel(this)
  }

  onDeadline(): void {
    this.#isPaused = false
    this.#pump()
  }

  #enqueue(entry: JournalEntry): void {
    const { kind, sessionId } = entry.record
    if (kind === 'on' || kind === 'off') {
      this.#barrier = entry
      return
    }
    const chain = this.#chains.get(sessionId)
    if (chain !== undefined) {
      chain.push(entry)
      return
    }
    this.#chains.set(sessionId, [entry])
    this.#ready.push(sessionId)
  }

  #pump(): void {
    if (this.#isStopped || this.#isPaused) return
    const most = this.#isDown ? 1 : mostInFlight
    while (this.#inFlight < most) {
      const sessionId = this.#ready.shift()
      const next = sessionId === undefined ? undefined : this.#chains.get(sessionId)?.[0]
      if (next !== undefined) this.#send(next)
      else if (this.#barrier !== undefined && this.#chains.size === 0 && this.#inFlight === 0) {
        this.#send(this.#barrier)
        return
      } else return
    }
  }

  #send(entry: JournalEntry): void {
    const { exchange, clock, wallClock, log } = this.#options
    const { attributes, atMs } = entry.record
    // The wall clock may have jumped since; of an earlier run there is nothing else.
    const agoMs = Math.max(0, wallClock.now().getTime() - atMs)
    const eventMs = entry.eventMs ?? clock.nowMs() - agoMs
    this.#inFlight++
    exchange
      .request({ code: 'accounting', attributes, eventMs, key: entry.sequence })
      .then(answer => {
        this.#inFlight--
        if (answer === undefined) this.#failed(entry)
        else this.#confirmed(entry)
      })
      .catch((error: unknown) => {
        log.error({ event: 'accounting-fault', reason: String(error) }, 'accounting fault')
      })
  }

  #confirmed(entry: JournalEntry): void {
    if (this.#isDown) {
      this.#options.log.info({ event: 'accounting-up', waiting: this.#size }, 'accounting goes on')
    }
    this.#isDown = false
    this.#size--
    this.#options.settled(entry.sequence)
    if (entry === this.#barrier) this.#passBarrier()
    else this.#advance(entry.record.sessionId)
    if (this.size === 0) for (const resolve of this.#idle.splice(0)) resolve()
    this.#pump()
  }

  #advance(sessionId: string): void {
    const chain = this.#chains.get(sessionId)
    chain?.shift()
    if (chain === undefined || chain.length === 0) this.#chains.delete(sessionId)
    else this.#ready.push(sessionId)
  }

  #passBarrier(): void {
    this.#barrier = undefined
    const later = this.#later
    let moved = 0
    for (const entry of later) {
      if (this.#barrier !== undefined) break
      this.#enqueue(entry)
      moved++
    }
    this.#later = later.slice(moved)
  }

  #failed(entry: JournalEntry): void {
    const { clock, wheel, log } = this.#options
    if (entry !== this.#barrier) this.#ready.unshift(entry.record.sessionId)
    if (!this.#isDown) {
      log.warn({ event: 'accounting-down', waiting: this.size }, 'accounting waits for a server')
    }
    this.#isDown = true
    this.#isPaused = true
    if (!this.#isStopped) wheel.schedule(this, clock.nowMs() + retryMs)
  }
}
