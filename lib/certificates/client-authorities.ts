/**
 * Authorities whose certificates let clients in, and the judgement of a client's chain: RFC 5280 §6,
 * RFC 4945 §5. Constraints of names and policies are not understood; where they are critical, the
 * certificate is refused.
 */
import { createHash, type KeyObject, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { equalBytes } from '../core/bytes.ts'
import { CertificateError, messageOf } from '../core/errors.ts'
import { type CertificateFields, certificateFields, KeyUsageBit } from './certificate-fields.ts'
import type { OcspResponses } from './ocsp-responses.ts'
import { RevocationLists } from './revocation-lists.ts'

/** id-kp-clientAuth, id-kp-ipsecIKE and anyExtendedKeyUsage (RFC 5280 §4.2.1.12, RFC 4945 §5.1.3.12). */
const clientPurposes = ['1.3.6.1.5.5.7.3.2', '1.3.6.1.5.5.7.3.17', '2.5.29.37.0']
const longestChain = 8
/** Key usage, alternative name, basic constraints, extended key usage: all that we look at. */
const understood = ['2.5.29.15', '2.5.29.17', '2.5.29.19', '2.5.29.37']

/** Who the peer says that it is, outside of its certificate. */
export type IdentityClaim =
  /** A host name, a mail address, or whatever else is text. */
  | { readonly type: 'name'; readonly text: string }
  /** A subject, DER. */
  | { readonly type: 'subject'; readonly der: Uint8Array }

export type ClientJudgement =
  | {
      readonly type: 'accept'
      readonly publicKey: KeyObject
      /** The first of `names`. */
      readonly userName: string
      /** All that it names: mail addresses, DNS names, common name. */
      readonly names: readonly string[]
    }
  | { readonly type: 'reject'; readonly detail: string }

/** What OCSP has to say, and whether it has to say something of a client. */
export interface OcspPolicy {
  readonly responses: OcspResponses
  readonly isRequired: boolean
}

export class ClientAuthorities {
  readonly #authorities: readonly X509Certificate[]
  readonly #revoked: RevocationLists
  readonly #ocsp: OcspPolicy | undefined

  constructor(
    authorities: readonly X509Certificate[],
    revoked: RevocationLists = new RevocationLists([]),
    ocsp?: OcspPolicy,
  ) {
    this.#authorities = authorities
    this.#revoked = revoked
    this.#ocsp = ocsp
  }

  /** Reads PEM files, and lists of revoked certificates (PEM or DER). Throws CertificateError. */
  static load(
    paths: readonly string[],
    revocationLists: readonly string[] = [],
    ocsp?: OcspPolicy,
  ): ClientAuthorities {
    return new ClientAuthorities(
      paths.flatMap(readAuthorities),
      RevocationLists.load(revocationLists),
      ocsp,
    )
  }

  get isEmpty(): boolean {
    return this.#authorities.length === 0
  }

  /** For TLS. */
  get pem(): string {
    return this.#authorities.map(String).join('')
  }

  /** SHA-1 of each authority's public key: how CERTREQ names them (RFC 7296 §3.7), 20 bytes each. */
  get keyHashes(): Uint8Array[] {
    return this.#authorities.map(({ publicKey }) =>
      createHash('sha1')
        .update(publicKey.export({ type: 'spki', format: 'der' }))
        .digest(),
    )
  }

  /**
   * Judges a chain of DER certificates, the client's own first. The user is whom the certificate
   * names: mail address, else DNS name, else common name. A claim must be one of its names too.
   */
  judge(chain: readonly Uint8Array[], now: Date, claim?: IdentityClaim): ClientJudgement {
    const reject = (detail: string) => ({ type: 'reject', detail }) as const
    let certificates: X509Certificate[]
    try {
      certificates = chain.slice(0, longestChain).map(der => new X509Certificate(der))
    } catch {
      return reject('damaged')
    }
    const [leaf, ...issuers] = certificates
    if (leaf === undefined) return reject('absent')
    const purposes: readonly string[] | undefined = leaf.keyUsage
    if (purposes !== undefined && !purposes.some(purpose => clientPurposes.includes(purpose))) {
      return reject('not-for-clients')
    }
    if (leaf.ca) return reject('is-authority')
    const fields = certificateFields(leaf.raw)
    if (fields === undefined) return reject('damaged')
    if (fields.keyUsage !== undefined && !canSign(fields.keyUsage)) return reject('not-for-signing')
    const fault = this.#pathFault(leaf, issuers, now)
    if (fault !== undefined) return reject(fault)
    const names = namesOf(leaf)
    const [userName] = names
    if (userName === undefined) return reject('names-nobody')
    if (claim !== undefined && !isNamed(claim, fields, names)) return reject('other-identity')
    return { type: 'accept', publicKey: leaf.publicKey, userName, names }
  }

  /** Walks up from the leaf until one of ours has signed. */
  #pathFault(
    leaf: X509Certificate,
    issuers: readonly X509Certificate[],
    now: Date,
  ): string | undefined {
    let current = leaf
    for (let depth = 0; depth < longestChain; depth++) {
      if (new Date(current.validFrom) > now) return 'not-yet-valid'
      if (new Date(current.validTo) <= now) return 'expired'
      const fields = certificateFields(current.raw)
      if (fields === undefined) return 'damaged'
      if (!fields.criticalExtensions.every(identifier => understood.includes(identifier))) {
        return 'critical-extension'
      }
      const below = current
      const trusted = this.#authorities.find(authority => hasIssued(authority, below))
      const next =
        trusted ?? issuers.find(issuer => issuer !== below && issuer.ca && hasIssued(issuer, below))
      if (next === undefined) return 'unknown-authority'
      // RFC 5280 §6.3: only of a certificate whose signature holds.
      const revoked =
        this.#revoked.fault(fields, next.publicKey, now) ??
        this.#ocspFault(fields, next.publicKey, now, current === leaf)
      if (revoked !== undefined) return revoked
      if (trusted !== undefined) {
        return new Date(trusted.validTo) <= now ? 'authority-expired' : undefined
      }
      current = next
    }
    return 'chain-too-long'
  }

  #ocspFault(
    fields: CertificateFields,
    issuerKey: KeyObject,
    now: Date,
    isLeaf: boolean,
  ): string | undefined {
    if (this.#ocsp === undefined) return undefined
    const { responses, isRequired } = this.#ocsp
    const issuer = { name: fields.issuer, key: issuerKey }
    const fault = responses.fault(
      fields,
      issuer,
      now,
      responder => this.#revoked.fault(responder, issuerKey, now) !== undefined,
    )
    if (fault !== 'none') return fault
    return isRequired && isLeaf ? 'no-ocsp-response' : undefined
  }
}

