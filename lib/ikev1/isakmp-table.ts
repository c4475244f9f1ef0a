/**
 * The ISAKMP SAs of a server or client by cookie: where a datagram belongs, who may begin another
 * one, and which older SA a new one takes over from.
 */
import { equalBytes, toHex } from '../core/bytes.ts'
import type { Counters, FaultCounters } from '../core/faults.ts'
import type { IsakmpMachine } from './isakmp-machine.ts'
import { isSameEnds, type Path } from './path.ts'
import {
  COOKIE_BYTES,
  checkHeader,
  encodeHeader,
  HEADER_BYTES,
  HeaderFlag,
  type IsakmpHeader,
  parseHeader,
} from './wire/header.ts'
import { ExchangeType, NotifyType, PayloadType, ProtocolId } from './wire/numbers.ts'
import { encodePayloads, findPayload, parsePayloads } from './wire/payload.ts'

export interface IsakmpLimits {
  readonly mostSas: number
  /** SAs whose peer is not authenticated: of all, and of one address. */
  readonly mostHalfOpen: number
  readonly mostHalfOpenPerAddress: number
}

export const defaultIsakmpLimits: IsakmpLimits = {
  mostSas: 20_000,
  mostHalfOpen: 1_000,
  mostHalfOpenPerAddress: 20,
}

/** What a table keeps of an SA. `owner` is the listener's own. */
export interface IsakmpEntry<Owner> {
  readonly machine: IsakmpMachine
  readonly owner: Owner
  readonly peerAddress: string
}

export type IsakmpRoute<Owner> =
  | { readonly type: 'sa'; readonly entry: IsakmpEntry<Owner> }
  /**
   * A first message: `add` a machine and hand it the datagram. `evicted` is the oldest half-open SA,
   * which has to make room: close it.
   */
  | { readonly type: 'new'; readonly evicted: IsakmpEntry<Owner> | undefined }
  /** Something that we do not do; `reply` is no longer than the request. */
  | { readonly type: 'refuse'; readonly reason: string; readonly reply: Uint8Array }
  /** Counted; no answer. */
  | { readonly type: 'drop' }

const drop = { type: 'drop' } as const
const noCookie = new Uint8Array(COOKIE_BYTES)

export class IsakmpTable<Owner> {
  readonly #counters: Counters
  readonly #faults: FaultCounters
  readonly #limits: IsakmpLimits
  readonly #byOwnCookie = new Map<string, IsakmpEntry<Owner>>()
  /** SAs that a peer began, by its cookie: message 1 comes again without ours. */
  readonly #byPeerCookie = new Map<string, IsakmpEntry<Owner>>()
  /** In the order in which they began. */
  readonly #halfOpen = new Set<IsakmpEntry<Owner>>()

  constructor(counters: Counters, faults: FaultCounters, limits: Partial<IsakmpLimits> = {}) {
    this.#counters = counters
    this.#faults = faults
    this.#limits = { ...defaultIsakmpLimits, ...limits }
  }

  get size(): number {
    return this.#byOwnCookie.size
  }

  get halfOpenCount(): number {
    return this.#halfOpen.size
  }

  entries(): Iterable<IsakmpEntry<Owner>> {
    return this.#byOwnCookie.values()
  }

  /** Where a datagram (without the non-ESP marker) belongs. */
  route(bytes: Uint8Array, path: Path): IsakmpRoute<Owner> {
    const fault = checkHeader(bytes, 0, bytes.length)
    if (fault) {
      this.#faults.count(fault)
      return drop
    }
    const header = parseHeader(bytes, 0)
    if (equalBytes(header.responderCookie, noCookie)) return this.#routeFirst(bytes, header, path)
    const entry =
      this.#byOwnCookie.get(toHex(header.responderCookie)) ??
      this.#byOwnCookie.get(toHex(header.initiatorCookie))
    return entry === undefined ? this.#drop('ikev1-unknown-cookies') : { type: 'sa', entry }
  }

  /** An SA that a peer begins, after `route` said `new`. */
  addResponder(
    machine: IsakmpMachine,
    initiatorCookie: Uint8Array,
    path: Path,
    owner: Owner,
  ): IsakmpEntry<Owner> {
    const entry = this.#add(machine, path, owner)
    this.#byPeerCookie.set(toHex(initiatorCookie), entry)
    this.#halfOpen.add(entry)
    return entry
  }

  /** An SA that we begin. */
  addInitiator(machine: IsakmpMachine, path: Path, owner: Owner): IsakmpEntry<Owner> {
    return this.#add(machine, path, owner)
  }

  /** After `phase1-up`: it no longer counts as half open. */
  established(entry: IsakmpEntry<Owner>): void {
    this.#halfOpen.delete(entry)
  }

