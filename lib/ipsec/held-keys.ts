/** The keys of an SA that has not carried a packet yet: all of them in one piece of memory. */
import type { PacketKeys } from '../crypto/packet-cipher.ts'

const nothing = new Uint8Array(0)

/** What is left when keys were taken or wiped; no cipher starts with it. */
export const noKeys: PacketKeys = { encryptionKey: nothing, integrityKey: nothing }

export class HeldKeys implements PacketKeys {
  readonly #bytes: Uint8Array
  readonly #encryptionBytes: number

  /** Takes a copy. */
  constructor({ encryptionKey, integrityKey }: PacketKeys) {
    this.#bytes = new Uint8Array(encryptionKey.length + integrityKey.length)
    this.#bytes.set(encryptionKey)
    this.#bytes.set(integrityKey, encryptionKey.length)
    this.#encryptionBytes = encryptionKey.length
  }

  get encryptionKey(): Uint8Array {
    return this.#bytes.subarray(0, this.#encryptionBytes)
  }

  get integrityKey(): Uint8Array {
    return this.#bytes.subarray(this.#encryptionBytes)
  }

  destroy(): void {
    this.#bytes.fill(0)
  }
}
