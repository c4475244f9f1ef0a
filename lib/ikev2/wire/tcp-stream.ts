/**
 * IKE and ESP over TCP, RFC 9329 §3: after the prefix `IKETCP` come messages of
 *
 *  |            Length             |  non-ESP marker and IKE, or ESP  |
 *
 * Length counts itself. The stream prefix is sent once, by the side that opened the connection.
 */
import { putBytes, putU16, u16, u32 } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'

/** RFC 9329 §4: "IKETCP". */
export const STREAM_PREFIX = Uint8Array.of(0x49, 0x4b, 0x45, 0x54, 0x43, 0x50)
const LENGTH_BYTES = 2
/** RFC 3948 §2.2. */
const NON_ESP_MARKER_BYTES = 4
const MESSAGE_MAX_BYTES = 65_535 - LENGTH_BYTES

export type StreamMessage =
  | { readonly type: 'ike'; readonly bytes: Uint8Array }
  | { readonly type: 'esp'; readonly bytes: Uint8Array }

/** A message framed for the stream. */
export function frameMessage(message: StreamMessage): Uint8Array {
  const markerBytes = message.type === 'ike' ? NON_ESP_MARKER_BYTES : 0
  const out = new Uint8Array(LENGTH_BYTES + markerBytes + message.bytes.length)
  putU16(out, 0, out.length)
  putBytes(out, LENGTH_BYTES + markerBytes, message.bytes)
  return out
}

/**
 * Cuts a stream into messages. Holds at most one message of 64 KiB; what it returns are copies. After a
 * fault the connection has to be closed (RFC 9329 §6.1).
 */
export class StreamReader {
  #buffer: Uint8Array = new Uint8Array(4096)
  #length = 0
  #needsPrefix: boolean
  #fault: WireFault = WireFault.none

  /** `expectsPrefix`: the peer opened the connection. */
  constructor(expectsPrefix: boolean) {
    this.#needsPrefix = expectsPrefix
  }

  get fault(): WireFault {
    return this.#fault
  }

  push(chunk: Uint8Array): StreamMessage[] {
    const messages: StreamMessage[] = []
    for (let at = 0; at < chunk.length && !this.#fault; ) {
      const take = Math.min(chunk.length - at, MESSAGE_MAX_BYTES + LENGTH_BYTES - this.#length)
      this.#append(chunk.subarray(at, at + take))
      at += take
      this.#cut(messages)
    }
    return messages
  }

  #append(bytes: Uint8Array): void {
    const needed = this.#length + bytes.length
    if (needed > this.#buffer.length) {
      // Grown by what has come, not by what is promised.
      const grown = new Uint8Array(Math.max(needed, 2 * this.#buffer.length))
      grown.set(this.#buffer.subarray(0, this.#length))
      this.#buffer = grown
    }
    this.#buffer.set(bytes, this.#length)
    this.#length = needed
  }

  #cut(messages: StreamMessage[]): void {
    let at = 0
    if (this.#needsPrefix) {
      const known = Math.min(this.#length, STREAM_PREFIX.length)
      for (let i = 0; i < known; i++) {
        if (this.#buffer[i] !== STREAM_PREFIX[i]) this.#fault = WireFault['bad-magic']
      }
      if (this.#fault || known < STREAM_PREFIX.length) return
      this.#needsPrefix = false
      at = STREAM_PREFIX.length
    }
    while (this.#length - at >= LENGTH_BYTES) {
      const lengthBytes = u16(this.#buffer, at)
      if (lengthBytes < LENGTH_BYTES + 1) {
        this.#fault = WireFault['length-too-small']
        return
      }
      if (this.#length - at < lengthBytes) break
      messages.push(this.#message(at + LENGTH_BYTES, at + lengthBytes))
      at += lengthBytes
    }
    this.#buffer.copyWithin(0, at, this.#length)
    this.#length -= at
  }

  #message(at: number, end: number): StreamMessage {
    const isIke = end - at >= NON_ESP_MARKER_BYTES && u32(this.#buffer, at) === 0
    return isIke
      ? { type: 'ike', bytes: this.#buffer.slice(at + NON_ESP_MARKER_BYTES, end) }
      : { type: 'esp', bytes: this.#buffer.slice(at, end) }
  }
}
