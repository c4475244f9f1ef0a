/**
 * L2TP/IPsec end to end, both ends ours: goodput beside strongSwan's ESP without L2TP and SoftEther's
 * server with our client, interleaved, its price in CPU time, set-ups, and what an idle call holds.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { Bench, BenchContext } from './bench.ts'
import type { FlowResult } from './iperf.ts'
import { L2tpPair } from './l2tp-server.ts'
import { SoftetherPeer } from './peers/softether.ts'
import { StrongswanPeer } from './peers/strongswan.ts'
import { median } from './statistics.ts'

interface Peer {
  measure(direction: 'up' | 'down', streams: number, seconds: number): Promise<FlowResult>
  close(): Promise<void>
}

/** Sockets drain before the next contender runs. */
const pauseMs = 500
/** Until collections have ended and what set-ups took for a moment is given back. */
const settleMs = 5000
/** The stock policy of L2TP/IPsec clients, which SoftEther knows too. */
const stockCipher = 'aes-128-cbc-sha1'
/** And the same for strongSwan. */
const ciphers = [
  ['aes-256-gcm', 'aes256gcm16'],
  [stockCipher, 'aes128-sha1'],
] as const
const directions = ['up', 'down'] as const

export const bench: Bench = {
  name: 'l2tp',
  about:
    'L2TP/IPsec end to end: goodput, CPU time, set-ups, memory, beside its peers in user space',
  run: async context => {
    const pair = await L2tpPair.start(ciphers[0][0])
    try {
      for (const [cipher, proposal] of ciphers) {
        if (cipher !== ciphers[0][0]) await pair.dial(cipher)
        await besidePeers(context, pair, cipher, proposal)
      }
      await setUps(context, pair)
      await idleCalls(context, pair)
    } finally {
      await pair.close()
    }
  },
}

async function besidePeers(
  context: BenchContext,
  pair: L2tpPair,
  cipher: string,
  proposal: string,
): Promise<void> {
  const say = (text: string) => context.say(text)
  const peers = new Map<string, Peer>()
  try {
    const strongswan = await StrongswanPeer.start(say, proposal)
    if (strongswan !== undefined) peers.set('strongswan-libipsec', strongswan)
    const softether = cipher === stockCipher ? await SoftetherPeer.start(say, cipher) : undefined
    if (softether !== undefined) peers.set('softether', softether)
    await goodput(context, pair, peers, cipher)
  } finally {
    for (const peer of peers.values()) await peer.close()
  }
}

async function goodput(
  context: BenchContext,
  pair: L2tpPair,
  peers: ReadonlyMap<string, Peer>,
  cipher: string,
): Promise<void> {
  const repetitions = context.isQuick ? 1 : 4
  const seconds = context.isQuick ? 1 : 3
  for (const direction of directions) {
    for (const contender of [pair, ...peers.values()]) await contender.measure(direction, 1, 2)
  }
  for (const direction of directions) {
    for (const streams of [1, 4]) {
      const ours: FlowResult[] = []
      const theirs = new Map([...peers.keys()].map(name => [name, [] as number[]]))
      for (let i = 0; i < repetitions; i++) {
        context.say(`${cipher} ${direction}, ${streams} stream(s), ${i + 1} of ${repetitions}`)
        ours.push(await pair.measure(direction, streams, seconds))
        await delay(pauseMs)
        for (const [name, peer] of peers) {
          theirs.get(name)?.push((await peer.measure(direction, streams, seconds)).gbitPerSecond)
          await delay(pauseMs)
        }
      }
      const samples = ours.map(({ gbitPerSecond }) => gbitPerSecond)
      context.row({
        name: `l2tp/${cipher}/${direction}/${streams}`,
        unit: 'Gbit/s',
        samples,
        gbitPerCpuSecond: median(ours.map(({ gbitPerCpuSecond }) => gbitPerCpuSecond)),
        ratio: Object.fromEntries(
          [...theirs].map(([name, rates]) => [name, median(samples) / median(rates)]),
        ),
      })
    }
  }
}

/** Calls from one client process, with ECP-256 and MS-CHAPv2: how many come up a second. */
async function setUps(context: BenchContext, pair: L2tpPair): Promise<void> {
  const calls = context.isQuick ? 50 : 300
  const repetitions = context.isQuick ? 1 : 3
  const perSecond: number[] = []
  const perCpuSecond: number[] = []
  for (let i = 0; i < repetitions; i++) {
    context.say(`${calls} calls, round ${i + 1} of ${repetitions}`)
    const before = pair.serverCpuSeconds
    await pair.withCalls(stockCipher, calls, 8, async ({ seconds }) => {
      perSecond.push(calls / seconds)
      perCpuSecond.push(calls / (pair.serverCpuSeconds - before))
    })
    await delay(pauseMs)
  }
  context.row({ name: 'l2tp/set-ups/in/8', unit: '1/s', samples: perSecond })
  context.row({ name: 'l2tp/set-ups/server', unit: '1/CPU-s', samples: perCpuSecond })
}

/** Calls that are up and carry nothing: what each holds in the server. */
async function idleCalls(context: BenchContext, pair: L2tpPair): Promise<void> {
  const calls = context.isQuick ? 200 : 2000
  context.say(`${calls} idle calls`)
  const beforeMiB = pair.serverMemoryMiB
  await pair.withCalls(stockCipher, calls, 16, async () => {
    await delay(settleMs)
    const kib = ((pair.serverMemoryMiB - beforeMiB) * 1024) / calls
    context.row({ name: `l2tp/idle-calls/memory/${calls}`, unit: 'KiB', samples: [kib] })
  })
}
