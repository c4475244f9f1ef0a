/** Our responder with strongSwan in user space as its client: a site that dials with a preshared key. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { startIkev2Server, tunnelServer } from '../ikev2-program.ts'
import { type FlowResult, measureFlow, serveIperf } from '../iperf.ts'
import { Wire } from '../namespaces.ts'
import { Charon, ensureCharon } from './charon.ts'

const inside = '10.205.0.1'
const site = { identity: 'branch.example.net', presharedKey: 'the preshared key of the bench' }
const mtuBytes = 1400

export class StrongswanClientPeer {
  readonly #wire: Wire
  readonly #folder: string
  readonly #client: Charon
  readonly #serverPid: number
  readonly #stopIperf: () => Promise<void>

  private constructor(
    wire: Wire,
    folder: string,
    client: Charon,
    serverPid: number,
    stopIperf: () => Promise<void>,
  ) {
    this.#wire = wire
    this.#folder = folder
    this.#client = client
    this.#serverPid = serverPid
    this.#stopIperf = stopIperf
  }

  /** Undefined when strongSwan cannot be had; `say` tells why. Throws SystemError when it does not connect. */
  static async start(
    say: (text: string) => void,
    espProposal = 'aes128gcm16',
  ): Promise<StrongswanClientPeer | undefined> {
    if (!ensureCharon(say)) return undefined
    const folder = mkdtempSync(join(tmpdir(), 'openras-strongswan-'))
    const wire = new Wire('sc')
    try {
      const server = await startIkev2Server(wire, folder, {
        sites: [{ ...site, remoteNetworks: [`${inside}/32`] }],
      })
      const client = await Charon.start(wire, wire.a, {
        folder,
        other: wire.b,
        identities: [site.identity, '%any'],
        key: site.presharedKey,
        inside,
        remoteNetwork: `${tunnelServer}/32`,
        espProposal,
      })
      client.mtuBytes = mtuBytes
      await client.initiate(tunnelServer)
      const stopIperf = await serveIperf(wire, wire.b)
      return new StrongswanClientPeer(wire, folder, client, server.pid ?? 0, stopIperf)
    } catch (error) {
      await wire.close()
      rmSync(folder, { recursive: true })
      throw error
    }
  }

  /** The server is ours, the other end is strongSwan. */
  measure(direction: 'up' | 'down', streams: number, seconds: number): Promise<FlowResult> {
    const isReverse = direction === 'down'
    return measureFlow(
      { from: this.#wire.a, target: tunnelServer, streams, seconds, isReverse },
      this.#serverPid,
      this.#client.pid,
    )
  }

  async close(): Promise<void> {
    await this.#stopIperf()
    await this.#wire.close()
    rmSync(this.#folder, { recursive: true })
  }
}
