/**
 * Packet ciphers out of whole-message functions: node:crypto where OpenSSL cannot be called
 * directly, @noble as the oracle for both. They allocate per packet and are 5 to 50 times slower.
 */
import { concatBytes, equalBytes, putU32 } from '../core/bytes.ts'
import { InvariantError } from '../core/errors.ts'
import { Secret } from '../core/secret.ts'
import { aesCmac, aesXcbc } from './aes-mac.ts'
import { type CipherProvider, nobleCiphers, nodeCiphers } from './cipher.ts'
import { type HashName, type HashProvider, nobleHashes, nodeHashes } from './hash.ts'
import {
  isWholeSuite,
  PACKET_HEADER_BYTES,
  type PacketBytes,
  type PacketCipherProvider,
  type PacketKeys,
  type PacketOpener,
  type PacketSealer,
  type PacketSuite,
} from './packet-cipher.ts'
import { putRandomBlock } from './random-blocks.ts'
import { IntegrityId, type IntegrityTransform } from './transforms.ts'

interface Primitives {
  readonly name: 'node' | 'noble'
  readonly ciphers: CipherProvider
  readonly hashes: HashProvider
}

const hmacHashOf: Readonly<Partial<Record<IntegrityId, HashName>>> = {
  [IntegrityId.hmacSha1_96]: 'sha1',
  [IntegrityId.hmacSha256_128]: 'sha256',
  [IntegrityId.hmacSha384_192]: 'sha384',
  [IntegrityId.hmacSha512_256]: 'sha512',
}

class PortablePacketCipher implements PacketSealer, PacketOpener {
  readonly provider: 'node' | 'noble'
  readonly #primitives: Primitives
  readonly #suite: PacketSuite
  readonly #bytes: Uint8Array
  readonly #encryptionKey: Secret
  readonly #integrityKey: Secret

  constructor(primitives: Primitives, suite: PacketSuite, keys: PacketKeys, memory: PacketBytes) {
    if (!isWholeSuite(suite)) throw new InvariantError('a suite whose parts do not fit')
    this.provider = primitives.name
    this.#primitives = primitives
    this.#suite = suite
    this.#bytes = memory.bytes
    this.#encryptionKey = new Secret(keys.encryptionKey)
    this.#integrityKey = new Secret(keys.integrityKey)
  }

  seal(at: number, bodyBytes: number, sequenceHigh: number): boolean {
    const { encryption, integrity } = this.#suite
    const ivAt = at + PACKET_HEADER_BYTES
    const bodyAt = ivAt + encryption.ivBytes
    if (encryption.mode === 'cbc') putRandomBlock(this.#bytes, ivAt, encryption.ivBytes)
    else {
      putU32(this.#bytes, ivAt, sequenceHigh)
      this.#bytes.copyWithin(ivAt + 4, at + 4, at + 8)
    }
    const sealed = this.#primitives.ciphers.encrypt(
      encryption,
      this.#encryptionKey.expose(),
      this.#bytes.subarray(ivAt, bodyAt),
      this.#bytes.subarray(bodyAt, bodyAt + bodyBytes),
      this.#associated(at, sequenceHigh),
    )
    this.#bytes.set(sealed, bodyAt)
    const icvAt = bodyAt + bodyBytes
    if (integrity !== undefined) {
      this.#bytes.set(this.#icv(integrity, at, icvAt, sequenceHigh), icvAt)
    }
    return true
  }

  open(at: number, bodyBytes: number, sequenceHigh: number): boolean {
    const { encryption, integrity } = this.#suite
    const ivAt = at + PACKET_HEADER_BYTES
    const bodyAt = ivAt + encryption.ivBytes
    const icvAt = bodyAt + bodyBytes
    if (integrity !== undefined) {
      const received = this.#bytes.subarray(icvAt, icvAt + integrity.icvBytes)
      if (!equalBytes(received, this.#icv(integrity, at, icvAt, sequenceHigh))) return false
    }
    const opened = this.#primitives.ciphers.decrypt(
      encryption,
      this.#encryptionKey.expose(),
      this.#bytes.subarray(ivAt, bodyAt),
      this.#bytes.subarray(bodyAt, icvAt + encryption.icvBytes),
      this.#associated(at, sequenceHigh),
    )
    if (opened === undefined) return false
    this.#bytes.set(opened, bodyAt)
    return true
  }

  destroy(): void {
    this.#encryptionKey.destroy()
    this.#integrityKey.destroy()
  }

  /** RFC 4106 §5: SPI and sequence number, all 64 bits of it with ESN. */
  #associated(at: number, sequenceHigh: number): Uint8Array {
    const header = this.#bytes.subarray(at, at + PACKET_HEADER_BYTES)
    if (!this.#suite.hasEsn) return header
    return concatBytes(header.subarray(0, 4), bigEndian32(sequenceHigh), header.subarray(4))
  }

  /** RFC 4303 §2.8: over the packet up to the ICV, and behind it the high half of the ESN. */
  #icv(integrity: IntegrityTransform, at: number, icvAt: number, sequenceHigh: number): Uint8Array {
    const key = this.#integrityKey.expose()
    const parts = [this.#bytes.subarray(at, icvAt)]
    if (this.#suite.hasEsn) parts.push(bigEndian32(sequenceHigh))
    const hash = hmacHashOf[integrity.id]
    const aesMac = integrity.id === IntegrityId.aesXcbc96 ? aesXcbc : aesCmac
    const mac =
      hash === undefined ? aesMac(key, ...parts) : this.#primitives.hashes.hmac(hash, key, ...parts)
    return mac.subarray(0, integrity.icvBytes)
  }
}

function bigEndian32(value: number): Uint8Array {
  const out = new Uint8Array(4)
  putU32(out, 0, value)
  return out
}

function portableProvider(primitives: Primitives): PacketCipherProvider {
  return {
    name: primitives.name,
    supports: suite =>
      isWholeSuite(suite) && primitives.ciphers.supports(suite.encryption, suite.keyBits),
    sealer: (suite, keys, memory) => new PortablePacketCipher(primitives, suite, keys, memory),
    opener: (suite, keys, memory) => new PortablePacketCipher(primitives, suite, keys, memory),
  }
}

export const nodePacketCiphers = portableProvider({
  name: 'node',
  ciphers: nodeCiphers,
  hashes: nodeHashes,
})

export const noblePacketCiphers = portableProvider({
  name: 'noble',
  ciphers: nobleCiphers,
  hashes: nobleHashes,
})
