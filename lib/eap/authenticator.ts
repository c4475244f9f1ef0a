/**
 * The authenticator's side of an EAP conversation, RFC 3748 §4 and RFC 4137 §5: Identity, choice of a
 * method, Nak, the method's rounds, Success or Failure. Sans-IO; `transmit` carries whole EAP packets.
 *
 * Over PPP the conversation repeats a lost Request itself (RFC 3748 §4.3); over IKEv2 the lower layer
 * is reliable and `retransmit` is left out.
 *
 * States: idle - not started; identity - asked who the peer is; method - a method runs; judging - a
 * proof is with the authenticator or a method computes; done - Success or Failure was sent.
 */
import type { Authorization, CallContext, RejectReason } from '../aaa/authenticator.ts'
import { utf8Text } from '../core/bytes.ts'
import { assertNever } from '../core/errors.ts'
import { Outbox, type Output, type Timeout } from '../core/machine.ts'
import type { Secret } from '../core/secret.ts'
import { TimerTable } from '../core/timers.ts'
import type { EapConversation, EapConversationEvent, EapConversationInput } from './conversation.ts'
import type { EapServerMethod, EapServerMethodMaker, EapServerStep } from './method.ts'
import { checkEapPacket, type EapPacket, EapType, eapPacketOf, parseEapPacket } from './packet.ts'

// Implementation constants.

/** Longest identity that we hold, bytes; RFC 7542 §2.2 allows 253. */
const IDENTITY_MAX_BYTES = 253
/** Rounds until a conversation is given up: EAP-TLS with long chains needs about 40. */
const ROUNDS_MAX = 64
/** RFC 3748 §3.1: what every lower layer carries. */
const PACKET_BYTES = 1020

export interface EapAuthenticatorOptions {
  readonly call: CallContext
  /** Makers of methods in order of preference; the first is proposed first. */
  readonly methods: readonly EapServerMethodMaker[]
  /** Longest EAP packet that the lower layer carries, bytes; absent: 1020 (RFC 3748 §3.1). */
  readonly packetBytes?: number
  /** Identifier of the first Request. */
  readonly firstIdentifier: number
  /** Repeat an unanswered Request after this time, at most so often; absent over reliable carriers. */
  readonly retransmit?: { readonly afterMs: number; readonly tries: number }
}

type State = 'idle' | 'identity' | 'method' | 'judging' | 'done'

export class EapAuthenticator implements EapConversation {
  readonly #options: EapAuthenticatorOptions
  readonly #outbox = new Outbox<EapConversationEvent>()
  readonly #timers = new TimerTable<'retransmit'>()
  #state: State = 'idle'
  #identifier: number
  #identity = ''
  #method: EapServerMethod | undefined
  /** Whether the method has seen a Response: from then on a Nak is not legal (RFC 3748 §5.3.1). */
  #hasProgressed = false
  #lastRequest: Uint8Array | undefined
  #repeats = 0
  #rounds = 0
  #ticket = 0
  /** What a method has computed elsewhere, until the driver says `wake`. */
  #arrived: EapServerStep | undefined

  constructor(options: EapAuthenticatorOptions) {
    this.#options = options
    this.#identifier = options.firstIdentifier & 0xff
  }

  get state(): State {
    return this.#state
  }

  /** Of the Request that is out. */
  get identifier(): number {
    return this.#identifier
  }

  handle(input: EapConversationInput | Timeout, nowMs: number): void {
    switch (input.type) {
      case 'start':
        if (this.#state !== 'idle') {
          this.#unexpected('eap-start-twice')
          return
        }
        this.#state = 'identity'
        this.#request(EapType.Identity, new Uint8Array(0), nowMs)
        return
      case 'packet':
        this.#packet(input.bytes, nowMs)
        return
      case 'verdict':
        if (this.#state !== 'judging' || input.ticket !== this.#ticket || !this.#method) {
          this.#unexpected('eap-late-verdict')
          return
        }
        this.#step(this.#method.verdict(input.verdict, this.#nextIdentifier()), nowMs)
        return
      case 'wake':
        this.#wake(input.ticket, nowMs)
        return
      case 'timeout':
        this.#timeout(nowMs)
        return
      default:
        assertNever(input)
    }
  }

