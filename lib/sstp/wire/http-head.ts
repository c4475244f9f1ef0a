/**
 * The one HTTP exchange that opens an SSTP connection ([MS-SSTP] §3.2.4.1, §3.3.5.1, §4.1), parsed by
 * hand: its method and its Content-Length of 2^64-1 are beyond a general HTTP parser, and what
 * follows the head is no HTTP.
 */

/** Specification constants. */
export const SSTP_METHOD = 'SSTP_DUPLEX_POST'
export const SSTP_URI = '/sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/'
/** 2^64-1, as text: no number of ours holds it. */
export const SSTP_CONTENT_LENGTH = '18446744073709551615'

/** Implementation constants. */
export const MAX_HEAD_BYTES = 8192
const FIRST_ROOM_BYTES = 512

const CR = 13
const LF = 10
const TAB = 9
const SPACE = 32
const DELETE = 127

/** What the bytes so far amount to. */
export type HeadState = 'incomplete' | 'complete' | 'oversize' | 'not-http'

/** Collects a head that arrives in pieces of any size, in time linear in its length. */
export class HeadCollector {
  #bytes = new Uint8Array(FIRST_ROOM_BYTES)
  #length = 0
  /** How much of CR LF CR LF the last bytes are. */
  #matched = 0

  /**
   * Takes `bytes` up to the empty line that ends the head. `used` is how many of them belong to it;
   * the rest is the peer's first frames. After anything but `incomplete` it takes no more.
   */
  push(bytes: Uint8Array): { readonly state: HeadState; readonly used: number } {
    for (let i = 0; i < bytes.length; i++) {
      const byte = bytes[i] ?? 0
      if (!isHeadByte(byte)) return { state: 'not-http', used: i }
      if (this.#length === MAX_HEAD_BYTES) return { state: 'oversize', used: i }
      this.#append(byte)
      if (byte === CR) this.#matched = this.#matched === 2 ? 3 : 1
      else if (byte === LF && (this.#matched & 1) === 1) this.#matched++
      else this.#matched = 0
      if (this.#matched === 4) return { state: 'complete', used: i + 1 }
    }
    return { state: 'incomplete', used: bytes.length }
  }

  /** The lines of a complete head, without the empty one. */
  lines(): string[] {
    return Buffer.from(this.#bytes.buffer, 0, Math.max(0, this.#length - 4))
      .toString('latin1')
      .split('\r\n')
  }

  #append(byte: number): void {
    if (this.#length === this.#bytes.length) {
      // Grows with what came, never with what was promised.
      const larger = new Uint8Array(Math.min(2 * this.#bytes.length, MAX_HEAD_BYTES))
      larger.set(this.#bytes)
      this.#bytes = larger
    }
    this.#bytes[this.#length++] = byte
  }
}

/** Text, with the bytes over 0x7f that RFC 9110 §5.5 still allows in header values. */
function isHeadByte(byte: number): boolean {
  if (byte < SPACE) return byte === CR || byte === LF || byte === TAB
  return byte !== DELETE
}

export interface HeaderField {
  /** Lower case. */
  readonly name: string
  readonly value: string
}

/** A line `Name: value`; undefined when it has no name. */
function parseHeader(line: string): HeaderField | undefined {
  const colon = line.indexOf(':')
  if (colon <= 0) return undefined
  const name = line.slice(0, colon)
  if (name.includes(' ') || name.includes('\t')) return undefined
  return { name: name.toLowerCase(), value: line.slice(colon + 1).trim() }
}

function parseHeaders(lines: readonly string[]): HeaderField[] | undefined {
  const headers: HeaderField[] = []
  for (const line of lines) {
    const header = parseHeader(line)
    if (header === undefined) return undefined
    headers.push(header)
  }
  return headers
}

/** `HTTP/1.x`. [MS-SSTP] says 1.1; 1.0 is tolerated, as other servers do. */
function isHttp1(version: string): boolean {
  return version === 'HTTP/1.1' || version === 'HTTP/1.0'
}

export type Request =
  /** An SSTP client. `correlationId` is its GUID in lower case without braces, when well formed. */
  | { readonly type: 'sstp'; readonly correlationId: string | undefined }
  /** HTTP, but nothing that lives here. */
  | { readonly type: 'other-http' }
  | { readonly type: 'not-http' }

/**
 * Reads a request head. The URI's hexadecimal digits compare without regard to case; headers may come
 * in any order with any others among them. A Content-Length, when there is one, must be 2^64-1: a
 * smaller one means that somebody between us expects the stream to end.
 */
export function parseRequest(lines: readonly string[]): Request {
  const [method = '', uri = '', version = '', ...excess] = (lines[0] ?? '').split(' ', 4)
  if (method === '' || !uri || excess.length > 0 || !version.startsWith('HTTP/')) {
    return { type: 'not-http' }
  }
  const headers = parseHeaders(lines.slice(1))
  if (headers === undefined || !isHttp1(version) || method !== SSTP_METHOD) {
    return { type: 'other-http' }
  }
  if (uri.toLowerCase() !== SSTP_URI.toLowerCase()) return { type: 'other-http' }
  let correlationId: string | undefined
  for (const { name, value } of headers) {
    if (name === 'content-length' && value !== SSTP_CONTENT_LENGTH) return { type: 'other-http' }
    if (name === 'sstpcorrelationid') correlationId = parseGuid(value)
  }
  return { type: 'sstp', correlationId }
}

/** `{8-4-4-4-12}` hexadecimal digits; the braces may be missing. */
function parseGuid(text: string): string | undefined {
  const hasBraces = text.startsWith('{') && text.endsWith('}')
  const guid = hasBraces ? text.slice(1, -1) : text
  if (guid.length !== 36) return undefined
  return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(guid) ? guid.toLowerCase() : undefined
}

export const headerNames = ['content-length', 'host', 'sstpcorrelationid'] as const
export type RequestHeader = (typeof headerNames)[number]

export interface RequestOptions {
  /** Value of the Host header, as the client writes it: with or without port. */
  readonly host: string
  /** Without braces. */
  readonly correlationId: string
  /** The order of the headers; one left out is not sent. */
  readonly order?: readonly RequestHeader[]
}

export function requestText({ host, correlationId, order = headerNames }: RequestOptions): string {
  const fields: Record<RequestHeader, string> = {
    'content-length': `Content-Length: ${SSTP_CONTENT_LENGTH}`,
    host: `Host: ${host}`,
    sstpcorrelationid: `SSTPCORRELATIONID: {${correlationId.toUpperCase()}}`,
  }
  const lines = [`${SSTP_METHOD} ${SSTP_URI} HTTP/1.1`, ...order.map(name => fields[name])]
  return `${lines.join('\r\n')}\r\n\r\n`
}

/** The answer to an SSTP client. */
export function acceptedText(date: Date): string {
  const lines = [
    'HTTP/1.1 200 OK',
    `Content-Length: ${SSTP_CONTENT_LENGTH}`,
    `Date: ${date.toUTCString()}`,
  ]
  return `${lines.join('\r\n')}\r\n\r\n`
}

/** The answer to everybody else. */
export const notFoundText =
  'HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'

/** Status code of a response head, undefined when it is no HTTP/1.x response. */
export function parseStatusCode(lines: readonly string[]): number | undefined {
  const [version = '', code = ''] = (lines[0] ?? '').split(' ', 2)
  if (!isHttp1(version) || !/^[1-5][0-9]{2}$/.test(code)) return undefined
  return Number(code)
}
