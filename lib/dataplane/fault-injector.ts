/**
 * A device whose packets get lost, doubled, swapped and spoilt, repeatably. Wraps any device; frames
 * suffer whole, so one loss may be a whole super-packet.
 */
import type { RandomSource } from '../core/random.ts'
import type { BackendName } from './dataplane.ts'
import type { Device, DeviceEvents, DeviceOffloads } from './device.ts'
import { Frame, maxFrameBytes } from './frame.ts'
import type { PacketMemory } from './pinned-memory.ts'

/** Chances out of 65,536, for each frame and direction. */
export interface FaultChances {
  readonly drop: number
  readonly duplicate: number
  readonly reorder: number
  readonly corrupt: number
}

export interface InjectedFaults {
  dropped: number
  duplicated: number
  reordered: number
  corrupted: number
}

export class FaultInjector implements Device {
  readonly name: string
  readonly backend: BackendName
  readonly mtuBytes: number
  readonly offloads: DeviceOffloads
  readonly injected: InjectedFaults = { dropped: 0, duplicated: 0, reordered: 0, corrupted: 0 }
  readonly #inner: Device
  readonly #memory: PacketMemory
  readonly #chances: FaultChances
  readonly #random: RandomSource
  readonly #dice = new Uint8Array(2)
  readonly #heldRead: HeldFrame
  readonly #heldWrite: HeldFrame

  constructor(inner: Device, memory: PacketMemory, chances: FaultChances, random: RandomSource) {
    this.name = inner.name
    this.backend = inner.backend
    this.mtuBytes = inner.mtuBytes
    this.offloads = inner.offloads
    this.#inner = inner
    this.#memory = memory
    this.#chances = chances
    this.#random = random
    this.#heldRead = new HeldFrame(memory)
    this.#heldWrite = new HeldFrame(memory)
  }

  read(frame: Frame): boolean {
    if (this.#heldRead.isDue) {
      this.#heldRead.release(frame)
      return true
    }
    for (;;) {
      if (!this.#inner.read(frame)) {
        if (!this.#heldRead.isFull) return false
        this.#heldRead.release(frame)
        return true
      }
      if (this.#happens(this.#chances.drop)) {
        this.injected.dropped++
        continue
      }
      this.#maybeCorrupt(frame)
      if (this.#heldRead.isFull) {
        this.#heldRead.isDue = true
        return true
      }
      if (this.#happens(this.#chances.duplicate)) {
        this.injected.duplicated++
        this.#heldRead.keep(frame)
        this.#heldRead.isDue = true
        return true
      }
      if (!this.#happens(this.#chances.reorder)) return true
      this.injected.reordered++
      this.#heldRead.keep(frame)
    }
  }

  write(frame: Frame): boolean {
    if (this.#happens(this.#chances.drop)) {
      this.injected.dropped++
      return true
    }
    this.#maybeCorrupt(frame)
    if (this.#heldWrite.isFull) {
      const isWritten = this.#inner.write(frame)
      this.#heldWrite.release(frame)
      return this.#inner.write(frame) && isWritten
    }
    if (this.#happens(this.#chances.reorder)) {
      this.injected.reordered++
      this.#heldWrite.keep(frame)
      return true
    }
    if (this.#happens(this.#chances.duplicate)) {
      this.injected.duplicated++
      this.#inner.write(frame)
    }
    return this.#inner.write(frame)
  }

  start(events: DeviceEvents): void {
    this.#inner.start(events)
  }

  stop(): void {
    this.#inner.stop()
  }

  #happens(chance: number): boolean {
    if (chance === 0) return false
    this.#random.fill(this.#dice)
    return ((this.#dice[0] ?? 0) << 8) + (this.#dice[1] ?? 0) < chance
  }

  /** Flips one bit somewhere in the first piece. */
  #maybeCorrupt(frame: Frame): void {
    if (!this.#happens(this.#chances.corrupt)) return
    this.injected.corrupted++
    this.#random.fill(this.#dice)
    const index = ((this.#dice[0] ?? 0) << 8) + (this.#dice[1] ?? 0)
    const at = (frame.pieceAt[0] ?? 0) + (index % (frame.pieceBytes[0] ?? 1))
    const { bytes } = this.#memory
    bytes[at] = (bytes[at] ?? 0) ^ (1 << (index & 7))
  }
}

/** A frame kept for later, in memory of its own. */
class HeldFrame {
  isFull = false
  /** To be released before anything else is read. */
  isDue = false
  readonly #memory: PacketMemory
  readonly #at: number
  readonly #frame = new Frame()

  constructor(memory: PacketMemory) {
    this.#memory = memory
    this.#at = memory.allocate(maxFrameBytes + 1)
  }

  keep(frame: Frame): void {
    let end = this.#at
    for (let i = 0; i < frame.pieceCount; i++) {
      this.#memory.copy(end, frame.pieceAt[i] ?? 0, frame.pieceBytes[i] ?? 0)
      end += frame.pieceBytes[i] ?? 0
    }
    this.#frame.setPacket(this.#at, frame.lengthBytes)
    this.#frame.setMetadata(frame)
    this.isFull = true
    this.isDue = false
  }

  release(into: Frame): void {
    into.takeFrom(this.#frame)
    this.isFull = false
    this.isDue = false
  }
}
