/**
 * Errors for our own bugs, wrong configuration and failed set-up. A peer's mistake is never one of
 * these: see faults.ts.
 */

export type ErrorCode =
  | 'ERR_CONFIG'
  | 'ERR_BIND'
  | 'ERR_TUN'
  | 'ERR_SYSTEM'
  | 'ERR_MISSING_TOOL'
  | 'ERR_AUTH_BACKEND'
  | 'ERR_STORE'
  | 'ERR_CERTIFICATE'
  | 'ERR_CONTROL'
  | 'ERR_USAGE'
  | 'ERR_CONNECT'
  | 'ERR_INVARIANT'

export abstract class OpenRasError extends Error {
  abstract readonly code: ErrorCode

  constructor(message: string, options?: ErrorOptions) {
    super(message, options)
    this.name = new.target.name
  }
}

/** A configuration value is wrong; `path` is where, in dots and brackets. */
export class ConfigError extends OpenRasError {
  readonly code = 'ERR_CONFIG'
  readonly path: string

  constructor(path: string, message: string, options?: ErrorOptions) {
    super(path === '' ? message : `${path}: ${message}`, options)
    this.path = path
  }
}

/** A listener could not open its address. */
export class BindError extends OpenRasError {
  readonly code = 'ERR_BIND'
}

/** The TUN device could not be opened or set up. */
export class TunError extends OpenRasError {
  readonly code = 'ERR_TUN'
}

/** The kernel or a tool of the system refused something that we need. */
export class SystemError extends OpenRasError {
  readonly code = 'ERR_SYSTEM'
}

/** A program that we need is not installed; the message says how to get it. */
export class MissingToolError extends OpenRasError {
  readonly code = 'ERR_MISSING_TOOL'
}

/** The users database, a RADIUS server or a directory did not answer. */
export class AuthBackendError extends OpenRasError {
  readonly code = 'ERR_AUTH_BACKEND'
}

/** The state directory or a database in it is not usable. */
export class StoreError extends OpenRasError {
  readonly code = 'ERR_STORE'
}

/** A certificate or key is not usable. */
export class CertificateError extends OpenRasError {
  readonly code = 'ERR_CERTIFICATE'
}

/** The running server could not be reached or refused a command. */
export class ControlError extends OpenRasError {
  readonly code = 'ERR_CONTROL'
}

/** The command line is wrong. */
export class UsageError extends OpenRasError {
  readonly code = 'ERR_USAGE'
}

/** A connection that we dialled did not come up. */
export class ConnectError extends OpenRasError {
  readonly code = 'ERR_CONNECT'
}

/** Something that cannot happen happened: a bug of ours. */
export class InvariantError extends OpenRasError {
  readonly code = 'ERR_INVARIANT'
}

/** Ends every switch over a union; the compiler proves that it is never reached. */
export function assertNever(value: never): never {
  throw new InvariantError(`unexpected value ${JSON.stringify(value)}`)
}

/** The message of whatever was thrown. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown)
}
