/**
 * What EAP-TLS, PEAP and EAP-TTLS share as servers: records are carried in pieces, TLS runs beside the
 * machine, and what is said inside is for the method itself (`TunnelInside`).
 *
 * States: idle - not started; exchange - the peer speaks next; working - TLS computes or somebody is
 * asked; ending - the last records are out, their acknowledgement ends the method; done.
 */
import type { Authorization, Proof, RejectReason, Verdict } from '../aaa/authenticator.ts'
import { concatBytes } from '../core/bytes.ts'
import { assertNever } from '../core/errors.ts'
import { Secret, wipe } from '../core/secret.ts'
import type { TlsEngine, TlsFlight, TlsTerminal } from '../crypto/tls-engine.ts'
import type { EapServerMethod, EapServerStep } from './method.ts'
import { TlsCarriage } from './tls-carriage.ts'

/** What the inside wants next. */
export type TunnelAct =
  /** Say this to the peer. */
  | { readonly type: 'say'; readonly plain: Uint8Array }
  /** It is the peer's turn. */
  | { readonly type: 'listen' }
  | { readonly type: 'authenticate'; readonly userName: string; readonly proof: Proof }
  | { readonly type: 'authorize'; readonly authorization: Authorization }
  | { readonly type: 'pending'; readonly next: Promise<TunnelAct> }
  /** Say this, if anything, and succeed when the peer has acknowledged it. */
  | {
      readonly type: 'accept'
      readonly authorization: Authorization
      readonly msk: Secret
      readonly plain?: Uint8Array
    }
  | { readonly type: 'refuse'; readonly reason: RejectReason }

/** The part of a method that is inside the tunnel. */
export interface TunnelInside {
  /** The handshake is over. `isPeerNext`: the peer has still to hear the end of it. */
  established(tls: TlsEngine, isPeerNext: boolean): TunnelAct
  /** Something from the peer, at least a byte; or its acknowledgement, without any. */
  heard(plain: Uint8Array, tls: TlsEngine): TunnelAct
  verdict(verdict: Verdict, tls: TlsEngine): TunnelAct
  destroy(): void
}

export interface TunnelParts {
  readonly eapType: number
  readonly terminal: TlsTerminal
  readonly packetBytes: number
  /** A new inside; `identity` is what the peer said in clear. */
  readonly inside: (identity: string) => TunnelInside
}

type State = 'idle' | 'exchange' | 'working' | 'ending' | 'done'

const nothing = new Uint8Array(0)

export class TunnelServerMethod implements EapServerMethod {
  readonly #parts: TunnelParts
  readonly #carriage: TlsCarriage
  #state: State = 'idle'
  #tls: TlsEngine | undefined
  #inside: TunnelInside | undefined
  #isEstablished = false
  /** Records that go with what is said next. */
  #records: Uint8Array = nothing
  #end: EapServerStep | undefined

  constructor(parts: TunnelParts) {
    this.#parts = parts
    this.#carriage = new TlsCarriage(parts.packetBytes)
  }

  get eapType(): number {
    return this.#parts.eapType
  }

