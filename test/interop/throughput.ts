/** What a tunnel carries, by iperf3 in the guest, and whether that is enough. */
import { CheckError, expect } from './interop-case.ts'
import type { Guest } from './lab/guest.ts'
import { type Lab, tunnel } from './lab/lab.ts'
import { groupMembers, type ProcessorTime, processorTime } from './lab/processor-time.ts'

export interface FlowOptions {
  readonly isDownload: boolean
  readonly seconds: number
}

export interface Flow {
  /** By the clock. */
  readonly mbitPerSecond: number
  /** By the time in which neither end was kept waiting for a processor. */
  readonly mbitPerOwnSecond: number
  /** For a person who looks for the cause of a low one. */
  readonly text: string
}

/** iperf3 to the server's address in the tunnel, where one must be listening. */
export async function measureFlow(lab: Lab, guest: Guest, options: FlowOptions): Promise<Flow> {
  const { isDownload, seconds } = options
  const parties = () => [
    groupMembers(guest.processGroup),
    ...lab.processes(lab.server).map(one => [one]),
  ]
  const before = parties().map(pids => ({ pids, time: processorTime(pids) }))
  const beganMs = performance.now()
  const script = `iperf3 -J -t ${seconds} -c ${tunnel.server} ${isDownload ? '-R' : ''}`
  const { code, output } = await guest.run(script)
  const wallMs = performance.now() - beganMs
  if (code !== 0) throw new CheckError(`${script}\n${output}`)
  const result = JSON.parse(output.slice(output.indexOf('{'))) as {
    end: { sum_received: { bits_per_second: number }; sum_sent: { retransmits?: number } }
  }
  const times = before.map(({ pids, time }) => since(time, processorTime(pids)))
  const share = Math.min(...times.map(time => ownShare(time, wallMs)))
  const mbitPerSecond = result.end.sum_received.bits_per_second / 1e6
  const [client, ...servers] = times.map(
    ({ ranMs, waitedMs }) =>
      `${ranMs.toFixed(0)} ms run and ${waitedMs.toFixed(0)} ms kept waiting`,
  )
  return {
    mbitPerSecond,
    mbitPerOwnSecond: mbitPerSecond / share,
    text: [
      `${mbitPerSecond.toFixed(1)} Mbit/s in ${wallMs.toFixed(0)} ms`,
      `${(mbitPerSecond / share).toFixed(1)} in the time with a processor`,
      `${result.end.sum_sent.retransmits ?? 0} retransmissions`,
      `the guest: ${client}; in the server's namespace: ${servers.join(', ')}`,
    ].join('; '),
  }
}

/**
 * The tunnel carries `atLeast` Mbit/s. A client that is not let run carries nothing, and that says
 * nothing about the tunnel; so the time is not counted in which the one of both ends that waited longer
 * for a processor did so. A tunnel that stalls or loses packets leaves both idle, and that is counted.
 */
export async function expectFlow(
  lab: Lab,
  guest: Guest,
  options: FlowOptions & { readonly atLeast: number },
): Promise<void> {
  const { mbitPerOwnSecond, text } = await measureFlow(lab, guest, options)
  expect(mbitPerOwnSecond > options.atLeast, `only ${text}`)
}

function since(before: ProcessorTime, after: ProcessorTime): ProcessorTime {
  return { ranMs: after.ranMs - before.ranMs, waitedMs: after.waitedMs - before.waitedMs }
}

/** Several threads may wait at the same time; what ran is a share in any case. */
function ownShare({ ranMs, waitedMs }: ProcessorTime, wallMs: number): number {
  return Math.min(1, Math.max(1 - waitedMs / wallMs, ranMs / wallMs, leastShare))
}

const leastShare = 0.05
