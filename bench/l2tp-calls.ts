/**
 * Many L2TP/IPsec calls from one process, each from an address of its own: dials them, says how long
 * that took, and holds them until it is told to stop. Arguments: server, first own address, preshared
 * key, cipher of ESP, user, calls, at a time. The password comes on standard input.
 */
import { text } from 'node:stream/consumers'
import { systemClock } from '../lib/core/clock.ts'
import { formatIpv4, parseIpv4 } from '../lib/core/ip-address.ts'
import { Secret } from '../lib/core/secret.ts'
import type { PppDial } from '../lib/server/ppp-dial.ts'
import { policyOf } from './l2tp-ciphers.ts'
import { L2tpHost, mtuBytes } from './l2tp-host.ts'

const [server = '', first = '', key = '', cipher = '', userName = '', calls = '1', parallel = '1'] =
  process.argv.slice(2)
const password = Secret.fromText((await text(process.stdin)).trim())
const host = new L2tpHost('0.0.0.0', key, policyOf(cipher))
const settings = {
  userName,
  password,
  authentication: ['mschapv2' as const],
  mruBytes: mtuBytes,
  wantsIpv6: false,
}
const dials: PppDial[] = []

async function dialOne(): Promise<void> {
  const own = formatIpv4((parseIpv4(first) ?? 0) + dials.length)
  const dial = host.start(own, server, settings)
  dials.push(dial)
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
await host.close()
