/** Waiting for what happens on sockets: turns of the event loop instead of sleeps. */
import { systemClock } from '../../lib/core/clock.ts'

const patienceMs = 15_000

/** Turns the event loop until `holds`; what never does is an error that says how things `stand`. */
export async function eventually(holds: () => boolean, stand: () => string): Promise<void> {
  const endMs = systemClock.nowMs() + patienceMs
  while (!holds()) {
    if (systemClock.nowMs() > endMs) throw new Error(`this does not happen: ${stand()}`)
    await turn()
  }
}

export function turn(): Promise<void> {
  return new Promise(resolve => {
    setImmediate(resolve)
  })
}
