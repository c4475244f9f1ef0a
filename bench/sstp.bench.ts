/** SSTP end to end: goodput beside OpenVPN in TCP mode, interleaved, and its price in CPU time. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Bench, BenchContext } from './bench.ts'
import type { FlowResult } from './iperf.ts'
import { OpenvpnPeer } from './peers/openvpn.ts'
import { SstpPair } from './sstp-server.ts'
import { median } from './statistics.ts'

interface Contender {
  measure(direction: 'up' | 'down', streams: number, seconds: number): Promise<FlowResult>
}

/** Sockets drain before the next contender runs. */
const pauseMs = 500

export const bench: Bench = {
  name: 'sstp',
  about: 'SSTP end to end: goodput, CPU time, set-ups, memory, stalled readers',
  run: async context => {
    const openvpn = await OpenvpnPeer.start({ protocol: 'tcp', say: text => context.say(text) })
    try {
      const sstp = await SstpPair.start()
      try {
        await goodput(context, sstp, openvpn)
      } finally {
        await sstp.close()
      }
    } finally {
      await openvpn?.close()
    }
  },
}

async function goodput(
  context: BenchContext,
  sstp: Contender,
  openvpn: Contender | undefined,
): Promise<void> {
  const repetitions = context.isQuick ? 1 : 5
  const seconds = context.isQuick ? 1 : 3
  for (const direction of ['up', 'down'] as const) {
    for (const streams of [1, 4]) {
      const ours: FlowResult[] = []
      const theirs: FlowResult[] = []
      for (let i = 0; i < repetitions; i++) {
        context.say(`goodput ${direction}, ${streams} stream(s), round ${i + 1} of ${repetitions}`)
        ours.push(await sstp.measure(direction, streams, seconds))
        await delay(pauseMs)
        if (openvpn !== undefined) theirs.push(await openvpn.measure(direction, streams, seconds))
        await delay(pauseMs)
      }
      const samples = ours.map(result => result.gbitPerSecond)
      const peer = theirs.map(result => result.gbitPerSecond)
      context.row({
        name: `sstp/goodput/${direction}/${streams}`,
        unit: 'Gbit/s',
        samples,
        gbitPerCpuSecond: median(ours.map(result => result.gbitPerCpuSecond)),
        ...(peer.length > 0 && { ratio: { 'openvpn-tcp': median(samples) / median(peer) } }),
      })
    }
  }
}
