/**
 * One PPP link in either role: a tunnel on one side, the PPP engine and a port of the dataplane on
 * the other. IP goes past the engine; everything else goes through it.
 */
import type { SessionUsage } from '../aaa/session.ts'
import type { Clock } from '../core/clock.ts'
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { Driver } from '../core/driver.ts'
import { Counters } from '../core/faults.ts'
import type { RandomSource } from '../core/random.ts'
import type { TimerWheel } from '../core/timers.ts'
import type { Dataplane, Port } from '../dataplane/dataplane.ts'
import type { Carrier, Link } from '../ppp/carrier.ts'
import { PppEngine } from '../ppp/engine.ts'
import type { Ipv4Up, Ipv6Up, PppEvent, PppInput } from '../ppp/event.ts'
import type { PppSettings } from '../ppp/settings.ts'
import { PppProtocol, peel } from '../ppp/wire/frame.ts'

export interface LinkServices {
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
  readonly #driver: Driver<PppInput, PppEvent>
  readonly #bytes: Uint8Array
  /** What the engine and the link have dropped, by name. */
  readonly counters = new Counters()
  #isPermitted = false
  #isCarrierLost = false
  #isBound = false
  #hasHeard = false
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
    const engine = new PppEngine(settings, services.random)
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

  /** IP packets from the peer that came while IP did not flow. */
  get droppedIpPackets(): number {
    return this.#droppedIpPackets
  }

  // Link

  receive(at: number, lengthBytes: number): void {
    const peeled = peel(this.#bytes, at, lengthBytes)
    const headerBytes = peeled >>> 16
    const protocol = peeled & 0xffff
    if (protocol === PppProtocol.ipv4 && this.#ipv4Port !== undefined) {
      this.#hasHeard = true
      this.#ipv4Port.deliver(at + headerBytes, lengthBytes - headerBytes)
    } else if (protocol === PppProtocol.ipv6 && this.#ipv6Port !== undefined) {
      this.#hasHeard = true
      this.#ipv6Port.deliver(at + headerBytes, lengthBytes - headerBytes)
    } else if (protocol === PppProtocol.ipv4 || protocol === PppProtocol.ipv6) {
      this.#hasHeard = true
      this.#droppedIpPackets++
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

  // PPP

  #onEvent(event: PppEvent): void {
    switch (event.type) {
      case 'authenticated':
        // A tunnel binds itself to the first proof; later ones are the same user's.
        if (!this.#isBound) this.#carrier.authenticated(event.higherLayerKey)
        this.#isBound = true
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
      case 'unexpected':
        this.counters.count(event.counter)
        break
      case 'closed':
        this.#disconnect()
        this.#driver.close()
        break
      case 'link-up':
      case 'renegotiating':
      case 'authenticate':
      case 'refused':
      case 'ipv4-requested':
      case 'identification':
        break
    }
    this.#owner.event(event)
    if (event.type === 'closed' && !this.#isCarrierLost) this.#carrier.close(event.cause)
  }

  /** Opens what is negotiated, once the tunnel permits it. */
  #connect(): void {
    if (!this.#isPermitted || (this.#ipv4 === undefined && this.#ipv6 === undefined)) return
    this.#port ??= this.#services.dataplane.attach({
      label: this.#owner.label,
      isUplink: this.#owner.isUplink,
      sink: this.#carrier.sink,
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

  #reconnect(): void {
    this.#disconnect()
    this.#connect()
  }

  #disconnect(): void {
    this.#earlier = this.usage()
    this.#port?.detach()
    this.#port = undefined
    this.#ipv4Port = undefined
    this.#ipv6Port = undefined
  }
}
