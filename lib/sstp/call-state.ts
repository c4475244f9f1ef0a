/**
 * The words of a call: states, events, timers and outcomes ([MS-SSTP] §3.1.1, §3.2.1, §3.3.1), and the
 * rows of the state tables that client and server share: leaving.
 *
 * The states Call_Abort_In_Progress_1/2 and Call_Disconnect_In_Progress_1/2 of the specification last
 * while a message is being handed to the transport; that takes no time here, so they have no name.
 */
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import type { HashName } from './wire/attribute.ts'
import type { MessageName } from './wire/message.ts'

/** §3.1.1, in both roles. */
export type ClosingState =
  /** We sent Call-Abort and wait for the peer's. */
  | 'call-abort-pending'
  /** Both sent theirs; the transport is given a moment to deliver it. */
  | 'call-abort-timeout-pending'
  /** We sent Call-Disconnect and wait for the acknowledgement. */
  | 'call-disconnect-ack-pending'
  /** We acknowledged the peer's Call-Disconnect; the peer closes the transport. */
  | 'call-disconnect-timeout-pending'
  /** Over; nothing is answered any more. */
  | 'call-disconnected'

/** Everything that can happen to a call. */
export type CallEvent =
  | MessageName
  /** A control message of a type that the specification does not have. */
  | 'unknown-message'
  /** A message whose attributes are wrong. */
  | 'bad-attributes'
  /** PPP says that the peer, or we, have been authenticated. */
  | 'authenticated'
  /** PPP is over, or an administrator ended the call. */
  | 'hang-up'
  /** The connection below is gone. */
  | 'transport-closed'
  /** §3.2.2.1, §3.3.2.1: the negotiation timer. */
  | 'negotiation-expired'
  /** Nothing came from the peer for a while; then, nothing came after our Echo-Request either. */
  | 'hello-expired'
  | 'echo-expired'
  /** ABORT_STATE_TIMER or DISCONNECT_TIMER, §3.1.2.1. */
  | 'closing-expired'

export type CallTimer = 'negotiation' | 'hello' | 'echo' | 'closing'

/** Specification constants. */
export const NEGOTIATION_TIMER_MS = 60_000
export const ABORT_STATE_TIMER_1_MS = 3_000
export const ABORT_STATE_TIMER_2_MS = 1_000
export const DISCONNECT_TIMER_1_MS = 5_000
export const DISCONNECT_TIMER_2_MS = 1_000
export const HELLO_TIMER_MS = 60_000

/** What the state tables of both roles do about closing. */
export type ClosingAction =
  /** Count it; nothing changes. */
  | 'ignore'
  /** Not allowed here: send Call-Abort with UNACCEPTED_FRAME_RECEIVED. */
  | 'unaccepted'
  /** Send Call-Abort with the status that the wrong attribute asks for. */
  | 'complain'
  /** Send Call-Abort with INVALID_FRAME_RECEIVED. */
  | 'invalid'
  /** Answer the peer's Call-Abort with ours. */
  | 'answer-abort'
  /** The peer's Call-Abort answers ours. */
  | 'abort-answered'
  /** Answer Call-Disconnect with the acknowledgement. */
  | 'answer-disconnect'
  /** Send Call-Disconnect. */
  | 'disconnect'
  /** The negotiation took too long: Call-Abort with NEGOTIATION_TIMEOUT. */
  | 'negotiation-timeout'
  /** Close the connection now. */
  | 'close'

/** What they do in an established call. */
export type EchoAction = 'answer-echo' | 'send-echo' | 'echo-timeout'

/** The rows of the tables in which a call ends. */
export const closingRows = {
  'call-abort-pending': {
    ...ignoreAll(),
    'call-abort': 'abort-answered',
    'transport-closed': 'close',
    'closing-expired': 'close',
  },
  'call-abort-timeout-pending': {
    ...ignoreAll(),
    'transport-closed': 'close',
    'closing-expired': 'close',
  },
  'call-disconnect-ack-pending': {
    ...ignoreAll(),
    'call-disconnect-ack': 'close',
    // Both sides hung up at once: each acknowledges the other's.
    'call-disconnect': 'answer-disconnect',
    'call-abort': 'answer-abort',
    'transport-closed': 'close',
    'closing-expired': 'close',
  },
  'call-disconnect-timeout-pending': {
    ...ignoreAll(),
    'call-abort': 'answer-abort',
    'transport-closed': 'close',
    'closing-expired': 'close',
  },
  'call-disconnected': ignoreAll(),
} as const satisfies Record<ClosingState, Record<CallEvent, ClosingAction>>

/** §3.1.5: a call that is ending ignores all but the expected answer. */
function ignoreAll(): Record<CallEvent, ClosingAction> {
  return {
    'call-connect-request': 'ignore',
    'call-connect-ack': 'ignore',
    'call-connect-nak': 'ignore',
    'call-connected': 'ignore',
    'call-abort': 'ignore',
    'call-disconnect': 'ignore',
    'call-disconnect-ack': 'ignore',
    'echo-request': 'ignore',
    'echo-response': 'ignore',
    'unknown-message': 'ignore',
    'bad-attributes': 'ignore',
    authenticated: 'ignore',
    'hang-up': 'ignore',
    'transport-closed': 'ignore',
    'negotiation-expired': 'ignore',
    'hello-expired': 'ignore',
    'echo-expired': 'ignore',
    'closing-expired': 'ignore',
  }
}

/** What goes into the machine of either role. */
export type CallInput =
  /** One whole control packet, `bytes[at, end)`. */
  | {
      readonly type: 'control'
      readonly bytes: Uint8Array
      readonly at: number
      readonly end: number
    }
  /** Something came from the peer: proof of life. Need not be said for every packet. */
  | { readonly type: 'received' }
  /** 32 bytes, §3.2.5.2.2; copied. */
  | { readonly type: 'authenticated'; readonly higherLayerKey: Uint8Array }
  /** Ends the call in an orderly way. PPP knows already. */
  | { readonly type: 'hang-up'; readonly cause: DisconnectCause }
  | { readonly type: 'transport-closed' }

/** Why something was refused, answered with an abort, or ignored: names of counters. */
export type CallReason =
  | 'connect-refused'
  | 'retry-count-exceeded'
  | 'unaccepted-message'
  | 'invalid-message'
  | 'bad-attributes'
  | 'undelineable'
  | 'negotiation-timeout'
  | 'echo-timeout'
  | 'ignored-message'
  | 'binding-nonce'
  | 'binding-hash-not-offered'
  | 'binding-certificate'
  | 'binding-mac'
  | 'peer-abort'

/** What comes out, beside control packets to send. */
export type CallOutput =
  /** PPP may begin. */
  | { readonly type: 'link-open' }
  /** The binding is verified (server) or sent (client): IP may flow. */
  | { readonly type: 'traffic-permitted'; readonly hash: HashName }
  /** PPP must stop; said at most once, and not after a `hang-up`. */
  | { readonly type: 'link-down'; readonly cause: DisconnectCause }
  /** For counters and logs; `detail` is ours, never the peer's text. */
  | { readonly type: 'remark'; readonly reason: CallReason; readonly detail: string }
  /** The call is over: close the connection. The last output. */
  | { readonly type: 'close'; readonly cause: DisconnectCause }
