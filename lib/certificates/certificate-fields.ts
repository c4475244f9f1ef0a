/** What `X509Certificate` does not tell of a certificate: RFC 5280 §4.1, §4.2. */
import { DerTag, derNumber, explicitTag, objectIdentifier, readDer, readDerList } from './der.ts'

export interface CertificateFields {
  readonly serial: string
  /** DER, as they stand. */
  readonly issuer: Uint8Array
  readonly subject: Uint8Array
  /** Bits of KeyUsage, the first one highest; absent: any use. */
  readonly keyUsage?: number
  /** Object identifiers of the extensions that must be understood. */
  readonly criticalExtensions: readonly string[]
}

/** RFC 5280 §4.2.1.3: of the first byte. */
export const KeyUsageBit = { digitalSignature: 0x80, nonRepudiation: 0x40 } as const

const oidKeyUsage = '2.5.29.15'
/** More extensions than anybody has. */
const mostExtensions = 64

export interface Extension {
  readonly identifier: string
  readonly isCritical: boolean
  readonly value: Uint8Array
}

/** The Extensions of a certificate or a revocation list, undefined when they are damaged. */
export function readExtensions(sequence: Uint8Array): Extension[] | undefined {
  const extensions: Extension[] = []
  for (const item of readDerList(sequence, mostExtensions) ?? [undefined]) {
    const parts = item && readDerList(item.content, 3)
    const [identifier, second] = parts ?? []
    const value = parts?.at(-1)
    if (identifier === undefined || second === undefined || value === undefined) return undefined
    if (value.tag !== DerTag.octetString) return undefined
    extensions.push({
      identifier: objectIdentifier(identifier.content),
      isCritical: second.tag === DerTag.boolean && second.content[0] !== 0,
      value: value.content,
    })
  }
  return extensions
}

/** Undefined when it is damaged. */
export function certificateFields(der: Uint8Array): CertificateFields | undefined {
  const certificate = readDer(der)
  const toBeSigned = certificate && readDer(certificate.content)
  const parts = toBeSigned && readDerList(toBeSigned.content, 10)
  if (parts === undefined) return undefined
  const isVersioned = parts[0]?.tag === explicitTag(0)
  const [serial, , issuer, , subject] = isVersioned ? parts.slice(1) : parts
  if (serial === undefined || issuer === undefined || subject === undefined) return undefined
  const wrapped = parts.find(part => part.tag === explicitTag(3))
  const sequence = wrapped && readDer(wrapped.content)
  const extensions = wrapped === undefined ? [] : sequence && readExtensions(sequence.content)
  if (extensions === undefined) return undefined
  const usage = extensions.find(extension => extension.identifier === oidKeyUsage)
  const bits = usage && readDer(usage.value)
  return {
    serial: derNumber(serial.content),
    issuer: issuer.whole,
    subject: subject.whole,
    ...(bits?.tag === DerTag.bitString && { keyUsage: bits.content[1] ?? 0 }),
    criticalExtensions: extensions
      .filter(extension => extension.isCritical)
      .map(extension => extension.identifier),
  }
}
