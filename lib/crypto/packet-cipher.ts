/**
 * Protection of packets of ESP's shape, in place, where they stand in pinned memory: RFC 4303 §2.
 * One object holds the keys of one direction of one SA.
 *
 *   at      +8    +8+ivBytes                     +bodyBytes
 *   SPI seq | IV | body: payload, padding, trailer | ICV
 */
import type { EncryptionTransform, IntegrityTransform } from './transforms.ts'

export type PacketCipherProviderName = 'evp-record' | 'evp' | 'node' | 'noble'

/** SPI and sequence number. */
export const PACKET_HEADER_BYTES = 8

/** The memory that packets stand in; the dataplane's pinned memory is one. */
export interface PacketBytes {
  readonly bytes: Uint8Array
  readonly view: DataView
  /** Native address of `bytes[0]`, 0 when there is none: then OpenSSL is not called directly. */
  readonly address: number
}

/** What IKE negotiated for an SA. */
export interface PacketSuite {
  readonly encryption: EncryptionTransform
  readonly keyBits: number
  /** Undefined exactly when `encryption` is an AEAD. */
  readonly integrity: IntegrityTransform | undefined
  /** Extended sequence numbers: the high 32 bits are authenticated but do not travel (RFC 4303 §2.2.1). */
  readonly hasEsn: boolean
}

export interface PacketKeys {
  /** Key and, where the transform has one, salt: `encryptionKeyBytes` long. */
  readonly encryptionKey: Uint8Array
  /** `integrity.keyBytes` long, empty for an AEAD. */
  readonly integrityKey: Uint8Array
}

export interface PacketSealer {
  readonly provider: PacketCipherProviderName
  /**
   * Writes the IV, encrypts `bodyBytes` (a multiple of the cipher's block) and writes the ICV. The
   * header is already there; `sequenceHigh` is 0 without ESN. The pair of both halves of the
   * sequence number must never repeat: counter modes make their nonce of it. False when the library
   * refuses; then the packet must not be sent.
   */
  seal(at: number, bodyBytes: number, sequenceHigh: number): boolean
  /** Wipes the keys and frees what OpenSSL holds; idempotent. The object is of no use afterwards. */
  destroy(): void
}

export interface PacketOpener {
  readonly provider: PacketCipherProviderName
  /**
   * Checks the ICV and decrypts. False when the ICV is wrong; what stands at `at` is then
   * undefined, and nothing of it may be used. `bodyBytes` is a multiple of the cipher's block.
   */
  open(at: number, bodyBytes: number, sequenceHigh: number): boolean
  destroy(): void
}

export interface PacketCipherProvider {
  readonly name: PacketCipherProviderName
  supports(suite: PacketSuite, memory: PacketBytes): boolean
  /** The keys are copied. */
  sealer(suite: PacketSuite, keys: PacketKeys, memory: PacketBytes): PacketSealer
  opener(suite: PacketSuite, keys: PacketKeys, memory: PacketBytes): PacketOpener
}

export function suiteIcvBytes(suite: PacketSuite): number {
  return suite.encryption.icvBytes + (suite.integrity?.icvBytes ?? 0)
}

/** For logs and status: `AES-CBC-256/HMAC-SHA2-256-128`. */
export function suiteName(suite: PacketSuite): string {
  const { name, hasKeyLength } = suite.encryption
  const cipher = hasKeyLength ? `${name}-${suite.keyBits}` : name
  return suite.integrity === undefined ? cipher : `${cipher}/${suite.integrity.name}`
}

/** Whether the parts fit each other; a suite for which this is false must not be used. */
export function isWholeSuite(suite: PacketSuite): boolean {
  const { encryption, integrity, keyBits } = suite
  return encryption.keyBits.includes(keyBits) && encryption.isAead === (integrity === undefined)
}
