/**
 * What one ISAKMP SA says: payloads become messages with hash and encryption, messages become
 * datagrams, and what needs an answer is repeated. RFC 2408 §5.1, RFC 2409 §5.
 */
import { type RandomSource, randomU32 } from '../core/random.ts'
import { fragment, largestUnfragmentedBytes } from './fragments.ts'
import { encodeMessage } from './message.ts'
import type { CookiePair } from './path.ts'
import type { Phase1 } from './phase1.ts'
import type { CbcChain } from './protection.ts'
import type { QuickModeExchange } from './quick-mode-exchange.ts'
import type { Repetitions } from './repetition.ts'
import { COOKIE_BYTES } from './wire/header.ts'
import { ExchangeType, ProtocolId } from './wire/numbers.ts'
import { encodePayloads, type Payload, type PayloadOf } from './wire/payload.ts'

/** The SA for which it speaks. */
export interface WriterHost {
  readonly phase1: Phase1 | undefined
  readonly cookies: CookiePair
  readonly nowMs: number
  readonly random: RandomSource
  isExchange(messageId: number): boolean
  transmit(bytes: Uint8Array): void
  count(name: string): void
}

export class IsakmpWriter {
  readonly #host: WriterHost
  readonly #repetitions: Repetitions
  /** What is sent while a message is handled: the reply to its repetition. */
  #recording: Uint8Array[] | undefined
  #fragmentId = 0
  #isQuiet = false

  constructor(host: WriterHost, repetitions: Repetitions) {
    this.#host = host
    this.#repetitions = repetitions
  }

  /** From now on the peer is told nothing more but answers: it is gone, or knows already. */
  silence(): void {
    this.#isQuiet = true
  }

  record(): void {
    this.#recording = []
  }

  /** What was sent since `record`. */
  takeRecording(): readonly Uint8Array[] {
    const recorded = this.#recording ?? []
    this.#recording = undefined
    return recorded
  }

  freshMessageId(): number {
    for (;;) {
      const messageId = randomU32(this.#host.random)
      if (!this.#host.isExchange(messageId)) return messageId
    }
  }

  cookieSpi(): Uint8Array {
    const spi = new Uint8Array(2 * COOKIE_BYTES)
    spi.set(this.#host.cookies.initiatorCookie)
    spi.set(this.#host.cookies.responderCookie, COOKIE_BYTES)
    return spi
  }

  phase1(payloads: readonly Payload[], chain: CbcChain | undefined): void {
    const datagrams = this.#message(ExchangeType.identityProtection, 0, payloads, chain)
    // Responders answer; what gets lost, the initiator asks for again.
    if (this.#host.phase1?.isInitiator === true)
      this.#repetitions.start('phase-1', datagrams, this.#host.nowMs)
    this.transmit(datagrams)
  }

  plainNotify(notifyType: number): void {
    const payloads = [notification(ProtocolId.isakmp, notifyType)]
    const messageId = this.freshMessageId()
    this.transmit(this.#message(ExchangeType.informational, messageId, payloads, undefined))
  }

  isakmpDelete(): void {
    if (this.#isQuiet) return
    this.informational([{ type: 'D', protocolId: ProtocolId.isakmp, spis: [this.cookieSpi()] }])
  }

  informational(payloads: readonly Payload[]): void {
    const phase1 = this.#host.phase1
    const { keys } = phase1 ?? {}
    if (phase1 === undefined || keys === undefined || this.#isQuiet) return
    const messageId = this.freshMessageId()
    const chain = phase1.exchangeChain(messageId)
    const hash = keys.messageHash(messageId, encodePayloads(payloads))
    const sealed: Payload[] = [{ type: 'HASH', data: hash }, ...payloads]
    this.transmit(this.#message(ExchangeType.informational, messageId, sealed, chain))
  }

  quickMode(exchange: QuickModeExchange, payloads: readonly Payload[]): void {
    const { keys } = this.#host.phase1 ?? {}
    if (keys === undefined) return
    const { messageId, chain, nonceI } = exchange
    const rest = encodePayloads(payloads)
    const hash =
      exchange.state === 'request-sent'
        ? keys.messageHash(messageId, rest)
        : keys.messageHash(messageId, nonceI, rest)
    const sealed: Payload[] = [{ type: 'HASH', data: hash }, ...payloads]
    const datagrams = this.#message(ExchangeType.quickMode, messageId, sealed, chain)
    this.#repetitions.start(messageId, datagrams, this.#host.nowMs)
    this.transmit(datagrams)
  }

  confirmation(exchange: QuickModeExchange): void {
    const { keys } = this.#host.phase1 ?? {}
    if (keys === undefined) return
    const { messageId, chain, nonceI, nonceR } = exchange
    const hash = keys.confirmationHash(messageId, nonceI, nonceR)
    this.transmit(
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
    const bytes = encodeMessage(this.#host.cookies, exchangeType, messageId, payloads, chain)
    if (bytes === undefined) {
      this.#host.count('ikev1-cipher-missing')
      return []
    }
    return this.#canFragment() && bytes.length > largestUnfragmentedBytes
      ? fragment(bytes, ++this.#fragmentId & 0xffff)
      : [bytes]
  }

  /** Windows takes fragments only where it expects certificates. */
  #canFragment(): boolean {
    const phase1 = this.#host.phase1
    return phase1?.choice?.method === 'rsa-signatures' && phase1.vendorIds.has('FRAGMENTATION')
  }

  /** Sends datagrams, and keeps them as the answer to what is being handled. */
  transmit(datagrams: readonly Uint8Array[]): void {
    for (const bytes of datagrams) {
      this.#recording?.push(bytes)
      this.#host.transmit(Uint8Array.from(bytes))
    }
  }
}

export function notification(
  protocolId: number,
  notifyType: number,
  spi: Uint8Array = new Uint8Array(0),
  data: Uint8Array = new Uint8Array(0),
): PayloadOf<'N'> {
  return { type: 'N', protocolId, notifyType, spi, data }
}
