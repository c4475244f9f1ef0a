/**
 * One PPP link, either role (RFC 1661 §3): Dead, Establish, Authenticate, Network, Terminate. It knows
 * no carrier, no users and no networks: those come in as inputs and go out as events.
 */
import type { Verdict } from '../aaa/authenticator.ts'
import { copyBytes } from '../core/bytes.ts'
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { type Machine, Outbox, type Output, type Timeout } from '../core/machine.ts'
import type { RandomSource } from '../core/random.ts'
import { TimerTable } from '../core/timers.ts'
import { Authentication } from './authentication.ts'
import { EarlyRequests } from './early-requests.ts'
import type { LinkEvent, LinkInput } from './event.ts'
import { LcpOptions, minMruBytes } from './lcp.ts'
import { LinkMaintenance } from './link-maintenance.ts'
import { Negotiation } from './negotiation.ts'
import { failureDetails } from './network-layer.ts'
import { RenegotiationLimit, tooManyRenegotiations } from './renegotiation-limit.ts'
import { checkSettings, defaultTiming, type PppSettings, type PppTiming } from './settings.ts'
import { encodeFrame, PppProtocol, peel } from './wire/frame.ts'

/** RFC 1661 §3.2. */
export type PppPhase = 'dead' | 'establish' | 'authenticate' | 'network' | 'terminate'

type TimerName = 'lcp' | 'exchange' | 'authentication' | 'setup' | 'echo'

// RFC 1661 §2: protocols of network control, and of the link itself, have numbers from here on.

const firstControlProtocol = 0x8000
const firstLinkProtocol = 0xc000

export class LinkEngine implements Machine<LinkInput, LinkEvent> {
  readonly #settings: PppSettings
  readonly #timing: PppTiming
  readonly #outbox = new Outbox<LinkEvent>()
  readonly #timers = new TimerTable<TimerName>()
  readonly #lcpOptions: LcpOptions
  readonly #lcp: Negotiation
  readonly #link: LinkMaintenance
  readonly #authentication: Authentication
  /** For the networks, until the link has its place. */
  readonly #early = new EarlyRequests()
  readonly #renegotiations = new RenegotiationLimit()
  #phase: PppPhase = 'dead'
  #isClosed = false
  /** Why the call ends; set once, by whoever comes first. */
  #ending: { readonly cause: DisconnectCause; readonly detail: string } | undefined
  #isRenegotiatedByUs = false
  /** It carries for its networks. */
  #isPlaced = false

