/**
 * What the tunnel secret is for: hidden AVPs (RFC 2661 §4.3) and tunnel authentication (§5.1.1).
 * Both are MD5 over a code, the secret and something random.
 */
import { copyBytes, equalBytes, putBytes, putU16, u16 } from '../core/bytes.ts'
import { type RandomSource, randomBytes } from '../core/random.ts'
import { type Secret, wipe } from '../core/secret.ts'
import { digest } from '../crypto/hash.ts'
import { messageTable } from './wire/avp-table.ts'
import type { AvpHiding } from './wire/message.ts'

const digestBytes = 16
const randomVectorBytes = 16

/** The response to `challenge` in a message of `type`: MD5(message type | secret | challenge). */
export function challengeResponse(
  type: 'sccrp' | 'scccn',
  secret: Secret,
  challenge: Uint8Array,
): Uint8Array {
  return digest('md5', Uint8Array.of(messageTable[type].code), secret.expose(), challenge)
}

/** Constant-time check of a peer's response. */
export function isResponseGood(
  type: 'sccrp' | 'scccn',
  secret: Secret,
  challenge: Uint8Array,
  response: Uint8Array,
): boolean {
  return equalBytes(challengeResponse(type, secret, challenge), response)
}

/** Hidden AVPs under `secret`. Values are padded so that their length shows only in steps of 16. */
export function createAvpHiding(secret: Secret, random: RandomSource): AvpHiding {
  const firstPad = (type: number, randomVector: Uint8Array) => {
    const attribute = new Uint8Array(2)
    putU16(attribute, 0, type)
    return digest('md5', attribute, secret.expose(), randomVector)
  }
  return {
    randomVector: () => randomBytes(random, randomVectorBytes),
    hide: (type, value, randomVector) => {
      const plain = new Uint8Array(Math.ceil((value.length + 2) / digestBytes) * digestBytes)
      random.fill(plain)
      putBytes(plain, putU16(plain, 0, value.length), value)
      let pad = firstPad(type, randomVector)
      for (let at = 0; at < plain.length; at += digestBytes) {
        for (let i = 0; i < digestBytes; i++) plain[at + i] = (plain[at + i] ?? 0) ^ (pad[i] ?? 0)
        pad = digest('md5', secret.expose(), copyBytes(plain, at, at + digestBytes))
      }
      return plain
    },
    reveal: (type, hidden, randomVector) => {
      if (hidden.length < 2) return undefined
      const plain = new Uint8Array(hidden.length)
      let pad = firstPad(type, randomVector)
      for (let at = 0; at < hidden.length; at += digestBytes) {
        const end = Math.min(at + digestBytes, hidden.length)
        for (let i = at; i < end; i++) plain[i] = (hidden[i] ?? 0) ^ (pad[i - at] ?? 0)
        pad = digest('md5', secret.expose(), copyBytes(hidden, at, end))
      }
      // The length is the cipher's output: a wrong secret gives any value.
      const length = u16(plain, 0)
      const value = length <= plain.length - 2 ? copyBytes(plain, 2, 2 + length) : undefined
      wipe(plain)
      return value
    },
  }
}
