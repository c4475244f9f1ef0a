/**
 * One ISAKMP SA at work: its machine on the wheel, its messages on the sockets, its ESP pairs at the
 * peer. Which peer that is and what comes after is the listener's to say.
 */
import type { Clock } from '../core/clock.ts'
import { Driver } from '../core/driver.ts'
import type { RandomSource } from '../core/random.ts'
import type { TimerWheel, WheelEntry } from '../core/timers.ts'
import type { DatagramRoute, DatagramSender, Envelope } from '../dataplane/datagrams.ts'
import type { PinnedMemory } from '../dataplane/dataplane.ts'
import type { EspOwner } from '../ipsec/esp-receiver.ts'
import type { IkeSockets } from '../ipsec/ike-sockets.ts'
import type { SaDatabase } from '../ipsec/sa-database.ts'
import type { Child, IsakmpEvent, IsakmpInput } from './event.ts'
import { IsakmpMachine } from './isakmp-machine.ts'
import type { IsakmpOptions } from './isakmp-options.ts'
import type { IsakmpEntry } from './isakmp-table.ts'
import { isSamePath, NAT_TRAVERSAL_PORT, type Path } from './path.ts'
import type { SecuredPeer } from './secured-peer.ts'

/** What the connections of one process share. */
export interface IsakmpServices {
  readonly sockets: IkeSockets
  readonly sender: DatagramSender
  readonly memory: PinnedMemory
  readonly database: SaDatabase<EspOwner>
  readonly clock: Clock
  readonly wheel: TimerWheel
  readonly random: RandomSource
}

/** What an ISAKMP SA needs besides what its connection gives it. */
export type IsakmpSettings = Omit<IsakmpOptions, 'random' | 'allocateSpi'>

export interface IsakmpConnectionOwner {
  /** Everything that the connection does not do by itself; `closed` is the last. */
  event(connection: IsakmpConnection, event: IsakmpEvent): void
}

/** How often volumes are looked at, ms. */
const watchMs = 10_000
/** Another path of ESP is looked into no more often than this, ms. */
const otherPathPauseMs = 1000
/** No pair has this SPI (RFC 4303 §2.1): the peer lives, and no pair is confirmed by it. */
const anyPair = 0

export class IsakmpConnection implements WheelEntry {
  readonly machine: IsakmpMachine
  readonly #services: IsakmpServices
  readonly #owner: IsakmpConnectionOwner
  readonly #driver: Driver<IsakmpInput, IsakmpEvent>
  readonly #reservedSpis = new Set<number>()
  /** Its place in the listener's table, set once. */
  entry: IsakmpEntry<IsakmpConnection> | undefined
  /** Known from `phase1-up` on. */
  #peer: SecuredPeer | undefined
  #path: Path | undefined
  #route: DatagramRoute | undefined
  #heardPackets = 0
  #lastOtherPathMs = Number.NEGATIVE_INFINITY

