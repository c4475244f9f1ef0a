/**
 * The option negotiation automaton, RFC 1661 §4.1, cell for cell. Everything that changes the state
 * of LCP or an NCP is in this table; it does not know which protocol, role or carrier it serves.
 *
 * States (RFC 1661 §4.2): `initial` and `starting` lower layer down; `closed` and `stopped` nothing
 * sent; `closing` and `stopping` Terminate-Request sent; `req-sent`, `ack-rcvd`, `ack-sent`
 * negotiating; `opened` up.
 *
 * The RFC's options are decided here: `r` (restart on Open) and `x` (crossed connection) are events
 * of the layer above; `p` (passive) is not taken, so giving up ends in `stopped` with tlf.
 */

export const automatonStates = [
  'initial',
  'starting',
  'closed',
  'stopped',
  'closing',
  'stopping',
  'req-sent',
  'ack-rcvd',
  'ack-sent',
  'opened',
] as const
export type AutomatonState = (typeof automatonStates)[number]

/** RFC 1661 §4.3. */
export const automatonEvents = [
  'up',
  'down',
  'open',
  'close',
  'to+',
  'to-',
  'rcr+',
  'rcr-',
  'rca',
  'rcn',
  'rtr',
  'rta',
  'ruc',
  'rxj+',
  'rxj-',
  'rxr',
] as const
export type AutomatonEvent = (typeof automatonEvents)[number]

/** RFC 1661 §4.4: this-layer-up, -down, -started, -finished; counter; sends. */
export type AutomatonAction =
  | 'tlu'
  | 'tld'
  | 'tls'
  | 'tlf'
  | 'irc'
  | 'zrc'
  | 'scr'
  | 'sca'
  | 'scn'
  | 'str'
  | 'sta'
  | 'scj'
  | 'ser'

/** `null` is the RFC's `-`: the event cannot happen in this state. */
export type AutomatonCell = {
  readonly next: AutomatonState
  readonly actions: readonly AutomatonAction[]
} | null

function to(next: AutomatonState, ...actions: AutomatonAction[]): AutomatonCell {
  return { next, actions }
}

const ini = to('initial')
const str = to('starting')
const cld = to('closed')
const stp = to('stopped')
const cng = to('closing')
const spg = to('stopping')
const req = to('req-sent')
const rcv = to('ack-rcvd')
const snt = to('ack-sent')
const opn = to('opened')

