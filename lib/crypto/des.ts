/**
 * Single DES on one block, as MS-CHAP uses it (RFC 2759 §8.6, RFC 2433 §A.6). OpenSSL 3 has moved
 * single DES to its legacy provider; triple DES with one key three times is the same function.
 */
import { createCipheriv, createDecipheriv } from 'node:crypto'
import { concatBytes } from '../core/bytes.ts'
import { InvariantError } from '../core/errors.ts'
import { wipe } from '../core/secret.ts'

export const desBlockBytes = 8
export const desKeyBytes = 8
/** A key as MS-CHAP cuts it out of a hash: 56 bits without parity. */
export const desRawKeyBytes = 7

const cipher = 'des-ede3-ecb'

/** Spreads 56 bits over 8 bytes, seven to a byte, and sets odd parity in the low bits. */
export function expandDesKey(raw: Uint8Array): Uint8Array {
  if (raw.length !== desRawKeyBytes)
    throw new InvariantError(`a raw DES key has ${raw.length} bytes`)
  const key = new Uint8Array(desKeyBytes)
  for (let i = 0; i < desKeyBytes; i++) {
    const window = ((raw[i - 1] ?? 0) << 8) | (raw[i] ?? 0)
    const byte = (window >>> i) & 0xfe
    key[i] = byte | oddParityBit(byte)
  }
  return key
}

/** Encrypts one 8-byte block under a 7-byte key. */
export function desEncrypt(rawKey: Uint8Array, block: Uint8Array): Uint8Array {
  const key = tripled(rawKey)
  const out = createCipheriv(cipher, key, null).setAutoPadding(false).update(block)
  wipe(key)
  return checkedBlock(out)
}

/** Decrypts one 8-byte block under a 7-byte key. */
export function desDecrypt(rawKey: Uint8Array, block: Uint8Array): Uint8Array {
  const key = tripled(rawKey)
  const out = createDecipheriv(cipher, key, null).setAutoPadding(false).update(block)
  wipe(key)
  return checkedBlock(out)
}

function tripled(rawKey: Uint8Array): Uint8Array {
  const key = expandDesKey(rawKey)
  const tripled = concatBytes(key, key, key)
  wipe(key)
  return tripled
}

function checkedBlock(out: Uint8Array): Uint8Array {
  if (out.length !== desBlockBytes) throw new InvariantError(`DES block of ${out.length} bytes`)
  return Uint8Array.from(out)
}

function oddParityBit(byte: number): number {
  let ones = 0
  for (let bits = byte >>> 1; bits !== 0; bits >>>= 1) ones += bits & 1
  return (ones & 1) ^ 1
}
