/** What CCP may agree on in one call: what the server allows, narrowed by what its user is given. */
import type { Authorization } from '../aaa/authenticator.ts'
import type { CompressionSettings, EncryptionPolicy } from '../ppp/settings.ts'

/** Looked at when CCP begins, which is after authentication. */
export class CallCompression implements CompressionSettings {
  readonly allowsStateful: boolean
  readonly prefersStateful: boolean
  readonly hasMppc: boolean
  readonly #server: CompressionSettings
  readonly #authorization: () => Authorization | undefined

  constructor(server: CompressionSettings, authorization: () => Authorization | undefined) {
    this.#server = server
    this.#authorization = authorization
    this.allowsStateful = server.allowsStateful
    this.prefersStateful = server.prefersStateful
    this.hasMppc = server.hasMppc
  }

  /** A server that requires encryption and a user who may not encrypt do not come together. */
  get encryption(): EncryptionPolicy {
    const { isEncryptionRequired, mppeKeyBits } = this.#authorization() ?? {}
    const { encryption } = this.#server
    if (encryption === 'required' || isEncryptionRequired === true) return 'required'
    return mppeKeyBits?.length === 0 ? 'none' : encryption
  }

  get strengths(): CompressionSettings['strengths'] {
    const allowed = this.#authorization()?.mppeKeyBits
    const { strengths } = this.#server
    return allowed === undefined ? strengths : strengths.filter(bits => allowed.includes(bits))
  }
}
