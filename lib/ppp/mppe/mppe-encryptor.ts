/** One direction of MPPE, sending (RFC 3078 §8). */
import { createPacketRc4, type PacketRc4 } from '../../crypto/packet-rc4.ts'
import type { MppeKeyBits } from '../wire/ccp-options.ts'
import { MppeKey } from './mppe-key.ts'
import { coherencyMask, flagOctet, MppeBit } from './mppe-packet.ts'

export class MppeEncryptor {
  readonly #key: MppeKey
  readonly #cipher: PacketRc4
  readonly #isStateless: boolean
  #count = coherencyMask
  #isFlushDue = false
  /** The peer changes its key at each flush, as Linux does; RFC 3078 §8.2 keeps it. */
  changesKeyOnFlush = false

  constructor(masterKey: Uint8Array, keyBits: MppeKeyBits, isStateless: boolean) {
    this.#key = new MppeKey(masterKey, keyBits)
    this.#cipher = createPacketRc4(this.#key.bytes)
    this.#isStateless = isStateless
  }

  /** The peer has lost its place: the next packet begins with fresh tables. */
  reset(): void {
    this.#isFlushDue = true
  }

  /** The next packet begins with fresh tables, and so must what is inside it. */
  get isFlushNext(): boolean {
    return this.#isStateless || this.#isFlushDue || ((this.#count + 1) & flagOctet) === flagOctet
  }

  /** Encrypts `length` bytes at `at` in place; returns bits and count of the packet's head. */
  encrypt(bytes: Uint8Array, at: number, length: number): number {
    this.#count = (this.#count + 1) & coherencyMask
    let head = MppeBit.encrypted | this.#count
    const isFlag = (this.#count & 0xff) === flagOctet
    if (this.#isStateless || isFlag || this.#isFlushDue) {
      if (this.#isStateless || isFlag || this.changesKeyOnFlush) this.#key.change()
      this.#cipher.rekey(this.#key.bytes)
      this.#isFlushDue = false
      head |= MppeBit.flushed
    }
    this.#cipher.process(bytes, at, length)
    return head
  }

  destroy(): void {
    this.#key.destroy()
    this.#cipher.destroy()
  }
}
