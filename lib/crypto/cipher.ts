/**
 * Ciphers over control messages, and over packets when OpenSSL cannot be called directly: the same
 * algorithms out of node:crypto and out of @noble/ciphers. Keys are the keying material of IKE, so
 * they end with the salt where the transform has one; IVs are those that travel.
 */

import { type CipherGCMTypes, createCipheriv, createDecipheriv, getCiphers } from 'node:crypto'
import { cbc, ctr, gcm } from '@noble/ciphers/aes.js'
import { chacha20poly1305 } from '@noble/ciphers/chacha.js'
import { concatBytes, equalBytes, putU32 } from '../core/bytes.ts'
import { EncryptionId, type EncryptionTransform } from './transforms.ts'

export interface CipherProvider {
  readonly name: 'node' | 'noble'
  supports(transform: EncryptionTransform, keyBits: number): boolean
  /**
   * The ciphertext, and behind it the tag when the transform is an AEAD (`associated` is ignored
   * when it is none). `plaintext` is a multiple of `transform.blockBytes`; there is no padding.
   */
  encrypt(
    transform: EncryptionTransform,
    key: Uint8Array,
    iv: Uint8Array,
    plaintext: Uint8Array,
    associated: Uint8Array,
  ): Uint8Array
  /** The plaintext, or undefined when the tag is wrong. `ciphertext` ends with the tag. */
  decrypt(
    transform: EncryptionTransform,
    key: Uint8Array,
    iv: Uint8Array,
    ciphertext: Uint8Array,
    associated: Uint8Array,
  ): Uint8Array | undefined
}

const ctrSaltBytes = 4

/** RFC 3686 §4: salt | IV | block counter, which starts at 1. */
function ctrBlock(key: Uint8Array, iv: Uint8Array): Uint8Array {
  const block = new Uint8Array(16)
  block.set(key.subarray(key.length - ctrSaltBytes))
  block.set(iv, ctrSaltBytes)
  putU32(block, 12, 1)
  return block
}

/** RFC 4106 §4, RFC 7634 §2: salt | IV. */
function aeadNonce(transform: EncryptionTransform, key: Uint8Array, iv: Uint8Array): Uint8Array {
  return concatBytes(key.subarray(key.length - transform.saltBytes), iv)
}

function withoutSalt(transform: EncryptionTransform, key: Uint8Array): Uint8Array {
  return key.subarray(0, key.length - transform.saltBytes)
}

/** OpenSSL's name of a cipher. */
export function opensslCipherName(transform: EncryptionTransform, keyBits: number): string {
  switch (transform.id) {
    case EncryptionId.tripleDes:
      return 'des-ede3-cbc'
    case EncryptionId.chacha20Poly1305:
      return 'chacha20-poly1305'
    default:
      return `aes-${keyBits}-${transform.mode}`
  }
}

const carried = new Set(getCiphers())

function nodeKeyBits(transform: EncryptionTransform, key: Uint8Array): number {
  return (key.length - transform.saltBytes) * 8
}

