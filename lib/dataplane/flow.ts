/** One flow while its packets are being joined: the first of them, whose headers become everybody's, and the frame. */
import { Frame } from './frame.ts'
import type { PacketMemory } from './pinned-memory.ts'
import {
  IPV4_DESTINATION_AT,
  IPV4_FRAGMENT_AT,
  IPV4_HEADER_BYTES,
  IPV4_SOURCE_AT,
  IPV4_TOS_AT,
  IPV4_TTL_AT,
  IPV6_HOP_LIMIT_AT,
  IPV6_SOURCE_AT,
} from './wire/headers.ts'

export class Flow {
  readonly frame = new Frame()
  /** Whether it stands in the table; if not, nothing else here means anything. */
  isOpen = false
  /** Where the first packet stands. */
  headAt = 0
  /** Of its IP header, which is IPv4's or IPv6's by that. */
  ipBytes = 0
  protocol = 0
  /** Of all headers. */
  headerBytes = 0
  /** Payload of each packet but the last. */
  segmentBytes = 0
  /** TCP: that of the next packet, as a signed number. */
  nextSequence = 0

  /** Begins with the packet at `at`. */
  begin(
    at: number,
    lengthBytes: number,
    ipBytes: number,
    headerBytes: number,
    protocol: number,
  ): void {
    this.frame.setPacket(at, lengthBytes)
    this.isOpen = true
    this.headAt = at
    this.ipBytes = ipBytes
    this.protocol = protocol
    this.headerBytes = headerBytes
    this.segmentBytes = lengthBytes - headerBytes
  }

  /** Whether the packet at `at` has its addresses and ports; they stand one behind the other in both families. */
  owns({ view }: PacketMemory, at: number, ipBytes: number, protocol: number): boolean {
    if (this.ipBytes !== ipBytes || this.protocol !== protocol) return false
    const head = this.headAt
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

  /** What must be equal beside the addresses: service, fragment flags, TTL; flow label, hop limit. */
  hasIpHeaderOf({ bytes, view }: PacketMemory, at: number): boolean {
    const head = this.headAt
    if (this.ipBytes === IPV4_HEADER_BYTES) {
      return (
        bytes[head + IPV4_TOS_AT] === bytes[at + IPV4_TOS_AT] &&
        bytes[head + IPV4_TTL_AT] === bytes[at + IPV4_TTL_AT] &&
        view.getUint16(head + IPV4_FRAGMENT_AT) === view.getUint16(at + IPV4_FRAGMENT_AT)
      )
    }
    return (
      view.getUint32(head) === view.getUint32(at) &&
      bytes[head + IPV6_HOP_LIMIT_AT] === bytes[at + IPV6_HOP_LIMIT_AT]
    )
  }
}
