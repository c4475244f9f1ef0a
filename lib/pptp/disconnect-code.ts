/** Why a call ends, in the words of PPTP: result codes of Call-Disconnect-Notify (RFC 2637 §2.13). */
import type { DisconnectCause } from '../core/disconnect-cause.ts'

export const DisconnectResult = {
  lostCarrier: 1,
  generalError: 2,
  adminShutdown: 3,
  request: 4,
} as const

/** What we say when we end a call. */
export const disconnectResultOf = {
  'user-request': DisconnectResult.request,
  'lost-carrier': DisconnectResult.lostCarrier,
  'protocol-error': DisconnectResult.generalError,
  'idle-timeout': DisconnectResult.adminShutdown,
  'session-timeout': DisconnectResult.adminShutdown,
  'admin-reset': DisconnectResult.adminShutdown,
  'nas-reboot': DisconnectResult.adminShutdown,
  'nas-error': DisconnectResult.generalError,
  'service-unavailable': DisconnectResult.generalError,
  'authentication-failed': DisconnectResult.adminShutdown,
  'not-authorized': DisconnectResult.adminShutdown,
  'session-limit': DisconnectResult.adminShutdown,
  'no-address': DisconnectResult.generalError,
  'setup-timeout': DisconnectResult.lostCarrier,
  'port-unneeded': DisconnectResult.adminShutdown,
  replaced: DisconnectResult.adminShutdown,
} as const satisfies Record<DisconnectCause, number>

/** What a peer's code means to us. */
export function causeOfDisconnect(resultCode: number): DisconnectCause {
  switch (resultCode) {
    case DisconnectResult.lostCarrier:
      return 'lost-carrier'
    case DisconnectResult.adminShutdown:
      return 'nas-reboot'
    case DisconnectResult.request:
      return 'user-request'
    default:
      return 'protocol-error'
  }
}
