/**
 * The way back: what arrives as PPP protocol 0x00fd is decrypted and decompressed as CCP has agreed.
 * Nothing here allocates per packet; the result stands in `openedAt` and its neighbours.
 */
import { u16 } from '../core/bytes.ts'
import type { Counters } from '../core/faults.ts'
import type { MppcDecompressor } from './mppc/decompressor.ts'
import { Decryption, type MppeDecryptor } from './mppe/mppe-decryptor.ts'
import { coherencyMask, MppeBit, mppeHeaderBytes } from './mppe/mppe-packet.ts'

/** What is to be done after a packet. */
export const Opened = {
  ok: 0,
  /** Dropped and counted. */
  dropped: 1,
  /** Dropped and counted; the peer must be asked to begin anew. */
  needsReset: 2,
  /** So much was not understood that the keys cannot be the same any more. */
  needsKeys: 3,
} as const
export type Opened = (typeof Opened)[keyof typeof Opened]

/**
 * Packets in a row that made no sense or came too late, after which keys are negotiated anew. More are
 * never late: the tunnel puts packets in order, as far as it waits for any.
 */
const maxUnreadable = 64

const decryptionNames: Readonly<Record<Decryption, string>> = {
  [Decryption.ok]: '',
  [Decryption.stale]: 'mppe-stale',
  [Decryption.garbage]: 'mppe-garbage',
  [Decryption.lost]: 'mppe-out-of-step',
  [Decryption.waiting]: 'mppe-waiting-for-flush',
  [Decryption.malformed]: 'mppe-malformed',
}

export class FrameOpener {
  readonly #bytes: Uint8Array
  readonly #decryptor: MppeDecryptor | undefined
  readonly #decompressor: MppcDecompressor | undefined
  readonly #counters: Counters
  /** Room for `lengthBytes` that stays until the burst ends. */
  readonly #intake: (lengthBytes: number) => number
  #count = coherencyMask
  #unreadable = 0
  /** What was opened: the inner packet, from its protocol field on. */
  openedAt = 0
  openedBytes = 0

  constructor(
    bytes: Uint8Array,
    decryptor: MppeDecryptor | undefined,
    decompressor: MppcDecompressor | undefined,
    counters: Counters,
    intake: (lengthBytes: number) => number,
  ) {
    this.#bytes = bytes
    this.#decryptor = decryptor
    this.#decompressor = decompressor
    this.#counters = counters
    this.#intake = intake
  }

  /** Whether data must come encrypted. */
  get isEncrypted(): boolean {
    return this.#decryptor !== undefined
  }

  /** How the peer flushes; undefined while that is not known. */
  get changesKeyOnFlush(): boolean | undefined {
    return this.#decryptor?.changesKeyOnFlush
  }

  /** Opens the information field of a 0x00fd frame in place. */
  open(at: number, lengthBytes: number): Opened {
    if (lengthBytes <= mppeHeaderBytes) {
      this.#counters.count('mppe-malformed')
      return Opened.dropped
    }
    const head = u16(this.#bytes, at)
    const insideAt = at + mppeHeaderBytes
    const insideBytes = lengthBytes - mppeHeaderBytes
    if (this.#decryptor !== undefined) {
      const decryption = this.#decryptor.decrypt(head, this.#bytes, insideAt, insideBytes)
      if (decryption !== Decryption.ok) return this.#refuse(decryption)
      this.#unreadable = 0
    } else {
      const expected = (this.#count + 1) & coherencyMask
      this.#count = head & coherencyMask
      if (this.#decompressor?.follows((head & coherencyMask) === expected, head) !== true) {
        this.#counters.count('mppc-out-of-step')
        return Opened.needsReset
      }
    }
    this.openedAt = insideAt
    this.openedBytes = insideBytes
    return this.#decompressor === undefined ? Opened.ok : this.#decompress(head, this.#decompressor)
  }

  destroy(): void {
    this.#decryptor?.destroy()
  }

  #decompress(head: number, decompressor: MppcDecompressor): Opened {
    const length = decompressor.decompress(head, this.#bytes, this.openedAt, this.openedBytes)
    if (length < 0) {
      this.#counters.count('mppc-garbage')
      return Opened.needsReset
    }
    if ((head & MppeBit.compressed) === 0) return Opened.ok
    const to = this.#intake(length)
    decompressor.copyLast(this.#bytes, to)
    this.openedAt = to
    this.openedBytes = length
    return Opened.ok
  }

  #refuse(decryption: Decryption): Opened {
    this.#counters.count(decryptionNames[decryption])
    const isUnreadable = decryption === Decryption.garbage || decryption === Decryption.stale
    if (isUnreadable && ++this.#unreadable >= maxUnreadable) {
      this.#unreadable = 0
      return Opened.needsKeys
    }
    return decryption === Decryption.lost || decryption === Decryption.waiting
      ? Opened.needsReset
      : Opened.dropped
  }
}
