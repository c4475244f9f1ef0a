/**
 * RC4, for MPPE (RFC 3078) and for the password change of MS-CHAPv2 (RFC 2759 §8.9). Plain
 * TypeScript; packets go through `packet-rc4.ts`, which is faster where it can be. It protects nothing by itself.
 */
import { InvariantError } from '../core/errors.ts'

const stateBytes = 256

export class Rc4 {
  /** 32-bit elements: V8 reads and writes them at less cost than bytes. */
  readonly #s = new Int32Array(stateBytes)
  #i = 0
  #j = 0

  constructor(key: Uint8Array) {
    this.rekey(key)
  }

  /** Starts over with another key, 1 to 256 bytes; allocates nothing. */
  rekey(key: Uint8Array): void {
    const keyBytes = key.length
    if (keyBytes === 0 || keyBytes > stateBytes) {
      throw new InvariantError(`an RC4 key has ${keyBytes} bytes`)
    }
    const s = this.#s
    for (let i = 0; i < stateBytes; i++) s[i] = i
    let j = 0
    let k = 0
    for (let i = 0; i < stateBytes; i++) {
      const si = s[i] ?? 0
      j = (j + si + (key[k] ?? 0)) & 0xff
      s[i] = s[j] ?? 0
      s[j] = si
      if (++k === keyBytes) k = 0
    }
    this.#i = 0
    this.#j = 0
  }

  /** Encrypts or decrypts `length` bytes at `at` in place. */
  process(bytes: Uint8Array, at = 0, length = bytes.length - at): void {
    const s = this.#s
    const end = at + length
    const endOfFours = at + (length & ~3)
    let i = this.#i
    let j = this.#j
    let k = at
    // Four at a time: the loop itself costs a third otherwise.
    for (; k < endOfFours; k += 4) {
      i = (i + 1) & 0xff
      let a = s[i] ?? 0
      j = (j + a) & 0xff
      let b = s[j] ?? 0
      s[i] = b
      s[j] = a
      bytes[k] = (bytes[k] ?? 0) ^ (s[(a + b) & 0xff] ?? 0)
      i = (i + 1) & 0xff
      a = s[i] ?? 0
      j = (j + a) & 0xff
      b = s[j] ?? 0
      s[i] = b
      s[j] = a
      bytes[k + 1] = (bytes[k + 1] ?? 0) ^ (s[(a + b) & 0xff] ?? 0)
      i = (i + 1) & 0xff
      a = s[i] ?? 0
      j = (j + a) & 0xff
      b = s[j] ?? 0
      s[i] = b
      s[j] = a
      bytes[k + 2] = (bytes[k + 2] ?? 0) ^ (s[(a + b) & 0xff] ?? 0)
      i = (i + 1) & 0xff
      a = s[i] ?? 0
      j = (j + a) & 0xff
      b = s[j] ?? 0
      s[i] = b
      s[j] = a
      bytes[k + 3] = (bytes[k + 3] ?? 0) ^ (s[(a + b) & 0xff] ?? 0)
    }
    for (; k < end; k++) {
      i = (i + 1) & 0xff
      const a = s[i] ?? 0
      j = (j + a) & 0xff
      const b = s[j] ?? 0
      s[i] = b
      s[j] = a
      bytes[k] = (bytes[k] ?? 0) ^ (s[(a + b) & 0xff] ?? 0)
    }
    this.#i = i
    this.#j = j
  }

  /** Forgets the key. */
  destroy(): void {
    this.#s.fill(0)
    this.#i = 0
    this.#j = 0
  }
}
