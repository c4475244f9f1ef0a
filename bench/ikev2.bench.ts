/**
 * IKEv2 and ESP in UDP end to end, both ends ours: goodput beside its peers, interleaved, its price in
 * CPU time, other ciphers, set-ups, and what an idle peer costs.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { Bench, BenchContext } from './bench.ts'
import {
  type Contender,
  contest,
  directions,
  flowRow,
  fullRounds,
  type Peer,
  quickRounds,
  startPeer,
} from './contest.ts'
import { Ikev2Pair } from './ikev2-server.ts'
import type { FlowResult, PacketResult } from './iperf.ts'
import { OpenvpnPeer } from './peers/openvpn.ts'
import { PrototypePeer } from './peers/prototype.ts'
import { StrongswanPeer } from './peers/strongswan.ts'
import { median } from './statistics.ts'

/** Sockets drain before the next contender runs. */
const pauseMs = 500
/** IP packets of 64 bytes: what IPv4 and UDP leave of them. */
const smallPayloadBytes = 64 - 20 - 8
/** How long idle calls are watched, ms. */
const idleWatchMs = 10_000

export const bench: Bench = {
  name: 'ikev2',
  about: 'IKEv2 and ESP in UDP end to end: goodput, CPU time, set-ups, memory',
  run: async context => {
    const say = (text: string) => context.say(text)
    const peers = new Map<string, Peer>()
    try {
      const prototype = await startPeer(say, () => PrototypePeer.start())
      if (prototype !== undefined) peers.set('prototype', prototype)
      const openvpn = await startPeer(say, () => OpenvpnPeer.start({ protocol: 'udp', say }))
      if (openvpn !== undefined) peers.set('openvpn-udp', openvpn)
      const strongswan = await startPeer(say, () => StrongswanPeer.start(say))
      if (strongswan !== undefined) peers.set('strongswan-libipsec', strongswan)
      const pair = await Ikev2Pair.start('aes-128-gcm')
      try {
        const rounds = context.isQuick ? quickRounds : fullRounds
        await contest(context, 'ikev2/aes-128-gcm', pair, peers, rounds)
        await bothSides(context, pair, strongswan)
        for (const peer of peers.values()) await peer.close()
        peers.clear()
        await ciphers(context, pair)
        await plainEsp(context, pair)
        await smallPackets(context, pair)
        await setUps(context, pair)
        await idleCalls(context, pair)
      } finally {
        await pair.close()
      }
    } finally {
      for (const peer of peers.values()) await peer.close()
    }
  },
}

/** The server must not be the slower side, whoever made the client. */
async function bothSides(
  context: BenchContext,
  pair: Ikev2Pair,
  strongswan: StrongswanPeer | undefined,
): Promise<void> {
  const say = (text: string) => context.say(text)
  const mixed = await startPeer(say, () => StrongswanPeer.startClient(say))
  const contenders = new Map<string, Contender>([['ours-both', pair]])
  if (mixed !== undefined) contenders.set('ours-strongswan', mixed)
  if (strongswan !== undefined) contenders.set('strongswan-both', strongswan)
  const { repetitions, seconds } = context.isQuick ? quickRounds : fullRounds
  try {
    await mixed?.measure('up', 1, 1)
    for (const direction of directions) {
      const results = new Map([...contenders.keys()].map(name => [name, [] as FlowResult[]]))
      for (let i = 0; i < repetitions; i++) {
        context.say(`server and client ${direction}, round ${i + 1} of ${repetitions}`)
        for (const [name, contender] of contenders) {
          results.get(name)?.push(await contender.measure(direction, 4, seconds))
          await delay(pauseMs)
        }
      }
      for (const [name, samples] of results) {
        const sides = samples.map(sample => sample.gbitPerCpuSecond / sample.otherGbitPerCpuSecond)
        context.row({
          ...flowRow(`ikev2/sides/${name}/${direction}/4`, samples),
          ratio: { 'its client per CPU-s': median(sides) },
        })
      }
    }
  } finally {
    await mixed?.close()
  }
}

