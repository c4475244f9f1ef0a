/** SSTP end to end: goodput beside OpenVPN in TCP mode, interleaved, and its price in CPU time. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Bench, BenchContext } from './bench.ts'
import { contest, fullRounds, quickRounds } from './contest.ts'
import { OpenvpnPeer } from './peers/openvpn.ts'
import { measureFramingIn, measureFramingOut, packetBytes } from './sstp-framing.ts'
import { SstpPair } from './sstp-server.ts'

/** Sockets drain before the next contender runs. */
const pauseMs = 500

export const bench: Bench = {
  name: 'sstp',
  about: 'SSTP end to end: goodput, CPU time, set-ups, memory, stalled readers',
  run: async context => {
    framing(context)
    const openvpn = await OpenvpnPeer.start({ protocol: 'tcp', say: text => context.say(text) })
    try {
      const sstp = await SstpPair.start()
      try {
        const peers = new Map(openvpn === undefined ? [] : [['openvpn-tcp', openvpn]])
        const rounds = context.isQuick ? quickRounds : fullRounds
        await contest(context, 'sstp/goodput', sstp, peers, rounds)
        await stalledReader(context, sstp)
        await setUps(context, sstp)
      } finally {
        await sstp.close()
      }
    } finally {
      await openvpn?.close()
    }
  },
}

function framing(context: BenchContext): void {
  const packets = context.isQuick ? 200_000 : 2_000_000
  const repetitions = context.isQuick ? 3 : 9
  const inNs: number[] = []
  const outNs: number[] = []
  for (let i = 0; i <= repetitions; i++) {
    const [received, sent] = [measureFramingIn(packets), measureFramingOut(packets)]
    // The first round compiles.
    if (i > 0) {
      inNs.push(received)
      outNs.push(sent)
    }
  }
  context.row({ name: `sstp/framing/in/${packetBytes}`, unit: 'ns', samples: inNs })
  context.row({ name: `sstp/framing/out/${packetBytes}`, unit: 'ns', samples: outNs })
}

/** A client that stops reading for a second out of three, through the whole transfer. */
async function stalledReader(context: BenchContext, sstp: SstpPair): Promise<void> {
  const gigabytes = context.isQuick ? 1 : 10
  for (const direction of ['up', 'down'] as const) {
    context.say(`${gigabytes} GB ${direction} with a reader that stalls`)
    const memory: number[] = []
    let tick = 0
    const before = sstp.serverMemoryMiB
    const timer = setInterval(() => {
      memory.push(sstp.serverMemoryMiB - before)
      const step = tick++ % 12
      if (step === 0) sstp.stall(true)
      if (step === 4) sstp.stall(false)
    }, 250)
    let gbitPerSecond = Number.NaN
    try {
      gbitPerSecond = await sstp.transfer(direction, gigabytes)
    } finally {
      clearInterval(timer)
      sstp.stall(false)
    }
    const name = `sstp/stalled-reader/${direction}/1`
    context.row({ name, unit: 'Gbit/s', samples: [gbitPerSecond] })
    context.row({ name: `${name}/memory`, unit: 'MiB', samples: [Math.max(0, ...memory)] })
  }
}

/** Calls from one client process: how many come up a second, and what an idle one costs the server. */
async function setUps(context: BenchContext, sstp: SstpPair): Promise<void> {
  const calls = context.isQuick ? 50 : 500
  const repetitions = context.isQuick ? 1 : 3
  const perSecond: number[] = []
  const kibPerCall: number[] = []
  for (let i = 0; i < repetitions; i++) {
    context.say(`${calls} calls, round ${i + 1} of ${repetitions}`)
    const before = sstp.serverMemoryMiB
    await sstp.withCalls(calls, 16, async ({ seconds }) => {
      perSecond.push(calls / seconds)
      await delay(2000)
      kibPerCall.push(((sstp.serverMemoryMiB - before) * 1024) / calls)
    })
    await delay(pauseMs)
  }
  context.row({ name: 'sstp/set-ups/in/16', unit: '1/s', samples: perSecond })
  // Later rounds find memory that earlier ones gave back to the allocator, not to the system.
  context.row({
    name: `sstp/idle-call/memory/${calls}`,
    unit: 'KiB',
    samples: kibPerCall.slice(0, 1),
  })
}
