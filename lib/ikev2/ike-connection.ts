/**
 * One IKE SA at work: its machine on the wheel, its messages on the sockets, its Child SAs in the ESP
 * tunnel. Decisions about users, certificates and addresses are its owner's.
 */
import { toHex } from '../core/bytes.ts'
import type { Clock } from '../core/clock.ts'
import { Driver, type DriverPorts } from '../core/driver.ts'
import { Counters, faultName } from '../core/faults.ts'
import type { RandomSource } from '../core/random.ts'
import type { TimerWheel, WheelEntry } from '../core/timers.ts'
import type { DatagramRoute, DatagramSender, Envelope } from '../dataplane/datagrams.ts'
import type { PinnedMemory } from '../dataplane/dataplane.ts'
import { EspChild } from '../ipsec/esp-child.ts'
import type { EspOwner } from '../ipsec/esp-receiver.ts'
import { EspTunnel, type EspTunnelObserver } from '../ipsec/esp-tunnel.ts'
import { type IkeSockets, NAT_TRAVERSAL_PORT } from '../ipsec/ike-sockets.ts'
import type { SaDatabase } from '../ipsec/sa-database.ts'
import type { TrafficSelector as EspSelector } from '../ipsec/traffic-selectors.ts'
import type { ChildDescription, IkeSaEvent } from './event.ts'
import { IkeSa } from './ike-sa.ts'
import type { IkeSaInput } from './input.ts'
import type { IkeSaHost, IkeSaOptions } from './options.ts'
import { isSamePath, type Path } from './path.ts'
import { pathOf, routeTo } from './route.ts'
import type { TrafficSelector } from './wire/traffic-selector.ts'

/** What the connections of one process share. */
export interface IkeServices {
  readonly sockets: IkeSockets
  readonly sender: DatagramSender
  readonly memory: PinnedMemory
  readonly database: SaDatabase<EspOwner>
  readonly clock: Clock
  readonly wheel: TimerWheel
  readonly random: RandomSource
}

export type { IkeSaOptions as IkeSettings } from './options.ts'

export interface IkeConnectionOwner {
  /** Everything that the connection does not do by itself; `closed` is the last. */
  event(event: IkeSaEvent): void
}

/** Where connections are found by the SPIs in messages. */
export interface SpiTable {
  add(localSpi: string, connection: IkeConnection): void
  delete(localSpi: string): void
  /** Both sides have proved who they are. */
  established(connection: IkeConnection): void
  /** The connection is over. */
  closed(connection: IkeConnection): void
}

export interface TunnelLimits {
  /** Largest inner packet, bytes. */
  readonly mtuBytes: number
  /** Bytes each way under one set of keys; `Infinity` for no limit. */
  readonly rekeyBytes: number
}

/** How often volumes are looked at and, where they are sent, keepalives leave (RFC 3948 §4), ms. */
const watchMs = 10_000
const keepaliveMs = 20_000
/** Another path of ESP is looked into no more often than this, ms. */
const otherPathPauseMs = 1000