async function ciphers(context: BenchContext, pair: Ikev2Pair): Promise<void> {
  for (const cipher of ['aes-256-gcm', 'aes-256-cbc-sha256', 'chacha20-poly1305']) {
    context.say(cipher)
    await pair.dial(cipher)
    await fourStreams(context, pair, cipher)
  }
}

/** ESP as IP protocol 50: the kernel neither joins nor cuts it for us. */
async function plainEsp(context: BenchContext, pair: Ikev2Pair): Promise<void> {
  context.say('ESP without UDP')
  await pair.dial('aes-128-gcm', 'plain')
  await fourStreams(context, pair, 'aes-128-gcm-plain-esp')
}

async function fourStreams(context: BenchContext, pair: Ikev2Pair, name: string): Promise<void> {
  const { repetitions, seconds } = context.isQuick ? quickRounds : fullRounds
  for (const direction of directions) {
    // The client is a new process: its code is not compiled yet.
    await pair.measure(direction, 4, 1)
    const results: FlowResult[] = []
    for (let i = 0; i < repetitions; i++) {
      results.push(await pair.measure(direction, 4, seconds))
    }
    context.row(flowRow(`ikev2/${name}/${direction}/4`, results))
  }
}

async function smallPackets(context: BenchContext, pair: Ikev2Pair): Promise<void> {
  const repetitions = context.isQuick ? 1 : 3
  context.say('packets of 64 bytes')
  await pair.dial('aes-128-gcm')
  for (const direction of directions) {
    await pair.measurePackets(direction, smallPayloadBytes, 1)
    const results: PacketResult[] = []
    for (let i = 0; i < repetitions; i++) {
      const seconds = context.isQuick ? 1 : 3
      results.push(await pair.measurePackets(direction, smallPayloadBytes, seconds))
    }
    context.row({
      name: `ikev2/packets-64/${direction}/1`,
      unit: '1/s',
      samples: results.map(result => result.packetsPerSecond),
    })
    context.row({
      name: `ikev2/packets-64/${direction}/server`,
      unit: '1/CPU-s',
      samples: results.map(result => result.packetsPerCpuSecond),
    })
  }
}

/** Calls from one client process, EAP-MSCHAPv2 and ECP-256: how many come up a second. */
async function setUps(context: BenchContext, pair: Ikev2Pair): Promise<void> {
  const calls = context.isQuick ? 50 : 500
  const repetitions = context.isQuick ? 1 : 3
  const perSecond: number[] = []
  const perCpuSecond: number[] = []
  for (let i = 0; i < repetitions; i++) {
    context.say(`${calls} calls, round ${i + 1} of ${repetitions}`)
    const before = pair.serverCpuSeconds
    await pair.withCalls(calls, 8, async ({ seconds, dialled }) => {
      perSecond.push(calls / seconds)
      perCpuSecond.push(dialled / (pair.serverCpuSeconds - before))
    })
    await delay(pauseMs)
  }
  context.row({ name: 'ikev2/set-ups/in/8', unit: '1/s', samples: perSecond })
  context.row({ name: 'ikev2/set-ups/server', unit: '1/CPU-s', samples: perCpuSecond })
}

/**
 * Calls that are up and carry nothing: how long they take to build, what they hold without garbage, and
 * what they cost: after a minute of silence one side asks whether the other is there.
 */
async function idleCalls(context: BenchContext, pair: Ikev2Pair): Promise<void> {
  const calls = context.isQuick ? 200 : 10_000
  context.say(`${calls} idle calls`)
  const beforeMiB = await pair.serverMemoryMiB()
  await pair.withCalls(calls, 16, async ({ seconds }) => {
    const kib = (((await pair.serverMemoryMiB()) - beforeMiB) * 1024) / calls
    const cpuBefore = pair.serverCpuSeconds
    await delay(idleWatchMs)
    const share = ((pair.serverCpuSeconds - cpuBefore) / idleWatchMs) * 1000
    const row = (what: string, unit: string, value: number) =>
      context.row({ name: `ikev2/idle-calls/${what}/${calls}`, unit, samples: [value] })
    row('build', 's', seconds)
    row('memory', 'KiB', kib)
    row('cpu', '%', share * 100)
  })
}
