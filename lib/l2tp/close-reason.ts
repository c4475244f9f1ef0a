/** Our disconnect causes as result codes of StopCCN and CDN, and the peer's codes as causes. */
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { CallResult, GeneralError, StopResult } from './wire/avp-table.ts'
import type { ResultCode } from './wire/avp-value.ts'

/** What a tunnel or a call is ended with, in RFC 2661's words. */
export interface CloseReason {
  readonly cause: DisconnectCause
  readonly result: number
  readonly error: number
  readonly message: string
}

const stopResults: Record<DisconnectCause, StopResult> = {
  'user-request': 'clear',
  'lost-carrier': 'clear',
  'protocol-error': 'state-machine-error',
  'idle-timeout': 'clear',
  'session-timeout': 'clear',
  'admin-reset': 'clear',
  'nas-reboot': 'shutting-down',
  'nas-error': 'general-error',
  'service-unavailable': 'general-error',
  'authentication-failed': 'not-authorized',
  'not-authorized': 'not-authorized',
  'session-limit': 'general-error',
  'no-address': 'general-error',
  'setup-timeout': 'clear',
  'port-unneeded': 'clear',
  replaced: 'clear',
}

const callResults: Record<DisconnectCause, CallResult> = {
  'user-request': 'administrative',
  'lost-carrier': 'lost-carrier',
  'protocol-error': 'general-error',
  'idle-timeout': 'administrative',
  'session-timeout': 'administrative',
  'admin-reset': 'administrative',
  'nas-reboot': 'administrative',
  'nas-error': 'general-error',
  'service-unavailable': 'no-facilities',
  'authentication-failed': 'administrative',
  'not-authorized': 'administrative',
  'session-limit': 'no-facilities',
  'no-address': 'no-facilities',
  'setup-timeout': 'not-established-in-time',
  'port-unneeded': 'administrative',
  replaced: 'administrative',
}

/** Result 2 needs an error code that says more. */
function defaultError(cause: DisconnectCause, result: number): GeneralError {
  if (result !== StopResult['general-error']) return 'none'
  return cause === 'protocol-error' ? 'out-of-range' : 'insufficient-resources'
}

export function stopReason(
  cause: DisconnectCause,
  message: string,
  error?: GeneralError,
): CloseReason {
  const result = error === undefined ? StopResult[stopResults[cause]] : StopResult['general-error']
  return { cause, result, error: GeneralError[error ?? defaultError(cause, result)], message }
}

export function callReason(
  cause: DisconnectCause,
  message: string,
  error?: GeneralError,
): CloseReason {
  const result = error === undefined ? CallResult[callResults[cause]] : CallResult['general-error']
  return { cause, result, error: GeneralError[error ?? defaultError(cause, result)], message }
}

/** §4.4.2: the error code of result 5 is the highest version that we speak, 1.0. */
export const versionNotSupported: CloseReason = {
  cause: 'protocol-error',
  result: StopResult['version-not-supported'],
  error: 0x0100,
  message: 'this is version 1.0',
}

/** The reason that the peer gave in a StopCCN. */
export function peerStopReason(code: ResultCode | undefined): CloseReason {
  const { result = 0, error = 0, message = '' } = code ?? {}
  switch (result) {
    case StopResult['not-authorized']:
      return { cause: 'authentication-failed', result, error, message }
    case StopResult['general-error']:
    case StopResult['version-not-supported']:
    case StopResult['state-machine-error']:
      return { cause: 'protocol-error', result, error, message }
    default:
      return { cause: 'user-request', result, error, message }
  }
}

/** The reason that the peer gave in a CDN. */
export function peerCallReason(code: ResultCode | undefined): CloseReason {
  const { result = 0, error = 0, message = '' } = code ?? {}
  switch (result) {
    case CallResult['lost-carrier']:
      return { cause: 'lost-carrier', result, error, message }
    case CallResult['general-error']:
    case CallResult['no-framing']:
      return { cause: 'protocol-error', result, error, message }
    case CallResult['no-facilities']:
    case CallResult['no-facilities-permanent']:
    case CallResult['invalid-destination']:
    case CallResult['no-carrier']:
    case CallResult.busy:
    case CallResult['no-dial-tone']:
      return { cause: 'service-unavailable', result, error, message }
    case CallResult['not-established-in-time']:
      return { cause: 'setup-timeout', result, error, message }
    default:
      return { cause: 'user-request', result, error, message }
  }
}
