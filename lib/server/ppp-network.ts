/**
 * What stands above the links of one peer, in either role: the network protocols, the data path and a
 * port of the dataplane. One link carries it, or a bundle of them whose links come and go; it lives as
 * long as any of its calls. IP goes past the engine; control packets go through it.
 */
import type { MasterKeys } from '../aaa/authenticator.ts'
import type { Session, SessionUsage } from '../aaa/session.ts'
import type { Clock } from '../core/clock.ts'
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { Driver } from '../core/driver.ts'
import { Counters } from '../core/faults.ts'
import type { RandomSource } from '../core/random.ts'
import type { TimerWheel } from '../core/timers.ts'
import type { Dataplane, Port } from '../dataplane/dataplane.ts'
import type { Carrier, FrameSealer } from '../ppp/carrier.ts'
import { DataPath } from '../ppp/data-path.ts'
import type { Ipv4Up, Ipv6Up, LinkInput, NetworkEvent, NetworkInput } from '../ppp/event.ts'
import { Opened } from '../ppp/frame-opener.ts'
import { PlainSealer } from '../ppp/frame-sealers.ts'
import type { Bundle } from '../ppp/multilink/bundle.ts'
import type { BundleTable, UserLimits } from '../ppp/multilink/bundle-table.ts'
import { NetworkEngine } from '../ppp/network-engine.ts'
import type { NetworkSettings } from '../ppp/settings.ts'
import { PppProtocol, peel } from '../ppp/wire/frame.ts'
import { BundleBandwidth } from './bundle-bandwidth.ts'

export interface NetworkServices {
  /** Absent: no link is bundled with another. */
  readonly bundles?: BundleTable<PppNetwork>
  readonly dataplane: Dataplane
  readonly clock: Clock
  readonly wheel: TimerWheel
  readonly random: RandomSource
}

/** Who has the networks: the server's side of a session, or a dialler. */
export interface PppNetworkOwner {
  /** For counters and captures of the dataplane. */
  readonly label: string
  /** We dialled: the peer leads to everything else. */
  readonly isUplink: boolean
  /** Of answered calls: what further calls of its user join. */
  readonly session: Session | undefined
  /** Where we can dial: calls the peer once more, for the same bundle; resolves when that has joined. */
  addLink?(): Promise<void>
  /** Everything that the networks report, after their own part is done. */
  networkEvent(event: NetworkEvent): void
  /** IPv4 flows: say which addresses are behind this port. */
  openIpv4(port: Port, up: Ipv4Up): void
  /** IPv6 flows: likewise. */
  openIpv6(port: Port, up: Ipv6Up): void
  /** A packet for the network itself; `bytes` is used during the call only. */
  linkPacket(bytes: Uint8Array): void
  /** The last call is over, and everything taken down. */
  ended(): void
}

/** One link, as the networks know it. */
export interface NetworkLink {
  readonly carrier: Carrier
  /** Present: the link is one of it. */
  readonly bundle: Bundle<PppNetwork> | undefined
  /** Largest information field that the peer takes, and the one that both sides take, bytes. */
  readonly peerMruBytes: number
  readonly mruBytes: number
  handle(input: LinkInput): void
}

const noUsage = {
  receivedPackets: 0,
  receivedBytes: 0,
  sentPackets: 0,
  sentBytes: 0,
  lastActiveMs: 0,
}

