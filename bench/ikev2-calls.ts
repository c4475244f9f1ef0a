/**
 * Many IKEv2 calls from one process: dials them, says how long that took, and holds them until it is
 * told to stop. Arguments: server, own address, fingerprint, user, calls, at a time. The password comes
 * on standard input.
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
const dials: Ikev2Dial[] = []

async function dialOne(): Promise<void> {
  const dial = new Ikev2Dial(settings, undefined)
  dials.push(dial)
  host.start(dial, server)
  await dial.up
}

const startedMs = systemClock.nowMs()
await Promise.all(
  Array.from({ length: Number(parallel) }, async () => {
    while (dials.length < Number(calls)) await dialOne()
  }),
)
const seconds = (systemClock.nowMs() - startedMs) / 1000
process.stdout.write(`${JSON.stringify({ calls: dials.length, seconds })}\n`)
await new Promise<void>(resolve => process.once('SIGTERM', () => resolve()))
for (const dial of dials) dial.hangUp()
await Promise.all(dials.map(dial => dial.closed))
host.close()
