/**
 * A router for tests: three network namespaces in a row, `inside` -- `router` -- `beyond`, where the
 * link to `inside` plays the TUN device. `beyond` has no route to the inside network, so an answer
 * comes back only when the router translated the question.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import type { ForwardingSettings } from '../../lib/routing/forwarding.ts'

export const isRoot = process.getuid?.() === 0
export const tunName = 'ras0'
export const beyondAddress = '198.51.100.2'

/** What the child answers to one command line. */
export interface Reply {
  readonly ok: boolean
  readonly value: unknown
}

export class Router {
  readonly name: string
  readonly folder: string
  #children: ForwardingProcess[] = []

  constructor(prefix: string) {
    this.name = `${prefix}-r`
    this.folder = mkdtempSync(join(tmpdir(), `${prefix}-`))
    const [inside, router, beyond] = [`${prefix}-i`, this.name, `${prefix}-b`]
    for (const namespace of [inside, router, beyond]) {
      ip('netns', 'add', namespace)
      ip('-n', namespace, 'link', 'set', 'lo', 'up')
      // Nobody else is on these links; waiting for them to object would take a second.
      const noDad = ['net.ipv6.conf.all.accept_dad=0', 'net.ipv6.conf.default.accept_dad=0']
      ip('netns', 'exec', namespace, 'sysctl', '-qw', ...noDad)
    }
    const link = (a: string, aName: string, b: string, bName: string) =>
      ip('-n', a, 'link', 'add', aName, 'type', 'veth', 'peer', 'name', bName, 'netns', b)
    link(router, tunName, inside, 'eth0')
    link(router, 'wan0', beyond, 'eth0')
    const address = (namespace: string, device: string, text: string) => {
      const extra = text.includes(':') ? ['nodad'] : []
      ip('-n', namespace, 'addr', 'add', text, 'dev', device, ...extra)
      ip('-n', namespace, 'link', 'set', device, 'up')
    }
    address(router, tunName, '10.91.0.1/24')
    address(router, tunName, 'fd91::1/64')
    address(inside, 'eth0', '10.91.0.2/24')
    address(inside, 'eth0', 'fd91::2/64')
    address(router, 'wan0', '198.51.100.1/24')
    address(router, 'wan0', 'fd92::1/64')
    address(beyond, 'eth0', `${beyondAddress}/24`)
    address(beyond, 'eth0', 'fd92::2/64')
    ip('-n', inside, 'route', 'add', 'default', 'via', '10.91.0.1')
    ip('-n', inside, 'route', 'add', 'default', 'via', 'fd91::1')
    ip('-n', beyond, 'route', 'add', 'fd91::/64', 'via', 'fd92::1')
  }

  /** Whether a ping from inside to `address` is answered. */
  reaches(address: string): boolean {
    const namespace = this.name.replace(/-r$/, '-i')
    const args = ['netns', 'exec', namespace, 'ping', '-c', '3', '-i', '0.2', '-W', '1', address]
    const { status } = spawnSync('ip', args, { stdio: 'ignore' })
    // 1 is "no answer"; anything else is a ping that could not run.
    if (status !== 0 && status !== 1) throw new TypeError(`ping ended with ${status}`)
    return status === 0
  }

  exec(...command: string[]): string {
    return execFileSync('ip', ['netns', 'exec', this.name, ...command], { encoding: 'utf8' })
  }

  sysctl(name: string): string {
    return this.exec('sysctl', '-n', name).trim()
  }

  setSysctl(name: string, value: string | number): void {
    this.exec('sysctl', '-qw', `${name}=${value}`)
  }

  /** A process in the router's namespace that owns one `Forwarding`. */
  start(): ForwardingProcess {
    const child = new ForwardingProcess(this.name, join(this.folder, 'ledger'))
    this.#children.push(child)
    return child
  }

  async close(): Promise<void> {
    for (const child of this.#children) await child.kill()
    for (const part of ['i', 'r', 'b']) ip('netns', 'del', this.name.replace(/r$/, part))
    rmSync(this.folder, { recursive: true })
  }
}

export class ForwardingProcess {
  readonly #child: ChildProcess
  readonly #replies: AsyncIterator<string>
  readonly #exited: Promise<void>

  constructor(namespace: string, ledgerFolder: string) {
    const program = fileURLToPath(new URL('./forwarding-process.ts', import.meta.url))
    this.#child = spawn(
      'ip',
      ['netns', 'exec', namespace, process.execPath, ...process.execArgv, program, ledgerFolder],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    )
    this.#exited = new Promise(resolve => this.#child.on('exit', () => resolve()))
    const { stdout } = this.#child
    if (stdout === null) throw new TypeError('no standard output')
    this.#replies = createInterface({ input: stdout })[Symbol.asyncIterator]()
  }

  apply(settings: ForwardingSettings): Promise<Reply> {
    return this.#ask({ command: 'apply', settings })
  }

  revert(): Promise<Reply> {
    return this.#ask({ command: 'revert' })
  }

  recover(): Promise<Reply> {
    return this.#ask({ command: 'recover' })
  }

  /** kill -9, and wait until it is gone. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#exited
  }

  async #ask(question: unknown): Promise<Reply> {
    this.#child.stdin?.write(`${JSON.stringify(question)}\n`)
    const { value, done } = await this.#replies.next()
    if (done === true) throw new Error('the forwarding process ended')
    return JSON.parse(value) as Reply
  }
}

function ip(...args: string[]): void {
  execFileSync('ip', args)
}
