/**
 * OpenSSL's libcrypto in this process, called through koffi. Pointers are native addresses as plain
 * numbers (31 ns a call, where a byte array costs twice that). Every symbol is probed: what a Node
 * with another OpenSSL does not carry is undefined here, and its users fall back.
 */
import { createRequire } from 'node:module'
import type * as Koffi from 'koffi'

/** EVP_CIPHER_CTX_ctrl commands: openssl/evp.h. */
export const EvpCtrl = {
  setIvLength: 0x09,
  getTag: 0x10,
  setTag: 0x11,
  setIvFixed: 0x12,
  setTlsAssociated: 0x16,
} as const

/** The EVP calls of a packet; all or none of them are there. Results: 1 is success. */
export interface EvpCalls {
  newContext(): number
  freeContext(context: number): void
  /** Address of a cipher's method table, 0 when this OpenSSL does not have it. */
  cipherByName(nameAddress: number): number
  initEncrypt(context: number, cipher: number, engine: 0, key: number, iv: number): number
  initDecrypt(context: number, cipher: number, engine: 0, key: number, iv: number): number
  control(context: number, command: number, value: number, address: number): number
  setPadding(context: number, isOn: 0 | 1): number
  /** EVP_Cipher: no length pointer; bytes written, or -1 when it refuses. */
  cipher(context: number, out: number, input: number, lengthBytes: number): number
  finishEncrypt(context: number, out: number, writtenBytes: number): number
  /** 1 when the tag is right. */
  finishDecrypt(context: number, out: number, writtenBytes: number): number
}

/** Contexts of a copied method show their parts. Results are addresses; 0 is failure. */
export interface MethodCopyCalls {
  copyMethod(cipher: number): number
  /** The size of what `dataOf` gives, bytes. */
  dataBytes(cipher: number): number
  dataOf(context: number): number
  bufferOf(context: number): number
  /** Native memory as it is, not a copy. */
  memoryAt(address: number, lengthBytes: number): ArrayBuffer
}

/** One hash with its state as bytes that may be copied. Results: 1 is success. */
export interface HashStateCalls {
  init(state: number): number
  update(state: number, data: number, lengthBytes: number): number
  final(digest: number, state: number): number
}

/** OpenSSL's low-level RC4; its state is RC4_KEY. */
export interface Rc4Calls {
  setKey(state: number, keyBytes: number, key: number): void
  process(state: number, lengthBytes: number, input: number, out: number): void
}

export type StateHash = 'sha1' | 'sha256' | 'sha384' | 'sha512'

export interface Libcrypto {
  readonly evp: EvpCalls
  /** Undefined where OpenSSL does not let methods be copied any more. */
  readonly copies: MethodCopyCalls | undefined
  readonly hashes: Readonly<Partial<Record<StateHash, HashStateCalls>>>
  /** Undefined where OpenSSL was built without it. */
  readonly rc4: Rc4Calls | undefined
  addressOf(bytes: Uint8Array): number
}

let isProbed = false
let found: Libcrypto | undefined

/** The library, or undefined when koffi or the EVP symbols are missing. */
export function libcrypto(): Libcrypto | undefined {
  if (!isProbed) {
    isProbed = true
    found = probe()
  }
  return found
}

function probe(): Libcrypto | undefined {
  try {
    // Loaded on demand: where koffi has no binary, the portable providers must still work.
    const koffi = createRequire(import.meta.url)('koffi') as typeof Koffi
    const library = koffi.load(null)
    const hashes: Partial<Record<StateHash, HashStateCalls>> = {}
    for (const hash of ['sha1', 'sha256', 'sha384', 'sha512'] as const) {
      const calls = declareHash(library, hash.toUpperCase())
      if (calls !== undefined) hashes[hash] = calls
    }
    return {
      evp: declareEvp(library),
      copies: declareCopies(koffi, library),
      hashes,
      rc4: declareRc4(library),
      addressOf: bytes => Number(koffi.address(bytes)),
    }
  } catch (_missing) {
    return undefined
  }
}

function declareEvp(library: Koffi.LibraryHandle): EvpCalls {
  const init = '(intptr_t, intptr_t, intptr_t, intptr_t, intptr_t)'
  return {
    newContext: library.func('intptr_t EVP_CIPHER_CTX_new()'),
    freeContext: library.func('void EVP_CIPHER_CTX_free(intptr_t)'),
    cipherByName: library.func('intptr_t EVP_get_cipherbyname(intptr_t)'),
    initEncrypt: library.func(`int EVP_EncryptInit_ex${init}`),
    initDecrypt: library.func(`int EVP_DecryptInit_ex${init}`),
    control: library.func('int EVP_CIPHER_CTX_ctrl(intptr_t, int, int, intptr_t)'),
    setPadding: library.func('int EVP_CIPHER_CTX_set_padding(intptr_t, int)'),
    cipher: library.func('int EVP_Cipher(intptr_t, intptr_t, intptr_t, uint32_t)'),
    finishEncrypt: library.func('int EVP_EncryptFinal_ex(intptr_t, intptr_t, intptr_t)'),
    finishDecrypt: library.func('int EVP_DecryptFinal_ex(intptr_t, intptr_t, intptr_t)'),
  }
}

function declareCopies(
  koffi: typeof Koffi,
  library: Koffi.LibraryHandle,
): MethodCopyCalls | undefined {
  try {
    return {
      copyMethod: library.func('intptr_t EVP_CIPHER_meth_dup(intptr_t)'),
      dataBytes: library.func('int EVP_CIPHER_impl_ctx_size(intptr_t)'),
      dataOf: library.func('intptr_t EVP_CIPHER_CTX_get_cipher_data(intptr_t)'),
      bufferOf: library.func('intptr_t EVP_CIPHER_CTX_buf_noconst(intptr_t)'),
      memoryAt: (address, lengthBytes) => koffi.view(BigInt(address), lengthBytes),
    }
  } catch (_missing) {
    return undefined
  }
}

function declareHash(library: Koffi.LibraryHandle, name: string): HashStateCalls | undefined {
  try {
    return {
      init: library.func(`int ${name}_Init(intptr_t)`),
      update: library.func(`int ${name}_Update(intptr_t, intptr_t, intptr_t)`),
      final: library.func(`int ${name}_Final(intptr_t, intptr_t)`),
    }
  } catch (_missing) {
    return undefined
  }
}

function declareRc4(library: Koffi.LibraryHandle): Rc4Calls | undefined {
  try {
    return {
      setKey: library.func('void RC4_set_key(intptr_t, int, intptr_t)'),
      process: library.func('void RC4(intptr_t, intptr_t, intptr_t, intptr_t)'),
    }
  } catch (_missing) {
    return undefined
  }
}
