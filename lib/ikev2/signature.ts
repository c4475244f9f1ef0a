/**
 * Signatures in AUTH payloads: RSA with SHA-1 (method 1, RFC 7296 §3.8), ECDSA with fixed curves (methods
 * 9 to 11, RFC 4754), and the general form (method 14, RFC 7427; Ed25519 RFC 8420).
 */
import { constants, type KeyObject, sign, verify } from 'node:crypto'
import { concatBytes, equalBytes, fromHex, putU16, u16 } from '../core/bytes.ts'
import { AuthMethod } from './wire/authentication.ts'

/** RFC 7427 §7 and RFC 8420 §2. */
export const SignatureHash = { sha1: 1, sha256: 2, sha384: 3, sha512: 4, identity: 5 } as const

type HashName = 'sha1' | 'sha256' | 'sha384' | 'sha512'

interface SignatureScheme {
  readonly name: string
  readonly keyType: 'rsa' | 'ec' | 'ed25519'
  readonly hash: HashName | undefined
  readonly padding: 'pkcs1' | 'pss' | undefined
  readonly saltBytes: number
  /** DER AlgorithmIdentifiers that mean this; the first is the one that we send. */
  readonly identifiers: readonly Uint8Array[]
}

const hashIdentifiers: Readonly<Record<HashName, number>> = {
  sha1: SignatureHash.sha1,
  sha256: SignatureHash.sha256,
  sha384: SignatureHash.sha384,
  sha512: SignatureHash.sha512,
}

/** RSASSA-PSS-params with one hash for message and mask (RFC 7427 appendix A.4). */
function pssIdentifiers(hashArc: string, salt: string): Uint8Array[] {
  const oid = '06092a864886f70d01010a'
  const hash = `300d06096086480165030402${hashArc}0500`
  const mask = `301a06092a864886f70d010108${hash}`
  const body = `a00f${hash}a11c${mask}a2030201${salt}`
  return [
    fromHex(`3041${oid}3034${body}`),
    // As the RFC prints it: the trailer field, though it has its default value.
    fromHex(`3046${oid}3039${body}a303020101`),
  ]
}

function pkcs1Identifiers(last: string): Uint8Array[] {
  return [fromHex(`300d06092a864886f70d0101${last}0500`)]
}

const schemes: readonly SignatureScheme[] = [
  rsa('RSA-PKCS1-SHA256', 'sha256', 'pkcs1', 0, pkcs1Identifiers('0b')),
  rsa('RSA-PKCS1-SHA384', 'sha384', 'pkcs1', 0, pkcs1Identifiers('0c')),
  rsa('RSA-PKCS1-SHA512', 'sha512', 'pkcs1', 0, pkcs1Identifiers('0d')),
  // Android signs so whatever hashes were agreed.
  rsa('RSA-PKCS1-SHA1', 'sha1', 'pkcs1', 0, pkcs1Identifiers('05')),
  rsa('RSA-PSS-SHA256', 'sha256', 'pss', 32, pssIdentifiers('01', '20')),
  rsa('RSA-PSS-SHA384', 'sha384', 'pss', 48, pssIdentifiers('02', '30')),
  rsa('RSA-PSS-SHA512', 'sha512', 'pss', 64, pssIdentifiers('03', '40')),
  ecdsa('ECDSA-SHA256', 'sha256', '300a06082a8648ce3d040302'),
  ecdsa('ECDSA-SHA384', 'sha384', '300a06082a8648ce3d040303'),
  ecdsa('ECDSA-SHA512', 'sha512', '300a06082a8648ce3d040304'),
  {
    name: 'Ed25519',
    keyType: 'ed25519',
    hash: undefined,
    padding: undefined,
    saltBytes: 0,
    identifiers: [fromHex('300506032b6570')],
  },
]

function rsa(
  name: string,
  hash: HashName,
  padding: 'pkcs1' | 'pss',
  saltBytes: number,
  identifiers: readonly Uint8Array[],
): SignatureScheme {
  return { name, keyType: 'rsa', hash, padding, saltBytes, identifiers }
}

function ecdsa(name: string, hash: HashName, identifier: string): SignatureScheme {
  return {
    name,
    keyType: 'ec',
    hash,
    padding: undefined,
    saltBytes: 0,
    identifiers: [fromHex(identifier)],
  }
}

