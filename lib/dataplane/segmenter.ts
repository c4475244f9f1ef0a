/**
 * Cuts a super-packet from the host into the packets that it stands for, each written once, straight
 * into the place that the tunnel reserved, checksummed in the same pass.
 */
import { noRoom } from '../core/packet-sink.ts'
import { fold16, swap16 } from './checksum.ts'
import { type Frame, Gso } from './frame.ts'
import { ipVersion, ipv4HeaderBytes, pseudoHeaderSum } from './ip-packet.ts'
import type { Outlet } from './outlet.ts'
import type { PacketMemory } from './pinned-memory.ts'
import { Count } from './tally.ts'
import {
  IPV4_CHECKSUM_AT,
  IPV4_ID_AT,
  IPV4_TOTAL_LENGTH_AT,
  IPV6_HEADER_BYTES,
  IPV6_PAYLOAD_LENGTH_AT,
  Protocol,
  TCP_CHECKSUM_AT,
  TCP_CWR,
  TCP_DATA_OFFSET_AT,
  TCP_FIN,
  TCP_FLAGS_AT,
  TCP_HEADER_BYTES,
  TCP_PSH,
  TCP_SEQUENCE_AT,
  UDP_CHECKSUM_AT,
  UDP_HEADER_BYTES,
  UDP_LENGTH_AT,
} from './wire/headers.ts'

const dropBadFrame = Count['drop-bad-frame']

/** On the last segment only (RFC 9293 §3.10.7.4: they speak of the end of the data). */
const LAST_ONLY = TCP_FIN | TCP_PSH

export class Segmenter {
  readonly #memory: PacketMemory

  constructor(memory: PacketMemory) {
    this.#memory = memory
  }

  /**
   * Bytes of the headers that every segment repeats, or 0 when the frame's metadata do not fit its
   * packet.
   */
  headerBytes(frame: Frame): number {
    const { bytes } = this.#memory
    const at = frame.pieceAt[0] ?? 0
    const transport = frame.checksumStart
    const isIpv4 = ipVersion(bytes, at) === 4
    const ipBytes = isIpv4 ? ipv4HeaderBytes(bytes, at) : IPV6_HEADER_BYTES
    if (frame.segmentBytes === 0) return 0
    if (isIpv4 ? transport !== ipBytes || ipBytes < 20 : transport < ipBytes) return 0
    if (frame.gsoType === Gso.udp) {
      const header = transport + UDP_HEADER_BYTES
      return header < frame.lengthBytes ? header : 0
    }
    if (frame.gsoType !== (isIpv4 ? Gso.tcp4 : Gso.tcp6)) return 0
    if (transport + TCP_HEADER_BYTES > frame.lengthBytes) return 0
    const tcpBytes = ((bytes[at + transport + TCP_DATA_OFFSET_AT] ?? 0) >>> 4) * 4
    const header = transport + tcpBytes
    return tcpBytes >= TCP_HEADER_BYTES && header < frame.lengthBytes ? header : 0
  }

  /** How many packets the frame stands for. */
  segmentCount(frame: Frame, headerBytes: number): number {
    return Math.ceil((frame.lengthBytes - headerBytes) / frame.segmentBytes)
  }

  /**
   * Cuts `frame`, whose `headerBytes` the caller got from `headerBytes`, into `outlet`, and stops
   * after `mostPackets`: the caller has counted the others.
   */
  cut(frame: Frame, headerBytes: number, outlet: Outlet, mostPackets: number): void {
    if (headerBytes === 0) outlet.tally.drop(dropBadFrame, 1)
    else if (frame.gsoType === Gso.udp) this.#cutUdp(frame, headerBytes, outlet, mostPackets)
    else this.#cutTcp(frame, headerBytes, outlet, mostPackets)
  }

  #cutTcp(frame: Frame, headerBytes: number, outlet: Outlet, mostPackets: number): void {
    const memory = this.#memory
    const { bytes, view } = memory
    const at = frame.pieceAt[0] ?? 0
    const ipBytes = frame.checksumStart
    const tcpBytes = headerBytes - ipBytes
    const isIpv4 = ipVersion(bytes, at) === 4
    const tcpAt = at + ipBytes
    const sequence = view.getUint32(tcpAt + TCP_SEQUENCE_AT)
    const flags = bytes[tcpAt + TCP_FLAGS_AT] ?? 0
    const firstId = view.getUint16(at + IPV4_ID_AT)

    // The template: headers with zeros where segments differ, so that its sums serve them all.
    view.setUint32(tcpAt + TCP_SEQUENCE_AT, 0)
    bytes[tcpAt + TCP_FLAGS_AT] = 0
    view.setUint16(tcpAt + TCP_CHECKSUM_AT, 0)
    const tcpSum = memory.checksum(tcpAt, tcpBytes, pseudoHeaderSum(memory, at, Protocol.tcp, 0))
    const ipSum = isIpv4 ? this.#blankIpv4(at, ipBytes) : 0

