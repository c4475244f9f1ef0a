/**
 * The links of one peer as one (RFC 1990). The first link leads: its PPP negotiates the networks, and
 * the bundle lives as long as it does. With one link packets go as they are; with more, each packet is
 * sealed once for the bundle and goes out in fragments, over the links in turn.
 */
import type { Counters } from '../../core/faults.ts'
import { noRoom, type PacketSink } from '../../core/packet-sink.ts'
import type { PinnedMemory } from '../../dataplane/dataplane.ts'
import type { FrameSealer } from '../carrier.ts'
import { FragmentBit, type SequenceForm } from '../wire/multilink.ts'
import type { LinkNames } from './lcp-multilink.ts'
import type { MemberLink } from './member-link.ts'
import { Reassembler, type ReassemblerPorts } from './reassembler.ts'

/** One place in which a packet stands between sealing and cutting; one packet at a time uses it. */
export interface Staging {
  readonly at: number
  readonly lengthBytes: number
}

/** What a sealer may put in front of a packet. */
export const stagingHeadroomBytes = 64
/** Address and control field: not part of what is cut (RFC 1990 §3). */
const skippedBytes = 2

export interface BundleAgreement {
  /** How the peer's fragments are numbered, and how ours are. */
  readonly receiveForm: SequenceForm
  readonly sendForm: SequenceForm
  /** Largest packet that we put together, bytes. */
  readonly mrruBytes: number
  readonly peerMrruBytes: number
}

export interface BundlePorts extends Omit<ReassemblerPorts, 'counters'> {
  readonly memory: PinnedMemory
  readonly staging: Staging
  readonly counters: Counters
  /** The first link is gone: the bundle is known no more. */
  ended(): void
}

/** What the first link brings. */
export interface BundleLead<Owner> {
  readonly sealer: FrameSealer
  /** PPP encrypts what the bundle carries, or nothing is carried. */
  readonly isEncryptionDue: boolean
  readonly owner: Owner
}

export class Bundle<Owner = undefined> implements PacketSink {
  readonly agreement: BundleAgreement
  readonly isEncryptionDue: boolean
  readonly owner: Owner
  /** Hears when a link has come or gone. */
  onChange: (() => void) | undefined
  readonly #ports: BundlePorts
  readonly #members: MemberLink[] = []
  readonly #reassembler: Reassembler
  #sealer: FrameSealer
  #turn = 0
  #nextSequence = 0
  #isOver = false

  constructor(agreement: BundleAgreement, lead: BundleLead<Owner>, ports: BundlePorts) {
    this.agreement = agreement
    this.isEncryptionDue = lead.isEncryptionDue
    this.owner = lead.owner
    this.#sealer = lead.sealer
    this.#ports = ports
    this.#reassembler = new Reassembler(agreement.receiveForm, agreement.mrruBytes, ports)
  }

  get linkCount(): number {
    return this.#members.length
  }

  /** What BAP calls the links, the first one in front; undefined: it has no name. */
  get linkNames(): (LinkNames | undefined)[] {
    return this.#members.map(({ names }) => names)
  }

  /** Ends the link that we call so; false when there is none, or when it leads. */
  drop(own: number): boolean {
    const member = this.#members.find(({ names }) => names?.own === own)
    if (member === undefined || member === this.#members[0]) return false
    member.end()
    return true
  }

  get waitingFragments(): number {
    return this.#reassembler.waitingFragments
  }

  /** The first one leads. */
  add(member: MemberLink): void {
    this.#members.push(member)
    this.#reassembler.addLink(member)
    this.#applySealers()
    this.onChange?.()
  }

  /** The link is down. When the first one is, so are the others. */
  remove(member: MemberLink): void {
    const index = this.#members.indexOf(member)
    if (index < 0) return
    this.#members.splice(index, 1)
    if (index > 0) {
      this.#reassembler.removeLink(member)
      this.#applySealers()
      this.onChange?.()
      return
    }
    this.#isOver = true
    this.#reassembler.destroy()
    this.#ports.ended()
    for (const other of this.#members.splice(0)) other.close()
  }

  /** How packets of the bundle are made frames, before they are cut. */
  setSealer(sealer: FrameSealer): void {
    this.#sealer = sealer
    this.#applySealers()
  }

  /** The information field of a 0x003d frame that came on `member`. */
  receive(member: MemberLink, at: number, lengthBytes: number): void {
    if (!this.#isOver) this.#reassembler.receive(member, at, lengthBytes)
  }

  /** A frame that came on any link without the head of a fragment. */
  receiveWhole(at: number, lengthBytes: number): void {
    this.#members[0]?.receiveWhole(at, lengthBytes)
  }

  // PacketSink

  get mtuBytes(): number {
    const mtuBytes = this.#members[0]?.sink.mtuBytes ?? 0
    return Math.min(mtuBytes, this.agreement.peerMrruBytes)
  }

  reserve(lengthBytes: number): number {
    const [first] = this.#members
    if (first === undefined) return noRoom
    if (this.#members.length === 1) return first.sink.reserve(lengthBytes)
    const { staging } = this.#ports
    if (lengthBytes + stagingHeadroomBytes <= staging.lengthBytes) {
      return staging.at + stagingHeadroomBytes
    }
    this.#ports.counters.count('multilink-packet-too-long')
    return noRoom
  }

  commit(at: number, lengthBytes: number): void {
    const [first] = this.#members
    if (first !== undefined && this.#members.length === 1) {
      first.sink.commit(at, lengthBytes)
      return
    }
    const frameBytes = this.#sealer.seal(at, lengthBytes)
    if (frameBytes === 0) return
    this.#cut(at - this.#sealer.headerBytes + skippedBytes, frameBytes - skippedBytes)
  }

  flush(): void {
    for (const { sink } of this.#members) sink.flush()
  }

  /** Fragments of equal size, as few as the links permit. */
  #cut(at: number, lengthBytes: number): void {
    let limitBytes = lengthBytes
    for (const { fragmentBytes } of this.#members) limitBytes = Math.min(limitBytes, fragmentBytes)
    if (limitBytes <= 0) return
    const sizeBytes = Math.ceil(lengthBytes / Math.ceil(lengthBytes / limitBytes))
    for (let done = 0; done < lengthBytes; done += sizeBytes) {
      const bytes = Math.min(sizeBytes, lengthBytes - done)
      const flags =
        (done === 0 ? FragmentBit.begin : 0) | (done + bytes === lengthBytes ? FragmentBit.end : 0)
      this.#sendFragment(at + done, bytes, flags)
    }
  }

  /** On the next link that has room. Without any the number is spent: the peer must see the loss. */
  #sendFragment(at: number, lengthBytes: number, flags: number): void {
    const sequence = this.#nextSequence
    this.#nextSequence = (sequence + 1) & this.agreement.sendForm.mask
    for (let tries = this.#members.length; tries > 0; tries--) {
      this.#turn = (this.#turn + 1) % this.#members.length
      const member = this.#members[this.#turn]
      const to = member?.sink.reserve(lengthBytes) ?? noRoom
      if (member === undefined || to === noRoom) continue
      this.#ports.memory.copy(to, at, lengthBytes)
      member.prepare(flags, sequence)
      member.sink.commit(to, lengthBytes)
      return
    }
    this.#ports.counters.count('multilink-no-link')
  }

  #applySealers(): void {
    if (this.#members.length === 1) this.#members[0]?.useSealer(this.#sealer)
    else for (const member of this.#members) member.useSealer(member)
  }
}