/** RFC 4754 §2: curve and hash go together; the signature is r and s side by side. */
const fixedCurves: readonly { method: number; curve: string; hash: HashName; name: string }[] = [
  { method: AuthMethod.ECDSA_SHA256_P256, curve: 'prime256v1', hash: 'sha256', name: 'ECDSA-256' },
  { method: AuthMethod.ECDSA_SHA384_P384, curve: 'secp384r1', hash: 'sha384', name: 'ECDSA-384' },
  { method: AuthMethod.ECDSA_SHA512_P521, curve: 'secp521r1', hash: 'sha512', name: 'ECDSA-521' },
]

export interface SignaturePolicy {
  /** Accept signatures with SHA-1: Windows machine certificates, Android (field notes). */
  readonly acceptsSha1: boolean
  /** Sign with RSASSA-PSS where the peer can; otherwise PKCS #1 v1.5, which all peers take. */
  readonly prefersPss: boolean
}

export interface Signature {
  readonly method: number
  readonly data: Uint8Array
}

/** Notification data of SIGNATURE_HASH_ALGORITHMS (RFC 7427 §4). */
export function signatureHashes(policy: SignaturePolicy): Uint8Array {
  const hashes: number[] = [
    SignatureHash.sha256,
    SignatureHash.sha384,
    SignatureHash.sha512,
    SignatureHash.identity,
  ]
  if (policy.acceptsSha1) hashes.push(SignatureHash.sha1)
  const out = new Uint8Array(2 * hashes.length)
  hashes.forEach((hash, i) => {
    putU16(out, 2 * i, hash)
  })
  return out
}

/** The hashes that a peer lists; empty when it has not sent the notification. */
export function parseSignatureHashes(data: Uint8Array | undefined): number[] {
  const hashes: number[] = []
  for (let at = 0; data !== undefined && at + 1 < data.length; at += 2) hashes.push(u16(data, at))
  return hashes
}

/** RSA below 2048 bits or with a tiny exponent, and curves that we do not know, prove nothing. */
export function isStrongKey(key: KeyObject): boolean {
  const details = key.asymmetricKeyDetails
  switch (key.asymmetricKeyType) {
    case 'rsa':
    case 'rsa-pss':
      return (details?.modulusLength ?? 0) >= 2048 && (details?.publicExponent ?? 0n) >= 65_537n
    case 'ec':
      return fixedCurves.some(row => row.curve === details?.namedCurve)
    case 'ed25519':
      return true
    default:
      return false
  }
}

function keyTypeOf(key: KeyObject): SignatureScheme['keyType'] | undefined {
  switch (key.asymmetricKeyType) {
    case 'rsa':
    case 'rsa-pss':
      return 'rsa'
    case 'ec':
      return 'ec'
    case 'ed25519':
      return 'ed25519'
    default:
      return undefined
  }
}

function options(scheme: SignatureScheme, key: KeyObject) {
  if (scheme.padding === 'pss') {
    return { key, padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: scheme.saltBytes }
  }
  if (scheme.padding === 'pkcs1') return { key, padding: constants.RSA_PKCS1_PADDING }
  return { key, dsaEncoding: 'der' as const }
}

/** The scheme for a key and the hashes that the peer can check. */
function schemeFor(
  key: KeyObject,
  peerHashes: readonly number[],
  policy: SignaturePolicy,
): SignatureScheme | undefined {
  const keyType = keyTypeOf(key)
  const isPss = key.asymmetricKeyType === 'rsa-pss' || policy.prefersPss
  // The hash of an ECDSA key's own strength comes first (RFC 7427 §5 leaves it open).
  const curve = key.asymmetricKeyDetails?.namedCurve
  const fixed = fixedCurves.find(row => row.curve === curve)
  const fitting = schemes.filter(scheme => {
    const hash = scheme.hash === undefined ? SignatureHash.identity : hashIdentifiers[scheme.hash]
    if (scheme.keyType !== keyType || scheme.hash === 'sha1') return false
    if (keyType === 'rsa' && scheme.padding !== (isPss ? 'pss' : 'pkcs1')) return false
    return peerHashes.includes(hash)
  })
  return fitting.find(scheme => scheme.hash === fixed?.hash) ?? fitting[0]
}

