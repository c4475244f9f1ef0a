/** Rekeying the IKE SA, with collisions: RFC 7296 §1.3.2, §2.8.2, §2.18, §2.25.2; RFC 9370 §2.2.4. */
import { copyBytes, putU16, u16 } from '../../core/bytes.ts'
import { randomBytes } from '../../core/random.ts'
import type { Secret } from '../../core/secret.ts'
import type { KeyExchangeOffer } from '../../crypto/key-exchange.ts'
import { keyExchange } from '../../crypto/key-exchanges.ts'
import type { Association } from '../association.ts'
import { lowestNonce } from '../child-sa.ts'
import type { Connection } from '../connection.ts'
import { ikeKeys, type NoncePair, rekeySkeyseed } from '../key-schedule.ts'
import { chooseIke, ikeProposals, isAnswer } from '../proposal.ts'
import type { IkeAlgorithms, IkeSuite } from '../suite.ts'
import type { Answer, IncomingMessage, Task } from '../task.ts'
import { SPI_BYTES } from '../wire/header.ts'
import { findNotify, findPayload } from '../wire/message.ts'
import { notify } from '../wire/notify.ts'
import { NotifyType } from '../wire/notify-type.ts'
import type { Payload } from '../wire/payload.ts'
import { errorName } from './child-create.ts'
import { answerFollowUp, suspendRekey } from './followup-key-exchange.ts'
import { logKeys, OUR_NONCE_BYTES } from './ike-init.ts'
import { IkeDelete } from './informational.ts'
import { TicketRequest } from './ticket-request.ts'

/** The group of the IKE SA first: Windows falls back to its own default otherwise. */
function algorithmsFor(connection: Connection, association: Association): IkeAlgorithms {
  const { ikeAlgorithms } = connection.options
  const group = association.suite?.keyExchangeId
  const { keyExchange: groups } = ikeAlgorithms
  const ordered =
    group !== undefined && groups.includes(group)
      ? [group, ...groups.filter(other => other !== group)]
      : groups
  // Of further key exchanges the first one is enough: SK_d carries it on.
  return { ...ikeAlgorithms, keyExchange: ordered, additionalKeyExchange: [] }
}

interface NewKeys {
  readonly old: Association
  readonly suite: IkeSuite
  readonly nonces: NoncePair
  readonly sharedSecret: Secret
  /** Of further key exchanges. */
  readonly additional?: readonly Secret[]
  readonly isInitiator: boolean
  readonly localSpi: Uint8Array
  readonly peerSpi: Uint8Array
}

/** The new association, with keys out of the old one's SK_d and PRF. */
function addRekeyed(connection: Connection, made: NewKeys): Association | undefined {
  const { suite: oldSuite, keys: oldKeys } = made.old
  if (oldSuite === undefined || oldKeys === undefined) return undefined
  const association = connection.addAssociation(made.isInitiator, made.localSpi)
  association.peerSpi = made.peerSpi
  const skeyseed = rekeySkeyseed(
    oldSuite.prf,
    oldKeys.d,
    made.nonces,
    made.sharedSecret,
    made.additional,
  )
  made.sharedSecret.destroy()
  association.install(made.suite, ikeKeys(made.suite, skeyseed, made.nonces, association.spis))
  logKeys(connection, association)
  return association
}

/** New exchanges use this one from now on; its clocks start. */
function takeOver(connection: Connection, association: Association, nowMs: number): void {
  connection.makeCurrent(association)
  startIkeClocks(connection, nowMs)
  connection.emit({ type: 'ike-rekeyed' })
  if (connection.options.features.requestsTicket) connection.enqueue(new TicketRequest())
}

export function startIkeClocks(connection: Connection, nowMs: number): void {
  const { ikeRekeyMs, ikeExpireMs } = connection.options.timing
  if (ikeRekeyMs > 0) connection.timers.set('ike-rekey', nowMs + connection.jittered(ikeRekeyMs))
  if (ikeExpireMs > 0) connection.timers.set('ike-expire', nowMs + ikeExpireMs)
}

export class IkeRekey implements Task {
  readonly name = 'ike-rekey'
  readonly exchange = 'CREATE_CHILD_SA'
  #localSpi: Uint8Array = new Uint8Array(SPI_BYTES)
  #nonce: Uint8Array = new Uint8Array(0)
  #group = 0
  #tried: number[] = []
  #offer: KeyExchangeOffer | undefined
  /** The peer's rekeying, which we answered while ours was out. */
  #collision: { readonly nonces: NoncePair; readonly association: Association } | undefined

