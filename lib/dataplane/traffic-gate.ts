/** What one session may send and get: its filter, then its rates. Sessions without limits have none. */
import type { RateLimits } from './dataplane.ts'
import type { Frame } from './frame.ts'
import type { PacketFilter } from './packet-filter.ts'
import type { PacketMemory } from './pinned-memory.ts'
import { Count, type Tally } from './tally.ts'
import { TokenBucket } from './token-bucket.ts'

const dropFiltered = Count['drop-filtered']
const dropRateLimited = Count['drop-rate-limited']

export class TrafficGate {
  readonly #memory: PacketMemory
  readonly #tally: Tally
  readonly #filter: PacketFilter | undefined
  readonly #fromClient: TokenBucket | undefined
  readonly #toClient: TokenBucket | undefined

  constructor(
    memory: PacketMemory,
    tally: Tally,
    filter: PacketFilter | undefined,
    rates: RateLimits | undefined,
    nowMs: number,
  ) {
    this.#memory = memory
    this.#tally = tally
    this.#filter = filter
    this.#fromClient = bucketOf(rates?.receiveBitsPerSecond, rates?.receiveBurstBytes, nowMs)
    this.#toClient = bucketOf(rates?.sendBitsPerSecond, rates?.sendBurstBytes, nowMs)
  }

  /** Whether the packet from the client may go on; if not, its drop is counted. */
  admitsFromClient(at: number, lengthBytes: number, nowMs: number): boolean {
    if (this.#filter?.permitsFromClient(this.#memory, at, lengthBytes) === false) {
      this.#tally.drop(dropFiltered, 1)
      return false
    }
    if (this.#fromClient === undefined || this.#fromClient.take(lengthBytes, nowMs)) return true
    this.#tally.drop(dropRateLimited, 1)
    return false
  }

  /** Likewise to the client. */
  admitsToClient(at: number, lengthBytes: number, nowMs: number): boolean {
    if (this.#filter?.permitsToClient(this.#memory, at, lengthBytes) === false) {
      this.#tally.drop(dropFiltered, 1)
      return false
    }
    if (this.#toClient === undefined || this.#toClient.take(lengthBytes, nowMs)) return true
    this.#tally.drop(dropRateLimited, 1)
    return false
  }

  /**
   * How many of the `packets` packets of a super-packet may go to the client, from the front. All
   * are of one flow, so the filter looks at it once; each counts for the rate with its own headers.
   */
  admittedPackets(frame: Frame, headerBytes: number, packets: number, nowMs: number): number {
    const at = frame.pieceAt[0] ?? 0
    if (this.#filter?.permitsToClient(this.#memory, at, frame.lengthBytes) === false) {
      this.#tally.drop(dropFiltered, packets)
      return 0
    }
    if (this.#toClient === undefined) return packets
    const admitted = this.#toClient.takePackets(
      packets,
      headerBytes,
      frame.segmentBytes,
      frame.lengthBytes - headerBytes,
      nowMs,
    )
    if (admitted < packets) this.#tally.drop(dropRateLimited, packets - admitted)
    return admitted
  }
}

function bucketOf(
  bitsPerSecond: number | undefined,
  burstBytes: number | undefined,
  nowMs: number,
): TokenBucket | undefined {
  return bitsPerSecond === undefined ? undefined : new TokenBucket(bitsPerSecond, burstBytes, nowMs)
}
