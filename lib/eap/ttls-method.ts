/**
 * EAP-TTLSv0 as server (RFC 5281, RFC 9427 §2.1): the peer proves itself inside TLS by PAP, CHAP,
 * MS-CHAPv2 or an EAP method. Challenges come out of the tunnel, so nobody else's proof fits.
 */
import type { Authorization, Proof, Verdict } from '../aaa/authenticator.ts'
import { concatBytes, copyBytes, equalBytes, utf8, utf8Text } from '../core/bytes.ts'
import { Secret, wipe } from '../core/secret.ts'
import type { TlsEngine, TlsTerminal } from '../crypto/tls-engine.ts'
import { InnerConversation } from './inner-conversation.ts'
import type { EapServerMethod, EapServerMethodMaker } from './method.ts'
import { checkEapPacket, EapType } from './packet.ts'
import { type Avp, encodeAvps, parseAvps } from './ttls-avp.ts'
import {
  keyMaterial,
  mskOf,
  type TunnelAct,
  type TunnelInside,
  TunnelServerMethod,
} from './tunnel-method.ts'

const keyLabel = 'ttls keying material'
const challengeLabel = 'ttls challenge'

/** RFC 2865 §5, RFC 2869 §5.13; those of vendor 311 are RFC 2548 §2.3. */
const AvpCode = {
  'User-Name': 1,
  'User-Password': 2,
  'CHAP-Password': 3,
  'CHAP-Challenge': 60,
  'EAP-Message': 79,
} as const
const MicrosoftCode = {
  'MS-CHAP-Challenge': 11,
  'MS-CHAP2-Response': 25,
  'MS-CHAP2-Success': 26,
} as const
const microsoft = 311

/** RFC 5281 §11.2.2 to §11.2.4: challenge, then the identifier. */
const challengeBytes = 16
const mschapv2ResponseBytes = 50
const longestNameBytes = 253
/** Of EAP-Message pieces (RFC 2869 §5.13). */
const longestPieceBytes = 1000

export type TtlsInner = 'pap' | 'chap' | 'mschapv2'

export interface TtlsOptions {
  readonly terminal: TlsTerminal
  readonly inner: readonly TtlsInner[]
  /** EAP methods inside, in order of preference. */
  readonly methods: readonly EapServerMethodMaker[]
}

export function ttlsServerMethod(options: TtlsOptions, packetBytes: number): EapServerMethod {
  return new TunnelServerMethod({
    eapType: EapType.TTLS,
    terminal: options.terminal,
    packetBytes,
    inside: () => new TtlsInside(options),
  })
}

const refusal: TunnelAct = { type: 'refuse', reason: 'bad-credentials' }

class TtlsInside implements TunnelInside {
  readonly #options: TtlsOptions
  #tls: TlsEngine | undefined
  #inner: InnerConversation | undefined
  /** Asked for a proof that is not EAP. */
  #asked: { readonly method: TtlsInner; readonly identifier: number } | undefined
  /** MS-CHAPv2: our proof is out, and the peer's acknowledgement is to come. */
  #accepted: Authorization | undefined

  constructor(options: TtlsOptions) {
    this.#options = options
  }

  established(tls: TlsEngine): TunnelAct {
    this.#tls = tls
    return { type: 'listen' }
  }

