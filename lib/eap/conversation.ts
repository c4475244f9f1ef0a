/**
 * The seam between a lower layer that carries EAP (PPP, IKEv2, a RADIUS front) and who converses with
 * the peer: ourselves (`EapAuthenticator`) or a server that the packets are relayed to. Sans-IO; what
 * is transmitted are whole EAP packets.
 */
import type {
  AuthenticationRequest,
  Authorization,
  CallContext,
  RejectReason,
  Verdict,
} from '../aaa/authenticator.ts'
import type { Machine } from '../core/machine.ts'
import type { Secret } from '../core/secret.ts'
import { masterKeyBytes, type ServerKeys } from '../crypto/mppe-keys.ts'
import { EapType } from './packet.ts'

export type EapConversationInput =
  /** Begins with a Request for the identity. */
  | { readonly type: 'start' }
  | { readonly type: 'packet'; readonly bytes: Uint8Array }
  /** The answer to the `authenticate` or `authorize` event with this ticket; others are counted. */
  | { readonly type: 'verdict'; readonly ticket: number; readonly verdict: Verdict }
  /** `settled` of the `pending` event with this ticket has resolved. */
  | { readonly type: 'wake'; readonly ticket: number }

export type EapConversationEvent =
  /** Have the authenticator judge this; answer with `verdict`. */
  | {
      readonly type: 'authenticate'
      readonly ticket: number
      readonly request: AuthenticationRequest
    }
  /**
   * Somebody else has judged the peer (a relay). May it come in? Answer with `verdict`: accept with an
   * authorization, or reject; the peer gets its Success or Failure after that.
   */
  | { readonly type: 'authorize'; readonly ticket: number; readonly authorization: Authorization }
  /** Something is computed or asked elsewhere. Never rejects. Answer with `wake` once it resolves. */
  | { readonly type: 'pending'; readonly ticket: number; readonly settled: Promise<void> }
  /** The `transmit` before this was EAP-Success. The receiver owns `msk`. */
  | {
      readonly type: 'success'
      readonly identity: string
      /** Of the method that ran: it decides how `msk` is cut into keys. */
      readonly eapType: number
      readonly authorization: Authorization
      /** 64 bytes; absent when the method makes no keys. */
      readonly msk: Secret | undefined
    }
  /** The `transmit` before this, if any, was EAP-Failure. */
  | { readonly type: 'failure'; readonly identity: string; readonly reason: RejectReason }
  | { readonly type: 'unexpected'; readonly what: string }

export interface EapConversation extends Machine<EapConversationInput, EapConversationEvent> {
  /** Forgets everything; late answers find nobody. */
  destroy(): void
}

/** What a lower layer tells when it begins a conversation. */
export interface EapLowerLayer {
  readonly call: CallContext
  /** Longest EAP packet that it carries, bytes. */
  readonly packetBytes: number
  /** Of the first Request. */
  readonly firstIdentifier: number
  /** Repeat an unanswered Request after this time, at most so often; absent over reliable layers. */
  readonly retransmit?: { readonly afterMs: number; readonly tries: number }
}

export type EapConversationMaker = (lowerLayer: EapLowerLayer) => EapConversation

/**
 * The master keys of MPPE and of SSTP's crypto binding, 16 bytes each. EAP-MSCHAPv2 puts two keys of
 * 16 bytes into its MSK ([MS-CHAP]); all others put two of 32, whose first 16 are taken (RFC 5216 §2.3,
 * RFC 3079 §4, [MS-SSTP] §3.2.5.2.2).
 */
export function serverKeysOfMsk(eapType: number, msk: Secret): ServerKeys {
  const bytes = msk.expose()
  const sendAt = eapType === EapType.MSCHAPv2 ? masterKeyBytes : 2 * masterKeyBytes
  return {
    receive: bytes.slice(0, masterKeyBytes),
    send: bytes.slice(sendAt, sendAt + masterKeyBytes),
  }
}
