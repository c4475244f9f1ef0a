/**
 * Datagrams as the rooms above see them. Received ones stand in pinned memory and come with an
 * envelope; those to send are written where `reserve` says, with a route. Numbers only, per datagram.
 */
import type { SocketAddress } from './socket-address.ts'

/** Which socket a datagram came in by or goes out by; what it is for is the opener's business. */
export interface DatagramPort {
  readonly number: number
  /** As it was bound: the address may stand for all. */
  readonly bound: SocketAddress
  readonly counters: DatagramCounters
  close(): void
}

export interface DatagramCounters {
  readonly receivedDatagrams: number
  readonly receivedBytes: number
  readonly sentDatagrams: number
  readonly sentBytes: number
  /** The kernel's queue was full. */
  readonly droppedQueueFull: number
  /** The kernel refused to send: no route, a filter, too big. */
  readonly droppedRefused: number
}

/** Both ends of the datagram in hand. The same object for every datagram of a socket: copy to keep. */
export interface Envelope {
  readonly port: DatagramPort
  readonly peer: SocketAddress
  readonly local: SocketAddress
}

/** Where datagrams go, and from where; made once per peer. */
export interface DatagramRoute {
  readonly port: DatagramPort
  readonly peer: SocketAddress
  readonly local: SocketAddress
}

export interface DatagramReceiver {
  /**
   * One datagram, standing at `at` until the burst ends; it may be changed in place.
   */
  receive(at: number, lengthBytes: number, envelope: Envelope): void
  /** Where the datagrams stood is used again after this: whoever puts work off does it now. */
  endBurst?(): void
  /** The kernel took the socket away; nothing more comes. */
  lost(reason: string): void
}

/** What is written here leaves in the order of `commit`, at the latest with `flush`. */
export interface DatagramSender {
  /** Where a datagram of at most `lengthBytes` may be written, or `noRoom` when it is too long. */
  reserve(lengthBytes: number): number
  /** The datagram stands at `at`, the offset that `reserve` gave. */
  commit(at: number, lengthBytes: number, route: DatagramRoute): void
  flush(): void
}

/** All sockets of the process that carry packets in datagrams. */
export interface DatagramPlane extends DatagramSender {
  /** UDP, or the IP protocol of that number on a raw socket (port 0). Throws BindError. */
  open(bound: SocketAddress, receiver: DatagramReceiver, ipProtocol?: number): DatagramPort
  route(envelope: Envelope): DatagramRoute
  readonly isSegmenting: boolean
}
