/** What goes into a control connection's machine and what comes out of it. */
import type { DisconnectCause } from '../core/disconnect-cause.ts'

export type ControlInput =
  /** Client: the TCP connection is there. */
  | { readonly type: 'open' }
  /** Bytes of the stream, cut anywhere; used during the call only. */
  | { readonly type: 'received'; readonly bytes: Uint8Array }
  /** Server: the answer to `call-requested`. */
  | { readonly type: 'answer'; readonly callId: number; readonly isAccepted: boolean }
  /** Client: place a call. */
  | { readonly type: 'place-call' }
  /** End one call in an orderly way. */
  | { readonly type: 'clear-call'; readonly callId: number; readonly cause: DisconnectCause }
  /** End all calls and the connection. */
  | { readonly type: 'stop'; readonly cause: DisconnectCause }
  /** The TCP connection is gone. */
  | { readonly type: 'transport-closed' }

/** What both ends of a GRE session need to know. */
export interface CallParameters {
  /** Ours: what the peer writes into the packets that it sends us. */
  readonly callId: number
  readonly peerCallId: number
  /** Packets that the peer is willing to hold unacknowledged. */
  readonly peerWindowPackets: number
  /** How long the peer says that it needs for as many. */
  readonly peerDelayMs: number
}

export type ControlEvent =
  /** The control connection is up. */
  | { readonly type: 'established'; readonly hostName: string; readonly vendorName: string }
  /** Server: answer with `answer`. */
  | ({ readonly type: 'call-requested' } & CallParameters)
  /** The call is up; GRE may flow. */
  | ({ readonly type: 'call-up' } & CallParameters)
  /** It is not, or not any more. Said once for each `call-requested` or `place-call`. */
  | { readonly type: 'call-down'; readonly callId: number; readonly cause: DisconnectCause }
  /** Something that was dropped or refused: a name to count. */
  | { readonly type: 'remark'; readonly counter: string }
  /** The last event: close the TCP connection, after what was transmitted. */
  | { readonly type: 'close'; readonly counter: string }