  constructor(settings: IsakmpSettings, services: IsakmpServices, owner: IsakmpConnectionOwner) {
    this.#services = services
    this.#owner = owner
    const machine = new IsakmpMachine({
      ...settings,
      random: services.random,
      allocateSpi: () => this.#reserveSpi(),
    })
    this.machine = machine
    // ESP does not pass the machine: it learns that the peer lives when it is about to ask.
    const watched = {
      handle: (input: Parameters<typeof machine.handle>[0], nowMs: number) => {
        if (input.type === 'timeout' && this.#hasHeard()) {
          machine.handle({ type: 'traffic', inboundSpi: anyPair }, nowMs)
        }
        machine.handle(input, nowMs)
      },
      poll: () => machine.poll(),
      nextDeadlineMs: () => machine.nextDeadlineMs(),
    }
    this.#driver = new Driver(watched, services.clock, services.wheel, {
      transmit: bytes => this.#send(bytes),
      event: event => this.#onEvent(event),
    })
  }

  get peer(): SecuredPeer | undefined {
    return this.#peer
  }

  /** Its pairs are those of this peer. */
  attach(peer: SecuredPeer): void {
    this.#peer = peer
    this.#heardPackets = peer.esp.authenticPackets
    this.#services.wheel.schedule(this, this.#services.clock.nowMs() + watchMs)
  }

  /** The peer is another connection's from now on. */
  detach(): void {
    this.#peer = undefined
  }

  handle(input: IsakmpInput): void {
    this.#driver.handle(input)
  }

  /** An authentic ESP packet came another way. */
  otherPath(envelope: Envelope): void {
    const nowMs = this.#services.clock.nowMs()
    if (envelope.port.number !== NAT_TRAVERSAL_PORT) return
    // It came over TCP, which only IKEv2 has (RFC 9329).
    if (envelope.peer.port > UDP_PORT_MAX) return
    if (nowMs - this.#lastOtherPathMs < otherPathPauseMs) return
    this.#lastOtherPathMs = nowMs
    this.#driver.handle({ type: 'peer-moved', path: pathOf(envelope) })
  }

  onDeadline(nowMs: number): void {
    const peer = this.#peer
    if (peer === undefined) return
    for (const child of peer.esp.children) {
      const inboundSpi = child.inbound.spi
      if (child.needsRekey(nowMs)) this.#driver.handle({ type: 'rekey-child', inboundSpi })
    }
    this.#services.wheel.schedule(this, nowMs + watchMs)
  }

  #onEvent(event: IsakmpEvent): void {
    switch (event.type) {
      case 'child-up':
        this.#childUp(event.child, event.canSend)
        break
      case 'child-confirmed':
        this.#peer?.activate(event.inboundSpi)
        break
      case 'child-down':
        this.#peer?.remove(event.inboundSpi, event.by === 'peer' ? 'user-request' : 'lost-carrier')
        break
      case 'path-changed':
        this.#moveTo(event.path)
        break
      case 'closed':
        this.#close()
        break
      case 'phase1-up':
      case 'child-failed':
      case 'foreign-delete':
      case 'rekey-due':
      case 'initial-contact':
      case 'notified':
      case 'unexpected':
        break
    }
    this.#owner.event(this, event)
  }

  #childUp(child: Child, canSend: boolean): void {
    const { inboundSpi, isUdpEncapsulated } = child
    const { clock, database } = this.#services
    this.#reservedSpis.delete(inboundSpi)
    const route = this.#espRoute(isUdpEncapsulated)
    if (route !== undefined) this.#peer?.moveTo(route)
    const isIn = route !== undefined && this.#peer?.add(child, canSend, clock.nowMs()) === true
    for (const { encryptionKey, integrityKey } of [child.inboundKeys, child.outboundKeys]) {
      encryptionKey.fill(0)
      integrityKey.fill(0)
    }
    if (isIn) return
    database.release(inboundSpi)
    this.#driver.handle({ type: 'close-child', inboundSpi })
  }

  #send(bytes: Uint8Array): void {
    const { path } = this.machine
    if (this.#path === undefined || !isSamePath(path, this.#path)) {
      this.#path = path
      this.#route = this.#services.sockets.routeTo(path.local, path.peer)
    }
    if (this.#route === undefined) this.#services.sockets.counters.count('no-socket')
    else this.#services.sockets.send(this.#route, bytes)
  }

  #espRoute(isUdpEncapsulated: boolean): DatagramRoute | undefined {
    const { local, peer } = this.machine.path
    const port = isUdpEncapsulated ? NAT_TRAVERSAL_PORT : 0
    return this.#services.sockets.routeTo({ address: local.address, port }, peer)
  }

  #moveTo(path: Path): void {
    const isUdp = path.isFloated && this.#peer?.route.port.number === NAT_TRAVERSAL_PORT
    const route = isUdp ? this.#espRoute(true) : undefined
    if (route !== undefined) this.#peer?.moveTo(route)
  }

  #hasHeard(): boolean {
    const packets = this.#peer?.esp.authenticPackets ?? 0
    const hasHeard = packets !== this.#heardPackets
    this.#heardPackets = packets
    return hasHeard
  }

  #reserveSpi(): number {
    const spi = this.#services.database.reserveSpi(this.#services.random)
    this.#reservedSpis.add(spi)
    return spi
  }

  #close(): void {
    this.#driver.close()
    this.#services.wheel.cancel(this)
    for (const spi of this.#reservedSpis) this.#services.database.release(spi)
  }
}

const UDP_PORT_MAX = 0xffff

/** As IKE knows it: text. */
export function pathOf({ local, peer, port }: Envelope): Path {
  return {
    local: { address: local.text, port: port.number },
    peer: { address: peer.text, port: peer.port },
    isFloated: port.number === NAT_TRAVERSAL_PORT,
  }
}
