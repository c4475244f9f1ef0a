/** Asking for tickets and giving them: RFC 5723 §4.1, in IKE_AUTH and, after a rekeying, by itself. */
import { Secret } from '../../core/secret.ts'
import type { Association } from '../association.ts'
import type { Connection } from '../connection.ts'
import type { IncomingMessage, Task } from '../task.ts'
import { findNotify } from '../wire/message.ts'
import { notify } from '../wire/notify.ts'
import { NotifyType } from '../wire/notify-type.ts'
import type { Payload } from '../wire/payload.ts'
import { encodeTicketLifetime, parseTicketLifetime } from '../wire/ticket-lifetime.ts'

/** Responder: a ticket for who asked, or that there is none. */
export function answerTicketRequest(
  connection: Connection,
  association: Association,
  payloads: readonly Payload[],
  nowMs: number,
): Payload[] {
  if (findNotify(payloads, NotifyType.TICKET_REQUEST) === undefined) return []
  const { options, resumable } = connection
  const { suite, keys } = association
  const memo = resumable?.memo
  if (!options.tickets || !resumable || !memo || !suite || !keys) {
    return [notify(NotifyType.TICKET_NACK)]
  }
  const ticket = options.tickets.issue(
    {
      ...{ suite, d: keys.d, memo },
      initiatorIdentity: resumable.peerIdentity,
      responderIdentity: resumable.localIdentity,
    },
    nowMs,
  )
  if (ticket === undefined) return [notify(NotifyType.TICKET_NACK)]
  const lifetimeSeconds = Math.floor(options.tickets.lifetimeMs / 1000)
  return [notify(NotifyType.TICKET_LT_OPAQUE, encodeTicketLifetime({ lifetimeSeconds, ticket }))]
}

/** Initiator: what a response brings. The receiver of the event owns its secret. */
export function takeTicket(
  connection: Connection,
  association: Association,
  payloads: readonly Payload[],
): void {
  const { options, resumable } = connection
  const { suite, keys } = association
  const given = findNotify(payloads, NotifyType.TICKET_LT_OPAQUE)
  if (given === undefined || !options.features.requestsTicket) return
  const parsed = parseTicketLifetime(given.data)
  if (parsed === undefined || !resumable || !suite || !keys) {
    connection.unexpected('ticket-malformed')
    return
  }
  connection.emit({
    type: 'ticket',
    lifetimeSeconds: parsed.lifetimeSeconds,
    session: {
      ticket: parsed.ticket,
      suite,
      d: new Secret(keys.d.expose()),
      initiatorIdentity: resumable.localIdentity,
      responderIdentity: resumable.peerIdentity,
    },
  })
}

/** A ticket holds the keys of its time: after a rekeying there is a newer one. */
export class TicketRequest implements Task {
  readonly name = 'ticket-request'
  readonly exchange = 'INFORMATIONAL'
  readonly survivesRekey = true

  build(): readonly Payload[] {
    return [notify(NotifyType.TICKET_REQUEST)]
  }

  process(connection: Connection, association: Association, response: IncomingMessage): void {
    takeTicket(connection, association, response.payloads)
  }
}
