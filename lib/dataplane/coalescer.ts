/**
 * Joins packets of one flow that sessions sent in a burst into super-packets for the host: what
 * generic receive offload does in a kernel, with its rules. Packets of one flow leave in the order in
 * which they came; a packet that does not fit its flow ends the flow's super-packet and follows it.
 */
import { fold16, swap16 } from './checksum.ts'
import type { DeviceOffloads } from './device.ts'
import { Frame, Gso, maxFrameBytes, maxPieces } from './frame.ts'
import { ipVersion, pseudoHeaderSum } from './ip-packet.ts'
import type { PacketMemory } from './pinned-memory.ts'
import { Count, type Tally } from './tally.ts'
import {
  IPV4_CHECKSUM_AT,
  IPV4_DESTINATION_AT,
  IPV4_FRAGMENT_AT,
  IPV4_FRAGMENT_OFFSET_MASK,
  IPV4_HEADER_BYTES,
  IPV4_MORE_FRAGMENTS,
  IPV4_PROTOCOL_AT,
  IPV4_SOURCE_AT,
  IPV4_TOS_AT,
  IPV4_TOTAL_LENGTH_AT,
  IPV4_TTL_AT,
  IPV6_HEADER_BYTES,
  IPV6_HOP_LIMIT_AT,
  IPV6_NEXT_HEADER_AT,
  IPV6_PAYLOAD_LENGTH_AT,
  IPV6_SOURCE_AT,
  Protocol,
  TCP_ACK,
  TCP_ACKNOWLEDGMENT_AT,
  TCP_CHECKSUM_AT,
  TCP_DATA_OFFSET_AT,
  TCP_ECE,
  TCP_FLAGS_AT,
  TCP_HEADER_BYTES,
  TCP_PSH,
  TCP_SEQUENCE_AT,
  TCP_WINDOW_AT,
  UDP_CHECKSUM_AT,
  UDP_HEADER_BYTES,
  UDP_LENGTH_AT,
} from './wire/headers.ts'

/** Flows that are collected at once; a linear search through so few is quicker than a hash table. */
const MAX_FLOWS = 16
/** UDP_MAX_SEGMENTS of older kernels. */
const MAX_DATAGRAMS = 64
/** What folds to all ones adds up to zero (RFC 1071). */
const goodSum = 0xffff
/** A flag outside these ends what is being joined. */
const JOINABLE_FLAGS = TCP_ACK | TCP_PSH | TCP_ECE

const coalescedPackets = Count['coalesced-packets']

/** Where finished frames go. */
export interface FrameWriter {
  writeFrame(frame: Frame): void
}

export class Coalescer {
  readonly #memory: PacketMemory
  readonly #writer: FrameWriter
  readonly #tally: Tally
  readonly #joinsTcp4: boolean
  readonly #joinsTcp6: boolean
  readonly #joinsUdp: boolean
  readonly #single = new Frame()

  // One row per flow; rows 0 .. #flowCount - 1 are in use, in no order.
  #flowCount = 0
  readonly #frames: readonly Frame[] = Array.from({ length: MAX_FLOWS }, () => new Frame())
  readonly #hash = new Int32Array(MAX_FLOWS)
  readonly #headAt = new Int32Array(MAX_FLOWS)
  readonly #transport = new Int32Array(MAX_FLOWS)
  readonly #protocol = new Int32Array(MAX_FLOWS)
  readonly #headerBytes = new Int32Array(MAX_FLOWS)
  readonly #segmentBytes = new Int32Array(MAX_FLOWS)
  readonly #nextSequence = new Uint32Array(MAX_FLOWS)
  /** Where the packet before went; it may be out of use. */
  #lastRow = 0
  /** The row that gives way when the table is full. */
  #victim = 0

  constructor(memory: PacketMemory, offloads: DeviceOffloads, writer: FrameWriter, tally: Tally) {
    this.#memory = memory
    this.#writer = writer
    this.#tally = tally
    this.#joinsTcp4 = offloads.tso4
    this.#joinsTcp6 = offloads.tso6
    this.#joinsUdp = offloads.uso
  }