  /** Throws ConfigError when the settings allow no authentication or cannot be sent. */
  constructor(settings: PppSettings, random: RandomSource) {
    checkSettings(settings)
    this.#settings = settings
    this.#timing = { ...defaultTiming, ...settings.timing }
    this.#lcpOptions = new LcpOptions(
      {
        mruBytes: settings.mruBytes,
        demands: settings.role === 'server' ? settings.authentication : [],
        ...(settings.multilink !== undefined && { multilink: settings.multilink }),
        offers:
          settings.role === 'client'
            ? settings.authentication.filter(protocol => protocol !== 'none')
            : [],
      },
      random,
    )
    this.#lcp = this.#makeLcp()
    this.#link = this.#makeLink()
    this.#authentication = this.#makeAuthentication(random)
  }

  get phase(): PppPhase {
    return this.#phase
  }

  handle(input: LinkInput | Timeout, nowMs: number): void {
    if (this.#isClosed) return
    switch (input.type) {
      case 'timeout':
        this.#runTimers(nowMs)
        return
      case 'open':
        this.#open(nowMs)
        return
      case 'frame':
        this.#receiveFrame(input.bytes, nowMs)
        return
      case 'alive':
        this.#link.alive()
        return
      case 'verdict':
        this.#receiveVerdict(input.attempt, input.verdict, nowMs)
        return
      case 'wake':
        if (!this.#authentication.wake(input.ticket, nowMs)) this.#unexpected('eap-late-wake')
        return
      case 'placed':
        this.#place()
        return
      case 'reject':
        this.#reject(input.protocol, input.packet, nowMs)
        return
      case 'renegotiate':
        this.#renegotiate(nowMs)
        return
      case 'close':
        this.#end(input.cause, input.detail ?? 'closed by us', nowMs)
        return
      case 'carrier-lost':
        this.#ending ??= {
          cause: input.cause ?? 'lost-carrier',
          detail: input.detail ?? 'the tunnel broke',
        }
        this.#finish(nowMs)
        return
    }
  }

  poll(): Output<LinkEvent> | undefined {
    return this.#outbox.poll()
  }

  nextDeadlineMs(): number {
    return this.#timers.nextDeadlineMs()
  }

  // ---- inputs

  #open(nowMs: number): void {
    if (this.#phase !== 'dead') {
      this.#unexpected('open-twice')
      return
    }
    this.#phase = 'establish'
    this.#timers.set('setup', nowMs + this.#timing.setupMs)
    this.#lcp.open(nowMs)
    this.#lcp.up(nowMs)
  }

  #renegotiate(nowMs: number): void {
    if (!this.#lcp.isOpened) {
      this.#unexpected('renegotiate-not-opened')
      return
    }
    this.#isRenegotiatedByUs = true
    this.#lcp.down(nowMs)
    this.#isRenegotiatedByUs = false
    this.#lcp.up(nowMs)
  }

  #receiveFrame(bytes: Uint8Array, nowMs: number): void {
    const peeled = peel(bytes, 0, bytes.length)
    if (peeled === 0) {
      this.#unexpected('malformed-frame')
      return
    }
    this.#link.alive()
    const at = peeled >>> 16
    this.#dispatch(peeled & 0xffff, bytes, at, bytes.length - at, nowMs)
  }

  #dispatch(protocol: number, bytes: Uint8Array, at: number, length: number, nowMs: number): void {
    if (protocol === PppProtocol.lcp) {
      this.#lcp.receive(bytes, at, length, nowMs)
      return
    }
    if (!this.#lcp.isOpened) {
      this.#unexpected('frame-before-link')
      return
    }
    if (this.#phase === 'terminate') {
      this.#unexpected('frame-while-terminating')
      return
    }
    if (protocol === PppProtocol.pap || protocol === PppProtocol.chap) {
      this.#authentication.receive(protocol, bytes, at, length, nowMs)
      return
    }
    if (protocol === PppProtocol.eap && this.#lcpOptions.isEapAgreed) {
      this.#authentication.receive(protocol, bytes, at, length, nowMs)
      return
    }
    if (protocol === PppProtocol.eap && this.#phase === 'authenticate') {
      this.#unexpected('eap-not-agreed')
      return
    }
    if (this.#phase === 'authenticate' && protocol >= firstControlProtocol) {
      this.#authentication.networkHeard(nowMs)
    }
    if (!this.#isPlaced) this.#receiveEarly(protocol, bytes, at, length)
    else if (protocol < firstLinkProtocol) {
      this.#outbox.event({ type: 'packet', protocol, bytes: copyBytes(bytes, at, at + length) })
    } else this.#reject(protocol, copyBytes(bytes, at, at + length), nowMs)
  }

  #reject(protocol: number, packet: Uint8Array, nowMs: number): void {
    if (this.#lcp.isOpened) this.#link.rejectProtocol(protocol, packet, nowMs)
  }

  /** Before the networks may run: the last request of each NCP is kept, all else dropped (RFC 1661 §3.5). */
  #receiveEarly(protocol: number, bytes: Uint8Array, at: number, length: number): void {
    const isKept = this.#early.keep(protocol, bytes, at, length)
    this.#unexpected(isKept ? 'early-request-kept' : 'early-frame-dropped')
  }

  #receiveVerdict(attempt: number, verdict: Verdict, nowMs: number): void {
    if (!this.#authentication.verdict(attempt, verdict, nowMs)) this.#unexpected('stale-verdict')
  }

  #place(): void {
    if (this.#phase !== 'network' || this.#isPlaced) {
      this.#unexpected('placed-not-due')
      return
    }
    this.#isPlaced = true
    this.#timers.clear('setup')
    for (const [protocol, bytes] of this.#early.take()) {
      this.#outbox.event({ type: 'packet', protocol, bytes })
    }
  }

  #runTimers(nowMs: number): void {
    for (;;) {
      const name = this.#timers.takeExpired(nowMs)
      if (name === undefined) return
      this.#runTimer(name, nowMs)
    }
  }

  #runTimer(name: TimerName, nowMs: number): void {
    switch (name) {
      case 'lcp':
        this.#lcp.restartTimer(nowMs)
        return
      case 'exchange':
        this.#authentication.timer(nowMs)
        return
      case 'authentication':
        this.#end('setup-timeout', 'authentication took too long', nowMs)
        return
      case 'setup':
        this.#end('setup-timeout', `still in phase ${this.#phase} when time was up`, nowMs)
        return
      case 'echo':
        this.#runEcho(nowMs)
        return
    }
  }

  #runEcho(nowMs: number): void {
    const nextMs = this.#link.echo(nowMs)
    if (nextMs !== undefined) {
      this.#timers.set('echo', nextMs)
      return
    }
    const seconds = Math.round((this.#timing.echoIntervalMs * (this.#timing.echoMisses + 1)) / 1000)
    this.#ending ??= { cause: 'lost-carrier', detail: `nothing heard for ${seconds} s` }
    this.#finish(nowMs)
  }

  // ---- phases

  #linkUp(nowMs: number): void {
    if (this.#ending !== undefined) return
    const isServer = this.#settings.role === 'server'
    const protocol = isServer ? this.#lcpOptions.demanded : this.#lcpOptions.offered
    const { peerMruBytes, multilink } = this.#lcpOptions
    this.#outbox.event({
      type: 'link-up',
      peerMruBytes,
      authentication: protocol ?? 'none',
      ...(multilink !== undefined && { multilink }),
    })
    this.#timers.set('echo', this.#link.opened(nowMs))
    this.#phase = 'authenticate'
    if (protocol !== undefined) {
      this.#startAuthenticationTimer(nowMs)
      this.#authentication.start(protocol, nowMs)
      return
    }
    if (this.#settings.role === 'client' && this.#settings.authentication.includes('none')) {
      this.#authentication.skip(nowMs)
      return
    }
    this.#end('protocol-error', 'the server did not ask for authentication', nowMs)
  }

  #linkDown(nowMs: number): void {
    this.#timers.clear('echo')
    this.#timers.clear('exchange')
    this.#timers.clear('authentication')
    this.#authentication.stop()
    this.#early.clear()
    this.#isPlaced = false
    this.#outbox.event({ type: 'link-down' })
    if (this.#ending !== undefined) return
    this.#phase = 'establish'
    this.#outbox.event({ type: 'renegotiating' })
    this.#timers.set('setup', nowMs + this.#timing.setupMs)
    if (!this.#isRenegotiatedByUs) this.#countRenegotiation(nowMs)
  }

  /** The peer took LCP down to negotiate it again: not without end. */
  #countRenegotiation(nowMs: number): void {
    if (this.#renegotiations.exceeds(nowMs)) {
      this.#end('protocol-error', tooManyRenegotiations, nowMs)
    }
  }

  #startAuthenticationTimer(nowMs: number): void {
    this.#timers.set('authentication', nowMs + this.#timing.authenticationMs)
  }

  #authenticated(): void {
    this.#timers.clear('authentication')
    this.#phase = 'network'
  }

  /** Begins the end: Terminate-Request, then `closed` when it is answered or given up. */
  #end(cause: DisconnectCause, detail: string, nowMs: number): void {
    this.#ending ??= { cause, detail }
    this.#timers.clear('setup')
    if (this.#phase === 'dead') {
      this.#finish(nowMs)
      return
    }
    this.#phase = 'terminate'
    this.#lcp.close(nowMs)
    // Close in a state that has nothing to say goodbye to does not report the end by itself.
    if (this.#lcp.state === 'closed' || this.#lcp.state === 'initial') this.#finish(nowMs)
  }

  #finish(nowMs: number): void {
    if (this.#isClosed) return
    this.#ending ??= { cause: 'setup-timeout', detail: 'the peer does not answer LCP' }
    this.#phase = 'terminate'
    this.#lcp.down(nowMs) // Brings down what is still up.
    this.#isClosed = true
    this.#phase = 'dead'
    this.#authentication.destroy()
    this.#timers.clearAll()
    this.#outbox.event({ type: 'closed', ...this.#ending })
  }

  #unexpected(counter: string): void {
    this.#outbox.event({ type: 'unexpected', counter })
  }

  // ---- parts

  #send(protocol: number, packet: Uint8Array): void {
    if (!this.#isClosed) this.#outbox.transmit(encodeFrame(protocol, packet))
  }

  #makeLcp(): Negotiation {
    return new Negotiation(this.#lcpOptions, {
      send: packet => this.#send(PppProtocol.lcp, packet),
      setTimer: deadlineMs => this.#timers.set('lcp', deadlineMs),
      clearTimer: () => this.#timers.clear('lcp'),
      layerUp: nowMs => this.#linkUp(nowMs),
      layerDown: nowMs => this.#linkDown(nowMs),
      layerFinished: nowMs => this.#finish(nowMs),
      failed: (failure, nowMs) =>
        this.#end('protocol-error', `lcp: ${failureDetails[failure]}`, nowMs),
      peerTerminated: (text, nowMs) => this.#peerTerminated(text, nowMs),
      extension: (packet, nowMs) => this.#link.extension(packet, nowMs),
      replyEcho: packet => this.#link.replyEcho(packet),
      codeRejected: code => this.#link.codeRejected(code),
      peerMruBytes: () => this.#lcpOptions.peerMruBytes,
      permitsReject: nowMs => this.#link.permitsReject(nowMs),
      unexpected: counter => this.#unexpected(`lcp-${counter}`),
    })
  }

  #peerTerminated(text: string | undefined, nowMs: number): void {
    const who = this.#settings.role === 'server' ? 'the client' : 'the server'
    const said = text === undefined ? '' : `: ${text}`
    if (!this.#lcp.isOpened) {
      // RFC 1661 would go on asking; but a tunnel has one link, and its peer has given up.
      this.#end('protocol-error', `${who} gave up before the link was up${said}`, nowMs)
      return
    }
    this.#ending ??= { cause: 'user-request', detail: `${who} hung up${said}` }
    this.#phase = 'terminate'
    this.#timers.clear('setup')
  }

  #makeLink(): LinkMaintenance {
    return new LinkMaintenance(this.#lcpOptions, this.#timing, {
      send: (code, data) => this.#lcp.sendExtension(code, data),
      reply: (code, identifier, data) => this.#lcp.sendReply(code, identifier, data),
      protocolRejected: (protocol, nowMs) => this.#protocolRejected(protocol, nowMs),
      identification: text =>
        this.#outbox.event({ type: 'identification', ...(text === undefined ? {} : { text }) }),
      unexpected: counter => this.#unexpected(`lcp-${counter}`),
    })
  }

  #protocolRejected(protocol: number, nowMs: number): void {
    if (!this.#lcp.isOpened) {
      this.#unexpected('protocol-reject-before-link')
      return
    }
    if (protocol === PppProtocol.lcp) {
      this.#end('protocol-error', 'the peer does not speak lcp', nowMs)
      return
    }
    if (this.#phase === 'authenticate' && protocol === this.#authentication.protocolNumber) {
      this.#end('protocol-error', 'the peer refuses the authentication it agreed to', nowMs)
      return
    }
    if (this.#isPlaced) this.#outbox.event({ type: 'protocol-rejected', protocol })
    else this.#unexpected('protocol-reject-of-other')
  }

  #makeAuthentication(random: RandomSource): Authentication {
    return new Authentication(this.#settings, random, {
      send: (protocol, packet) => this.#send(protocol, packet),
      setTimer: deadlineMs => this.#timers.set('exchange', deadlineMs),
      clearTimer: () => this.#timers.clear('exchange'),
      event: event => this.#outbox.event(event),
      unexpected: counter => this.#unexpected(counter),
      peerMruBytes: () => Math.max(minMruBytes, this.#lcpOptions.peerMruBytes),
      /** The user types again: both bounds start over. */
      retrying: nowMs => {
        this.#startAuthenticationTimer(nowMs)
        this.#timers.set('setup', nowMs + this.#timing.setupMs)
      },
      proved: protocol => {
        if (protocol !== 'none') this.#lcpOptions.neverBelow(protocol)
        this.#authenticated()
      },
      failed: (cause, detail, nowMs) => this.#end(cause, detail, nowMs),
    })
  }
}
