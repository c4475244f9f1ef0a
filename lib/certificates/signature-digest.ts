/** What `verify` of node:crypto has to be told of an AlgorithmIdentifier: RFC 5280 §4.1.1.2. */
import { objectIdentifier, readDer } from './der.ts'

/** Hash of a signature by its algorithm; null where the algorithm has its own (RFC 8410). */
const digests: Readonly<Record<string, string | null>> = {
  '1.2.840.113549.1.1.11': 'sha256',
  '1.2.840.113549.1.1.12': 'sha384',
  '1.2.840.113549.1.1.13': 'sha512',
  '1.2.840.10045.4.3.2': 'sha256',
  '1.2.840.10045.4.3.3': 'sha384',
  '1.2.840.10045.4.3.4': 'sha512',
  '1.3.101.112': null,
  '1.3.101.113': null,
}

/** Of the contents of an AlgorithmIdentifier; undefined when it is not known, or too weak. */
export function signatureDigest(algorithm: Uint8Array): string | null | undefined {
  const identifier = readDer(algorithm)
  return identifier && digests[objectIdentifier(identifier.content)]
}
