/**
 * MD4 (RFC 1320). Broken as a hash; MS-CHAP's password hash is defined with it, and OpenSSL 3 keeps
 * it out of its default provider. Nothing else here may use it.
 */
import { wipe } from '../core/secret.ts'

const blockBytes = 64
export const md4Bytes = 16

/** RFC 1320 §3.4: the order of words and the shifts of each round. */
// biome-ignore format: aligned like the RFC
const rounds = [
  { add: 0x00000000, shifts: [3, 7, 11, 19], words: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] },
  { add: 0x5a827999, shifts: [3, 5,  9, 13], words: [0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15] },
  { add: 0x6ed9eba1, shifts: [3, 9, 11, 15], words: [0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15] },
] as const

/** The 16-byte MD4 digest of `message`. */
export function md4(message: Uint8Array): Uint8Array {
  // RFC 1320 §3.1, §3.2: one bit, zeros, and the length in bits as 64 bits, low word first.
  const padded = new Uint8Array(Math.ceil((message.length + 9) / blockBytes) * blockBytes)
  padded.set(message)
  padded[message.length] = 0x80
  const bits = message.length * 8
  putU32le(padded, padded.length - 8, bits >>> 0)
  putU32le(padded, padded.length - 4, Math.floor(bits / 0x1_0000_0000))

  const state = Uint32Array.of(0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476)
  const words = new Uint32Array(16)
  for (let at = 0; at < padded.length; at += blockBytes) {
    for (let i = 0; i < 16; i++) words[i] = u32le(padded, at + 4 * i)
    compress(state, words)
  }
  const digest = new Uint8Array(md4Bytes)
  for (let i = 0; i < 4; i++) putU32le(digest, 4 * i, state[i] ?? 0)
  wipe(padded)
  words.fill(0)
  return digest
}

function compress(state: Uint32Array, words: Uint32Array): void {
  let [a = 0, b = 0, c = 0, d = 0] = state
  for (const [round, { add, shifts, words: order }] of rounds.entries()) {
    for (let i = 0; i < 16; i++) {
      const mixed = (a + mix(round, b, c, d) + (words[order[i] ?? 0] ?? 0) + add) >>> 0
      const shift = shifts[i & 3] ?? 0
      a = d
      d = c
      c = b
      b = ((mixed << shift) | (mixed >>> (32 - shift))) >>> 0
    }
  }
  state[0] = (state[0] ?? 0) + a
  state[1] = (state[1] ?? 0) + b
  state[2] = (state[2] ?? 0) + c
  state[3] = (state[3] ?? 0) + d
}

/** F, G and H of RFC 1320 §3.4. */
function mix(round: number, x: number, y: number, z: number): number {
  if (round === 0) return (x & y) | (~x & z)
  if (round === 1) return (x & y) | (x & z) | (y & z)
  return x ^ y ^ z
}

function u32le(bytes: Uint8Array, at: number): number {
  return (
    ((bytes[at] ?? 0) |
      ((bytes[at + 1] ?? 0) << 8) |
      ((bytes[at + 2] ?? 0) << 16) |
      ((bytes[at + 3] ?? 0) << 24)) >>>
    0
  )
}

function putU32le(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value
  bytes[at + 1] = value >>> 8
  bytes[at + 2] = value >>> 16
  bytes[at + 3] = value >>> 24
}
