/**
 * The inner packets that an SA may carry: RFC 7296 §2.9, checked on every packet as RFC 4301 §5.2
 * step 4 asks. Ranges are compiled into numbers once, so that a check compares and does not allocate.
 */
import { u16, u32 } from '../core/bytes.ts'

/** One range of one side. */
export interface TrafficSelector {
  /** 0 is any. */
  readonly protocol: number
  /** For ICMP, type * 256 + code (RFC 4301 §4.4.1.1). 65535 to 0 is OPAQUE: no port in sight. */
  readonly startPort: number
  readonly endPort: number
  /** 4 or 16 bytes, both of one length. */
  readonly startAddress: Uint8Array
  readonly endAddress: Uint8Array
}

const lastPort = 0xffff
/** No port: a later fragment, a protocol without ports, or cut short. */
const noPort = -1

/** One after the other: words of start, words of end, protocol and ports of each range. */
type CompiledRanges = readonly number[]

const noRanges: CompiledRanges = []

/** Words of an address, by family. */
const words4 = 1
const words6 = 4

/** Numbers of one range. */
function strideOf(words: number): number {
  return 2 * words + 3
}

function compile(selectors: readonly TrafficSelector[], words: number): CompiledRanges {
  const addressBytes = 4 * words
  const stride = strideOf(words)
  const chosen = selectors.filter(
    selector =>
      selector.startAddress.length === addressBytes && selector.endAddress.length === addressBytes,
  )
  if (chosen.length === 0) return noRanges
  const rows: number[] = new Array(chosen.length * stride).fill(0)
  chosen.forEach((selector, row) => {
    const at = row * stride
    for (let i = 0; i < words; i++) {
      rows[at + i] = u32(selector.startAddress, 4 * i)
      rows[at + words + i] = u32(selector.endAddress, 4 * i)
    }
    rows[at + 2 * words] = selector.protocol
    rows[at + 2 * words + 1] = selector.startPort
    rows[at + 2 * words + 2] = selector.endPort
  })
  return rows
}

function isAnyPort(selector: TrafficSelector): boolean {
  return selector.startPort === 0 && selector.endPort === lastPort
}

/** Both sides' selectors of a pair of SAs. */
export class TrafficSelectors {
  readonly #remote4: CompiledRanges
  readonly #local4: CompiledRanges
  readonly #remote6: CompiledRanges
  readonly #local6: CompiledRanges
  /** Whether any range looks further than addresses. */
  readonly #needsPorts: boolean
  /** IPv4 addresses that were allowed last, where nothing but addresses counts. */
  #lastSource = -1
  #lastDestination = -1
  /** Protocol and first four bytes, the ports, of the payload that was allowed last in transport mode. */
  #lastProtocol = -1
  #lastPorts = -1
  #protocol = 0
  #sourcePort = noPort
  #destinationPort = noPort

