/**
 * The algorithms that IKE negotiates, as data: IANA "Internet Key Exchange Version 2 (IKEv2)
 * Parameters", transform types 1 to 5. ESP uses the same numbers. Requirement levels: RFC 8247 (IKE)
 * and RFC 8221 (ESP).
 *
 * `isLegacy` marks what stays off until the configuration names it.
 */

/** RFC 7296 §3.3.2; 6 to 12 are RFC 9370 §2.2.2. */
export const TransformType = {
  encryption: 1,
  prf: 2,
  integrity: 3,
  keyExchange: 4,
  extendedSequenceNumbers: 5,
  additionalKeyExchange1: 6,
  additionalKeyExchange7: 12,
} as const

export const EncryptionId = {
  tripleDes: 3,
  null: 11,
  aesCbc: 12,
  aesCtr: 13,
  aesGcm8: 18,
  aesGcm12: 19,
  aesGcm16: 20,
  chacha20Poly1305: 28,
} as const

export const PrfId = {
  hmacSha1: 2,
  aesXcbc: 4,
  hmacSha256: 5,
  hmacSha384: 6,
  hmacSha512: 7,
  aesCmac: 8,
} as const

export const IntegrityId = {
  none: 0,
  hmacSha1_96: 2,
  aesXcbc96: 5,
  aesCmac96: 8,
  hmacSha256_128: 12,
  hmacSha384_192: 13,
  hmacSha512_256: 14,
} as const

export const KeyExchangeId = {
  none: 0,
  modp1024: 2,
  modp1536: 5,
  modp2048: 14,
  modp3072: 15,
  modp4096: 16,
  ecp256: 19,
  ecp384: 20,
  ecp521: 21,
  x25519: 31,
  mlKem512: 35,
  mlKem768: 36,
  mlKem1024: 37,
} as const

export type EncryptionId = (typeof EncryptionId)[keyof typeof EncryptionId]
export type PrfId = (typeof PrfId)[keyof typeof PrfId]
export type IntegrityId = (typeof IntegrityId)[keyof typeof IntegrityId]
export type KeyExchangeId = (typeof KeyExchangeId)[keyof typeof KeyExchangeId]

export type CipherMode = 'cbc' | 'ctr' | 'gcm' | 'chacha'

export interface EncryptionTransform {
  readonly id: EncryptionId
  readonly name: string
  readonly mode: CipherMode
  /** Key sizes in bits, strongest first, without the salt. */
  readonly keyBits: readonly number[]
  /** Whether proposals carry the Key Length attribute (RFC 7296 §3.3.5). */
  readonly hasKeyLength: boolean
  /** The plaintext, padded, is a multiple of this; 1 for stream modes. */
  readonly blockBytes: number
  /** The IV that travels in the packet. */
  readonly ivBytes: number
  /** Bytes of the keying material, after the key, that are the fixed part of the nonce. */
  readonly saltBytes: number
  /** Length of the tag; 0 when an integrity transform has to be negotiated too. */
  readonly icvBytes: number
  readonly isAead: boolean
  readonly isLegacy: boolean
}

export interface PrfTransform {
  readonly id: PrfId
  readonly name: string
  readonly isLegacy: boolean
}

export interface IntegrityTransform {
  readonly id: IntegrityId
  readonly name: string
  readonly keyBytes: number
  readonly icvBytes: number
  readonly isLegacy: boolean
}

export interface KeyExchangeTransform {
  readonly id: KeyExchangeId
  readonly name: string
  /** A KEM may only be an additional exchange (RFC 9370), after the SAs have keys. */
  readonly isAdditionalOnly: boolean
  readonly isLegacy: boolean
}

const aesKeyBits = [256, 192, 128] as const
const counterMode = {
  hasKeyLength: true,
  blockBytes: 1,
  ivBytes: 8,
  keyBits: aesKeyBits,
  isLegacy: false,
} as const
const gcm = { ...counterMode, mode: 'gcm', saltBytes: 4, isAead: true } as const

export const encryptionTransforms: readonly EncryptionTransform[] = [
  // RFC 4106 §8, RFC 5282.
  { ...gcm, id: EncryptionId.aesGcm16, name: 'AES-GCM-16', icvBytes: 16 },
  // RFC 7634. The key is always 256 bits, so there is no Key Length attribute (§4).
  {
    ...gcm,
    id: EncryptionId.chacha20Poly1305,
    name: 'ChaCha20-Poly1305',
    mode: 'chacha',
    keyBits: [256],
    hasKeyLength: false,
    icvBytes: 16,
  },
  // RFC 3602.
  {
    id: EncryptionId.aesCbc,
    name: 'AES-CBC',
    mode: 'cbc',
    keyBits: aesKeyBits,
    hasKeyLength: true,
    blockBytes: 16,
    ivBytes: 16,
    saltBytes: 0,
    icvBytes: 0,
    isAead: false,
    isLegacy: false,
  },
  // RFC 3686; RFC 5930 for IKE's own messages.
  {
    ...counterMode,
    id: EncryptionId.aesCtr,
    name: 'AES-CTR',
    mode: 'ctr',
    saltBytes: 4,
    icvBytes: 0,
    isAead: false,
  },
  { ...gcm, id: EncryptionId.aesGcm12, name: 'AES-GCM-12', icvBytes: 12 },
  // A forgery succeeds once in 2^64 tries or better for long messages (SP 800-38D appendix C).
  { ...gcm, id: EncryptionId.aesGcm8, name: 'AES-GCM-8', icvBytes: 8, isLegacy: true },
  // RFC 2451. 64-bit blocks: birthday attacks after some GiB (RFC 8221 §5).
  {
    id: EncryptionId.tripleDes,
    name: '3DES-CBC',
    mode: 'cbc',
    keyBits: [192],
    hasKeyLength: false,
    blockBytes: 8,
    ivBytes: 8,
    saltBytes: 0,
    icvBytes: 0,
    isAead: false,
    isLegacy: true,
  },
]

