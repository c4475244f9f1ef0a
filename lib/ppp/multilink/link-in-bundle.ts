/** One link's part in multilink: alone, first of a bundle, or one that follows. */
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
  /** Of the first link: what the bundle has received, from the protocol field on or whole. */
  receive(at: number, lengthBytes: number): void
  /** The first link is gone. */
  close(): void
  /** The link is needed no more. */
  end(): void
}

/** What the link itself does not know of its entrance. */
export type LinkEntrant<Owner> = Pick<
  Entrant<Owner>,
  'userKey' | 'needsEncryption' | 'maxLinks' | 'owner'
>

export class LinkInBundle<Owner> {
  readonly #table: BundleTable<Owner>
  readonly #ports: LinkInBundlePorts
  #agreement: MultilinkAgreement | undefined
  #peerMruBytes = 0
  #sealer: FrameSealer | undefined
  #member: MemberLink | undefined
  #bundle: Bundle<Owner> | undefined
  #isFirst = false

  constructor(table: BundleTable<Owner>, ports: LinkInBundlePorts) {
    this.#table = table
    this.#ports = ports
  }

  /** Where packets of the dataplane go; undefined: to the link itself. */
  get bundle(): Bundle<Owner> | undefined {
    return this.#isFirst ? this.#bundle : undefined
  }

  get isFollower(): boolean {
    return this.#bundle !== undefined && !this.#isFirst
  }

  /** LCP has agreed on multilink, and the link has no place yet. */
  get isDue(): boolean {
    return this.#agreement !== undefined && this.#bundle === undefined
  }

  /** What LCP has agreed on. */
  agreed(agreement: MultilinkAgreement | undefined, peerMruBytes: number): void {
    this.#agreement = agreement
    this.#peerMruBytes = peerMruBytes
  }

  /** Whose bundle the link would join, if it were this user's. */
  leaderOf(userKey: string): Owner | undefined {
    if (this.#agreement === undefined || this.#bundle !== undefined) return undefined
    return this.#table.find(userKey, this.#agreement)?.owner
  }

  /** Why the bundle does not take the link, if so. */
  enter(entrant: LinkEntrant<Owner>): EntranceRefusal | undefined {
    const agreement = this.#agreement
    const sealer = this.#sealer
    if (agreement === undefined || sealer === undefined || this.#bundle !== undefined) {
      return undefined
    }
    const ports = this.#ports
    const entrance = this.#table.enter({
      ...entrant,
      agreement,
      sealer,
      deliver: (at, lengthBytes) => ports.receive(at, lengthBytes),
    })
    if (typeof entrance === 'string') return entrance
    this.#bundle = entrance.bundle
    this.#isFirst = entrance.isFirst
    this.#member = new MemberLink({
      bytes: ports.bytes,
      sink: ports.sink,
      peerMruBytes: this.#peerMruBytes,
      form: agreement.sendsShort ? shortSequence : longSequence,
      setSealer: ports.setSealer,
      receiveWhole: ports.receive,
      ...(agreement.names !== undefined && { names: agreement.names }),
      end: ports.end,
      close: () => {
        this.#bundle = undefined
        ports.close()
      },
    })
    entrance.bundle.add(this.#member)
    return undefined
  }

  leave(): void {
    const bundle = this.#bundle
    this.#bundle = undefined
    if (bundle !== undefined && this.#member !== undefined) bundle.remove(this.#member)
    this.#member = undefined
    this.#isFirst = false
    if (this.#sealer !== undefined) this.#ports.setSealer(this.#sealer)
  }

  /** How this link, or the bundle that it leads, makes frames of packets. */
  setSealer(sealer: FrameSealer): void {
    this.#sealer = sealer
    if (this.#bundle === undefined) this.#ports.setSealer(sealer)
    else if (this.#isFirst) this.#bundle.setSealer(sealer)
  }

  /** False: not due on this link. */
  receiveFragment(at: number, lengthBytes: number): boolean {
    if (this.#bundle === undefined || this.#member === undefined) return false
    this.#bundle.receive(this.#member, at, lengthBytes)
    return true
  }

  /** A frame of the bundle that came whole; false: it is this link's own. */
  receiveFrame(at: number, lengthBytes: number): boolean {
    if (this.#bundle === undefined || this.#isFirst) return false
    this.#bundle.receiveWhole(at, lengthBytes)
    return true
  }
}
