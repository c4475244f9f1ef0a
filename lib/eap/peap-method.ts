/**
 * PEAPv0 as server ([MS-PEAP]): an EAP conversation inside TLS, in which the server alone has proved
 * itself. Inner packets go without their header, but for those of type 33, which tell the result and
 * bind tunnel and inner method to each other.
 */
import type { Authorization, RejectReason, Verdict } from '../aaa/authenticator.ts'
import { u16 } from '../core/bytes.ts'
import { type RandomSource, randomBytes } from '../core/random.ts'
import { Secret, wipe } from '../core/secret.ts'
import type { TlsEngine, TlsTerminal } from '../crypto/tls-engine.ts'
import { InnerConversation } from './inner-conversation.ts'
import type { EapServerMethod, EapServerMethodMaker } from './method.ts'
import { checkEapPacket, EAP_HEADER_BYTES, EapCode, EapType, eapPacketOf } from './packet.ts'
import {
  type BindingKeys,
  bindingKeysOf,
  compoundSessionKey,
  cryptobindingTlv,
  EAP_EXTENSIONS_TYPE,
  isBindingResponse,
  NONCE_BYTES,
  parseExtensions,
  resultTlv,
} from './peap-binding.ts'
import {
  keyMaterial,
  type TunnelAct,
  type TunnelInside,
  TunnelServerMethod,
} from './tunnel-method.ts'

const keyLabel = 'client EAP encryption'
const innerKeyBytes = 32

export interface PeapOptions {
  readonly terminal: TlsTerminal
  /** Inner methods in order of preference: EAP-MSCHAPv2, EAP-TLS. */
  readonly methods: readonly EapServerMethodMaker[]
  readonly random: RandomSource
}

export function peapServerMethod(options: PeapOptions, packetBytes: number): EapServerMethod {
  return new TunnelServerMethod({
    eapType: EapType.PEAP,
    terminal: options.terminal,
    packetBytes,
    inside: () => new PeapInside(options),
  })
}

type Phase =
  | { readonly name: 'inner' }
  | { readonly name: 'refusing'; readonly reason: RejectReason }
  | {
      readonly name: 'binding'
      readonly authorization: Authorization
      readonly keys: BindingKeys
    }

class PeapInside implements TunnelInside {
  readonly #inner: InnerConversation
  readonly #random: RandomSource
  #tls: TlsEngine | undefined
  #isBegun = false
  #phase: Phase = { name: 'inner' }

  constructor({ methods, random }: PeapOptions) {
    this.#random = random
    this.#inner = new InnerConversation(methods, randomBytes(random, 1)[0] ?? 0, {
      packet: bytes => ({ type: 'say', plain: bytes.slice(EAP_HEADER_BYTES) }),
      succeeded: (authorization, msk) => this.#bind(authorization, msk),
      failed: reason => this.#refuse(reason),
    })
  }

  established(tls: TlsEngine, isPeerNext: boolean): TunnelAct {
    this.#tls = tls
    // TLS 1.2: the peer has to see our Finished before anything else.
    return isPeerNext && !tls.isTls13 ? { type: 'listen' } : this.#begin()
  }

  heard(plain: Uint8Array): TunnelAct {
    if (!this.#isBegun) return this.#begin()
    if (plain.length === 0) return { type: 'refuse', reason: 'bad-credentials' }
    const packet = this.#withHeader(plain)
    if (packet[EAP_HEADER_BYTES] === EAP_EXTENSIONS_TYPE) {
      return this.#result(packet.subarray(EAP_HEADER_BYTES + 1))
    }
    if (this.#phase.name !== 'inner') return { type: 'refuse', reason: 'bad-credentials' }
    return this.#inner.heard(packet)
  }

  verdict(verdict: Verdict): TunnelAct {
    return this.#inner.verdict(verdict)
  }

  destroy(): void {
    this.#inner.destroy()
    if (this.#phase.name === 'binding') wipe(this.#phase.keys.ipmk, this.#phase.keys.cmk)
    this.#phase = { name: 'refusing', reason: 'bad-credentials' }
  }

  #begin(): TunnelAct {
    this.#isBegun = true
    return this.#inner.start()
  }

  /** Peers send inner packets bare, as specified, or whole, as some do. */
  #withHeader(plain: Uint8Array): Uint8Array {
    const isWhole =
      !checkEapPacket(plain) && plain[0] === EapCode.Response && u16(plain, 2) === plain.length
    if (isWhole) return plain
    return eapPacketOf({
      code: 'response',
      identifier: this.#inner.identifier,
      eapType: plain[0] ?? 0,
      typeData: plain.subarray(1),
    })
  }

  #bind(authorization: Authorization, msk: Secret | undefined): TunnelAct {
    const tls = this.#tls
    // A tunnel that binds nothing could be somebody else's.
    if (msk === undefined || tls === undefined) return this.#refuse('backend-unavailable')
    const material = keyMaterial(tls, EapType.PEAP, keyLabel)
    const innerKey = msk.expose().slice(0, innerKeyBytes)
    const keys = bindingKeysOf(material, innerKey)
    wipe(material, innerKey)
    msk.destroy()
    this.#phase = { name: 'binding', authorization, keys }
    const nonce = randomBytes(this.#random, NONCE_BYTES)
    return this.#extensions(resultTlv(true), cryptobindingTlv('request', nonce, keys))
  }

  /** Windows waits for a result also when it is a refusal. */
  #refuse(reason: RejectReason): TunnelAct {
    if (this.#phase.name !== 'inner') return { type: 'refuse', reason }
    this.#phase = { name: 'refusing', reason }
    return this.#extensions(resultTlv(false))
  }

  #extensions(...tlvs: Uint8Array[]): TunnelAct {
    const typeData = Uint8Array.from(tlvs.flatMap(tlv => [...tlv]))
    const identifier = (this.#inner.identifier + 1) & 0xff
    const plain = eapPacketOf({
      code: 'request',
      identifier,
      eapType: EAP_EXTENSIONS_TYPE,
      typeData,
    })
    return { type: 'say', plain }
  }

  #result(typeData: Uint8Array): TunnelAct {
    const phase = this.#phase
    if (phase.name === 'refusing') return { type: 'refuse', reason: phase.reason }
    // A peer that says success before its method is through skips it (CVE-2023-52160).
    if (phase.name !== 'binding') return { type: 'refuse', reason: 'bad-credentials' }
    const answer = parseExtensions(typeData)
    const isBound =
      answer?.isSuccess === true &&
      answer.binding !== undefined &&
      isBindingResponse(answer.binding, phase.keys)
    if (!isBound) return { type: 'refuse', reason: 'bad-credentials' }
    const key = compoundSessionKey(phase.keys)
    const msk = new Secret(key.subarray(0, 64))
    wipe(key)
    return { type: 'accept', authorization: phase.authorization, msk }
  }
}