  build(connection: Connection, association: Association): readonly Payload[] | undefined {
    if (association.isReplaced || connection.isClosing) return undefined
    const algorithms = algorithmsFor(connection, association)
    if (this.#group === 0) this.#group = algorithms.keyExchange[0] ?? 0
    this.#tried.push(this.#group)
    const { random } = connection.host
    this.#offer = keyExchange(this.#group)?.offer(random)
    if (this.#offer === undefined) return undefined
    this.#localSpi = connection.newSpi()
    this.#nonce = randomBytes(random, OUR_NONCE_BYTES)
    return [
      { type: 'SA', proposals: ikeProposals(algorithms, this.#localSpi) },
      { type: 'Nonce', data: this.#nonce },
      { type: 'KE', group: this.#group, publicValue: this.#offer.publicValue },
    ]
  }

  /** Called instead of switching at once: who wins is known when our own answer comes. */
  collide(nonces: NoncePair, association: Association): void {
    this.#collision = { nonces, association }
  }

  process(
    connection: Connection,
    association: Association,
    response: IncomingMessage,
    nowMs: number,
  ): void {
    if (response.form !== 'ike') {
      this.#refused(connection, association, response.payloads, nowMs)
      return
    }
    const made = this.#complete(connection, association, response.payloads)
    if (typeof made === 'string') {
      connection.unexpected(`ike-rekey-${made}`)
      this.#retryLater(connection, nowMs)
      return
    }
    const collision = this.#collision
    const isAlive = collision && connection.associations.includes(collision.association)
    if (collision !== undefined && isAlive && isLoser(made.nonces, collision.nonces)) {
      takeOver(connection, collision.association, nowMs)
      association.isReplaced = true
      made.association.isReplaced = true
      made.association.queue.push(new IkeDelete())
      linger(connection, association, nowMs)
      return
    }
    takeOver(connection, made.association, nowMs)
    association.queue.push(new IkeDelete())
    if (collision !== undefined) {
      collision.association.isReplaced = true
      linger(connection, collision.association, nowMs)
    }
  }

  #complete(
    connection: Connection,
    association: Association,
    payloads: readonly Payload[],
  ): { readonly association: Association; readonly nonces: NoncePair } | string {
    const sa = findPayload(payloads, 'SA')
    const ke = findPayload(payloads, 'KE')
    const nonce = findPayload(payloads, 'Nonce')
    if (!sa || !ke || !nonce || !this.#offer) return 'incomplete'
    const algorithms = algorithmsFor(connection, association)
    const choice = isAnswer(sa.proposals)
      ? chooseIke(sa.proposals, algorithms, ke.group, this.#localSpi, SPI_BYTES)
      : undefined
    if (choice === undefined || ke.group !== this.#group) return 'answer-not-proposed'
    const sharedSecret = this.#offer.finish(ke.publicValue)
    this.#offer = undefined
    if (typeof sharedSecret === 'number') return 'bad-key-exchange-value'
    const nonces = { initiator: this.#nonce, responder: copyBytes(nonce.data) }
    const fresh = addRekeyed(connection, {
      old: association,
      suite: choice.suite,
      nonces,
      sharedSecret,
      isInitiator: true,
      localSpi: this.#localSpi,
      peerSpi: choice.peerSpi,
    })
    return fresh === undefined ? 'no-keys' : { association: fresh, nonces }
  }

  #refused(
    connection: Connection,
    association: Association,
    payloads: readonly Payload[],
    nowMs: number,
  ): void {
    this.#offer?.destroy()
    this.#offer = undefined
    if (this.#collision && connection.associations.includes(this.#collision.association)) {
      // The peer's rekeying went through before ours arrived.
      association.isReplaced = true
      takeOver(connection, this.#collision.association, nowMs)
      linger(connection, association, nowMs)
      return
    }
    const wanted = findNotify(payloads, NotifyType.INVALID_KE_PAYLOAD)
    const group = wanted === undefined ? 0 : u16(wanted.data, 0)
    const isOurs = connection.options.ikeAlgorithms.keyExchange.includes(group)
    if (isOurs && !this.#tried.includes(group)) {
      this.#group = group
      association.queue.unshift(this)
      return
    }
    connection.unexpected(`ike-rekey-refused-${errorName(payloads)}`)
    this.#retryLater(connection, nowMs)
  }

  #retryLater(connection: Connection, nowMs: number): void {
    const { busyRetryMs } = connection.options.timing
    connection.timers.set('ike-rekey', nowMs + connection.jittered(busyRetryMs))
  }
}

function isLoser(ours: NoncePair, theirs: NoncePair): boolean {
  const lowest = lowestNonce(ours.initiator, ours.responder, theirs.initiator, theirs.responder)
  return lowest === ours.initiator || lowest === ours.responder
}

/** The peer is to delete it; if it does not, we do. */
export function linger(connection: Connection, association: Association, nowMs: number): void {
  connection.timers.set(`linger:${association.index}`, nowMs + connection.options.timing.lingerMs)
}

const childTasks: ReadonlySet<string> = new Set(['child-create', 'child-rekey', 'child-delete'])

/** Answers the peer's rekeying of the IKE SA. */
export function answerIkeRekey(
  connection: Connection,
  association: Association,
  request: IncomingMessage,
  nowMs: number,
): Answer {
  const { options } = connection
  const { payloads } = request
  const own = association.outstanding?.task
  // RFC 7296 §2.25.2: while we create, rekey or delete a Child SA the peer has to wait.
  if (own !== undefined && childTasks.has(own.name)) return [notify(NotifyType.TEMPORARY_FAILURE)]
  const sa = findPayload(payloads, 'SA')
  const ke = findPayload(payloads, 'KE')
  const nonce = findPayload(payloads, 'Nonce')
  if (!sa || !ke || !nonce) return [notify(NotifyType.INVALID_SYNTAX)]
  const localSpi = connection.newSpi()
  const algorithms = connection.peer.intermediate
    ? options.ikeAlgorithms
    : { ...options.ikeAlgorithms, additionalKeyExchange: [] }
  const choice = chooseIke(sa.proposals, algorithms, ke.group, localSpi, SPI_BYTES)
  if (choice === undefined) return [notify(NotifyType.NO_PROPOSAL_CHOSEN)]
  if (choice.suite.keyExchangeId !== ke.group) {
    const data = new Uint8Array(2)
    putU16(data, 0, choice.suite.keyExchangeId)
    return [notify(NotifyType.INVALID_KE_PAYLOAD, data)]
  }
  const answer = keyExchange(ke.group)?.answer(ke.publicValue, connection.host.random)
  if (answer === undefined || typeof answer === 'number') {
    return [notify(NotifyType.INVALID_SYNTAX)]
  }
  const nonces = {
    initiator: copyBytes(nonce.data),
    responder: randomBytes(connection.host.random, OUR_NONCE_BYTES),
  }
  const made = { suite: choice.suite, nonces, localSpi, peerSpi: choice.peerSpi }
  const reply: Payload[] = [
    { type: 'SA', proposals: [choice.answer] },
    { type: 'Nonce', data: nonces.responder },
    { type: 'KE', group: ke.group, publicValue: answer.publicValue },
  ]
  const { sharedSecret } = answer
  const { additionalKeyExchanges: remaining } = choice.suite
  if (remaining.length > 0) {
    const pending = { ...made, secrets: [sharedSecret], remaining }
    return [...reply, suspendRekey(connection, association, pending)]
  }
  const isMade = changeOver(connection, association, { ...made, sharedSecret }, nowMs)
  return isMade ? reply : [notify(NotifyType.TEMPORARY_FAILURE)]
}

/** The new IKE SA of a rekeying by the peer; which one stays is open while our own is out. */
function changeOver(
  connection: Connection,
  association: Association,
  made: Omit<NewKeys, 'old' | 'isInitiator'>,
  nowMs: number,
): boolean {
  const own = association.outstanding?.task
  const fresh = addRekeyed(connection, { ...made, old: association, isInitiator: false })
  if (fresh === undefined) return false
  if (own instanceof IkeRekey) {
    own.collide(made.nonces, fresh)
  } else {
    takeOver(connection, fresh, nowMs)
    linger(connection, association, nowMs)
  }
  return true
}

/** Answers a further key exchange of the peer's rekeying. */
export function answerRekeyFollowUp(
  connection: Connection,
  association: Association,
  request: IncomingMessage,
  nowMs: number,
): Answer {
  return answerFollowUp(connection, association, request, ({ suite, ...rekey }, secrets) => {
    const [sharedSecret, ...additional] = secrets
    if (sharedSecret === undefined) return [notify(NotifyType.STATE_NOT_FOUND)]
    const made = { ...rekey, suite: { ...suite, additionalKeyExchanges: [] } }
    const keys = { ...made, sharedSecret, additional }
    const isMade = changeOver(connection, association, keys, nowMs)
    return isMade ? [] : [notify(NotifyType.TEMPORARY_FAILURE)]
  })
}
