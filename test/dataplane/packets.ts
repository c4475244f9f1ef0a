/**
 * Builds IP packets and checks them, slowly and plainly: the oracle beside the dataplane. Nothing in
 * here uses code of lib/dataplane.
 */
import { concatBytes, putU16, putU32, u16, u32 } from '../../lib/core/bytes.ts'
import { parseIpv4, parseIpv6 } from '../../lib/core/ip-address.ts'
import { noRoom, type PacketSink } from '../../lib/core/packet-sink.ts'
import type { PinnedMemory } from '../../lib/dataplane/dataplane.ts'

export function ip4(text: string): number {
  const address = parseIpv4(text)
  if (address === undefined) throw new TypeError(text)
  return address
}

export function ip6(text: string): Uint8Array {
  const address = parseIpv6(text)
  if (address === undefined) throw new TypeError(text)
  return address
}

/** RFC 1071 in words of network order, the long way round. */
export function referenceSum(...parts: Uint8Array[]): number {
  let sum = 0
  for (const part of parts) {
    for (let i = 0; i < part.length; i += 2) {
      sum += (part[i] ?? 0) * 256 + (part[i + 1] ?? 0)
      while (sum > 0xffff) sum = sum - 0x10000 + 1
    }
  }
  return sum
}

export interface TcpFields {
  readonly source: string
  readonly destination: string
  readonly sourcePort?: number
  readonly destinationPort?: number
  readonly sequence?: number
  readonly acknowledgment?: number
  readonly flags?: number
  readonly window?: number
  readonly options?: Uint8Array
  readonly payload?: Uint8Array
  readonly id?: number
  readonly ttl?: number
  readonly tos?: number
  /** Don't Fragment; true unless said otherwise. */
  readonly df?: boolean
}

export function tcp(fields: TcpFields): Uint8Array {
  const options = fields.options ?? new Uint8Array(0)
  const payload = fields.payload ?? new Uint8Array(0)
  const header = new Uint8Array(20 + options.length)
  putU16(header, 0, fields.sourcePort ?? 40_000)
  putU16(header, 2, fields.destinationPort ?? 443)
  putU32(header, 4, fields.sequence ?? 1)
  putU32(header, 8, fields.acknowledgment ?? 1)
  header[12] = (header.length / 4) << 4
  header[13] = fields.flags ?? 0x10
  putU16(header, 14, fields.window ?? 512)
  header.set(options, 20)
  return wrap(fields, 6, concatBytes(header, payload), 16)
}

export interface UdpFields {
  readonly source: string
  readonly destination: string
  readonly sourcePort?: number
  readonly destinationPort?: number
  readonly payload?: Uint8Array
  readonly id?: number
  readonly ttl?: number
  readonly tos?: number
  readonly df?: boolean
}

export function udp(fields: UdpFields): Uint8Array {
  const payload = fields.payload ?? new Uint8Array(0)
  const header = new Uint8Array(8)
  putU16(header, 0, fields.sourcePort ?? 5000)
  putU16(header, 2, fields.destinationPort ?? 6000)
  putU16(header, 4, 8 + payload.length)
  return wrap(fields, 17, concatBytes(header, payload), 6)
}

/** An ICMP or ICMPv6 message of `type`, code 0. */
export function icmp(
  source: string,
  destination: string,
  type: number,
  body: Uint8Array = new Uint8Array(28),
): Uint8Array {
  const message = concatBytes(Uint8Array.of(type, 0, 0, 0), body)
  return wrap({ source, destination, df: false }, source.includes(':') ? 58 : 1, message, 2)
}

export interface IpFields {
  readonly source: string
  readonly destination: string
  readonly id?: number
  readonly ttl?: number
  readonly tos?: number
  readonly df?: boolean
}

/** An IP packet around a transport message whose checksum field at `checksumAt` is filled in. */
export function wrap(
  fields: IpFields,
  protocol: number,
  message: Uint8Array,
  checksumAt: number,
): Uint8Array {
  const isIpv6 = fields.source.includes(':')
  const pseudo = new Uint8Array(isIpv6 ? 40 : 12)
  let ip: Uint8Array
  if (isIpv6) {
    ip = new Uint8Array(40)
    putU32(ip, 0, 0x60000000 + (fields.tos ?? 0) * 0x100000)
    putU16(ip, 4, message.length)
    ip[6] = protocol
    ip[7] = fields.ttl ?? 64
    ip.set(ip6(fields.source), 8)
    ip.set(ip6(fields.destination), 24)
    pseudo.set(ip.subarray(8, 40))
    putU32(pseudo, 32, message.length)
    pseudo[39] = protocol
  } else {
    ip = new Uint8Array(20)
    ip[0] = 0x45
    ip[1] = fields.tos ?? 0
    putU16(ip, 2, 20 + message.length)
    putU16(ip, 4, fields.id ?? 7)
    putU16(ip, 6, (fields.df ?? true) ? 0x4000 : 0)
    ip[8] = fields.ttl ?? 64
    ip[9] = protocol
    putU32(ip, 12, ip4(fields.source))
    putU32(ip, 16, ip4(fields.destination))
    putU16(ip, 10, ~referenceSum(ip))
    pseudo.set(ip.subarray(12, 20))
    pseudo[9] = protocol
    putU16(pseudo, 10, message.length)
  }
  // ICMP for IPv4 has no pseudo header.
  const covered = protocol === 1 ? [message] : [pseudo, message]
  putU16(message, checksumAt, 0)
  const checksum = ~referenceSum(...covered) & 0xffff
  putU16(message, checksumAt, protocol === 17 && checksum === 0 ? 0xffff : checksum)
  return concatBytes(ip, message)
}

