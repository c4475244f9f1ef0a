/**
 * The other side of the SSTP bench, a process of its own: dials with our client role, configures its
 * TUN device and carries packets until it is told to stop. Arguments: server, port, fingerprint of the
 * server's certificate (SHA-256, hexadecimal), user. The password comes on standard input.
 */
import { text } from 'node:stream/consumers'
import { fromHex } from '../lib/core/bytes.ts'
import { systemClock } from '../lib/core/clock.ts'
import { formatIpv4 } from '../lib/core/ip-address.ts'
import { createLogger } from '../lib/core/log.ts'
import { systemRandom } from '../lib/core/random.ts'
import { Secret } from '../lib/core/secret.ts'
import { TimerWheel } from '../lib/core/timers.ts'
import { openDataplane } from '../lib/dataplane/index.ts'
import { TunInterface } from '../lib/routing/index.ts'
import { PppDial } from '../lib/server/ppp-dial.ts'
import { SstpDialler } from '../lib/sstp/index.ts'

const mtuBytes = 1400
const [host = '', port = '443', fingerprint = '', userName = ''] = process.argv.slice(2)
const password = Secret.fromText((await text(process.stdin)).trim())
const log = createLogger('warn')
const clock = systemClock
const wheel = new TimerWheel(clock.nowMs())
wheel.start(clock)
const dataplane = openDataplane({ mtuBytes, tunName: 'dial%d' })
const services = { dataplane, clock, wheel, random: systemRandom, log }
const dial = new PppDial(
  { userName, password, authentication: ['mschapv2'], mruBytes: mtuBytes, wantsIpv6: false },
  services,
)
const call = await new SstpDialler(services).dial({
  host,
  port: Number(port),
  proof: { type: 'pinned', sha256: fromHex(fingerprint) },
  links: dial,
})
const up = await dial.up
await new TunInterface(dataplane.status().tunName).configure({
  mtuBytes,
  serverIpv4: up.localAddress,
  serverIpv6: undefined,
  ipv4Networks: [{ address: up.peerAddress, prefixLength: 32 }],
  ipv6Networks: [],
})
dataplane.start()
process.stdout.write(`up ${formatIpv4(up.peerAddress)}\n`)
process.once('SIGTERM', () => dial.hangUp())
const { detail } = await dial.closed
await call.closed
process.stderr.write(`bench client: ${detail}, ${JSON.stringify(dataplane.status().counters)}\n`)
dataplane.stop()
wheel.stop()
