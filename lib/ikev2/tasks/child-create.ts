/** A further Child SA, RFC 7296 §1.3.1; rekeying is in child-rekey.ts. */
import { u16 } from '../../core/bytes.ts'
import type { Association } from '../association.ts'
import type { Connection } from '../connection.ts'
import type { IncomingMessage, Task } from '../task.ts'
import { allPayloads, findNotify } from '../wire/message.ts'
import { isErrorNotify, NotifyType, notifyName } from '../wire/notify-type.ts'
import type { Payload } from '../wire/payload.ts'
import type { TrafficSelector } from '../wire/traffic-selector.ts'
import { ChildOffer } from './child-negotiation.ts'

/** The group of a first try: the IKE SA's own, when a key exchange is required. */
export function firstChildGroup(connection: Connection, association: Association): number {
  if (!connection.options.child.algorithms.requiresKeyExchange) return 0
  return association.suite?.keyExchangeId ?? 0
}

/**
 * The group to try again with after an error: the one that the peer names, or after NO_PROPOSAL_CHOSEN
 * the IKE SA's, for the peer may insist on a key exchange. Undefined when another try is useless.
 */
export function nextChildGroup(
  connection: Connection,
  association: Association,
  tried: readonly number[],
  payloads: readonly Payload[],
): number | undefined {
  const { keyExchange } = connection.options.child.algorithms
  const named = findNotify(payloads, NotifyType.INVALID_KE_PAYLOAD)
  const isRefused = findNotify(payloads, NotifyType.NO_PROPOSAL_CHOSEN) !== undefined
  const group =
    named !== undefined
      ? u16(named.data, 0)
      : isRefused
        ? association.suite?.keyExchangeId
        : undefined
  if (group === undefined || tried.includes(group) || !keyExchange.includes(group)) return undefined
  return group
}

export function errorName(payloads: readonly Payload[]): string {
  const error = allPayloads(payloads, 'N').find(item => isErrorNotify(item.notifyType))
  return error === undefined ? 'no-error-named' : notifyName(error.notifyType)
}

export class ChildCreate implements Task {
  readonly name = 'child-create'
  readonly exchange = 'CREATE_CHILD_SA'
  readonly #local: readonly TrafficSelector[]
  readonly #remote: readonly TrafficSelector[]
  #tried: number[] = []
  #offer: ChildOffer | undefined

  constructor(local: readonly TrafficSelector[], remote: readonly TrafficSelector[]) {
    this.#local = local
    this.#remote = remote
  }

  build(connection: Connection, association: Association): readonly Payload[] {
    if (this.#tried.length === 0) this.#tried.push(firstChildGroup(connection, association))
    const group = this.#tried[this.#tried.length - 1] ?? 0
    const selectors = { local: this.#local, remote: this.#remote }
    this.#offer = new ChildOffer(connection, selectors, group, false)
    return this.#offer.payloads(connection)
  }

  process(
    connection: Connection,
    association: Association,
    response: IncomingMessage,
    nowMs: number,
  ): void {
    if (response.form !== 'child') {
      this.#offer?.destroy()
      const next = nextChildGroup(connection, association, this.#tried, response.payloads)
      if (next !== undefined) {
        this.#tried.push(next)
        association.queue.unshift(this)
        return
      }
      connection.unexpected(`child-create-refused-${errorName(response.payloads)}`)
      return
    }
    const made = this.#offer?.complete(connection, association, response.payloads, undefined, nowMs)
    if (made === undefined) return
    if (typeof made === 'string') {
      connection.unexpected(`child-create-${made}`)
      return
    }
    if (connection.activeChild === undefined) connection.activate(made.child)
  }
}
