/**
 * MACs made of AES-128 alone: AES-XCBC-MAC (RFC 3566 §4) and AES-CMAC (RFC 4493 §2.4). Android
 * offers them; nobody else needs them, so they are plain and run one block cipher call per message.
 */
import { createCipheriv } from 'node:crypto'
import { concatBytes } from '../core/bytes.ts'
import { wipe } from '../core/secret.ts'

const blockBytes = 16
export const aesMacBytes = blockBytes
const zeroBlock = new Uint8Array(blockBytes)

export type AesMac = (key: Uint8Array, ...parts: Uint8Array[]) => Uint8Array

/** `blocks`, a multiple of 16 bytes, through AES-128-CBC from a zero IV: the last block is the MAC. */
function cbcMac(key: Uint8Array, blocks: Uint8Array): Uint8Array {
  const cipher = createCipheriv('aes-128-cbc', key, zeroBlock).setAutoPadding(false)
  const chain = cipher.update(blocks)
  cipher.final()
  return Uint8Array.from(chain.subarray(chain.length - blockBytes))
}

function encryptBlocks(key: Uint8Array, blocks: Uint8Array): Uint8Array {
  const cipher = createCipheriv('aes-128-ecb', key, null).setAutoPadding(false)
  const out = Uint8Array.from(cipher.update(blocks))
  cipher.final()
  return out
}

/** The message with its last block completed (10* when it is short) and XORed with one of two keys. */
function masked(parts: Uint8Array[], whenWhole: Uint8Array, whenShort: Uint8Array): Uint8Array {
  const message = concatBytes(...parts)
  const isWhole = message.length > 0 && message.length % blockBytes === 0
  const length = isWhole
    ? message.length
    : message.length - (message.length % blockBytes) + blockBytes
  const out = new Uint8Array(length)
  out.set(message)
  if (!isWhole) out[message.length] = 0x80
  const mask = isWhole ? whenWhole : whenShort
  const lastAt = length - blockBytes
  for (let i = 0; i < blockBytes; i++) out[lastAt + i] = (out[lastAt + i] ?? 0) ^ (mask[i] ?? 0)
  return out
}

/** All 128 bits of AES-XCBC-MAC; `key` has 16 bytes. */
export const aesXcbc: AesMac = (key, ...parts) => {
  const constants = new Uint8Array(3 * blockBytes)
  constants.fill(1, 0, 16).fill(2, 16, 32).fill(3, 32, 48)
  const keys = encryptBlocks(key, constants)
  const mac = cbcMac(keys.subarray(0, 16), masked(parts, keys.subarray(16, 32), keys.subarray(32)))
  wipe(keys)
  return mac
}

/** All 128 bits of AES-CMAC; `key` has 16 bytes. */
export const aesCmac: AesMac = (key, ...parts) => {
  const l = encryptBlocks(key, zeroBlock)
  const k1 = doubled(l)
  const k2 = doubled(k1)
  const mac = cbcMac(key, masked(parts, k1, k2))
  wipe(l, k1, k2)
  return mac
}

/** RFC 4493 §2.3: multiplication by x in GF(2^128), without a branch on the secret. */
function doubled(block: Uint8Array): Uint8Array {
  const out = new Uint8Array(blockBytes)
  for (let i = 0; i < blockBytes; i++) {
    out[i] = ((block[i] ?? 0) << 1) | ((block[i + 1] ?? 0) >>> 7)
  }
  out[blockBytes - 1] = (out[blockBytes - 1] ?? 0) ^ (-((block[0] ?? 0) >>> 7) & 0x87)
  return out
}
