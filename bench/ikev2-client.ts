/**
 * The other side of the IKEv2 bench, a process of its own: dials with our initiator, configures its TUN
 * device and carries packets until it is told to stop; SIGUSR1 rekeys the Child SA, SIGUSR2 the IKE SA.
 * Arguments: server, own address, fingerprint of the server's certificate (SHA-256, hexadecimal), user,
 * cipher of ESP (`aes-128-gcm`, …). The password comes on standard input.
 */
import { text } from 'node:stream/consumers'
import { fromHex } from '../lib/core/bytes.ts'
import { systemClock } from '../lib/core/clock.ts'
import { SystemError } from '../lib/core/errors.ts'
import { formatIpv4 } from '../lib/core/ip-address.ts'
import { systemRandom } from '../lib/core/random.ts'
import { Secret } from '../lib/core/secret.ts'
import { TimerWheel } from '../lib/core/timers.ts'
import { DatagramHub } from '../lib/dataplane/datagram-hub.ts'
import { openDataplane } from '../lib/dataplane/index.ts'
import { Ikev2Dialler } from '../lib/ikev2/dialler.ts'
import { IKE_PORT } from '../lib/ikev2/path.ts'
import { type EspOwner, EspReceiver } from '../lib/ipsec/esp-receiver.ts'
import { IkeSockets } from '../lib/ipsec/ike-sockets.ts'
import { SaDatabase } from '../lib/ipsec/sa-database.ts'
import { TunInterface } from '../lib/routing/index.ts'
import { Ikev2Dial } from '../lib/server/ikev2-dial.ts'
import { espCiphers } from './ikev2-ciphers.ts'

const mtuBytes = 1400
const [host = '', own = '', fingerprint = '', userName = '', cipher = 'aes-128-gcm'] =
  process.argv.slice(2)
const password = Secret.fromText((await text(process.stdin)).trim())
const clock = systemClock
const wheel = new TimerWheel(clock.nowMs())
wheel.start(clock)
const dataplane = openDataplane({ mtuBytes, tunName: 'dial%d' })
const { memory } = dataplane
const database = new SaDatabase<EspOwner>()
const plane = new DatagramHub(dataplane)
const sockets = new IkeSockets({
  plane,
  memory,
  esp: new EspReceiver(memory, database),
  hosts: [own],
  takesPlainEsp: false,
  onLost: reason => process.stderr.write(`bench client: socket lost: ${reason}\n`),
})
sockets.open()
const dialler = new Ikev2Dialler({
  ...{ sockets, sender: plane, memory, database, clock, wheel, random: systemRandom },
})
const espAlgorithms = espCiphers[cipher]
if (espAlgorithms === undefined) throw new SystemError(`no cipher ${cipher}`)
const dial = new Ikev2Dial(
  {
    ...{ userName, password, serverSha256: fromHex(fingerprint), wantsIpv6: false },
    espAlgorithms,
  },
  dataplane,
)
const connection = dialler.dial(
  own,
  { address: host, port: IKE_PORT },
  dial.ikeSettings(systemRandom),
  { mtuBytes, rekeyBytes: Number.POSITIVE_INFINITY },
  dial,
)
if (connection === undefined) throw new SystemError(`no socket at ${own}`)
dial.start(connection)
const up = await dial.up
const address = up.ipv4Address ?? 0
await new TunInterface(dataplane.status().tunName).configure({
  mtuBytes,
  serverIpv4: address,
  serverIpv6: undefined,
  ipv4Networks: [{ address: (address & 0xffff_0000) >>> 0, prefixLength: 16 }],
  ipv6Networks: [],
})
dataplane.start()
process.stdout.write(`up ${formatIpv4(address)}\n`)
process.once('SIGTERM', () => dial.hangUp())
process.on('SIGUSR1', () => dial.rekey('child'))
process.on('SIGUSR2', () => dial.rekey('ike'))
const { detail } = await dial.closed
const counters = {
  ...dataplane.status().counters,
  ...connection.counters.toJSON(),
  ...connection.tunnel.drops,
}
process.stderr.write(`bench client: ${detail}, ${JSON.stringify(counters)}\n`)
sockets.close()
dataplane.stop()
wheel.stop()
