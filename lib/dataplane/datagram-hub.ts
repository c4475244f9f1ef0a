/**
 * All datagram sockets of the process on one dataplane: they share the buffers for reception, the
 * queue for sending, and the burst. Each wake-up reads a bounded burst and ends it.
 */
import { type Clock, systemClock } from '../core/clock.ts'
import { SystemError } from '../core/errors.ts'
import { DatagramQueue, type QueueRoute } from './datagram-queue.ts'
import { DatagramSocket, SOCKET_SCRATCH_BYTES } from './datagram-socket.ts'
import type {
  DatagramPlane,
  DatagramPort,
  DatagramReceiver,
  DatagramRoute,
  Envelope,
} from './datagrams.ts'
import type { Dataplane } from './dataplane.ts'
import { type Kernel, loadKernel } from './kernel.ts'
import { MessageVectors } from './message-vectors.ts'
import { SocketAddress } from './socket-address.ts'

/** The largest message that the kernel joins; each message has as much room. */
const BUFFER_BYTES = 65_536
/** Few enough that what one call brings stays in the processor's cache until it is handed on. */
const FULL_BATCH = 4
const SMALL_BATCH = 32
/** Below this a message was one datagram of an ordinary link. */
const SMALL_MESSAGE_BYTES = 2048
/** Likewise on the way out: four full messages. */
const QUEUE_BYTES = 262_144

// Implementation constants: one wake-up reads no more than this, so that control traffic stays live.
const BURST_MS = 2
const BURST_BYTES = 1_048_576

const MSG_DONTWAIT = 0x40

const IPV4_HEADER_BYTES = 20

/** What sockets need of the dataplane. */
export type BurstMemory = Pick<Dataplane, 'memory' | 'flush'>

class SocketEnvelope implements Envelope {
  readonly port: DatagramSocket
  readonly peer = new SocketAddress()
  readonly local = new SocketAddress()

  constructor(port: DatagramSocket) {
    this.port = port
    this.local.set(port.bound)
  }
}

export class DatagramHub implements DatagramPlane {
  readonly #kernel: Kernel
  readonly #dataplane: BurstMemory
  readonly #clock: Clock
  readonly #queue: DatagramQueue
  readonly #vectors: MessageVectors
  readonly #buffersAt: number
  readonly #scratchAt: number
  readonly #sockets = new Set<DatagramSocket>()
  #batch = FULL_BATCH

  /** Throws SystemError where there are no system calls for this dataplane's memory. */
  constructor(dataplane: BurstMemory, clock: Clock = systemClock) {
    const kernel = loadKernel()
    if (kernel instanceof SystemError) throw kernel
    const { memory } = dataplane
    if (memory.address === 0) {
      throw new SystemError('datagram sockets need packets in memory that the kernel can reach')
    }
    this.#kernel = kernel
    this.#dataplane = dataplane
    this.#clock = clock
    this.#queue = new DatagramQueue(kernel, memory, QUEUE_BYTES)
    this.#vectors = new MessageVectors(memory, SMALL_BATCH)
    this.#buffersAt = memory.allocate(BUFFER_BYTES * SMALL_BATCH)
    this.#scratchAt = memory.allocate(SOCKET_SCRATCH_BYTES)
    for (let i = 0; i < SMALL_BATCH; i++) {
      this.#vectors.setData(i, this.#buffersAt + BUFFER_BYTES * i, BUFFER_BYTES)
    }
  }

  open(bound: SocketAddress, receiver: DatagramReceiver, ipProtocol?: number): DatagramPort {
    const { memory } = this.#dataplane
    const socket = new DatagramSocket(this.#kernel, memory, this.#scratchAt, { bound, ipProtocol })
    const envelope = new SocketEnvelope(socket)
    try {
      socket.listen({
        onReadable: () => this.#readBurst(socket, envelope, receiver),
        onError: reason => {
          socket.close()
          receiver.lost(reason)
        },
      })
    } catch (error) {
      socket.close()
      throw error
    }
    this.#sockets.add(socket)
    socket.onClosed = () => this.#sockets.delete(socket)
    return socket
  }

  route(envelope: Envelope): DatagramRoute {
    const peer = new SocketAddress()
    const local = new SocketAddress()
    peer.set(envelope.peer)
    local.set(envelope.local)
    const route: QueueRoute = {
      port: envelope.port as DatagramSocket,
      peer,
      local,
      canSegment: true,
    }
    return route
  }

  /** Sockets that are open. */
  get size(): number {
    return this.#sockets.size
  }

  /** Whether the kernel cuts for all of them. */
  get isSegmenting(): boolean {
    return [...this.#sockets].every(({ isUdp, canSegment }) => !isUdp || canSegment)
  }

  reserve(lengthBytes: number): number {
    return this.#queue.reserve(lengthBytes)
  }

  commit(at: number, lengthBytes: number, route: DatagramRoute): void {
    this.#queue.commit(at, lengthBytes, route)
  }

  flush(): void {
    this.#queue.flush()
  }

  #readBurst(socket: DatagramSocket, envelope: SocketEnvelope, receiver: DatagramReceiver): void {
    const startedMs = this.#clock.nowMs()
    let burstBytes = 0
    for (;;) {
      const batch = this.#batch
      const count = this.#receive(socket, batch)
      if (count <= 0) break
      let largestBytes = 0
      // Whoever closes the socket from within gets nothing more, not even what was read already.
      for (let i = 0; i < count && socket.isOpen; i++) {
        const lengthBytes = this.#vectors.receivedBytes(i)
        largestBytes = Math.max(largestBytes, lengthBytes)
        burstBytes += lengthBytes
        this.#hand(socket, envelope, receiver, i, lengthBytes)
      }
      // Datagrams that came singly are many: take more at a time.
      this.#batch = largestBytes < SMALL_MESSAGE_BYTES ? SMALL_BATCH : FULL_BATCH
      // The buffers are used again: what points into them goes now.
      receiver.endBurst?.()
      this.#dataplane.flush()
      this.#queue.flush()
      if (count < batch || burstBytes >= BURST_BYTES || !socket.isOpen) break
      if (this.#clock.nowMs() - startedMs >= BURST_MS) break
    }
  }

  #receive(socket: DatagramSocket, batch: number): number {
    for (let i = 0; i < batch; i++) this.#vectors.prepareReceive(i)
    return this.#kernel.recvmmsg(socket.fd, this.#vectors.addressOf(0), batch, MSG_DONTWAIT, 0)
  }

  #hand(
    socket: DatagramSocket,
    envelope: SocketEnvelope,
    receiver: DatagramReceiver,
    i: number,
    lengthBytes: number,
  ): void {
    const { counters } = socket
    this.#vectors.takePeer(i, envelope.peer)
    const segmentBytes = this.#vectors.takeControl(i, envelope.local) || lengthBytes
    const start = this.#buffersAt + BUFFER_BYTES * i
    counters.receivedBytes += lengthBytes
    if (socket.givesIpHeader) {
      const headerBytes = ((this.#dataplane.memory.bytes[start] ?? 0) & 15) * 4
      counters.receivedDatagrams++
      if (headerBytes < IPV4_HEADER_BYTES || headerBytes > lengthBytes) return
      receiver.receive(start + headerBytes, lengthBytes - headerBytes, envelope)
      return
    }
    const end = start + lengthBytes
    for (let at = start; at < end && socket.isOpen; at += segmentBytes) {
      counters.receivedDatagrams++
      receiver.receive(at, at + segmentBytes <= end ? segmentBytes : end - at, envelope)
    }
  }
}
