/**
 * One L2TP session, the data side of a call, in either role: PPP frames from the tunnel go to the
 * link, and it is the tunnel that PPP sees.
 */
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import type { PacketSink } from '../core/packet-sink.ts'
import type { PinnedMemory } from '../dataplane/dataplane.ts'
import type { Carrier, FrameSealer, Link, LinkFactory } from '../ppp/carrier.ts'
import { DataSequence } from './data-sequence.ts'
import { DataSink, largestInformationBytes } from './data-sink.ts'
import type { L2tpPath } from './l2tp-path.ts'
import { hasSequence, headerBytes, messageBytes, nsOf } from './wire/header.ts'

export interface SessionOptions {
  readonly memory: PinnedMemory
  readonly path: L2tpPath
  readonly peerTunnelId: number
  readonly peerSessionId: number
  readonly isSequenced: boolean
  peerPort(): number
  count(name: string): void
  /** PPP is over: end the call. */
  close(cause: DisconnectCause): void
}

export class Session implements Carrier {
  readonly protocol = 'l2tp'
  readonly isProtected = true
  readonly peerAddress: string
  readonly peerLabel: string
  readonly mruBytes: number
  readonly sink: PacketSink
  readonly #options: SessionOptions
  readonly #bytes: Uint8Array
  readonly #sink: DataSink
  readonly #sequence = new DataSequence()
  #link: Link | undefined
  #isOver = false

  constructor(options: SessionOptions) {
    const { path, isSequenced } = options
    this.#options = options
    this.#bytes = options.memory.bytes
    this.peerAddress = path.peerAddress
    this.peerLabel = path.peerLabel
    const sequence = isSequenced ? this.#sequence : undefined
    this.mruBytes = largestInformationBytes(path.largestMessageBytes, sequence)
    this.#sink = new DataSink({ ...options, sequence }, this.mruBytes)
    this.sink = this.#sink
  }

  /** The call is up: PPP begins. */
  open(links: LinkFactory): void {
    const link = links.open(this)
    // PPP may have refused, or closed the call again from inside `open`.
    if (this.#isOver) return
    if (link === undefined) {
      this.close('session-limit')
      return
    }
    this.#link = link
    this.#sink.permit(true)
    link.permitTraffic()
  }

  /** A data message of this session, with a good header at `at`. */
  receive(at: number, lengthBytes: number): void {
    const link = this.#link
    if (link === undefined) {
      this.#options.count('l2tp-data-without-link')
      return
    }
    const bytes = this.#bytes
    if (hasSequence(bytes, at) && !this.#sequence.accept(nsOf(bytes, at))) {
      this.#options.count('l2tp-data-late')
      return
    }
    const payloadAt = headerBytes(bytes, at)
    const frameBytes = messageBytes(bytes, at, lengthBytes) - payloadAt
    // RFC 2661 §5.4: an LNS may send empty ones to say that it wants numbers.
    if (frameBytes === 0) this.#options.count('l2tp-data-empty')
    else link.receive(at + payloadAt, frameBytes)
  }

  /** The call has ended otherwise than by PPP. */
  lost(cause: DisconnectCause): void {
    const link = this.#link
    this.#end()
    link?.carrierLost(cause)
  }

  // Carrier

  setMtu(mtuBytes: number): void {
    this.#sink.mtuBytes = Math.min(mtuBytes, this.mruBytes)
  }

  setSealer(sealer: FrameSealer): void {
    this.#sink.setSealer(sealer)
  }

  sendFrame(frame: Uint8Array): void {
    if (this.#isOver || !this.#sink.sendFrame(frame)) this.#options.count('l2tp-frame-dropped')
  }

  authenticated(): void {
    // IPsec has bound the call to its peer already.
  }

  close(cause: DisconnectCause): void {
    this.#end()
    this.#options.close(cause)
  }

  #end(): void {
    this.#isOver = true
    this.#link = undefined
    this.#sink.permit(false)
  }
}
