/**
 * Why ESP did not carry a packet. Negative numbers, so that one return value is either a length or a
 * reason; the names are those of the counters.
 */

export const EspDrop = {
  /** Shorter than header, IV, trailer and ICV. */
  truncated: -1,
  /** The encrypted part is not a whole number of cipher blocks, or not aligned (RFC 4303 §2.4). */
  misaligned: -2,
  /** No SA has this SPI. */
  'unknown-spi': -3,
  /** Sequence number 0, which no sender uses (RFC 4303 §3.4.3). */
  'zero-sequence': -4,
  /** Seen before. */
  replayed: -5,
  /** Behind the replay window. */
  'too-old': -6,
  /** The ICV is wrong. */
  'not-authentic': -7,
  /** The padding is longer than the packet or its bytes are not 1, 2, 3… */
  'bad-padding': -8,
  /** A dummy packet (next header 59), discarded without fault (RFC 4303 §2.6). */
  dummy: -9,
  /** IP-TFS payload (next header 144, RFC 9347), which is not negotiated. */
  aggfrag: -10,
  /** Tunnel mode carries IPv4 and IPv6 only, and the next header must say which. */
  'wrong-next-header': -11,
  /** The inner IP header does not fit the bytes that came. */
  'bad-inner-packet': -12,
  /** The inner packet is outside the traffic selectors (RFC 4301 §5.2). */
  'selector-mismatch': -13,
  /** A hard lifetime has run out. */
  expired: -14,
  /** The sequence number would repeat (RFC 4303 §3.3.3). */
  'sequence-exhausted': -15,
  /** The crypto library refused. */
  'cipher-failed': -16,
  /** The SA was deleted. */
  closed: -17,
} as const

export type EspDrop = (typeof EspDrop)[keyof typeof EspDrop]

const names: readonly string[] = Object.keys(EspDrop)

/** The counter's name of a negative result. */
export function espDropName(drop: number): string {
  return names[-drop - 1] ?? 'none'
}

/** One counter per reason. Takes no memory until something is dropped. */
export class DropCounters {
  #counts: Float64Array | undefined

  count(drop: EspDrop): void {
    this.#counts ??= new Float64Array(names.length + 1)
    this.#counts[-drop] = (this.#counts[-drop] ?? 0) + 1
  }

  get(drop: EspDrop): number {
    return this.#counts?.[-drop] ?? 0
  }

  /** Only the reasons that happened, by name. */
  toJSON(): Record<string, number> {
    const seen: Record<string, number> = {}
    for (const [name, drop] of Object.entries(EspDrop)) {
      const count = this.get(drop)
      if (count > 0) seen[name] = count
    }
    return seen
  }
}
