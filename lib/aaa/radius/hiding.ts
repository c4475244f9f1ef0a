/** Values that RADIUS hides under the shared secret: User-Password and the MPPE keys. */
import { copyBytes, putBytes } from '../../core/bytes.ts'
import type { Secret } from '../../core/secret.ts'
import { wipe } from '../../core/secret.ts'
import { digest } from '../../crypto/hash.ts'

const blockBytes = 16
/** RFC 2865 §5.2. */
export const longestPasswordBytes = 128
const saltBytes = 2

/** RFC 2865 §5.2. Undefined when the password is too long. */
export function hidePassword(
  password: Secret,
  secret: Secret,
  requestAuthenticator: Uint8Array,
): Uint8Array | undefined {
  if (password.length > longestPasswordBytes) return undefined
  const blocks = Math.max(1, Math.ceil(password.length / blockBytes))
  const out = new Uint8Array(blocks * blockBytes)
  putBytes(out, 0, password.expose())
  let previous = requestAuthenticator
  for (let at = 0; at < out.length; at += blockBytes) {
    xorBlock(out, at, digest('md5', secret.expose(), previous))
    previous = copyBytes(out, at, at + blockBytes)
  }
  return out
}

/** RFC 2865 §5.2 read backwards: the padded password. */
export function revealPassword(
  hidden: Uint8Array,
  secret: Secret,
  requestAuthenticator: Uint8Array,
): Uint8Array | undefined {
  if (hidden.length === 0 || hidden.length % blockBytes !== 0) return undefined
  const out = copyBytes(hidden)
  let previous = requestAuthenticator
  for (let at = 0; at < out.length; at += blockBytes) {
    xorBlock(out, at, digest('md5', secret.expose(), previous))
    previous = copyBytes(hidden, at, at + blockBytes)
  }
  return out
}

/** RFC 2548 §2.4.2: salt, then the key with its length, chained from secret, authenticator and salt. */
export function hideKey(
  key: Uint8Array,
  salt: Uint8Array,
  secret: Secret,
  requestAuthenticator: Uint8Array,
): Uint8Array {
  const blocks = Math.ceil((1 + key.length) / blockBytes)
  const out = new Uint8Array(saltBytes + blocks * blockBytes)
  putBytes(out, 0, salt)
  out[saltBytes] = key.length
  putBytes(out, saltBytes + 1, key)
  let chain = [requestAuthenticator, copyBytes(salt)]
  for (let at = saltBytes; at < out.length; at += blockBytes) {
    xorBlock(out, at, digest('md5', secret.expose(), ...chain))
    chain = [copyBytes(out, at, at + blockBytes)]
  }
  return out
}

/** RFC 2548 §2.4.2 and §2.4.3. Undefined when lengths or salt are wrong: another secret, or forged. */
export function revealKey(
  hidden: Uint8Array,
  secret: Secret,
  requestAuthenticator: Uint8Array,
): Uint8Array | undefined {
  const textBytes = hidden.length - saltBytes
  if (textBytes < blockBytes || textBytes % blockBytes !== 0) return undefined
  if (((hidden[0] ?? 0) & 0x80) === 0) return undefined
  const plain = copyBytes(hidden, saltBytes)
  let chain = [requestAuthenticator, copyBytes(hidden, 0, saltBytes)]
  for (let at = 0; at < plain.length; at += blockBytes) {
    xorBlock(plain, at, digest('md5', secret.expose(), ...chain))
    chain = [copyBytes(hidden, saltBytes + at, saltBytes + at + blockBytes)]
  }
  const keyBytes = plain[0] ?? 0
  const isWhole = keyBytes > 0 && 1 + keyBytes <= plain.length
  const key = isWhole ? copyBytes(plain, 1, 1 + keyBytes) : undefined
  wipe(plain)
  return key
}

function xorBlock(out: Uint8Array, at: number, mask: Uint8Array): void {
  for (let i = 0; i < blockBytes; i++) out[at + i] = (out[at + i] ?? 0) ^ (mask[i] ?? 0)
}