  /** `remote` is the peer's side, where packets come from; `local` is ours. */
  constructor(remote: readonly TrafficSelector[], local: readonly TrafficSelector[]) {
    this.#remote4 = compile(remote, words4)
    this.#local4 = compile(local, words4)
    this.#remote6 = compile(remote, words6)
    this.#local6 = compile(local, words6)
    this.#needsPorts = [...remote, ...local].some(
      selector => selector.protocol !== 0 || !isAnyPort(selector),
    )
  }

  /** Whether an IP packet, whose header fits in `lengthBytes`, may come out of the inbound SA. */
  allows(bytes: Uint8Array, at: number, lengthBytes: number): boolean {
    const isIpv4 = (bytes[at] ?? 0) >>> 4 === 4
    if (isIpv4 && !this.#needsPorts) return this.#allowsIpv4(bytes, at)
    this.#readIpPorts(bytes, at, lengthBytes, isIpv4)
    return isIpv4
      ? this.#allows4(this.#remote4, this.#local4, bytes, at)
      : this.#allows6(this.#remote6, this.#local6, bytes, at)
  }

  /** Whether it may go into the outbound SA. */
  allowsOut(bytes: Uint8Array, at: number, lengthBytes: number): boolean {
    const isIpv4 = (bytes[at] ?? 0) >>> 4 === 4
    this.#readIpPorts(bytes, at, lengthBytes, isIpv4)
    return isIpv4
      ? this.#allows4(this.#local4, this.#remote4, bytes, at)
      : this.#allows6(this.#local6, this.#remote6, bytes, at)
  }

  /**
   * Whether a payload of transport mode fits: its addresses are those of the outer header, which a
   * NAT may have changed, so protocol and ports alone are compared (RFC 3948 §3.1).
   */
  allowsTransport(protocol: number, bytes: Uint8Array, at: number, lengthBytes: number): boolean {
    if (lengthBytes < 4) return this.#allowsPorts(protocol, bytes, at, lengthBytes)
    const ports = u32(bytes, at)
    if (ports === this.#lastPorts && protocol === this.#lastProtocol) return true
    if (!this.#allowsPorts(protocol, bytes, at, lengthBytes)) return false
    this.#lastProtocol = protocol
    this.#lastPorts = ports
    return true
  }

  #allowsPorts(protocol: number, bytes: Uint8Array, at: number, lengthBytes: number): boolean {
    this.#protocol = protocol
    this.#readPorts(protocol, bytes, at, at + lengthBytes)
    return (
      (this.#hasPort(this.#remote4, words4, this.#sourcePort) ||
        this.#hasPort(this.#remote6, words6, this.#sourcePort)) &&
      (this.#hasPort(this.#local4, words4, this.#destinationPort) ||
        this.#hasPort(this.#local6, words6, this.#destinationPort))
    )
  }

  /** Packets that follow one another mostly have the same addresses. */
  #allowsIpv4(bytes: Uint8Array, at: number): boolean {
    const source = u32(bytes, at + 12)
    const destination = u32(bytes, at + 16)
    if (source === this.#lastSource && destination === this.#lastDestination) return true
    if (!this.#allows4(this.#remote4, this.#local4, bytes, at)) return false
    this.#lastSource = source
    this.#lastDestination = destination
    return true
  }

  #allows4(from: CompiledRanges, to: CompiledRanges, bytes: Uint8Array, at: number): boolean {
    return (
      this.#matches(from, words4, bytes, at + 12, this.#sourcePort) &&
      this.#matches(to, words4, bytes, at + 16, this.#destinationPort)
    )
  }

  #allows6(from: CompiledRanges, to: CompiledRanges, bytes: Uint8Array, at: number): boolean {
    return (
      this.#matches(from, words6, bytes, at + 8, this.#sourcePort) &&
      this.#matches(to, words6, bytes, at + 24, this.#destinationPort)
    )
  }

  #matches(
    ranges: CompiledRanges,
    words: number,
    bytes: Uint8Array,
    addressAt: number,
    port: number,
  ): boolean {
    for (let from = 0; from < ranges.length; from += strideOf(words)) {
      if (
        holdsAddress(ranges, from, words, bytes, addressAt) &&
        this.#holdsPort(ranges, from + 2 * words, port)
      ) {
        return true
      }
    }
    return false
  }

  #hasPort(ranges: CompiledRanges, words: number, port: number): boolean {
    for (let from = 0; from < ranges.length; from += strideOf(words)) {
      if (this.#holdsPort(ranges, from + 2 * words, port)) return true
    }
    return false
  }

  #holdsPort(ranges: CompiledRanges, at: number, port: number): boolean {
    if (!this.#needsPorts) return true
    const protocol = ranges[at] ?? 0
    if (protocol !== 0 && protocol !== this.#protocol) return false
    const start = ranges[at + 1] ?? 0
    const end = ranges[at + 2] ?? 0
    if (start === 0 && end === lastPort) return true
    // RFC 4301 §4.4.1.1: OPAQUE fits exactly what has no port.
    return port === noPort ? start > end : port >= start && port <= end
  }

  #readIpPorts(bytes: Uint8Array, at: number, lengthBytes: number, isIpv4: boolean): void {
    if (!this.#needsPorts) return
    if (isIpv4) this.#readIpv4Ports(bytes, at, lengthBytes)
    else this.#readIpv6Ports(bytes, at, lengthBytes)
  }

  #readIpv4Ports(bytes: Uint8Array, at: number, lengthBytes: number): void {
    const headerBytes = ((bytes[at] ?? 0) & 15) * 4
    this.#protocol = bytes[at + 9] ?? 0
    const isLaterFragment = (u16(bytes, at + 6) & 0x1fff) !== 0
    const end = isLaterFragment ? at : at + lengthBytes
    this.#readPorts(this.#protocol, bytes, at + headerBytes, end)
  }

  #readIpv6Ports(bytes: Uint8Array, at: number, lengthBytes: number): void {
    const end = at + lengthBytes
    let next = bytes[at + 6] ?? 0
    let headerAt = at + 40
    // RFC 8200 §4: every extension header is at least 8 bytes, so this ends.
    while (isExtensionHeader(next) && headerAt + 8 <= end) {
      const isLaterFragment = next === ipv6Fragment && u16(bytes, headerAt + 2) >>> 3 !== 0
      const headerBytes = extensionBytes(next, bytes[headerAt + 1] ?? 0)
      next = bytes[headerAt] ?? 0
      headerAt = isLaterFragment ? end : headerAt + headerBytes
      if (isLaterFragment) break
    }
    this.#protocol = next
    this.#readPorts(next, bytes, headerAt, end)
  }

  #readPorts(protocol: number, bytes: Uint8Array, at: number, end: number): void {
    this.#sourcePort = noPort
    this.#destinationPort = noPort
    switch (protocol) {
      case 6:
      case 17:
      case 33:
      case 132:
      case 136:
        if (at + 4 > end) return
        this.#sourcePort = u16(bytes, at)
        this.#destinationPort = u16(bytes, at + 2)
        return
      case 1:
      case 58:
        if (at + 2 > end) return
        this.#sourcePort = u16(bytes, at)
        this.#destinationPort = u16(bytes, at)
        return
      default:
    }
  }
}

function holdsAddress(
  ranges: CompiledRanges,
  from: number,
  words: number,
  bytes: Uint8Array,
  at: number,
): boolean {
  let isAboveStart = false
  let isBelowEnd = false
  for (let i = 0; i < words; i++) {
    const word = u32(bytes, at + 4 * i)
    const start = ranges[from + i] ?? 0
    const end = ranges[from + words + i] ?? 0
    if (!isAboveStart && word < start) return false
    if (!isBelowEnd && word > end) return false
    if (word > start) isAboveStart = true
    if (word < end) isBelowEnd = true
  }
  return true
}

const ipv6Fragment = 44
const ipv6Authentication = 51

function isExtensionHeader(next: number): boolean {
  return (
    next === 0 || next === 43 || next === 60 || next === ipv6Fragment || next === ipv6Authentication
  )
}

/** Length of an extension header, bytes, at least 8: RFC 8200 §4.3 to §4.6, RFC 4302 §2.2. */
function extensionBytes(header: number, lengthField: number): number {
  if (header === ipv6Fragment) return 8
  return header === ipv6Authentication ? Math.max(8, (lengthField + 2) * 4) : (lengthField + 1) * 8
}
