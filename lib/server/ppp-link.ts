/**
 * One PPP link in either role: a tunnel on one side, the PPP engine and a port of the dataplane on
 * the other. IP goes past the engine; everything else goes through it.
 */
import type { Session, SessionUsage } from '../aaa/session.ts'
import type { Clock } from '../core/clock.ts'
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { Driver } from '../core/driver.ts'
import { Counters } from '../core/faults.ts'
import type { RandomSource } from '../core/random.ts'
import type { TimerWheel } from '../core/timers.ts'
import type { Dataplane, Port } from '../dataplane/dataplane.ts'
import type { Carrier, FrameSealer, Link } from '../ppp/carrier.ts'
import { DataPath } from '../ppp/data-path.ts'
import { PppEngine } from '../ppp/engine.ts'
import type { Ipv4Up, Ipv6Up, PppEvent, PppInput } from '../ppp/event.ts'
import { Opened } from '../ppp/frame-opener.ts'
import { PlainSealer } from '../ppp/frame-sealers.ts'
import type { BundleTable, EntranceRefusal, UserLimits } from '../ppp/multilink/bundle-table.ts'
import { LinkInBundle } from '../ppp/multilink/link-in-bundle.ts'
import type { CompressionSettings, PppSettings } from '../ppp/settings.ts'
import { PppProtocol, peel } from '../ppp/wire/frame.ts'
import { LinkBandwidth } from './link-bandwidth.ts'

export interface LinkServices {
  /** Absent: no link is bundled with another. */
  readonly bundles?: BundleTable<PppLinkOwner>
  readonly dataplane: Dataplane
  readonly clock: Clock
  readonly wheel: TimerWheel
  readonly random: RandomSource
}

/** Who has the link: the server's side of a call, or a dialler. */
export interface PppLinkOwner {
  /** For counters and captures of the dataplane. */
  readonly label: string
  /** We dialled: the peer leads to everything else. */
  readonly isUplink: boolean
  /** Of an answered call: what other links of its user join. */
  readonly session: Session | undefined
  /** Where we can dial: calls the peer once more, for the same bundle; resolves when that has joined. */
  addLink?(): Promise<void>
  /** Everything that PPP reports, after the link has done its own part. */
  event(event: PppEvent): void
  /** IPv4 flows: say which addresses are behind this port. */
  openIpv4(port: Port, up: Ipv4Up): void
  /** IPv6 flows: likewise. */
  openIpv6(port: Port, up: Ipv6Up): void
  /** A packet for the link itself; `bytes` is used during the call only. */
  linkPacket(bytes: Uint8Array): void
}

const noUsage = {
  receivedPackets: 0,
  receivedBytes: 0,
  sentPackets: 0,
  sentBytes: 0,
  lastActiveMs: 0,
}

export class PppLink implements Link {
  readonly #carrier: Carrier
  readonly #services: LinkServices
  readonly #owner: PppLinkOwner
  readonly #engine: PppEngine
  readonly #driver: Driver<PppInput, PppEvent>
  readonly #bytes: Uint8Array
  /** What the engine and the link have dropped, by name. */
  readonly counters = new Counters()
  #isPermitted = false
  #isCarrierLost = false
  #isBound = false
  #hasHeard = false
  /** Absent: the tunnel protects its packets by itself. */
  readonly #dataPath: DataPath | undefined
  /** Absent: the carrier cannot carry fragments, or nobody is to bundle. */
  readonly #bundling: LinkInBundle<PppLinkOwner> | undefined
  /** Absent: the tunnel protects its packets by itself. */
  readonly #compression: CompressionSettings | undefined
  /** Absent: links of the bundle come and go without BAP. */
  #bandwidth: LinkBandwidth | undefined
  #droppedIpPackets = 0
  #ipv4: Ipv4Up | undefined
  #ipv6: Ipv6Up | undefined
  #port: Port | undefined
  // What `receive` looks at for every packet.
  #ipv4Port: Port | undefined
  #ipv6Port: Port | undefined
  /** Usage of ports that were closed by a renegotiation. */
  #earlier: SessionUsage = noUsage

