/**
 * The seam between those who negotiate a proof of identity (PPP, EAP, IKEv2) and those who can judge
 * it (local users, RADIUS).
 */
import type { Ipv4Network, Ipv6Network } from '../core/ip-address.ts'
import type { Secret } from '../core/secret.ts'

/** Where and how the call comes in; conditions of policies, attributes of RADIUS. */
export interface CallContext {
  readonly protocol: string
  readonly peerAddress: string
  readonly sessionId: string
}

export type Proof =
  /** RFC 1334 §2. */
  | { readonly method: 'pap'; readonly password: Secret }
  /** RFC 1994 §4.1: MD5 over identifier, secret, challenge. */
  | {
      readonly method: 'chap-md5'
      readonly identifier: number
      readonly challenge: Uint8Array
      readonly response: Uint8Array
    }
  /** RFC 2759 §4. The 16-byte challenges and the 24-byte response. */
  | {
      readonly method: 'mschapv2'
      readonly identifier: number
      readonly authenticatorChallenge: Uint8Array
      readonly peerChallenge: Uint8Array
      readonly ntResponse: Uint8Array
    }
  /** RFC 2759 §7: change of an expired password. */
  | {
      readonly method: 'mschapv2-change-password'
      readonly identifier: number
      readonly authenticatorChallenge: Uint8Array
      readonly peerChallenge: Uint8Array
      readonly ntResponse: Uint8Array
      /** 516 bytes, RC4 under the old NT hash. */
      readonly encryptedPassword: Uint8Array
      /** 16 bytes. */
      readonly encryptedHash: Uint8Array
    }

export type AuthenticationMethod = Proof['method']

export interface AuthenticationRequest {
  /** As the peer sent it, domain prefix included. */
  readonly userName: string
  readonly proof: Proof
  readonly call: CallContext
}

/** What an accepted user is given. Absent means: the server's own settings. */
export interface Authorization {
  /** The name that sessions, limits and accounting go by. */
  readonly userName: string
  readonly groups?: readonly string[]
  /** Host order. */
  readonly ipv4Address?: number
  /** Named pool of the configuration (RFC 2869 §5.18 Framed-Pool). */
  readonly ipv4Pool?: string
  /** RFC 6911 §3.3 Framed-IPv6-Pool. */
  readonly ipv6Pool?: string
  /** The prefix of the link (RFC 3162 §2.3). */
  readonly ipv6Prefix?: Ipv6Network
  /** The prefix behind the client (RFC 4818). */
  readonly delegatedIpv6Prefix?: Ipv6Network
  /** Networks behind the client: Framed-Route, Framed-IPv6-Route. */
  readonly ipv4Routes?: readonly Ipv4Network[]
  readonly ipv6Routes?: readonly Ipv6Network[]
  /** Host order. */
  readonly dnsIpv4?: readonly number[]
  readonly winsIpv4?: readonly number[]
  readonly dnsIpv6?: readonly Uint8Array[]
  readonly sessionTimeoutSeconds?: number
  readonly idleTimeoutSeconds?: number
  readonly maxSessions?: number
  /** Calls that may be one session (RFC 1990). */
  readonly maxLinks?: number
  /** How these come and go by load (RFC 2548 §2.4); absent: as the server has it. */
  readonly linkLoad?: LinkLoad
  /** Between interim accounting records (RFC 2869 §5.16). */
  readonly interimIntervalSeconds?: number
  /** Name of a filter of the configuration (RFC 2865 §5.11 Filter-Id). */
  readonly filterName?: string
  /** Rules in the syntax of RFC 4849 §2, in order; they come before those of `filterName`. */
  readonly filterRules?: readonly string[]
  /** From the client, bit/s of IP. */
  readonly receiveBitsPerSecond?: number
  /** To the client, bit/s of IP. */
  readonly sendBitsPerSecond?: number
  /** What may come at once beyond the rate, bytes. */
  readonly receiveBurstBytes?: number
  readonly sendBurstBytes?: number
  /** MPPE key lengths that the user may agree on, bits; empty: no encryption allowed. */
  readonly mppeKeyBits?: readonly (40 | 56 | 128)[]
  readonly isEncryptionRequired?: boolean
  /** Restricted until released or until the time is over (RFC 2548 §2.7). */
  readonly quarantine?: {
    readonly filterName?: string
    readonly filterRules?: readonly string[]
    readonly timeoutSeconds?: number
  }
  /** Refused unless an access policy permits it: `dialIn: policy`. */
  readonly isPolicyRequired?: boolean
  /** Given back in every accounting record, unread (RFC 2865 §5.25 Class). */
  readonly accountingClass?: readonly Uint8Array[]
}

/** What is absent is as the server has it. */
export interface LinkLoad {
  /** False: never by load. */
  readonly usesBap?: boolean
  /** One link less is enough below this share of all, 1 to 100, after so long a time. */
  readonly dropBelowPercent?: number
  readonly dropAfterSeconds?: number
}

/** 16-byte MPPE master keys, from the server's point of view (RFC 3079 §3.3). */
export interface MasterKeys {
  readonly receive: Uint8Array
  readonly send: Uint8Array
}

/** Why a proof was refused; the peer learns no more than its protocol says (E=691 and the like). */
export type RejectReason =
  | 'bad-credentials'
  | 'locked-out'
  | 'account-disabled'
  | 'account-expired'
  | 'password-expired'
  | 'no-dial-in'
  | 'restricted-hours'
  | 'change-password-failed'
  | 'method-not-allowed'
  | 'backend-unavailable'

export type Verdict =
  | {
      readonly type: 'accept'
      readonly authorization: Authorization
      /** Present for methods that make keys. */
      readonly keys?: MasterKeys
      /** MS-CHAPv2: the 42 characters `S=` and 40 hexadecimal digits (RFC 2759 §5). */
      readonly authenticatorResponse?: string
      /** Text for the user. */
      readonly message?: string
    }
  | {
      readonly type: 'reject'
      readonly reason: RejectReason
      /** The peer may try again on the same link (MS-CHAPv2 R=1). */
      readonly canRetry: boolean
      readonly message?: string
    }

export interface Authenticator {
  /** Never rejects its promise: a backend that fails gives `backend-unavailable`. */
  authenticate(request: AuthenticationRequest): Promise<Verdict>
}
