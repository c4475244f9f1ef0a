/** Writes an accounting record for what happens to sessions, to disk first, and has it delivered. */
import type { Clock, WallClock } from '../../../core/clock.ts'
import { Counters } from '../../../core/faults.ts'
import type { Logger } from '../../../core/log.ts'
import type { TimerWheel, WheelEntry } from '../../../core/timers.ts'
import type { Session } from '../../session.ts'
import type { SessionEvent, SessionRegistry } from '../../session-registry.ts'
import type { RadiusExchange } from '../client.ts'
import type { NasIdentity } from '../nas.ts'
import { AccountingDelivery } from './delivery.ts'
import { AccountingJournal } from './journal.ts'
import {
  type AccountingRecord,
  type Authentic,
  type SessionFacts,
  serverRecord,
  sessionRecord,
} from './record.ts'

export interface AccountantOptions {
  readonly exchange: RadiusExchange
  readonly sessions: SessionRegistry
  readonly nas: NasIdentity
  /** Names this run of the server: Acct-Session-Id of Accounting-On and -Off. */
  readonly instance: string
  /** Folder of the journal. */
  readonly directory: string
  /** Between interim records of sessions that are not told otherwise; `Infinity`: none. */
  readonly interimIntervalMs: number
  readonly authentic: Authentic
  readonly clock: Clock
  readonly wallClock: WallClock
  readonly wheel: TimerWheel
  readonly log: Logger
}

/**
 * How long a Start waits for the IPv4 address of its session, ms: IPv6 may be up first, and who reads
 * addresses out of accounting looks at the Start alone.
 */
const addressWaitMs = 2000

/** Records that wait: beyond the first no interim record is added, beyond the second none at all. */
const mostWaiting = { interim: 200_000, all: 400_000 } as const

export class Accountant {
  readonly #options: AccountantOptions
  readonly #journal: AccountingJournal
  readonly #delivery: AccountingDelivery
  readonly #accounted = new Map<string, AccountedSession>()
  readonly counters = new Counters()
  #unobserve: () => void = () => undefined
  /** Records on their way to the disk. */
  #unwritten = 0

  private constructor(options: AccountantOptions, journal: AccountingJournal) {
    this.#options = options
    this.#journal = journal
    const { exchange, clock, wallClock, wheel, log } = options
    this.#delivery = new AccountingDelivery({
      exchange,
      clock,
      wallClock,
      wheel,
      log,
      settled: sequence => journal.settle(sequence),
    })
  }

  /** Takes up what an earlier run has left, says that the server is on, and observes the sessions. */
  static async open(options: AccountantOptions): Promise<Accountant> {
    const { directory, log } = options
    const { journal, entries } = await AccountingJournal.open({
      directory,
      onFault: reason =>
        log.error({ event: 'accounting-journal', reason }, 'accounting journal not written'),
    })
    const accountant = new Accountant(options, journal)
    if (entries.length > 0) {
      log.info({ event: 'accounting-replay', records: entries.length }, 'accounting is taken up')
    }
    for (const entry of entries) accountant.#delivery.add(entry)
    accountant.#begin()
    return accountant
  }

  status(): { waiting: number; isDown: boolean } {
    return { waiting: this.#unwritten + this.#delivery.size, isDown: this.#delivery.isDown }
  }

  /** Says that the server is off; what is not delivered within the time stays for the next run. */
  async close(graceMs: number): Promise<void> {
    const { nas, instance, clock, wheel } = this.#options
    this.#unobserve()
    for (const accounted of this.#accounted.values()) wheel.cancel(accounted)
    this.#accounted.clear()
    this.#add(serverRecord('off', nas, instance, this.#nowMs()))
    await this.#journal.flush()
    await Promise.race([
      this.#delivery.whenIdle(),
      new Promise<void>(resolve => {
        wheel.schedule({ onDeadline: () => resolve() }, clock.nowMs() + graceMs)
      }),
    ])
    this.#delivery.stop()
    await this.#journal.close()
  }

  #begin(): void {
    const { nas, instance, sessions } = this.#options
    this.#add(serverRecord('on', nas, instance, this.#nowMs()))
    const unobserve = sessions.observe(event => this.#observe(event))
    const unobserveChanges = sessions.observeChanges(({ id }) =>
      this.#accounted.get(id)?.onAddresses(),
    )
    this.#unobserve = () => {
      unobserve()
      unobserveChanges()
    }
  }

  #observe(event: SessionEvent): void {
    const { id } = event.session
    if (event.type === 'up') {
      const session = this.#options.sessions.find(id).find(one => one.id === id)
      if (session === undefined) return
      const accounted = new AccountedSession(session, this.#options, (kind, at) =>
        this.#record(kind, accounted, at),
      )
      this.#accounted.set(id, accounted)
      accounted.begin()
      return
    }
    const accounted = this.#accounted.get(id)
    if (accounted === undefined) return
    this.#accounted.delete(id)
    accounted.finish()
    const facts = { ...accounted.facts(), status: event.session }
    this.#add(sessionRecord('stop', this.#options.nas, facts, this.#nowMs(), event.cause))
  }

  #record(kind: 'start' | 'interim', accounted: AccountedSession, at: Moment): void {
    this.#add(sessionRecord(kind, this.#options.nas, accounted.facts(), at.wallMs), at.monotonicMs)
  }

  /** To disk, then to the servers. */
  #add(record: AccountingRecord, eventMs = this.#options.clock.nowMs()): void {
    const waiting = this.#journal.size
    if (waiting >= (record.kind === 'interim' ? mostWaiting.interim : mostWaiting.all)) {
      this.counters.count(`dropped-${record.kind}`)
      return
    }
    this.counters.count(record.kind)
    this.#unwritten++
    this.#journal
      .append(record)
      .then(sequence => {
        this.#unwritten--
        this.#delivery.add({ sequence, record, eventMs })
      })
      .catch((error: unknown) => {
        const reason = String(error)
        this.#options.log.error({ event: 'accounting-fault', reason }, 'accounting fault')
      })
  }

  #nowMs(): number {
    return this.#options.wallClock.now().getTime()
  }
}