export class IkeConnection
  implements WheelEntry, DriverPorts<IkeSaEvent>, IkeSaHost, EspTunnelObserver
{
  readonly tunnel: EspTunnel
  readonly counters = new Counters()
  readonly #services: IkeServices
  readonly #owner: IkeConnectionOwner
  readonly #table: SpiTable
  readonly #limits: TunnelLimits
  readonly #driver: Driver<IkeSaInput, IkeSaEvent>
  readonly #isInitiator: boolean
  /** SPIs that were offered and whose child does not stand yet. Most of the time there are none. */
  #reservedSpis: Set<number> | undefined
  /** Inbound SPI of a child -> that of the one which it replaces. */
  #replacedBy: Map<number, number> | undefined
  #path: Path
  #route: DatagramRoute | undefined
  #heardPackets = 0
  #lastOtherPathMs = Number.NEGATIVE_INFINITY
  #lastKeepaliveMs: number
  #isEstablished = false

  constructor(
    settings: IkeSaOptions,
    route: DatagramRoute,
    services: IkeServices,
    limits: TunnelLimits,
    owner: IkeConnectionOwner,
    table: SpiTable,
  ) {
    this.#services = services
    this.#owner = owner
    this.#table = table
    this.#limits = limits
    this.#isInitiator = settings.role === 'initiator'
    this.#path = pathOf(route)
    this.#route = route
    this.#lastKeepaliveMs = services.clock.nowMs()
    this.tunnel = new EspTunnel({
      memory: services.memory,
      sender: services.sender,
      database: services.database,
      route,
      mtuBytes: limits.mtuBytes,
      observer: this,
    })
    const { clock, wheel } = services
    this.#driver = new Driver(new IkeSa(settings, this.#path, this), clock, wheel, this)
  }

  get path(): Path {
    return this.#path
  }

  handle(input: IkeSaInput): void {
    this.#driver.handle(input)
  }

  /** A message that is ours by its SPI. */
  message(bytes: Uint8Array, envelope: Envelope): void {
    this.#driver.handle({ type: 'datagram', bytes, path: pathOf(envelope) })
  }

  onDeadline(nowMs: number): void {
    for (const child of this.tunnel.children) {
      const inboundSpi = child.inbound.spi
      if (child.needsRekey(nowMs)) this.#driver.handle({ type: 'rekey-child', inboundSpi })
    }
    if (this.#isInitiator && nowMs - this.#lastKeepaliveMs >= keepaliveMs) this.#keepAlive(nowMs)
    if (this.#isEstablished) this.#services.wheel.schedule(this, nowMs + watchMs)
  }

  // DriverPorts

  /** Messages of IKE leave as events, with their path. */
  transmit(): void {}

  event(event: IkeSaEvent): void {
    switch (event.type) {
      case 'datagram':
        this.#send(event.path, event.bytes)
        return
      case 'spi-added':
        this.#table.add(toHex(event.localSpi), this)
        return
      case 'spi-removed':
        this.#table.delete(toHex(event.localSpi))
        return
      case 'child-up':
        this.#addChild(event.child, event.replaces)
        break
      case 'child-active':
        this.tunnel.activate(event.inboundSpi, this.#replacedBy?.get(event.inboundSpi))
        break
      case 'child-down':
        this.#replacedBy?.delete(event.inboundSpi)
        this.tunnel.remove(event.inboundSpi)
        break
      case 'moved':
        this.#moveTo(event.path, event.isUdpEncapsulated)
        break
      case 'unexpected':
        this.counters.count(event.what)
        break
      case 'malformed':
        this.counters.count(`malformed-${faultName(event.fault)}`)
        break
      case 'established':
        this.#isEstablished = true
        this.#table.established(this)
        this.#services.wheel.schedule(this, this.#services.clock.nowMs() + watchMs)
        break
      case 'closed':
        this.#close()
        break
      case 'authenticate':
      case 'eap-pending':
      case 'verify-certificate':
      case 'need-grant':
      case 'ike-rekeyed':
      case 'redirected':
      case 'ticket':
      case 'key-log':
        break
    }
    this.#owner.event(event)
  }

  // IkeSaHost

  get random(): RandomSource {
    return this.#services.random
  }

  newEspSpi(): number {
    const spi = this.#services.database.reserveSpi(this.#services.random)
    this.#reservedSpis ??= new Set()
    this.#reservedSpis.add(spi)
    return spi
  }

  hasHeard(): boolean {
    const packets = this.tunnel.authenticPackets
    const hasHeard = packets !== this.#heardPackets
    this.#heardPackets = packets
    return hasHeard
  }

  // EspTunnelObserver

  onOtherPath(envelope: Envelope): void {
    const nowMs = this.#services.clock.nowMs()
    if (envelope.port.number === 0 || nowMs - this.#lastOtherPathMs < otherPathPauseMs) return
    this.#lastOtherPathMs = nowMs
    this.#driver.handle({ type: 'esp-received', path: pathOf(envelope) })
  }

  #addChild(description: ChildDescription, replaces: number | undefined): void {
    const { inboundSpi, outboundSpi, suite, inbound, outbound } = description
    const child = EspChild.make(this.#services.memory, {
      inboundSpi,
      outboundSpi,
      suite,
      inboundKeys: {
        encryptionKey: inbound.encryption.expose(),
        integrityKey: inbound.integrity.expose(),
      },
      outboundKeys: {
        encryptionKey: outbound.encryption.expose(),
        integrityKey: outbound.integrity.expose(),
      },
      localSelectors: description.localSelectors.map(espSelector),
      remoteSelectors: description.remoteSelectors.map(espSelector),
      rekeyBytes: this.#limits.rekeyBytes,
      nowMs: this.#services.clock.nowMs(),
    })
    for (const keys of [inbound, outbound]) {
      keys.encryption.destroy()
      keys.integrity.destroy()
    }
    this.#release(inboundSpi)
    if (child === undefined || description.mode !== 'tunnel') {
      this.counters.count('child-not-installed')
      this.#services.database.release(inboundSpi)
      return
    }
    if (replaces !== undefined) {
      this.#replacedBy ??= new Map()
      this.#replacedBy.set(inboundSpi, replaces)
    }
    this.tunnel.add(child)
    this.#moveTo(description.path, description.isUdpEncapsulated)
  }

  #send(path: Path, bytes: Uint8Array): void {
    const { sockets } = this.#services
    const isUsual = this.#route !== undefined && isSamePath(path, pathOf(this.#route))
    const route = isUsual ? this.#route : routeTo(sockets, path)
    if (route === undefined) this.counters.count('no-socket')
    else sockets.send(route, bytes)
  }

  #moveTo(path: Path, isUdpEncapsulated: boolean): void {
    const { sockets } = this.#services
    const isSame = this.#route !== undefined && isSamePath(path, pathOf(this.#route))
    this.#path = path
    if (!isSame) this.#route = routeTo(sockets, path)
    const local = {
      address: path.local.address,
      port: isUdpEncapsulated ? NAT_TRAVERSAL_PORT : 0,
    }
    const isShared = path.peer.isTcp === true || path.local.port === local.port
    const route = isShared ? this.#route : sockets.routeTo(local, path.peer)
    if (route === undefined) this.counters.count('no-socket')
    else this.tunnel.moveTo(route)
  }

  #keepAlive(nowMs: number): void {
    this.#lastKeepaliveMs = nowMs
    // A NAT knows by itself how long a TCP connection lasts (RFC 9329 §7.6).
    const isNeeded = this.#path.peer.isTcp !== true
    if (isNeeded && this.#route?.port.number === NAT_TRAVERSAL_PORT) {
      this.#services.sockets.sendKeepalive(this.#route)
    }
  }

  /** Its child stands. */
  #release(spi: number): void {
    this.#reservedSpis?.delete(spi)
    if (this.#reservedSpis?.size === 0) this.#reservedSpis = undefined
  }

  #close(): void {
    this.#isEstablished = false
    this.#driver.close()
    this.#services.wheel.cancel(this)
    this.tunnel.close()
    for (const spi of this.#reservedSpis ?? []) this.#services.database.release(spi)
    this.#table.closed(this)
  }
}

function espSelector(selector: TrafficSelector): EspSelector {
  return {
    protocol: selector.ipProtocol,
    startPort: selector.startPort,
    endPort: selector.endPort,
    startAddress: selector.startAddress,
    endAddress: selector.endAddress,
  }
}
