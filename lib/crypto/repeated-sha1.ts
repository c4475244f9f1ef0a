/**
 * SHA-1 of one short message that is changed a little and hashed again, as the key changes of MPPE
 * do for each packet: with OpenSSL's hash state where the process has it, else plain TypeScript.
 */
import { type HashStateCalls, type Libcrypto, libcrypto } from './libcrypto.ts'
import { NativeScratch } from './native-scratch.ts'
import { sha1BlockBytes, sha1DigestBytes, sha1OfBlocks } from './sha1.ts'

export interface RepeatedSha1 {
  /** Write the message here. */
  readonly message: Uint8Array
  /** What `compute` gave, 20 bytes. */
  readonly digest: Uint8Array
  compute(): void
  /** Forgets message and digest. */
  destroy(): void
}

/** The fastest of this process. */
export function createRepeatedSha1(messageBytes: number): RepeatedSha1 {
  const library = libcrypto()
  const calls = library?.hashes.sha1
  return library === undefined || calls === undefined
    ? new PortableRepeatedSha1(messageBytes)
    : new OpensslRepeatedSha1(library, calls, messageBytes)
}

export class PortableRepeatedSha1 implements RepeatedSha1 {
  readonly message: Uint8Array
  readonly digest = new Uint8Array(sha1DigestBytes)
  readonly #blocks: Uint8Array
  readonly #blockCount: number

  constructor(messageBytes: number) {
    // RFC 3174 §4: a one bit, zeros, and the length in bits.
    this.#blockCount = Math.ceil((messageBytes + 9) / sha1BlockBytes)
    this.#blocks = new Uint8Array(this.#blockCount * sha1BlockBytes)
    this.#blocks[messageBytes] = 0x80
    const bits = new DataView(this.#blocks.buffer)
    bits.setUint32(this.#blocks.length - 4, messageBytes * 8)
    this.message = this.#blocks.subarray(0, messageBytes)
  }

  compute(): void {
    sha1OfBlocks(this.#blocks, this.#blockCount, this.digest)
  }

  destroy(): void {
    this.message.fill(0)
    this.digest.fill(0)
  }
}

/** sizeof(SHA_CTX) is 96; with room for a layout that grew. */
const stateBytes = 128

export class OpensslRepeatedSha1 implements RepeatedSha1 {
  readonly message: Uint8Array
  readonly digest: Uint8Array
  readonly #calls: HashStateCalls
  readonly #scratch: NativeScratch
  readonly #stateAddress: number
  readonly #digestAddress: number
  readonly #messageAddress: number

  constructor(library: Libcrypto, calls: HashStateCalls, messageBytes: number) {
    const messageAt = stateBytes + sha1BlockBytes
    const scratch = new NativeScratch(library, messageAt + messageBytes)
    this.#calls = calls
    this.#scratch = scratch
    this.digest = scratch.bytes.subarray(stateBytes, stateBytes + sha1DigestBytes)
    this.message = scratch.bytes.subarray(messageAt, messageAt + messageBytes)
    this.#stateAddress = scratch.address
    this.#digestAddress = scratch.address + stateBytes
    this.#messageAddress = scratch.address + messageAt
  }

  compute(): void {
    const { init, update, final } = this.#calls
    init(this.#stateAddress)
    update(this.#stateAddress, this.#messageAddress, this.message.length)
    final(this.#digestAddress, this.#stateAddress)
  }

  destroy(): void {
    this.#scratch.wipe()
  }
}