  /**
   * Takes the IP packet at `at`, whose header was checked for length and whose bytes stay until
   * `flush`.
   */
  add(at: number, lengthBytes: number): void {
    const { bytes, view } = this.#memory
    if (ipVersion(bytes, at) === 4) {
      const fragment = view.getUint16(at + IPV4_FRAGMENT_AT)
      if ((fragment & (IPV4_FRAGMENT_OFFSET_MASK | IPV4_MORE_FRAGMENTS)) !== 0) {
        // Its flow is unknown: keep the order of them all.
        this.flush()
        this.#writeSingle(at, lengthBytes)
        return
      }
      if (bytes[at] !== 0x45) {
        this.flush()
        this.#writeSingle(at, lengthBytes)
        return
      }
      const protocol = bytes[at + IPV4_PROTOCOL_AT]
      if (protocol === Protocol.tcp && this.#joinsTcp4) {
        this.#addTcp(at, lengthBytes, IPV4_HEADER_BYTES)
      } else if (protocol === Protocol.udp && this.#joinsUdp) {
        this.#addUdp(at, lengthBytes, IPV4_HEADER_BYTES)
      } else {
        this.#writeSingle(at, lengthBytes)
      }
      return
    }
    const protocol = bytes[at + IPV6_NEXT_HEADER_AT]
    if (protocol === Protocol.tcp && this.#joinsTcp6) {
      this.#addTcp(at, lengthBytes, IPV6_HEADER_BYTES)
    } else if (protocol === Protocol.udp && this.#joinsUdp) {
      this.#addUdp(at, lengthBytes, IPV6_HEADER_BYTES)
    } else {
      if (protocol === Protocol['ipv6-fragment']) this.flush()
      this.#writeSingle(at, lengthBytes)
    }
  }

