/**
 * The state that the tasks of one IKE SA share, and the few verbs that they have in common. It outlives
 * rekeying: identities, path, Child SAs and configuration stay when the SPIs change.
 *
 * States: fresh - nothing sent or received; initiating - we have sent IKE_SA_INIT; authenticating - keys
 * exist, nobody has proved anything; established - both have; closed - the last event was emitted.
 */
import type { Authorization } from '../aaa/authenticator.ts'
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { Outbox } from '../core/machine.ts'
import { randomBytes, randomU32 } from '../core/random.ts'
import { TimerTable } from '../core/timers.ts'
import { Association } from './association.ts'
import type { ChildSa, SelectorPair } from './child-sa.ts'
import type { AuthenticatedBy, ChildDownReason, IkeSaEvent } from './event.ts'
import type { NoncePair } from './key-schedule.ts'
import type { NatState } from './nat-detection.ts'
import type { IkeSaHost, IkeSaOptions } from './options.ts'
import { isSamePath, type Path } from './path.ts'
import type { Task } from './task.ts'
import type { TicketState } from './ticket.ts'
import { SPI_BYTES } from './wire/header.ts'
import type { Identification } from './wire/identification.ts'

export type ConnectionState = 'fresh' | 'initiating' | 'authenticating' | 'established' | 'closed'

export type TimerName =
  | 'setup'
  | 'liveness'
  | 'ike-rekey'
  | 'ike-expire'
  | `retransmit:${number}`
  | `linger:${number}`
  | `fragments:${number}`
  | `child-rekey:${number}`
  | `child-expire:${number}`

/** What the peer has told of itself. */
export interface PeerCapabilities {
  fragments: boolean
  mobike: boolean
  childless: boolean
  redirect: boolean
  intermediate: boolean
  usesPpk: boolean
  isWindows: boolean
  /** RFC 7427 §4; empty when it wants the old methods. */
  signatureHashes: readonly number[]
  /** It signed with PSS, so it can verify PSS. */
  signsPss: boolean
}

/** What AUTH covers; kept until authentication is over. */
export interface Setup {
  nonces: NoncePair
  /** The IKE_SA_INIT messages as sent (RFC 7296 §2.15). */
  initiatorMessage: Uint8Array
  responderMessage: Uint8Array
  /** Still to be done in IKE_INTERMEDIATE before IKE_AUTH (RFC 9370 §2.2.2). */
  additionalKeyExchanges: number[]
  /** RFC 9242 §3.3: chained over the IKE_INTERMEDIATE messages. */
  intermediateInitiator: Uint8Array | undefined
  intermediateResponder: Uint8Array | undefined
  /** Message ID of the first IKE_AUTH request. */
  authMessageId: number
  /** SHA-1 hashes out of the peer's CERTREQ payloads. */
  wantedAuthorities: readonly Uint8Array[]
}

/** Who the peer turned out to be. */
export interface Authenticated {
  readonly by: AuthenticatedBy
  readonly identity: Identification
  readonly userName: string
  readonly authorization: Authorization | undefined
}

/** What is known of an IKE SA that may come back with a ticket (RFC 5723). */
export interface Resumable {
  readonly peerIdentity: Identification
  /** Ours, which the peer knows us by. */
  readonly localIdentity: Identification
  /** What is to be seen again when the peer comes with its ticket. Responder. */
  readonly memo?: Uint8Array
}

const nothing = new Uint8Array(0)
const noHashes: readonly number[] = []
const noAddresses: readonly string[] = []

