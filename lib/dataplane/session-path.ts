/**
 * The way of a packet from a session: checked, then handed to the link, joined with its flow for the
 * host, or sent to another session.
 */
import { updatedChecksum } from './checksum.ts'
import type { Coalescer } from './coalescer.ts'
import { sendFragments } from './fragmenter.ts'
import type { IcmpAnswers, OwnAddresses } from './icmp-answers.ts'
import {
  ipVersion,
  ipv4HeaderBytes,
  isLinkLocal,
  isLoopbackOrUnspecified,
  isUnspecified,
  mayBeFragmented,
  transportOffset,
} from './ip-packet.ts'
import { clampMss } from './mss-clamp.ts'
import type { PacketMemory } from './pinned-memory.ts'
import type { RouteTable } from './route-table.ts'
import type { SessionPort } from './session-port.ts'
import { Count } from './tally.ts'
import {
  DHCP_SERVER_PORT,
  IPV4_CHECKSUM_AT,
  IPV4_DESTINATION_AT,
  IPV4_HEADER_BYTES,
  IPV4_LIMITED_BROADCAST,
  IPV4_SOURCE_AT,
  IPV4_TOTAL_LENGTH_AT,
  IPV4_TTL_AT,
  IPV6_DESTINATION_AT,
  IPV6_HEADER_BYTES,
  IPV6_HOP_LIMIT_AT,
  IPV6_PAYLOAD_LENGTH_AT,
  IPV6_SOURCE_AT,
  Protocol,
  UDP_DESTINATION_PORT_AT,
  UDP_HEADER_BYTES,
} from './wire/headers.ts'

const receivedPackets = Count['received-packets']
const receivedBytes = Count['received-bytes']
const linkPackets = Count['link-packets']
const ipv4Broadcasts = Count['ipv4-broadcasts']
const clientToClientPackets = Count['client-to-client-packets']
const mssClamped = Count['mss-clamped']
const dropMalformed = Count['drop-malformed']
const dropSpoofedSource = Count['drop-spoofed-source']
const dropLinkLocalSource = Count['drop-link-local-source']
const dropBadDestination = Count['drop-bad-destination']
const dropTooBig = Count['drop-too-big']
const dropTtlExpired = Count['drop-ttl-expired']
const dropForbidden = Count['drop-client-to-client-forbidden']
const dropHairpin = Count['drop-hairpin']

export interface SessionPathParts {
  readonly memory: PacketMemory
  readonly routes: RouteTable<SessionPort>
  readonly coalescer: Coalescer
  readonly answers: IcmpAnswers
  readonly own: OwnAddresses
  readonly allowsClientToClient: boolean
  /** Begins a burst if there is none; returns the burst's time, monotonic ms. */
  burstMs(): number
}

export class SessionPath {
  readonly #memory: PacketMemory
  readonly #routes: RouteTable<SessionPort>
  readonly #coalescer: Coalescer
  readonly #answers: IcmpAnswers
  readonly #parts: SessionPathParts
  readonly #ownIpv4: number
  readonly #ownIpv6: Uint8Array | undefined

  constructor(parts: SessionPathParts) {
    this.#memory = parts.memory
    this.#routes = parts.routes
    this.#coalescer = parts.coalescer
    this.#answers = parts.answers
    this.#parts = parts
    this.#ownIpv4 = parts.own.ipv4Address ?? -1
    this.#ownIpv6 = parts.own.ipv6Address
  }

