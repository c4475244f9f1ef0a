/**
 * The other side of the IKEv2 bench, a process of its own: dials with our initiator, configures its TUN
 * device and carries packets until it is told to stop; SIGUSR1 rekeys the Child SA, SIGUSR2 the IKE SA.
 * Arguments: server, own address, fingerprint of the server's certificate (SHA-256, hexadecimal), user,
 * cipher of ESP (`aes-128-gcm`, …), `plain` for ESP without UDP. The password comes on standard input.
 */
import { text } from 'node:stream/consumers'
import { fromHex } from '../lib/core/bytes.ts'
import { SystemError } from '../lib/core/errors.ts'
import { formatIpv4 } from '../lib/core/ip-address.ts'
import { Secret } from '../lib/core/secret.ts'
import { TunInterface } from '../lib/routing/index.ts'
import { Ikev2Dial } from '../lib/server/ikev2-dial.ts'
import { espCiphers } from './ikev2-ciphers.ts'
import { Ikev2Host, mtuBytes } from './ikev2-host.ts'

const [server = '', own = '', fingerprint = '', userName = '', cipher = 'aes-128-gcm', wrapping] =
  process.argv.slice(2)
const takesPlainEsp = wrapping === 'plain'
const password = Secret.fromText((await text(process.stdin)).trim())
const espAlgorithms = espCiphers[cipher]
if (espAlgorithms === undefined) throw new SystemError(`no cipher ${cipher}`)
const host = new Ikev2Host(own, takesPlainEsp)
const { dataplane } = host
const serverSha256 = fromHex(fingerprint)
const dial = new Ikev2Dial(
  { userName, password, serverSha256, wantsIpv6: false, espAlgorithms, takesPlainEsp },
  dataplane,
)
const connection = host.start(dial, server)
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
host.close()
