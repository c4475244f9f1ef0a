/**
 * One peer as transport mode makes it known: the ESP pairs between it and us, whichever ISAKMP SA
 * negotiated them. It outlives both, since each is replaced in its time; what runs over it is closed
 * when the last pair goes. Peers are told apart by their SAs, never by address: two clients behind one
 * NAT share that, and inside ESP their ports too.
 */
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { Counters } from '../core/faults.ts'
import type { DatagramRoute, DatagramSender, Envelope } from '../dataplane/datagrams.ts'
import type { PinnedMemory } from '../dataplane/dataplane.ts'
import { EspChild } from '../ipsec/esp-child.ts'
import type { EspOwner } from '../ipsec/esp-receiver.ts'
import { EspTunnel } from '../ipsec/esp-tunnel.ts'
import type { SaDatabase } from '../ipsec/sa-database.ts'
import type { TrafficSelector } from '../ipsec/traffic-selectors.ts'
import type { Child } from './event.ts'
import type { ProtectedService } from './quick-mode-exchange.ts'

/** What runs over the ESP pairs of one peer. */
export interface PeerService {
  /** A packet of the protected protocol, from its own header on, in pinned memory. */
  receive(at: number, lengthBytes: number): void
  /** There is no ESP with this peer any more; nothing can be sent. */
  closed(cause: DisconnectCause): void
}

export interface SecuredPeerOptions {
  /** Names the peer among all. */
  readonly key: string
  readonly memory: PinnedMemory
  readonly sender: DatagramSender
  readonly database: SaDatabase<EspOwner>
  readonly service: ProtectedService
  readonly route: DatagramRoute
  /** Undefined turns the peer away. */
  open(peer: SecuredPeer): PeerService | undefined
  /** An authentic packet came another way than ours goes. */
  onOtherPath(peer: SecuredPeer, envelope: Envelope): void
  /** The peer has used a pair whose last message has not come: that proves as much. */
  onUsed(peer: SecuredPeer, inboundSpi: number): void
}

/** No limit of its own: that of the link decides. */
const largestPacketBytes = 65_535
const lastPort = 0xffff
const anyIpv4 = { startAddress: new Uint8Array(4), endAddress: new Uint8Array(4).fill(0xff) }
const bytesPerKilobyte = 1024

export class SecuredPeer {
  readonly key: string
  readonly esp: EspTunnel
  readonly counters = new Counters()
  readonly #options: SecuredPeerOptions
  /** Inbound SPIs of pairs that we may not send on yet. */
  readonly #unconfirmed = new Set<number>()
  /** Inbound SPI of a pair -> that of the one which it replaces. */
  readonly #replacedBy = new Map<number, number>()
  #service: PeerService | undefined
  #originalAddresses: readonly Uint8Array[] = []
  #route: DatagramRoute

  constructor(options: SecuredPeerOptions) {
    this.key = options.key
    this.#options = options
    this.#route = options.route
    this.esp = new EspTunnel({
      memory: options.memory,
      sender: options.sender,
      database: options.database,
      route: options.route,
      mtuBytes: largestPacketBytes,
      transportProtocol: options.service.protocol,
      observer: { onOtherPath: envelope => options.onOtherPath(this, envelope) },
    })
    this.esp.connect({ deliver: (at, lengthBytes) => this.#deliver(at, lengthBytes) })
  }

  get address(): string {
    return this.#route.peer.text
  }

  /** Address and port for people. */
  get label(): string {
    const { family, port, text } = this.#route.peer
    return family === 6 ? `[${text}]:${port}` : `${text}:${port}`
  }

  get localAddress(): string {
    return this.#route.local.text
  }

  /** Where packets go now. */
  get route(): DatagramRoute {
    return this.#route
  }

  /** RFC 3947 §5.2: the peer's address and ours as it sees them; none when it did not say. */
  get originalAddresses(): readonly Uint8Array[] {
    return this.#originalAddresses
  }

  get isIdle(): boolean {
    return this.esp.children.length === 0
  }

  /** Installs a pair. False when it cannot be, or when the peer is turned away. */
  add(child: Child, canSend: boolean, nowMs: number): boolean {
    const { memory, service } = this.#options
    const installed = EspChild.make(memory, {
      mode: 'transport',
      inboundSpi: child.inboundSpi,
      outboundSpi: child.outboundSpi,
      suite: child.suite,
      inboundKeys: child.inboundKeys,
      outboundKeys: child.outboundKeys,
      localSelectors: [selector(service.protocol, service.port, service.port)],
      remoteSelectors: [selector(service.protocol, 0, lastPort)],
      rekeyBytes:
        child.lifetimes.kilobytes > 0
          ? 0.9 * child.lifetimes.kilobytes * bytesPerKilobyte
          : Number.POSITIVE_INFINITY,
      nowMs,
    })
    if (installed === undefined) {
      this.counters.count('child-not-installed')
      return false
    }
    this.#originalAddresses = child.originalAddresses
    this.#service ??= this.#options.open(this)
    if (this.#service === undefined) {
      this.counters.count('peer-turned-away')
      return false
    }
    if (child.replaces !== undefined) this.#replacedBy.set(child.inboundSpi, child.replaces)
    this.esp.add(installed)
    if (canSend) this.activate(child.inboundSpi)
    else this.#unconfirmed.add(child.inboundSpi)
    return true
  }

  /** From now on packets leave by this pair. */
  activate(inboundSpi: number): void {
    this.#unconfirmed.delete(inboundSpi)
    this.esp.activate(inboundSpi, this.#replacedBy.get(inboundSpi))
  }

  remove(inboundSpi: number, cause: DisconnectCause): void {
    this.#unconfirmed.delete(inboundSpi)
    this.#replacedBy.delete(inboundSpi)
    this.esp.remove(inboundSpi)
    if (this.isIdle) this.#end(cause)
  }

  moveTo(route: DatagramRoute): void {
    this.#route = route
    this.esp.moveTo(route)
  }

  close(cause: DisconnectCause): void {
    this.#unconfirmed.clear()
    this.#replacedBy.clear()
    for (const { inbound } of this.esp.children) this.esp.remove(inbound.spi)
    this.#end(cause)
  }

  /** The next pair, if one comes, is a new beginning. */
  #end(cause: DisconnectCause): void {
    const service = this.#service
    this.#service = undefined
    service?.closed(cause)
  }

  #deliver(at: number, lengthBytes: number): void {
    if (this.#unconfirmed.size > 0) this.#lookForUse()
    this.#service?.receive(at, lengthBytes)
  }

  #lookForUse(): void {
    for (const inboundSpi of [...this.#unconfirmed]) {
      const child = this.esp.child(inboundSpi)
      if (child !== undefined && child.inbound.authenticPackets > 0) {
        this.#options.onUsed(this, inboundSpi)
      }
    }
  }
}

/** In transport mode addresses are not compared (RFC 3948 §3.1), so either family stands for both. */
function selector(protocol: number, startPort: number, endPort: number): TrafficSelector {
  return { protocol, startPort, endPort, ...anyIpv4 }
}
