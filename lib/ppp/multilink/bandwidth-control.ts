/**
 * Links of one bundle added and dropped as they are needed: BACP elects a favored peer, BAP asks for
 * changes (RFC 2125), the load says when. Who dials asks for leave to call; who is called asks to be
 * called, and both may ask to drop a link. The last link is never dropped.
 */
import { type Machine, Outbox, type Output, type Timeout } from '../../core/machine.ts'
import type { RandomSource } from '../../core/random.ts'
import { TimerTable } from '../../core/timers.ts'
import { Negotiation } from '../negotiation.ts'
import {
  type BapPacket,
  BapResponse,
  BapType,
  CallAction,
  CallStatus,
  LinkKind,
  type PhoneDelta,
} from '../wire/bap.ts'
import { encodeFrame, PppProtocol } from '../wire/frame.ts'
import { type BapAnswer, BapExchange, type BapRequestType } from './bap-exchange.ts'
import { FavoredPeer } from './favored-peer.ts'
import type { LinkNames } from './lcp-multilink.ts'
import { type LoadSettings, LoadWatch, type Traffic } from './load-watch.ts'

export interface BandwidthSettings extends LoadSettings {
  readonly mostLinks: number
}

export type BandwidthInput =
  /** The bundle has reached the Network phase. */
  | { readonly type: 'open' }
  /** An information field of BACP or BAP, on any link; used during the call only. */
  | { readonly type: 'packet'; readonly protocol: number; readonly bytes: Uint8Array }
  /** The links of the bundle as they are now, oldest first; undefined: it has no name. */
  | { readonly type: 'links'; readonly links: readonly (LinkNames | undefined)[] }
  /** What became of the link that `add-link` asked for. */
  | { readonly type: 'dialled'; readonly isUp: boolean }
  /** The peer does not speak this protocol. */
  | { readonly type: 'protocol-rejected'; readonly protocol: number }

export type BandwidthEvent =
  | { readonly type: 'bandwidth-up'; readonly isFavored: boolean }
  | { readonly type: 'bandwidth-down' }
  /** The peer permits, or wishes, one more link: dial it. */
  | { readonly type: 'add-link' }
  /** The peer agrees to the end of the link that we call so. */
  | { readonly type: 'drop-link'; readonly own: number }
  | { readonly type: 'unexpected'; readonly counter: string }

export interface BandwidthParts {
  /** Whether this side can dial. */
  readonly dials: boolean
  readonly random: RandomSource
  /** What the bundle has carried. */
  traffic(): Traffic
}

/** A tunnel is called where it was called before. */
const sameNumber: PhoneDelta = { uniqueDigits: 0, subscriberNumber: '', subAddress: '' }
const mostKilobits = 0xffff
/** What any peer takes: BACP has nothing longer to say. */
const leastMruBytes = 576

export class BandwidthControl implements Machine<BandwidthInput, BandwidthEvent> {
  readonly #settings: BandwidthSettings
  readonly #parts: BandwidthParts
  readonly #outbox = new Outbox<BandwidthEvent>()
  readonly #timers = new TimerTable<'bacp' | 'request' | 'load'>()
  readonly #favored: FavoredPeer
  readonly #bacp: Negotiation
  readonly #exchange: BapExchange
  #links: readonly (LinkNames | undefined)[] = []
  /** Present while BACP is open. */
  #load: LoadWatch | undefined
  #isDialling = false
  /** What to tell of a call once no other request waits. */
  #callStatus: number | undefined
  #dropping: LinkNames | undefined
  /** RFC 2125 §5.5, Request-Full-Nak: not before the bundle has changed. */
  readonly #exhausted = new Set<BapRequestType>()
  /** Request-Rej: never. */
  readonly #rejected = new Set<BapRequestType>()

