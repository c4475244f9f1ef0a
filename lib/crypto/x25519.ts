/** Curve25519 in IKE: RFC 8031, RFC 7748. Public values and the secret are 32 bytes as they come. */
import { createPrivateKey, createPublicKey, diffieHellman, type KeyObject } from 'node:crypto'
import { WireFault } from '../core/faults.ts'
import { randomBytes } from '../core/random.ts'
import type { DhGroup } from './key-exchange.ts'

const valueBytes = 32
/**
 * RFC 8037 §2. The JWK form of a key is taken as it is, where OpenSSL 3.0 searches its decoders for
 * the DER form for a millisecond.
 */
const curve = { kty: 'OKP', crv: 'X25519' } as const

function base64url(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64url')
}

/** The form asks for the public value beside the private one; only the private one is read. */
const unreadPublicValue = base64url(new Uint8Array(valueBytes))

function privateKeyOf(value: Uint8Array): KeyObject {
  const key = { ...curve, d: base64url(value), x: unreadPublicValue }
  return createPrivateKey({ key, format: 'jwk' })
}

export function createX25519Group(): DhGroup {
  return {
    publicBytes: valueBytes,
    drawPrivateValue: random => randomBytes(random, valueBytes),
    keyPair: value => {
      // OpenSSL wipes its copy when the key is collected.
      const privateKey = privateKeyOf(value)
      return {
        publicValue: () => {
          const { x = '' } = createPublicKey(privateKey).export({ format: 'jwk' })
          return Uint8Array.from(Buffer.from(x, 'base64url'))
        },
        agree: peerValue => {
          const key = { ...curve, x: base64url(peerValue) }
          try {
            const publicKey = createPublicKey({ key, format: 'jwk' })
            return Uint8Array.from(diffieHellman({ privateKey, publicKey }))
          } catch (_lowOrderPoint) {
            // RFC 7748 §6.1, RFC 8031 §3.2: an all-zero result is refused; OpenSSL does it itself.
            return WireFault['bad-value']
          }
        },
      }
    },
  }
}
