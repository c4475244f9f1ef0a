/** Single ciphers of ESP, by the names of strongSwan's proposals more or less. */
import { SystemError } from '../lib/core/errors.ts'
import { EncryptionId, IntegrityId } from '../lib/crypto/transforms.ts'
import { createPolicy, type IkePolicy } from '../lib/ikev1/index.ts'

const ciphers: Readonly<Record<string, { id: number; keyBits: number; integrityId?: number }>> = {
  'aes-256-gcm': { id: EncryptionId.aesGcm16, keyBits: 256 },
  'aes-128-cbc-sha1': {
    id: EncryptionId.aesCbc,
    keyBits: 128,
    integrityId: IntegrityId.hmacSha1_96,
  },
}

/** Our stock policy with one cipher of ESP alone. */
export function policyOf(name: string): IkePolicy {
  const policy = createPolicy()
  const cipher = ciphers[name]
  const phase2 = policy.phase2.filter(
    ({ encryption, keyBits, integrity }) =>
      encryption.id === cipher?.id &&
      keyBits === cipher.keyBits &&
      integrity?.id === cipher.integrityId,
  )
  if (phase2.length !== 1) throw new SystemError(`no cipher ${name}`)
  return { ...policy, phase2 }
}
