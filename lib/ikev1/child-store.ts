/**
 * The ESP SA pairs of one ISAKMP SA and their time: when each is to be replaced, when it ends. RFC
 * 2407 §4.5.4, RFC 4301 §4.4.2.1.
 */
import { type RandomSource, randomU32 } from '../core/random.ts'
import { TimerTable } from '../core/timers.ts'
import type { Child } from './event.ts'
import type { Identification } from './wire/payload.ts'
import { isSameIdentification } from './wire/payload.ts'

/** Implementation constants. */
/** An older pair goes on receiving for this long after we have replaced it. */
const retireMs = 10_000
const retryRekeyMs = 30_000

export type ChildDeadline = 'rekey' | 'expire' | 'retire'

export class ChildStore {
  readonly #random: RandomSource
  /** What the policy sets, seconds; 0 is no limit. */
  readonly #lifetimeSeconds: number
  readonly #children = new Map<number, Child>()
  readonly #timers = new TimerTable<`${ChildDeadline}:${number}`>()

  constructor(random: RandomSource, lifetimeSeconds: number) {
    this.#random = random
    this.#lifetimeSeconds = lifetimeSeconds
  }

  get size(): number {
    return this.#children.size
  }

  get all(): readonly Child[] {
    return [...this.#children.values()]
  }

  get(inboundSpi: number): Child | undefined {
    return this.#children.get(inboundSpi)
  }

  findByOutboundSpi(outboundSpi: number): Child | undefined {
    return this.all.find(child => child.outboundSpi === outboundSpi)
  }

  /** The newest pair for the same traffic: the one that a request of the peer takes over from. */
  newestFor(
    peer: Identification | undefined,
    local: Identification | undefined,
  ): Child | undefined {
    return this.all.findLast(
      child =>
        peer === undefined ||
        local === undefined ||
        (isSameIdentification(peer, child.peerSelector) &&
          isSameIdentification(local, child.localSelector)),
    )
  }

  keep(child: Child): void {
    this.#children.set(child.inboundSpi, child)
    const ours = this.#lifetimeSeconds
    const hardSeconds = child.lifetimes.seconds > 0 ? child.lifetimes.seconds : ours
    const softSeconds = Math.min(hardSeconds, ours > 0 ? ours : hardSeconds)
    if (hardSeconds <= 0) return
    const { inboundSpi, createdMs } = child
    this.#timers.set(`expire:${inboundSpi}`, createdMs + hardSeconds * 1_000)
    const softMs = softSeconds * 1_000 * softShare(this.#random, child.isInitiator)
    this.#timers.set(`rekey:${inboundSpi}`, createdMs + softMs)
  }

  /** The pair that `child` takes over from is not replaced again, only taken down by who replaced it. */
  succeed(child: Child, nowMs: number): void {
    if (child.replaces === undefined || !this.#children.has(child.replaces)) return
    this.#timers.clear(`rekey:${child.replaces}`)
    if (child.isInitiator) this.#timers.set(`retire:${child.replaces}`, nowMs + retireMs)
  }

  remove(inboundSpi: number): void {
    this.#children.delete(inboundSpi)
    for (const kind of ['rekey', 'expire', 'retire'] as const) {
      this.#timers.clear(`${kind}:${inboundSpi}`)
    }
  }

  clear(): void {
    this.#children.clear()
    this.#timers.clearAll()
  }

  nextDeadlineMs(): number {
    return this.#timers.nextDeadlineMs()
  }

  /** A deadline that has passed. A rekey comes again a while later, should it fail. */
  takeExpired(
    nowMs: number,
  ): { readonly deadline: ChildDeadline; readonly child: Child } | undefined {
    for (
      let name = this.#timers.takeExpired(nowMs);
      name !== undefined;
      name = this.#timers.takeExpired(nowMs)
    ) {
      const child = this.#children.get(Number(name.slice(name.indexOf(':') + 1)))
      if (child === undefined) continue
      if (name.startsWith('expire')) return { deadline: 'expire', child }
      if (name.startsWith('retire')) return { deadline: 'retire', child }
      this.#timers.set(`rekey:${child.inboundSpi}`, nowMs + retryRekeyMs)
      return { deadline: 'rekey', child }
    }
    return undefined
  }
}

/**
 * The share of a lifetime after which it is renewed. Initiators come first; a responder steps in when
 * they have not. Random, so that thousands do not come at once.
 */
export function softShare(random: RandomSource, isInitiator: boolean): number {
  const draw = (randomU32(random) >>> 16) / 0x1_0000
  return isInitiator ? 0.8 + 0.08 * draw : 0.92 + 0.05 * draw
}