export class Connection {
  readonly options: IkeSaOptions
  readonly host: IkeSaHost
  readonly outbox = new Outbox<IkeSaEvent>()
  readonly timers = new TimerTable<TimerName>()
  state: ConnectionState = 'fresh'
  isClosing = false
  path: Path
  /** Undefined until both sides have exchanged NAT detection hashes. */
  nat: NatState | undefined
  readonly peer: PeerCapabilities = {
    fragments: false,
    mobike: false,
    childless: false,
    redirect: false,
    intermediate: false,
    usesPpk: false,
    isWindows: false,
    signatureHashes: noHashes,
    signsPss: false,
  }
  #setup: Setup | undefined
  /** What a Child SA with the peer may carry, once a responder knows whom it talks to. */
  permitted: SelectorPair | undefined
  /** Undefined where there are no tickets. */
  resumable: Resumable | undefined
  /** The ticket that the IKE SA came from, until authentication is over; `memo` as responder. */
  resumption:
    | (Omit<TicketState, 'memo'> & { readonly ticket: Uint8Array; readonly memo?: Uint8Array })
    | undefined
  /** The first is the one that new exchanges use. */
  associations: readonly Association[] = []
  children: readonly ChildSa[] = []
  /** Inbound SPI of the Child SA that carries traffic. */
  activeChild: number | undefined
  /** Other addresses that the peer announced (RFC 4555 §3.4), as text. */
  peerAddresses = noAddresses
  #associationCount = 0
  #ticket = 0
  #closeCause: { readonly cause: DisconnectCause; readonly detail: string } | undefined

  constructor(options: IkeSaOptions, path: Path, host: IkeSaHost) {
    this.options = options
    this.path = path
    this.host = host
  }

