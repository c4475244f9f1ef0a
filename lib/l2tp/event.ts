/** What goes into a tunnel's machine and what it reports. */
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import type { CallRole, CallState } from './call-table.ts'
import type { CloseReason } from './close-reason.ts'
import type { ControlConnectionState } from './control-connection.ts'
import type { MessageName } from './wire/avp-table.ts'
import type { Accm, CallErrors } from './wire/avp-value.ts'

export type L2tpInput =
  /** One control message of the peer, from the header on; bytes behind its length are ignored. */
  | { readonly type: 'packet'; readonly bytes: Uint8Array }
  /** Open the tunnel: we are its initiator. */
  | { readonly type: 'open' }
  /** Place a call: as LAC for a caller (`incoming`), as LNS to a callee (`outgoing`). */
  | { readonly type: 'place-call'; readonly call: CallRequest }
  /** The callee of an offered outgoing call has answered. */
  | { readonly type: 'answer-call'; readonly sessionId: number }
  | {
      readonly type: 'close-call'
      readonly sessionId: number
      readonly cause: DisconnectCause
      readonly message?: string
    }
  /** LNS: tell the LAC what LCP has negotiated (SLI). */
  | { readonly type: 'set-link-info'; readonly sessionId: number; readonly accm: Accm }
  /** Data of this tunnel, or any other sign of life, has arrived since the last input. */
  | { readonly type: 'alive' }
  | { readonly type: 'close'; readonly cause: DisconnectCause; readonly message?: string }

export interface CallRequest {
  /** Comes back in `call-up` and `call-down`: the owner's own number for the call. */
  readonly reference: number
  readonly direction: 'incoming' | 'outgoing'
  readonly callingNumber?: string
  readonly calledNumber?: string
  readonly subAddress?: string
  /** Asks for sequence numbers on data (RFC 2661 §5.4); LAC only. */
  readonly isSequenced?: boolean
  /** Outgoing calls; bits per second. */
  readonly minimumBps?: number
  readonly maximumBps?: number
  /** LAC: what was negotiated with the caller before this tunnel (§4.4.5). */
  readonly proxy?: ProxyState
}

/** Proxy LCP and proxy authentication (RFC 2661 §4.4.5): what the LAC has already done. */
export interface ProxyState {
  readonly initialReceivedConfReq?: Uint8Array
  readonly lastSentConfReq?: Uint8Array
  readonly lastReceivedConfReq?: Uint8Array
  readonly proxyAuthenType?: number
  readonly proxyAuthenName?: Uint8Array
  readonly proxyAuthenChallenge?: Uint8Array
  readonly proxyAuthenId?: number
  readonly proxyAuthenResponse?: Uint8Array
}

/** What both sides have said about a call. */
export interface CallParameters {
  readonly callSerialNumber: number
  readonly callingNumber: string
  readonly calledNumber: string
  readonly subAddress: string
  /** From the peer, bits per second; 0 when it said nothing. */
  readonly connectSpeedBps: number
  readonly receiveConnectSpeedBps: number
  readonly framingType: number
  readonly bearerType: number
  /** Outgoing calls; bits per second. */
  readonly minimumBps: number
  readonly maximumBps: number
  /** Sequence numbers must be present on data for the whole call. */
  readonly isSequenced: boolean
  readonly privateGroupId?: Uint8Array
  readonly proxy?: ProxyState
}

export type L2tpEvent =
  | { readonly type: 'tunnel-up'; readonly peerTunnelId: number; readonly peer: PeerIdentity }
  /** LAC: an outgoing call is asked for; answer with `answer-call` or `close-call`. */
  | {
      readonly type: 'call-offered'
      readonly sessionId: number
      readonly parameters: CallParameters
    }
  | {
      readonly type: 'call-up'
      readonly sessionId: number
      readonly peerTunnelId: number
      readonly peerSessionId: number
      readonly role: CallRole
      /** Of `place-call`; undefined for calls of the peer. */
      readonly reference: number | undefined
      readonly parameters: CallParameters
    }
  /** The last word on a call, also on one that never came up. */
  | {
      readonly type: 'call-down'
      readonly sessionId: number
      readonly reference: number | undefined
      readonly wasUp: boolean
      readonly by: 'peer' | 'us'
      readonly reason: CloseReason
    }
  | { readonly type: 'link-info'; readonly sessionId: number; readonly accm: Accm }
  | { readonly type: 'wan-error'; readonly sessionId: number; readonly errors: CallErrors }
  /** The peer's simultaneous request wins (RFC 2661 §4.4.3): give it to a new tunnel. */
  | { readonly type: 'tie-lost' }
  /** A message in a state that has no use for it; nothing changed. */
  | {
      readonly type: 'unexpected'
      readonly state: ControlConnectionState | CallState
      readonly message: MessageName
    }
  | {
      readonly type: 'tunnel-down'
      readonly wasUp: boolean
      readonly by: 'peer' | 'us'
      readonly reason: CloseReason
    }
  /** Nothing is left to acknowledge: forget the machine and its tunnel ID. */
  | { readonly type: 'closed' }

export interface PeerIdentity {
  readonly hostName: string
  readonly vendorName: string
  readonly firmwareRevision: number
}
