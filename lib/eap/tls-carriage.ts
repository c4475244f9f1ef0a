/**
 * How EAP methods carry TLS records, RFC 5216 §3.1 (RFC 5281 §9.1 and [MS-PEAP] §2.2.2 alike), as the
 * server: cut into packets, put together again, in lock-step.
 *
 *  |L M S R R V V V|  TLS Message Length, 4 bytes when L is set  |  TLS Data ...
 */
import { concatBytes, copyBytes, putU32, u32 } from '../core/bytes.ts'

const FLAG_LENGTH = 0x80
const FLAG_MORE = 0x40
const FLAG_START = 0x20
const LENGTH_BYTES = 4
/** EAP header, type and flags before the data. */
const OVERHEAD_BYTES = 6
/** Ours: longest message that a peer may send; a chain of certificates takes a few KiB. */
export const MESSAGE_MAX_BYTES = 65_536
/** Ours: pieces that it may come in, so that one byte at a time is no way to keep us busy. */
const FRAGMENTS_MAX = 128

export type Carried =
  /** A whole message; empty when the peer only acknowledges what it got. */
  | { readonly type: 'message'; readonly bytes: Uint8Array }
  /** Send this and wait: an acknowledgement, or the next piece of ours. */
  | { readonly type: 'reply'; readonly typeData: Uint8Array }
  | { readonly type: 'fault'; readonly what: string }

export class TlsCarriage {
  readonly #packetBytes: number
  #outgoing: Uint8Array = new Uint8Array(0)
  #sentBytes = 0
  #incoming: Uint8Array[] = []
  #incomingBytes = 0
  #announcedBytes: number | undefined

  /** `packetBytes`: longest EAP packet that may be sent. */
  constructor(packetBytes: number) {
    this.#packetBytes = packetBytes
  }

  /** The first Request of a method. */
  start(): Uint8Array {
    return Uint8Array.of(FLAG_START)
  }

  /** The first packet of a message; the others follow from `receive`. Empty: an acknowledgement. */
  send(message: Uint8Array): Uint8Array {
    this.#outgoing = message
    this.#sentBytes = 0
    return this.#nextPiece()
  }

  /** A Response's type-data. */
  receive(typeData: Uint8Array): Carried {
    const flags = typeData[0]
    if (flags === undefined) return fault('eap-tls-without-flags')
    if ((flags & FLAG_START) !== 0) return fault('eap-tls-start-from-peer')
    const hasLength = (flags & FLAG_LENGTH) !== 0
    const dataAt = hasLength ? 1 + LENGTH_BYTES : 1
    if (typeData.length < dataAt) return fault('eap-tls-truncated')
    const dataBytes = typeData.length - dataAt
    if (this.#sentBytes < this.#outgoing.length) {
      if (dataBytes > 0) return fault('eap-tls-not-acknowledged')
      return { type: 'reply', typeData: this.#nextPiece() }
    }
    const announced = hasLength ? u32(typeData, 1) : undefined
    return this.#piece(copyBytes(typeData, dataAt, typeData.length), announced, flags)
  }

  #piece(data: Uint8Array, announced: number | undefined, flags: number): Carried {
    const isMore = (flags & FLAG_MORE) !== 0
    if (announced !== undefined) {
      if (announced > MESSAGE_MAX_BYTES) return fault('eap-tls-oversize')
      this.#announcedBytes ??= announced
      if (this.#announcedBytes !== announced) return fault('eap-tls-length-changed')
    }
    if (isMore && data.length === 0) return fault('eap-tls-empty-fragment')
    this.#incomingBytes += data.length
    const limitBytes = this.#announcedBytes ?? MESSAGE_MAX_BYTES
    if (this.#incomingBytes > limitBytes) return fault('eap-tls-length-overrun')
    if (this.#incoming.push(data) > FRAGMENTS_MAX) return fault('eap-tls-too-many-fragments')
    if (isMore) return { type: 'reply', typeData: Uint8Array.of(0) }
    if (this.#announcedBytes !== undefined && this.#incomingBytes < this.#announcedBytes) {
      return fault('eap-tls-length-short')
    }
    const bytes = concatBytes(...this.#incoming)
    this.#incoming = []
    this.#incomingBytes = 0
    this.#announcedBytes = undefined
    return { type: 'message', bytes }
  }

  #nextPiece(): Uint8Array {
    const room = this.#packetBytes - OVERHEAD_BYTES
    const leftBytes = this.#outgoing.length - this.#sentBytes
    const isFirst = this.#sentBytes === 0
    const isWhole = leftBytes <= room
    // The length stands in the first piece of several, where it is needed.
    const lengthBytes = isFirst && !isWhole ? LENGTH_BYTES : 0
    const dataBytes = Math.min(leftBytes, room - lengthBytes)
    const out = new Uint8Array(1 + lengthBytes + dataBytes)
    out[0] = (lengthBytes > 0 ? FLAG_LENGTH : 0) | (dataBytes < leftBytes ? FLAG_MORE : 0)
    if (lengthBytes > 0) putU32(out, 1, this.#outgoing.length)
    out.set(this.#outgoing.subarray(this.#sentBytes, this.#sentBytes + dataBytes), 1 + lengthBytes)
    this.#sentBytes += dataBytes
    return out
  }
}

function fault(what: string): Carried {
  return { type: 'fault', what }
}
