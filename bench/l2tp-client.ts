/**
 * The other side of the L2TP bench, a process of its own: dials with our client roles of IKEv1, L2TP
 * and PPP, configures its TUN device and carries packets until it is told to stop. Arguments: server,
 * own address, preshared key, cipher of ESP, user. The password comes on standard input.
 */
import { text } from 'node:stream/consumers'
import { systemClock } from '../lib/core/clock.ts'
import { SystemError } from '../lib/core/errors.ts'
import { Counters } from '../lib/core/faults.ts'
import { formatIpv4 } from '../lib/core/ip-address.ts'
import { systemRandom } from '../lib/core/random.ts'
import { Secret } from '../lib/core/secret.ts'
import { TimerWheel } from '../lib/core/timers.ts'
import { EncryptionId, IntegrityId } from '../lib/crypto/transforms.ts'
import { DatagramHub } from '../lib/dataplane/datagram-hub.ts'
import { openDataplane } from '../lib/dataplane/index.ts'
import { createPolicy, type IkePolicy } from '../lib/ikev1/index.ts'
import { Ikev1Listener } from '../lib/ikev1/listener.ts'
import { type EspOwner, EspReceiver } from '../lib/ipsec/esp-receiver.ts'
import { IKE_PORT, IkeSockets } from '../lib/ipsec/ike-sockets.ts'
import { SaDatabase } from '../lib/ipsec/sa-database.ts'
import { EspPath, L2tpListener } from '../lib/l2tp/index.ts'
import { TunInterface } from '../lib/routing/index.ts'
import { PppDial } from '../lib/server/ppp-dial.ts'

const mtuBytes = 1400
const [server = '', own = '', key = '', cipher = '', userName = ''] = process.argv.slice(2)
const password = Secret.fromText((await text(process.stdin)).trim())
const clock = systemClock
const random = systemRandom
const wheel = new TimerWheel(clock.nowMs())
wheel.start(clock)
const dataplane = openDataplane({ mtuBytes, tunName: 'dial%d' })
const { memory } = dataplane
const database = new SaDatabase<EspOwner>()
const sender = new DatagramHub(dataplane)
const sockets = new IkeSockets({
  plane: sender,
  memory,
  esp: new EspReceiver(memory, database),
  hosts: [own],
  takesPlainEsp: false,
  onLost: reason => process.stderr.write(`bench client: socket lost: ${reason}\n`),
})
const dial = new PppDial(
  { userName, password, authentication: ['mschapv2'], mruBytes: mtuBytes, wantsIpv6: false },
  { dataplane, clock, wheel, random },
)
const counters = new Counters()
const l2tp = new L2tpListener({
  memory,
  clock,
  wheel,
  random,
  links: dial,
  settings: { hostName: 'bench' },
  event: () => {},
})
const ikev1 = new Ikev1Listener({
  sockets,
  sender,
  memory,
  database,
  clock,
  wheel,
  random,
  owner: {
    settings: {
      policy: policyOf(cipher),
      preSharedKeys: [{ scope: { type: 'anyone' }, key: Secret.fromText(key) }],
      forcesEncapsulation: true,
    },
    open: peer => {
      // The pair stands when this returns: then there is ESP to dial through.
      setImmediate(() => l2tp.dial(new EspPath(peer, memory, counters), dial))
      return l2tp.open(peer)
    },
    event: () => {},
  },
})
sockets.open()
ikev1.dial({
  local: { address: own, port: IKE_PORT },
  peer: { address: server, port: IKE_PORT },
  isFloated: false,
})
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
await l2tp.stop()
await ikev1.stop()
process.stderr.write(`bench client: ${detail}, ${JSON.stringify(ikev1.status().counters)}\n`)
sockets.close()
dataplane.stop()
wheel.stop()

/** One cipher of ESP alone. */
function policyOf(name: string): IkePolicy {
  const policy = createPolicy()
  const isGcm = name === 'aes-256-gcm'
  const phase2 = policy.phase2.filter(({ encryption, keyBits, integrity }) =>
    isGcm
      ? encryption.id === EncryptionId.aesGcm16 && keyBits === 256
      : encryption.id === EncryptionId.aesCbc &&
        keyBits === 128 &&
        integrity?.id === IntegrityId.hmacSha1_96,
  )
  if (phase2.length !== 1) throw new SystemError(`no cipher ${name}`)
  return { ...policy, phase2 }
}
