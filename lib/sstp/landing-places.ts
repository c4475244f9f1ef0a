/**
 * Places in packet memory where the records of busy calls land, so that nobody copies them there. A
 * call holds one place, for its next record, and is given another as each record comes; what landed
 * stays where it is until the burst ends. There are few places: who gets none lands elsewhere.
 */
import type { Dataplane } from '../dataplane/dataplane.ts'
import { MAX_FRAME_BYTES } from './wire/frame.ts'

/** RFC 8446 §5.1: no record carries more. */
export const MAX_RECORD_BYTES = 16_384
/** Room before each place, for the start of a frame whose end lands there. */
const ROOM_BEFORE_BYTES = MAX_FRAME_BYTES + 1
/** As much as libuv reads from a socket at once, 2 MiB. */
const PLACES = 128

export class LandingPlaces {
  readonly #dataplane: Dataplane
  readonly #maxHeld: number
  /** The place that was used last is the first to be taken: it may still be in a cache. */
  readonly #free: Uint8Array[] = []
  /** What landed here may be in use until the burst ends. */
  readonly #landed: Uint8Array[] = []
  #landedBurst = 0
  #heldCount = 0

  /** Takes packet memory for good. */
  constructor(dataplane: Dataplane, placeCount = PLACES) {
    this.#dataplane = dataplane
    // The other half is for what lands: calls that fall silent with a place cannot hold them all.
    this.#maxHeld = placeCount >>> 1
    const { memory } = dataplane
    const stepBytes = ROOM_BEFORE_BYTES + MAX_RECORD_BYTES
    const firstAt = memory.allocate(placeCount * stepBytes) + ROOM_BEFORE_BYTES
    for (let i = placeCount - 1; i >= 0; i--) {
      const at = firstAt + i * stepBytes
      this.#free.push(memory.bytes.subarray(at, at + MAX_RECORD_BYTES))
    }
  }

  /** Places that calls hold. */
  get heldCount(): number {
    return this.#heldCount
  }

  /** A place to hold, with room before it, or undefined. */
  take(): Uint8Array | undefined {
    this.#reclaim()
    if (this.#heldCount === this.#maxHeld) return undefined
    const place = this.#free.pop()
    if (place !== undefined) this.#heldCount++
    return place
  }

  /** Gives a place back. What landed in it in this burst stays until the burst ends. */
  give(place: Uint8Array): void {
    this.#reclaim()
    this.#heldCount--
    this.#landed.push(place)
  }

  #reclaim(): void {
    const { endedBursts } = this.#dataplane
    if (endedBursts === this.#landedBurst) return
    this.#landedBurst = endedBursts
    for (let place = this.#landed.pop(); place !== undefined; place = this.#landed.pop()) {
      this.#free.push(place)
    }
  }
}
