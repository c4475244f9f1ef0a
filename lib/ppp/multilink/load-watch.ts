/**
 * Whether a bundle has too few links for what it carries, or too many: bandwidth on demand. The load is
 * looked at over whole windows, so a short burst or pause changes nothing.
 */

export interface LoadSettings {
  /** What one link carries, kbit/s each way. */
  readonly linkKilobitsPerSecond: number
  /** More links are due above this share of all of them, in the busier direction. */
  readonly addAbovePercent: number
  readonly addAfterMs: number
  /** Fewer are enough below this one. */
  readonly dropBelowPercent: number
  readonly dropAfterMs: number
}

/** Cumulative. */
export interface Traffic {
  readonly receivedBytes: number
  readonly sentBytes: number
}

export type LoadVerdict = 'add' | 'drop'

interface Window {
  readonly verdict: LoadVerdict
  readonly lengthMs: number
  startMs: number
  start: Traffic
}

export class LoadWatch {
  readonly #settings: LoadSettings
  readonly #traffic: () => Traffic
  readonly #windows: readonly Window[]
  #linkCount = 1

  constructor(settings: LoadSettings, traffic: () => Traffic, nowMs: number) {
    this.#settings = settings
    this.#traffic = traffic
    const start = traffic()
    this.#windows = [
      { verdict: 'add', lengthMs: settings.addAfterMs, startMs: nowMs, start },
      { verdict: 'drop', lengthMs: settings.dropAfterMs, startMs: nowMs, start },
    ]
  }

  /** The bundle has changed: what was carried before says nothing any more. */
  restart(linkCount: number, nowMs: number): void {
    this.#linkCount = Math.max(1, linkCount)
    for (const window of this.#windows) this.#begin(window, nowMs)
  }

  /** When the next window is over. */
  nextDeadlineMs(): number {
    return Math.min(...this.#windows.map(({ startMs, lengthMs }) => startMs + lengthMs))
  }

  /** What the windows say that are over by now. */
  look(nowMs: number): LoadVerdict | undefined {
    let found: LoadVerdict | undefined
    for (const window of this.#windows) {
      if (nowMs < window.startMs + window.lengthMs) continue
      const percent = this.#percentOf(window, this.#linkCount, nowMs)
      const { addAbovePercent, dropBelowPercent } = this.#settings
      const isDue =
        window.verdict === 'add' ? percent > addAbovePercent : percent < dropBelowPercent
      if (isDue) found ??= window.verdict
      this.#begin(window, nowMs)
    }
    return found
  }

  /** Whether one link less would be too busy, as far as the window under way can tell. */
  wouldMiss(nowMs: number): boolean {
    const [adding] = this.#windows
    if (adding === undefined || nowMs <= adding.startMs) return false
    const rest = this.#linkCount - 1
    return rest < 1 || this.#percentOf(adding, rest, nowMs) > this.#settings.addAbovePercent
  }

  #begin(window: Window, nowMs: number): void {
    window.startMs = nowMs
    window.start = this.#traffic()
  }

  #percentOf({ start, startMs }: Window, linkCount: number, nowMs: number): number {
    const now = this.#traffic()
    const bytes = Math.max(now.receivedBytes - start.receivedBytes, now.sentBytes - start.sentBytes)
    // kbit/s are bits per millisecond
    const carriedKilobits = (bytes * 8) / (nowMs - startMs)
    return (100 * carriedKilobits) / (linkCount * this.#settings.linkKilobitsPerSecond)
  }
}
