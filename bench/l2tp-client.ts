/**
 * The other side of the L2TP bench, a process of its own: dials with our client roles of IKEv1, L2TP
 * and PPP, configures its TUN device and carries packets until it is told to stop. Arguments: server,
 * own address, preshared key, cipher of ESP, user. The password comes on standard input.
 */
import { text } from 'node:stream/consumers'
import { formatIpv4 } from '../lib/core/ip-address.ts'
import { Secret } from '../lib/core/secret.ts'
import { TunInterface } from '../lib/routing/index.ts'
import { policyOf } from './l2tp-ciphers.ts'
import { L2tpHost, mtuBytes } from './l2tp-host.ts'

const [server = '', own = '', key = '', cipher = '', userName = ''] = process.argv.slice(2)
const password = Secret.fromText((await text(process.stdin)).trim())
const host = new L2tpHost(own, key, policyOf(cipher))
const { dataplane } = host
const dial = host.start(own, server, {
  userName,
  password,
  authentication: ['mschapv2'],
  mruBytes: mtuBytes,
  wantsIpv6: false,
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
process.stdout.write(`up ${formatIpv4(up.peerAddress)} ${dataplane.status().tunName}\n`)
process.once('SIGTERM', () => dial.hangUp())
const { detail } = await dial.closed
process.stderr.write(`bench client: ${detail}, ${JSON.stringify(host.counters)}\n`)
await host.close()
