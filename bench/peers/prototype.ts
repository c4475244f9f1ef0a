/**
 * A dataplane prototype to compare with, which is no part of this project: OPENRAS_BENCH_PROTOTYPE names
 * its script. Its arguments: own address, the other's, address in the tunnel, threads, cipher; it says
 * `ready`.
 */
import { dirname } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { SystemError } from '../../lib/core/errors.ts'
import { type FlowResult, measureFlow, serveIperf } from '../iperf.ts'
import { Wire } from '../namespaces.ts'

const [tunnelA, tunnelB] = ['10.202.0.1', '10.202.0.2']
const connectTimeoutMs = 10_000

export class PrototypePeer {
  readonly #wire: Wire
  readonly #pid: number
  readonly #stopIperf: () => Promise<void>

  private constructor(wire: Wire, pid: number, stopIperf: () => Promise<void>) {
    this.#wire = wire
    this.#pid = pid
    this.#stopIperf = stopIperf
  }

  /** Undefined when none is named. Throws SystemError when it does not connect. */
  static async start(): Promise<PrototypePeer | undefined> {
    const { OPENRAS_BENCH_PROTOTYPE: script } = process.env
    if (script === undefined) return undefined
    const wire = new Wire('pt')
    try {
      const run = (end: typeof wire.a, other: typeof wire.a, tunnel: string) =>
        wire.spawn(
          end,
          process.execPath,
          [script, end.address, other.address, tunnel, '1', 'aes-128-gcm'],
          { stdio: 'ignore', cwd: dirname(script) },
        )
      run(wire.a, wire.b, tunnelA)
      const { pid } = run(wire.b, wire.a, tunnelB)
      if (pid === undefined) throw new SystemError('the prototype did not start')
      await waitForTunnel(wire)
      return new PrototypePeer(wire, pid, await serveIperf(wire, wire.b))
    } catch (error) {
      await wire.close()
      throw error
    }
  }

  measure(direction: 'up' | 'down', streams: number, seconds: number): Promise<FlowResult> {
    const isReverse = direction === 'down'
    return measureFlow(
      { from: this.#wire.a, target: tunnelB, streams, seconds, isReverse },
      this.#pid,
    )
  }

  async close(): Promise<void> {
    await this.#stopIperf()
    await this.#wire.close()
  }
}

async function waitForTunnel(wire: Wire): Promise<void> {
  for (let waitedMs = 0; waitedMs < connectTimeoutMs; waitedMs += 300) {
    try {
      wire.exec(wire.a, 'ping', '-c', '1', '-W', '1', tunnelB)
      return
    } catch {
      await delay(300)
    }
  }
  throw new SystemError('the prototype did not connect')
}
