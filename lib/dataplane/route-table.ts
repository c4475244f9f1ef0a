/**
 * Which session a destination belongs to: longest prefix first, one hash table per prefix length that
 * is in use. A host route costs one probe; nothing is allocated or turned into text per lookup.
 */
import { u32 } from '../core/bytes.ts'
import { ipv4Mask } from '../core/ip-address.ts'

/** Spreads the bits of a key (Fibonacci hashing); the upper bits are the good ones. */
const MULTIPLIER = 0x9e3779b1
const INITIAL_SLOT_BITS = 4

/**
 * Networks of one prefix length. Open addressing with linear probing; keys are 1 (IPv4) or 4 (IPv6)
 * words of 32 bits, host bits cleared. At most half full.
 */
class PrefixHash<Owner> {
  readonly prefixLength: number
  readonly #words: number
  /** Network mask, one word each. */
  readonly #mask: Int32Array
  #slotBits = INITIAL_SLOT_BITS
  #keys: Int32Array
  #owners: (Owner | undefined)[]
  #count = 0
  readonly #sought: Int32Array

  constructor(prefixLength: number, words: number) {
    this.prefixLength = prefixLength
    this.#words = words
    this.#mask = new Int32Array(words)
    for (let i = 0; i < words; i++) {
      this.#mask[i] = ipv4Mask(Math.max(0, Math.min(32, prefixLength - 32 * i)))
    }
    this.#sought = new Int32Array(words)
    this.#keys = new Int32Array(words << this.#slotBits)
    this.#owners = new Array<Owner | undefined>(1 << this.#slotBits).fill(undefined)
  }

  get count(): number {
    return this.#count
  }

