/** MS-CHAP version 2, the functions of RFC 2759 §8, under their names there. */
import { createHash } from 'node:crypto'
import {
  concatBytes,
  copyBytes,
  equalBytes,
  putBytes,
  toHex,
  utf8,
  utf16le,
} from '../core/bytes.ts'
import { InvariantError } from '../core/errors.ts'
import { Secret, wipe } from '../core/secret.ts'
import { desDecrypt, desEncrypt, desRawKeyBytes } from './des.ts'
import { md4 } from './md4.ts'
import { Rc4 } from './rc4.ts'

// Specification constants.

/** RFC 2759 §8.1: challenges of either side. */
export const challengeBytes = 16
/** RFC 2759 §8.5. */
export const ntResponseBytes = 24
/** RFC 2759 §8.3. */
export const ntHashBytes = 16
/** RFC 2759 §8.8: 512 bytes of padded password and a length. */
export const encryptedPasswordBytes = 516
/** RFC 2759 §8.12. */
export const encryptedHashBytes = 16
/** RFC 2759 §8.8: a password has at most 256 UTF-16 units. */
const passwordBufferBytes = 512

/** RFC 2759 §8.7. */
const magicServerToClient = utf8('Magic server to client signing constant')
const padToMakeItDoMore = utf8('Pad to make it do more than one iteration')

export interface Mschapv2Exchange {
  /** The name as sent; a domain prefix is allowed and not hashed. */
  readonly userName: string
  /** 16 bytes each. */
  readonly authenticatorChallenge: Uint8Array
  readonly peerChallenge: Uint8Array
}

/** `DOMAIN\user` -> `user`: only the last part goes into the hash (RFC 2759 §4, `Name`). */
export function withoutDomain(userName: string): string {
  return userName.slice(userName.lastIndexOf('\\') + 1)
}

/** RFC 2759 §8.3. The result is as good as the password: wipe it or keep it in a `Secret`. */
export function ntPasswordHash(password: string): Uint8Array {
  const unicode = utf16le(password)
  const hash = md4(unicode)
  wipe(unicode)
  return hash
}

/** RFC 2759 §8.4. */
export function hashNtPasswordHash(ntHash: Uint8Array): Uint8Array {
  return md4(ntHash)
}

/** RFC 2759 §8.2: 8 bytes. */
export function challengeHash(exchange: Mschapv2Exchange): Uint8Array {
  const digest = sha1(
    exchange.peerChallenge,
    exchange.authenticatorChallenge,
    utf8(withoutDomain(exchange.userName)),
  )
  return copyBytes(digest, 0, 8)
}

/** RFC 2759 §8.5: 8 challenge bytes under the 16-byte hash; 24 bytes. MS-CHAPv1 has the same. */
export function challengeResponse(challenge: Uint8Array, ntHash: Uint8Array): Uint8Array {
  const padded = new Uint8Array(3 * desRawKeyBytes)
  padded.set(ntHash)
  const response = new Uint8Array(ntResponseBytes)
  for (let i = 0; i < 3; i++) {
    const rawKey = copyBytes(padded, desRawKeyBytes * i, desRawKeyBytes * (i + 1))
    putBytes(response, 8 * i, desEncrypt(rawKey, challenge))
    wipe(rawKey)
  }
  wipe(padded)
  return response
}

/** RFC 2759 §8.1: what a peer that knows the password answers. */
export function generateNtResponse(exchange: Mschapv2Exchange, ntHash: Uint8Array): Uint8Array {
  return challengeResponse(challengeHash(exchange), ntHash)
}

/** Whether `ntResponse` was made with the password behind `ntHash`; constant time. */
export function checkNtResponse(
  exchange: Mschapv2Exchange,
  ntHash: Uint8Array,
  ntResponse: Uint8Array,
): boolean {
  return equalBytes(generateNtResponse(exchange, ntHash), ntResponse)
}

/** RFC 2759 §8.7: `S=` and 40 upper-case hexadecimal digits; the server's own proof. */
export function generateAuthenticatorResponse(
  exchange: Mschapv2Exchange,
  ntHash: Uint8Array,
  ntResponse: Uint8Array,
): string {
  const hashHash = hashNtPasswordHash(ntHash)
  const inner = sha1(hashHash, ntResponse, magicServerToClient)
  const digest = sha1(inner, challengeHash(exchange), padToMakeItDoMore)
  wipe(hashHash, inner)
  return `S=${toHex(digest).toUpperCase()}`
}

