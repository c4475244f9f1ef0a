/** Our server and our initiator at the two ends of a wire, with a tunnel up between them. */
import type { ChildProcess } from 'node:child_process'
import { X509Certificate } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { ownCertificateFiles } from '../lib/certificates/own-certificate.ts'
import { startIkev2Server, stateFolder, tunnelServer, user } from './ikev2-program.ts'
import {
  cpuSecondsOf,
  type FlowResult,
  measureFlow,
  measurePackets,
  type PacketResult,
  residentMiBOf,
  serveIperf,
} from './iperf.ts'
import { firstOutput, stop, Wire } from './namespaces.ts'

const clientProgram = fileURLToPath(new URL('./ikev2-client.js', import.meta.url))
const callsProgram = fileURLToPath(new URL('./ikev2-calls.js', import.meta.url))
/** For many calls to come up: for the first, and for each, ms. */
const startTimeoutMs = 60_000
/** Enough for a collection of some hundred megabytes, ms. */
const collectionMs = 3000
const callTimeoutMs = 100

export interface DiallingResult {
  /** From the first to the last of the calls that were asked for. */
  readonly seconds: number
  /** With those before them. */
  readonly dialled: number
}

export class Ikev2Pair {
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

  /** Throws SystemError when the server does not start or the tunnel does not come up. */
  static async start(cipher: string): Promise<Ikev2Pair> {
    const folder = mkdtempSync(join(tmpdir(), 'openras-bench-'))
    const wire = new Wire('ik')
    try {
      // Where a client does not ask for UDP, ESP goes without it.
      const server = await startIkev2Server(wire, folder, { plainEsp: true })
      const pair = new Ikev2Pair(wire, folder, server, await serveIperf(wire, wire.b))
      await pair.dial(cipher)
      return pair
    } catch (error) {
      await wire.close()
      rmSync(folder, { recursive: true })
      throw error
    }
  }

  /** Hangs up the tunnel, if there is one, and dials with this cipher of ESP; `plain` does without UDP. */
  async dial(cipher: string, wrapping: 'udp' | 'plain' = 'udp'): Promise<void> {
    if (this.#client !== undefined) await stop(this.#client, 10_000)
    this.#client = this.#spawnClient(clientProgram, [cipher, wrapping])
    await firstOutput(this.#client, 'the client')
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
      this.#server.pid ?? 0,
      this.#client?.pid,
    )
  }

  /** UDP datagrams of `payloadBytes` as fast as they go from the client's side: those that arrived. */
  measurePackets(
    direction: 'up' | 'down',
    payloadBytes: number,
    seconds: number,
  ): Promise<PacketResult> {
    const from = this.#wire.a
    const isReverse = direction === 'down'
    return measurePackets(
      { from, target: tunnelServer, streams: 1, seconds, isReverse, payloadBytes },
      this.#server.pid ?? 0,
    )
  }

  /** User and system time of the server so far, seconds. */
  get serverCpuSeconds(): number {
    return cpuSecondsOf(this.#server.pid ?? 0)
  }

  /** Resident memory of the server without its garbage, MiB. */
  async serverMemoryMiB(): Promise<number> {
    this.#server.kill('SIGUSR2')
    await delay(collectionMs)
    return residentMiBOf(this.#server.pid ?? 0)
  }

  /** Without the tunnel: one process dials as many calls, and `whileUp` is called while all are up. */
  async withCalls(
    calls: number,
    parallel: number,
    whileUp: (result: DiallingResult) => Promise<void>,
  ): Promise<void> {
    if (this.#client !== undefined) await stop(this.#client, 10_000)
    this.#client = undefined
    const dialler = this.#spawnClient(callsProgram, [String(calls), String(parallel)])
    const line = await firstOutput(dialler, 'the dialler', startTimeoutMs + calls * callTimeoutMs)
    await whileUp(JSON.parse(line) as DiallingResult)
    await stop(dialler, 60_000)
  }

  async close(): Promise<void> {
    await this.#stopIperf()
    if (this.#client !== undefined) await stop(this.#client, 10_000)
    await stop(this.#server, 10_000)
    await this.#wire.close()
    rmSync(this.#folder, { recursive: true })
  }

  #spawnClient(path: string, args: readonly string[]): ChildProcess {
    const { cert } = ownCertificateFiles(stateFolder(this.#folder))
    const { fingerprint256 } = new X509Certificate(readFileSync(cert))
    const fingerprint = fingerprint256.replaceAll(':', '')
    const { a, b } = this.#wire
    const client = this.#wire.spawn(
      a,
      process.execPath,
      [path, b.address, a.address, fingerprint, user.name, ...args],
      { stdio: ['pipe', 'pipe', 'ignore'] },
    )
    client.stdin?.end(user.password)
    return client
  }
}
