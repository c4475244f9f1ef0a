/**
 * The states of main mode (identity protection, RFC 2409 §5), for both roles, as a table. The
 * messages are named by what they carry: `sa` 1 and 2, `ke` 3 and 4, `auth` 5 and 6.
 *
 * idle         nothing sent or received
 * sa-sent      initiator: message 1 is out
 * sa-answered  responder: message 2 is out
 * ke-sent      initiator: message 3 is out
 * ke-answered  responder: message 4 is out
 * auth-sent    initiator: message 5 is out
 * established  both are authenticated
 * closed       ended, or never came up
 *
 * Until message 5 nothing is protected, so a bad message changes nothing: it is counted, and the good
 * one may still come. That includes a message 5 that does not decrypt. There are only so many of
 * each; then the attempt is over.
 */

export type MainModeState =
  | 'idle'
  | 'sa-sent'
  | 'sa-answered'
  | 'ke-sent'
  | 'ke-answered'
  | 'auth-sent'
  | 'established'
  | 'closed'

export type MainModeEvent =
  | 'open'
  | 'sa'
  /** No proposal that we take. */
  | 'sa-bad'
  | 'ke'
  | 'auth'
  /** Decrypts, and proves nothing. */
  | 'auth-bad'
  /** No answer in time, or a lifetime that has run out. */
  | 'expire'
  | 'close'

export type MainModeAction =
  | 'send-sa'
  | 'answer-sa'
  | 'send-ke'
  | 'answer-ke'
  | 'send-auth'
  | 'answer-auth'
  /** A notification that the peer may believe or not: it is not protected. */
  | 'send-notify'
  | 'send-delete'
  | 'up'
  | 'down'

export interface MainModeCell {
  readonly next: MainModeState
  readonly actions: readonly MainModeAction[]
}

const to = (next: MainModeState, ...actions: MainModeAction[]): MainModeCell => ({ next, actions })
const down = to('closed', 'down')
const nothing = {
  open: null,
  sa: null,
  'sa-bad': null,
  ke: null,
  auth: null,
  'auth-bad': null,
} as const

/** `null` is a message without a meaning in this state: one counter, one `unexpected` event. */
export const mainModeTable = {
  idle: {
    ...nothing,
    open: to('sa-sent', 'send-sa'),
    sa: to('sa-answered', 'answer-sa'),
    'sa-bad': to('closed', 'send-notify', 'down'),
    expire: down,
    close: down,
  },
  'sa-sent': {
    ...nothing,
    sa: to('ke-sent', 'send-ke'),
    'sa-bad': down,
    expire: down,
    close: down,
  },
  'sa-answered': { ...nothing, ke: to('ke-answered', 'answer-ke'), expire: down, close: down },
  'ke-sent': { ...nothing, ke: to('auth-sent', 'send-auth'), expire: down, close: down },
  'ke-answered': {
    ...nothing,
    auth: to('established', 'answer-auth', 'up'),
    'auth-bad': to('closed', 'send-notify', 'down'),
    expire: down,
    close: down,
  },
  'auth-sent': {
    ...nothing,
    auth: to('established', 'up'),
    'auth-bad': to('closed', 'send-notify', 'down'),
    expire: down,
    close: down,
  },
  established: {
    ...nothing,
    expire: to('closed', 'send-delete', 'down'),
    close: to('closed', 'send-delete', 'down'),
  },
  closed: { ...nothing, expire: null, close: null },
} as const satisfies Record<MainModeState, Record<MainModeEvent, MainModeCell | null>>
