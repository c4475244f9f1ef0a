/**
 * The head of a PPP frame (RFC 1662 §3.1, RFC 1661 §2) as tunnels carry it: no flags, no FCS.
 *
 * ```
 *  0                   1                   2                   3
 *  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * | Address 0xff  | Control 0x03  | Protocol (8 or 16 bits)       |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * ```
 */
import { putBytes, putU16 } from '../../core/bytes.ts'

const address = 0xff
const control = 0x03

/** What we put before every information field: full address, control and protocol fields. */
export const frameHeaderBytes = 4

/** Protocol numbers (IANA "PPP DLL Protocol Numbers"). */
export const PppProtocol = {
  ipv4: 0x0021,
  vjCompressed: 0x002d,
  vjUncompressed: 0x002f,
  multilink: 0x003d,
  ipv6: 0x0057,
  compressed: 0x00fd,
  ipcp: 0x8021,
  ecp: 0x8053,
  ipv6cp: 0x8057,
  ccp: 0x80fd,
  acscp: 0x8235,
  lcp: 0xc021,
  pap: 0xc023,
  cbcp: 0xc029,
  bacp: 0xc02b,
  bap: 0xc02d,
  chap: 0xc223,
  eap: 0xc227,
} as const

const names = new Map<number, string>(
  Object.entries(PppProtocol).map(([name, number]) => [number, name]),
)

/** A name for people: `ipcp`, or `0x8235` for what we do not know. */
export function protocolName(protocol: number): string {
  return names.get(protocol) ?? `0x${protocol.toString(16).padStart(4, '0')}`
}

/**
 * Finds the information field of the frame at `at`, with or without address and control field, with
 * a protocol field of one or two bytes. Returns `headerBytes << 16 | protocol`, or 0 when the frame
 * is too short or its protocol field is not one (RFC 1661 §2: odd at its end, even at its start).
 */
export function peel(bytes: Uint8Array, at: number, length: number): number {
  let headerBytes = 0
  if (length >= 2 && bytes[at] === address && bytes[at + 1] === control) headerBytes = 2
  if (length <= headerBytes) return 0
  const first = bytes[at + headerBytes] ?? 0
  if ((first & 1) === 1) {
    return first === address ? 0 : ((headerBytes + 1) << 16) | first
  }
  if (length < headerBytes + 2) return 0
  const second = bytes[at + headerBytes + 1] ?? 0
  if ((second & 1) === 0) return 0
  return ((headerBytes + 2) << 16) | (first << 8) | second
}

/** Writes the full header at `at`; returns the offset of the information field. */
export function putFrameHeader(out: Uint8Array, at: number, protocol: number): number {
  out[at] = address
  out[at + 1] = control
  return putU16(out, at + 2, protocol)
}

/** A frame of its own around an information field. */
export function encodeFrame(protocol: number, information: Uint8Array): Uint8Array {
  const frame = new Uint8Array(frameHeaderBytes + information.length)
  putBytes(frame, putFrameHeader(frame, 0, protocol), information)
  return frame
}
