/** How one IKE SA shall behave. Everything is a value; the machine asks nobody. */
import type { KeyObject } from 'node:crypto'
import type { RandomSource } from '../core/random.ts'
import type { Secret } from '../core/secret.ts'
import type { EapConversationMaker } from '../eap/conversation.ts'
import type { EapPeerMethod, EapServerMethodMaker } from '../eap/method.ts'
import type { SignaturePolicy } from './signature.ts'
import {
  defaultEspAlgorithms,
  defaultIkeAlgorithms,
  type EspAlgorithms,
  type IkeAlgorithms,
} from './suite.ts'
import type { Resumption } from './ticket.ts'
import type { TicketOffice } from './ticket-office.ts'
import type { Identification } from './wire/identification.ts'
import type { TrafficSelector } from './wire/traffic-selector.ts'

/** How we prove who we are. */
export type Credential =
  /** DER certificates, our own first, then its issuers without the root. */
  | {
      readonly type: 'certificate'
      readonly chain: readonly Uint8Array[]
      readonly key: KeyObject
    }
  | { readonly type: 'psk'; readonly secret: Secret }
  /** Initiator only. */
  | {
      readonly type: 'eap'
      readonly userName: string
      readonly methods: readonly (() => EapPeerMethod)[]
    }
  /** Responder with EAP-only authentication (RFC 5998): EAP's key proves both sides. */
  | { readonly type: 'none' }

export interface LocalIdentity {
  readonly identity: Identification
  readonly credential: Credential
}

/** What we accept from the peer as proof. */
export interface PeerPolicy {
  /** Signatures under certificates; each is put before the composer as an event. */
  readonly acceptsCertificates: boolean
  /** SHA-1 hashes of the public keys of authorities that we trust, 20 bytes each, for CERTREQ. */
  readonly authorities: readonly Uint8Array[]
  /** The first entry whose identity is the peer's, or that has none, is taken. */
  readonly presharedKeys: readonly {
    readonly identity: Identification | undefined
    readonly secret: Secret
  }[]
  /** Responder: EAP methods in order of preference; absent when users may not come with EAP. */
  readonly eap?: {
    readonly methods: readonly EapServerMethodMaker[]
    /** Who converses instead of us with these methods: a relay. */
    readonly begin?: EapConversationMaker
    /** Let a peer ask us not to sign (RFC 5998). Needs methods that make keys. */
    readonly acceptsEapOnly: boolean
  }
  /** Initiator: the identity that the responder must have; absent takes what its proof covers. */
  readonly expectedIdentity?: Identification
}

/** The Child SA that an initiator asks for, and what a responder allows besides tunnels. */
export interface ChildPolicy {
  readonly algorithms: EspAlgorithms
  /** Initiator: ask for transport mode. Responder: accept it when the peer asks. */
  readonly transportMode: boolean
  /** Initiator: what it proposes. A responder narrows to its grant instead. */
  readonly localSelectors: readonly TrafficSelector[]
  readonly remoteSelectors: readonly TrafficSelector[]
}

/** All times in milliseconds. */
export interface Timing {
  /** RFC 7296 §2.4: the n-th repetition follows after `firstMs` times `factor` to the n, at most `capMs`. */
  readonly retransmit: {
    readonly firstMs: number
    readonly factor: number
    readonly capMs: number
    readonly tries: number
  }
  /** From the first message to the end of authentication; a user may have to type a password. */
  readonly setupMs: number
  /** Silence until we ask whether the peer lives; 0 never. */
  readonly livenessMs: number
  /** Age at which we rekey the IKE SA, and at which it ends whatever happens; 0 never. */
  readonly ikeRekeyMs: number
  readonly ikeExpireMs: number
  readonly childRekeyMs: number
  readonly childExpireMs: number
  /** How much of a rekey time, at most, is taken off at random so that peers do not collide, 0..1. */
  readonly rekeyJitter: number
  /** How long a replaced SA waits for its creator to delete it. */
  readonly lingerMs: number
  /** Pause before an exchange that the peer answered with TEMPORARY_FAILURE is tried again. */
  readonly busyRetryMs: number
}

