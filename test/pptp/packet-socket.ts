/** Raw sockets of two machines that are joined by arrays, with loss and order under control. */
import { copyBytes } from '../../lib/core/bytes.ts'
import type { PinnedMemory } from '../../lib/dataplane/dataplane.ts'
import {
  type PacketSocket,
  RAW_SLOT_BYTES,
  type RawSocketEvents,
  StackSlotPool,
} from '../../lib/dataplane/index.ts'

export interface Sent {
  readonly bytes: Uint8Array
  readonly source: number
  readonly destination: number
}

const sendSlots = 128

export class FakePacketSocket implements PacketSocket {
  readonly sent: Sent[] = []
  readonly #memory: PinnedMemory
  readonly #pool: StackSlotPool
  readonly #firstAt: number
  readonly #receiveAt: number
  #committed: Sent[] = []
  #events: RawSocketEvents | undefined
  isClosed = false
  /** Called when packets have left. */
  onSent: () => void = () => {}

  constructor(memory: PinnedMemory) {
    this.#memory = memory
    this.#pool = new StackSlotPool(memory, RAW_SLOT_BYTES, sendSlots)
    this.#firstAt = this.#pool.take()
    this.#pool.give(this.#firstAt)
    this.#receiveAt = memory.allocate(RAW_SLOT_BYTES)
  }

  get counters(): Readonly<Record<string, number>> {
    return { freeSlots: this.#pool.freeCount }
  }

  get isWhole(): boolean {
    return this.#pool.freeCount === sendSlots
  }

  reserve(): number {
    return this.#pool.take()
  }

  release(at: number): void {
    this.#pool.give(this.#slotOf(at))
  }

  commit(at: number, lengthBytes: number, source: number, destination: number): void {
    const bytes = copyBytes(this.#memory.bytes, at, at + lengthBytes)
    this.#committed.push({ bytes, source, destination })
    this.#pool.give(this.#slotOf(at))
  }

  flush(): void {
    this.sent.push(...this.#committed.splice(0))
    this.onSent()
  }

  start(events: RawSocketEvents): void {
    this.#events = events
  }

  close(): void {
    this.isClosed = true
  }

  /** One wake-up with these packets; their place is overwritten afterwards. */
  receive(packets: readonly Uint8Array[], source: number, destination = 0): void {
    for (const packet of packets) {
      this.#memory.bytes.set(packet, this.#receiveAt)
      this.#events?.onPacket(this.#receiveAt, packet.length, source, destination)
      this.#memory.bytes.fill(0xa5, this.#receiveAt, this.#receiveAt + RAW_SLOT_BYTES)
    }
    this.#events?.onBurstEnd()
  }

  #slotOf(at: number): number {
    return at - ((at - this.#firstAt) % RAW_SLOT_BYTES)
  }
}

/** What one sends, the other receives in the next turn of the event loop. */
export function join(a: FakePacketSocket, b: FakePacketSocket): void {
  for (const [from, to] of [
    [a, b],
    [b, a],
  ] as const) {
    from.onSent = () => {
      setImmediate(() => {
        for (const { bytes, source, destination } of from.sent.splice(0)) {
          to.receive([bytes], source, destination)
        }
      })
    }
  }
}
