/** Named pools of IPv4 addresses. A pool that is used up may have another that goes on for it. */
import {
  type AddressHistory,
  type Ipv4Lease,
  type Ipv4LeaseRequest,
  Ipv4Pool,
  type Ipv4PoolOptions,
} from './ipv4-pool.ts'

/** Where calls get their IPv4 addresses from. */
export interface Ipv4Leases {
  /** A promise when somebody else must be asked; it never rejects. */
  lease(request: NamedLeaseRequest): Ipv4Lease | Promise<Ipv4Lease>
  release(address: number): boolean
}

export interface NamedLeaseRequest extends Ipv4LeaseRequest {
  /** Absent: the pool without a name. */
  readonly poolName?: string
}

export interface NamedPool extends Pick<Ipv4PoolOptions, 'ranges'> {
  /** Goes on when this one is used up. */
  readonly next?: string
}

export type Ipv4PoolsOptions = Omit<Ipv4PoolOptions, 'ranges'> & {
  /** The pool without a name. */
  readonly ranges: Ipv4PoolOptions['ranges']
  readonly pools?: ReadonlyMap<string, NamedPool>
}

interface Entry {
  readonly pool: Ipv4Pool
  readonly next: string | undefined
}

export class Ipv4Pools implements Ipv4Leases {
  readonly #unnamed: Ipv4Pool
  readonly #named = new Map<string, Entry>()
  /** Who gave what is given now. */
  readonly #giverOf = new Map<number, Ipv4Pool>()

  constructor({ pools = new Map(), ...options }: Ipv4PoolsOptions) {
    this.#unnamed = new Ipv4Pool(options)
    for (const [name, { ranges, next }] of pools) {
      this.#named.set(name, { pool: new Ipv4Pool({ ...options, ranges }), next })
    }
  }

  /** An unknown name gives nothing: whoever wrote it meant to keep users apart. */
  lease({ poolName, ...request }: NamedLeaseRequest): Ipv4Lease {
    const { fixedAddress } = request
    if (fixedAddress !== undefined) return this.#leaseFixed(request, fixedAddress)
    for (const pool of this.#chainOf(poolName)) {
      const lease = pool.lease(request)
      if (lease.type === 'leased') {
        this.#giverOf.set(lease.address, pool)
        return lease
      }
    }
    return { type: 'refused', reason: 'exhausted' }
  }

  release(address: number): boolean {
    const giver = this.#giverOf.get(address)
    this.#giverOf.delete(address)
    return giver?.release(address) ?? false
  }

  isLeased(address: number): boolean {
    return this.#giverOf.has(address)
  }

  get leasedCount(): number {
    return this.#giverOf.size
  }

  history(): AddressHistory[] {
    return this.#all().flatMap(pool => pool.history())
  }

  restore(history: readonly AddressHistory[]): void {
    for (const pool of this.#all()) pool.restore(history)
  }

  /** In the pool whose ranges hold it, so that nobody else gets it. */
  #leaseFixed(request: Ipv4LeaseRequest, address: number): Ipv4Lease {
    if (this.#giverOf.has(address)) return { type: 'refused', reason: 'in-use' }
    const pool = this.#all().find(one => one.holds(address)) ?? this.#unnamed
    const lease = pool.lease(request)
    if (lease.type === 'leased') this.#giverOf.set(address, pool)
    return lease
  }

  /** The pool of that name and those that go on for it, each once. */
  #chainOf(name: string | undefined): Ipv4Pool[] {
    if (name === undefined) return [this.#unnamed]
    const seen = new Set<string>()
    const chain: Ipv4Pool[] = []
    for (let next: string | undefined = name; next !== undefined && !seen.has(next); ) {
      seen.add(next)
      const entry: Entry | undefined = this.#named.get(next)
      if (entry !== undefined) chain.push(entry.pool)
      next = entry?.next
    }
    return chain
  }

  #all(): Ipv4Pool[] {
    return [...[...this.#named.values()].map(({ pool }) => pool), this.#unnamed]
  }
}
