/**
 * What a call does in either role ([MS-SSTP] §3.1): it reads control messages, keeps itself alive,
 * aborts and disconnects. The role's machine owns one of these and decides by its table.
 */
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { faultName, WireFault } from '../core/faults.ts'
import { Outbox, type Output } from '../core/machine.ts'
import { TimerTable } from '../core/timers.ts'
import {
  ABORT_STATE_TIMER_1_MS,
  ABORT_STATE_TIMER_2_MS,
  type CallEvent,
  type CallOutput,
  type CallReason,
  type CallTimer,
  type ClosingAction,
  type ClosingState,
  DISCONNECT_TIMER_1_MS,
  DISCONNECT_TIMER_2_MS,
  type EchoAction,
  HELLO_TIMER_MS,
  NEGOTIATION_TIMER_MS,
} from './call-state.ts'
import { Status, type StatusName, statusText } from './wire/attribute.ts'
import {
  type AttributeComplaint,
  checkMessage,
  complaintAbout,
  type Message,
  messageBytes,
  parseMessage,
} from './wire/message.ts'

/** The offending value in a Status Info, §2.2.8: at most this much is sent back. */
const STATUS_ECHO_MAX_BYTES = 64

/** A control message and the event that it is. */
export interface Received {
  readonly event: CallEvent
  readonly message: Message
  readonly complaint: AttributeComplaint | undefined
}

export class CallCore<OpenState extends string> {
  readonly outbox = new Outbox<CallOutput>()
  readonly timers = new TimerTable<CallTimer>()
  state: OpenState | ClosingState
  #hasLink = false
  /** The first reason to end is the one that counts. */
  #cause: DisconnectCause | undefined

  constructor(state: OpenState) {
    this.state = state
  }

  poll(): Output<CallOutput> | undefined {
    return this.outbox.poll()
  }

  /** Reads a control packet; undefined when its lengths lie, which ends the call without a word. */
  read(bytes: Uint8Array, at: number, end: number): Received | undefined {
    const fault = checkMessage(bytes, at, end)
    if (fault !== WireFault.none) {
      this.remark('undelineable', faultName(fault))
      this.close('protocol-error')
      return undefined
    }
    const message = parseMessage(bytes, at)
    if (message.name === undefined) {
      return { event: 'unknown-message', message, complaint: undefined }
    }
    const complaint = complaintAbout(message.name, message.attributes)
    const event = complaint === undefined ? message.name : 'bad-attributes'
    return { event, message, complaint }
  }

  /** The event of a timer that has run out, if any. */
  takeExpired(nowMs: number): CallEvent | undefined {
    const timer = this.timers.takeExpired(nowMs)
    return timer === undefined ? undefined : `${timer}-expired`
  }

  remark(reason: CallReason, detail: string): void {
    this.outbox.event({ type: 'remark', reason, detail })
  }

  restartNegotiation(nowMs: number): void {
    this.timers.set('negotiation', nowMs + NEGOTIATION_TIMER_MS)
  }

  openLink(): void {
    this.#hasLink = true
    this.outbox.event({ type: 'link-open' })
  }

  /** The call stands: from now on silence is what ends it. */
  beginHello(nowMs: number): void {
    this.timers.clear('negotiation')
    this.timers.set('hello', nowMs + HELLO_TIMER_MS)
  }

  /** Anything received is a sign of life. */
  noteReceived(nowMs: number): void {
    if (!this.timers.isSet('hello') && !this.timers.isSet('echo')) return
    this.timers.clear('echo')
    this.timers.set('hello', nowMs + HELLO_TIMER_MS)
  }

  echo(action: EchoAction, nowMs: number): void {
    switch (action) {
      case 'answer-echo':
        this.outbox.transmit(messageBytes('echo-response'))
        return
      case 'send-echo':
        this.timers.set('echo', nowMs + HELLO_TIMER_MS)
        this.outbox.transmit(messageBytes('echo-request'))
        return
      case 'echo-timeout':
        this.abort('echo-timeout', undefined, 'lost-carrier', nowMs)
    }
  }

