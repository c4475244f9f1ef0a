/** What an IKE SA tells. */
import type { AuthenticationRequest, Authorization } from '../aaa/authenticator.ts'
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import type { WireFault } from '../core/faults.ts'
import type { ConfigurationGrant, ConfigurationRequest } from './configuration.ts'
import type { EspKeys } from './key-schedule.ts'
import type { ResumableSession } from './options.ts'
import type { Path } from './path.ts'
import type { EspSuite } from './suite.ts'
import type { Identification } from './wire/identification.ts'
import type { TrafficSelector } from './wire/traffic-selector.ts'

/** A Child SA as ESP needs it. The receiver of the event owns the keys. */
export interface ChildDescription {
  /** Of packets to us; it names the Child SA in inputs and events. */
  readonly inboundSpi: number
  readonly outboundSpi: number
  readonly suite: EspSuite
  readonly inbound: EspKeys
  readonly outbound: EspKeys
  readonly mode: 'tunnel' | 'transport'
  readonly localSelectors: readonly TrafficSelector[]
  readonly remoteSelectors: readonly TrafficSelector[]
  readonly isUdpEncapsulated: boolean
  readonly path: Path
  /** The peer drops padding beyond the block size (RFC 4303 §2.7). */
  readonly refusesTfcPadding: boolean
}

/** How the peer proved who it is. */
export type AuthenticatedBy = 'eap' | 'certificate' | 'psk' | 'resumption'

export type ChildDownReason = 'rekeyed' | 'deleted-by-peer' | 'deleted' | 'ike-closed'

/** Why an SA ended, finer than the cause: stable words for logs and diagnosis. */
export type CloseDetail = string

export type IkeSaEvent =
  /** Send this along this path. Always the machine's own bytes; add the non-ESP marker on port 4500. */
  | { readonly type: 'datagram'; readonly path: Path; readonly bytes: Uint8Array }
  /** Datagrams with this as our SPI belong to this machine from now on, or no more. */
  | { readonly type: 'spi-added'; readonly localSpi: Uint8Array; readonly isInitiatorSpi: boolean }
  | { readonly type: 'spi-removed'; readonly localSpi: Uint8Array }
  /** Answer with `verdict`. */
  | {
      readonly type: 'authenticate'
      readonly ticket: number
      readonly request: AuthenticationRequest
    }
  /** EAP waits for this, which never rejects; answer with `eap-wake`. */
  | { readonly type: 'eap-pending'; readonly ticket: number; readonly settled: Promise<void> }
  /** Answer with `certificate-verdict`. The peer's own certificate is first. */
  | {
      readonly type: 'verify-certificate'
      readonly ticket: number
      readonly certificates: readonly Uint8Array[]
      readonly identity: Identification
      readonly purpose: 'client' | 'server'
    }
  /** The peer is who it says it is; answer with `grant-verdict`. Responder only. */
  | {
      readonly type: 'need-grant'
      readonly ticket: number
      readonly authenticatedBy: AuthenticatedBy
      readonly identity: Identification
      /** User name of sessions and limits. */
      readonly userName: string
      readonly authorization: Authorization | undefined
      /** Undefined when the peer sent no CFG_REQUEST: a site, not a user. */
      readonly configuration: ConfigurationRequest | undefined
      readonly proposedLocalSelectors: readonly TrafficSelector[]
      readonly proposedRemoteSelectors: readonly TrafficSelector[]
      /** Of a ticket: what `resumeMemo` was when it was made (RFC 5723). */
      readonly resumed: Uint8Array | undefined
      /** Close other SAs of this identity: it has started anew (RFC 7296 §2.4). */
      readonly isInitialContact: boolean
    }
  | {
      readonly type: 'established'
      readonly authenticatedBy: AuthenticatedBy
      readonly identity: Identification
      readonly userName: string
      readonly authorization: Authorization | undefined
      /** Initiator: what we were given. Responder: what we gave. */
      readonly configuration: ConfigurationGrant
      /** `AES-GCM-16-256/…` for people. */
      readonly suite: string
      readonly path: Path
      readonly isPeerBehindNat: boolean
      readonly usesMobike: boolean
      readonly isWindows: boolean
    }
  /** Install both directions; send through it when `child-active` says so. */
  | {
      readonly type: 'child-up'
      readonly child: ChildDescription
      /** Inbound SPI of the Child SA that it replaces. */
      readonly replaces: number | undefined
    }
  | { readonly type: 'child-active'; readonly inboundSpi: number }
  | { readonly type: 'child-down'; readonly inboundSpi: number; readonly reason: ChildDownReason }
  /** Both directions of all Child SAs use this path now. */
  | { readonly type: 'moved'; readonly path: Path; readonly isUdpEncapsulated: boolean }
  /** The IKE SA has new keys and SPIs. */
  | { readonly type: 'ike-rekeyed' }
  /** Initiator: with this the IKE SA can be brought back within its lifetime. */
  | {
      readonly type: 'ticket'
      readonly session: ResumableSession
      readonly lifetimeSeconds: number
    }
  /** Initiator: dial this gateway instead. `closed` follows. */
  | { readonly type: 'redirected'; readonly gateway: string }
  /** The last event. */
  | { readonly type: 'closed'; readonly cause: DisconnectCause; readonly detail: CloseDetail }
  /** Count it: something that a table does not foresee, or a refusal. */
  | { readonly type: 'unexpected'; readonly what: string }
  | { readonly type: 'malformed'; readonly fault: WireFault }
  | { readonly type: 'key-log'; readonly line: string }
