/**
 * Packets out of fragments (RFC 1990 §4.1). What came early waits in slots that all bundles share, in
 * a window of one bundle; whatever a peer sends, no more is held. A fragment is lost when every link
 * has brought a later one, when the window has passed it, or when it was waited for too long.
 */
import type { Counters } from '../../core/faults.ts'
import type { TimerWheel, WheelEntry } from '../../core/timers.ts'
import type { PinnedMemory, SlotPool } from '../../dataplane/dataplane.ts'
import {
  FragmentBit,
  fragmentSequence,
  type SequenceForm,
  sequenceDistance,
} from '../wire/multilink.ts'

// Implementation constants.

/** Fragments of one bundle that may wait; a power of two. */
export const windowFragments = 128
/** Fragments that a bundle may always hold, if there is any room at all. */
export const leastFragments = 4
/** How long a fragment is waited for while a link is silent. */
export const fragmentWaitMs = 300

const indexMask = windowFragments - 1
const empty = -1
const unknown = -1

/** What is known of one link of a bundle. */
export interface ReceivingLink {
  /** The last sequence number that came on it. */
  lastSequence: number
}

export interface ReassemblerPorts {
  readonly memory: PinnedMemory
  readonly slots: SlotPool
  readonly wheel: TimerWheel
  readonly counters: Counters
  nowMs(): number
  /** Room for a packet that stays until the burst ends. */
  intake(lengthBytes: number): number
  /** A whole packet, from its protocol field on. */
  deliver(at: number, lengthBytes: number): void
}

export class Reassembler implements WheelEntry {
  readonly #ports: ReassemblerPorts
  readonly #form: SequenceForm
  /** Largest packet with its protocol field, bytes. */
  readonly #maxBytes: number
  readonly #links = new Set<ReceivingLink>()
  readonly #slotAt = new Int32Array(windowFragments).fill(empty)
  readonly #lengthBytes = new Int32Array(windowFragments)
  readonly #flags = new Uint8Array(windowFragments)
  #count = 0
  /** The first fragment that is due. RFC 1990 §2: a bundle begins with 0. */
  #expected = 0
  #isWaiting = false
  /** The missing fragment that the timer is for. */
  #missing = unknown

  constructor(form: SequenceForm, mrruBytes: number, ports: ReassemblerPorts) {
    this.#form = form
    this.#maxBytes = mrruBytes + 2
    this.#ports = ports
  }

  /** Fragments that wait. */
  get waitingFragments(): number {
    return this.#count
  }

