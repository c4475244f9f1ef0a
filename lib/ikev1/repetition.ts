/**
 * What makes ISAKMP reliable over UDP: requests that are repeated until they are answered, and
 * replies that are kept for requests that come again (RFC 2408 §5.1).
 */
import { TimerTable } from '../core/timers.ts'

/** Implementation constants. */
const firstWaitMs = 2_000
const waitFactor = 1.6
const mostTries = 5
const keptReplies = 16

/** Main mode, or the message ID of a quick mode exchange. */
export type RepetitionId = 'phase-1' | number

interface Pending {
  readonly datagrams: readonly Uint8Array[]
  tries: number
}

export type DueRepetition =
  | { readonly type: 'send'; readonly datagrams: readonly Uint8Array[] }
  | { readonly type: 'gave-up'; readonly id: RepetitionId }

export class Repetitions {
  readonly #pending = new Map<RepetitionId, Pending>()
  readonly #timers = new TimerTable<`${RepetitionId}`>()

  start(id: RepetitionId, datagrams: readonly Uint8Array[], nowMs: number): void {
    this.#pending.set(id, { datagrams, tries: 0 })
    this.#timers.set(`${id}`, nowMs + firstWaitMs)
  }

  stop(id: RepetitionId): void {
    this.#pending.delete(id)
    this.#timers.clear(`${id}`)
  }

  clear(): void {
    this.#pending.clear()
    this.#timers.clearAll()
  }

  nextDeadlineMs(): number {
    return this.#timers.nextDeadlineMs()
  }

  takeDue(nowMs: number): DueRepetition | undefined {
    for (
      let name = this.#timers.takeExpired(nowMs);
      name !== undefined;
      name = this.#timers.takeExpired(nowMs)
    ) {
      const id = name === 'phase-1' ? name : Number(name)
      const pending = this.#pending.get(id)
      if (pending === undefined) continue
      if (pending.tries === mostTries) {
        this.#pending.delete(id)
        return { type: 'gave-up', id }
      }
      pending.tries++
      this.#timers.set(`${id}`, nowMs + firstWaitMs * waitFactor ** pending.tries)
      return { type: 'send', datagrams: pending.datagrams }
    }
    return undefined
  }
}

/** Replies by the digest of their request, the oldest forgotten first. */
export class ReplyCache {
  readonly #replies = new Map<string, readonly Uint8Array[]>()

  get(requestDigest: string): readonly Uint8Array[] | undefined {
    return this.#replies.get(requestDigest)
  }

  keep(requestDigest: string, datagrams: readonly Uint8Array[]): void {
    this.#replies.set(requestDigest, datagrams)
    for (const oldest of this.#replies.keys()) {
      if (this.#replies.size <= keptReplies) break
      this.#replies.delete(oldest)
    }
  }

  clear(): void {
    this.#replies.clear()
  }
}
