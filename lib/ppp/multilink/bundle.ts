/**
 * The links of one peer as one (RFC 1990). They come and go in any order; the last one to go ends it.
 * With one link packets go as they are; with more, each packet is sealed once for the bundle and goes
 * out in fragments, over the links in turn.
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
  /** The last link is gone: the bundle is known no more. */
  ended(): void
}

/** Who is behind the links. */
export interface BundleTenant<Owner> {
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
  /** Those that may carry: what is looked at for every packet. */
  readonly #carrying: MemberLink[] = []
  readonly #reassembler: Reassembler
  #sealer: FrameSealer
  #turn = 0
  #nextSequence = 0
  #isOver = false

  constructor(agreement: BundleAgreement, tenant: BundleTenant<Owner>, ports: BundlePorts) {
    this.agreement = agreement
    this.isEncryptionDue = tenant.isEncryptionDue
    this.owner = tenant.owner
    this.#sealer = tenant.sealer
    this.#ports = ports
    this.#reassembler = new Reassembler(agreement.receiveForm, agreement.mrruBytes, ports)
  }

  get linkCount(): number {
    return this.#members.length
  }

  /** What BAP calls the links; undefined: it has no name. */
  get linkNames(): (LinkNames | undefined)[] {
    return this.#members.map(({ names }) => names)
  }

  /** Ends the link that we call so; false when there is none, or no other. */
  drop(own: number): boolean {
    const member = this.#members.find(({ names }) => names?.own === own)
    if (member === undefined || this.#members.length === 1) return false
    member.end()
    return true
  }

  get waitingFragments(): number {
    return this.#reassembler.waitingFragments
  }

  /** The link belongs to the bundle, and carries nothing yet. */
  add(member: MemberLink): void {
    this.#members.push(member)
    this.onChange?.()
  }

  /** The link may carry from now on. */
  carry(member: MemberLink): void {
    if (this.#carrying.includes(member) || !this.#members.includes(member)) return
    this.#carrying.push(member)
    this.#reassembler.addLink(member)
    this.#applySealers()
  }

  /** The link is down. */
  remove(member: MemberLink): void {
    if (!take(this.#members, member)) return
    if (take(this.#carrying, member)) this.#reassembler.removeLink(member)
    if (this.#members.length > 0) {
      this.#applySealers()
      this.onChange?.()
      return
    }
    this.#isOver = true
    this.#reassembler.destroy()
    this.#ports.ended()
  }

  /** How packets of the bundle are made frames, before they are cut. */
  setSealer(sealer: FrameSealer): void {
    this.#sealer = sealer
    this.#applySealers()
  }

  /** The information field of a 0x003d frame that came on `member`. */
  receive(member: MemberLink, at: number, lengthBytes: number): void {
    if (this.#isOver) return
    if (this.#carrying.includes(member)) this.#reassembler.receive(member, at, lengthBytes)
    else this.#ports.counters.count('multilink-not-permitted')
  }

  // PacketSink

  /** What passes over any of the links alone: it may be the last. */
  get mtuBytes(): number {
    let mtuBytes = this.agreement.peerMrruBytes
    for (const { sink } of this.#carrying) mtuBytes = Math.min(mtuBytes, sink.mtuBytes)
    return mtuBytes
  }

  reserve(lengthBytes: number): number {
    const [first] = this.#carrying
    if (first === undefined) return noRoom
    if (this.#carrying.length === 1) return first.sink.reserve(lengthBytes)
    const { staging } = this.#ports
    if (lengthBytes + stagingHeadroomBytes <= staging.lengthBytes) {
      return staging.at + stagingHeadroomBytes
    }
    this.#ports.counters.count('multilink-packet-too-long')
    return noRoom
  }

  commit(at: number, lengthBytes: number): void {
    const [first] = this.#carrying
    if (first !== undefined && this.#carrying.length === 1) {
      first.sink.commit(at, lengthBytes)
      return
    }
    const frameBytes = this.#sealer.seal(at, lengthBytes)
    if (frameBytes === 0) return
    this.#cut(at - this.#sealer.headerBytes + skippedBytes, frameBytes - skippedBytes)
  }

  flush(): void {
    for (const { sink } of this.#carrying) sink.flush()
  }

  /** Fragments of equal size, as few as the links permit. */
  #cut(at: number, lengthBytes: number): void {
    let limitBytes = lengthBytes
    for (const { fragmentBytes } of this.#carrying) limitBytes = Math.min(limitBytes, fragmentBytes)
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
    for (let tries = this.#carrying.length; tries > 0; tries--) {
      this.#turn = (this.#turn + 1) % this.#carrying.length
      const member = this.#carrying[this.#turn]
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
    if (this.#carrying.length === 1) this.#carrying[0]?.useSealer(this.#sealer)
    else for (const member of this.#carrying) member.useSealer(member)
  }
}

/** False: it was not there. */
function take(members: MemberLink[], member: MemberLink): boolean {
  const index = members.indexOf(member)
  if (index >= 0) members.splice(index, 1)
  return index >= 0
}