  addLink(link: ReceivingLink): void {
    // It has missed nothing: what was sent before went over the others.
    link.lastSequence = (this.#expected - 1) & this.#form.mask
    this.#links.add(link)
  }

  removeLink(link: ReceivingLink): void {
    this.#links.delete(link)
    this.#advance()
  }

  /** The information field of a 0x003d frame. */
  receive(link: ReceivingLink, at: number, lengthBytes: number): void {
    const form = this.#form
    const { memory, counters, slots } = this.#ports
    const insideBytes = lengthBytes - form.headerBytes
    if (insideBytes < 0) {
      counters.count('multilink-malformed')
      return
    }
    const flags = memory.bytes[at] ?? 0
    const sequence = fragmentSequence(form, memory.bytes, at)
    if (sequenceDistance(form, link.lastSequence, sequence) > 0) link.lastSequence = sequence
    const ahead = sequenceDistance(form, this.#expected, sequence)
    if (ahead < 0) {
      counters.count('multilink-stale')
      return
    }
    if (ahead >= windowFragments) this.#moveTo((sequence - windowFragments + 1) & form.mask)
    const isWhole = flags >= (FragmentBit.begin | FragmentBit.end)
    if (isWhole && this.#count === 0 && sequence === this.#expected) {
      this.#expected = (sequence + 1) & form.mask
      this.#pass(at + form.headerBytes, insideBytes)
      return
    }
    const index = sequence & indexMask
    const isDuplicate = this.#slotAt[index] !== empty
    // As many as half of those that are free: a few bundles may hold many, but never all.
    const isFair = this.#count < Math.max(leastFragments, slots.freeCount >>> 1)
    const slot = isDuplicate || insideBytes > slots.slotBytes || !isFair ? empty : slots.take()
    if (isDuplicate) counters.count('multilink-duplicate')
    else if (slot === empty) counters.count('multilink-no-room')
    else {
      memory.copy(slot, at + form.headerBytes, insideBytes)
      this.#slotAt[index] = slot
      this.#lengthBytes[index] = insideBytes
      this.#flags[index] = flags
      this.#count++
    }
    this.#advance()
  }

  /** A link was silent for too long: what is missing will not come. */
  onDeadline(): void {
    this.#isWaiting = false
    if (this.#count === 0) return
    if (this.#missing !== unknown) this.#giveUp(this.#missing)
    this.#advance()
  }

  destroy(): void {
    this.#ports.wheel.cancel(this)
    for (let index = 0; index < windowFragments; index++) this.#drop(index)
    this.#links.clear()
  }

  /** Delivers what is whole, and gives up what can no longer become whole. */
  #advance(): void {
    this.#missing = unknown
    while (this.#count > 0) {
      const missing = this.#next()
      if (missing === unknown) continue
      if (!this.#isLost(missing)) {
        this.#missing = missing
        this.#wait()
        return
      }
      this.#giveUp(missing)
    }
  }

  /** One step from `expected` on; the number that is missing, when no step can be made without it. */
  #next(): number {
    const { mask } = this.#form
    const first = this.#expected
    let totalBytes = 0
    for (let i = 0; i < windowFragments; i++) {
      const sequence = (first + i) & mask
      const index = sequence & indexMask
      if (this.#slotAt[index] === empty) return sequence
      const flags = this.#flags[index] ?? 0
      const isBegin = (flags & FragmentBit.begin) !== 0
      if (isBegin !== (i === 0)) {
        // A packet without its beginning, or without its end before the next one.
        this.#discard('multilink-incomplete', isBegin ? sequence : (sequence + 1) & mask)
        return unknown
      }
      totalBytes += this.#lengthBytes[index] ?? 0
      if (totalBytes > this.#maxBytes) {
        this.#discard('multilink-too-long', (sequence + 1) & mask)
        return unknown
      }
      if ((flags & FragmentBit.end) !== 0) {
        this.#assemble(i + 1, totalBytes)
        return unknown
      }
    }
    this.#discard('multilink-endless', (first + windowFragments) & mask)
    return unknown
  }

  #assemble(count: number, totalBytes: number): void {
    const { memory, slots } = this.#ports
    const at = this.#ports.intake(totalBytes)
    let to = at
    for (let i = 0; i < count; i++) {
      const index = (this.#expected + i) & indexMask
      const slot = this.#slotAt[index] ?? empty
      const lengthBytes = this.#lengthBytes[index] ?? 0
      memory.copy(to, slot, lengthBytes)
      to += lengthBytes
      slots.give(slot)
      this.#slotAt[index] = empty
    }
    this.#count -= count
    this.#expected = (this.#expected + count) & this.#form.mask
    this.#pass(at, totalBytes)
  }

  /** A fragment of length 0 only says how far its link has come (RFC 1990 §4.1). */
  #pass(at: number, lengthBytes: number): void {
    if (lengthBytes > this.#maxBytes) this.#ports.counters.count('multilink-too-long')
    else if (lengthBytes > 0) this.#ports.deliver(at, lengthBytes)
  }

  /** Every link has brought a later fragment: this one is not under way any more. */
  #isLost(sequence: number): boolean {
    for (const { lastSequence } of this.#links) {
      if (sequenceDistance(this.#form, lastSequence, sequence) > 0) return false
    }
    return true
  }

  #giveUp(missing: number): void {
    this.#discard('multilink-lost', (missing + 1) & this.#form.mask)
  }

  /** Forgets the fragments before `next`, which is due from now on. */
  #discard(reason: string, next: number): void {
    this.#ports.counters.count(reason)
    const { mask } = this.#form
    for (; this.#expected !== next; this.#expected = (this.#expected + 1) & mask) {
      this.#drop(this.#expected & indexMask)
    }
  }

  /** The window begins at `first`: what it has passed is lost. */
  #moveTo(first: number): void {
    const distance = sequenceDistance(this.#form, this.#expected, first)
    this.#ports.counters.count('multilink-lost', distance)
    if (distance >= windowFragments) {
      for (let index = 0; index < windowFragments; index++) this.#drop(index)
      this.#expected = first
      return
    }
    for (; this.#expected !== first; this.#expected = (this.#expected + 1) & this.#form.mask) {
      this.#drop(this.#expected & indexMask)
    }
  }

  #drop(index: number): void {
    const slot = this.#slotAt[index] ?? empty
    if (slot === empty) return
    this.#ports.slots.give(slot)
    this.#slotAt[index] = empty
    this.#count--
  }

  #wait(): void {
    if (this.#isWaiting) return
    this.#isWaiting = true
    this.#ports.wheel.schedule(this, this.#ports.nowMs() + fragmentWaitMs)
  }
}
