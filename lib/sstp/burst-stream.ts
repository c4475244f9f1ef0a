/**
 * The way from a call into TLS, where every burst ends with a record that holds one frame.
 *
 * A TLS record may carry many frames, and what is written at the same time becomes one record. But a
 * client that reads one frame at a time, and then asks the socket alone whether there is more, finds
 * the others of the last record only when the next one comes: so does sstpc up to 1.0.18, and the end
 * of each burst would be late by a retransmission, or for ever. So the last frame is kept until all
 * before it has left, and then is a record of its own. Where more has come by then, it leaves with that:
 * while packets flow there are no more records than there would be without this.
 */
import type { ByteStream } from './byte-stream.ts'
import { frameBytes } from './wire/frame.ts'

interface Write {
  readonly bytes: Uint8Array
  readonly callback: () => void
}

/** A stream of Node, or a double in tests. */
export interface GatheringStream extends ByteStream {
  /** What is written from here on until `uncork` leaves together. */
  cork(): void
  uncork(): void
}

/** When things are done that are not done at once. */
export interface Turns {
  /** Before the event loop looks for anything else. */
  soon(work: () => void): void
  /** After it has looked once. */
  later(work: () => void): void
}

const eventLoop: Turns = {
  soon: work => process.nextTick(work),
  later: work => void setImmediate(work),
}

export class BurstStream implements ByteStream {
  readonly #stream: GatheringStream
  readonly #turns: Turns
  #waiting: Write[] = []
  /** Writes handed to the stream that have not left yet. */
  #underWay = 0
  #isPlanned = false

  constructor(stream: GatheringStream, turns: Turns = eventLoop) {
    this.#stream = stream
    this.#turns = turns
  }

  /** `bytes` are whole frames. */
  write(bytes: Uint8Array, callback: () => void, headroomBytes = 0): void {
    this.#waiting.push(this.#joined({ bytes, callback }, headroomBytes))
    if (this.#isPlanned || this.#underWay > 0) return
    this.#isPlanned = true
    this.#turns.soon(() => {
      this.#isPlanned = false
      this.#send()
    })
  }

  /** This is not the end of the burst, nor is what waits: both leave now. */
  writeOn(bytes: Uint8Array, callback: () => void, headroomBytes = 0): void {
    const write = this.#joined({ bytes, callback }, headroomBytes)
    this.#sendAll()
    this.#pass(write)
  }

  end(): void {
    this.#sendAll()
    this.#stream.end()
  }

  destroy(): void {
    this.#sendAll()
    this.#stream.destroy()
  }

  /** One frame is a record of its own; of several, all but the last leave now. */
  #send(): void {
    if (this.#underWay > 0) return
    const last = this.#waiting.pop()
    if (last === undefined) return
    const { bytes, callback } = last
    const lastAt = lastFrameAt(bytes)
    if (lastAt === 0 && this.#waiting.length === 0) {
      this.#pass(last)
      return
    }
    this.#stream.cork()
    for (const one of this.#waiting) this.#pass(one)
    if (lastAt > 0) this.#pass({ bytes: bytes.subarray(0, lastAt), callback: nothing })
    this.#waiting = [{ bytes: bytes.subarray(lastAt), callback }]
    this.#stream.uncork()
  }

  /** With the end of the burst before in front of it, where there is room: as one piece it is not copied again. */
  #joined(write: Write, headroomBytes: number): Write {
    const [kept] = this.#waiting
    if (kept === undefined || this.#waiting.length > 1) return write
    const { length } = kept.bytes
    if (length > headroomBytes) return write
    this.#waiting.pop()
    const { buffer, byteOffset } = write.bytes
    const bytes = new Uint8Array(buffer, byteOffset - length, length + write.bytes.length)
    bytes.set(kept.bytes)
    const callback = () => {
      kept.callback()
      write.callback()
    }
    return { bytes, callback }
  }

  #sendAll(): void {
    for (const one of this.#waiting.splice(0)) this.#pass(one)
  }

  #pass({ bytes, callback }: Write): void {
    this.#underWay++
    this.#stream.write(bytes, () => {
      this.#underWay--
      callback()
      if (this.#underWay > 0 || this.#waiting.length === 0) return
      // The end of a burst alone waits for what the event loop finds: the burst may go on.
      if (this.#waiting.length > 1) this.#send()
      else this.#turns.later(() => this.#send())
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
