/**
 * Fragments of whole ISAKMP messages, as Microsoft and Cisco send them: payload type 132, announced
 * by the FRAGMENTATION vendor ID.
 *
 *     |   next (0)    |   reserved    |            length             |
 *     |          fragment ID          |    number     | flags: 1=last |
 */
import { copyBytes, putBytes, putU16, u16 } from '../core/bytes.ts'
import { WireFault } from '../core/faults.ts'
import { encodeHeader, HEADER_BYTES, LONGEST_MESSAGE_BYTES, parseHeader } from './wire/header.ts'
import { PayloadType } from './wire/numbers.ts'

const FRAGMENT_HEADER_BYTES = 8
const lastFlag = 1

/** Implementation constants. */
const mostFragments = 32
/** Fits into an IPv6 minimum MTU with UDP and the non-ESP marker. */
const fragmentDataBytes = 1_180
export const largestUnfragmentedBytes = HEADER_BYTES + FRAGMENT_HEADER_BYTES + fragmentDataBytes

/** Cuts a message that is too long for one datagram. */
export function fragment(message: Uint8Array, fragmentId: number): Uint8Array[] {
  const header = parseHeader(message, 0)
  const out: Uint8Array[] = []
  for (let at = 0; at < message.length; at += fragmentDataBytes) {
    const data = message.subarray(at, at + fragmentDataBytes)
    const bytes = new Uint8Array(HEADER_BYTES + FRAGMENT_HEADER_BYTES + data.length)
    const whole = {
      ...header,
      nextPayload: PayloadType.fragment,
      flags: 0,
      length: bytes.length,
    }
    let to = encodeHeader(whole, bytes, 0)
    to = putU16(bytes, to + 2, FRAGMENT_HEADER_BYTES + data.length)
    to = putU16(bytes, to, fragmentId)
    bytes[to] = out.length + 1
    bytes[to + 1] = at + data.length >= message.length ? lastFlag : 0
    putBytes(bytes, to + 2, data)
    out.push(bytes)
  }
  return out
}

/** Puts the fragments of one message together. One at a time: a new ID drops the old one. */
export class Reassembly {
  #fragmentId = -1
  #lastNumber = 0
  #bytes = 0
  readonly #parts = new Map<number, Uint8Array>()

  /** The whole message, `undefined` while parts are missing, or what is wrong. */
  add(datagram: Uint8Array): Uint8Array | WireFault | undefined {
    const at = HEADER_BYTES
    const { length } = parseHeader(datagram, 0)
    if (length < at + FRAGMENT_HEADER_BYTES) return WireFault.truncated
    const payloadBytes = u16(datagram, at + 2)
    if (payloadBytes <= FRAGMENT_HEADER_BYTES) return WireFault['length-too-small']
    if (at + payloadBytes > length) return WireFault['length-overrun']
    const fragmentId = u16(datagram, at + 4)
    const number = datagram[at + 6] ?? 0
    if (number === 0 || number > mostFragments) return WireFault['too-many']
    if (fragmentId !== this.#fragmentId) {
      this.clear()
      this.#fragmentId = fragmentId
    }
    if (this.#parts.has(number)) return undefined
    const dataBytes = payloadBytes - FRAGMENT_HEADER_BYTES
    if (this.#bytes + dataBytes > LONGEST_MESSAGE_BYTES) {
      this.clear()
      return WireFault.oversize
    }
    // copied: outlives the burst
    const data = copyBytes(datagram, at + FRAGMENT_HEADER_BYTES, at + payloadBytes)
    this.#parts.set(number, data)
    this.#bytes += dataBytes
    if (((datagram[at + 7] ?? 0) & lastFlag) !== 0) this.#lastNumber = number
    if (this.#lastNumber === 0 || this.#parts.size < this.#lastNumber) return undefined
    const whole = new Uint8Array(this.#bytes)
    let to = 0
    for (let i = 1; i <= this.#lastNumber; i++) {
      const part = this.#parts.get(i)
      if (part === undefined) {
        this.clear()
        return WireFault.missing
      }
      to = putBytes(whole, to, part)
    }
    this.clear()
    return to === whole.length ? whole : WireFault['bad-value']
  }

  clear(): void {
    this.#fragmentId = -1
    this.#lastNumber = 0
    this.#bytes = 0
    this.#parts.clear()
  }
}