/**
 * Signs. With `peerHashes` of RFC 7427 the general form is used, else the old methods. Undefined when
 * the key has no form that the peer can check.
 */
export function signOctets(
  key: KeyObject,
  octets: Uint8Array,
  peerHashes: readonly number[],
  policy: SignaturePolicy,
): Signature | undefined {
  const scheme = schemeFor(key, peerHashes, policy)
  if (scheme !== undefined) {
    const identifier = scheme.identifiers[0] ?? new Uint8Array(0)
    const signature = sign(scheme.hash, octets, options(scheme, key))
    return {
      method: AuthMethod.DIGITAL_SIGNATURE,
      data: concatBytes(Uint8Array.of(identifier.length), identifier, signature),
    }
  }
  if (key.asymmetricKeyType === 'rsa') {
    const signature = sign('sha1', octets, { key, padding: constants.RSA_PKCS1_PADDING })
    return { method: AuthMethod.RSA_SIGNATURE, data: Uint8Array.from(signature) }
  }
  const fixed = fixedCurves.find(row => row.curve === key.asymmetricKeyDetails?.namedCurve)
  if (fixed === undefined) return undefined
  const signature = sign(fixed.hash, octets, { key, dsaEncoding: 'ieee-p1363' })
  return { method: fixed.method, data: Uint8Array.from(signature) }
}

export type SignatureVerdict =
  | { readonly type: 'valid'; readonly scheme: string; readonly isPss: boolean }
  | {
      readonly type: 'invalid'
      readonly detail: 'weak-key' | 'method' | 'sha1' | 'signature' | 'key-type'
    }

function invalid(
  detail: Extract<SignatureVerdict, { type: 'invalid' }>['detail'],
): SignatureVerdict {
  return { type: 'invalid', detail }
}

function isValid(check: () => boolean): boolean {
  try {
    return check()
  } catch {
    // OpenSSL throws on encodings that it cannot read at all; they are as invalid as others.
    return false
  }
}

function verifyDigital(
  key: KeyObject,
  octets: Uint8Array,
  data: Uint8Array,
  policy: SignaturePolicy,
): SignatureVerdict {
  const identifierBytes = data[0] ?? 0
  if (identifierBytes === 0 || 1 + identifierBytes >= data.length) return invalid('signature')
  const identifier = data.subarray(1, 1 + identifierBytes)
  const signature = data.subarray(1 + identifierBytes)
  const scheme = schemes.find(row => row.identifiers.some(known => equalBytes(known, identifier)))
  if (scheme === undefined) return invalid('method')
  if (scheme.hash === 'sha1' && !policy.acceptsSha1) return invalid('sha1')
  if (scheme.keyType !== keyTypeOf(key)) return invalid('key-type')
  return isValid(() => verify(scheme.hash, octets, options(scheme, key), signature))
    ? { type: 'valid', scheme: scheme.name, isPss: scheme.padding === 'pss' }
    : invalid('signature')
}

/** Checks a signature AUTH payload under a public key that has been verified already. */
export function verifySignature(
  key: KeyObject,
  octets: Uint8Array,
  signature: Signature,
  policy: SignaturePolicy,
): SignatureVerdict {
  if (!isStrongKey(key)) return invalid('weak-key')
  const { method, data } = signature
  if (method === AuthMethod.DIGITAL_SIGNATURE) return verifyDigital(key, octets, data, policy)
  if (method === AuthMethod.RSA_SIGNATURE) {
    if (!policy.acceptsSha1) return invalid('sha1')
    if (key.asymmetricKeyType !== 'rsa') return invalid('key-type')
    const padding = constants.RSA_PKCS1_PADDING
    return isValid(() => verify('sha1', octets, { key, padding }, data))
      ? { type: 'valid', scheme: 'RSA-PKCS1-SHA1', isPss: false }
      : invalid('signature')
  }
  const fixed = fixedCurves.find(row => row.method === method)
  if (fixed === undefined) return invalid('method')
  if (fixed.curve !== key.asymmetricKeyDetails?.namedCurve) return invalid('key-type')
  return isValid(() => verify(fixed.hash, octets, { key, dsaEncoding: 'ieee-p1363' }, data))
    ? { type: 'valid', scheme: fixed.name, isPss: false }
    : invalid('signature')
}
