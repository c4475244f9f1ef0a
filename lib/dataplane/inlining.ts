/** The compiler of this process, told what the way of a packet is worth. */
import { setFlagsFromString } from 'node:v8'

/**
 * Functions that V8 takes into their caller, bytes of bytecode: one of them, all of them, and the most it
 * does for any. As it comes (460, 920, 4600), it stops half-way along the path of a packet, and a call
 * costs more than many of the steps on it.
 */
const flags = [
  '--max-inlined-bytecode-size=1500',
  '--max-inlined-bytecode-size-cumulative=4000',
  '--max-inlined-bytecode-size-absolute=10000',
]

let isTold = false

/** Holds for what is compiled from now on, so before the first packet. */
export function inlinePaths(): void {
  if (isTold) return
  isTold = true
  for (const flag of flags) setFlagsFromString(flag)
}