  get setup(): Setup {
    this.#setup ??= {
      nonces: { initiator: nothing, responder: nothing },
      initiatorMessage: nothing,
      responderMessage: nothing,
      additionalKeyExchanges: [],
      intermediateInitiator: undefined,
      intermediateResponder: undefined,
      authMessageId: 1,
      wantedAuthorities: [],
    }
    return this.#setup
  }

  /** Authentication is over: an IKE SA lasts, and needs none of this any more. */
  forgetSetup(): void {
    this.#setup = undefined
    this.peer.signatureHashes = noHashes
    for (const association of this.associations) association.settle()
  }

  emit(event: IkeSaEvent): void {
    if (this.state !== 'closed') this.outbox.event(event)
  }

  unexpected(what: string): void {
    this.emit({ type: 'unexpected', what })
  }

  /** Whether ESP goes in UDP (RFC 7296 §2.23), or beside IKE in TCP, where it always does (RFC 9329 §3). */
  get isUdpEncapsulated(): boolean {
    const { nat, path } = this
    if (path.peer.isTcp === true) return true
    if (nat === undefined) return false
    // We said that there is a NAT before us, so the peer encapsulates, and expects the same.
    const isForced = this.options.features.forcesEncapsulation
    return isForced || nat.isLocalBehindNat || nat.isPeerBehindNat
  }

  /** A number that an answer has to repeat; the one before it is void. */
  newTicket(): number {
    return ++this.#ticket
  }

  newSpi(): Uint8Array {
    for (;;) {
      const spi = randomBytes(this.host.random, SPI_BYTES)
      if (spi.some(byte => byte !== 0)) return spi
    }
  }

  addAssociation(isInitiator: boolean, localSpi: Uint8Array): Association {
    const association = new Association(this.#associationCount++, isInitiator, localSpi)
    this.associations = this.associations.concat(association)
    this.emit({ type: 'spi-added', localSpi, isInitiatorSpi: isInitiator })
    return association
  }

  /** Makes this the association that new requests go through; waiting ones move over. */
  makeCurrent(association: Association): void {
    const old = this.associations[0]
    if (old === association || !this.associations.includes(association)) return
    this.associations = [association, ...this.#without(association)]
    if (old) {
      old.isReplaced = true
      association.queue.push(...old.queue.splice(0))
    }
  }

  dropAssociation(association: Association): void {
    if (!this.associations.includes(association)) return
    this.associations = this.#without(association)
    this.timers.clear(`retransmit:${association.index}`)
    this.timers.clear(`linger:${association.index}`)
    this.timers.clear(`fragments:${association.index}`)
    this.emit({ type: 'spi-removed', localSpi: association.localSpi })
    this.#inherit(association)
    association.destroy()
  }

  #without(association: Association): Association[] {
    return this.associations.filter(other => other !== association)
  }

  /** What an association still had to do goes on elsewhere; what was about itself does not. */
  #inherit(association: Association): void {
    const heir = this.associations.find(other => !other.isReplaced)
    if (heir === undefined) return
    this.makeCurrent(heir)
    const unanswered = association.outstanding?.task
    if (unanswered?.survivesRekey === true) heir.queue.unshift(unanswered)
    heir.queue.push(...association.queue.filter(task => task.name !== 'ike-delete'))
  }

  /** Queues a task on the current association; the machine sends it when nothing else is out. */
  enqueue(task: Task): void {
    this.associations[0]?.queue.push(task)
  }

  /** Whether a task of this name waits or is out on the current association. */
  hasTask(name: string): boolean {
    const current = this.associations[0]
    return (
      current?.outstanding?.task.name === name ||
      current?.queue.some(task => task.name === name) === true
    )
  }

  /** A delay cut by the jitter. */
  jittered(delayMs: number): number {
    const share = randomU32(this.host.random) / 2 ** 32
    return delayMs * (1 - this.options.timing.rekeyJitter * share)
  }

  child(inboundSpi: number | undefined): ChildSa | undefined {
    return this.children.find(child => child.inboundSpi === inboundSpi)
  }

  addChild(child: ChildSa): void {
    this.children = this.children.concat(child)
  }

  removeChild(child: ChildSa, reason: ChildDownReason): void {
    if (!this.children.includes(child)) return
    this.children = this.children.filter(other => other !== child)
    this.timers.clear(`child-rekey:${child.inboundSpi}`)
    this.timers.clear(`child-expire:${child.inboundSpi}`)
    // Traffic goes on through what came in its place, before the old one disappears.
    if (this.activeChild === child.inboundSpi) this.#activateReplacement(child)
    this.emit({ type: 'child-down', inboundSpi: child.inboundSpi, reason })
  }

  activate(child: ChildSa): void {
    if (this.activeChild === child.inboundSpi) return
    this.activeChild = child.inboundSpi
    this.emit({ type: 'child-active', inboundSpi: child.inboundSpi })
  }

  #activateReplacement(child: ChildSa): void {
    this.activeChild = undefined
    const next = this.child(child.replacedBy) ?? this.children.find(other => !other.isDeleting)
    if (next !== undefined) this.activate(next)
  }

  /** Follows the peer or ourselves to another path. */
  move(path: Path, nat: NatState | undefined): void {
    const wasEncapsulated = this.isUdpEncapsulated
    const isSame = isSamePath(this.path, path)
    this.path = path
    if (nat !== undefined) this.nat = nat
    if (this.state !== 'established') return
    if (isSame && wasEncapsulated === this.isUdpEncapsulated) return
    this.emit({ type: 'moved', path, isUdpEncapsulated: this.isUdpEncapsulated })
  }

  /** The reason that `closed` will give once the peer has answered our Delete. */
  beginClosing(cause: DisconnectCause, detail: string): void {
    this.isClosing = true
    this.#closeCause ??= { cause, detail }
  }

  /** Ends everything at once. A reason given to `beginClosing` wins. */
  close(cause: DisconnectCause, detail: string): void {
    if (this.state === 'closed') return
    const reason = this.#closeCause ?? { cause, detail }
    this.activeChild = undefined
    for (const child of this.children) this.removeChild(child, 'ike-closed')
    for (const association of this.associations) this.dropAssociation(association)
    this.timers.clearAll()
    this.newTicket()
    this.emit({ type: 'closed', ...reason })
    this.state = 'closed'
  }

  /** A request was never answered (RFC 7296 §2.4). */
  giveUp(association: Association): void {
    if (association.isReplaced || this.associations[0] !== association) {
      this.dropAssociation(association)
      return
    }
    const wasEstablished = this.state === 'established'
    this.close(wasEstablished ? 'lost-carrier' : 'setup-timeout', 'no-answer')
  }
}