  /** The packet at `at` came from `port`; padding behind it is ignored. */
  receive(port: SessionPort, at: number, lengthBytes: number): void {
    if (!port.isAttached) {
      port.dropDetached()
      return
    }
    const { tally } = port
    tally.count(receivedPackets, 1)
    tally.count(receivedBytes, lengthBytes)
    const nowMs = this.#parts.burstMs()
    const version = lengthBytes < IPV4_HEADER_BYTES ? 0 : ipVersion(this.#memory.bytes, at)
    if (version === 4) this.#receive4(port, at, lengthBytes, nowMs)
    else if (version === 6 && lengthBytes >= IPV6_HEADER_BYTES) {
      this.#receive6(port, at, lengthBytes, nowMs)
    } else tally.drop(dropMalformed, 1)
  }

  #receive4(port: SessionPort, at: number, givenBytes: number, nowMs: number): void {
    const { bytes, view } = this.#memory
    const { tally } = port
    const headerBytes = ipv4HeaderBytes(bytes, at)
    const lengthBytes = view.getUint16(at + IPV4_TOTAL_LENGTH_AT)
    if (headerBytes < IPV4_HEADER_BYTES || lengthBytes < headerBytes || lengthBytes > givenBytes) {
      tally.drop(dropMalformed, 1)
      return
    }
    const source = view.getUint32(at + IPV4_SOURCE_AT)
    const destination = view.getUint32(at + IPV4_DESTINATION_AT)
    if (destination === IPV4_LIMITED_BROADCAST || destination >>> 28 === 0xe) {
      const isDhcp =
        destination === IPV4_LIMITED_BROADCAST && this.#isForDhcpServer(at, lengthBytes)
      // A DHCP client without an address yet says 0.0.0.0 (RFC 2131 §4.1).
      if (!(isDhcp && source === 0) && !this.#isOwnSource4(port, source)) {
        tally.drop(dropSpoofedSource, 1)
        return
      }
      if (!isDhcp) tally.count(ipv4Broadcasts, 1)
      tally.count(linkPackets, 1)
      port.handLinkPacket(at, lengthBytes)
      return
    }
    if (!this.#isOwnSource4(port, source)) {
      tally.drop(dropSpoofedSource, 1)
      return
    }
    const network = destination >>> 24
    if (network === 0 || network === 127 || network >= 240) {
      tally.drop(dropBadDestination, 1)
      return
    }
    const isForUs = destination === this.#ownIpv4
    if (isForUs && this.#isForDhcpServer(at, lengthBytes)) {
      port.lastActiveMs = nowMs
      tally.count(linkPackets, 1)
      port.handLinkPacket(at, lengthBytes)
      return
    }
    const { gate } = port
    if (gate !== undefined && !gate.admitsFromClient(at, lengthBytes, nowMs)) return
    port.lastActiveMs = nowMs
    if (isForUs) {
      this.#toHost(port, at, lengthBytes)
      return
    }
    const owner = this.#routes.lookupIpv4(destination)
    if (owner === undefined) this.#toHost(port, at, lengthBytes)
    else this.#toSession(port, owner, at, lengthBytes, nowMs)
  }

