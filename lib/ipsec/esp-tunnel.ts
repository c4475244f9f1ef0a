/**
 * ESP between the dataplane and one peer: the packet sink that seals, and the owner of the SAs that
 * open. In tunnel mode packets are IP; in transport mode they are those of one protocol, and their
 * addresses are the outer ones. It outlives its Child SAs, which come and go by rekeying (RFC 7296 §2.8): all
 * inbound ones are heard, one outbound one is used.
 */
import { Counters } from '../core/faults.ts'
import { noRoom, type PacketSink } from '../core/packet-sink.ts'
import type { DatagramRoute, DatagramSender, Envelope } from '../dataplane/datagrams.ts'
import type { PinnedMemory } from '../dataplane/dataplane.ts'
import type { EspChild } from './esp-child.ts'
import { EspDrop, espDropName } from './esp-drop.ts'
import type { EspOwner } from './esp-receiver.ts'
import type { SaDatabase } from './sa-database.ts'

/** What an ordinary link carries, bytes; a narrower way fragments the outer packet. */
const LINK_MTU_BYTES = 1500
const IPV4_HEADER_BYTES = 20
const IPV6_HEADER_BYTES = 40
const UDP_HEADER_BYTES = 8

export interface EspTunnelOptions {
  readonly memory: PinnedMemory
  readonly sender: DatagramSender
  readonly database: SaDatabase<EspOwner>
  readonly route: DatagramRoute
  /** Largest inner packet, bytes, whatever the algorithms leave room for. */
  readonly mtuBytes: number
  /** Transport mode for this IP protocol; tunnel mode when absent. */
  readonly transportProtocol?: number
  readonly observer: EspTunnelObserver
}

export interface EspTunnelObserver {
  /** An authentic packet came another way than ours goes. */
  onOtherPath(envelope: Envelope): void
}

interface Receiver {
  deliver(at: number, lengthBytes: number): void
}

/** What came before the dataplane knows the session is dropped. */
const nobody: Receiver = { deliver: () => {} }

export class EspTunnel implements PacketSink, EspOwner {
  readonly #database: SaDatabase<EspOwner>
  readonly #observer: EspTunnelObserver
  readonly #memory: PinnedMemory
  readonly #sender: DatagramSender
  readonly #transportProtocol: number | undefined
  /** In the order of their making. */
  #children: readonly EspChild[] = []
  /** Those that may be sent through, newest first. */
  #active: readonly EspChild[] = []
  #current: EspChild | undefined
  #route: DatagramRoute
  #receiver: Receiver = nobody
  readonly #maxMtuBytes: number
  #mtuBytes: number
  #headroomBytes = 0
  #tailroomBytes = 0
  /** Of SAs that are gone, by name. */
  readonly #drops = new Counters()
  #authenticPackets = 0
  #strayEnvelopes = 0

  constructor(options: EspTunnelOptions) {
    this.#database = options.database
    this.#observer = options.observer
    this.#memory = options.memory
    this.#sender = options.sender
    this.#transportProtocol = options.transportProtocol
    this.#route = options.route
    this.#maxMtuBytes = options.mtuBytes
    this.#mtuBytes = options.mtuBytes
  }

  get mtuBytes(): number {
    return this.#mtuBytes
  }

  get children(): readonly EspChild[] {
    return this.#children
  }

  child(inboundSpi: number): EspChild | undefined {
    return this.#children.find(({ inbound }) => inbound.spi === inboundSpi)
  }

