/**
 * Addresses that DHCP servers give, one client of theirs for each session (RRAS calls it automatic
 * assignment). Addresses of users and named pools stay our own. No I/O.
 */
import { createHash } from 'node:crypto'
import { concatBytes, copyBytes, toHex, utf8 } from '../../core/bytes.ts'
import type { Clock } from '../../core/clock.ts'
import { Driver } from '../../core/driver.ts'
import { assertNever } from '../../core/errors.ts'
import { Counters, faultName } from '../../core/faults.ts'
import type { RandomSource } from '../../core/random.ts'
import type { TimerWheel, WheelEntry } from '../../core/timers.ts'
import type { Ipv4Lease } from '../ipv4-pool.ts'
import type { Ipv4Leases, Ipv4Pools, NamedLeaseRequest } from '../ipv4-pools.ts'
import { checkDhcpMessage, parseDhcpMessage } from '../wire/dhcp-message.ts'
import {
  type AddressJudgement,
  DhcpClient,
  type DhcpClientEvent,
  type DhcpClientInput,
} from './dhcp-client.ts'
import type { JournalEntry } from './dhcp-journal.ts'

/** How long a lease of before a restart is kept for its user, ms. */
const keptMs = 300_000
/** An option holds 255 bytes, the type among them. */
const longestNameBytes = 254
/** Locally administered, of one host (IEEE 802 §8.2). */
const localAdministration = 0x02

export interface DhcpLeasesOptions {
  /** In the names of clients, so that two servers have different ones. */
  readonly serverName: string
  /** Gives the addresses of users and of named pools. */
  readonly local: Ipv4Pools
  /** Whether clients may have it: what is routed to the tunnels, and not our own. */
  readonly isUsable: (address: number) => boolean
  readonly relayAddress: number
  readonly linkAddress: number
  readonly clock: Clock
  readonly wheel: TimerWheel
  readonly random: RandomSource
  /** To one server, or to all. */
  readonly send: (bytes: Uint8Array, server: number | undefined) => void
  /** A session must stop using its address. */
  readonly onLost: (address: number, reason: string) => void
  /** `journal` has something new to say. */
  readonly onChange: () => void
}

interface Entry {
  readonly name: string
  readonly hardware: string
  readonly driver: Driver<DhcpClientInput, DhcpClientEvent>
  address: number
  server: number
  /** Undefined once it is answered. */
  answer: ((lease: Ipv4Lease) => void) | undefined
}

export class DhcpLeases implements Ipv4Leases, WheelEntry {
  readonly counters = new Counters()
  readonly #options: DhcpLeasesOptions
  /** By name; a name is taken from the question to the end of the lease. */
  readonly #byName = new Map<string, Entry>()
  /** By hardware address: every answer has it. */
  readonly #byHardware = new Map<string, Entry>()
  readonly #byAddress = new Map<number, Entry>()
  /** Of before the restart, by name. */
  readonly #kept = new Map<string, JournalEntry>()

  constructor(options: DhcpLeasesOptions) {
    this.#options = options
  }

  get leasedCount(): number {
    return this.#byAddress.size
  }

  lease(request: NamedLeaseRequest): Ipv4Lease | Promise<Ipv4Lease> {
    if (request.fixedAddress !== undefined) {
      return this.#byAddress.has(request.fixedAddress)
        ? { type: 'refused', reason: 'in-use' }
        : this.#options.local.lease(request)
    }
    if (request.poolName !== undefined) return this.#options.local.lease(request)
    return new Promise(resolve => {
      const name = this.#freeName(request.userName)
      const kept = this.#kept.get(name)
      this.#kept.delete(name)
      const entry = this.#open(name, resolve)
      const wish = request.requestedAddress ?? 0
      entry.driver.handle(
        kept === undefined
          ? { type: 'acquire', ...(wish !== 0 && { wish }) }
          : { type: 'acquire', address: kept.address },
      )
    })
  }

  release(address: number): boolean {
    const entry = this.#byAddress.get(address)
    if (entry === undefined) return this.#options.local.release(address)
    entry.driver.handle({ type: 'release' })
    this.counters.count('dhcp-released')
    this.#close(entry)
    return true
  }

  /** A datagram from a server. False: it is for none of our clients. */
  receive(bytes: Uint8Array): boolean {
    const fault = checkDhcpMessage(bytes)
    if (fault) {
      this.counters.count(`dhcp-malformed-${faultName(fault)}`)
      return true
    }
    const message = parseDhcpMessage(bytes)
    const entry = this.#byHardware.get(toHex(message.hardwareAddress))
    entry?.driver.handle({ type: 'message', message })
    return entry !== undefined
  }

