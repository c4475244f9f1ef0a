/**
 * What OCSP responders say of client certificates (RFC 6960), out of the files of a folder: whoever
 * fetches them puts them there, and a look at the folder is taken again while clients come.
 *
 * Policy: a response is believed when the issuer of the certificate has signed it, or a responder that
 * this issuer has named (§4.2.2.2). One that is past its next update still takes back what it has taken
 * back, and lets the others in no longer. A certificate of which no response speaks is not taken back.
 */
import { createHash, type KeyObject, verify, X509Certificate } from 'node:crypto'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { equalBytes, toHex } from '../core/bytes.ts'
import { CertificateError, messageOf } from '../core/errors.ts'
import { type CertificateFields, certificateFields } from './certificate-fields.ts'
import { readDer, readDerList } from './der.ts'
import { type OcspResponse, type OcspStatement, parseOcspResponse } from './ocsp-response.ts'

/** id-kp-OCSPSigning, RFC 6960 §4.2.2.2. */
const oidOcspSigning = '1.3.6.1.5.5.7.3.9'
/** How far the clock of a responder may be ahead. */
const skewMs = 5 * 60_000
/** How long a response without a next update is good. */
const longestWithoutUpdateMs = 86_400_000

/** Between two looks at the folder. */
const lookIntervalMs = 30_000
/** Of the folder; a look costs some 5 us for each. */
const mostFiles = 1024
const largestFileBytes = 64 * 1024

export interface OcspFolder {
  readonly folder: string
  /** A file is of no use, or the folder cannot be read any more. */
  onFault(path: string, reason: string): void
}

/** Whose certificate is asked about. */
export interface OcspIssuer {
  /** DER. */
  readonly name: Uint8Array
  readonly key: KeyObject
}

interface HeldFile {
  /** Modification time and size: another file under the same name. */
  readonly version: string
  readonly response: OcspResponse | undefined
}

interface Said {
  readonly statement: OcspStatement
  readonly response: OcspResponse
}

export class OcspResponses {
  readonly #folder: string
  readonly #onFault: OcspFolder['onFault']
  #files = new Map<string, HeldFile>()
  #bySerial = new Map<string, Said[]>()
  #lookedMs = Number.NEGATIVE_INFINITY
  /** Responses that an issuer's key answers for: response to hexadecimal SPKI. */
  readonly #proved = new WeakMap<OcspResponse, string>()

  private constructor({ folder, onFault }: OcspFolder) {
    this.#folder = folder
    this.#onFault = onFault
  }

  /** Throws CertificateError when the folder cannot be read. */
  static load(from: OcspFolder, now: Date): OcspResponses {
    const { folder } = from
    const responses = new OcspResponses(from)
    try {
      responses.#look(now)
    } catch (thrown) {
      throw new CertificateError(
        `cannot read the folder of OCSP responses ${folder}: ${messageOf(thrown)}`,
        { cause: thrown },
      )
    }
    return responses
  }

  /**
   * Why a certificate of this issuer may not be used, `none` when nothing is known of it, undefined when
   * it is good. `isTakenBack` is asked of responders that are not the issuer itself.
   */
  fault(
    certificate: CertificateFields,
    issuer: OcspIssuer,
    now: Date,
    isTakenBack: (responder: CertificateFields) => boolean,
  ): 'revoked' | 'unknown-certificate' | 'ocsp-response-expired' | 'none' | undefined {
    this.#refresh(now)
    let newest: OcspStatement | undefined
    for (const { statement, response } of this.#bySerial.get(certificate.serial) ?? []) {
      if (statement.thisUpdate.getTime() > now.getTime() + skewMs) continue
      if (newest !== undefined && newest.thisUpdate >= statement.thisUpdate) continue
      if (!isAbout(statement, issuer)) continue
      if (this.#isProved(response, issuer, now, isTakenBack)) newest = statement
    }
    if (newest === undefined) return 'none'
    if (newest.status === 'revoked') return 'revoked'
    if (!isCurrent(newest, now)) return 'ocsp-response-expired'
    return newest.status === 'unknown' ? 'unknown-certificate' : undefined
  }

  #refresh(now: Date): void {
    const sinceMs = now.getTime() - this.#lookedMs
    // The clock may have been set back.
    if (sinceMs >= 0 && sinceMs < lookIntervalMs) return
    try {
      this.#look(now)
    } catch (thrown) {
      this.#onFault(this.#folder, messageOf(thrown))
    }
  }

