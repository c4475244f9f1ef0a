/**
 * IKE_SESSION_RESUME, RFC 5723 §4.3 and §5: a ticket takes the place of algorithms and key exchange, and
 * the keys of the old IKE SA that of other proofs in IKE_AUTH. Who decides about users decides anew.
 */
import { copyBytes, equalBytes } from '../../core/bytes.ts'
import { randomBytes } from '../../core/random.ts'
import { Secret } from '../../core/secret.ts'
import type { Association } from '../association.ts'
import type { Connection } from '../connection.ts'
import { ikeKeys, resumedSkeyseed } from '../key-schedule.ts'
import { detectNat, natNotifies } from '../nat-detection.ts'
import type { IncomingMessage, Task } from '../task.ts'
import { isAcceptable, type Resumption } from '../ticket.ts'
import { AuthMethod } from '../wire/authentication.ts'
import { SPI_BYTES } from '../wire/header.ts'
import { allPayloads, findNotify, findPayload } from '../wire/message.ts'
import { notify } from '../wire/notify.ts'
import { NotifyType, notifyName } from '../wire/notify-type.ts'
import type { Payload, PayloadOf } from '../wire/payload.ts'
import {
  floatToNatTraversal,
  IkeInit,
  type InitAnswer,
  learnCapabilities,
  logKeys,
  OUR_NONCE_BYTES,
  refused,
} from './ike-init.ts'

/** Answers with COOKIE that we follow before we start from scratch. */
const RETRIES_MAX = 3

function installKeys(
  connection: Connection,
  association: Association,
  { suite, d }: Resumption,
): void {
  const { nonces } = connection.setup
  const skeyseed = resumedSkeyseed(suite.prf, d, nonces)
  association.install(suite, ikeKeys(suite, skeyseed, nonces, association.spis))
  logKeys(connection, association)
}

/** Fragmentation; signatures, key exchanges and PPK are not needed any more. */
function capabilities(connection: Connection, isWanted: boolean): Payload[] {
  return connection.options.features.fragmentation && isWanted
    ? [notify(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED)]
    : []
}

/** Responder. A ticket that does not do is told so, and nothing is kept. */
export function answerResume(
  connection: Connection,
  association: Association,
  request: IncomingMessage,
  nowMs: number,
): InitAnswer {
  const { tickets, ikeAlgorithms, features } = connection.options
  const { random } = connection.host
  const nonce = findPayload(request.payloads, 'Nonce')
  const ticket = findNotify(request.payloads, NotifyType.TICKET_OPAQUE)?.data
  if (nonce === undefined || ticket === undefined) return refused(NotifyType.INVALID_SYNTAX)
  const state = tickets?.open(ticket, nowMs)
  if (state === undefined) return refused(NotifyType.TICKET_NACK)
  if (!isAcceptable(state.suite, ikeAlgorithms)) {
    state.d.destroy()
    return refused(NotifyType.TICKET_NACK)
  }
  learnCapabilities(connection, request.payloads)
  const ourNonce = randomBytes(random, OUR_NONCE_BYTES)
  connection.setup.nonces = { initiator: copyBytes(nonce.data), responder: ourNonce }
  // copied: AUTH covers the message as it came
  connection.setup.initiatorMessage = copyBytes(request.bytes)
  const requestSpis = { ...association.spis, responderSpi: new Uint8Array(SPI_BYTES) }
  connection.nat = detectNat(request.payloads, requestSpis, request.path)
  connection.resumption = { ...state, ticket: copyBytes(ticket) }
  installKeys(connection, association, state)
  connection.state = 'authenticating'
  const hasNat = connection.nat !== undefined
  return {
    refusal: undefined,
    payloads: [
      { type: 'Nonce', data: ourNonce },
      ...(hasNat ? natNotifies(association.spis, request.path, features.forcesEncapsulation) : []),
      ...capabilities(connection, connection.peer.fragments),
    ],
  }
}

