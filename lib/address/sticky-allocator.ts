/**
 * Numbers from 0 up, given out and taken back in constant time however many there are. Who comes
 * again gets the number of before, as long as nobody needed it in between.
 */

export interface Usability {
  /**
   * The first number at or after `index` that may be given out without being asked for by name;
   * `Infinity` when there is none. Exclusions are stepped over as a whole.
   */
  nextUsable(index: number): number
}

export class StickyAllocator {
  readonly #usability: Usability
  /** Number -> owner. */
  readonly #held = new Map<number, string>()
  /** Given back, the longest free first: number -> last owner. */
  readonly #free = new Map<number, string>()
  /** Owner -> the number that was given back last. */
  readonly #lastOf = new Map<string, number>()
  /** Everything below has been given out once. */
  #fresh = 0

  constructor(usability: Usability) {
    this.#usability = usability
  }

  get heldCount(): number {
    return this.#held.size
  }

  isHeld(index: number): boolean {
    return this.#held.has(index)
  }

  /** This very number; false when somebody has it. */
  takeExactly(index: number, owner: string): boolean {
    if (this.#held.has(index)) return false
    this.#unfree(index)
    this.#held.set(index, owner)
    return true
  }

  /** The owner's number of before, else one that nobody had, else the one that is free the longest. */
  take(owner: string): number | undefined {
    const index = this.#previousOf(owner) ?? this.#takeFresh() ?? this.#longestFree()
    if (index === undefined) return undefined
    this.#unfree(index)
    this.#held.set(index, owner)
    return index
  }

  /** False when nobody had it. */
  release(index: number): boolean {
    const owner = this.#held.get(index)
    if (owner === undefined) return false
    this.#held.delete(index)
    this.#remember(index, owner)
    return true
  }

  /** Who had what, for the next start: `[index, owner]`, the longest free first, then those held. */
  history(): [number, string][] {
    return [...this.#free, ...this.#held]
  }

  /** Takes up what `history` told, as free. */
  restore(history: Iterable<readonly [number, string]>): void {
    for (const [index, owner] of history) {
      if (this.#held.has(index) || this.#usability.nextUsable(index) !== index) continue
      this.#unfree(index)
      this.#remember(index, owner)
    }
  }

  #remember(index: number, owner: string): void {
    this.#free.set(index, owner)
    this.#lastOf.set(owner, index)
  }

  #unfree(index: number): void {
    const owner = this.#free.get(index)
    if (owner === undefined) return
    this.#free.delete(index)
    if (this.#lastOf.get(owner) === index) this.#lastOf.delete(owner)
  }

  #previousOf(owner: string): number | undefined {
    const index = this.#lastOf.get(owner)
    if (index === undefined || this.#held.has(index)) return undefined
    return this.#usability.nextUsable(index) === index ? index : undefined
  }

  #takeFresh(): number | undefined {
    for (;;) {
      const index = this.#usability.nextUsable(this.#fresh)
      if (index === Number.POSITIVE_INFINITY) return undefined
      this.#fresh = index + 1
      // Those that were asked for by name, or restored, have been given out before.
      if (!this.#held.has(index) && !this.#free.has(index)) return index
    }
  }

  #longestFree(): number | undefined {
    for (const index of this.#free.keys()) {
      // Others are kept for those who may ask for them by name.
      if (this.#usability.nextUsable(index) === index) return index
    }
    return undefined
  }
}
