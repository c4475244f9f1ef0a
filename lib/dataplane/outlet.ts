/** A session's sink with its counters: every packet to a client leaves through here. */
import { noRoom, type PacketSink } from '../core/packet-sink.ts'
import type { PacketMemory } from './pinned-memory.ts'
import { Count, type Tally } from './tally.ts'

const sentPackets = Count['sent-packets']
const sentBytes = Count['sent-bytes']
const dropNoRoom = Count['drop-no-room']

/** The sink of a session that is gone. */
const closedSink: PacketSink = {
  mtuBytes: 65_535,
  reserve: () => noRoom,
  commit: () => {},
  flush: () => {},
}

/** Outlets that hold committed packets until the burst ends. */
export class DirtyOutlets {
  readonly #outlets: Outlet[] = []

  add(outlet: Outlet): void {
    this.#outlets.push(outlet)
  }

  /** Lets every sink send; what a sink commits meanwhile goes out as well. */
  flush(): void {
    for (let next = this.#outlets.pop(); next !== undefined; next = this.#outlets.pop()) {
      next.isDirty = false
      next.sink.flush()
    }
  }
}

export class Outlet {
  readonly tally: Tally
  /** Has committed packets that were not flushed. */
  isDirty = false
  readonly #memory: PacketMemory
  readonly #dirty: DirtyOutlets
  #sink: PacketSink

  constructor(sink: PacketSink, tally: Tally, memory: PacketMemory, dirty: DirtyOutlets) {
    this.#sink = sink
    this.tally = tally
    this.#memory = memory
    this.#dirty = dirty
  }

  get sink(): PacketSink {
    return this.#sink
  }

  get mtuBytes(): number {
    return this.#sink.mtuBytes
  }

  /** Forgets the sink: from now on there is no room. */
  close(): void {
    this.#sink = closedSink
  }

  /** Where a packet shall be written, or `noRoom`; then nothing was counted. */
  reserve(lengthBytes: number): number {
    return this.#sink.reserve(lengthBytes)
  }

  commit(at: number, lengthBytes: number): void {
    this.#sink.commit(at, lengthBytes)
    if (!this.isDirty) {
      this.isDirty = true
      this.#dirty.add(this)
    }
    this.tally.count(sentPackets, 1)
    this.tally.count(sentBytes, lengthBytes)
  }

  /** Copies the packet at `at` to the sink. False when it had no room: the drop is counted. */
  send(at: number, lengthBytes: number): boolean {
    const to = this.#sink.reserve(lengthBytes)
    if (to === noRoom) {
      this.dropNoRoom(1)
      return false
    }
    this.#memory.copy(to, at, lengthBytes)
    this.commit(to, lengthBytes)
    return true
  }

  dropNoRoom(packets: number): void {
    this.tally.drop(dropNoRoom, packets)
  }
}
