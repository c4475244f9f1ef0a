/**
 * One call of a tunnel: the state of `call-table.ts` and what both sides have said. Not a machine of
 * its own: its messages travel on the tunnel's control channel.
 */
import { type CallEvent, type CallRole, type CallState, callCell } from './call-table.ts'
import { type CloseReason, callReason } from './close-reason.ts'
import type { CallParameters, CallRequest, L2tpEvent, ProxyState } from './event.ts'
import type { Control, ControlMessage } from './wire/message.ts'

/** RFC 2661 §4.4.4, Framing Type: synchronous. PPP frames of a VPN client have no bearer to differ in. */
const synchronousFraming = 1
/** RFC 2661 §4.4.4, Bearer Type: digital. */
const digitalBearer = 1

export interface CallPorts {
  send(message: ControlMessage, sessionId: number): void
  event(event: L2tpEvent): void
  /** The tunnel is open, or will send `tunnel-open` when it is. */
  openTunnel(): boolean
  /** The call is over: its session ID may be given to another. */
  forget(call: Call): void
  readonly peerTunnelId: number
  /** For ICCN and OCCN. */
  readonly connectSpeedBps: number
}

const noParameters: CallParameters = {
  callSerialNumber: 0,
  callingNumber: '',
  calledNumber: '',
  subAddress: '',
  connectSpeedBps: 0,
  receiveConnectSpeedBps: 0,
  framingType: synchronousFraming,
  bearerType: digitalBearer,
  minimumBps: 0,
  maximumBps: 0,
  isSequenced: false,
}

export class Call {
  readonly role: CallRole
  readonly sessionId: number
  readonly reference: number | undefined
  readonly #ports: CallPorts
  readonly #request: CallRequest | undefined
  #parameters: CallParameters
  #state: CallState = 'idle'
  #peerSessionId = 0
  #wasUp = false