  constructor(
    carrier: Carrier,
    settings: PppSettings,
    services: LinkServices,
    owner: PppLinkOwner,
  ) {
    this.#carrier = carrier
    this.#services = services
    this.#owner = owner
    this.#bytes = services.dataplane.memory.bytes
    const bundles = carrier.setSealer === undefined ? undefined : services.bundles
    const { compression, ...others } = settings
    const leavesProtection = carrier.setSealer !== undefined && carrier.isProtected !== true
    this.#compression = leavesProtection ? compression : undefined
    const engine = new PppEngine(
      {
        ...others,
        ...(this.#compression !== undefined && { compression: this.#compression }),
        ...(bundles !== undefined && { multilink: bundles.linkSettings() }),
      },
      services.random,
    )
    const setCarrierSealer = (sealer: FrameSealer) => carrier.setSealer?.(sealer)
    if (bundles !== undefined) {
      this.#bundling = new LinkInBundle(bundles, {
        bytes: this.#bytes,
        sink: carrier.sink,
        setSealer: setCarrierSealer,
        receive: (at, lengthBytes) => this.#receive(at, lengthBytes, true),
        close: () =>
          this.#driver.handle({ type: 'close', cause: 'lost-carrier', detail: 'bundle is over' }),
        end: () =>
          this.#driver.handle({ type: 'close', cause: 'port-unneeded', detail: 'dropped by bap' }),
      })
    }
    const setSealer = (sealer: FrameSealer) =>
      this.#bundling === undefined ? setCarrierSealer(sealer) : this.#bundling.setSealer(sealer)
    if (leavesProtection) {
      this.#dataPath = new DataPath({
        bytes: this.#bytes,
        role: settings.role,
        intake: lengthBytes => services.dataplane.intake(lengthBytes),
        setSealer,
      })
    } else if (bundles !== undefined) setSealer(new PlainSealer(this.#bytes))
    this.#engine = engine
    // IP does not pass the engine, so it learns that the peer lives when it is about to ask.
    const machine = {
      handle: (input: Parameters<typeof engine.handle>[0], nowMs: number) => {
        if (input.type === 'timeout' && this.#hasHeard) {
          this.#hasHeard = false
          engine.handle({ type: 'alive' }, nowMs)
        }
        engine.handle(input, nowMs)
      },
      poll: () => engine.poll(),
      nextDeadlineMs: () => engine.nextDeadlineMs(),
    }
    this.#driver = new Driver(machine, services.clock, services.wheel, {
      transmit: frame => carrier.sendFrame(frame),
      event: event => this.#onEvent(event),
    })
  }

  handle(input: PppInput): void {
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

  /** Who leads the bundle that this link would join, if it were this user's. */
  leaderOf(userKey: string): PppLinkOwner | undefined {
    return this.#bundling?.leaderOf(userKey)
  }

  /**
   * The peer has proved to be `userKey`'s: the link joins the others of that user and endpoint, or
   * leads when it is the first. Why it may not, if so.
   */
  bundle(userKey: string, limits: UserLimits = {}): EntranceRefusal | undefined {
    const bundling = this.#bundling
    if (bundling?.isDue !== true) return undefined
    const refusal = bundling.enter({
      userKey,
      needsEncryption: this.#compression?.encryption === 'required',
      ...(limits.maxLinks !== undefined && { maxLinks: limits.maxLinks }),
      owner: this.#owner,
    })
    if (refusal !== undefined) return refusal
    const { bundle } = bundling
    const bandwidth = this.#services.bundles?.bandwidth(limits)
    if (bundle?.linkNames[0] !== undefined && bandwidth !== undefined) {
      this.#bandwidth = new LinkBandwidth(bandwidth, bundle, this.#services, {
        sendFrame: frame => this.#carrier.sendFrame(frame),
        traffic: () => this.usage(),
        count: name => this.counters.count(name),
      })
    }
    this.#driver.handle({ type: 'bundled', isFollower: bundling.isFollower })
    return undefined
  }

  /** Other links may join this one. */
  get isLeader(): boolean {
    return this.#bundling?.bundle !== undefined
  }

  /** Another link leads the bundle of this one; networks are up there. */
  get isFollower(): boolean {
    return this.#bundling?.isFollower === true
  }

  // Link

  receive(at: number, lengthBytes: number): void {
    this.#receive(at, lengthBytes, false)
  }

  #receive(at: number, lengthBytes: number, isPutTogether: boolean): void {
    const peeled = peel(this.#bytes, at, lengthBytes)
    const headerBytes = peeled >>> 16
    const protocol = peeled & 0xffff
    if (this.#bundling !== undefined && !isPutTogether && isOfBundle(protocol)) {
      const isTaken =
        protocol === PppProtocol.multilink
          ? this.#bundling.receiveFragment(at + headerBytes, lengthBytes - headerBytes)
          : this.#bundling.receiveFrame(at, lengthBytes)
      if (isTaken) {
        this.#hasHeard = true
        return
      }
    }
    if (isPutTogether && protocol === PppProtocol.multilink) {
      this.counters.count('multilink-nested')
    } else if (protocol === PppProtocol.ipv4 || protocol === PppProtocol.ipv6) {
      if (this.#dataPath?.isPlainAllowed === false) this.#dropPlain()
      else this.#receiveIp(protocol, at + headerBytes, lengthBytes - headerBytes)
    } else if (protocol === PppProtocol.compressed && this.#dataPath !== undefined) {
      this.#receiveProtected(this.#dataPath, at + headerBytes, lengthBytes - headerBytes)
    } else if (this.#bandwidth !== undefined && isOfBandwidth(protocol)) {
      const informationBytes = lengthBytes - headerBytes
      this.#bandwidth.receive(protocol, this.#bytes, at + headerBytes, informationBytes)
    } else {
      const bytes = this.#bytes.subarray(at, at + lengthBytes)
      this.#driver.handle({ type: 'frame', bytes })
    }
  }

  permitTraffic(): void {
    this.#isPermitted = true
    this.#connect()
  }

  carrierLost(cause: DisconnectCause): void {
    this.#isCarrierLost = true
    this.#driver.handle({ type: 'carrier-lost', cause })
  }

  #receiveIp(protocol: number, at: number, lengthBytes: number): void {
    this.#hasHeard = true
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

  #onEvent(event: PppEvent): void {
    switch (event.type) {
      case 'authenticated':
        // A tunnel binds itself to the first proof; later ones are the same user's.
        if (!this.#isBound) this.#carrier.authenticated(event.higherLayerKey)
        this.#isBound = true
        this.#dataPath?.setKeys(event.keys)
        break
      case 'compression-up':
        if (this.#dataPath?.open(event.agreement) !== true) {
          this.#driver.handle({ type: 'close', cause: 'nas-error', detail: 'no keys for ccp' })
        }
        break
      case 'compression-down':
        this.#dataPath?.close(event.isEncryptionDue)
        break
      case 'reset-requested':
        this.#dataPath?.reset()
        break
      case 'link-up':
        this.#bundling?.agreed(
          event.multilink,
          Math.min(event.peerMruBytes, this.#carrier.mruBytes),
        )
        break
      case 'renegotiating':
        this.#leaveBundle()
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
      case 'protocol-rejected':
        this.#bandwidth?.protocolRejected(event.protocol)
        break
      case 'unexpected':
        this.counters.count(event.counter)
        break
      case 'closed':
        this.#disconnect()
        this.#leaveBundle()
        this.#dataPath?.destroy()
        this.#driver.close()
        break
      case 'authenticate':
      case 'authorize':
      case 'pending':
      case 'refused':
      case 'ipv4-requested':
      case 'identification':
        break
    }
    this.#owner.event(event)
    if (event.type === 'closed' && !this.#isCarrierLost) this.#carrier.close(event.cause)
  }

  #leaveBundle(): void {
    this.#bandwidth?.close()
    this.#bandwidth = undefined
    this.#bundling?.leave()
  }

  /** Opens what is negotiated, once the tunnel permits it. */
  #connect(): void {
    if (!this.#isPermitted || (this.#ipv4 === undefined && this.#ipv6 === undefined)) return
    this.#port ??= this.#services.dataplane.attach({
      label: this.#owner.label,
      isUplink: this.#owner.isUplink,
      sink: this.#bundling?.bundle ?? this.#carrier.sink,
      onLinkPacket: bytes => this.#owner.linkPacket(bytes),
    })
    this.#carrier.setMtu((this.#ipv4 ?? this.#ipv6)?.mtuBytes ?? 0)
    if (this.#ipv4 !== undefined && this.#ipv4Port === undefined) {
      this.#ipv4Port = this.#port
      this.#owner.openIpv4(this.#port, this.#ipv4)
    }
    if (this.#ipv6 !== undefined && this.#ipv6Port === undefined) {
      this.#ipv6Port = this.#port
      this.#owner.openIpv6(this.#port, this.#ipv6)
    }
  }

  /** One protocol went down. When the link does, the other follows, and nothing is sent any more. */
  #reconnect(): void {
    this.#disconnect()
    if (this.#engine.phase === 'network') this.#connect()
  }

  #disconnect(): void {
    this.#earlier = this.usage()
    this.#port?.detach()
    this.#port = undefined
    this.#ipv4Port = undefined
    this.#ipv6Port = undefined
  }
}

/** RFC 1661 §2: LCP, authentication and the like, which each link has for itself. */
const firstLinkProtocol = 0xc000

/** What belongs to the bundle as a whole, with or without the head of a fragment (RFC 1990 §3). */
function isOfBundle(protocol: number): boolean {
  return (protocol !== 0 && protocol < firstLinkProtocol) || isOfBandwidth(protocol)
}

function isOfBandwidth(protocol: number): boolean {
  return protocol === PppProtocol.bacp || protocol === PppProtocol.bap
}