  /** Writes everything that is being joined. */
  flush(): void {
    for (let row = 0; row < this.#flowCount; row++) this.#writeFlow(row)
    this.#flowCount = 0
    this.#victim = 0
  }

  #addTcp(at: number, lengthBytes: number, ipBytes: number): void {
    const memory = this.#memory
    const { bytes, view } = memory
    const tcpAt = at + ipBytes
    const tcpBytes = ((bytes[tcpAt + TCP_DATA_OFFSET_AT] ?? 0) >>> 4) * 4
    const headerBytes = ipBytes + tcpBytes
    if (
      ipBytes + TCP_HEADER_BYTES > lengthBytes ||
      tcpBytes < TCP_HEADER_BYTES ||
      headerBytes > lengthBytes
    ) {
      this.#writeSingle(at, lengthBytes)
      return
    }
    const row = this.#find(at, ipBytes, Protocol.tcp)
    const payloadBytes = lengthBytes - headerBytes
    const flags = bytes[tcpAt + TCP_FLAGS_AT] ?? 0
    const isJoinable =
      payloadBytes > 0 &&
      (flags & ~JOINABLE_FLAGS) === 0 &&
      (flags & TCP_ACK) !== 0 &&
      this.#isIntact(at, lengthBytes, ipBytes, Protocol.tcp)

    if (row >= 0) {
      if (isJoinable && this.#continuesTcp(row, at, headerBytes, ipBytes, payloadBytes)) {
        const headTcpAt = (this.#headAt[row] ?? 0) + ipBytes
        this.#frame(row).append(at + headerBytes, payloadBytes)
        this.#nextSequence[row] = (this.#nextSequence[row] ?? 0) + payloadBytes
        // The newest word on the window is the one that counts.
        view.setUint16(headTcpAt + TCP_WINDOW_AT, view.getUint16(tcpAt + TCP_WINDOW_AT))
        bytes[headTcpAt + TCP_FLAGS_AT] = (bytes[headTcpAt + TCP_FLAGS_AT] ?? 0) | flags
        if (payloadBytes < (this.#segmentBytes[row] ?? 0) || (flags & TCP_PSH) !== 0) {
          this.#end(row)
        }
        return
      }
      this.#end(row)
    }
    if (!isJoinable || (flags & TCP_PSH) !== 0) {
      this.#writeSingle(at, lengthBytes)
      return
    }
    const fresh = this.#begin(at, lengthBytes, ipBytes, headerBytes, Protocol.tcp)
    this.#nextSequence[fresh] = view.getUint32(tcpAt + TCP_SEQUENCE_AT) + payloadBytes
  }

  #addUdp(at: number, lengthBytes: number, ipBytes: number): void {
    const { view } = this.#memory
    const udpAt = at + ipBytes
    const headerBytes = ipBytes + UDP_HEADER_BYTES
    if (headerBytes > lengthBytes) {
      this.#writeSingle(at, lengthBytes)
      return
    }
    const row = this.#find(at, ipBytes, Protocol.udp)
    const payloadBytes = lengthBytes - headerBytes
    const isJoinable =
      payloadBytes > 0 &&
      view.getUint16(udpAt + UDP_LENGTH_AT) === lengthBytes - ipBytes &&
      view.getUint16(udpAt + UDP_CHECKSUM_AT) !== 0 &&
      this.#isIntact(at, lengthBytes, ipBytes, Protocol.udp)

    if (row >= 0) {
      const frame = this.#frame(row)
      if (
        isJoinable &&
        frame.pieceCount < MAX_DATAGRAMS &&
        payloadBytes <= (this.#segmentBytes[row] ?? 0) &&
        frame.lengthBytes + payloadBytes <= maxFrameBytes &&
        this.#hasSameIpHeader(this.#headAt[row] ?? 0, at, ipBytes)
      ) {
        frame.append(at + headerBytes, payloadBytes)
        if (payloadBytes < (this.#segmentBytes[row] ?? 0)) this.#end(row)
        return
      }
      this.#end(row)
    }
    if (isJoinable) this.#begin(at, lengthBytes, ipBytes, headerBytes, Protocol.udp)
    else this.#writeSingle(at, lengthBytes)
  }

  /** Checksums of both headers hold: joining hides them from the host, so we answer for them. */
  #isIntact(at: number, lengthBytes: number, ipBytes: number, protocol: number): boolean {
    const memory = this.#memory
    const transportBytes = lengthBytes - ipBytes
    const seed = swap16(protocol) + swap16(transportBytes)
    if (ipBytes !== IPV4_HEADER_BYTES) {
      const pseudoHeader = memory.checksum(at + IPV6_SOURCE_AT, 32, seed)
      return memory.checksum(at + ipBytes, transportBytes, pseudoHeader) === goodSum
    }
    // So few bytes are summed faster here than by a call.
    const { view } = memory
    const addresses =
      halves(view.getInt32(at + IPV4_SOURCE_AT, true)) +
      halves(view.getInt32(at + IPV4_DESTINATION_AT, true))
    const others =
      halves(view.getInt32(at, true)) +
      halves(view.getInt32(at + 4, true)) +
      halves(view.getInt32(at + 8, true))
    if (fold16(addresses + others) !== goodSum) return false
    return memory.checksum(at + ipBytes, transportBytes, addresses + seed) === goodSum
  }

  #continuesTcp(
    row: number,
    at: number,
    headerBytes: number,
    ipBytes: number,
    payloadBytes: number,
  ): boolean {
    const { bytes, view } = this.#memory
    const frame = this.#frame(row)
    const head = this.#headAt[row] ?? 0
    const tcpAt = at + ipBytes
    const headTcpAt = head + ipBytes
    if (
      headerBytes !== this.#headerBytes[row] ||
      view.getUint32(tcpAt + TCP_SEQUENCE_AT) !== this.#nextSequence[row] ||
      view.getUint32(tcpAt + TCP_ACKNOWLEDGMENT_AT) !==
        view.getUint32(headTcpAt + TCP_ACKNOWLEDGMENT_AT) ||
      payloadBytes > (this.#segmentBytes[row] ?? 0) ||
      frame.pieceCount >= maxPieces ||
      frame.lengthBytes + payloadBytes > maxFrameBytes ||
      bytes[tcpAt + TCP_DATA_OFFSET_AT] !== bytes[headTcpAt + TCP_DATA_OFFSET_AT] ||
      (((bytes[tcpAt + TCP_FLAGS_AT] ?? 0) ^ (bytes[headTcpAt + TCP_FLAGS_AT] ?? 0)) & ~TCP_PSH) !==
        0 ||
      !this.#hasSameIpHeader(head, at, ipBytes)
    ) {
      return false
    }
    for (let i = ipBytes + TCP_HEADER_BYTES; i < headerBytes; i += 4) {
      if (view.getUint32(at + i) !== view.getUint32(head + i)) return false
    }
    return true
  }

  /** What must be equal beside the addresses: service, fragment flags, TTL; flow label, hop limit. */
  #hasSameIpHeader(a: number, b: number, ipBytes: number): boolean {
    const { bytes, view } = this.#memory
    if (ipBytes === IPV4_HEADER_BYTES) {
      return (
        bytes[a + IPV4_TOS_AT] === bytes[b + IPV4_TOS_AT] &&
        bytes[a + IPV4_TTL_AT] === bytes[b + IPV4_TTL_AT] &&
        view.getUint16(a + IPV4_FRAGMENT_AT) === view.getUint16(b + IPV4_FRAGMENT_AT)
      )
    }
    return (
      view.getUint32(a) === view.getUint32(b) &&
      bytes[a + IPV6_HOP_LIMIT_AT] === bytes[b + IPV6_HOP_LIMIT_AT]
    )
  }

  #hashOf(at: number, ipBytes: number, protocol: number): number {
    const { view } = this.#memory
    let hash = protocol ^ view.getInt32(at + ipBytes)
    const first = at + (ipBytes === IPV4_HEADER_BYTES ? IPV4_SOURCE_AT : IPV6_SOURCE_AT)
    for (let i = first; i < at + ipBytes; i += 4) {
      hash = Math.imul(hash, 0x9e3779b1) ^ view.getInt32(i)
    }
    return hash
  }

  /** Its row, or -1. Neighbours mostly belong together. */
  #find(at: number, ipBytes: number, protocol: number): number {
    const last = this.#lastRow
    if (last < this.#flowCount && this.#isFlow(last, at, ipBytes, protocol)) return last
    const hash = this.#hashOf(at, ipBytes, protocol)
    for (let row = 0; row < this.#flowCount; row++) {
      if (this.#hash[row] === hash && this.#isFlow(row, at, ipBytes, protocol)) {
        this.#lastRow = row
        return row
      }
    }
    return -1
  }

  /** Addresses and ports are equal; they stand one behind the other in both families. */
  #isFlow(row: number, at: number, ipBytes: number, protocol: number): boolean {
    if (this.#transport[row] !== ipBytes || this.#protocol[row] !== protocol) return false
    const { view } = this.#memory
    const head = this.#headAt[row] ?? 0
    if (ipBytes === IPV4_HEADER_BYTES) {
      return (
        view.getInt32(head + IPV4_HEADER_BYTES) === view.getInt32(at + IPV4_HEADER_BYTES) &&
        view.getInt32(head + IPV4_SOURCE_AT) === view.getInt32(at + IPV4_SOURCE_AT) &&
        view.getInt32(head + IPV4_DESTINATION_AT) === view.getInt32(at + IPV4_DESTINATION_AT)
      )
    }
    for (let i = IPV6_SOURCE_AT; i < ipBytes + 4; i += 4) {
      if (view.getInt32(head + i) !== view.getInt32(at + i)) return false
    }
    return true
  }

  #frame(row: number): Frame {
    return this.#frames[row] ?? this.#single
  }

