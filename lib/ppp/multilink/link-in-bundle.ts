/** One link's part in multilink: alone, or one of a bundle. */
import type { PacketSink } from '../../core/packet-sink.ts'
import type { FrameSealer } from '../carrier.ts'
import { longSequence, shortSequence } from '../wire/multilink.ts'
import type { Bundle } from './bundle.ts'
import type { BundleTable, EntranceRefusal, Entrant } from './bundle-table.ts'
import type { MultilinkAgreement } from './lcp-multilink.ts'
import { MemberLink } from './member-link.ts'

export interface LinkInBundlePorts {
  readonly bytes: Uint8Array
  readonly sink: PacketSink
  setSealer(sealer: FrameSealer): void
  /** The link is needed no more. */
  end(): void
}

export class LinkInBundle<Owner> {
  readonly #table: BundleTable<Owner>
  readonly #ports: LinkInBundlePorts
  #agreement: MultilinkAgreement | undefined
  #peerMruBytes = 0
  #member: MemberLink | undefined
  #bundle: Bundle<Owner> | undefined

  constructor(table: BundleTable<Owner>, ports: LinkInBundlePorts) {
    this.#table = table
    this.#ports = ports
  }

  /** Undefined: the link is none of a bundle. */
  get bundle(): Bundle<Owner> | undefined {
    return this.#bundle
  }

  /** LCP has agreed on multilink: the link must be one of a bundle. */
  get isAgreed(): boolean {
    return this.#agreement !== undefined
  }

  /** What LCP has agreed on. */
  agreed(agreement: MultilinkAgreement | undefined, peerMruBytes: number): void {
    this.#agreement = agreement
    this.#peerMruBytes = peerMruBytes
  }

  /** Whose bundle the link would join, if it were this user's. */
  ownerOf(userKey: string): Owner | undefined {
    return this.#agreement && this.#table.find(userKey, this.#agreement)?.owner
  }

  /** Why the bundle does not take the link, if so. */
  enter(entrant: Omit<Entrant<Owner>, 'agreement'>): EntranceRefusal | undefined {
    const agreement = this.#agreement
    if (agreement === undefined || this.#bundle !== undefined) return undefined
    const entered = this.#table.enter({ ...entrant, agreement })
    if (typeof entered === 'string') return entered
    const { bytes, sink, setSealer, end } = this.#ports
    this.#bundle = entered
    this.#member = new MemberLink({
      ...{ bytes, sink, setSealer, end },
      peerMruBytes: this.#peerMruBytes,
      form: agreement.sendsShort ? shortSequence : longSequence,
      ...(agreement.names !== undefined && { names: agreement.names }),
    })
    entered.add(this.#member)
    return undefined
  }

  /** The link may carry for the bundle from now on. */
  carry(): void {
    if (this.#member !== undefined) this.#bundle?.carry(this.#member)
  }

  leave(): void {
    const bundle = this.#bundle
    this.#bundle = undefined
    if (this.#member !== undefined) bundle?.remove(this.#member)
    this.#member = undefined
  }

  /** False: not due on this link. */
  receiveFragment(at: number, lengthBytes: number): boolean {
    if (this.#bundle === undefined || this.#member === undefined) return false
    this.#bundle.receive(this.#member, at, lengthBytes)
    return true
  }
}
