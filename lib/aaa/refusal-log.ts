/** The one log line of a refused log-in, whoever refused it. */
import type { Logger } from '../core/log.ts'
import type { CallContext, RejectReason } from './authenticator.ts'

export interface RefusedLogin {
  /** As the client sent it; a long one is cut. */
  readonly userName: string
  readonly method: string
  readonly call: CallContext
}

export function logRefusal(
  log: Logger,
  { userName, method, call }: RefusedLogin,
  reason: RejectReason,
): void {
  log.info(
    {
      event: 'login-refused',
      reason,
      user: userName.slice(0, 256),
      method,
      proto: call.protocol,
      peer: call.peerAddress,
      sessionId: call.sessionId,
    },
    'log-in refused',
  )
}
