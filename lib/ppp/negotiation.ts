/**
 * One run of the option negotiation protocol (RFC 1661 §4, §5): the automaton's actions, counters
 * and restart timer, and packets of the codes 1 to 7. LCP and every NCP are this plus the meaning of
 * their options.
 *
 * Deviations from the RFC, all of them about links that lose or duplicate packets, or about floods:
 * - An answer to a Configure-Request counts once; a duplicate of it is dropped, in Opened too.
 * - In Opened, a copy of the Configure-Request that was acknowledged last, soon after, is a
 *   retransmission whose Ack was lost: it gets its Ack again and the layer stays up.
 * - Negotiation that takes more requests than `maxRequests` either way has failed.
 */
import { copyBytes, equalBytes } from '../core/bytes.ts'
import { faultName } from '../core/faults.ts'
import {
  type AutomatonAction,
  type AutomatonEvent,
  type AutomatonState,
  isTimed,
  transition,
} from './automaton.ts'
import {
  ControlCode,
  type ControlPacket,
  checkControlPacket,
  controlHeaderBytes,
  encodeControlPacket,
  parseControlPacket,
} from './wire/control-packet.ts'
import { printableText } from './wire/link-packet.ts'
import {
  checkOptions,
  encodeOptions,
  isSameOption,
  type Option,
  parseOptions,
} from './wire/option.ts'

// Specification constants, RFC 1661 §4.6.

export const restartTimerMs = 3000
export const maxTerminate = 2
export const maxConfigure = 10
export const maxFailure = 5

// Implementation constants.

/** Configure-Requests of one negotiation, each way, without retransmissions of ours. */
export const maxRequests = 40
/** How long and how often a copy of the acknowledged request is taken for a retransmission. */
const retransmissionMs = 10_000
const maxRetransmissions = 3

/** What we say to a Configure-Request. */
export type Judgement =
  | { readonly type: 'ack' }
  | {
      readonly type: 'nak'
      readonly options: readonly Option[]
      /** The link is of no use without agreement here: after Max-Failure Naks negotiation fails. */
      readonly isEssential: boolean
    }
  | { readonly type: 'reject'; readonly options: readonly Option[] }

/** Why a negotiation cannot succeed. */
export type NegotiationFailure =
  | 'no-convergence'
  | 'essential-option-rejected'
  | 'authentication-refused'
  | 'code-rejected'

/** The meaning of a protocol's options: all that differs between LCP, IPCP and IPV6CP. */
export interface OptionSemantics {
  /** Whether our request can be told from every request of a peer: it holds our magic number. */
  readonly isUnmistakable: boolean
  /** A negotiation begins: forget what was agreed. */
  restart(): void
  /** The options of our next Configure-Request, in order. */
  request(): readonly Option[]
  judge(options: readonly Option[]): Judgement
  /** The peer's request was acknowledged: its options hold. */
  accept(options: readonly Option[]): void
  /** The peer's counter-offer; what is not understood is ignored. */
  naked(options: readonly Option[]): NegotiationFailure | undefined
  /** The peer will not have these at all. */
  rejected(options: readonly Option[]): NegotiationFailure | undefined
}

/** What a negotiation asks of the engine around it. */
export interface NegotiationPorts {
  send(packet: Uint8Array): void
  setTimer(deadlineMs: number): void
  clearTimer(): void
  layerUp(nowMs: number): void
  layerDown(nowMs: number): void
  layerFinished(nowMs: number): void
  failed(failure: NegotiationFailure, nowMs: number): void
  /** The peer sent a Terminate-Request, with this text if it is text. */
  peerTerminated(text: string | undefined, nowMs: number): void
  /** Takes codes above 7. `echo` are those of the event RXR, `unknown` are rejected. */
  extension(packet: ControlPacket, nowMs: number): 'taken' | 'echo' | 'unknown'
  /** The action ser: answers an Echo-Request. */
  replyEcho(packet: ControlPacket): void
  /** The peer does not know this code above 7. */
  codeRejected(code: number): void
  /** Largest control packet that the peer takes, bytes. */
  peerMruBytes(): number
  /** Whether an answer to nonsense may be sent now. */
  permitsReject(nowMs: number): boolean
  unexpected(counter: string): void
}

/** The packet that an event is about. */
interface Context {
  readonly packet: ControlPacket | undefined
  readonly judgement: Judgement | undefined
}

const noContext: Context = { packet: undefined, judgement: undefined }

