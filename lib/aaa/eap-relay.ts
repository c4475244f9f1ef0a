/**
 * The seam between an EAP conversation and a server that holds it instead of us (RFC 3579 §2): whole
 * EAP packets go there and come back.
 */
import type { Secret } from '../core/secret.ts'
import type { Authorization, CallContext, RejectReason } from './authenticator.ts'

export interface EapRelayRequest {
  /** What the peer said in its Identity Response. */
  readonly identity: string
  /** A Response of the peer, whole. */
  readonly packet: Uint8Array
  /** From the answer before (RFC 2865 §5.24). */
  readonly state?: Uint8Array
  readonly call: CallContext
}

export type EapRelayAnswer =
  /** A Request for the peer. */
  | { readonly type: 'challenge'; readonly packet: Uint8Array; readonly state?: Uint8Array }
  /** The receiver owns `msk`; absent for methods that make no keys. */
  | {
      readonly type: 'accept'
      readonly packet?: Uint8Array
      readonly authorization: Authorization
      readonly msk?: Secret
    }
  | { readonly type: 'reject'; readonly packet?: Uint8Array; readonly reason: RejectReason }

export interface EapRelay {
  /** Never rejects its promise. */
  relayEap(request: EapRelayRequest): Promise<EapRelayAnswer>
}
