/**
 * The states of calls: RFC 2661 §7.4.1 to §7.4.4, cell for cell. One table for each pair of
 * direction and role; `request`, `reply` and `connected` are ICRQ, ICRP, ICCN of incoming calls and
 * OCRQ, OCRP, OCCN of outgoing ones.
 *
 * idle            no call
 * wait-tunnel     waiting for the control connection
 * wait-reply      request sent
 * wait-connect    the other side prepares the call
 * wait-cs-answer  LAC, outgoing: the called party has not answered
 * established     PPP may flow
 */

export type CallState =
  | 'idle'
  | 'wait-tunnel'
  | 'wait-reply'
  | 'wait-connect'
  | 'wait-cs-answer'
  | 'established'

export type CallEvent =
  /** A local request for a call: bearer ring at the LAC, dial-out at the LNS. */
  | 'open'
  | 'tunnel-open'
  /** Messages received; `-bad` when not acceptable. */
  | 'request'
  | 'request-bad'
  | 'reply'
  | 'reply-bad'
  | 'connected'
  | 'connected-bad'
  | 'cdn'
  /** LAC, outgoing: the called party answered. */
  | 'answer'
  /** A local request to end the call, or a bearer that dropped. */
  | 'close'

export type CallAction =
  | 'open-tunnel'
  | 'send-request'
  | 'send-reply'
  | 'send-connected'
  | 'send-cdn'
  /** Ask the owner to reach the called party. */
  | 'offer'
  | 'call-up'
  | 'clean-up'

export interface CallCell {
  readonly next: CallState
  readonly actions: readonly CallAction[]
}

type CallTable<S extends CallState> = Record<S, Record<CallEvent, CallCell | null>>

const to = (next: CallState, ...actions: CallAction[]): CallCell => ({ next, actions })
const refused = to('idle', 'send-cdn', 'clean-up')
const gone = to('idle', 'clean-up')

/** Messages that belong to no state of a call that is up or coming up. */
const refusals = {
  request: refused,
  'request-bad': refused,
  reply: refused,
  'reply-bad': refused,
  connected: refused,
  'connected-bad': refused,
} as const

/** Local events that have no meaning once a call has begun. */
const begun = { open: null, 'tunnel-open': null, answer: null } as const

/** §7.4.1: the LAC's side of an incoming call. */
export const incomingLacTable = {
  idle: {
    open: to('wait-tunnel', 'open-tunnel'),
    'tunnel-open': null,
    // An ICRQ in idle begins a call of the other table.
    request: null,
    'request-bad': null,
    reply: gone,
    'reply-bad': gone,
    connected: gone,
    'connected-bad': gone,
    cdn: gone,
    answer: null,
    close: null,
  },
  'wait-tunnel': {
    open: null,
    'tunnel-open': to('wait-reply', 'send-request'),
    request: null,
    'request-bad': null,
    reply: null,
    'reply-bad': null,
    connected: null,
    'connected-bad': null,
    cdn: null,
    answer: null,
    close: gone,
  },
  'wait-reply': {
    ...begun,
    request: refused,
    'request-bad': refused,
    reply: to('established', 'send-connected', 'call-up'),
    'reply-bad': refused,
    connected: gone,
    'connected-bad': gone,
    cdn: gone,
    close: refused,
  },
  established: { ...begun, ...refusals, cdn: gone, close: refused },
} as const satisfies CallTable<'idle' | 'wait-tunnel' | 'wait-reply' | 'established'>

/** §7.4.2: the LNS's side of an incoming call. */
export const incomingLnsTable = {
  idle: {
    ...begun,
    request: to('wait-connect', 'send-reply'),
    'request-bad': refused,
    reply: refused,
    'reply-bad': refused,
    connected: gone,
    'connected-bad': gone,
    cdn: gone,
    close: null,
  },
  'wait-connect': {
    ...begun,
    request: refused,
    'request-bad': refused,
    reply: refused,
    'reply-bad': refused,
    connected: to('established', 'call-up'),
    'connected-bad': refused,
    cdn: gone,
    close: refused,
  },
  established: { ...begun, ...refusals, cdn: gone, close: refused },
} as const satisfies CallTable<'idle' | 'wait-connect' | 'established'>

/** §7.4.3: the LAC's side of an outgoing call. */
export const outgoingLacTable = {
  idle: {
    ...begun,
    request: to('wait-cs-answer', 'send-reply', 'offer'),
    'request-bad': refused,
    reply: refused,
    'reply-bad': refused,
    connected: gone,
    'connected-bad': gone,
    cdn: gone,
    close: null,
  },
  'wait-cs-answer': {
    ...refusals,
    open: null,
    'tunnel-open': null,
    answer: to('established', 'send-connected', 'call-up'),
    cdn: gone,
    close: refused,
  },
  established: { ...begun, ...refusals, cdn: gone, close: refused },
} as const satisfies CallTable<'idle' | 'wait-cs-answer' | 'established'>

/** §7.4.4: the LNS's side of an outgoing call. */
export const outgoingLnsTable = {
  idle: {
    open: to('wait-tunnel', 'open-tunnel'),
    'tunnel-open': null,
    request: null,
    'request-bad': null,
    reply: gone,
    'reply-bad': gone,
    connected: gone,
    'connected-bad': gone,
    cdn: gone,
    answer: null,
    close: null,
  },
  'wait-tunnel': {
    open: null,
    'tunnel-open': to('wait-reply', 'send-request'),
    request: null,
    'request-bad': null,
    reply: null,
    'reply-bad': null,
    connected: null,
    'connected-bad': null,
    cdn: null,
    answer: null,
    close: gone,
  },
  'wait-reply': {
    ...begun,
    request: refused,
    'request-bad': refused,
    reply: to('wait-connect'),
    'reply-bad': refused,
    connected: refused,
    'connected-bad': refused,
    cdn: gone,
    close: refused,
  },
  'wait-connect': {
    ...begun,
    request: refused,
    'request-bad': refused,
    reply: refused,
    'reply-bad': refused,
    connected: to('established', 'call-up'),
    'connected-bad': refused,
    cdn: gone,
    close: refused,
  },
  established: { ...begun, ...refusals, cdn: gone, close: refused },
} as const satisfies CallTable<
  'idle' | 'wait-tunnel' | 'wait-reply' | 'wait-connect' | 'established'
>

export const callTables = {
  'incoming-lac': incomingLacTable,
  'incoming-lns': incomingLnsTable,
  'outgoing-lac': outgoingLacTable,
  'outgoing-lns': outgoingLnsTable,
} as const

export type CallRole = keyof typeof callTables

/** The cell of a role's table; null also for a state that the role does not have. */
export function callCell(role: CallRole, state: CallState, event: CallEvent): CallCell | null {
  const table: Partial<Record<CallState, Record<CallEvent, CallCell | null>>> = callTables[role]
  return table[state]?.[event] ?? null
}