/** Initiator: comes back with a ticket, or from scratch when the responder does not take it. */
export class IkeResume implements Task {
  readonly name = 'ike-resume'
  readonly exchange = 'IKE_SESSION_RESUME'
  readonly #next: readonly Task[]
  readonly #instead: readonly Task[]
  #nonce: Uint8Array | undefined
  #cookie: Uint8Array | undefined
  #retries = 0

  /** `next` follows once there are keys; `instead` is what follows an IKE_SA_INIT. */
  constructor(next: readonly Task[], instead: readonly Task[]) {
    this.#next = next
    this.#instead = instead
  }

  build(connection: Connection, association: Association): readonly Payload[] | undefined {
    const { features, resume } = connection.options
    const { random } = connection.host
    if (resume === undefined) return undefined
    this.#nonce ??= randomBytes(random, OUR_NONCE_BYTES)
    connection.state = 'initiating'
    return [
      ...(this.#cookie === undefined ? [] : [notify(NotifyType.COOKIE, this.#cookie)]),
      { type: 'Nonce', data: this.#nonce },
      notify(NotifyType.TICKET_OPAQUE, resume.ticket),
      ...natNotifies(association.spis, connection.path, features.forcesEncapsulation),
      ...capabilities(connection, true),
    ]
  }

  process(connection: Connection, association: Association, response: IncomingMessage): void {
    const { resume } = connection.options
    const nonce = findPayload(response.payloads, 'Nonce')
    if (resume === undefined || this.#nonce === undefined) return
    if (response.form !== 'resume' || nonce === undefined) {
      this.#refused(connection, association, response.payloads)
      return
    }
    learnCapabilities(connection, response.payloads)
    connection.setup.nonces = { initiator: this.#nonce, responder: copyBytes(nonce.data) }
    connection.setup.responderMessage = copyBytes(response.bytes)
    connection.nat = detectNat(response.payloads, association.spis, response.path)
    connection.resumption = { ...resume, d: new Secret(resume.d.expose()) }
    floatToNatTraversal(connection)
    installKeys(connection, association, resume)
    connection.state = 'authenticating'
    association.queue.push(...this.#next)
  }

  #refused(connection: Connection, association: Association, payloads: readonly Payload[]): void {
    const cookie = findNotify(payloads, NotifyType.COOKIE)
    association.peerSpi = new Uint8Array(SPI_BYTES)
    if (cookie !== undefined && ++this.#retries <= RETRIES_MAX) {
      this.#cookie = copyBytes(cookie.data, 0, 64)
      association.queue.unshift(this)
      return
    }
    const reason = allPayloads(payloads, 'N')[0]?.notifyType
    connection.unexpected(`resume-refused-${reason === undefined ? 'silent' : notifyName(reason)}`)
    association.queue.unshift(new IkeInit(this.#instead))
  }
}

/** AUTH = prf(SK_px, the message of this side), RFC 5723 §5.1. */
function authData(
  { setup }: Connection,
  { suite, keys }: Association,
  side: 'initiator' | 'responder',
): Uint8Array | undefined {
  if (suite === undefined || keys === undefined) return undefined
  return side === 'initiator'
    ? suite.prf.compute(keys.pi.expose(), setup.initiatorMessage)
    : suite.prf.compute(keys.pr.expose(), setup.responderMessage)
}

export function resumptionPayload(
  connection: Connection,
  association: Association,
  side: 'initiator' | 'responder',
): Payload[] {
  const data = authData(connection, association, side)
  return data === undefined ? [] : [{ type: 'AUTH', method: AuthMethod.SHARED_KEY, data }]
}

export function isResumptionProof(
  connection: Connection,
  association: Association,
  side: 'initiator' | 'responder',
  auth: PayloadOf<'AUTH'> | undefined,
): boolean {
  const data = authData(connection, association, side)
  if (data === undefined || auth?.method !== AuthMethod.SHARED_KEY) return false
  return equalBytes(data, auth.data)
}
