/**
 * The server's side of a call ([MS-SSTP] §3.3), from the HTTP answer to the last message.
 *
 * - `server-connect-request-pending`: the connection stands, the client has to ask for a call.
 * - `server-call-connected-pending`: asked and acknowledged; PPP negotiates and authenticates, and the
 *   client has to bind the two. Only PPP control may flow.
 * - `server-call-connected`: the binding is verified.
 *
 * Everything that changes the state of a server's call is in this file and in call-core.ts.
 *
 * A Call-Connected may overtake the verdict about the user (sstp-client sends it when it sees CHAP's
 * Success, which we send before PPP tells us). It is held until `authenticated`.
 */
import { copyBytes } from '../core/bytes.ts'
import type { Machine, Output, Timeout } from '../core/machine.ts'
import { type RandomSource, randomBytes } from '../core/random.ts'
import { wipe } from '../core/secret.ts'
import { CallCore, type Received, statusInfo } from './call-core.ts'
import {
  type CallEvent,
  type CallInput,
  type CallOutput,
  type ClosingAction,
  type ClosingState,
  closingRows,
  type EchoAction,
} from './call-state.ts'
import { checkBinding, hashBitmask, isCompoundMacRight } from './crypto-binding.ts'
import {
  AttributeId,
  type CryptoBinding,
  type HashName,
  NONCE_BYTES,
  PROTOCOL_PPP,
  Status,
} from './wire/attribute.ts'
import { type AttributeComplaint, messageBytes } from './wire/message.ts'

export type ServerCallState =
  | 'server-connect-request-pending'
  | 'server-call-connected-pending'
  | 'server-call-connected'
  | ClosingState

export type ServerAction =
  | ClosingAction
  | EchoAction
  /** Acknowledge a Call-Connect-Request with a nonce, or refuse its protocol. */
  | 'consider-request'
  /** A Call-Connect-Request with wrong attributes: refuse the value, or abort. */
  | 'consider-bad-attributes'
  /** Check a Call-Connected as far as it needs no key, and its MAC as soon as there is one. */
  | 'take-binding'
  /** The key has come: check the Call-Connected that waits for it, if one does. */
  | 'take-key'
  /** A sign of life and nothing else. */
  | 'alive'

/** More refused requests than this end the call with RETRY_COUNT_EXCEEDED, §3.3.5.2.1. */
const MAX_REFUSED_REQUESTS = 3

/** [MS-SSTP] §3.3.5 to §3.3.7. */
export const serverCallTable = {
  'server-connect-request-pending': {
    'call-connect-request': 'consider-request',
    'call-connect-ack': 'unaccepted',
    'call-connect-nak': 'unaccepted',
    'call-connected': 'unaccepted',
    'call-abort': 'answer-abort',
    'call-disconnect': 'answer-disconnect',
    'call-disconnect-ack': 'unaccepted',
    'echo-request': 'unaccepted',
    'echo-response': 'unaccepted',
    'unknown-message': 'invalid',
    'bad-attributes': 'consider-bad-attributes',
    authenticated: 'ignore',
    'hang-up': 'close',
    'transport-closed': 'close',
    'negotiation-expired': 'negotiation-timeout',
    'hello-expired': 'ignore',
    'echo-expired': 'ignore',
    'closing-expired': 'ignore',
  },
  'server-call-connected-pending': {
    'call-connect-request': 'unaccepted',
    'call-connect-ack': 'unaccepted',
    'call-connect-nak': 'unaccepted',
    'call-connected': 'take-binding',
    'call-abort': 'answer-abort',
    'call-disconnect': 'answer-disconnect',
    'call-disconnect-ack': 'unaccepted',
    'echo-request': 'unaccepted',
    'echo-response': 'unaccepted',
    'unknown-message': 'invalid',
    'bad-attributes': 'complain',
    authenticated: 'take-key',
    'hang-up': 'disconnect',
    'transport-closed': 'close',
    'negotiation-expired': 'negotiation-timeout',
    'hello-expired': 'ignore',
    'echo-expired': 'ignore',
    'closing-expired': 'ignore',
  },
  'server-call-connected': {
    'call-connect-request': 'unaccepted',
    'call-connect-ack': 'unaccepted',
    'call-connect-nak': 'unaccepted',
    'call-connected': 'unaccepted',
    'call-abort': 'answer-abort',
    'call-disconnect': 'answer-disconnect',
    'call-disconnect-ack': 'unaccepted',
    'echo-request': 'answer-echo',
    'echo-response': 'alive',
    'unknown-message': 'invalid',
    'bad-attributes': 'complain',
    // PPP may authenticate again at any time; the binding stays that of the first time.
    authenticated: 'ignore',
    'hang-up': 'disconnect',
    'transport-closed': 'close',
    'negotiation-expired': 'ignore',
    'hello-expired': 'send-echo',
    'echo-expired': 'echo-timeout',
    'closing-expired': 'ignore',
  },
  ...closingRows,
} as const satisfies Record<ServerCallState, Record<CallEvent, ServerAction>>

