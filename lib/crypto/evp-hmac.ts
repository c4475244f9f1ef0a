/**
 * HMAC over packets (RFC 2104) with OpenSSL's hash functions. The states after the two padded keys
 * are computed once and kept as bytes; a packet copies them, which is cheaper than any reset call.
 * The layout of a state is OpenSSL's own business: it is only copied.
 */
import { InvariantError } from '../core/errors.ts'
import { wipe } from '../core/secret.ts'
import { digest, hashBytes } from './hash.ts'
import type { HashStateCalls, Libcrypto, StateHash } from './libcrypto.ts'
import { NativeScratch } from './native-scratch.ts'

/** sizeof(SHA_CTX), sizeof(SHA256_CTX), sizeof(SHA512_CTX) are 96, 112 and 216; with room to spare. */
const stateBytes = 256
const stateWords = stateBytes / 4
const copiedWords: Readonly<Record<StateHash, number>> = {
  sha1: 24,
  sha256: 28,
  sha384: 54,
  sha512: 54,
}
const keyBlockBytes: Readonly<Record<StateHash, number>> = {
  sha1: 64,
  sha256: 64,
  sha384: 128,
  sha512: 128,
}

const innerAt = 0
const outerAt = stateBytes
const workAt = 2 * stateBytes
const workWord = 2 * stateWords
const digestAt = 3 * stateBytes
const scratchBytes = digestAt + 64

export class EvpHmac {
  readonly #calls: HashStateCalls
  readonly #scratch: NativeScratch
  readonly #words: Uint32Array
  readonly #view: DataView
  readonly #copiedWords: number
  readonly #digestBytes: number
  readonly #workAddress: number
  readonly #digestAddress: number

  constructor(library: Libcrypto, hash: StateHash, key: Uint8Array) {
    const calls = library.hashes[hash]
    if (calls === undefined) throw new InvariantError(`libcrypto has no ${hash} states`)
    this.#calls = calls
    this.#scratch = new NativeScratch(library, scratchBytes)
    this.#words = this.#scratch.words
    this.#view = this.#scratch.view
    this.#copiedWords = copiedWords[hash]
    this.#digestBytes = hashBytes[hash]
    this.#workAddress = this.#scratch.address + workAt
    this.#digestAddress = this.#scratch.address + digestAt
    const block = new NativeScratch(library, keyBlockBytes[hash])
    const padded = block.bytes.subarray(0, keyBlockBytes[hash])
    padded.set(key.length > padded.length ? digest(hash, key) : key)
    // The second round turns the inner padding into the outer one.
    for (const [mask, at] of [
      [0x36, innerAt],
      [0x36 ^ 0x5c, outerAt],
    ] as const) {
      for (let i = 0; i < padded.length; i++) padded[i] = (padded[i] ?? 0) ^ mask
      calls.init(this.#scratch.address + at)
      calls.update(this.#scratch.address + at, block.address, padded.length)
    }
    wipe(block.bytes)
  }

  /** The MAC of `lengthBytes` bytes at a native address; read it with `word`. */
  compute(address: number, lengthBytes: number): void {
    const { update, final } = this.#calls
    const work = this.#workAddress
    this.#restore(0)
    update(work, address, lengthBytes)
    final(this.#digestAddress, work)
    this.#restore(stateWords)
    update(work, this.#digestAddress, this.#digestBytes)
    final(this.#digestAddress, work)
  }

  /** The `index`th 32 bits of the last MAC, in network order. */
  word(index: number): number {
    return this.#view.getUint32(digestAt + 4 * index)
  }

  destroy(): void {
    this.#scratch.wipe()
  }

  #restore(fromWord: number): void {
    const words = this.#words
    for (let i = 0; i < this.#copiedWords; i++) words[workWord + i] = words[fromWord + i] ?? 0
  }
}
