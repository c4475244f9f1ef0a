/**
 * An EAP conversation that a RADIUS server holds (RFC 3579 §2): we ask for the identity and then pass
 * whole packets, theirs to the server and its to the peer. The server is asked elsewhere; while it is,
 * the conversation is `pending`.
 *
 * States: idle - not started; identity - asked who the peer is; challenged - a Request of the server is
 * with the peer; asking - a Response is with the server; authorizing - the server is content, and we
 * ask whether the peer may come in; done - Success or Failure was sent.
 */
import type { Authorization, RejectReason, Verdict } from '../aaa/authenticator.ts'
import type { EapRelay, EapRelayAnswer } from '../aaa/eap-relay.ts'
import { copyBytes, utf8Text } from '../core/bytes.ts'
import { assertNever } from '../core/errors.ts'
import { Outbox, type Output, type Timeout } from '../core/machine.ts'
import type { Secret } from '../core/secret.ts'
import { TimerTable } from '../core/timers.ts'
import type {
  EapConversation,
  EapConversationEvent,
  EapConversationInput,
  EapConversationMaker,
  EapLowerLayer,
} from './conversation.ts'
import { checkEapPacket, EapType, eapPacketOf, parseEapPacket } from './packet.ts'

/** RFC 7542 §2.2; RADIUS carries no longer User-Name. */
const longestIdentityBytes = 253
/** Until a conversation is given up; EAP-TLS with long chains needs about 40. */
const mostRounds = 64

type State = 'idle' | 'identity' | 'challenged' | 'asking' | 'authorizing' | 'done'

/** Begins conversations that `relay` holds. */
export function relayedConversations(relay: EapRelay): EapConversationMaker {
  return lowerLayer => new RelayedConversation(relay, lowerLayer)
}

export class RelayedConversation implements EapConversation {
  readonly #relay: EapRelay
  readonly #lowerLayer: EapLowerLayer
  readonly #outbox = new Outbox<EapConversationEvent>()
  readonly #timers = new TimerTable<'retransmit'>()
  #state: State = 'idle'
  #identifier: number
  #identity = ''
  /** Of the method that the server runs. */
  #eapType = 0
  #lastRequest: Uint8Array | undefined
  #repeats = 0
  #rounds = 0
  #ticket = 0
  /** RFC 2865 §5.24: goes back to the server unread. */
  #serverState: Uint8Array | undefined
  #answer: EapRelayAnswer | undefined
  #accepted: { authorization: Authorization; msk: Secret | undefined } | undefined

  constructor(relay: EapRelay, lowerLayer: EapLowerLayer) {
    this.#relay = relay
    this.#lowerLayer = lowerLayer
    this.#identifier = lowerLayer.firstIdentifier & 0xff
  }

  handle(input: EapConversationInput | Timeout, nowMs: number): void {
    switch (input.type) {
      case 'start':
        if (this.#state !== 'idle') {
          this.#unexpected('eap-start-twice')
          return
        }
        this.#state = 'identity'
        this.#request(
          eapPacketOf({
            code: 'request',
            identifier: this.#identifier,
            eapType: EapType.Identity,
            typeData: new Uint8Array(0),
          }),
          nowMs,
        )
        return
      case 'packet':
        this.#packet(input.bytes)
        return
      case 'verdict':
        this.#verdict(input.ticket, input.verdict)
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

  destroy(): void {
    this.#state = 'done'
    this.#ticket++
    this.#timers.clearAll()
    this.#accepted?.msk?.destroy()
    this.#accepted = undefined
    if (this.#answer?.type === 'accept') this.#answer.msk?.destroy()
    this.#answer = undefined
    this.#lastRequest = undefined
  }

  #unexpected(what: string): void {
    this.#outbox.event({ type: 'unexpected', what })
  }

  #packet(bytes: Uint8Array): void {
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
    if (this.#state !== 'identity' && this.#state !== 'challenged') {
      this.#unexpected(`eap-response-while-${this.#state}`)
      return
    }
    if (this.#state === 'identity') {
      if (packet.eapType !== EapType.Identity) {
        this.#unexpected('eap-not-identity')
        return
      }
      if (packet.typeData.length > longestIdentityBytes) {
        this.#fail('bad-credentials', undefined)
        return
      }
      this.#identity = utf8Text(packet.typeData)
    }
    this.#ask(copyBytes(bytes, 0, (bytes[2] ?? 0) * 256 + (bytes[3] ?? 0)))
  }

