/**
 * Serial number arithmetic (RFC 1982): sequence numbers that wrap. The only place where such numbers
 * are compared.
 */

/** How far `to` is ahead of `from` modulo 2^16: -32768 to 32767, negative when it is behind. */
export function serialDistance16(from: number, to: number): number {
  return ((to - from) << 16) >> 16
}

/** How far `to` is ahead of `from` modulo 2^32: negative when it is behind. */
export function serialDistance32(from: number, to: number): number {
  return (to - from) | 0
}

/** `serial` moved forward by `by`, modulo 2^16. */
export function serialAdd16(serial: number, by: number): number {
  return (serial + by) & 0xffff
}
