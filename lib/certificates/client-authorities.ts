/** Authorities whose certificates let clients in, and the judgement of a client's chain. RFC 5280 §6. */
import { createHash, type KeyObject, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { CertificateError, messageOf } from '../core/errors.ts'

/** id-kp-clientAuth, id-kp-ipsecIKE and anyExtendedKeyUsage (RFC 5280 §4.2.1.12, RFC 4945 §5.1.3.12). */
const clientPurposes = ['1.3.6.1.5.5.7.3.2', '1.3.6.1.5.5.7.3.17', '2.5.29.37.0']
const longestChain = 8

export type ClientJudgement =
  | { readonly type: 'accept'; readonly publicKey: KeyObject; readonly userName: string }
  | { readonly type: 'reject'; readonly detail: string }

export class ClientAuthorities {
  readonly #authorities: readonly X509Certificate[]

  constructor(authorities: readonly X509Certificate[]) {
    this.#authorities = authorities
  }

  /** Reads PEM files. Throws CertificateError. */
  static load(paths: readonly string[]): ClientAuthorities {
    return new ClientAuthorities(paths.flatMap(readAuthorities))
  }

  get isEmpty(): boolean {
    return this.#authorities.length === 0
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
   * names: mail address, else DNS name, else common name. There is no check for revocation.
   */
  judge(chain: readonly Uint8Array[], now: Date): ClientJudgement {
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
    const fault = this.#pathFault(leaf, issuers, now)
    if (fault !== undefined) return reject(fault)
    const userName = nameOf(leaf)
    if (userName === undefined) return reject('names-nobody')
    return { type: 'accept', publicKey: leaf.publicKey, userName }
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
      const trusted = this.#authorities.find(authority => hasIssued(authority, current))
      if (trusted !== undefined) {
        return new Date(trusted.validTo) <= now ? 'authority-expired' : undefined
      }
      const below = current
      const next = issuers.find(issuer => issuer !== below && issuer.ca && hasIssued(issuer, below))
      if (next === undefined) return 'unknown-authority'
      current = next
    }
    return 'chain-too-long'
  }
}

function hasIssued(issuer: X509Certificate, certificate: X509Certificate): boolean {
  return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey)
}

function nameOf(certificate: X509Certificate): string | undefined {
  const alternatives = certificate.subjectAltName ?? ''
  const named = (kind: string) => new RegExp(`(?:^|, )${kind}:([^,"]+)`).exec(alternatives)?.[1]
  const commonName = /^CN=(.+)$/m.exec(certificate.subject)?.[1]
  return named('email') ?? named('DNS') ?? commonName
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
