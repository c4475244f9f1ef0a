/**
 * SHA-1 (RFC 3174) over whole blocks that stand in an array, without allocation: for the key changes
 * of MPPE, one per packet, where OpenSSL's hash state cannot be reached and `node:crypto` costs three
 * times as much. For nothing else: use `node:crypto` there.
 */

export const sha1BlockBytes = 64
export const sha1DigestBytes = 20

const words = new Int32Array(80)

/**
 * Writes the digest of `blockCount` blocks at the start of `blocks` to the start of `out`. The caller
 * has put the padding into the last block (RFC 3174 §4).
 */
export function sha1OfBlocks(blocks: Uint8Array, blockCount: number, out: Uint8Array): void {
  let h0 = 0x67452301
  let h1 = 0xefcdab89 | 0
  let h2 = 0x98badcfe | 0
  let h3 = 0x10325476
  let h4 = 0xc3d2e1f0 | 0
  const w = words
  for (let block = 0; block < blockCount; block++) {
    let at = block * sha1BlockBytes
    for (let i = 0; i < 16; i++, at += 4) {
      w[i] =
        ((blocks[at] ?? 0) << 24) |
        ((blocks[at + 1] ?? 0) << 16) |
        ((blocks[at + 2] ?? 0) << 8) |
        (blocks[at + 3] ?? 0)
    }
    for (let i = 16; i < 80; i++) {
      const x = (w[i - 3] ?? 0) ^ (w[i - 8] ?? 0) ^ (w[i - 14] ?? 0) ^ (w[i - 16] ?? 0)
      w[i] = (x << 1) | (x >>> 31)
    }
    let a = h0
    let b = h1
    let c = h2
    let d = h3
    let e = h4
    for (let i = 0; i < 20; i++) {
      const next =
        (((a << 5) | (a >>> 27)) + (d ^ (b & (c ^ d))) + e + 0x5a827999 + (w[i] ?? 0)) | 0
      e = d
      d = c
      c = (b << 30) | (b >>> 2)
      b = a
      a = next
    }
    for (let i = 20; i < 40; i++) {
      const next = (((a << 5) | (a >>> 27)) + (b ^ c ^ d) + e + 0x6ed9eba1 + (w[i] ?? 0)) | 0
      e = d
      d = c
      c = (b << 30) | (b >>> 2)
      b = a
      a = next
    }
    for (let i = 40; i < 60; i++) {
      const next =
        (((a << 5) | (a >>> 27)) + ((b & c) | (d & (b | c))) + e + 0x8f1bbcdc + (w[i] ?? 0)) | 0
      e = d
      d = c
      c = (b << 30) | (b >>> 2)
      b = a
      a = next
    }
    for (let i = 60; i < 80; i++) {
      const next = (((a << 5) | (a >>> 27)) + (b ^ c ^ d) + e + 0xca62c1d6 + (w[i] ?? 0)) | 0
      e = d
      d = c
      c = (b << 30) | (b >>> 2)
      b = a
      a = next
    }
    h0 = (h0 + a) | 0
    h1 = (h1 + b) | 0
    h2 = (h2 + c) | 0
    h3 = (h3 + d) | 0
    h4 = (h4 + e) | 0
  }
  putWord(out, 0, h0)
  putWord(out, 4, h1)
  putWord(out, 8, h2)
  putWord(out, 12, h3)
  putWord(out, 16, h4)
  w.fill(0)
}

function putWord(out: Uint8Array, at: number, word: number): void {
  out[at] = word >>> 24
  out[at + 1] = word >>> 16
  out[at + 2] = word >>> 8
  out[at + 3] = word
}