  start(identity: string): EapServerStep {
    this.#tls = this.#parts.terminal.open()
    if (this.#tls === undefined) return this.#refuse('backend-unavailable')
    this.#inside = this.#parts.inside(identity)
    this.#state = 'exchange'
    return { type: 'request', typeData: this.#carriage.start() }
  }

  response(typeData: Uint8Array): EapServerStep {
    const tls = this.#tls
    if ((this.#state !== 'exchange' && this.#state !== 'ending') || tls === undefined) {
      return { type: 'ignore', unexpected: `eap-tunnel-response-while-${this.#state}` }
    }
    const carried = this.#carriage.receive(typeData)
    switch (carried.type) {
      case 'reply':
        return { type: 'request', typeData: carried.typeData }
      case 'fault':
        // A peer that cannot frame its records will not do better the next time.
        return this.#refuse('bad-credentials')
      case 'message': {
        const isEnding = this.#state === 'ending'
        if (isEnding && carried.bytes.length === 0) return this.#finish()
        this.#state = 'working'
        return { type: 'pending', next: this.#advance(tls, carried.bytes, isEnding) }
      }
      default:
        return assertNever(carried)
    }
  }

  verdict(verdict: Verdict): EapServerStep {
    const tls = this.#tls
    const inside = this.#inside
    if (this.#state !== 'working' || tls === undefined || inside === undefined) {
      return { type: 'ignore', unexpected: 'eap-tunnel-late-verdict' }
    }
    return { type: 'pending', next: this.#perform(tls, inside.verdict(verdict, tls)) }
  }

  destroy(): void {
    this.#state = 'done'
    this.#tls?.destroy()
    this.#tls = undefined
    this.#inside?.destroy()
    this.#inside = undefined
    if (this.#end?.type === 'success') this.#end.msk?.destroy()
    this.#end = undefined
  }

  async #advance(tls: TlsEngine, records: Uint8Array, isEnding: boolean): Promise<EapServerStep> {
    const flight = await tls.receive(records)
    const inside = this.#inside
    if (inside === undefined) return this.#refuse('bad-credentials')
    if (flight.fault !== undefined) return this.#broken(flight)
    if (isEnding) return this.#finish()
    this.#records = concatBytes(this.#records, flight.records)
    if (!flight.isOpen) {
      return this.#records.length > 0 ? this.#reply() : this.#refuse('bad-credentials')
    }
    let act: TunnelAct
    if (!this.#isEstablished) {
      this.#isEstablished = true
      act = inside.established(tls, this.#records.length > 0)
      if (flight.plain.length > 0 && act.type === 'listen') act = inside.heard(flight.plain, tls)
    } else act = inside.heard(flight.plain, tls)
    wipe(flight.plain)
    return this.#perform(tls, act)
  }

  async #perform(tls: TlsEngine, act: TunnelAct): Promise<EapServerStep> {
    switch (act.type) {
      case 'say':
        return this.#say(tls, act.plain)
      case 'listen':
        return this.#reply()
      case 'authenticate':
        return { type: 'authenticate', userName: act.userName, proof: act.proof }
      case 'authorize':
        return { type: 'authorize', authorization: act.authorization }
      case 'pending':
        return this.#perform(tls, await act.next)
      case 'accept': {
        const { authorization, msk, plain } = act
        if (this.#state === 'done') msk.destroy()
        else this.#end = { type: 'success', authorization, msk }
        if (plain === undefined && this.#records.length === 0) return this.#finish()
        const step = await this.#say(tls, plain ?? nothing)
        if (step.type === 'request') this.#state = 'ending'
        return step
      }
      case 'refuse':
        return this.#refuse(act.reason)
      default:
        return assertNever(act)
    }
  }

  async #say(tls: TlsEngine, plain: Uint8Array): Promise<EapServerStep> {
    if (plain.length > 0) {
      const flight = await tls.send(plain)
      wipe(plain)
      if (flight.fault !== undefined) return this.#refuse('bad-credentials')
      this.#records = concatBytes(this.#records, flight.records)
    }
    return this.#reply()
  }

  #reply(): EapServerStep {
    const records = this.#records
    this.#records = nothing
    if (this.#state === 'done') return this.#refuse('bad-credentials')
    this.#state = 'exchange'
    return { type: 'request', typeData: this.#carriage.send(records) }
  }

  /** RFC 5216 §2.1.3: the peer is told by an alert, which it acknowledges, and then by Failure. */
  #broken(flight: TlsFlight): EapServerStep {
    if (flight.records.length === 0 || this.#state === 'done')
      return this.#refuse('bad-credentials')
    this.#state = 'ending'
    this.#end = { type: 'failure', reason: 'bad-credentials' }
    return { type: 'request', typeData: this.#carriage.send(flight.records) }
  }

  #finish(): EapServerStep {
    const end = this.#end ?? ({ type: 'failure', reason: 'bad-credentials' } as const)
    this.#end = undefined
    this.destroy()
    return end
  }

  #refuse(reason: RejectReason): EapServerStep {
    this.destroy()
    return { type: 'failure', reason }
  }
}

/** RFC 5216 §2.3 and RFC 9190 §2.3, RFC 9427 §2.1: 128 bytes; `label` is that of TLS 1.2. */
export function keyMaterial(tls: TlsEngine, eapType: number, label: string): Uint8Array {
  return tls.isTls13
    ? tls.exportKey(128, 'EXPORTER_EAP_TLS_Key_Material', Uint8Array.of(eapType))
    : tls.exportKey(128, label)
}

/** MSK of methods that take it from TLS alone: the first 64 bytes. Wipes the rest. */
export function mskOf(material: Uint8Array): Secret {
  const msk = new Secret(material.subarray(0, 64))
  wipe(material)
  return msk
}
