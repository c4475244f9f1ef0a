/** Two network namespaces and the wire between them. */
import { type ChildProcess, execFileSync, type SpawnOptions, spawn } from 'node:child_process'
import { SystemError } from '../lib/core/errors.ts'

/** Keys are made at the first start, and the machine may be busy. */
const startTimeoutMs = 60_000

export interface End {
  readonly namespace: string
  /** On the wire. */
  readonly address: string
}

/** `Wire` A is 10.200.0.1, B is 10.200.0.2. */
export class Wire {
  readonly a: End
  readonly b: End
  readonly #processes = new Set<ChildProcess>()

  /** `prefix` tells apart wires that exist at the same time; the process number is added. */
  constructor(prefix: string, mtuBytes = 1500) {
    this.a = { namespace: `${prefix}${process.pid}a`, address: '10.200.0.1' }
    this.b = { namespace: `${prefix}${process.pid}b`, address: '10.200.0.2' }
    for (const { namespace } of [this.a, this.b]) {
      ip('netns', 'add', namespace)
      ip('-n', namespace, 'link', 'set', 'lo', 'up')
    }
    const [a, b] = [this.a.namespace, this.b.namespace]
    ip('-n', a, 'link', 'add', 'wire0', 'type', 'veth', 'peer', 'name', 'wire0', 'netns', b)
    for (const { namespace, address } of [this.a, this.b]) {
      ip('-n', namespace, 'addr', 'add', `${address}/24`, 'dev', 'wire0')
      ip('-n', namespace, 'link', 'set', 'wire0', 'mtu', String(mtuBytes), 'up')
    }
  }

  /** Starts a program at one end; it is ended with the wire. Its pid is the program's own. */
  spawn(end: End, command: string, args: readonly string[], options: SpawnOptions): ChildProcess {
    const child = spawn('ip', ['netns', 'exec', end.namespace, command, ...args], options)
    this.#processes.add(child)
    child.on('exit', () => this.#processes.delete(child))
    return child
  }

  /** The output of a command at one end. Throws when it fails. */
  exec(end: End, ...command: string[]): string {
    return execFileSync('ip', ['netns', 'exec', end.namespace, ...command], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    })
  }

  async close(): Promise<void> {
    for (const child of [...this.#processes]) await stop(child)
    for (const { namespace } of [this.a, this.b]) ip('netns', 'del', namespace)
  }
}

/** SIGTERM, after `patienceMs` SIGKILL; resolves when it is gone. */
export async function stop(child: ChildProcess, patienceMs = 2000): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = new Promise<void>(resolve => child.on('exit', () => resolve()))
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), patienceMs)
  await gone
  clearTimeout(timer)
}

/** What the child says first. Throws SystemError when it says nothing for `patienceMs`, or ends. */
export function firstOutput(
  child: ChildProcess,
  who: string,
  patienceMs = startTimeoutMs,
): Promise<string> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new SystemError(`${who} said nothing for ${patienceMs / 1000} s`)),
      patienceMs,
    )
    child.stdout?.once('data', data => {
      clearTimeout(timer)
      resolve(String(data))
    })
    child.once('exit', code => {
      clearTimeout(timer)
      reject(new SystemError(`${who} ended with ${code}`))
    })
  })
}

function ip(...args: string[]): void {
  execFileSync('ip', args)
}
