/** Sessions that come and go while no RADIUS server answers, and what its records say afterwards. */
import { closeSync, openSync, readSync } from 'node:fs'
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as delay } from 'node:timers/promises'
import { Accountant } from '../lib/aaa/radius/accounting/accountant.ts'
import { RadiusAuthenticator } from '../lib/aaa/radius/radius-authenticator.ts'
import type { Session } from '../lib/aaa/session.ts'
import { isRefusal, SessionRegistry } from '../lib/aaa/session-registry.ts'
import { systemClock } from '../lib/core/clock.ts'
import { SystemError } from '../lib/core/errors.ts'
import { silentLogger } from '../lib/core/log.ts'
import { systemRandom } from '../lib/core/random.ts'
import { Secret } from '../lib/core/secret.ts'
import { nas, noLockout, password, type RadiusBench } from './radius-bench.ts'

export interface OutageOptions {
  /** Up the whole time; as many as come go. */
  readonly liveSessions: number
  readonly comePerSecond: number
  /** In the time of the sessions. */
  readonly outageMs: number
  /** How much of it passes in clock time; log-ins are tried meanwhile. */
  readonly unhurriedMs: number
  /** How much faster the rest passes. */
  readonly factor: number
  readonly loginsPerSecond: number
  /** After which a log-in is refused. */
  readonly refusalMs: number
}

export interface OutageFigures {
  readonly sessions: number
  /** Records that FreeRADIUS does not have, and that it has more than once. */
  readonly lost: number
  readonly twice: number
  /** From the first answer to the last record that waited, s. */
  readonly replaySeconds: number
  readonly waiting: number
  /** Longest time from a log-in to its refusal, ms; clock time. */
  readonly slowestRefusalMs: number
  readonly logins: number
  /** Of the event loop over the whole outage, ms: what others take of the processor is in it. */
  readonly delayP99Ms: number
  readonly delayMaxMs: number
  /** Longest that its thread was busy between two turns, ms: what we ourselves delay a turn by. */
  readonly workMaxMs: number
}

const tickMs = 100
const drainTimeoutMs = 120_000
/** Of the event loop's histogram; it is in what the histogram says and is taken off. */
const resolutionMs = 1

export class RadiusOutage {
  readonly #bench: RadiusBench
  readonly #options: OutageOptions
  readonly #sessions: SessionRegistry
  readonly #live: Session[] = []
  #accountant: Accountant | undefined
  #count = 0

