/**
 * Everything that the dataplane counts, by number: each port has a tally, and the dataplane one for
 * what is no port's and for ports that are gone; status adds them up. Each `drop-…` names the one reason why a packet went no further.
 */

const counterNames = [
  /** From the client, good or bad, as IP packets. */
  'received-packets',
  'received-bytes',
  /** Committed to the client's sink. */
  'sent-packets',
  'sent-bytes',
  /** The sum of all `drop-…`. */
  'dropped-packets',
  /** One frame is one packet, or one super-packet that stands for many. */
  'tun-read-frames',
  'tun-read-bytes',
  'tun-written-frames',
  'tun-written-bytes',
  /** Packets that travelled to the TUN inside another packet's frame. */
  'coalesced-packets',
  'bursts',
  /** Reads that ended because the burst was full, with more to read. */
  'bursts-cut-short',
  'intake-overflows',
  'client-to-client-packets',
  'link-packets',
  /** IPv4 broadcast and multicast that is not DHCP: name lookups and discovery. */
  'ipv4-broadcasts',
  'mss-clamped',
  'fragments-made',
  'icmp-answers',
  /** ICMP errors that were due and not sent: rate limit, or the packet must not be answered. */
  'icmp-suppressed',
  'drop-malformed',
  'drop-spoofed-source',
  /** A link-local source asks to be forwarded (RFC 4291 §2.5.6). */
  'drop-link-local-source',
  'drop-bad-destination',
  'drop-no-route',
  'drop-no-room',
  'drop-too-big',
  'drop-ttl-expired',
  'drop-client-to-client-forbidden',
  'drop-hairpin',
  'drop-detached',
  /** Multicast and link-local packets of this host on the TUN: nobody there to hear them. */
  'drop-host-multicast',
  'drop-bad-frame',
  /** Not permitted by the session's filter. */
  'drop-filtered',
  /** More than the session's rate. */
  'drop-rate-limited',
  'drop-device-refused',
  'drop-device-stopped',
] as const

export type CounterName = (typeof counterNames)[number]

type CounterIndex = { readonly [name in CounterName]: number }

/** The number of each counter. */
export const Count: CounterIndex = Object.fromEntries(
  counterNames.map((name, index) => [name, index]),
) as CounterIndex

const droppedPackets = Count['dropped-packets']

/** Of those who have not counted yet: most ports of idle sessions never do. */
const noCounts = new Float64Array(0)

export class Tally {
  #counts = noCounts

  count(counter: number, by: number): void {
    if (this.#counts === noCounts) this.#counts = new Float64Array(counterNames.length)
    this.#counts[counter] = (this.#counts[counter] ?? 0) + by
  }

  /** Adds all that `other` has counted so far. */
  add(other: Tally): void {
    for (let i = 0; i < counterNames.length; i++) this.count(i, other.get(i))
  }

  /** Counts `packets` dropped for `reason`, one of the `drop-…` counters. */
  drop(reason: number, packets: number): void {
    this.count(reason, packets)
    this.count(droppedPackets, packets)
  }

  get(counter: number): number {
    return this.#counts[counter] ?? 0
  }

  /** Only what happened, by name. */
  toJSON(): Record<string, number> {
    const seen: Record<string, number> = {}
    for (const name of counterNames) {
      const count = this.get(Count[name])
      if (count > 0) seen[name] = count
    }
    return seen
  }
}
