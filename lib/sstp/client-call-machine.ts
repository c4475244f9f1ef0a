/**
 * The client's side of a call ([MS-SSTP] §3.2), from the HTTP answer to the last message.
 *
 * - `client-connect-request-sent`: asked for a call.
 * - `client-connect-request-acknowledged`: PPP negotiates and authenticates.
 * - `client-call-connected`: the binding is sent.
 *
 * Everything that changes the state of a client's call is in this file and in call-core.ts.
 */
import type { Machine, Output, Timeout } from '../core/machine.ts'
import { CallCore, type Received } from './call-core.ts'
import {
  type CallEvent,
  type CallInput,
  type CallOutput,
  type ClosingAction,
  type ClosingState,
  closingRows,
  type EchoAction,
} from './call-state.ts'
import { callConnectedBytes, hashBitmask, strongestHash } from './crypto-binding.ts'
import { AttributeId, type HashName, PROTOCOL_PPP, statusText } from './wire/attribute.ts'
import { messageBytes } from './wire/message.ts'

export type ClientCallState =
  | 'client-connect-request-sent'
  | 'client-connect-request-acknowledged'
  | 'client-call-connected'
  | ClosingState

export type ClientAction =
  | ClosingAction
  | EchoAction
  /** Keep nonce and hash of a Call-Connect-Ack and let PPP begin. */
  | 'take-acknowledgement'
  /** The server does not want the one protocol there is. */
  | 'give-up'
  /** Send Call-Connected with the binding. */
  | 'bind'
  | 'alive'

/** [MS-SSTP] §3.2.5 to §3.2.7. */
export const clientCallTable = {
  'client-connect-request-sent': {
    'call-connect-request': 'unaccepted',
    'call-connect-ack': 'take-acknowledgement',
    'call-connect-nak': 'give-up',
    'call-connected': 'unaccepted',
    'call-abort': 'answer-abort',
    'call-disconnect': 'answer-disconnect',
    'call-disconnect-ack': 'unaccepted',
    'echo-request': 'unaccepted',
    'echo-response': 'unaccepted',
    'unknown-message': 'invalid',
    'bad-attributes': 'complain',
    authenticated: 'ignore',
    'hang-up': 'close',
    'transport-closed': 'close',
    'negotiation-expired': 'negotiation-timeout',
    'hello-expired': 'ignore',
    'echo-expired': 'ignore',
    'closing-expired': 'ignore',
  },
  'client-connect-request-acknowledged': {
    'call-connect-request': 'unaccepted',
    'call-connect-ack': 'unaccepted',
    'call-connect-nak': 'unaccepted',
    'call-connected': 'unaccepted',
    'call-abort': 'answer-abort',
    'call-disconnect': 'answer-disconnect',
    'call-disconnect-ack': 'unaccepted',
    // SoftEther sends echoes from the acknowledgement on, every few seconds.
    'echo-request': 'answer-echo',
    'echo-response': 'alive',
    'unknown-message': 'invalid',
    'bad-attributes': 'complain',
    authenticated: 'bind',
    'hang-up': 'disconnect',
    'transport-closed': 'close',
    'negotiation-expired': 'negotiation-timeout',
    'hello-expired': 'ignore',
    'echo-expired': 'ignore',
    'closing-expired': 'ignore',
  },
  'client-call-connected': {
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
    authenticated: 'ignore',
    'hang-up': 'disconnect',
    'transport-closed': 'close',
    'negotiation-expired': 'ignore',
    'hello-expired': 'send-echo',
    'echo-expired': 'echo-timeout',
    'closing-expired': 'ignore',
  },
  ...closingRows,
} as const satisfies Record<ClientCallState, Record<CallEvent, ClientAction>>

export interface ClientCallOptions {
  /** Hashes we are ready to bind with; the strongest that the server offers is taken. */
  readonly hashes: readonly HashName[]
  /** The server's certificate as this connection showed it, DER. */
  readonly certificate: Uint8Array
}

type OpenState = Exclude<ClientCallState, ClosingState>

export class ClientCallMachine implements Machine<CallInput, CallOutput> {
  readonly #options: ClientCallOptions
  readonly #core = new CallCore<OpenState>('client-connect-request-sent')
  #nonce: Uint8Array = new Uint8Array(0)
  #hash: HashName = 'sha256'

  /** Asks for the call; the request is the first output. */
  constructor(options: ClientCallOptions, nowMs: number) {
    this.#options = options
    this.#core.restartNegotiation(nowMs)
    this.#core.outbox.transmit(
      messageBytes('call-connect-request', {
        type: 'encapsulated-protocol-id',
        protocol: PROTOCOL_PPP,
      }),
    )
  }

  get state(): ClientCallState {
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
        return
      }
      case 'received':
        this.#core.noteReceived(nowMs)
        return
      case 'timeout': {
        const event = this.#core.takeExpired(nowMs)
        if (event !== undefined) this.#step(event, nowMs, input)
        return
      }
      default:
        this.#step(input.type, nowMs, input)
    }
  }

  #step(event: CallEvent, nowMs: number, input: CallInput | Timeout, received?: Received): void {
    const action: ClientAction = clientCallTable[this.#core.state][event]
    switch (action) {
      case 'take-acknowledgement':
        this.#takeAcknowledgement(received, nowMs)
        return
      case 'give-up':
        this.#giveUp(received, nowMs)
        return
      case 'bind':
        if (input.type === 'authenticated') this.#bind(input.higherLayerKey, nowMs)
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

  #takeAcknowledgement(received: Received | undefined, nowMs: number): void {
    const request = received?.message.attributes.find(
      attribute => attribute.type === 'crypto-binding-request',
    )
    if (request === undefined) return
    const hash = strongestHash(request.hashBitmask & hashBitmask(this.#options.hashes))
    if (hash === undefined) {
      const attributeId = AttributeId.cryptoBindingRequest
      const value = Uint8Array.of(0, 0, 0, request.hashBitmask)
      this.#core.complain({ status: 'value-not-supported', attributeId, value }, nowMs)
      return
    }
    this.#hash = hash
    this.#nonce = request.nonce
    this.#core.state = 'client-connect-request-acknowledged'
    this.#core.restartNegotiation(nowMs)
    this.#core.openLink()
  }

  #giveUp(received: Received | undefined, nowMs: number): void {
    for (const attribute of received?.message.attributes ?? []) {
      if (attribute.type === 'status-info') {
        this.#core.remark('connect-refused', statusText(attribute.status))
      }
    }
    this.#core.abort('connect-refused', 'value-not-supported', 'protocol-error', nowMs)
  }

  #bind(higherLayerKey: Uint8Array, nowMs: number): void {
    const { certificate } = this.#options
    const message = callConnectedBytes(this.#hash, this.#nonce, certificate, higherLayerKey)
    this.#core.outbox.transmit(message)
    this.#core.state = 'client-call-connected'
    this.#core.beginHello(nowMs)
    this.#core.outbox.event({ type: 'traffic-permitted', hash: this.#hash })
  }
}