  /**
   * The older SA with the same peer, after `phase1-up`: between the same ends, same identity. Give it
   * `replaced`, and the children of its `closed` event to the new machine with `adopt`.
   */
  predecessorOf(entry: IsakmpEntry<Owner>): IsakmpEntry<Owner> | undefined {
    const mine = entry.machine
    const identity = mine.phase1?.peerIdentity
    if (identity === undefined) return undefined
    for (const other of this.#byOwnCookie.values()) {
      const theirs = other.machine
      const known = theirs.phase1?.peerIdentity
      if (other === entry || theirs.state !== 'established' || known === undefined) continue
      if (
        isSameEnds(theirs.path, mine.path) &&
        known.idType === identity.idType &&
        equalBytes(known.data, identity.data)
      ) {
        return other
      }
    }
    return undefined
  }

  /** After the machine reported `closed`. */
  remove(entry: IsakmpEntry<Owner>): void {
    const own = toHex(entry.machine.ownCookie)
    if (this.#byOwnCookie.get(own) === entry) this.#byOwnCookie.delete(own)
    const peer = toHex(entry.machine.cookies.initiatorCookie)
    if (this.#byPeerCookie.get(peer) === entry) this.#byPeerCookie.delete(peer)
    this.#halfOpen.delete(entry)
  }

  #add(machine: IsakmpMachine, path: Path, owner: Owner): IsakmpEntry<Owner> {
    const entry = { machine, owner, peerAddress: path.peer.address }
    this.#byOwnCookie.set(toHex(machine.ownCookie), entry)
    return entry
  }

  #routeFirst(bytes: Uint8Array, header: IsakmpHeader, path: Path): IsakmpRoute<Owner> {
    const known = this.#byPeerCookie.get(toHex(header.initiatorCookie))
    if (known !== undefined) {
      // A cookie that somebody else has seen does not reach another's SA.
      return known.peerAddress === path.peer.address
        ? { type: 'sa', entry: known }
        : this.#drop('ikev1-cookie-of-another')
    }
    const isPlain = (header.flags & HeaderFlag.encryption) === 0
    if (equalBytes(header.initiatorCookie, noCookie) || header.messageId !== 0 || !isPlain) {
      return this.#drop('ikev1-not-a-first-message')
    }
    if (header.exchangeType === ExchangeType.aggressive) {
      // It would hand a hash of the pre-shared key to anybody who asks.
      this.#counters.count('ikev1-aggressive-refused')
      const reply = notifyReply(header, NotifyType['INVALID-EXCHANGE-TYPE'])
      return { type: 'refuse', reason: 'aggressive mode is not offered', reply }
    }
    if (header.exchangeType !== ExchangeType.identityProtection) {
      return this.#drop('ikev1-not-a-first-message')
    }
    const parsed = parsePayloads(bytes, HEADER_BYTES, header.length, header.nextPayload)
    if (typeof parsed === 'number') {
      this.#faults.count(parsed)
      return drop
    }
    if (findPayload(parsed.payloads, 'SA') === undefined) {
      return this.#drop('ikev1-incomplete-message')
    }
    return this.#admit(path)
  }

  #admit(path: Path): IsakmpRoute<Owner> {
    if (this.#byOwnCookie.size >= this.#limits.mostSas) return this.#drop('ikev1-too-many-sas')
    let ofAddress = 0
    for (const entry of this.#halfOpen) {
      if (entry.peerAddress === path.peer.address) ofAddress++
    }
    if (ofAddress >= this.#limits.mostHalfOpenPerAddress) {
      return this.#drop('ikev1-too-many-half-open-of-address')
    }
    if (this.#halfOpen.size < this.#limits.mostHalfOpen) return { type: 'new', evicted: undefined }
    this.#counters.count('ikev1-half-open-evicted')
    const [evicted] = this.#halfOpen
    return { type: 'new', evicted }
  }

  #drop(counter: string): typeof drop {
    this.#counters.count(counter)
    return drop
  }
}

/** An unprotected notification in answer to a first message; 40 bytes, less than any of those. */
function notifyReply(request: IsakmpHeader, notifyType: number): Uint8Array {
  const body = encodePayloads([
    {
      type: 'N',
      protocolId: ProtocolId.isakmp,
      notifyType,
      spi: new Uint8Array(0),
      data: new Uint8Array(0),
    },
  ])
  const out = new Uint8Array(HEADER_BYTES + body.length)
  encodeHeader(
    {
      initiatorCookie: request.initiatorCookie,
      responderCookie: request.responderCookie,
      nextPayload: PayloadType.N,
      exchangeType: ExchangeType.informational,
      flags: 0,
      messageId: 0,
      length: out.length,
    },
    out,
    0,
  )
  out.set(body, HEADER_BYTES)
  return out
}
