/**
 * L2TP for everybody: inside the ESP of peers that IKEv1 has made known, and, where it is allowed,
 * plainly on UDP port 1701. Finds the tunnel that a message is for, and answers requests for new ones.
 */
import type { Clock } from '../core/clock.ts'
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { Counters, FaultCounters } from '../core/faults.ts'
import { noRoom } from '../core/packet-sink.ts'
import type { RandomSource } from '../core/random.ts'
import type { TimerWheel } from '../core/timers.ts'
import type { DatagramPlane, DatagramPort, Envelope } from '../dataplane/datagrams.ts'
import type { PinnedMemory } from '../dataplane/dataplane.ts'
import { SocketAddress } from '../dataplane/socket-address.ts'
import type { PeerService, SecuredPeer } from '../ikev1/secured-peer.ts'
import type { LinkFactory } from '../ppp/carrier.ts'
import { EspPath } from './esp-path.ts'
import type { L2tpEvent } from './event.ts'
import { L2TP_PORT, type L2tpPath } from './l2tp-path.ts'
import { PlainPath } from './plain-path.ts'
import { TunnelConnection, type TunnelServices } from './tunnel-connection.ts'
import { TunnelMachine } from './tunnel-machine.ts'
import type { TunnelOptions } from './tunnel-options.ts'
import { type Tunnel, type TunnelLimits, TunnelTable } from './tunnel-table.ts'
import { checkHeader, isControl, tunnelIdOf } from './wire/header.ts'

/** What is the same for all tunnels; those that are up keep what they began with. */
export type TunnelSettings = Pick<TunnelOptions, 'hostName'> &
  Partial<Pick<TunnelOptions, 'vendorName' | 'secret' | 'helloAfterMs' | 'emptyTimeoutMs'>>

export interface L2tpListenerOptions {
  readonly memory: PinnedMemory
  readonly clock: Clock
  readonly wheel: TimerWheel
  readonly random: RandomSource
  readonly links: LinkFactory
  readonly settings: TunnelSettings
  readonly limits?: Partial<TunnelLimits>
  /** Everything that a log may want. */
  event(peer: string, event: L2tpEvent): void
}

export interface L2tpStatus {
  /** Where plain L2TP is taken; empty: only inside IPsec. */
  readonly addresses: readonly { readonly host: string; readonly port: number }[]
  readonly tunnels: number
  readonly sessions: number
  readonly counters: Readonly<Record<string, number>>
}

/** How long `stop` waits for peers to acknowledge the end of their tunnels, ms. */
const stopPatienceMs = 2000

export class L2tpListener {
  readonly #options: L2tpListenerOptions
  readonly #counters = new Counters()
  readonly #faults = new FaultCounters()
  readonly #table: TunnelTable<TunnelConnection>
  readonly #services: TunnelServices
  readonly #ports: DatagramPort[] = []
  #settings: TunnelSettings
  #onEmpty: (() => void) | undefined
  #isStopping = false
  #lastPlainPath: PlainPath | undefined

