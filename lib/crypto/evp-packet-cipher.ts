/** Packet ciphers out of OpenSSL's EVP interface, called directly: fast for every suite. */
import { InvariantError } from '../core/errors.ts'
import { EvpAeadOpener, EvpAeadSealer } from './evp-aead-cipher.ts'
import { cipherMethod } from './evp-context.ts'
import { EvpMacOpener, EvpMacSealer } from './evp-mac-cipher.ts'
import { type Libcrypto, libcrypto, type StateHash } from './libcrypto.ts'
import {
  isWholeSuite,
  type PacketBytes,
  type PacketCipherProvider,
  type PacketSuite,
} from './packet-cipher.ts'
import { IntegrityId } from './transforms.ts'

const stateHashOf: Readonly<Partial<Record<IntegrityId, StateHash>>> = {
  [IntegrityId.hmacSha1_96]: 'sha1',
  [IntegrityId.hmacSha256_128]: 'sha256',
  [IntegrityId.hmacSha384_192]: 'sha384',
  [IntegrityId.hmacSha512_256]: 'sha512',
}

function stateHash(suite: PacketSuite): StateHash | undefined {
  return suite.integrity === undefined ? undefined : stateHashOf[suite.integrity.id]
}

function requireLibrary(): Libcrypto {
  const library = libcrypto()
  if (library === undefined)
    throw new InvariantError('the EVP provider was not asked if it is there')
  return library
}

export const evpPacketCiphers: PacketCipherProvider = {
  name: 'evp',
  supports: (suite: PacketSuite, memory: PacketBytes) => {
    const library = libcrypto()
    if (library === undefined || memory.address === 0 || !isWholeSuite(suite)) return false
    if (cipherMethod(library, suite.encryption, suite.keyBits) === 0) return false
    if (suite.encryption.isAead) return true
    const hash = stateHash(suite)
    return hash !== undefined && library.hashes[hash] !== undefined
  },
  sealer: (suite, keys, memory) => {
    const library = requireLibrary()
    const hash = stateHash(suite)
    if (hash !== undefined) return new EvpMacSealer(library, hash, suite, keys, memory)
    return new EvpAeadSealer(library, suite, keys, memory)
  },
  opener: (suite, keys, memory) => {
    const library = requireLibrary()
    const hash = stateHash(suite)
    if (hash !== undefined) return new EvpMacOpener(library, hash, suite, keys, memory)
    return new EvpAeadOpener(library, suite, keys, memory)
  },
}
