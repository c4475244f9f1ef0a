/**
 * Many IKEv2 calls from one process: dials some and hangs them up, so that its code is compiled; then
 * dials those that count, says how long that took, and holds them until it is told to stop. Arguments:
 * server, own address, fingerprint, user, calls, at a time. The password comes on standard input.
 */
import { text } from 'node:stream/consumers'
import { fromHex } from '../lib/core/bytes.ts'
import { systemClock } from '../lib/core/clock.ts'
import { Secret } from '../lib/core/secret.ts'
import { KeyExchangeId } from '../lib/crypto/transforms.ts'
import { defaultIkeAlgorithms } from '../lib/ikev2/suite.ts'
import { Ikev2Dial } from '../lib/server/ikev2-dial.ts'
import { Ikev2Host } from './ikev2-host.ts'

const [server = '', own = '', fingerprint = '', userName = '', calls = '1', parallel = '1'] =
  process.argv.slice(2)
const password = Secret.fromText((await text(process.stdin)).trim())
const host = new Ikev2Host(own)
const settings = {
  userName,
  password,
  serverSha256: fromHex(fingerprint),
  wantsIpv6: false,
  ikeAlgorithms: { ...defaultIkeAlgorithms, keyExchange: [KeyExchangeId.ecp256] },
}
const WARM_UP_CALLS = 500

async function dial(count: number): Promise<Ikev2Dial[]> {
  const dials: Ikev2Dial[] = []
  const dialOne = async () => {
    const one = new Ikev2Dial(settings, undefined)
    dials.push(one)
    host.start(one, server)
    await one.up
  }
  await Promise.all(
    Array.from({ length: Number(parallel) }, async () => {
      while (dials.length < count) await dialOne()
    }),
  )
  return dials
}

async function hangUp(dials: readonly Ikev2Dial[]): Promise<void> {
  for (const one of dials) one.hangUp()
  await Promise.all(dials.map(one => one.closed))
}

const warmUp = await dial(Math.min(WARM_UP_CALLS, Number(calls)))
await hangUp(warmUp)
const startedMs = systemClock.nowMs()
const dials = await dial(Number(calls))
const seconds = (systemClock.nowMs() - startedMs) / 1000
process.stdout.write(`${JSON.stringify({ seconds, dialled: warmUp.length + dials.length })}\n`)
await new Promise<void>(resolve => process.once('SIGTERM', () => resolve()))
await hangUp(dials)
host.close()
