/**
 * Packets that came too early wait here for those before them (RFC 2637 §4.3): a bounded window of
 * one call, over slots that all calls share.
 */
import { serialDistance32 } from '../core/serial.ts'
import type { PinnedMemory, SlotPool } from '../dataplane/dataplane.ts'

/** Implementation constant: packets ahead of the one that is missing; a power of two. */
export const REORDER_PACKETS = 32

const empty = -1

export class ReorderBuffer {
  readonly #memory: PinnedMemory
  readonly #slots: SlotPool
  /** By sequence number modulo the window; made when a packet is first early. */
  #slotAt: Int32Array | undefined
  #lengthBytes: Int32Array | undefined
  #count = 0

  constructor(memory: PinnedMemory, slots: SlotPool) {
    this.#memory = memory
    this.#slots = slots
  }

  get count(): number {
    return this.#count
  }

  /** Keeps a copy. False: no room, or it is kept already. */
  keep(sequence: number, at: number, lengthBytes: number): boolean {
    this.#slotAt ??= new Int32Array(REORDER_PACKETS).fill(empty)
    this.#lengthBytes ??= new Int32Array(REORDER_PACKETS)
    const index = sequence & (REORDER_PACKETS - 1)
    if (this.#slotAt[index] !== empty || lengthBytes > this.#slots.slotBytes) return false
    const slot = this.#slots.take()
    if (slot < 0) return false
    this.#memory.copy(slot, at, lengthBytes)
    this.#slotAt[index] = slot
    this.#lengthBytes[index] = lengthBytes
    this.#count++
    return true
  }

  has(sequence: number): boolean {
    return this.#count > 0 && this.#slotAt?.[sequence & (REORDER_PACKETS - 1)] !== empty
  }

  lengthOf(sequence: number): number {
    return this.#lengthBytes?.[sequence & (REORDER_PACKETS - 1)] ?? 0
  }

  /** Copies the packet to `to` and forgets it. Only when `has`. */
  take(sequence: number, to: number): void {
    const index = sequence & (REORDER_PACKETS - 1)
    const slot = this.#slotAt?.[index] ?? empty
    if (this.#slotAt === undefined || slot === empty) return
    this.#memory.copy(to, slot, this.lengthOf(sequence))
    this.#slots.give(slot)
    this.#slotAt[index] = empty
    this.#count--
  }

  /** How many packets are missing before the first that is kept, from `expected` on. Only when `count` > 0. */
  gap(expected: number): number {
    let missing = 0
    while (missing < REORDER_PACKETS && !this.has((expected + missing) >>> 0)) missing++
    return missing
  }

  clear(): void {
    if (this.#slotAt === undefined) return
    for (let i = 0; i < REORDER_PACKETS; i++) {
      const slot = this.#slotAt[i] ?? empty
      if (slot !== empty) this.#slots.give(slot)
      this.#slotAt[i] = empty
    }
    this.#count = 0
  }
}

/** Whether `sequence` lies in the window that begins at `expected`. */
export function isInWindow(expected: number, sequence: number): boolean {
  const distance = serialDistance32(expected, sequence)
  return distance >= 0 && distance < REORDER_PACKETS
}
