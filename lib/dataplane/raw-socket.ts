/**
 * A raw IPv4 socket for one IP protocol (raw(7)), read and written in batches on packet memory: one
 * `recvmmsg` and one `sendmmsg` for up to 64 packets, all structures built once. Numbers only per
 * packet.
 *
 * Packets come with their IP header and are whole: the kernel has put fragments together. What was
 * received stands in memory until `onBurstEnd` has returned.
 */
import { BindError, SystemError } from '../core/errors.ts'
import type { PinnedMemory } from './dataplane.ts'
import { AF_INET, errnoName, type Kernel, SOCK_CLOEXEC } from './kernel.ts'
import { type PacketSocket, RAW_SLOT_BYTES, type RawSocketEvents } from './packet-socket.ts'
import { StackSlotPool } from './slot-pool.ts'
import { UvPoller } from './uv-poller.ts'

/** linux/net.h, linux/in.h, asm-generic/socket.h. */
const SOCK_RAW = 3
const SOCK_NONBLOCK = 0o4000
const SOL_SOCKET = 1
const SO_SNDBUFFORCE = 32
const SO_RCVBUFFORCE = 33
const IPPROTO_IP = 0
const IP_PKTINFO = 8
const IP_MTU_DISCOVER = 10
/** Fragments what is too long for the path. */
const IP_PMTUDISC_DONT = 0
const MSG_DONTWAIT = 0x40
const EAGAIN = 11
const EINTR = 4

/** struct mmsghdr, iovec, sockaddr_in and cmsghdr with in_pktinfo, of 64-bit Linux. */
const MMSGHDR_BYTES = 64
const MSG_CONTROL_LENGTH_AT = 40
const MSG_FLAGS_AT = 48
const MSG_RECEIVED_AT = 56
const IOVEC_BYTES = 16
const SOCKADDR_BYTES = 16
const CMSG_BYTES = 32
const CMSG_USED_BYTES = 28
const PKTINFO_SOURCE_AT = 20
const TWO_TO_32 = 4_294_967_296
const MSG_TRUNC = 0x20

/** Implementation constants. */
export const RAW_BATCH_PACKETS = 64
/** Batches that one wake-up reads, so that control traffic stays live. */
const RECEIVE_BATCHES = 4
const SEND_SLOTS = 512
const BUFFER_BYTES = 8 * 1024 * 1024

const IPV4_HEADER_BYTES = 20
const SOURCE_AT = 12
const DESTINATION_AT = 16

