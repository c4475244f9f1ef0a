/**
 * One control connection (RFC 2637 §3.1) with its calls (§3.2), in either role: the server answers as
 * the RFC's PAC, the client dials as its PNS. Everything that changes their state is in this file and
 * in the table that it obeys; bytes and time come in, bytes and events go out.
 *
 * Deviations from the RFC, all against strangers:
 * - A message that has begun must end within `partialMs`, and the first within `setupMs`.
 * - A connection without a call is closed after `idleMs`.
 * - A wrong cookie, type or length closes the connection at once; the RFC wants it ended in an
 *   orderly way, but nobody knows where the next message of such a stream begins.
 */
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { assertNever } from '../core/errors.ts'
import { faultName, WireFault } from '../core/faults.ts'
import { type Machine, Outbox, type Output, type Timeout } from '../core/machine.ts'
import { TimerTable } from '../core/timers.ts'
import { CallTable, type ControlCall } from './call-table.ts'
import { type ControlSettings, type ControlTiming, defaultTiming } from './control-settings.ts'
import { type ControlState, controlTable } from './control-table.ts'
import { causeOfDisconnect, disconnectResultOf } from './disconnect-code.ts'
import type { ControlEvent, ControlInput } from './event.ts'
import { MessageReader } from './message-reader.ts'
import {
  Bearer,
  type ControlMessage,
  type ControlMessageOf,
  encodeMessage,
  Framing,
  PROTOCOL_VERSION,
} from './wire/control-message.ts'

/** Specification constants, RFC 2637 §3.1.4. */
const ECHO_MS = 60_000
/** §2.2, §2.8, §2.10: result and error codes. */
const RESULT_OK = 1
const RESULT_BAD_VERSION = 5
const CALL_RESULT_ERROR = 2
const CALL_RESULT_PROHIBITED = 7
const INCOMING_RESULT_REFUSED = 3
const ERROR_NO_RESOURCE = 4
/** §2.7, §2.8: processing delays are tenths of a second. */
const DELAY_UNIT_MS = 100
/** §2.3: reasons to stop. */
const STOP_LOCAL_SHUTDOWN = 3

/** Implementation constants. */
const STOP_MS = 3_000
/** The window that we announce: packets that our reorder buffer is sure to hold. */
export const WINDOW_PACKETS = 64
/** A speed means nothing in a tunnel; it must lie between what the client asked for. */
const CONNECT_BPS = 100_000_000

type TimerName = 'setup' | 'partial' | 'idle' | 'echo' | 'stop'

export class ControlMachine implements Machine<ControlInput, ControlEvent> {
  readonly #settings: ControlSettings
  readonly #timing: ControlTiming
  readonly #outbox = new Outbox<ControlEvent>()
  readonly #timers = new TimerTable<TimerName>()
  readonly #calls = new CallTable()
  readonly #reader = new MessageReader()
  #state: ControlState
  #echoIdentifier = 0
  #isEchoPending = false
  #callSerialNumber = 0

  constructor(settings: ControlSettings, nowMs: number) {
    this.#settings = settings
    this.#timing = { ...defaultTiming, ...settings.timing }
    this.#state = settings.role === 'server' ? 'wait-request' : 'wait-reply'
    this.#timers.set('setup', nowMs + this.#timing.setupMs)
  }

  get state(): ControlState {
    return this.#state
  }

  get callCount(): number {
    return this.#calls.size
  }

