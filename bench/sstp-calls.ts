/**
 * Many SSTP calls from one process, without a TUN device: dials them, says how long that took, and
 * holds them until it is told to stop. Arguments: server, port, fingerprint, user, calls, at a time.
 * The password comes on standard input.
 */
import { text } from 'node:stream/consumers'
import { fromHex } from '../lib/core/bytes.ts'
import { systemClock } from '../lib/core/clock.ts'
import { createLogger } from '../lib/core/log.ts'
import { systemRandom } from '../lib/core/random.ts'
import { Secret } from '../lib/core/secret.ts'
import { TimerWheel } from '../lib/core/timers.ts'
import { createMemoryDataplane } from '../lib/dataplane/index.ts'
import { PppDial } from '../lib/server/ppp-dial.ts'
import { SstpDialler } from '../lib/sstp/index.ts'

const mtuBytes = 1400
const [host = '', port = '443', fingerprint = '', userName = '', calls = '1', parallel = '1'] =
  process.argv.slice(2)
const password = Secret.fromText((await text(process.stdin)).trim())
const clock = systemClock
const wheel = new TimerWheel(clock.nowMs())
wheel.start(clock)
const { dataplane } = createMemoryDataplane({ mtuBytes })
const log = createLogger('warn')
const services = { dataplane, clock, wheel, random: systemRandom, log }
const dialler = new SstpDialler(services)
const proof = { type: 'pinned', sha256: fromHex(fingerprint) } as const
const dials: PppDial[] = []

async function dialOne(): Promise<void> {
  const dial = new PppDial(
    { userName, password, authentication: ['mschapv2'], mruBytes: mtuBytes, wantsIpv6: false },
    services,
  )
  dials.push(dial)
  await dialler.dial({ host, port: Number(port), proof, links: dial })
  await dial.up
}

const startedMs = clock.nowMs()
await Promise.all(
  Array.from({ length: Number(parallel) }, async () => {
    while (dials.length < Number(calls)) await dialOne()
  }),
)
const seconds = (clock.nowMs() - startedMs) / 1000
process.stdout.write(`${JSON.stringify({ calls: dials.length, seconds })}\n`)
await new Promise<void>(resolve => process.once('SIGTERM', () => resolve()))
for (const dial of dials) dial.hangUp()
await Promise.all(dials.map(dial => dial.closed))
wheel.stop()
