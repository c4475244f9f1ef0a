/** What goes into the two engines of PPP, that of a link and that of its networks, and what comes out. */
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

export type LinkInput =
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
  /** The link carries for its networks, alone or in a bundle: waited for after the proof. */
  | { readonly type: 'placed' }
  /** The networks do not speak `protocol`: tell the peer (RFC 1661 §5.7). */
  | { readonly type: 'reject'; readonly protocol: number; readonly packet: Uint8Array }
  /** Negotiate the link anew. */
  | { readonly type: 'renegotiate' }
  /** End the call in an orderly way. */
  | { readonly type: 'close'; readonly cause: DisconnectCause; readonly detail?: string }
  /** The tunnel is gone; nothing can be sent. */
  | {
      readonly type: 'carrier-lost'
      readonly cause?: DisconnectCause
      readonly detail?: string
    }

export type NetworkInput =
  /** A link carries: negotiation begins. Further links of a bundle change nothing (RFC 1990 §2). */
  | {
      readonly type: 'up'
      /** The proof of that link made keys. */
      readonly hasKeys: boolean
      /** Largest information field that the peer takes, and the one that both sides take, bytes. */
      readonly peerMruBytes: number
      readonly mruBytes: number
    }
  /** No link carries any more. */
  | { readonly type: 'down' }
  /** An information field of any protocol but those of the link; `bytes` is used during the call only. */
  | { readonly type: 'packet'; readonly protocol: number; readonly bytes: Uint8Array }
  /** Server: what the accepted client is given. Kept for renegotiations; may be given again. */
  | { readonly type: 'network'; readonly network: ServerNetwork }
  /** The peer does not speak `protocol`. */
  | { readonly type: 'protocol-rejected'; readonly protocol: number }
  /** What the peer sends cannot be decrypted or decompressed: it shall begin anew (RFC 1962 §3). */
  | { readonly type: 'request-reset' }
  /** Negotiate CCP anew, and with it the keys. */
  | { readonly type: 'renegotiate-compression' }

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

export type LinkEvent =
  /** LCP is open. */
  | {
      readonly type: 'link-up'
      readonly peerMruBytes: number
      readonly authentication: AuthenticationProtocol | 'none'
      /** Present: the link may be bundled with others of the same user and endpoint. */
      readonly multilink?: MultilinkAgreement
    }
  /** LCP left Opened: the link carries nothing. */
  | { readonly type: 'link-down' }
  /** After `link-down`: LCP begins again, authentication follows anew. */
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
  /** Not of the link: for its networks. In order, and none before `placed`. */
  | { readonly type: 'packet'; readonly protocol: number; readonly bytes: Uint8Array }
  /** The peer does not speak a protocol that is not of the link (RFC 1661 §5.7). */
  | { readonly type: 'protocol-rejected'; readonly protocol: number }
  /** RFC 1570 §2.1. Text only when it is printable. */
  | { readonly type: 'identification'; readonly text?: string }
  /** Something that was dropped, or that should not happen; a name to count. */
  | { readonly type: 'unexpected'; readonly counter: string }
  /** The last event, exactly once. `detail` is for people. */
  | { readonly type: 'closed'; readonly cause: DisconnectCause; readonly detail: string }

export type NetworkEvent =
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
  /** To be told to the peer: we do not speak `protocol`. */
  | { readonly type: 'reject'; readonly protocol: number; readonly packet: Uint8Array }
  | { readonly type: 'unexpected'; readonly counter: string }
  /** No network protocol is up, and none will be; once for each `up`. `detail` is for people. */
  | { readonly type: 'failed'; readonly cause: DisconnectCause; readonly detail: string }

/** The event, such that JSON and inspection see `shown` instead of what it holds. */
export function guarded<Event extends LinkEvent>(event: Event, shown: object): Event {
  const show = { value: () => shown, enumerable: false }
  return Object.defineProperties(event, { toJSON: show, [inspect.custom]: show })
}