export interface Features {
  readonly mobike: boolean
  readonly fragmentation: boolean
  /** Largest IP packet that we send, bytes; a message beyond it is cut (RFC 7383 §4). */
  readonly fragmentPacketBytes: number
  /** What requests are cut to after `fallbackAfterTries` unanswered repetitions. */
  readonly fallbackPacketBytes: number
  readonly fallbackAfterTries: number
  /** Act as if a NAT were between, so that ESP goes in UDP. */
  readonly forcesEncapsulation: boolean
  /** Initiator: say that it is our only IKE SA with this identity. */
  readonly sendsInitialContact: boolean
  /** Responder: after an address change, see a COOKIE2 come back before ESP follows (RFC 4555 §3.7). */
  readonly checksReturnRoutability: boolean
  /** Announce and accept set-up without a Child SA (RFC 6023). */
  readonly childless: boolean
  /** Initiator: set up without a Child SA where the responder can (RFC 6023); `create-child` makes them. */
  readonly startsChildless: boolean
  /** Initiator: follow REDIRECT (RFC 5685). */
  readonly redirect: boolean
  /** Initiator: ask for tickets, to come back with (RFC 5723). */
  readonly requestsTicket: boolean
  /** Emit Wireshark key lines. For debugging only. */
  readonly keyLog: boolean
}

/** What an IKE SA has of the process that it runs in. */
export interface IkeSaHost {
  readonly random: RandomSource
  /** An inbound ESP SPI, at least 256 (RFC 4303 §2.1); they are unique in the process, not in an IKE SA. */
  newEspSpi(): number
  /** Authentic ESP has come since this was asked last. */
  hasHeard(): boolean
}

/** Post-quantum preshared keys by identity (RFC 8784). */
export interface PpkPolicy {
  readonly keys: readonly { readonly identity: Uint8Array; readonly secret: Secret }[]
  /** Refuse peers that do not use one. */
  readonly isMandatory: boolean
}

/** What an initiator keeps of an IKE SA. */
export interface ResumableSession extends Resumption {
  readonly ticket: Uint8Array
}

/** Thousands of IKE SAs may share them. */
export interface IkeSaOptions {
  readonly role: 'initiator' | 'responder'
  /** Never empty. A responder takes the one that IDr names, else the first. */
  readonly localIdentities: readonly [LocalIdentity, ...LocalIdentity[]]
  readonly peer: PeerPolicy
  readonly signature: SignaturePolicy
  readonly ikeAlgorithms: IkeAlgorithms
  readonly child: ChildPolicy
  /** Initiator: attribute numbers of the CFG_REQUEST; absent sends none. */
  readonly configurationAttributes?: readonly number[]
  readonly ppk?: PpkPolicy
  /** Initiator: the IKE SA to come back to; from scratch when the responder does not know it. */
  readonly resume?: ResumableSession
  /** Responder: the gateway, a name or an address, that peers are sent to who would go (RFC 5685). */
  readonly redirectTo?: string
  /** Responder: where tickets are made and taken; absent refuses them. Shared by all. */
  readonly tickets?: TicketOffice
  /** Vendor IDs to send in IKE_SA_INIT. */
  readonly vendorIds: readonly Uint8Array[]
  readonly timing: Timing
  readonly features: Features
}

export const defaultTiming: Timing = {
  retransmit: { firstMs: 2000, factor: 1.8, capMs: 30_000, tries: 6 },
  setupMs: 60_000,
  livenessMs: 60_000,
  // 24 h as Apple profiles have it; strongSwan and Windows rekey earlier by themselves.
  ikeRekeyMs: 4 * 3_600_000,
  ikeExpireMs: 24 * 3_600_000,
  childRekeyMs: 3_600_000,
  childExpireMs: 3 * 3_600_000,
  rekeyJitter: 0.1,
  lingerMs: 30_000,
  busyRetryMs: 10_000,
}

export const defaultFeatures: Features = {
  mobike: true,
  fragmentation: true,
  fragmentPacketBytes: 1280,
  fallbackPacketBytes: 576,
  fallbackAfterTries: 2,
  forcesEncapsulation: false,
  sendsInitialContact: false,
  checksReturnRoutability: true,
  childless: true,
  startsChildless: false,
  redirect: true,
  requestsTicket: false,
  keyLog: false,
}

export const defaultSignaturePolicy: SignaturePolicy = { acceptsSha1: true, prefersPss: false }

export const defaultAlgorithms = { ike: defaultIkeAlgorithms, esp: defaultEspAlgorithms } as const
