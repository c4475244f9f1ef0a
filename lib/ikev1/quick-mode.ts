/**
 * The states of one quick mode exchange (RFC 2409 §5.5), for both roles, as a table.
 *
 * idle          nothing sent or received
 * request-sent  initiator: message 1 is out
 * answered      responder: message 2 is out; we receive on the new SA, and do not send yet
 * done          both sides have the SA; kept to answer repetitions
 * failed        ended without an SA
 */

export type QuickModeState = 'idle' | 'request-sent' | 'answered' | 'done' | 'failed'

export type QuickModeEvent =
  | 'open'
  /** Message 1; `-bad` when it asks for what we do not give. */
  | 'request'
  | 'request-bad'
  /** Message 2. */
  | 'answer'
  | 'answer-bad'
  /** Message 3, or traffic on the new SA. */
  | 'confirmation'
  /** A protected notification that refuses. */
  | 'refusal'
  | 'expire'

export type QuickModeAction =
  | 'send-request'
  | 'send-answer'
  | 'send-confirmation'
  | 'send-notify'
  | 'child-up'
  | 'child-confirmed'
  | 'child-down'
  | 'report'

export interface QuickModeCell {
  readonly next: QuickModeState
  readonly actions: readonly QuickModeAction[]
}

const to = (next: QuickModeState, ...actions: QuickModeAction[]): QuickModeCell => ({
  next,
  actions,
})
const nothing = {
  open: null,
  request: null,
  'request-bad': null,
  answer: null,
  'answer-bad': null,
  confirmation: null,
  refusal: null,
  expire: null,
} as const

export const quickModeTable = {
  idle: {
    ...nothing,
    open: to('request-sent', 'send-request'),
    request: to('answered', 'send-answer', 'child-up'),
    'request-bad': to('failed', 'send-notify', 'report'),
  },
  'request-sent': {
    ...nothing,
    answer: to('done', 'send-confirmation', 'child-up'),
    'answer-bad': to('failed', 'send-notify', 'report'),
    refusal: to('failed', 'report'),
    expire: to('failed', 'report'),
  },
  answered: {
    ...nothing,
    confirmation: to('done', 'child-confirmed'),
    refusal: to('failed', 'child-down', 'report'),
    expire: to('failed', 'child-down', 'report'),
  },
  done: nothing,
  failed: nothing,
} as const satisfies Record<QuickModeState, Record<QuickModeEvent, QuickModeCell | null>>
