/**
 * Prefixes of one length out of a shorter one: a /64 for each session (RFC 8273: a unique prefix per
 * host), or what is delegated to clients that are routers.
 */
import { putU32, u32 } from '../core/bytes.ts'
import { InvariantError } from '../core/errors.ts'
import {
  formatIpv6Network,
  type Ipv6Network,
  isInIpv6Network,
  parseIpv6Network,
} from '../core/ip-address.ts'
import type { AddressHistory } from './ipv4-pool.ts'
import { StickyAllocator } from './sticky-allocator.ts'

/** Most bits that number the prefixes. */
const longestNumberBits = 16

export class Ipv6Pool {
  readonly #prefix: Ipv6Network
  readonly #prefixLength: number
  readonly #allocator: StickyAllocator

  /**
   * `prefix` has at most 16 bits less than those that are given, of `prefixLength` bits, at most 64. Its
   * first is the server's, unless it is the only one.
   */
  constructor(prefix: Ipv6Network, prefixLength = 64) {
    const bits = prefixLength - prefix.prefixLength
    if (bits < 0 || bits > longestNumberBits || prefixLength > 64) {
      throw new InvariantError(
        `a prefix of ${prefix.prefixLength} bits cannot be cut into such of ${prefixLength}`,
      )
    }
    this.#prefix = prefix
    this.#prefixLength = prefixLength
    const count = 2 ** bits
    const first = count === 1 ? 0 : 1
    this.#allocator = new StickyAllocator({
      nextUsable: index => {
        const next = Math.max(index, first)
        return next < count ? next : Number.POSITIVE_INFINITY
      },
    })
  }

  /** Undefined when all are in use. */
  lease(userName: string): Ipv6Network | undefined {
    const index = this.#allocator.take(userName)
    return index === undefined ? undefined : this.#networkOf(index)
  }

  release(network: Ipv6Network): boolean {
    const index = this.#indexOf(network)
    return index !== undefined && this.#allocator.release(index)
  }

  get leasedCount(): number {
    return this.#allocator.heldCount
  }

  /** Who had which prefix, for the next start. */
  history(): AddressHistory[] {
    return this.#allocator
      .history()
      .map(([index, owner]) => ({ address: formatIpv6Network(this.#networkOf(index)), owner }))
  }

  restore(history: readonly AddressHistory[]): void {
    const known: [number, string][] = []
    for (const { address, owner } of history) {
      const network = parseIpv6Network(address)
      const index = network === undefined ? undefined : this.#indexOf(network)
      if (index !== undefined) known.push([index, owner])
    }
    this.#allocator.restore(known)
  }

  #networkOf(index: number): Ipv6Network {
    const address = Uint8Array.from(this.#prefix.address)
    // The low 64 bits are the hosts'; no bit of the prefix is touched, so nothing is carried.
    const offset = index * 2 ** (64 - this.#prefixLength)
    putU32(address, 0, u32(address, 0) + Math.floor(offset / 2 ** 32))
    putU32(address, 4, u32(address, 4) + (offset % 2 ** 32))
    return { address, prefixLength: this.#prefixLength }
  }

  #indexOf({ address, prefixLength }: Ipv6Network): number | undefined {
    if (prefixLength !== this.#prefixLength || !isInIpv6Network(this.#prefix, address)) {
      return undefined
    }
    const high = u32(address, 0) - u32(this.#prefix.address, 0)
    const low = u32(address, 4) - u32(this.#prefix.address, 4)
    return (high * 2 ** 32 + low) / 2 ** (64 - prefixLength)
  }
}
