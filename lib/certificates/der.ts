/** Reading DER (X.690 §8, §10): what certificates and revocation lists are made of. Nothing is copied. */
import { toHex } from '../core/bytes.ts'

/** Identifier octets of the types that X.509 needs. */
export const DerTag = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  objectIdentifier: 0x06,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
} as const

/** Context-specific and constructed, X.690 §8.1.2. */
export function explicitTag(number: number): number {
  return 0xa0 | number
}

export interface DerElement {
  readonly tag: number
  /** Contents without identifier and length. */
  readonly content: Uint8Array
  /** With them. */
  readonly whole: Uint8Array
}

/** The element at the beginning of `bytes`, undefined when it is not whole or not DER. */
export function readDer(bytes: Uint8Array): DerElement | undefined {
  const tag = bytes[0] ?? 0x1f
  const first = bytes[1] ?? 0x80
  // X.509 has no tags beyond 30.
  if ((tag & 0x1f) === 0x1f) return undefined
  let lengthBytes = first
  let at = 2
  if (first >= 0x80) {
    at += first & 0x7f
    if (first === 0x80 || at > 6 || at > bytes.length) return undefined
    lengthBytes = 0
    for (let i = 2; i < at; i++) lengthBytes = lengthBytes * 256 + (bytes[i] ?? 0)
    if (lengthBytes < 0x80 || bytes[2] === 0) return undefined
  }
  const end = at + lengthBytes
  if (end > bytes.length) return undefined
  return { tag, content: bytes.subarray(at, end), whole: bytes.subarray(0, end) }
}

/** All elements in a row, undefined when one of them is not DER or there are more than `most`. */
export function readDerList(bytes: Uint8Array, most: number): DerElement[] | undefined {
  const elements: DerElement[] = []
  for (let at = 0; at < bytes.length; ) {
    const element = readDer(bytes.subarray(at))
    if (element === undefined || elements.length >= most) return undefined
    elements.push(element)
    at += element.whole.length
  }
  return elements
}

/** An OBJECT IDENTIFIER in dots (X.690 §8.19). */
export function objectIdentifier(content: Uint8Array): string {
  const numbers: number[] = []
  let value = 0
  for (const byte of content) {
    value = value * 128 + (byte & 0x7f)
    if (byte < 0x80) {
      numbers.push(value)
      value = 0
    }
  }
  const first = numbers.shift() ?? 0
  const root = Math.min(2, Math.floor(first / 40))
  return [root, first - 40 * root, ...numbers].join('.')
}

/** UTCTime or GeneralizedTime as RFC 5280 §4.1.2.5 has them, in UTC with seconds. */
export function derTime({ tag, content }: DerElement): Date | undefined {
  const text = Buffer.from(content).toString('latin1')
  const match =
    tag === DerTag.utcTime
      ? /^(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})Z$/.exec(text)
      : tag === DerTag.generalizedTime
        ? /^(\d{4})(\d{2})(\d{2})(\d{2})(\d{2})(\d{2})Z$/.exec(text)
        : null
  if (match === null) return undefined
  const [, yearText = '', ...rest] = match
  const short = Number(yearText)
  const year = yearText.length === 4 ? short : short < 50 ? 2000 + short : 1900 + short
  const [month = 1, day = 1, hour = 0, minute = 0, second = 0] = rest.map(Number)
  const date = new Date(Date.UTC(year, month - 1, day, hour, minute, second))
  return Number.isNaN(date.getTime()) ? undefined : date
}

/** A serial number as its key in tables. */
export function derNumber(content: Uint8Array): string {
  return toHex(content)
}