  constructor(settings: BandwidthSettings, parts: BandwidthParts) {
    this.#settings = settings
    this.#parts = parts
    this.#favored = new FavoredPeer(parts.random)
    this.#bacp = this.#makeBacp()
    this.#exchange = new BapExchange({
      send: packet => this.#send(PppProtocol.bap, packet),
      setTimer: deadlineMs => this.#timers.set('request', deadlineMs),
      clearTimer: () => this.#timers.clear('request'),
      isFavored: () => this.#favored.isFavored,
      judge: (request, nowMs) => this.#judge(request, nowMs),
      answered: (type, response, nowMs) => this.#answered(type, response, nowMs),
      unexpected: counter => this.#unexpected(counter),
    })
  }

  handle(input: BandwidthInput | Timeout, nowMs: number): void {
    switch (input.type) {
      case 'timeout':
        this.#runTimers(nowMs)
        return
      case 'open':
        this.#bacp.open(nowMs)
        this.#bacp.up(nowMs)
        return
      case 'packet':
        this.#receive(input.protocol, input.bytes, nowMs)
        return
      case 'links':
        this.#links = input.links
        this.#exhausted.clear()
        this.#load?.restart(this.#links.length, nowMs)
        this.#watch()
        return
      case 'dialled':
        if (!this.#isDialling) this.#unexpected('bap-dialled-not-due')
        else this.#tellOfCall(input.isUp, nowMs)
        return
      case 'protocol-rejected':
        if (input.protocol === PppProtocol.bacp) this.#bacp.protocolRejected(nowMs)
        else if (input.protocol === PppProtocol.bap) this.#bacp.close(nowMs)
        return
    }
  }

  poll(): Output<BandwidthEvent> | undefined {
    return this.#outbox.poll()
  }

  nextDeadlineMs(): number {
    return this.#timers.nextDeadlineMs()
  }

  #receive(protocol: number, bytes: Uint8Array, nowMs: number): void {
    if (protocol === PppProtocol.bacp) this.#bacp.receive(bytes, 0, bytes.length, nowMs)
    else if (this.#load === undefined) this.#unexpected('bap-before-bacp')
    else this.#exchange.receive(bytes, nowMs)
  }

  #runTimers(nowMs: number): void {
    for (;;) {
      const name = this.#timers.takeExpired(nowMs)
      if (name === undefined) return
      if (name === 'bacp') this.#bacp.restartTimer(nowMs)
      else if (name === 'request') this.#exchange.timer(nowMs)
      else this.#lookAtLoad(nowMs)
    }
  }

  // What we ask for

  #lookAtLoad(nowMs: number): void {
    const verdict = this.#load?.look(nowMs)
    this.#watch()
    if (verdict === 'add') this.#askForMore(nowMs)
    else if (verdict === 'drop') this.#askForFewer(nowMs)
  }

  #askForMore(nowMs: number): void {
    const { dials } = this.#parts
    if (this.#links.length >= this.#settings.mostLinks || this.#isDialling) return
    const kilobitsPerSecond = Math.min(this.#settings.linkKilobitsPerSecond, mostKilobits)
    const link = { kilobitsPerSecond, kinds: LinkKind.switchedDigital }
    if (dials) this.#ask(BapType.callRequest, { link, isNumberNeedless: true }, nowMs)
    else this.#ask(BapType.callbackRequest, { link, phoneDeltas: [sameNumber] }, nowMs)
  }

  #askForFewer(nowMs: number): void {
    const last = this.#links.findLast(link => link !== undefined)
    if (last === undefined || this.#links.length < 2) return
    const isAsked = this.#ask(BapType.linkDropQueryRequest, { discriminator: last.peer }, nowMs)
    if (isAsked) this.#dropping = last
  }

  #ask(type: BapRequestType, options: BapPacket['options'], nowMs: number): boolean {
    if (this.#exhausted.has(type) || this.#rejected.has(type)) return false
    return this.#exchange.request(type, options, nowMs)
  }

  #answered(type: BapRequestType, response: number | undefined, nowMs: number): void {
    const dropping = this.#dropping
    this.#dropping = undefined
    if (response === BapResponse.fullNak) this.#exhausted.add(type)
    else if (response === BapResponse.reject) this.#rejected.add(type)
    else if (response === BapResponse.ack) {
      if (type === BapType.callRequest) this.#dial()
      if (type === BapType.linkDropQueryRequest && dropping !== undefined) {
        this.#outbox.event({ type: 'drop-link', own: dropping.own })
      }
    }
    this.#sendCallStatus(nowMs)
  }

  #dial(): void {
    this.#isDialling = true
    this.#outbox.event({ type: 'add-link' })
  }

  /** RFC 2125 §5.5.7: who called says what came of it. */
  #tellOfCall(isUp: boolean, nowMs: number): void {
    this.#isDialling = false
    this.#callStatus = isUp ? CallStatus.success : CallStatus.unspecificFailure
    this.#sendCallStatus(nowMs)
  }

  #sendCallStatus(nowMs: number): void {
    const status = this.#callStatus
    if (status === undefined || this.#load === undefined) return
    const options = {
      ...(status !== CallStatus.success && { phoneDeltas: [sameNumber] }),
      callStatus: { status, action: CallAction.noRetry },
    }
    if (this.#exchange.request(BapType.callStatusIndication, options, nowMs)) {
      this.#callStatus = undefined
    }
  }

  // What the peer asks for

  #judge({ type, options }: BapPacket, nowMs: number): BapAnswer {
    const { dials } = this.#parts
    const isFull = this.#links.length >= this.#settings.mostLinks
    if (!this.#exchange.isBusy) this.#dropping = undefined
    switch (type) {
      case BapType.callRequest:
        if (dials) return { response: BapResponse.reject }
        if (isFull) return { response: BapResponse.fullNak }
        return options.isNumberNeedless === true
          ? { response: BapResponse.ack }
          : { response: BapResponse.ack, options: { phoneDeltas: [sameNumber] } }
      case BapType.callbackRequest:
        if (!dials) return { response: BapResponse.reject }
        if (isFull) return { response: BapResponse.fullNak }
        if (this.#isDialling) return { response: BapResponse.nak }
        this.#dial()
        return { response: BapResponse.ack }
      case BapType.linkDropQueryRequest:
        return { response: this.#judgeDrop(options.discriminator, nowMs) }
      case BapType.callStatusIndication:
        if (options.callStatus?.status !== CallStatus.success) this.#unexpected('bap-call-failed')
        return { response: BapResponse.ack }
      default:
        return { response: BapResponse.reject }
    }
  }

  #judgeDrop(discriminator: number | undefined, nowMs: number): number {
    if (this.#links.length < 2) return BapResponse.fullNak
    if (!this.#links.some(link => link !== undefined && link.own === discriminator)) {
      this.#unexpected('bap-unknown-link')
      return BapResponse.nak
    }
    return this.#load?.wouldMiss(nowMs) === true ? BapResponse.nak : BapResponse.ack
  }

  // BACP

  #makeBacp(): Negotiation {
    return new Negotiation(this.#favored, {
      send: packet => this.#send(PppProtocol.bacp, packet),
      setTimer: deadlineMs => this.#timers.set('bacp', deadlineMs),
      clearTimer: () => this.#timers.clear('bacp'),
      layerUp: nowMs => this.#up(nowMs),
      layerDown: () => this.#down(),
      layerFinished: () => this.#unexpected('bacp-finished'),
      failed: (_, nowMs) => this.#bacp.close(nowMs),
      peerTerminated: () => undefined,
      extension: () => 'unknown',
      replyEcho: () => undefined,
      codeRejected: () => undefined,
      peerMruBytes: () => leastMruBytes,
      permitsReject: () => true,
      unexpected: counter => this.#unexpected(`bacp-${counter}`),
    })
  }

  #up(nowMs: number): void {
    this.#load = new LoadWatch(this.#settings, () => this.#parts.traffic(), nowMs)
    this.#load.restart(this.#links.length, nowMs)
    this.#watch()
    this.#outbox.event({ type: 'bandwidth-up', isFavored: this.#favored.isFavored })
  }

  #down(): void {
    this.#load = undefined
    this.#exchange.clear()
    this.#timers.clear('load')
    this.#outbox.event({ type: 'bandwidth-down' })
  }

  #watch(): void {
    if (this.#load !== undefined) this.#timers.set('load', this.#load.nextDeadlineMs())
  }

  #send(protocol: number, packet: Uint8Array): void {
    this.#outbox.transmit(encodeFrame(protocol, packet))
  }

  #unexpected(counter: string): void {
    this.#outbox.event({ type: 'unexpected', counter })
  }
}
