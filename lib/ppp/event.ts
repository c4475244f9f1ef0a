/** What goes into a PPP engine and what comes out of it. */
import { inspect } from 'node:util'
import type {
  Authorization,
  MasterKeys,
  Proof,
  RejectReason,
  Verdict,
} from '../aaa/authenticator.ts'
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import type { CompressionAgreement } from './ccp.ts'
import type { MultilinkAgreement } from './multilink/lcp-multilink.ts'
import type { ServerNetwork } from './settings.ts'
import type { AuthenticationProtocol } from './wire/lcp-options.ts'

export type PppInput =
  /** The tunnel is up: begin. */
  | { readonly type: 'open' }
  /** A PPP frame, with or without address and control field; `bytes` is used during the call only. */
  | { readonly type: 'frame'; readonly bytes: Uint8Array }
  /** Frames that the engine was not shown have arrived: the peer lives. */
  | { readonly type: 'alive' }
  /** The answer to the `authenticate` or `authorize` event with this `attempt`; any other is ignored. */
  | { readonly type: 'verdict'; readonly attempt: number; readonly verdict: Verdict }
  /** `settled` of the `pending` event with this ticket has resolved. */
  | { readonly type: 'wake'; readonly ticket: number }
  /** Server: what the accepted client is given. Kept for renegotiations; may be given again. */
  | { readonly type: 'network'; readonly network: ServerNetwork }
  /**
   * The link has a place in a bundle: waited for after the proof when LCP has agreed on multilink. Who
   * follows has no networks of its own (RFC 1990 §2).
   */
  | { readonly type: 'bundled'; readonly isFollower: boolean }
  /** Negotiate the link anew. */
  | { readonly type: 'renegotiate' }
  /** What the peer sends cannot be decrypted or decompressed: it shall begin anew (RFC 1962 §3). */
  | { readonly type: 'request-reset' }
  /** Negotiate CCP anew, and with it the keys. */
  | { readonly type: 'renegotiate-compression' }
  /** End the call in an orderly way. */
  | { readonly type: 'close'; readonly cause: DisconnectCause; readonly detail?: string }
  /** The tunnel is gone; nothing can be sent. */
  | {
      readonly type: 'carrier-lost'
      readonly cause?: DisconnectCause
      readonly detail?: string
    }

/** Addresses in host order. `mtuBytes` is the largest IP packet that either side may send. */
export interface Ipv4Up {
  readonly type: 'ipv4-up'
  readonly localAddress: number
  /** 0 when the peer has none. */
  readonly peerAddress: number
  readonly dns: readonly number[]
  readonly wins: readonly number[]
  readonly mtuBytes: number
}

export interface Ipv6Up {
  readonly type: 'ipv6-up'
  /** 8 bytes each. */
  readonly localIdentifier: Uint8Array
  readonly peerIdentifier: Uint8Array
  readonly mtuBytes: number
}

export type PppEvent =
  /** LCP is open. */
  | {
      readonly type: 'link-up'
      readonly peerMruBytes: number
      readonly authentication: AuthenticationProtocol | 'none'
      /** Present: the link may be bundled with others of the same user and endpoint. */
      readonly multilink?: MultilinkAgreement
    }
  /** LCP left Opened and begins again: authentication and networks follow anew. */
  | { readonly type: 'renegotiating' }
  /** Server: judge this. JSON and inspection show the method only. */
  | {
      readonly type: 'authenticate'
      readonly attempt: number
      readonly userName: string
      readonly proof: Proof
    }
  /** Server, EAP: judged elsewhere already; may it come in? */
  | {
      readonly type: 'authorize'
      readonly attempt: number
      readonly authorization: Authorization
    }
  /** Server, EAP: answer with `wake` once this resolves; it never rejects. */
  | { readonly type: 'pending'; readonly ticket: number; readonly settled: Promise<void> }
  /** JSON and inspection hide the keys. */
  | {
      readonly type: 'authenticated'
      readonly userName: string
      readonly method: AuthenticationProtocol | 'none'
      /** 32 bytes: the server's receive and send key, or zeros. */
      readonly higherLayerKey: Uint8Array
      /** From the server's point of view, in either role. */
      readonly keys?: MasterKeys
    }
  /** Server: a proof was refused. With `canRetry` the peer may try again on this link. */
  | { readonly type: 'refused'; readonly reason: RejectReason; readonly canRetry: boolean }
  /** Server: IPCP of the accepted client waits for `network`; 0 when it asks for any address. */
  | { readonly type: 'ipv4-requested'; readonly address: number }
  | Ipv4Up
  | { readonly type: 'ipv4-down' }
  | Ipv6Up
  | { readonly type: 'ipv6-down' }
  /** CCP is open: data is carried so from now on. Again after each renegotiation, with keys from the start. */
  | { readonly type: 'compression-up'; readonly agreement: CompressionAgreement }
  /** CCP left Opened. With `isEncryptionDue` no data may pass until it is up again. */
  | { readonly type: 'compression-down'; readonly isEncryptionDue: boolean }
  /** The peer cannot read what we send: the next packet begins anew. */
  | { readonly type: 'reset-requested' }
  /** The peer does not speak a protocol that is not of the engine (RFC 1661 §5.7). */
  | { readonly type: 'protocol-rejected'; readonly protocol: number }
  /** RFC 1570 §2.1. Text only when it is printable. */
  | { readonly type: 'identification'; readonly text?: string }
  /** Something that was dropped, or that should not happen; a name to count. */
  | { readonly type: 'unexpected'; readonly counter: string }
  /** The last event, exactly once. `detail` is for people. */
  | { readonly type: 'closed'; readonly cause: DisconnectCause; readonly detail: string }

/** The event, such that JSON and inspection see `shown` instead of what it holds. */
export function guarded<Event extends PppEvent>(event: Event, shown: object): Event {
  const show = { value: () => shown, enumerable: false }
  return Object.defineProperties(event, { toJSON: show, [inspect.custom]: show })
}
