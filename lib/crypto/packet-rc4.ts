/**
 * RC4 as MPPE needs it, a key per packet: OpenSSL's own where the process has it (a packet of 1,400
 * bytes takes a third of the time), else plain TypeScript. `RC4` and `RC4_set_key` work without the
 * legacy provider, which EVP would ask for.
 */
import { InvariantError } from '../core/errors.ts'
import { type Libcrypto, libcrypto, type Rc4Calls } from './libcrypto.ts'
import { NativeScratch } from './native-scratch.ts'
import { Rc4 } from './rc4.ts'

export interface PacketRc4 {
  /** Starts over with another key, 1 to 256 bytes; allocates nothing. */
  rekey(key: Uint8Array): void
  /** Encrypts or decrypts `length` bytes at `at` in place. */
  process(bytes: Uint8Array, at: number, length: number): void
  /** Forgets the key. */
  destroy(): void
}

/** The fastest RC4 of this process. */
export function createPacketRc4(key: Uint8Array): PacketRc4 {
  const library = libcrypto()
  return library?.rc4 === undefined ? new Rc4(key) : new OpensslRc4(library, library.rc4, key)
}

/** sizeof(RC4_KEY): two indices and 256 elements, 32 bits each where they are not bytes; with room to spare. */
const stateBytes = 1152
const maxKeyBytes = 256
/** So short that copying is cheaper than asking for an address; it also spares arrays that V8 may move. */
const maxShortBytes = 64

const keyAt = stateBytes
const shortAt = stateBytes + maxKeyBytes

export class OpensslRc4 implements PacketRc4 {
  readonly #library: Libcrypto
  readonly #calls: Rc4Calls
  readonly #scratch: NativeScratch
  /** The memory that was worked on last, nearly always packet memory, and where it is. */
  #memory: Uint8Array | undefined
  #memoryAddress = 0

  constructor(library: Libcrypto, calls: Rc4Calls, key: Uint8Array) {
    this.#library = library
    this.#calls = calls
    this.#scratch = new NativeScratch(library, shortAt + maxShortBytes)
    this.rekey(key)
  }

  rekey(key: Uint8Array): void {
    const keyBytes = key.length
    if (keyBytes === 0 || keyBytes > maxKeyBytes) {
      throw new InvariantError(`an RC4 key has ${keyBytes} bytes`)
    }
    const { bytes, address } = this.#scratch
    for (let i = 0; i < keyBytes; i++) bytes[keyAt + i] = key[i] ?? 0
    this.#calls.setKey(address, keyBytes, address + keyAt)
  }

  process(bytes: Uint8Array, at: number, length: number): void {
    const { address } = this.#scratch
    if (length <= maxShortBytes) {
      const short = this.#scratch.bytes
      for (let i = 0; i < length; i++) short[shortAt + i] = bytes[at + i] ?? 0
      this.#calls.process(address, length, address + shortAt, address + shortAt)
      for (let i = 0; i < length; i++) bytes[at + i] = short[shortAt + i] ?? 0
      return
    }
    if (at + length > bytes.length) throw new InvariantError('RC4 beyond the end of the bytes')
    if (this.#memory !== bytes) {
      this.#memory = bytes
      this.#memoryAddress = this.#library.addressOf(bytes)
    }
    const from = this.#memoryAddress + at
    this.#calls.process(address, length, from, from)
  }

  destroy(): void {
    this.#scratch.wipe()
    this.#memory = undefined
  }
}
