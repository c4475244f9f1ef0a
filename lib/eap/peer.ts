/**
 * The peer's side of an EAP conversation, RFC 3748 §4 and RFC 4137 §4: answers Identity and
 * Notification, takes the first method that it has, Naks the others. Lock-step and without timers; a
 * repeated Request gets the same Response.
 */
import { copyBytes, equalBytes, utf8 } from '../core/bytes.ts'
import { assertNever } from '../core/errors.ts'
import { type Machine, Outbox, type Output, type Timeout } from '../core/machine.ts'
import type { Secret } from '../core/secret.ts'
import type { EapPeerMethod } from './method.ts'
import { checkEapPacket, type EapPacket, EapType, eapPacketOf, parseEapPacket } from './packet.ts'

export interface EapPeerOptions {
  /** Name in the Identity Response; the outer identity of tunnel methods. */
  readonly identity: string
  /** Makers of the methods that we are willing to run, best first. */
  readonly methods: readonly (() => EapPeerMethod)[]
  /** Refuse a Success of a method that made no keys: IKEv2 with EAP-only, SSTP. */
  readonly requiresMsk: boolean
}

export type EapPeerInput =
  | { readonly type: 'packet'; readonly bytes: Uint8Array }
  /** The authenticator has gone on: its Success was lost (RFC 3748 §4.2). */
  | { readonly type: 'success-implied' }

export type EapPeerEvent =
  /** The receiver owns `msk`. */
  | { readonly type: 'success'; readonly msk: Secret | undefined }
  | { readonly type: 'failure'; readonly detail: string }
  | { readonly type: 'unexpected'; readonly what: string }

export class EapPeer implements Machine<EapPeerInput, EapPeerEvent> {
  readonly #options: EapPeerOptions
  readonly #outbox = new Outbox<EapPeerEvent>()
  #method: EapPeerMethod | undefined
  #lastRequest: Uint8Array | undefined
  #lastResponse: Uint8Array | undefined
  #isDone = false

  constructor(options: EapPeerOptions) {
    this.#options = options
  }

  handle(input: EapPeerInput | Timeout): void {
    if (input.type === 'timeout') return
    if (this.#isDone) {
      this.#unexpected('eap-packet-after-end')
      return
    }
    if (input.type === 'success-implied') {
      if (this.#method?.isComplete === true) this.#success()
      return
    }
    if (checkEapPacket(input.bytes)) {
      this.#unexpected('eap-malformed')
      return
    }
    const packet = parseEapPacket(input.bytes)
    switch (packet.code) {
      case 'request':
        if (this.#lastRequest && equalBytes(this.#lastRequest, input.bytes) && this.#lastResponse) {
          this.#outbox.transmit(this.#lastResponse.slice())
          return
        }
        this.#lastRequest = copyBytes(input.bytes)
        this.#request(packet)
        return
      case 'response':
        this.#unexpected('eap-response-from-authenticator')
        return
      case 'success':
        this.#success()
        return
      case 'failure':
        this.#end({ type: 'failure', detail: 'the authenticator sent EAP-Failure' })
        return
      default:
        assertNever(packet)
    }
  }

  poll(): Output<EapPeerEvent> | undefined {
    return this.#outbox.poll()
  }

  nextDeadlineMs(): number {
    return Number.POSITIVE_INFINITY
  }

  destroy(): void {
    this.#isDone = true
    this.#method?.destroy()
    this.#method = undefined
  }

  #unexpected(what: string): void {
    this.#outbox.event({ type: 'unexpected', what })
  }

  #respond(identifier: number, eapType: number, typeData: Uint8Array): void {
    const packet = eapPacketOf({ code: 'response', identifier, eapType, typeData })
    this.#lastResponse = packet
    this.#outbox.transmit(packet.slice())
  }

  #request(packet: Extract<EapPacket, { eapType: number }>): void {
    const { identifier, eapType, typeData } = packet
    if (eapType === EapType.Identity) {
      this.#respond(identifier, eapType, utf8(this.#options.identity))
      return
    }
    if (eapType === EapType.Notification) {
      this.#respond(identifier, eapType, new Uint8Array(0))
      return
    }
    if (eapType === EapType.Nak) {
      this.#unexpected('eap-nak-from-authenticator')
      return
    }
    if (this.#method?.eapType !== eapType) {
      // A method that has been chosen stays (RFC 3748 §2.1).
      const chosen = this.#method === undefined ? this.#choose(eapType) : undefined
      if (chosen === undefined) {
        this.#respond(identifier, EapType.Nak, this.#wishes())
        return
      }
      this.#method = chosen
    }
    const step = this.#method.request(typeData, identifier)
    if (step.type === 'ignore') {
      this.#unexpected(step.unexpected)
      return
    }
    this.#respond(identifier, eapType, step.typeData)
  }

  #choose(eapType: number): EapPeerMethod | undefined {
    for (const make of this.#options.methods) {
      const method = make()
      if (method.eapType === eapType) return method
      method.destroy()
    }
    return undefined
  }

  /** RFC 3748 §5.3.1: the types that we would accept, or 0. */
  #wishes(): Uint8Array {
    const wishes = this.#options.methods.map(make => {
      const method = make()
      method.destroy()
      return method.eapType
    })
    return wishes.length === 0 ? Uint8Array.of(0) : Uint8Array.from(wishes)
  }

  #success(): void {
    // A Success before the method is through is an attack, not luck (CVE-2021-45079).
    if (this.#method?.isComplete !== true) {
      this.#end({ type: 'failure', detail: 'EAP-Success before the method was through' })
      return
    }
    const msk = this.#method.takeMsk()
    if (msk === undefined && this.#options.requiresMsk) {
      this.#end({ type: 'failure', detail: 'EAP-Success of a method that makes no keys' })
      return
    }
    this.#end({ type: 'success', msk })
  }

  #end(event: EapPeerEvent): void {
    this.#outbox.event(event)
    this.destroy()
  }
}
