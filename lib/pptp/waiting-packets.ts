/**
 * Packets of one call that are ready to go and wait for the peer's window, in their order. Each keeps
 * its place in the socket's memory, of which all calls together may hold back a part only.
 */

/** Implementation constants. */
const CALL_PACKETS = 64
const ALL_PACKETS = 256
/** Of a call's places, those that IP packets leave to control frames. */
const CONTROL_PACKETS = 8

/** What all calls over one socket may hold back together. */
export class WaitingRoom {
  #freeCount = ALL_PACKETS

  take(): boolean {
    if (this.#freeCount === 0) return false
    this.#freeCount--
    return true
  }

  give(): void {
    this.#freeCount++
  }

  get freeCount(): number {
    return this.#freeCount
  }
}

export class WaitingPackets {
  readonly #room: WaitingRoom
  readonly #at = new Int32Array(CALL_PACKETS)
  readonly #lengthBytes = new Int32Array(CALL_PACKETS)
  #first = 0
  #count = 0

  constructor(room: WaitingRoom) {
    this.#room = room
  }

  get count(): number {
    return this.#count
  }

  /** Whether an IP packet may still wait: asked before it is encrypted and has taken a number. */
  get hasRoom(): boolean {
    return this.#count < CALL_PACKETS - CONTROL_PACKETS && this.#room.freeCount > 0
  }

  /** False: no room. */
  add(at: number, lengthBytes: number): boolean {
    if (this.#count === CALL_PACKETS || !this.#room.take()) return false
    const index = (this.#first + this.#count) % CALL_PACKETS
    this.#at[index] = at
    this.#lengthBytes[index] = lengthBytes
    this.#count++
    return true
  }

  /** Where the first begins. Only when `count` > 0. */
  get firstAt(): number {
    return this.#at[this.#first] ?? 0
  }

  get firstBytes(): number {
    return this.#lengthBytes[this.#first] ?? 0
  }

  removeFirst(): void {
    if (this.#count === 0) return
    this.#first = (this.#first + 1) % CALL_PACKETS
    this.#count--
    this.#room.give()
  }
}
