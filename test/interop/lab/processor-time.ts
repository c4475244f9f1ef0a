/** What a process had of the processors, and how long it was kept waiting for one. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { setPriority } from 'node:os'

export interface ProcessorTime {
  readonly ranMs: number
  /** Ready to run while others did. */
  readonly waitedMs: number
}

/** Of all threads of these processes; those that are gone count nothing. */
export function processorTime(pids: readonly number[]): ProcessorTime {
  let [ranNs, waitedNs] = [0, 0]
  for (const pid of pids) {
    for (const thread of namesIn(`/proc/${pid}/task`)) {
      // Documentation/scheduler/sched-stats.rst: nanoseconds on a processor and waiting for one.
      const [ran = 0, waited = 0] = textOf(`/proc/${pid}/task/${thread}/schedstat`)
        .split(' ')
        .map(Number)
      ranNs += ran
      waitedNs += waited
    }
  }
  return { ranMs: ranNs / 1e6, waitedMs: waitedNs / 1e6 }
}

/** The processes of a group. */
export function groupMembers(group: number): number[] {
  return namesIn('/proc')
    .map(Number)
    .filter(pid => pid > 0 && groupOf(pid) === group)
}

/**
 * A process, and what it starts, runs before other work of this machine: clients and servers have
 * timers, and a tool beside them should not decide what they do. Where sessions share the processors
 * (autogroups, sched(7)), each session has a priority of its own.
 */
export function takePrecedence(pid: number): void {
  try {
    setPriority(pid, precedence)
    writeFileSync(`/proc/${pid}/autogroup`, `${precedence}`)
  } catch {
    // It is gone, or this kernel has no such groups.
  }
}

const precedence = -15

/** The fields of stat behind the name in parentheses: state, parent, group (proc_pid_stat(5)). */
function groupOf(pid: number): number {
  const stat = textOf(`/proc/${pid}/stat`)
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[2])
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
