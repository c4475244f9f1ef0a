/** Reading a response of OCSP: RFC 6960 §4.2.1. Who may have signed it is for its reader to judge. */
import { readExtensions } from './certificate-fields.ts'
import {
  type DerElement,
  DerTag,
  derNumber,
  derTime,
  explicitTag,
  objectIdentifier,
  readDer,
  readDerList,
} from './der.ts'
import { signatureDigest } from './signature-digest.ts'

export interface OcspResponse {
  /** Who says that it has signed: a subject (DER), or the SHA-1 of a key. */
  readonly responder: { readonly name: Uint8Array } | { readonly keySha1: Uint8Array }
  readonly statements: readonly OcspStatement[]
  /** DER, that the responder sends along. */
  readonly certificates: readonly Uint8Array[]
  readonly signed: Uint8Array
  readonly signature: Uint8Array
  readonly digest: string | null
}

/** What is said of one certificate. */
export interface OcspStatement {
  /** Of the two hashes. */
  readonly hash: 'sha1' | 'sha256' | 'sha384' | 'sha512'
  readonly issuerNameHash: Uint8Array
  readonly issuerKeyHash: Uint8Array
  readonly serial: string
  readonly status: 'good' | 'revoked' | 'unknown'
  readonly thisUpdate: Date
  /** Absent: there is always news. */
  readonly nextUpdate: Date | undefined
}

// Specification constants, RFC 6960 §4.2.1 and appendix B.1.

const enumerated = 0x0a
const successful = 0
const basicResponse = '1.3.6.1.5.5.7.48.1.1'
const statuses: Readonly<Record<number, OcspStatement['status']>> = {
  128: 'good',
  161: 'revoked',
  130: 'unknown',
}
const hashes: Readonly<Record<string, OcspStatement['hash']>> = {
  '1.3.14.3.2.26': 'sha1',
  '2.16.840.1.101.3.4.2.1': 'sha256',
  '2.16.840.1.101.3.4.2.2': 'sha384',
  '2.16.840.1.101.3.4.2.3': 'sha512',
}

// Implementation constants.

const mostStatements = 1000
const mostCertificates = 8

/** A DER response, or why it cannot be used. */
export function parseOcspResponse(der: Uint8Array): OcspResponse | string {
  const [status, wrapped] = childrenOf(readDer(der), 2) ?? []
  if (status?.tag !== enumerated) return 'damaged'
  if (status.content[0] !== successful) return 'an error of the responder'
  const [type, body] = childrenOf(insideOf(wrapped, explicitTag(0)), 2) ?? []
  if (type === undefined || body?.tag !== DerTag.octetString) return 'damaged'
  if (objectIdentifier(type.content) !== basicResponse) return 'of a kind that is not known here'
  const [data, algorithm, signature, sent] = childrenOf(readDer(body.content), 4) ?? []
  if (data === undefined || algorithm === undefined) return 'damaged'
  if (signature?.tag !== DerTag.bitString || signature.content[0] !== 0) return 'damaged'
  const digest = signatureDigest(algorithm.content)
  if (digest === undefined) return 'signed in a way that is not known here'
  const certificates =
    sent === undefined ? [] : childrenOf(insideOf(sent, explicitTag(0)), mostCertificates)
  const said = readData(data)
  if (typeof said === 'string') return said
  if (certificates === undefined) return 'damaged'
  return {
    ...said,
    certificates: certificates.map(({ whole }) => whole),
    signed: data.whole,
    signature: signature.content.subarray(1),
    digest,
  }
}

function readData(data: DerElement): Pick<OcspResponse, 'responder' | 'statements'> | string {
  const parts = childrenOf(data, 5)
  if (parts?.[0]?.tag === explicitTag(0)) parts.shift()
  const [who, , list, extensions] = parts ?? []
  const responder = who && readResponder(who)
  if (responder === undefined || list === undefined) return 'damaged'
  const items = childrenOf(list, mostStatements)
  if (items === undefined) return 'damaged'
  const statements: OcspStatement[] = []
  for (const item of items) {
    const statement = readStatement(item)
    if (typeof statement === 'string') return statement
    statements.push(statement)
  }
  return extensionsFault(extensions) ?? { responder, statements }
}

function readResponder(who: DerElement): OcspResponse['responder'] | undefined {
  const name = insideOf(who, explicitTag(1))
  if (name !== undefined) return { name: name.whole }
  const keySha1 = insideOf(who, explicitTag(2))
  return keySha1 && { keySha1: keySha1.content }
}

function readStatement(item: DerElement): OcspStatement | string {
  const [about, told, from, ...rest] = childrenOf(item, 5) ?? []
  const [algorithm, nameHash, keyHash, serial] = childrenOf(about, 4) ?? []
  const identifier = algorithm && readDer(algorithm.content)
  const status = told && statuses[told.tag]
  const thisUpdate = from && derTime(from)
  if (identifier === undefined || nameHash === undefined || keyHash === undefined) return 'damaged'
  if (serial?.tag !== DerTag.integer || status === undefined || thisUpdate === undefined) {
    return 'damaged'
  }
  const hash = hashes[objectIdentifier(identifier.content)]
  if (hash === undefined) return 'hashed in a way that is not known here'
  const until = rest.find(({ tag }) => tag === explicitTag(0))
  const next = insideOf(until, explicitTag(0))
  const nextUpdate = next && derTime(next)
  if (until !== undefined && nextUpdate === undefined) return 'damaged'
  const fault = extensionsFault(rest.find(({ tag }) => tag === explicitTag(1)))
  if (fault !== undefined) return fault
  return {
    hash,
    issuerNameHash: nameHash.content,
    issuerKeyHash: keyHash.content,
    serial: derNumber(serial.content),
    status,
    thisUpdate,
    nextUpdate,
  }
}

/** RFC 6960 §4.4: none of those that exist has to be understood. */
function extensionsFault(wrapped: DerElement | undefined): string | undefined {
  if (wrapped === undefined) return undefined
  const sequence = insideOf(wrapped, explicitTag(1))
  const extensions = sequence && readExtensions(sequence.content)
  if (extensions === undefined) return 'damaged'
  const strange = extensions.find(({ isCritical }) => isCritical)
  return strange && `with the critical extension ${strange.identifier}`
}

function childrenOf(element: DerElement | undefined, most: number): DerElement[] | undefined {
  if (element?.tag !== DerTag.sequence) return undefined
  return readDerList(element.content, most)
}

function insideOf(element: DerElement | undefined, tag: number): DerElement | undefined {
  return element?.tag === tag ? readDer(element.content) : undefined
}
