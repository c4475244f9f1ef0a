/**
 * Certificates that their issuers have taken back: lists out of files, RFC 5280 §5. Nothing is fetched;
 * whoever renews a list has the server read it anew.
 *
 * Policy: a list is believed when its issuer has signed it. One that is past its next update still takes
 * back what stands in it, and lets nobody else of its issuer in: what happened since is not known. An
 * issuer without a list has taken nothing back.
 */
import { type KeyObject, verify } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { equalBytes, toHex } from '../core/bytes.ts'
import { CertificateError, messageOf } from '../core/errors.ts'
import { type CertificateFields, readExtensions } from './certificate-fields.ts'
import { DerTag, derNumber, derTime, explicitTag, readDer, readDerList } from './der.ts'
import { signatureDigest } from './signature-digest.ts'

export interface RevocationList {
  /** DER. */
  readonly issuer: Uint8Array
  readonly serials: ReadonlySet<string>
  /** Absent: it never says that it is old. */
  readonly nextUpdate: Date | undefined
  readonly signed: Uint8Array
  readonly signature: Uint8Array
  readonly digest: string | null
}

/** Most certificates on one list. */
const mostEntries = 1_000_000

/** A DER list, or why it cannot be used. */
export function parseRevocationList(der: Uint8Array): RevocationList | string {
  const outer = readDer(der)
  const [toBeSigned, algorithm, signature] = (outer && readDerList(outer.content, 3)) ?? []
  const parts = toBeSigned && readDerList(toBeSigned.content, 8)
  if (toBeSigned === undefined || parts === undefined || algorithm === undefined) return 'damaged'
  if (signature?.tag !== DerTag.bitString || signature.content[0] !== 0) return 'damaged'
  const digest = signatureDigest(algorithm.content)
  if (digest === undefined) return 'signed in a way that is not known here'
  const at = parts[0]?.tag === DerTag.integer ? 2 : 1
  const issuer = parts[at]
  const thisUpdate = parts[at + 1]
  if (issuer === undefined || thisUpdate === undefined || derTime(thisUpdate) === undefined) {
    return 'damaged'
  }
  const after = parts[at + 2]
  const nextUpdate = after && derTime(after)
  const rest = parts.slice(nextUpdate === undefined ? at + 2 : at + 3)
  const entries = rest.find(part => part.tag === DerTag.sequence)
  const serials = entries === undefined ? new Set<string>() : serialsOf(entries.content)
  if (serials === undefined) return 'damaged'
  const wrapped = rest.find(part => part.tag === explicitTag(0))
  const sequence = wrapped && readDer(wrapped.content)
  const extensions = wrapped === undefined ? [] : sequence && readExtensions(sequence.content)
  if (extensions === undefined) return 'damaged'
  // RFC 5280 §5.2.4, §5.2.5: parts of lists, and lists for a part of the certificates.
  const strange = extensions.find(extension => extension.isCritical)
  if (strange !== undefined) return `a partial list (extension ${strange.identifier})`
  return {
    issuer: issuer.whole,
    serials,
    nextUpdate,
    signed: toBeSigned.whole,
    signature: signature.content.subarray(1),
    digest,
  }
}

/** Of all entries, whatever the reason: also of those on hold. */
function serialsOf(sequence: Uint8Array): Set<string> | undefined {
  const serials = new Set<string>()
  for (const entry of readDerList(sequence, mostEntries) ?? [undefined]) {
    const serial = entry && readDer(entry.content)
    if (serial?.tag !== DerTag.integer) return undefined
    serials.add(derNumber(serial.content))
  }
  return serials
}

export class RevocationLists {
  readonly #lists: readonly RevocationList[]
  /** Lists that a key has signed: list to hexadecimal SPKI. */
  readonly #proved = new WeakMap<RevocationList, string>()

  constructor(lists: readonly RevocationList[]) {
    this.#lists = lists
  }

  /** Reads PEM or DER files. Throws CertificateError. */
  static load(paths: readonly string[]): RevocationLists {
    return new RevocationLists(paths.flatMap(readLists))
  }

  /** Why a certificate of this issuer may not be used; undefined when nothing speaks against it. */
  fault(certificate: CertificateFields, issuerKey: KeyObject, now: Date): string | undefined {
    let isOld = false
    for (const list of this.#lists) {
      if (!equalBytes(list.issuer, certificate.issuer) || !this.#isProved(list, issuerKey)) continue
      if (list.serials.has(certificate.serial)) return 'revoked'
      if (list.nextUpdate !== undefined && list.nextUpdate <= now) isOld = true
      else return undefined
    }
    return isOld ? 'revocation-list-expired' : undefined
  }

  #isProved(list: RevocationList, key: KeyObject): boolean {
    const name = toHex(key.export({ type: 'spki', format: 'der' }))
    if (this.#proved.get(list) === name) return true
    const isSigned = verify(list.digest, list.signed, key, list.signature)
    if (isSigned) this.#proved.set(list, name)
    return isSigned
  }
}

function readLists(path: string): RevocationList[] {
  let file: Buffer
  try {
    file = readFileSync(path)
  } catch (thrown) {
    throw new CertificateError(`cannot read the revocation list ${path}: ${messageOf(thrown)}`, {
      cause: thrown,
    })
  }
  const blocks = file.toString('latin1').matchAll(/-----BEGIN X509 CRL-----([^-]*)-----END/g)
  const ders = [...blocks].map(([, text = '']) => Uint8Array.from(Buffer.from(text, 'base64')))
  return (ders.length > 0 ? ders : [Uint8Array.from(file)]).map(der => {
    const list = parseRevocationList(der)
    if (typeof list !== 'string') return list
    throw new CertificateError(`the revocation list ${path} is of no use: ${list}`)
  })
}