    const payloadBytes = frame.lengthBytes - headerBytes
    const segmentBytes = frame.segmentBytes
    let index = 0
    for (let done = 0; done < payloadBytes && index < mostPackets; done += segmentBytes, index++) {
      const isLast = done + segmentBytes >= payloadBytes
      const length = isLast ? payloadBytes - done : segmentBytes
      const packetBytes = headerBytes + length
      const to = outlet.reserve(packetBytes)
      if (to === noRoom) {
        outlet.dropNoRoom(Math.min(this.segmentCount(frame, headerBytes), mostPackets) - index)
        return
      }
      memory.copy(to, at, headerBytes)
      if (isIpv4) this.#finishIpv4(to, packetBytes, (firstId + index) & 0xffff, ipSum)
      else view.setUint16(to + IPV6_PAYLOAD_LENGTH_AT, packetBytes - IPV6_HEADER_BYTES)

      const toTcp = to + ipBytes
      const segmentSequence = (sequence + done) >>> 0
      let segmentFlags = flags
      if (!isLast) segmentFlags &= ~LAST_ONLY
      if (index > 0) segmentFlags &= ~TCP_CWR
      view.setUint32(toTcp + TCP_SEQUENCE_AT, segmentSequence)
      bytes[toTcp + TCP_FLAGS_AT] = segmentFlags
      const seed =
        tcpSum +
        swap16(segmentSequence >>> 16) +
        swap16(segmentSequence & 0xffff) +
        segmentFlags * 256 +
        swap16(tcpBytes + length)
      const sum = memory.copyChecksum(to + headerBytes, at + headerBytes + done, length, seed)
      view.setUint16(toTcp + TCP_CHECKSUM_AT, ~sum & 0xffff, true)
      outlet.commit(to, packetBytes)
    }
  }

  #cutUdp(frame: Frame, headerBytes: number, outlet: Outlet, mostPackets: number): void {
    const memory = this.#memory
    const { bytes, view } = memory
    const at = frame.pieceAt[0] ?? 0
    const ipBytes = frame.checksumStart
    const isIpv4 = ipVersion(bytes, at) === 4
    const udpAt = at + ipBytes
    const firstId = view.getUint16(at + IPV4_ID_AT)

    view.setUint16(udpAt + UDP_LENGTH_AT, 0)
    view.setUint16(udpAt + UDP_CHECKSUM_AT, 0)
    const udpSum = memory.checksum(
      udpAt,
      UDP_HEADER_BYTES,
      pseudoHeaderSum(memory, at, Protocol.udp, 0),
    )
    const ipSum = isIpv4 ? this.#blankIpv4(at, ipBytes) : 0

    const payloadBytes = frame.lengthBytes - headerBytes
    const segmentBytes = frame.segmentBytes
    let index = 0
    for (let done = 0; done < payloadBytes && index < mostPackets; done += segmentBytes, index++) {
      const length = Math.min(segmentBytes, payloadBytes - done)
      const packetBytes = headerBytes + length
      const to = outlet.reserve(packetBytes)
      if (to === noRoom) {
        outlet.dropNoRoom(Math.min(this.segmentCount(frame, headerBytes), mostPackets) - index)
        return
      }
      memory.copy(to, at, headerBytes)
      if (isIpv4) this.#finishIpv4(to, packetBytes, (firstId + index) & 0xffff, ipSum)
      else view.setUint16(to + IPV6_PAYLOAD_LENGTH_AT, packetBytes - IPV6_HEADER_BYTES)

      const toUdp = to + ipBytes
      const udpBytes = UDP_HEADER_BYTES + length
      view.setUint16(toUdp + UDP_LENGTH_AT, udpBytes)
      // The length counts twice: in the header and in the pseudo header.
      const seed = udpSum + 2 * swap16(udpBytes)
      const sum = memory.copyChecksum(to + headerBytes, at + headerBytes + done, length, seed)
      view.setUint16(toUdp + UDP_CHECKSUM_AT, storedUdpChecksum(sum), true)
      outlet.commit(to, packetBytes)
    }
  }

  /** Clears what differs between segments and returns the sum of the rest. */
  #blankIpv4(at: number, ipBytes: number): number {
    const { view } = this.#memory
    view.setUint16(at + IPV4_TOTAL_LENGTH_AT, 0)
    view.setUint16(at + IPV4_ID_AT, 0)
    view.setUint16(at + IPV4_CHECKSUM_AT, 0)
    return this.#memory.checksum(at, ipBytes, 0)
  }

  #finishIpv4(to: number, packetBytes: number, id: number, ipSum: number): void {
    const { view } = this.#memory
    view.setUint16(to + IPV4_TOTAL_LENGTH_AT, packetBytes)
    view.setUint16(to + IPV4_ID_AT, id)
    const sum = fold16(ipSum + swap16(packetBytes) + swap16(id))
    view.setUint16(to + IPV4_CHECKSUM_AT, ~sum & 0xffff, true)
  }
}

/**
 * Completes the checksum of an ordinary packet for which the host left it undone. False when the
 * frame's metadata point outside the packet.
 */
export function completeChecksum(memory: PacketMemory, frame: Frame): boolean {
  const at = frame.pieceAt[0] ?? 0
  const start = frame.checksumStart
  const field = start + frame.checksumOffset
  if (field + 2 > frame.lengthBytes) return false
  const sum = memory.checksum(at + start, frame.lengthBytes - start, 0)
  const isUdp = frame.checksumOffset === UDP_CHECKSUM_AT
  const stored = isUdp ? storedUdpChecksum(sum) : ~sum & 0xffff
  memory.view.setUint16(at + field, stored, true)
  frame.needsChecksum = false
  return true
}

/** RFC 768: a checksum that comes out as zero is sent as all ones, zero means none. */
function storedUdpChecksum(sum: number): number {
  const checksum = ~sum & 0xffff
  return checksum === 0 ? 0xffff : checksum
}
