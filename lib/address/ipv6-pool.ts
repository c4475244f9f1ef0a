/** A /64 for each session out of one shorter prefix (RFC 8273: a unique prefix per host). */
import { putU16, u16 } from '../core/bytes.ts'
import { InvariantError } from '../core/errors.ts'
import {
  formatIpv6Network,
  type Ipv6Network,
  isInIpv6Network,
  parseIpv6Network,
} from '../core/ip-address.ts'
import type { AddressHistory } from './ipv4-pool.ts'
import { StickyAllocator } from './sticky-allocator.ts'

/** Bytes 6 and 7 of an address number the /64s of a /48. */
const SUBNET_AT = 6

export class Ipv6Pool {
  readonly #prefix: Ipv6Network
  readonly #allocator: StickyAllocator

  /** `prefix` has 48 to 64 bits. Its first /64 is the server's, unless it is the only one. */
  constructor(prefix: Ipv6Network) {
    if (prefix.prefixLength < 48 || prefix.prefixLength > 64) {
      throw new InvariantError(`a prefix of ${prefix.prefixLength} bits cannot be cut into /64s`)
    }
    this.#prefix = prefix
    const count = 2 ** (64 - prefix.prefixLength)
    const first = count === 1 ? 0 : 1
    this.#allocator = new StickyAllocator({
      nextUsable: index => {
        const next = Math.max(index, first)
        return next < count ? next : Number.POSITIVE_INFINITY
      },
    })
  }

  /** A /64; undefined when all are in use. */
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
    putU16(address, SUBNET_AT, u16(address, SUBNET_AT) + index)
    return { address, prefixLength: 64 }
  }

  #indexOf({ address, prefixLength }: Ipv6Network): number | undefined {
    if (prefixLength !== 64 || !isInIpv6Network(this.#prefix, address)) return undefined
    return u16(address, SUBNET_AT) - u16(this.#prefix.address, SUBNET_AT)
  }
}
