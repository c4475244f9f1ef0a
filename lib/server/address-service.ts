/** Where calls get their addresses from: our own pools, or DHCP servers; and what is kept over restarts. */
import { join } from 'node:path'
import { readJournal, writeJournal } from '../address/dhcp/dhcp-journal.ts'
import { DhcpLeases } from '../address/dhcp/dhcp-leases.ts'
import { DhcpSocket } from '../address/dhcp/dhcp-socket.ts'
import { InformRelay } from '../address/dhcp/inform-relay.ts'
import type { Ipv4Lease } from '../address/ipv4-pool.ts'
import { type Ipv4Leases, Ipv4Pools, type NamedLeaseRequest } from '../address/ipv4-pools.ts'
import { Ipv6Pool } from '../address/ipv6-pool.ts'
import { readLeases, writeLeases } from '../address/lease-file.ts'
import type { Config } from '../config.ts'
import type { Clock } from '../core/clock.ts'
import { messageOf } from '../core/errors.ts'
import { formatIpv4 } from '../core/ip-address.ts'
import type { Logger } from '../core/log.ts'
import type { RandomSource } from '../core/random.ts'
import type { TimerWheel, WheelEntry } from '../core/timers.ts'
import { Neighbours } from './neighbours.ts'

/** History is written this long after a session came or went, ms. */
const historyDelayMs = 5000
/** How long nobody gets an address that a host beside us has, ms; how many are set aside at a time. */
const setAsideMs = 600_000
const mostSetAside = 256
/** How many addresses one call may find taken. */
const mostConflicts = 4
/** Leases of others are to be given back: they are written sooner. */
const journalDelayMs = 500

export interface AddressServices {
  readonly clock: Clock
  readonly wheel: TimerWheel
  readonly random: RandomSource
  /** Those of users, which nobody else gets. */
  readonly fixedAddresses: () => ReadonlySet<number>
  /** The session that has this address must end. */
  readonly onLost: (address: number) => void
  /** Absent: found out. */
  readonly neighbours?: Neighbours
}

export interface DhcpStatus {
  /** Ours, that servers answer to. */
  readonly relay: string
  readonly leases: number
  readonly counters: Record<string, number>
}

/** What there is while DHCP servers give the addresses. */
interface Dhcp {
  readonly socket: DhcpSocket
  readonly leases: DhcpLeases
  readonly journalWriter: WheelEntry
}

export class AddressService implements Ipv4Leases, WheelEntry {
  readonly ipv6Pool: Ipv6Pool | undefined
  /** Prefixes for clients that are routers. */
  readonly delegationPool: Ipv6Pool | undefined
  readonly #config: Config
  readonly #services: AddressServices
  readonly #log: Logger
  readonly #pools: Ipv4Pools
  /** Absent: nobody is asked. */
  readonly #neighbours: Neighbours | undefined
  #setAside = 0
  #dhcp: Dhcp | undefined
  #informRelay: InformRelay | undefined

