/** One session's place in the dataplane: its routes, its sink, its counters. */
import { InvariantError } from '../core/errors.ts'
import { noRoom } from '../core/packet-sink.ts'
import type { Port, PortCounters, PortOptions, RateLimits } from './dataplane.ts'
import type { Outlet } from './outlet.ts'
import type { PacketFilter } from './packet-filter.ts'
import type { PacketMemory } from './pinned-memory.ts'
import type { RouteTable } from './route-table.ts'
import type { SessionPath } from './session-path.ts'
import { Count, type Tally } from './tally.ts'
import { TrafficGate } from './traffic-gate.ts'

const dropDetached = Count['drop-detached']
const dropTooBig = Count['drop-too-big']

/** What the ports of one dataplane share. */
export interface SessionPortParts {
  /** For what comes after the port was detached. */
  readonly strayTally: Tally
  readonly memory: PacketMemory
  readonly routes: RouteTable<SessionPort>
  readonly path: SessionPath
  /** Monotonic. */
  nowMs(): number
  /** Something waits for the end of the burst. */
  onWork(): void
  onDetach(port: SessionPort): void
}

export class SessionPort implements Port {
  readonly outlet: Outlet
  readonly tally: Tally
  isAttached = true
  /** Filter and rates, where the session has any. */
  gate: TrafficGate | undefined = undefined
  lastActiveMs: number
  /** The last IPv4 source that was found to be this session's, while the route table is the same. */
  checkedSource = 0
  checkedGeneration = -1
  readonly #options: PortOptions
  readonly #parts: SessionPortParts

  constructor(options: PortOptions, outlet: Outlet, parts: SessionPortParts) {
    this.outlet = outlet
    this.tally = outlet.tally
    this.lastActiveMs = parts.nowMs()
    this.#options = options
    this.#parts = parts
  }

  get label(): string {
    return this.#options.label
  }

  get isUplink(): boolean {
    return this.#options.isUplink ?? false
  }

  get counters(): PortCounters {
    return new CountersView(this)
  }

  addIpv4(address: number): void {
    this.addIpv4Network(address, 32)
  }

  addIpv4Network(address: number, prefixLength: number): void {
    this.#checkPrefix(prefixLength, 32)
    this.#parts.routes.addIpv4(address, prefixLength, this)
  }

  addIpv6(prefix: Uint8Array, prefixLength: number): void {
    this.#checkPrefix(prefixLength, 128)
    if (prefix.length !== 16) throw new InvariantError(`${this.label}: IPv6 prefix is 16 bytes`)
    this.#parts.routes.addIpv6(prefix, prefixLength, this)
  }

  removeIpv4Network(address: number, prefixLength: number): boolean {
    this.#checkPrefix(prefixLength, 32)
    return this.#parts.routes.deleteIpv4(address, prefixLength, this)
  }

  removeIpv6(prefix: Uint8Array, prefixLength: number): boolean {
    this.#checkPrefix(prefixLength, 128)
    return this.#parts.routes.deleteIpv6(prefix, prefixLength, this)
  }

  limit(filter: PacketFilter | undefined, rates: RateLimits | undefined): void {
    const { memory } = this.#parts
    const hasRates =
      rates?.receiveBitsPerSecond !== undefined || rates?.sendBitsPerSecond !== undefined
    this.gate =
      filter === undefined && !hasRates
        ? undefined
        : new TrafficGate(memory, this.tally, filter, rates, this.#parts.nowMs())
  }

  deliver(at: number, lengthBytes: number): void {
    this.#parts.path.receive(this, at, lengthBytes)
  }

  transmit(packet: Uint8Array): void {
    const { outlet } = this
    const { memory } = this.#parts
    if (!this.isAttached) {
      this.dropDetached()
      return
    }
    if (packet.length > outlet.mtuBytes) {
      this.tally.drop(dropTooBig, 1)
      return
    }
    const to = outlet.reserve(packet.length)
    if (to === noRoom) {
      outlet.dropNoRoom(1)
      return
    }
    memory.bytes.set(packet, to)
    outlet.commit(to, packet.length)
    this.#parts.onWork()
  }

  /** Hands a packet of the link to the session's owner. */
  handLinkPacket(at: number, lengthBytes: number): void {
    // Control traffic: the one place where a packet becomes an object of its own.
    this.#options.onLinkPacket(this.#parts.memory.bytes.subarray(at, at + lengthBytes))
  }

  /** Counts a packet that came too late. */
  dropDetached(): void {
    this.#parts.strayTally.drop(dropDetached, 1)
  }

  detach(): void {
    if (!this.isAttached) return
    this.isAttached = false
    this.#parts.routes.deleteOwner(this)
    this.outlet.close()
    this.#parts.onDetach(this)
  }

  #checkPrefix(prefixLength: number, longest: number): void {
    if (!this.isAttached) throw new InvariantError(`${this.label}: route added after detach`)
    if (!(prefixLength >= 0 && prefixLength <= longest)) {
      throw new InvariantError(`${this.label}: prefix length ${prefixLength}`)
    }
  }
}

const receivedPackets = Count['received-packets']
const receivedBytes = Count['received-bytes']
const sentPackets = Count['sent-packets']
const sentBytes = Count['sent-bytes']
const droppedPackets = Count['dropped-packets']

class CountersView implements PortCounters {
  readonly #port: SessionPort

  constructor(port: SessionPort) {
    this.#port = port
  }

  get receivedPackets(): number {
    return this.#port.tally.get(receivedPackets)
  }

  get receivedBytes(): number {
    return this.#port.tally.get(receivedBytes)
  }

  get sentPackets(): number {
    return this.#port.tally.get(sentPackets)
  }

  get sentBytes(): number {
    return this.#port.tally.get(sentBytes)
  }

  get droppedPackets(): number {
    return this.#port.tally.get(droppedPackets)
  }

  get lastActiveMs(): number {
    return this.#port.lastActiveMs
  }

  /** Every counter by name, with the reasons of drops. */
  toJSON(): Record<string, number> {
    return this.#port.tally.toJSON()
  }
}
