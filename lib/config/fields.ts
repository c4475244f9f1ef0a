/** The scalar fields of the document: text in, values out, and what was expected when it is neither. */
import { isIP } from 'node:net'
import { z } from 'zod'
import {
  type Ipv4Network,
  type Ipv6Network,
  ipv4Mask,
  parseIpv4,
  parseIpv4Network,
  parseIpv6,
  parseIpv6Network,
} from '../core/ip-address.ts'
import { Secret } from '../core/secret.ts'
import { parseBase32 } from './base32.ts'

/** Addresses from `first` to `last`, both included, host order. */
export interface Ipv4Range {
  readonly first: number
  readonly last: number
}

/** An address of either family, told apart by its type. */
export type IpAddress =
  | { readonly family: 4; readonly address: number }
  | { readonly family: 6; readonly address: Uint8Array }

/** A network of either family. */
export type IpNetwork =
  | ({ readonly family: 4 } & Ipv4Network)
  | ({ readonly family: 6 } & Ipv6Network)

/** Text that `parse` turns into a value; undefined is refused with `expected`. */
function parsedText<T>(expected: string, example: string, parse: (text: string) => T | undefined) {
  return z
    .string()
    .meta({ description: expected, examples: [example] })
    .transform((text, context): T => {
      const value = parse(text)
      if (value !== undefined) return value
      context.addIssue({ code: 'custom', message: `expected ${expected}, such as ${example}` })
      return z.NEVER
    })
}

export const ipv4Address = parsedText('an IPv4 address', '10.87.0.1', parseIpv4)

export const ipAddress = parsedText('an IPv4 or IPv6 address', '192.0.2.53', parseIpAddress)

export const ipNetwork = parsedText(
  'an address or a network with its host bits zero',
  '192.0.2.0/24',
  text => {
    const ipv4 = parseIpv4Network(text)
    if (ipv4 !== undefined) return { family: 4, ...ipv4 } as IpNetwork
    const ipv6 = parseIpv6Network(text)
    return ipv6 === undefined ? undefined : ({ family: 6, ...ipv6 } as IpNetwork)
  },
)

export const ipv4Range = parsedText(
  'an IPv4 address, a network, or a range FROM-TO',
  '10.87.0.10-10.87.0.99',
  parseIpv4Range,
)

export const ipv6Prefix = parsedText(
  'an IPv6 prefix of 48 to 64 bits with the other bits zero',
  'fd87:1234:5678::/48',
  text => {
    const network = parseIpv6Network(text)
    if (network === undefined) return undefined
    return network.prefixLength >= 48 && network.prefixLength <= 64 ? network : undefined
  },
)

export const ipv6Network = parsedText(
  'an IPv6 prefix of at most 64 bits with the other bits zero',
  '2001:db8:8000::/40',
  text => {
    const network = parseIpv6Network(text)
    return network !== undefined && network.prefixLength <= 64 ? network : undefined
  },
)

/** An address to listen on stays text, since that is what sockets are opened with. */
export const listenAddress = parsedText('an IPv4 or IPv6 address to listen on', '0.0.0.0', text =>
  isIP(text) !== 0 ? text : undefined,
)

export const domainName = parsedText(
  'a domain name of at most 253 characters',
  'corp.example.net',
  text =>
    text.length <= 253 &&
    /^([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?)(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?)*$/.test(
      text,
    )
      ? text
      : undefined,
)

export const absolutePath = parsedText('an absolute path', '/var/lib/openras', text =>
  text.startsWith('/') && !text.includes('\0') ? text : undefined,
)

/** At most 107 bytes: `sun_path` of unix(7) holds 108 with the final zero. */
export const socketPath = parsedText(
  'an absolute path of at most 107 bytes',
  '/run/openras/control.sock',
  text => (text.startsWith('/') && Buffer.byteLength(text) <= 107 ? text : undefined),
)

export const password = parsedText('a password of 1 to 256 characters', '"correct horse"', text =>
  text.length >= 1 && text.length <= 256 ? Secret.fromText(text) : undefined,
)

/** RFC 4226 §4 wants 128 bits; apps in use make 80. */
export const totpKey = parsedText(
  'a key of 16 to 103 base32 characters',
  'JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP',
  text => {
    const key = parseBase32(text)
    return key !== undefined && key.length >= 10 && key.length <= 64 ? new Secret(key) : undefined
  },
)

/** 256 characters is the most that MS-CHAPv2 names carry (RFC 2759 §4). */
export const userName = parsedText(
  'a user name of 1 to 256 characters without control characters, / \\ [ ] : ; | = , + * ? < > or "',
  'alice',
  text => (isUserName(text) ? text : undefined),
)

export const instant = parsedText(
  'a date, or a date and time with its zone',
  '2027-01-31T18:00:00Z',
  text => {
    if (!/^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d))?$/.test(text)) return undefined
    const date = new Date(text)
    return Number.isNaN(date.getTime()) ? undefined : date
  },
)

/** Interface names of at most 15 bytes (IFNAMSIZ of the kernel, less the final zero). */
export const tunName = parsedText(
  'an interface name of 1 to 15 characters, %d standing for a free number',
  'ras%d',
  text => (/^[A-Za-z0-9_.-]{1,15}$/.test(text.replace('%d', '00')) ? text : undefined),
)

export const interfaceName = parsedText('an interface name, or auto', 'eth0', text =>
  /^[A-Za-z0-9_.@-]{1,15}$/.test(text) && text !== '.' && text !== '..' ? text : undefined,
)

/** The names that Windows allows for accounts, so that a user can move between the two. */
export function isUserName(text: string): boolean {
  return text.length >= 1 && text.length <= 256 && !/[\p{Cc}"/\\[\]:;|=,+*?<>]/u.test(text)
}

export function parseIpv4Range(text: string): Ipv4Range | undefined {
  const [fromText = '', toText, ...rest] = text.split('-').map(part => part.trim())
  if (rest.length > 0) return undefined
  if (toText === undefined) {
    const network = parseIpv4Network(fromText)
    if (network === undefined) return undefined
    const hostBits = ~ipv4Mask(network.prefixLength) >>> 0
    return { first: network.address, last: (network.address | hostBits) >>> 0 }
  }
  const first = parseIpv4(fromText)
  const last = parseIpv4(toText)
  return first === undefined || last === undefined || first > last ? undefined : { first, last }
}

function parseIpAddress(text: string): IpAddress | undefined {
  const ipv4 = parseIpv4(text)
  if (ipv4 !== undefined) return { family: 4, address: ipv4 }
  const ipv6 = parseIpv6(text)
  return ipv6 === undefined ? undefined : { family: 6, address: ipv6 }
}
