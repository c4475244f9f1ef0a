/**
 * CBC (RFC 3602, RFC 2451) and CTR (RFC 3686) with HMAC over packets: encrypt, then authenticate.
 *
 * A CBC context is never given an IV. Sealing puts a random block in front of the text and encrypts
 * both, chained to the packet before: what becomes of the block is an IV that nobody can foretell.
 * Opening decrypts from the IV on and leaves the first block, which the chain spoils, unused.
 */
import { createEvpContext } from './evp-context.ts'
import { EvpHmac } from './evp-hmac.ts'
import type { EvpCalls, Libcrypto, StateHash } from './libcrypto.ts'
import { NativeScratch } from './native-scratch.ts'
import {
  PACKET_HEADER_BYTES,
  type PacketBytes,
  type PacketKeys,
  type PacketOpener,
  type PacketSealer,
  type PacketSuite,
} from './packet-cipher.ts'
import { putRandomBlock } from './random-blocks.ts'

const counterBytes = 16

export class EvpMacSealer implements PacketSealer {
  readonly provider = 'evp'
  readonly #evp: EvpCalls
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #memoryAddress: number
  readonly #hmac: EvpHmac
  /** RFC 3686 §4: salt | IV | block counter; undefined in CBC mode. */
  readonly #counter: NativeScratch | undefined
  readonly #ivBytes: number
  readonly #icvWords: number
  readonly #hasEsn: boolean
  #context: number

  constructor(
    library: Libcrypto,
    hash: StateHash,
    suite: PacketSuite,
    keys: PacketKeys,
    memory: PacketBytes,
  ) {
    const { encryption, integrity } = suite
    const cipherKeyBytes = keys.encryptionKey.length - encryption.saltBytes
    this.#evp = library.evp
    this.#bytes = memory.bytes
    this.#view = memory.view
    this.#memoryAddress = memory.address
    this.#ivBytes = encryption.ivBytes
    this.#icvWords = (integrity?.icvBytes ?? 0) / 4
    this.#hasEsn = suite.hasEsn
    this.#hmac = new EvpHmac(library, hash, keys.integrityKey)
    this.#counter = encryption.mode === 'ctr' ? counterBlock(library, keys) : undefined
    const key = keys.encryptionKey.subarray(0, cipherKeyBytes)
    this.#context = createEvpContext(library, encryption, key, 'seal')
  }

  seal(at: number, bodyBytes: number, sequenceHigh: number): boolean {
    const context = this.#context
    if (context === 0) return false
    const view = this.#view
    const ivAt = at + PACKET_HEADER_BYTES
    const icvAt = ivAt + this.#ivBytes + bodyBytes
    let from = ivAt
    if (this.#counter === undefined) {
      putRandomBlock(this.#bytes, ivAt, this.#ivBytes)
    } else {
      const sequence = view.getUint32(at + 4)
      view.setUint32(ivAt, sequenceHigh)
      view.setUint32(ivAt + 4, sequence)
      this.#counter.view.setUint32(4, sequenceHigh)
      this.#counter.view.setUint32(8, sequence)
      this.#evp.initEncrypt(context, 0, 0, 0, this.#counter.address)
      from += this.#ivBytes
    }
    const text = this.#memoryAddress + from
    const isEncrypted = this.#evp.cipher(context, text, text, icvAt - from) === icvAt - from
    let coveredBytes = icvAt - at
    if (this.#hasEsn) {
      // RFC 4303 §2.8: the high half stands behind the packet while the MAC is computed.
      view.setUint32(icvAt, sequenceHigh)
      coveredBytes += 4
    }
    this.#hmac.compute(this.#memoryAddress + at, coveredBytes)
    for (let i = 0; i < this.#icvWords; i++) view.setUint32(icvAt + 4 * i, this.#hmac.word(i))
    return isEncrypted
  }

  destroy(): void {
    if (this.#context !== 0) this.#evp.freeContext(this.#context)
    this.#context = 0
    this.#counter?.wipe()
    this.#hmac.destroy()
  }
}

export class EvpMacOpener implements PacketOpener {
  readonly provider = 'evp'
  readonly #evp: EvpCalls
  readonly #view: DataView
  readonly #memoryAddress: number
  readonly #hmac: EvpHmac
  readonly #counter: NativeScratch | undefined
  readonly #ivBytes: number
  readonly #icvWords: number
  readonly #hasEsn: boolean
  #context: number

  constructor(
    library: Libcrypto,
    hash: StateHash,
    suite: PacketSuite,
    keys: PacketKeys,
    memory: PacketBytes,
  ) {
    const { encryption, integrity } = suite
    const cipherKeyBytes = keys.encryptionKey.length - encryption.saltBytes
    this.#evp = library.evp
    this.#view = memory.view
    this.#memoryAddress = memory.address
    this.#ivBytes = encryption.ivBytes
    this.#icvWords = (integrity?.icvBytes ?? 0) / 4
    this.#hasEsn = suite.hasEsn
    this.#hmac = new EvpHmac(library, hash, keys.integrityKey)
    this.#counter = encryption.mode === 'ctr' ? counterBlock(library, keys) : undefined
    const key = keys.encryptionKey.subarray(0, cipherKeyBytes)
    this.#context = createEvpContext(library, encryption, key, 'open')
  }

  open(at: number, bodyBytes: number, sequenceHigh: number): boolean {
    const context = this.#context
    if (context === 0) return false
    const view = this.#view
    const ivAt = at + PACKET_HEADER_BYTES
    const icvAt = ivAt + this.#ivBytes + bodyBytes
    const firstIcvWord = view.getUint32(icvAt)
    let coveredBytes = icvAt - at
    if (this.#hasEsn) {
      view.setUint32(icvAt, sequenceHigh)
      coveredBytes += 4
    }
    this.#hmac.compute(this.#memoryAddress + at, coveredBytes)
    // Every word is looked at, whatever the ones before it say.
    let difference = firstIcvWord ^ this.#hmac.word(0)
    for (let i = 1; i < this.#icvWords; i++) {
      difference |= view.getUint32(icvAt + 4 * i) ^ this.#hmac.word(i)
    }
    if (difference !== 0) return false
    let from = ivAt
    if (this.#counter !== undefined) {
      this.#counter.view.setUint32(4, view.getUint32(ivAt))
      this.#counter.view.setUint32(8, view.getUint32(ivAt + 4))
      this.#evp.initDecrypt(context, 0, 0, 0, this.#counter.address)
      from += this.#ivBytes
    }
    const text = this.#memoryAddress + from
    return this.#evp.cipher(context, text, text, icvAt - from) === icvAt - from
  }

  destroy(): void {
    if (this.#context !== 0) this.#evp.freeContext(this.#context)
    this.#context = 0
    this.#counter?.wipe()
    this.#hmac.destroy()
  }
}

/** The salt in place, the block counter at 1. */
function counterBlock(library: Libcrypto, keys: PacketKeys): NativeScratch {
  const scratch = new NativeScratch(library, counterBytes)
  scratch.bytes.set(keys.encryptionKey.subarray(-4))
  scratch.view.setUint32(12, 1)
  return scratch
}
