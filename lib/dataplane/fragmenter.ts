/** Cuts an IPv4 packet that may be fragmented into fragments that fit a tunnel (RFC 791 §3.2). */
import { noRoom } from '../core/packet-sink.ts'
import { ipv4HeaderBytes } from './ip-packet.ts'
import type { Outlet } from './outlet.ts'
import type { PacketMemory } from './pinned-memory.ts'
import { Count } from './tally.ts'
import {
  IPV4_CHECKSUM_AT,
  IPV4_FRAGMENT_AT,
  IPV4_FRAGMENT_OFFSET_MASK,
  IPV4_HEADER_BYTES,
  IPV4_MORE_FRAGMENTS,
  IPV4_TOTAL_LENGTH_AT,
} from './wire/headers.ts'

const fragmentsMade = Count['fragments-made']
const dropTooBig = Count['drop-too-big']

const OPTION_END = 0
const OPTION_NOP = 1
const OPTION_IS_COPIED = 0x80

/**
 * Sends the packet at `at`, whose checksums are complete and whose header was checked, in fragments
 * of at most `mtuBytes`. Its header is changed on the way.
 */
export function sendFragments(
  memory: PacketMemory,
  at: number,
  lengthBytes: number,
  mtuBytes: number,
  outlet: Outlet,
): void {
  const { bytes, view } = memory
  const headerBytes = ipv4HeaderBytes(bytes, at)
  // Every fragment but the last carries a multiple of 8 bytes.
  const chunkBytes = (mtuBytes - headerBytes) & ~7
  if (chunkBytes <= 0) {
    outlet.tally.drop(dropTooBig, 1)
    return
  }
  const original = view.getUint16(at + IPV4_FRAGMENT_AT)
  const firstUnits = original & IPV4_FRAGMENT_OFFSET_MASK
  const endsOriginal = (original & IPV4_MORE_FRAGMENTS) === 0
  const payloadBytes = lengthBytes - headerBytes
  for (let done = 0; done < payloadBytes; done += chunkBytes) {
    const isLast = done + chunkBytes >= payloadBytes
    const length = isLast ? payloadBytes - done : chunkBytes
    const packetBytes = headerBytes + length
    const to = outlet.reserve(packetBytes)
    if (to === noRoom) {
      // The rest is of no use without this one.
      outlet.dropNoRoom(1)
      return
    }
    memory.copy(to, at, headerBytes)
    memory.copy(to + headerBytes, at + headerBytes + done, length)
    const more = isLast && endsOriginal ? 0 : IPV4_MORE_FRAGMENTS
    view.setUint16(to + IPV4_FRAGMENT_AT, more | (firstUnits + (done >>> 3)))
    view.setUint16(to + IPV4_TOTAL_LENGTH_AT, packetBytes)
    view.setUint16(to + IPV4_CHECKSUM_AT, 0)
    const sum = memory.checksum(to, headerBytes, 0)
    view.setUint16(to + IPV4_CHECKSUM_AT, ~sum & 0xffff, true)
    outlet.commit(to, packetBytes)
    outlet.tally.count(fragmentsMade, 1)
    if (done === 0) blankFirstOnlyOptions(bytes, at, headerBytes)
  }
}

/** Options without the "copied" flag belong to the first fragment only: NOP takes their place. */
function blankFirstOnlyOptions(bytes: Uint8Array, at: number, headerBytes: number): void {
  const end = at + headerBytes
  let option = at + IPV4_HEADER_BYTES
  while (option < end) {
    const kind = bytes[option] ?? OPTION_END
    if (kind === OPTION_END) return
    const optionBytes = kind === OPTION_NOP ? 1 : (bytes[option + 1] ?? 0)
    if (optionBytes === 0 || option + optionBytes > end) return
    if (kind !== OPTION_NOP && (kind & OPTION_IS_COPIED) === 0) {
      bytes.fill(OPTION_NOP, option, option + optionBytes)
    }
    option += optionBytes
  }
}
