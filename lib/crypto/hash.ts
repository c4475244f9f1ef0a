/**
 * Hashes and HMACs over control messages: OpenSSL through node:crypto, and the same from
 * @noble/hashes, which stands in when the OpenSSL of this Node does not carry an algorithm.
 */
import { createHash, createHmac, getHashes } from 'node:crypto'
import { hmac as nobleHmac } from '@noble/hashes/hmac.js'
import { md5, sha1 } from '@noble/hashes/legacy.js'
import { sha256, sha384, sha512 } from '@noble/hashes/sha2.js'

export type HashName = 'md5' | 'sha1' | 'sha256' | 'sha384' | 'sha512'

export const hashBytes: Readonly<Record<HashName, number>> = {
  md5: 16,
  sha1: 20,
  sha256: 32,
  sha384: 48,
  sha512: 64,
}

export interface HashProvider {
  readonly name: 'node' | 'noble'
  digest(hash: HashName, ...parts: Uint8Array[]): Uint8Array
  hmac(hash: HashName, key: Uint8Array, ...parts: Uint8Array[]): Uint8Array
}

export const nodeHashes: HashProvider = {
  name: 'node',
  digest: (hash, ...parts) => {
    const state = createHash(hash)
    for (const part of parts) state.update(part)
    return Uint8Array.from(state.digest())
  },
  hmac: (hash, key, ...parts) => {
    const state = createHmac(hash, key)
    for (const part of parts) state.update(part)
    return Uint8Array.from(state.digest())
  },
}

const nobleByName = { md5, sha1, sha256, sha384, sha512 } as const

export const nobleHashes: HashProvider = {
  name: 'noble',
  digest: (hash, ...parts) => {
    const state = nobleByName[hash].create()
    for (const part of parts) state.update(part)
    return state.digest()
  },
  hmac: (hash, key, ...parts) => {
    const state = nobleHmac.create(nobleByName[hash], key)
    for (const part of parts) state.update(part)
    return state.digest()
  },
}

const carried = new Set(getHashes())

function providerOf(hash: HashName): HashProvider {
  return carried.has(hash) ? nodeHashes : nobleHashes
}

/** The digest of the parts one after the other. */
export function digest(hash: HashName, ...parts: Uint8Array[]): Uint8Array {
  return providerOf(hash).digest(hash, ...parts)
}

/** RFC 2104 over the parts one after the other. */
export function hmac(hash: HashName, key: Uint8Array, ...parts: Uint8Array[]): Uint8Array {
  return providerOf(hash).hmac(hash, key, ...parts)
}
