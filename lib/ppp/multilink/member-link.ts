/** One link of a bundle on its way out: what it carries is a fragment, whatever it looks like. */
import type { PacketSink } from '../../core/packet-sink.ts'
import type { FrameSealer } from '../carrier.ts'
import { frameHeaderBytes, PppProtocol, putFrameHeader } from '../wire/frame.ts'
import { putFragmentHeader, type SequenceForm } from '../wire/multilink.ts'
import type { LinkNames } from './lcp-multilink.ts'
import type { ReceivingLink } from './reassembler.ts'

export interface MemberOptions {
  readonly bytes: Uint8Array
  /** The way out through the tunnel of this link. */
  readonly sink: PacketSink
  /** Largest information field that the peer takes on this link, bytes. */
  readonly peerMruBytes: number
  /** As the peer wants to be sent to. */
  readonly form: SequenceForm
  setSealer(sealer: FrameSealer): void
  /** What BAP calls the link; absent: nothing. */
  readonly names?: LinkNames
  /** The bundle goes on without this link. */
  end(): void
}

export class MemberLink implements FrameSealer, ReceivingLink {
  readonly headerBytes: number
  /** Largest fragment without its head, bytes. */
  readonly fragmentBytes: number
  readonly #options: MemberOptions
  lastSequence = 0
  // Of the fragment that is committed next.
  #flags = 0
  #sequence = 0

  constructor(options: MemberOptions) {
    this.#options = options
    this.headerBytes = frameHeaderBytes + options.form.headerBytes
    this.fragmentBytes = options.peerMruBytes - options.form.headerBytes
  }

  get sink(): PacketSink {
    return this.#options.sink
  }

  /** What the tunnel carries from now on is made so. */
  useSealer(sealer: FrameSealer): void {
    this.#options.setSealer(sealer)
  }

  get names(): LinkNames | undefined {
    return this.#options.names
  }

  end(): void {
    this.#options.end()
  }

  /** What `seal` puts in front of the next fragment. */
  prepare(flags: number, sequence: number): void {
    this.#flags = flags
    this.#sequence = sequence
  }

  seal(at: number, lengthBytes: number): number {
    const { bytes, form } = this.#options
    const headAt = putFrameHeader(bytes, at - this.headerBytes, PppProtocol.multilink)
    putFragmentHeader(form, bytes, headAt, this.#flags, this.#sequence)
    return this.headerBytes + lengthBytes
  }
}
