/** Who the users are: the seam between those who judge, edit or list them and where they are kept. */
import type { DialIn } from '../../config.ts'
import type { Secret } from '../../core/secret.ts'

/** All of a user but the secrets. Absent limits mean: the server's own. */
export interface User {
  /** Never given to another user, not even to one of the same name. */
  readonly id: string
  readonly name: string
  readonly dialIn: DialIn
  /** Host order. */
  readonly ipv4Address?: number
  readonly groups: readonly string[]
  readonly isDisabled: boolean
  /** From then on the account is refused. */
  readonly expires?: Date
  /** From then on the password must be changed first. */
  readonly passwordExpires?: Date
  readonly mustChangePassword: boolean
  /** `Infinity` for none, here and below. */
  readonly maxSessions?: number
  readonly idleTimeoutMs?: number
  readonly sessionTimeoutMs?: number
  /** Whether the password itself is kept too, which CHAP-MD5 needs (RFC 1994 §2.2). */
  readonly isReversible: boolean
}

export interface UserSecrets {
  /** 16 bytes, RFC 2759 §8.3. */
  readonly ntHash: Secret
  /** Only of users whose `isReversible` is set. */
  readonly password?: Secret
  /** Key of one-time passwords (RFC 6238): the password alone does not do. */
  readonly totpKey?: Secret
}

/** What can be set. `undefined` takes a setting away; an absent key leaves it as it is. */
export interface UserChanges {
  readonly password?: Secret
  readonly totpKey?: Secret | undefined
  readonly dialIn?: DialIn
  readonly ipv4Address?: number | undefined
  readonly groups?: readonly string[]
  readonly isDisabled?: boolean
  readonly expires?: Date | undefined
  readonly passwordExpires?: Date | undefined
  readonly mustChangePassword?: boolean
  readonly maxSessions?: number | undefined
  readonly idleTimeoutMs?: number | undefined
  readonly sessionTimeoutMs?: number | undefined
  /** Turning it on needs the password in the same change. */
  readonly isReversible?: boolean
}

export interface NewUser extends UserChanges {
  readonly name: string
  readonly password: Secret
}

/** Names are compared without regard to case. Every method may throw StoreError. */
export interface UserStore {
  /** False when the users are kept where this program does not write. */
  readonly isWritable: boolean
  find(name: string): User | undefined
  /** By name. */
  list(): readonly User[]
  /** The caller destroys what it gets. */
  secretsOf(user: User): UserSecrets
  /** A user that cannot be found and has random secrets: the work for names that do not exist. */
  readonly decoy: User
  /** Throws StoreError when the name or the address is taken. */
  add(user: NewUser): User
  /** Throws StoreError when there is no such user. */
  set(name: string, changes: UserChanges): User
  /** Whether there was such a user. */
  delete(name: string): boolean
  /** Addresses that belong to users, host order. */
  fixedAddresses(): ReadonlySet<number>
}

/** What names are compared by. */
export function userKey(name: string): string {
  return name.normalize('NFC').toLowerCase()
}
