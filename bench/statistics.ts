/** Medians and ratios. */

/** NaN when there are no samples. */
export function median(samples: readonly number[]): number {
  const sorted = samples.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}

/** Smallest and largest sample. */
export function spread(samples: readonly number[]): [low: number, high: number] {
  return [Math.min(...samples), Math.max(...samples)]
}

/** The median of the ratios of pairs that were measured one right after the other. */
export function ratioOfPairs(ours: readonly number[], theirs: readonly number[]): number {
  const pairs = Math.min(ours.length, theirs.length)
  return median(
    Array.from({ length: pairs }, (_, i) => (ours[i] ?? Number.NaN) / (theirs[i] ?? Number.NaN)),
  )
}
