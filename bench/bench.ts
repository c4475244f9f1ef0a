/** What a benchmark is. A file `bench/NAME.bench.ts` exports one as `bench`. */

export interface Row {
  /** `protocol/what/direction/streams`, e.g. `sstp/goodput/up/1`. */
  readonly name: string
  readonly unit: string
  /** One per repetition; the median and the spread are taken from them. */
  readonly samples: readonly number[]
  /** Peer -> how many times its figure, from the same interleaved run. */
  readonly ratio?: Readonly<Record<string, number>>
  readonly gbitPerCpuSecond?: number
}

export interface BenchContext {
  row(row: Row): void
  /** Progress, to standard error. */
  say(text: string): void
  /** Fewer and shorter repetitions: whether it runs, not how fast. */
  readonly isQuick: boolean
}

export interface Bench {
  readonly name: string
  readonly about: string
  run(context: BenchContext): Promise<void>
}