export class Negotiation {
  readonly #semantics: OptionSemantics
  readonly #ports: NegotiationPorts
  #state: AutomatonState = 'initial'
  #restartCounter = 0
  #nextIdentifier: number
  /** Our Configure-Request: identifier, options as sent, whether it was answered. */
  #requestIdentifier = 0
  #requestOptions: readonly Option[] = []
  #isRequestAnswered = true
  #naksSent = 0
  #requestsSent = 0
  #requestsReceived = 0
  #acknowledged: ControlPacket | undefined
  #acknowledgedMs = 0
  #retransmissions = 0
  #isFailed = false
  #isFiring = false
  readonly #waiting: AutomatonEvent[] = []

  constructor(semantics: OptionSemantics, ports: NegotiationPorts, firstIdentifier = 1) {
    this.#semantics = semantics
    this.#ports = ports
    this.#nextIdentifier = firstIdentifier & 0xff
  }

  get state(): AutomatonState {
    return this.#state
  }

  get isOpened(): boolean {
    return this.#state === 'opened'
  }

  /** Administrative Open: the layer is wanted. */
  open(nowMs: number): void {
    this.#fire('open', noContext, nowMs)
  }

  /** Administrative Close. */
  close(nowMs: number): void {
    this.#fire('close', noContext, nowMs)
  }

  /** The layer below is up. */
  up(nowMs: number): void {
    this.#fire('up', noContext, nowMs)
  }

