/** The calls of one tunnel: which message belongs to which, who may begin another, and until when. */
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { TimerTable } from '../core/timers.ts'
import { Call } from './call.ts'
import type { CallRole } from './call-table.ts'
import { type CloseReason, callReason, peerCallReason } from './close-reason.ts'
import type { ControlConnectionState } from './control-connection.ts'
import type { L2tpEvent, L2tpInput } from './event.ts'
import { randomId } from './random-id.ts'
import type { TunnelOptions } from './tunnel-options.ts'
import type { Control, ControlMessage } from './wire/message.ts'

/** Implementation constants. */
const defaultCallSetupMs = 60_000
const defaultMostCalls = 64
const defaultConnectSpeedBps = 100_000_000

export type TunnelMessage = 'sccrq' | 'sccrp' | 'scccn' | 'stopccn' | 'hello'

/** The tunnel that carries them. */
export interface TunnelCallsHost {
  readonly state: ControlConnectionState
  readonly peerTunnelId: number
  readonly nowMs: number
  send(message: ControlMessage, sessionId: number): void
  event(event: L2tpEvent): void
  /** Opens the tunnel if need be; true when it is open. */
  openTunnel(): boolean
  callMade(): void
  callGone(): void
}

export class TunnelCalls {
  readonly #options: TunnelOptions
  readonly #host: TunnelCallsHost
  readonly #calls = new Map<number, Call>()
  readonly #setupDeadlines = new TimerTable<`${number}`>()
  #callSerialNumber = 0

  constructor(options: TunnelOptions, host: TunnelCallsHost) {
    this.#options = options
    this.#host = host
  }

  get size(): number {
    return this.#calls.size
  }

  get(sessionId: number): Call | undefined {
    return this.#calls.get(sessionId)
  }

  /** As they are now; calls may end while one goes through them. */
  all(): readonly Call[] {
    return [...this.#calls.values()]
  }

  nextDeadlineMs(): number {
    return this.#setupDeadlines.nextDeadlineMs()
  }

  onTimeout(): void {
    for (
      let name = this.#setupDeadlines.takeExpired(this.#host.nowMs);
      name !== undefined;
      name = this.#setupDeadlines.takeExpired(this.#host.nowMs)
    ) {
      this.#calls.get(Number(name))?.handle('close', callReason('setup-timeout', ''))
    }
  }

  stop(): void {
    this.#setupDeadlines.clearAll()
  }

  place(request: Extract<L2tpInput, { type: 'place-call' }>['call']): void {
    const role = request.direction === 'incoming' ? 'incoming-lac' : 'outgoing-lns'
    const mostCalls = this.#options.mostCalls ?? defaultMostCalls
    if (this.#host.state === 'closing' || this.#calls.size >= mostCalls) {
      const cause: DisconnectCause =
        this.#host.state === 'closing' ? 'lost-carrier' : 'session-limit'
      this.#host.event({
        type: 'call-down',
        sessionId: 0,
        reference: request.reference,
        wasUp: false,
        by: 'us',
        reason: callReason(cause, ''),
      })
      return
    }
    this.#addCall(role, request).handle('open')
  }

  #addCall(
    role: CallRole,
    request: Extract<L2tpInput, { type: 'place-call' }>['call'] | undefined,
  ) {
    const sessionId = randomId(this.#options.random, id => this.#calls.has(id))
    const host = this.#host
    const call = new Call(role, sessionId, ++this.#callSerialNumber, request, {
      send: (message, to) => this.#host.send(message, to),
      event: event => this.#host.event(event),
      openTunnel: () => {
        return this.#host.openTunnel()
      },
      forget: ended => {
        this.#calls.delete(ended.sessionId)
        this.#setupDeadlines.clear(`${ended.sessionId}`)
        this.#host.callGone()
      },
      get peerTunnelId() {
        return host.peerTunnelId
      },
      connectSpeedBps: this.#options.connectSpeedBps ?? defaultConnectSpeedBps,
    })
    this.#calls.set(sessionId, call)
    this.#host.callMade()
    const setupMs = this.#options.callSetupTimeoutMs ?? defaultCallSetupMs
    this.#setupDeadlines.set(`${sessionId}`, this.#host.nowMs + setupMs)
    return call
  }

  receive(message: Exclude<ControlMessage, { type: TunnelMessage }>, sessionId: number) {
    const call = this.#callOf(message, sessionId)
    if (call === undefined) {
      if (message.type === 'icrq' || message.type === 'ocrq') this.#receiveCall(message)
      else this.#options.counters.count('l2tp-unknown-session')
      return
    }
    switch (message.type) {
      case 'cdn':
        call.disconnected(peerCallReason(message.resultCode))
        return
      case 'sli':
        this.#host.event({ type: 'link-info', sessionId: call.sessionId, accm: message.accm })
        return
      case 'wen':
        this.#host.event({
          type: 'wan-error',
          sessionId: call.sessionId,
          errors: message.callErrors,
        })
        return
      default:
        call.receive(message)
        this.settle(call.sessionId)
    }
  }

  /** By our ID in the header, or by the peer's in the AVP when it does not know ours yet. */
  #callOf(message: ControlMessage, sessionId: number): Call | undefined {
    if (sessionId !== 0) return this.#calls.get(sessionId)
    if (message.type !== 'icrq' && message.type !== 'ocrq' && message.type !== 'cdn') {
      return undefined
    }
    const { assignedSessionId = 0 } = message
    if (assignedSessionId === 0) return undefined
    for (const call of this.#calls.values()) {
      if (call.peerSessionId === assignedSessionId) return call
    }
    return undefined
  }

  #receiveCall(message: Control<'icrq'> | Control<'ocrq'>): void {
    const isIncoming = message.type === 'icrq'
    const { acceptsIncomingCalls = true, acceptsOutgoingCalls = false } = this.#options
    let refusal: CloseReason | undefined
    if (message.assignedSessionId === 0) {
      refusal = callReason('protocol-error', 'session ID 0', 'out-of-range')
    } else if (!(isIncoming ? acceptsIncomingCalls : acceptsOutgoingCalls)) {
      refusal = callReason('service-unavailable', 'such calls are not taken here')
    } else if (this.#calls.size >= (this.#options.mostCalls ?? defaultMostCalls)) {
      refusal = callReason('session-limit', 'too many calls')
    }
    this.#addCall(isIncoming ? 'incoming-lns' : 'outgoing-lac', undefined).receive(message, refusal)
  }

  /** A call that is up, or gone, has no setup deadline. */
  settle(sessionId: number): void {
    if (this.#calls.get(sessionId)?.isUp !== false) {
      this.#setupDeadlines.clear(`${sessionId}`)
    }
  }
}
