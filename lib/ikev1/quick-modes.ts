/**
 * The quick mode exchanges of one ISAKMP SA: which message belongs to which, who may begin another,
 * and how long the ended ones are remembered for messages that come again.
 */
import { TimerTable } from '../core/timers.ts'
import type { ChildStore } from './child-store.ts'
import type { Child, ChildRequest, IsakmpEvent } from './event.ts'
import { type IsakmpOptions, udpL2tp } from './isakmp-options.ts'
import { type IsakmpWriter, notification } from './isakmp-writer.ts'
import { openCounted } from './message.ts'
import type { Path } from './path.ts'
import type { Phase1 } from './phase1.ts'
import type { CbcChain } from './protection.ts'
import { QuickModeExchange, type QuickModeIntent } from './quick-mode-exchange.ts'
import type { Repetitions } from './repetition.ts'
import type { IsakmpHeader } from './wire/header.ts'
import { ProtocolId } from './wire/numbers.ts'
import { filterPayloads, type Payload } from './wire/payload.ts'

/** Implementation constants. */
const mostExchanges = 16
const mostChildren = 32
const mostWaitingChildren = 8
/** Time for repetitions of an exchange's messages. */
const forgetExchangeMs = 40_000

/** The SA that they belong to. */
export interface QuickModesHost {
  readonly phase1: Phase1 | undefined
  readonly nowMs: number
  /** An authentic message came this way. */
  authentic(path: Path): void
  event(event: IsakmpEvent): void
  unexpected(what: string): void
  childUp(child: Child, canSend: boolean): void
  dropChild(inboundSpi: number, detail: string): void
}

export class QuickModes {
  readonly #options: IsakmpOptions
  readonly #host: QuickModesHost
  readonly #writer: IsakmpWriter
  readonly #repetitions: Repetitions
  readonly #children: ChildStore
  readonly #exchanges = new Map<number, QuickModeExchange>()
  readonly #waiting: ChildRequest[] = []
  readonly #forget = new TimerTable<`${number}`>()

  constructor(
    options: IsakmpOptions,
    host: QuickModesHost,
    writer: IsakmpWriter,
    repetitions: Repetitions,
    children: ChildStore,
  ) {
    this.#options = options
    this.#host = host
    this.#writer = writer
    this.#repetitions = repetitions
    this.#children = children
  }

  has(messageId: number): boolean {
    return this.#exchanges.has(messageId)
  }

  nextDeadlineMs(): number {
    return this.#forget.nextDeadlineMs()
  }

  onTimeout(): void {
    for (
      let name = this.#forget.takeExpired(this.#host.nowMs);
      name !== undefined;
      name = this.#forget.takeExpired(this.#host.nowMs)
    ) {
      this.#drop(Number(name))
    }
  }

