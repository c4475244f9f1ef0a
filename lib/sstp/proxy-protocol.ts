/**
 * The PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt §2.1 and §2.2): a load
 * balancer in front says who the client is. Only addresses that the configuration names may speak
 * it, and they must.
 */
import { copyBytes, u16, u32, utf8 } from '../core/bytes.ts'
import { WireFault } from '../core/faults.ts'
import { formatIpv4, formatIpv6, parseIpv4, parseIpv6, unmapped } from '../core/ip-address.ts'

/** Specification constants. */
const V1_MAX_BYTES = 107
const V2_FIXED_BYTES = 16
const V1_PREFIX = utf8('PROXY ')
/** CR LF CR LF NUL CR LF QUIT LF. */
const V2_SIGNATURE = Uint8Array.of(13, 10, 13, 10, 0, 13, 10, 0x51, 0x55, 0x49, 0x54, 10)
const V2_COMMAND_AT = 12
const V2_FAMILY_AT = 13
const V2_LENGTH_AT = 14
const COMMAND_LOCAL = 0x20
const COMMAND_PROXY = 0x21
/** Address family and transport: TCP over IPv4, TCP over IPv6. */
const FAMILY_TCP4 = 0x11
const FAMILY_TCP6 = 0x21
const TCP4_BYTES = 12
const TCP6_BYTES = 36

/** Implementation constant: §2.2 guarantees 536 bytes in the first segment; nobody sends more. */
export const PROXY_HEADER_MAX_BYTES = 536

const CR = 13
const LF = 10

/** Who the client is; `local` when the balancer speaks for itself (health checks). */
export type ProxySource =
  | { readonly type: 'client'; readonly address: string; readonly port: number }
  | { readonly type: 'local' }

export type ProxyResult =
  | { readonly type: 'incomplete' }
  | { readonly type: 'fault'; readonly fault: WireFault }
  /** `usedBytes` belong to the header; TLS begins behind them. */
  | { readonly type: 'header'; readonly usedBytes: number; readonly source: ProxySource }

const incomplete: ProxyResult = { type: 'incomplete' }

/** Looks for a header at the start of all bytes received so far. */
export function parseProxyHeader(bytes: Uint8Array): ProxyResult {
  if (bytes.length === 0) return incomplete
  if (isPrefix(bytes, V1_PREFIX)) return parseVersion1(bytes)
  if (isPrefix(bytes, V2_SIGNATURE)) return parseVersion2(bytes)
  return faulty(WireFault['bad-magic'])
}

/** Whether `bytes`, as far as they go, agree with `magic`. */
function isPrefix(bytes: Uint8Array, magic: Uint8Array): boolean {
  const length = Math.min(bytes.length, magic.length)
  for (let i = 0; i < length; i++) if (bytes[i] !== magic[i]) return false
  return true
}

function faulty(fault: WireFault): ProxyResult {
  return { type: 'fault', fault }
}

/** `PROXY TCP4 SOURCE DESTINATION PORT PORT CR LF`, or `PROXY UNKNOWN … CR LF`. */
function parseVersion1(bytes: Uint8Array): ProxyResult {
  const searched = Math.min(bytes.length, V1_MAX_BYTES)
  const lineFeed = bytes.subarray(0, searched).indexOf(LF)
  if (lineFeed < 0) return searched < V1_MAX_BYTES ? incomplete : faulty(WireFault.oversize)
  if (bytes[lineFeed - 1] !== CR) return faulty(WireFault['bad-text'])
  const usedBytes = lineFeed + 1
  const line = Buffer.from(copyBytes(bytes, 0, lineFeed - 1)).toString('latin1')
  const [, family, source, destination, sourcePort, destinationPort, ...excess] = line.split(' ')
  if (family === 'UNKNOWN') return { type: 'header', usedBytes, source: { type: 'local' } }
  const parse = family === 'TCP4' ? parseIpv4 : family === 'TCP6' ? parseIpv6 : undefined
  const port = parsePort(sourcePort)
  if (
    parse?.(source ?? '') === undefined ||
    parse(destination ?? '') === undefined ||
    port === undefined ||
    parsePort(destinationPort) === undefined ||
    excess.length > 0
  ) {
    return faulty(WireFault['bad-value'])
  }
  return client(usedBytes, source ?? '', port)
}

function parsePort(text: string | undefined): number | undefined {
  if (text === undefined || !/^(0|[1-9][0-9]{0,4})$/.test(text)) return undefined
  const port = Number(text)
  return port <= 0xffff ? port : undefined
}

function parseVersion2(bytes: Uint8Array): ProxyResult {
  if (bytes.length < V2_FIXED_BYTES) return incomplete
  const command = bytes[V2_COMMAND_AT] ?? 0
  if (command >>> 4 !== 2) return faulty(WireFault['bad-version'])
  const addressBytes = u16(bytes, V2_LENGTH_AT)
  const usedBytes = V2_FIXED_BYTES + addressBytes
  if (usedBytes > PROXY_HEADER_MAX_BYTES) return faulty(WireFault.oversize)
  if (command !== COMMAND_LOCAL && command !== COMMAND_PROXY) return faulty(WireFault['bad-value'])
  if (bytes.length < usedBytes) return incomplete
  if (command === COMMAND_LOCAL) return { type: 'header', usedBytes, source: { type: 'local' } }
  const at = V2_FIXED_BYTES
  switch (bytes[V2_FAMILY_AT]) {
    case FAMILY_TCP4:
      if (addressBytes < TCP4_BYTES) return faulty(WireFault['length-too-small'])
      return client(usedBytes, formatIpv4(u32(bytes, at)), u16(bytes, at + 8))
    case FAMILY_TCP6: {
      if (addressBytes < TCP6_BYTES) return faulty(WireFault['length-too-small'])
      return client(usedBytes, formatIpv6(copyBytes(bytes, at, at + 16)), u16(bytes, at + 32))
    }
    default:
      // §2.2: AF_UNSPEC and what we do not know mean the connection's own address.
      return { type: 'header', usedBytes, source: { type: 'local' } }
  }
}

function client(usedBytes: number, address: string, port: number): ProxyResult {
  return { type: 'header', usedBytes, source: { type: 'client', address: unmapped(address), port } }
}
