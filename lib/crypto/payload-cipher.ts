/**
 * Protection of IKEv2's Encrypted payload and fragments: RFC 7296 §3.14, RFC 5282 (AEAD), RFC 7383.
 * One object holds the keys of one direction of one IKE SA, and it must be the only one that ever
 * seals with them: the IVs of counter modes are its count of messages.
 *
 *   message  = header and payloads in clear | body         all of it is authenticated
 *   body     = IV | encrypted (plaintext | padding | pad length) | ICV
 */
import { InvariantError } from '../core/errors.ts'
import { type RandomSource, randomBytes } from '../core/random.ts'
import { Secret } from '../core/secret.ts'
import { type CipherProvider, cipherProvider } from './cipher.ts'
import { integrityCheckValue, verifyIntegrity } from './integrity.ts'
import type { EncryptionTransform, IntegrityTransform } from './transforms.ts'

/** What `open` returns instead of a length. */
export const PayloadRefusal = {
  /** Too short, or not a whole number of cipher blocks. */
  malformed: -1,
  /** The check value is wrong: not from the peer, or changed on its way. */
  notAuthentic: -2,
  /** Authentic, but its padding reaches past its start. */
  badPadding: -3,
} as const

export interface PayloadCipherOptions {
  readonly encryption: EncryptionTransform
  /** Undefined exactly when `encryption` is an AEAD. */
  readonly integrity: IntegrityTransform | undefined
  /** SK_e: key and, where the transform has one, salt (see `encryptionKeyBytes`). Copied. */
  readonly encryptionKey: Uint8Array
  /** SK_a; empty for an AEAD. Copied. */
  readonly integrityKey: Uint8Array
}

const empty = new Uint8Array(0)
/** Of all AEADs. */
const noIntegrityKey = new Secret(empty)

export class PayloadCipher {
  readonly #encryption: EncryptionTransform
  readonly #integrity: IntegrityTransform | undefined
  readonly #encryptionKey: Secret
  readonly #integrityKey: Secret
  readonly #provider: CipherProvider
  readonly #icvBytes: number
  /** Messages sealed so far: the IV of counter modes must never repeat (RFC 5282 §3.1). */
  #sealed = 0

  constructor(options: PayloadCipherOptions) {
    const { encryption, integrity, encryptionKey, integrityKey } = options
    const keyBits = (encryptionKey.length - encryption.saltBytes) * 8
    const provider = cipherProvider(encryption, keyBits)
    if (!encryption.keyBits.includes(keyBits) || provider === undefined) {
      throw new InvariantError(`${encryption.name} has no ${keyBits}-bit keys here`)
    }
    if (encryption.isAead !== (integrity === undefined)) {
      throw new InvariantError(
        `${encryption.name} ${integrity ? 'takes no' : 'needs an'} integrity`,
      )
    }
    if (integrity !== undefined && integrityKey.length !== integrity.keyBytes) {
      throw new InvariantError(`${integrity.name} takes a key of ${integrity.keyBytes} bytes`)
    }
    this.#encryption = encryption
    this.#integrity = integrity
    this.#encryptionKey = new Secret(encryptionKey)
    this.#integrityKey = integrity === undefined ? noIntegrityKey : new Secret(integrityKey)
    this.#provider = provider
    this.#icvBytes = encryption.icvBytes + (integrity?.icvBytes ?? 0)
  }

  /** The plaintext stands this many bytes into the body. */
  get ivBytes(): number {
    return this.#encryption.ivBytes
  }

  /** Length of the body that a plaintext becomes, bytes. */
  bodyBytes(plaintextBytes: number): number {
    return this.#encryption.ivBytes + this.#encryptedBytes(plaintextBytes) + this.#icvBytes
  }