  heard(plain: Uint8Array, tls: TlsEngine): TunnelAct {
    if (this.#accepted !== undefined) {
      return plain.length === 0 ? this.#accept(this.#accepted, tls) : refusal
    }
    if (plain.length === 0 || this.#asked !== undefined) return refusal
    const avps = parseAvps(plain)
    if (avps === undefined) return refusal
    const known = (avp: Avp) =>
      avp.vendorId === 0
        ? Object.values(AvpCode).some(code => code === avp.code)
        : avp.vendorId === microsoft
    // RFC 5281 §10.1: what is mandatory and not understood ends it.
    if (avps.some(avp => avp.isMandatory && !known(avp))) return refusal
    const isEap = avps.some(
      ({ code, vendorId }) => vendorId === 0 && code === AvpCode['EAP-Message'],
    )
    return isEap ? this.#eap(avps) : this.#prove(avps, tls)
  }

  verdict(verdict: Verdict, tls: TlsEngine): TunnelAct {
    if (this.#inner !== undefined) return this.#inner.verdict(verdict)
    if (verdict.type === 'reject') return { type: 'refuse', reason: verdict.reason }
    const { authorization, authenticatorResponse } = verdict
    if (this.#asked?.method !== 'mschapv2') return this.#accept(authorization, tls)
    if (authenticatorResponse === undefined) {
      return { type: 'refuse', reason: 'backend-unavailable' }
    }
    this.#accepted = authorization
    const data = concatBytes(Uint8Array.of(this.#asked.identifier), utf8(authenticatorResponse))
    const code = MicrosoftCode['MS-CHAP2-Success']
    const avp = { code, vendorId: microsoft, isMandatory: true, data }
    return { type: 'say', plain: encodeAvps([avp]) }
  }

  destroy(): void {
    this.#inner?.destroy()
    this.#inner = undefined
    this.#accepted = undefined
  }

  #accept(authorization: Authorization, tls: TlsEngine): TunnelAct {
    return { type: 'accept', authorization, msk: mskOf(keyMaterial(tls, EapType.TTLS, keyLabel)) }
  }

  #prove(avps: readonly Avp[], tls: TlsEngine): TunnelAct {
    const one = (code: number, vendorId = 0) => {
      const found = avps.filter(avp => avp.code === code && avp.vendorId === vendorId)
      return found.length === 1 ? found[0]?.data : undefined
    }
    const name = one(AvpCode['User-Name'])
    if (name === undefined || name.length > longestNameBytes) return refusal
    const offered = {
      pap: one(AvpCode['User-Password']),
      chap: one(AvpCode['CHAP-Password']),
      mschapv2: one(MicrosoftCode['MS-CHAP2-Response'], microsoft),
    }
    const method = this.#options.inner.find(inner => offered[inner] !== undefined)
    const data = method && offered[method]
    if (method === undefined || data === undefined) {
      return { type: 'refuse', reason: 'method-not-allowed' }
    }
    const challenge =
      method === 'mschapv2'
        ? one(MicrosoftCode['MS-CHAP-Challenge'], microsoft)
        : one(AvpCode['CHAP-Challenge'])
    const proof = method === 'pap' ? papProof(data) : tunnelProof(method, data, challenge, tls)
    if (proof === undefined) return refusal
    this.#asked = { method, identifier: data[0] ?? 0 }
    return { type: 'authenticate', userName: utf8Text(name), proof }
  }

  #eap(avps: readonly Avp[]): TunnelAct {
    const pieces = avps.filter(avp => avp.vendorId === 0 && avp.code === AvpCode['EAP-Message'])
    const packet = concatBytes(...pieces.map(({ data }) => data))
    if (checkEapPacket(packet)) return refusal
    this.#inner ??= this.#beginInner(packet[1] ?? 0)
    return this.#inner.heard(packet)
  }

  /** RFC 5281 §11.2.1: the peer begins with its Identity Response, as if it had been asked. */
  #beginInner(identifier: number): InnerConversation {
    const inner = new InnerConversation(this.#options.methods, identifier, {
      packet: bytes => ({ type: 'say', plain: eapMessage(bytes) }),
      succeeded: (authorization, msk) => {
        msk?.destroy()
        const tls = this.#tls
        return tls === undefined ? refusal : this.#accept(authorization, tls)
      },
      failed: reason => ({ type: 'refuse', reason }),
    })
    inner.start()
    return inner
  }
}

function eapMessage(packet: Uint8Array): Uint8Array {
  const avps: Avp[] = []
  for (let at = 0; at < packet.length; at += longestPieceBytes) {
    const data = copyBytes(packet, at, Math.min(packet.length, at + longestPieceBytes))
    avps.push({ code: AvpCode['EAP-Message'], vendorId: 0, isMandatory: true, data })
  }
  return encodeAvps(avps)
}

/** RFC 5281 §11.2.5: padded with zeros to hide its length. */
function papProof(data: Uint8Array): Proof | undefined {
  let end = data.length
  while (end > 0 && data[end - 1] === 0) end--
  const password = new Secret(data.subarray(0, end))
  wipe(data)
  return { method: 'pap', password }
}

/** Undefined when the response is not to the challenge of this tunnel. */
function tunnelProof(
  method: 'chap' | 'mschapv2',
  data: Uint8Array,
  challenge: Uint8Array | undefined,
  tls: TlsEngine,
): Proof | undefined {
  const expected = tls.exportKey(challengeBytes + 1, challengeLabel)
  const ours = expected.subarray(0, challengeBytes)
  const identifier = expected[challengeBytes] ?? 0
  if (challenge === undefined || !equalBytes(challenge, ours) || data[0] !== identifier) {
    return undefined
  }
  if (method === 'chap') {
    if (data.length !== 17) return undefined
    return { method: 'chap-md5', identifier, challenge: ours, response: data.subarray(1) }
  }
  if (data.length !== mschapv2ResponseBytes) return undefined
  return {
    method: 'mschapv2',
    identifier,
    authenticatorChallenge: ours,
    peerChallenge: data.subarray(2, 18),
    ntResponse: data.subarray(26, 50),
  }
}
