/**
 * Lowers the Maximum Segment Size that a SYN offers to what fits the tunnel (RFC 9293 §3.7.1), so that
 * TCP never needs path MTU discovery to get through it.
 */
import { swap16, updatedChecksum } from './checksum.ts'
import { ipVersion, transportOffset } from './ip-packet.ts'
import type { PacketMemory } from './pinned-memory.ts'
import {
  IPV4_HEADER_BYTES,
  IPV6_HEADER_BYTES,
  Protocol,
  TCP_CHECKSUM_AT,
  TCP_DATA_OFFSET_AT,
  TCP_FLAGS_AT,
  TCP_HEADER_BYTES,
  TCP_SYN,
} from './wire/headers.ts'

const OPTION_END = 0
const OPTION_NOP = 1
const OPTION_MSS = 2
const MSS_OPTION_BYTES = 4
/** RFC 9293 §3.7.1: what a peer assumes without the option; nothing is gained below it. */
const MINIMUM_MSS_BYTES = 536

/**
 * Clamps the packet at `at` for a tunnel of `mtuBytes`; true when it was changed. A complete checksum
 * is brought up to date; with `isChecksumPartial` the sum is still to be made and covers the change.
 */
export function clampMss(
  memory: PacketMemory,
  at: number,
  lengthBytes: number,
  mtuBytes: number,
  isChecksumPartial: boolean,
): boolean {
  const tcp = transportOffset(memory, at, Protocol.tcp)
  if (tcp === 0 || tcp + TCP_HEADER_BYTES > lengthBytes) return false
  const { bytes, view } = memory
  const tcpAt = at + tcp
  if (((bytes[tcpAt + TCP_FLAGS_AT] ?? 0) & TCP_SYN) === 0) return false
  const end = Math.min(
    tcpAt + ((bytes[tcpAt + TCP_DATA_OFFSET_AT] ?? 0) >>> 4) * 4,
    at + lengthBytes,
  )
  const ipBytes = ipVersion(bytes, at) === 4 ? IPV4_HEADER_BYTES : IPV6_HEADER_BYTES
  const limit = Math.max(mtuBytes - ipBytes - TCP_HEADER_BYTES, MINIMUM_MSS_BYTES)

  let option = tcpAt + TCP_HEADER_BYTES
  while (option + 1 < end) {
    const kind = bytes[option] ?? OPTION_END
    if (kind === OPTION_END) return false
    if (kind === OPTION_NOP) {
      option++
      continue
    }
    const optionBytes = bytes[option + 1] ?? 0
    if (optionBytes < 2 || option + optionBytes > end) return false
    if (kind === OPTION_MSS && optionBytes === MSS_OPTION_BYTES) {
      const offered = view.getUint16(option + 2)
      if (offered <= limit) return false
      view.setUint16(option + 2, limit)
      if (!isChecksumPartial) {
        // The sum runs over 16-bit words from the TCP header; an option may straddle two of them.
        const isStraddling = ((option + 2 - tcpAt) & 1) !== 0
        const oldWord = isStraddling ? swap16(offered) : offered
        const newWord = isStraddling ? swap16(limit) : limit
        const checksum = view.getUint16(tcpAt + TCP_CHECKSUM_AT)
        view.setUint16(tcpAt + TCP_CHECKSUM_AT, updatedChecksum(checksum, oldWord, newWord))
      }
      return true
    }
    option += optionBytes
  }
  return false
}
