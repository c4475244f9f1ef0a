/**
 * Two kinds of timer. A machine keeps named deadlines in a `TimerTable` and owns no operating-system
 * timer; drivers hang their machine's next deadline on the one `TimerWheel` of the process.
 */

const nothing: readonly never[] = []

/**
 * Named deadlines of one machine, in monotonic milliseconds: a handful at most, in two lists of one
 * length, because a map for each of thousands of machines takes twice the memory.
 */
export class TimerTable<Name extends string> {
  #names: readonly Name[] = nothing
  #deadlines: readonly number[] = nothing

  set(name: Name, deadlineMs: number): void {
    const at = this.#names.indexOf(name)
    if (at >= 0) {
      this.#deadlines = this.#deadlines.with(at, deadlineMs)
      return
    }
    // A spread array keeps room for sixteen more, a concatenated one for none.
    this.#names = this.#names.concat(name)
    this.#deadlines = this.#deadlines.concat(deadlineMs)
  }

  clear(name: Name): void {
    const at = this.#names.indexOf(name)
    if (at < 0) return
    this.#names = this.#names.toSpliced(at, 1)
    this.#deadlines = this.#deadlines.toSpliced(at, 1)
  }

  clearAll(): void {
    this.#names = nothing
    this.#deadlines = nothing
  }

  isSet(name: Name): boolean {
    return this.#names.includes(name)
  }

  /** The earliest deadline, `Infinity` when none is set. */
  nextDeadlineMs(): number {
    let next = Number.POSITIVE_INFINITY
    for (const deadline of this.#deadlines) if (deadline < next) next = deadline
    return next
  }

  /** Removes and returns the earliest timer that has run out, or undefined. */
  takeExpired(nowMs: number): Name | undefined {
    const deadlineMs = this.nextDeadlineMs()
    if (deadlineMs > nowMs) return undefined
    const name = this.#names[this.#deadlines.indexOf(deadlineMs)]
    if (name !== undefined) this.clear(name)
    return name
  }
}

/** Something that wants to be called at or after a time. One entry is on the wheel at most once. */
export interface WheelEntry {
  /**
   * Called once per `schedule`, never before the time asked for, and at the first `advance` that is a
   * tick or more after it.
   */
  onDeadline(nowMs: number): void
}

interface Slot {
  readonly entries: Map<WheelEntry, number>
}

/**
 * A hashed timing wheel: scheduling, moving and cancelling cost the same for ten entries as for ten
 * thousand, and the process needs one operating-system timer.
 */
export class TimerWheel {
  readonly #tickMs: number
  readonly #slots: Slot[] = []
  readonly #slotOf = new Map<WheelEntry, Slot>()
  #lastTick: number
  #interval: NodeJS.Timeout | undefined

  constructor(nowMs: number, { tickMs = 50, slots = 512 } = {}) {
    this.#tickMs = tickMs
    this.#lastTick = Math.floor(nowMs / tickMs)
    for (let i = 0; i < slots; i++) this.#slots.push({ entries: new Map() })
  }

  /**
   * How much after its time an entry of a started wheel may come while nothing holds up the event loop,
   * ms: a tick by which times are rounded up, and another until the interval comes round.
   */
  get latenessMs(): number {
    return 2 * this.#tickMs
  }

  /** Calls `entry` at `deadlineMs`; replaces what it was scheduled for. `Infinity` cancels. */
  schedule(entry: WheelEntry, deadlineMs: number): void {
    this.cancel(entry)
    if (deadlineMs === Number.POSITIVE_INFINITY) return
    const tick = Math.max(Math.ceil(deadlineMs / this.#tickMs), this.#lastTick + 1)
    const slot = this.#slots[tick % this.#slots.length]
    if (slot === undefined) return
    slot.entries.set(entry, deadlineMs)
    this.#slotOf.set(entry, slot)
  }

  cancel(entry: WheelEntry): void {
    this.#slotOf.get(entry)?.entries.delete(entry)
    this.#slotOf.delete(entry)
  }

  /** Fires what is due at `nowMs`. */
  advance(nowMs: number): void {
    const nowTick = Math.floor(nowMs / this.#tickMs)
    const ticks = Math.min(nowTick - this.#lastTick, this.#slots.length)
    const due: WheelEntry[] = []
    for (let i = 1; i <= ticks; i++) {
      const slot = this.#slots[(this.#lastTick + i) % this.#slots.length]
      if (slot === undefined) continue
      for (const [entry, deadlineMs] of slot.entries) if (deadlineMs <= nowMs) due.push(entry)
    }
    if (ticks > 0) this.#lastTick = nowTick
    for (const entry of due) {
      // An earlier entry of this round may have cancelled or moved this one.
      const deadlineMs = this.#slotOf.get(entry)?.entries.get(entry)
      if (deadlineMs === undefined || deadlineMs > nowMs) continue
      this.cancel(entry)
      entry.onDeadline(nowMs)
    }
  }

  /** Ties the wheel to a clock until `stop`. */
  start(clock: { nowMs(): number }): void {
    this.#interval ??= setInterval(() => this.advance(clock.nowMs()), this.#tickMs)
  }

  stop(): void {
    clearInterval(this.#interval)
    this.#interval = undefined
  }

  get size(): number {
    return this.#slotOf.size
  }
}
