/**
 * An IP address with a port as numbers, and as the kernel writes it: `struct sockaddr_in` (16 bytes)
 * and `struct sockaddr_in6` (28 bytes), ip(7) and ipv6(7). Compared and copied per datagram.
 */
import { putU32, u32 } from '../core/bytes.ts'
import { InvariantError } from '../core/errors.ts'
import { formatIpv4, formatIpv6, parseIpv4, parseIpv6 } from '../core/ip-address.ts'
import type { PinnedMemory } from './dataplane.ts'
import { AF_INET, AF_INET6 } from './kernel.ts'

/** Room for the longer of the two, bytes. */
export const SOCKET_ADDRESS_BYTES = 28
const IPV4_ADDRESS_BYTES = 16

const PORT_AT = 2
const IPV4_AT = 4
const IPV6_AT = 8
const IPV6_SCOPE_AT = 24

export class SocketAddress {
  family: 4 | 6 = 4
  port = 0
  /** IPv4: the address, host order, and zeros. IPv6: its four words. */
  readonly words = new Uint32Array(4)
  /** Interface of an IPv6 link-local address. */
  scope = 0

  /** Throws InvariantError when `address` is no IP address. */
  static of(address: string, port: number): SocketAddress {
    const made = new SocketAddress()
    made.port = port
    const ipv4 = parseIpv4(address)
    if (ipv4 !== undefined) {
      made.words[0] = ipv4
      return made
    }
    const ipv6 = parseIpv6(address)
    if (ipv6 === undefined) throw new InvariantError(`${address} is no IP address`)
    made.family = 6
    for (let i = 0; i < 4; i++) made.words[i] = u32(ipv6, 4 * i)
    return made
  }

  set(from: SocketAddress): void {
    this.family = from.family
    this.port = from.port
    this.scope = from.scope
    for (let i = 0; i < 4; i++) this.words[i] = from.words[i] ?? 0
  }

  equals(other: SocketAddress): boolean {
    const a = this.words
    const b = other.words
    return (
      this.port === other.port &&
      a[0] === b[0] &&
      a[3] === b[3] &&
      a[1] === b[1] &&
      a[2] === b[2] &&
      this.family === other.family
    )
  }

  /** Whether it stands for every address of its family. */
  get isAny(): boolean {
    return this.words.every(word => word === 0)
  }

  /** The address in its usual text form, without port. */
  get text(): string {
    if (this.family === 4) return formatIpv4(this.words[0] ?? 0)
    const bytes = new Uint8Array(16)
    this.words.forEach((word, i) => {
      putU32(bytes, 4 * i, word)
    })
    return formatIpv6(bytes)
  }

  /** Writes the kernel's form at `at` and returns its length, bytes. */
  put({ view }: PinnedMemory, at: number): number {
    const { words } = this
    view.setUint16(at + PORT_AT, this.port)
    if (this.family === 4) {
      view.setUint16(at, AF_INET, true)
      view.setUint32(at + IPV4_AT, words[0] ?? 0)
      view.setUint32(at + IPV4_AT + 4, 0)
      view.setUint32(at + IPV4_AT + 8, 0)
      return IPV4_ADDRESS_BYTES
    }
    view.setUint16(at, AF_INET6, true)
    view.setUint32(at + 4, 0)
    for (let i = 0; i < 4; i++) view.setUint32(at + IPV6_AT + 4 * i, words[i] ?? 0)
    view.setUint32(at + IPV6_SCOPE_AT, this.scope, true)
    return SOCKET_ADDRESS_BYTES
  }

  /** Reads the kernel's form. */
  take({ view }: PinnedMemory, at: number): void {
    const { words } = this
    this.port = view.getUint16(at + PORT_AT)
    if (view.getUint16(at, true) === AF_INET) {
      this.family = 4
      this.scope = 0
      words[0] = view.getUint32(at + IPV4_AT)
      words[1] = 0
      words[2] = 0
      words[3] = 0
      return
    }
    this.family = 6
    for (let i = 0; i < 4; i++) words[i] = view.getUint32(at + IPV6_AT + 4 * i)
    this.scope = view.getUint32(at + IPV6_SCOPE_AT, true)
  }

  /** Takes the bare address that stands at `at`, 4 or 16 bytes by `family`; the port stays. */
  takeAddress({ view }: PinnedMemory, at: number, family: 4 | 6): void {
    const { words } = this
    this.family = family
    words[0] = view.getUint32(at)
    for (let i = 1; i < 4; i++) words[i] = family === 6 ? view.getUint32(at + 4 * i) : 0
  }

  /** Writes the bare address at `at`, 4 or 16 bytes. */
  putAddress({ view }: PinnedMemory, at: number): void {
    const count = this.family === 4 ? 1 : 4
    for (let i = 0; i < count; i++) view.setUint32(at + 4 * i, this.words[i] ?? 0)
  }
}
