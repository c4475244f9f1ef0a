/** What the tests and benches of packet ciphers share: memory, every suite, keys. */
import { libcrypto } from '../../lib/crypto/libcrypto.ts'
import type { PacketBytes, PacketKeys, PacketSuite } from '../../lib/crypto/packet-cipher.ts'
import {
  type EncryptionTransform,
  encryptionKeyBytes,
  encryptionTransform,
  encryptionTransforms,
  type IntegrityTransform,
  integrityTransform,
  integrityTransforms,
} from '../../lib/crypto/transforms.ts'

/** Memory that does not move, filled with 0xa5 so that a byte left unwritten shows. */
export function testMemory(lengthBytes: number): PacketBytes {
  const buffer = Buffer.allocUnsafeSlow(lengthBytes)
  const bytes = new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.length).fill(0xa5)
  const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length)
  return { bytes, view, address: libcrypto()?.addressOf(bytes) ?? 0 }
}

export function encryptionOf(id: number): EncryptionTransform {
  const found = encryptionTransform(id)
  if (found === undefined) throw new Error(`no encryption ${id}`)
  return found
}

export function integrityOf(id: number): IntegrityTransform {
  const found = integrityTransform(id)
  if (found === undefined) throw new Error(`no integrity ${id}`)
  return found
}

/** A suite by transform numbers; `integrityId` 0 for an AEAD. */
export function suiteOf(
  encryptionId: number,
  keyBits: number,
  integrityId = 0,
  hasEsn = false,
): PacketSuite {
  const integrity = integrityId === 0 ? undefined : integrityOf(integrityId)
  return { encryption: encryptionOf(encryptionId), keyBits, integrity, hasEsn }
}

/** Every pair that IKE can negotiate, with and without ESN. */
export function allSuites(): PacketSuite[] {
  const suites: PacketSuite[] = []
  for (const encryption of encryptionTransforms) {
    for (const keyBits of encryption.keyBits) {
      for (const integrity of encryption.isAead ? [undefined] : integrityTransforms) {
        for (const hasEsn of [false, true]) suites.push({ encryption, keyBits, integrity, hasEsn })
      }
    }
  }
  return suites
}

export function keysOf(suite: PacketSuite, seed = 1): PacketKeys {
  const encryptionKey = new Uint8Array(encryptionKeyBytes(suite.encryption, suite.keyBits))
  const integrityKey = new Uint8Array(suite.integrity?.keyBytes ?? 0)
  for (let i = 0; i < encryptionKey.length; i++) encryptionKey[i] = seed + 3 * i
  for (let i = 0; i < integrityKey.length; i++) integrityKey[i] = seed + 5 * i + 1
  return { encryptionKey, integrityKey }
}
