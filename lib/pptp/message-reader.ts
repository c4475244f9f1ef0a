/** Cuts the stream of a control connection into messages; TCP splits and joins them as it likes. */
import { copyBytes } from '../core/bytes.ts'
import { WireFault } from '../core/faults.ts'
import {
  type ControlMessage,
  MAX_MESSAGE_BYTES,
  needMore,
  parseMessage,
  wholeMessage,
} from './wire/control-message.ts'

export class MessageReader {
  /** The beginning of a message that is not whole; it never grows past the longest. */
  readonly #kept = new Uint8Array(MAX_MESSAGE_BYTES)
  #keptBytes = 0

  /** A message has begun and has not ended. */
  get isPartial(): boolean {
    return this.#keptBytes > 0
  }

  /**
   * Gives each whole message to `take`, which returns whether more is wanted. Returns what is wrong
   * with the stream, which cannot be read on then.
   */
  read(chunk: Uint8Array, take: (message: ControlMessage) => boolean): WireFault {
    let at = 0
    // First what completes the message that was cut.
    while (this.#keptBytes > 0 && at < chunk.length) {
      const before = this.#keptBytes
      const taken = Math.min(MAX_MESSAGE_BYTES - before, chunk.length - at)
      this.#kept.set(chunk.subarray(at, at + taken), before)
      const length = wholeMessage(this.#kept, 0, before + taken)
      if (length === needMore) {
        this.#keptBytes += taken
        return WireFault.none
      }
      this.#keptBytes = 0
      if (length < 0) return -length as WireFault
      at += length - before
      if (!take(parseMessage(this.#kept, 0))) return WireFault.none
    }
    while (at < chunk.length) {
      const length = wholeMessage(chunk, at, chunk.length)
      if (length === needMore) {
        this.#kept.set(copyBytes(chunk, at)) // copied: outlives the chunk
        this.#keptBytes = chunk.length - at
        break
      }
      if (length < 0) return -length as WireFault
      const message = parseMessage(chunk, at)
      at += length
      if (!take(message)) break
    }
    return WireFault.none
  }
}
