/**
 * What a datagram on the NAT traversal port is: RFC 3948 §2.
 *
 *   keepalive   one byte 0xff
 *   IKE         four zero bytes (the non-ESP marker), then an IKE message
 *   ESP         an SPI that is not zero
 */
import { u32 } from '../core/bytes.ts'
import { MIN_PACKET_BYTES } from './esp.ts'

export const NON_ESP_MARKER_BYTES = 4
export const NAT_KEEPALIVE = 0xff

export const DatagramKind = {
  malformed: 0,
  esp: 1,
  ike: 2,
  keepalive: 3,
} as const

export type DatagramKind = (typeof DatagramKind)[keyof typeof DatagramKind]

/** The kind of the `lengthBytes` at `at`; per packet, so a number. */
export function datagramKind(bytes: Uint8Array, at: number, lengthBytes: number): DatagramKind {
  if (lengthBytes === 1) {
    return bytes[at] === NAT_KEEPALIVE ? DatagramKind.keepalive : DatagramKind.malformed
  }
  if (lengthBytes <= NON_ESP_MARKER_BYTES) return DatagramKind.malformed
  if (u32(bytes, at) === 0) return DatagramKind.ike
  return lengthBytes >= MIN_PACKET_BYTES ? DatagramKind.esp : DatagramKind.malformed
}
