/** Goodput of one tunnel of ours beside its peers, interleaved in one run. */
import { setTimeout as delay } from 'node:timers/promises'
import { messageOf } from '../lib/core/errors.ts'
import type { BenchContext, Row } from './bench.ts'
import type { FlowResult } from './iperf.ts'
import { median } from './statistics.ts'

export const directions = ['up', 'down'] as const

export interface Contender {
  measure(direction: 'up' | 'down', streams: number, seconds: number): Promise<FlowResult>
}

export interface Peer extends Contender {
  close(): Promise<void>
}

/** A peer that does not come up is left out, and the run says so. */
export async function startPeer<P extends Peer>(
  say: (text: string) => void,
  start: () => Promise<P | undefined>,
): Promise<P | undefined> {
  try {
    return await start()
  } catch (error) {
    say(`run without a peer, its ratios are absent: ${messageOf(error)}`)
    return undefined
  }
}

/** How long one contender runs, s, and how often. */
export interface Rounds {
  readonly repetitions: number
  readonly seconds: number
  /** What a server does all day is compiled code: it is not until some seconds of each kind have passed. */
  readonly warmUpSeconds: number
}

export const fullRounds: Rounds = { repetitions: 5, seconds: 3, warmUpSeconds: 5 }
export const quickRounds: Rounds = { repetitions: 1, seconds: 1, warmUpSeconds: 1 }

/** Sockets drain before the next contender runs. */
const pauseMs = 500
const streamCounts = [1, 4]

/** One and four streams each way: rows `NAME/DIRECTION/STREAMS`, with what each peer reached as ratios. */
export async function contest(
  context: BenchContext,
  name: string,
  ours: Contender,
  peers: ReadonlyMap<string, Contender>,
  rounds: Rounds,
): Promise<void> {
  const contenders = [ours, ...peers.values()]
  context.say(`${name}: warming up`)
  for (const contender of contenders) {
    for (const direction of directions) {
      for (const streams of streamCounts) {
        await contender.measure(direction, streams, rounds.warmUpSeconds)
      }
    }
  }
  for (const direction of directions) {
    for (const streams of streamCounts) {
      const results = contenders.map((): FlowResult[] => [])
      for (let i = 0; i < rounds.repetitions; i++) {
        context.say(`${name} ${direction}, ${streams} stream(s), ${i + 1} of ${rounds.repetitions}`)
        for (const [c, contender] of contenders.entries()) {
          results[c]?.push(await contender.measure(direction, streams, rounds.seconds))
          await delay(pauseMs)
        }
      }
      const [own = [], ...theirs] = results
      const ratio = [...peers.keys()].flatMap((peer, i) => ratios(peer, own, theirs[i] ?? []))
      context.row({
        ...flowRow(`${name}/${direction}/${streams}`, own),
        ratio: Object.fromEntries(ratio),
      })
    }
  }
}

/** Goodput, and its price on the watched side. */
export function flowRow(name: string, results: readonly FlowResult[]): Row {
  return {
    name,
    unit: 'Gbit/s',
    samples: results.map(({ gbitPerSecond }) => gbitPerSecond),
    gbitPerCpuSecond: median(results.map(({ gbitPerCpuSecond }) => gbitPerCpuSecond)),
  }
}

/** In time, and in CPU time of the watched side, which other work on the machine does not change as much. */
function ratios(
  peer: string,
  ours: readonly FlowResult[],
  theirs: readonly FlowResult[],
): [string, number][] {
  const of = (figure: (result: FlowResult) => number) =>
    median(ours.map(figure)) / median(theirs.map(figure))
  return [
    [peer, of(({ gbitPerSecond }) => gbitPerSecond)],
    [`${peer} per CPU-s`, of(({ gbitPerCpuSecond }) => gbitPerCpuSecond)],
  ]
}
