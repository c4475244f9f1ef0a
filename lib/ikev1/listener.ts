/**
 * IKEv1 on the sockets of IPsec: finds the ISAKMP SA that a message is for, lets strangers in one by
 * one, and keeps peers over the replacement of their SAs, by them or by us.
 */
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { Counters, FaultCounters } from '../core/faults.ts'
import type { WheelEntry } from '../core/timers.ts'
import type { DatagramRoute, Envelope } from '../dataplane/datagrams.ts'
import type { IkeHandler } from '../ipsec/ike-sockets.ts'
import type { Child, IsakmpEvent } from './event.ts'
import {
  IsakmpConnection,
  type IsakmpServices,
  type IsakmpSettings,
  pathOf,
} from './isakmp-connection.ts'
import { udpL2tp } from './isakmp-options.ts'
import { type IsakmpEntry, type IsakmpLimits, IsakmpTable } from './isakmp-table.ts'
import { isSameEnds, type Path } from './path.ts'
import { type PeerService, SecuredPeer } from './secured-peer.ts'
import { parseHeader } from './wire/header.ts'
import { type Identification, isSameIdentification } from './wire/payload.ts'

/** What the listener does not decide. */
export interface Ikev1Owner {
  /** How new ISAKMP SAs are made; looked up for each. */
  readonly settings: Omit<IsakmpSettings, 'counters' | 'faults'>
  /** A peer has its first ESP pair. Undefined turns it away. */
  open(peer: SecuredPeer): PeerService | undefined
  /** Everything that a log may want. */
  event(peer: string, event: IsakmpEvent): void
}

export interface Ikev1ListenerOptions extends IsakmpServices {
  readonly owner: Ikev1Owner
  readonly limits?: Partial<IsakmpLimits>
}

export interface Ikev1Status {
  readonly established: number
  readonly halfOpen: number
  /** Peers with ESP. */
  readonly peers: number
  /** Everything that was refused or is out of the ordinary, by reason. */
  readonly counters: Readonly<Record<string, number>>
}

/** A peer whose ISAKMP SA has ended before its pairs have. */
interface Orphan extends WheelEntry {
  readonly peer: SecuredPeer
  readonly identity: Identification
  readonly path: Path
  readonly children: readonly Child[]
}

/** How long `stop` leaves for deletions on their way out, ms. */
const stopPatienceMs = 200
/** Pairs without a limit of time and without an ISAKMP SA end after this, ms. */
const orphanMs = 3_600_000

export class Ikev1Listener implements IkeHandler {
  readonly #options: Ikev1ListenerOptions
  readonly #counters = new Counters()
  readonly #faults = new FaultCounters()
  readonly #table: IsakmpTable<IsakmpConnection>
  readonly #peers = new Set<SecuredPeer>()
  readonly #orphans = new Map<SecuredPeer, Orphan>()
  readonly #connectionOf = new WeakMap<SecuredPeer, IsakmpConnection>()
  #lastPeer = 0
  #isStopping = false

  constructor(options: Ikev1ListenerOptions) {
    this.#options = options
    this.#table = new IsakmpTable(this.#counters, this.#faults, options.limits)
    options.sockets.handle(1, this)
  }

