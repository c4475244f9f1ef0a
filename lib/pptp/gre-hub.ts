/**
 * All calls over one raw socket: a packet belongs to the call whose id it has, if it comes from the
 * address of that call's control connection. Everything else is counted and dropped.
 */
import { u16 } from '../core/bytes.ts'
import { FaultCounters } from '../core/faults.ts'
import type { RandomSource } from '../core/random.ts'
import type { Dataplane, SlotPool } from '../dataplane/dataplane.ts'
import { type PacketSocket, StackSlotPool } from '../dataplane/index.ts'
import type { GreCall } from './gre-call.ts'
import { WaitingRoom } from './waiting-packets.ts'
import { checkGre, greCallId } from './wire/gre.ts'

/** IP protocol number (IANA). */
export const GRE_PROTOCOL = 47

/** Implementation constants. */

/** A server with half of all call ids in use finds a free one at once in all but 2^-64 cases. */
const CALL_ID_DRAWS = 64
/** Early packets of all calls together. */
const REORDER_SLOTS = 512
const REORDER_SLOT_BYTES = 2048

export class GreHub {
  readonly reorderSlots: SlotPool
  readonly waitingRoom = new WaitingRoom()
  readonly #socket: PacketSocket
  readonly #dataplane: Dataplane
  readonly #bytes: Uint8Array
  readonly #calls = new Map<number, GreCall>()
  readonly #touched: GreCall[] = []
  readonly #faults = new FaultCounters()
  readonly #onLost: (reason: string) => void
  #droppedUnknownCall = 0
  #droppedWrongSource = 0

  constructor(socket: PacketSocket, dataplane: Dataplane, onLost: (reason: string) => void) {
    this.#socket = socket
    this.#dataplane = dataplane
    this.#bytes = dataplane.memory.bytes
    this.#onLost = onLost
    this.reorderSlots = new StackSlotPool(dataplane.memory, REORDER_SLOT_BYTES, REORDER_SLOTS)
  }

  get socket(): PacketSocket {
    return this.#socket
  }

  get counters(): Readonly<Record<string, number>> {
    return {
      ...this.#socket.counters,
      ...prefixed('malformed-', this.#faults.toJSON()),
      droppedUnknownCall: this.#droppedUnknownCall,
      droppedWrongSource: this.#droppedWrongSource,
    }
  }

  start(): void {
    this.#socket.start({
      onPacket: (at, lengthBytes, source) => this.#receive(at, lengthBytes, source),
      onBurstEnd: () => this.#endBurst(),
      onLost: this.#onLost,
    })
  }

  close(): void {
    this.#socket.close()
  }

  add(callId: number, call: GreCall): void {
    this.#calls.set(callId, call)
  }

  /** From now on packets of this call are those of an unknown call. */
  forget(callId: number): void {
    this.#calls.delete(callId)
  }

  /** A call id that no live call has, drawn so that nobody can guess it; 0 when it cannot be found. */
  takeCallId(random: RandomSource): number {
    const drawn = new Uint8Array(2)
    for (let i = 0; i < CALL_ID_DRAWS; i++) {
      random.fill(drawn)
      const callId = u16(drawn, 0)
      if (callId !== 0 && !this.#calls.has(callId)) return callId
    }
    return 0
  }

  #receive(at: number, lengthBytes: number, source: number): void {
    const fault = checkGre(this.#bytes, at, lengthBytes)
    if (fault) {
      this.#faults.count(fault)
      return
    }
    const call = this.#calls.get(greCallId(this.#bytes, at))
    if (call === undefined) {
      this.#droppedUnknownCall++
      return
    }
    if (call.peerAddress !== source) {
      this.#droppedWrongSource++
      return
    }
    if (!call.isTouched) {
      call.isTouched = true
      this.#touched.push(call)
    }
    call.receive(at)
  }

  #endBurst(): void {
    for (let call = this.#touched.pop(); call !== undefined; call = this.#touched.pop()) {
      call.isTouched = false
      call.endBurst()
    }
    // The socket reads into the same places again: nothing may point there.
    this.#dataplane.flush()
    this.#socket.flush()
  }
}

function prefixed(prefix: string, counts: Record<string, number>): Record<string, number> {
  return Object.fromEntries(Object.entries(counts).map(([name, n]) => [prefix + name, n]))
}
