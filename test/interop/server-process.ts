/** The built server, started as a user would start it, in the server's namespace of the lab. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { stringify } from 'yaml'
import { SystemError } from '../../lib/core/errors.ts'
import { address, type Lab, tunnel } from './lab/lab.ts'
import { takePrecedence } from './lab/processor-time.ts'
import { projectFolder } from './lab/setup.ts'

const program = join(projectFolder, 'dist/bin/openras.js')
const startTimeoutMs = 90_000
const stopTimeoutMs = 15_000

/** What clients log in with. */
export const users = {
  lab: 'lab-pass',
  second: 'second-pass',
} as const

export interface ServerOptions {
  readonly certificate: { readonly cert: string; readonly key: string }
  readonly access?: 'all' | 'serveronly'
  /** The section of that name, as written. */
  readonly ikev2?: Readonly<Record<string, unknown>>
  /** Likewise. */
  readonly pptp?: Readonly<Record<string, unknown>>
  readonly l2tp?: Readonly<Record<string, unknown>>
  /** Sections of the configuration, whole, instead of what stands there otherwise. */
  readonly sections?: Readonly<Record<string, unknown>>
}

export class ServerProcess {
  readonly #lab: Lab
  readonly #config: string
  readonly logFile: string
  #process: ChildProcess | undefined

  constructor(lab: Lab, name: string, options: ServerOptions) {
    const { certificate, access = 'all', ikev2 = {}, pptp = {}, l2tp = {}, sections = {} } = options
    this.#lab = lab
    this.#config = join(lab.folder, `${name}.yaml`)
    this.logFile = join(lab.folder, `${name}.log`)
    const state = join(lab.folder, `${name}-state`)
    const config = {
      server: { name: 'vpn.lab', listen: [address.server] },
      tun: { name: 'ras0' },
      sstp: { enabled: true, port: 443, certificates: [certificate] },
      ikev2,
      pptp,
      l2tp,
      auth: { methods: ['mschapv2', 'chap', 'pap'] },
      users: Object.entries(users).map(([user, password]) => ({ name: user, password })),
      addresses: {
        server: tunnel.server,
        ipv4: [tunnel.ipv4],
        ipv6: tunnel.ipv6,
        dns: [tunnel.server],
      },
      access,
      nat: { enabled: true, interface: 'auto' },
      log: { level: 'debug' },
      state: { directory: state, controlSocket: join(lab.folder, `${name}.sock`) },
      ...sections,
    }
    writeFileSync(this.#config, stringify(config), { mode: 0o600 })
  }

  /** Resolves when it answers commands. Throws SystemError with the end of its log when it does not. */
  async start(): Promise<void> {
    const log = openSync(this.logFile, 'a')
    const args = ['netns', 'exec', this.#lab.server, process.execPath, program, 'serve']
    const child = spawn('ip', [...args, '--config', this.#config], {
      stdio: ['ignore', log, log],
      // A session of its own, so that its precedence is not that of whoever runs the suite.
      detached: true,
    })
    closeSync(log)
    if (child.pid !== undefined) takePrecedence(child.pid)
    this.#process = child
    for (let waitedMs = 0; waitedMs < startTimeoutMs; waitedMs += 200) {
      if (child.exitCode !== null) break
      if (await this.#answers()) return
      await delay(200)
    }
    await this.kill()
    throw new SystemError(`the server did not start: ${this.logTail()}`)
  }

  /** SIGTERM, and until it is gone. Throws SystemError when it does not go. */
  async stop(): Promise<void> {
    await this.#end('SIGTERM')
  }

  async kill(): Promise<void> {
    await this.#end('SIGKILL')
  }

  signal(name: NodeJS.Signals): void {
    this.#process?.kill(name)
  }

  /** The output of an `openras` command. Throws when it fails. */
  command(...args: string[]): string {
    return this.#lab.exec(
      this.#lab.server,
      process.execPath,
      program,
      ...args,
      '--config',
      this.#config,
    )
  }

  /** `openras status --json`. */
  status(): unknown {
    return JSON.parse(this.command('status', '--json'))
  }

  logTail(): string {
    return readFileSync(this.logFile, 'utf8').split('\n').slice(-15).join('\n')
  }

  /** Asked without blocking: other cases run beside this one. */
  #answers(): Promise<boolean> {
    const enter = ['netns', 'exec', this.#lab.server, process.execPath, program]
    const args = [...enter, 'status', '--json', '--config', this.#config]
    return new Promise(resolve => execFile('ip', args, error => resolve(error === null)))
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#process
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = new Promise<true>(resolve => child.on('exit', () => resolve(true)))
    child.kill(signal)
    const isEnded = await Promise.race([ended, delay(stopTimeoutMs, false, { ref: false })])
    if (!isEnded) {
      child.kill('SIGKILL')
      throw new SystemError(`the server ignored ${signal} for ${stopTimeoutMs / 1000} s`)
    }
  }
}