  get(key: Int32Array): Owner | undefined {
    const words = this.#words
    const sought = this.#sought
    for (let i = 0; i < words; i++) sought[i] = (key[i] ?? 0) & (this.#mask[i] ?? 0)
    return this.#owners[this.#slotOf(sought)]
  }

  /** The newest owner of a network has it. */
  set(key: Int32Array, owner: Owner): void {
    const network = key.map((word, i) => word & (this.#mask[i] ?? 0))
    if (this.#count * 2 >= this.#owners.length) this.#grow()
    const slot = this.#slotOf(network)
    if (this.#owners[slot] === undefined) this.#count++
    this.#keys.set(network, slot * this.#words)
    this.#owners[slot] = owner
  }

  delete(key: Int32Array, owner: Owner): boolean {
    const slot = this.#slotOf(key.map((word, i) => word & (this.#mask[i] ?? 0)))
    if (this.#owners[slot] !== owner) return false
    this.#deleteSlot(slot)
    return true
  }

  /** The slot that holds the network, or the empty one where it would be put. */
  #slotOf(network: Int32Array): number {
    const last = this.#owners.length - 1
    let slot = this.#home(network, 0)
    while (this.#owners[slot] !== undefined && !this.#isKeyAt(slot, network)) {
      slot = (slot + 1) & last
    }
    return slot
  }

  #isKeyAt(slot: number, network: Int32Array): boolean {
    const words = this.#words
    for (let i = 0; i < words; i++) {
      if (this.#keys[slot * words + i] !== network[i]) return false
    }
    return true
  }

  #home(keys: Int32Array, at: number): number {
    const words = this.#words
    let hash = 0
    for (let i = 0; i < words; i++) hash = Math.imul(hash ^ (keys[at + i] ?? 0), MULTIPLIER)
    return hash >>> (32 - this.#slotBits)
  }

  #grow(): void {
    const { length } = this.#owners
    const oldKeys = this.#keys
    const oldOwners = this.#owners
    const words = this.#words
    this.#slotBits++
    this.#keys = new Int32Array(words * length * 2)
    this.#owners = new Array<Owner | undefined>(length * 2).fill(undefined)
    for (let old = 0; old < length; old++) {
      const owner = oldOwners[old]
      if (owner === undefined) continue
      const network = oldKeys.subarray(old * words, (old + 1) * words)
      const slot = this.#slotOf(network)
      this.#keys.set(network, slot * words)
      this.#owners[slot] = owner
    }
  }

  /** Closes the gap, so that probing needs no marks for what was deleted. */
  #deleteSlot(slot: number): void {
    const words = this.#words
    const last = this.#owners.length - 1
    let gap = slot
    for (let next = (gap + 1) & last; this.#owners[next] !== undefined; next = (next + 1) & last) {
      const home = this.#home(this.#keys, next * words)
      // An entry may move back to the gap unless its home lies behind the gap.
      if (((next - home) & last) >= ((next - gap) & last)) {
        this.#keys.copyWithin(gap * words, next * words, (next + 1) * words)
        this.#owners[gap] = this.#owners[next]
        gap = next
      }
    }
    this.#owners[gap] = undefined
    this.#count--
  }
}

/** Tables of one address family, longest prefix first. */
class PrefixTables<Owner> {
  readonly #words: number
  #tables: readonly PrefixHash<Owner>[] = []

  constructor(words: number) {
    this.#words = words
  }

  get(key: Int32Array): Owner | undefined {
    const tables = this.#tables
    for (let i = 0; i < tables.length; i++) {
      const owner = tables[i]?.get(key)
      if (owner !== undefined) return owner
    }
    return undefined
  }

  set(key: Int32Array, prefixLength: number, owner: Owner): void {
    let table = this.#tables.find(candidate => candidate.prefixLength === prefixLength)
    if (table === undefined) {
      table = new PrefixHash<Owner>(prefixLength, this.#words)
      this.#tables = [...this.#tables, table].sort((a, b) => b.prefixLength - a.prefixLength)
    }
    table.set(key, owner)
  }

  delete(key: Int32Array, prefixLength: number, owner: Owner): boolean {
    const table = this.#tables.find(one => one.prefixLength === prefixLength)
    const isDeleted = table?.delete(key, owner) ?? false
    this.#tables = this.#tables.filter(({ count }) => count > 0)
    return isDeleted
  }
}

/** A network that an owner added, kept to take it out again. */
interface Entry {
  /** IPv4 as a number, which takes less than an array: most owners have one such address. */
  readonly network: number | Int32Array
  readonly prefixLength: number
}

function keyOf(network: Entry['network']): Int32Array {
  return typeof network === 'number' ? Int32Array.of(network) : network
}

function isSameNetwork(a: Entry['network'], b: Entry['network']): boolean {
  if (typeof a === 'number' || typeof b === 'number') return a === b
  return a.every((word, i) => word === b[i])
}

export class RouteTable<Owner extends object> {
  readonly #ipv4 = new PrefixTables<Owner>(1)
  readonly #ipv6 = new PrefixTables<Owner>(4)
  readonly #entries = new Map<Owner, Entry[]>()
  readonly #key4 = new Int32Array(1)
  readonly #key6 = new Int32Array(4)
  /** Changes with every change of the table: what a caller remembers of it is then out of date. */
  generation = 0
  // The last IPv4 answer: bursts go to few destinations.
  #lastAddress = 0
  #lastOwner: Owner | undefined
  #hasLast = false

  /** The owner of the longest network that holds `address` (host order). */
  lookupIpv4(address: number): Owner | undefined {
    if (this.#hasLast && this.#lastAddress === address) return this.#lastOwner
    const owner = this.searchIpv4(address)
    this.#lastAddress = address
    this.#lastOwner = owner
    this.#hasLast = true
    return owner
  }

  /** `lookupIpv4` that neither uses nor changes what is remembered of the last one. */
  searchIpv4(address: number): Owner | undefined {
    this.#key4[0] = address
    return this.#ipv4.get(this.#key4)
  }

  /** The same for the 16 bytes at `at`. */
  lookupIpv6(bytes: Uint8Array, at: number): Owner | undefined {
    const key = this.#key6
    key[0] = u32(bytes, at)
    key[1] = u32(bytes, at + 4)
    key[2] = u32(bytes, at + 8)
    key[3] = u32(bytes, at + 12)
    return this.#ipv6.get(key)
  }

  /** A network that another owner has goes over to `owner`. */
  addIpv4(address: number, prefixLength: number, owner: Owner): void {
    this.#ipv4.set(keyOf(address), prefixLength, owner)
    this.#remember(owner, { network: address, prefixLength })
  }

  addIpv6(prefix: Uint8Array, prefixLength: number, owner: Owner): void {
    const key = Int32Array.of(u32(prefix, 0), u32(prefix, 4), u32(prefix, 8), u32(prefix, 12))
    this.#ipv6.set(key, prefixLength, owner)
    this.#remember(owner, { network: key, prefixLength })
  }

  /** False when `owner` does not have the network. */
  deleteIpv4(address: number, prefixLength: number, owner: Owner): boolean {
    return this.#delete(this.#ipv4, address, prefixLength, owner)
  }

  deleteIpv6(prefix: Uint8Array, prefixLength: number, owner: Owner): boolean {
    const key = Int32Array.of(u32(prefix, 0), u32(prefix, 4), u32(prefix, 8), u32(prefix, 12))
    return this.#delete(this.#ipv6, key, prefixLength, owner)
  }

  /** Forgets what `owner` still has. */
  deleteOwner(owner: Owner): void {
    for (const { network, prefixLength } of this.#entries.get(owner) ?? []) {
      const tables = typeof network === 'number' ? this.#ipv4 : this.#ipv6
      tables.delete(keyOf(network), prefixLength, owner)
    }
    this.#entries.delete(owner)
    this.#forgetLast()
  }

  #delete(
    tables: PrefixTables<Owner>,
    network: Entry['network'],
    prefixLength: number,
    owner: Owner,
  ): boolean {
    const isDeleted = tables.delete(keyOf(network), prefixLength, owner)
    const left = (this.#entries.get(owner) ?? []).filter(
      entry => entry.prefixLength !== prefixLength || !isSameNetwork(entry.network, network),
    )
    if (left.length > 0) this.#entries.set(owner, left)
    else this.#entries.delete(owner)
    this.#forgetLast()
    return isDeleted
  }

  #remember(owner: Owner, entry: Entry): void {
    const entries = this.#entries.get(owner)
    if (entries === undefined) this.#entries.set(owner, [entry])
    else entries.push(entry)
    this.#forgetLast()
  }

  #forgetLast(): void {
    this.generation++
    this.#hasLast = false
    this.#lastOwner = undefined
  }
}
