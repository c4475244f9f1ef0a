/**
 * The control connection's states: RFC 2661 §7.2.1, cell for cell. The table does not know which
 * side it serves; `tunnel-machine.ts` carries out the actions.
 *
 * idle            nothing sent or received
 * wait-ctl-reply  SCCRQ sent
 * wait-ctl-conn   SCCRP sent
 * established     calls may be made
 * closing         ended; state is kept for one retransmission cycle, to acknowledge again (§5.7)
 *
 * The RFC has no row for `closing`: it calls it idle and asks for it in the text.
 */

export type ControlConnectionState =
  | 'idle'
  | 'wait-ctl-reply'
  | 'wait-ctl-conn'
  | 'established'
  | 'closing'

export type ControlConnectionEvent =
  /** A local request for a tunnel. */
  | 'open'
  /** Messages received; `-bad` when not acceptable. */
  | 'sccrq'
  | 'sccrq-bad'
  | 'sccrq-lost-tie'
  | 'sccrp'
  | 'sccrp-bad'
  | 'scccn'
  | 'scccn-bad'
  | 'stopccn'
  /** A local request to end it, or a fault that ends it. */
  | 'close'

export type ControlConnectionAction =
  | 'send-sccrq'
  | 'send-sccrp'
  | 'send-scccn'
  | 'send-stopccn'
  /** Tunnel-open event to waiting sessions. */
  | 'tunnel-open'
  /** Report that the peer's request wins: the owner gives it to a new tunnel. */
  | 'yield'
  | 'clean-up'

export interface ControlConnectionCell {
  readonly next: ControlConnectionState
  readonly actions: readonly ControlConnectionAction[]
}

const to = (
  next: ControlConnectionState,
  ...actions: ControlConnectionAction[]
): ControlConnectionCell => ({ next, actions })

const refused = to('closing', 'send-stopccn', 'clean-up')
const gone = to('closing', 'clean-up')

/** `null` is a message that changes nothing: one counter, one `unexpected` event. */
export const controlConnectionTable = {
  idle: {
    open: to('wait-ctl-reply', 'send-sccrq'),
    sccrq: to('wait-ctl-conn', 'send-sccrp'),
    'sccrq-bad': refused,
    'sccrq-lost-tie': null,
    sccrp: refused,
    'sccrp-bad': refused,
    scccn: gone,
    'scccn-bad': gone,
    stopccn: gone,
    close: gone,
  },
  'wait-ctl-reply': {
    open: null,
    // Without a tie to break, or with one that we win, both tunnels or ours alone go on (§4.4.3).
    sccrq: null,
    'sccrq-bad': null,
    'sccrq-lost-tie': to('closing', 'yield', 'clean-up'),
    sccrp: to('established', 'send-scccn', 'tunnel-open'),
    'sccrp-bad': refused,
    scccn: refused,
    'scccn-bad': refused,
    stopccn: gone,
    close: refused,
  },
  'wait-ctl-conn': {
    open: null,
    sccrq: refused,
    'sccrq-bad': refused,
    'sccrq-lost-tie': null,
    sccrp: refused,
    'sccrp-bad': refused,
    scccn: to('established', 'tunnel-open'),
    'scccn-bad': refused,
    stopccn: gone,
    close: refused,
  },
  established: {
    open: to('established', 'tunnel-open'),
    sccrq: refused,
    'sccrq-bad': refused,
    'sccrq-lost-tie': null,
    sccrp: refused,
    'sccrp-bad': refused,
    scccn: refused,
    'scccn-bad': refused,
    stopccn: gone,
    close: refused,
  },
  closing: {
    open: null,
    sccrq: null,
    'sccrq-bad': null,
    'sccrq-lost-tie': null,
    sccrp: null,
    'sccrp-bad': null,
    scccn: null,
    'scccn-bad': null,
    stopccn: null,
    close: null,
  },
} as const satisfies Record<
  ControlConnectionState,
  Record<ControlConnectionEvent, ControlConnectionCell | null>
>