function hasIssued(issuer: X509Certificate, certificate: X509Certificate): boolean {
  return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey)
}

/** RFC 4945 §5.1.3.2. */
function canSign(keyUsage: number): boolean {
  return (keyUsage & (KeyUsageBit.digitalSignature | KeyUsageBit.nonRepudiation)) !== 0
}

function namesOf(certificate: X509Certificate): string[] {
  const alternatives = certificate.subjectAltName ?? ''
  const named = (kind: string) =>
    [...alternatives.matchAll(new RegExp(`(?:^|, )${kind}:([^,"]+)`, 'g'))].map(
      ([, name = '']) => name,
    )
  const commonName = /^CN=(.+)$/m.exec(certificate.subject)?.[1]
  return [...named('email'), ...named('DNS'), ...(commonName === undefined ? [] : [commonName])]
}

function isNamed(
  claim: IdentityClaim,
  fields: CertificateFields,
  names: readonly string[],
): boolean {
  if (claim.type === 'subject') return equalBytes(claim.der, fields.subject)
  const text = claim.text.toLowerCase()
  return names.some(name => name.toLowerCase() === text)
}

function readAuthorities(path: string): X509Certificate[] {
  let text: string
  try {
    text = readFileSync(path, 'latin1')
  } catch (thrown) {
    throw new CertificateError(`cannot read the authority ${path}: ${messageOf(thrown)}`, {
      cause: thrown,
    })
  }
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? []
  const certificates = blocks.map(block => {
    try {
      return new X509Certificate(block)
    } catch (thrown) {
      throw new CertificateError(`the authority ${path} is damaged: ${messageOf(thrown)}`, {
        cause: thrown,
      })
    }
  })
  if (certificates.length === 0 || certificates.some(({ ca }) => !ca)) {
    throw new CertificateError(`${path} must hold PEM certificates of authorities, nothing else`)
  }
  return certificates
}
