/** IPv4 addresses for clients, out of several ranges. */
import type { Ipv4Range } from '../config.ts'
import { formatIpv4, type Ipv4Network, ipv4Mask, parseIpv4 } from '../core/ip-address.ts'
import { StickyAllocator } from './sticky-allocator.ts'

export interface Ipv4PoolOptions {
  readonly ranges: readonly Ipv4Range[]
  /** The server's own; never given out. */
  readonly serverAddress: number
  readonly exclude?: readonly Ipv4Range[]
  /**
   * Addresses that belong to users, asked at each lease: they are only given to their users. When it
   * throws (the store is not readable just now), what it said last holds.
   */
  readonly reserved?: () => ReadonlySet<number>
  /** Whether a client gets the address that it asks for, if that is in the ranges and free. */
  readonly isRequestable?: boolean
}

export interface Ipv4LeaseRequest {
  /** Who gets the same address again. */
  readonly userName: string
  /** The user's own address, in the ranges or not. */
  readonly fixedAddress?: number
  /** What the client asks for; 0 is nothing. */
  readonly requestedAddress?: number
}

export type Ipv4Lease =
  | { readonly type: 'leased'; readonly address: number }
  /** `in-use`: the user's own address is with another session; `no-answer`: nobody gives addresses. */
  | { readonly type: 'refused'; readonly reason: 'exhausted' | 'in-use' | 'no-answer' }

export interface AddressHistory {
  readonly address: string
  readonly owner: string
}

/** A stretch of the ranges, and where it starts in the numbering of the allocator. */
interface Stretch extends Ipv4Range {
  readonly firstIndex: number
}

export class Ipv4Pool {
  readonly #stretches: readonly Stretch[]
  readonly #size: number
  readonly #serverAddress: number
  readonly #askReserved: () => ReadonlySet<number>
  /** As of the last request. */
  #reserved: ReadonlySet<number> = new Set()
  readonly #isRequestable: boolean
  readonly #allocator: StickyAllocator
  /** Fixed addresses outside the ranges that are in use. */
  readonly #outside = new Set<number>()

  constructor(options: Ipv4PoolOptions) {
    const stretches: Stretch[] = []
    let size = 0
    for (const { first, last } of without(options.ranges, options.exclude ?? [])) {
      stretches.push({ first, last, firstIndex: size })
      size += last - first + 1
    }
    this.#stretches = stretches
    this.#size = size
    this.#serverAddress = options.serverAddress
    this.#askReserved = options.reserved ?? (() => new Set())
    this.#isRequestable = options.isRequestable ?? false
    this.#allocator = new StickyAllocator({ nextUsable: index => this.#nextUsable(index) })
  }

