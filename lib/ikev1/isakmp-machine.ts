/**
 * One ISAKMP SA with its quick mode exchanges and the ESP SAs that came of them, for both roles: RFC
 * 2408, 2409, 3706, 3947. Main mode is in `phase1.ts`, quick mode in `quick-mode-exchange.ts`; here
 * are headers, encryption, hashes over messages, repetition, informational exchanges and time.
 *
 * Everything that arrives is judged by its place: unprotected messages count only while phase 1 is
 * being negotiated, and an unprotected notification or delete never counts.
 */
import { equalBytes, putU32, toHex, u32 } from '../core/bytes.ts'
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { assertNever } from '../core/errors.ts'
import { type Counters, type FaultCounters, WireFault } from '../core/faults.ts'
import { type Machine, Outbox, type Output, type Timeout } from '../core/machine.ts'
import { randomBytes, randomU32 } from '../core/random.ts'
import { TimerTable } from '../core/timers.ts'
import { digest } from '../crypto/hash.ts'
import { ChildStore, softShare } from './child-store.ts'
import type { Child, ChildRequest, IsakmpEvent, IsakmpInput } from './event.ts'
import { fragment, largestUnfragmentedBytes, Reassembly } from './fragments.ts'
import { exchangeIv } from './key-schedule.ts'
import type { MainModeState } from './main-mode.ts'
import { encodeMessage, openMessage } from './message.ts'
import { type CookiePair, isSamePath, type Path } from './path.ts'
import { Phase1 } from './phase1.ts'
import type { Phase1Options } from './phase1-options.ts'
import { CbcChain } from './protection.ts'
import {
  type ProtectedService,
  QuickModeExchange,
  type QuickModeIntent,
  spiBytes,
} from './quick-mode-exchange.ts'
import { type RepetitionId, Repetitions, ReplyCache } from './repetition.ts'
import {
  COOKIE_BYTES,
  checkHeader,
  HEADER_BYTES,
  HeaderFlag,
  type IsakmpHeader,
  parseHeader,
} from './wire/header.ts'
import { ExchangeType, NotifyType, notifyName, PayloadType, ProtocolId } from './wire/numbers.ts'
import {
  encodePayloads,
  filterPayloads,
  type Payload,
  type PayloadOf,
  parsePayloads,
} from './wire/payload.ts'

/** Implementation constants. */
const halfOpenMs = 30_000
const keptMessageIds = 256
const mostExchanges = 16
const mostChildren = 32
const mostWaitingChildren = 8
/** Time for repetitions of an exchange's messages. */
const forgetExchangeMs = 40_000
const defaultDpdAfterMs = 30_000
const dpdRetryMs = 5_000
const mostDpdTries = 5

export const udpL2tp: ProtectedService = { protocol: 17, port: 1701 }

export interface IsakmpOptions extends Phase1Options {
  readonly counters: Counters
  readonly faults: FaultCounters
  /** A fresh inbound SPI, unique in the server and at least 256 (RFC 4303 §2.1). */
  allocateSpi(): number
  /** The traffic that ESP carries; UDP port 1701 when absent. */
  readonly service?: ProtectedService
  /** Silence after which a peer that can is asked whether it lives (RFC 3706), ms; 0 never. */
  readonly dpdAfterMs?: number
  readonly halfOpenTimeoutMs?: number
  readonly sendsOriginalAddresses?: boolean
}

type TimerName = 'half-open' | 'dpd' | 'soft' | 'hard' | `forget:${number}`

const noPath: Path = {
  local: { address: '0.0.0.0', port: 0 },
  peer: { address: '0.0.0.0', port: 0 },
  isFloated: false,
}
const noCookie = new Uint8Array(COOKIE_BYTES)

