/**
 * One rule of a packet filter in the syntax of RFC 6733 §4.3.1 (IPFilterRule), which RFC 4849 §2
 * (NAS-Filter-Rule) takes over: `permit in tcp from any to 192.0.2.0/24 80,443 established`.
 */
import { parseIpv4, parseIpv6 } from '../core/ip-address.ts'
import type { IpNetwork } from './fields.ts'

export interface PortRange {
  readonly first: number
  readonly last: number
}

export interface FilterEndpoint {
  /** `any`; `assigned` stands for the addresses and networks of the session itself. */
  readonly network: IpNetwork | 'any' | 'assigned'
  readonly isNegated: boolean
  /** Empty: all. */
  readonly ports: readonly PortRange[]
}

export interface FilterRule {
  readonly action: 'permit' | 'deny'
  /** `in` comes from the client, `out` goes to it. */
  readonly direction: 'in' | 'out'
  /** IANA number; undefined: all. */
  readonly protocol?: number
  readonly source: FilterEndpoint
  readonly destination: FilterEndpoint
  /** Only fragments that are not the first. */
  readonly isFragment: boolean
  /** TCP flags that must be set, and that must not. */
  readonly tcpFlagsSet: number
  readonly tcpFlagsClear: number
  /** TCP with ACK or RST: not the first packet of a connection. */
  readonly isEstablished: boolean
  /** Of ICMP and ICMPv6; empty: all. */
  readonly icmpTypes: readonly number[]
}

/** `RFC 6733 §4.3.1`: a rule that is not understood is an error of whoever wrote it. */
export type ParsedFilterRule = FilterRule | { readonly error: string }

/** Longer texts are refused unread; an attribute of RADIUS carries 253 bytes. */
const longestRuleChars = 4096
const mostPorts = 64

const protocolNumbers: Readonly<Record<string, number>> = {
  icmp: 1,
  igmp: 2,
  tcp: 6,
  udp: 17,
  gre: 47,
  esp: 50,
  ah: 51,
  'ipv6-icmp': 58,
  icmpv6: 58,
  sctp: 132,
}

/** RFC 9293 §3.1. */
const TCP_SYN = 0x02
const TCP_ACK = 0x10
const tcpFlagBits: Readonly<Record<string, number>> = {
  fin: 0x01,
  syn: TCP_SYN,
  rst: 0x04,
  psh: 0x08,
  ack: TCP_ACK,
  urg: 0x20,
}

const TCP = 6
const UDP = 17
const SCTP = 132
const withPorts: readonly (number | undefined)[] = [TCP, UDP, SCTP]

/** The words of a rule, read from the front. */
class Words {
  readonly #words: readonly string[]
  #next = 0

  constructor(text: string) {
    this.#words = text.trim().split(/\s+/)
  }

  peek(): string | undefined {
    return this.#words[this.#next]
  }

  take(): string {
    return this.#words[this.#next++] ?? ''
  }

  takeIf(word: string): boolean {
    if (this.peek() !== word) return false
    this.#next++
    return true
  }
}

export function isFilterRule(parsed: ParsedFilterRule): parsed is FilterRule {
  return !('error' in parsed)
}

export function parseFilterRule(text: string): ParsedFilterRule {
  if (text.length > longestRuleChars) return { error: 'expected a shorter rule' }
  const words = new Words(text)
  const action = words.take()
  if (action !== 'permit' && action !== 'deny') return expected('permit or deny', action)
  const direction = words.take()
  if (direction !== 'in' && direction !== 'out') return expected('in or out', direction)
  const protocolWord = words.take()
  const protocol = parseProtocol(protocolWord)
  if (protocol === undefined) return expected('ip or a protocol', protocolWord)
  if (!words.takeIf('from')) return expected('from', words.take())
  const source = parseEndpoint(words)
  if ('error' in source) return source
  if (!words.takeIf('to')) return expected('to', words.take())
  const destination = parseEndpoint(words)
  if ('error' in destination) return destination
  const base = {
    action,
    direction,
    ...(protocol !== 'ip' && { protocol }),
    source,
    destination,
    isFragment: false,
    tcpFlagsSet: 0,
    tcpFlagsClear: 0,
    isEstablished: false,
    icmpTypes: [],
  } as const satisfies FilterRule
  return withOptions(base, words)
}