export class RawSocket implements PacketSocket {
  readonly #kernel: Kernel
  readonly #memory: PinnedMemory
  readonly #fd: number
  readonly #receiveAt: number
  readonly #receiveHeadersAt: number
  readonly #sendPool: StackSlotPool
  readonly #sendFirstAt: number
  readonly #sendHeadersAt: number
  readonly #sendVectorsAt: number
  readonly #sendNamesAt: number
  readonly #sendControlsAt: number
  /** Slots of the batch that is being filled. */
  readonly #committed = new Int32Array(RAW_BATCH_PACKETS)
  #committedCount = 0
  #poller: UvPoller | undefined
  #isOpen = true
  readonly #counts = {
    receivedPackets: 0,
    receivedTruncated: 0,
    receivedMalformed: 0,
    receiveCalls: 0,
    sentPackets: 0,
    sendCalls: 0,
    droppedNoSlot: 0,
    droppedSendBuffer: 0,
    droppedSendError: 0,
  }

  /** Throws BindError when the process may not have raw sockets, SystemError when memory has no address. */
  constructor(kernel: Kernel, memory: PinnedMemory, protocol: number) {
    if (memory.address === 0) throw new SystemError('a raw socket needs pinned memory')
    this.#kernel = kernel
    this.#memory = memory
    this.#fd = kernel.socket(AF_INET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol)
    if (this.#fd < 0) {
      throw new BindError(
        `cannot open a raw socket for IP protocol ${protocol} (${errnoName(kernel.errno())}): it needs root or CAP_NET_RAW`,
      )
    }
    this.#receiveAt = memory.allocate(RECEIVE_BATCHES * RAW_BATCH_PACKETS * RAW_SLOT_BYTES)
    this.#receiveHeadersAt = memory.allocate(
      RECEIVE_BATCHES * RAW_BATCH_PACKETS * (MMSGHDR_BYTES + IOVEC_BYTES),
    )
    this.#sendPool = new StackSlotPool(memory, RAW_SLOT_BYTES, SEND_SLOTS)
    this.#sendFirstAt = this.#sendPool.take()
    this.#sendPool.give(this.#sendFirstAt)
    this.#sendHeadersAt = memory.allocate(RAW_BATCH_PACKETS * MMSGHDR_BYTES)
    this.#sendVectorsAt = memory.allocate(RAW_BATCH_PACKETS * IOVEC_BYTES)
    this.#sendNamesAt = memory.allocate(RAW_BATCH_PACKETS * SOCKADDR_BYTES)
    this.#sendControlsAt = memory.allocate(RAW_BATCH_PACKETS * CMSG_BYTES)
    this.#setOption(IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
    // Without CAP_NET_ADMIN the buffers stay as they are.
    this.#setOption(SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    this.#setOption(SOL_SOCKET, SO_SNDBUFFORCE, BUFFER_BYTES)
    this.#buildReceive()
    this.#buildSend()
  }

  get counters(): Readonly<Record<string, number>> {
    return { ...this.#counts }
  }

  start(events: RawSocketEvents): void {
    this.#poller ??= new UvPoller(this.#kernel, this.#fd, {
      onReadable: () => this.#receive(events),
      onError: reason => events.onLost(reason),
    })
  }

  close(): void {
    if (!this.#isOpen) return
    this.flush()
    this.#isOpen = false
    this.#poller?.close()
    this.#kernel.close(this.#fd)
  }

  reserve(): number {
    if (this.#committedCount === RAW_BATCH_PACKETS) this.flush()
    const at = this.#isOpen ? this.#sendPool.take() : -1
    if (at < 0) this.#counts.droppedNoSlot++
    return at
  }

  release(at: number): void {
    this.#sendPool.give(this.#slotOf(at))
  }

  commit(at: number, lengthBytes: number, source: number, destination: number): void {
    const { view, address } = this.#memory
    const index = this.#committedCount++
    this.#committed[index] = this.#slotOf(at)
    const vector = this.#sendVectorsAt + index * IOVEC_BYTES
    const native = address + at
    view.setUint32(vector, native, true)
    view.setUint32(vector + 4, Math.floor(native / TWO_TO_32), true)
    view.setUint32(vector + 8, lengthBytes, true)
    view.setUint32(this.#sendNamesAt + index * SOCKADDR_BYTES + 4, destination)
    view.setUint32(this.#sendControlsAt + index * CMSG_BYTES + PKTINFO_SOURCE_AT, source)
    if (this.#committedCount === RAW_BATCH_PACKETS) this.flush()
  }

  flush(): void {
    const count = this.#committedCount
    if (count === 0) return
    this.#committedCount = 0
    const { address } = this.#memory
    const headers = address + this.#sendHeadersAt
    for (let sent = 0; sent < count; ) {
      const result = this.#kernel.sendmmsg(
        this.#fd,
        headers + sent * MMSGHDR_BYTES,
        count - sent,
        MSG_DONTWAIT,
      )
      this.#counts.sendCalls++
      if (result > 0) {
        sent += result
        this.#counts.sentPackets += result
        continue
      }
      const errno = this.#kernel.errno()
      if (errno === EINTR) continue
      if (errno === EAGAIN) {
        // The device is slower than we are: what does not fit is lost, as on any wire.
        this.#counts.droppedSendBuffer += count - sent
        break
      }
      // No route, or a packet that a firewall refuses: it concerns this one only.
      this.#counts.droppedSendError++
      sent++
    }
    for (let i = 0; i < count; i++) this.#sendPool.give(this.#committed[i] ?? 0)
  }

  #slotOf(at: number): number {
    return at - ((at - this.#sendFirstAt) & (RAW_SLOT_BYTES - 1))
  }

  #receive(events: RawSocketEvents): void {
    const { address } = this.#memory
    const headers = this.#receiveHeadersAt
    for (let batch = 0; batch < RECEIVE_BATCHES && this.#isOpen; batch++) {
      const first = batch * RAW_BATCH_PACKETS
      const count = this.#kernel.recvmmsg(
        this.#fd,
        address + headers + first * MMSGHDR_BYTES,
        RAW_BATCH_PACKETS,
        MSG_DONTWAIT,
        0,
      )
      if (count <= 0) {
        const errno = count === 0 ? EAGAIN : this.#kernel.errno()
        if (errno !== EAGAIN && errno !== EINTR) this.#counts.receivedMalformed++
        break
      }
      this.#counts.receiveCalls++
      this.#counts.receivedPackets += count
      for (let i = first; i < first + count; i++) this.#show(i, events)
      if (count < RAW_BATCH_PACKETS) break
    }
    events.onBurstEnd()
  }

  #show(index: number, events: RawSocketEvents): void {
    const { view, bytes } = this.#memory
    const header = this.#receiveHeadersAt + index * MMSGHDR_BYTES
    const length = view.getUint32(header + MSG_RECEIVED_AT, true)
    if ((view.getUint32(header + MSG_FLAGS_AT, true) & MSG_TRUNC) !== 0) {
      this.#counts.receivedTruncated++
      return
    }
    const at = this.#receiveAt + index * RAW_SLOT_BYTES
    const headerBytes = ((bytes[at] ?? 0) & 15) * 4
    if (length < IPV4_HEADER_BYTES || headerBytes < IPV4_HEADER_BYTES || headerBytes > length) {
      this.#counts.receivedMalformed++
      return
    }
    events.onPacket(
      at + headerBytes,
      length - headerBytes,
      view.getUint32(at + SOURCE_AT),
      view.getUint32(at + DESTINATION_AT),
    )
  }

  #buildReceive(): void {
    const count = RECEIVE_BATCHES * RAW_BATCH_PACKETS
    const vectorsAt = this.#receiveHeadersAt + count * MMSGHDR_BYTES
    for (let i = 0; i < count; i++) {
      const vector = vectorsAt + i * IOVEC_BYTES
      this.#putAddress(vector, this.#receiveAt + i * RAW_SLOT_BYTES)
      this.#putU64(vector + 8, RAW_SLOT_BYTES)
      const header = this.#receiveHeadersAt + i * MMSGHDR_BYTES
      this.#memory.bytes.fill(0, header, header + MMSGHDR_BYTES)
      this.#putAddress(header + 16, vector)
      this.#putU64(header + 24, 1)
    }
  }

  #buildSend(): void {
    const { bytes, view } = this.#memory
    for (let i = 0; i < RAW_BATCH_PACKETS; i++) {
      const name = this.#sendNamesAt + i * SOCKADDR_BYTES
      bytes.fill(0, name, name + SOCKADDR_BYTES)
      view.setUint16(name, AF_INET, true)
      const control = this.#sendControlsAt + i * CMSG_BYTES
      bytes.fill(0, control, control + CMSG_BYTES)
      this.#putU64(control, CMSG_USED_BYTES)
      view.setUint32(control + 8, IPPROTO_IP, true)
      view.setUint32(control + 12, IP_PKTINFO, true)
      const vector = this.#sendVectorsAt + i * IOVEC_BYTES
      bytes.fill(0, vector, vector + IOVEC_BYTES)
      const header = this.#sendHeadersAt + i * MMSGHDR_BYTES
      bytes.fill(0, header, header + MMSGHDR_BYTES)
      this.#putAddress(header, name)
      view.setUint32(header + 8, SOCKADDR_BYTES, true)
      this.#putAddress(header + 16, vector)
      this.#putU64(header + 24, 1)
      this.#putAddress(header + 32, control)
      this.#putU64(header + MSG_CONTROL_LENGTH_AT, CMSG_BYTES)
    }
  }

  #setOption(level: number, name: number, value: number): void {
    const option = new Uint8Array(new ArrayBuffer(4))
    new DataView(option.buffer).setUint32(0, value, true)
    this.#kernel.setsockopt(this.#fd, level, name, this.#kernel.addressOf(option), 4)
  }

  #putAddress(at: number, to: number): void {
    this.#putU64(at, this.#memory.address + to)
  }

  #putU64(at: number, value: number): void {
    this.#memory.view.setUint32(at, value % TWO_TO_32, true)
    this.#memory.view.setUint32(at + 4, Math.floor(value / TWO_TO_32), true)
  }
}
