/**
 * Writes the packets of a device to a capture file that Wireshark and tcpdump read
 * (draft-ietf-opsawg-pcap, LINKTYPE_RAW: packets begin with the IP header). A super-packet is one
 * record. The file is bounded; the tap wraps the device only while a capture runs.
 */
import { closeSync, openSync, writeSync } from 'node:fs'
import type { WallClock } from '../core/clock.ts'
import { messageOf, SystemError } from '../core/errors.ts'
import type { BackendName } from './dataplane.ts'
import type { Device, DeviceEvents, DeviceOffloads } from './device.ts'
import { type Frame, maxFrameBytes } from './frame.ts'
import type { PacketMemory } from './pinned-memory.ts'

// Specification constants: draft-ietf-opsawg-pcap §4, §5.
const MAGIC_MICROSECONDS = 0xa1b2c3d4
const VERSION_MAJOR = 2
const VERSION_MINOR = 4
const LINKTYPE_RAW = 101
const FILE_HEADER_BYTES = 24
const RECORD_HEADER_BYTES = 16

/** Records are written to the file in blocks of this size. */
const BLOCK_BYTES = 262_144

export interface CaptureLimits {
  /** The capture ends by itself before the file grows past this. */
  readonly maxBytes: number
  /** Bytes of each packet that are kept; all by default. */
  readonly snapBytes?: number
}

export interface CaptureOptions extends CaptureLimits {
  /** A new file, readable by its owner only: it holds users' traffic. */
  readonly path: string
}

/** A file that somebody else opened; it is closed with the capture. */
export interface OpenCaptureOptions extends CaptureLimits {
  readonly fd: number
}

/** Builds the file; knows nothing of devices. */
export class PcapFile {
  readonly #fd: number
  readonly #maxBytes: number
  readonly #snapBytes: number
  readonly #wallClock: WallClock
  readonly #block = new Uint8Array(BLOCK_BYTES)
  readonly #view = new DataView(this.#block.buffer)
  #blockBytes = 0
  #fileBytes = 0
  #isOpen = true

  /** Throws SystemError when the file cannot be made. */
  constructor(options: CaptureOptions | OpenCaptureOptions, wallClock: WallClock) {
    this.#fd = 'fd' in options ? options.fd : createFile(options.path)
    this.#maxBytes = options.maxBytes
    this.#snapBytes = Math.min(options.snapBytes ?? maxFrameBytes, maxFrameBytes)
    this.#wallClock = wallClock
    this.#view.setUint32(0, MAGIC_MICROSECONDS, true)
    this.#view.setUint16(4, VERSION_MAJOR, true)
    this.#view.setUint16(6, VERSION_MINOR, true)
    this.#view.setUint32(16, this.#snapBytes, true)
    this.#view.setUint32(20, LINKTYPE_RAW, true)
    this.#blockBytes = FILE_HEADER_BYTES
    this.#fileBytes = FILE_HEADER_BYTES
  }

  /** False once the file is full, closed or broken: nothing more will be written. */
  get isOpen(): boolean {
    return this.#isOpen
  }

  record(memory: PacketMemory, frame: Frame): void {
    if (!this.#isOpen) return
    const kept = Math.min(frame.lengthBytes, this.#snapBytes)
    const recordBytes = RECORD_HEADER_BYTES + kept
    if (this.#fileBytes + recordBytes > this.#maxBytes) {
      this.close()
      return
    }
    if (this.#blockBytes + recordBytes > BLOCK_BYTES) this.#writeBlock()
    if (!this.isOpen) return
    const nowMs = this.#wallClock.now().getTime()
    const at = this.#blockBytes
    this.#view.setUint32(at, Math.floor(nowMs / 1000), true)
    this.#view.setUint32(at + 4, Math.floor(nowMs % 1000) * 1000, true)
    this.#view.setUint32(at + 8, kept, true)
    this.#view.setUint32(at + 12, frame.lengthBytes, true)
    let left = kept
    let end = at + RECORD_HEADER_BYTES
    for (let i = 0; i < frame.pieceCount && left > 0; i++) {
      const from = frame.pieceAt[i] ?? 0
      const length = Math.min(left, frame.pieceBytes[i] ?? 0)
      this.#block.set(memory.bytes.subarray(from, from + length), end)
      end += length
      left -= length
    }
    this.#blockBytes += recordBytes
    this.#fileBytes += recordBytes
  }

  close(): void {
    if (!this.#isOpen) return
    this.#writeBlock()
    this.#end()
  }

  #writeBlock(): void {
    try {
      let done = 0
      while (done < this.#blockBytes) {
        done += writeSync(this.#fd, this.#block, done, this.#blockBytes - done)
      }
    } catch {
      // A full disk ends the capture, not the traffic.
      this.#end()
    }
    this.#blockBytes = 0
  }

  #end(): void {
    if (!this.#isOpen) return
    this.#isOpen = false
    closeSync(this.#fd)
  }
}

function createFile(path: string): number {
  try {
    return openSync(path, 'wx', 0o600)
  } catch (thrown) {
    throw new SystemError(`cannot make the capture file: ${messageOf(thrown)}`, { cause: thrown })
  }
}

/** Records what passes between the dataplane and `inner`. */
export class PcapTap implements Device {
  readonly name: string
  readonly backend: BackendName
  readonly mtuBytes: number
  readonly offloads: DeviceOffloads
  readonly #inner: Device
  readonly #memory: PacketMemory
  readonly #file: PcapFile

  constructor(inner: Device, memory: PacketMemory, file: PcapFile) {
    this.name = inner.name
    this.backend = inner.backend
    this.mtuBytes = inner.mtuBytes
    this.offloads = inner.offloads
    this.#inner = inner
    this.#memory = memory
    this.#file = file
  }

  read(frame: Frame): boolean {
    const isRead = this.#inner.read(frame)
    if (isRead) this.#file.record(this.#memory, frame)
    return isRead
  }

  write(frame: Frame): boolean {
    this.#file.record(this.#memory, frame)
    return this.#inner.write(frame)
  }

  start(events: DeviceEvents): void {
    this.#inner.start(events)
  }

  stop(): void {
    this.#inner.stop()
    this.#file.close()
  }

  /** Ends the capture; the device goes on. */
  close(): void {
    this.#file.close()
  }
}