export const nodeCiphers: CipherProvider = {
  name: 'node',
  supports: (transform, keyBits) => {
    const name = opensslCipherName(transform, keyBits)
    // The list spells GCM `id-aes128-GCM` and `aes-128-gcm`.
    return carried.has(name)
  },
  encrypt: (transform, key, iv, plaintext, associated) => {
    const name = opensslCipherName(transform, nodeKeyBits(transform, key))
    const bareKey = withoutSalt(transform, key)
    if (!transform.isAead) {
      const startIv = transform.mode === 'ctr' ? ctrBlock(key, iv) : iv
      const cipher = createCipheriv(name, bareKey, startIv).setAutoPadding(false)
      return concatBytes(cipher.update(plaintext), cipher.final())
    }
    // The type covers all AEAD modes but names GCM; ChaCha20 takes the same options.
    const cipher = createCipheriv(name as CipherGCMTypes, bareKey, aeadNonce(transform, key, iv), {
      authTagLength: transform.icvBytes,
    })
    cipher.setAAD(associated)
    return concatBytes(cipher.update(plaintext), cipher.final(), cipher.getAuthTag())
  },
  decrypt: (transform, key, iv, ciphertext, associated) => {
    const name = opensslCipherName(transform, nodeKeyBits(transform, key))
    const bareKey = withoutSalt(transform, key)
    if (!transform.isAead) {
      const startIv = transform.mode === 'ctr' ? ctrBlock(key, iv) : iv
      const cipher = createDecipheriv(name, bareKey, startIv).setAutoPadding(false)
      return concatBytes(cipher.update(ciphertext), cipher.final())
    }
    if (ciphertext.length < transform.icvBytes) return undefined
    const tagAt = ciphertext.length - transform.icvBytes
    const nonce = aeadNonce(transform, key, iv)
    const cipher = createDecipheriv(name as CipherGCMTypes, bareKey, nonce, {
      authTagLength: transform.icvBytes,
    })
    cipher.setAAD(associated)
    cipher.setAuthTag(ciphertext.subarray(tagAt))
    const plaintext = cipher.update(ciphertext.subarray(0, tagAt))
    try {
      cipher.final()
    } catch (_wrongTag) {
      plaintext.fill(0)
      return undefined
    }
    return Uint8Array.from(plaintext)
  },
}

/** GCM counts blocks from 2 for the text: 1 belongs to the tag (SP 800-38D §7.1). */
function gcmTextBlock(nonce: Uint8Array): Uint8Array {
  const block = new Uint8Array(16)
  block.set(nonce)
  putU32(block, 12, 2)
  return block
}

export const nobleCiphers: CipherProvider = {
  name: 'noble',
  supports: transform => transform.id !== EncryptionId.tripleDes,
  encrypt: (transform, key, iv, plaintext, associated) => {
    const bareKey = withoutSalt(transform, key)
    switch (transform.mode) {
      case 'cbc':
        return cbc(bareKey, iv, { disablePadding: true }).encrypt(plaintext)
      case 'ctr':
        return ctr(bareKey, ctrBlock(key, iv)).encrypt(plaintext)
      case 'chacha':
        return chacha20poly1305(bareKey, aeadNonce(transform, key, iv), associated).encrypt(
          plaintext,
        )
      case 'gcm': {
        const sealed = gcm(bareKey, aeadNonce(transform, key, iv), associated).encrypt(plaintext)
        return sealed.subarray(0, plaintext.length + transform.icvBytes)
      }
    }
  },
  decrypt: (transform, key, iv, ciphertext, associated) => {
    const bareKey = withoutSalt(transform, key)
    if (ciphertext.length < transform.icvBytes) return undefined
    switch (transform.mode) {
      case 'cbc':
        return cbc(bareKey, iv, { disablePadding: true }).decrypt(ciphertext)
      case 'ctr':
        return ctr(bareKey, ctrBlock(key, iv)).decrypt(ciphertext)
      case 'chacha':
        try {
          return chacha20poly1305(bareKey, aeadNonce(transform, key, iv), associated).decrypt(
            ciphertext,
          )
        } catch (_wrongTag) {
          return undefined
        }
      case 'gcm': {
        // The library knows whole tags only, so the tag is computed anew and its start compared.
        const nonce = aeadNonce(transform, key, iv)
        const text = ciphertext.subarray(0, ciphertext.length - transform.icvBytes)
        const plaintext = ctr(bareKey, gcmTextBlock(nonce)).decrypt(text)
        const again = gcm(bareKey, nonce, associated).encrypt(plaintext)
        return equalBytes(again.subarray(0, ciphertext.length), ciphertext) ? plaintext : undefined
      }
    }
  },
}

/** The provider for a cipher on control messages, or undefined when this Node cannot do it. */
export function cipherProvider(
  transform: EncryptionTransform,
  keyBits: number,
): CipherProvider | undefined {
  return [nodeCiphers, nobleCiphers].find(provider => provider.supports(transform, keyBits))
}