  constructor(
    role: CallRole,
    sessionId: number,
    callSerialNumber: number,
    request: CallRequest | undefined,
    ports: CallPorts,
  ) {
    this.role = role
    this.sessionId = sessionId
    this.reference = request?.reference
    this.#request = request
    this.#ports = ports
    this.#parameters = {
      ...noParameters,
      callSerialNumber,
      callingNumber: request?.callingNumber ?? '',
      calledNumber: request?.calledNumber ?? '',
      subAddress: request?.subAddress ?? '',
      minimumBps: request?.minimumBps ?? 0,
      maximumBps: request?.maximumBps ?? 0,
      isSequenced: request?.isSequenced ?? false,
    }
  }

  get state(): CallState {
    return this.#state
  }

  get peerSessionId(): number {
    return this.#peerSessionId
  }

  get isUp(): boolean {
    return this.#state === 'established'
  }

  /** A local event. `reason` says why a call is closed. */
  handle(event: 'open' | 'tunnel-open' | 'answer' | 'close', reason?: CloseReason): void {
    this.#step(event, reason ?? callReason('admin-reset', ''), 'us', undefined)
  }

  /** A message of the peer for this call; `refusal` marks it as not acceptable. */
  receive(message: ControlMessage, refusal?: CloseReason): void {
    const isIncoming = this.role === 'incoming-lac' || this.role === 'incoming-lns'
    const outOfState = callReason('protocol-error', `${message.type} in ${this.#state}`)
    switch (message.type) {
      case 'icrq':
      case 'ocrq':
        if (this.#state === 'idle') this.#learnRequest(message)
        this.#stepMessage('request', message, refusal, outOfState)
        return
      case 'icrp':
      case 'ocrp': {
        const isOurs = (message.type === 'icrp') === isIncoming
        const bad = isOurs
          ? refusal
          : callReason('protocol-error', 'answer to another kind of call')
        if (this.#state === 'wait-reply') {
          this.#peerSessionId = message.assignedSessionId
          if (message.assignedSessionId === 0) {
            const zero = callReason('protocol-error', 'session ID 0', 'out-of-range')
            this.#stepMessage('reply', message, zero, outOfState)
            return
          }
        }
        this.#stepMessage('reply', message, bad, outOfState)
        return
      }
      case 'iccn':
      case 'occn': {
        const isOurs = (message.type === 'iccn') === isIncoming
        const bad = isOurs
          ? refusal
          : callReason('protocol-error', 'answer to another kind of call')
        if (this.#state === 'wait-connect' && isOurs) this.#learnConnected(message)
        this.#stepMessage('connected', message, bad, outOfState)
        return
      }
      default:
        this.#ports.event({ type: 'unexpected', state: this.#state, message: message.type })
    }
  }

  /** The peer's CDN. */
  disconnected(reason: CloseReason): void {
    this.#step('cdn', reason, 'peer', 'cdn')
  }

  /** The tunnel is gone: no message can be sent. */
  abandon(reason: CloseReason, by: 'peer' | 'us'): void {
    this.#state = 'idle'
    this.#cleanUp(reason, by)
  }

  #stepMessage(
    event: 'request' | 'reply' | 'connected',
    message: ControlMessage,
    refusal: CloseReason | undefined,
    outOfState: CloseReason,
  ): void {
    this.#step(
      refusal === undefined ? event : `${event}-bad`,
      refusal ?? outOfState,
      'us',
      message.type,
    )
  }

  #step(
    event: CallEvent,
    reason: CloseReason,
    by: 'peer' | 'us',
    message: ControlMessage['type'] | undefined,
  ): void {
    const cell = callCell(this.role, this.#state, event)
    if (cell === null) {
      if (message !== undefined) {
        this.#ports.event({ type: 'unexpected', state: this.#state, message })
      }
      return
    }
    this.#state = cell.next
    for (const action of cell.actions) {
      switch (action) {
        case 'open-tunnel':
          if (this.#ports.openTunnel()) this.handle('tunnel-open')
          break
        case 'send-request':
          this.#sendRequest()
          break
        case 'send-reply':
          this.#sendReply()
          break
        case 'send-connected':
          this.#sendConnected()
          break
        case 'send-cdn':
          this.#sendDisconnect(reason)
          break
        case 'offer':
          this.#ports.event({
            type: 'call-offered',
            sessionId: this.sessionId,
            parameters: this.#parameters,
          })
          break
        case 'call-up':
          this.#wasUp = true
          this.#ports.event({
            type: 'call-up',
            sessionId: this.sessionId,
            peerTunnelId: this.#ports.peerTunnelId,
            peerSessionId: this.#peerSessionId,
            role: this.role,
            reference: this.reference,
            parameters: this.#parameters,
          })
          break
        case 'clean-up':
          this.#cleanUp(reason, by)
          break
      }
    }
  }

  #cleanUp(reason: CloseReason, by: 'peer' | 'us'): void {
    this.#ports.forget(this)
    this.#ports.event({
      type: 'call-down',
      sessionId: this.sessionId,
      reference: this.reference,
      wasUp: this.#wasUp,
      by,
      reason,
    })
  }

  #learnRequest(message: Control<'icrq'> | Control<'ocrq'>): void {
    this.#peerSessionId = message.assignedSessionId
    this.#parameters = {
      ...this.#parameters,
      callSerialNumber: message.callSerialNumber,
      calledNumber: message.calledNumber ?? '',
      subAddress: message.subAddress ?? '',
      bearerType: message.bearerType ?? 0,
      ...(message.type === 'icrq'
        ? { callingNumber: message.callingNumber ?? '' }
        : {
            framingType: message.framingType,
            minimumBps: message.minimumBps,
            maximumBps: message.maximumBps,
          }),
    }
  }

  #learnConnected(message: Control<'iccn'> | Control<'occn'>): void {
    const proxy = message.type === 'iccn' ? proxyOf(message) : undefined
    this.#parameters = {
      ...this.#parameters,
      connectSpeedBps: message.connectSpeedBps,
      receiveConnectSpeedBps: message.receiveConnectSpeedBps ?? message.connectSpeedBps,
      framingType: message.framingType,
      isSequenced: message.sequencingRequired === true,
      ...(proxy === undefined ? {} : { proxy }),
      ...(message.type === 'iccn' && message.privateGroupId !== undefined
        ? { privateGroupId: message.privateGroupId }
        : {}),
    }
  }

  #sendRequest(): void {
    const p = this.#parameters
    const numbers = p.subAddress === '' ? {} : { subAddress: p.subAddress }
    if (this.role === 'outgoing-lns') {
      this.#ports.send(
        {
          type: 'ocrq',
          assignedSessionId: this.sessionId,
          callSerialNumber: p.callSerialNumber,
          minimumBps: p.minimumBps,
          maximumBps: p.maximumBps,
          bearerType: p.bearerType,
          framingType: p.framingType,
          calledNumber: p.calledNumber,
          ...numbers,
        },
        0,
      )
      return
    }
    this.#ports.send(
      {
        type: 'icrq',
        assignedSessionId: this.sessionId,
        callSerialNumber: p.callSerialNumber,
        bearerType: p.bearerType,
        ...(p.callingNumber === '' ? {} : { callingNumber: p.callingNumber }),
        ...(p.calledNumber === '' ? {} : { calledNumber: p.calledNumber }),
        ...numbers,
      },
      0,
    )
  }

  #sendReply(): void {
    const type = this.role === 'incoming-lns' ? 'icrp' : 'ocrp'
    this.#ports.send({ type, assignedSessionId: this.sessionId }, this.#peerSessionId)
  }

  #sendConnected(): void {
    const type = this.role === 'incoming-lac' ? 'iccn' : 'occn'
    this.#ports.send(
      {
        type,
        connectSpeedBps: this.#ports.connectSpeedBps,
        framingType: this.#parameters.framingType,
        ...(this.#parameters.isSequenced ? { sequencingRequired: true } : {}),
        ...(type === 'iccn' ? this.#request?.proxy : undefined),
      },
      this.#peerSessionId,
    )
  }

  #sendDisconnect(reason: CloseReason): void {
    this.#ports.send(
      {
        type: 'cdn',
        resultCode: { result: reason.result, error: reason.error, message: reason.message },
        assignedSessionId: this.sessionId,
      },
      this.#peerSessionId,
    )
  }
}

function proxyOf(message: Control<'iccn'>): ProxyState | undefined {
  const {
    initialReceivedConfReq,
    lastSentConfReq,
    lastReceivedConfReq,
    proxyAuthenType,
    proxyAuthenName,
    proxyAuthenChallenge,
    proxyAuthenId,
    proxyAuthenResponse,
  } = message
  const proxy: ProxyState = {
    ...(initialReceivedConfReq === undefined ? {} : { initialReceivedConfReq }),
    ...(lastSentConfReq === undefined ? {} : { lastSentConfReq }),
    ...(lastReceivedConfReq === undefined ? {} : { lastReceivedConfReq }),
    ...(proxyAuthenType === undefined ? {} : { proxyAuthenType }),
    ...(proxyAuthenName === undefined ? {} : { proxyAuthenName }),
    ...(proxyAuthenChallenge === undefined ? {} : { proxyAuthenChallenge }),
    ...(proxyAuthenId === undefined ? {} : { proxyAuthenId }),
    ...(proxyAuthenResponse === undefined ? {} : { proxyAuthenResponse }),
  }
  return Object.keys(proxy).length === 0 ? undefined : proxy
}
