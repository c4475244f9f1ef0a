/** What goes into the machine of an ISAKMP SA and what it reports. */
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import type { PacketKeys, PacketSuite } from '../crypto/packet-cipher.ts'
import type { MainModeState } from './main-mode.ts'
import type { NatState, Path } from './path.ts'
import type { Lifetimes, Phase1AuthenticationMethod, Phase1Suite } from './policy.ts'
import type { VendorIdName } from './vendor-ids.ts'
import type { Identification } from './wire/payload.ts'

/** A pair of ESP SAs, transport mode. */
export interface Child {
  /** Chosen by us: stands in packets that we receive. */
  readonly inboundSpi: number
  readonly outboundSpi: number
  readonly suite: PacketSuite
  readonly inboundKeys: PacketKeys
  readonly outboundKeys: PacketKeys
  /** ESP travels in UDP, on the path of the ISAKMP SA. */
  readonly isUdpEncapsulated: boolean
  /** Phase 2 identities: which traffic, as the peers say it. The address may be a private one. */
  readonly localSelector: Identification
  readonly peerSelector: Identification
  /** NAT-OA (RFC 3947 §5.2): the peer's own view of its and our address. */
  readonly originalAddresses: readonly Uint8Array[]
  readonly lifetimes: Lifetimes
  /** The group of perfect forward secrecy; who replaces the pair asks for it again. */
  readonly group: number | undefined
  /** We asked for it. */
  readonly isInitiator: boolean
  /** Monotonic ms. */
  readonly createdMs: number
  /** Inbound SPI of the pair that this one takes over from. */
  readonly replaces: number | undefined
}

export interface ChildRequest {
  /** Comes back in `child-failed`. */
  readonly reference: number
  /** Undefined: our address as we know it, UDP, any port of ours to the service of the policy. */
  readonly localSelector?: Identification
  readonly peerSelector?: Identification
  /** Ask for perfect forward secrecy. */
  readonly isPerfectForwardSecret?: boolean
}

export type IsakmpInput =
  /** A datagram without the non-ESP marker; `path` is how it came. */
  | { readonly type: 'packet'; readonly bytes: Uint8Array; readonly path: Path }
  /** Begin main mode as initiator. */
  | { readonly type: 'open'; readonly path: Path }
  /** Begin quick mode; before phase 1 is up it waits for that. */
  | { readonly type: 'open-child'; readonly request: ChildRequest }
  /** A volume limit is near: replace this pair. Time limits are watched in here. */
  | { readonly type: 'rekey-child'; readonly inboundSpi: number }
  | { readonly type: 'close-child'; readonly inboundSpi: number }
  /** An authentic packet came in on this pair; the first one also confirms it. */
  | { readonly type: 'traffic'; readonly inboundSpi: number }
  /** Authentic ESP came from another address or port: a NAT has moved the peer (RFC 3947 §7). */
  | { readonly type: 'peer-moved'; readonly path: Path }
  /** Children of an older ISAKMP SA with the same peer. */
  | { readonly type: 'adopt'; readonly children: readonly Child[] }
  /** A newer ISAKMP SA takes over: end without touching the children. */
  | { readonly type: 'replaced' }
  | { readonly type: 'close'; readonly cause: DisconnectCause }

export type IsakmpEvent =
  | {
      readonly type: 'phase1-up'
      readonly isInitiator: boolean
      readonly identity: Identification
      readonly method: Phase1AuthenticationMethod
      readonly suite: Phase1Suite
      readonly nat: NatState
      readonly path: Path
      readonly vendorIds: ReadonlySet<VendorIdName>
      readonly lifetimes: Lifetimes
      /** Subject of the peer's certificate. */
      readonly subject: string | undefined
    }
  /** Install both directions now; send on it only when `canSend`, else after `child-confirmed`. */
  | { readonly type: 'child-up'; readonly child: Child; readonly canSend: boolean }
  | { readonly type: 'child-confirmed'; readonly inboundSpi: number }
  | {
      readonly type: 'child-down'
      readonly inboundSpi: number
      readonly outboundSpi: number
      readonly by: 'peer' | 'us'
      readonly detail: string
    }
  | { readonly type: 'child-failed'; readonly reference: number; readonly detail: string }
  /** The peer deletes a pair that is not ours: of an older ISAKMP SA, perhaps. */
  | { readonly type: 'foreign-delete'; readonly outboundSpi: number }
  /** Phase 1 grows old: open a new machine on the same path as initiator. */
  | { readonly type: 'rekey-due' }
  /** The peer says that it has nothing of what was before (RFC 2407 §4.6.3.3). */
  | { readonly type: 'initial-contact' }
  | { readonly type: 'path-changed'; readonly path: Path }
  /** A protected notification that we make nothing of. */
  | { readonly type: 'notified'; readonly notifyType: number; readonly name: string }
  | {
      readonly type: 'unexpected'
      readonly state: MainModeState | 'phase-2'
      readonly what: string
    }
  | {
      readonly type: 'closed'
      readonly wasUp: boolean
      readonly by: 'peer' | 'us'
      readonly cause: DisconnectCause
      readonly detail: string
      /** Still alive: for `adopt` of another machine, or for nobody until their lifetimes end. */
      readonly children: readonly Child[]
    }
