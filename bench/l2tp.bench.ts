/** L2TP/IPsec end to end, both ends ours: goodput beside strongSwan's ESP without L2TP, and its price. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Bench, BenchContext } from './bench.ts'
import type { FlowResult } from './iperf.ts'
import { L2tpPair } from './l2tp-server.ts'
import { StrongswanPeer } from './peers/strongswan.ts'
import { median } from './statistics.ts'

/** Sockets drain before the next contender runs. */
const pauseMs = 500
/** And the same for strongSwan. */
const ciphers = [
  ['aes-256-gcm', 'aes256gcm16'],
  ['aes-128-cbc-sha1', 'aes128-sha1'],
] as const
const directions = ['up', 'down'] as const

export const bench: Bench = {
  name: 'l2tp',
  about: 'L2TP/IPsec end to end: goodput and CPU time, beside strongSwan in user space',
  run: async context => {
    const pair = await L2tpPair.start(ciphers[0][0])
    try {
      for (const [cipher, proposal] of ciphers) {
        if (cipher !== ciphers[0][0]) await pair.dial(cipher)
        const peer = await StrongswanPeer.start(text => context.say(text), proposal)
        try {
          await goodput(context, pair, peer, cipher)
        } finally {
          await peer?.close()
        }
      }
    } finally {
      await pair.close()
    }
  },
}

async function goodput(
  context: BenchContext,
  pair: L2tpPair,
  peer: StrongswanPeer | undefined,
  cipher: string,
): Promise<void> {
  const repetitions = context.isQuick ? 1 : 5
  const seconds = context.isQuick ? 1 : 3
  for (const direction of directions) await pair.measure(direction, 1, 2)
  for (const direction of directions) {
    for (const streams of [1, 4]) {
      const ours: FlowResult[] = []
      const theirs: number[] = []
      for (let i = 0; i < repetitions; i++) {
        context.say(`${cipher} ${direction}, ${streams} stream(s), ${i + 1} of ${repetitions}`)
        ours.push(await pair.measure(direction, streams, seconds))
        await delay(pauseMs)
        if (peer === undefined) continue
        theirs.push((await peer.measure(direction, streams, seconds)).gbitPerSecond)
        await delay(pauseMs)
      }
      const samples = ours.map(({ gbitPerSecond }) => gbitPerSecond)
      context.row({
        name: `l2tp/${cipher}/${direction}/${streams}`,
        unit: 'Gbit/s',
        samples,
        gbitPerCpuSecond: median(ours.map(({ gbitPerCpuSecond }) => gbitPerCpuSecond)),
        ...(theirs.length > 0 && {
          ratio: { 'strongswan-libipsec': median(samples) / median(theirs) },
        }),
      })
    }
  }
}
