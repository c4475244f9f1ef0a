/** Our L2TP/IPsec server and our client at the two ends of a wire, with a call up between them. */
import type { ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { stringify } from 'yaml'
import { cpuSecondsOf, type FlowResult, measureFlow, residentMiBOf, serveIperf } from './iperf.ts'
import { dialL2tp, type L2tpAccount, type L2tpCallsResult, withL2tpCalls } from './l2tp-dialling.ts'
import { firstOutput, stop, Wire } from './namespaces.ts'

const program = fileURLToPath(new URL('../bin/openras.js', import.meta.url))
const account: L2tpAccount = {
  preSharedKey: 'the preshared key of the bench',
  userName: 'bench',
  password: 'bench-password',
}
const tunnelServer = '10.87.0.1'

export class L2tpPair {
  readonly #wire = new Wire('l2')
  readonly #folder = mkdtempSync(join(tmpdir(), 'openras-bench-'))
  #server: ChildProcess | undefined
  #client: ChildProcess | undefined
  #stopIperf: (() => Promise<void>) | undefined

  /** Throws SystemError when the server does not start or the call does not come up. */
  static async start(cipher: string): Promise<L2tpPair> {
    const pair = new L2tpPair()
    try {
      await pair.#begin(cipher)
      return pair
    } catch (error) {
      await pair.close()
      throw error
    }
  }

  /** Hangs up the call, if there is one, and dials with this cipher of ESP. */
  async dial(cipher: string): Promise<void> {
    await this.#hangUp()
    this.#client = (await dialL2tp(this.#wire, account, cipher)).client
  }

  /** Goodput from the client's side, and what it costs the server process. */
  measure(direction: 'up' | 'down', streams: number, seconds: number): Promise<FlowResult> {
    const isReverse = direction === 'down'
    const flow = { from: this.#wire.a, target: tunnelServer, streams, seconds, isReverse }
    return measureFlow(flow, this.#serverPid)
  }

  /** User and system time of the server so far, seconds. */
  get serverCpuSeconds(): number {
    return cpuSecondsOf(this.#serverPid)
  }

  /** Resident memory of the server now, MiB. */
  get serverMemoryMiB(): number {
    return residentMiBOf(this.#serverPid)
  }

  /** Without the call: dials many from one process and calls `whileUp` while all are up. */
  async withCalls(
    cipher: string,
    calls: number,
    parallel: number,
    whileUp: (result: L2tpCallsResult) => Promise<void>,
  ): Promise<void> {
    await this.#hangUp()
    await withL2tpCalls(this.#wire, account, cipher, { calls, parallel }, whileUp)
  }

  async close(): Promise<void> {
    await this.#stopIperf?.()
    await this.#hangUp()
    if (this.#server !== undefined) await stop(this.#server, 10_000)
    await this.#wire.close()
    rmSync(this.#folder, { recursive: true })
  }

  get #serverPid(): number {
    return this.#server?.pid ?? 0
  }

  async #hangUp(): Promise<void> {
    if (this.#client !== undefined) await stop(this.#client, 10_000)
    this.#client = undefined
  }

  async #begin(cipher: string): Promise<void> {
    const config = join(this.#folder, 'openras.yaml')
    const document = {
      sstp: { enabled: false },
      ikev2: { enabled: false },
      l2tp: { preSharedKeys: [{ key: account.preSharedKey }] },
      users: [{ name: account.userName, password: account.password }],
      state: { directory: join(this.#folder, 'state') },
      log: { level: 'warn' },
    }
    writeFileSync(config, stringify(document), { mode: 0o600 })
    const { b } = this.#wire
    this.#server = this.#wire.spawn(b, process.execPath, [program, 'serve', '--config', config], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await firstOutput(this.#server, 'the server')
    this.#stopIperf = await serveIperf(this.#wire, b)
    await this.dial(cipher)
  }
}
