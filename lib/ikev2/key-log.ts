/**
 * Keys of IKE SAs as lines of Wireshark's `ikev2_decryption_table`. Made only when the option is on: who
 * has a line can read the SA.
 */
import { toHex } from '../core/bytes.ts'
import { EncryptionId, IntegrityId } from '../crypto/transforms.ts'
import type { IkeKeys } from './key-schedule.ts'
import type { SpiPair } from './nat-detection.ts'
import type { IkeSuite } from './suite.ts'

/** Names of Wireshark's choice lists (epan/dissectors/packet-isakmp.c). */
function encryptionLabel(suite: IkeSuite): string | undefined {
  switch (suite.encryption.id) {
    case EncryptionId.tripleDes:
      return '3DES [RFC2451]'
    case EncryptionId.aesCbc:
      return `AES-CBC-${suite.keyBits} [RFC3602]`
    case EncryptionId.aesCtr:
      return `AES-CTR-${suite.keyBits} [RFC5930]`
    case EncryptionId.aesGcm16:
      return `AES-GCM-${suite.keyBits} with 16 octet ICV [RFC5282]`
    case EncryptionId.aesGcm12:
      return `AES-GCM-${suite.keyBits} with 12 octet ICV [RFC5282]`
    case EncryptionId.aesGcm8:
      return `AES-GCM-${suite.keyBits} with 8 octet ICV [RFC5282]`
    default:
      return undefined
  }
}

function integrityLabel(suite: IkeSuite): string | undefined {
  switch (suite.integrity?.id) {
    case undefined:
      return 'NONE [RFC4306]'
    case IntegrityId.hmacSha1_96:
      return 'HMAC_SHA1_96 [RFC2404]'
    case IntegrityId.hmacSha256_128:
      return 'HMAC_SHA2_256_128 [RFC4868]'
    case IntegrityId.hmacSha384_192:
      return 'HMAC_SHA2_384_192 [RFC4868]'
    case IntegrityId.hmacSha512_256:
      return 'HMAC_SHA2_512_256 [RFC4868]'
    default:
      return undefined
  }
}

/** Undefined for algorithms that Wireshark has no name for. */
export function keyLogLine(suite: IkeSuite, keys: IkeKeys, spis: SpiPair): string | undefined {
  const encryption = encryptionLabel(suite)
  const integrity = integrityLabel(suite)
  if (encryption === undefined || integrity === undefined) return undefined
  return [
    toHex(spis.initiatorSpi),
    toHex(spis.responderSpi),
    toHex(keys.ei.expose()),
    toHex(keys.er.expose()),
    `"${encryption}"`,
    toHex(keys.ai.expose()),
    toHex(keys.ar.expose()),
    `"${integrity}"`,
  ].join(',')
}
