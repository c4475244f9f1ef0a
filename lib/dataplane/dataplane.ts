/**
 * What the rest of the server knows of the dataplane. It never names a protocol: packets come in
 * from the TUN device and leave through a `PacketSink`; packets from a tunnel enter through a `Port`.
 *
 * Every position is an offset into one pinned memory, so a packet is moved, cut, joined, encrypted
 * and written to the kernel without an object of its own.
 */
import type { PacketSink } from '../core/packet-sink.ts'
import type { PacketFilter } from './packet-filter.ts'
import type { CaptureOptions } from './pcap.ts'

export type BackendName = 'offload' | 'plain' | 'memory'

/** The one memory that all packets live in. Its bytes never move while the process runs. */
export interface PinnedMemory {
  readonly bytes: Uint8Array
  readonly view: DataView
  /** Native address of `bytes[0]`; 0 in the `memory` backend, which has no kernel to tell it to. */
  readonly address: number
  /** Reserves a region for good, at set-up time. Throws InvariantError when the memory is used up. */
  allocate(lengthBytes: number, alignBytes?: number): number
  /** Copies inside the memory; regions may overlap. */
  copy(to: number, from: number, lengthBytes: number): void
  /**
   * One's-complement sum of `lengthBytes` bytes added to `seed`, folded to 16 bits, in the byte order
   * of memory (store it with `view.setUint16(at, sum, true)`), RFC 1071.
   */
  checksum(at: number, lengthBytes: number, seed: number): number
}

/** Buffers of one size for packets on their way out of a tunnel; taken per burst, given back when sent. */
export interface SlotPool {
  readonly slotBytes: number
  readonly freeCount: number
  readonly totalCount: number
  /** Offset of a free slot, or -1. */
  take(): number
  give(at: number): void
}

export interface DataplaneStatus {
  readonly backend: BackendName
  /** Kernel offloads that are on, e.g. `tso4`, `tso6`, `uso`, `checksum`. */
  readonly offloads: readonly string[]
  readonly tunName: string
  readonly mtuBytes: number
  /** Packets and bytes through the TUN, and every drop with its reason. */
  readonly counters: Readonly<Record<string, number>>
}

export interface Dataplane {
  readonly memory: PinnedMemory
  /** Output buffers that all stream tunnels (SSTP) share, 64 KiB each. */
  readonly streamSlots: SlotPool
  readonly mtuBytes: number

  /**
   * Room for `lengthBytes` of received tunnel data; returns its offset. Valid until the burst ends,
   * that is until `flush` runs, which happens by itself at the end of this turn of the event loop and
   * earlier when room runs out. `lengthBytes` is at most `maxIntakeBytes`.
   */
  intake(lengthBytes: number): number
  readonly maxIntakeBytes: number

  /** Ends the burst: what ports delivered goes to the TUN and to other tunnels. */
  flush(): void
  /** Bursts that have ended: nothing that ports delivered at a lower count is in use any more. */
  readonly endedBursts: number

  attach(options: PortOptions): Port
  /** Records what passes the TUN device; see `PacketEngine.capture`. */
  capture(options: CaptureOptions): { stop(): void }
  start(): void
  /** Stops reading, closes the device. Ports stay attached but carry nothing. */
  stop(): void
  status(): DataplaneStatus
}

export interface PortOptions {
  /** For counters, captures and logs: `sstp/17 alice`. */
  readonly label: string
  readonly sink: PacketSink
  /** We are the client here: what arrives is for this host, even where the way back leads out again. */
  readonly isUplink?: boolean
  /**
   * Gets packets that concern the link itself: IPv6 link-local and multicast (router and neighbour
   * solicitations), DHCP requests. Called in the burst; `bytes` must be copied to be kept.
   */
  onLinkPacket(bytes: Uint8Array): void
}

/** Bits of IP per second; absent is no limit. What comes too fast is dropped, not delayed. */
export interface RateLimits {
  /** From the client. */
  readonly receiveBitsPerSecond?: number
  /** To the client. */
  readonly sendBitsPerSecond?: number
  /** What may come at once; absent: a quarter of a second, and at least 64 KiB. */
  readonly receiveBurstBytes?: number
  readonly sendBurstBytes?: number
}

/** One session's place in the dataplane. */
export interface Port {
  /** Accept `address` (host order) as source from this session, and route it here. */
  addIpv4(address: number): void
  /** Accept and route an IPv6 prefix, `prefixLength` from 0 to 128. */
  addIpv6(prefix: Uint8Array, prefixLength: number): void
  /** Route an IPv4 network here too: framed routes, site-to-site. */
  addIpv4Network(address: number, prefixLength: number): void

  /**
   * An IP packet from the session, standing in pinned memory (see `intake`). It is checked, then
   * goes towards the TUN or another port when the burst ends.
   */
  deliver(at: number, lengthBytes: number): void

  /** No longer routes an IPv4 network here. False when it was not. */
  removeIpv4Network(address: number, prefixLength: number): boolean
  removeIpv6(prefix: Uint8Array, prefixLength: number): boolean

  /**
   * From the next packet on only what `filter` permits passes, no faster than `rates`; undefined is
   * no limit. Packets of the link itself (see `onLinkPacket`) and those of `transmit` are exempt.
   */
  limit(filter: PacketFilter | undefined, rates: RateLimits | undefined): void

  /** Sends a packet of our own making to the session: router advertisements, DHCP answers. */
  transmit(packet: Uint8Array): void

  readonly counters: PortCounters

  /** False after `detach`: then no route can be added. */
  readonly isAttached: boolean

  /** Forgets routes and sink. Afterwards `deliver` drops. */
  detach(): void
}

/** From the server's point of view: `received` came from the client. IP packets, without tunnel headers. */
export interface PortCounters {
  readonly receivedPackets: number
  readonly receivedBytes: number
  readonly sentPackets: number
  readonly sentBytes: number
  /** Packets dropped in either direction. */
  readonly droppedPackets: number
  /** Burst time, monotonic ms, of the last packet that counts as use (either way). */
  readonly lastActiveMs: number
}
