/** Guessing costs time: names and source addresses with too many failures are refused for a while. */
import type { Clock } from '../core/clock.ts'
import { formatIpv6, parseIpv6, unmapped } from '../core/ip-address.ts'
import { userKey } from './users/user-store.ts'

export interface LockoutLimits {
  readonly attemptsPerUser: number
  readonly attemptsPerAddress: number
  readonly windowMs: number
  readonly durationMs: number
}

/** Names and addresses are strangers' choice, so there is an end to how many are remembered. */
const mostTracked = 65_536

interface Track {
  /** Times of the failures within the window, oldest first. */
  failuresMs: number[]
  lockedUntilMs: number
}

/** Failures within a sliding window, by key. */
export class FailureWindow {
  readonly #attempts: number
  readonly #windowMs: number
  readonly #durationMs: number
  readonly #mostTracked: number
  /** In the order of the last failure. */
  readonly #tracks = new Map<string, Track>()

  constructor(
    attempts: number,
    { windowMs, durationMs }: { windowMs: number; durationMs: number },
    most = mostTracked,
  ) {
    this.#attempts = attempts
    this.#windowMs = windowMs
    this.#durationMs = durationMs
    this.#mostTracked = most
  }

  isLocked(key: string, nowMs: number): boolean {
    return (this.#tracks.get(key)?.lockedUntilMs ?? 0) > nowMs
  }

  /** Counts a failure; true when this one locks the key. */
  fail(key: string, nowMs: number): boolean {
    const track = this.#tracks.get(key) ?? { failuresMs: [], lockedUntilMs: 0 }
    track.failuresMs = track.failuresMs.filter(failureMs => failureMs > nowMs - this.#windowMs)
    track.failuresMs.push(nowMs)
    const isFull = track.failuresMs.length >= this.#attempts
    if (isFull) {
      track.lockedUntilMs = nowMs + this.#durationMs
      track.failuresMs = []
    }
    this.#tracks.delete(key)
    this.#tracks.set(key, track)
    if (this.#tracks.size > this.#mostTracked) {
      for (const oldest of this.#tracks.keys()) {
        this.#tracks.delete(oldest)
        break
      }
    }
    return isFull
  }

  /** True when there was something to forget. */
  forget(key: string): boolean {
    return this.#tracks.delete(key)
  }

  /** Locked keys with the ms that are left. */
  locked(nowMs: number): Map<string, number> {
    const left = new Map<string, number>()
    for (const [key, { lockedUntilMs }] of this.#tracks) {
      if (lockedUntilMs > nowMs) left.set(key, lockedUntilMs - nowMs)
    }
    return left
  }

  get size(): number {
    return this.#tracks.size
  }
}

/** The two windows, and the names that they go by. Outlives a change of users or methods. */
export class Lockout {
  readonly #clock: Clock
  readonly #users: FailureWindow
  readonly #addresses: FailureWindow

  constructor(limits: LockoutLimits, clock: Clock) {
    this.#clock = clock
    this.#users = new FailureWindow(limits.attemptsPerUser, limits)
    this.#addresses = new FailureWindow(limits.attemptsPerAddress, limits)
  }

  isLocked(userName: string, peerAddress: string): boolean {
    const nowMs = this.#clock.nowMs()
    return this.#users.isLocked(userKey(userName), nowMs) || this.isAddressLocked(peerAddress)
  }

  /** Asked before a call costs anything. */
  isAddressLocked(peerAddress: string): boolean {
    return this.#addresses.isLocked(sourceKey(peerAddress), this.#clock.nowMs())
  }

  /** What this failure has locked. */
  fail(userName: string, peerAddress: string): readonly ('user' | 'address')[] {
    const nowMs = this.#clock.nowMs()
    const isUserLocked = this.#users.fail(userKey(userName), nowMs)
    const isAddressLocked = this.#addresses.fail(sourceKey(peerAddress), nowMs)
    return [
      ...(isUserLocked ? ['user' as const] : []),
      ...(isAddressLocked ? ['address' as const] : []),
    ]
  }

  /**
   * The user's failures are forgotten. The address's are not: who has one account could otherwise
   * guess those of others without end.
   */
  succeed(userName: string): void {
    this.#users.forget(userKey(userName))
  }

  /** Lifts the lock of a user name or an address; false when there was none and no failure either. */
  unlock(nameOrAddress: string): boolean {
    const isUser = this.#users.forget(userKey(nameOrAddress))
    return this.#addresses.forget(sourceKey(nameOrAddress)) || isUser
  }

  /** Locked names and addresses with the ms that are left. */
  status(): { readonly users: Map<string, number>; readonly addresses: Map<string, number> } {
    const nowMs = this.#clock.nowMs()
    return { users: this.#users.locked(nowMs), addresses: this.#addresses.locked(nowMs) }
  }
}

/** An IPv6 host has a /64 to dial from, so that is what counts as one source (RFC 4291 §2.5.1). */
export function sourceKey(address: string): string {
  const text = unmapped(address)
  const ipv6 = parseIpv6(text)
  if (ipv6 === undefined) return text
  ipv6.fill(0, 8)
  return `${formatIpv6(ipv6)}/64`
}
