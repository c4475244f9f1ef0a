/**
 * One ISAKMP SA with its quick mode exchanges and the ESP SAs that came of them, for both roles: RFC
 * 2408, 2409, 3706, 3947. Main mode is in `phase1.ts`, quick mode in `quick-mode-exchange.ts`, the rest
 * in `informational.ts`; here are headers, encryption, hashes over messages, repetition and time.
 *
 * Everything that arrives is judged by its place: unprotected messages count only while phase 1 is
 * being negotiated, and an unprotected notification or delete never counts.
 */
import { equalBytes, toHex } from '../core/bytes.ts'
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { assertNever } from '../core/errors.ts'
import { WireFault } from '../core/faults.ts'
import { type Machine, Outbox, type Output, type Timeout } from '../core/machine.ts'
import { randomBytes } from '../core/random.ts'
import { TimerTable } from '../core/timers.ts'
import { digest } from '../crypto/hash.ts'
import { ChildStore, softShare } from './child-store.ts'
import { isFirstMessage, isOfPhase1, noCookie } from './cookies.ts'
import { DeadPeerDetection, defaultDpdAfterMs } from './dead-peer-detection.ts'
import type { Child, IsakmpEvent, IsakmpInput } from './event.ts'
import { Reassembly } from './fragments.ts'
import { type InformationalHost, Informationals } from './informational.ts'
import type { IsakmpOptions } from './isakmp-options.ts'
import { IsakmpWriter, notification } from './isakmp-writer.ts'
import type { MainModeState } from './main-mode.ts'
import { type CookiePair, isSamePath, noPath, type Path } from './path.ts'
import { Phase1 } from './phase1.ts'
import { spiBytes } from './quick-mode-exchange.ts'
import { QuickModes } from './quick-modes.ts'
import { type RepetitionId, Repetitions, ReplyCache } from './repetition.ts'
import {
  COOKIE_BYTES,
  checkHeader,
  HEADER_BYTES,
  HeaderFlag,
  type IsakmpHeader,
  parseHeader,
} from './wire/header.ts'
import { ExchangeType, NotifyType, PayloadType, ProtocolId } from './wire/numbers.ts'
import { parsePayloads } from './wire/payload.ts'

/** Implementation constant. */
const halfOpenMs = 30_000

type TimerName = 'half-open' | 'soft' | 'hard'

export class IsakmpMachine implements Machine<IsakmpInput, IsakmpEvent> {
  readonly #options: IsakmpOptions
  readonly #outbox = new Outbox<IsakmpEvent>()
  readonly #timers = new TimerTable<TimerName>()
  readonly #ownCookie: Uint8Array
  readonly #children: ChildStore
  readonly #quickModes: QuickModes
  readonly #informationals: Informationals
  readonly #dpd: DeadPeerDetection
  readonly #writer: IsakmpWriter
  readonly #replies = new ReplyCache()
  readonly #repetitions = new Repetitions()
  readonly #reassembly = new Reassembly()
  #phase1: Phase1 | undefined
  #wasUp = false
  #isClosedByPeer = false
  #isClosed = false
  #nowMs = 0

