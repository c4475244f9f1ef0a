/** INFORMATIONAL: liveness, deletion, notifications. RFC 7296 §1.4, §2.4, §2.25. */
import type { Association } from '../association.ts'
import { spiBytes, spiNumber } from '../child-sa.ts'
import type { Connection } from '../connection.ts'
import type { Answer, IncomingMessage, Task } from '../task.ts'
import { allPayloads, findNotify } from '../wire/message.ts'
import { isErrorNotify, NotifyType, notifyName } from '../wire/notify-type.ts'
import type { Payload } from '../wire/payload.ts'
import { ProtocolId } from '../wire/security-association.ts'
import { findByOutbound } from './child-rekey.ts'
import { answerMobike } from './mobike.ts'
import { parseRedirect } from './redirect.ts'
import { answerTicketRequest } from './ticket-request.ts'

/** An empty request: does the peer still live? (RFC 7296 §2.4) */
export class Liveness implements Task {
  readonly name = 'liveness'
  readonly exchange = 'INFORMATIONAL'

  build(): readonly Payload[] {
    return []
  }

  // Any authentic answer is proof enough; the machine has noted its arrival.
  process(): void {}
}

/** Deletes one IKE SA: the last one, or one that was replaced by rekeying (RFC 7296 §2.8). */
export class IkeDelete implements Task {
  readonly name = 'ike-delete'
  readonly exchange = 'INFORMATIONAL'

  build(): readonly Payload[] {
    return [{ type: 'D', protocolId: ProtocolId.IKE, spis: [] }]
  }

  process(connection: Connection, association: Association): void {
    if (connection.associations[0] === association) connection.close('admin-reset', 'deleted')
    else connection.dropAssociation(association)
  }
}

/** Tells the peer that it did not convince us (RFC 7296 §2.21.2); initiator only. */
export class AuthenticationFailed implements Task {
  readonly name = 'authentication-failed'
  readonly exchange = 'INFORMATIONAL'

  build(): readonly Payload[] {
    return [
      {
        type: 'N',
        protocolId: 0,
        spi: new Uint8Array(0),
        notifyType: NotifyType.AUTHENTICATION_FAILED,
        data: new Uint8Array(0),
      },
    ]
  }

  process(connection: Connection): void {
    connection.close('authentication-failed', 'peer-not-authenticated')
  }
}

export interface InformationalAnswer {
  readonly payloads: Answer
  /** What ends once the answer is out. */
  readonly ends: 'nothing' | 'association' | 'connection'
  readonly detail: string
}

/** Answers one request. Child SAs are removed here, IKE SAs by the machine after the answer. */
export function answerInformational(
  connection: Connection,
  association: Association,
  request: IncomingMessage,
  nowMs: number,
): InformationalAnswer {
  const { payloads } = request
  const deletes = allPayloads(payloads, 'D')
  if (deletes.some(payload => payload.protocolId === ProtocolId.IKE)) {
    return {
      payloads: [],
      ends: isLast(connection, association) ? 'connection' : 'association',
      detail: 'deleted-by-peer',
    }
  }
  const fatal = findNotify(payloads, NotifyType.AUTHENTICATION_FAILED)
  if (fatal !== undefined) {
    return { payloads: [], ends: 'connection', detail: 'peer-says-AUTHENTICATION_FAILED' }
  }
  for (const note of allPayloads(payloads, 'N')) {
    if (isErrorNotify(note.notifyType)) {
      connection.unexpected(`peer-says-${notifyName(note.notifyType)}`)
    }
  }
  redirectRequest(connection, payloads)
  const answer: Payload[] = []
  const spis = deleteChildren(connection, payloads)
  if (spis.length > 0) answer.push({ type: 'D', protocolId: ProtocolId.ESP, spis })
  answer.push(...answerMobike(connection, association, request))
  answer.push(...answerTicketRequest(connection, association, payloads, nowMs))
  return { payloads: answer, ends: 'nothing', detail: '' }
}

/**
 * Whether the connection ends with this association. Not when the peer deletes what it has rekeyed, or
 * the superfluous one of a collision (RFC 7296 §2.8.2).
 */
function isLast(connection: Connection, association: Association): boolean {
  return !connection.associations.some(other => other !== association && !other.isReplaced)
}

/** RFC 7296 §1.4.1: the answer names our halves, but not those that we are deleting ourselves. */
function deleteChildren(connection: Connection, payloads: readonly Payload[]): Uint8Array[] {
  const answered: Uint8Array[] = []
  for (const payload of allPayloads(payloads, 'D')) {
    if (payload.protocolId !== ProtocolId.ESP) continue
    for (const spi of payload.spis) {
      const child = findByOutbound(connection, spiNumber(spi))
      if (child === undefined) {
        connection.unexpected('delete-of-unknown-child')
        continue
      }
      if (!child.isDeleting) answered.push(spiBytes(child.inboundSpi))
      const isReplaced = child.replacedBy !== undefined
      connection.removeChild(child, isReplaced ? 'rekeyed' : 'deleted-by-peer')
    }
  }
  return answered
}

/** A gateway may move its clients at any time (RFC 5685 §5); only an initiator follows. */
function redirectRequest(connection: Connection, payloads: readonly Payload[]): void {
  const { role, features } = connection.options
  const note = findNotify(payloads, NotifyType.REDIRECT)
  if (note === undefined || role !== 'initiator' || !features.redirect) return
  const redirect = parseRedirect(note.data)
  if (redirect === undefined) connection.unexpected('redirect-malformed')
  else connection.emit({ type: 'redirected', gateway: redirect.gateway })
}