/** What the plain reader makes of a packet; `undefined` when a checksum or a length is wrong. */
export interface ReadPacket {
  readonly version: number
  readonly protocol: number
  readonly ttl: number
  readonly id: number
  /** Flags and offset of IPv4. */
  readonly fragment: number
  /** The transport message. */
  readonly message: Uint8Array
}

export function readPacket(packet: Uint8Array): ReadPacket | undefined {
  const version = (packet[0] ?? 0) >> 4
  const isIpv6 = version === 6
  const headerBytes = isIpv6 ? 40 : ((packet[0] ?? 0) & 15) * 4
  const length = isIpv6 ? 40 + u16(packet, 4) : u16(packet, 2)
  if (length !== packet.length) return undefined
  if (!isIpv6 && referenceSum(packet.subarray(0, headerBytes)) !== 0xffff) return undefined
  const protocol = (isIpv6 ? packet[6] : packet[9]) ?? 0
  const message = packet.slice(headerBytes)
  const fragment = isIpv6 ? 0 : u16(packet, 6)
  const isWhole = (fragment & 0x3fff) === 0
  if (isWhole && (protocol === 6 || protocol === 17 || protocol === 58 || protocol === 1)) {
    const pseudo = new Uint8Array(isIpv6 ? 40 : 12)
    if (isIpv6) {
      pseudo.set(packet.subarray(8, 40))
      putU32(pseudo, 32, message.length)
      pseudo[39] = protocol
    } else {
      pseudo.set(packet.subarray(12, 20))
      pseudo[9] = protocol
      putU16(pseudo, 10, message.length)
    }
    const covered = protocol === 1 ? [message] : [pseudo, message]
    if (referenceSum(...covered) !== 0xffff) return undefined
  }
  const ttl = (isIpv6 ? packet[7] : packet[8]) ?? 0
  return { version, protocol, ttl, id: isIpv6 ? 0 : u16(packet, 4), fragment, message }
}

export interface ReadSegment {
  readonly sequence: number
  readonly acknowledgment: number
  readonly flags: number
  readonly window: number
  readonly options: Uint8Array
  readonly payload: Uint8Array
}

/** A whole TCP segment with correct checksums, or undefined. */
export function readTcp(packet: Uint8Array): ReadSegment | undefined {
  const read = readPacket(packet)
  if (read === undefined || read.protocol !== 6) return undefined
  const { message } = read
  const headerBytes = ((message[12] ?? 0) >> 4) * 4
  return {
    sequence: u32(message, 4),
    acknowledgment: u32(message, 8),
    flags: message[13] ?? 0,
    window: u16(message, 14),
    options: message.slice(20, headerBytes),
    payload: message.slice(headerBytes),
  }
}

/** Bytes that tell where they stand. */
export function pattern(length: number, from = 0): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => ((from + i) * 31 + ((from + i) >> 8)) & 0xff)
}

/** A tunnel that keeps what it was given. */
export class CollectingSink implements PacketSink {
  mtuBytes = 1400
  readonly packets: Uint8Array[] = []
  flushCount = 0
  /** Packets for which there is room; then `reserve` says no. */
  room = Number.POSITIVE_INFINITY
  readonly #memory: PinnedMemory
  readonly #at: number
  #waiting: Uint8Array[] = []

  constructor(memory: PinnedMemory) {
    this.#memory = memory
    this.#at = memory.allocate(70_000)
  }

  reserve(lengthBytes: number): number {
    if (this.room <= 0) return noRoom
    // What is not written shows.
    this.#memory.bytes.fill(0xa5, this.#at, this.#at + lengthBytes)
    return this.#at
  }

  commit(at: number, lengthBytes: number): void {
    this.room--
    this.#waiting.push(this.#memory.bytes.slice(at, at + lengthBytes))
  }

  flush(): void {
    this.flushCount++
    this.packets.push(...this.#waiting)
    this.#waiting = []
  }

  /** What came since the last call. */
  taken(): Uint8Array[] {
    return this.packets.splice(0)
  }
}
