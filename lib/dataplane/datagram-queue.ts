/**
 * Datagrams on their way out: written one behind the other into an arena, so that neighbours of equal
 * length to one peer are one message, which the kernel cuts (`UDP_SEGMENT`). One `sendmmsg` a burst.
 */
import { noRoom } from '../core/packet-sink.ts'
import type { DatagramSocket } from './datagram-socket.ts'
import type { DatagramRoute, DatagramSender } from './datagrams.ts'
import type { PinnedMemory } from './dataplane.ts'
import type { Kernel } from './kernel.ts'
import { MessageVectors } from './message-vectors.ts'

/** Linux: UDP_MAX_SEGMENTS before 6.9. */
const MAX_SEGMENTS = 64
/** What UDP over IPv4 carries at most. */
const MAX_MESSAGE_BYTES = 65_507
const MESSAGES = 256

const MSG_DONTWAIT = 0x40
const MSG_NOSIGNAL = 0x4000

const EINTR = 4
const EIO = 5
const EAGAIN = 11
const EINVAL = 22
const EMSGSIZE = 90
const ENOBUFS = 105

/** A route with what the queue remembers of it. */
export interface QueueRoute extends DatagramRoute {
  readonly port: DatagramSocket
  /** Cleared when a segment does not fit the way to this peer. */
  canSegment: boolean
}

/** One message that is being put together or waits for the flush. */
class Pending {
  route: QueueRoute | undefined
  at = 0
  lengthBytes = 0
  segmentBytes = 0
  segments = 0
}

export class DatagramQueue implements DatagramSender {
  readonly #kernel: Kernel
  readonly #vectors: MessageVectors
  readonly #pending: Pending[] = []
  readonly #arenaAt: number
  readonly #arenaEnd: number
  #nextAt: number
  #count = 0
  /** The last message may grow: nothing shorter was put behind it. */
  #isOpen = false

  constructor(kernel: Kernel, memory: PinnedMemory, arenaBytes: number) {
    this.#kernel = kernel
    this.#vectors = new MessageVectors(memory, MESSAGES)
    for (let i = 0; i < MESSAGES; i++) this.#pending.push(new Pending())
    this.#arenaAt = memory.allocate(arenaBytes)
    this.#arenaEnd = this.#arenaAt + arenaBytes
    this.#nextAt = this.#arenaAt
  }

  reserve(lengthBytes: number): number {
    if (lengthBytes > MAX_MESSAGE_BYTES) return noRoom
    if (this.#nextAt + lengthBytes > this.#arenaEnd || this.#count === MESSAGES) this.flush()
    return this.#nextAt
  }

  commit(at: number, lengthBytes: number, to: DatagramRoute): void {
    const route = to as QueueRoute
    this.#nextAt = at + lengthBytes
    const last = this.#pending[this.#count - 1]
    if (
      this.#isOpen &&
      last !== undefined &&
      last.route === route &&
      last.at + last.lengthBytes === at &&
      lengthBytes <= last.segmentBytes &&
      last.segments < MAX_SEGMENTS &&
      last.lengthBytes + lengthBytes <= MAX_MESSAGE_BYTES
    ) {
      last.lengthBytes += lengthBytes
      last.segments++
      // Only the last segment may be shorter.
      this.#isOpen = lengthBytes === last.segmentBytes
      return
    }
    const next = this.#pending[this.#count]
    if (next === undefined) return
    this.#count++
    next.route = route
    next.at = at
    next.lengthBytes = lengthBytes
    next.segmentBytes = lengthBytes
    next.segments = 1
    this.#isOpen = route.canSegment && route.port.canSegment
  }

  flush(): void {
    const count = this.#count
    if (count === 0) return
    for (let i = 0; i < count; i++) {
      const { route, at, lengthBytes, segmentBytes, segments } = this.#pending[i] as Pending
      if (route === undefined) continue
      this.#vectors.setData(i, at, lengthBytes)
      this.#vectors.setRoute(
        i,
        route.peer,
        route.port.needsLocal ? route.local : undefined,
        segments > 1 ? segmentBytes : 0,
      )
    }
    for (let from = 0; from < count; ) {
      const socket = this.#pending[from]?.route?.port
      let end = from + 1
      while (end < count && this.#pending[end]?.route?.port === socket) end++
      if (socket !== undefined) this.#send(socket, from, end)
      from = end
    }
    for (let i = 0; i < count; i++) (this.#pending[i] as Pending).route = undefined
    this.#count = 0
    this.#isOpen = false
    this.#nextAt = this.#arenaAt
  }

  #send(socket: DatagramSocket, first: number, end: number): void {
    const { counters } = socket
    for (let from = first; from < end; ) {
      const sent = socket.isOpen
        ? this.#kernel.sendmmsg(
            socket.fd,
            this.#vectors.addressOf(from),
            end - from,
            MSG_DONTWAIT | MSG_NOSIGNAL,
          )
        : 0
      if (sent > 0) {
        for (let i = from; i < from + sent; i++) {
          const message = this.#pending[i] as Pending
          counters.sentDatagrams += message.segments
          counters.sentBytes += message.lengthBytes
        }
        from += sent
        continue
      }
      const errno = sent < 0 ? this.#kernel.errno() : 0
      if (errno === EINTR) continue
      if (errno === EAGAIN || errno === ENOBUFS) {
        for (let i = from; i < end; i++) {
          counters.droppedQueueFull += (this.#pending[i] as Pending).segments
        }
        return
      }
      const message = this.#pending[from] as Pending
      const isCut = message.segments > 1
      if (isCut && (errno === EIO || errno === EINVAL || errno === EMSGSIZE)) {
        // EIO: the device computes no checksums, so nobody cuts for it. Else this way is too narrow.
        if (errno === EIO) socket.canSegment = false
        else if (message.route !== undefined) message.route.canSegment = false
        this.#sendSingly(socket, from, message)
      } else {
        counters.droppedRefused += message.segments
      }
      from++
    }
  }

  /** Sends the datagrams of message `i` one by one: the rare way. */
  #sendSingly(socket: DatagramSocket, i: number, message: Pending): void {
    const { counters } = socket
    const { route } = message
    if (route === undefined) return
    const end = message.at + message.lengthBytes
    this.#vectors.setRoute(i, route.peer, socket.needsLocal ? route.local : undefined, 0)
    for (let at = message.at; at < end; at += message.segmentBytes) {
      const lengthBytes = Math.min(message.segmentBytes, end - at)
      this.#vectors.setData(i, at, lengthBytes)
      const flags = MSG_DONTWAIT | MSG_NOSIGNAL
      if (this.#kernel.sendmsg(socket.fd, this.#vectors.addressOf(i), flags) >= 0) {
        counters.sentDatagrams++
        counters.sentBytes += lengthBytes
      } else if (this.#kernel.errno() === EAGAIN) counters.droppedQueueFull++
      else counters.droppedRefused++
    }
  }
}