export interface ServerCallOptions {
  /** Hashes offered for the binding, §2.2.6. */
  readonly hashes: readonly HashName[]
  /** The certificate that this connection was answered with, DER. */
  readonly certificate: Uint8Array
  readonly random: RandomSource
}

interface HeldBinding {
  readonly hash: HashName
  readonly binding: CryptoBinding
  readonly message: Uint8Array
}

type OpenState = Exclude<ServerCallState, ClosingState>

export class ServerCallMachine implements Machine<CallInput, CallOutput> {
  readonly #options: ServerCallOptions
  readonly #core = new CallCore<OpenState>('server-connect-request-pending')
  readonly #nonce: Uint8Array
  #refusedRequests = 0
  #held: HeldBinding | undefined
  #higherLayerKey: Uint8Array | undefined

  /** The negotiation timer runs from `nowMs` on. */
  constructor(options: ServerCallOptions, nowMs: number) {
    this.#options = options
    this.#nonce = randomBytes(options.random, NONCE_BYTES)
    this.#core.restartNegotiation(nowMs)
  }

  get state(): ServerCallState {
    return this.#core.state
  }

  poll(): Output<CallOutput> | undefined {
    return this.#core.poll()
  }

  nextDeadlineMs(): number {
    return this.#core.timers.nextDeadlineMs()
  }

  handle(input: CallInput | Timeout, nowMs: number): void {
    switch (input.type) {
      case 'control': {
        this.#core.noteReceived(nowMs)
        const received = this.#core.read(input.bytes, input.at, input.end)
        if (received !== undefined) this.#step(received.event, nowMs, input, received)
        break
      }
      case 'received':
        this.#core.noteReceived(nowMs)
        break
      case 'timeout': {
        const event = this.#core.takeExpired(nowMs)
        if (event !== undefined) this.#step(event, nowMs, input)
        break
      }
      default:
        this.#step(input.type, nowMs, input)
    }
    if (this.#core.state in closingRows) this.#forget()
  }

  #step(event: CallEvent, nowMs: number, input: CallInput | Timeout, received?: Received): void {
    const action: ServerAction = serverCallTable[this.#core.state][event]
    switch (action) {
      case 'consider-request':
        this.#considerRequest(received, nowMs)
        return
      case 'consider-bad-attributes':
        if (canRefuse(received)) this.#refuse(received?.complaint, nowMs)
        else this.#core.complain(received?.complaint, nowMs)
        return
      case 'take-binding':
        if (input.type === 'control') this.#takeBinding(input, received, nowMs)
        return
      case 'take-key':
        if (input.type === 'authenticated') this.#takeKey(input.higherLayerKey, nowMs)
        return
      case 'alive':
        return
      case 'answer-echo':
      case 'send-echo':
      case 'echo-timeout':
        this.#core.echo(action, nowMs)
        return
      default:
        this.#core.leave(
          action,
          event,
          received,
          nowMs,
          input.type === 'hang-up' ? input.cause : undefined,
        )
    }
  }