  handle(input: ControlInput | Timeout, nowMs: number): void {
    if (this.#state === 'closed') return
    switch (input.type) {
      case 'timeout':
        this.#runTimers(nowMs)
        return
      case 'open':
        this.#requestStart()
        return
      case 'received':
        this.#receive(input.bytes, nowMs)
        return
      case 'answer':
        this.#answer(input.callId, input.isAccepted)
        return
      case 'place-call':
        this.#placeCall(nowMs)
        return
      case 'clear-call':
        this.#clearCall(input.callId, input.cause, nowMs)
        return
      case 'stop':
        this.#stop(input.cause, nowMs)
        return
      case 'transport-closed':
        this.#close('lost-carrier', 'transport-closed')
        return
    }
  }

  poll(): Output<ControlEvent> | undefined {
    return this.#outbox.poll()
  }

  nextDeadlineMs(): number {
    return Math.min(this.#timers.nextDeadlineMs(), this.#calls.nextDeadlineMs())
  }

  // ---- the stream

  #receive(chunk: Uint8Array, nowMs: number): void {
    const fault = this.#reader.read(chunk, message => {
      this.#dispatch(message, nowMs)
      return this.#state !== 'closed'
    })
    if (this.#state === 'closed') return
    if (fault !== WireFault.none) {
      this.#remark(`malformed-${faultName(fault)}`)
      this.#close('protocol-error', 'undelineable')
    } else if (!this.#reader.isPartial) this.#timers.clear('partial')
    else if (!this.#timers.isSet('partial')) {
      this.#timers.set('partial', nowMs + this.#timing.partialMs)
    }
  }

  #dispatch(message: ControlMessage, nowMs: number): void {
    if (this.#state === 'established') {
      this.#isEchoPending = false
      this.#timers.set('echo', nowMs + ECHO_MS)
    }
    this.#timers.clear('partial')
    const reaction = controlTable[this.#state][message.type]
    switch (reaction) {
      case null:
        this.#remark(`unexpected-${message.type}`)
        return
      case 'violation':
        this.#remark(`unexpected-${message.type}`)
        this.#close('protocol-error', 'violation')
        return
      case 'note':
        // Error counts and character maps mean nothing where frames are not stuffed.
        this.#remark(message.type)
        return
      case 'echoed':
        return
      case 'stopped':
        this.#close('user-request', 'stopped')
        return
      case 'begin':
      case 'begun':
      case 'obey-stop':
      case 'answer-echo':
      case 'offer-call':
      case 'call-answered':
      case 'decline-incoming':
      case 'clear':
      case 'disconnected':
        this.#react(message, nowMs)
        return
      default:
        assertNever(reaction)
    }
  }

  /** The table has said that the message is welcome; its type says what to do. */
  #react(message: ControlMessage, nowMs: number): void {
    switch (message.type) {
      case 'start-control-connection-request':
        this.#begin(message, nowMs)
        return
      case 'start-control-connection-reply':
        this.#begun(message, nowMs)
        return
      case 'stop-control-connection-request':
        this.#send({ type: 'stop-control-connection-reply', resultCode: RESULT_OK, errorCode: 0 })
        this.#close('user-request', 'stopped-by-peer')
        return
      case 'echo-request':
        this.#send({
          type: 'echo-reply',
          identifier: message.identifier,
          resultCode: RESULT_OK,
          errorCode: 0,
        })
        return
      case 'outgoing-call-request':
        this.#offerCall(message, nowMs)
        return
      case 'outgoing-call-reply':
        this.#callAnswered(message, nowMs)
        return
      case 'incoming-call-request':
        this.#remark('incoming-call-declined')
        this.#send({
          type: 'incoming-call-reply',
          callId: 0,
          peerCallId: message.callId,
          resultCode: INCOMING_RESULT_REFUSED,
          errorCode: 0,
          windowPackets: 0,
          processingDelay: 0,
        })
        return
      case 'call-clear-request':
        this.#cleared(message, nowMs)
        return
      case 'call-disconnect-notify':
        this.#disconnected(message, nowMs)
        return
      default:
        this.#remark(`unexpected-${message.type}`)
    }
  }

  // ---- the control connection

  #requestStart(): void {
    if (this.#settings.role !== 'client') return
    this.#send({
      type: 'start-control-connection-request',
      protocolVersion: PROTOCOL_VERSION,
      ...this.#capabilities(),
    })
  }

  #begin(message: ControlMessageOf<'start-control-connection-request'>, nowMs: number): void {
    const isKnown = message.protocolVersion >>> 8 === PROTOCOL_VERSION >>> 8
    this.#send({
      type: 'start-control-connection-reply',
      protocolVersion: PROTOCOL_VERSION,
      resultCode: isKnown ? RESULT_OK : RESULT_BAD_VERSION,
      errorCode: 0,
      ...this.#capabilities(),
    })
    if (isKnown) this.#establish(message, nowMs)
    else this.#close('protocol-error', 'bad-version')
  }

  #begun(message: ControlMessageOf<'start-control-connection-reply'>, nowMs: number): void {
    if (message.resultCode === RESULT_OK) this.#establish(message, nowMs)
    else this.#close('service-unavailable', 'start-refused')
  }

  #establish(peer: { hostName: string; vendorName: string }, nowMs: number): void {
    this.#state = 'established'
    this.#timers.clear('setup')
    this.#timers.set('idle', nowMs + this.#timing.idleMs)
    this.#timers.set('echo', nowMs + ECHO_MS)
    const { hostName, vendorName } = peer
    this.#outbox.event({ type: 'established', hostName, vendorName })
  }

  #capabilities() {
    const { role, hostName, habits } = this.#settings
    return {
      framing: habits?.framing ?? Framing.either,
      bearer: habits?.bearer ?? Bearer.any,
      maxChannels: habits?.maxChannels ?? (role === 'server' ? this.#settings.maxCalls : 0),
      firmwareRevision: habits?.firmwareRevision ?? 1,
      hostName,
      vendorName: habits?.vendorName ?? 'OpenRAS',
    }
  }

  #stop(cause: DisconnectCause, nowMs: number): void {
    if (this.#state !== 'established') {
      if (this.#state !== 'wait-stop') this.#close(cause, 'stopped')
      return
    }
    for (const call of this.#calls) {
      if (this.#settings.role === 'server') this.#sendDisconnect(call, cause)
      this.#endCall(call, cause, nowMs)
    }
    this.#send({ type: 'stop-control-connection-request', reason: STOP_LOCAL_SHUTDOWN })
    this.#state = 'wait-stop'
    this.#timers.clearAll()
    this.#timers.set('stop', nowMs + STOP_MS)
  }

  #close(cause: DisconnectCause, counter: string): void {
    this.#state = 'closed'
    this.#timers.clearAll()
    for (const call of this.#calls) {
      this.#calls.delete(call.callId)
      if (call.state !== 'wait-disconnect') this.#reportDown(call.callId, cause)
    }
    this.#outbox.event({ type: 'close', counter })
  }

  // ---- calls

  #offerCall(message: ControlMessageOf<'outgoing-call-request'>, nowMs: number): void {
    const isServer = this.#settings.role === 'server'
    const isTwice = this.#calls.withPeerCallId(message.callId) !== undefined
    const isFull = this.#calls.size >= this.#settings.maxCalls
    const callId = isServer && !isTwice && !isFull ? this.#settings.takeCallId() : 0
    if (callId === 0) {
      this.#remark(isTwice ? 'call-id-repeated' : isServer ? 'too-many-calls' : 'call-to-client')
      this.#sendOutgoingReply(0, message.callId, false)
      return
    }
    const call: ControlCall = {
      callId,
      peerCallId: message.callId,
      peerWindowPackets: message.windowPackets,
      peerDelayMs: message.processingDelay * DELAY_UNIT_MS,
      state: 'requested',
      cause: 'user-request',
      deadlineMs: nowMs + this.#timing.callReplyMs,
    }
    this.#calls.add(call)
    this.#timers.clear('idle')
    this.#outbox.event({ type: 'call-requested', ...parametersOf(call) })
  }

  #answer(callId: number, isAccepted: boolean): void {
    const call = this.#calls.get(callId)
    if (call?.state !== 'requested') return
    this.#sendOutgoingReply(callId, call.peerCallId, isAccepted)
    if (isAccepted) {
      call.state = 'established'
      call.deadlineMs = Number.POSITIVE_INFINITY
      this.#outbox.event({ type: 'call-up', ...parametersOf(call) })
    } else {
      this.#calls.delete(callId)
      this.#reportDown(callId, 'session-limit')
    }
  }

  #placeCall(nowMs: number): void {
    const callId = this.#settings.takeCallId()
    if (this.#settings.role !== 'client' || this.#state !== 'established' || callId === 0) {
      this.#remark('call-impossible')
      return
    }
    const { habits } = this.#settings
    this.#calls.add({
      callId,
      peerCallId: 0,
      peerWindowPackets: 0,
      peerDelayMs: 0,
      state: 'wait-reply',
      cause: 'user-request',
      deadlineMs: nowMs + this.#timing.callReplyMs,
    })
    this.#timers.clear('idle')
    this.#callSerialNumber = (this.#callSerialNumber + 1) & 0xffff
    this.#send({
      type: 'outgoing-call-request',
      callId,
      callSerialNumber: this.#callSerialNumber,
      minimumBps: habits?.minimumBps ?? 2_400,
      maximumBps: habits?.maximumBps ?? 1_000_000_000,
      bearer: habits?.bearer ?? Bearer.any,
      framing: habits?.framing ?? Framing.either,
      windowPackets: habits?.windowPackets ?? WINDOW_PACKETS,
      processingDelay: 0,
      phoneNumberLength: 0,
      phoneNumber: '',
      subaddress: '',
    })
  }

  #callAnswered(message: ControlMessageOf<'outgoing-call-reply'>, nowMs: number): void {
    const call = this.#calls.get(message.peerCallId)
    if (call?.state !== 'wait-reply') {
      this.#remark('reply-to-no-call')
      return
    }
    if (message.resultCode !== RESULT_OK) {
      this.#endCall(call, 'service-unavailable', nowMs)
      return
    }
    call.peerCallId = message.callId
    call.peerWindowPackets = message.windowPackets
    call.peerDelayMs = message.processingDelay * DELAY_UNIT_MS
    call.state = 'established'
    call.deadlineMs = Number.POSITIVE_INFINITY
    this.#outbox.event({ type: 'call-up', ...parametersOf(call) })
  }

  #clearCall(callId: number, cause: DisconnectCause, nowMs: number): void {
    const call = this.#calls.get(callId)
    if (call === undefined || call.state === 'wait-disconnect') return
    if (call.state === 'requested') {
      this.#sendOutgoingReply(0, call.peerCallId, false)
      this.#endCall(call, cause, nowMs)
    } else if (this.#settings.role === 'server') {
      this.#sendDisconnect(call, cause)
      this.#endCall(call, cause, nowMs)
    } else {
      this.#send({ type: 'call-clear-request', callId })
      this.#reportDown(callId, cause)
      call.state = 'wait-disconnect'
      call.deadlineMs = nowMs + STOP_MS
    }
  }

  /** The client wants its call ended; it names it by its own id (RFC 2637 §2.12). */
  #cleared({ callId }: ControlMessageOf<'call-clear-request'>, nowMs: number): void {
    const call = this.#calls.withPeerCallId(callId)
    if (call === undefined) {
      this.#remark('clear-of-no-call')
      return
    }
    this.#sendDisconnect(call, 'user-request')
    this.#endCall(call, 'user-request', nowMs)
  }

  /** The sender names the call by its own id (§2.13); some peers use the receiver's. */
  #disconnected(message: ControlMessageOf<'call-disconnect-notify'>, nowMs: number): void {
    const { callId, resultCode } = message
    const call = this.#calls.withPeerCallId(callId) ?? this.#calls.get(callId)
    if (call === undefined) this.#remark('disconnect-of-no-call')
    else this.#endCall(call, causeOfDisconnect(resultCode), nowMs)
  }

  #endCall(call: ControlCall, cause: DisconnectCause, nowMs: number): void {
    this.#calls.delete(call.callId)
    if (call.state !== 'wait-disconnect') this.#reportDown(call.callId, cause)
    if (this.#calls.size === 0) this.#timers.set('idle', nowMs + this.#timing.idleMs)
  }

  #reportDown(callId: number, cause: DisconnectCause): void {
    this.#outbox.event({ type: 'call-down', callId, cause })
  }

  #sendOutgoingReply(callId: number, peerCallId: number, isAccepted: boolean): void {
    this.#send({
      type: 'outgoing-call-reply',
      callId,
      peerCallId,
      resultCode: isAccepted
        ? RESULT_OK
        : callId === 0
          ? CALL_RESULT_ERROR
          : CALL_RESULT_PROHIBITED,
      errorCode: isAccepted || callId !== 0 ? 0 : ERROR_NO_RESOURCE,
      causeCode: 0,
      connectBps: CONNECT_BPS,
      windowPackets: WINDOW_PACKETS,
      processingDelay: 0,
      physicalChannelId: 0,
    })
  }

  #sendDisconnect(call: ControlCall, cause: DisconnectCause): void {
    this.#send({
      type: 'call-disconnect-notify',
      callId: call.callId,
      resultCode: disconnectResultOf[cause],
      errorCode: 0,
      causeCode: 0,
      statistics: '',
    })
  }

  // ---- time

  #runTimers(nowMs: number): void {
    for (let name = this.#timers.takeExpired(nowMs); name !== undefined; ) {
      this.#runTimer(name, nowMs)
      name = this.#timers.takeExpired(nowMs)
    }
    for (const call of this.#calls) {
      if (call.deadlineMs > nowMs) continue
      this.#remark('call-reply-timeout')
      this.#endCall(call, 'setup-timeout', nowMs)
    }
  }

  #runTimer(name: TimerName, nowMs: number): void {
    switch (name) {
      case 'setup':
        this.#close('setup-timeout', 'setup-timeout')
        return
      case 'partial':
        this.#close('protocol-error', 'message-timeout')
        return
      case 'idle':
        this.#stop('idle-timeout', nowMs)
        return
      case 'stop':
        this.#close('lost-carrier', 'stop-timeout')
        return
      case 'echo':
        this.#echo(nowMs)
        return
    }
  }

  /** RFC 2637 §3.1.4: 60 s of silence, then a question, then 60 s for the answer. */
  #echo(nowMs: number): void {
    if (this.#isEchoPending) {
      this.#close('lost-carrier', 'echo-timeout')
      return
    }
    this.#isEchoPending = true
    this.#echoIdentifier = (this.#echoIdentifier + 1) >>> 0
    this.#send({ type: 'echo-request', identifier: this.#echoIdentifier })
    this.#timers.set('echo', nowMs + ECHO_MS)
  }

  #remark(counter: string): void {
    this.#outbox.event({ type: 'remark', counter })
  }

  #send(message: ControlMessage): void {
    this.#outbox.transmit(encodeMessage(message))
  }
}

function parametersOf({ callId, peerCallId, peerWindowPackets, peerDelayMs }: ControlCall) {
  return { callId, peerCallId, peerWindowPackets, peerDelayMs }
}
