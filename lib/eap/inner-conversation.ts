/** An EAP conversation inside the tunnel of another: its steps as acts of the tunnel. */
import type { Authorization, RejectReason, Verdict } from '../aaa/authenticator.ts'
import { assertNever } from '../core/errors.ts'
import type { Secret } from '../core/secret.ts'
import { EapAuthenticator } from './authenticator.ts'
import type { EapConversationEvent } from './conversation.ts'
import type { EapServerMethodMaker } from './method.ts'
import type { TunnelAct } from './tunnel-method.ts'

/** The inner call is never looked at: what is asked goes out with the outer one. */
const innerCall = { protocol: 'eap', peerAddress: '', sessionId: '' }

/** Inner packets that the tunnel has to cut are legal, but no client likes them. */
const innerPacketBytes = 1000

export interface InnerEnds {
  /** An inner packet, whole, on its way to the peer. */
  packet(bytes: Uint8Array): TunnelAct
  succeeded(authorization: Authorization, msk: Secret | undefined): TunnelAct
  failed(reason: RejectReason): TunnelAct
}

export class InnerConversation {
  readonly #eap: EapAuthenticator
  readonly #ends: InnerEnds
  #ticket = 0

  constructor(methods: readonly EapServerMethodMaker[], firstIdentifier: number, ends: InnerEnds) {
    this.#eap = new EapAuthenticator({
      call: innerCall,
      methods,
      firstIdentifier,
      packetBytes: innerPacketBytes,
    })
    this.#ends = ends
  }

  /** Of the Request that is out. */
  get identifier(): number {
    return this.#eap.identifier
  }

  start(): TunnelAct {
    this.#eap.handle({ type: 'start' }, 0)
    return this.#drain()
  }

  heard(packet: Uint8Array): TunnelAct {
    this.#eap.handle({ type: 'packet', bytes: packet }, 0)
    return this.#drain()
  }

  verdict(verdict: Verdict): TunnelAct {
    this.#eap.handle({ type: 'verdict', ticket: this.#ticket, verdict }, 0)
    return this.#drain()
  }

  destroy(): void {
    this.#eap.destroy()
  }

  /** Lock-step: one input has one outcome. What makes no sense inside a tunnel is an attack. */
  #drain(): TunnelAct {
    let act: TunnelAct | undefined
    let packet: Uint8Array | undefined
    for (let out = this.#eap.poll(); out !== undefined; out = this.#eap.poll()) {
      if (out.type === 'transmit') packet = out.bytes
      else act = this.#actOf(out.event) ?? act
    }
    if (act !== undefined) return act
    return packet === undefined ? this.#ends.failed('bad-credentials') : this.#ends.packet(packet)
  }

  #actOf(event: EapConversationEvent): TunnelAct | undefined {
    switch (event.type) {
      case 'authenticate': {
        this.#ticket = event.ticket
        const { userName, proof } = event.request
        return { type: 'authenticate', userName, proof }
      }
      case 'authorize':
        this.#ticket = event.ticket
        return { type: 'authorize', authorization: event.authorization }
      case 'pending': {
        const { ticket } = event
        const next = event.settled.then(() => {
          this.#eap.handle({ type: 'wake', ticket }, 0)
          return this.#drain()
        })
        return { type: 'pending', next }
      }
      case 'success':
        return this.#ends.succeeded(event.authorization, event.msk)
      case 'failure':
        return this.#ends.failed(event.reason)
      case 'unexpected':
        return undefined
      default:
        return assertNever(event)
    }
  }
}