  /** Phase 1 is up: what was asked for before begins. */
  startWaiting(): void {
    for (const request of this.#waiting.splice(0)) this.openChild(request)
  }

  /** A notification of an error: it means the one that waits, when there is but one. */
  refused(name: string): void {
    const waiting = [...this.#exchanges.values()].filter(one => one.state === 'request-sent')
    const [only] = waiting
    if (waiting.length === 1) only?.refused(name)
  }

  /** An exchange that nobody answers. */
  giveUp(messageId: number): void {
    const exchange = this.#exchanges.get(messageId)
    exchange?.expire()
    if (exchange !== undefined) this.#forgetLater(exchange)
  }

  close(detail: string): void {
    for (const { reference } of this.#waiting.splice(0)) this.#childFailed(reference, detail)
    for (const exchange of this.#exchanges.values()) {
      if (exchange.state === 'request-sent') this.#childFailed(exchange.reference, detail)
      exchange.destroy()
    }
    this.#exchanges.clear()
    this.#forget.clearAll()
  }

  receive(header: IsakmpHeader, message: Uint8Array, phase1: Phase1, path: Path): boolean {
    const { keys } = phase1
    const { messageId } = header
    if (keys === undefined || messageId === 0) return false
    const known = this.#exchanges.get(messageId)
    if (known === undefined) {
      if (this.#exchanges.size >= mostExchanges || this.#children.size >= mostChildren) {
        this.#options.counters.count('ikev1-too-many-exchanges')
        return false
      }
      const chain = phase1.exchangeChain(messageId)
      if (chain === undefined) return false
      const payloads = openCounted(
        header,
        message,
        chain,
        rest => keys.messageHash(messageId, rest),
        this.#options,
      )
      if (payloads === undefined) return false
      this.#host.authentic(path)
      const exchange = this.#newExchange(messageId, chain, phase1)
      exchange.receiveRequest(payloads, this.#host.nowMs, this.#predecessor(payloads))
      this.#forgetLater(exchange)
      return true
    }
    switch (known.state) {
      case 'request-sent': {
        const payloads = openCounted(
          header,
          message,
          known.chain,
          rest => keys.messageHash(messageId, known.nonceI, rest),
          this.#options,
        )
        if (payloads === undefined) return false
        this.#host.authentic(path)
        this.#repetitions.stop(messageId)
        known.receiveAnswer(payloads, this.#host.nowMs)
        this.#forgetLater(known)
        return true
      }
      case 'answered': {
        const { nonceI, nonceR } = known
        const payloads = openCounted(
          header,
          message,
          known.chain,
          () => keys.confirmationHash(messageId, nonceI, nonceR),
          this.#options,
        )
        if (payloads === undefined) return false
        this.#host.authentic(path)
        known.confirm()
        return true
      }
      default:
        this.#host.unexpected(`message in ${known.state}`)
        return false
    }
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
        send: payloads => this.#writer.quickMode(exchange, payloads),
        sendConfirmation: () => this.#writer.confirmation(exchange),
        sendNotify: notifyType =>
          this.#writer.informational([notification(ProtocolId.esp, notifyType)]),
        childUp: (child, canSend) => this.#host.childUp(child, canSend),
        childConfirmed: child => {
          this.#repetitions.stop(messageId)
          this.#host.event({ type: 'child-confirmed', inboundSpi: child.inboundSpi })
        },
        childDown: (child, detail) => this.#host.dropChild(child.inboundSpi, detail),
        failed: detail => {
          this.#repetitions.stop(messageId)
          this.#childFailed(exchange.reference, detail)
        },
        unexpected: what => this.#host.unexpected(what),
      },
    )
    this.#exchanges.set(messageId, exchange)
    return exchange
  }

  #forgetLater(exchange: QuickModeExchange): void {
    this.#forget.set(`${exchange.messageId}`, this.#host.nowMs + forgetExchangeMs)
  }

  #predecessor(payloads: readonly Payload[]): number | undefined {
    const [peer, local] = filterPayloads(payloads, 'ID')
    return this.#children.newestFor(peer, local)?.inboundSpi
  }

  openChild(request: ChildRequest): void {
    if (this.#host.phase1?.state !== 'established') {
      if (this.#waiting.length >= mostWaitingChildren) {
        this.#childFailed(request.reference, 'too many requests')
      } else this.#waiting.push(request)
      return
    }
    this.#startQuickMode({
      localSelector: request.localSelector,
      peerSelector: request.peerSelector,
      group: request.isPerfectForwardSecret ? this.#host.phase1?.choice?.suite.group : undefined,
      replaces: undefined,
      reference: request.reference,
    })
  }

  rekeyChild(inboundSpi: number): void {
    const child = this.#children.get(inboundSpi)
    if (child === undefined || this.#host.phase1?.state !== 'established') return
    this.#startQuickMode({
      localSelector: child.localSelector,
      peerSelector: child.peerSelector,
      group: child.group,
      replaces: inboundSpi,
      reference: undefined,
    })
  }

  #startQuickMode(intent: QuickModeIntent): void {
    const phase1 = this.#host.phase1
    if (phase1 === undefined) return
    const messageId = this.#writer.freshMessageId()
    const chain = phase1.exchangeChain(messageId)
    if (chain === undefined || this.#exchanges.size >= mostExchanges) {
      this.#childFailed(intent.reference, 'too many exchanges')
      return
    }
    this.#newExchange(messageId, chain, phase1).open(intent)
  }

  #childFailed(reference: number | undefined, detail: string): void {
    if (reference !== undefined) this.#host.event({ type: 'child-failed', reference, detail })
    else this.#options.counters.count('ikev1-quick-mode-failed')
  }

  confirmByTraffic(inboundSpi: number): void {
    for (const exchange of this.#exchanges.values()) {
      if (exchange.state === 'answered' && exchange.child?.inboundSpi === inboundSpi) {
        exchange.confirm()
      }
    }
  }

  #drop(messageId: number): void {
    const exchange = this.#exchanges.get(messageId)
    if (exchange === undefined) return
    exchange.expire()
    exchange.destroy()
    this.#exchanges.delete(messageId)
    this.#repetitions.stop(messageId)
  }
}
