/** What a case of the interop suite is, and the counting of what it checks. */
import { loadavg } from 'node:os'
import { messageOf } from '../../lib/core/errors.ts'
import type { TestCa } from './lab/certificates.ts'
import type { Lab } from './lab/lab.ts'
import { type ServerOptions, ServerProcess } from './server-process.ts'

export interface InteropCase {
  /** `sstp-auth`: the protocol first. */
  readonly name: string
  run(context: CaseContext): Promise<void>
}

/** A check did not hold; the message says what was seen instead. */
export class CheckError extends Error {}

export class CaseContext {
  readonly lab: Lab
  readonly ca: TestCa
  readonly #name: string
  readonly #say: (text: string) => void
  #server: ServerProcess | undefined
  passed = 0
  /** What did not hold, by name, with the first words of what was seen instead. */
  readonly failures: string[] = []

  constructor(name: string, lab: Lab, ca: TestCa, say: (text: string) => void) {
    this.#name = name
    this.lab = lab
    this.ca = ca
    this.#say = say
  }

  /** Does `work`; counts and prints whether it threw. */
  async check(title: string, work: () => Promise<void> | void): Promise<void> {
    const beganMs = performance.now()
    try {
      await work()
      this.passed++
      this.#say(`ok      ${this.#name}: ${title}`)
    } catch (error) {
      const seconds = ((performance.now() - beganMs) / 1000).toFixed(1)
      const [first = '', ...others] = readable(messageOf(error)).split('\n')
      this.failures.push(`${this.#name}: ${title}: ${others.at(-1) ?? first}`)
      const lines = [
        first,
        `after ${seconds} s, at a load of ${loadavg()[0]?.toFixed(1)}`,
        ...shortened(others),
        ...this.#serverWords(),
      ]
      this.#say(`FAILED  ${this.#name}: ${title}\n${indented(lines.join('\n'))}`)
    }
  }

  /** What is not checked, and why not. */
  cannot(title: string, reason: string): void {
    this.#say(`--      ${this.#name}: ${title}: ${reason}`)
  }

  /** A server with a fresh certificate and state, started; stopped when the case is over. */
  async startServer(options: Omit<ServerOptions, 'certificate'> = {}): Promise<ServerProcess> {
    const certificate = this.ca.issue(this.#name, 1)
    const server = new ServerProcess(this.lab, this.#name, { ...options, certificate })
    this.#server = server
    await server.start()
    return server
  }

  /** Tells the server that its files have changed. */
  reload(): void {
    this.#server?.signal('SIGHUP')
  }

  /** Ends what the case left running; shows the server's log when something failed. */
  async finish(): Promise<void> {
    const server = this.#server
    if (server === undefined) return
    await this.check('the server stops when it is told to', () => server.stop())
  }

  /** The last that the server said of the failure. */
  #serverWords(): string[] {
    if (this.#server === undefined) return []
    const said = readable(this.#server.logTail()).split('\n')
    return said.slice(-shownServerLines).map(line => `server: ${line}`.slice(0, shownCharacters))
  }
}

export function expect(isTrue: boolean, otherwise: string): void {
  if (!isTrue) throw new CheckError(otherwise)
}

/** A log of a run is read from its first lines, if it is read: what a failure prints is short. */
const shownLines = 24
const shownServerLines = 6
const shownCharacters = 240

function shortened(lines: readonly string[]): string[] {
  const shown = lines.slice(-shownLines).map(line => line.slice(0, shownCharacters))
  const left = lines.length - shown.length
  return left > 0 ? [`(${left} lines before these)`, ...shown] : shown
}

/** Without what programs print for terminals, or by mistake. */
function readable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: it is what is removed
  return text.replace(/[\0-\x08\x0b-\x1f]/g, '').trim()
}

function indented(text: string): string {
  return text
    .trim()
    .split('\n')
    .map(line => `          ${line}`)
    .join('\n')
}
