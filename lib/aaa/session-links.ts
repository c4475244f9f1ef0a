/** The calls behind one session: one, or the links of a multilink bundle (RFC 1990). */
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import type { CallDescription } from './session.ts'

/** One call of a bundle, as status shows it. */
export interface SessionLinkStatus {
  /** Number of the session and of the link in it, `7.2`: what ends this link alone. */
  readonly name: string
  readonly number: number
  readonly protocol: string
  readonly peer: string
  readonly since: Date
}

export interface BundleStatus {
  /** Links that there are or have been (RFC 2866 §5.12 Acct-Link-Count). */
  readonly linkCount: number
  /** Those that are up, oldest first. */
  readonly links: readonly SessionLinkStatus[]
}

/** What a link is known by. */
export interface SessionLink {
  readonly number: number
  readonly call: CallDescription
  readonly since: Date
  /** Asks for the end of this link alone; false when it is closing already. */
  disconnect(cause: DisconnectCause): boolean
}

export class SessionLinks {
  readonly #sessionNumber: number
  /** By their numbers in the session, from 1. */
  readonly #links = new Map<number, SessionLink>()
  #linkCount = 0

  constructor(sessionNumber: number) {
    this.#sessionNumber = sessionNumber
  }

  get isEmpty(): boolean {
    return this.#links.size === 0
  }

  add(link: SessionLink): void {
    this.#links.set(++this.#linkCount, link)
  }

  remove(link: SessionLink): void {
    for (const [number, one] of this.#links) if (one === link) this.#links.delete(number)
  }

  /** By its number in the session. */
  get(number: number): SessionLink | undefined {
    return this.#links.get(number)
  }

  disconnect(cause: DisconnectCause): void {
    for (const link of [...this.#links.values()]) link.disconnect(cause)
  }

  status(): BundleStatus {
    const links = [...this.#links].map(([ordinal, { number, call, since }]) => ({
      name: `${this.#sessionNumber}.${ordinal}`,
      number,
      protocol: call.protocol,
      peer: call.peerLabel,
      since,
    }))
    return { linkCount: this.#linkCount, links }
  }
}
