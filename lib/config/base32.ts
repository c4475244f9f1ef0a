/** RFC 4648 §6, as authenticator apps write their keys: without regard to case, spaces and padding. */

const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'

/** Undefined when the text is something else. Bits that do not fill a byte are left away. */
export function parseBase32(text: string): Uint8Array | undefined {
  const digits = text.toUpperCase().replace(/[ -]/g, '').replace(/=+$/, '')
  const out = new Uint8Array(Math.floor((digits.length * 5) / 8))
  let bits = 0
  let count = 0
  let end = 0
  for (const digit of digits) {
    const value = alphabet.indexOf(digit)
    if (value < 0) return undefined
    bits = ((bits << 5) | value) & 0xfff
    count += 5
    if (count < 8) continue
    count -= 8
    out[end++] = bits >>> count
  }
  return out
}

export function formatBase32(bytes: Uint8Array): string {
  let text = ''
  let bits = 0
  let count = 0
  for (const byte of bytes) {
    bits = ((bits << 8) | byte) & 0xfff
    for (count += 8; count >= 5; ) {
      count -= 5
      text += alphabet[(bits >>> count) & 31]
    }
  }
  return count === 0 ? text : text + alphabet[(bits << (5 - count)) & 31]
}
