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

/** Columns of a compiled range: words of start, words of end, then protocol and ports. */
interface CompiledRanges {
  readonly words: number
  readonly rows: readonly number[]
  readonly count: number
  readonly stride: number
}

const noRanges4: CompiledRanges = { words: 1, rows: [], count: 0, stride: 5 }
const noRanges6: CompiledRanges = { words: 4, rows: [], count: 0, stride: 11 }

function compile(selectors: readonly TrafficSelector[], addressBytes: number): CompiledRanges {
  const words = addressBytes / 4
  const stride = 2 * words + 3
  const chosen = selectors.filter(
    selector =>
      selector.startAddress.length === addressBytes && selector.endAddress.length === addressBytes,
  )
  if (chosen.length === 0) return addressBytes === 4 ? noRanges4 : noRanges6
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
  return { words, rows, count: chosen.length, stride }
}

function isAnyPort(selector: TrafficSelector): boolean {
  return selector.startPort === 0 && selector.endPort === lastPort
}

/** Both sides' selectors of an SA, seen from the receiver of packets. */
export class TrafficSelectors {
  readonly #sources4: CompiledRanges
  readonly #destinations4: CompiledRanges
  readonly #sources6: CompiledRanges
  readonly #destinations6: CompiledRanges
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
    this.#sources4 = compile(remote, 4)
    this.#destinations4 = compile(local, 4)
    this.#sources6 = compile(remote, 16)
    this.#destinations6 = compile(local, 16)
    this.#needsPorts = [...remote, ...local].some(
      selector => selector.protocol !== 0 || !isAnyPort(selector),
    )
  }

  /** Whether an IP packet, whose header fits in `lengthBytes`, may come out of the SA. */
  allows(bytes: Uint8Array, at: number, lengthBytes: number): boolean {
    const isIpv4 = (bytes[at] ?? 0) >>> 4 === 4
    if (isIpv4 && !this.#needsPorts) return this.#allowsIpv4(bytes, at)
    if (this.#needsPorts) {
      if (isIpv4) this.#readIpv4Ports(bytes, at, lengthBytes)
      else this.#readIpv6Ports(bytes, at, lengthBytes)
    }
    return isIpv4
      ? this.#matches(this.#sources4, bytes, at + 12, this.#sourcePort) &&
          this.#matches(this.#destinations4, bytes, at + 16, this.#destinationPort)
      : this.#matches(this.#sources6, bytes, at + 8, this.#sourcePort) &&
          this.#matches(this.#destinations6, bytes, at + 24, this.#destinationPort)
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
      (this.#hasPort(this.#sources4, this.#sourcePort) ||
        this.#hasPort(this.#sources6, this.#sourcePort)) &&
      (this.#hasPort(this.#destinations4, this.#destinationPort) ||
        this.#hasPort(this.#destinations6, this.#destinationPort))
    )
  }

  /** Packets that follow one another mostly have the same addresses. */
  #allowsIpv4(bytes: Uint8Array, at: number): boolean {
    const source = u32(bytes, at + 12)
    const destination = u32(bytes, at + 16)
    if (source === this.#lastSource && destination === this.#lastDestination) return true
    if (
      !this.#matches(this.#sources4, bytes, at + 12, noPort) ||
      !this.#matches(this.#destinations4, bytes, at + 16, noPort)
    ) {
      return false
    }
    this.#lastSource = source
    this.#lastDestination = destination
    return true
  }

  #matches(ranges: CompiledRanges, bytes: Uint8Array, addressAt: number, port: number): boolean {
    for (let row = 0; row < ranges.count; row++) {
      if (this.#holdsAddress(ranges, row, bytes, addressAt) && this.#holdsPort(ranges, row, port)) {
        return true
      }
    }
    return false
  }

  #hasPort(ranges: CompiledRanges, port: number): boolean {
    for (let row = 0; row < ranges.count; row++) if (this.#holdsPort(ranges, row, port)) return true
    return false
  }

  #holdsAddress(ranges: CompiledRanges, row: number, bytes: Uint8Array, at: number): boolean {
    const { rows, words } = ranges
    const from = row * ranges.stride
    let isAboveStart = false
    let isBelowEnd = false
    for (let i = 0; i < words; i++) {
      const word = u32(bytes, at + 4 * i)
      const start = rows[from + i] ?? 0
      const end = rows[from + words + i] ?? 0
      if (!isAboveStart && word < start) return false
      if (!isBelowEnd && word > end) return false
      if (word > start) isAboveStart = true
      if (word < end) isBelowEnd = true
    }
    return true
  }

  #holdsPort(ranges: CompiledRanges, row: number, port: number): boolean {
    if (!this.#needsPorts) return true
    const at = row * ranges.stride + 2 * ranges.words
    const protocol = ranges.rows[at] ?? 0
    if (protocol !== 0 && protocol !== this.#protocol) return false
    const start = ranges.rows[at + 1] ?? 0
    const end = ranges.rows[at + 2] ?? 0
    if (start === 0 && end === lastPort) return true
    // RFC 4301 §4.4.1.1: OPAQUE fits exactly what has no port.
    return port === noPort ? start > end : port >= start && port <= end
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