  /** The layer below is gone. */
  down(nowMs: number): void {
    if (transition(this.#state, 'down') !== null) this.#fire('down', noContext, nowMs)
  }

  /** The restart timer has run out. */
  restartTimer(nowMs: number): void {
    if (!isTimed(this.#state)) return
    this.#fire(this.#restartCounter > 0 ? 'to+' : 'to-', noContext, nowMs)
  }

  /** LCP said that the peer does not know this protocol. */
  protocolRejected(nowMs: number): void {
    this.#fire('rxj-', noContext, nowMs)
  }

  /** A packet of this protocol, behind the PPP header. */
  receive(bytes: Uint8Array, at: number, length: number, nowMs: number): void {
    const fault = checkControlPacket(bytes, at, length)
    if (fault) {
      this.#ports.unexpected(`malformed-${faultName(fault)}`)
      return
    }
    if (this.#state === 'initial' || this.#state === 'starting') {
      this.#ports.unexpected('layer-not-started')
      return
    }
    const packet = parseControlPacket(bytes, at)
    switch (packet.code) {
      case ControlCode.configureRequest:
        this.#receiveRequest(packet, nowMs)
        return
      case ControlCode.configureAck:
      case ControlCode.configureNak:
      case ControlCode.configureReject:
        this.#receiveAnswer(packet, nowMs)
        return
      case ControlCode.terminateRequest:
        this.#ports.peerTerminated(printableText(copyBytes(packet.data, 0, 64)), nowMs)
        this.#fire('rtr', { packet, judgement: undefined }, nowMs)
        return
      case ControlCode.terminateAck:
        this.#fire('rta', noContext, nowMs)
        return
      case ControlCode.codeReject:
        this.#receiveCodeReject(packet, nowMs)
        return
      default:
        this.#receiveExtension(packet, nowMs)
        return
    }
  }

  /** Sends a packet with an identifier of its own. */
  sendExtension(code: number, data: Uint8Array): void {
    this.#send(code, this.#takeIdentifier(), data)
  }

  /** Sends an answer, with the identifier of what it answers. */
  sendReply(code: number, identifier: number, data: Uint8Array): void {
    this.#send(code, identifier, data)
  }

  #receiveRequest(packet: ControlPacket, nowMs: number): void {
    const fault = checkOptions(packet.data)
    if (fault) {
      this.#ports.unexpected(`malformed-${faultName(fault)}`)
      return
    }
    if (this.#isEcho(packet)) {
      this.#ports.unexpected('looped-request')
      return
    }
    if (this.#state === 'opened' && this.#isRetransmission(packet, nowMs)) {
      this.#retransmissions++
      this.#ports.unexpected('retransmitted-request')
      this.#send(ControlCode.configureAck, packet.identifier, packet.data)
      return
    }
    if (this.#state === 'closed' || this.#state === 'closing' || this.#state === 'stopping') {
      this.#ports.unexpected('request-while-closing')
      this.#fire('rcr-', { packet, judgement: undefined }, nowMs)
      return
    }
    if (this.#state === 'opened' || this.#state === 'stopped') this.#restart()
    if (++this.#requestsReceived > maxRequests) {
      this.#fail('no-convergence', nowMs)
      return
    }
    const options = parseOptions(packet.data)
    const judgement = this.#limitNaks(this.#semantics.judge(options), options)
    if (judgement === undefined) {
      this.#fail('no-convergence', nowMs)
      return
    }
    if (judgement.type === 'ack') this.#semantics.accept(options)
    this.#fire(judgement.type === 'ack' ? 'rcr+' : 'rcr-', { packet, judgement }, nowMs)
  }

  /** RFC 1661 §4.6: after Max-Failure Naks, what would be Naked is rejected. Undefined: give up. */
  #limitNaks(judgement: Judgement, options: readonly Option[]): Judgement | undefined {
    if (judgement.type === 'ack') this.#naksSent = 0
    if (judgement.type !== 'nak' || ++this.#naksSent <= maxFailure) return judgement
    if (judgement.isEssential) return undefined
    const types = new Set(judgement.options.map(option => option.type))
    const refused = options.filter(option => types.has(option.type))
    return refused.length === 0 ? { type: 'ack' } : { type: 'reject', options: refused }
  }

  /**
   * Our own request, come back: a pty that echoes until pppd has set it up does so. Answering it would
   * be answering ourselves; the restart timer sends it again. RFC 1661 §6.4 asks for a Configure-Nak,
   * which would come back too and change our own options.
   */
  #isEcho(packet: ControlPacket): boolean {
    return (
      this.#semantics.isUnmistakable &&
      packet.identifier === this.#requestIdentifier &&
      equalBytes(packet.data, encodeOptions(this.#requestOptions))
    )
  }

  #isRetransmission(packet: ControlPacket, nowMs: number): boolean {
    const last = this.#acknowledged
    return (
      last !== undefined &&
      last.identifier === packet.identifier &&
      nowMs - this.#acknowledgedMs <= retransmissionMs &&
      this.#retransmissions < maxRetransmissions &&
      equalBytes(last.data, packet.data)
    )
  }

  #receiveAnswer(packet: ControlPacket, nowMs: number): void {
    if (this.#state === 'closed' || this.#state === 'stopped') {
      this.#fire('rca', { packet, judgement: undefined }, nowMs)
      return
    }
    // RFC 1661 §5.2 to §5.4: the identifier must be that of our last request.
    if (packet.identifier !== this.#requestIdentifier || this.#isRequestAnswered) {
      this.#ports.unexpected('stale-answer')
      return
    }
    const fault = checkOptions(packet.data)
    if (fault) {
      this.#ports.unexpected(`malformed-${faultName(fault)}`)
      return
    }
    const options = parseOptions(packet.data)
    let failure: NegotiationFailure | undefined
    if (packet.code === ControlCode.configureAck) {
      if (!equalBytes(packet.data, encodeOptions(this.#requestOptions))) {
        this.#ports.unexpected('ack-of-other-options')
        return
      }
    } else if (packet.code === ControlCode.configureNak) {
      failure = this.#semantics.naked(options)
    } else {
      const isOurs = (option: Option) => this.#requestOptions.some(own => isSameOption(own, option))
      if (options.length === 0 || !options.every(isOurs)) {
        this.#ports.unexpected('reject-of-other-options')
        return
      }
      failure = this.#semantics.rejected(options)
    }
    this.#isRequestAnswered = true
    if (failure !== undefined) {
      this.#fail(failure, nowMs)
      return
    }
    this.#fire(packet.code === ControlCode.configureAck ? 'rca' : 'rcn', noContext, nowMs)
  }

  #receiveExtension(packet: ControlPacket, nowMs: number): void {
    const kind = this.#ports.extension(packet, nowMs)
    if (kind === 'taken') return
    if (kind === 'unknown') this.#ports.unexpected('unknown-code')
    else if (!this.isOpened) this.#ports.unexpected('echo-not-opened')
    this.#fire(kind === 'echo' ? 'rxr' : 'ruc', { packet, judgement: undefined }, nowMs)
  }

  #receiveCodeReject(packet: ControlPacket, nowMs: number): void {
    const code = packet.data[0]
    if (code === undefined) {
      this.#ports.unexpected('malformed-truncated')
      return
    }
    this.#ports.unexpected('code-rejected')
    // RFC 1661 §4.3 RXJ: without the codes 1 to 7 there is no negotiation.
    if (code >= ControlCode.configureRequest && code <= ControlCode.codeReject) {
      this.#fail('code-rejected', nowMs)
      this.#fire('rxj-', noContext, nowMs)
      return
    }
    this.#ports.codeRejected(code)
    this.#fire('rxj+', noContext, nowMs)
  }

  #fail(failure: NegotiationFailure, nowMs: number): void {
    if (this.#isFailed) return
    this.#isFailed = true
    this.#ports.failed(failure, nowMs)
  }

  #restart(): void {
    this.#naksSent = 0
    this.#requestsSent = 0
    this.#requestsReceived = 0
    this.#acknowledged = undefined
    this.#retransmissions = 0
    this.#isFailed = false
    this.#semantics.restart()
  }

  #fire(event: AutomatonEvent, context: Context, nowMs: number): void {
    if (this.#isFiring) {
      // Only the engine, from inside a port, gets here: its Open, Close or Down waits its turn.
      this.#waiting.push(event)
      return
    }
    this.#isFiring = true
    this.#step(event, context, nowMs)
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      if (transition(this.#state, next) !== null) this.#step(next, noContext, nowMs)
    }
    this.#isFiring = false
  }

  #step(event: AutomatonEvent, context: Context, nowMs: number): void {
    const cell = transition(this.#state, event)
    if (cell === null) {
      this.#ports.unexpected(`impossible-${event}-in-${this.#state}`)
      return
    }
    // A request that arrives in Opened or Stopped has restarted negotiation before it was judged.
    const isRequest = event === 'rcr+' || event === 'rcr-'
    const begins =
      cell.actions.includes('scr') && cell.actions.some(a => a === 'tld' || a === 'irc')
    const isFirst = event === 'up' || event === 'open' || cell.actions.includes('tld')
    if (begins && isFirst && !isRequest) this.#restart()
    this.#state = cell.next
    for (const action of cell.actions) this.#act(action, event, context, nowMs, cell.actions)
    if (!isTimed(this.#state)) this.#ports.clearTimer()
  }

  #act(
    action: AutomatonAction,
    event: AutomatonEvent,
    context: Context,
    nowMs: number,
    actions: readonly AutomatonAction[],
  ): void {
    const { packet, judgement } = context
    switch (action) {
      case 'tlu':
        this.#ports.layerUp(nowMs)
        return
      case 'tld':
        this.#ports.layerDown(nowMs)
        return
      case 'tls':
        return // The engine opens the layer below by itself.
      case 'tlf':
        this.#ports.layerFinished(nowMs)
        return
      case 'irc':
        this.#restartCounter = actions.includes('str') ? maxTerminate : maxConfigure
        return
      case 'zrc':
        // One more restart period, so that the Terminate-Ack arrives (RFC 1661 §4.4).
        this.#restartCounter = 0
        this.#ports.setTimer(nowMs + restartTimerMs)
        return
      case 'scr':
        this.#sendRequest(event === 'to+', nowMs)
        return
      case 'sca':
        if (packet === undefined) return
        this.#acknowledged = packet
        this.#acknowledgedMs = nowMs
        this.#send(ControlCode.configureAck, packet.identifier, packet.data)
        return
      case 'scn':
        if (packet === undefined || judgement === undefined || judgement.type === 'ack') return
        this.#send(
          judgement.type === 'nak' ? ControlCode.configureNak : ControlCode.configureReject,
          packet.identifier,
          encodeOptions(judgement.options),
        )
        return
      case 'str':
        this.#restartCounter--
        this.#ports.setTimer(nowMs + restartTimerMs)
        this.#send(ControlCode.terminateRequest, this.#takeIdentifier(), new Uint8Array(0))
        return
      case 'sta':
        this.#send(
          ControlCode.terminateAck,
          packet?.identifier ?? this.#takeIdentifier(),
          new Uint8Array(0),
        )
        return
      case 'scj':
        if (packet !== undefined && this.#ports.permitsReject(nowMs)) this.#sendCodeReject(packet)
        return
      case 'ser':
        if (packet !== undefined) this.#ports.replyEcho(packet)
        return
    }
  }

  #sendRequest(isRetransmission: boolean, nowMs: number): void {
    this.#restartCounter--
    this.#ports.setTimer(nowMs + restartTimerMs)
    if (!isRetransmission || this.#isRequestAnswered) {
      if (++this.#requestsSent > maxRequests) {
        this.#fail('no-convergence', nowMs)
        return
      }
      this.#requestIdentifier = this.#takeIdentifier()
      this.#requestOptions = this.#semantics.request()
      this.#isRequestAnswered = false
    }
    this.#send(
      ControlCode.configureRequest,
      this.#requestIdentifier,
      encodeOptions(this.#requestOptions),
    )
  }

  #sendCodeReject(packet: ControlPacket): void {
    const quoted = encodeControlPacket(packet)
    const room = this.#ports.peerMruBytes() - controlHeaderBytes
    this.#send(ControlCode.codeReject, this.#takeIdentifier(), copyBytes(quoted, 0, room))
  }

  #takeIdentifier(): number {
    const identifier = this.#nextIdentifier
    this.#nextIdentifier = (identifier + 1) & 0xff
    return identifier
  }

  #send(code: number, identifier: number, data: Uint8Array): void {
    this.#ports.send(encodeControlPacket({ code, identifier, data }))
  }
}
