/** Our server and our client at the two ends of a wire, with a call up between them. */
import { type ChildProcess, execFile } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { stringify } from 'yaml'
import { ownCertificateFiles } from '../lib/certificates/own-certificate.ts'
import { type FlowResult, measureFlow, serveIperf } from './iperf.ts'
import { firstOutput, stop, Wire } from './namespaces.ts'

const program = fileURLToPath(new URL('../bin/openras.js', import.meta.url))
const clientProgram = fileURLToPath(new URL('./sstp-client.js', import.meta.url))
const callsProgram = fileURLToPath(new URL('./sstp-calls.js', import.meta.url))
const user = { name: 'bench', password: 'bench-password' }
/** For hundreds of calls to come up. */
const diallingTimeoutMs = 120_000
const tunnelServer = '10.87.0.1'

export class SstpPair {
  readonly #wire: Wire
  readonly #folder: string
  readonly #server: ChildProcess
  readonly #stopIperf: () => Promise<void>
  #client: ChildProcess | undefined

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
      await pair.#dial()
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

  /** Resident memory of the server now, MiB. */
  get serverMemoryMiB(): number {
    const status = readFileSync(`/proc/${this.serverPid}/status`, 'utf8')
    return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? Number.NaN) / 1024
  }

  /** Stops our client from reading, or lets it go on. */
  stall(isStalled: boolean): void {
    this.#client?.kill(isStalled ? 'SIGSTOP' : 'SIGCONT')
  }

  /** Moves `gigabytes` through the tunnel; resolves to Gbit/s. Throws SystemError when it does not end. */
  async transfer(direction: 'up' | 'down', gigabytes: number): Promise<number> {
    const { namespace } = this.#wire.a
    const reverse = direction === 'down' ? ['-R'] : []
    const args = ['-J', '-c', tunnelServer, '-n', `${gigabytes * 1000}M`, ...reverse]
    const { stdout } = await promisify(execFile)(
      'ip',
      ['netns', 'exec', namespace, 'iperf3', ...args],
      { maxBuffer: 64 * 1024 * 1024, timeout: 600_000 },
    )
    const { end } = JSON.parse(stdout) as { end: { sum_received: { bits_per_second: number } } }
    return end.sum_received.bits_per_second / 1e9
  }

  /** Dials calls from one process and calls `whileUp` while all are up. */
  async withCalls(
    calls: number,
    parallel: number,
    whileUp: (result: { calls: number; seconds: number }) => Promise<void> | void,
  ): Promise<void> {
    const dialler = this.#spawnClient(callsProgram, [String(calls), String(parallel)])
    const line = await firstOutput(dialler, 'the dialler', diallingTimeoutMs)
    await whileUp(JSON.parse(line) as { calls: number; seconds: number })
    await stop(dialler, 20_000)
  }

  async close(): Promise<void> {
    this.stall(false)
    await this.#stopIperf()
    await stop(this.#server)
    await this.#wire.close()
    rmSync(this.#folder, { recursive: true })
  }

  async #dial(): Promise<void> {
    this.#client = this.#spawnClient(clientProgram, [])
    await firstOutput(this.#client, 'the client')
  }

  #spawnClient(path: string, args: readonly string[]): ChildProcess {
    const { cert } = ownCertificateFiles(join(this.#folder, 'state'))
    const { fingerprint256 } = new X509Certificate(readFileSync(cert))
    const fingerprint = fingerprint256.replaceAll(':', '')
    const { a, b } = this.#wire
    const client = this.#wire.spawn(
      a,
      process.execPath,
      [path, b.address, '443', fingerprint, user.name, ...args],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    )
    client.stdin?.end(user.password)
    return client
  }
}
