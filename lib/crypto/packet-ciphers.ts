/**
 * Chooses who protects the packets of an SA: the fastest provider that carries the suite and has
 * passed a test against an independent implementation in this process.
 */
import { evpPacketCiphers } from './evp-packet-cipher.ts'
import { evpRecordCiphers } from './evp-record-cipher.ts'
import { libcrypto } from './libcrypto.ts'
import {
  PACKET_HEADER_BYTES,
  type PacketBytes,
  type PacketCipherProvider,
  type PacketCipherProviderName,
  type PacketKeys,
  type PacketSuite,
  suiteName,
} from './packet-cipher.ts'
import { noblePacketCiphers, nodePacketCiphers } from './portable-packet-cipher.ts'
import { encryptionKeyBytes } from './transforms.ts'

/** Fastest first. */
export const packetCipherProviders: readonly PacketCipherProvider[] = [
  evpRecordCiphers,
  evpPacketCiphers,
  nodePacketCiphers,
  noblePacketCiphers,
]

const passed = new Map<string, boolean>()

/**
 * The provider for a suite on packets in `memory`, or undefined when nobody here can do it. The
 * first call for a suite tests it (some ms); `only` names the provider that must do it.
 */
export function packetCipherProvider(
  suite: PacketSuite,
  memory: PacketBytes,
  only?: PacketCipherProviderName,
): PacketCipherProvider | undefined {
  return packetCipherProviders.find(
    provider =>
      (only === undefined || provider.name === only) &&
      provider.supports(suite, memory) &&
      hasPassed(provider, suite),
  )
}

function hasPassed(provider: PacketCipherProvider, suite: PacketSuite): boolean {
  const key = `${provider.name} ${suiteName(suite)} ${suite.hasEsn}`
  let result = passed.get(key)
  if (result === undefined) {
    result = passesSelfTest(provider, suite)
    passed.set(key, result)
  }
  return result
}

const testBodyBytes = 96
const testSequenceHigh = 0x01020304

/** Whether a provider and an independent one open each other's packets, and refuse a changed one. */
export function passesSelfTest(provider: PacketCipherProvider, suite: PacketSuite): boolean {
  const memory = testMemory()
  // With nobody to compare with (3DES without EVP), it must at least agree with itself.
  const oracle =
    [noblePacketCiphers, nodePacketCiphers, evpPacketCiphers].find(
      other => other !== provider && other.supports(suite, memory),
    ) ?? provider
  const keys = testKeys(suite)
  try {
    return (
      carries(provider, oracle, suite, keys, memory) &&
      carries(oracle, provider, suite, keys, memory) &&
      refusesChange(oracle, provider, suite, keys, memory)
    )
  } catch (_refused) {
    return false
  }
}

/** Whether two packets that `from` seals arrive whole at `to`: the second shows state left behind. */
function carries(
  from: PacketCipherProvider,
  to: PacketCipherProvider,
  suite: PacketSuite,
  keys: PacketKeys,
  memory: PacketBytes,
): boolean {
  const sealer = from.sealer(suite, keys, memory)
  const opener = to.opener(suite, keys, memory)
  const high = suite.hasEsn ? testSequenceHigh : 0
  const bodyAt = PACKET_HEADER_BYTES + suite.encryption.ivBytes
  try {
    for (let sequence = 1; sequence <= 2; sequence++) {
      placeTestPacket(memory, bodyAt, sequence)
      if (!sealer.seal(0, testBodyBytes, high)) return false
      if (!opener.open(0, testBodyBytes, high)) return false
      for (let i = 0; i < testBodyBytes; i++) {
        if (memory.bytes[bodyAt + i] !== (i ^ sequence)) return false
      }
    }
    return true
  } finally {
    sealer.destroy()
    opener.destroy()
  }
}

/** Whether `to` refuses a packet of `from` with one bit of its ICV changed. */
function refusesChange(
  from: PacketCipherProvider,
  to: PacketCipherProvider,
  suite: PacketSuite,
  keys: PacketKeys,
  memory: PacketBytes,
): boolean {
  const sealer = from.sealer(suite, keys, memory)
  const opener = to.opener(suite, keys, memory)
  const icvAt = PACKET_HEADER_BYTES + suite.encryption.ivBytes + testBodyBytes
  try {
    placeTestPacket(memory, icvAt - testBodyBytes, 1)
    sealer.seal(0, testBodyBytes, 0)
    memory.bytes[icvAt] = (memory.bytes[icvAt] ?? 0) ^ 1
    return !opener.open(0, testBodyBytes, 0)
  } finally {
    sealer.destroy()
    opener.destroy()
  }
}

function placeTestPacket(memory: PacketBytes, bodyAt: number, sequence: number): void {
  memory.bytes.fill(0)
  memory.view.setUint32(0, 0x11223344)
  memory.view.setUint32(4, sequence)
  for (let i = 0; i < testBodyBytes; i++) memory.bytes[bodyAt + i] = i ^ sequence
}

function testKeys(suite: PacketSuite): PacketKeys {
  const encryptionKey = new Uint8Array(encryptionKeyBytes(suite.encryption, suite.keyBits))
  const integrityKey = new Uint8Array(suite.integrity?.keyBytes ?? 0)
  for (let i = 0; i < encryptionKey.length; i++) encryptionKey[i] = 7 * i + 1
  for (let i = 0; i < integrityKey.length; i++) integrityKey[i] = 11 * i + 5
  return { encryptionKey, integrityKey }
}

function testMemory(): PacketBytes {
  const buffer = Buffer.allocUnsafeSlow(PACKET_HEADER_BYTES + 16 + testBodyBytes + 64)
  const bytes = new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.length)
  const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.length)
  return { bytes, view, address: libcrypto()?.addressOf(bytes) ?? 0 }
}