  lease(request: Ipv4LeaseRequest): Ipv4Lease {
    const { userName, fixedAddress, requestedAddress = 0 } = request
    this.#refreshReserved()
    if (fixedAddress !== undefined) return this.#leaseFixed(fixedAddress, userName)
    const requestedIndex = this.#isRequestable ? this.#indexOf(requestedAddress) : undefined
    if (
      requestedIndex !== undefined &&
      this.#nextUsable(requestedIndex) === requestedIndex &&
      this.#allocator.takeExactly(requestedIndex, userName)
    ) {
      return { type: 'leased', address: requestedAddress }
    }
    const index = this.#allocator.take(userName)
    if (index === undefined) return { type: 'refused', reason: 'exhausted' }
    return { type: 'leased', address: this.#addressOf(index) }
  }

  /** False when nobody had it. */
  release(address: number): boolean {
    if (this.#outside.delete(address)) return true
    const index = this.#indexOf(address)
    return index !== undefined && this.#allocator.release(index)
  }

  /** Whether the address is in the ranges. */
  holds(address: number): boolean {
    return this.#indexOf(address) !== undefined
  }

  isLeased(address: number): boolean {
    const index = this.#indexOf(address)
    return index === undefined ? this.#outside.has(address) : this.#allocator.isHeld(index)
  }

  get leasedCount(): number {
    return this.#allocator.heldCount + this.#outside.size
  }

  /** How many addresses there are at most, without exclusions; some of them are never given out. */
  get size(): number {
    return this.#size
  }

  /** Who had which address, for the next start. */
  history(): AddressHistory[] {
    return this.#allocator
      .history()
      .map(([index, owner]) => ({ address: formatIpv4(this.#addressOf(index)), owner }))
  }

  restore(history: readonly AddressHistory[]): void {
    const known: [number, string][] = []
    for (const { address, owner } of history) {
      const index = this.#indexOf(parseIpv4(address) ?? 0)
      if (index !== undefined) known.push([index, owner])
    }
    this.#refreshReserved()
    this.#allocator.restore(known)
  }

  #refreshReserved(): void {
    try {
      this.#reserved = this.#askReserved()
    } catch {
      // Log-ins need the same store and report it; a lease must not end the call that asks for it.
    }
  }

  #leaseFixed(address: number, userName: string): Ipv4Lease {
    if (address === this.#serverAddress || this.isLeased(address)) {
      return { type: 'refused', reason: 'in-use' }
    }
    const index = this.#indexOf(address)
    if (index === undefined) this.#outside.add(address)
    else this.#allocator.takeExactly(index, userName)
    return { type: 'leased', address }
  }

  #nextUsable(from: number): number {
    for (let index = from; index < this.#size; index++) {
      const address = this.#addressOf(index)
      const isUsable =
        address !== this.#serverAddress &&
        !this.#reserved.has(address) &&
        !this.#isNetworkOrBroadcast(address, index)
      if (isUsable) return index
    }
    return Number.POSITIVE_INFINITY
  }

  /**
   * `.0` and `.255` are refused by clients that still think in classes, so they are given out only
   * where they stand in the ranges alone.
   */
  #isNetworkOrBroadcast(address: number, index: number): boolean {
    const lastByte = address & 255
    if (lastByte !== 0 && lastByte !== 255) return false
    const stretch = this.#stretchAt(index)
    return stretch !== undefined && stretch.first !== stretch.last
  }

  #indexOf(address: number): number | undefined {
    const stretch = lastAtMost(this.#stretches, address, ({ first }) => first)
    if (stretch === undefined || address > stretch.last) return undefined
    return stretch.firstIndex + (address - stretch.first)
  }

  #addressOf(index: number): number {
    const stretch = this.#stretchAt(index)
    return stretch === undefined ? 0 : stretch.first + (index - stretch.firstIndex)
  }

  #stretchAt(index: number): Stretch | undefined {
    return lastAtMost(this.#stretches, index, ({ firstIndex }) => firstIndex)
  }
}

/** The networks that cover a range exactly: what is routed to the TUN device and translated. */
export function networksOf(range: Ipv4Range): Ipv4Network[] {
  const networks: Ipv4Network[] = []
  let address = range.first
  while (address <= range.last) {
    let prefixLength = 32
    for (; prefixLength > 0; prefixLength--) {
      const mask = ipv4Mask(prefixLength - 1)
      const isAligned = (address & mask) >>> 0 === address
      if (!isAligned || address + 2 ** (33 - prefixLength) - 1 > range.last) break
    }
    networks.push({ address, prefixLength })
    address += 2 ** (32 - prefixLength)
  }
  return networks
}

/** Ranges in ascending order, joined where they overlap, less the exclusions. */
function without(ranges: readonly Ipv4Range[], exclude: readonly Ipv4Range[]): Ipv4Range[] {
  let left: Ipv4Range[] = []
  for (const range of [...ranges].sort((a, b) => a.first - b.first)) {
    const previous = left.at(-1)
    if (previous === undefined || range.first > previous.last) left.push(range)
    else if (range.last > previous.last) left[left.length - 1] = { ...previous, last: range.last }
  }
  for (const { first, last } of exclude) {
    left = left.flatMap(range => {
      if (last < range.first || first > range.last) return [range]
      return [
        ...(first > range.first ? [{ first: range.first, last: first - 1 }] : []),
        ...(last < range.last ? [{ first: last + 1, last: range.last }] : []),
      ]
    })
  }
  return left
}

/** The last element whose key is at most `value`; the list is in ascending order of keys. */
function lastAtMost<T>(list: readonly T[], value: number, keyOf: (element: T) => number) {
  let low = 0
  let high = list.length
  while (low < high) {
    const middle = (low + high) >>> 1
    const element = list[middle]
    if (element !== undefined && keyOf(element) <= value) low = middle + 1
    else high = middle
  }
  return list[low - 1]
}
