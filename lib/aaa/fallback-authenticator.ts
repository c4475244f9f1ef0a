/** Asks one backend, and another when the first cannot be reached: the local emergency users. */
import type { AuthenticationRequest, Authenticator, Verdict } from './authenticator.ts'

export class FallbackAuthenticator implements Authenticator {
  readonly #first: Authenticator
  readonly #second: Authenticator

  constructor(first: Authenticator, second: Authenticator) {
    this.#first = first
    this.#second = second
  }

  async authenticate(request: AuthenticationRequest): Promise<Verdict> {
    const verdict = await this.#first.authenticate(request)
    return verdict.type === 'reject' && verdict.reason === 'backend-unavailable'
      ? this.#second.authenticate(request)
      : verdict
  }
}
