/**
 * The rules of a session's filter as rows of numbers, looked through from first to last for every
 * packet; the first that matches decides (RFC 6733 §4.3.1). Nothing is remembered between packets.
 */
import type { FilterEndpoint, FilterRule, PortRange } from '../config/filter-rule.ts'
import { putU32, u32 } from '../core/bytes.ts'
import { ipv4Mask } from '../core/ip-address.ts'
import { ipVersion, ipv4HeaderBytes } from './ip-packet.ts'
import type { PacketMemory } from './pinned-memory.ts'
import {
  IPV4_DESTINATION_AT,
  IPV4_FRAGMENT_AT,
  IPV4_FRAGMENT_OFFSET_MASK,
  IPV4_PROTOCOL_AT,
  IPV4_SOURCE_AT,
  IPV6_DESTINATION_AT,
  IPV6_HEADER_BYTES,
  IPV6_NEXT_HEADER_AT,
  IPV6_SOURCE_AT,
  Protocol,
  TCP_ACK,
  TCP_FLAGS_AT,
} from './wire/headers.ts'

/** More would cost a packet too much. */
export const mostFilterRules = 512

// A row, in 32-bit words. The masks of IPv4 networks have one word, those of IPv6 four.
const FLAGS = 0
const PROTOCOL = 1
const SOURCE = 2
const DESTINATION = 12
/** Within an endpoint: address and mask of four words each, then where its ports begin and end. */
const MASK = 4
const PORTS = 8
const PORTS_END = 9
const TCP_SET = 22
const TCP_CLEAR = 23
/** Eight words, a bit for each type. */
const ICMP = 24
const ROW_WORDS = 32

const PERMIT = 0x001
const SOURCE_IS_IPV4 = 0x002
const SOURCE_IS_IPV6 = 0x004
const SOURCE_NEGATED = 0x008
const SOURCE_NOBODY = 0x010
const DESTINATION_SHIFT = 4
const HAS_PORTS = 0x200
const FRAGMENT = 0x400
const ESTABLISHED = 0x800
const HAS_TCP_FLAGS = 0x1000
const HAS_ICMP_TYPES = 0x2000

const ANY_PROTOCOL = -1
const TCP_RST = 0x04
const SCTP = 132

/** IPv6 extension headers that are passed over (RFC 8200 §4.1), and how many at most. */
const HOP_BY_HOP = 0
const ROUTING = 43
const DESTINATION_OPTIONS = 60
const mostExtensionHeaders = 8

interface Direction {
  readonly rows: Int32Array
  readonly ruleCount: number
  /** RFC 6733 §4.3.1: what no rule matches has the opposite fate of the last rule. */
  readonly isElsePermitted: boolean
}

export class PacketFilter {
  readonly ruleCount: number
  readonly #in: Direction
  readonly #out: Direction
  /** First and last of each range. */
  readonly #ports: Uint16Array

  // The packet in hand.
  #protocol = 0
  #transportAt = 0
  #sourcePort = 0
  #destinationPort = 0
  #tcpFlags = 0
  #isLaterFragment = false

