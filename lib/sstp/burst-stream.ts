/**
 * The way from a call into TLS, where every burst ends with a record that holds one frame.
 *
 * A TLS record may carry many frames, and several writes become one record when they wait for the
 * same one before them. But a client that reads one frame a time, and then asks the socket alone
 * whether there is more, finds the others of the last record only when the next one comes: so does
 * sstpc up to 1.0.18, and the end of each burst would be late by as much as a whole second or a
 * retransmission. So the last frame is kept until all before it is gone, and then is a write of its
 * own. What comes meanwhile is sent with it, and is the burst's new end.
 */
import type { ByteStream } from './byte-stream.ts'
import { frameBytes } from './wire/frame.ts'

interface Write {
  readonly bytes: Uint8Array
  readonly callback: () => void
}

export class BurstStream implements ByteStream {
  readonly #stream: ByteStream
  /** Handed to the stream, and not yet said to have left. */
  #underWay = 0
  /** The end of the burst; only while something is under way, whose callback sends it. */
  #held: Write | undefined

  constructor(stream: ByteStream) {
    this.#stream = stream
  }

  /** `bytes` are whole frames. */
  write(bytes: Uint8Array, callback: () => void): void {
    this.#passHeld()
    if (this.#underWay > 0) this.#held = { bytes, callback }
    else this.#writeApart(bytes, callback)
  }

  end(): void {
    this.#passHeld()
    this.#stream.end()
  }

  destroy(): void {
    this.#passHeld()
    this.#stream.destroy()
  }

  /** While nothing is under way: all but the last frame, which follows. */
  #writeApart(bytes: Uint8Array, callback: () => void): void {
    const lastAt = lastFrameAt(bytes)
    if (lastAt > 0) {
      this.#held = { bytes: bytes.subarray(lastAt), callback }
      this.#pass(bytes.subarray(0, lastAt), nothing)
    } else this.#pass(bytes, callback)
  }

  #passHeld(): void {
    const held = this.#held
    if (held === undefined) return
    this.#held = undefined
    this.#pass(held.bytes, held.callback)
  }

  #pass(bytes: Uint8Array, callback: () => void): void {
    this.#underWay++
    this.#stream.write(bytes, () => {
      this.#underWay--
      callback()
      const held = this.#held
      if (held === undefined || this.#underWay > 0) return
      this.#held = undefined
      this.#writeApart(held.bytes, held.callback)
    })
  }
}

function nothing(): void {}

function lastFrameAt(bytes: Uint8Array): number {
  let lastAt = 0
  for (let at = 0; at < bytes.length; ) {
    const length = frameBytes(bytes, at, bytes.length)
    if (length <= 0) break
    lastAt = at
    at += length
  }
  return lastAt
}
