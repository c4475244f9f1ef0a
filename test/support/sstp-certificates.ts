/** Self-signed certificates for loopback, RSA and ECDSA, made on the spot (RFC 5280 §4.1). */
import { createHash, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { concatBytes, utf8 } from '../../lib/core/bytes.ts'
import { Secret } from '../../lib/core/secret.ts'

export interface TestCertificate {
  /** PEM. */
  readonly cert: string
  readonly key: Secret
  /** DER. */
  readonly leaf: Uint8Array
  readonly sha256: Uint8Array
}

const oid = {
  commonName: [0x55, 4, 3],
  subjectAltName: [0x55, 0x1d, 0x11],
  rsaWithSha256: [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0b],
  ecdsaWithSha256: [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2],
} as const

function der(tag: number, ...parts: (Uint8Array | readonly number[])[]): Uint8Array {
  const body = concatBytes(...parts.map(part => Uint8Array.from(part)))
  const { length } = body
  if (length < 128) return concatBytes(Uint8Array.of(tag, length), body)
  if (length < 256) return concatBytes(Uint8Array.of(tag, 0x81, length), body)
  return concatBytes(Uint8Array.of(tag, 0x82, length >>> 8, length), body)
}

const sequence = (...parts: Uint8Array[]) => der(0x30, ...parts)
let serial = 1

function selfSigned(
  algorithm: Uint8Array,
  keys: { publicKey: KeyObject; privateKey: KeyObject },
): TestCertificate {
  const name = sequence(der(0x31, sequence(der(6, oid.commonName), der(0x0c, utf8('localhost')))))
  const altNames = sequence(der(0x82, utf8('localhost')), der(0x87, [127, 0, 0, 1]))
  const extensions = sequence(sequence(der(6, oid.subjectAltName), der(4, altNames)))
  const tbs = sequence(
    der(0xa0, der(2, [2])),
    der(2, [1, serial++]),
    algorithm,
    name,
    sequence(der(0x17, utf8('200101000000Z')), der(0x17, utf8('491231235959Z'))),
    name,
    Uint8Array.from(keys.publicKey.export({ type: 'spki', format: 'der' })),
    der(0xa3, extensions),
  )
  const leaf = sequence(tbs, algorithm, der(3, [0], sign('sha256', tbs, keys.privateKey)))
  const base64 = Buffer.from(leaf).toString('base64')
  return {
    cert: `-----BEGIN CERTIFICATE-----\n${base64.replace(/(.{64})/g, '$1\n')}\n-----END CERTIFICATE-----\n`,
    key: Secret.fromText(String(keys.privateKey.export({ type: 'pkcs8', format: 'pem' }))),
    leaf,
    sha256: Uint8Array.from(createHash('sha256').update(leaf).digest()),
  }
}

export function rsaCertificate(): TestCertificate {
  const algorithm = sequence(der(6, oid.rsaWithSha256), der(5))
  return selfSigned(algorithm, generateKeyPairSync('rsa', { modulusLength: 2048 }))
}

export function ecdsaCertificate(): TestCertificate {
  const algorithm = sequence(der(6, oid.ecdsaWithSha256))
  return selfSigned(algorithm, generateKeyPairSync('ec', { namedCurve: 'P-256' }))
}
