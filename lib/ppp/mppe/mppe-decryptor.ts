/**
 * One direction of MPPE, receiving (RFC 3078 §8). MPPE has no integrity: whoever gets a packet into
 * the tunnel chooses its count. So a step forward is tried on a copy of the key, and taken only when
 * the packet makes sense.
 *
 * Linux changes its key with each flushed packet in stateful mode, where RFC 3078 §8.2 initializes
 * the tables with the key that is. Both are understood: what makes sense first is taken from then on.
 */
import { Rc4 } from '../../crypto/rc4.ts'
import type { MppeKeyBits } from '../wire/ccp-options.ts'
import { MppeKey } from './mppe-key.ts'
import { coherencyMask, flagOctet, MppeBit } from './mppe-packet.ts'

/** What became of a packet. */
export const Decryption = {
  ok: 0,
  /** Older than the last, or its count lies: dropped. */
  stale: 1,
  /** The packet makes no sense: dropped, nothing has changed. */
  garbage: 2,
  /** Stateful: a packet was lost before this one. The peer must begin anew. */
  lost: 3,
  /** Stateful: dropped while the peer has not begun anew. */
  waiting: 4,
  /** Not flushed where it must be, or not encrypted. */
  malformed: 5,
} as const
export type Decryption = (typeof Decryption)[keyof typeof Decryption]

/** Counts behind the last by less than half of all are late packets. */
const halfOfCounts = 2048

export class MppeDecryptor {
  readonly #key: MppeKey
  readonly #trial: MppeKey
  readonly #cipher: Rc4
  readonly #isStateless: boolean
  /** MPPC is agreed on too: packets may be compressed inside. */
  readonly #mayBeCompressed: boolean
  #count = coherencyMask
  #isWaiting = false
  /** Stateful: the peer changes its key at each flush. Undefined until one was seen. */
  #changesOnFlush: boolean | undefined

  constructor(
    masterKey: Uint8Array,
    keyBits: MppeKeyBits,
    isStateless: boolean,
    mayBeCompressed: boolean,
  ) {
    this.#key = new MppeKey(masterKey, keyBits)
    this.#trial = new MppeKey(masterKey, keyBits)
    this.#cipher = new Rc4(this.#key.bytes)
    this.#isStateless = isStateless
    this.#mayBeCompressed = mayBeCompressed
  }

  /** What the peer was seen to do; undefined before that. */
  get changesKeyOnFlush(): boolean | undefined {
    return this.#changesOnFlush
  }

  /**
   * Decrypts the packet with head `head`, `length` bytes at `at`, in place. What is compressed cannot be
   * looked into. What is not `ok` is destroyed.
   */
  decrypt(head: number, bytes: Uint8Array, at: number, length: number): Decryption {
    if ((head & MppeBit.encrypted) === 0 || length === 0) return Decryption.malformed
    const isCompressed = (head & MppeBit.compressed) !== 0
    if (isCompressed && !this.#mayBeCompressed) return Decryption.malformed
    return this.#isStateless
      ? this.#decryptStateless(head, bytes, at, length)
      : this.#decryptStateful(head, bytes, at, length)
  }

  destroy(): void {
    this.#key.destroy()
    this.#trial.destroy()
    this.#cipher.destroy()
  }

  #decryptStateless(head: number, bytes: Uint8Array, at: number, length: number): Decryption {
    if ((head & MppeBit.flushed) === 0) return Decryption.malformed
    const ahead = ((head & coherencyMask) - this.#count) & coherencyMask
    if (ahead === 0 || ahead > halfOfCounts) return Decryption.stale
    const trial = this.#trial
    trial.become(this.#key)
    for (let i = 0; i < ahead; i++) trial.change()
    this.#cipher.rekey(trial.bytes)
    this.#cipher.process(bytes, at, length)
    if (!isSensible(head, bytes, at, length)) return Decryption.garbage
    this.#key.become(trial)
    this.#count = head & coherencyMask
    return Decryption.ok
  }

  #decryptStateful(head: number, bytes: Uint8Array, at: number, length: number): Decryption {
    const count = head & coherencyMask
    const isFlushed = (head & MppeBit.flushed) !== 0
    const expected = (this.#count + 1) & coherencyMask
    if (!isFlushed) {
      if (this.#isWaiting) return Decryption.waiting
      if ((count & 0xff) === flagOctet) return Decryption.malformed
      if (count !== expected) {
        if (((count - expected) & coherencyMask) > halfOfCounts) return Decryption.stale
        this.#isWaiting = true
        return Decryption.lost
      }
      this.#cipher.process(bytes, at, length)
      this.#count = count
      if (isSensible(head, bytes, at, length)) return Decryption.ok
      // The tables are out of step now, whoever's fault it is.
      this.#isWaiting = true
      return Decryption.lost
    }
    if (((count - expected) & coherencyMask) > halfOfCounts) return Decryption.stale
    return this.#decryptFlushed(head, bytes, at, length)
  }

  /** The peer has begun anew: with the key that is due at this count, changed once more or not. */
  #decryptFlushed(head: number, bytes: Uint8Array, at: number, length: number): Decryption {
    const count = head & coherencyMask
    const trial = this.#trial
    trial.become(this.#key)
    for (let i = flagsBetween(this.#count, count); i > 0; i--) trial.change()
    const isFlag = (count & 0xff) === flagOctet
    if (!isFlag && this.#changesOnFlush === true) trial.change()
    this.#cipher.rekey(trial.bytes)
    this.#cipher.process(bytes, at, length)
    let isGood = isSensible(head, bytes, at, length)
    if (!isGood && !isFlag && this.#changesOnFlush === undefined) {
      // Take the first try back, and make the other.
      this.#cipher.rekey(trial.bytes)
      this.#cipher.process(bytes, at, length)
      trial.change()
      this.#cipher.rekey(trial.bytes)
      this.#cipher.process(bytes, at, length)
      isGood = isSensible(head, bytes, at, length)
      if (isGood) this.#changesOnFlush = true
    } else if (isGood && !isFlag) this.#changesOnFlush ??= false
    if (!isGood) {
      this.#isWaiting = true
      return Decryption.lost
    }
    this.#key.become(trial)
    this.#count = count
    this.#isWaiting = false
    return Decryption.ok
  }
}

/** Flag packets after count `from`, up to and with count `to`. */
function flagsBetween(from: number, to: number): number {
  const distance = (to - from) & coherencyMask
  const toFirst = (flagOctet - (from & 0xff) + 256) & 0xff || 256
  return distance < toFirst ? 0 : 1 + ((distance - toFirst) >>> 8)
}

/**
 * Whether the plain text begins with the protocol field of a network packet, 0x0021 to 0x00fa (RFC
 * 3078 §3), in one byte or in two, and an IP packet with the version that the field says. What is
 * compressed cannot be judged.
 */
function isSensible(head: number, bytes: Uint8Array, at: number, length: number): boolean {
  if ((head & MppeBit.compressed) !== 0) return true
  const isShort = bytes[at] !== 0
  const protocol = (isShort ? bytes[at] : bytes[at + 1]) ?? 0
  const from = at + (isShort ? 1 : 2)
  if (from >= at + length) return false
  const version = (bytes[from] ?? 0) >>> 4
  if (protocol === 0x21) return version === 4
  if (protocol === 0x57) return version === 6
  return protocol > 0x21 && protocol <= 0xfa && (protocol & 1) === 1
}