  constructor(options: IsakmpOptions) {
    this.#options = options
    this.#ownCookie = randomBytes(options.random, COOKIE_BYTES)
    const { phase2Lifetimes } = options.policy
    this.#children = new ChildStore(options.random, phase2Lifetimes.seconds)
    this.#dpd = new DeadPeerDetection(options.random, options.dpdAfterMs ?? defaultDpdAfterMs)
    const machine = this
    const host = {
      get phase1() {
        return machine.#phase1
      },
      get cookies() {
        return machine.cookies
      },
      get nowMs() {
        return machine.#nowMs
      },
      random: options.random,
      isExchange: (messageId: number) => this.#quickModes.has(messageId),
      transmit: (bytes: Uint8Array) => this.#outbox.transmit(bytes),
      count: (name: string) => options.counters.count(name),
      authentic: (path: Path) => this.#authentic(path),
      event: (event: IsakmpEvent) => this.#outbox.event(event),
      unexpected: (what: string) => this.#unexpected('phase-2', what),
      childUp: (child: Child, canSend: boolean) => this.#childUp(child, canSend),
      dropChild: (inboundSpi: number, detail: string) => this.#dropChild(inboundSpi, 'us', detail),
    }
    this.#writer = new IsakmpWriter(host, this.#repetitions)
    this.#quickModes = new QuickModes(
      options,
      host,
      this.#writer,
      this.#repetitions,
      this.#children,
    )
    const parts = {
      writer: this.#writer,
      dpd: this.#dpd,
      quickModes: this.#quickModes,
      children: this.#children,
    }
    this.#informationals = new Informationals(options, this.#makeInformationalHost(), parts)
  }

  get state(): MainModeState {
    return this.#phase1?.state ?? 'idle'
  }

  /** Where the next transmission goes. */
  get path(): Path {
    return this.#phase1?.path ?? noPath
  }

  /** Zeros where a cookie is not known yet. */
  get cookies(): CookiePair {
    return this.#phase1?.cookies ?? { initiatorCookie: noCookie, responderCookie: noCookie }
  }

  get ownCookie(): Uint8Array {
    return this.#ownCookie
  }

  get phase1(): Phase1 | undefined {
    return this.#phase1
  }

  get children(): readonly Child[] {
    return this.#children.all
  }

  handle(input: IsakmpInput | Timeout, nowMs: number): void {
    if (this.#isClosed) return
    this.#nowMs = nowMs
    switch (input.type) {
      case 'packet':
        this.#receive(input.bytes, input.path)
        break
      case 'timeout':
        this.#onTimeout()
        break
      case 'open':
        if (this.#phase1 === undefined) {
          const cookies = { initiatorCookie: this.#ownCookie, responderCookie: noCookie }
          this.#begin(cookies, input.path).open()
        }
        break
      case 'open-child':
        this.#quickModes.openChild(input.request)
        break
      case 'rekey-child':
        this.#quickModes.rekeyChild(input.inboundSpi)
        break
      case 'close-child':
        this.#closeChild(input.inboundSpi, 'closed here')
        break
      case 'traffic':
        this.#dpd.heard(nowMs)
        this.#quickModes.confirmByTraffic(input.inboundSpi)
        break
      case 'peer-moved':
        this.#moveTo(input.path)
        break
      case 'adopt':
        for (const child of input.children) this.#children.keep(child)
        for (const child of input.children) this.#children.succeed(child, nowMs)
        break
      case 'replaced':
        this.#writer.silence()
        this.#phase1?.close('replaced', 'replaced by a newer SA')
        break
      case 'close':
        this.#closeAll(input.cause)
        break
      default:
        assertNever(input)
    }
  }

  poll(): Output<IsakmpEvent> | undefined {
    return this.#outbox.poll()
  }

  nextDeadlineMs(): number {
    return Math.min(
      this.#timers.nextDeadlineMs(),
      this.#quickModes.nextDeadlineMs(),
      this.#dpd.nextDeadlineMs(),
      this.#children.nextDeadlineMs(),
      this.#repetitions.nextDeadlineMs(),
    )
  }

  #begin(cookies: CookiePair, path: Path): Phase1 {
    const phase1 = new Phase1(this.#options, cookies, path, {
      send: payloads => this.#writer.phase1(payloads, undefined),
      sendSealed: (payloads, chain) => this.#writer.phase1(payloads, chain),
      sendNotify: notifyType => this.#writer.plainNotify(notifyType),
      sendDelete: () => this.#writer.isakmpDelete(),
      up: () => this.#up(),
      down: (cause, detail) => this.#down(cause, detail),
      unexpected: what => this.#unexpected(this.state, what),
      count: name => this.#options.counters.count(name),
    })
    this.#phase1 = phase1
    this.#timers.set('half-open', this.#nowMs + (this.#options.halfOpenTimeoutMs ?? halfOpenMs))
    return phase1
  }

  // Receiving

  #receive(bytes: Uint8Array, path: Path): void {
    const fault = checkHeader(bytes, 0, bytes.length)
    if (fault) {
      this.#options.faults.count(fault)
      return
    }
    const header = parseHeader(bytes, 0)
    const phase1 = this.#phase1 ?? this.#answerStranger(header, path)
    if (phase1 === undefined) return
    if (!isOfPhase1(header, phase1)) {
      this.#options.counters.count('ikev1-unknown-cookies')
      return
    }
    if (header.nextPayload === PayloadType.fragment) {
      this.#receiveFragment(bytes, header, path)
      return
    }
    const message = bytes.subarray(0, header.length)
    const key = toHex(digest('sha1', message))
    const known = this.#replies.get(key)
    if (known !== undefined) {
      this.#options.counters.count('ikev1-repetition')
      for (const reply of known) this.#outbox.transmit(Uint8Array.from(reply))
      return
    }
    this.#writer.record()
    const isAccepted = this.#dispatch(header, message, phase1, path)
    const recorded = this.#writer.takeRecording()
    if (isAccepted && recorded.length > 0) this.#replies.keep(key, recorded)
  }

  /** The first message of a peer that initiates. */
  #answerStranger(header: IsakmpHeader, path: Path): Phase1 | undefined {
    if (!isFirstMessage(header)) {
      this.#options.counters.count('ikev1-not-a-first-message')
      return undefined
    }
    const { initiatorCookie } = header
    return this.#begin({ initiatorCookie, responderCookie: this.#ownCookie }, path)
  }

  #receiveFragment(bytes: Uint8Array, header: IsakmpHeader, path: Path): void {
    // Only from a peer that has returned our cookie: it is at its address.
    if (equalBytes(header.responderCookie, noCookie) || this.state === 'sa-sent') {
      this.#options.counters.count('ikev1-early-fragment')
      return
    }
    const whole = this.#reassembly.add(bytes)
    if (whole === undefined) return
    if (typeof whole === 'number') {
      this.#options.faults.count(whole)
      return
    }
    if ((whole[16] ?? 0) === PayloadType.fragment) {
      this.#options.faults.count(WireFault['bad-value'])
      return
    }
    this.#receive(whole, path)
  }

  #dispatch(header: IsakmpHeader, message: Uint8Array, phase1: Phase1, path: Path): boolean {
    const isEncrypted = (header.flags & HeaderFlag.encryption) !== 0
    switch (header.exchangeType) {
      case ExchangeType.identityProtection:
        if (isEncrypted) {
          const ciphertext = message.subarray(HEADER_BYTES)
          return phase1.receiveSealed(ciphertext, header.nextPayload, path)
        }
        return this.#receivePlainPhase1(header, message, phase1, path)
      case ExchangeType.quickMode:
        if (isEncrypted && phase1.state === 'established') {
          return this.#quickModes.receive(header, message, phase1, path)
        }
        this.#unexpected(this.state, 'quick mode')
        return false
      case ExchangeType.informational:
        if (isEncrypted && phase1.state === 'established') {
          return this.#informationals.receive(header, message, phase1, path)
        }
        // Anybody can send these: never acted upon (RFC 2408 §5.15 leaves it open).
        this.#options.counters.count('ikev1-unprotected-informational')
        return false
      case ExchangeType.aggressive:
        this.#options.counters.count('ikev1-aggressive-refused')
        return false
      case ExchangeType.transaction:
        this.#options.counters.count('ikev1-xauth-refused')
        return false
      default:
        this.#options.counters.count('ikev1-unknown-exchange')
        return false
    }
  }

  #receivePlainPhase1(
    header: IsakmpHeader,
    message: Uint8Array,
    phase1: Phase1,
    path: Path,
  ): boolean {
    const parsed = parsePayloads(message, HEADER_BYTES, message.length, header.nextPayload)
    if (typeof parsed === 'number') {
      this.#options.faults.count(parsed)
      return false
    }
    // Some clients move to port 4500 with message 3 already.
    if (!phase1.isInitiator && phase1.state === 'sa-answered') phase1.setPath(path)
    return phase1.receive(parsed.payloads, header.responderCookie)
  }

  #authentic(path: Path): void {
    this.#dpd.heard(this.#nowMs)
    this.#moveTo(path)
  }

  #moveTo(path: Path): void {
    const phase1 = this.#phase1
    if (phase1 === undefined || isSamePath(phase1.path, path)) return
    phase1.setPath(path)
    this.#outbox.event({ type: 'path-changed', path })
  }

  // Children

  #childUp(child: Child, canSend: boolean): void {
    this.#children.keep(child)
    this.#outbox.event({ type: 'child-up', child, canSend })
    this.#children.succeed(child, this.#nowMs)
  }

  #closeChild(inboundSpi: number, detail: string): void {
    if (this.#children.get(inboundSpi) === undefined) return
    this.#writer.informational([
      { type: 'D', protocolId: ProtocolId.esp, spis: [spiBytes(inboundSpi)] },
    ])
    this.#dropChild(inboundSpi, 'us', detail)
  }

  #dropChild(inboundSpi: number, by: 'peer' | 'us', detail: string): void {
    const child = this.#children.get(inboundSpi)
    if (child === undefined) return
    this.#children.remove(inboundSpi)
    const { outboundSpi } = child
    this.#outbox.event({ type: 'child-down', inboundSpi, outboundSpi, by, detail })
  }

  #makeInformationalHost(): InformationalHost {
    const machine = this
    return {
      get isClosed() {
        return machine.#isClosed
      },
      authentic: path => this.#authentic(path),
      event: event => this.#outbox.event(event),
      deleted: phase1 => {
        this.#isClosedByPeer = true
        this.#writer.silence()
        phase1.close('user-request', 'deleted by the peer')
      },
      childDeleted: inboundSpi => this.#dropChild(inboundSpi, 'peer', 'deleted by the peer'),
    }
  }

  // Life of phase 1

  #up(): void {
    const phase1 = this.#phase1
    const { choice, peerIdentity } = phase1 ?? {}
    if (phase1 === undefined || choice === undefined || peerIdentity === undefined) return
    this.#wasUp = true
    this.#timers.clear('half-open')
    this.#reassembly.clear()
    this.#repetitions.stop('phase-1')
    const ours = this.#options.policy.phase1Lifetimes.seconds
    const theirs = choice.lifetimes.seconds
    const seconds = theirs > 0 ? theirs : ours
    const softSeconds = Math.min(seconds, ours > 0 ? ours : seconds)
    if (seconds > 0) {
      this.#timers.set('hard', this.#nowMs + seconds * 1_000)
      const softMs = softSeconds * 1_000 * softShare(this.#options.random, phase1.isInitiator)
      this.#timers.set('soft', this.#nowMs + softMs)
    }
    this.#dpd.start(this.#nowMs, phase1.vendorIds.has('DPD'))
    this.#outbox.event({
      type: 'phase1-up',
      isInitiator: phase1.isInitiator,
      identity: peerIdentity,
      method: choice.method,
      suite: choice.suite,
      nat: phase1.nat,
      path: phase1.path,
      vendorIds: phase1.vendorIds,
      lifetimes: choice.lifetimes,
      subject: phase1.subject,
    })
    if (phase1.isPeerNew) this.#outbox.event({ type: 'initial-contact' })
    this.#quickModes.startWaiting()
  }

  #closeAll(cause: DisconnectCause): void {
    const phase1 = this.#phase1
    if (phase1 === undefined) {
      this.#down(cause, 'closed')
      return
    }
    const spis = this.children.map(child => spiBytes(child.inboundSpi))
    if (spis.length > 0 && phase1.state === 'established') {
      this.#writer.informational([{ type: 'D', protocolId: ProtocolId.esp, spis }])
    }
    for (const { inboundSpi } of this.children) {
      this.#dropChild(inboundSpi, 'us', cause)
    }
    phase1.close(cause, 'closed here')
  }

  #down(cause: DisconnectCause, detail: string): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#timers.clearAll()
    this.#dpd.stop()
    this.#quickModes.close(detail)
    const children = this.children
    this.#outbox.event({
      type: 'closed',
      wasUp: this.#wasUp,
      by: this.#isClosedByPeer ? 'peer' : 'us',
      cause,
      detail,
      children,
    })
    this.#children.clear()
    this.#replies.clear()
    this.#repetitions.clear()
    this.#reassembly.clear()
    this.#phase1?.destroy()
  }

  // Time

  #onTimeout(): void {
    this.#quickModes.onTimeout()
    for (
      let name = this.#timers.takeExpired(this.#nowMs);
      name !== undefined;
      name = this.#timers.takeExpired(this.#nowMs)
    ) {
      this.#expire(name)
      if (this.#isClosed) return
    }
    this.#askForLife()
    if (this.#isClosed) return
    for (
      let due = this.#repetitions.takeDue(this.#nowMs);
      due !== undefined;
      due = this.#repetitions.takeDue(this.#nowMs)
    ) {
      if (due.type === 'gave-up') this.#giveUp(due.id)
      else {
        this.#options.counters.count('ikev1-retransmission')
        this.#writer.transmit(due.datagrams)
      }
      if (this.#isClosed) return
    }
    for (
      let due = this.#children.takeExpired(this.#nowMs);
      due !== undefined;
      due = this.#children.takeExpired(this.#nowMs)
    ) {
      const { inboundSpi } = due.child
      if (due.deadline === 'rekey') this.#quickModes.rekeyChild(inboundSpi)
      else this.#closeChild(inboundSpi, due.deadline === 'retire' ? 'replaced' : 'lifetime over')
    }
  }

  #expire(name: TimerName): void {
    switch (name) {
      case 'half-open':
      case 'hard':
        this.#phase1?.expire()
        break
      case 'soft':
        this.#outbox.event({ type: 'rekey-due' })
        break
      default:
        assertNever(name)
    }
  }

  #giveUp(id: RepetitionId): void {
    if (id === 'phase-1') {
      this.#phase1?.expire()
      return
    }
    this.#quickModes.giveUp(id)
  }

  #askForLife(): void {
    const verdict = this.#dpd.onTimeout(this.#nowMs)
    if (verdict.type === 'ask') {
      const spi = this.#writer.cookieSpi()
      this.#writer.informational([
        notification(ProtocolId.isakmp, NotifyType['R-U-THERE'], spi, verdict.sequence),
      ])
    } else if (verdict.type === 'gone') {
      this.#writer.silence()
      for (const { inboundSpi } of this.children) {
        this.#dropChild(inboundSpi, 'us', 'the peer is gone')
      }
      this.#phase1?.close('lost-carrier', 'no answer to R-U-THERE')
    }
  }

  #unexpected(state: MainModeState | 'phase-2', what: string): void {
    this.#options.counters.count('ikev1-unexpected')
    this.#outbox.event({ type: 'unexpected', state, what })
  }
}
