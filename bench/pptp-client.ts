/**
 * The other side of the PPTP bench, a process of its own: dials with our client role, configures its
 * TUN device and carries packets until it is told to stop. Arguments: server, encryption (none,
 * stateless, stateful), user. The password comes on standard input.
 */
import { text } from 'node:stream/consumers'
import { systemClock } from '../lib/core/clock.ts'
import { formatIpv4 } from '../lib/core/ip-address.ts'
import { systemRandom } from '../lib/core/random.ts'
import { Secret } from '../lib/core/secret.ts'
import { TimerWheel } from '../lib/core/timers.ts'
import { openDataplane, openRawSocket } from '../lib/dataplane/index.ts'
import { GRE_PROTOCOL, PPTP_PORT, PptpDialler } from '../lib/pptp/index.ts'
import { TunInterface } from '../lib/routing/index.ts'
import { PppDial } from '../lib/server/ppp-dial.ts'

const mtuBytes = 1400
const [host = '', encryption = 'none', userName = ''] = process.argv.slice(2)
const password = Secret.fromText((await text(process.stdin)).trim())
const clock = systemClock
const wheel = new TimerWheel(clock.nowMs())
wheel.start(clock)
const dataplane = openDataplane({ mtuBytes, tunName: 'dial%d' })
const services = { dataplane, clock, wheel, random: systemRandom }
const isStateful = encryption === 'stateful'
const dial = new PppDial(
  {
    userName,
    password,
    authentication: ['mschapv2'],
    mruBytes: mtuBytes,
    wantsIpv6: false,
    ...(encryption !== 'none' && {
      compression: {
        encryption: 'required',
        strengths: [128],
        allowsStateful: isStateful,
        prefersStateful: isStateful,
        hasMppc: false,
      },
    }),
  },
  services,
)
const socket = openRawSocket(dataplane.memory, GRE_PROTOCOL)
const dialler = new PptpDialler({ ...services, socket })
const call = await dialler.dial({ host, port: PPTP_PORT, links: dial })
const up = await dial.up
await new TunInterface(dataplane.status().tunName).configure({
  mtuBytes: up.mtuBytes,
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
process.stderr.write(
  `bench client: ${detail}, ${JSON.stringify({ ...call.counters, ...dialler.greCounters })}\n`,
)
dialler.close()
dataplane.stop()
wheel.stop()
