/**
 * The kernel's TUN device. With virtio_net_hdr in front of each packet (backend `offload`) one read
 * or write carries up to 64 KiB; without it (backend `plain`) one packet.
 *
 *   struct virtio_net_hdr (linux/virtio_net.h), 10 bytes, little-endian here:
 *   flags u8, gso_type u8, hdr_len u16, gso_size u16, csum_start u16, csum_offset u16
 */
import type { BackendName } from './dataplane.ts'
import type { Device, DeviceEvents, DeviceOffloads } from './device.ts'
import { type Frame, maxFrameBytes, maxPieces } from './frame.ts'
import { errnoName, type Kernel } from './kernel.ts'
import type { PacketMemory } from './pinned-memory.ts'
import { type OpenedTun, VNET_HEADER_BYTES } from './tun-setup.ts'
import { UvPoller } from './uv-poller.ts'

const FLAG_NEEDS_CHECKSUM = 1
/** Added to the gso_type of TCP super-packets with congestion marks; the cut looks at the flags. */
const GSO_ECN = 0x80

const HEADER_LENGTH_AT = 2
const SEGMENT_BYTES_AT = 4
const CHECKSUM_START_AT = 6
const CHECKSUM_OFFSET_AT = 8

const IOVEC_BYTES = 16
const TWO_TO_32 = 4_294_967_296

/** The packet behind the virtio_net_hdr starts at a multiple of 16. */
const READ_PADDING_BYTES = 6

const EAGAIN = 11
const EINTR = 4
const EBADFD = 77

export class TunDevice implements Device {
  readonly name: string
  readonly backend: BackendName
  readonly mtuBytes: number
  readonly offloads: DeviceOffloads
  readonly #kernel: Kernel
  readonly #fd: number
  readonly #memory: PacketMemory
  readonly #hasVnetHeader: boolean
  /** Where a read begins: at the virtio_net_hdr, if there is one. */
  readonly #readAt: number
  readonly #writeHeaderAt: number
  readonly #vectorsAt: number
  #events: DeviceEvents | undefined
  #poller: UvPoller | undefined
  #isOpen = true

  constructor(kernel: Kernel, tun: OpenedTun, memory: PacketMemory, mtuBytes: number) {
    this.name = tun.name
    this.backend = tun.hasVnetHeader ? 'offload' : 'plain'
    this.mtuBytes = mtuBytes
    this.offloads = tun.offloads
    this.#kernel = kernel
    this.#fd = tun.fd
    this.#memory = memory
    this.#hasVnetHeader = tun.hasVnetHeader
    const readBytes = READ_PADDING_BYTES + VNET_HEADER_BYTES + maxFrameBytes + 1
    this.#readAt = memory.allocate(readBytes) + READ_PADDING_BYTES
    this.#writeHeaderAt = memory.allocate(VNET_HEADER_BYTES)
    this.#vectorsAt = memory.allocate(IOVEC_BYTES * (maxPieces + 1))
    // Vector 0 is always the virtio_net_hdr; the upper halves of lengths are always zero.
    this.#putVector(0, this.#writeHeaderAt, VNET_HEADER_BYTES)
  }

  read(frame: Frame): boolean {
    if (!this.#isOpen) return false
    const at = this.#readAt
    const { view, bytes, address } = this.#memory
    const length = this.#kernel.read(this.#fd, address + at, VNET_HEADER_BYTES + maxFrameBytes)
    if (length < 0) {
      this.#onReadError(this.#kernel.errno())
      return false
    }
    if (!this.#hasVnetHeader) {
      frame.setPacket(at, length)
      return length > 0
    }
    if (length <= VNET_HEADER_BYTES) return false
    frame.setPacket(at + VNET_HEADER_BYTES, length - VNET_HEADER_BYTES)
    frame.needsChecksum = ((bytes[at] ?? 0) & FLAG_NEEDS_CHECKSUM) !== 0
    frame.gsoType = (bytes[at + 1] ?? 0) & ~GSO_ECN
    frame.headerBytes = view.getUint16(at + HEADER_LENGTH_AT, true)
    frame.segmentBytes = view.getUint16(at + SEGMENT_BYTES_AT, true)
    frame.checksumStart = view.getUint16(at + CHECKSUM_START_AT, true)
    frame.checksumOffset = view.getUint16(at + CHECKSUM_OFFSET_AT, true)
    return true
  }

  write(frame: Frame): boolean {
    if (!this.#isOpen) return false
    const { address } = this.#memory
    const { pieceAt, pieceBytes, pieceCount } = frame
    if (!this.#hasVnetHeader) {
      const at = pieceAt[0] ?? 0
      return this.#kernel.write(this.#fd, address + at, pieceBytes[0] ?? 0) >= 0
    }
    this.#putHeader(frame)
    for (let i = 0; i < pieceCount; i++) {
      this.#putVector(i + 1, pieceAt[i] ?? 0, pieceBytes[i] ?? 0)
    }
    return this.#kernel.writev(this.#fd, address + this.#vectorsAt, pieceCount + 1) >= 0
  }

  start(events: DeviceEvents): void {
    if (!this.#isOpen || this.#poller !== undefined) return
    this.#events = events
    this.#poller = new UvPoller(this.#kernel, this.#fd, {
      onReadable: () => events.onReadable(),
      // A TUN descriptor reports an error only when its interface is unregistered.
      onError: reason => this.#lose(`it was deleted (${reason})`),
    })
  }

  stop(): void {
    if (!this.#isOpen) return
    this.#isOpen = false
    this.#poller?.close()
    this.#kernel.close(this.#fd)
  }

  #onReadError(errno: number): void {
    if (errno === EAGAIN || errno === EINTR) return
    this.#lose(errno === EBADFD ? 'it was deleted' : errnoName(errno))
  }

  #lose(reason: string): void {
    if (!this.#isOpen) return
    this.stop()
    this.#events?.onLost(`the interface ${this.name} is gone: ${reason}`)
  }

  #putHeader(frame: Frame): void {
    const at = this.#writeHeaderAt
    const { view, bytes } = this.#memory
    bytes[at] = frame.needsChecksum ? FLAG_NEEDS_CHECKSUM : 0
    bytes[at + 1] = frame.gsoType
    view.setUint16(at + HEADER_LENGTH_AT, frame.headerBytes, true)
    view.setUint16(at + SEGMENT_BYTES_AT, frame.segmentBytes, true)
    view.setUint16(at + CHECKSUM_START_AT, frame.checksumStart, true)
    view.setUint16(at + CHECKSUM_OFFSET_AT, frame.checksumOffset, true)
  }

  #putVector(index: number, pieceAt: number, lengthBytes: number): void {
    const at = this.#vectorsAt + IOVEC_BYTES * index
    const { view, address } = this.#memory
    const native = address + pieceAt
    view.setUint32(at, native, true)
    view.setUint32(at + 4, Math.floor(native / TWO_TO_32), true)
    view.setUint32(at + 8, lengthBytes, true)
  }
}
