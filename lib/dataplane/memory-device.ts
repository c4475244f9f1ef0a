/**
 * A device of arrays: what the host sends is put in with `fromHost`, what the host would get is
 * found in `toHost`. Tests and simulations need neither root nor a kernel.
 */
import type { BackendName } from './dataplane.ts'
import { type Device, type DeviceEvents, type DeviceOffloads, noOffloads } from './device.ts'
import { type Frame, Gso, maxFrameBytes } from './frame.ts'
import type { PacketMemory } from './pinned-memory.ts'

/** What a virtio_net_hdr would say of a packet. */
export interface FrameMetadata {
  /** One of `Gso`. */
  readonly gsoType: number
  readonly segmentBytes: number
  readonly needsChecksum: boolean
  readonly checksumStart: number
  readonly checksumOffset: number
}

export interface MemoryDeviceOptions {
  readonly mtuBytes: number
  readonly offloads?: DeviceOffloads
  /** Runs `action` later, when a burst left packets behind. */
  schedule?(action: () => void): void
}

interface QueuedPacket {
  readonly packet: Uint8Array
  readonly metadata: FrameMetadata | undefined
}

export class MemoryDevice implements Device {
  readonly name = 'memory'
  readonly backend: BackendName = 'memory'
  readonly mtuBytes: number
  readonly offloads: DeviceOffloads
  /** What sessions sent, in order; the test empties it. */
  readonly toHost: Uint8Array[] = []
  /** The metadata of each of `toHost`. */
  readonly toHostMetadata: FrameMetadata[] = []
  /** Makes `write` fail, as a kernel without memory would. */
  isRefusing = false
  readonly #memory: PacketMemory
  readonly #schedule: (action: () => void) => void
  readonly #readAt: number
  readonly #queue: QueuedPacket[] = []
  #events: DeviceEvents | undefined
  #isReading = false
  #isScheduled = false

  constructor(memory: PacketMemory, options: MemoryDeviceOptions) {
    this.mtuBytes = options.mtuBytes
    this.offloads = options.offloads ?? noOffloads
    this.#memory = memory
    this.#schedule = options.schedule ?? (action => setImmediate(action))
    this.#readAt = memory.allocate(maxFrameBytes + 1)
  }

  /** A packet of the host for a session. Handled before this returns, if the device was started. */
  fromHost(packet: Uint8Array, metadata?: FrameMetadata): void {
    this.#queue.push({ packet, metadata })
    if (!this.#isScheduled) this.#wake()
  }

  /** Several packets that wait together, so that one burst takes as many as it may. */
  burstFromHost(packets: readonly Uint8Array[]): void {
    for (const packet of packets) this.#queue.push({ packet, metadata: undefined })
    if (!this.#isScheduled) this.#wake()
  }

  /** Packets that were not read yet. */
  get waitingCount(): number {
    return this.#queue.length
  }

  /** As if somebody deleted the interface. */
  lose(reason: string): void {
    const events = this.#events
    this.stop()
    events?.onLost(reason)
  }

  read(frame: Frame): boolean {
    const next = this.#queue.shift()
    if (next === undefined) return false
    const { packet, metadata } = next
    this.#memory.bytes.set(packet, this.#readAt)
    frame.setPacket(this.#readAt, packet.length)
    if (metadata !== undefined) {
      frame.gsoType = metadata.gsoType
      frame.segmentBytes = metadata.segmentBytes
      frame.needsChecksum = metadata.needsChecksum
      frame.checksumStart = metadata.checksumStart
      frame.checksumOffset = metadata.checksumOffset
    }
    return true
  }

  write(frame: Frame): boolean {
    if (this.isRefusing) return false
    const packet = new Uint8Array(frame.lengthBytes)
    let end = 0
    for (let i = 0; i < frame.pieceCount; i++) {
      const at = frame.pieceAt[i] ?? 0
      const length = frame.pieceBytes[i] ?? 0
      packet.set(this.#memory.bytes.subarray(at, at + length), end)
      end += length
    }
    this.toHost.push(packet)
    this.toHostMetadata.push({
      gsoType: frame.gsoType,
      segmentBytes: frame.segmentBytes,
      needsChecksum: frame.needsChecksum,
      checksumStart: frame.checksumStart,
      checksumOffset: frame.checksumOffset,
    })
    return true
  }

  start(events: DeviceEvents): void {
    this.#events = events
    if (this.#queue.length > 0) this.#wake()
  }

  stop(): void {
    this.#events = undefined
    this.#queue.length = 0
  }

  #wake(): void {
    if (this.#events === undefined || this.#isReading) return
    this.#isReading = true
    try {
      this.#events.onReadable()
    } finally {
      this.#isReading = false
    }
    if (this.#queue.length > 0 && this.#events !== undefined) {
      this.#isScheduled = true
      this.#schedule(() => {
        this.#isScheduled = false
        this.#wake()
      })
    }
  }
}

/** Metadata of an ordinary packet. */
export const plainMetadata: FrameMetadata = {
  gsoType: Gso.none,
  segmentBytes: 0,
  needsChecksum: false,
  checksumStart: 0,
  checksumOffset: 0,
}
