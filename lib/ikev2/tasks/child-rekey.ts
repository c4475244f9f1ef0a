/** Rekeying a Child SA, with collisions: RFC 7296 §1.3.3, §2.8, §2.8.1, §2.25.1. */
import type { Association } from '../association.ts'
import { type ChildSa, lowestNonce, spiNumber } from '../child-sa.ts'
import type { Connection } from '../connection.ts'
import type { NoncePair } from '../key-schedule.ts'
import type { Answer, IncomingMessage, Task } from '../task.ts'
import { findNotify } from '../wire/message.ts'
import { type NotifyPayload, notify } from '../wire/notify.ts'
import { NotifyType } from '../wire/notify-type.ts'
import type { Payload } from '../wire/payload.ts'
import { ProtocolId } from '../wire/security-association.ts'
import { errorName, firstChildGroup, nextChildGroup } from './child-create.ts'
import { ChildDelete } from './child-delete.ts'
import { answerChild, ChildOffer, childNotify } from './child-negotiation.ts'

export class ChildRekey implements Task {
  readonly name = 'child-rekey'
  readonly exchange = 'CREATE_CHILD_SA'
  readonly inboundSpi: number
  #tried: number[] = []
  #offer: ChildOffer | undefined
  /** The peer's rekeying of the same Child SA, which we answered while ours was out. */
  #collision: { readonly nonces: NoncePair } | undefined

  constructor(inboundSpi: number) {
    this.inboundSpi = inboundSpi
  }

  build(connection: Connection, association: Association): readonly Payload[] | undefined {
    const old = connection.child(this.inboundSpi)
    // Gone, going, or rekeyed by the peer meanwhile.
    if (old === undefined || old.isDeleting || old.replacedBy !== undefined) return undefined
    if (this.#tried.length === 0) this.#tried.push(firstChildGroup(connection, association))
    const group = this.#tried[this.#tried.length - 1] ?? 0
    this.#offer = new ChildOffer(connection, old.selectors, group, false)
    return [childNotify(NotifyType.REKEY_SA, old.inboundSpi), ...this.#offer.payloads(connection)]
  }

  collide(nonces: NoncePair): void {
    this.#collision = { nonces }
  }

  process(
    connection: Connection,
    association: Association,
    response: IncomingMessage,
    nowMs: number,
  ): void {
    const old = connection.child(this.inboundSpi)
    if (response.form !== 'child') {
      this.#refused(connection, association, response.payloads, old, nowMs)
      return
    }
    const made = this.#offer?.complete(connection, association, response.payloads, old, nowMs)
    if (made === undefined) return
    if (typeof made === 'string') {
      connection.unexpected(`child-rekey-${made}`)
      return
    }
    if (this.#isLoser(made.nonces)) {
      // The peer's new Child SA stays, and the peer deletes the old one; ours is superfluous.
      connection.enqueue(new ChildDelete([made.child.inboundSpi], 'rekeyed'))
      return
    }
    connection.activate(made.child)
    if (old === undefined) return
    old.replacedBy = made.child.inboundSpi
    connection.enqueue(new ChildDelete([old.inboundSpi], 'rekeyed'))
  }

  /** RFC 7296 §2.8.1: who made the exchange with the lowest of the four nonces gives way. */
  #isLoser(ours: NoncePair): boolean {
    const theirs = this.#collision?.nonces
    if (theirs === undefined) return false
    const lowest = lowestNonce(ours.initiator, ours.responder, theirs.initiator, theirs.responder)
    return lowest === ours.initiator || lowest === ours.responder
  }

  #refused(
    connection: Connection,
    association: Association,
    payloads: readonly Payload[],
    old: ChildSa | undefined,
    nowMs: number,
  ): void {
    this.#offer?.destroy()
    if (old === undefined || old.replacedBy !== undefined) return
    const next = nextChildGroup(connection, association, this.#tried, payloads)
    if (next !== undefined) {
      this.#tried.push(next)
      association.queue.unshift(this)
      return
    }
    if (findNotify(payloads, NotifyType.CHILD_SA_NOT_FOUND) !== undefined) {
      // The peer has none such: neither have we any more (RFC 7296 §2.25).
      connection.removeChild(old, 'deleted-by-peer')
      return
    }
    connection.unexpected(`child-rekey-refused-${errorName(payloads)}`)
    const { busyRetryMs } = connection.options.timing
    connection.timers.set(`child-rekey:${old.inboundSpi}`, nowMs + connection.jittered(busyRetryMs))
  }
}

function notFound(rekey: NotifyPayload): Payload {
  return { ...rekey, notifyType: NotifyType.CHILD_SA_NOT_FOUND }
}

/** Answers CREATE_CHILD_SA for a Child SA, new or with REKEY_SA. */
export function answerCreateChild(
  connection: Connection,
  association: Association,
  request: IncomingMessage,
  nowMs: number,
): Answer {
  const { payloads } = request
  const rekey = findNotify(payloads, NotifyType.REKEY_SA)
  if (rekey === undefined) {
    if (connection.children.length >= CHILDREN_MAX) return [notify(NotifyType.NO_ADDITIONAL_SAS)]
    const answer = answerChild(
      connection,
      association,
      payloads,
      { isInAuth: false, replaces: undefined },
      nowMs,
    )
    if (answer.child && connection.activeChild === undefined) connection.activate(answer.child)
    return answer.payloads
  }
  // The SPI is the sender's inbound one: to us it is outbound (RFC 7296 §1.3.3).
  const old =
    rekey.protocolId === ProtocolId.ESP && rekey.spi.length === 4
      ? findByOutbound(connection, spiNumber(rekey.spi))
      : undefined
  if (old === undefined) return [notFound(rekey)]
  if (old.isDeleting) return [notify(NotifyType.TEMPORARY_FAILURE)]
  if (connection.children.length >= CHILDREN_MAX) return [notify(NotifyType.TEMPORARY_FAILURE)]
  const context = { isInAuth: false, replaces: old }
  const answer = answerChild(connection, association, payloads, context, nowMs)
  if (answer.child === undefined) return answer.payloads
  old.replacedBy = answer.child.inboundSpi
  connection.timers.clear(`child-rekey:${old.inboundSpi}`)
  const { outstanding } = association
  if (outstanding?.task instanceof ChildRekey && outstanding.task.inboundSpi === old.inboundSpi) {
    outstanding.task.collide(answer.nonces)
  }
  return answer.payloads
}

/** Ours: Windows may hold a few at a time when it rekeys twice before it deletes. */
const CHILDREN_MAX = 16

export function findByOutbound(connection: Connection, outboundSpi: number): ChildSa | undefined {
  return connection.children.find(child => child.outboundSpi === outboundSpi)
}
