/** Our L2TP/IPsec server and our client at the two ends of a wire, with a call up between them. */
import type { ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { stringify } from 'yaml'
import { SystemError } from '../lib/core/errors.ts'
import { type FlowResult, measureFlow, serveIperf } from './iperf.ts'
import { stop, Wire } from './namespaces.ts'

const program = fileURLToPath(new URL('../bin/openras.js', import.meta.url))
const clientProgram = fileURLToPath(new URL('./l2tp-client.js', import.meta.url))
const user = { name: 'bench', password: 'bench-password' }
const key = 'the preshared key of the bench'
const startTimeoutMs = 60_000
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
    const { a, b } = this.#wire
    if (this.#client !== undefined) await stop(this.#client, 10_000)
    this.#client = this.#wire.spawn(
      a,
      process.execPath,
      [clientProgram, b.address, a.address, key, cipher, user.name],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    )
    this.#client.stdin?.end(user.password)
    await firstOutput(this.#client, 'the client')
  }

  /** Goodput from the client's side, and what it costs the server process. */
  measure(direction: 'up' | 'down', streams: number, seconds: number): Promise<FlowResult> {
    const isReverse = direction === 'down'
    const flow = { from: this.#wire.a, target: tunnelServer, streams, seconds, isReverse }
    return measureFlow(flow, this.#server?.pid ?? 0)
  }

  async close(): Promise<void> {
    await this.#stopIperf?.()
    for (const child of [this.#client, this.#server]) {
      if (child !== undefined) await stop(child, 10_000)
    }
    await this.#wire.close()
    rmSync(this.#folder, { recursive: true })
  }

  async #begin(cipher: string): Promise<void> {
    const config = join(this.#folder, 'openras.yaml')
    const document = {
      sstp: { enabled: false },
      ikev2: { enabled: false },
      l2tp: { preSharedKeys: [{ key }] },
      users: [user],
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

function firstOutput(child: ChildProcess, who: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new SystemError(`${who} said nothing for ${startTimeoutMs / 1000} s`)),
      startTimeoutMs,
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