  #considerRequest(received: Received | undefined, nowMs: number): void {
    for (const attribute of received?.message.attributes ?? []) {
      if (attribute.type === 'encapsulated-protocol-id' && attribute.protocol !== PROTOCOL_PPP) {
        const value = Uint8Array.of(attribute.protocol >>> 8, attribute.protocol)
        const attributeId = AttributeId.encapsulatedProtocolId
        this.#refuse({ status: 'value-not-supported', attributeId, value }, nowMs)
        return
      }
      if (attribute.type === 'status-info' && attribute.status !== Status['no-error']) {
        const attributeId = AttributeId.statusInfo
        this.#core.complain({ status: 'status-info-not-supported-in-msg', attributeId }, nowMs)
        return
      }
    }
    this.#core.state = 'server-call-connected-pending'
    this.#core.restartNegotiation(nowMs)
    this.#core.outbox.transmit(
      messageBytes('call-connect-ack', {
        type: 'crypto-binding-request',
        hashBitmask: hashBitmask(this.#options.hashes),
        nonce: this.#nonce,
      }),
    )
    this.#core.openLink()
  }

  /** Call-Connect-Nak: the client may ask again, a few times. */
  #refuse(complaint: AttributeComplaint | undefined, nowMs: number): void {
    if (complaint === undefined) return
    this.#refusedRequests++
    if (this.#refusedRequests > MAX_REFUSED_REQUESTS) {
      const status = 'retry-count-exceeded'
      this.#core.abort(status, status, 'protocol-error', nowMs)
      return
    }
    this.#core.remark('connect-refused', complaint.status)
    this.#core.outbox.transmit(messageBytes('call-connect-nak', statusInfo(complaint)))
  }

  #takeBinding(
    input: CallInput & { type: 'control' },
    received: Received | undefined,
    nowMs: number,
  ): void {
    const binding = received?.message.attributes.find(
      attribute => attribute.type === 'crypto-binding',
    )
    if (binding === undefined) return
    if (this.#held !== undefined) {
      this.#core.leave('unaccepted', 'call-connected', received, nowMs)
      return
    }
    const { hashes: offered, certificate } = this.#options
    const hash = checkBinding(binding, { nonce: this.#nonce, offered, certificate })
    if (hash !== 'sha1' && hash !== 'sha256') {
      this.#core.abort(hash, 'value-not-supported', 'protocol-error', nowMs)
      return
    }
    // copied: the MAC is taken over the message as it came, perhaps later than this burst
    this.#held = { hash, binding, message: copyBytes(input.bytes, input.at, input.end) }
    this.#verify(nowMs)
  }

  #takeKey(higherLayerKey: Uint8Array, nowMs: number): void {
    if (this.#higherLayerKey !== undefined) return
    this.#higherLayerKey = copyBytes(higherLayerKey)
    this.#verify(nowMs)
  }

  #verify(nowMs: number): void {
    const held = this.#held
    const key = this.#higherLayerKey
    if (held === undefined || key === undefined) return
    if (!isCompoundMacRight(held.hash, key, held.message, held.binding)) {
      this.#core.abort('binding-mac', 'value-not-supported', 'protocol-error', nowMs)
      return
    }
    this.#forget()
    this.#core.state = 'server-call-connected'
    this.#core.beginHello(nowMs)
    this.#core.outbox.event({ type: 'traffic-permitted', hash: held.hash })
  }

  #forget(): void {
    if (this.#higherLayerKey !== undefined) wipe(this.#higherLayerKey)
    this.#higherLayerKey = undefined
    this.#held = undefined
  }
}

/** A Call-Connect-Nak is for what a client may leave away: attributes that we do not know. */
function canRefuse(received: Received | undefined): boolean {
  return (
    received?.message.name === 'call-connect-request' &&
    received.complaint?.status === 'unrecognized-attribute'
  )
}
