/**
 * One direction of MPPE, receiving (RFC 3078 §8). MPPE has no integrity: whoever gets a packet into
 * the tunnel chooses its count. So a step forward is tried on a copy of the key, and taken only when
 * the packet makes sense.
 *
 * Linux changes its key with each flushed packet in stateful mode, where RFC 3078 §8.2 initializes
 * the tables with the key that is. Both are understood: whatever makes sense first is what it did.
 */
import { u16 } from '../../core/bytes.ts'
import { createPacketRc4, type PacketRc4 } from '../../crypto/packet-rc4.ts'
import type { MppeKeyBits } from '../wire/ccp-options.ts'
import { PppProtocol } from '../wire/frame.ts'
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
/**
 * A gap costs a key change for each packet that is missing, also where the packet after it is a forged
 * one. So changes that led to nothing are paid out of what packets that made sense have put aside, and
 * short gaps are free.
 */
const MAX_SPARE_CHANGES = 4096
const FREE_CHANGES = 16
/** Flushes in a row of which only the last arrives; each costs a peer like Linux a key. */
const MAX_LOST_FLUSHES = 8

export class MppeDecryptor {
  readonly #key: MppeKey
  readonly #trial: MppeKey
  readonly #cipher: PacketRc4
  readonly #isStateless: boolean
  /** MPPC is agreed on too: packets may be compressed inside. */
  readonly #mayBeCompressed: boolean
  #count = coherencyMask
  #spareChanges = MAX_SPARE_CHANGES
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
    this.#cipher = createPacketRc4(this.#key.bytes)
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
    if (ahead > FREE_CHANGES && ahead > this.#spareChanges) return Decryption.garbage
    const trial = this.#trial
    trial.become(this.#key)
    for (let i = 0; i < ahead; i++) trial.change()
    this.#cipher.rekey(trial.bytes)
    this.#cipher.process(bytes, at, length)
    if (!isSensible(head, bytes, at, length)) {
      this.#spareChanges -= Math.min(ahead, this.#spareChanges)
      return Decryption.garbage
    }
    this.#spareChanges = Math.min(this.#spareChanges + FREE_CHANGES, MAX_SPARE_CHANGES)
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

  /**
   * The peer has begun anew: with the key that is due at this count, or with one that was changed once
   * more for each flush of which we may have lost all but the last.
   */
  #decryptFlushed(head: number, bytes: Uint8Array, at: number, length: number): Decryption {
    const count = head & coherencyMask
    const trial = this.#trial
    trial.become(this.#key)
    for (let i = flagsBetween(this.#count, count); i > 0; i--) trial.change()
    const isFlag = (count & 0xff) === flagOctet
    for (let extra = 0; extra <= MAX_LOST_FLUSHES; extra++) {
      if (extra > 0) {
        // Take the last try back: the same key stream once more.
        this.#cipher.rekey(trial.bytes)
        this.#cipher.process(bytes, at, length)
        trial.change()
      }
      this.#cipher.rekey(trial.bytes)
      this.#cipher.process(bytes, at, length)
      if (!isSensible(head, bytes, at, length)) continue
      if (!isFlag || extra > 0) this.#changesOnFlush = extra > 0
      this.#key.become(trial)
      this.#count = count
      this.#isWaiting = false
      return Decryption.ok
    }
    this.#isWaiting = true
    return Decryption.lost
  }
}

/** Flag packets after count `from`, up to and with count `to`. */
function flagsBetween(from: number, to: number): number {
  const distance = (to - from) & coherencyMask
  const toFirst = (flagOctet - (from & 0xff) + 256) & 0xff || 256
  return distance < toFirst ? 0 : 1 + ((distance - toFirst) >>> 8)
}

/**
 * Whether the plain text is an IP packet behind its protocol field of one byte or two: nothing else is
 * ever negotiated here. Of random bytes one in a hundred thousand looks so. What is compressed cannot
 * be judged.
 */
function isSensible(head: number, bytes: Uint8Array, at: number, length: number): boolean {
  if ((head & MppeBit.compressed) !== 0) return true
  const fieldBytes = bytes[at] === 0 ? 2 : 1
  const from = at + fieldBytes
  const left = length - fieldBytes
  const first = bytes[from] ?? 0
  switch (bytes[from - 1]) {
    case PppProtocol.ipv4:
      return left >= 20 && first >>> 4 === 4 && (first & 15) >= 5 && u16(bytes, from + 2) <= left
    case PppProtocol.ipv6:
      return left >= 40 && first >>> 4 === 6 && 40 + u16(bytes, from + 4) <= left
    default:
      return false
  }
}
