/** One link's part in multilink: alone, first of a bundle, or one that follows. */
import type { PacketSink } from '../../core/packet-sink.ts'
import type { FrameSealer } from '../carrier.ts'
import { longSequence, shortSequence } from '../wire/multilink.ts'
import type { Bundle } from './bundle.ts'
import type { BundleTable } from './bundle-table.ts'
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
}

export class LinkInBundle {
  readonly #table: BundleTable
  readonly #ports: LinkInBundlePorts
  #agreement: MultilinkAgreement | undefined
  #peerMruBytes = 0
  #sealer: FrameSealer | undefined
  #member: MemberLink | undefined
  #bundle: Bundle | undefined
  #isFirst = false

  constructor(table: BundleTable, ports: LinkInBundlePorts) {
    this.#table = table
    this.#ports = ports
  }

  /** Where packets of the dataplane go; undefined: to the link itself. */
  get bundle(): Bundle | undefined {
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

  /** False: the bundle takes no more links. */
  enter(userKey: string): boolean {
    const agreement = this.#agreement
    const sealer = this.#sealer
    if (agreement === undefined || sealer === undefined || this.#bundle !== undefined) return true
    const ports = this.#ports
    const entrance = this.#table.enter(userKey, agreement, sealer, (at, lengthBytes) =>
      ports.receive(at, lengthBytes),
    )
    if (entrance === undefined) return false
    this.#bundle = entrance.bundle
    this.#isFirst = entrance.isFirst
    this.#member = new MemberLink({
      bytes: ports.bytes,
      sink: ports.sink,
      peerMruBytes: this.#peerMruBytes,
      form: agreement.sendsShort ? shortSequence : longSequence,
      setSealer: ports.setSealer,
      receiveWhole: ports.receive,
      close: () => {
        this.#bundle = undefined
        ports.close()
      },
    })
    entrance.bundle.add(this.#member)
    return true
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
