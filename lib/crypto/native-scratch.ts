/**
 * A small piece of memory that OpenSSL is told the address of: nonces, lengths, hash states. It is
 * wiped when its owner is done.
 */
import type { Libcrypto } from './libcrypto.ts'

export class NativeScratch {
  readonly bytes: Uint8Array
  readonly view: DataView
  readonly words: Uint32Array
  /** Native address of byte 0; holds while this object is reachable. */
  readonly address: number

  constructor(library: Libcrypto, lengthBytes: number) {
    // Never from the shared pool, and always off the heap: it stays where it is.
    const buffer = Buffer.allocUnsafeSlow(Math.ceil(Math.max(lengthBytes, 128) / 8) * 8)
    this.bytes = new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.length).fill(0)
    this.view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length)
    this.words = new Uint32Array(buffer.buffer, buffer.byteOffset, buffer.length / 4)
    this.address = library.addressOf(this.bytes)
  }

  wipe(): void {
    this.bytes.fill(0)
  }
}
