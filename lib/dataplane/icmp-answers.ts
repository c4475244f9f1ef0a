/**
 * The ICMP errors that a router owes: fragmentation needed (RFC 1191 §4), packet too big (RFC 4443
 * §3.2) and time exceeded (RFC 792, RFC 4443 §3.3). Rate-limited, and never about a packet that must
 * not be answered (RFC 1812 §4.3.2.7, RFC 4443 §2.4 (e)).
 */
import type { Clock } from '../core/clock.ts'
import { ipVersion, ipv4HeaderBytes, pseudoHeaderSum } from './ip-packet.ts'
import type { PacketMemory } from './pinned-memory.ts'
import { Count, type Tally } from './tally.ts'
import {
  IPV4_CHECKSUM_AT,
  IPV4_DESTINATION_AT,
  IPV4_FRAGMENT_AT,
  IPV4_FRAGMENT_OFFSET_MASK,
  IPV4_HEADER_BYTES,
  IPV4_ID_AT,
  IPV4_LIMITED_BROADCAST,
  IPV4_PROTOCOL_AT,
  IPV4_SOURCE_AT,
  IPV4_TOTAL_LENGTH_AT,
  IPV4_TTL_AT,
  IPV6_DESTINATION_AT,
  IPV6_HEADER_BYTES,
  IPV6_HOP_LIMIT_AT,
  IPV6_MINIMUM_MTU_BYTES,
  IPV6_NEXT_HEADER_AT,
  IPV6_PAYLOAD_LENGTH_AT,
  IPV6_SOURCE_AT,
  Protocol,
} from './wire/headers.ts'

// Specification constants: RFC 792, RFC 1191 §4, RFC 4443 §2.1.
const ICMP_HEADER_BYTES = 8
const ICMP_CHECKSUM_AT = 2
const ICMP_DESTINATION_UNREACHABLE = 3
const ICMP_FRAGMENTATION_NEEDED = 4
const ICMP_SOURCE_QUENCH = 4
const ICMP_REDIRECT = 5
const ICMP_TIME_EXCEEDED = 11
const ICMP_PARAMETER_PROBLEM = 12
const ICMP_NEXT_HOP_MTU_AT = 6
const ICMPV6_PACKET_TOO_BIG = 2
const ICMPV6_TIME_EXCEEDED = 3
const ICMPV6_MTU_AT = 4
/** RFC 4443 §2.1: types below it are errors. */
const ICMPV6_FIRST_INFORMATIONAL = 128
const ICMPV6_REDIRECT = 137
/** RFC 1812 §4.3.2.3: the answer as a whole. */
const IPV4_ANSWER_MAX_BYTES = 576

// Implementation constants: enough for every flow of a session to learn its MTU, too few to be a weapon.
const ANSWERS_PER_SECOND = 200
const ANSWERS_AT_ONCE = 50
const ANSWER_TTL = 64

const icmpAnswers = Count['icmp-answers']
const icmpSuppressed = Count['icmp-suppressed']

export interface OwnAddresses {
  /** Host order; answers about IPv4 packets come from here. None without it. */
  readonly ipv4Address: number | undefined
  readonly ipv6Address: Uint8Array | undefined
}

/** Builds answers in one place of packet memory; each is sent before the next is built. */
export class IcmpAnswers {
  /** Where the answer stands. */
  readonly at: number
  readonly #memory: PacketMemory
  readonly #clock: Clock
  readonly #own: OwnAddresses
  readonly #tally: Tally
  #credit = ANSWERS_AT_ONCE
  #creditedAtMs: number

  constructor(memory: PacketMemory, clock: Clock, own: OwnAddresses, tally: Tally) {
    this.#memory = memory
    this.#clock = clock
    this.#own = own
    this.#tally = tally
    this.#creditedAtMs = clock.nowMs()
    this.at = memory.allocate(IPV6_MINIMUM_MTU_BYTES)
  }