  poll(): Output<EapConversationEvent> | undefined {
    return this.#outbox.poll()
  }

  nextDeadlineMs(): number {
    return this.#timers.nextDeadlineMs()
  }

  /** Forgets everything; a late verdict finds nobody. */
  destroy(): void {
    this.#state = 'done'
    this.#ticket++
    this.#timers.clearAll()
    this.#method?.destroy()
    this.#method = undefined
    this.#lastRequest = undefined
    this.#forget()
  }

  #wake(ticket: number, nowMs: number): void {
    const step = this.#arrived
    if (step === undefined || ticket !== this.#ticket) {
      this.#unexpected('eap-late-wake')
      return
    }
    this.#arrived = undefined
    this.#step(step, nowMs)
  }

  /** A step that nobody takes any more may hold a key. */
  #forget(): void {
    if (this.#arrived?.type === 'success') this.#arrived.msk?.destroy()
    this.#arrived = undefined
  }

  #wait(next: Promise<EapServerStep>): void {
    this.#state = 'judging'
    const ticket = ++this.#ticket
    const settled = next.then(
      step => {
        this.#arrived = step
        if (this.#ticket !== ticket) this.#forget()
      },
      () => {
        if (this.#ticket === ticket) {
          this.#arrived = { type: 'failure', reason: 'backend-unavailable' }
        }
      },
    )
    this.#outbox.event({ type: 'pending', ticket, settled })
  }

  #nextIdentifier(): number {
    return (this.#identifier + 1) & 0xff
  }

  #unexpected(what: string): void {
    this.#outbox.event({ type: 'unexpected', what })
  }

  #packet(bytes: Uint8Array, nowMs: number): void {
    if (checkEapPacket(bytes)) {
      this.#unexpected('eap-malformed')
      return
    }
    const packet = parseEapPacket(bytes)
    if (packet.code !== 'response') {
      this.#unexpected(`eap-${packet.code}-from-peer`)
      return
    }
    if (packet.identifier !== this.#identifier) {
      this.#unexpected('eap-identifier')
      return
    }
    switch (this.#state) {
      case 'identity':
        this.#identityResponse(packet, nowMs)
        return
      case 'method':
        this.#methodResponse(packet, nowMs)
        return
      case 'idle':
      case 'judging':
      case 'done':
        this.#unexpected(`eap-response-while-${this.#state}`)
        return
      default:
        assertNever(this.#state)
    }
  }

  #identityResponse(packet: Extract<EapPacket, { eapType: number }>, nowMs: number): void {
    if (packet.eapType !== EapType.Identity) {
      this.#unexpected('eap-not-identity')
      return
    }
    if (packet.typeData.length > IDENTITY_MAX_BYTES) {
      this.#fail('bad-credentials')
      return
    }
    this.#identity = utf8Text(packet.typeData)
    const make = this.#options.methods[0]
    if (make === undefined) {
      this.#fail('method-not-allowed')
      return
    }
    this.#begin(this.#made(make), nowMs)
  }

  #made(make: EapServerMethodMaker): EapServerMethod {
    return make(this.#options.packetBytes ?? PACKET_BYTES)
  }

  #begin(method: EapServerMethod, nowMs: number): void {
    this.#method?.destroy()
    this.#method = method
    this.#hasProgressed = false
    this.#state = 'method'
    this.#step(method.start(this.#identity, this.#nextIdentifier()), nowMs)
  }

  #methodResponse(packet: Extract<EapPacket, { eapType: number }>, nowMs: number): void {
    const method = this.#method
    if (method === undefined) return
    if (packet.eapType === EapType.Nak) {
      if (this.#hasProgressed) {
        this.#unexpected('eap-late-nak')
        return
      }
      this.#nak(packet.typeData, method.eapType, nowMs)
      return
    }
    if (packet.eapType !== method.eapType) {
      this.#unexpected('eap-other-type')
      return
    }
    const step = method.response(packet.typeData, this.#nextIdentifier())
    if (step.type !== 'ignore') this.#hasProgressed = true
    this.#step(step, nowMs)
  }

  /** RFC 3748 §5.3.1: the peer names what it would like; the first that we have is taken. */
  #nak(wishes: Uint8Array, refused: number, nowMs: number): void {
    for (const wish of wishes) {
      if (wish === refused) continue
      for (const make of this.#options.methods) {
        const method = this.#made(make)
        if (method.eapType === wish) {
          this.#begin(method, nowMs)
          return
        }
        method.destroy()
      }
    }
    this.#fail('method-not-allowed')
  }

  #step(step: EapServerStep, nowMs: number): void {
    if (step.type !== 'ignore') this.#timers.clear('retransmit')
    switch (step.type) {
      case 'request': {
        const eapType = this.#method?.eapType
        if (eapType === undefined) return
        this.#state = 'method'
        this.#identifier = this.#nextIdentifier()
        this.#request(eapType, step.typeData, nowMs)
        return
      }
      case 'authenticate':
        this.#state = 'judging'
        this.#outbox.event({
          type: 'authenticate',
          ticket: ++this.#ticket,
          request: { userName: step.userName, proof: step.proof, call: this.#options.call },
        })
        return
      case 'authorize':
        this.#state = 'judging'
        this.#outbox.event({
          type: 'authorize',
          ticket: ++this.#ticket,
          authorization: step.authorization,
        })
        return
      case 'pending':
        this.#wait(step.next)
        return
      case 'ignore':
        this.#unexpected(step.unexpected)
        return
      case 'success':
        this.#succeed(step.authorization, step.msk)
        return
      case 'failure':
        this.#fail(step.reason)
        return
      default:
        assertNever(step)
    }
  }

  #request(eapType: number, typeData: Uint8Array, nowMs: number): void {
    if (++this.#rounds > ROUNDS_MAX) {
      this.#fail('bad-credentials')
      return
    }
    this.#lastRequest = eapPacketOf({
      code: 'request',
      identifier: this.#identifier,
      eapType,
      typeData,
    })
    this.#repeats = 0
    this.#outbox.transmit(this.#lastRequest.slice())
    if (this.#options.retransmit) {
      this.#timers.set('retransmit', nowMs + this.#options.retransmit.afterMs)
    }
  }

  #timeout(nowMs: number): void {
    const { retransmit } = this.#options
    if (this.#timers.takeExpired(nowMs) === undefined || !retransmit || !this.#lastRequest) return
    if (++this.#repeats > retransmit.tries) {
      this.#outbox.event({ type: 'failure', identity: this.#identity, reason: 'bad-credentials' })
      this.destroy()
      return
    }
    this.#outbox.transmit(this.#lastRequest.slice())
    this.#timers.set('retransmit', nowMs + retransmit.afterMs)
  }

  #succeed(authorization: Authorization, msk: Secret | undefined): void {
    const eapType = this.#method?.eapType ?? 0
    // RFC 3748 §4.2: the identifier of the Response that it answers.
    this.#outbox.transmit(eapPacketOf({ code: 'success', identifier: this.#identifier }))
    this.#outbox.event({ type: 'success', identity: this.#identity, eapType, authorization, msk })
    this.destroy()
  }

  #fail(reason: RejectReason): void {
    this.#outbox.transmit(eapPacketOf({ code: 'failure', identifier: this.#identifier }))
    this.#outbox.event({ type: 'failure', identity: this.#identity, reason })
    this.destroy()
  }
}