  /** Authentic packets of all SAs so far: the peer lives. */
  get authenticPackets(): number {
    let sum = this.#authenticPackets
    for (const { inbound } of this.#children) sum += inbound.authenticPackets
    return sum
  }

  /** Dropped packets by reason, over all SAs so far. */
  get drops(): Record<string, number> {
    const sum = new Counters()
    for (const [name, packets] of Object.entries(this.#drops.toJSON())) sum.count(name, packets)
    for (const child of this.#children) addDrops(sum, child)
    return sum.toJSON()
  }

  /** Authentic packets that came another way than ours goes. */
  get strayEnvelopes(): number {
    return this.#strayEnvelopes
  }

  connect(receiver: Receiver): void {
    this.#receiver = receiver
  }

  /** From now on the child is heard; `activate` lets it speak. */
  add(child: EspChild): void {
    this.#children = this.#children.concat(child)
    this.#database.add(child.inbound, this)
  }

  /** Sends through this child; one that it `replaces` is only heard from now on. */
  activate(inboundSpi: number, replaces?: number): void {
    const child = this.child(inboundSpi)
    if (child === undefined) return
    const replaced = replaces === undefined ? undefined : this.child(replaces)
    this.#active = [child, ...this.#active.filter(old => old !== child && old !== replaced)]
    this.#choose()
  }

  remove(inboundSpi: number): void {
    const child = this.child(inboundSpi)
    if (child === undefined) return
    this.#authenticPackets += child.inbound.authenticPackets
    addDrops(this.#drops, child)
    this.#children = this.#children.filter(other => other !== child)
    this.#database.remove(inboundSpi)
    this.#active = this.#active.filter(other => other !== child)
    child.outbound.close()
    this.#choose()
  }

  close(): void {
    for (const { inbound } of this.#children) this.remove(inbound.spi)
    this.#receiver = nobody
  }

  /** The peer is reached another way from now on. */
  moveTo(route: DatagramRoute): void {
    this.#route = route
    this.#measure()
  }

  // PacketSink

  reserve(lengthBytes: number): number {
    if (this.#current === undefined) return noRoom
    const headroomBytes = this.#headroomBytes
    const at = this.#sender.reserve(headroomBytes + lengthBytes + this.#tailroomBytes)
    return at === noRoom ? noRoom : at + headroomBytes
  }

  commit(at: number, lengthBytes: number): void {
    const protocol = this.#transportProtocol
    const hasChoice = this.#active.length > 1 && protocol === undefined
    const child = hasChoice ? this.#childFor(at, lengthBytes) : this.#current
    if (child === undefined) return
    const { outbound } = child
    const espBytes =
      protocol === undefined
        ? outbound.sealIp(at, lengthBytes)
        : outbound.seal(at, lengthBytes, protocol)
    if (espBytes > 0) this.#sender.commit(at - outbound.headroomBytes, espBytes, this.#route)
  }

  flush(): void {
    this.#sender.flush()
  }

  // EspOwner

  payload(at: number, lengthBytes: number): void {
    this.#receiver.deliver(at, lengthBytes)
  }

  heardFrom(envelope: Envelope): void {
    const route = this.#route
    if (envelope.peer.equals(route.peer) && envelope.port === route.port) return
    this.#strayEnvelopes++
    this.#observer.onOtherPath(envelope)
  }

  /** The newest child whose selectors the packet is within; it stands where the widest header fits. */
  #childFor(at: number, lengthBytes: number): EspChild | undefined {
    const { bytes } = this.#memory
    const found = this.#active.find(child => child.selectors.allowsOut(bytes, at, lengthBytes))
    if (found === undefined) this.#drops.count(espDropName(EspDrop['selector-mismatch']))
    return found
  }

  #choose(): void {
    this.#current = this.#active[0]
    this.#measure()
  }

  #measure(): void {
    const { peer, port } = this.#route
    let outerBytes = peer.family === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES
    if (port.number !== 0) outerBytes += UDP_HEADER_BYTES
    this.#headroomBytes = 0
    this.#tailroomBytes = 0
    let mtuBytes = this.#maxMtuBytes
    for (const { outbound } of this.#active) {
      this.#headroomBytes = Math.max(this.#headroomBytes, outbound.headroomBytes)
      this.#tailroomBytes = Math.max(this.#tailroomBytes, outbound.tailroomBytes)
      mtuBytes = Math.min(mtuBytes, outbound.largestPayload(LINK_MTU_BYTES - outerBytes))
    }
    this.#mtuBytes = mtuBytes
  }
}

function addDrops(sum: Counters, { inbound, outbound }: EspChild): void {
  for (const counters of [inbound.drops, outbound.drops]) {
    for (const [name, packets] of Object.entries(counters.toJSON())) sum.count(name, packets)
  }
}
