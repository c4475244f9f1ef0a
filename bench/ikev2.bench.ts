/**
 * IKEv2 and ESP in UDP end to end, both ends ours: goodput beside its peers, interleaved, its price in
 * CPU time, other ciphers, set-ups, and what an idle peer costs.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { Bench, BenchContext } from './bench.ts'
import { Ikev2Pair } from './ikev2-server.ts'
import type { FlowResult } from './iperf.ts'
import { OpenvpnPeer } from './peers/openvpn.ts'
import { PrototypePeer } from './peers/prototype.ts'
import { StrongswanPeer } from './peers/strongswan.ts'
import { median } from './statistics.ts'

interface Contender {
  measure(direction: 'up' | 'down', streams: number, seconds: number): Promise<FlowResult>
}

interface Peer extends Contender {
  close(): Promise<void>
}

/** Sockets drain before the next contender runs. */
const pauseMs = 500
const directions = ['up', 'down'] as const

export const bench: Bench = {
  name: 'ikev2',
  about: 'IKEv2 and ESP in UDP end to end: goodput, CPU time, set-ups, memory',
  run: async context => {
    const say = (text: string) => context.say(text)
    const peers = new Map<string, Peer>()
    try {
      for (const [name, start] of [
        ['prototype', () => PrototypePeer.start()],
        ['openvpn-udp', () => OpenvpnPeer.start({ protocol: 'udp', say })],
        ['strongswan-libipsec', () => StrongswanPeer.start(say)],
      ] as const) {
        const peer = await start()
        if (peer !== undefined) peers.set(name, peer)
      }
      const pair = await Ikev2Pair.start('aes-128-gcm')
      try {
        await goodput(context, pair, peers)
        for (const peer of peers.values()) await peer.close()
        peers.clear()
        await ciphers(context, pair)
        await setUps(context, pair)
      } finally {
        await pair.close()
      }
    } finally {
      for (const peer of peers.values()) await peer.close()
    }
  },
}

async function goodput(
  context: BenchContext,
  pair: Ikev2Pair,
  peers: ReadonlyMap<string, Contender>,
): Promise<void> {
  const repetitions = context.isQuick ? 1 : 5
  const seconds = context.isQuick ? 1 : 3
  context.say('warming up')
  for (const contender of [pair, ...peers.values()]) {
    for (const direction of directions) await contender.measure(direction, 1, 2)
  }
  for (const direction of directions) {
    for (const streams of [1, 4]) {
      const ours: FlowResult[] = []
      const theirs = new Map([...peers.keys()].map(name => [name, [] as number[]]))
      for (let i = 0; i < repetitions; i++) {
        context.say(`goodput ${direction}, ${streams} stream(s), round ${i + 1} of ${repetitions}`)
        ours.push(await pair.measure(direction, streams, seconds))
        await delay(pauseMs)
        for (const [name, peer] of peers) {
          theirs.get(name)?.push((await peer.measure(direction, streams, seconds)).gbitPerSecond)
          await delay(pauseMs)
        }
      }
      const samples = ours.map(result => result.gbitPerSecond)
      context.row({
        name: `ikev2/aes-128-gcm/${direction}/${streams}`,
        unit: 'Gbit/s',
        samples,
        gbitPerCpuSecond: median(ours.map(result => result.gbitPerCpuSecond)),
        ratio: Object.fromEntries(
          [...theirs].map(([name, rates]) => [name, median(samples) / median(rates)]),
        ),
      })
    }
  }
}

async function ciphers(context: BenchContext, pair: Ikev2Pair): Promise<void> {
  const repetitions = context.isQuick ? 1 : 3
  for (const cipher of ['aes-256-gcm', 'aes-256-cbc-sha256', 'chacha20-poly1305']) {
    context.say(cipher)
    await pair.dial(cipher)
    for (const direction of directions) {
      const results: FlowResult[] = []
      for (let i = 0; i < repetitions; i++) {
        results.push(await pair.measure(direction, 4, context.isQuick ? 1 : 3))
      }
      context.row({
        name: `ikev2/${cipher}/${direction}/4`,
        unit: 'Gbit/s',
        samples: results.map(result => result.gbitPerSecond),
        gbitPerCpuSecond: median(results.map(result => result.gbitPerCpuSecond)),
      })
    }
  }
}

/** Calls from one client process, EAP-MSCHAPv2 and ECP-256: how many come up a second. */
async function setUps(context: BenchContext, pair: Ikev2Pair): Promise<void> {
  const calls = context.isQuick ? 50 : 1000
  const repetitions = context.isQuick ? 1 : 3
  const perSecond: number[] = []
  const kibPerCall: number[] = []
  for (let i = 0; i < repetitions; i++) {
    context.say(`${calls} calls, round ${i + 1} of ${repetitions}`)
    const before = pair.serverMemoryMiB
    await pair.withCalls(calls, 8, async ({ seconds }) => {
      perSecond.push(calls / seconds)
      await delay(2000)
      kibPerCall.push(((pair.serverMemoryMiB - before) * 1024) / calls)
    })
    await delay(pauseMs)
  }
  context.row({ name: 'ikev2/set-ups/in/8', unit: '1/s', samples: perSecond })
  // Later rounds find memory that earlier ones gave back to the allocator, not to the system.
  context.row({
    name: `ikev2/idle-call/memory/${calls}`,
    unit: 'KiB',
    samples: kibPerCall.slice(0, 1),
  })
}
