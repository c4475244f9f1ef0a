/**
 * strongSwan with ESP in user space (kernel-libipsec) at both ends, in UDP.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type FlowResult, measureFlow, serveIperf } from '../iperf.ts'
import { type End, Wire } from '../namespaces.ts'
import { Charon, ensureCharon } from './charon.ts'

const [insideA, insideB] = ['10.205.0.1', '10.205.1.1']
const mtuBytes = 1400

export class StrongswanPeer {
  readonly #wire: Wire
  readonly #folder: string
  readonly #client: Charon
  readonly #server: Charon
  readonly #stopIperf: () => Promise<void>

  private constructor(
    wire: Wire,
    folder: string,
    [client, server]: readonly [Charon, Charon],
    stopIperf: () => Promise<void>,
  ) {
    this.#wire = wire
    this.#folder = folder
    this.#client = client
    this.#server = server
    this.#stopIperf = stopIperf
  }

  /**
   * Undefined when it cannot be had; `say` tells why. `espProposal` is written as strongSwan does. Throws
   * SystemError when it does not connect.
   */
  static async start(
    say: (text: string) => void,
    espProposal = 'aes128gcm16',
  ): Promise<StrongswanPeer | undefined> {
    if (!ensureCharon(say)) return undefined
    const folder = mkdtempSync(join(tmpdir(), 'openras-strongswan-'))
    const wire = new Wire('sw')
    const start = (end: End, other: End, inside: string, otherInside: string) =>
      Charon.start(wire, end, {
        folder,
        other,
        identities: [end.address, other.address],
        key: 'bench',
        inside,
        remoteNetwork: `${otherInside}/32`,
        espProposal,
      })
    try {
      const client = await start(wire.a, wire.b, insideA, insideB)
      const server = await start(wire.b, wire.a, insideB, insideA)
      for (const charon of [client, server]) charon.mtuBytes = mtuBytes
      await client.initiate(insideB)
      return new StrongswanPeer(wire, folder, [client, server], await serveIperf(wire, wire.b))
    } catch (error) {
      await wire.close()
      rmSync(folder, { recursive: true })
      throw error
    }
  }

  measure(direction: 'up' | 'down', streams: number, seconds: number): Promise<FlowResult> {
    const isReverse = direction === 'down'
    return measureFlow(
      { from: this.#wire.a, target: insideB, streams, seconds, isReverse },
      this.#server.pid,
      this.#client.pid,
    )
  }

  async close(): Promise<void> {
    await this.#stopIperf()
    await this.#wire.close()
    rmSync(this.#folder, { recursive: true })
  }
}