  constructor(config: Config, services: AddressServices, log: Logger) {
    const { addresses } = config
    this.#config = config
    this.#services = services
    this.#log = log
    this.#pools = new Ipv4Pools({
      ranges: addresses.ipv4,
      pools: addresses.pools,
      exclude: addresses.exclude,
      serverAddress: addresses.server,
      reserved: services.fixedAddresses,
      isRequestable: addresses.isRequestable,
    })
    // Without an interface nobody beside us sees what has these addresses.
    if (addresses.isProbed && config.tun.backend !== 'memory') {
      const { clock, wheel } = services
      this.#neighbours = services.neighbours ?? new Neighbours({ clock, wheel, log })
    }
    this.ipv6Pool = addresses.ipv6 && new Ipv6Pool(addresses.ipv6)
    const { delegated } = addresses
    this.delegationPool = delegated && new Ipv6Pool(delegated.prefix, delegated.prefixLength)
    const { ipv4, ipv6 } = readLeases(this.#path('leases.json'))
    this.#pools.restore(ipv4)
    // Each takes what is its own.
    this.ipv6Pool?.restore(ipv6)
    this.delegationPool?.restore(ipv6)
  }

  /** Passes on what clients ask by DHCPINFORM; undefined when we answer that. From `start` on. */
  get informRelay(): InformRelay | undefined {
    return this.#informRelay
  }

  /** Throws SystemError when the port of DHCP relays cannot be had. */
  async start(): Promise<void> {
    const { dhcp, server: linkAddress } = this.#config.addresses
    if (dhcp === undefined) return
    const { clock, wheel, random, onLost } = this.#services
    const socket = await DhcpSocket.open(dhcp)
    const { relayAddress } = socket
    const journalWriter = { onDeadline: () => this.#writeJournal() }
    const leases = new DhcpLeases({
      serverName: this.#config.server.name,
      local: this.#pools,
      isUsable: address => this.#isUsable(address),
      ...{ relayAddress, linkAddress, clock, wheel, random },
      send: (bytes, server) => socket.send(bytes, server),
      onLost: (address, reason) => {
        this.#log.warn({ event: 'lease-lost', address: formatIpv4(address), reason }, 'lease lost')
        onLost(address)
      },
      onChange: () => wheel.schedule(journalWriter, clock.nowMs() + journalDelayMs),
    })
    leases.restore(readJournal(this.#path('dhcp-leases.json')))
    this.#dhcp = { socket, leases, journalWriter }
    if (dhcp.relaysInform) {
      const send = (bytes: Uint8Array) => socket.send(bytes)
      this.#informRelay = new InformRelay({ relayAddress, linkAddress, clock, send })
    }
    socket.listen(bytes => {
      if (!leases.receive(bytes)) this.#informRelay?.receive(bytes)
    })
    this.#log.info({ event: 'dhcp', relay: formatIpv4(relayAddress) }, 'addresses come from dhcp')
  }

  lease(request: NamedLeaseRequest): Ipv4Lease | Promise<Ipv4Lease> {
    // A DHCP server asks by itself before it offers an address (RFC 2131 §3.1).
    if (this.#dhcp !== undefined) return this.#dhcp.leases.lease(request)
    const lease = this.#pools.lease(request)
    if (lease.type !== 'leased') return lease
    const owner = this.#neighbours?.ownerOf(lease.address)
    return owner === undefined ? lease : this.#leaseUnowned(request, lease.address, owner)
  }

  release(address: number): boolean {
    return (this.#dhcp?.leases ?? this.#pools).release(address)
  }

  /** Of conflicts with the hosts beside us, by name; undefined when there was nobody to ask. */
  conflicts(): Record<string, number> | undefined {
    const counters = this.#neighbours?.counters() ?? {}
    return Object.keys(counters).length === 0 ? undefined : counters
  }

  /** A session came or went. */
  noteChange(): void {
    const { wheel, clock } = this.#services
    wheel.schedule(this, clock.nowMs() + historyDelayMs)
  }

  onDeadline(): void {
    this.#attempt(() =>
      writeLeases(this.#path('leases.json'), {
        ipv4: this.#pools.history(),
        ipv6: [this.ipv6Pool, this.delegationPool].flatMap(pool => pool?.history() ?? []),
      }),
    )
  }

  status(): DhcpStatus | undefined {
    if (this.#dhcp === undefined) return undefined
    const { socket, leases } = this.#dhcp
    return {
      relay: formatIpv4(socket.relayAddress),
      leases: leases.leasedCount,
      counters: {
        ...socket.counters.toJSON(),
        ...leases.counters.toJSON(),
        ...this.#informRelay?.counters.toJSON(),
      },
    }
  }

  /** Gives back what is left, and writes what is to be known at the next start. */
  async stop(): Promise<void> {
    this.#services.wheel.cancel(this)
    this.#neighbours?.close()
    this.onDeadline()
    const dhcp = this.#dhcp
    if (dhcp === undefined) return
    dhcp.leases.stop()
    this.#services.wheel.cancel(dhcp.journalWriter)
    this.#writeJournal()
    await dhcp.socket.close()
  }

  /** Passes over addresses that somebody beside us has. */
  async #leaseUnowned(
    request: NamedLeaseRequest,
    first: number,
    asked: Promise<string | undefined>,
  ): Promise<Ipv4Lease> {
    let address = first
    let owner = await asked
    for (let conflicts = 1; owner !== undefined; conflicts++) {
      this.#log.warn(
        { event: 'address-conflict', address: formatIpv4(address), owner },
        'address is in use beside us',
      )
      this.#putAside(address)
      if (conflicts === mostConflicts) return { type: 'refused', reason: 'exhausted' }
      const lease = this.#pools.lease(request)
      if (lease.type !== 'leased') return lease
      address = lease.address
      owner = await this.#neighbours?.ownerOf(address)
    }
    this.#neighbours?.announce(address)
    return { type: 'leased', address }
  }

  /** Leased to nobody, for a time. */
  #putAside(address: number): void {
    if (this.#setAside >= mostSetAside) {
      this.#pools.release(address)
      return
    }
    this.#setAside++
    const { wheel, clock } = this.#services
    const giveBack = () => {
      this.#setAside--
      this.#pools.release(address)
    }
    wheel.schedule({ onDeadline: giveBack }, clock.nowMs() + setAsideMs)
  }

  /** What is routed to the tunnels; a server that gives others is set up for somebody else. */
  #isUsable(address: number): boolean {
    const { server, ipv4, exclude } = this.#config.addresses
    const isIn = (ranges: typeof ipv4) =>
      ranges.some(({ first, last }) => first <= address && address <= last)
    return address !== server && isIn(ipv4) && !isIn(exclude)
  }

  #writeJournal(): void {
    const journal = this.#dhcp?.leases.journal() ?? []
    this.#attempt(() => writeJournal(this.#path('dhcp-leases.json'), journal))
  }

  #attempt(write: () => void): void {
    try {
      write()
    } catch (error) {
      this.#log.warn({ event: 'leases-unwritten', reason: messageOf(error) }, 'leases not written')
    }
  }

  #path(name: string): string {
    return join(this.#config.state.directory, name)
  }
}