  status(): Ikev1Status {
    return {
      established: this.#table.size - this.#table.halfOpenCount,
      halfOpen: this.#table.halfOpenCount,
      peers: [...this.#peers].filter(peer => !peer.isIdle).length,
      counters: { ...this.#counters.toJSON(), ...this.#faults.toJSON() },
    }
  }

  /** Takes nobody in any more, tells the peers, and ends. */
  async stop(): Promise<void> {
    this.#isStopping = true
    const entries = [...this.#table.entries()]
    for (const { owner } of entries) owner.handle({ type: 'close', cause: 'nas-reboot' })
    for (const { peer } of [...this.#orphans.values()]) this.#end(peer, 'nas-reboot')
    if (entries.length === 0) return
    await new Promise(resolve => setTimeout(resolve, stopPatienceMs))
  }

  message(received: Uint8Array, envelope: Envelope): void {
    // copied: machines may keep parts of it
    const bytes = Uint8Array.from(received)
    const path = pathOf(envelope)
    const route = this.#table.route(bytes, path)
    switch (route.type) {
      case 'sa':
        route.entry.owner.handle({ type: 'packet', bytes, path })
        return
      case 'refuse':
        this.#options.sockets.send(this.#options.sockets.routeBack(envelope), route.reply)
        return
      case 'drop':
        return
      case 'new':
        break
    }
    if (this.#isStopping) {
      this.#counters.count('ikev1-stopping')
      return
    }
    route.evicted?.owner.handle({ type: 'close', cause: 'setup-timeout' })
    const connection = this.#makeConnection()
    const { initiatorCookie } = parseHeader(bytes, 0)
    const { machine } = connection
    connection.entry = this.#table.addResponder(machine, initiatorCookie, path, connection)
    connection.handle({ type: 'packet', bytes, path })
  }

  /** Dials: asks the peer at the end of `path` for an ESP pair. */
  dial(path: Path): IsakmpConnection {
    const connection = this.#open(path)
    connection.handle({ type: 'open-child', request: { reference: 0 } })
    return connection
  }

  #open(path: Path): IsakmpConnection {
    const connection = this.#makeConnection()
    connection.entry = this.#table.addInitiator(connection.machine, path, connection)
    connection.handle({ type: 'open', path })
    return connection
  }

  #makeConnection(): IsakmpConnection {
    return new IsakmpConnection(
      { ...this.#options.owner.settings, counters: this.#counters, faults: this.#faults },
      this.#options,
      { event: (connection, event) => this.#onEvent(connection, event) },
    )
  }

  #onEvent(connection: IsakmpConnection, event: IsakmpEvent): void {
    const peer = connection.peer
    switch (event.type) {
      case 'phase1-up':
        this.#established(connection, event.path)
        break
      case 'rekey-due':
        this.#open(connection.machine.path)
        break
      case 'closed':
        this.#onClosed(connection, event)
        break
      default:
        break
    }
    this.#options.owner.event(peer?.key ?? connection.peer?.key ?? '', event)
  }

  #established(connection: IsakmpConnection, path: Path): void {
    const { entry } = connection
    const identity = connection.machine.phase1?.peerIdentity
    if (entry === undefined || identity === undefined) return
    this.#table.established(entry)
    const isPeerNew = connection.machine.phase1?.isPeerNew === true
    const before = this.#table.predecessorOf(entry)
    const orphan = this.#orphanOf(identity, path)
    if (isPeerNew) {
      // It has started anew: what it had before is nothing to it any more.
      if (orphan !== undefined) this.#end(orphan.peer, 'replaced')
      this.#forget(before)
    } else if (before !== undefined) {
      this.#succeed(before, connection)
    } else if (orphan !== undefined) {
      this.#orphans.delete(orphan.peer)
      this.#options.wheel.cancel(orphan)
      this.#take(connection, orphan.peer, orphan.children)
    }
    if (connection.peer !== undefined) return
    const route = this.#options.sockets.routeTo(path.local, path.peer)
    if (route === undefined) connection.handle({ type: 'close', cause: 'nas-error' })
    else this.#take(connection, this.#makePeer(route), [])
  }

  /** Its pairs are the new connection's from now on. */
  #succeed(before: IsakmpEntry<IsakmpConnection>, connection: IsakmpConnection): void {
    const { owner } = before
    const { peer } = owner
    const { children } = before.machine
    if (peer === undefined) return
    owner.detach()
    this.#take(connection, peer, children)
    owner.handle({ type: 'replaced' })
  }

  #take(connection: IsakmpConnection, peer: SecuredPeer, children: readonly Child[]): void {
    connection.attach(peer)
    this.#connectionOf.set(peer, connection)
    if (children.length > 0) connection.handle({ type: 'adopt', children })
  }

  #forget(before: IsakmpEntry<IsakmpConnection> | undefined): void {
    const peer = before?.owner.peer
    if (before === undefined) return
    before.owner.detach()
    before.owner.handle({ type: 'replaced' })
    if (peer !== undefined) this.#end(peer, 'replaced')
  }

  #makePeer(route: DatagramRoute): SecuredPeer {
    const { memory, sender, database, owner } = this.#options
    this.#lastPeer++
    return new SecuredPeer({
      key: `peer-${this.#lastPeer}`,
      memory,
      sender,
      database,
      service: owner.settings.service ?? udpL2tp,
      route,
      open: peer => {
        const service = owner.open(peer)
        if (service !== undefined) this.#peers.add(peer)
        return service
      },
      onOtherPath: (peer, envelope) => this.#connectionOf.get(peer)?.otherPath(envelope),
      onUsed: (peer, inboundSpi) =>
        this.#connectionOf.get(peer)?.handle({ type: 'traffic', inboundSpi }),
    })
  }

  #onClosed(
    connection: IsakmpConnection,
    { cause, children }: Extract<IsakmpEvent, { type: 'closed' }>,
  ): void {
    const { entry, peer } = connection
    if (entry !== undefined) this.#table.remove(entry)
    if (peer === undefined) return
    connection.detach()
    const identity = connection.machine.phase1?.peerIdentity
    if (children.length === 0 || identity === undefined || this.#isStopping) {
      this.#end(peer, cause)
      return
    }
    const orphan = {
      peer,
      identity,
      path: connection.machine.path,
      children,
      onDeadline: () => this.#end(peer, 'session-timeout'),
    }
    this.#orphans.set(peer, orphan)
    const { wheel, clock } = this.#options
    wheel.schedule(orphan, Math.max(...children.map(endOf), clock.nowMs()))
  }

  /** RFC 2408 §5.15: pairs live on without their ISAKMP SA, and a new one of the same peer gets them. */
  #orphanOf(identity: Identification, path: Path): Orphan | undefined {
    for (const orphan of this.#orphans.values()) {
      const { identity: known } = orphan
      if (isSameEnds(orphan.path, path) && isSameIdentification(known, identity)) return orphan
    }
    return undefined
  }

  #end(peer: SecuredPeer, cause: DisconnectCause): void {
    const orphan = this.#orphans.get(peer)
    if (orphan !== undefined) this.#options.wheel.cancel(orphan)
    this.#orphans.delete(peer)
    this.#peers.delete(peer)
    for (const counts of [peer.counters.toJSON(), peer.esp.drops]) {
      for (const [name, count] of Object.entries(counts)) this.#counters.count(name, count)
    }
    peer.close(cause)
  }
}

function endOf({ createdMs, lifetimes }: Child): number {
  return createdMs + (lifetimes.seconds > 0 ? lifetimes.seconds * 1000 : orphanMs)
}
