/**
 * The IKE SA as one sans-IO machine, for both roles, from the first message to the last, through all
 * rekeyings: RFC 7296. It decides who does what: datagrams go through `reception`, requests of the peer
 * to the `answer…` functions of the tasks, responses to the task that asked.
 */

import { copyBytes } from '../core/bytes.ts'
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { assertNever } from '../core/errors.ts'
import type { Machine, Output, Timeout } from '../core/machine.ts'
import type { Association } from './association.ts'
import { Connection, type ConnectionState, type TimerName } from './connection.ts'
import type { IkeSaEvent } from './event.ts'
import type { IkeSaInput } from './input.ts'
import type { IkeSaHost, IkeSaOptions } from './options.ts'
import { isSamePath, type Path } from './path.ts'
import {
  findAssociation,
  isRefusal,
  type MessageRefusal,
  type Reception,
  readHeader,
  receive,
  repeatReply,
} from './reception.ts'
import type { Answer, IncomingMessage } from './task.ts'
import { ChildCreate } from './tasks/child-create.ts'
import { ChildDelete } from './tasks/child-delete.ts'
import { answerCreateChild, ChildRekey } from './tasks/child-rekey.ts'
import { AuthInitiator } from './tasks/ike-auth-initiator.ts'
import { AuthResponder } from './tasks/ike-auth-responder.ts'
import { answerInit, IkeInit } from './tasks/ike-init.ts'
import { answerIntermediate, IkeIntermediate } from './tasks/ike-intermediate.ts'
import { answerIkeRekey, answerRekeyFollowUp, IkeRekey } from './tasks/ike-rekey.ts'
import { answerInformational, IkeDelete, Liveness } from './tasks/informational.ts'
import { followNat, UpdateAddresses } from './tasks/mobike.ts'
import { SendRedirect } from './tasks/redirect.ts'
import { answerResume, IkeResume } from './tasks/resume.ts'
import { isCleartext, retransmit, sendDatagrams, sendNext, sendReply } from './transmission.ts'
import { type ExchangeName, ExchangeType } from './wire/exchange-type.ts'
import { type Header, SPI_BYTES } from './wire/header.ts'
import { encodeMessage, findNotify } from './wire/message.ts'
import { notify } from './wire/notify.ts'
import { NotifyType } from './wire/notify-type.ts'
import type { Payload } from './wire/payload.ts'

type Role = IkeSaOptions['role']

/** Which requests of the peer are taken, by our role and state. What is not listed is dropped. */
export const acceptedRequests = {
  initiator: {
    fresh: [],
    initiating: [],
    authenticating: [],
    established: ['CREATE_CHILD_SA', 'IKE_FOLLOWUP_KE', 'INFORMATIONAL'],
    closed: [],
  },
  responder: {
    fresh: ['IKE_SA_INIT', 'IKE_SESSION_RESUME'],
    initiating: [],
    // INFORMATIONAL only to end the attempt: the peer did not like our proof (RFC 7296 §2.21.2).
    authenticating: ['IKE_INTERMEDIATE', 'IKE_AUTH', 'INFORMATIONAL'],
    established: ['CREATE_CHILD_SA', 'IKE_FOLLOWUP_KE', 'INFORMATIONAL'],
    closed: [],
  },
} as const satisfies Record<Role, Record<ConnectionState, readonly ExchangeName[]>>

export class IkeSa implements Machine<IkeSaInput, IkeSaEvent> {
  readonly #connection: Connection
  #authResponder: AuthResponder | undefined
  #authInitiator: AuthInitiator | undefined

  constructor(options: IkeSaOptions, path: Path, host: IkeSaHost) {
    this.#connection = new Connection(options, path, host)
  }

  get state(): ConnectionState {
    return this.#connection.state
  }

  handle(input: IkeSaInput | Timeout, nowMs: number): void {
    const connection = this.#connection
    if (connection.state === 'closed') return
    this.#input(input, nowMs)
    for (const association of connection.associations) {
      sendNext(connection, association, nowMs)
    }
    if (this.state === 'closed') this.#forget()
  }

  poll(): Output<IkeSaEvent> | undefined {
    return this.#connection.outbox.poll()
  }

  nextDeadlineMs(): number {
    return this.#connection.timers.nextDeadlineMs()
  }

