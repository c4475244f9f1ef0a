/** The keys of SAs that have not carried a packet yet. */
import type { PacketKeys } from '../crypto/packet-cipher.ts'

const nothing = new Uint8Array(0)

/** What is left when keys were taken or wiped; no cipher starts with it. */
export const noKeys: PacketKeys = { encryptionKey: nothing, integrityKey: nothing }

export class HeldKeys implements PacketKeys {
  readonly #bytes: Uint8Array
  readonly #at: number
  readonly #integrityAt: number
  readonly #end: number

  /** Copies the keys to `at` in `bytes`. */
  private constructor(bytes: Uint8Array, at: number, keys: PacketKeys) {
    this.#bytes = bytes
    this.#at = at
    this.#integrityAt = at + keys.encryptionKey.length
    this.#end = at + sizeOf(keys)
    bytes.set(keys.encryptionKey, at)
    bytes.set(keys.integrityKey, this.#integrityAt)
  }

  static of(keys: PacketKeys): HeldKeys {
    return new HeldKeys(new Uint8Array(sizeOf(keys)), 0, keys)
  }

  /** The keys of two SAs that are made together, in one piece of memory: most of a small one is not bytes. */
  static pair(first: PacketKeys, second: PacketKeys): [HeldKeys, HeldKeys] {
    const bytes = new Uint8Array(sizeOf(first) + sizeOf(second))
    return [new HeldKeys(bytes, 0, first), new HeldKeys(bytes, sizeOf(first), second)]
  }

  get encryptionKey(): Uint8Array {
    return this.#bytes.subarray(this.#at, this.#integrityAt)
  }

  get integrityKey(): Uint8Array {
    return this.#bytes.subarray(this.#integrityAt, this.#end)
  }

  destroy(): void {
    this.#bytes.fill(0, this.#at, this.#end)
  }
}

function sizeOf({ encryptionKey, integrityKey }: PacketKeys): number {
  return encryptionKey.length + integrityKey.length
}