  #receive6(port: SessionPort, at: number, givenBytes: number, nowMs: number): void {
    const { bytes, view } = this.#memory
    const { tally } = port
    const lengthBytes = IPV6_HEADER_BYTES + view.getUint16(at + IPV6_PAYLOAD_LENGTH_AT)
    if (lengthBytes > givenBytes) {
      tally.drop(dropMalformed, 1)
      return
    }
    const sourceAt = at + IPV6_SOURCE_AT
    const destinationAt = at + IPV6_DESTINATION_AT
    const isLinkLocalSource = isLinkLocal(bytes, sourceAt)
    if (bytes[destinationAt] === 0xff || isLinkLocal(bytes, destinationAt)) {
      // The unspecified address asks whether an address is free (RFC 4862 §5.4.2).
      if (
        !isLinkLocalSource &&
        !isUnspecified(view, sourceAt) &&
        this.#routes.lookupIpv6(bytes, sourceAt) !== port
      ) {
        tally.drop(dropSpoofedSource, 1)
        return
      }
      tally.count(linkPackets, 1)
      port.handLinkPacket(at, lengthBytes)
      return
    }
    if (isLinkLocalSource) {
      tally.drop(dropLinkLocalSource, 1)
      return
    }
    if (this.#routes.lookupIpv6(bytes, sourceAt) !== port) {
      tally.drop(dropSpoofedSource, 1)
      return
    }
    if (isLoopbackOrUnspecified(view, destinationAt)) {
      tally.drop(dropBadDestination, 1)
      return
    }
    const { gate } = port
    if (gate !== undefined && !gate.admitsFromClient(at, lengthBytes, nowMs)) return
    port.lastActiveMs = nowMs
    const owner = this.#isOwnAddress6(destinationAt)
      ? undefined
      : this.#routes.lookupIpv6(bytes, destinationAt)
    if (owner === undefined) this.#toHost(port, at, lengthBytes)
    else this.#toSession(port, owner, at, lengthBytes, nowMs)
  }

  #toHost(port: SessionPort, at: number, lengthBytes: number): void {
    if (clampMss(this.#memory, at, lengthBytes, port.outlet.mtuBytes, false)) {
      port.tally.count(mssClamped, 1)
    }
    this.#coalescer.add(at, lengthBytes)
  }

  #toSession(
    from: SessionPort,
    to: SessionPort,
    at: number,
    lengthBytes: number,
    nowMs: number,
  ): void {
    const { tally } = from
    if (to === from) {
      if (from.isUplink) this.#toHost(from, at, lengthBytes)
      else tally.drop(dropHairpin, 1)
      return
    }
    if (!this.#parts.allowsClientToClient) {
      tally.drop(dropForbidden, 1)
      return
    }
    if (to.gate !== undefined && !to.gate.admitsToClient(at, lengthBytes, nowMs)) return
    // We are a router between the two (RFC 1812 §5.3.1, RFC 8200 §3).
    if (!this.#takeHop(at)) {
      const answerBytes = this.#answers.timeExceeded(at, lengthBytes)
      if (answerBytes > 0) from.outlet.send(this.#answers.at, answerBytes)
      tally.drop(dropTtlExpired, 1)
      return
    }
    const memory = this.#memory
    const mtuBytes = to.outlet.mtuBytes
    const smallestMtuBytes = Math.min(mtuBytes, from.outlet.mtuBytes)
    if (clampMss(memory, at, lengthBytes, smallestMtuBytes, false)) {
      tally.count(mssClamped, 1)
    }
    if (lengthBytes > mtuBytes) {
      if (mayBeFragmented(memory, at)) {
        sendFragments(memory, at, lengthBytes, mtuBytes, to.outlet)
        tally.count(clientToClientPackets, 1)
        return
      }
      const answerBytes = this.#answers.tooBig(at, lengthBytes, mtuBytes)
      if (answerBytes > 0) from.outlet.send(this.#answers.at, answerBytes)
      tally.drop(dropTooBig, 1)
      return
    }
    if (to.outlet.send(at, lengthBytes)) tally.count(clientToClientPackets, 1)
  }

  /** Takes one from TTL or hop limit; false when it would reach zero. */
  #takeHop(at: number): boolean {
    const { bytes, view } = this.#memory
    if (ipVersion(bytes, at) === 6) {
      const hopLimit = bytes[at + IPV6_HOP_LIMIT_AT] ?? 0
      if (hopLimit <= 1) return false
      bytes[at + IPV6_HOP_LIMIT_AT] = hopLimit - 1
      return true
    }
    const oldWord = view.getUint16(at + IPV4_TTL_AT)
    if (oldWord < 0x200) return false
    const newWord = oldWord - 0x100
    view.setUint16(at + IPV4_TTL_AT, newWord)
    const checksum = view.getUint16(at + IPV4_CHECKSUM_AT)
    view.setUint16(at + IPV4_CHECKSUM_AT, updatedChecksum(checksum, oldWord, newWord))
    return true
  }

  #isOwnSource4(port: SessionPort, source: number): boolean {
    const { generation } = this.#routes
    if (port.checkedSource === source && port.checkedGeneration === generation) return true
    // Not through the table's memory of the last answer: that one is for destinations.
    if (this.#routes.searchIpv4(source) !== port) return false
    port.checkedSource = source
    port.checkedGeneration = generation
    return true
  }

  #isOwnAddress6(at: number): boolean {
    const own = this.#ownIpv6
    if (own === undefined) return false
    const { bytes } = this.#memory
    for (let i = 0; i < 16; i++) if (bytes[at + i] !== own[i]) return false
    return true
  }

  #isForDhcpServer(at: number, lengthBytes: number): boolean {
    const udp = transportOffset(this.#memory, at, Protocol.udp)
    if (udp === 0 || udp + UDP_HEADER_BYTES > lengthBytes) return false
    return this.#memory.view.getUint16(at + udp + UDP_DESTINATION_PORT_AT) === DHCP_SERVER_PORT
  }
}
