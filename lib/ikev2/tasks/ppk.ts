/**
 * Post-quantum preshared keys, RFC 8784, for authentication without EAP: the key is mixed into SK_d,
 * SK_pi and SK_pr before AUTH is computed.
 */
import { concatBytes, equalBytes } from '../../core/bytes.ts'
import type { Association } from '../association.ts'
import type { Connection } from '../connection.ts'
import { destroyPpkPart, type IkeKeys, withPpk } from '../key-schedule.ts'
import { findNotify, findPayload } from '../wire/message.ts'
import { notify } from '../wire/notify.ts'
import { NotifyType } from '../wire/notify-type.ts'
import type { Payload, PayloadOf } from '../wire/payload.ts'

/** RFC 8784 §5.1: the identity is just the name of a key. */
const PPK_ID_FIXED = 2

/** Whether USE_PPK is said: not as an EAP client, whose AUTH comes after the responder's. */
export function speaksPpk(connection: Connection): boolean {
  const { ppk, role, localIdentities } = connection.options
  if (ppk === undefined || ppk.keys.length === 0) return false
  return role === 'responder' || localIdentities[0].credential.type !== 'eap'
}

/** Initiator: the key that we offer, and what we do when the responder does not have it. */
export class PpkOffer {
  readonly #identity: Uint8Array
  #plain: IkeKeys | undefined

  constructor(identity: Uint8Array, plain: IkeKeys) {
    this.#identity = identity
    this.#plain = plain
  }

  /** PPK_IDENTITY, and our AUTH without the key for responders that may do without. */
  notifies(connection: Connection, plainProof: readonly Payload[]): Payload[] {
    const identity = concatBytes(Uint8Array.of(PPK_ID_FIXED), this.#identity)
    const plainAuth = findPayload(plainProof, 'AUTH')
    return [
      notify(NotifyType.PPK_IDENTITY, identity),
      ...(connection.options.ppk?.isMandatory === true || plainAuth === undefined
        ? []
        : [notify(NotifyType.NO_PPK_AUTH, plainAuth.data)]),
    ]
  }

  get isDecided(): boolean {
    return this.#plain === undefined
  }

  /** What the response says; false when the key is mandatory and was not used. */
  decide(connection: Connection, association: Association, payloads: readonly Payload[]): boolean {
    const plain = this.#plain
    this.#plain = undefined
    const isUsed = findNotify(payloads, NotifyType.PPK_IDENTITY) !== undefined
    if (plain === undefined) return true
    if (isUsed) {
      destroyPpkPart(plain)
      return true
    }
    const mixed = association.keys
    association.replaceKeys(plain)
    if (mixed) destroyPpkPart(mixed)
    return connection.options.ppk?.isMandatory !== true
  }
}

/** Changes to the mixed keys. Undefined when there is nothing to mix in. */
export function beginPpk(connection: Connection, association: Association): PpkOffer | undefined {
  const key = connection.options.ppk?.keys[0]
  const { suite, keys } = association
  if (!speaksPpk(connection) || !connection.peer.usesPpk) return undefined
  if (key === undefined || suite === undefined || keys === undefined) return undefined
  association.replaceKeys(withPpk(suite.prf, keys, key.secret))
  return new PpkOffer(key.identity, keys)
}

/** Responder: the AUTH to check and what to say; undefined when a mandatory key is not used. */
export function acceptPpk(
  connection: Connection,
  association: Association,
  payloads: readonly Payload[],
  auth: PayloadOf<'AUTH'>,
): { readonly auth: PayloadOf<'AUTH'>; readonly answer: readonly Payload[] } | undefined {
  const { ppk } = connection.options
  const { suite, keys } = association
  if (ppk === undefined) return { auth, answer: [] }
  const named = findNotify(payloads, NotifyType.PPK_IDENTITY)?.data
  if (named === undefined || !connection.peer.usesPpk) {
    return ppk.isMandatory ? undefined : { auth, answer: [] }
  }
  const known = ppk.keys.find(
    key => named[0] === PPK_ID_FIXED && equalBytes(key.identity, named.subarray(1)),
  )
  if (known !== undefined && suite !== undefined && keys !== undefined) {
    association.replaceKeys(withPpk(suite.prf, keys, known.secret))
    destroyPpkPart(keys)
    return { auth, answer: [notify(NotifyType.PPK_IDENTITY)] }
  }
  const without = findNotify(payloads, NotifyType.NO_PPK_AUTH)
  if (ppk.isMandatory || without === undefined) return undefined
  return { auth: { ...auth, data: without.data }, answer: [] }
}
