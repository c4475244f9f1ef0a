/** The few members of a dataplane that a stream tunnel needs, over plain memory. */
import type {
  Dataplane,
  DataplaneStatus,
  PinnedMemory,
  Port,
  SlotPool,
} from '../../lib/dataplane/dataplane.ts'

/** 16 KiB of frames behind the headroom of a packer. */
const SLOT_BYTES = 18 * 1024
/** For the landing places of a listener and a dialler. */
export const landingBytes: number = 6 * 1024 * 1024

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

/** Every intake is a burst of its own and overwrites the one before, so that nobody keeps what is not theirs. */
export class StreamDataplane implements Dataplane {
  readonly memory: PinnedMemory
  readonly streamSlots: SlotStack
  readonly mtuBytes = 1400
  readonly maxIntakeBytes: number
  endedBursts = 0

  constructor({ slots = 64, maxIntakeBytes = 128 * 1024, allocatableBytes = 0 } = {}) {
    this.maxIntakeBytes = maxIntakeBytes
    let usedBytes = maxIntakeBytes + slots * SLOT_BYTES
    const bytes = new Uint8Array(usedBytes + allocatableBytes)
    this.memory = {
      bytes,
      view: new DataView(bytes.buffer),
      address: 0,
      allocate: lengthBytes => {
        const at = usedBytes
        usedBytes += lengthBytes
        if (usedBytes > bytes.length) throw new Error('no memory left')
        return at
      },
      copy: (to, from, length) => bytes.copyWithin(to, from, from + length),
      checksum: () => unused(),
    }
    this.streamSlots = new SlotStack(maxIntakeBytes, slots)
  }

  intake(lengthBytes: number): number {
    if (lengthBytes > this.maxIntakeBytes) throw new Error(`intake of ${lengthBytes} bytes`)
    this.flush()
    this.memory.bytes.fill(0xa5, 0, this.maxIntakeBytes)
    return 0
  }

  flush(): void {
    this.endedBursts++
  }

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
