/**
 * Which control message is welcome when (RFC 2637 §3.1, §3.2), as a table: connection state by
 * message. `null` is a message that changes nothing and is counted.
 *
 * States of the control connection:
 * - `wait-request`: server; nothing was said yet.
 * - `wait-reply`: client; our Start-Control-Connection-Request is out.
 * - `established`: calls may come and go.
 * - `wait-stop`: our Stop-Control-Connection-Request is out.
 * - `closed`: nothing is said any more.
 */
import type { ControlType } from './wire/control-message.ts'

export type ControlState = 'wait-request' | 'wait-reply' | 'established' | 'wait-stop' | 'closed'

/** The reaction to a message; one method of the machine each. */
export type Reaction =
  | 'begin'
  | 'begun'
  | 'obey-stop'
  | 'stopped'
  | 'answer-echo'
  | 'echoed'
  | 'offer-call'
  | 'call-answered'
  | 'decline-incoming'
  | 'clear'
  | 'disconnected'
  | 'note'
  /** The peer broke the protocol: close. */
  | 'violation'
  | null

const nothing = {
  'start-control-connection-request': null,
  'start-control-connection-reply': null,
  'stop-control-connection-request': null,
  'stop-control-connection-reply': null,
  'echo-request': null,
  'echo-reply': null,
  'outgoing-call-request': null,
  'outgoing-call-reply': null,
  'incoming-call-request': null,
  'incoming-call-reply': null,
  'incoming-call-connected': null,
  'call-clear-request': null,
  'call-disconnect-notify': null,
  'wan-error-notify': null,
  'set-link-info': null,
} as const satisfies Record<ControlType, Reaction>

export const controlTable = {
  // RFC 2637 §3.1.3: whatever is not the request that opens the connection breaks it.
  'wait-request': {
    'start-control-connection-request': 'begin',
    'start-control-connection-reply': 'violation',
    'stop-control-connection-request': 'violation',
    'stop-control-connection-reply': 'violation',
    'echo-request': 'violation',
    'echo-reply': 'violation',
    'outgoing-call-request': 'violation',
    'outgoing-call-reply': 'violation',
    'incoming-call-request': 'violation',
    'incoming-call-reply': 'violation',
    'incoming-call-connected': 'violation',
    'call-clear-request': 'violation',
    'call-disconnect-notify': 'violation',
    'wan-error-notify': 'violation',
    'set-link-info': 'violation',
  },
  'wait-reply': {
    ...nothing,
    // A collision (§3.1.3) needs a peer that dialled us on a connection that we dialled.
    'start-control-connection-request': 'violation',
    'start-control-connection-reply': 'begun',
    'stop-control-connection-request': 'obey-stop',
    'echo-request': 'answer-echo',
  },
  established: {
    // §2.1: a second request on the same connection.
    'start-control-connection-request': 'violation',
    'start-control-connection-reply': null,
    'stop-control-connection-request': 'obey-stop',
    'stop-control-connection-reply': null,
    'echo-request': 'answer-echo',
    'echo-reply': 'echoed',
    'outgoing-call-request': 'offer-call',
    'outgoing-call-reply': 'call-answered',
    'incoming-call-request': 'decline-incoming',
    'incoming-call-reply': null,
    'incoming-call-connected': null,
    'call-clear-request': 'clear',
    'call-disconnect-notify': 'disconnected',
    'wan-error-notify': 'note',
    'set-link-info': 'note',
  },
  'wait-stop': {
    ...nothing,
    'stop-control-connection-request': 'obey-stop',
    'stop-control-connection-reply': 'stopped',
    'echo-request': 'answer-echo',
    'call-disconnect-notify': 'disconnected',
  },
  closed: nothing,
} as const satisfies Record<ControlState, Record<ControlType, Reaction>>
