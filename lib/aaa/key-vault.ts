/** Secrets at rest: AES-256-GCM (NIST SP 800-38D) under a key in a file of its own. */
import { createCipheriv, createDecipheriv } from 'node:crypto'
import { createFileAtomically, readPrivateFile } from '../config/state-directory.ts'
import { concatBytes, copyBytes, utf8 } from '../core/bytes.ts'
import { StoreError } from '../core/errors.ts'
import { type RandomSource, randomBytes, systemRandom } from '../core/random.ts'
import { Secret, wipe } from '../core/secret.ts'

const keyBytes = 32
/** SP 800-38D §8.2.2: random nonces of 96 bits. */
const nonceBytes = 12
const tagBytes = 16
/** First byte of everything sealed, so that the format can change. */
const formatVersion = 1
const headerBytes = 1 + nonceBytes + tagBytes

export class KeyVault {
  readonly #key: Secret
  readonly #random: RandomSource

  constructor(key: Secret, random: RandomSource = systemRandom) {
    this.#key = key
    this.#random = random
  }

  /** The vault whose key is in the file at `path`, made if there is none. */
  static open(path: string, random: RandomSource = systemRandom): KeyVault {
    let key = readPrivateFile(path)
    if (key === undefined) {
      const fresh = randomBytes(random, keyBytes)
      createFileAtomically(path, fresh)
      wipe(fresh)
      // Another process may have been first: what counts is what is in the file.
      key = readPrivateFile(path)
    }
    if (key === undefined || key.length !== keyBytes) {
      throw new StoreError(
        `${path} does not hold a key of ${keyBytes} bytes: restore it from a backup`,
      )
    }
    const secret = new Secret(key)
    wipe(key)
    return new KeyVault(secret, random)
  }

  /** `context` says what the secret is and whose; opening it asks for the same again. */
  seal(secret: Secret, context: string): Uint8Array {
    const nonce = randomBytes(this.#random, nonceBytes)
    const cipher = createCipheriv('aes-256-gcm', this.#key.expose(), nonce)
    cipher.setAAD(utf8(context))
    const body = concatBytes(cipher.update(secret.expose()), cipher.final())
    return concatBytes(Uint8Array.of(formatVersion), nonce, cipher.getAuthTag(), body)
  }

  /** Throws StoreError when the bytes were not sealed with this key and for this context. */
  open(sealed: Uint8Array, context: string): Secret {
    if (sealed.length < headerBytes || sealed[0] !== formatVersion) {
      throw new StoreError(`the secret ${context} is not in a known format`)
    }
    const nonce = copyBytes(sealed, 1, 1 + nonceBytes)
    const decipher = createDecipheriv('aes-256-gcm', this.#key.expose(), nonce)
    decipher.setAAD(utf8(context))
    decipher.setAuthTag(copyBytes(sealed, 1 + nonceBytes, headerBytes))
    try {
      const plain = concatBytes(decipher.update(copyBytes(sealed, headerBytes)), decipher.final())
      const secret = new Secret(plain)
      wipe(plain)
      return secret
    } catch (thrown) {
      throw new StoreError(
        `the secret ${context} does not open with this key: were key and database restored together?`,
        { cause: thrown },
      )
    }
  }
}
