/** Our PPTP server and our client at the two ends of a wire, with a call up between them. */
import type { ChildProcess, SpawnOptions } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { stringify } from 'yaml'
import { type FlowResult, measureFlow, serveIperf } from './iperf.ts'
import { firstOutput, stop, Wire } from './namespaces.ts'

const program = fileURLToPath(new URL('../bin/openras.js', import.meta.url))
const clientProgram = fileURLToPath(new URL('./pptp-client.js', import.meta.url))
const rawProgram = fileURLToPath(new URL('./raw-gre.js', import.meta.url))
const user = { name: 'bench', password: 'bench-password' }
const tunnelServer = '10.87.0.1'

export const encryptions = ['none', 'stateless', 'stateful'] as const
export type Encryption = (typeof encryptions)[number]

export interface PptpFlow extends FlowResult {
  /** Data packets that passed the raw socket of the server in the flow's direction, a second. */
  readonly packetsPerSecond: number
}

export class PptpPair {
  readonly #wire: Wire
  readonly #folder: string
  readonly #config: string
  #server: ChildProcess | undefined
  #client: ChildProcess | undefined
  #stopIperf: (() => Promise<void>) | undefined

  private constructor() {
    this.#wire = new Wire('pb')
    this.#folder = mkdtempSync(join(tmpdir(), 'openras-bench-'))
    this.#config = join(this.#folder, 'openras.yaml')
    const config = {
      sstp: { enabled: false },
      ikev2: { enabled: false },
      pptp: { enabled: true, encryption: 'optional', stateless: false },
      users: [user],
      state: { directory: join(this.#folder, 'state') },
      log: { level: 'warn' },
    }
    writeFileSync(this.#config, stringify(config), { mode: 0o600 })
  }

  /** Throws SystemError when the server does not start or the call does not come up. */
  static async start(encryption: Encryption): Promise<PptpPair> {
    const pair = new PptpPair()
    try {
      await pair.#begin(encryption)
      return pair
    } catch (error) {
      await pair.close()
      throw error
    }
  }

  /** Goodput from the client's side, and what it costs the server process. */
  async measure(direction: 'up' | 'down', streams: number, seconds: number): Promise<PptpFlow> {
    const isReverse = direction === 'down'
    const before = this.#packets(isReverse)
    const flow = { from: this.#wire.a, target: tunnelServer, streams, seconds, isReverse }
    const result = await measureFlow(flow, this.#server?.pid ?? 0)
    return { ...result, packetsPerSecond: (this.#packets(isReverse) - before) / seconds }
  }

  /** What raw sockets do on this wire without a tunnel, packets a second. */
  async rawCeiling(payloadBytes: number): Promise<number> {
    const { a, b } = this.#wire
    const stdio: SpawnOptions = { stdio: ['ignore', 'pipe', 'inherit'] }
    const receiver = this.#wire.spawn(
      b,
      process.execPath,
      [rawProgram, 'receive', b.address, a.address],
      stdio,
    )
    await firstOutput(receiver, 'the receiver')
    const measured = firstOutput(receiver, 'the receiver')
    const sender = this.#wire.spawn(
      a,
      process.execPath,
      [rawProgram, 'send', a.address, b.address, String(payloadBytes)],
      stdio,
    )
    const packetsPerSecond = Number(await measured)
    await Promise.all([stop(sender, 5000), stop(receiver, 5000)])
    return packetsPerSecond
  }

  async close(): Promise<void> {
    await this.#stopIperf?.()
    for (const child of [this.#client, this.#server])
      if (child !== undefined) await stop(child, 9000)
    await this.#wire.close()
    rmSync(this.#folder, { recursive: true })
  }

  async #begin(encryption: Encryption): Promise<void> {
    const { a, b } = this.#wire
    const serve = [program, 'serve', '--config', this.#config]
    const stdio = ['ignore', 'pipe', 'inherit'] as const
    this.#server = this.#wire.spawn(b, process.execPath, serve, { stdio: [...stdio] })
    await firstOutput(this.#server, 'the server')
    this.#stopIperf = await serveIperf(this.#wire, b)
    this.#client = this.#wire.spawn(
      a,
      process.execPath,
      [clientProgram, b.address, encryption, user.name],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    )
    this.#client.stdin?.end(user.password)
    await firstOutput(this.#client, 'the client')
  }

  #packets(isSent: boolean): number {
    const { b } = this.#wire
    const args = [program, 'status', '--json', '--config', this.#config]
    const status = JSON.parse(this.#wire.exec(b, process.execPath, ...args)) as {
      pptp: { counters: Record<string, number> }
    }
    return status.pptp.counters[isSent ? 'gre-sentPackets' : 'gre-receivedPackets'] ?? 0
  }
}
