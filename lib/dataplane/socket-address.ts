/**
 * An IP address with a port as numbers, and as the kernel writes it: `struct sockaddr_in` (16 bytes)
 * and `struct sockaddr_in6` (28 bytes), ip(7) and ipv6(7). Compared and copied per datagram.
 */
import { putU32, u32 } from '../core/bytes.ts'
import { InvariantError } from '../core/errors.ts'
import { formatIpv4, formatIpv6, parseIpv4, parseIpv6 } from '../core/ip-address.ts'
import { swap16 } from './checksum.ts'
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
  /** IPv4: the address, host order, and zeros. IPv6: its four words. Numbers take less than an array. */
  #word0 = 0
  #word1 = 0
  #word2 = 0
  #word3 = 0
  /** Interface of an IPv6 link-local address. */
  scope = 0

  /** Throws InvariantError when `address` is no IP address. */
  static of(address: string, port: number): SocketAddress {
    const made = new SocketAddress()
    made.port = port
    const ipv4 = parseIpv4(address)
    if (ipv4 !== undefined) {
      made.#word0 = ipv4
      return made
    }
    const ipv6 = parseIpv6(address)
    if (ipv6 === undefined) throw new InvariantError(`${address} is no IP address`)
    made.family = 6
    made.#setWords(u32(ipv6, 0), u32(ipv6, 4), u32(ipv6, 8), u32(ipv6, 12))
    return made
  }

  set(from: SocketAddress): void {
    this.family = from.family
    this.port = from.port
    this.scope = from.scope
    this.#setWords(from.#word0, from.#word1, from.#word2, from.#word3)
  }

  equals(other: SocketAddress): boolean {
    return (
      this.port === other.port &&
      this.#word0 === other.#word0 &&
      this.#word3 === other.#word3 &&
      this.#word1 === other.#word1 &&
      this.#word2 === other.#word2 &&
      this.family === other.family
    )
  }

  /** Whether it stands for every address of its family. */
  get isAny(): boolean {
    return this.#words.every(word => word === 0)
  }

  /** The address in its usual text form, without port. */
  get text(): string {
    if (this.family === 4) return formatIpv4(this.#word0)
    const bytes = new Uint8Array(16)
    this.#words.forEach((word, i) => {
      putU32(bytes, 4 * i, word)
    })
    return formatIpv6(bytes)
  }

  /** Writes the kernel's form at `at` and returns its length, bytes. */
  put({ view }: PinnedMemory, at: number): number {
    view.setUint16(at + PORT_AT, this.port)
    if (this.family === 4) {
      view.setUint16(at, AF_INET, true)
      view.setUint32(at + IPV4_AT, this.#word0)
      view.setUint32(at + IPV4_AT + 4, 0)
      view.setUint32(at + IPV4_AT + 8, 0)
      return IPV4_ADDRESS_BYTES
    }
    view.setUint16(at, AF_INET6, true)
    view.setUint32(at + 4, 0)
    this.#putWords(view, at + IPV6_AT)
    view.setUint32(at + IPV6_SCOPE_AT, this.scope, true)
    return SOCKET_ADDRESS_BYTES
  }

  /** Reads the kernel's form. */
  take({ view }: PinnedMemory, at: number): void {
    this.port = view.getUint16(at + PORT_AT)
    if (view.getUint16(at, true) === AF_INET) {
      this.family = 4
      this.scope = 0
      this.#setWords(view.getUint32(at + IPV4_AT), 0, 0, 0)
      return
    }
    this.family = 6
    this.#takeWords(view, at + IPV6_AT)
    this.scope = view.getUint32(at + IPV6_SCOPE_AT, true)
  }

  /** Takes the bare address that stands at `at`, 4 or 16 bytes by `family`; the port stays. */
  takeAddress({ view }: PinnedMemory, at: number, family: 4 | 6): void {
    this.family = family
    if (family === 6) this.#takeWords(view, at)
    else this.#setWords(view.getUint32(at), 0, 0, 0)
  }

  /** Writes the bare address at `at`, 4 or 16 bytes. */
  putAddress({ view }: PinnedMemory, at: number): void {
    if (this.family === 6) this.#putWords(view, at)
    else view.setUint32(at, this.#word0)
  }

  /** The address's share of a pseudo header's sum, in the byte order of memory: below 2^20, not folded. */
  checksum(): number {
    return (
      sumOfHalves(this.#word0) +
      sumOfHalves(this.#word1) +
      sumOfHalves(this.#word2) +
      sumOfHalves(this.#word3)
    )
  }

  get #words(): readonly number[] {
    return [this.#word0, this.#word1, this.#word2, this.#word3]
  }

  #setWords(word0: number, word1: number, word2: number, word3: number): void {
    this.#word0 = word0
    this.#word1 = word1
    this.#word2 = word2
    this.#word3 = word3
  }

  #takeWords(view: DataView, at: number): void {
    this.#setWords(
      view.getUint32(at),
      view.getUint32(at + 4),
      view.getUint32(at + 8),
      view.getUint32(at + 12),
    )
  }

  #putWords(view: DataView, at: number): void {
    view.setUint32(at, this.#word0)
    view.setUint32(at + 4, this.#word1)
    view.setUint32(at + 8, this.#word2)
    view.setUint32(at + 12, this.#word3)
  }
}

function sumOfHalves(word: number): number {
  return swap16(word >>> 16) + swap16(word & 0xffff)
}
