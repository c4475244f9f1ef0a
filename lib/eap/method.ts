/**
 * The seam between the EAP conversation and its methods (RFC 3748 §5). A method sees type-data only;
 * identifiers, Nak and the end are the conversation's business. Sans-IO: a method that needs an answer
 * from outside says so with a step, and gets the answer through `verdict`.
 */
import type { Authorization, Proof, RejectReason, Verdict } from '../aaa/authenticator.ts'
import type { Secret } from '../core/secret.ts'

/** What a server method wants next. */
export type EapServerStep =
  /** Send a Request of this method. */
  | { readonly type: 'request'; readonly typeData: Uint8Array }
  /** Have a proof judged; the method's `verdict` is called with the answer. */
  | { readonly type: 'authenticate'; readonly userName: string; readonly proof: Proof }
  /** The peer is known without an authenticator (by certificate); may it come in? `verdict` follows. */
  | { readonly type: 'authorize'; readonly authorization: Authorization }
  /** The method computes elsewhere (TLS) and goes on with what this resolves to. */
  | { readonly type: 'pending'; readonly next: Promise<EapServerStep> }
  /** The Response makes no sense here: nothing changes, it is counted under this name. */
  | { readonly type: 'ignore'; readonly unexpected: string }
  /** The peer has proved itself. `msk` is absent for methods that make no keys (RFC 3748 §7.10). */
  | {
      readonly type: 'success'
      readonly authorization: Authorization
      readonly msk: Secret | undefined
    }
  | { readonly type: 'failure'; readonly reason: RejectReason }

/** One run of a method for one peer. */
export interface EapServerMethod {
  readonly eapType: number
  /** The first Request. `identity` is what the peer said in its Identity Response. */
  start(identity: string, identifier: number): EapServerStep
  /** A Response of this type, matched by identifier; `identifier` is that of the next Request. */
  response(typeData: Uint8Array, identifier: number): EapServerStep
  /** The answer to `authenticate`; `identifier` is that of the next Request. */
  verdict(verdict: Verdict, identifier: number): EapServerStep
  destroy(): void
}

/** Makes a method for one conversation. `packetBytes`: longest EAP packet that it may send. */
export type EapServerMethodMaker = (packetBytes: number) => EapServerMethod

/** What a peer method wants next. */
export type EapPeerStep =
  | { readonly type: 'response'; readonly typeData: Uint8Array }
  | { readonly type: 'ignore'; readonly unexpected: string }

/** One run of a method as peer: our initiator, our dialler. */
export interface EapPeerMethod {
  readonly eapType: number
  request(typeData: Uint8Array, identifier: number): EapPeerStep
  /** Whether an EAP-Success may be believed now: the method itself has seen the server's proof. */
  readonly isComplete: boolean
  /** After completion; undefined for methods that make no keys. The caller owns it. */
  takeMsk(): Secret | undefined
  destroy(): void
}
