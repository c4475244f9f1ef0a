/**
 * IKE_FOLLOWUP_KE as responder, RFC 9370 §2.2.4: a rekeying of the IKE SA whose key exchange goes on in
 * exchanges of their own. Until the last one nothing has changed. What we rekey ourselves needs none of
 * it: SK_d carries on what the first key exchange had (RFC 9370 §2.2.4).
 */
import { copyBytes, equalBytes } from '../../core/bytes.ts'
import { randomBytes } from '../../core/random.ts'
import type { Secret } from '../../core/secret.ts'
import { keyExchange } from '../../crypto/key-exchanges.ts'
import type { Association, PendingRekey } from '../association.ts'
import type { Connection } from '../connection.ts'
import type { Answer, IncomingMessage } from '../task.ts'
import { findNotify, findPayload } from '../wire/message.ts'
import { notify } from '../wire/notify.ts'
import { NotifyType } from '../wire/notify-type.ts'
import type { Payload } from '../wire/payload.ts'

/** The next request has to repeat it, 1 to 64 bytes (RFC 9370 §4). */
const LINK_BYTES = 8

/** Keeps a rekeying until its last key exchange; an earlier one is forgotten. The notification to add. */
export function suspendRekey(
  connection: Connection,
  association: Association,
  rekey: Omit<PendingRekey, 'link'>,
): Payload {
  const link = randomBytes(connection.host.random, LINK_BYTES)
  association.suspend({ ...rekey, link })
  return notify(NotifyType.ADDITIONAL_KEY_EXCHANGE, copyBytes(link))
}

/** One more key exchange; `finish` makes the new IKE SA of all secrets once there is no other to come. */
export function answerFollowUp(
  connection: Connection,
  association: Association,
  { payloads }: IncomingMessage,
  finish: (rekey: PendingRekey, secrets: readonly Secret[]) => Answer,
): Answer {
  const rekey = association.pendingRekey
  const link = findNotify(payloads, NotifyType.ADDITIONAL_KEY_EXCHANGE)?.data
  const isKnown = rekey !== undefined && link !== undefined && equalBytes(link, rekey.link)
  if (!isKnown) return [notify(NotifyType.STATE_NOT_FOUND)]
  const [id, ...others] = rekey.remaining
  const ke = findPayload(payloads, 'KE')
  const answer =
    ke !== undefined && ke.group === id
      ? keyExchange(id)?.answer(ke.publicValue, connection.host.random)
      : undefined
  if (id === undefined || answer === undefined || typeof answer === 'number') {
    association.suspend(undefined)
    connection.unexpected('bad-follow-up')
    return [notify(NotifyType.INVALID_SYNTAX)]
  }
  const secrets = [...rekey.secrets, answer.sharedSecret]
  const reply: Payload = { type: 'KE', group: id, publicValue: answer.publicValue }
  if (others.length > 0) {
    association.pendingRekey = undefined
    return [reply, suspendRekey(connection, association, { ...rekey, secrets, remaining: others })]
  }
  const finished = finish(rekey, secrets)
  for (const secret of secrets) secret.destroy()
  association.pendingRekey = undefined
  return finished === 'pending' || finished.length > 0 ? finished : [reply]
}
