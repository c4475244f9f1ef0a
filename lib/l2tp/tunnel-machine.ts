import { assertNever } from '../core/errors.ts'
import { WireFault } from '../core/faults.ts'
import { type Machine, Outbox, type Output, type Timeout } from '../core/machine.ts'
import { randomBytes } from '../core/random.ts'
import { TimerTable } from '../core/timers.ts'
import { challengeResponse, createAvpHiding } from './avp-hiding.ts'
import { type CloseReason, callReason, peerStopReason, stopReason } from './close-reason.ts'
import { ControlChannel, fullCycleMs } from './control-channel.ts'
import {
  type ControlConnectionAction,
  type ControlConnectionEvent,
  type ControlConnectionState,
  controlConnectionTable,
} from './control-connection.ts'
import type { L2tpEvent, L2tpInput } from './event.ts'
import { compareTieBreakers, refusalOfPeer, refusalOfResponse } from './peer-proof.ts'
import { TunnelCalls } from './tunnel-calls.ts'
import type { TunnelOptions } from './tunnel-options.ts'
import {
  checkHeader,
  headerBytes,
  isControl,
  messageBytes,
  nrOf,
  nsOf,
  sessionIdOf,
  tunnelIdOf,
} from './wire/header.ts'
import {
  type AvpHiding,
  type Control,
  type ControlMessage,
  encodeControl,
  isSessionMessage,
  type ParsedControl,
  parseControl,
} from './wire/message.ts'

/** Specification constants. */
const protocolVersion = 0x0100
/** RFC 2661 §5.5: the suggested silence before a Hello. */
const defaultHelloAfterMs = 60_000

/** Implementation constants. */
const challengeBytes = 16
const defaultSetupMs = 30_000
const defaultReceiveWindowPackets = 16
/** Both framings and bearers (§4.4.3): nothing here depends on them. */
const bothKinds = 3
/** What an unverified peer may make us send, as a multiple of what it sent. */
const amplificationLimit = 3

export class TunnelMachine implements Machine<L2tpInput, L2tpEvent> {
  readonly localTunnelId: number
  readonly #options: TunnelOptions
  readonly #outbox = new Outbox<L2tpEvent>()
  readonly #timers = new TimerTable<'setup' | 'hello' | 'closing' | 'empty'>()
  readonly #channel: ControlChannel
  readonly #hiding: AvpHiding | undefined
  readonly #calls: TunnelCalls
  readonly #tieBreaker: Uint8Array
  #state: ControlConnectionState = 'idle'
  #peerTunnelId = 0
  #ourChallenge: Uint8Array | undefined
  #peerChallenge: Uint8Array | undefined
  #peer = { hostName: '', vendorName: '', firmwareRevision: 0 }
  #wasUp = false
  #lastAliveMs = Number.NEGATIVE_INFINITY
  /** The peer ended it: its StopCCN may come again (§5.7). */
  #lingers = false
  #isClosed = false
  #nowMs = 0