  /**
   * Seals in place. `message` is exactly `bodyAt + bodyBytes(plaintextBytes)` long, complete up to
   * `bodyAt` (lengths and fragment numbers too), with the plaintext at `bodyAt + ivBytes`.
   */
  seal(message: Uint8Array, bodyAt: number, plaintextBytes: number, random: RandomSource): void {
    if (message.length !== bodyAt + this.bodyBytes(plaintextBytes)) {
      throw new InvariantError('a message to seal is not as long as its body needs')
    }
    const textAt = bodyAt + this.#encryption.ivBytes
    const encryptedBytes = this.#encryptedBytes(plaintextBytes)
    const padLength = encryptedBytes - plaintextBytes - 1
    message.fill(0, textAt + plaintextBytes, textAt + plaintextBytes + padLength)
    message[textAt + encryptedBytes - 1] = padLength
    const iv = this.#nextIv(random)
    message.set(iv, bodyAt)
    const plaintext = message.subarray(textAt, textAt + encryptedBytes)
    const header = message.subarray(0, bodyAt)
    const encrypted = this.#encryptionKey.lend(key =>
      this.#provider.encrypt(this.#encryption, key, iv, plaintext, header),
    )
    message.set(encrypted, textAt)
    const integrity = this.#integrity
    if (integrity === undefined) return
    const icvAt = textAt + encryptedBytes
    const covered = message.subarray(0, icvAt)
    message.set(
      this.#integrityKey.lend(key => integrityCheckValue(integrity, key, covered)),
      icvAt,
    )
  }

  /**
   * Opens in place: the plaintext then stands at `bodyAt + ivBytes` and its length is returned, or
   * a `PayloadRefusal`, and then the message is unchanged. Never throws on a peer's bytes.
   */
  open(message: Uint8Array, bodyAt: number): number {
    const { ivBytes, blockBytes, icvBytes: tagBytes } = this.#encryption
    const textAt = bodyAt + ivBytes
    const encryptedBytes = message.length - textAt - this.#icvBytes
    if (encryptedBytes < 1 || encryptedBytes % blockBytes !== 0) return PayloadRefusal.malformed
    const icvAt = textAt + encryptedBytes
    const integrity = this.#integrity
    if (integrity !== undefined) {
      const [covered, icv] = [message.subarray(0, icvAt), message.subarray(icvAt)]
      const isIntact = this.#integrityKey.lend(key => verifyIntegrity(integrity, key, icv, covered))
      if (!isIntact) return PayloadRefusal.notAuthentic
    }
    const plaintext = this.#encryptionKey.lend(key =>
      this.#provider.decrypt(
        this.#encryption,
        key,
        message.subarray(bodyAt, textAt),
        message.subarray(textAt, icvAt + tagBytes),
        integrity === undefined ? message.subarray(0, bodyAt) : empty,
      ),
    )
    if (plaintext === undefined) return PayloadRefusal.notAuthentic
    const padLength = plaintext[encryptedBytes - 1] ?? 0
    if (padLength >= encryptedBytes) return PayloadRefusal.badPadding
    message.set(plaintext, textAt)
    return encryptedBytes - 1 - padLength
  }

  /** Wipes the keys; the object must not be used afterwards. */
  destroy(): void {
    this.#encryptionKey.destroy()
    this.#integrityKey.destroy()
  }

  /** Plaintext, padding and pad length: a whole number of blocks. */
  #encryptedBytes(plaintextBytes: number): number {
    const { blockBytes } = this.#encryption
    return Math.ceil((plaintextBytes + 1) / blockBytes) * blockBytes
  }

  #nextIv(random: RandomSource): Uint8Array {
    const { ivBytes, mode } = this.#encryption
    if (mode === 'cbc') return randomBytes(random, ivBytes)
    const iv = new Uint8Array(ivBytes)
    const view = new DataView(iv.buffer)
    this.#sealed++
    view.setUint32(0, Math.floor(this.#sealed / 2 ** 32))
    view.setUint32(4, this.#sealed)
    return iv
  }
}
