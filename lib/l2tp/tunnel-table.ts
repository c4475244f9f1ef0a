/**
 * The tunnels of a server or client by tunnel ID and peer: where a control message belongs, who may
 * open another tunnel, and which IDs are free. A peer is named by a key of its owner's choice; inside
 * IPsec that is the security association, never the UDP address (two clients behind one NAT share
 * it).
 */
import type { Counters, FaultCounters } from '../core/faults.ts'
import type { RandomSource } from '../core/random.ts'
import type { Secret } from '../core/secret.ts'
import { createAvpHiding } from './avp-hiding.ts'
import { stopReason } from './close-reason.ts'
import { fullCycleMs } from './control-channel.ts'
import { randomId } from './random-id.ts'
import type { TunnelMachine } from './tunnel-machine.ts'
import { checkHeader, encodeControlHeader, isControl, nsOf, tunnelIdOf } from './wire/header.ts'
import { type AvpHiding, encodeControl, parseControl } from './wire/message.ts'

export interface TunnelLimits {
  readonly mostTunnels: number
  /** Tunnels that are not established, of all peers. */
  readonly mostHalfOpen: number
  readonly mostPerPeer: number
}

export const defaultTunnelLimits: TunnelLimits = {
  mostTunnels: 20_000,
  mostHalfOpen: 1_000,
  mostPerPeer: 4,
}

export interface TunnelTableOptions {
  readonly random: RandomSource
  readonly counters: Counters
  readonly faults: FaultCounters
  readonly limits?: Partial<TunnelLimits>
  /** The tunnel secret: SCCRQs may hide their Assigned Tunnel ID. */
  readonly secret?: Secret
}

/** What a table keeps of a tunnel. `owner` is the listener's own. */
export interface Tunnel<Owner> {
  readonly machine: TunnelMachine
  readonly peerKey: string
  readonly createdMs: number
  readonly owner: Owner
}

export type TunnelRoute<Owner> =
  /** Hand the message to this tunnel's machine. When that reports `tie-lost`, route it again. */
  | { readonly type: 'tunnel'; readonly tunnel: Tunnel<Owner> }
  /** A good request for a new tunnel: `add` one and hand it the message. */
  | { readonly type: 'new' }
  /** Not now: send `reply`, keep nothing. */
  | { readonly type: 'refuse'; readonly reply: Uint8Array }
  /** Counted; no answer. */
  | { readonly type: 'drop' }

const drop = { type: 'drop' } as const

export class TunnelTable<Owner> {
  readonly #options: TunnelTableOptions
  readonly #limits: TunnelLimits
  readonly #hiding: AvpHiding | undefined
  readonly #tunnels = new Map<number, Tunnel<Owner>>()
  readonly #byPeer = new Map<string, Set<Tunnel<Owner>>>()
  /** IDs that were half open when last looked at. */
  readonly #halfOpen = new Set<number>()

  constructor(options: TunnelTableOptions) {
    this.#options = options
    this.#limits = { ...defaultTunnelLimits, ...options.limits }
    this.#hiding =
      options.secret === undefined ? undefined : createAvpHiding(options.secret, options.random)
  }

  get size(): number {
    return this.#tunnels.size
  }

  /** The tunnel that a data or control message for `tunnelId` belongs to, if it is this peer's. */
  get(tunnelId: number, peerKey: string): Tunnel<Owner> | undefined {
    const tunnel = this.#tunnels.get(tunnelId)
    if (tunnel === undefined) {
      this.#options.counters.count('l2tp-unknown-tunnel')
      return undefined
    }
    if (tunnel.peerKey !== peerKey) {
      this.#options.counters.count('l2tp-tunnel-of-another-peer')
      return undefined
    }
    return tunnel
  }

  tunnels(): Iterable<Tunnel<Owner>> {
    return this.#tunnels.values()
  }

