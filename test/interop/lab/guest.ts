/** One virtual machine with a stock client in it, driven over a folder that it shares with us. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { SystemError } from '../../../lib/core/errors.ts'
import { takePrecedence } from './processor-time.ts'
import { guestFolder, guestKernel, guestRoot } from './setup.ts'

export interface GuestResult {
  readonly code: number
  readonly output: string
}

export interface GuestOptions {
  readonly name: string
  /** Where its scripts, answers and logs are. */
  readonly folder: string
  readonly namespace: string
  /** A bridge of that namespace. */
  readonly bridge: string
  /** `198.18.0.11/24`. */
  readonly address: string
  /** Last byte of its MAC address. */
  readonly number: number
}

/** Long: they find what hangs, not what is slow. */
const bootTimeoutMs = 180_000
const scriptTimeoutMs = 120_000
const memoryMegabytes = 192
const pollMs = 50

export class Guest {
  readonly #options: GuestOptions
  readonly #process: ChildProcess
  #isGone = false
  #count = 0

  private constructor(options: GuestOptions) {
    this.#options = options
    const { name, folder, namespace, bridge, number } = options
    mkdirSync(join(folder, 'uml'), { recursive: true })
    const tap = `tap${number}`
    // vnet_hdr here and gro below: without them large segments from the host are lost.
    execFileSync('ip', ['-n', namespace, 'tuntap', 'add', tap, 'mode', 'tap', 'vnet_hdr'])
    execFileSync('ip', ['-n', namespace, 'link', 'set', tap, 'master', bridge, 'up'])
    const mac = `02:4f:52:00:00:${number.toString(16).padStart(2, '0')}`
    const console = openSync(join(folder, 'console.log'), 'w')
    this.#process = spawn(
      'ip',
      [
        ...['netns', 'exec', namespace, guestKernel, `mem=${memoryMegabytes}M`],
        ...[`umid=${name}`, `uml_dir=${folder}/uml/`, 'root=/dev/root', 'rootfstype=hostfs'],
        ...[`rootflags=${guestRoot}`, 'ro', 'init=/guest-init', 'quiet', 'loglevel=3'],
        ...['con=null', 'con0=null,fd:1', 'ssl=null'],
        `vec0:transport=tap,ifname=${tap},depth=128,gro=1,mac=${mac}`,
        ...[`guest.lab=${guestFolder}`, `guest.out=${folder}`, `guest.address=${options.address}`],
      ],
      // A group of its own: the kernel is several processes.
      { stdio: ['ignore', console, console], detached: true },
    )
    closeSync(console)
    if (this.#process.pid !== undefined) takePrecedence(this.#process.pid)
    this.#process.on('exit', () => {
      this.#isGone = true
    })
  }

  /** Throws SystemError when it does not come up. */
  static async boot(options: GuestOptions): Promise<Guest> {
    const guest = new Guest(options)
    try {
      await guest.#waitFor('ready', bootTimeoutMs)
    } catch (error) {
      guest.kill()
      throw error
    }
    return guest
  }

  get folder(): string {
    return this.#options.folder
  }

  /** Its kernel is several processes, which are a group of their own. */
  get processGroup(): number {
    return this.#process.pid ?? 0
  }

  get number(): number {
    return this.#options.number
  }

  /** Runs `script` in bash and resolves to its exit code and output. */
  async run(script: string, timeoutMs = scriptTimeoutMs): Promise<GuestResult> {
    const number = ++this.#count
    const draft = join(this.folder, `${number}.new`)
    writeFileSync(draft, `${script}\n`)
    renameSync(draft, join(this.folder, `${number}.sh`))
    await this.#waitFor(`${number}.code`, timeoutMs)
    return {
      code: Number(readFileSync(join(this.folder, `${number}.code`), 'utf8')),
      output: readFileSync(join(this.folder, `${number}.log`), 'utf8'),
    }
  }

  /** Powers it off; kills it when it does not go. */
  async halt(): Promise<void> {
    if (!this.#isGone) writeFileSync(join(this.folder, 'halt'), '')
    for (let waitedMs = 0; waitedMs < 5000 && !this.#isGone; waitedMs += pollMs) await delay(pollMs)
    this.kill()
  }

  kill(): void {
    if (this.#process.pid === undefined || this.#isGone) return
    try {
      process.kill(-this.#process.pid, 'SIGKILL')
    } catch {
      // It ended just now.
    }
  }

  async #waitFor(name: string, timeoutMs: number): Promise<void> {
    const path = join(this.folder, name)
    for (let waitedMs = 0; !existsSync(path); waitedMs += pollMs) {
      if (this.#isGone) throw new SystemError(`the guest ended: see ${this.folder}/console.log`)
      if (waitedMs > timeoutMs) {
        throw new SystemError(`the guest did not answer within ${timeoutMs / 1000} s (${name})`)
      }
      await delay(pollMs)
    }
  }
}
