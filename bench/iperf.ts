/** iperf3 through a tunnel, and what processes take. */
import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { promisify } from 'node:util'
import { SystemError } from '../lib/core/errors.ts'
import { type End, stop, type Wire } from './namespaces.ts'

/** Field unit of /proc/PID/stat: USER_HZ is 100 on every Linux that we run on. */
const ticksPerSecond = 100

export interface Flow {
  /** Where the client runs. */
  readonly from: End
  /** The address that it dials, inside the tunnel. */
  readonly target: string
  readonly streams: number
  readonly seconds: number
  /** Data flows from the server to the client. */
  readonly isReverse: boolean
}

export interface FlowResult {
  /** What arrived, Gbit/s. */
  readonly gbitPerSecond: number
  /** User and system time of the watched process while it ran, seconds. */
  readonly cpuSeconds: number
  readonly gbitPerCpuSecond: number
  /** The same of the process at the other end; NaN where none is watched. */
  readonly otherGbitPerCpuSecond: number
}

/** User and system time of a process with all its threads, seconds. */
export function cpuSecondsOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  // The command name may hold spaces; what follows it starts at field 3, and we want 14 and 15.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
}

/** Resident memory of a process now, MiB. */
export function residentMiBOf(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? Number.NaN) / 1024
}

/** An iperf3 server at one end; stop it with the function that this resolves to. */
export async function serveIperf(wire: Wire, end: End): Promise<() => Promise<void>> {
  const child = wire.spawn(end, 'iperf3', ['-s', '--forceflush'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  await new Promise<void>((resolve, reject) => {
    child.stdout?.once('data', () => resolve())
    child.once('error', reject)
    child.once('exit', code => reject(new SystemError(`iperf3 -s ended with ${code}`)))
  })
  return () => stop(child)
}

/**
 * Runs one flow and watches what it costs the process `pid`, and `otherPid` at the other end of the tunnel.
 * Throws SystemError when it fails.
 */
export async function measureFlow(flow: Flow, pid: number, otherPid?: number): Promise<FlowResult> {
  const otherBefore = otherPid === undefined ? Number.NaN : cpuSecondsOf(otherPid)
  const { end, cpuSeconds } = await runIperf(flow, [], pid)
  const otherCpuSeconds = otherPid === undefined ? Number.NaN : cpuSecondsOf(otherPid) - otherBefore
  const gbit = (end.sum_received.bytes * 8) / 1e9
  return {
    gbitPerSecond: end.sum_received.bits_per_second / 1e9,
    cpuSeconds,
    gbitPerCpuSecond: gbit / cpuSeconds,
    otherGbitPerCpuSecond: gbit / otherCpuSeconds,
  }
}

export interface PacketResult {
  /** What arrived, 1/s. */
  readonly packetsPerSecond: number
  readonly packetsPerCpuSecond: number
}

/**
 * UDP datagrams of `payloadBytes`, sent as fast as they go: more than arrive. Throws SystemError when it
 * fails.
 */
export async function measurePackets(
  flow: Flow & { readonly payloadBytes: number },
  pid: number,
): Promise<PacketResult> {
  const args = ['-u', '-b', '0', '-l', String(flow.payloadBytes)]
  const { end, cpuSeconds } = await runIperf(flow, args, pid)
  const arrived = end.sum_received.packets - end.sum_received.lost_packets
  return {
    packetsPerSecond: arrived / end.sum_received.seconds,
    packetsPerCpuSecond: arrived / cpuSeconds,
  }
}

/** The end of iperf3's report. */
interface IperfEnd {
  readonly sum_received: {
    readonly bits_per_second: number
    readonly bytes: number
    readonly seconds: number
    /** UDP only. */
    readonly packets: number
    readonly lost_packets: number
  }
}

async function runIperf(
  flow: Flow,
  extra: readonly string[],
  pid: number,
): Promise<{ readonly end: IperfEnd; readonly cpuSeconds: number }> {
  const { target, seconds, streams } = flow
  const args = ['-J', '-c', target, '-t', String(seconds), '-P', String(streams), ...extra]
  if (flow.isReverse) args.push('-R')
  const before = cpuSecondsOf(pid)
  const { stdout } = await promisify(execFile)(
    'ip',
    ['netns', 'exec', flow.from.namespace, 'iperf3', ...args],
    { maxBuffer: 64 * 1024 * 1024, timeout: (seconds + 20) * 1000 },
  ).catch((error: Error & { stdout?: string }) => {
    throw new SystemError(`iperf3 to ${target}: ${iperfError(error.stdout) ?? error.message}`)
  })
  const cpuSeconds = cpuSecondsOf(pid) - before
  const { end } = JSON.parse(stdout) as { end: Partial<IperfEnd> }
  if (end.sum_received === undefined) {
    throw new SystemError(`iperf3 to ${target}: ${iperfError(stdout) ?? 'it says nothing'}`)
  }
  return { end: { sum_received: end.sum_received }, cpuSeconds }
}

function iperfError(output: string | undefined): string | undefined {
  try {
    return (JSON.parse(output ?? '') as { error?: string }).error
  } catch {
    return undefined
  }
}
