/**
 * IP addresses as values: IPv4 as a number in host order, IPv6 as 16 bytes. Text is parsed at the
 * edges and written for people; nothing in between handles text.
 */
import { isIPv4, isIPv6 } from 'node:net'
import { putU32, u16, u32 } from './bytes.ts'

/** Host-order number of dotted-quad text, or undefined. */
export function parseIpv4(text: string): number | undefined {
  if (!isIPv4(text)) return undefined
  return text.split('.').reduce((sum, part) => sum * 256 + Number(part), 0)
}

export function formatIpv4(address: number): string {
  return `${address >>> 24}.${(address >>> 16) & 255}.${(address >>> 8) & 255}.${address & 255}`
}

/** 16 bytes of IPv6 text (RFC 4291 §2.2, no zone), or undefined. */
export function parseIpv6(text: string): Uint8Array | undefined {
  if (!isIPv6(text) || text.includes('%')) return undefined
  let body = text
  const lastColon = body.lastIndexOf(':')
  const embedded = parseIpv4(body.slice(lastColon + 1))
  if (embedded !== undefined) {
    const quad = new Uint8Array(4)
    putU32(quad, 0, embedded)
    body = `${body.slice(0, lastColon + 1)}${u16(quad, 0).toString(16)}:${u16(quad, 2).toString(16)}`
  }
  const [head = '', tail] = body.split('::')
  const groups = (part: string) => (part === '' ? [] : part.split(':'))
  const left = groups(head)
  const right = tail === undefined ? [] : groups(tail)
  const out = new Uint8Array(16)
  const write = (list: string[], from: number) => {
    list.forEach((group, i) => {
      const value = Number.parseInt(group, 16)
      out[2 * (from + i)] = value >>> 8
      out[2 * (from + i) + 1] = value
    })
  }
  write(left, 0)
  write(right, 8 - right.length)
  return out
}

/** The shortest text (RFC 5952 §4). */
export function formatIpv6(address: Uint8Array): string {
  const groups = Array.from({ length: 8 }, (_, i) => u16(address, 2 * i))
  let bestStart = -1
  let bestLength = 1
  for (let i = 0; i < 8; i++) {
    let length = 0
    while (i + length < 8 && groups[i + length] === 0) length++
    if (length > bestLength) {
      bestStart = i
      bestLength = length
    }
  }
  const text = (part: number[]) => part.map(group => group.toString(16)).join(':')
  if (bestStart < 0) return text(groups)
  return `${text(groups.slice(0, bestStart))}::${text(groups.slice(bestStart + bestLength))}`
}

export interface Ipv4Network {
  /** First address, host bits zero. */
  readonly address: number
  readonly prefixLength: number
}

export interface Ipv6Network {
  readonly address: Uint8Array
  readonly prefixLength: number
}

/** `10.0.0.0/8`; a bare address is a /32. Undefined when malformed or when host bits are set. */
export function parseIpv4Network(text: string): Ipv4Network | undefined {
  const [addressText = '', lengthText, ...rest] = text.split('/')
  const address = parseIpv4(addressText)
  const prefixLength = parsePrefixLength(lengthText, 32)
  if (address === undefined || prefixLength === undefined || rest.length > 0) return undefined
  return (address & ipv4Mask(prefixLength)) >>> 0 === address
    ? { address, prefixLength }
    : undefined
}

/** The fewest networks that hold exactly the addresses from `first` to `last`, both in host order. */
export function ipv4NetworksOfRange(first: number, last: number): Ipv4Network[] {
  const networks: Ipv4Network[] = []
  for (let address = first; address <= last; ) {
    let hostBits = 0
    while (hostBits < 32 && address % 2 ** (hostBits + 1) === 0) {
      if (address + 2 ** (hostBits + 1) - 1 > last) break
      hostBits++
    }
    networks.push({ address, prefixLength: 32 - hostBits })
    address += 2 ** hostBits
  }
  return networks
}

/** `fd00::/48`; a bare address is a /128. Undefined when malformed or when host bits are set. */
export function parseIpv6Network(text: string): Ipv6Network | undefined {
  const [addressText = '', lengthText, ...rest] = text.split('/')
  const address = parseIpv6(addressText)
  const prefixLength = parsePrefixLength(lengthText, 128)
  if (address === undefined || prefixLength === undefined || rest.length > 0) return undefined
  for (let bit = prefixLength; bit < 128; bit++) {
    if (((address[bit >>> 3] ?? 0) & (0x80 >>> (bit & 7))) !== 0) return undefined
  }
  return { address, prefixLength }
}

export function formatIpv4Network(network: Ipv4Network): string {
  return `${formatIpv4(network.address)}/${network.prefixLength}`
}

export function formatIpv6Network(network: Ipv6Network): string {
  return `${formatIpv6(network.address)}/${network.prefixLength}`
}

export function ipv4Mask(prefixLength: number): number {
  return prefixLength === 0 ? 0 : (0xffffffff << (32 - prefixLength)) >>> 0
}

export function isInIpv4Network(network: Ipv4Network, address: number): boolean {
  return (address & ipv4Mask(network.prefixLength)) >>> 0 === network.address
}

export function isInIpv6Network(network: Ipv6Network, address: Uint8Array): boolean {
  const wholeBytes = network.prefixLength >>> 3
  for (let i = 0; i < wholeBytes; i++) if (address[i] !== network.address[i]) return false
  const restBits = network.prefixLength & 7
  const mask = (0xff00 >>> restBits) & 0xff
  return (
    restBits === 0 || ((address[wholeBytes] ?? 0) & mask) === (network.address[wholeBytes] ?? 0)
  )
}

/** `::ffff:192.0.2.1` as `192.0.2.1`; other text unchanged. Dual-stack sockets name IPv4 peers so. */
export function unmapped(text: string): string {
  const bytes = parseIpv6(text)
  if (bytes === undefined) return text
  for (let i = 0; i < 10; i++) if (bytes[i] !== 0) return text
  return u16(bytes, 10) === 0xffff ? formatIpv4(u32(bytes, 12)) : text
}

function parsePrefixLength(text: string | undefined, longest: number): number | undefined {
  if (text === undefined) return longest
  if (!/^\d{1,3}$/.test(text)) return undefined
  const length = Number(text)
  return length <= longest ? length : undefined
}
