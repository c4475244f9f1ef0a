/** IKE_INTERMEDIATE with additional key exchanges, RFC 9242 and RFC 9370 §2.2.2. */
import type { Secret } from '../../core/secret.ts'
import type { KeyExchangeOffer } from '../../crypto/key-exchange.ts'
import { keyExchange } from '../../crypto/key-exchanges.ts'
import type { Association } from '../association.ts'
import type { Connection } from '../connection.ts'
import { additionalSkeyseed, ikeKeys } from '../key-schedule.ts'
import type { IncomingMessage, Task } from '../task.ts'
import { sendReply } from '../transmission.ts'
import { findPayload } from '../wire/message.ts'
import { notify } from '../wire/notify.ts'
import { NotifyType } from '../wire/notify-type.ts'
import type { Payload } from '../wire/payload.ts'
import { logKeys } from './ike-init.ts'

/** New keys for all that follows. Destroys `sharedSecret`. */
function mix(connection: Connection, association: Association, sharedSecret: Secret): void {
  const { suite, keys } = association
  if (suite === undefined || keys === undefined) return
  const { nonces, additionalKeyExchanges } = connection.setup
  const skeyseed = additionalSkeyseed(suite.prf, keys.d, nonces, sharedSecret)
  sharedSecret.destroy()
  association.install(suite, ikeKeys(suite, skeyseed, nonces, association.spis))
  additionalKeyExchanges.shift()
  logKeys(connection, association)
}

/** One exchange per additional method; nothing when none was agreed on. */
export class IkeIntermediate implements Task {
  readonly name = 'ike-intermediate'
  readonly exchange = 'IKE_INTERMEDIATE'
  #offer: KeyExchangeOffer | undefined

  build(connection: Connection): readonly Payload[] | undefined {
    const id = connection.setup.additionalKeyExchanges[0]
    if (id === undefined) return undefined
    this.#offer = keyExchange(id)?.offer(connection.host.random)
    if (this.#offer === undefined) {
      connection.close('nas-error', 'no-key-exchange')
      return undefined
    }
    return [{ type: 'KE', group: id, publicValue: this.#offer.publicValue }]
  }

  process(connection: Connection, association: Association, response: IncomingMessage): void {
    const ke = findPayload(response.payloads, 'KE')
    if (ke === undefined || ke.group !== connection.setup.additionalKeyExchanges[0]) {
      connection.close('protocol-error', 'intermediate-without-key-exchange')
      return
    }
    const sharedSecret = this.#offer?.finish(ke.publicValue)
    this.#offer = undefined
    if (sharedSecret === undefined || typeof sharedSecret === 'number') {
      connection.close('protocol-error', 'bad-key-exchange-value')
      return
    }
    mix(connection, association, sharedSecret)
    if (connection.setup.additionalKeyExchanges.length > 0) association.queue.unshift(this)
  }
}

/** Responder: answers under the old keys, then changes to the new ones. */
export function answerIntermediate(
  connection: Connection,
  association: Association,
  request: IncomingMessage,
): void {
  const id = connection.setup.additionalKeyExchanges[0]
  const ke = findPayload(request.payloads, 'KE')
  const answer =
    ke !== undefined && ke.group === id
      ? keyExchange(id)?.answer(ke.publicValue, connection.host.random)
      : undefined
  if (id === undefined || answer === undefined || typeof answer === 'number') {
    sendReply(connection, association, [notify(NotifyType.INVALID_SYNTAX)])
    connection.close('protocol-error', 'bad-intermediate')
    return
  }
  sendReply(connection, association, [{ type: 'KE', group: id, publicValue: answer.publicValue }])
  mix(connection, association, answer.sharedSecret)
}
