/** The calls behind one session: one, or the links of a multilink bundle (RFC 1990). */
import type { CallDescription } from './session.ts'

/** One call of a bundle, as status shows it. */
export interface SessionLinkStatus {
  readonly number: number
  readonly protocol: string
  readonly peer: string
  readonly since: Date
}

export interface BundleStatus {
  /** Links that there are or have been (RFC 2866 §5.12 Acct-Link-Count). */
  readonly linkCount: number
  /** Those that are up; the first one leads. */
  readonly links: readonly SessionLinkStatus[]
}

/** What a link is known by. */
export interface SessionLink {
  readonly number: number
  readonly call: CallDescription
  readonly since: Date
}

export class SessionLinks {
  readonly #links = new Set<SessionLink>()
  #linkCount = 0

  add(link: SessionLink): void {
    this.#links.add(link)
    this.#linkCount++
  }

  remove(link: SessionLink): void {
    this.#links.delete(link)
  }

  status(): BundleStatus {
    const links = [...this.#links].map(({ number, call, since }) => ({
      number,
      protocol: call.protocol,
      peer: call.peerLabel,
      since,
    }))
    return { linkCount: this.#linkCount, links }
  }
}