  #begin(
    at: number,
    lengthBytes: number,
    ipBytes: number,
    headerBytes: number,
    protocol: number,
  ): number {
    let row = this.#flowCount
    if (row === MAX_FLOWS) {
      row = this.#victim
      this.#victim = (this.#victim + 1) % MAX_FLOWS
      this.#writeFlow(row)
    } else {
      this.#flowCount++
    }
    this.#frame(row).setPacket(at, lengthBytes)
    this.#hash[row] = this.#hashOf(at, ipBytes, protocol)
    this.#lastRow = row
    this.#headAt[row] = at
    this.#transport[row] = ipBytes
    this.#protocol[row] = protocol
    this.#headerBytes[row] = headerBytes
    this.#segmentBytes[row] = lengthBytes - headerBytes
    return row
  }

  /** Writes a flow and takes its row out of the table. */
  #end(row: number): void {
    this.#writeFlow(row)
    this.#flowCount--
    const last = this.#flowCount
    if (row === last) return
    this.#frame(row).takeFrom(this.#frame(last))
    this.#hash[row] = this.#hash[last] ?? 0
    this.#headAt[row] = this.#headAt[last] ?? 0
    this.#transport[row] = this.#transport[last] ?? 0
    this.#protocol[row] = this.#protocol[last] ?? 0
    this.#headerBytes[row] = this.#headerBytes[last] ?? 0
    this.#segmentBytes[row] = this.#segmentBytes[last] ?? 0
    this.#nextSequence[row] = this.#nextSequence[last] ?? 0
  }

  #writeFlow(row: number): void {
    const frame = this.#frame(row)
    if (frame.pieceCount > 1) {
      this.#tally.count(coalescedPackets, frame.pieceCount - 1)
      this.#describe(row, frame)
    }
    this.#writer.writeFrame(frame)
  }

  /** Makes the headers of the first packet those of the super-packet. */
  #describe(row: number, frame: Frame): void {
    const memory = this.#memory
    const { view } = memory
    const at = this.#headAt[row] ?? 0
    const ipBytes = this.#transport[row] ?? 0
    const protocol = this.#protocol[row] ?? 0
    const isIpv4 = ipBytes === IPV4_HEADER_BYTES
    const transportBytes = frame.lengthBytes - ipBytes
    if (isIpv4) {
      view.setUint16(at + IPV4_TOTAL_LENGTH_AT, frame.lengthBytes)
      view.setUint16(at + IPV4_CHECKSUM_AT, 0)
      view.setUint16(at + IPV4_CHECKSUM_AT, ~memory.checksum(at, ipBytes, 0) & 0xffff, true)
    } else {
      view.setUint16(at + IPV6_PAYLOAD_LENGTH_AT, transportBytes)
    }
    const isTcp = protocol === Protocol.tcp
    const checksumOffset = isTcp ? TCP_CHECKSUM_AT : UDP_CHECKSUM_AT
    if (!isTcp) view.setUint16(at + ipBytes + UDP_LENGTH_AT, transportBytes)
    // The kernel completes it: it wants the sum of the pseudo header, not complemented.
    const sum = pseudoHeaderSum(memory, at, protocol, transportBytes)
    view.setUint16(at + ipBytes + checksumOffset, sum, true)

    frame.gsoType = isTcp ? (isIpv4 ? Gso.tcp4 : Gso.tcp6) : Gso.udp
    frame.segmentBytes = this.#segmentBytes[row] ?? 0
    frame.headerBytes = this.#headerBytes[row] ?? 0
    frame.needsChecksum = true
    frame.checksumStart = ipBytes
    frame.checksumOffset = checksumOffset
  }

  #writeSingle(at: number, lengthBytes: number): void {
    this.#single.setPacket(at, lengthBytes)
    this.#writer.writeFrame(this.#single)
  }
}

/** The sum of the two halves of a word. */
function halves(word: number): number {
  return (word & 0xffff) + (word >>> 16)
}