  #forget(): void {
    this.#authResponder?.destroy()
    this.#authInitiator?.destroy()
    this.#authResponder = undefined
    this.#authInitiator = undefined
    this.#connection.resumption?.d.destroy()
    this.#connection.resumption = undefined
  }

  #input(input: IkeSaInput | Timeout, nowMs: number): void {
    const connection = this.#connection
    switch (input.type) {
      case 'start':
        this.#start(nowMs)
        return
      case 'datagram':
        // copied: views into it are kept, and it is decrypted in place
        this.#datagram(copyBytes(input.bytes), input.path, nowMs)
        return
      case 'verdict':
        if (this.#authResponder) this.#authResponder.verdict(input.ticket, input.verdict, nowMs)
        else connection.unexpected('late-verdict')
        return
      case 'eap-wake':
        if (this.#authResponder) this.#authResponder.eapWake(input.ticket, nowMs)
        else connection.unexpected('late-eap-wake')
        return
      case 'certificate-verdict':
        this.#certificateVerdict(input, nowMs)
        return
      case 'grant-verdict':
        if (!this.#authResponder) connection.unexpected('late-grant-verdict')
        else this.#authResponder.grantVerdict(input.ticket, input.verdict, nowMs)
        this.#afterAuth()
        return
      case 'close':
        if (input.isSilent === true) connection.close(input.cause, input.detail)
        else this.#close(input.cause, input.detail)
        return
      case 'timeout':
        this.#timeout(nowMs)
        return
      case 'rekey-ike':
      case 'rekey-child':
      case 'delete-child':
      case 'create-child':
      case 'esp-received':
      case 'path-changed':
      case 'check-liveness':
      case 'redirect':
        if (connection.state !== 'established' || connection.isClosing) {
          connection.unexpected(`${input.type}-while-${connection.state}`)
          return
        }
        this.#establishedInput(input, nowMs)
        return
      default:
        assertNever(input)
    }
  }

  #establishedInput(
    input: Extract<
      IkeSaInput,
      {
        type:
          | 'rekey-ike'
          | 'rekey-child'
          | 'delete-child'
          | 'create-child'
          | 'esp-received'
          | 'path-changed'
          | 'check-liveness'
          | 'redirect'
      }
    >,
    nowMs: number,
  ): void {
    const connection = this.#connection
    switch (input.type) {
      case 'rekey-ike':
        if (!connection.hasTask('ike-rekey')) connection.enqueue(new IkeRekey())
        return
      case 'rekey-child':
        connection.enqueue(new ChildRekey(input.inboundSpi))
        return
      case 'delete-child':
        connection.enqueue(new ChildDelete([input.inboundSpi], 'deleted'))
        return
      case 'create-child':
        connection.enqueue(new ChildCreate(input.localSelectors, input.remoteSelectors))
        return
      case 'esp-received':
        this.#heard(nowMs)
        followNat(connection, input.path)
        return
      case 'path-changed':
        this.#pathChanged(input.path)
        return
      case 'check-liveness':
        if (!connection.hasTask('liveness')) connection.enqueue(new Liveness())
        return
      case 'redirect':
        // RFC 5685 §5: only who said that it follows.
        if (connection.peer.redirect) connection.enqueue(new SendRedirect(input.gateway))
        else connection.unexpected('redirect-not-supported')
        return
      default:
        assertNever(input)
    }
  }

  #start(nowMs: number): void {
    const connection = this.#connection
    if (connection.options.role !== 'initiator' || connection.state !== 'fresh') {
      connection.unexpected('start-twice')
      return
    }
    connection.timers.set('setup', nowMs + connection.options.timing.setupMs)
    const association = connection.addAssociation(true, connection.newSpi())
    this.#authInitiator = new AuthInitiator()
    const next = this.#authInitiator
    const full = [new IkeIntermediate(), next]
    const isResuming = connection.options.resume !== undefined
    association.queue.push(isResuming ? new IkeResume([next], full) : new IkeInit(full))
  }

  #certificateVerdict(
    input: Extract<IkeSaInput, { type: 'certificate-verdict' }>,
    nowMs: number,
  ): void {
    const connection = this.#connection
    const association = connection.associations[0]
    const { ticket, verdict } = input
    if (this.#authResponder) this.#authResponder.certificateVerdict(ticket, verdict)
    else if (this.#authInitiator && association) {
      this.#authInitiator.certificateVerdict(connection, association, ticket, verdict, nowMs)
      this.#afterAuth()
    } else connection.unexpected('late-certificate-verdict')
  }

  /** Authentication is over: its state goes. */
  #afterAuth(): void {
    if (this.state !== 'established') return
    this.#forget()
    this.#connection.forgetSetup()
  }

  #close(cause: DisconnectCause, detail: string): void {
    const connection = this.#connection
    const current = connection.associations[0]
    if (connection.state !== 'established' || current === undefined) {
      const { state } = connection
      if (this.#authResponder && current && state === 'authenticating') {
        sendReply(connection, current, this.#authResponder.refuse(cause, detail))
      }
      connection.close(cause, detail)
      return
    }
    if (connection.isClosing) return
    connection.beginClosing(cause, detail)
    connection.timers.clear('ike-rekey')
    connection.timers.clear('liveness')
    current.queue.length = 0
    current.queue.push(new IkeDelete())
  }

  /** Something authentic came: the peer lives (RFC 7296 §2.4). */
  #heard(nowMs: number): void {
    const { livenessMs } = this.#connection.options.timing
    if (livenessMs > 0 && this.state === 'established' && !this.#connection.isClosing) {
      this.#connection.timers.set('liveness', nowMs + livenessMs)
    }
  }

  #pathChanged(path: Path): void {
    const connection = this.#connection
    if (connection.options.role !== 'initiator' || isSamePath(connection.path, path)) return
    connection.path = path
    const outstanding = connection.associations[0]?.outstanding
    if (outstanding) sendDatagrams(connection, path, outstanding.datagrams)
    if (!connection.peer.mobike) {
      // Without MOBIKE the responder may still follow, as it would a NAT.
      connection.enqueue(new Liveness())
      return
    }
    const isWaiting = connection.associations[0]?.queue.some(
      task => task.name === 'update-addresses',
    )
    if (!isWaiting) connection.enqueue(new UpdateAddresses())
  }

  #datagram(bytes: Uint8Array, path: Path, nowMs: number): void {
    const connection = this.#connection
    const read = readHeader(connection, bytes)
    if (read === undefined) return
    const { header, exchange } = read
    if (connection.state === 'fresh') {
      this.#firstRequest(header, exchange, bytes, path, nowMs)
      return
    }
    const association = findAssociation(connection, header)
    if (association === undefined) {
      this.#withoutAssociation(header, exchange, bytes, path)
      return
    }
    if (!header.isResponse && !this.#isAccepted(association, exchange)) {
      connection.unexpected(`${exchange}-while-${connection.state}`)
      return
    }
    const got = receive(connection, association, header, exchange, bytes, path, nowMs)
    if (got === undefined) return
    if (header.isResponse) this.#response(got, nowMs)
    else this.#request(got, path, nowMs)
  }

  /** A repeated IKE_SA_INIT has no responder SPI yet; it must be the very same bytes. */
  #withoutAssociation(header: Header, exchange: ExchangeName, bytes: Uint8Array, path: Path): void {
    const connection = this.#connection
    const association = connection.associations[0]
    const first = association?.lastRequest
    const isRepeated =
      isCleartext(exchange) &&
      !header.isResponse &&
      first !== undefined &&
      first.length === bytes.length &&
      first.every((byte, i) => byte === bytes[i])
    if (association && isRepeated) repeatReply(connection, association, header, path)
    else connection.unexpected('other-spi')
  }

  /** A repetition of what was answered is taken in any state; its answer is repeated. */
  #isAccepted(association: Association, exchange: ExchangeName): boolean {
    const { role } = this.#connection.options
    const accepted: readonly ExchangeName[] = acceptedRequests[role][this.#connection.state]
    return accepted.includes(exchange) || (exchange === 'IKE_AUTH' && !association.isInitiator)
  }

  #firstRequest(
    header: Header,
    exchange: ExchangeName,
    bytes: Uint8Array,
    path: Path,
    nowMs: number,
  ): void {
    const connection = this.#connection
    const { role, timing } = connection.options
    const accepted: readonly ExchangeName[] = acceptedRequests[role].fresh
    const isFirst = !header.isResponse && header.isFromInitiator && header.messageId === 0
    if (!accepted.includes(exchange) || !isFirst) {
      connection.unexpected(`${exchange}-while-fresh`)
      return
    }
    connection.path = path
    connection.timers.set('setup', nowMs + timing.setupMs)
    const association = connection.addAssociation(false, connection.newSpi())
    association.peerSpi = header.initiatorSpi
    const got = receive(connection, association, header, exchange, bytes, path, nowMs)
    if (got === undefined) {
      connection.close('protocol-error', 'malformed')
      return
    }
    if (isRefusal(got.message)) {
      this.#refuseInit(association, exchange, [refusalNotify(got.message)], got.message.type)
      return
    }
    const { payloads, refusal } =
      exchange === 'IKE_SESSION_RESUME'
        ? answerResume(connection, association, got.message, nowMs)
        : answerInit(connection, association, got.message)
    if (refusal !== undefined) {
      this.#refuseInit(association, exchange, payloads, refusal)
      return
    }
    association.expectedRequestId = 1
    association.lastRequest = bytes
    association.answering = { messageId: 0, exchange, path, fragmentBytes: 0 }
    this.#authResponder = new AuthResponder(connection, association)
    sendReply(connection, association, payloads)
  }

  /** RFC 7296 §2.6: an error answer has no responder SPI, for there is no state behind it. */
  #refuseInit(
    association: Association,
    exchange: ExchangeName,
    payloads: readonly Payload[],
    detail: string,
  ): void {
    const connection = this.#connection
    const head = {
      initiatorSpi: association.peerSpi,
      responderSpi: new Uint8Array(SPI_BYTES),
      exchangeType: ExchangeType[exchange],
      isFromInitiator: false,
      isResponse: true,
      canHigherVersion: false,
      messageId: 0,
    }
    connection.unexpected(`refused-${detail}`)
    sendDatagrams(connection, connection.path, [encodeMessage(head, payloads)])
    connection.close('protocol-error', detail)
  }

  #request(got: Reception, path: Path, nowMs: number): void {
    const connection = this.#connection
    const { association, header, exchange, message, fragmentBytes } = got
    const { messageId } = header
    association.expectedRequestId = messageId + 1
    association.answering = { messageId, exchange, path, fragmentBytes }
    this.#heard(nowMs)
    if (isRefusal(message)) {
      sendReply(connection, association, [refusalNotify(message)])
      // RFC 7296 §2.21.3: INVALID_SYNTAX ends the SA on both sides without a Delete.
      if (message.type === 'invalid-syntax') connection.close('protocol-error', 'invalid-syntax')
      else if (connection.state !== 'established') {
        connection.close('protocol-error', 'unsupported-critical')
      }
      return
    }
    if (connection.state !== 'established') connection.path = path
    const isMoving = findNotify(message.payloads, NotifyType.UPDATE_SA_ADDRESSES) !== undefined
    if (!association.isReplaced && !isMoving) followNat(connection, path)
    switch (exchange) {
      case 'IKE_AUTH':
        this.#auth(association, message, nowMs)
        return
      case 'CREATE_CHILD_SA':
      case 'IKE_FOLLOWUP_KE':
        sendReplyIfAny(connection, association, this.#createChild(association, message, nowMs))
        return
      case 'INFORMATIONAL':
        this.#informational(association, message, nowMs)
        return
      case 'IKE_INTERMEDIATE':
        answerIntermediate(connection, association, message)
        return
      case 'IKE_SA_INIT':
      case 'IKE_SESSION_RESUME':
        connection.unexpected(`${exchange}-unhandled`)
        return
      default:
        assertNever(exchange)
    }
  }

  #auth(association: Association, message: IncomingMessage, nowMs: number): void {
    const connection = this.#connection
    const responder = this.#authResponder
    if (responder === undefined || connection.setup.additionalKeyExchanges.length > 0) {
      sendReply(connection, association, [notify(NotifyType.INVALID_SYNTAX)])
      connection.close('protocol-error', 'auth-out-of-turn')
      return
    }
    const answer = responder.answer(message, nowMs)
    sendReplyIfAny(connection, association, answer)
    if (responder.failure && answer !== 'pending') {
      connection.close(responder.failure.cause, responder.failure.detail)
    }
  }

  #createChild(association: Association, message: IncomingMessage, nowMs: number): Answer {
    const connection = this.#connection
    const busy = [notify(NotifyType.TEMPORARY_FAILURE)]
    if (connection.isClosing || association.isReplaced) return busy
    if (message.form === 'ike') return answerIkeRekey(connection, association, message, nowMs)
    if (message.form === 'follow-up') {
      return answerRekeyFollowUp(connection, association, message, nowMs)
    }
    // RFC 7296 §2.25.2: while the IKE SA is being rekeyed nothing is made on the old one.
    if (association.outstanding?.task.name === 'ike-rekey') return busy
    return answerCreateChild(connection, association, message, nowMs)
  }

  #informational(association: Association, message: IncomingMessage, nowMs: number): void {
    const connection = this.#connection
    if (connection.state === 'authenticating') {
      sendReply(connection, association, [])
      connection.close('authentication-failed', 'peer-gave-up')
      return
    }
    const answer = answerInformational(connection, association, message, nowMs)
    sendReplyIfAny(connection, association, answer.payloads)
    if (answer.ends === 'connection') {
      const isRefusedByPeer = answer.detail !== 'deleted-by-peer'
      connection.close(isRefusedByPeer ? 'authentication-failed' : 'user-request', answer.detail)
    }
    if (answer.ends === 'association') connection.dropAssociation(association)
  }

  #response(got: Reception, nowMs: number): void {
    const connection = this.#connection
    const { association, header, exchange, message } = got
    const { outstanding } = association
    if (outstanding === undefined) return
    if (isCleartext(exchange)) {
      // Anybody can send it: what is wrong does not end the attempt.
      if (isRefusal(message)) {
        connection.unexpected(`init-response-${message.type}`)
        return
      }
      const hasKeys = message.form === 'initial' || message.form === 'resume'
      if (hasKeys && header.responderSpi.every(byte => byte === 0)) {
        connection.unexpected('init-response-without-spi')
        return
      }
      association.peerSpi = header.responderSpi
    }
    association.outstanding = undefined
    connection.timers.clear(`retransmit:${association.index}`)
    this.#heard(nowMs)
    if (isRefusal(message)) {
      connection.close('protocol-error', `response-${message.type}`)
      return
    }
    if (findNotify(message.payloads, NotifyType.INVALID_SYNTAX) !== undefined) {
      connection.close('protocol-error', 'peer-says-INVALID_SYNTAX')
      return
    }
    const { task } = outstanding
    task.process(connection, association, message, nowMs)
    if (task.name === 'ike-auth') this.#afterAuth()
  }

  #timeout(nowMs: number): void {
    const { timers } = this.#connection
    for (let name = timers.takeExpired(nowMs); name; name = timers.takeExpired(nowMs)) {
      this.#expired(name, nowMs)
      if (this.state === 'closed') return
    }
  }

  #expired(name: TimerName, nowMs: number): void {
    const connection = this.#connection
    switch (name) {
      case 'setup':
        connection.close('setup-timeout', 'setup-timeout')
        return
      case 'liveness':
        // ESP does not pass here: whether it came is asked when it matters (RFC 7296 §2.4).
        if (!connection.host.hasHeard() && !connection.hasTask('liveness')) {
          connection.enqueue(new Liveness())
        }
        this.#heard(nowMs)
        return
      case 'ike-rekey':
        if (!connection.hasTask('ike-rekey')) connection.enqueue(new IkeRekey())
        return
      case 'ike-expire':
        this.#close('session-timeout', 'ike-expired')
        return
      default:
        this.#expiredOf(name, nowMs)
    }
  }

  #expiredOf(
    name: Exclude<TimerName, 'setup' | 'liveness' | 'ike-rekey' | 'ike-expire'>,
    nowMs: number,
  ): void {
    const connection = this.#connection
    const [kind, number] = name.split(':')
    const id = Number(number)
    const association = connection.associations.find(other => other.index === id)
    switch (kind) {
      case 'retransmit':
        if (association) retransmit(connection, association, nowMs)
        return
      case 'fragments':
        association?.dropFragments()
        connection.unexpected('fragments-incomplete')
        return
      case 'linger':
        // Its creator did not delete it (RFC 7296 §2.8.2 leaves that to time).
        if (association?.outstanding) connection.dropAssociation(association)
        else association?.queue.push(new IkeDelete())
        return
      case 'child-rekey':
        connection.enqueue(new ChildRekey(id))
        return
      case 'child-expire':
        connection.enqueue(new ChildDelete([id], 'deleted'))
        return
      default:
        connection.unexpected(`timer-${name}`)
    }
  }
}

function sendReplyIfAny(connection: Connection, association: Association, answer: Answer): void {
  if (answer !== 'pending') sendReply(connection, association, answer)
}

function refusalNotify(refusal: MessageRefusal): Payload {
  return refusal.type === 'unsupported-critical'
    ? notify(NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD, Uint8Array.of(refusal.payloadType))
    : notify(NotifyType.INVALID_SYNTAX)
}