/** Rows are states, in the RFC's order; each has all sixteen events. */
// biome-ignore format: one state a block, events in the order of the RFC
export const automaton = {
  initial: {
    'up': cld, 'down': null, 'open': to('starting', 'tls'), 'close': ini,
    'to+': null, 'to-': null,
    'rcr+': null, 'rcr-': null, 'rca': null, 'rcn': null, 'rtr': null, 'rta': null,
    'ruc': null, 'rxj+': null, 'rxj-': null, 'rxr': null,
  },
  starting: {
    'up': to('req-sent', 'irc', 'scr'), 'down': null, 'open': str, 'close': to('initial', 'tlf'),
    'to+': null, 'to-': null,
    'rcr+': null, 'rcr-': null, 'rca': null, 'rcn': null, 'rtr': null, 'rta': null,
    'ruc': null, 'rxj+': null, 'rxj-': null, 'rxr': null,
  },
  closed: {
    'up': null, 'down': ini, 'open': to('req-sent', 'irc', 'scr'), 'close': cld,
    'to+': null, 'to-': null,
    'rcr+': to('closed', 'sta'), 'rcr-': to('closed', 'sta'),
    'rca': to('closed', 'sta'), 'rcn': to('closed', 'sta'),
    'rtr': to('closed', 'sta'), 'rta': cld,
    'ruc': to('closed', 'scj'), 'rxj+': cld, 'rxj-': to('closed', 'tlf'), 'rxr': cld,
  },
  stopped: {
    'up': null, 'down': to('starting', 'tls'), 'open': stp, 'close': cld,
    'to+': null, 'to-': null,
    'rcr+': to('ack-sent', 'irc', 'scr', 'sca'), 'rcr-': to('req-sent', 'irc', 'scr', 'scn'),
    'rca': to('stopped', 'sta'), 'rcn': to('stopped', 'sta'),
    'rtr': to('stopped', 'sta'), 'rta': stp,
    'ruc': to('stopped', 'scj'), 'rxj+': stp, 'rxj-': to('stopped', 'tlf'), 'rxr': stp,
  },
  closing: {
    'up': null, 'down': ini, 'open': spg, 'close': cng,
    'to+': to('closing', 'str'), 'to-': to('closed', 'tlf'),
    'rcr+': cng, 'rcr-': cng, 'rca': cng, 'rcn': cng,
    'rtr': to('closing', 'sta'), 'rta': to('closed', 'tlf'),
    'ruc': to('closing', 'scj'), 'rxj+': cng, 'rxj-': to('closed', 'tlf'), 'rxr': cng,
  },
  stopping: {
    'up': null, 'down': str, 'open': spg, 'close': cng,
    'to+': to('stopping', 'str'), 'to-': to('stopped', 'tlf'),
    'rcr+': spg, 'rcr-': spg, 'rca': spg, 'rcn': spg,
    'rtr': to('stopping', 'sta'), 'rta': to('stopped', 'tlf'),
    'ruc': to('stopping', 'scj'), 'rxj+': spg, 'rxj-': to('stopped', 'tlf'), 'rxr': spg,
  },
  'req-sent': {
    'up': null, 'down': str, 'open': req, 'close': to('closing', 'irc', 'str'),
    'to+': to('req-sent', 'scr'), 'to-': to('stopped', 'tlf'),
    'rcr+': to('ack-sent', 'sca'), 'rcr-': to('req-sent', 'scn'),
    'rca': to('ack-rcvd', 'irc'), 'rcn': to('req-sent', 'irc', 'scr'),
    'rtr': to('req-sent', 'sta'), 'rta': req,
    'ruc': to('req-sent', 'scj'), 'rxj+': req, 'rxj-': to('stopped', 'tlf'), 'rxr': req,
  },
  'ack-rcvd': {
    'up': null, 'down': str, 'open': rcv, 'close': to('closing', 'irc', 'str'),
    'to+': to('req-sent', 'scr'), 'to-': to('stopped', 'tlf'),
    'rcr+': to('opened', 'sca', 'tlu'), 'rcr-': to('ack-rcvd', 'scn'),
    'rca': to('req-sent', 'scr'), 'rcn': to('req-sent', 'scr'),
    'rtr': to('req-sent', 'sta'), 'rta': req,
    'ruc': to('ack-rcvd', 'scj'), 'rxj+': req, 'rxj-': to('stopped', 'tlf'), 'rxr': rcv,
  },
  'ack-sent': {
    'up': null, 'down': str, 'open': snt, 'close': to('closing', 'irc', 'str'),
    'to+': to('ack-sent', 'scr'), 'to-': to('stopped', 'tlf'),
    'rcr+': to('ack-sent', 'sca'), 'rcr-': to('req-sent', 'scn'),
    'rca': to('opened', 'irc', 'tlu'), 'rcn': to('ack-sent', 'irc', 'scr'),
    'rtr': to('req-sent', 'sta'), 'rta': snt,
    'ruc': to('ack-sent', 'scj'), 'rxj+': snt, 'rxj-': to('stopped', 'tlf'), 'rxr': snt,
  },
  opened: {
    'up': null, 'down': to('starting', 'tld'), 'open': opn, 'close': to('closing', 'tld', 'irc', 'str'),
    'to+': null, 'to-': null,
    'rcr+': to('ack-sent', 'tld', 'scr', 'sca'), 'rcr-': to('req-sent', 'tld', 'scr', 'scn'),
    'rca': to('req-sent', 'tld', 'scr'), 'rcn': to('req-sent', 'tld', 'scr'),
    'rtr': to('stopping', 'tld', 'zrc', 'sta'), 'rta': to('req-sent', 'tld', 'scr'),
    'ruc': to('opened', 'scj'), 'rxj+': opn,
    'rxj-': to('stopping', 'tld', 'irc', 'str'), 'rxr': to('opened', 'ser'),
  },
} as const satisfies Record<AutomatonState, Record<AutomatonEvent, AutomatonCell>>

/** The cell of the table. */
export function transition(state: AutomatonState, event: AutomatonEvent): AutomatonCell {
  return automaton[state][event]
}

/** RFC 1661 §4.2: the restart timer runs in these states only. */
export function isTimed(state: AutomatonState): boolean {
  return (
    state === 'closing' ||
    state === 'stopping' ||
    state === 'req-sent' ||
    state === 'ack-rcvd' ||
    state === 'ack-sent'
  )
}
