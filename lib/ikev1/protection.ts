/**
 * Encryption of ISAKMP messages: CBC whose IV is the last ciphertext block of the exchange's message
 * before (RFC 2409 appendix B). A message that turns out to be bad does not move the chain.
 */
import { copyBytes } from '../core/bytes.ts'
import { cipherProvider } from '../crypto/cipher.ts'
import type { Phase1Keys } from './key-schedule.ts'

const nothing = new Uint8Array(0)

export interface Opened {
  readonly plaintext: Uint8Array
  /** Moves the chain: call it when the message has proved to be good. */
  accept(): void
}

export class CbcChain {
  readonly #keys: Phase1Keys
  #iv: Uint8Array

  constructor(keys: Phase1Keys, iv: Uint8Array) {
    this.#keys = keys
    this.#iv = iv
  }

  /** The last block that passed either way. */
  get iv(): Uint8Array {
    return this.#iv
  }

  /** The ciphertext, padded with zeros to whole blocks. Undefined when this Node lacks the cipher. */
  seal(plaintext: Uint8Array): Uint8Array | undefined {
    const { encryption, keyBits } = this.#keys.suite
    const { blockBytes } = encryption
    const provider = cipherProvider(encryption, keyBits)
    if (provider === undefined) return undefined
    const padded = new Uint8Array(Math.ceil(plaintext.length / blockBytes) * blockBytes)
    padded.set(plaintext)
    const sealed = provider.encrypt(encryption, this.#keys.cipherKey, this.#iv, padded, nothing)
    this.#iv = sealed.slice(sealed.length - blockBytes)
    return sealed
  }

  /** Undefined when the length is not that of whole blocks. */
  open(ciphertext: Uint8Array): Opened | undefined {
    const { encryption, keyBits } = this.#keys.suite
    const { blockBytes } = encryption
    const provider = cipherProvider(encryption, keyBits)
    if (ciphertext.length === 0 || ciphertext.length % blockBytes !== 0) return undefined
    const { cipherKey } = this.#keys
    const plaintext = provider?.decrypt(encryption, cipherKey, this.#iv, ciphertext, nothing)
    if (plaintext === undefined) return undefined
    const last = copyBytes(ciphertext, ciphertext.length - blockBytes)
    return {
      plaintext,
      accept: () => {
        this.#iv = last
      },
    }
  }
}
