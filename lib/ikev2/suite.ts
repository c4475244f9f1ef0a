/** What two peers agree on: the algorithms of an IKE SA and of a Child SA, and what we are willing to use. */
import type { PacketSuite } from '../crypto/packet-cipher.ts'
import type { Prf } from '../crypto/prf.ts'
import {
  EncryptionId,
  type EncryptionTransform,
  IntegrityId,
  type IntegrityTransform,
  KeyExchangeId,
  PrfId,
} from '../crypto/transforms.ts'

export interface IkeSuite {
  readonly encryption: EncryptionTransform
  readonly keyBits: number
  readonly prf: Prf
  /** Undefined exactly for AEADs. */
  readonly integrity: IntegrityTransform | undefined
  readonly keyExchangeId: number
  /** RFC 9370 §2.2.1: methods of ADDKE1 to ADDKE7 that are in use, in their order. */
  readonly additionalKeyExchanges: readonly number[]
}

export interface EspSuite extends PacketSuite {
  /** Group of a fresh key exchange, 0 for none. */
  readonly keyExchangeId: number
}

export interface EncryptionChoice {
  readonly id: number
  readonly keyBits: number
}

/** Algorithms by number, best first. */
export interface IkeAlgorithms {
  readonly encryption: readonly EncryptionChoice[]
  readonly prf: readonly PrfId[]
  readonly integrity: readonly number[]
  readonly keyExchange: readonly number[]
  /** Additional key exchange to ask for (initiator) or accept (responder), in IKE_INTERMEDIATE. */
  readonly additionalKeyExchange?: readonly number[]
}

export interface EspAlgorithms {
  readonly encryption: readonly EncryptionChoice[]
  readonly integrity: readonly number[]
  /** Groups for a fresh key exchange in CREATE_CHILD_SA. */
  readonly keyExchange: readonly number[]
  /** Ask for a fresh key exchange when we rekey, and refuse a peer's proposal without one. */
  readonly requiresKeyExchange: boolean
  /** Extended sequence numbers: offer and prefer, or offer and accept neither. */
  readonly extendedSequenceNumbers: boolean
}

const encryption: readonly EncryptionChoice[] = [
  { id: EncryptionId.aesGcm16, keyBits: 256 },
  { id: EncryptionId.aesGcm16, keyBits: 128 },
  { id: EncryptionId.chacha20Poly1305, keyBits: 256 },
  { id: EncryptionId.aesGcm12, keyBits: 256 },
  { id: EncryptionId.aesCbc, keyBits: 256 },
  { id: EncryptionId.aesCbc, keyBits: 192 },
  { id: EncryptionId.aesCbc, keyBits: 128 },
  { id: EncryptionId.aesCtr, keyBits: 256 },
]

const integrity: readonly number[] = [
  IntegrityId.hmacSha256_128,
  IntegrityId.hmacSha384_192,
  IntegrityId.hmacSha512_256,
]

const keyExchange: readonly number[] = [
  KeyExchangeId.x25519,
  KeyExchangeId.ecp256,
  KeyExchangeId.ecp384,
  KeyExchangeId.modp2048,
  KeyExchangeId.modp3072,
  KeyExchangeId.ecp521,
  KeyExchangeId.modp4096,
]

/** RFC 8247 without its SHOULD NOTs; the provisioning script brings Windows up to this. */
export const defaultIkeAlgorithms: IkeAlgorithms = {
  encryption,
  prf: [PrfId.hmacSha256, PrfId.hmacSha384, PrfId.hmacSha512],
  integrity,
  keyExchange,
}

export const defaultEspAlgorithms: EspAlgorithms = {
  encryption,
  integrity: [...integrity, IntegrityId.hmacSha1_96],
  keyExchange,
  requiresKeyExchange: false,
  extendedSequenceNumbers: true,
}

/** For people and logs: `AES-GCM-16-256/PRF-HMAC-SHA2-256/X25519`. */
export function describeEncryption(suite: {
  readonly encryption: EncryptionTransform
  readonly keyBits: number
  readonly integrity: IntegrityTransform | undefined
}): string {
  const { encryption: cipher, keyBits, integrity: mac } = suite
  return `${cipher.name}-${keyBits}${mac ? `/${mac.name}` : ''}`
}
