/**
 * One thing to get done by a request of ours: the RFC's exchanges from the initiator's side. A task is
 * built into a request, and processes the response; one that needs another round puts itself in front
 * of the queue again. What the peer's requests need is in the `answer…` functions of the same files.
 */
import type { Association } from './association.ts'
import type { Connection } from './connection.ts'
import type { Path } from './path.ts'
import type { MessageFormName } from './wire/exchange-rules.ts'
import type { ExchangeName } from './wire/exchange-type.ts'
import type { Payload } from './wire/payload.ts'

/** A message that is legal for its exchange and, when protected, authentic. */
export interface IncomingMessage {
  readonly exchange: ExchangeName
  readonly form: MessageFormName
  readonly payloads: readonly Payload[]
  readonly path: Path
  /** The datagram, whole, when it was cleartext. */
  readonly bytes: Uint8Array
}

export interface Task {
  readonly name: string
  readonly exchange: ExchangeName
  /** Asked again on the new IKE SA when the old one goes before its answer comes. */
  readonly survivesRekey?: boolean
  /** Payloads of the request; undefined when there is nothing to ask any more. */
  build(
    connection: Connection,
    association: Association,
    nowMs: number,
  ): readonly Payload[] | undefined
  process(
    connection: Connection,
    association: Association,
    response: IncomingMessage,
    nowMs: number,
  ): void
}

/** Payloads of a response, or `pending` when it has to wait for an answer from outside. */
export type Answer = readonly Payload[] | 'pending'
