/**
 * L2TP in UDP in ESP in transport mode (RFC 3193): the UDP header is ours to write and to read, since
 * no socket of the kernel ever sees it.
 */
import { putU16, u16 } from '../core/bytes.ts'
import type { Counters } from '../core/faults.ts'
import { noRoom } from '../core/packet-sink.ts'
import { fold16, plainChecksum, swap16 } from '../dataplane/checksum.ts'
import type { PinnedMemory } from '../dataplane/dataplane.ts'
import type { SocketAddress } from '../dataplane/socket-address.ts'
import type { SecuredPeer } from '../ikev1/secured-peer.ts'
import { L2TP_PORT, type L2tpPath } from './l2tp-path.ts'

const UDP_HEADER_BYTES = 8
const UDP_PROTOCOL = 17
const CHECKSUM_AT = 6
/** What folds to all ones adds up to zero (RFC 1071). */
const goodSum = 0xffff

export class EspPath implements L2tpPath {
  readonly isVerified = true
  readonly #peer: SecuredPeer
  readonly #memory: PinnedMemory
  readonly #counters: Counters
  /** UDP without a checksum is dropped by receivers of IPv6 (RFC 8200 §8.1). */
  readonly #needsChecksum: boolean
  /** Addresses that the sums below were made of. */
  #summedFor: readonly Uint8Array[] | undefined
  /** Pseudo header without length, of what we receive; undefined when a NAT hides the addresses. */
  #inboundSum: number | undefined

  constructor(peer: SecuredPeer, memory: PinnedMemory, counters: Counters) {
    this.#peer = peer
    this.#memory = memory
    this.#counters = counters
    this.#needsChecksum = peer.route.peer.family === 6
  }

  get key(): string {
    return this.#peer.key
  }

  get peerAddress(): string {
    return this.#peer.address
  }

  get peerLabel(): string {
    return this.#peer.label
  }

  get largestMessageBytes(): number {
    return this.#peer.esp.mtuBytes - UDP_HEADER_BYTES
  }

  reserve(lengthBytes: number): number {
    const at = this.#peer.esp.reserve(UDP_HEADER_BYTES + lengthBytes)
    return at === noRoom ? noRoom : at + UDP_HEADER_BYTES
  }

  commit(at: number, lengthBytes: number, peerPort: number): void {
    const { bytes } = this.#memory
    const udpAt = at - UDP_HEADER_BYTES
    const udpBytes = lengthBytes + UDP_HEADER_BYTES
    putU16(bytes, udpAt, L2TP_PORT)
    putU16(bytes, udpAt + 2, peerPort)
    putU16(bytes, udpAt + 4, udpBytes)
    putU16(bytes, udpAt + CHECKSUM_AT, 0)
    if (this.#needsChecksum) this.#putChecksum(udpAt, udpBytes)
    this.#peer.esp.commit(udpAt, udpBytes)
  }

  flush(): void {
    this.#peer.esp.flush()
  }

  /**
   * Where the message begins in the UDP packet at `at`, as ESP hands it over: its ports are within
   * the SA, its length within the packet. -1 for one with a wrong checksum, which is counted.
   */
  open(at: number, lengthBytes: number): number {
    const { bytes } = this.#memory
    if (lengthBytes < UDP_HEADER_BYTES) {
      this.#counters.count('udp-truncated')
      return -1
    }
    if (u16(bytes, at + CHECKSUM_AT) !== 0 && !this.#isChecksumGood(at, lengthBytes)) {
      this.#counters.count('udp-bad-checksum')
      return -1
    }
    return at + UDP_HEADER_BYTES
  }

  /** The source port of the packet whose message begins at `messageAt`. */
  portOf(messageAt: number): number {
    return u16(this.#memory.bytes, messageAt - UDP_HEADER_BYTES)
  }

  #isChecksumGood(at: number, lengthBytes: number): boolean {
    const { originalAddresses } = this.#peer
    if (this.#summedFor !== originalAddresses) {
      this.#summedFor = originalAddresses
      this.#inboundSum = this.#sumOfInbound(originalAddresses)
    }
    // RFC 3948 §3.1.2: behind a NAT that said nothing there is nothing to check against; ESP has.
    if (this.#inboundSum === undefined) return true
    const seed = this.#inboundSum + swap16(lengthBytes)
    return this.#memory.checksum(at, lengthBytes, seed) === goodSum
  }

  #sumOfInbound(originalAddresses: readonly Uint8Array[]): number | undefined {
    const { route } = this.#peer
    const [initiator, responder] = originalAddresses
    const protocol = swap16(UDP_PROTOCOL)
    if (initiator !== undefined && responder !== undefined) {
      const first = plainChecksum(initiator, 0, initiator.length, protocol)
      return plainChecksum(responder, 0, responder.length, first)
    }
    return route.port.number === 0 ? routeSum(route.peer, route.local) : undefined
  }

  #putChecksum(udpAt: number, udpBytes: number): void {
    const { peer, local } = this.#peer.route
    const seed = routeSum(local, peer) + swap16(udpBytes)
    const sum = ~this.#memory.checksum(udpAt, udpBytes, seed) & 0xffff
    this.#memory.view.setUint16(udpAt + CHECKSUM_AT, sum === 0 ? 0xffff : sum, true)
  }
}

/** Pseudo header (RFC 8200 §8.1, RFC 768) without length, folded. */
function routeSum(from: SocketAddress, to: SocketAddress): number {
  return fold16(swap16(UDP_PROTOCOL) + from.checksum() + to.checksum())
}
