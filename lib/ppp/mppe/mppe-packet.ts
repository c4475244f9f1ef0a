/**
 * The head of an MPPE or MPPC packet (RFC 3078 §3, RFC 2118 §3.1), behind the PPP protocol 0x00fd.
 *
 * ```
 *  0                   1
 *  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |A|B|C|D|   Coherency Count     |   then the packet, with its protocol field
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * ```
 */

export const MppeBit = {
  /** A: tables were initialized before this packet was made. */
  flushed: 0x8000,
  /** B: the packet is at the front of the MPPC history. */
  atFront: 0x4000,
  /** C. */
  compressed: 0x2000,
  /** D. */
  encrypted: 0x1000,
} as const

export const mppeHeaderBytes = 2
export const coherencyMask = 0x0fff

/** RFC 3078 §8.2: in stateful mode the key changes with each packet whose count ends so. */
export const flagOctet = 0xff