  constructor(bench: RadiusBench, options: OutageOptions) {
    this.#bench = bench
    this.#options = options
    const none = Number.POSITIVE_INFINITY
    const { clock, wheel } = bench
    this.#sessions = new SessionRegistry({
      limits: {
        sessions: none,
        sessionsPerUser: none,
        sessionsPerSource: none,
        sessionsPerProtocol: new Map(),
        idleTimeoutMs: none,
        sessionTimeoutMs: none,
      },
      clock,
      wheel,
      wallClock: this.#wallClock,
      random: systemRandom,
      log: silentLogger,
    })
  }

  async run(): Promise<OutageFigures> {
    const { clock, wheel, folder, server } = this.#bench
    const { liveSessions, outageMs, unhurriedMs, factor } = this.#options
    const accountant = await Accountant.open({
      exchange: this.#bench.client('accounting', 9000),
      sessions: this.#sessions,
      nas,
      instance: 'bench',
      directory: join(folder, 'journal'),
      interimIntervalMs: Number.POSITIVE_INFINITY,
      authentic: 'radius',
      clock,
      wallClock: this.#wallClock,
      wheel,
      log: silentLogger,
    })
    this.#accountant = accountant
    for (let i = 0; i < liveSessions; i++) this.#come()
    await this.#drained()
    await server.stop()

    const loop = monitorEventLoopDelay({ resolution: resolutionMs })
    loop.enable()
    const work = new TurnWork()
    const refusals = await this.#pass(unhurriedMs, 1)
    await this.#pass(outageMs - unhurriedMs, factor)
    loop.disable()
    const workMaxMs = work.stop()
    const { waiting } = accountant.status()

    await server.start()
    const backMs = systemClock.nowMs()
    await this.#drained()
    const replaySeconds = (systemClock.nowMs() - backMs) / 1000
    for (const session of this.#live.splice(0)) session.end('user-request')
    await this.#drained()
    await accountant.close(0)
    return {
      sessions: this.#count,
      ...this.#judgeRecords(),
      replaySeconds,
      waiting,
      slowestRefusalMs: Math.max(...refusals),
      logins: refusals.length,
      delayP99Ms: loop.percentile(99) / 1e6 - resolutionMs,
      delayMaxMs: loop.max / 1e6 - resolutionMs,
      workMaxMs,
    }
  }

  readonly #wallClock = { now: () => new Date(Date.UTC(2026, 0, 1) + this.#bench.clock.nowMs()) }

  /** Lets that much time pass; the times that log-ins took which were tried meanwhile, ms. */
  async #pass(durationMs: number, factor: number): Promise<number[]> {
    const { clock } = this.#bench
    const { comePerSecond, loginsPerSecond, refusalMs } = this.#options
    const logins: Promise<number>[] = []
    const judge = new RadiusAuthenticator({
      exchange: this.#bench.client('access', refusalMs),
      nas,
      methods: ['pap'],
      lockout: noLockout,
      log: silentLogger,
    })
    clock.hurry(factor)
    const beganMs = clock.nowMs()
    let came = 0
    for (;;) {
      const passedMs = clock.nowMs() - beganMs
      if (passedMs >= durationMs) break
      for (; came < (passedMs / 1000) * comePerSecond; came++) {
        this.#come()
        this.#live.shift()?.end('user-request')
      }
      if (factor === 1) {
        for (; logins.length < (passedMs / 1000) * loginsPerSecond; ) logins.push(refusal(judge))
      }
      await delay(tickMs)
    }
    clock.hurry(1)
    return Promise.all(logins)
  }

  #come(): void {
    const userName = `user${++this.#count}`
    const admitted = this.#sessions.admit({
      protocol: 'ikev2',
      peerAddress: '198.51.100.7',
      peerLabel: '198.51.100.7:4500',
      close: cause => session.end(cause),
    })
    if (isRefusal(admitted)) throw new SystemError(`no session: ${admitted.reason}`)
    const session = admitted
    session.authorize({ userName })
    session.up({ ipv4: 0x0a57_0001 + this.#count }, () => ({
      receivedPackets: 10,
      receivedBytes: 15_000,
      sentPackets: 20,
      sentBytes: 30_000,
      lastActiveMs: this.#bench.clock.nowMs(),
    }))
    this.#live.push(session)
  }

  async #drained(): Promise<void> {
    for (let waitedMs = 0; waitedMs < drainTimeoutMs; waitedMs += 20) {
      if (this.#accountant?.status().waiting === 0) return
      await delay(20)
    }
    throw new SystemError(`${this.#accountant?.status().waiting} records are not delivered`)
  }

  #judgeRecords(): { lost: number; twice: number } {
    const counts = new Map<string, number>()
    for (const record of this.#bench.server.records()) {
      const key = `${record.get('User-Name')} ${record.get('Acct-Status-Type')}`
      counts.set(key, (counts.get(key) ?? 0) + 1)
    }
    let [lost, twice] = [0, 0]
    for (let i = 1; i <= this.#count; i++) {
      for (const kind of ['Start', 'Stop']) {
        const count = counts.get(`user${i} ${kind}`) ?? 0
        if (count === 0) lost++
        else if (count > 1) twice++
      }
    }
    return { lost, twice }
  }
}

/** Looks every millisecond how long the thread of the event loop was on a processor since the last look. */
class TurnWork {
  readonly #file = openSync(`/proc/self/task/${process.pid}/schedstat`, 'r')
  readonly #text = Buffer.alloc(128)
  #beforeMs = this.#usedMs()
  #mostMs = 0
  readonly #timer = setInterval(() => {
    const usedMs = this.#usedMs()
    this.#mostMs = Math.max(this.#mostMs, usedMs - this.#beforeMs)
    this.#beforeMs = usedMs
  }, 1)

  /** The most between two looks, ms. */
  stop(): number {
    clearInterval(this.#timer)
    closeSync(this.#file)
    return this.#mostMs
  }

  /** proc(5): nanoseconds on a processor, nanoseconds waiting for one, and how often. */
  #usedMs(): number {
    const length = readSync(this.#file, this.#text, 0, this.#text.length, 0)
    return Number(this.#text.toString('latin1', 0, length).split(' ')[0]) / 1e6
  }
}

async function refusal(judge: RadiusAuthenticator): Promise<number> {
  const beganMs = systemClock.nowMs()
  const verdict = await judge.authenticate({
    userName: 'alice',
    proof: { method: 'pap', password: Secret.fromText(password) },
    call: { protocol: 'ikev2', peerAddress: '198.51.100.7', sessionId: 'bench' },
  })
  if (verdict.type === 'accept') throw new SystemError('a server that is down has accepted')
  return systemClock.nowMs() - beganMs
}
