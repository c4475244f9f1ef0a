/**
 * The crypto binding ([MS-SSTP] §3.2.5.2): proof that the one who authenticated inside the tunnel also
 * ended the TLS connection around it, so nobody stands in between.
 */
import { createHash, createHmac } from 'node:crypto'
import { equalBytes, utf8 } from '../core/bytes.ts'
import { wipe } from '../core/secret.ts'
import {
  ATTRIBUTE_HEADER_BYTES,
  type CryptoBinding,
  HASH_FIELD_BYTES,
  type HashName,
  HashProtocol,
  NONCE_BYTES,
} from './wire/attribute.ts'
import { MESSAGE_MIN_BYTES, messageBytes } from './wire/message.ts'

/** §3.2.5.2.3: the seed of the compound MAC key, without a terminating NUL. */
const SEED = utf8('SSTP inner method derived CMK')

/** Length of the higher-layer authentication key (HLAK), §3.2.5.2.2. */
export const HIGHER_LAYER_KEY_BYTES = 32

/** A Call-Connected message has exactly this length, §2.2.12. */
export const CALL_CONNECTED_BYTES = 112
const MAC_AT = MESSAGE_MIN_BYTES + ATTRIBUTE_HEADER_BYTES + 4 + NONCE_BYTES + HASH_FIELD_BYTES

const hashBytes: Record<HashName, number> = { sha1: 20, sha256: 32 }

/** Bitmask of the hashes that may be used, §2.2.6. */
export function hashBitmask(hashes: readonly HashName[]): number {
  return hashes.reduce((mask, name) => mask | HashProtocol[name], 0)
}

/** The strongest hash in a bitmask; undefined when it has none that we know. */
export function strongestHash(bitmask: number): HashName | undefined {
  if ((bitmask & HashProtocol.sha256) !== 0) return 'sha256'
  return (bitmask & HashProtocol.sha1) !== 0 ? 'sha1' : undefined
}

/** The hash of exactly one bit; undefined for none, several or unknown ones. */
export function hashOfBit(bit: number): HashName | undefined {
  if (bit === HashProtocol.sha256) return 'sha256'
  return bit === HashProtocol.sha1 ? 'sha1' : undefined
}

/** Hash of a certificate in DER, padded to the 32 bytes of its field. */
export function certificateHash(hash: HashName, certificate: Uint8Array): Uint8Array {
  const field = new Uint8Array(HASH_FIELD_BYTES)
  field.set(createHash(hash).update(certificate).digest())
  return field
}

/**
 * The compound MAC key, §3.2.5.2.3. The length in the seed is little-endian: the vectors of §4.7 say
 * so, whatever the byte order of everything else.
 */
export function compoundMacKey(hash: HashName, higherLayerKey: Uint8Array): Uint8Array {
  const suffix = Uint8Array.of(hashBytes[hash], 0, 1)
  return createHmac(hash, higherLayerKey).update(SEED).update(suffix).digest()
}

/** The compound MAC over a Call-Connected message, padded to the 32 bytes of its field, §3.2.5.2.1. */
export function compoundMac(
  hash: HashName,
  higherLayerKey: Uint8Array,
  callConnected: Uint8Array,
): Uint8Array {
  const key = compoundMacKey(hash, higherLayerKey)
  const zeroed = Uint8Array.from(callConnected)
  zeroed.fill(0, MAC_AT)
  const field = new Uint8Array(HASH_FIELD_BYTES)
  field.set(createHmac(hash, key).update(zeroed).digest())
  wipe(key)
  return field
}

/** What the server knows that the client must have bound to. */
export interface BindingExpectation {
  readonly nonce: Uint8Array
  readonly offered: readonly HashName[]
  /** The certificate that this very connection was answered with, DER. */
  readonly certificate: Uint8Array
}

export type BindingFailure =
  | 'binding-nonce'
  | 'binding-hash-not-offered'
  | 'binding-certificate'
  | 'binding-mac'

/**
 * All that §3.3.5.2.3 asks for and that needs no key: nonce, hash and certificate. The result is
 * the hash to check the MAC with.
 */
export function checkBinding(
  binding: CryptoBinding,
  expected: BindingExpectation,
): HashName | BindingFailure {
  const hash = hashOfBit(binding.hashProtocol)
  if (hash === undefined || !expected.offered.includes(hash)) return 'binding-hash-not-offered'
  if (!equalBytes(binding.nonce, expected.nonce)) return 'binding-nonce'
  const own = certificateHash(hash, expected.certificate)
  return equalBytes(binding.certificateHash, own) ? hash : 'binding-certificate'
}

/** Whether the MAC in a Call-Connected message was made with the key. Constant time. */
export function isCompoundMacRight(
  hash: HashName,
  higherLayerKey: Uint8Array,
  callConnected: Uint8Array,
  binding: CryptoBinding,
): boolean {
  return equalBytes(binding.compoundMac, compoundMac(hash, higherLayerKey, callConnected))
}

/** The client's Call-Connected message. */
export function callConnectedBytes(
  hash: HashName,
  nonce: Uint8Array,
  certificate: Uint8Array,
  higherLayerKey: Uint8Array,
): Uint8Array {
  const message = messageBytes('call-connected', {
    type: 'crypto-binding',
    hashProtocol: HashProtocol[hash],
    nonce,
    certificateHash: certificateHash(hash, certificate),
    compoundMac: new Uint8Array(HASH_FIELD_BYTES),
  })
  message.set(compoundMac(hash, higherLayerKey, message), MAC_AT)
  return message
}