  constructor(options: L2tpListenerOptions) {
    const { memory, clock, wheel, random, settings, limits } = options
    this.#options = options
    this.#settings = settings
    this.#services = { memory, clock, wheel, counters: this.#counters }
    this.#table = new TunnelTable({
      random,
      counters: this.#counters,
      faults: this.#faults,
      ...(limits !== undefined && { limits }),
      ...(settings.secret !== undefined && { secret: settings.secret }),
    })
  }

  /** For tunnels from now on. */
  set settings(settings: TunnelSettings) {
    this.#settings = settings
  }

  /** Takes L2TP without IPsec too. Throws BindError. */
  openPlain(plane: DatagramPlane, hosts: readonly string[]): void {
    for (const host of hosts) {
      const bound = SocketAddress.of(host, L2TP_PORT)
      const port = plane.open(bound, {
        receive: (at, lengthBytes, envelope) =>
          this.#receivePlain(plane, at, lengthBytes, envelope),
        lost: () => this.#counters.count('l2tp-socket-lost'),
      })
      this.#ports.push(port)
    }
  }

  /** A peer has ESP with us: what it sends in there is L2TP. */
  open(peer: SecuredPeer): PeerService {
    const path = new EspPath(peer, this.#options.memory, this.#counters)
    return {
      receive: (at, lengthBytes) => {
        const messageAt = path.open(at, lengthBytes)
        if (messageAt < 0) return
        const messageBytes = at + lengthBytes - messageAt
        this.#receive(path, messageAt, messageBytes, path.portOf(messageAt))
      },
      closed: cause => this.#lost(path.key, cause),
    }
  }

  /** Opens a tunnel to the peer at the end of `path`, with one call, for `links`. */
  dial(path: L2tpPath, links: LinkFactory): TunnelConnection {
    // We chose the peer, so nobody makes us flood it.
    const { owner } = this.#add(path, links, true)
    owner.handle({
      type: 'place-call',
      call: { reference: 0, direction: 'incoming' },
    })
    return owner
  }

  status(): L2tpStatus {
    let sessions = 0
    for (const { owner } of this.#table.tunnels()) sessions += owner.sessionCount
    return {
      addresses: this.#ports.map(({ bound }) => ({ host: bound.text, port: bound.port })),
      tunnels: this.#table.size,
      sessions,
      counters: { ...this.#counters.toJSON(), ...this.#faults.toJSON() },
    }
  }

  /** Takes nobody in any more, tells the peers, and waits a while for them to acknowledge. */
  async stop(): Promise<void> {
    this.#isStopping = true
    for (const { owner } of [...this.#table.tunnels()]) {
      owner.handle({ type: 'close', cause: 'nas-reboot' })
    }
    if (this.#table.size > 0) {
      await new Promise<void>(resolve => {
        const timer = setTimeout(resolve, stopPatienceMs)
        this.#onEmpty = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
    for (const tunnel of [...this.#table.tunnels()]) {
      tunnel.owner.lost('nas-reboot')
      this.#table.remove(tunnel)
    }
    for (const port of this.#ports) port.close()
  }

  #receive(path: L2tpPath, at: number, lengthBytes: number, peerPort: number): void {
    const { bytes } = this.#options.memory
    const fault = checkHeader(bytes, at, lengthBytes)
    if (fault) this.#faults.count(fault)
    else if (isControl(bytes, at)) {
      // copied: machines keep what comes out of order
      this.#receiveControl(path, bytes.slice(at, at + lengthBytes), peerPort)
    } else {
      this.#table.get(tunnelIdOf(bytes, at), path.key)?.owner.data(at, lengthBytes)
    }
  }

  #receiveControl(path: L2tpPath, message: Uint8Array, peerPort: number): void {
    const route = this.#table.route(message, path.key, this.#options.clock.nowMs())
    switch (route.type) {
      case 'tunnel': {
        const connection = route.tunnel.owner
        const hadYielded = connection.hasYielded
        connection.control(message, peerPort)
        if (connection.hasYielded && !hadYielded) this.#receiveControl(path, message, peerPort)
        return
      }
      case 'new':
        if (this.#isStopping) this.#counters.count('l2tp-stopping')
        else {
          const { owner } = this.#add(path, this.#options.links, path.isVerified)
          owner.control(message, peerPort)
        }
        return
      case 'refuse':
        this.#send(path, route.reply, peerPort)
        return
      case 'drop':
    }
  }

  #receivePlain(plane: DatagramPlane, at: number, lengthBytes: number, envelope: Envelope): void {
    const { bytes } = this.#options.memory
    const fault = checkHeader(bytes, at, lengthBytes)
    if (fault) {
      this.#faults.count(fault)
      return
    }
    const path = this.#plainPath(plane, envelope)
    this.#receive(path, at, lengthBytes, envelope.peer.port)
  }

  /** A burst mostly comes from one peer; any other is looked up. */
  #plainPath(plane: DatagramPlane, envelope: Envelope): PlainPath {
    if (this.#lastPlainPath?.isOf(envelope) !== true) {
      this.#lastPlainPath = new PlainPath(plane, plane.route(envelope))
    }
    return this.#lastPlainPath
  }

  #add(path: L2tpPath, links: LinkFactory, isPeerVerified: boolean): Tunnel<TunnelConnection> {
    const { clock, random } = this.#options
    const connection: TunnelConnection = new TunnelConnection(path, links, this.#services, {
      event: event => {
        if (event.type === 'closed') this.#remove(tunnel)
        this.#options.event(path.peerLabel, event)
      },
    })
    const tunnel = this.#table.add(path.key, connection, clock.nowMs(), localTunnelId => {
      return new TunnelMachine({
        ...this.#settings,
        localTunnelId,
        random,
        counters: this.#counters,
        faults: this.#faults,
        isPeerVerified,
      })
    })
    connection.begin(tunnel.machine)
    return tunnel
  }

  #lost(key: string, cause: DisconnectCause): void {
    for (const tunnel of this.#table.ofPeer(key)) {
      tunnel.owner.lost(cause)
      this.#remove(tunnel)
    }
  }

  #remove(tunnel: Tunnel<TunnelConnection>): void {
    this.#table.remove(tunnel)
    if (this.#table.size === 0) this.#onEmpty?.()
  }

  #send(path: L2tpPath, message: Uint8Array, peerPort: number): void {
    const at = path.reserve(message.length)
    if (at === noRoom) return
    this.#options.memory.bytes.set(message, at)
    path.commit(at, message.length, peerPort)
    path.flush()
  }
}
