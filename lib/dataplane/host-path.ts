/**
 * The way of a packet from the host to a session: one route lookup per frame, then cut, clamped,
 * fragmented or answered.
 */
import { sendFragments } from './fragmenter.ts'
import { type Frame, Gso, maxFrameBytes } from './frame.ts'
import type { IcmpAnswers } from './icmp-answers.ts'
import { ipVersion, ipv4HeaderBytes, isLinkLocal, mayBeFragmented } from './ip-packet.ts'
import { clampMss } from './mss-clamp.ts'
import type { PacketMemory } from './pinned-memory.ts'
import type { RouteTable } from './route-table.ts'
import { completeChecksum, Segmenter } from './segmenter.ts'
import type { SessionPort } from './session-port.ts'
import { Count, type Tally } from './tally.ts'
import {
  IPV4_DESTINATION_AT,
  IPV4_HEADER_BYTES,
  IPV6_DESTINATION_AT,
  IPV6_HEADER_BYTES,
} from './wire/headers.ts'

const mssClamped = Count['mss-clamped']
const dropMalformed = Count['drop-malformed']
const dropNoRoute = Count['drop-no-route']
const dropHostMulticast = Count['drop-host-multicast']
const dropTooBig = Count['drop-too-big']
const dropBadFrame = Count['drop-bad-frame']

/** Takes packets of our own making to the host. */
export interface HostWriter {
  writePacket(at: number, lengthBytes: number): void
}

export interface HostPathParts {
  readonly memory: PacketMemory
  readonly routes: RouteTable<SessionPort>
  readonly answers: IcmpAnswers
  readonly writer: HostWriter
  readonly tally: Tally
}

export class HostPath {
  readonly #memory: PacketMemory
  readonly #routes: RouteTable<SessionPort>
  readonly #answers: IcmpAnswers
  readonly #writer: HostWriter
  readonly #tally: Tally
  readonly #segmenter: Segmenter

  constructor(parts: HostPathParts) {
    this.#memory = parts.memory
    this.#routes = parts.routes
    this.#answers = parts.answers
    this.#writer = parts.writer
    this.#tally = parts.tally
    this.#segmenter = new Segmenter(parts.memory)
  }

  /** Takes one frame of the host; its bytes may be changed. */
  receive(frame: Frame, nowMs: number): void {
    const { bytes, view } = this.#memory
    const at = frame.pieceAt[0] ?? 0
    const length = frame.lengthBytes
    const version = length < IPV4_HEADER_BYTES ? 0 : ipVersion(bytes, at)
    let port: SessionPort | undefined
    if (version === 4) {
      const headerBytes = ipv4HeaderBytes(bytes, at)
      if (headerBytes < IPV4_HEADER_BYTES || headerBytes > length) {
        this.#tally.drop(dropMalformed, 1)
        return
      }
      const destination = view.getUint32(at + IPV4_DESTINATION_AT)
      port = this.#routes.lookupIpv4(destination)
      if (port === undefined) {
        this.#tally.drop(destination >>> 28 >= 0xe ? dropHostMulticast : dropNoRoute, 1)
        return
      }
    } else if (version === 6 && length >= IPV6_HEADER_BYTES) {
      const destinationAt = at + IPV6_DESTINATION_AT
      if (bytes[destinationAt] === 0xff || isLinkLocal(bytes, destinationAt)) {
        this.#tally.drop(dropHostMulticast, 1)
        return
      }
      port = this.#routes.lookupIpv6(bytes, destinationAt)
      if (port === undefined) {
        this.#tally.drop(dropNoRoute, 1)
        return
      }
    } else {
      this.#tally.drop(dropMalformed, 1)
      return
    }
    if (frame.gsoType === Gso.none) {
      const { gate } = port
      if (gate !== undefined && !gate.admitsToClient(at, length, nowMs)) return
      port.lastActiveMs = nowMs
      this.#sendPacket(port, frame, at)
    } else this.#sendSuperPacket(port, frame, at, nowMs)
  }

  #sendPacket(port: SessionPort, frame: Frame, at: number): void {
    const { outlet, tally } = port
    const memory = this.#memory
    const length = frame.lengthBytes
    const { mtuBytes } = outlet
    if (clampMss(memory, at, length, mtuBytes, frame.needsChecksum)) tally.count(mssClamped, 1)
    if (frame.needsChecksum && !completeChecksum(memory, frame)) {
      tally.drop(dropBadFrame, 1)
      return
    }
    if (length <= mtuBytes) outlet.send(at, length)
    else if (mayBeFragmented(memory, at)) sendFragments(memory, at, length, mtuBytes, outlet)
    else this.#answerTooBig(port, at, length, mtuBytes, 1)
  }

  #sendSuperPacket(port: SessionPort, frame: Frame, at: number, nowMs: number): void {
    const { outlet, gate } = port
    const { mtuBytes } = outlet
    const headerBytes = this.#segmenter.headerBytes(frame)
    if (headerBytes === 0) {
      port.tally.drop(dropBadFrame, 1)
      return
    }
    if (headerBytes + frame.segmentBytes > mtuBytes && frame.lengthBytes > mtuBytes) {
      const isTcp = frame.gsoType !== Gso.udp
      const fittingBytes = mtuBytes - headerBytes
      if (isTcp && fittingBytes > 0 && mayBeFragmented(this.#memory, at)) {
        // The host lets us fragment it: smaller segments of the same stream are the better way.
        frame.segmentBytes = fittingBytes
      } else {
        const packets = this.#segmenter.segmentCount(frame, headerBytes)
        this.#answerTooBig(port, at, frame.lengthBytes, mtuBytes, packets)
        return
      }
    }
    if (gate === undefined) {
      port.lastActiveMs = nowMs
      this.#segmenter.cut(frame, headerBytes, outlet, maxFrameBytes)
      return
    }
    const packets = this.#segmenter.segmentCount(frame, headerBytes)
    const admitted = gate.admittedPackets(frame, headerBytes, packets, nowMs)
    if (admitted === 0) return
    port.lastActiveMs = nowMs
    this.#segmenter.cut(frame, headerBytes, outlet, admitted)
  }

  #answerTooBig(
    port: SessionPort,
    at: number,
    lengthBytes: number,
    mtuBytes: number,
    packets: number,
  ): void {
    const answerBytes = this.#answers.tooBig(at, lengthBytes, mtuBytes)
    if (answerBytes > 0) this.#writer.writePacket(this.#answers.at, answerBytes)
    port.tally.drop(dropTooBig, packets)
  }
}
