/** A rate in bits of IP per second with a burst, counted in bytes: what comes too soon is refused. */

/** Without a burst of its own, a bucket holds what flows in this time, ms. */
const defaultBurstMs = 250
/** About one super-packet of the host. */
const usualBurstBytes = 65_536
/** The largest packet of a tunnel must fit, or it would never pass. */
const leastBurstBytes = 9216

export class TokenBucket {
  readonly #bytesPerMs: number
  readonly #burstBytes: number
  #bytes: number
  #filledMs: number

  constructor(bitsPerSecond: number, burstBytes: number | undefined, nowMs: number) {
    this.#bytesPerMs = bitsPerSecond / 8000
    this.#burstBytes =
      burstBytes === undefined
        ? Math.max(usualBurstBytes, (bitsPerSecond / 8000) * defaultBurstMs)
        : Math.max(leastBurstBytes, burstBytes)
    this.#bytes = this.#burstBytes
    this.#filledMs = nowMs
  }

  /**
   * How many of `packets` packets may go, each `headerBytes` long plus its share of the payload: all
   * but the last carry `segmentBytes`. What goes is taken out.
   */
  takePackets(
    packets: number,
    headerBytes: number,
    segmentBytes: number,
    payloadBytes: number,
    nowMs: number,
  ): number {
    const allBytes = packets * headerBytes + payloadBytes
    if (this.take(allBytes, nowMs)) return packets
    const fitting = Math.floor(this.#bytes / (headerBytes + segmentBytes))
    const most = Math.min(fitting, packets - 1)
    this.#bytes -= most * (headerBytes + segmentBytes)
    return most
  }

  /** Takes the bytes of one packet out, if they are there. */
  take(lengthBytes: number, nowMs: number): boolean {
    if (nowMs > this.#filledMs) {
      const filled = this.#bytes + (nowMs - this.#filledMs) * this.#bytesPerMs
      this.#bytes = Math.min(filled, this.#burstBytes)
      this.#filledMs = nowMs
    }
    if (this.#bytes < lengthBytes) return false
    this.#bytes -= lengthBytes
    return true
  }
}
