/** Certificate and key from two PEM files, checked before anybody is served with them. */
import { createHash, createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import { octal } from '../config/state-directory.ts'
import type { CertificateFiles } from '../config.ts'
import { CertificateError, messageOf } from '../core/errors.ts'
import { Secret } from '../core/secret.ts'

/** A pair that is ready to serve. */
export interface CertificatePair {
  readonly files: CertificateFiles
  /** The leaf, then its issuers, each issued by the next. */
  readonly chainPem: string
  readonly keyPem: Secret
  readonly leaf: X509Certificate
  readonly keyType: 'rsa' | 'ec'
  /** Of the leaf's DER; what SSTP clients bind to ([MS-SSTP] §2.2.7). */
  readonly sha1: Uint8Array
  readonly sha256: Uint8Array
  readonly notAfter: Date
}

const largestFileBytes = 1024 * 1024
const mostCertificates = 10
const shortestRsaBits = 2048
/** Curves that Windows, Apple and Android take in TLS and IKE alike. */
const curves = ['prime256v1', 'secp384r1', 'secp521r1']
/** id-kp-serverAuth and anyExtendedKeyUsage, RFC 5280 §4.2.1.12. */
const serverPurposes = ['1.3.6.1.5.5.7.3.1', '2.5.29.37.0']

/** Throws CertificateError, which says what is wrong with which file and what to do. */
export function loadCertificatePair(files: CertificateFiles, now: Date): CertificatePair {
  const chain = readChain(files.cert)
  const [leaf] = chain
  if (leaf === undefined) {
    throw new CertificateError(`${files.cert} holds no certificate: it must be PEM text`)
  }
  const { key, pem } = readKey(files.key)
  if (!leaf.checkPrivateKey(key)) {
    throw new CertificateError(
      `${files.key} is not the key of the first certificate in ${files.cert}: the server's own certificate must come first, its issuers after it`,
    )
  }
  checkOrder(files.cert, chain)
  checkLeaf(files.cert, leaf, now)
  return {
    files,
    chainPem: chain.map(String).join(''),
    keyPem: pem,
    leaf,
    keyType: keyTypeOf(files.key, key),
    sha1: fingerprint('sha1', leaf),
    sha256: fingerprint('sha256', leaf),
    notAfter: new Date(leaf.validTo),
  }
}

/** Only the owner writes it, only owner and group read it. */
export function checkKeyFileMode(path: string): void {
  let mode: number
  try {
    mode = statSync(path).mode
  } catch (thrown) {
    throw new CertificateError(`cannot read the key ${path}: ${messageOf(thrown)}`, {
      cause: thrown,
    })
  }
  if ((mode & 0o137) !== 0) {
    throw new CertificateError(
      `the key ${path} has mode ${octal(mode)}, so others may read or change it: chmod 600 ${path}`,
    )
  }
}

function readChain(path: string): X509Certificate[] {
  const text = readText(path, 'certificate')
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? []
  if (blocks.length > mostCertificates) {
    throw new CertificateError(
      `${path} holds ${blocks.length} certificates; a chain has at most ${mostCertificates}`,
    )
  }
  return blocks.map((block, i) => {
    try {
      return new X509Certificate(block)
    } catch (thrown) {
      throw new CertificateError(
        `certificate ${i + 1} in ${path} is damaged: ${messageOf(thrown)}`,
        {
          cause: thrown,
        },
      )
    }
  })
}

function readKey(path: string): { key: KeyObject; pem: Secret } {
  checkKeyFileMode(path)
  const text = readText(path, 'key')
  try {
    return { key: createPrivateKey(text), pem: Secret.fromText(text) }
  } catch (thrown) {
    const advice = /ENCRYPTED/.test(text)
      ? `it has a pass phrase; remove it with: openssl pkey -in ${path} -out NEWFILE`
      : 'it must be a PEM private key'
    // The cause of OpenSSL does not quote the key.
    throw new CertificateError(`cannot use the key ${path}: ${advice}`, { cause: thrown })
  }
}

function readText(path: string, what: string): string {
  try {
    const { size } = statSync(path)
    if (size > largestFileBytes) throw new CertificateError(`${path} is too large for a ${what}`)
    return readFileSync(path, 'latin1')
  } catch (thrown) {
    if (thrown instanceof CertificateError) throw thrown
    throw new CertificateError(`cannot read the ${what} ${path}: ${messageOf(thrown)}`, {
      cause: thrown,
    })
  }
}

function checkOrder(path: string, chain: readonly X509Certificate[]): void {
  chain.forEach((certificate, i) => {
    const issuer = chain[i + 1]
    if (issuer === undefined) return
    if (!certificate.checkIssued(issuer) || !certificate.verify(issuer.publicKey)) {
      throw new CertificateError(
        `certificate ${i + 2} in ${path} did not issue certificate ${i + 1}: put the server's certificate first and each issuer after what it issued`,
      )
    }
  })
}

function checkLeaf(path: string, leaf: X509Certificate, now: Date): void {
  if (new Date(leaf.validTo) <= now) {
    throw new CertificateError(`the certificate ${path} expired on ${leaf.validTo}: renew it`)
  }
  if (new Date(leaf.validFrom) > now) {
    throw new CertificateError(
      `the certificate ${path} is valid from ${leaf.validFrom} only: is the clock right?`,
    )
  }
  // Node calls the extended key usage `keyUsage`; undefined when there is none.
  const purposes: readonly string[] | undefined = leaf.keyUsage
  if (purposes !== undefined && !purposes.some(purpose => serverPurposes.includes(purpose))) {
    throw new CertificateError(
      `the certificate ${path} is not meant for servers: its extended key usage lacks serverAuth`,
    )
  }
}

function keyTypeOf(path: string, key: KeyObject): 'rsa' | 'ec' {
  const { modulusLength = 0, publicExponent = 0n, namedCurve = '' } = key.asymmetricKeyDetails ?? {}
  if (key.asymmetricKeyType === 'rsa') {
    if (modulusLength < shortestRsaBits || publicExponent < 65_537n) {
      throw new CertificateError(
        `the RSA key ${path} is too weak: it needs ${shortestRsaBits} bits and the exponent 65537`,
      )
    }
    return 'rsa'
  }
  if (key.asymmetricKeyType === 'ec' && curves.includes(namedCurve)) return 'ec'
  throw new CertificateError(
    `the key ${path} is ${key.asymmetricKeyType ?? 'unknown'} ${namedCurve}: clients take RSA, or ECDSA on P-256, P-384 or P-521`,
  )
}

function fingerprint(hash: 'sha1' | 'sha256', certificate: X509Certificate): Uint8Array {
  return Uint8Array.from(createHash(hash).update(certificate.raw).digest())
}
