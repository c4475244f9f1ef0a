/**
 * Joins packets of one flow that sessions sent in a burst into super-packets for the host: what
 * generic receive offload does in a kernel, with its rules. Packets of one flow leave in the order in
 * which they came; a packet that does not fit its flow ends the flow's super-packet and follows it.
 */
import { fold16, swap16 } from './checksum.ts'
import type { DeviceOffloads } from './device.ts'
import { Flow } from './flow.ts'
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
  IPV4_TOTAL_LENGTH_AT,
  IPV6_HEADER_BYTES,
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

/** Flows that are collected at once. */
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

  /** The first `#flowCount` of them are open, in no order. */
  readonly #flows: Flow[] = Array.from({ length: MAX_FLOWS }, () => new Flow())
  #flowCount = 0
  /** That of the packet before; it may be closed. Neighbours mostly belong together. */
  #last: Flow = this.#flows[0] ?? new Flow()
  /** The one that gives way when the table is full. */
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
    const count = this.#flowCount
    this.#flowCount = 0
    this.#victim = 0
    for (let i = 0; i < count; i++) this.#write(this.#flows[i] as Flow)
  }

  #addTcp(at: number, lengthBytes: number, ipBytes: number): void {
    const { bytes, view } = this.#memory
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
    const flow = this.#find(at, ipBytes, Protocol.tcp)
    const payloadBytes = lengthBytes - headerBytes
    const flags = bytes[tcpAt + TCP_FLAGS_AT] ?? 0
    const isJoinable =
      payloadBytes > 0 &&
      (flags & ~JOINABLE_FLAGS) === 0 &&
      (flags & TCP_ACK) !== 0 &&
      this.#isIntact(at, lengthBytes, ipBytes, Protocol.tcp)

    if (flow !== undefined) {
      if (isJoinable && this.#continuesTcp(flow, at, headerBytes, payloadBytes)) {
        const headTcpAt = flow.headAt + ipBytes
        flow.frame.append(at + headerBytes, payloadBytes)
        flow.nextSequence = (flow.nextSequence + payloadBytes) | 0
        // The newest word on the window is the one that counts.
        view.setUint16(headTcpAt + TCP_WINDOW_AT, view.getUint16(tcpAt + TCP_WINDOW_AT))
        if ((flags & TCP_PSH) !== 0) {
          bytes[headTcpAt + TCP_FLAGS_AT] = (bytes[headTcpAt + TCP_FLAGS_AT] ?? 0) | TCP_PSH
          this.#end(flow)
        } else if (payloadBytes < flow.segmentBytes) {
          this.#end(flow)
        }
        return
      }
      this.#end(flow)
    }
    if (!isJoinable || (flags & TCP_PSH) !== 0) {
      this.#writeSingle(at, lengthBytes)
      return
    }
    const fresh = this.#begin(at, lengthBytes, ipBytes, headerBytes, Protocol.tcp)
    fresh.nextSequence = (view.getInt32(tcpAt + TCP_SEQUENCE_AT) + payloadBytes) | 0
  }

  #addUdp(at: number, lengthBytes: number, ipBytes: number): void {
    const memory = this.#memory
    const { view } = memory
    const udpAt = at + ipBytes
    const headerBytes = ipBytes + UDP_HEADER_BYTES
    if (headerBytes > lengthBytes) {
      this.#writeSingle(at, lengthBytes)
      return
    }
    const flow = this.#find(at, ipBytes, Protocol.udp)
    const payloadBytes = lengthBytes - headerBytes
    const isJoinable =
      payloadBytes > 0 &&
      view.getUint16(udpAt + UDP_LENGTH_AT) === lengthBytes - ipBytes &&
      view.getUint16(udpAt + UDP_CHECKSUM_AT) !== 0 &&
      this.#isIntact(at, lengthBytes, ipBytes, Protocol.udp)

    if (flow !== undefined) {
      const { frame, segmentBytes } = flow
      if (
        isJoinable &&
        frame.pieceCount < MAX_DATAGRAMS &&
        payloadBytes <= segmentBytes &&
        frame.lengthBytes + payloadBytes <= maxFrameBytes &&
        flow.hasIpHeaderOf(memory, at)
      ) {
        frame.append(at + headerBytes, payloadBytes)
        if (payloadBytes < segmentBytes) this.#end(flow)
        return
      }
      this.#end(flow)
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

  #continuesTcp(flow: Flow, at: number, headerBytes: number, payloadBytes: number): boolean {
    const memory = this.#memory
    const { view } = memory
    const { frame, headAt, ipBytes } = flow
    const tcpAt = at + ipBytes
    const headTcpAt = headAt + ipBytes
    if (
      headerBytes !== flow.headerBytes ||
      view.getInt32(tcpAt + TCP_SEQUENCE_AT) !== flow.nextSequence ||
      view.getInt32(tcpAt + TCP_ACKNOWLEDGMENT_AT) !==
        view.getInt32(headTcpAt + TCP_ACKNOWLEDGMENT_AT) ||
      payloadBytes > flow.segmentBytes ||
      frame.pieceCount >= maxPieces ||
      frame.lengthBytes + payloadBytes > maxFrameBytes ||
      // Offset, reserved bits and flags; the head has no PSH, or it would not be open.
      ((view.getUint16(tcpAt + TCP_DATA_OFFSET_AT) ^
        view.getUint16(headTcpAt + TCP_DATA_OFFSET_AT)) &
        ~TCP_PSH) !==
        0 ||
      !flow.hasIpHeaderOf(memory, at)
    ) {
      return false
    }
    for (let i = ipBytes + TCP_HEADER_BYTES; i < headerBytes; i += 4) {
      if (view.getInt32(at + i) !== view.getInt32(headAt + i)) return false
    }
    return true
  }

  /** The open flow that a packet belongs to. A linear search through so few is quicker than a hash. */
  #find(at: number, ipBytes: number, protocol: number): Flow | undefined {
    const memory = this.#memory
    const last = this.#last
    if (last.isOpen && last.owns(memory, at, ipBytes, protocol)) return last
    for (let i = 0; i < this.#flowCount; i++) {
      const flow = this.#flows[i] as Flow
      if (flow.owns(memory, at, ipBytes, protocol)) {
        this.#last = flow
        return flow
      }
    }
    return undefined
  }

  #begin(
    at: number,
    lengthBytes: number,
    ipBytes: number,
    headerBytes: number,
    protocol: number,
  ): Flow {
    let index = this.#flowCount
    if (index === MAX_FLOWS) {
      index = this.#victim
      this.#victim = (this.#victim + 1) % MAX_FLOWS
      this.#write(this.#flows[index] as Flow)
    } else {
      this.#flowCount++
    }
    const flow = this.#flows[index] as Flow
    flow.begin(at, lengthBytes, ipBytes, headerBytes, protocol)
    this.#last = flow
    return flow
  }

  /** Writes a flow and takes it out of the table. */
  #end(flow: Flow): void {
    const index = this.#flows.indexOf(flow)
    const lastIndex = --this.#flowCount
    this.#flows[index] = this.#flows[lastIndex] as Flow
    this.#flows[lastIndex] = flow
    this.#write(flow)
  }

  #write(flow: Flow): void {
    flow.isOpen = false
    const { frame } = flow
    if (frame.pieceCount > 1) {
      this.#tally.count(coalescedPackets, frame.pieceCount - 1)
      this.#describe(flow)
    }
    this.#writer.writeFrame(frame)
  }

  /** Makes the headers of the first packet those of the super-packet. */
  #describe(flow: Flow): void {
    const memory = this.#memory
    const { view } = memory
    const { frame, headAt: at, ipBytes, protocol } = flow
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
    frame.segmentBytes = flow.segmentBytes
    frame.headerBytes = flow.headerBytes
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
