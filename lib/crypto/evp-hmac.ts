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

/** sizeof(SHA_CTX), sizeof(SHA256_CTX) and sizeof(SHA512_CTX) in 32-bit words. */
const stateWords: Readonly<Record<StateHash, number>> = {
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

/** The state being worked on, with room to spare for a layout that grew, and behind it the digest. */
const workBytes = 512
const digestAt = workBytes

/** One working area for all: a MAC is computed from start to end without a pause. */
let shared: NativeScratch | undefined

function sharedWork(library: Libcrypto): NativeScratch {
  shared ??= new NativeScratch(library, workBytes + 64)
  return shared
}

export class EvpHmac {
  readonly #calls: HashStateCalls
  /** The state after the inner padded key, then the one after the outer. */
  readonly #states: NativeScratch
  readonly #stateWords: number
  readonly #words: Uint32Array
  readonly #workWords: Uint32Array
  readonly #workView: DataView
  readonly #digestBytes: number
  readonly #workAddress: number
  readonly #digestAddress: number

  constructor(library: Libcrypto, hash: StateHash, key: Uint8Array) {
    const calls = library.hashes[hash]
    if (calls === undefined) throw new InvariantError(`libcrypto has no ${hash} states`)
    const work = sharedWork(library)
    this.#calls = calls
    this.#stateWords = stateWords[hash]
    this.#states = new NativeScratch(library, 8 * this.#stateWords)
    this.#words = this.#states.words
    this.#workWords = work.words
    this.#workView = work.view
    this.#digestBytes = hashBytes[hash]
    this.#workAddress = work.address
    this.#digestAddress = work.address + digestAt
    const block = new NativeScratch(library, keyBlockBytes[hash])
    const padded = block.bytes.subarray(0, keyBlockBytes[hash])
    padded.set(key.length > padded.length ? digest(hash, key) : key)
    // The second round turns the inner padding into the outer one.
    for (const [mask, fromWord] of [
      [0x36, 0],
      [0x36 ^ 0x5c, this.#stateWords],
    ] as const) {
      for (let i = 0; i < padded.length; i++) padded[i] = (padded[i] ?? 0) ^ mask
      calls.init(this.#workAddress)
      calls.update(this.#workAddress, block.address, padded.length)
      this.#words.set(this.#workWords.subarray(0, this.#stateWords), fromWord)
    }
    wipe(block.bytes, work.bytes)
  }

  /** The MAC of `lengthBytes` bytes at a native address; read it with `word` before the next one. */
  compute(address: number, lengthBytes: number): void {
    const { update, final } = this.#calls
    const work = this.#workAddress
    this.#restore(0)
    update(work, address, lengthBytes)
    final(this.#digestAddress, work)
    this.#restore(this.#stateWords)
    update(work, this.#digestAddress, this.#digestBytes)
    final(this.#digestAddress, work)
  }

  /** The `index`th 32 bits of the last MAC, in network order. */
  word(index: number): number {
    return this.#workView.getUint32(digestAt + 4 * index)
  }

  destroy(): void {
    this.#states.wipe()
  }

  #restore(fromWord: number): void {
    const words = this.#words
    const work = this.#workWords
    for (let i = 0; i < this.#stateWords; i++) work[i] = words[fromWord + i] ?? 0
  }
}
