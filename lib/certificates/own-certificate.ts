/** The authority and the server certificate of the first run, and their renewal. */
import { X509Certificate } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { join } from 'node:path'
import { ensureStateDirectory, writeFileAtomically } from '../config/state-directory.ts'
import type { CertificateFiles } from '../config.ts'
import { CertificateError } from '../core/errors.ts'
import { type RandomSource, systemRandom } from '../core/random.ts'
import { Secret } from '../core/secret.ts'
import {
  createAuthority,
  issueServerCertificate,
  type KeyGenerator,
  type PemPair,
} from './authority.ts'
import { type CertificatePair, checkKeyFileMode, loadCertificatePair } from './certificate-pair.ts'

export interface OwnCertificateOptions {
  /** Of the state directory; the files stand in `certificates` below it. */
  readonly stateDirectory: string
  /** What clients dial: names, and addresses if they dial those. */
  readonly names: readonly string[]
  readonly addresses?: readonly string[]
  readonly now: Date
  readonly rsaBits?: number
  readonly random?: RandomSource
  readonly generateKey?: KeyGenerator
}

export interface OwnCertificate {
  readonly pair: CertificatePair
  /** For clients to trust; no secret. */
  readonly authorityFile: string
  /** What this call has made, and why. */
  readonly isNewAuthority: boolean
  readonly renewed?: RenewalReason
}

export type RenewalReason = 'absent' | 'unusable' | 'expires-soon' | 'names-changed'

/** Long enough for a forgotten machine, short enough not to bother anybody. */
const renewBeforeMs = 30 * 86_400_000
/** The authority's certificate is public; the keys are not. */
const publicFileMode = 0o644

/** Where the pair of the first run stands. */
export function ownCertificateFiles(
  stateDirectory: string,
): CertificateFiles & { readonly authority: string; readonly authorityKey: string } {
  const directory = join(stateDirectory, 'certificates')
  return {
    cert: join(directory, 'server.pem'),
    key: join(directory, 'server.key'),
    authority: join(directory, 'ca.pem'),
    authorityKey: join(directory, 'ca.key'),
  }
}

/** The server's own pair, made or renewed if it has to be. Calling it again changes nothing. */
export function ensureOwnCertificate(options: OwnCertificateOptions): OwnCertificate {
  const { stateDirectory, now } = options
  const files = ownCertificateFiles(stateDirectory)
  ensureStateDirectory(stateDirectory)
  ensureStateDirectory(join(stateDirectory, 'certificates'))
  const { authority, isNew } = ensureAuthority(options)
  const held = isNew ? undefined : usablePair(files, authority, now)
  const renewed =
    held === undefined
      ? existsSync(files.cert)
        ? 'unusable'
        : 'absent'
      : renewalReason(held, options)
  if (held !== undefined && renewed === undefined) {
    return { pair: held, authorityFile: files.authority, isNewAuthority: isNew }
  }
  const { random = systemRandom, rsaBits = 2048, names, addresses = [], generateKey } = options
  const fresh = issueServerCertificate(authority, {
    names,
    addresses,
    now,
    random,
    rsaBits,
    ...(generateKey !== undefined && { generateKey }),
  })
  // After a crash in between, the pair does not match and is made anew.
  writeFileAtomically(files.key, fresh.keyPem.expose())
  writeFileAtomically(files.cert, fresh.certificatePem, publicFileMode)
  fresh.keyPem.destroy()
  return {
    pair: loadCertificatePair({ cert: files.cert, key: files.key }, now),
    authorityFile: files.authority,
    isNewAuthority: isNew,
    ...(renewed !== undefined && { renewed }),
  }
}

/** Whether a certificate of our own has to be issued again, and why. */
export function renewalReason(
  pair: CertificatePair,
  wanted: {
    readonly names: readonly string[]
    readonly addresses?: readonly string[]
    readonly now: Date
  },
): RenewalReason | undefined {
  if (pair.notAfter.getTime() - wanted.now.getTime() < renewBeforeMs) return 'expires-soon'
  const { leaf } = pair
  const isCovered =
    wanted.names.every(name => isIP(name) !== 0 || leaf.checkHost(name) !== undefined) &&
    (wanted.addresses ?? []).every(address => leaf.checkIP(address) !== undefined)
  return isCovered ? undefined : 'names-changed'
}

function ensureAuthority(options: OwnCertificateOptions): { authority: PemPair; isNew: boolean } {
  const { stateDirectory, names, now, random = systemRandom, rsaBits, generateKey } = options
  const files = ownCertificateFiles(stateDirectory)
  if (existsSync(files.authority) && existsSync(files.authorityKey)) {
    return { authority: readAuthority(files.authority, files.authorityKey, now), isNew: false }
  }
  const authority = createAuthority({
    name: names[0] ?? 'OpenRAS',
    now,
    random,
    ...(rsaBits !== undefined && { rsaBits }),
    ...(generateKey !== undefined && { generateKey }),
  })
  writeFileAtomically(files.authorityKey, authority.keyPem.expose())
  writeFileAtomically(files.authority, authority.certificatePem, publicFileMode)
  return { authority, isNew: true }
}

/** The authority is never replaced silently: clients trust the one that they were given. */
function readAuthority(path: string, keyPath: string, now: Date): PemPair {
  checkKeyFileMode(keyPath)
  const certificatePem = readFileSync(path, 'latin1')
  const keyPem = readFileSync(keyPath, 'latin1')
  try {
    const { validTo } = new X509Certificate(certificatePem)
    if (new Date(validTo) > now) return { certificatePem, keyPem: Secret.fromText(keyPem) }
  } catch (thrown) {
    throw new CertificateError(
      `the authority ${path} is damaged: restore it, or remove it and ${keyPath}, and let clients trust the new one`,
      { cause: thrown },
    )
  }
  throw new CertificateError(
    `the authority ${path} has expired: remove it and ${keyPath}, and let clients trust the new one`,
  )
}

/** Undefined when the pair is absent, damaged, expired, or of another authority. */
function usablePair(
  files: CertificateFiles,
  authority: PemPair,
  now: Date,
): CertificatePair | undefined {
  if (!existsSync(files.cert) || !existsSync(files.key)) return undefined
  checkKeyFileMode(files.key)
  try {
    const pair = loadCertificatePair({ cert: files.cert, key: files.key }, now)
    const issuer = new X509Certificate(authority.certificatePem)
    return pair.leaf.verify(issuer.publicKey) ? pair : undefined
  } catch (thrown) {
    if (thrown instanceof CertificateError) return undefined
    throw thrown
  }
}
