/**
 * What can be wrong with bytes from a peer. A fault is a small integer that codecs return and
 * listeners count; it is never thrown (a thrown error costs about a thousand times more, and
 * strangers choose how often).
 */

/** `WireFault.none` is 0, so `if (fault)` reads as "if it is malformed". */
export const WireFault = {
  none: 0,
  /** Fewer bytes than the fixed part or than the length field promises. */
  truncated: 1,
  /** A length field smaller than the header that holds it, or that makes no progress. */
  'length-too-small': 2,
  /** A length field that reaches past its container. */
  'length-overrun': 3,
  /** Longer than we are willing to hold. */
  oversize: 4,
  'bad-version': 5,
  /** A magic number, cookie or fixed constant differs. */
  'bad-magic': 6,
  /** A field has a value that its specification does not allow. */
  'bad-value': 7,
  /** A reserved bit or flag combination that must not appear. */
  'bad-flags': 8,
  'unknown-type': 9,
  /** Something that may appear once appears twice. */
  duplicate: 10,
  /** Something mandatory is absent. */
  missing: 11,
  'bad-checksum': 12,
  /** More elements than we are willing to parse. */
  'too-many': 13,
  /** Not text, or text with characters that its specification does not allow. */
  'bad-text': 14,
} as const

export type WireFault = (typeof WireFault)[keyof typeof WireFault]

const names: readonly string[] = Object.keys(WireFault)

/** The name of a fault for counters and logs. */
export function faultName(fault: WireFault): string {
  return names[fault] ?? 'none'
}

/** One counter per fault; a protocol owns one of these. */
export class FaultCounters {
  readonly #counts = new Float64Array(names.length)

  count(fault: WireFault): void {
    this.#counts[fault] = (this.#counts[fault] ?? 0) + 1
  }

  get(fault: WireFault): number {
    return this.#counts[fault] ?? 0
  }

  /** Only the faults that happened, by name. */
  toJSON(): Record<string, number> {
    const seen: Record<string, number> = {}
    for (const [name, fault] of Object.entries(WireFault)) {
      const count = this.get(fault)
      if (fault !== WireFault.none && count > 0) seen[name] = count
    }
    return seen
  }
}

/** Named counters for everything else that happens: refusals, drops, unexpected messages. */
export class Counters {
  /** Made by the first count. */
  #counts: Map<string, number> | undefined

  count(name: string, by = 1): void {
    this.#counts ??= new Map()
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + by)
  }

  get(name: string): number {
    return this.#counts?.get(name) ?? 0
  }

  toJSON(): Record<string, number> {
    return Object.fromEntries([...(this.#counts ?? [])].sort(([a], [b]) => (a < b ? -1 : 1)))
  }
}
