/** One EVP_CIPHER_CTX with its key, kept for the life of an SA: 1.4 KB and 1.8 µs to make. */
import { SystemError } from '../core/errors.ts'
import { opensslCipherName } from './cipher.ts'
import type { Libcrypto } from './libcrypto.ts'
import { NativeScratch } from './native-scratch.ts'
import type { EncryptionTransform } from './transforms.ts'

/** Addresses of OpenSSL's method tables, by name; they are static. */
const methods = new Map<string, number>()

/** The method table of a cipher, 0 when OpenSSL does not have it. */
export function cipherMethod(
  library: Libcrypto,
  transform: EncryptionTransform,
  keyBits: number,
): number {
  const name = opensslCipherName(transform, keyBits)
  const known = methods.get(name)
  if (known !== undefined) return known
  const text = new NativeScratch(library, name.length + 1)
  for (let i = 0; i < name.length; i++) text.bytes[i] = name.charCodeAt(i)
  const method = library.evp.cipherByName(text.address)
  methods.set(name, method)
  return method
}

export type Direction = 'seal' | 'open'

/**
 * A context that holds `key` (without salt). IVs are set per packet, or never: a CBC context that
 * is never set back chains from packet to packet. `method` is a method table of this cipher. Throws SystemError when OpenSSL refuses.
 */
export function createEvpContext(
  library: Libcrypto,
  transform: EncryptionTransform,
  key: Uint8Array,
  direction: Direction,
  method = cipherMethod(library, transform, key.length * 8),
): number {
  const { evp } = library
  const context = method === 0 ? 0 : evp.newContext()
  if (context === 0) throw new SystemError(`OpenSSL has no ${transform.name} here`)
  const ivAt = 64
  const scratch = new NativeScratch(library, 128)
  scratch.bytes.set(key)
  const init = direction === 'seal' ? evp.initEncrypt : evp.initDecrypt
  const result = init(context, method, 0, scratch.address, scratch.address + ivAt)
  scratch.wipe()
  if (result !== 1) {
    evp.freeContext(context)
    throw new SystemError(`OpenSSL refuses a key for ${transform.name}`)
  }
  evp.setPadding(context, 0)
  return context
}