export class PppNetwork {
  /** What was dropped, by name. */
  readonly counters = new Counters()
  readonly owner: PppNetworkOwner
  readonly #services: NetworkServices
  readonly #engine: NetworkEngine
  readonly #driver: Driver<NetworkInput, NetworkEvent>
  readonly #bytes: Uint8Array
  /** Absent: tunnels protect their packets by themselves. */
  readonly #dataPath: DataPath | undefined
  #sealer: FrameSealer
  /** Those whose links come and go; when there is none left it is over. */
  readonly #calls = new Set<NetworkLink>()
  /** Those that are up, oldest first. */
  readonly #links = new Set<NetworkLink>()
  #bundle: Bundle<PppNetwork> | undefined
  /** Absent: links of the bundle come and go without BAP. */
  #bandwidth: BundleBandwidth | undefined
  #isPermitted = false
  #mruBytes = 0
  #droppedIpPackets = 0
  #ipv4: Ipv4Up | undefined
  #ipv6: Ipv6Up | undefined
  #port: Port | undefined
  // What `receive` looks at for every packet.
  #ipv4Port: Port | undefined
  #ipv6Port: Port | undefined
  /** Usage of ports that were closed by a renegotiation. */
  #earlier: SessionUsage = noUsage

  /** `settings` has no compression where tunnels protect what they carry. */
  constructor(settings: NetworkSettings, services: NetworkServices, owner: PppNetworkOwner) {
    this.owner = owner
    this.#services = services
    const { dataplane, random, clock, wheel } = services
    this.#bytes = dataplane.memory.bytes
    this.#sealer = new PlainSealer(this.#bytes)
    if (settings.compression !== undefined) {
      this.#dataPath = new DataPath({
        bytes: this.#bytes,
        role: settings.network === undefined ? 'server' : 'client',
        intake: lengthBytes => dataplane.intake(lengthBytes),
        setSealer: sealer => this.#setSealer(sealer),
      })
    }
    this.#engine = new NetworkEngine(settings, random)
    this.#driver = new Driver(this.#engine, clock, wheel, {
      transmit: frame => this.#first?.carrier.sendFrame(frame),
      event: event => this.#onEvent(event),
    })
  }

  handle(input: NetworkInput): void {
    this.#driver.handle(input)
  }

  /** A packet of our own making to the peer; dropped when IP does not flow. */
  transmit(packet: Uint8Array): void {
    this.#port?.transmit(packet)
  }

  /** Cumulative over renegotiations. */
  usage(): SessionUsage {
    const now = this.#port?.counters ?? noUsage
    const before = this.#earlier
    return {
      receivedPackets: before.receivedPackets + now.receivedPackets,
      receivedBytes: before.receivedBytes + now.receivedBytes,
      sentPackets: before.sentPackets + now.sentPackets,
      sentBytes: before.sentBytes + now.sentBytes,
      lastActiveMs: Math.max(before.lastActiveMs, now.lastActiveMs),
    }
  }

  /** What encryption and compression have dropped, by name. */
  get dataPathCounters(): Record<string, number> {
    return this.#dataPath?.counters.toJSON() ?? {}
  }

  /** IP packets from the peer that came while IP did not flow. */
  get droppedIpPackets(): number {
    return this.#droppedIpPackets
  }

  /** How packets are made frames, before a bundle cuts them. */
  get sealer(): FrameSealer {
    return this.#sealer
  }

  get linkCount(): number {
    return this.#links.size
  }

  /** The last call is over. */
  get isOver(): boolean {
    return this.#calls.size === 0
  }

  // Links

  /**
   * The peer has proved itself on `link`: it is up. The first one brings the networks up; the keys of
   * its proof are theirs until there is a first one again (RFC 3078, over the bundle as a whole).
   */
  add(link: NetworkLink, keys: MasterKeys | undefined, limits: UserLimits): void {
    this.#calls.add(link)
    this.#links.add(link)
    if (this.#links.size > 1) {
      this.#tellMtu(link)
      return
    }
    this.#bundle = link.bundle
    this.#mruBytes = link.mruBytes
    this.#dataPath?.setKeys(keys)
    this.#setSealer(this.#sealer)
    this.#bandwidth = this.#makeBandwidth(limits)
    const { peerMruBytes, mruBytes } = link
    this.#driver.handle({ type: 'up', hasKeys: keys !== undefined, peerMruBytes, mruBytes })
  }

  /** IP may flow over one of the links, if the network protocols are up. */
  permit(): void {
    this.#isPermitted = true
    this.#connect()
  }

  /** The link is down. Its call may bring it up again. */
  remove(link: NetworkLink): void {
    if (!this.#links.delete(link) || this.#links.size > 0) return
    this.#isPermitted = false
    this.#bandwidth?.close()
    this.#bandwidth = undefined
    this.#driver.handle({ type: 'down' })
    this.#bundle = undefined
  }

  /** The call is over. */
  leave(link: NetworkLink): void {
    this.remove(link)
    if (!this.#calls.delete(link) || this.#calls.size > 0) return
    this.#disconnect()
    this.#dataPath?.destroy()
    this.#driver.close()
    this.owner.ended()
  }

  /** Ends all calls in an orderly way. */
  close(cause: DisconnectCause, detail: string): void {
    for (const call of [...this.#calls]) call.handle({ type: 'close', cause, detail })
  }

  /** The peer says on one of the links that it does not speak `protocol`. */
  protocolRejected(protocol: number): void {
    this.#bandwidth?.protocolRejected(protocol)
    this.#driver.handle({ type: 'protocol-rejected', protocol })
  }

  // Packets from the peer

  /** A frame from its protocol field on, or whole, as a bundle has put it together. */
  receiveFrame(at: number, lengthBytes: number): void {
    const peeled = peel(this.#bytes, at, lengthBytes)
    const headerBytes = peeled >>> 16
    const protocol = peeled & 0xffff
    if (protocol === PppProtocol.multilink) this.counters.count('multilink-nested')
    else this.receive(protocol, at + headerBytes, lengthBytes - headerBytes)
  }

  /** An information field of any protocol but those of the links. */
  receive(protocol: number, at: number, lengthBytes: number): void {
    if (protocol === PppProtocol.ipv4 || protocol === PppProtocol.ipv6) {
      if (this.#dataPath?.isPlainAllowed === false) this.#dropPlain()
      else this.#receiveIp(protocol, at, lengthBytes)
    } else if (protocol === PppProtocol.compressed && this.#dataPath !== undefined) {
      this.#receiveProtected(this.#dataPath, at, lengthBytes)
    } else if (this.#bandwidth !== undefined && isOfBandwidth(protocol)) {
      this.#bandwidth.receive(protocol, this.#bytes, at, lengthBytes)
    } else {
      const bytes = this.#bytes.subarray(at, at + lengthBytes)
      this.#driver.handle({ type: 'packet', protocol, bytes })
    }
  }

  #receiveIp(protocol: number, at: number, lengthBytes: number): void {
    const port = protocol === PppProtocol.ipv4 ? this.#ipv4Port : this.#ipv6Port
    if (port === undefined) this.#droppedIpPackets++
    else port.deliver(at, lengthBytes)
  }

  /** RFC 3078 §3: once encryption is agreed on, what is not encrypted is not from the peer. */
  #dropPlain(): void {
    this.#droppedIpPackets++
    this.#dataPath?.counters.count('plain-dropped')
  }

  #receiveProtected(dataPath: DataPath, at: number, lengthBytes: number): void {
    const { opener } = dataPath
    if (opener === undefined) {
      dataPath.counters.count('protected-not-due')
      return
    }
    const opened = opener.open(at, lengthBytes)
    if (opened === Opened.ok) {
      const peeled = peel(this.#bytes, opener.openedAt, opener.openedBytes)
      const headerBytes = peeled >>> 16
      const protocol = peeled & 0xffff
      if (protocol === PppProtocol.ipv4 || protocol === PppProtocol.ipv6) {
        this.#receiveIp(protocol, opener.openedAt + headerBytes, opener.openedBytes - headerBytes)
      } else dataPath.counters.count('protected-not-ip')
    } else if (opened === Opened.needsReset) this.#driver.handle({ type: 'request-reset' })
    else if (opened === Opened.needsKeys) this.#driver.handle({ type: 'renegotiate-compression' })
  }

  // PPP

  #onEvent(event: NetworkEvent): void {
    switch (event.type) {
      case 'compression-up':
        if (this.#dataPath?.open(event.agreement) !== true) {
          this.close('nas-error', 'no keys for ccp')
        }
        break
      case 'compression-down':
        this.#dataPath?.close(event.isEncryptionDue)
        break
      case 'reset-requested':
        this.#dataPath?.reset()
        break
      case 'ipv4-up':
        this.#ipv4 = event
        this.#connect()
        break
      case 'ipv6-up':
        this.#ipv6 = event
        this.#connect()
        break
      case 'ipv4-down':
        this.#ipv4 = undefined
        this.#reconnect()
        break
      case 'ipv6-down':
        this.#ipv6 = undefined
        this.#reconnect()
        break
      case 'reject':
        this.#first?.handle(event)
        break
      case 'failed':
        this.close(event.cause, event.detail)
        break
      case 'unexpected':
        this.counters.count(event.counter)
        break
      case 'ipv4-requested':
        break
    }
    this.owner.networkEvent(event)
  }

  get #first(): NetworkLink | undefined {
    for (const link of this.#links) return link
    return undefined
  }

  #setSealer(sealer: FrameSealer): void {
    this.#sealer = sealer
    if (this.#bundle !== undefined) this.#bundle.setSealer(sealer)
    else this.#first?.carrier.setSealer?.(sealer)
  }

  #makeBandwidth(limits: UserLimits): BundleBandwidth | undefined {
    const bundle = this.#bundle
    const settings = this.#services.bundles?.bandwidth(limits)
    if (bundle?.linkNames[0] === undefined || settings === undefined) return undefined
    const { owner } = this
    return new BundleBandwidth(settings, bundle, this.#services, {
      sendFrame: frame => this.#first?.carrier.sendFrame(frame),
      traffic: () => this.usage(),
      count: name => this.counters.count(name),
      ...(owner.addLink !== undefined && { addLink: async () => owner.addLink?.() }),
    })
  }

  /** Opens what is negotiated, once a tunnel permits it. */
  #connect(): void {
    const first = this.#first
    if (first === undefined || !this.#isPermitted) return
    if (this.#ipv4 === undefined && this.#ipv6 === undefined) return
    const { owner } = this
    this.#port ??= this.#services.dataplane.attach({
      label: owner.label,
      isUplink: owner.isUplink,
      sink: this.#bundle ?? first.carrier.sink,
      onLinkPacket: bytes => owner.linkPacket(bytes),
    })
    for (const link of this.#links) this.#tellMtu(link)
    if (this.#ipv4 !== undefined && this.#ipv4Port === undefined) {
      this.#ipv4Port = this.#port
      owner.openIpv4(this.#port, this.#ipv4)
    }
    if (this.#ipv6 !== undefined && this.#ipv6Port === undefined) {
      this.#ipv6Port = this.#port
      owner.openIpv6(this.#port, this.#ipv6)
    }
  }

  /** What the peer has agreed to take, less where this link takes less than the first one did. */
  #tellMtu(link: NetworkLink): void {
    const mtuBytes = (this.#ipv4 ?? this.#ipv6)?.mtuBytes
    if (mtuBytes === undefined) return
    link.carrier.setMtu(mtuBytes - Math.max(0, this.#mruBytes - link.mruBytes))
  }

  /** One protocol went down. When the link does, the other follows, and nothing is sent any more. */
  #reconnect(): void {
    this.#disconnect()
    if (this.#engine.isUp) this.#connect()
  }

  #disconnect(): void {
    this.#earlier = this.usage()
    this.#port?.detach()
    this.#port = undefined
    this.#ipv4Port = undefined
    this.#ipv6Port = undefined
  }
}

function isOfBandwidth(protocol: number): boolean {
  return protocol === PppProtocol.bacp || protocol === PppProtocol.bap
}
