/**
 * IKEv2 and L2TP/IPsec of the server as it composes them itself, on the sockets of an imagined network
 * with a NAT in it. Time stands still until the test moves it, and then the network settles first.
 */
import type { Test } from 'tap'
import type { UserStore } from '../../lib/aaa/users/user-store.ts'
import type { Config } from '../../lib/config.ts'
import { parseConfig } from '../../lib/config.ts'
import { type IkeParts, Ikev2Service, loadIkeParts } from '../../lib/server/ikev2-service.ts'
import { IpsecService } from '../../lib/server/ipsec-service.ts'
import { L2tpService } from '../../lib/server/l2tp-service.ts'
import { DatagramNetwork, type MemoryPlane } from './datagram-network.ts'
import { DialIn, type DialInOptions } from './dial-in.ts'
import { eventually, turn } from './eventually.ts'
import { Nat } from './nat.ts'

export const serverAddress = '192.0.2.1'
export const serverIpv6Address = '2001:db8::1'
export const serverName = 'vpn.example.net'
export const sharedKey = 'a long and random shared key'

export interface IpsecServerOptions extends DialInOptions {
  /** More YAML: sections `ikev2` and `l2tp`. */
  readonly config?: string
  /** Where own certificates are kept: making them takes longer than a call. */
  readonly stateDirectory: string
}

/** Something that waits for answers and sends again when none come. */
export interface Waiting {
  onTime(nowMs: number): void
}

const stepMs = 250

export class IpsecServer {
  readonly home: DialIn
  readonly network = new DatagramNetwork()
  readonly nat = new Nat()
  readonly plane: MemoryPlane
  readonly ipsec: IpsecService
  readonly ikev2: Ikev2Service
  readonly l2tp: L2tpService
  readonly config: Config
  readonly parts: IkeParts
  /** Whom certificates and tickets name; a test may change them. */
  users: UserStore
  readonly waiting = new Set<Waiting>()
  #isStopped = false

  constructor(t: Test, options: IpsecServerOptions) {
    this.home = new DialIn(options)
    const { dataplane, services, log } = this.home
    this.config = configOf(options)
    this.parts = loadIkeParts(this.config)
    this.plane = this.network.host([serverAddress, serverIpv6Address], dataplane.memory, () =>
      dataplane.flush(),
    )
    this.network.onPath = flight => this.nat.pass(flight)
    this.ipsec = new IpsecService(this.config, services, log, this.plane)
    this.users = this.home.users
    this.ikev2 = new Ikev2Service(this.config, this.parts, services, this.ipsec, () => this.users)
    this.l2tp = new L2tpService(this.config, services, this.ipsec, log)
    this.ipsec.open()
    t.teardown(async () => {
      await this.stop()
      const leaks = this.home.leaks()
      if (this.ipsec.database.size > 0) leaks.push(`${this.ipsec.database.size} ESP SAs`)
      if (leaks.length > 0) throw new Error(`lost: ${leaks.join(', ')}`)
    })
  }

  get nowMs(): number {
    return this.home.clock.nowMs()
  }

  /** Delivers what flies, and what that causes, until nothing moves any more. */
  async settle(): Promise<void> {
    for (let quiet = 0; quiet < 3; quiet++) {
      if (this.network.flying.length > 0) quiet = 0
      this.network.settle()
      this.home.dataplane.flush()
      this.plane.flush()
      // Verdicts are promises.
      await turn()
    }
  }

  async elapse(durationMs: number, ofMs = stepMs): Promise<void> {
    for (let gone = 0; gone < durationMs; gone += ofMs) {
      await this.settle()
      const { clock, wheel } = this.home
      clock.advance(ofMs)
      for (const one of this.waiting) one.onTime(clock.nowMs())
      wheel.advance(clock.nowMs())
    }
    await this.settle()
  }

  /** The outcome of a conversation; time passes only when nothing flies. */
  async run<T>(promise: Promise<T>, patienceMs = 200_000): Promise<T> {
    let isSettled = false
    const settled = () => {
      isSettled = true
    }
    promise.then(settled, settled)
    for (let gone = 0; ; gone += stepMs) {
      await this.settle()
      if (isSettled) return promise
      if (gone > patienceMs) throw new Error('this does not come to an end')
      await this.elapse(stepMs)
    }
  }

  /** What the host behind the server sends into the tunnels. */
  async fromHost(...packets: Uint8Array[]): Promise<void> {
    this.home.host.burstFromHost(packets)
    await this.settle()
  }

  async stop(): Promise<void> {
    if (this.#isStopped) return
    this.#isStopped = true
    this.home.sessions.disconnectAll('nas-reboot')
    let isOver = false
    const stopped = Promise.all([this.ikev2.stop(), this.l2tp.stop()]).then(() => {
      isOver = true
    })
    // What is on its way to the peers has a fixed time of the system's clock.
    await eventually(
      () => {
        this.network.settle()
        return isOver
      },
      () => 'the services do not stop',
    )
    await stopped
    await this.ipsec.close()
    await this.home.stop()
  }
}

export function configOf({ config = '', stateDirectory }: IpsecServerOptions): Config {
  return parseConfig(
    `
server: {name: ${serverName}, listen: [${serverAddress}, '${serverIpv6Address}']}
state: {directory: ${stateDirectory}}
addresses: {ipv6: 'fd87::/48', dns: [10.87.0.53]}
users: []
${config}`,
    'test',
  )
}