/** The wall clock goes into a record; how long ago that was is counted by the other. */
interface Moment {
  readonly wallMs: number
  readonly monotonicMs: number
}

/** A session that is up: when its Start is due, and its next interim record. */
class AccountedSession implements WheelEntry {
  readonly #session: Session
  readonly #options: AccountantOptions
  readonly #due: (kind: 'start' | 'interim', at: Moment) => void
  readonly #upAt: Moment
  #isStarted = false
  /** Whether the records so far told the IPv4 address. */
  #isAddressTold = false

  constructor(
    session: Session,
    options: AccountantOptions,
    due: (kind: 'start' | 'interim', at: Moment) => void,
  ) {
    this.#session = session
    this.#options = options
    this.#due = due
    this.#upAt = this.#now()
  }

  facts(): SessionFacts {
    return {
      status: this.#session.status(),
      peerAddress: this.#session.peerAddress,
      authorization: this.#session.authorization,
      authentic: this.#options.authentic,
    }
  }

  begin(): void {
    const { clock, wheel } = this.#options
    if (this.#hasAddress) this.#start()
    else wheel.schedule(this, clock.nowMs() + addressWaitMs)
  }

  /** Addresses may have come. After the Start an interim record tells them. */
  onAddresses(): void {
    if (this.#isAddressTold || !this.#hasAddress) return
    if (this.#isStarted) this.#tell('interim')
    else this.#start()
  }

  /** The session is over; a Start that still waits comes before the Stop. */
  finish(): void {
    if (!this.#isStarted) this.#tell('start')
    this.#options.wheel.cancel(this)
  }

  onDeadline(): void {
    if (!this.#isStarted) {
      this.#start()
      return
    }
    this.#tell('interim')
    this.#scheduleInterim()
  }

  get #hasAddress(): boolean {
    return this.#session.status().ipv4 !== undefined
  }

  #start(): void {
    this.#tell('start')
    this.#scheduleInterim()
  }

  #tell(kind: 'start' | 'interim'): void {
    this.#isStarted = true
    this.#isAddressTold = this.#hasAddress
    this.#due(kind, kind === 'start' ? this.#upAt : this.#now())
  }

  #now(): Moment {
    const { clock, wallClock } = this.#options
    return { wallMs: wallClock.now().getTime(), monotonicMs: clock.nowMs() }
  }

  /** The server of the user may say how often (RFC 2869 §5.16), and may change its mind. */
  #scheduleInterim(): void {
    const { interimIntervalMs, clock, wheel } = this.#options
    const seconds = this.#session.authorization?.interimIntervalSeconds
    const intervalMs = seconds === undefined || seconds === 0 ? interimIntervalMs : seconds * 1000
    wheel.schedule(this, clock.nowMs() + intervalMs)
  }
}