export class IsakmpMachine implements Machine<IsakmpInput, IsakmpEvent> {
  readonly #options: IsakmpOptions
  readonly #outbox = new Outbox<IsakmpEvent>()
  readonly #timers = new TimerTable<TimerName>()
  readonly #ownCookie: Uint8Array
  readonly #exchanges = new Map<number, QuickModeExchange>()
  readonly #children: ChildStore
  readonly #waiting: ChildRequest[] = []
  readonly #replies = new ReplyCache()
  readonly #messageIds = new Set<number>()
  readonly #repetitions = new Repetitions()
  readonly #reassembly = new Reassembly()
  #phase1: Phase1 | undefined
  /** What is sent while a message is handled: the reply to its repetition. */
  #recording: Uint8Array[] | undefined
  #fragmentId = 0
  #lastAliveMs = 0
  #dpdTries = 0
  #dpdSequence: number
  #wasUp = false
  #isClosedByPeer = false
  #isQuiet = false
  #isClosed = false
  #nowMs = 0

  constructor(options: IsakmpOptions) {
    this.#options = options
    this.#ownCookie = randomBytes(options.random, COOKIE_BYTES)
    const { phase2Lifetimes } = options.policy
    this.#children = new ChildStore(options.random, phase2Lifetimes.seconds)
    this.#dpdSequence = randomU32(options.random) >>> 1
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
        this.#openChild(input.request)
        break
      case 'rekey-child':
        this.#rekeyChild(input.inboundSpi)
        break
      case 'close-child':
        this.#closeChild(input.inboundSpi, 'closed here')
        break
      case 'traffic':
        this.#lastAliveMs = nowMs
        this.#confirmByTraffic(input.inboundSpi)
        break
      case 'peer-moved':
        this.#moveTo(input.path)
        break
      case 'adopt':
        for (const child of input.children) this.#children.keep(child)
        for (const child of input.children) this.#children.succeed(child, nowMs)
        break
      case 'replaced':
        this.#isQuiet = true
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
      this.#children.nextDeadlineMs(),
      this.#repetitions.nextDeadlineMs(),
    )
  }

  #begin(cookies: CookiePair, path: Path): Phase1 {
    const phase1 = new Phase1(this.#options, cookies, path, {
      send: payloads => this.#sendPhase1(payloads, undefined),
      sendSealed: (payloads, chain) => this.#sendPhase1(payloads, chain),
      sendNotify: notifyType => this.#sendPlainNotify(notifyType),
      sendDelete: () => this.#sendIsakmpDelete(),
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
    if (!this.#isOurs(header, phase1)) {
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
    this.#recording = []
    const isAccepted = this.#dispatch(header, message, phase1, path)
    const recorded = this.#recording
    this.#recording = undefined
    if (isAccepted && recorded.length > 0) this.#replies.keep(key, recorded)
  }

  /** The first message of a peer that initiates. */
  #answerStranger(header: IsakmpHeader, path: Path): Phase1 | undefined {
    const isFirst =
      header.exchangeType === ExchangeType.identityProtection &&
      header.messageId === 0 &&
      equalBytes(header.responderCookie, noCookie) &&
      !equalBytes(header.initiatorCookie, noCookie)
    if (!isFirst) {
      this.#options.counters.count('ikev1-not-a-first-message')
      return undefined
    }
    const { initiatorCookie } = header
    return this.#begin({ initiatorCookie, responderCookie: this.#ownCookie }, path)
  }

  #isOurs(header: IsakmpHeader, phase1: Phase1): boolean {
    const { initiatorCookie, responderCookie } = phase1.cookies
    if (!equalBytes(header.initiatorCookie, initiatorCookie)) return false
    if (equalBytes(header.responderCookie, responderCookie)) return true
    // Message 2 tells the initiator the responder's cookie; message 1 comes again without one.
    return phase1.isInitiator
      ? phase1.state === 'sa-sent'
      : equalBytes(header.responderCookie, noCookie)
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
          return this.#receiveQuickMode(header, message, phase1, path)
        }
        this.#unexpected(this.state, 'quick mode')
        return false
      case ExchangeType.informational:
        if (isEncrypted && phase1.state === 'established') {
          return this.#receiveInformational(header, message, phase1, path)
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

  /** The payloads behind a good hash, undefined when the message is not authentic. */
  #open(
    header: IsakmpHeader,
    message: Uint8Array,
    chain: CbcChain,
    hashOf: (rest: Uint8Array) => Uint8Array,
  ): readonly Payload[] | undefined {
    const opened = openMessage(header, message, chain, hashOf)
    switch (opened.type) {
      case 'authentic':
        return opened.payloads
      case 'malformed':
        this.#options.faults.count(opened.fault)
        return undefined
      case 'bad-ciphertext':
      case 'bad-hash':
        this.#options.counters.count(`ikev1-${opened.type}`)
        return undefined
      default:
        return assertNever(opened)
    }
  }

  #authentic(path: Path): void {
    this.#lastAliveMs = this.#nowMs
    this.#dpdTries = 0
    this.#moveTo(path)
  }

  #moveTo(path: Path): void {
    const phase1 = this.#phase1
    if (phase1 === undefined || isSamePath(phase1.path, path)) return
    phase1.setPath(path)
    this.#outbox.event({ type: 'path-changed', path })
  }

  // Quick mode

  #receiveQuickMode(
    header: IsakmpHeader,
    message: Uint8Array,
    phase1: Phase1,
    path: Path,
  ): boolean {
    const { keys } = phase1
    const { messageId } = header
    if (keys === undefined || messageId === 0) return false
    const known = this.#exchanges.get(messageId)
    if (known === undefined) {
      if (this.#exchanges.size >= mostExchanges || this.#children.size >= mostChildren) {
        this.#options.counters.count('ikev1-too-many-exchanges')
        return false
      }
      const chain = this.#newChain(phase1, messageId)
      if (chain === undefined) return false
      const payloads = this.#open(header, message, chain, rest => keys.messageHash(messageId, rest))
      if (payloads === undefined) return false
      this.#authentic(path)
      const exchange = this.#newExchange(messageId, chain, phase1)
      exchange.receiveRequest(payloads, this.#nowMs, this.#predecessor(payloads))
      this.#forgetLater(exchange)
      return true
    }
    switch (known.state) {
      case 'request-sent': {
        const payloads = this.#open(header, message, known.chain, rest =>
          keys.messageHash(messageId, known.nonceI, rest),
        )
        if (payloads === undefined) return false
        this.#authentic(path)
        this.#repetitions.stop(messageId)
        known.receiveAnswer(payloads, this.#nowMs)
        this.#forgetLater(known)
        return true
      }
      case 'answered': {
        const { nonceI, nonceR } = known
        const payloads = this.#open(header, message, known.chain, () =>
          keys.confirmationHash(messageId, nonceI, nonceR),
        )
        if (payloads === undefined) return false
        this.#authentic(path)
        known.confirm()
        return true
      }
      default:
        this.#unexpected('phase-2', `message in ${known.state}`)
        return false
    }
  }

  #newChain(phase1: Phase1, messageId: number): CbcChain | undefined {
    const { keys, chain } = phase1
    if (keys === undefined || chain === undefined) return undefined
    return new CbcChain(keys, exchangeIv(keys.suite, chain.iv, messageId))
  }

  #newExchange(messageId: number, chain: CbcChain, phase1: Phase1): QuickModeExchange {
    const { policy, random, service = udpL2tp, sendsOriginalAddresses = true } = this.#options
    const exchange: QuickModeExchange = new QuickModeExchange(
      messageId,
      chain,
      phase1,
      {
        policy,
        random,
        service,
        sendsOriginalAddresses,
        allocateSpi: () => this.#options.allocateSpi(),
      },
      {
        send: payloads => this.#sendQuickMode(exchange, payloads),
        sendConfirmation: () => this.#sendConfirmation(exchange),
        sendNotify: notifyType =>
          this.#sendInformational([notification(ProtocolId.esp, notifyType)]),
        childUp: (child, canSend) => this.#childUp(child, canSend),
        childConfirmed: child => {
          this.#repetitions.stop(messageId)
          this.#outbox.event({ type: 'child-confirmed', inboundSpi: child.inboundSpi })
        },
        childDown: (child, detail) => this.#dropChild(child.inboundSpi, 'us', detail),
        failed: detail => {
          this.#repetitions.stop(messageId)
          this.#childFailed(exchange.reference, detail)
        },
        unexpected: what => this.#unexpected('phase-2', what),
      },
    )
    this.#exchanges.set(messageId, exchange)
    return exchange
  }

  #forgetLater(exchange: QuickModeExchange): void {
    this.#timers.set(`forget:${exchange.messageId}`, this.#nowMs + forgetExchangeMs)
  }

  #predecessor(payloads: readonly Payload[]): number | undefined {
    const [peer, local] = filterPayloads(payloads, 'ID')
    return this.#children.newestFor(peer, local)?.inboundSpi
  }

  #openChild(request: ChildRequest): void {
    if (this.state !== 'established') {
      if (this.#waiting.length >= mostWaitingChildren) {
        this.#childFailed(request.reference, 'too many requests')
      } else this.#waiting.push(request)
      return
    }
    this.#startQuickMode({
      localSelector: request.localSelector,
      peerSelector: request.peerSelector,
      group: request.isPerfectForwardSecret ? this.#phase1?.choice?.suite.group : undefined,
      replaces: undefined,
      reference: request.reference,
    })
  }

  #rekeyChild(inboundSpi: number): void {
    const child = this.#children.get(inboundSpi)
    if (child === undefined || this.state !== 'established') return
    this.#startQuickMode({
      localSelector: child.localSelector,
      peerSelector: child.peerSelector,
      group: child.group,
      replaces: inboundSpi,
      reference: undefined,
    })
  }

  #startQuickMode(intent: QuickModeIntent): void {
    const phase1 = this.#phase1
    if (phase1 === undefined) return
    const messageId = this.#freshMessageId()
    const chain = this.#newChain(phase1, messageId)
    if (chain === undefined || this.#exchanges.size >= mostExchanges) {
      this.#childFailed(intent.reference, 'too many exchanges')
      return
    }
    this.#newExchange(messageId, chain, phase1).open(intent)
  }

  #childFailed(reference: number | undefined, detail: string): void {
    if (reference !== undefined) this.#outbox.event({ type: 'child-failed', reference, detail })
    else this.#options.counters.count('ikev1-quick-mode-failed')
  }

  #confirmByTraffic(inboundSpi: number): void {
    for (const exchange of this.#exchanges.values()) {
      if (exchange.state === 'answered' && exchange.child?.inboundSpi === inboundSpi) {
        exchange.confirm()
      }
    }
  }

  // Children

  #childUp(child: Child, canSend: boolean): void {
    this.#children.keep(child)
    this.#outbox.event({ type: 'child-up', child, canSend })
    this.#children.succeed(child, this.#nowMs)
  }

  #closeChild(inboundSpi: number, detail: string): void {
    if (this.#children.get(inboundSpi) === undefined) return
    this.#sendInformational([
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

  // Informational exchanges

  #receiveInformational(
    header: IsakmpHeader,
    message: Uint8Array,
    phase1: Phase1,
    path: Path,
  ): boolean {
    const { keys } = phase1
    const { messageId } = header
    if (keys === undefined || messageId === 0) return false
    if (this.#messageIds.has(messageId)) {
      this.#options.counters.count('ikev1-replay')
      return false
    }
    const chain = this.#newChain(phase1, messageId)
    if (chain === undefined) return false
    const payloads = this.#open(header, message, chain, rest => keys.messageHash(messageId, rest))
    if (payloads === undefined) return false
    this.#messageIds.add(messageId)
    for (const oldest of this.#messageIds) {
      if (this.#messageIds.size <= keptMessageIds) break
      this.#messageIds.delete(oldest)
    }
    this.#authentic(path)
    for (const payload of payloads) {
      if (payload.type === 'N') this.#receiveNotify(payload)
      else if (payload.type === 'D') this.#receiveDelete(payload, phase1)
      if (this.#isClosed) break
    }
    return true
  }

  #receiveNotify(notify: PayloadOf<'N'>): void {
    const { notifyType } = notify
    switch (notifyType) {
      case NotifyType['R-U-THERE']:
        this.#sendInformational([
          notification(
            ProtocolId.isakmp,
            NotifyType['R-U-THERE-ACK'],
            this.#cookieSpi(),
            notify.data,
          ),
        ])
        return
      case NotifyType['R-U-THERE-ACK']:
        // The message is authentic, so the peer lives; an old number is only worth a count.
        if (u32(notify.data, 0) !== this.#dpdSequence) {
          this.#options.counters.count('ikev1-dpd-old-sequence')
        }
        return
      case NotifyType['INITIAL-CONTACT']:
        this.#outbox.event({ type: 'initial-contact' })
        return
      default:
        break
    }
    // RFC 2408 §3.14.1: below 16384 are errors. Without an SPI it means the one that waits.
    const waiting = [...this.#exchanges.values()].filter(one => one.state === 'request-sent')
    const [only] = waiting
    if (notifyType < 16_384 && waiting.length === 1) only?.refused(notifyName(notifyType))
    this.#outbox.event({ type: 'notified', notifyType, name: notifyName(notifyType) })
  }

  #receiveDelete(payload: PayloadOf<'D'>, phase1: Phase1): void {
    if (payload.protocolId === ProtocolId.isakmp) {
      const own = this.#cookieSpi()
      if (!payload.spis.some(spi => equalBytes(spi, own))) return
      this.#isClosedByPeer = true
      this.#isQuiet = true
      phase1.close('user-request', 'deleted by the peer')
      return
    }
    if (payload.protocolId !== ProtocolId.esp) return
    for (const spi of payload.spis) {
      if (spi.length !== 4) continue
      const outboundSpi = u32(spi, 0)
      const child = this.#children.findByOutboundSpi(outboundSpi)
      if (child === undefined) this.#outbox.event({ type: 'foreign-delete', outboundSpi })
      else this.#dropChild(child.inboundSpi, 'peer', 'deleted by the peer')
    }
  }

  #cookieSpi(): Uint8Array {
    const spi = new Uint8Array(2 * COOKIE_BYTES)
    spi.set(this.cookies.initiatorCookie)
    spi.set(this.cookies.responderCookie, COOKIE_BYTES)
    return spi
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
    this.#lastAliveMs = this.#nowMs
    const ours = this.#options.policy.phase1Lifetimes.seconds
    const theirs = choice.lifetimes.seconds
    const seconds = theirs > 0 ? theirs : ours
    const softSeconds = Math.min(seconds, ours > 0 ? ours : seconds)
    if (seconds > 0) {
      this.#timers.set('hard', this.#nowMs + seconds * 1_000)
      const softMs = softSeconds * 1_000 * softShare(this.#options.random, phase1.isInitiator)
      this.#timers.set('soft', this.#nowMs + softMs)
    }
    this.#armDpd()
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
    for (const request of this.#waiting.splice(0)) this.#openChild(request)
  }

  #closeAll(cause: DisconnectCause): void {
    const phase1 = this.#phase1
    if (phase1 === undefined) {
      this.#down(cause, 'closed')
      return
    }
    const spis = this.children.map(child => spiBytes(child.inboundSpi))
    if (spis.length > 0 && phase1.state === 'established') {
      this.#sendInformational([{ type: 'D', protocolId: ProtocolId.esp, spis }])
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
    for (const { reference } of this.#waiting.splice(0)) this.#childFailed(reference, detail)
    for (const exchange of this.#exchanges.values()) {
      if (exchange.state === 'request-sent') this.#childFailed(exchange.reference, detail)
      exchange.destroy()
    }
    const children = this.children
    this.#outbox.event({
      type: 'closed',
      wasUp: this.#wasUp,
      by: this.#isClosedByPeer ? 'peer' : 'us',
      cause,
      detail,
      children,
    })
    this.#exchanges.clear()
    this.#children.clear()
    this.#replies.clear()
    this.#repetitions.clear()
    this.#reassembly.clear()
    this.#phase1?.destroy()
  }

  // Time

  #onTimeout(): void {
    for (
      let name = this.#timers.takeExpired(this.#nowMs);
      name !== undefined;
      name = this.#timers.takeExpired(this.#nowMs)
    ) {
      this.#expire(name)
      if (this.#isClosed) return
    }
    for (
      let due = this.#repetitions.takeDue(this.#nowMs);
      due !== undefined;
      due = this.#repetitions.takeDue(this.#nowMs)
    ) {
      if (due.type === 'gave-up') this.#giveUp(due.id)
      else {
        this.#options.counters.count('ikev1-retransmission')
        this.#transmit(due.datagrams)
      }
      if (this.#isClosed) return
    }
    for (
      let due = this.#children.takeExpired(this.#nowMs);
      due !== undefined;
      due = this.#children.takeExpired(this.#nowMs)
    ) {
      const { inboundSpi } = due.child
      if (due.deadline === 'rekey') this.#rekeyChild(inboundSpi)
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
      case 'dpd':
        this.#askForLife()
        break
      default:
        this.#forgetExchange(Number(name.slice('forget:'.length)))
    }
  }

  #giveUp(id: RepetitionId): void {
    if (id === 'phase-1') {
      this.#phase1?.expire()
      return
    }
    const exchange = this.#exchanges.get(id)
    exchange?.expire()
    if (exchange !== undefined) this.#forgetLater(exchange)
  }

  #forgetExchange(messageId: number): void {
    const exchange = this.#exchanges.get(messageId)
    if (exchange === undefined) return
    exchange.expire()
    exchange.destroy()
    this.#exchanges.delete(messageId)
    this.#repetitions.stop(messageId)
  }

  #armDpd(): void {
    const { dpdAfterMs = defaultDpdAfterMs } = this.#options
    if (dpdAfterMs > 0 && this.#phase1?.vendorIds.has('DPD')) {
      this.#timers.set('dpd', this.#lastAliveMs + dpdAfterMs)
    }
  }

  #askForLife(): void {
    const { dpdAfterMs = defaultDpdAfterMs } = this.#options
    if (this.#nowMs - this.#lastAliveMs < dpdAfterMs) {
      this.#dpdTries = 0
      this.#armDpd()
      return
    }
    if (this.#dpdTries === mostDpdTries) {
      this.#isQuiet = true
      for (const { inboundSpi } of this.children) {
        this.#dropChild(inboundSpi, 'us', 'the peer is gone')
      }
      this.#phase1?.close('lost-carrier', 'no answer to R-U-THERE')
      return
    }
    this.#dpdTries++
    this.#dpdSequence = (this.#dpdSequence + 1) >>> 0
    const sequence = new Uint8Array(4)
    putU32(sequence, 0, this.#dpdSequence)
    this.#sendInformational([
      notification(ProtocolId.isakmp, NotifyType['R-U-THERE'], this.#cookieSpi(), sequence),
    ])
    this.#timers.set('dpd', this.#nowMs + dpdRetryMs)
  }

  // Sending

  #sendPhase1(payloads: readonly Payload[], chain: CbcChain | undefined): void {
    const datagrams = this.#message(ExchangeType.identityProtection, 0, payloads, chain)
    // Responders answer; what gets lost, the initiator asks for again.
    if (this.#phase1?.isInitiator === true)
      this.#repetitions.start('phase-1', datagrams, this.#nowMs)
    this.#transmit(datagrams)
  }

  #sendPlainNotify(notifyType: number): void {
    const payloads = [notification(ProtocolId.isakmp, notifyType)]
    const messageId = this.#freshMessageId()
    this.#transmit(this.#message(ExchangeType.informational, messageId, payloads, undefined))
  }

  #sendIsakmpDelete(): void {
    if (this.#isQuiet) return
    this.#sendInformational([
      { type: 'D', protocolId: ProtocolId.isakmp, spis: [this.#cookieSpi()] },
    ])
  }

  #sendInformational(payloads: readonly Payload[]): void {
    const phase1 = this.#phase1
    const { keys } = phase1 ?? {}
    if (phase1 === undefined || keys === undefined || this.#isQuiet) return
    const messageId = this.#freshMessageId()
    const chain = this.#newChain(phase1, messageId)
    const hash = keys.messageHash(messageId, encodePayloads(payloads))
    const sealed: Payload[] = [{ type: 'HASH', data: hash }, ...payloads]
    this.#transmit(this.#message(ExchangeType.informational, messageId, sealed, chain))
  }

  #sendQuickMode(exchange: QuickModeExchange, payloads: readonly Payload[]): void {
    const { keys } = this.#phase1 ?? {}
    if (keys === undefined) return
    const { messageId, chain, nonceI } = exchange
    const rest = encodePayloads(payloads)
    const hash =
      exchange.state === 'request-sent'
        ? keys.messageHash(messageId, rest)
        : keys.messageHash(messageId, nonceI, rest)
    const sealed: Payload[] = [{ type: 'HASH', data: hash }, ...payloads]
    const datagrams = this.#message(ExchangeType.quickMode, messageId, sealed, chain)
    this.#repetitions.start(messageId, datagrams, this.#nowMs)
    this.#transmit(datagrams)
  }

  #sendConfirmation(exchange: QuickModeExchange): void {
    const { keys } = this.#phase1 ?? {}
    if (keys === undefined) return
    const { messageId, chain, nonceI, nonceR } = exchange
    const hash = keys.confirmationHash(messageId, nonceI, nonceR)
    this.#transmit(
      this.#message(ExchangeType.quickMode, messageId, [{ type: 'HASH', data: hash }], chain),
    )
  }

  /** The datagrams of a message: one, or its fragments. */
  #message(
    exchangeType: number,
    messageId: number,
    payloads: readonly Payload[],
    chain: CbcChain | undefined,
  ): Uint8Array[] {
    const bytes = encodeMessage(this.cookies, exchangeType, messageId, payloads, chain)
    if (bytes === undefined) {
      this.#options.counters.count('ikev1-cipher-missing')
      return []
    }
    return this.#canFragment() && bytes.length > largestUnfragmentedBytes
      ? fragment(bytes, ++this.#fragmentId & 0xffff)
      : [bytes]
  }

  /** Windows takes fragments only where it expects certificates. */
  #canFragment(): boolean {
    const phase1 = this.#phase1
    return phase1?.choice?.method === 'rsa-signatures' && phase1.vendorIds.has('FRAGMENTATION')
  }

  #transmit(datagrams: readonly Uint8Array[]): void {
    for (const bytes of datagrams) {
      this.#recording?.push(bytes)
      this.#outbox.transmit(Uint8Array.from(bytes))
    }
  }

  #freshMessageId(): number {
    for (;;) {
      const messageId = randomU32(this.#options.random)
      if (!this.#exchanges.has(messageId)) return messageId
    }
  }

  #unexpected(state: MainModeState | 'phase-2', what: string): void {
    this.#options.counters.count('ikev1-unexpected')
    this.#outbox.event({ type: 'unexpected', state, what })
  }
}

function notification(
  protocolId: number,
  notifyType: number,
  spi: Uint8Array = new Uint8Array(0),
  data: Uint8Array = new Uint8Array(0),
): PayloadOf<'N'> {
  return { type: 'N', protocolId, notifyType, spi, data }
}
