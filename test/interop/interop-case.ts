/** What a case of the interop suite is, and the counting of what it checks. */
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
  failed = 0

  constructor(name: string, lab: Lab, ca: TestCa, say: (text: string) => void) {
    this.#name = name
    this.lab = lab
    this.ca = ca
    this.#say = say
  }

  /** Does `work`; counts and prints whether it threw. */
  async check(title: string, work: () => Promise<void> | void): Promise<void> {
    try {
      await work()
      this.passed++
      this.#say(`ok      ${this.#name}: ${title}`)
    } catch (error) {
      this.failed++
      this.#say(`FAILED  ${this.#name}: ${title}\n${indented(messageOf(error))}`)
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
    if (this.failed > 0) this.#say(indented(server.logTail()))
  }
}

export function expect(isTrue: boolean, otherwise: string): void {
  if (!isTrue) throw new CheckError(otherwise)
}

function indented(text: string): string {
  return text
    .trim()
    .split('\n')
    .map(line => `          ${line}`)
    .join('\n')
}
