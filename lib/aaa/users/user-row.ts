/** Users as rows of the database. */
import type { DialIn } from '../../config.ts'
import { InvariantError } from '../../core/errors.ts'
import type { Migrations, SqlRow, SqlValue } from '../sqlite-file.ts'
import { type User, userKey } from './user-store.ts'

/** Times are ms since 1970; a limit that is NULL is the server's, -1 is none. */
export const migrations: Migrations = [
  `CREATE TABLE users (
     id TEXT PRIMARY KEY,
     name TEXT NOT NULL,
     name_key TEXT NOT NULL UNIQUE,
     nt_hash BLOB NOT NULL,
     password BLOB,
     dial_in TEXT NOT NULL CHECK (dial_in IN ('permit', 'deny', 'policy')),
     ipv4_address INTEGER UNIQUE,
     groups TEXT NOT NULL,
     is_disabled INTEGER NOT NULL,
     expires_ms INTEGER,
     password_expires_ms INTEGER,
     must_change_password INTEGER NOT NULL,
     max_sessions INTEGER,
     idle_timeout_ms INTEGER,
     session_timeout_ms INTEGER
   ) STRICT`,
  'ALTER TABLE users ADD COLUMN totp_key BLOB',
]

/** A user as kept in memory: the secrets stay sealed until they are asked for. */
export interface UserEntry {
  readonly user: User
  readonly ntHash: Uint8Array
  readonly password: Uint8Array | null
  readonly totpKey: Uint8Array | null
}

export const columns = [
  'id',
  'name',
  'name_key',
  'nt_hash',
  'password',
  'dial_in',
  'ipv4_address',
  'groups',
  'is_disabled',
  'expires_ms',
  'password_expires_ms',
  'must_change_password',
  'max_sessions',
  'idle_timeout_ms',
  'session_timeout_ms',
  'totp_key',
] as const

export function rowOf({
  user,
  ntHash,
  password,
  totpKey,
}: UserEntry): Record<(typeof columns)[number], SqlValue> {
  return {
    id: user.id,
    name: user.name,
    name_key: userKey(user.name),
    nt_hash: ntHash,
    password,
    dial_in: user.dialIn,
    ipv4_address: user.ipv4Address ?? null,
    groups: JSON.stringify(user.groups),
    is_disabled: user.isDisabled ? 1 : 0,
    expires_ms: user.expires?.getTime() ?? null,
    password_expires_ms: user.passwordExpires?.getTime() ?? null,
    must_change_password: user.mustChangePassword ? 1 : 0,
    max_sessions: limitColumn(user.maxSessions),
    idle_timeout_ms: limitColumn(user.idleTimeoutMs),
    session_timeout_ms: limitColumn(user.sessionTimeoutMs),
    totp_key: totpKey,
  }
}

export function entryOf(row: SqlRow): UserEntry {
  const optional = {
    ipv4Address: numberOf(row, 'ipv4_address'),
    expires: dateOf(row, 'expires_ms'),
    passwordExpires: dateOf(row, 'password_expires_ms'),
    maxSessions: limitOf(row, 'max_sessions'),
    idleTimeoutMs: limitOf(row, 'idle_timeout_ms'),
    sessionTimeoutMs: limitOf(row, 'session_timeout_ms'),
  }
  const user = definedOnly({
    id: textOf(row, 'id'),
    name: textOf(row, 'name'),
    dialIn: textOf(row, 'dial_in') as DialIn,
    groups: JSON.parse(textOf(row, 'groups')),
    isDisabled: numberOf(row, 'is_disabled') === 1,
    mustChangePassword: numberOf(row, 'must_change_password') === 1,
    isReversible: bytesOf(row, 'password') !== null,
    ...optional,
  })
  const ntHash = bytesOf(row, 'nt_hash')
  if (ntHash === null) throw new InvariantError(`user ${user.name} has no NT hash`)
  return { user, ntHash, password: bytesOf(row, 'password'), totpKey: bytesOf(row, 'totp_key') }
}

function limitColumn(limit: number | undefined): number | null {
  if (limit === undefined) return null
  return limit === Number.POSITIVE_INFINITY ? -1 : limit
}

function limitOf(row: SqlRow, column: string): number | undefined {
  const value = numberOf(row, column)
  return value === -1 ? Number.POSITIVE_INFINITY : value
}

function dateOf(row: SqlRow, column: string): Date | undefined {
  const value = numberOf(row, column)
  return value === undefined ? undefined : new Date(value)
}

function numberOf(row: SqlRow, column: string): number | undefined {
  const value = row[column]
  return value === null || value === undefined ? undefined : Number(value)
}

function bytesOf(row: SqlRow, column: string): Uint8Array | null {
  const value = row[column]
  return value instanceof Uint8Array ? value : null
}

function textOf(row: SqlRow, column: string): string {
  const value = row[column]
  if (typeof value !== 'string') throw new InvariantError(`column ${column} is not text`)
  return value
}

/** Without the keys whose value is undefined. */
export function definedOnly(user: Record<keyof User, unknown> | object): User {
  return Object.fromEntries(
    Object.entries(user).filter(([, value]) => value !== undefined),
  ) as unknown as User
}