export const prfTransforms: readonly PrfTransform[] = [
  { id: PrfId.hmacSha256, name: 'PRF-HMAC-SHA2-256', isLegacy: false },
  { id: PrfId.hmacSha384, name: 'PRF-HMAC-SHA2-384', isLegacy: false },
  { id: PrfId.hmacSha512, name: 'PRF-HMAC-SHA2-512', isLegacy: false },
  { id: PrfId.aesXcbc, name: 'PRF-AES128-XCBC', isLegacy: false },
  { id: PrfId.aesCmac, name: 'PRF-AES128-CMAC', isLegacy: false },
  { id: PrfId.hmacSha1, name: 'PRF-HMAC-SHA1', isLegacy: true },
]

export const integrityTransforms: readonly IntegrityTransform[] = [
  // RFC 4868.
  {
    id: IntegrityId.hmacSha256_128,
    name: 'HMAC-SHA2-256-128',
    keyBytes: 32,
    icvBytes: 16,
    isLegacy: false,
  },
  {
    id: IntegrityId.hmacSha384_192,
    name: 'HMAC-SHA2-384-192',
    keyBytes: 48,
    icvBytes: 24,
    isLegacy: false,
  },
  {
    id: IntegrityId.hmacSha512_256,
    name: 'HMAC-SHA2-512-256',
    keyBytes: 64,
    icvBytes: 32,
    isLegacy: false,
  },
  // RFC 3566.
  { id: IntegrityId.aesXcbc96, name: 'AES-XCBC-96', keyBytes: 16, icvBytes: 12, isLegacy: false },
  // RFC 4494.
  { id: IntegrityId.aesCmac96, name: 'AES-CMAC-96', keyBytes: 16, icvBytes: 12, isLegacy: false },
  // RFC 2404.
  { id: IntegrityId.hmacSha1_96, name: 'HMAC-SHA1-96', keyBytes: 20, icvBytes: 12, isLegacy: true },
]

const group = { isAdditionalOnly: false, isLegacy: false } as const
const kem = { isAdditionalOnly: true, isLegacy: false } as const

export const keyExchangeTransforms: readonly KeyExchangeTransform[] = [
  { ...group, id: KeyExchangeId.x25519, name: 'X25519' },
  { ...group, id: KeyExchangeId.ecp256, name: 'ECP-256' },
  { ...group, id: KeyExchangeId.ecp384, name: 'ECP-384' },
  { ...group, id: KeyExchangeId.ecp521, name: 'ECP-521' },
  { ...group, id: KeyExchangeId.modp2048, name: 'MODP-2048' },
  { ...group, id: KeyExchangeId.modp3072, name: 'MODP-3072' },
  { ...group, id: KeyExchangeId.modp4096, name: 'MODP-4096' },
  // RFC 8247 §2.4: SHOULD NOT. Some iPhones and old routers offer nothing better.
  { ...group, id: KeyExchangeId.modp1536, name: 'MODP-1536' },
  { ...group, id: KeyExchangeId.modp1024, name: 'MODP-1024', isLegacy: true },
  { ...kem, id: KeyExchangeId.mlKem512, name: 'ML-KEM-512' },
  { ...kem, id: KeyExchangeId.mlKem768, name: 'ML-KEM-768' },
  { ...kem, id: KeyExchangeId.mlKem1024, name: 'ML-KEM-1024' },
]

function byId<T extends { readonly id: number }>(table: readonly T[]): ReadonlyMap<number, T> {
  return new Map(table.map(row => [row.id, row]))
}

const encryptions = byId(encryptionTransforms)
const prfs = byId(prfTransforms)
const integrities = byId(integrityTransforms)
const keyExchanges = byId(keyExchangeTransforms)

/** The row of a number from the wire, or undefined when we do not know the algorithm. */
export function encryptionTransform(id: number): EncryptionTransform | undefined {
  return encryptions.get(id)
}

export function prfTransform(id: number): PrfTransform | undefined {
  return prfs.get(id)
}

export function integrityTransform(id: number): IntegrityTransform | undefined {
  return integrities.get(id)
}

export function keyExchangeTransform(id: number): KeyExchangeTransform | undefined {
  return keyExchanges.get(id)
}

/** Keying material that the cipher takes, bytes: key and salt (RFC 5282 §7.1, RFC 4106 §8.1). */
export function encryptionKeyBytes(transform: EncryptionTransform, keyBits: number): number {
  return keyBits / 8 + transform.saltBytes
}

/**
 * The key size that a proposal means: its Key Length attribute where the cipher has one, the only
 * size where it has not. Undefined when the two do not fit.
 */
export function negotiatedKeyBits(
  transform: EncryptionTransform,
  keyLengthAttribute: number | undefined,
): number | undefined {
  if (!transform.hasKeyLength) {
    return keyLengthAttribute === undefined || keyLengthAttribute === transform.keyBits[0]
      ? transform.keyBits[0]
      : undefined
  }
  return transform.keyBits.find(bits => bits === keyLengthAttribute)
}