  /** `rules` are at most `mostFilterRules`; without any, everything is permitted. */
  constructor(rules: readonly FilterRule[]) {
    const ports: number[] = []
    this.ruleCount = rules.length
    this.#in = compile(
      rules.filter(rule => rule.direction === 'in'),
      ports,
    )
    this.#out = compile(
      rules.filter(rule => rule.direction === 'out'),
      ports,
    )
    this.#ports = Uint16Array.from(ports)
  }

  permitsFromClient(memory: PacketMemory, at: number, lengthBytes: number): boolean {
    return this.#permits(this.#in, memory, at, lengthBytes)
  }

  permitsToClient(memory: PacketMemory, at: number, lengthBytes: number): boolean {
    return this.#permits(this.#out, memory, at, lengthBytes)
  }

  #permits(direction: Direction, memory: PacketMemory, at: number, lengthBytes: number): boolean {
    const { rows, ruleCount } = direction
    if (ruleCount === 0) return true
    const { bytes, view } = memory
    const isIpv4 = ipVersion(bytes, at) === 4
    if (!(isIpv4 ? this.#read4(memory, at, lengthBytes) : this.#read6(memory, at, lengthBytes))) {
      return false
    }
    const sourceAt = at + (isIpv4 ? IPV4_SOURCE_AT : IPV6_SOURCE_AT)
    const destinationAt = at + (isIpv4 ? IPV4_DESTINATION_AT : IPV6_DESTINATION_AT)
    for (let rule = 0; rule < ruleCount; rule++) {
      const row = rule * ROW_WORDS
      const flags = rows[row + FLAGS] ?? 0
      const protocol = rows[row + PROTOCOL] ?? 0
      if (protocol !== ANY_PROTOCOL && protocol !== this.#protocol) continue
      if (!isWithin(rows, row + SOURCE, flags, view, sourceAt, isIpv4)) continue
      const destinationFlags = flags >>> DESTINATION_SHIFT
      if (!isWithin(rows, row + DESTINATION, destinationFlags, view, destinationAt, isIpv4)) {
        continue
      }
      if (!this.#fitsTransport(rows, row, flags, bytes)) continue
      return (flags & PERMIT) !== 0
    }
    return direction.isElsePermitted
  }

  #fitsTransport(rows: Int32Array, row: number, flags: number, bytes: Uint8Array): boolean {
    if ((flags & (HAS_PORTS | FRAGMENT | ESTABLISHED | HAS_TCP_FLAGS | HAS_ICMP_TYPES)) === 0) {
      return true
    }
    // Only the first fragment has ports and flags.
    if (this.#isLaterFragment) return (flags & FRAGMENT) !== 0
    if ((flags & FRAGMENT) !== 0) return false
    if ((flags & HAS_PORTS) !== 0) {
      const protocol = this.#protocol
      if (protocol !== Protocol.tcp && protocol !== Protocol.udp && protocol !== SCTP) return false
      if (!this.#hasPort(rows, row + SOURCE, this.#sourcePort)) return false
      if (!this.#hasPort(rows, row + DESTINATION, this.#destinationPort)) return false
    }
    if ((flags & (ESTABLISHED | HAS_TCP_FLAGS)) !== 0) {
      if (this.#protocol !== Protocol.tcp) return false
      const tcp = this.#tcpFlags
      const set = rows[row + TCP_SET] ?? 0
      if ((tcp & set) !== set || (tcp & (rows[row + TCP_CLEAR] ?? 0)) !== 0) return false
      if ((flags & ESTABLISHED) !== 0 && (tcp & (TCP_ACK | TCP_RST)) === 0) return false
    }
    if ((flags & HAS_ICMP_TYPES) === 0) return true
    const type = bytes[this.#transportAt] ?? 0
    return ((rows[row + ICMP + (type >>> 5)] ?? 0) & (1 << (type & 31))) !== 0
  }

  #hasPort(rows: Int32Array, endpoint: number, port: number): boolean {
    const from = rows[endpoint + PORTS] ?? 0
    const end = rows[endpoint + PORTS_END] ?? 0
    if (from === end) return true
    const ports = this.#ports
    for (let i = from; i < end; i += 2) {
      if (port >= (ports[i] ?? 0) && port <= (ports[i + 1] ?? 0)) return true
    }
    return false
  }

  #read4(memory: PacketMemory, at: number, lengthBytes: number): boolean {
    const { bytes, view } = memory
    const offset = view.getUint16(at + IPV4_FRAGMENT_AT) & IPV4_FRAGMENT_OFFSET_MASK
    this.#protocol = bytes[at + IPV4_PROTOCOL_AT] ?? 0
    return this.#readTransport(memory, at, ipv4HeaderBytes(bytes, at), lengthBytes, offset)
  }

  #read6(memory: PacketMemory, at: number, lengthBytes: number): boolean {
    const { bytes, view } = memory
    let header = bytes[at + IPV6_NEXT_HEADER_AT] ?? 0
    let headerAt = IPV6_HEADER_BYTES
    let offset = 0
    for (let i = 0; i < mostExtensionHeaders; i++) {
      const isFragment = header === Protocol['ipv6-fragment']
      const isOther = header === HOP_BY_HOP || header === ROUTING || header === DESTINATION_OPTIONS
      if (!isFragment && !isOther) {
        this.#protocol = header
        return this.#readTransport(memory, at, headerAt, lengthBytes, offset)
      }
      if (headerAt + 8 > lengthBytes) return false
      header = bytes[at + headerAt] ?? 0
      if (isFragment) {
        offset = view.getUint16(at + headerAt + 2) >>> 3
        headerAt += 8
        if (offset > 0) {
          this.#protocol = header
          return this.#readTransport(memory, at, headerAt, lengthBytes, offset)
        }
      } else headerAt += ((bytes[at + headerAt + 1] ?? 0) + 1) * 8
    }
    return false
  }

  /** False for packets that hide their transport header (RFC 1858, RFC 7112): nobody sends such. */
  #readTransport(
    memory: PacketMemory,
    at: number,
    headerBytes: number,
    lengthBytes: number,
    fragmentOffset: number,
  ): boolean {
    const { bytes, view } = memory
    const transportAt = at + headerBytes
    const protocol = this.#protocol
    this.#transportAt = transportAt
    this.#isLaterFragment = fragmentOffset > 0
    // RFC 1858 §4.2: it could overwrite the flags of the first fragment.
    if (fragmentOffset > 0) return !(protocol === Protocol.tcp && fragmentOffset === 1)
    const leftBytes = lengthBytes - headerBytes
    if (protocol === Protocol.tcp) {
      if (leftBytes <= TCP_FLAGS_AT) return false
      this.#tcpFlags = bytes[transportAt + TCP_FLAGS_AT] ?? 0
    } else if (protocol === Protocol.icmp || protocol === Protocol.icmpv6) {
      return leftBytes >= 1
    } else if (protocol !== Protocol.udp && protocol !== SCTP) {
      return leftBytes >= 0
    } else if (leftBytes < 4) return false
    this.#sourcePort = view.getUint16(transportAt)
    this.#destinationPort = view.getUint16(transportAt + 2)
    return true
  }
}

/** `flags` hold the endpoint's bits where those of the source stand. */
function isWithin(
  rows: Int32Array,
  endpoint: number,
  flags: number,
  view: DataView,
  addressAt: number,
  isIpv4: boolean,
): boolean {
  const family = flags & (SOURCE_IS_IPV4 | SOURCE_IS_IPV6 | SOURCE_NOBODY)
  const isNegated = (flags & SOURCE_NEGATED) !== 0
  if (family === 0) return !isNegated
  if (family === SOURCE_NOBODY) return isNegated
  let isInside = false
  if (isIpv4) {
    isInside =
      family === SOURCE_IS_IPV4 &&
      ((view.getInt32(addressAt) ^ (rows[endpoint] ?? 0)) & (rows[endpoint + MASK] ?? 0)) === 0
  } else if (family === SOURCE_IS_IPV6) {
    isInside = true
    for (let word = 0; word < 4 && isInside; word++) {
      const difference = view.getInt32(addressAt + 4 * word) ^ (rows[endpoint + word] ?? 0)
      isInside = (difference & (rows[endpoint + MASK + word] ?? 0)) === 0
    }
  }
  return isInside !== isNegated
}

function compile(rules: readonly FilterRule[], ports: number[]): Direction {
  const rows = new Int32Array(rules.length * ROW_WORDS)
  rules.forEach((rule, i) => {
    const row = i * ROW_WORDS
    const { source, destination, direction } = rule
    let flags = rule.action === 'permit' ? PERMIT : 0
    // The anti-spoofing check and the routes have seen to it that this end is the session's own.
    flags |= compileEndpoint(rows, row + SOURCE, source, direction === 'in', ports)
    flags |=
      compileEndpoint(rows, row + DESTINATION, destination, direction === 'out', ports) <<
      DESTINATION_SHIFT
    if (source.ports.length + destination.ports.length > 0) flags |= HAS_PORTS
    if (rule.isFragment) flags |= FRAGMENT
    if (rule.isEstablished) flags |= ESTABLISHED
    if (rule.tcpFlagsSet !== 0 || rule.tcpFlagsClear !== 0) flags |= HAS_TCP_FLAGS
    if (rule.icmpTypes.length > 0) flags |= HAS_ICMP_TYPES
    rows[row + FLAGS] = flags
    rows[row + PROTOCOL] = rule.protocol ?? ANY_PROTOCOL
    rows[row + TCP_SET] = rule.tcpFlagsSet
    rows[row + TCP_CLEAR] = rule.tcpFlagsClear
    for (const type of rule.icmpTypes) {
      const word = row + ICMP + (type >>> 5)
      rows[word] = (rows[word] ?? 0) | (1 << (type & 31))
    }
  })
  return { rows, ruleCount: rules.length, isElsePermitted: rules.at(-1)?.action !== 'permit' }
}

/** Writes the endpoint and returns its flags, where those of the source stand. */
function compileEndpoint(
  rows: Int32Array,
  at: number,
  { network, isNegated, ports }: FilterEndpoint,
  isSession: boolean,
  allPorts: number[],
): number {
  rows[at + PORTS] = allPorts.length
  allPorts.push(...ports.flatMap(({ first, last }: PortRange) => [first, last]))
  rows[at + PORTS_END] = allPorts.length
  const negated = isNegated ? SOURCE_NEGATED : 0
  if (network === 'any') return negated
  if (network === 'assigned') return negated | (isSession ? 0 : SOURCE_NOBODY)
  const { prefixLength } = network
  if (network.family === 4) {
    rows[at] = network.address
    rows[at + MASK] = ipv4Mask(prefixLength)
    return negated | SOURCE_IS_IPV4
  }
  const mask = new Uint8Array(16)
  for (let word = 0; word < 4; word++) {
    putU32(mask, 4 * word, ipv4Mask(Math.max(0, Math.min(32, prefixLength - 32 * word))))
    rows[at + word] = u32(network.address, 4 * word)
    rows[at + MASK + word] = u32(mask, 4 * word)
  }
  return negated | SOURCE_IS_IPV6
}
