/**
 * EAP-TLS as server (RFC 5216, RFC 9190): both sides prove themselves by certificate. Who the peer is
 * comes out of its certificate alone; the identity that it named in clear is not believed.
 */
import type { Authorization, RejectReason, Verdict } from '../aaa/authenticator.ts'
import type { TlsEngine, TlsTerminal } from '../crypto/tls-engine.ts'
import type { EapServerMethod } from './method.ts'
import { EapType } from './packet.ts'
import {
  keyMaterial,
  mskOf,
  type TunnelAct,
  type TunnelInside,
  TunnelServerMethod,
} from './tunnel-method.ts'

/** RFC 5216 §2.3. */
const keyLabel = 'client EAP encryption'
/** RFC 9190 §2.1.1: "protected success indication". */
const successIndication = Uint8Array.of(0)

export type CertificateJudgement =
  | { readonly type: 'accept'; readonly authorization: Authorization }
  | { readonly type: 'reject'; readonly reason: RejectReason }

/** Judges a chain of DER certificates, the peer's own first: path, purpose, revocation, account. */
export type CertificateJudge = (chain: readonly Uint8Array[]) => CertificateJudgement

export function tlsServerMethod(
  terminal: TlsTerminal,
  judge: CertificateJudge,
  packetBytes: number,
): EapServerMethod {
  const inside = () => new TlsInside(judge)
  return new TunnelServerMethod({ eapType: EapType.TLS, terminal, packetBytes, inside })
}

class TlsInside implements TunnelInside {
  readonly #judge: CertificateJudge

  constructor(judge: CertificateJudge) {
    this.#judge = judge
  }

  /** A resumed session brings the certificate that began it, and that is judged as if it were new. */
  established(tls: TlsEngine): TunnelAct {
    const judged = this.#judge(tls.peerChain())
    return judged.type === 'reject'
      ? { type: 'refuse', reason: judged.reason }
      : { type: 'authorize', authorization: judged.authorization }
  }

  /** Nothing is due inside: TLS 1.3 has its own messages after the handshake. */
  heard(): TunnelAct {
    return { type: 'refuse', reason: 'bad-credentials' }
  }

  verdict(verdict: Verdict, tls: TlsEngine): TunnelAct {
    if (verdict.type === 'reject') return { type: 'refuse', reason: verdict.reason }
    return {
      type: 'accept',
      authorization: verdict.authorization,
      msk: mskOf(keyMaterial(tls, EapType.TLS, keyLabel)),
      ...(tls.isTls13 && { plain: successIndication.slice() }),
    }
  }

  destroy(): void {
    // Holds nothing.
  }
}