  /** Answers that the packet at `at` does not fit `mtuBytes`. Bytes of the answer, 0 for none. */
  tooBig(at: number, lengthBytes: number, mtuBytes: number): number {
    if (!this.#mayAnswer(at, lengthBytes)) return 0
    return ipVersion(this.#memory.bytes, at) === 4
      ? this.#build4(
          at,
          lengthBytes,
          ICMP_DESTINATION_UNREACHABLE,
          ICMP_FRAGMENTATION_NEEDED,
          mtuBytes,
        )
      : this.#build6(at, lengthBytes, ICMPV6_PACKET_TOO_BIG, mtuBytes)
  }

  /** Answers that the packet's TTL or hop limit ran out. Bytes of the answer, 0 for none. */
  timeExceeded(at: number, lengthBytes: number): number {
    if (!this.#mayAnswer(at, lengthBytes)) return 0
    return ipVersion(this.#memory.bytes, at) === 4
      ? this.#build4(at, lengthBytes, ICMP_TIME_EXCEEDED, 0, 0)
      : this.#build6(at, lengthBytes, ICMPV6_TIME_EXCEEDED, 0)
  }

  #mayAnswer(at: number, lengthBytes: number): boolean {
    const isAnswerable =
      ipVersion(this.#memory.bytes, at) === 4
        ? this.#own.ipv4Address !== undefined && this.#isAnswerable4(at, lengthBytes)
        : this.#own.ipv6Address !== undefined && this.#isAnswerable6(at, lengthBytes)
    if (isAnswerable && this.#takeCredit()) {
      this.#tally.count(icmpAnswers, 1)
      return true
    }
    this.#tally.count(icmpSuppressed, 1)
    return false
  }

  #isAnswerable4(at: number, lengthBytes: number): boolean {
    const { bytes, view } = this.#memory
    const source = view.getUint32(at + IPV4_SOURCE_AT)
    const destination = view.getUint32(at + IPV4_DESTINATION_AT)
    const sourceNet = source >>> 24
    if (source === 0 || sourceNet === 127 || sourceNet >= 224) return false
    if (destination === IPV4_LIMITED_BROADCAST || destination >>> 28 === 0xe) return false
    const fragment = view.getUint16(at + IPV4_FRAGMENT_AT)
    if ((fragment & IPV4_FRAGMENT_OFFSET_MASK) !== 0) return false
    if (bytes[at + IPV4_PROTOCOL_AT] !== Protocol.icmp) return true
    const header = ipv4HeaderBytes(bytes, at)
    if (header >= lengthBytes) return false
    switch (bytes[at + header]) {
      case ICMP_DESTINATION_UNREACHABLE:
      case ICMP_SOURCE_QUENCH:
      case ICMP_REDIRECT:
      case ICMP_TIME_EXCEEDED:
      case ICMP_PARAMETER_PROBLEM:
        return false
      default:
        return true
    }
  }

  #isAnswerable6(at: number, lengthBytes: number): boolean {
    const { bytes, view } = this.#memory
    const first = bytes[at + IPV6_SOURCE_AT]
    // Packet too big may be an answer to a multicast packet (RFC 4443 §2.4 (e.3)), not to a source
    // that does not name a single node.
    if (first === 0xff) return false
    let isUnspecified = true
    for (let i = 0; i < 16; i += 4) {
      if (view.getUint32(at + IPV6_SOURCE_AT + i) !== 0) isUnspecified = false
    }
    if (isUnspecified) return false
    if (bytes[at + IPV6_NEXT_HEADER_AT] !== Protocol.icmpv6) return true
    if (IPV6_HEADER_BYTES >= lengthBytes) return false
    const type = bytes[at + IPV6_HEADER_BYTES] ?? 0
    return type >= ICMPV6_FIRST_INFORMATIONAL && type !== ICMPV6_REDIRECT
  }

  #takeCredit(): boolean {
    const nowMs = this.#clock.nowMs()
    const gained = ((nowMs - this.#creditedAtMs) * ANSWERS_PER_SECOND) / 1000
    this.#credit = Math.min(ANSWERS_AT_ONCE, this.#credit + gained)
    this.#creditedAtMs = nowMs
    if (this.#credit < 1) return false
    this.#credit--
    return true
  }

  #build4(
    about: number,
    lengthBytes: number,
    type: number,
    code: number,
    mtuBytes: number,
  ): number {
    const memory = this.#memory
    const { bytes, view } = memory
    const to = this.at
    const overhead = IPV4_HEADER_BYTES + ICMP_HEADER_BYTES
    const quoted = Math.min(lengthBytes, IPV4_ANSWER_MAX_BYTES - overhead)
    const total = overhead + quoted
    bytes.fill(0, to, to + overhead)
    bytes[to] = 0x45
    // RFC 1812 §4.3.2.5: precedence of internetwork control.
    bytes[to + 1] = 0xc0
    view.setUint16(to + IPV4_TOTAL_LENGTH_AT, total)
    view.setUint16(to + IPV4_ID_AT, 0)
    bytes[to + IPV4_TTL_AT] = ANSWER_TTL
    bytes[to + IPV4_PROTOCOL_AT] = Protocol.icmp
    view.setUint32(to + IPV4_SOURCE_AT, this.#own.ipv4Address ?? 0)
    view.setUint32(to + IPV4_DESTINATION_AT, view.getUint32(about + IPV4_SOURCE_AT))
    const ipSum = memory.checksum(to, IPV4_HEADER_BYTES, 0)
    view.setUint16(to + IPV4_CHECKSUM_AT, ~ipSum & 0xffff, true)

    const icmp = to + IPV4_HEADER_BYTES
    bytes[icmp] = type
    bytes[icmp + 1] = code
    view.setUint16(icmp + ICMP_NEXT_HOP_MTU_AT, mtuBytes)
    memory.copy(icmp + ICMP_HEADER_BYTES, about, quoted)
    const sum = memory.checksum(icmp, ICMP_HEADER_BYTES + quoted, 0)
    view.setUint16(icmp + ICMP_CHECKSUM_AT, ~sum & 0xffff, true)
    return total
  }

  #build6(about: number, lengthBytes: number, type: number, mtuBytes: number): number {
    const memory = this.#memory
    const { bytes, view } = memory
    const to = this.at
    const overhead = IPV6_HEADER_BYTES + ICMP_HEADER_BYTES
    const quoted = Math.min(lengthBytes, IPV6_MINIMUM_MTU_BYTES - overhead)
    const icmpBytes = ICMP_HEADER_BYTES + quoted
    bytes.fill(0, to, to + overhead)
    bytes[to] = 0x60
    view.setUint16(to + IPV6_PAYLOAD_LENGTH_AT, icmpBytes)
    bytes[to + IPV6_NEXT_HEADER_AT] = Protocol.icmpv6
    bytes[to + IPV6_HOP_LIMIT_AT] = ANSWER_TTL
    const own = this.#own.ipv6Address
    if (own !== undefined) bytes.set(own, to + IPV6_SOURCE_AT)
    memory.copy(to + IPV6_DESTINATION_AT, about + IPV6_SOURCE_AT, 16)

    const icmp = to + IPV6_HEADER_BYTES
    bytes[icmp] = type
    view.setUint32(icmp + ICMPV6_MTU_AT, mtuBytes)
    memory.copy(icmp + ICMP_HEADER_BYTES, about, quoted)
    const sum = memory.checksum(
      icmp,
      icmpBytes,
      pseudoHeaderSum(memory, to, Protocol.icmpv6, icmpBytes),
    )
    view.setUint16(icmp + ICMP_CHECKSUM_AT, ~sum & 0xffff, true)
    return overhead + quoted
  }
}
