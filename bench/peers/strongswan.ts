/** strongSwan with ESP in user space (kernel-libipsec), in UDP: at both ends, or as the client of ours. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startIkev2Server, tunnelServer } from '../ikev2-program.ts'
import { type FlowResult, measureFlow, serveIperf } from '../iperf.ts'
import { type End, Wire } from '../namespaces.ts'
import { Charon, ensureCharon } from './charon.ts'

const [insideA, insideB] = ['10.205.0.1', '10.205.1.1']
const site = { identity: 'branch.example.net', presharedKey: 'the preshared key of the bench' }
const mtuBytes = 1400
const usualEsp = 'aes128gcm16'

/** Two ends that are connected. */
interface Ends {
  readonly client: Charon
  readonly serverPid: number
  /** The server's address in the tunnel. */
  readonly target: string
}

export class StrongswanPeer {
  readonly #wire: Wire
  readonly #folder: string
  readonly #ends: Ends
  readonly #stopIperf: () => Promise<void>

  private constructor(wire: Wire, folder: string, ends: Ends, stopIperf: () => Promise<void>) {
    this.#wire = wire
    this.#folder = folder
    this.#ends = ends
    this.#stopIperf = stopIperf
  }

  /**
   * At both ends. Undefined when it cannot be had; `say` tells why. `espProposal` is written as strongSwan
   * does. Throws SystemError when it does not connect.
   */
  static start(
    say: (text: string) => void,
    espProposal = usualEsp,
  ): Promise<StrongswanPeer | undefined> {
    return StrongswanPeer.#start('sw', say, async (wire, folder) => {
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
      const client = await start(wire.a, wire.b, insideA, insideB)
      const server = await start(wire.b, wire.a, insideB, insideA)
      server.mtuBytes = mtuBytes
      return { client, serverPid: server.pid, target: insideB }
    })
  }

  /** The server is ours, and strongSwan a site that dials it with a preshared key; else as `start`. */
  static startClient(
    say: (text: string) => void,
    espProposal = usualEsp,
  ): Promise<StrongswanPeer | undefined> {
    return StrongswanPeer.#start('sc', say, async (wire, folder) => {
      const server = await startIkev2Server(wire, folder, {
        sites: [{ ...site, remoteNetworks: [`${insideA}/32`] }],
      })
      const client = await Charon.start(wire, wire.a, {
        folder,
        other: wire.b,
        identities: [site.identity, '%any'],
        key: site.presharedKey,
        inside: insideA,
        remoteNetwork: `${tunnelServer}/32`,
        espProposal,
      })
      return { client, serverPid: server.pid ?? 0, target: tunnelServer }
    })
  }

  static async #start(
    prefix: string,
    say: (text: string) => void,
    connect: (wire: Wire, folder: string) => Promise<Ends>,
  ): Promise<StrongswanPeer | undefined> {
    if (!ensureCharon(say)) return undefined
    const folder = mkdtempSync(join(tmpdir(), 'openras-strongswan-'))
    const wire = new Wire(prefix)
    try {
      const ends = await connect(wire, folder)
      ends.client.mtuBytes = mtuBytes
      await ends.client.initiate(ends.target)
      return new StrongswanPeer(wire, folder, ends, await serveIperf(wire, wire.b))
    } catch (error) {
      await wire.close()
      rmSync(folder, { recursive: true })
      throw error
    }
  }

  measure(direction: 'up' | 'down', streams: number, seconds: number): Promise<FlowResult> {
    const { client, serverPid, target } = this.#ends
    const isReverse = direction === 'down'
    return measureFlow(
      { from: this.#wire.a, target, streams, seconds, isReverse },
      serverPid,
      client.pid,
    )
  }

  async close(): Promise<void> {
    await this.#stopIperf()
    await this.#wire.close()
    rmSync(this.#folder, { recursive: true })
  }
}
