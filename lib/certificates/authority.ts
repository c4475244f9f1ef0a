/** X.509 certificates of our own making: an authority, and what it issues (RFC 5280). */
import { createPublicKey, generateKeyPairSync, X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import forge from 'node-forge'
import { toHex } from '../core/bytes.ts'
import { type RandomSource, randomBytes, systemRandom } from '../core/random.ts'
import { Secret } from '../core/secret.ts'

/** PEM text of a certificate, and of its key (PKCS #8). */
export interface PemPair {
  readonly certificatePem: string
  readonly keyPem: Secret
}

/** A new RSA key as PKCS #8 PEM text. */
export type KeyGenerator = (rsaBits: number) => string

export interface AuthorityOptions {
  /** Stands in the subject, for people who look for it in a list of trusted roots. */
  readonly name: string
  readonly now: Date
  readonly validDays?: number
  readonly rsaBits?: number
  readonly random?: RandomSource
  readonly generateKey?: KeyGenerator
}

export interface ServerCertificateOptions {
  /** Host names; the first is the common name too. */
  readonly names: readonly string[]
  /** IP addresses that clients dial instead of a name. */
  readonly addresses?: readonly string[]
  readonly now: Date
  /** At most 825, or Apple's systems refuse the certificate. */
  readonly validDays?: number
  readonly rsaBits?: number
  readonly random?: RandomSource
  readonly generateKey?: KeyGenerator
}

/** Ten years: whoever renews an authority must visit every client. */
const authorityDays = 3650
export const longestServerDays = 825
/** Less than the limit by what a generous clock difference takes. */
const serverDays = 820
/** Certificates are valid from a day ago on, for clients whose clock is behind. */
const backdatedMs = 86_400_000
const dayMs = 86_400_000

/** RFC 4945 §5.1.3.12 names it; old Windows IKE clients ask for it. */
const ikeIntermediate = '1.3.6.1.5.5.8.2.2'

/** A new authority, which signs itself. */
export function createAuthority(options: AuthorityOptions): PemPair {
  const { random = systemRandom, rsaBits = 3072, now, validDays = authorityDays } = options
  const subject = [
    { name: 'organizationName', value: 'OpenRAS' },
    // Two authorities of one name would be mistaken for each other.
    { name: 'commonName', value: `${options.name} CA ${toHex(randomBytes(random, 4))}` },
  ]
  const key = newKey(rsaBits, options.generateKey ?? generateRsaKey)
  const certificate = blankCertificate(key.publicPem, now, validDays, random)
  certificate.setSubject(subject)
  certificate.setIssuer(subject)
  certificate.setExtensions([
    { name: 'basicConstraints', cA: true, pathLenConstraint: 0, critical: true },
    { name: 'keyUsage', keyCertSign: true, cRLSign: true, critical: true },
    { name: 'subjectKeyIdentifier' },
  ])
  return signed(certificate, key.privatePem, key.privatePem)
}

/** A new certificate with a new key, for TLS and IKE servers. */
export function issueServerCertificate(
  authority: PemPair,
  options: ServerCertificateOptions,
): PemPair {
  const { names, addresses = [], now, random = systemRandom, rsaBits = 2048 } = options
  const issuer = forge.pki.certificateFromPem(authority.certificatePem)
  const key = newKey(rsaBits, options.generateKey ?? generateRsaKey)
  const validDays = Math.min(options.validDays ?? serverDays, longestServerDays)
  const certificate = blankCertificate(key.publicPem, now, validDays, random)
  if (certificate.validity.notAfter > issuer.validity.notAfter) {
    certificate.validity.notAfter = issuer.validity.notAfter
  }
  certificate.setSubject([
    // RFC 5280 §A.1: ub-common-name is 64.
    { name: 'commonName', value: (names[0] ?? addresses[0] ?? 'OpenRAS').slice(0, 64) },
  ])
  certificate.setIssuer(issuer.subject.attributes)
  certificate.setExtensions([
    { name: 'basicConstraints', cA: false, critical: true },
    { name: 'keyUsage', digitalSignature: true, keyEncipherment: true, critical: true },
    { name: 'extKeyUsage', serverAuth: true, [ikeIntermediate]: true },
    { name: 'subjectAltName', altNames: alternativeNames(names, addresses) },
    { name: 'subjectKeyIdentifier' },
    {
      name: 'authorityKeyIdentifier',
      keyIdentifier: issuer.generateSubjectKeyIdentifier().getBytes(),
    },
  ])
  return signed(certificate, authority.keyPem.exposeText(), key.privatePem)
}

/**
 * RFC 5280 §4.2.1.6: 2 is dNSName, 7 is iPAddress. An address stands in both, since Windows compares
 * what was dialled with the names only.
 */
function alternativeNames(names: readonly string[], addresses: readonly string[]) {
  const valid = addresses.filter(address => isIP(address) !== 0)
  return [
    ...[...new Set([...names, ...valid])].map(value => ({ type: 2, value })),
    ...[...new Set(valid)].map(ip => ({ type: 7, ip })),
  ]
}

function newKey(
  rsaBits: number,
  generate: KeyGenerator,
): { publicPem: string; privatePem: string } {
  const privatePem = generate(rsaBits)
  const publicPem = createPublicKey(privatePem).export({ type: 'spki', format: 'pem' }).toString()
  return { publicPem, privatePem }
}

/** Node makes keys much faster than forge. */
function generateRsaKey(rsaBits: number): string {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: rsaBits })
  return privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
}

function blankCertificate(
  publicPem: string,
  now: Date,
  validDays: number,
  random: RandomSource,
): forge.pki.Certificate {
  const certificate = forge.pki.createCertificate()
  certificate.publicKey = forge.pki.publicKeyFromPem(publicPem)
  certificate.serialNumber = serialNumber(random)
  // X.509 has whole seconds.
  const fromMs = Math.floor((now.getTime() - backdatedMs) / 1000) * 1000
  certificate.validity.notBefore = new Date(fromMs)
  certificate.validity.notAfter = new Date(fromMs + validDays * dayMs - 1000)
  return certificate
}

/** RFC 5280 §4.1.2.2: positive, at most 20 bytes; 126 random bits. */
function serialNumber(random: RandomSource): string {
  const bytes = randomBytes(random, 16)
  bytes[0] = ((bytes[0] ?? 0) & 0x3f) | 0x40
  return toHex(bytes)
}

function signed(
  certificate: forge.pki.Certificate,
  issuerKeyPem: string,
  ownKeyPem: string,
): PemPair {
  certificate.sign(forge.pki.privateKeyFromPem(issuerKeyPem), forge.md.sha256.create())
  // Read by the library that TLS uses: what it cannot read is not handed out.
  const { raw } = new X509Certificate(forge.pki.certificateToPem(certificate))
  return { certificatePem: pemOf(raw), keyPem: Secret.fromText(ownKeyPem) }
}

/** RFC 7468 §5, lines of 64 characters. */
function pemOf(der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? []
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`
}