/**
 * RFC 2759 §8.8 CheckAuthenticatorResponse on the text of a Success packet. Digits of either case
 * are taken, and text may follow without a space: Windows Server 2019 sends `S=…M=…`.
 */
export function checkAuthenticatorResponse(
  exchange: Mschapv2Exchange,
  ntHash: Uint8Array,
  ntResponse: Uint8Array,
  successText: string,
): boolean {
  const expected = generateAuthenticatorResponse(exchange, ntHash, ntResponse)
  const received = successText.slice(0, expected.length).toUpperCase()
  return equalBytes(utf8(expected), utf8(received))
}

/** RFC 2759 §8.9 NewPasswordEncryptedWithOldNtPasswordHash: 516 bytes. `padding` fills the front. */
export function encryptNewPassword(
  newPassword: string,
  oldNtHash: Uint8Array,
  padding: Uint8Array,
): Uint8Array {
  const unicode = utf16le(newPassword)
  if (unicode.length > passwordBufferBytes || padding.length !== passwordBufferBytes) {
    throw new InvariantError(`a password of ${newPassword.length} UTF-16 units does not fit`)
  }
  const block = new Uint8Array(encryptedPasswordBytes)
  block.set(padding)
  block.set(unicode, passwordBufferBytes - unicode.length)
  block[passwordBufferBytes] = unicode.length
  block[passwordBufferBytes + 1] = unicode.length >>> 8
  const rc4 = new Rc4(oldNtHash)
  rc4.process(block)
  rc4.destroy()
  wipe(unicode)
  return block
}

/** The inverse: undefined when the length inside makes no sense, as after a wrong old password. */
export function decryptNewPassword(
  encryptedPassword: Uint8Array,
  oldNtHash: Uint8Array,
): Secret | undefined {
  if (encryptedPassword.length !== encryptedPasswordBytes) return undefined
  const block = copyBytes(encryptedPassword)
  const rc4 = new Rc4(oldNtHash)
  rc4.process(block)
  rc4.destroy()
  // 32 bits, low byte first.
  const lengthBytes =
    (block[512] ?? 0) |
    ((block[513] ?? 0) << 8) |
    ((block[514] ?? 0) << 16) |
    ((block[515] ?? 0) * 0x100_0000)
  const isPossible = lengthBytes > 0 && lengthBytes <= passwordBufferBytes && lengthBytes % 2 === 0
  const secret = isPossible
    ? Secret.fromText(utf16leText(block, passwordBufferBytes - lengthBytes, passwordBufferBytes))
    : undefined
  wipe(block)
  return secret
}

/** RFC 2759 §8.12 OldNtPasswordHashEncryptedWithNewNtPasswordHash: 16 bytes. */
export function encryptOldNtHash(oldNtHash: Uint8Array, newNtHash: Uint8Array): Uint8Array {
  const left = copyBytes(newNtHash, 0, desRawKeyBytes)
  const right = copyBytes(newNtHash, desRawKeyBytes, 2 * desRawKeyBytes)
  const encrypted = concatBytes(
    desEncrypt(left, copyBytes(oldNtHash, 0, 8)),
    desEncrypt(right, copyBytes(oldNtHash, 8, 16)),
  )
  wipe(left, right)
  return encrypted
}

/** Whether `encryptedHash` is the old hash under the new one, both as the server knows them. */
export function checkEncryptedHash(
  encryptedHash: Uint8Array,
  oldNtHash: Uint8Array,
  newNtHash: Uint8Array,
): boolean {
  return equalBytes(encryptOldNtHash(oldNtHash, newNtHash), encryptedHash)
}

/** The inverse of `encryptOldNtHash`. */
export function decryptOldNtHash(encryptedHash: Uint8Array, newNtHash: Uint8Array): Uint8Array {
  const left = copyBytes(newNtHash, 0, desRawKeyBytes)
  const right = copyBytes(newNtHash, desRawKeyBytes, 2 * desRawKeyBytes)
  const decrypted = concatBytes(
    desDecrypt(left, copyBytes(encryptedHash, 0, 8)),
    desDecrypt(right, copyBytes(encryptedHash, 8, 16)),
  )
  wipe(left, right)
  return decrypted
}

function sha1(...parts: Uint8Array[]): Uint8Array {
  const hash = createHash('sha1')
  for (const part of parts) hash.update(part)
  return Uint8Array.from(hash.digest())
}

function utf16leText(bytes: Uint8Array, at: number, end: number): string {
  let text = ''
  for (let i = at; i + 1 < end; i += 2) {
    text += String.fromCharCode((bytes[i] ?? 0) | ((bytes[i + 1] ?? 0) << 8))
  }
  return text
}
