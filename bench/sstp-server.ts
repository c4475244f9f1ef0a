/** Our server and our client at the two ends of a wire, with a call up between them. */
import type { ChildProcess } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { stringify } from 'yaml'
import { ownCertificateFiles } from '../lib/certificates/own-certificate.ts'
import { SystemError } from '../lib/core/errors.ts'
import { type FlowResult, measureFlow, serveIperf } from './iperf.ts'
import { stop, Wire } from './namespaces.ts'

const program = fileURLToPath(new URL('../bin/openras.js', import.meta.url))
const clientProgram = fileURLToPath(new URL('./sstp-client.js', import.meta.url))
const user = { name: 'bench', password: 'bench-password' }
const startTimeoutMs = 30_000
const tunnelServer = '10.87.0.1'

export class SstpPair {
  readonly #wire: Wire
  readonly #folder: string
  readonly #server: ChildProcess
  readonly #stopIperf: () => Promise<void>

  private constructor(
    wire: Wire,
    folder: string,
    server: ChildProcess,
    stopIperf: () => Promise<void>,
  ) {
    this.#wire = wire
    this.#folder = folder
    this.#server = server
    this.#stopIperf = stopIperf
  }

  /** Throws SystemError when the server does not start or the call does not come up. */
  static async start(): Promise<SstpPair> {
    const folder = mkdtempSync(join(tmpdir(), 'openras-bench-'))
    const wire = new Wire('sb')
    try {
      const config = join(folder, 'openras.yaml')
      const state = join(folder, 'state')
      writeFileSync(
        config,
        stringify({ users: [user], state: { directory: state }, log: { level: 'warn' } }),
        { mode: 0o600 },
      )
      const server = wire.spawn(wire.b, process.execPath, [program, 'serve', '--config', config], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      await firstOutput(server, 'the server')
      const stopIperf = await serveIperf(wire, wire.b)
      const pair = new SstpPair(wire, folder, server, stopIperf)
      await pair.#dial(state)
      return pair
    } catch (error) {
      await wire.close()
      rmSync(folder, { recursive: true })
      throw error
    }
  }

  get serverPid(): number {
    return this.#server.pid ?? 0
  }

  /** Goodput from the client's side, and what it costs the server process. */
  measure(direction: 'up' | 'down', streams: number, seconds: number): Promise<FlowResult> {
    return measureFlow(
      {
        from: this.#wire.a,
        target: tunnelServer,
        streams,
        seconds,
        isReverse: direction === 'down',
      },
      this.serverPid,
    )
  }

  async close(): Promise<void> {
    await this.#stopIperf()
    await stop(this.#server)
    await this.#wire.close()
    rmSync(this.#folder, { recursive: true })
  }

  async #dial(state: string): Promise<void> {
    const { cert } = ownCertificateFiles(state)
    const { fingerprint256 } = new X509Certificate(readFileSync(cert))
    const fingerprint = fingerprint256.replaceAll(':', '')
    const { a, b } = this.#wire
    const client = this.#wire.spawn(
      a,
      process.execPath,
      [clientProgram, b.address, '443', fingerprint, user.name],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    )
    client.stdin?.end(user.password)
    await firstOutput(client, 'the client')
  }
}

function firstOutput(child: ChildProcess, who: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new SystemError(`${who} said nothing for ${startTimeoutMs / 1000} s`)),
      startTimeoutMs,
    )
    child.stdout?.once('data', () => {
      clearTimeout(timer)
      resolve()
    })
    child.once('exit', code => {
      clearTimeout(timer)
      reject(new SystemError(`${who} ended with ${code}`))
    })
  })
}
