/**
 * Reads and writes at an offset of a byte array, in network byte order. Nothing here allocates
 * unless its name says so, and nothing here throws: a read past the end yields zero bits, so
 * callers check lengths once, in their `check…` function, before they read.
 */

export function u16(buf: Uint8Array, at: number): number {
  return ((buf[at] ?? 0) << 8) | (buf[at + 1] ?? 0)
}

export function u32(buf: Uint8Array, at: number): number {
  return (
    (((buf[at] ?? 0) << 24) |
      ((buf[at + 1] ?? 0) << 16) |
      ((buf[at + 2] ?? 0) << 8) |
      (buf[at + 3] ?? 0)) >>>
    0
  )
}

/** Writes 16 bits and returns the offset after them. */
export function putU16(out: Uint8Array, at: number, value: number): number {
  out[at] = value >>> 8
  out[at + 1] = value
  return at + 2
}

/** Writes 32 bits and returns the offset after them. */
export function putU32(out: Uint8Array, at: number, value: number): number {
  out[at] = value >>> 24
  out[at + 1] = value >>> 16
  out[at + 2] = value >>> 8
  out[at + 3] = value
  return at + 4
}

/** Copies `bytes` into `out` at `at` and returns the offset after them. */
export function putBytes(out: Uint8Array, at: number, bytes: Uint8Array): number {
  out.set(bytes, at)
  return at + bytes.length
}

/**
 * Whether two byte arrays are equal, in time that depends on their lengths alone. This is the only
 * comparison allowed for MACs, digests, nonces and tokens.
 */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false
  let difference = 0
  for (let i = 0; i < a.length; i++) difference |= (a[i] ?? 0) ^ (b[i] ?? 0)
  return difference === 0
}

/** A new array holding the parts one after the other. For control messages, never for packets. */
export function concatBytes(...parts: Uint8Array[]): Uint8Array {
  let length = 0
  for (const part of parts) length += part.length
  const out = new Uint8Array(length)
  let at = 0
  for (const part of parts) at = putBytes(out, at, part)
  return out
}

/** A copy that stays valid after the burst which `bytes` belongs to. */
export function copyBytes(bytes: Uint8Array, at = 0, end = bytes.length): Uint8Array {
  return Uint8Array.prototype.slice.call(bytes, at, end)
}

/**
 * Bytes as a text of as many characters, for what is kept for long and seldom looked at: of an array
 * of a hundred bytes the larger part is not bytes.
 */
export function packBytes(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1')
}

/** What `packBytes` was given. */
export function unpackBytes(text: string): Uint8Array {
  return Uint8Array.from(Buffer.from(text, 'latin1'))
}

const hexDigits = '0123456789abcdef'

/** Lower-case hexadecimal. */
export function toHex(bytes: Uint8Array): string {
  let text = ''
  for (const byte of bytes) text += (hexDigits[byte >>> 4] ?? '') + (hexDigits[byte & 15] ?? '')
  return text
}

/** Bytes of a hexadecimal text; white space is allowed anywhere between digits. */
export function fromHex(text: string): Uint8Array {
  const digits = text.replace(/\s+/g, '')
  if (digits.length % 2 !== 0 || /[^0-9a-f]/i.test(digits)) {
    throw new TypeError(`not an even number of hexadecimal digits: ${digits.length} characters`)
  }
  const out = new Uint8Array(digits.length / 2)
  for (let i = 0; i < out.length; i++) out[i] = Number.parseInt(digits.slice(2 * i, 2 * i + 2), 16)
  return out
}

const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { fatal: false })

export function utf8(text: string): Uint8Array {
  return encoder.encode(text)
}

/** Text of UTF-8 bytes; what is not UTF-8 becomes U+FFFD. */
export function utf8Text(bytes: Uint8Array): string {
  return decoder.decode(bytes)
}

export function utf16le(text: string): Uint8Array {
  const out = new Uint8Array(text.length * 2)
  for (let i = 0; i < text.length; i++) {
    const unit = text.charCodeAt(i)
    out[2 * i] = unit
    out[2 * i + 1] = unit >>> 8
  }
  return out
}