  constructor(options: TunnelOptions) {
    this.#options = options
    this.localTunnelId = options.localTunnelId
    this.#hiding =
      options.secret === undefined ? undefined : createAvpHiding(options.secret, options.random)
    this.#tieBreaker = randomBytes(options.random, 8)
    const machine = this
    this.#calls = new TunnelCalls(options, {
      get state() {
        return machine.#state
      },
      get peerTunnelId() {
        return machine.#peerTunnelId
      },
      get nowMs() {
        return machine.#nowMs
      },
      send: (message, sessionId) => this.#send(message, sessionId),
      event: event => this.#outbox.event(event),
      openTunnel: () => {
        if (this.#state === 'idle') this.#step('open', stopReason('nas-error', ''), 'us')
        return this.#state === 'established'
      },
      callMade: () => this.#timers.clear('empty'),
      callGone: () => this.#armEmpty(),
    })
    this.#channel = new ControlChannel(
      options.receiveWindowPackets ?? defaultReceiveWindowPackets,
      {
        transmit: bytes => this.#outbox.transmit(bytes),
        count: name => options.counters.count(name),
      },
    )
    if (!options.isPeerVerified) this.#channel.limitAmplification()
  }

  get state(): ControlConnectionState {
    return this.#state
  }

  get peerTunnelId(): number {
    return this.#peerTunnelId
  }

  get callCount(): number {
    return this.#calls.size
  }

  handle(input: L2tpInput | Timeout, nowMs: number): void {
    if (this.#isClosed) return
    this.#nowMs = nowMs
    switch (input.type) {
      case 'packet':
        this.#receive(input.bytes)
        break
      case 'timeout':
        this.#onTimeout()
        break
      case 'alive':
        this.#lastAliveMs = nowMs
        break
      case 'open':
        this.#channel.liftAmplificationLimit() // we chose the peer
        this.#step('open', stopReason('nas-error', ''), 'us')
        break
      case 'place-call':
        this.#calls.place(input.call)
        break
      case 'answer-call':
        this.#calls.get(input.sessionId)?.handle('answer')
        this.#calls.settle(input.sessionId)
        break
      case 'close-call':
        this.#calls
          .get(input.sessionId)
          ?.handle('close', callReason(input.cause, input.message ?? ''))
        break
      case 'set-link-info': {
        const call = this.#calls.get(input.sessionId)
        if (call?.isUp) this.#send({ type: 'sli', accm: input.accm }, call.peerSessionId)
        break
      }
      case 'close':
        this.#step('close', stopReason(input.cause, input.message ?? ''), 'us')
        break
      default:
        assertNever(input)
    }
    this.#settle()
  }

  poll(): Output<L2tpEvent> | undefined {
    return this.#outbox.poll()
  }

  nextDeadlineMs(): number {
    if (this.#isClosed) return Number.POSITIVE_INFINITY
    return Math.min(
      this.#timers.nextDeadlineMs(),
      this.#channel.nextDeadlineMs(),
      this.#calls.nextDeadlineMs(),
    )
  }

  // Receiving

  #receive(bytes: Uint8Array): void {
    const { counters, faults } = this.#options
    const fault = checkHeader(bytes, 0, bytes.length)
    if (fault) {
      faults.count(fault)
      return
    }
    if (!isControl(bytes, 0)) {
      counters.count('l2tp-data-at-control')
      return
    }
    // 0 stands in the first messages of the peer, before it knows our ID (§3.1).
    const tunnelId = tunnelIdOf(bytes, 0)
    if (tunnelId !== 0 && tunnelId !== this.localTunnelId) {
      counters.count('l2tp-unknown-tunnel')
      return
    }
    this.#lastAliveMs = this.#nowMs
    this.#channel.grantBudget(bytes.length * amplificationLimit)
    const body = bytes.subarray(0, messageBytes(bytes, 0, bytes.length))
    const isZeroLength = headerBytes(bytes, 0) === body.length
    const isTie = tunnelId === 0 && this.#state === 'wait-ctl-reply'
    if (isTie && !isZeroLength && this.#breakTie(body)) return
    const reception = this.#channel.receive(
      nsOf(body, 0),
      nrOf(body, 0),
      body,
      isZeroLength,
      this.#nowMs,
    )
    if (reception !== 'in-order') return
    this.#process(body)
    for (
      let held = this.#channel.takeHeld(this.#nowMs);
      held !== undefined;
      held = this.#channel.takeHeld(this.#nowMs)
    ) {
      this.#process(held)
    }
  }

  /**
   * A request of the peer that crossed ours stands outside of our sequence. True when `body` was one.
   * RFC 2661 §4.4.3: the lower tie breaker wins, equal ones lose both, one beats none.
   */
  #breakTie(body: Uint8Array): boolean {
    const parsed = parseControl(body, 0, body.length, this.#hiding)
    if (parsed.type !== 'message' || parsed.message.type !== 'sccrq') return false
    const theirs = parsed.message.tieBreaker
    const order = theirs === undefined ? -1 : compareTieBreakers(this.#tieBreaker, theirs)
    if (order >= 0) {
      this.#step('sccrq-lost-tie', stopReason('replaced', 'lost the tie'), 'us')
    } else {
      this.#stepMessage('sccrq', parsed.message.type)
    }
    return true
  }

  #process(body: Uint8Array): void {
    const parsed = parseControl(body, 0, body.length, this.#hiding)
    const sessionId = sessionIdOf(body, 0)
    switch (parsed.type) {
      case 'zero-length-body':
        return
      case 'message':
        if (parsed.ignoredAvps > 0) {
          this.#options.counters.count('l2tp-ignored-avp', parsed.ignoredAvps)
        }
        this.#dispatch(parsed.message, sessionId)
        return
      case 'unknown-message':
        this.#options.faults.count(WireFault['unknown-type'])
        if (parsed.isMandatory) {
          this.#fail(sessionId !== 0, sessionId, 'unknown-mandatory-avp', `message ${parsed.code}`)
        }
        return
      case 'malformed':
        this.#options.faults.count(parsed.fault)
        this.#refuse(parsed, sessionId)
        return
      default:
        assertNever(parsed)
    }
  }

  /** A message that cannot be understood ends what it concerns (RFC 2661 §4.1). */
  #refuse(parsed: Extract<ParsedControl, { type: 'malformed' }>, sessionId: number): void {
    // A malformed ending is an ending all the same.
    if (parsed.code === 4) {
      this.#step('stopccn', peerStopReason(undefined), 'peer')
      return
    }
    const isSession = isSessionMessage(parsed.code)
    this.#fail(isSession, sessionId, parsed.error, `attribute ${parsed.attribute}`)
  }

  #fail(
    isSession: boolean,
    sessionId: number,
    error: Extract<ParsedControl, { type: 'malformed' }>['error'],
    message: string,
  ): void {
    if (!isSession) {
      this.#step('close', stopReason('protocol-error', message, error), 'us')
      return
    }
    // Without a call there is nobody to answer.
    this.#calls.get(sessionId)?.handle('close', callReason('protocol-error', message, error))
  }

  #dispatch(message: ControlMessage, sessionId: number): void {
    switch (message.type) {
      case 'sccrq':
        this.#receiveRequest(message)
        return
      case 'sccrp':
        this.#receiveReply(message)
        return
      case 'scccn': {
        const reason = this.#refusalOfResponse('scccn', message.challengeResponse)
        this.#stepMessage(
          reason === undefined || this.#state !== 'wait-ctl-conn' ? 'scccn' : 'scccn-bad',
          message.type,
          this.#state === 'wait-ctl-conn' ? reason : undefined,
        )
        return
      }
      case 'stopccn':
        this.#step('stopccn', peerStopReason(message.resultCode), 'peer', message.type)
        return
      case 'hello':
        if (this.#state !== 'established') this.#unexpected(message.type)
        return
      default:
        if (this.#state === 'established') this.#calls.receive(message, sessionId)
        else this.#unexpected(message.type)
    }
  }

  #receiveRequest(message: Control<'sccrq'>): void {
    if (this.#state !== 'idle') {
      this.#stepMessage('sccrq', message.type)
      return
    }
    this.#learnPeer(message)
    const reason = refusalOfPeer(message, this.#options.secret !== undefined)
    this.#stepMessage(reason === undefined ? 'sccrq' : 'sccrq-bad', message.type, reason)
  }

  #receiveReply(message: Control<'sccrp'>): void {
    if (this.#state !== 'wait-ctl-reply') {
      if (this.#state === 'idle') this.#learnPeer(message)
      this.#stepMessage('sccrp', message.type)
      return
    }
    this.#learnPeer(message)
    const reason =
      refusalOfPeer(message, this.#options.secret !== undefined) ??
      this.#refusalOfResponse('sccrp', message.challengeResponse)
    this.#stepMessage(reason === undefined ? 'sccrp' : 'sccrp-bad', message.type, reason)
  }

  #learnPeer(message: Control<'sccrq'> | Control<'sccrp'>): void {
    this.#peerTunnelId = message.assignedTunnelId
    this.#channel.setPeerTunnelId(message.assignedTunnelId)
    if (message.receiveWindowSize !== undefined) {
      this.#channel.setPeerWindow(message.receiveWindowSize, this.#nowMs)
    }
    this.#peerChallenge = message.challenge
    this.#peer = {
      hostName: message.hostName,
      vendorName: message.vendorName ?? '',
      firmwareRevision: message.firmwareRevision ?? 0,
    }
  }

  #refusalOfResponse(type: 'sccrp' | 'scccn', response: Uint8Array | undefined) {
    return refusalOfResponse(type, response, this.#options.secret, this.#ourChallenge)
  }

  // The control connection

  #stepMessage(
    event: ControlConnectionEvent,
    message: ControlMessage['type'],
    refusal?: CloseReason,
  ): void {
    const outOfState = stopReason('protocol-error', `${message} in ${this.#state}`)
    this.#step(event, refusal ?? outOfState, 'us', message)
  }

  #step(
    event: ControlConnectionEvent,
    reason: CloseReason,
    by: 'peer' | 'us',
    message?: ControlMessage['type'],
  ): void {
    const cell = controlConnectionTable[this.#state][event]
    if (cell === null) {
      if (message !== undefined) this.#unexpected(message)
      return
    }
    this.#state = cell.next
    for (const action of cell.actions) this.#act(action, reason, by)
  }

  #act(action: ControlConnectionAction, reason: CloseReason, by: 'peer' | 'us'): void {
    switch (action) {
      case 'send-sccrq':
        this.#armSetup()
        this.#send({ type: 'sccrq', ...this.#introduction(), tieBreaker: this.#tieBreaker }, 0)
        break
      case 'send-sccrp':
        this.#armSetup()
        this.#send({ type: 'sccrp', ...this.#introduction(), ...this.#response('sccrp') }, 0)
        break
      case 'send-scccn':
        this.#send({ type: 'scccn', ...this.#response('scccn') }, 0)
        break
      case 'send-stopccn': {
        const { result, error, message } = reason
        this.#send(
          {
            type: 'stopccn',
            assignedTunnelId: this.localTunnelId,
            resultCode: { result, error, message },
          },
          0,
        )
        break
      }
      case 'tunnel-open':
        this.#openCalls()
        break
      case 'yield':
        this.#channel.stop()
        this.#outbox.event({ type: 'tie-lost' })
        break
      case 'clean-up':
        this.#cleanUp(reason, by)
        break
      default:
        assertNever(action)
    }
  }

  #introduction() {
    const { secret, vendorName, random } = this.#options
    if (secret !== undefined) this.#ourChallenge = randomBytes(random, challengeBytes)
    return {
      protocolVersion,
      hostName: this.#options.hostName,
      framingCapabilities: bothKinds,
      bearerCapabilities: bothKinds,
      assignedTunnelId: this.localTunnelId,
      receiveWindowSize: this.#options.receiveWindowPackets ?? defaultReceiveWindowPackets,
      ...(vendorName === undefined ? {} : { vendorName }),
      ...(this.#ourChallenge === undefined ? {} : { challenge: this.#ourChallenge }),
    }
  }

  #response(type: 'sccrp' | 'scccn') {
    const { secret } = this.#options
    if (secret === undefined || this.#peerChallenge === undefined) return {}
    return { challengeResponse: challengeResponse(type, secret, this.#peerChallenge) }
  }

  #armSetup(): void {
    this.#timers.set('setup', this.#nowMs + (this.#options.setupTimeoutMs ?? defaultSetupMs))
  }

  #openCalls(): void {
    if (!this.#wasUp) {
      this.#wasUp = true
      this.#timers.clear('setup')
      this.#channel.liftAmplificationLimit()
      this.#armHello(this.#nowMs)
      this.#outbox.event({
        type: 'tunnel-up',
        peerTunnelId: this.#peerTunnelId,
        peer: this.#peer,
      })
    }
    for (const call of this.#calls.all()) call.handle('tunnel-open')
  }

  #cleanUp(reason: CloseReason, by: 'peer' | 'us'): void {
    this.#timers.clearAll()
    if (by === 'peer') {
      this.#lingers = true
      this.#channel.discard()
    }
    this.#timers.set('closing', this.#nowMs + fullCycleMs)
    const callDownReason: CloseReason = { ...callReason(reason.cause, reason.message) }
    for (const call of this.#calls.all()) call.abandon(callDownReason, by)
    this.#outbox.event({ type: 'tunnel-down', wasUp: this.#wasUp, by, reason })
  }

  // Time

  #onTimeout(): void {
    this.#channel.onTimeout(this.#nowMs)
    this.#calls.onTimeout()
    for (
      let name = this.#timers.takeExpired(this.#nowMs);
      name !== undefined;
      name = this.#timers.takeExpired(this.#nowMs)
    ) {
      switch (name) {
        case 'setup':
          this.#step('close', stopReason('setup-timeout', ''), 'us')
          break
        case 'empty':
          this.#step('close', stopReason('idle-timeout', 'no calls'), 'us')
          break
        case 'hello':
          this.#hello()
          break
        case 'closing':
          this.#close()
          break
        default:
          assertNever(name)
      }
    }
  }

  #armHello(fromMs: number): void {
    const afterMs = this.#options.helloAfterMs ?? defaultHelloAfterMs
    if (afterMs > 0) this.#timers.set('hello', fromMs + afterMs)
  }

  #hello(): void {
    const afterMs = this.#options.helloAfterMs ?? defaultHelloAfterMs
    if (this.#nowMs - this.#lastAliveMs < afterMs) {
      this.#armHello(this.#lastAliveMs)
      return
    }
    // One question at a time: what is outstanding asks as well.
    if (this.#channel.isIdle) this.#send({ type: 'hello' }, 0)
    this.#armHello(this.#nowMs)
  }

  #armEmpty(): void {
    const { emptyTimeoutMs = 0 } = this.#options
    if (emptyTimeoutMs > 0 && this.#calls.size === 0 && this.#state === 'established') {
      this.#timers.set('empty', this.#nowMs + emptyTimeoutMs)
    }
  }

  /** What follows from the state of the channel after any input. */
  #settle(): void {
    if (this.#channel.hasGivenUp) {
      // Some Android builds never acknowledge a Hello; their data shows that they live.
      const isAlive = this.#nowMs - this.#lastAliveMs < fullCycleMs
      if (this.#state === 'closing') this.#close()
      else if (isAlive && this.#state === 'established') this.#channel.persevere(this.#nowMs)
      else this.#lose()
    }
    // We ended it and all is acknowledged: the peer has nothing more to ask of us.
    if (this.#state === 'closing' && !this.#lingers && this.#channel.isIdle) this.#close()
  }

  #lose(): void {
    this.#channel.discard()
    const reason = stopReason('lost-carrier', 'no acknowledgement')
    this.#state = 'closing'
    this.#cleanUp(reason, 'us')
    this.#close()
  }

  #close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#channel.flushAcknowledgement()
    this.#channel.stop()
    this.#timers.clearAll()
    this.#calls.stop()
    this.#outbox.event({ type: 'closed' })
  }

  #send(message: ControlMessage, sessionId: number): void {
    const hiding = this.#options.hidesAvps === true ? this.#hiding : undefined
    const bytes = encodeControl(message, hiding)
    if (message.type === 'stopccn') {
      this.#channel.sendLast(bytes, this.#nowMs)
      return
    }
    const isQueued = this.#channel.send(bytes, sessionId, this.#nowMs)
    if (!isQueued) this.#options.counters.count('l2tp-queue-full')
  }

  #unexpected(message: ControlMessage['type']): void {
    this.#options.counters.count('l2tp-unexpected')
    this.#outbox.event({ type: 'unexpected', state: this.#state, message })
  }
}