  /** What is to be given back should we be killed. */
  journal(): readonly JournalEntry[] {
    const held = [...this.#byAddress.values()].map(({ name, address, server }) => {
      return { client: name, address, server }
    })
    return [...held, ...this.#kept.values()]
  }

  /** Leases of before: their users find them again for a while, then they are given back. */
  restore(journal: readonly JournalEntry[]): void {
    for (const entry of journal) this.#kept.set(entry.client, entry)
    const { wheel, clock } = this.#options
    if (this.#kept.size > 0) wheel.schedule(this, clock.nowMs() + keptMs)
  }

  onDeadline(): void {
    this.#giveBackKept()
    this.#options.onChange()
  }

  /** Gives everything back that nobody has. Sessions have given theirs before. */
  stop(): void {
    this.#options.wheel.cancel(this)
    this.#giveBackKept()
    for (const entry of [...this.#byName.values()]) {
      entry.driver.handle({ type: 'release' })
      const { answer } = entry
      this.#close(entry)
      answer?.({ type: 'refused', reason: 'no-answer' })
    }
  }

  #giveBackKept(): void {
    for (const { client, address, server } of this.#kept.values()) {
      const entry = this.#open(client, undefined)
      entry.driver.handle({ type: 'adopt', address, server })
      entry.driver.handle({ type: 'release' })
      this.counters.count('dhcp-released')
      this.#close(entry)
    }
    this.#kept.clear()
  }

  /** The first session of a user has always the same name, and so mostly the same address. */
  #freeName(userName: string): string {
    const { serverName } = this.#options
    const user = userName.toLowerCase()
    for (let number = 1; ; number++) {
      const name = `${serverName}/${user}/${number}`
      if (!this.#byName.has(name)) return name
    }
  }

  #open(name: string, answer: Entry['answer']): Entry {
    const { relayAddress, linkAddress, random, clock, wheel } = this.#options
    const hash = Uint8Array.from(createHash('sha256').update(name).digest())
    const hardwareAddress = copyBytes(hash, 0, 6)
    hardwareAddress[0] = ((hash[0] ?? 0) & 0xfc) | localAdministration
    const client = new DhcpClient({
      clientId: clientIdOf(name, hash),
      hardwareAddress,
      relayAddress,
      linkAddress,
      random,
      judge: address => this.#judge(address),
    })
    const driver = new Driver<DhcpClientInput, DhcpClientEvent>(client, clock, wheel, {
      transmit: () => {},
      event: event => this.#onEvent(entry, event),
    })
    const hardware = toHex(hardwareAddress)
    const entry: Entry = { name, hardware, driver, address: 0, server: 0, answer }
    this.#byName.set(name, entry)
    this.#byHardware.set(hardware, entry)
    return entry
  }

  #judge(address: number): AddressJudgement {
    if (!this.#options.isUsable(address)) return 'outside'
    const isTaken = this.#byAddress.has(address) || this.#options.local.isLeased(address)
    return isTaken ? 'in-use' : 'good'
  }

  #onEvent(entry: Entry, event: DhcpClientEvent): void {
    switch (event.type) {
      case 'send':
        this.#options.send(event.bytes, event.server)
        return
      case 'bound':
        this.#bind(entry, event.address, event.server)
        return
      case 'refused': {
        this.counters.count(`dhcp-refused-${event.reason}`)
        const { answer } = entry
        this.#close(entry)
        answer?.({ type: 'refused', reason: event.reason })
        return
      }
      case 'lost':
        this.counters.count(`dhcp-lost-${event.reason}`)
        this.#close(entry)
        this.#options.onLost(event.address, event.reason)
        return
      case 'unexpected':
        this.counters.count(event.what)
        return
      default:
        assertNever(event)
    }
  }

  #bind(entry: Entry, address: number, server: number): void {
    const { answer } = entry
    this.counters.count(answer === undefined ? 'dhcp-renewed' : 'dhcp-leased')
    const isChanged = entry.address !== address || entry.server !== server
    entry.address = address
    entry.server = server
    entry.answer = undefined
    this.#byAddress.set(address, entry)
    if (isChanged) this.#options.onChange()
    answer?.({ type: 'leased', address })
  }

  #close(entry: Entry): void {
    entry.driver.close()
    this.#byName.delete(entry.name)
    this.#byHardware.delete(entry.hardware)
    if (this.#byAddress.get(entry.address) === entry) {
      this.#byAddress.delete(entry.address)
      this.#options.onChange()
    }
  }
}

/** RFC 2132 §9.14: type 0, no hardware address; a name that is too long by its hash. */
function clientIdOf(name: string, hash: Uint8Array): Uint8Array {
  const text = utf8(name)
  return concatBytes(Uint8Array.of(0), text.length <= longestNameBytes ? text : hash)
}
