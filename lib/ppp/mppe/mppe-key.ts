/**
 * The session key of one direction of MPPE and its changes (RFC 3078 §7, RFC 3079 §3.4). Changing it
 * allocates nothing.
 */
import { wipe } from '../../core/secret.ts'
import { createPacketRc4 } from '../../crypto/packet-rc4.ts'
import { createRepeatedSha1, type RepeatedSha1 } from '../../crypto/repeated-sha1.ts'
import type { MppeKeyBits } from '../wire/ccp-options.ts'

/** RFC 3079 §3.4: SHSpad1 is 40 zeros, SHSpad2 40 octets of 0xf2. */
const padBytes = 40
const secondPadOctet = 0xf2
/** RFC 3079 §2.3: what the first octets of short keys are. */
const shortKeyHead = { 40: [0xd1, 0x26, 0x9e], 56: [0xd1], 128: [] } as const

/** Used for interim keys only; wiped after each use. */
const interimCipher = createPacketRc4(Uint8Array.of(0))

export class MppeKey {
  /** The session key; use it during the call only. */
  readonly bytes: Uint8Array
  readonly #keyBits: MppeKeyBits
  /** Of what is hashed at each change: start key, pad, session key, pad. */
  readonly #sha1: RepeatedSha1

  /** `masterKey` has 16 bytes; short keys take their start key from its first 8. */
  constructor(masterKey: Uint8Array, keyBits: MppeKeyBits) {
    const keyBytes = keyBits === 128 ? 16 : 8
    this.#keyBits = keyBits
    this.bytes = new Uint8Array(keyBytes)
    const secondPadAt = 2 * keyBytes + padBytes
    this.#sha1 = createRepeatedSha1(secondPadAt + padBytes)
    const { message } = this.#sha1
    for (let i = 0; i < keyBytes; i++) {
      message[i] = masterKey[i] ?? 0
      message[keyBytes + padBytes + i] = masterKey[i] ?? 0
    }
    message.fill(secondPadOctet, secondPadAt, secondPadAt + padBytes)
    // The first session key is a hash as all are, but not encrypted by itself.
    this.#hash()
    this.#shorten()
  }

  /** RFC 3078 §7.3. */
  change(): void {
    const { bytes } = this
    this.#hash()
    interimCipher.rekey(bytes)
    interimCipher.process(bytes, 0, bytes.length)
    this.#shorten()
  }

  /** Makes it what `other`, of the same start key, is. */
  become(other: MppeKey): void {
    for (let i = 0; i < this.bytes.length; i++) this.bytes[i] = other.bytes[i] ?? 0
  }

  destroy(): void {
    wipe(this.bytes)
    this.#sha1.destroy()
  }

  /** GetNewKeyFromSHA of start key and session key. */
  #hash(): void {
    const { bytes } = this
    const { message, digest } = this.#sha1
    const at = bytes.length + padBytes
    // The first time the start key stands there already.
    if (!this.#isFirst) for (let i = 0; i < bytes.length; i++) message[at + i] = bytes[i] ?? 0
    this.#isFirst = false
    this.#sha1.compute()
    for (let i = 0; i < bytes.length; i++) bytes[i] = digest[i] ?? 0
  }

  #isFirst = true

  #shorten(): void {
    const head = shortKeyHead[this.#keyBits]
    for (let i = 0; i < head.length; i++) this.bytes[i] = head[i] ?? 0
  }
}
