/** What an IKE SA is told. */
import type { KeyObject } from 'node:crypto'
import type { Authorization, Verdict } from '../aaa/authenticator.ts'
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import type { ConfigurationGrant } from './configuration.ts'
import type { Path } from './path.ts'
import type { TrafficSelector } from './wire/traffic-selector.ts'

/** What an authenticated peer may have. */
export interface Grant extends ConfigurationGrant {
  /** Networks behind us that the peer may reach. */
  readonly localSelectors: readonly TrafficSelector[]
  /** Networks behind the peer, besides the addresses that it is given: site-to-site. */
  readonly remoteSelectors?: readonly TrafficSelector[]
  /** The peer may have tickets, and this is to be seen again when it comes with one (RFC 5723). */
  readonly resumeMemo?: Uint8Array
}

export type GrantVerdict =
  | { readonly type: 'grant'; readonly grant: Grant }
  | { readonly type: 'refuse'; readonly cause: DisconnectCause }

export type CertificateVerdict =
  /** The chain is good; `publicKey` is that of the peer's own certificate. */
  | {
      readonly type: 'accept'
      readonly publicKey: KeyObject
      readonly authorization: Authorization
    }
  | { readonly type: 'reject'; readonly detail: string }

/** Answers carry the ticket of the event that asked; late ones are dropped and counted. */
export type IkeSaInput =
  /** Initiator: dial. */
  | { readonly type: 'start' }
  /** One IKE message as received, without the non-ESP marker. */
  | { readonly type: 'datagram'; readonly bytes: Uint8Array; readonly path: Path }
  | { readonly type: 'verdict'; readonly ticket: number; readonly verdict: Verdict }
  /** What the `eap-pending` with this ticket waited for has come. */
  | { readonly type: 'eap-wake'; readonly ticket: number }
  | {
      readonly type: 'certificate-verdict'
      readonly ticket: number
      readonly verdict: CertificateVerdict
    }
  | { readonly type: 'grant-verdict'; readonly ticket: number; readonly verdict: GrantVerdict }
  /** Ends the SA in order: Delete is sent and its answer awaited for a while. */
  | {
      readonly type: 'close'
      readonly cause: DisconnectCause
      readonly detail: string
      /** At once and without a word: the peer has started anew (RFC 7296 §2.4, RFC 5723 §5). */
      readonly isSilent?: boolean
    }
  | { readonly type: 'rekey-ike' }
  /** Soft limit of bytes or packets reached, or an operator's wish. */
  | { readonly type: 'rekey-child'; readonly inboundSpi: number }
  /** Hard limit reached: the Child SA goes. */
  | { readonly type: 'delete-child'; readonly inboundSpi: number }
  /** A further Child SA with these selectors. */
  | {
      readonly type: 'create-child'
      readonly localSelectors: readonly TrafficSelector[]
      readonly remoteSelectors: readonly TrafficSelector[]
    }
  /** Authentic ESP of this SA came in on this path: the peer lives, and a NAT may have moved it. */
  | { readonly type: 'esp-received'; readonly path: Path }
  /** Initiator: our address changed (MOBIKE). */
  | { readonly type: 'path-changed'; readonly path: Path }
  | { readonly type: 'check-liveness' }
  /** Responder: send the peer elsewhere (RFC 5685), address or name. */
  | { readonly type: 'redirect'; readonly gateway: string }
