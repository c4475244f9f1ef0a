/**
 * The Internet checksum (RFC 1071) in plain TypeScript: the fall-back when WebAssembly SIMD is
 * missing, the small sums that are not worth a call, and incremental updates (RFC 1624).
 *
 * Sums are kept in the byte order of memory, little-endian: a number from a header in network order
 * is added as `swap16(number)`, and a result is stored with `view.setUint16(at, sum, true)`.
 */

/** The two bytes of a 16-bit number exchanged. */
export function swap16(value: number): number {
  return ((value & 0xff) << 8) | ((value >>> 8) & 0xff)
}

/** A sum below 2^31 folded to 16 bits with end-around carry. */
export function fold16(sum: number): number {
  const once = (sum & 0xffff) + (sum >>> 16)
  return (once & 0xffff) + (once >>> 16)
}

/**
 * Sum of `lengthBytes` bytes added to `seed` (below 2^20), folded to 16 bits. An odd last byte counts
 * as if a zero byte followed. `lengthBytes` is at most 65,537.
 */
export function plainChecksum(
  bytes: Uint8Array,
  at: number,
  lengthBytes: number,
  seed: number,
): number {
  // Low and high bytes are summed apart, so that the loop has no shift: each sum stays below 2^23.
  let low = 0
  let high = 0
  const evenEnd = at + (lengthBytes & ~1)
  let i = at
  for (; i < evenEnd; i += 2) {
    low += bytes[i] ?? 0
    high += bytes[i + 1] ?? 0
  }
  if ((lengthBytes & 1) !== 0) low += bytes[i] ?? 0
  return fold16(fold16(seed) + fold16(low) + fold16(high * 256))
}

/**
 * The checksum field after one 16-bit word of the covered data changed (RFC 1624 §3, equation 3).
 * All three numbers in the same byte order.
 */
export function updatedChecksum(checksum: number, oldWord: number, newWord: number): number {
  return ~fold16((~checksum & 0xffff) + (~oldWord & 0xffff) + newWord) & 0xffff
}