  /** Files that are as they were are not read again. */
  #look(now: Date): void {
    this.#lookedMs = now.getTime()
    const files = new Map<string, HeldFile>()
    const names = readdirSync(this.#folder)
    if (names.length > mostFiles) {
      this.#onFault(this.#folder, `${names.length} files, of which ${mostFiles} are looked at`)
    }
    for (const name of names.sort().slice(0, mostFiles)) {
      const file = this.#readFile(name)
      if (file !== undefined) files.set(name, file)
    }
    this.#files = files
    this.#bySerial = new Map()
    for (const { response } of files.values()) {
      if (response === undefined) continue
      for (const statement of response.statements) {
        const said = this.#bySerial.get(statement.serial)
        if (said === undefined) this.#bySerial.set(statement.serial, [{ statement, response }])
        else said.push({ statement, response })
      }
    }
  }

  /** Undefined when it is no file, or gone. */
  #readFile(name: string): HeldFile | undefined {
    const path = join(this.#folder, name)
    const stats = statSync(path, { throwIfNoEntry: false })
    if (stats?.isFile() !== true) return undefined
    const version = `${stats.mtimeMs} ${stats.size} ${stats.ino}`
    const held = this.#files.get(name)
    if (held?.version === version) return held
    const response = stats.size > largestFileBytes ? 'too large' : readResponse(path)
    if (typeof response !== 'string') return { version, response }
    this.#onFault(path, response)
    return { version, response: undefined }
  }

  #isProved(
    response: OcspResponse,
    issuer: OcspIssuer,
    now: Date,
    isTakenBack: (responder: CertificateFields) => boolean,
  ): boolean {
    if (isOf(response, issuer)) {
      const name = toHex(spkiOf(issuer.key))
      if (this.#proved.get(response) === name) return true
      if (hasSigned(issuer.key, response)) {
        this.#proved.set(response, name)
        return true
      }
    }
    return response.certificates.some(der => {
      const responder = delegate(der, issuer, now)
      if (responder === undefined || !isOf(response, responder)) return false
      return hasSigned(responder.key, response) && !isTakenBack(responder.fields)
    })
  }
}

/** Still in force, if nobody has said anything newer. */
export function isCurrent({ thisUpdate, nextUpdate }: OcspStatement, now: Date): boolean {
  const endMs = nextUpdate?.getTime() ?? thisUpdate.getTime() + longestWithoutUpdateMs
  return thisUpdate.getTime() <= now.getTime() + skewMs && now.getTime() < endMs
}

/** Whether it speaks of certificates of this issuer; the serial number is for the caller to compare. */
export function isAbout(statement: OcspStatement, issuer: OcspIssuer): boolean {
  const hashOf = (bytes: Uint8Array) => createHash(statement.hash).update(bytes).digest()
  return (
    equalBytes(statement.issuerNameHash, hashOf(issuer.name)) &&
    equalBytes(statement.issuerKeyHash, hashOf(keyBitsOf(issuer.key)))
  )
}

/** RFC 6960 §4.2.2.2: named by the issuer itself, for this purpose, and valid. */
function delegate(
  der: Uint8Array,
  issuer: OcspIssuer,
  now: Date,
): (OcspIssuer & { readonly fields: CertificateFields }) | undefined {
  const fields = certificateFields(der)
  if (fields === undefined || !equalBytes(fields.issuer, issuer.name)) return undefined
  let certificate: X509Certificate
  try {
    certificate = new X509Certificate(der)
    if (!certificate.verify(issuer.key)) return undefined
  } catch {
    return undefined
  }
  const purposes: readonly string[] | undefined = certificate.keyUsage
  if (purposes?.includes(oidOcspSigning) !== true) return undefined
  if (new Date(certificate.validFrom) > now || new Date(certificate.validTo) <= now) {
    return undefined
  }
  return { name: fields.subject, key: certificate.publicKey, fields }
}

function isOf({ responder }: OcspResponse, { name, key }: OcspIssuer): boolean {
  if ('name' in responder) return equalBytes(responder.name, name)
  return equalBytes(responder.keySha1, createHash('sha1').update(keyBitsOf(key)).digest())
}

function hasSigned(key: KeyObject, { digest, signed, signature }: OcspResponse): boolean {
  try {
    return verify(digest, signed, key, signature)
  } catch {
    // The algorithm is not one of this key.
    return false
  }
}

function spkiOf(key: KeyObject): Uint8Array {
  return key.export({ type: 'spki', format: 'der' })
}

/** The BIT STRING of a public key without its number of unused bits: what OCSP hashes. */
function keyBitsOf(key: KeyObject): Uint8Array {
  const outer = readDer(spkiOf(key))
  const [, bits] = (outer && readDerList(outer.content, 2)) ?? []
  return bits?.content.subarray(1) ?? new Uint8Array(0)
}

function readResponse(path: string): OcspResponse | string {
  try {
    return parseOcspResponse(Uint8Array.from(readFileSync(path)))
  } catch (thrown) {
    return messageOf(thrown)
  }
}
