/** RADIUS with Debian's FreeRADIUS on the same machine: log-ins a second, and an outage. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Proof } from '../lib/aaa/authenticator.ts'
import { RadiusAuthenticator } from '../lib/aaa/radius/radius-authenticator.ts'
import { systemClock } from '../lib/core/clock.ts'
import { silentLogger } from '../lib/core/log.ts'
import { Secret } from '../lib/core/secret.ts'
import { generateNtResponse, ntPasswordHash } from '../lib/crypto/ms-chap.ts'
import type { Bench, BenchContext } from './bench.ts'
import { nas, noLockout, password, RadiusBench } from './radius-bench.ts'
import { RadiusOutage } from './radius-outage.ts'

const loginsPerSecond = 500
const tickMs = 10
const userName = 'alice'
const call = { protocol: 'sstp', peerAddress: '198.51.100.7', sessionId: 'bench' }

function proofs(): Readonly<Record<'pap' | 'mschapv2', Proof>> {
  const exchange = {
    userName,
    authenticatorChallenge: Uint8Array.from({ length: 16 }, (_, i) => i),
    peerChallenge: Uint8Array.from({ length: 16 }, (_, i) => 0x80 + i),
  }
  const ntResponse = generateNtResponse(exchange, ntPasswordHash(password))
  return {
    pap: { method: 'pap', password: Secret.fromText(password) },
    mschapv2: { method: 'mschapv2', identifier: 1, ...exchange, ntResponse },
  }
}

interface Load {
  /** Of each log-in, ms, sorted. */
  readonly latenciesMs: number[]
  readonly refused: number
  readonly perSecond: number
}

/** Asks at an even pace, whatever the answers take. */
async function load(judge: RadiusAuthenticator, proof: Proof, seconds: number): Promise<Load> {
  const latenciesMs: number[] = []
  let refused = 0
  const ask = async () => {
    const beganMs = systemClock.nowMs()
    const verdict = await judge.authenticate({ userName, proof, call })
    latenciesMs.push(systemClock.nowMs() - beganMs)
    if (verdict.type !== 'accept') refused++
  }
  const asked: Promise<void>[] = []
  const beganMs = systemClock.nowMs()
  while (asked.length < loginsPerSecond * seconds) {
    const due = Math.min(
      loginsPerSecond * seconds,
      ((systemClock.nowMs() - beganMs) / 1000) * loginsPerSecond,
    )
    while (asked.length < due) asked.push(ask())
    await delay(tickMs)
  }
  await Promise.all(asked)
  const perSecond = asked.length / ((systemClock.nowMs() - beganMs) / 1000)
  return { latenciesMs: latenciesMs.sort((a, b) => a - b), refused, perSecond }
}

function percentile(sorted: readonly number[], percent: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor((sorted.length * percent) / 100))] ?? 0
}

async function logins(context: BenchContext): Promise<void> {
  const bench = await RadiusBench.open()
  try {
    const methods = ['pap', 'mschapv2'] as const
    const exchange = bench.client('access', 9000)
    const judge = new RadiusAuthenticator({
      exchange,
      nas,
      methods,
      lockout: noLockout,
      log: silentLogger,
    })
    const loads = new Map(methods.map(method => [method, [] as Load[]]))
    const repetitions = context.isQuick ? 1 : 3
    for (let repetition = -1; repetition < repetitions; repetition++) {
      for (const [method, proof] of Object.entries(proofs())) {
        // The first round warms up.
        const seconds = repetition < 0 || context.isQuick ? 1 : 10
        const one = await load(judge, proof, seconds)
        if (repetition >= 0) loads.get(method as keyof ReturnType<typeof proofs>)?.push(one)
      }
    }
    for (const [method, samples] of loads) {
      const name = `aaa/login/${method}/${loginsPerSecond}`
      const row = (what: string, unit: string, of: (one: Load) => number) =>
        context.row({ name: `${name}/${what}`, unit, samples: samples.map(of) })
      row('rate', '1/s', ({ perSecond }) => perSecond)
      row('p50', 'ms', ({ latenciesMs }) => percentile(latenciesMs, 50))
      row('p99', 'ms', ({ latenciesMs }) => percentile(latenciesMs, 99))
      row('refused', 'log-ins', ({ refused }) => refused)
    }
  } finally {
    await bench.close()
  }
}

async function outage(context: BenchContext): Promise<void> {
  const bench = await RadiusBench.open()
  const factor = 30
  try {
    context.say(`an outage of 600 s: 20 s by the clock, the rest ${factor} times as fast`)
    const figures = await new RadiusOutage(bench, {
      liveSessions: 1000,
      comePerSecond: 2,
      outageMs: 600_000,
      unhurriedMs: context.isQuick ? 5000 : 20_000,
      factor,
      loginsPerSecond: 20,
      refusalMs: 3000,
    }).run()
    context.say(
      `${figures.sessions} sessions, ${figures.waiting} records waited, ${figures.logins} log-ins tried`,
    )
    const row = (what: string, unit: string, value: number) =>
      context.row({ name: `aaa/outage/${what}`, unit, samples: [value] })
    row('lost', 'records', figures.lost)
    row('twice', 'records', figures.twice)
    row('replay', 's', figures.replaySeconds)
    row('slowest-refusal', 'ms', figures.slowestRefusalMs)
    row('loop-delay/p99', 'ms', figures.delayP99Ms)
    row('loop-delay/most', 'ms', figures.delayMaxMs)
    row('loop-work/most', 'ms', figures.workMaxMs)
  } finally {
    await bench.close()
  }
}

export const bench: Bench = {
  name: 'aaa',
  about: 'RADIUS: log-ins through FreeRADIUS, an outage of ten minutes with 1,000 sessions',
  async run(context) {
    await logins(context)
    await outage(context)
  },
}
