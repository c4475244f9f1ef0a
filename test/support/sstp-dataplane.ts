/** The few members of a dataplane that a stream tunnel needs, over plain memory. */
import type {
  Dataplane,
  DataplaneStatus,
  PinnedMemory,
  Port,
  SlotPool,
} from '../../lib/dataplane/dataplane.ts'

const SLOT_BYTES = 16 * 1024

export class SlotStack implements SlotPool {
  readonly slotBytes = SLOT_BYTES
  readonly totalCount: number
  readonly #free: number[] = []
  readonly #isFree = new Set<number>()

  constructor(firstAt: number, count: number) {
    this.totalCount = count
    for (let i = 0; i < count; i++) this.give(firstAt + i * SLOT_BYTES)
  }

  get freeCount(): number {
    return this.#free.length
  }

  take(): number {
    const at = this.#free.pop() ?? -1
    this.#isFree.delete(at)
    return at
  }

  give(at: number): void {
    if (this.#isFree.has(at)) throw new Error(`slot at ${at} given back twice`)
    this.#isFree.add(at)
    this.#free.push(at)
  }
}

/** Overwrites every intake as soon as the next one comes, so that nobody keeps what is not theirs. */
export class StreamDataplane implements Dataplane {
  readonly memory: PinnedMemory
  readonly streamSlots: SlotStack
  readonly mtuBytes = 1400
  readonly maxIntakeBytes: number

  constructor({ slots = 64, maxIntakeBytes = 128 * 1024 } = {}) {
    this.maxIntakeBytes = maxIntakeBytes
    const bytes = new Uint8Array(maxIntakeBytes + slots * SLOT_BYTES)
    this.memory = {
      bytes,
      view: new DataView(bytes.buffer),
      address: 0,
      allocate: () => unused(),
      copy: (to, from, length) => bytes.copyWithin(to, from, from + length),
      checksum: () => unused(),
    }
    this.streamSlots = new SlotStack(maxIntakeBytes, slots)
  }

  intake(lengthBytes: number): number {
    if (lengthBytes > this.maxIntakeBytes) throw new Error(`intake of ${lengthBytes} bytes`)
    this.memory.bytes.fill(0xa5, 0, this.maxIntakeBytes)
    return 0
  }

  flush(): void {}

  attach(): Port {
    return unused()
  }

  capture(): { stop(): void } {
    return unused()
  }

  start(): void {}

  stop(): void {}

  status(): DataplaneStatus {
    return { backend: 'memory', offloads: [], tunName: '', mtuBytes: this.mtuBytes, counters: {} }
  }
}

function unused(): never {
  throw new Error('a stream tunnel does not need this')
}
