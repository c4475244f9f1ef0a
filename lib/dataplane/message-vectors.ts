/**
 * Arrays of `struct mmsghdr` in pinned memory, each with its iovec, address and control buffer, built
 * once; per message only lengths and offsets are patched. recvmmsg(2), cmsg(3), x86-64 and arm64.
 *
 *   mmsghdr: name ptr, namelen u32 (8) | iov ptr, iovlen (16) | control ptr, controllen (32) |
 *            flags i32 (48), len u32 (56)
 */
import type { PinnedMemory } from './dataplane.ts'
import { SOCKET_ADDRESS_BYTES, type SocketAddress } from './socket-address.ts'

const MESSAGE_BYTES = 64
const NAME_SPACE_BYTES = 32
const IOVEC_BYTES = 16
/** Holds the longest that we ask for: in6_pktinfo (40) and the segment size (24). */
const CONTROL_SPACE_BYTES = 96

const NAME_LENGTH_AT = 8
const IOVEC_AT = 16
const IOVEC_COUNT_AT = 24
const CONTROL_AT = 32
const CONTROL_LENGTH_AT = 40
const RESULT_LENGTH_AT = 56

const CONTROL_HEADER_BYTES = 16
const SOL_IP = 0
const SOL_IPV6 = 41
const SOL_UDP = 17
const IP_PKTINFO = 8
const IPV6_PKTINFO = 50
const UDP_SEGMENT = 103
const UDP_GRO = 104

const TWO_TO_32 = 4_294_967_296

export class MessageVectors {
  readonly count: number
  readonly #memory: PinnedMemory
  readonly #messagesAt: number
  readonly #namesAt: number
  readonly #vectorsAt: number
  readonly #controlsAt: number

  constructor(memory: PinnedMemory, count: number) {
    this.count = count
    this.#memory = memory
    this.#messagesAt = memory.allocate(MESSAGE_BYTES * count)
    this.#namesAt = memory.allocate(NAME_SPACE_BYTES * count)
    this.#vectorsAt = memory.allocate(IOVEC_BYTES * count)
    this.#controlsAt = memory.allocate(CONTROL_SPACE_BYTES * count)
    memory.bytes.fill(0, this.#messagesAt, this.#messagesAt + MESSAGE_BYTES * count)
    for (let i = 0; i < count; i++) {
      const at = this.#at(i)
      this.#putPointer(at, this.#namesAt + NAME_SPACE_BYTES * i)
      this.#putPointer(at + IOVEC_AT, this.#vectorsAt + IOVEC_BYTES * i)
      memory.view.setUint32(at + IOVEC_COUNT_AT, 1, true)
      this.#putPointer(at + CONTROL_AT, this.#controlsAt + CONTROL_SPACE_BYTES * i)
      this.setData(i, 0, 0)
    }
  }

  /** Native address of message `i`. */
  addressOf(i: number): number {
    return this.#memory.address + this.#at(i)
  }

  setData(i: number, at: number, lengthBytes: number): void {
    const vectorAt = this.#vectorsAt + IOVEC_BYTES * i
    this.#putPointer(vectorAt, at)
    this.#memory.view.setUint32(vectorAt + 8, lengthBytes, true)
    this.#memory.view.setUint32(vectorAt + 12, 0, true)
  }

  /** `msg_namelen` and `msg_controllen` are in and out: before each reception. */
  prepareReceive(i: number): void {
    const { view } = this.#memory
    view.setUint32(this.#at(i) + NAME_LENGTH_AT, SOCKET_ADDRESS_BYTES, true)
    view.setUint32(this.#at(i) + CONTROL_LENGTH_AT, CONTROL_SPACE_BYTES, true)
  }

  receivedBytes(i: number): number {
    return this.#memory.view.getUint32(this.#at(i) + RESULT_LENGTH_AT, true)
  }

  takePeer(i: number, peer: SocketAddress): void {
    peer.take(this.#memory, this.#namesAt + NAME_SPACE_BYTES * i)
  }

  /**
   * Reads what the kernel says beside message `i`: its destination into `local`, when it says so, and
   * the length of the datagrams that it is made of; 0 when it is one.
   */
  takeControl(i: number, local: SocketAddress): number {
    const { view } = this.#memory
    let at = this.#controlsAt + CONTROL_SPACE_BYTES * i
    const end = at + view.getUint32(this.#at(i) + CONTROL_LENGTH_AT, true)
    let segmentBytes = 0
    while (at + CONTROL_HEADER_BYTES <= end) {
      const lengthBytes = view.getUint32(at, true)
      if (lengthBytes < CONTROL_HEADER_BYTES) break
      const level = view.getInt32(at + 8, true)
      const type = view.getInt32(at + 12, true)
      const dataAt = at + CONTROL_HEADER_BYTES
      if (level === SOL_UDP && type === UDP_GRO) segmentBytes = view.getUint32(dataAt, true)
      // struct in_pktinfo: ifindex, spec_dst, addr; struct in6_pktinfo: addr, ifindex
      else if (level === SOL_IP && type === IP_PKTINFO) {
        local.takeAddress(this.#memory, dataAt + 8, 4)
      } else if (level === SOL_IPV6 && type === IPV6_PKTINFO) {
        local.takeAddress(this.#memory, dataAt, 6)
      }
      at += (lengthBytes + 7) & ~7
    }
    return segmentBytes
  }

  /** `segmentBytes` 0: one datagram. `local` undefined: the socket's own address. */
  setRoute(
    i: number,
    peer: SocketAddress,
    local: SocketAddress | undefined,
    segmentBytes: number,
  ): void {
    const { view } = this.#memory
    const nameBytes = peer.put(this.#memory, this.#namesAt + NAME_SPACE_BYTES * i)
    view.setUint32(this.#at(i) + NAME_LENGTH_AT, nameBytes, true)
    const start = this.#controlsAt + CONTROL_SPACE_BYTES * i
    let at = start
    if (local !== undefined) {
      const isIpv4 = local.family === 4
      const dataAt = this.#putControl(
        at,
        isIpv4 ? SOL_IP : SOL_IPV6,
        isIpv4 ? IP_PKTINFO : IPV6_PKTINFO,
        isIpv4 ? 12 : 20,
      )
      view.setUint32(isIpv4 ? dataAt : dataAt + 16, local.scope, true)
      local.putAddress(this.#memory, isIpv4 ? dataAt + 4 : dataAt)
      if (isIpv4) view.setUint32(dataAt + 8, 0)
      at += isIpv4 ? 32 : 40
    }
    if (segmentBytes > 0) {
      view.setUint16(this.#putControl(at, SOL_UDP, UDP_SEGMENT, 2), segmentBytes, true)
      at += 24
    }
    view.setUint32(this.#at(i) + CONTROL_LENGTH_AT, at - start, true)
  }

  #putControl(at: number, level: number, type: number, dataBytes: number): number {
    const { view } = this.#memory
    view.setUint32(at, CONTROL_HEADER_BYTES + dataBytes, true)
    view.setUint32(at + 4, 0, true)
    view.setInt32(at + 8, level, true)
    view.setInt32(at + 12, type, true)
    return at + CONTROL_HEADER_BYTES
  }

  #at(i: number): number {
    return this.#messagesAt + MESSAGE_BYTES * i
  }

  #putPointer(at: number, to: number): void {
    const native = this.#memory.address + to
    this.#memory.view.setUint32(at, native, true)
    this.#memory.view.setUint32(at + 4, Math.floor(native / TWO_TO_32), true)
  }
}