  /** Does what a table says about leaving. `event` and `received` are what the table was asked about. */
  leave(
    action: ClosingAction,
    event: CallEvent,
    received: Received | undefined,
    nowMs: number,
    cause: DisconnectCause = 'protocol-error',
  ): void {
    switch (action) {
      case 'ignore':
        if (received !== undefined) this.remark('ignored-message', `${event} in ${this.state}`)
        return
      case 'unaccepted': {
        const status = { status: 'unaccepted-frame-received', attributeId: 0 } as const
        this.#abortFor('unaccepted-message', status, `${event} in ${this.state}`, nowMs)
        return
      }
      case 'invalid': {
        const status = { status: 'invalid-frame-received', attributeId: 0 } as const
        this.#abortFor('invalid-message', status, `type ${received?.message.code}`, nowMs)
        return
      }
      case 'complain':
        this.complain(received?.complaint, nowMs)
        return
      case 'negotiation-timeout':
        this.abort('negotiation-timeout', 'negotiation-timeout', 'setup-timeout', nowMs)
        return
      case 'answer-abort':
        this.remark('peer-abort', peerStatus(received))
        this.#enter('call-abort-timeout-pending', ABORT_STATE_TIMER_2_MS, 'protocol-error', nowMs)
        this.outbox.transmit(messageBytes('call-abort'))
        return
      case 'abort-answered':
        this.#enter('call-abort-timeout-pending', ABORT_STATE_TIMER_2_MS, 'protocol-error', nowMs)
        return
      case 'answer-disconnect':
        this.#enter('call-disconnect-timeout-pending', DISCONNECT_TIMER_2_MS, 'user-request', nowMs)
        this.outbox.transmit(messageBytes('call-disconnect-ack'))
        return
      case 'disconnect':
        this.#hasLink = false
        this.#enter('call-disconnect-ack-pending', DISCONNECT_TIMER_1_MS, cause, nowMs)
        this.outbox.transmit(messageBytes('call-disconnect'))
        return
      case 'close':
        this.close(event === 'transport-closed' ? 'lost-carrier' : cause)
    }
  }

  /** Call-Abort because of an attribute. */
  complain(complaint: AttributeComplaint | undefined, nowMs: number): void {
    if (complaint === undefined) return
    const detail = `${complaint.status}, attribute ${complaint.attributeId}`
    this.#abortFor('bad-attributes', complaint, detail, nowMs)
  }

  /** Call-Abort for a reason that is no attribute's. */
  abort(
    reason: CallReason,
    status: StatusName | undefined,
    cause: DisconnectCause,
    nowMs: number,
  ): void {
    const complaint = status === undefined ? undefined : { status, attributeId: 0 }
    this.#abortFor(reason, complaint, `in ${this.state}`, nowMs, cause)
  }

  /** Ends the call at once, without a word to the peer. */
  close(cause: DisconnectCause): void {
    if (this.state === 'call-disconnected') return
    this.#linkDown(cause)
    this.state = 'call-disconnected'
    this.timers.clearAll()
    this.outbox.event({ type: 'close', cause: this.#cause ?? cause })
  }

  #abortFor(
    reason: CallReason,
    complaint: AttributeComplaint | undefined,
    detail: string,
    nowMs: number,
    cause: DisconnectCause = 'protocol-error',
  ): void {
    this.remark(reason, detail)
    this.#enter('call-abort-pending', ABORT_STATE_TIMER_1_MS, cause, nowMs)
    this.outbox.transmit(
      complaint === undefined
        ? messageBytes('call-abort')
        : messageBytes('call-abort', statusInfo(complaint)),
    )
  }

  /** Comes before the message that says so: what PPP still has to send leaves first. */
  #enter(state: ClosingState, timerMs: number, cause: DisconnectCause, nowMs: number): void {
    this.#linkDown(cause)
    this.state = state
    this.timers.clearAll()
    this.timers.set('closing', nowMs + timerMs)
  }

  #linkDown(cause: DisconnectCause): void {
    this.#cause ??= cause
    if (!this.#hasLink) return
    this.#hasLink = false
    this.outbox.event({ type: 'link-down', cause })
  }
}

/** A complaint as it goes on the wire, §2.2.8. */
export function statusInfo(complaint: AttributeComplaint) {
  return {
    type: 'status-info',
    attributeId: complaint.attributeId,
    status: Status[complaint.status],
    value: (complaint.value ?? new Uint8Array(0)).subarray(0, STATUS_ECHO_MAX_BYTES),
  } as const
}

function peerStatus(received: Received | undefined): string {
  const info = received?.message.attributes.find(attribute => attribute.type === 'status-info')
  return info === undefined ? 'no status' : statusText(info.status)
}
