/**
 * EAP over PPP (RFC 3748 §4.3, RFC 2284 §2.1), the side that asks. What is said is the conversation's
 * business, our own or one that is relayed; an EAP packet has the shape of a control packet.
 */
import type { Authorization, Verdict } from '../../aaa/authenticator.ts'
import { wipe } from '../../core/secret.ts'
import type { EapConversation, EapConversationEvent } from '../../eap/conversation.ts'
import { serverKeysOfMsk } from '../../eap/conversation.ts'
import {
  type ControlPacket,
  encodeControlPacket,
  parseControlPacket,
} from '../wire/control-packet.ts'
import {
  maxTransmissions,
  retransmitMs,
  type ServerExchange,
  type ServerExchangePorts,
} from './exchange.ts'

/** RFC 3748 §4.3: the authenticator repeats what is not answered. */
export const eapRetransmit = { afterMs: retransmitMs, tries: maxTransmissions - 1 } as const

export interface EapServerPorts extends ServerExchangePorts {
  /** Judged elsewhere; answered by `verdict`. */
  authorize(authorization: Authorization): void
  /** Answered by `wake`. */
  pending(ticket: number, settled: Promise<void>): void
}

export class EapServer implements ServerExchange {
  readonly #conversation: EapConversation
  readonly #ports: EapServerPorts
  #ticket = 0
  #isDone = false
  /** The last Request got no answer, however often it was repeated. */
  #isTimeout = false

  constructor(conversation: EapConversation, ports: EapServerPorts) {
    this.#conversation = conversation
    this.#ports = ports
  }

  start(nowMs: number): void {
    this.#conversation.handle({ type: 'start' }, nowMs)
    this.#drain(nowMs)
  }

  receive(packet: ControlPacket, nowMs: number): void {
    if (this.#isDone) {
      this.#ports.unexpected('eap-after-end')
      return
    }
    this.#conversation.handle({ type: 'packet', bytes: encodeControlPacket(packet) }, nowMs)
    wipe(packet.data)
    this.#drain(nowMs)
  }

  verdict(verdict: Verdict, nowMs: number): void {
    this.#conversation.handle({ type: 'verdict', ticket: this.#ticket, verdict }, nowMs)
    this.#drain(nowMs)
  }

  wake(ticket: number, nowMs: number): void {
    this.#conversation.handle({ type: 'wake', ticket }, nowMs)
    this.#drain(nowMs)
  }

  timer(nowMs: number): void {
    if (this.#isDone) return
    this.#isTimeout = true
    this.#conversation.handle({ type: 'timeout' }, nowMs)
    this.#drain(nowMs)
    this.#isTimeout = false
  }

  destroy(): void {
    this.#isDone = true
    this.#conversation.destroy()
  }

  #drain(nowMs: number): void {
    for (;;) {
      const out = this.#conversation.poll()
      if (out === undefined) break
      if (out.type === 'transmit') this.#ports.send(parseControlPacket(out.bytes, 0))
      else this.#event(out.event, nowMs)
    }
    if (this.#isDone) return
    const deadlineMs = this.#conversation.nextDeadlineMs()
    if (Number.isFinite(deadlineMs)) this.#ports.setTimer(deadlineMs)
    else this.#ports.clearTimer()
  }

  #event(event: EapConversationEvent, nowMs: number): void {
    switch (event.type) {
      case 'authenticate':
        this.#ticket = event.ticket
        this.#ports.judge(event.request.userName, event.request.proof)
        return
      case 'authorize':
        this.#ticket = event.ticket
        this.#ports.authorize(event.authorization)
        return
      case 'pending':
        this.#ports.pending(event.ticket, event.settled)
        return
      case 'success': {
        this.#isDone = true
        this.#ports.clearTimer()
        const { authorization, eapType, msk } = event
        const keys = msk === undefined ? undefined : serverKeysOfMsk(eapType, msk)
        msk?.destroy()
        this.#ports.accepted(
          event.identity,
          { type: 'accept', authorization, ...(keys !== undefined && { keys }) },
          nowMs,
        )
        return
      }
      case 'failure':
        this.#isDone = true
        this.#ports.clearTimer()
        if (this.#isTimeout) this.#ports.silent(nowMs)
        else this.#ports.refused(event.reason, false, nowMs)
        return
      case 'unexpected':
        this.#ports.unexpected(event.what)
        return
    }
  }
}
