/** iperf3 through a tunnel, and what it costs a process. */
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
}

/** User and system time of a process with all its threads, seconds. */
export function cpuSecondsOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  // The command name may hold spaces; what follows it starts at field 3, and we want 14 and 15.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond
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

/** Runs one flow and watches what it costs the process `pid`. Throws SystemError when it fails. */
export async function measureFlow(flow: Flow, pid: number): Promise<FlowResult> {
  const args = ['-J', '-c', flow.target, '-t', String(flow.seconds), '-P', String(flow.streams)]
  if (flow.isReverse) args.push('-R')
  const before = cpuSecondsOf(pid)
  const { stdout } = await promisify(execFile)(
    'ip',
    ['netns', 'exec', flow.from.namespace, 'iperf3', ...args],
    { maxBuffer: 64 * 1024 * 1024, timeout: (flow.seconds + 20) * 1000 },
  ).catch((error: Error & { stdout?: string }) => {
    throw new SystemError(`iperf3 to ${flow.target}: ${iperfError(error.stdout) ?? error.message}`)
  })
  const cpuSeconds = cpuSecondsOf(pid) - before
  const { end } = JSON.parse(stdout) as {
    end: { sum_received: { bits_per_second: number; bytes: number } }
  }
  return {
    gbitPerSecond: end.sum_received.bits_per_second / 1e9,
    cpuSeconds,
    gbitPerCpuSecond: (end.sum_received.bytes * 8) / 1e9 / cpuSeconds,
  }
}

function iperfError(output: string | undefined): string | undefined {
  try {
    return (JSON.parse(output ?? '') as { error?: string }).error
  } catch {
    return undefined
  }
}
