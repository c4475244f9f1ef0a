/** Keys of IKEv1: RFC 2409 §5, §5.5 and appendix B. The PRF is the HMAC of the negotiated hash. */
import { concatBytes, fromHex, putU32 } from '../core/bytes.ts'
import { type Secret, wipe } from '../core/secret.ts'
import { digest, hmac } from '../crypto/hash.ts'
import type { PacketKeys, PacketSuite } from '../crypto/packet-cipher.ts'
import { encryptionKeyBytes } from '../crypto/transforms.ts'
import type { CookiePair } from './path.ts'
import type { Phase1Suite } from './policy.ts'

export interface Phase1Secrets {
  readonly nonceI: Uint8Array
  readonly nonceR: Uint8Array
  /** g^xy, as long as the group's values. */
  readonly shared: Uint8Array
  readonly cookies: CookiePair
}

export class Phase1Keys {
  readonly suite: Phase1Suite
  readonly #skeyid: Uint8Array
  readonly #skeyidD: Uint8Array
  readonly #skeyidA: Uint8Array
  readonly #skeyidE: Uint8Array
  readonly cipherKey: Uint8Array

  /** With a pre-shared key, or without one for signatures. */
  constructor(suite: Phase1Suite, secrets: Phase1Secrets, preSharedKey: Secret | undefined) {
    const { nonceI, nonceR, shared } = secrets
    const { initiatorCookie, responderCookie } = secrets.cookies
    this.suite = suite
    const nonces = concatBytes(nonceI, nonceR)
    this.#skeyid =
      preSharedKey === undefined
        ? this.prf(nonces, shared)
        : this.prf(preSharedKey.expose(), nonces)
    const derive = (previous: Uint8Array, number: number) =>
      this.prf(
        this.#skeyid,
        previous,
        shared,
        initiatorCookie,
        responderCookie,
        Uint8Array.of(number),
      )
    this.#skeyidD = derive(new Uint8Array(0), 0)
    this.#skeyidA = derive(this.#skeyidD, 1)
    this.#skeyidE = derive(this.#skeyidA, 2)
    this.cipherKey = this.#expand(this.#skeyidE, suite.keyBits / 8)
  }

  prf(key: Uint8Array, ...parts: Uint8Array[]): Uint8Array {
    return hmac(this.suite.hash, key, ...parts)
  }

  /** HASH_I or HASH_R (§5): own and peer's public values, cookies, the offered SA, the identity. */
  authenticationHash(
    ownPublic: Uint8Array,
    peerPublic: Uint8Array,
    ownCookie: Uint8Array,
    peerCookie: Uint8Array,
    saBody: Uint8Array,
    idBody: Uint8Array,
  ): Uint8Array {
    return this.prf(this.#skeyid, ownPublic, peerPublic, ownCookie, peerCookie, saBody, idBody)
  }

  /** HASH(1), HASH(2) and those of informational exchanges: under SKEYID_a. */
  messageHash(messageId: number, ...parts: Uint8Array[]): Uint8Array {
    const id = new Uint8Array(4)
    putU32(id, 0, messageId)
    return this.prf(this.#skeyidA, id, ...parts)
  }

  /** HASH(3). */
  confirmationHash(messageId: number, nonceI: Uint8Array, nonceR: Uint8Array): Uint8Array {
    const head = new Uint8Array(5)
    putU32(head, 1, messageId)
    return this.prf(this.#skeyidA, head, nonceI, nonceR)
  }

  /** KEYMAT of one direction (§5.5): the receiver's SPI stands for it. */
  childKeys(
    suite: PacketSuite,
    protocolId: number,
    spi: Uint8Array,
    nonceI: Uint8Array,
    nonceR: Uint8Array,
    shared: Uint8Array | undefined,
  ): PacketKeys {
    const cipherBytes = encryptionKeyBytes(suite.encryption, suite.keyBits)
    const totalBytes = cipherBytes + (suite.integrity?.keyBytes ?? 0)
    const seed = concatBytes(
      shared ?? new Uint8Array(0),
      Uint8Array.of(protocolId),
      spi,
      nonceI,
      nonceR,
    )
    let material: Uint8Array = new Uint8Array(0)
    let block: Uint8Array = new Uint8Array(0)
    while (material.length < totalBytes) {
      block = this.prf(this.#skeyidD, block, seed)
      material = concatBytes(material, block)
    }
    const keys = {
      encryptionKey: material.slice(0, cipherBytes),
      integrityKey: material.slice(cipherBytes, totalBytes),
    }
    wipe(material, seed)
    return keys
  }

  destroy(): void {
    wipe(this.#skeyid, this.#skeyidD, this.#skeyidA, this.#skeyidE, this.cipherKey)
  }

  /** Appendix B: K1 = prf(K, 0), Kn = prf(K, Kn-1), when the key is longer than SKEYID_e. */
  #expand(key: Uint8Array, lengthBytes: number): Uint8Array {
    if (lengthBytes <= key.length) return key.slice(0, lengthBytes)
    let material: Uint8Array = new Uint8Array(0)
    let block = fromHex('00')
    while (material.length < lengthBytes) {
      block = this.prf(key, block)
      material = concatBytes(material, block)
    }
    return material.slice(0, lengthBytes)
  }
}

/** The IV of the first encrypted message of phase 1: a hash of both public values (appendix B). */
export function phase1Iv(suite: Phase1Suite, publicI: Uint8Array, publicR: Uint8Array): Uint8Array {
  return digest(suite.hash, publicI, publicR).slice(0, suite.encryption.ivBytes)
}

/** The first IV of another exchange: a hash of phase 1's last block and the message ID (appendix B). */
export function exchangeIv(
  suite: Phase1Suite,
  lastBlock: Uint8Array,
  messageId: number,
): Uint8Array {
  const id = new Uint8Array(4)
  putU32(id, 0, messageId)
  return digest(suite.hash, lastBlock, id).slice(0, suite.encryption.ivBytes)
}
