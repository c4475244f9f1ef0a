/**
 * The way out of a call: IP packets, each behind its SSTP and PPP header, packed into slots of the
 * dataplane and handed to the stream a slot at a time, so that one TLS record carries many packets
 * (records of one packet each cost three times as much).
 *
 * Nothing here allocates per packet; per write there is one view and one callback.
 */
import { noRoom, type PacketSink } from '../core/packet-sink.ts'
import type { PinnedMemory, SlotPool } from '../dataplane/dataplane.ts'
import type { FrameSealer } from '../ppp/carrier.ts'
import type { ByteStream } from './byte-stream.ts'
import { FRAME_HEADER_BYTES, MAX_PPP_FRAME_BYTES, putFrameHeader } from './wire/frame.ts'

/** Address, control and protocol field (RFC 1661 §2, RFC 1662 §3.1), never compressed. */
export const PPP_HEADER_BYTES = 4
const HEADER_BYTES = FRAME_HEADER_BYTES + PPP_HEADER_BYTES
const PPP_IPV4 = 0x21
const PPP_IPV6 = 0x57

/** The largest information field: what is left of 4095 bytes behind both headers. */
export const MAX_INFORMATION_BYTES = MAX_PPP_FRAME_BYTES - PPP_HEADER_BYTES

/** A call may always hold this many slots: one under way and one filling. */
const MIN_SLOTS = 2

/** Kept free in front of what a slot holds, so that a frame of the slot before can be put there. */
const HEADROOM_BYTES = 2048

const none = -1

export class PacketPacker implements PacketSink {
  readonly #memory: PinnedMemory
  readonly #slots: SlotPool
  readonly #stream: ByteStream
  readonly #maxSlots: number
  mtuBytes = MAX_INFORMATION_BYTES
  /** Slots that were taken and not given back yet. */
  heldSlots = 0
  sentPackets = 0
  /** Packets for which there was no slot: the peer reads too slowly, or everybody does. */
  droppedNoRoom = 0
  /** Packets that came while IP was not permitted. */
  droppedNotPermitted = 0
  /** Packets that no SSTP frame can carry. */
  droppedTooLong = 0
  #isOpen = false
  /** Absent: each packet is a frame of its own, behind a plain PPP header. */
  #sealer: FrameSealer | undefined
  #headerBytes = HEADER_BYTES
  #slotAt = none
  #writeAt = 0
  #slotEnd = 0

  constructor(memory: PinnedMemory, slots: SlotPool, stream: ByteStream, maxSlots: number) {
    this.#memory = memory
    this.#slots = slots
    this.#stream = stream
    this.#maxSlots = maxSlots
  }

  /** Lets packets through, or stops them. */
  permit(isOpen: boolean): void {
    this.#isOpen = isOpen
  }

  /** Makes frames of the packets from now on. */
  setSealer(sealer: FrameSealer): void {
    this.#sealer = sealer
    this.#headerBytes = FRAME_HEADER_BYTES + sealer.headerBytes
  }

  reserve(lengthBytes: number): number {
    if (!this.#isOpen) {
      this.droppedNotPermitted++
      return noRoom
    }
    if (lengthBytes > MAX_INFORMATION_BYTES) {
      this.droppedTooLong++
      return noRoom
    }
    if (this.#slotAt !== none && this.#slotEnd - this.#writeAt < this.#headerBytes + lengthBytes) {
      this.#write(this.#mayTakeSlot)
    }
    if (this.#slotAt === none && !this.#takeSlot()) {
      this.droppedNoRoom++
      return noRoom
    }
    return this.#writeAt + this.#headerBytes
  }

  commit(at: number, lengthBytes: number): void {
    const sealer = this.#sealer
    if (sealer === undefined) this.#commitPlain(at, lengthBytes)
    else {
      const pppBytes = sealer.seal(at, lengthBytes)
      if (pppBytes === 0) return
      const pppAt = at - sealer.headerBytes
      const startAt = pppAt - FRAME_HEADER_BYTES
      putFrameHeader(this.#memory.bytes, startAt, false, FRAME_HEADER_BYTES + pppBytes)
      this.#writeAt = pppAt + pppBytes
      this.sentPackets++
    }
  }

  #commitPlain(at: number, lengthBytes: number): void {
    const bytes = this.#memory.bytes
    const start = at - HEADER_BYTES
    const pppAt = putFrameHeader(bytes, start, false, HEADER_BYTES + lengthBytes)
    bytes[pppAt] = 0xff
    bytes[pppAt + 1] = 0x03
    bytes[pppAt + 2] = 0
    bytes[pppAt + 3] = (bytes[at] ?? 0) >>> 4 === 6 ? PPP_IPV6 : PPP_IPV4
    this.#writeAt = at + lengthBytes
    this.sentPackets++
  }

  flush(): void {
    this.#write(false)
  }

  /** Hands the slot to the stream; `isMore`: a packet waits for the next one. */
  #write(isMore: boolean): void {
    const at = this.#slotAt
    if (at === none) return
    this.#slotAt = none
    const start = at + HEADROOM_BYTES
    const length = this.#writeAt - start
    if (length === 0 || !this.#isOpen) {
      this.#give(at)
      return
    }
    const view = new Uint8Array(
      this.#memory.bytes.buffer,
      this.#memory.bytes.byteOffset + start,
      length,
    )
    const stream = this.#stream
    const left = () => this.#give(at)
    if (isMore && stream.writeOn !== undefined) stream.writeOn(view, left, HEADROOM_BYTES)
    else stream.write(view, left, HEADROOM_BYTES)
  }

  /**
   * Dynamic threshold: a call may hold as many slots as half of those that are free, so a few slow
   * readers may hold many, and a hundred of them may hold few each, but never all.
   */
  get #mayTakeSlot(): boolean {
    const { freeCount } = this.#slots
    const fairShare = Math.min(this.#maxSlots, freeCount >>> 1)
    return freeCount > 0 && this.heldSlots < Math.max(MIN_SLOTS, fairShare)
  }

  #takeSlot(): boolean {
    if (!this.#mayTakeSlot) return false
    const at = this.#slots.take()
    if (at < 0) return false
    this.heldSlots++
    this.#slotAt = at
    this.#writeAt = at + HEADROOM_BYTES
    this.#slotEnd = at + this.#slots.slotBytes
    return true
  }

  #give(at: number): void {
    this.heldSlots--
    this.#slots.give(at)
  }
}