function withOptions(base: FilterRule, words: Words): ParsedFilterRule {
  const rule: { -readonly [K in keyof FilterRule]: FilterRule[K] } = { ...base }
  for (let option = words.peek(); option !== undefined; option = words.peek()) {
    words.take()
    if (option === 'frag') rule.isFragment = true
    else if (option === 'established') rule.isEstablished = true
    else if (option === 'setup') {
      rule.tcpFlagsSet |= TCP_SYN
      rule.tcpFlagsClear |= TCP_ACK
    } else if (option === 'tcpflags') {
      for (const name of words.take().split(',')) {
        const bit = tcpFlagBits[name.replace('!', '')]
        if (bit === undefined) return expected('TCP flags', name)
        if (name.startsWith('!')) rule.tcpFlagsClear |= bit
        else rule.tcpFlagsSet |= bit
      }
    } else if (option === 'icmptypes') {
      const list = words.take()
      const types = parseRanges(list, 255)
      if (types === undefined) return expected('ICMP types', list)
      rule.icmpTypes = types.flatMap(({ first, last }) =>
        Array.from({ length: last - first + 1 }, (_, i) => first + i),
      )
    } else return expected('an option', option)
  }
  return contradictionOf(rule) ?? rule
}

/** What no packet could ever match is a mistake. */
function contradictionOf(rule: FilterRule): { readonly error: string } | undefined {
  const { protocol, source, destination } = rule
  const hasPorts = source.ports.length > 0 || destination.ports.length > 0
  if (hasPorts && !(protocol === undefined || withPorts.includes(protocol))) {
    return { error: `expected no ports with protocol ${protocol}` }
  }
  if (rule.isFragment && (hasPorts || usesTcpFlags(rule) || rule.icmpTypes.length > 0)) {
    return { error: 'expected frag without ports, TCP flags and ICMP types (RFC 6733 §4.3.1)' }
  }
  if (usesTcpFlags(rule) && !(protocol === undefined || protocol === TCP)) {
    return { error: 'expected protocol tcp with TCP flags' }
  }
  if (rule.icmpTypes.length > 0 && !(protocol === 1 || protocol === 58)) {
    return { error: 'expected protocol icmp or icmpv6 with icmptypes' }
  }
  const [from, to] = [source.network, destination.network]
  if (typeof from !== 'string' && typeof to !== 'string' && from.family !== to.family) {
    return { error: 'expected source and destination of one address family' }
  }
  return undefined
}

function usesTcpFlags(rule: FilterRule): boolean {
  return rule.isEstablished || rule.tcpFlagsSet !== 0 || rule.tcpFlagsClear !== 0
}

function parseProtocol(word: string): number | 'ip' | undefined {
  if (word === 'ip') return 'ip'
  if (/^\d{1,3}$/.test(word)) return Number(word) <= 255 ? Number(word) : undefined
  return Object.hasOwn(protocolNumbers, word) ? protocolNumbers[word] : undefined
}

function parseEndpoint(words: Words): FilterEndpoint | { readonly error: string } {
  let word = words.take()
  let isNegated = false
  if (word.startsWith('!')) {
    isNegated = true
    word = word === '!' ? words.take() : word.slice(1)
  }
  const network = word === 'any' || word === 'assigned' ? word : parseNetwork(word)
  if (network === undefined) return expected('an address, a network, any or assigned', word)
  const next = words.peek()
  if (next === undefined || !/^[\d,-]+$/.test(next)) return { network, isNegated, ports: [] }
  words.take()
  const ports = parseRanges(next, 65_535)
  return ports === undefined ? expected('ports', next) : { network, isNegated, ports }
}

/** Host bits may be set: they are cleared, as in the firewalls that this syntax comes from. */
function parseNetwork(word: string): IpNetwork | undefined {
  const [addressText = '', bitsText, ...rest] = word.split('/')
  if (rest.length > 0 || (bitsText !== undefined && !/^\d{1,3}$/.test(bitsText))) return undefined
  const ipv4 = parseIpv4(addressText)
  if (ipv4 !== undefined) {
    const prefixLength = Number(bitsText ?? 32)
    if (prefixLength > 32) return undefined
    const size = 2 ** (32 - prefixLength)
    return { family: 4, address: ipv4 - (ipv4 % size), prefixLength }
  }
  const ipv6 = parseIpv6(addressText)
  const prefixLength = Number(bitsText ?? 128)
  if (ipv6 === undefined || prefixLength > 128) return undefined
  for (let bit = prefixLength; bit < 128; bit++) {
    const at = bit >>> 3
    ipv6[at] = (ipv6[at] ?? 0) & ~(0x80 >>> (bit & 7))
  }
  return { family: 6, address: ipv6, prefixLength }
}

/** `80,443,8000-8080`. */
function parseRanges(list: string, most: number): PortRange[] | undefined {
  const ranges: PortRange[] = []
  const parts = list.split(',')
  if (parts.length > mostPorts) return undefined
  for (const part of parts) {
    const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(part)
    if (match === null) return undefined
    const first = Number(match[1])
    const last = Number(match[2] ?? match[1])
    if (first > last || last > most) return undefined
    ranges.push({ first, last })
  }
  return ranges
}

function expected(what: string, got: string): { readonly error: string } {
  return { error: `expected ${what}, not "${got.slice(0, 64)}"` }
}
