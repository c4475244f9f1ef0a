/** Single ciphers of ESP, by the names of strongSwan's proposals more or less. */
import { EncryptionId, IntegrityId } from '../lib/crypto/transforms.ts'
import { defaultEspAlgorithms, type EspAlgorithms } from '../lib/ikev2/suite.ts'

function only(id: number, keyBits: number): EspAlgorithms {
  return {
    ...defaultEspAlgorithms,
    encryption: [{ id, keyBits }],
    integrity: [IntegrityId.hmacSha256_128],
  }
}

export const espCiphers: Readonly<Record<string, EspAlgorithms>> = {
  'aes-128-gcm': only(EncryptionId.aesGcm16, 128),
  'aes-256-gcm': only(EncryptionId.aesGcm16, 256),
  'aes-256-cbc-sha256': only(EncryptionId.aesCbc, 256),
  'chacha20-poly1305': only(EncryptionId.chacha20Poly1305, 256),
}