  #ask(packet: Uint8Array): void {
    this.#state = 'asking'
    this.#timers.clear('retransmit')
    const ticket = ++this.#ticket
    const state = this.#serverState
    const settled = this.#relay
      .relayEap({
        identity: this.#identity,
        packet,
        call: this.#lowerLayer.call,
        ...(state !== undefined && { state }),
      })
      .then(answer => {
        if (ticket === this.#ticket && this.#state === 'asking') this.#answer = answer
        else if (answer.type === 'accept') answer.msk?.destroy()
      })
    this.#outbox.event({ type: 'pending', ticket, settled })
  }

  #wake(ticket: number, nowMs: number): void {
    const answer = this.#answer
    if (this.#state !== 'asking' || ticket !== this.#ticket || answer === undefined) {
      this.#unexpected('eap-late-wake')
      return
    }
    this.#answer = undefined
    switch (answer.type) {
      case 'challenge':
        this.#challenge(answer.packet, answer.state, nowMs)
        return
      case 'accept':
        this.#accepted = { authorization: answer.authorization, msk: answer.msk }
        this.#state = 'authorizing'
        this.#outbox.event({
          type: 'authorize',
          ticket: ++this.#ticket,
          authorization: answer.authorization,
        })
        return
      case 'reject':
        this.#fail(answer.reason, answer.packet)
        return
      default:
        assertNever(answer)
    }
  }

  /** What the server sends must be a Request, and fit; the peer gets it as it is. */
  #challenge(packet: Uint8Array, state: Uint8Array | undefined, nowMs: number): void {
    const isSound = !checkEapPacket(packet) && packet.length <= this.#lowerLayer.packetBytes
    const parsed = isSound ? parseEapPacket(packet) : undefined
    if (parsed?.code !== 'request' || ++this.#rounds > mostRounds) {
      this.#unexpected('eap-server-request')
      this.#fail('backend-unavailable', undefined)
      return
    }
    this.#serverState = state
    this.#identifier = parsed.identifier
    if (parsed.eapType !== EapType.Notification) this.#eapType = parsed.eapType
    this.#state = 'challenged'
    this.#request(copyBytes(packet), nowMs)
  }

  #verdict(ticket: number, verdict: Verdict): void {
    const accepted = this.#accepted
    if (this.#state !== 'authorizing' || ticket !== this.#ticket || accepted === undefined) {
      this.#unexpected('eap-late-verdict')
      return
    }
    if (verdict.type === 'reject') {
      this.#fail(verdict.reason, undefined)
      return
    }
    this.#accepted = undefined
    // RFC 3579 §2.6.3: Success is ours to say, whatever packet came with the Accept.
    this.#outbox.transmit(eapPacketOf({ code: 'success', identifier: this.#identifier }))
    this.#outbox.event({
      type: 'success',
      identity: this.#identity,
      eapType: this.#eapType,
      authorization: verdict.authorization,
      msk: accepted.msk,
    })
    this.destroy()
  }

  #request(packet: Uint8Array, nowMs: number): void {
    const { retransmit } = this.#lowerLayer
    this.#lastRequest = packet
    this.#repeats = 0
    this.#outbox.transmit(copyBytes(packet))
    if (retransmit !== undefined) this.#timers.set('retransmit', nowMs + retransmit.afterMs)
  }

  #timeout(nowMs: number): void {
    const { retransmit } = this.#lowerLayer
    if (this.#timers.takeExpired(nowMs) === undefined || !retransmit || !this.#lastRequest) return
    if (++this.#repeats > retransmit.tries) {
      this.#outbox.event({ type: 'failure', identity: this.#identity, reason: 'bad-credentials' })
      this.destroy()
      return
    }
    this.#outbox.transmit(copyBytes(this.#lastRequest))
    this.#timers.set('retransmit', nowMs + retransmit.afterMs)
  }

  /** The server's own Failure goes to the peer when it is one. */
  #fail(reason: RejectReason, packet: Uint8Array | undefined): void {
    const isFailure = packet !== undefined && !checkEapPacket(packet) && packet[0] === 4
    this.#outbox.transmit(
      isFailure
        ? copyBytes(packet)
        : eapPacketOf({ code: 'failure', identifier: this.#identifier }),
    )
    this.#outbox.event({ type: 'failure', identity: this.#identity, reason })
    this.destroy()
  }
}