  /** Where a control message from `peerKey` belongs. */
  route(bytes: Uint8Array, peerKey: string, nowMs: number): TunnelRoute<Owner> {
    const fault = checkHeader(bytes, 0, bytes.length)
    if (fault) {
      this.#options.faults.count(fault)
      return drop
    }
    if (!isControl(bytes, 0)) return this.#drop('l2tp-data-at-control')
    const tunnelId = tunnelIdOf(bytes, 0)
    if (tunnelId !== 0) {
      const tunnel = this.get(tunnelId, peerKey)
      return tunnel === undefined ? drop : { type: 'tunnel', tunnel }
    }
    const parsed = parseControl(bytes, 0, bytes.length, this.#hiding)
    if (parsed.type === 'malformed') {
      this.#options.faults.count(parsed.fault)
      return drop
    }
    if (parsed.type !== 'message') return this.#drop('l2tp-unknown-tunnel')
    const { message } = parsed
    if (message.type === 'stopccn') {
      // The peer gives up before it has learnt our tunnel ID.
      const tunnel = this.#find(peerKey, message.assignedTunnelId ?? 0)
      return tunnel === undefined ? this.#drop('l2tp-unknown-tunnel') : { type: 'tunnel', tunnel }
    }
    if (message.type !== 'sccrq') return this.#drop('l2tp-unknown-tunnel')
    if (nsOf(bytes, 0) !== 0 || message.assignedTunnelId === 0) {
      return this.#drop('l2tp-bad-request')
    }
    const known = this.#find(peerKey, message.assignedTunnelId)
    // The same ID a good while later is a peer that started again, not a repetition.
    if (known !== undefined && nowMs - known.createdMs < fullCycleMs) {
      return { type: 'tunnel', tunnel: known }
    }
    for (const tunnel of this.#byPeer.get(peerKey) ?? []) {
      if (tunnel.machine.state === 'wait-ctl-reply') return { type: 'tunnel', tunnel }
    }
    const refusal = this.#refusal(peerKey)
    if (refusal === undefined) return { type: 'new' }
    this.#options.counters.count(refusal)
    return { type: 'refuse', reply: refuse(message.assignedTunnelId) }
  }

  /**
   * Adds the tunnel that `make` builds for a free ID. For requests of peers only after `route` said
   * `new`; our own tunnels have no limit but the space of IDs.
   */
  add(
    peerKey: string,
    owner: Owner,
    nowMs: number,
    make: (localTunnelId: number) => TunnelMachine,
  ): Tunnel<Owner> {
    const id = randomId(this.#options.random, used => this.#tunnels.has(used))
    const tunnel = { machine: make(id), peerKey, createdMs: nowMs, owner }
    this.#tunnels.set(id, tunnel)
    this.#halfOpen.add(id)
    const ofPeer = this.#byPeer.get(peerKey)
    if (ofPeer === undefined) this.#byPeer.set(peerKey, new Set([tunnel]))
    else ofPeer.add(tunnel)
    return tunnel
  }

  /** After the machine reported `closed`. */
  remove(tunnel: Tunnel<Owner>): void {
    const id = tunnel.machine.localTunnelId
    if (this.#tunnels.get(id) !== tunnel) return
    this.#tunnels.delete(id)
    this.#halfOpen.delete(id)
    const ofPeer = this.#byPeer.get(tunnel.peerKey)
    ofPeer?.delete(tunnel)
    if (ofPeer?.size === 0) this.#byPeer.delete(tunnel.peerKey)
  }

  /** The tunnels of one peer, for the day its security association ends. */
  ofPeer(peerKey: string): readonly Tunnel<Owner>[] {
    return [...(this.#byPeer.get(peerKey) ?? [])]
  }

  #find(peerKey: string, peerTunnelId: number): Tunnel<Owner> | undefined {
    let found: Tunnel<Owner> | undefined
    for (const tunnel of this.#byPeer.get(peerKey) ?? []) {
      const { machine } = tunnel
      // The newest: sets keep the order of insertion.
      if (machine.peerTunnelId === peerTunnelId && machine.state !== 'closing') found = tunnel
    }
    return found
  }

  #refusal(peerKey: string): string | undefined {
    if (this.#tunnels.size >= this.#limits.mostTunnels) return 'l2tp-too-many-tunnels'
    if ((this.#byPeer.get(peerKey)?.size ?? 0) >= this.#limits.mostPerPeer) {
      return 'l2tp-too-many-of-peer'
    }
    if (this.#halfOpen.size < this.#limits.mostHalfOpen) return undefined
    for (const id of this.#halfOpen) {
      const state = this.#tunnels.get(id)?.machine.state
      if (state === 'established') this.#halfOpen.delete(id)
    }
    return this.#halfOpen.size < this.#limits.mostHalfOpen ? undefined : 'l2tp-too-many-half-open'
  }

  #drop(counter: string): typeof drop {
    this.#options.counters.count(counter)
    return drop
  }
}

/** A StopCCN for a tunnel that never was: smaller than any request. Its sender repeats nothing. */
function refuse(peerTunnelId: number): Uint8Array {
  const { result, error } = stopReason('session-limit', '')
  const bytes = encodeControl({ type: 'stopccn', resultCode: { result, error, message: '' } })
  encodeControlHeader(bytes, 0, bytes.length, peerTunnelId, 0, 0, 1)
  return bytes
}
