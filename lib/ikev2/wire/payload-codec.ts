/** The contract that every payload codec keeps. */
import type { WireFault } from '../../core/faults.ts'

/** A codec for the body of one payload, that is what follows the generic payload header. */
export interface PayloadCodec<Payload> {
  /** What is wrong with `body`; the only place that looks at lengths. */
  check(body: Uint8Array): WireFault
  /** Cannot fail after `check`. The result holds views into `body`. */
  parse(body: Uint8Array): Payload
  bodyBytes(payload: Payload): number
  /** Writes exactly `bodyBytes` and returns the offset after them. */
  encode(payload: Payload, out: Uint8Array, at: number): number
}
