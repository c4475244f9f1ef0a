/**
 * L2TP/IPsec end to end, both ends ours: goodput beside strongSwan's ESP without L2TP and SoftEther's
 * server with our client, interleaved, its price in CPU time, set-ups, and what an idle call holds.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { Bench, BenchContext } from './bench.ts'
import { contest, fullRounds, type Peer, quickRounds, startPeer } from './contest.ts'
import { L2tpPair } from './l2tp-server.ts'
import { SoftetherPeer } from './peers/softether.ts'
import { StrongswanPeer } from './peers/strongswan.ts'

/** Between one round of calls and the next. */
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
    const strongswan = await startPeer(say, () => StrongswanPeer.start(say, proposal))
    if (strongswan !== undefined) peers.set('strongswan-libipsec', strongswan)
    const softether =
      cipher === stockCipher
        ? await startPeer(say, () => SoftetherPeer.start(say, cipher))
        : undefined
    if (softether !== undefined) peers.set('softether', softether)
    const rounds = context.isQuick ? quickRounds : { ...fullRounds, warmUpSeconds: 2 }
    await contest(context, `l2tp/${cipher}`, pair, peers, rounds)
  } finally {
    for (const peer of peers.values()) await peer.close()
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
