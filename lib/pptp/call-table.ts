/** The calls of one control connection, by our call id. */
import type { DisconnectCause } from '../core/disconnect-cause.ts'

/** RFC 2637 §3.2.2, §3.2.4: the side that answers and the side that asks. */
export type CallState =
  /** Asked by the peer; our server has not decided. */
  | 'requested'
  /** Asked by us; no reply yet. */
  | 'wait-reply'
  | 'established'
  /** We want it ended and wait for Call-Disconnect-Notify. */
  | 'wait-disconnect'

export interface ControlCall {
  readonly callId: number
  /** 0 while it is not known. */
  peerCallId: number
  peerWindowPackets: number
  peerDelayMs: number
  state: CallState
  /** Why it ends, when we ended it. */
  cause: DisconnectCause
  deadlineMs: number
}

export class CallTable {
  readonly #calls = new Map<number, ControlCall>()

  get size(): number {
    return this.#calls.size
  }

  get(callId: number): ControlCall | undefined {
    return this.#calls.get(callId)
  }

  /** Call ids of the peer name its side; a message in which it says its own is found by this. */
  withPeerCallId(peerCallId: number): ControlCall | undefined {
    for (const call of this.#calls.values()) if (call.peerCallId === peerCallId) return call
    return undefined
  }

  add(call: ControlCall): void {
    this.#calls.set(call.callId, call)
  }

  delete(callId: number): void {
    this.#calls.delete(callId)
  }

  [Symbol.iterator](): IterableIterator<ControlCall> {
    return [...this.#calls.values()].values()
  }

  nextDeadlineMs(): number {
    let next = Number.POSITIVE_INFINITY
    for (const { deadlineMs } of this.#calls.values()) next = Math.min(next, deadlineMs)
    return next
  }
}
