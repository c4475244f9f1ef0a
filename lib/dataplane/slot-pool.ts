/** Equal buffers inside the packet memory, handed out from a stack of free offsets. */
import { InvariantError } from '../core/errors.ts'
import type { PinnedMemory, SlotPool } from './dataplane.ts'

export class StackSlotPool implements SlotPool {
  readonly slotBytes: number
  readonly totalCount: number
  readonly #firstAt: number
  readonly #free: Int32Array
  /** One byte a slot: 1 while it is taken. Giving a slot back twice would hand it to two tunnels. */
  readonly #isTaken: Uint8Array
  #freeCount: number

  constructor(memory: PinnedMemory, slotBytes: number, count: number) {
    this.slotBytes = slotBytes
    this.totalCount = count
    this.#firstAt = memory.allocate(slotBytes * count)
    this.#free = new Int32Array(count)
    this.#isTaken = new Uint8Array(count)
    this.#freeCount = count
    // The lowest offset is on top: a server with few sessions touches few pages.
    for (let i = 0; i < count; i++) this.#free[i] = this.#firstAt + (count - 1 - i) * slotBytes
  }

  get freeCount(): number {
    return this.#freeCount
  }

  take(): number {
    if (this.#freeCount === 0) return -1
    this.#freeCount--
    const at = this.#free[this.#freeCount] ?? -1
    this.#isTaken[(at - this.#firstAt) / this.slotBytes] = 1
    return at
  }

  give(at: number): void {
    const index = (at - this.#firstAt) / this.slotBytes
    if (this.#isTaken[index] !== 1) throw new InvariantError(`slot ${at} was not taken`)
    this.#isTaken[index] = 0
    this.#free[this.#freeCount] = at
    this.#freeCount++
  }
}
