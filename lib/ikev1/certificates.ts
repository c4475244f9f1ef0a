/**
 * Authentication with RSA signatures: RFC 2409 §5.1. The signature is a private-key encryption of the
 * hash itself in PKCS #1 form, without the name of a hash around it.
 */
import {
  constants,
  type KeyObject,
  privateEncrypt,
  publicDecrypt,
  X509Certificate,
} from 'node:crypto'
import { isIP } from 'node:net'
import { equalBytes } from '../core/bytes.ts'
import type { WallClock } from '../core/clock.ts'
import { messageOf } from '../core/errors.ts'

/** Ours: the certificate first, then those between it and the root. */
export interface IkeCredential {
  readonly privateKey: KeyObject
  /** DER. */
  readonly chain: readonly Uint8Array[]
  /** DER of the subject, sent as ID_DER_ASN1_DN; when absent our address is the identity. */
  readonly subject?: Uint8Array
}

export type TrustVerdict =
  | { readonly type: 'trusted'; readonly publicKey: KeyObject; readonly subject: string }
  | { readonly type: 'refused'; readonly detail: string }

/** Judges a peer's certificates; pure, and never on the network. */
export interface CertificateTrust {
  /** DER, the peer's own first. */
  judge(chain: readonly Uint8Array[]): TrustVerdict
  /** DER names of the authorities, for certificate requests. */
  readonly authorities: readonly Uint8Array[]
}

/** Implementation constants. */
const longestChain = 6
const weakestRsaBits = 2048
const smallestExponent = 65_537n

export function signHash(privateKey: KeyObject, hash: Uint8Array): Uint8Array {
  const options = { key: privateKey, padding: constants.RSA_PKCS1_PADDING }
  return Uint8Array.from(privateEncrypt(options, hash))
}

/** OpenSSL checks the whole padding; what is inside must be the hash and nothing else. */
export function isSignatureGood(
  publicKey: KeyObject,
  hash: Uint8Array,
  signature: Uint8Array,
): boolean {
  try {
    const options = { key: publicKey, padding: constants.RSA_PKCS1_PADDING }
    return equalBytes(Uint8Array.from(publicDecrypt(options, signature)), hash)
  } catch (_badPadding) {
    return false
  }
}

export interface TrustOptions {
  /** PEM or DER. */
  readonly authorities: readonly (string | Uint8Array)[]
  readonly clock: WallClock
  /** As initiator: the name or address that the peer's certificate must carry. */
  readonly peerName?: string
}

/** A chain to one of our authorities, in date, with keys of strength. */
export function createTrust(options: TrustOptions): CertificateTrust {
  const anchors = options.authorities.map(authority => new X509Certificate(authority))
  return {
    authorities: [],
    judge: chain => {
      try {
        return judge(chain, anchors, options)
      } catch (thrown) {
        return { type: 'refused', detail: `unreadable certificate: ${messageOf(thrown)}` }
      }
    },
  }
}

function refused(detail: string): TrustVerdict {
  return { type: 'refused', detail }
}

function judge(
  chain: readonly Uint8Array[],
  anchors: readonly X509Certificate[],
  options: TrustOptions,
): TrustVerdict {
  const [first, ...rest] = chain.slice(0, longestChain)
  if (first === undefined) return refused('no certificate')
  const leaf = new X509Certificate(first)
  const others = rest.map(der => new X509Certificate(der))
  if (!isStrong(leaf.publicKey)) return refused('weak or foreign key')
  if (options.peerName !== undefined && !isNamed(leaf, options.peerName)) {
    return refused('the certificate has another name')
  }
  const now = options.clock.now()
  let current = leaf
  for (let depth = 0; depth < longestChain; depth++) {
    if (!isInDate(current, now)) return refused('certificate out of date')
    const anchor = anchors.find(one => isIssuer(one, current) && isInDate(one, now))
    if (anchor !== undefined) {
      return { type: 'trusted', publicKey: leaf.publicKey, subject: leaf.subject }
    }
    const issuer = others.find(
      one => one !== current && one.ca && isIssuer(one, current) && isStrong(one.publicKey),
    )
    if (issuer === undefined) return refused('no known authority')
    current = issuer
  }
  return refused('chain too long')
}

function isNamed(certificate: X509Certificate, name: string): boolean {
  return (isIP(name) === 0 ? certificate.checkHost(name) : certificate.checkIP(name)) !== undefined
}

function isIssuer(issuer: X509Certificate, subject: X509Certificate): boolean {
  return subject.checkIssued(issuer) && subject.verify(issuer.publicKey)
}

function isInDate(certificate: X509Certificate, now: Date): boolean {
  return new Date(certificate.validFrom) <= now && now <= new Date(certificate.validTo)
}

function isStrong(key: KeyObject): boolean {
  const { modulusLength = 0, publicExponent = 0n } = key.asymmetricKeyDetails ?? {}
  return (
    key.asymmetricKeyType === 'rsa' &&
    modulusLength >= weakestRsaBits &&
    publicExponent >= smallestExponent
  )
}
