/**
 * The one contract of all protocol machines: bytes and time in, transmissions and events out. A
 * machine owns no socket, timer, clock, logger or callback, so a test, a simulation, a load
 * generator and the server drive the same code.
 */

/** Tells a machine that its deadline has passed. Late and early ones are harmless. */
export const timeout = { type: 'timeout' } as const
export type Timeout = typeof timeout

export type Output<Event> =
  | { readonly type: 'transmit'; readonly bytes: Uint8Array }
  | { readonly type: 'event'; readonly event: Event }

export interface Machine<Input, Event> {
  /**
   * Takes one input. Never throws on a peer's bytes, never calls out, and keeps no reference to a
   * buffer of `input` after it returns.
   */
  handle(input: Input | Timeout, nowMs: number): void

  /** The next thing to do, in order; undefined when there is none. Ask after every `handle`. */
  poll(): Output<Event> | undefined

  /** When to send `timeout`, monotonic ms; `Infinity` when idle. Changes after every `handle`. */
  nextDeadlineMs(): number
}

/** What a machine has produced and its driver has not yet fetched. */
export class Outbox<Event> {
  /** Made anew when it has been emptied: an array keeps the room that it once took. */
  #queue: Output<Event>[] = []

  /** `bytes` must be the machine's own; it is handed over. */
  transmit(bytes: Uint8Array): void {
    this.#queue.push({ type: 'transmit', bytes })
  }

  event(event: Event): void {
    this.#queue.push({ type: 'event', event })
  }

  poll(): Output<Event> | undefined {
    const output = this.#queue.shift()
    if (output !== undefined && this.#queue.length === 0) this.#queue = []
    return output
  }
}
