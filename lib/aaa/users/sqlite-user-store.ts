/** The users in the state directory's database. */
import { join } from 'node:path'
import { ensureStateDirectory } from '../../config/state-directory.ts'
import { isUserName } from '../../config.ts'
import { toHex } from '../../core/bytes.ts'
import { StoreError } from '../../core/errors.ts'
import { formatIpv4 } from '../../core/ip-address.ts'
import { type RandomSource, randomBytes, systemRandom } from '../../core/random.ts'
import { Secret, wipe } from '../../core/secret.ts'
import { ntPasswordHash } from '../../crypto/ms-chap.ts'
import { KeyVault } from '../key-vault.ts'
import { SqliteFile, type Transaction } from '../sqlite-file.ts'
import { columns, definedOnly, entryOf, migrations, rowOf, type UserEntry } from './user-row.ts'
import {
  type NewUser,
  type User,
  type UserChanges,
  type UserSecrets,
  type UserStore,
  userKey,
} from './user-store.ts'

interface Snapshot {
  readonly generation: number | undefined
  readonly byKey: ReadonlyMap<string, UserEntry>
  readonly byId: ReadonlyMap<string, UserEntry>
  readonly fixedAddresses: ReadonlySet<number>
}

export class SqliteUserStore implements UserStore {
  readonly isWritable = true
  readonly decoy: User
  readonly #file: SqliteFile
  readonly #vault: KeyVault
  readonly #random: RandomSource
  readonly #decoyEntry: UserEntry
  #snapshot: Snapshot | undefined

  constructor(file: SqliteFile, vault: KeyVault, random: RandomSource = systemRandom) {
    this.#file = file
    this.#vault = vault
    this.#random = random
    this.#decoyEntry = this.#makeEntry(
      { name: '', password: Secret.fromText(toHex(randomBytes(random, 16))), isDisabled: true },
      toHex(randomBytes(random, 16)),
    )
    this.decoy = this.#decoyEntry.user
  }

  /** The users of a state directory; both are made when they do not exist. */
  static open(stateDirectory: string, random: RandomSource = systemRandom): SqliteUserStore {
    ensureStateDirectory(stateDirectory)
    const vault = KeyVault.open(join(stateDirectory, 'secrets.key'), random)
    return new SqliteUserStore(
      new SqliteFile(join(stateDirectory, 'users.db'), migrations),
      vault,
      random,
    )
  }

  find(name: string): User | undefined {
    return this.#read().byKey.get(userKey(name))?.user
  }

  list(): readonly User[] {
    return [...this.#read().byKey].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, { user }]) => user)
  }

  fixedAddresses(): ReadonlySet<number> {
    return this.#read().fixedAddresses
  }

  secretsOf(user: User): UserSecrets {
    // Whoever asks has just found the user, so what was read then will do.
    const { byId } = this.#snapshot ?? this.#read()
    const entry = user.id === this.decoy.id ? this.#decoyEntry : byId.get(user.id)
    if (entry === undefined) throw new StoreError(`no user ${user.name}`)
    return {
      ntHash: this.#vault.open(entry.ntHash, context(user.id, 'nt-hash')),
      ...(entry.password !== null && {
        password: this.#vault.open(entry.password, context(user.id, 'password')),
      }),
      ...(entry.totpKey !== null && {
        totpKey: this.#vault.open(entry.totpKey, context(user.id, 'totp-key')),
      }),
    }
  }

  add(user: NewUser): User {
    if (!isUserName(user.name)) {
      throw new StoreError(
        'a user name has 1 to 256 characters, none of them a control character or one of / \\ [ ] : ; | = , + * ? < > "',
      )
    }
    checkPassword(user.password)
    const entry = this.#makeEntry(user, toHex(randomBytes(this.#random, 16)))
    this.#file.transaction(transaction => {
      const key = userKey(user.name)
      if (transaction.all('SELECT 1 FROM users WHERE name_key = ?', [key]).length > 0) {
        throw new StoreError(`there is a user ${user.name} already`)
      }
      refuseTakenAddress(transaction, entry.user)
      const row = rowOf(entry)
      transaction.run(
        `INSERT INTO users (${columns.join(', ')}) VALUES (${columns.map(() => '?').join(', ')})`,
        columns.map(column => row[column] ?? null),
      )
    })
    this.#snapshot = undefined
    return entry.user
  }

  set(name: string, changes: UserChanges): User {
    if (changes.password !== undefined) checkPassword(changes.password)
    const changed = this.#file.transaction(transaction => {
      const [row] = transaction.all('SELECT * FROM users WHERE name_key = ?', [userKey(name)])
      if (row === undefined) throw new StoreError(`there is no user ${name}`)
      const entry = this.#change(entryOf(row), changes)
      refuseTakenAddress(transaction, entry.user)
      const next = rowOf(entry)
      transaction.run(
        `UPDATE users SET ${columns.map(column => `${column} = ?`).join(', ')} WHERE id = ?`,
        [...columns.map(column => next[column] ?? null), entry.user.id],
      )
      return entry.user
    })
    this.#snapshot = undefined
    return changed
  }

  delete(name: string): boolean {
    const deleted = this.#file.transaction(transaction =>
      transaction.run('DELETE FROM users WHERE name_key = ?', [userKey(name)]),
    )
    this.#snapshot = undefined
    return deleted > 0
  }

  /** What was read last, unless somebody changed the database since. */
  #read(): Snapshot {
    const generation = this.#file.generation()
    const held = this.#snapshot
    if (held !== undefined && generation !== undefined && held.generation === generation)
      return held
    const snapshot = this.#file.transaction(transaction => {
      const entries = transaction.all('SELECT * FROM users').map(entryOf)
      return {
        byKey: new Map(entries.map(entry => [userKey(entry.user.name), entry])),
        byId: new Map(entries.map(entry => [entry.user.id, entry])),
        fixedAddresses: new Set(entries.flatMap(({ user }) => user.ipv4Address ?? [])),
      }
    })
    // The generation from before the transaction: a change in between makes the next read start over.
    this.#snapshot = { ...snapshot, generation }
    return this.#snapshot
  }

  #makeEntry(user: NewUser, id: string): UserEntry {
    const blank: User = {
      id,
      name: user.name,
      dialIn: 'permit',
      groups: [],
      isDisabled: false,
      mustChangePassword: false,
      isReversible: false,
    }
    return this.#change(
      { user: blank, ntHash: new Uint8Array(0), password: null, totpKey: null },
      user,
    )
  }

  #change(entry: UserEntry, changes: UserChanges): UserEntry {
    const { password, totpKey: newTotpKey, ...settings } = changes
    const user = definedOnly({ ...entry.user, ...userSettings(settings) })
    let { totpKey } = entry
    if (newTotpKey !== undefined) {
      totpKey = this.#vault.seal(newTotpKey, context(user.id, 'totp-key'))
    } else if ('totpKey' in changes) totpKey = null
    if (password === undefined) {
      if (user.isReversible && entry.password === null) {
        throw new StoreError('storing the password reversibly needs the password: set it as well')
      }
      return {
        user,
        ntHash: entry.ntHash,
        password: user.isReversible ? entry.password : null,
        totpKey,
      }
    }
    const hash = ntPasswordHash(password.exposeText())
    const ntHash = new Secret(hash)
    wipe(hash)
    const sealed = {
      user,
      ntHash: this.#vault.seal(ntHash, context(user.id, 'nt-hash')),
      password: user.isReversible ? this.#vault.seal(password, context(user.id, 'password')) : null,
      totpKey,
    }
    ntHash.destroy()
    return sealed
  }
}

/** What a secret is bound to: a row copied onto another user does not open. */
function context(id: string, field: 'nt-hash' | 'password' | 'totp-key'): string {
  return `openras user ${id} ${field}`
}

function checkPassword(password: Secret): void {
  const length = password.exposeText().length
  if (length < 1 || length > 256) throw new StoreError('a password has 1 to 256 characters')
}

function refuseTakenAddress(transaction: Transaction, user: User): void {
  if (user.ipv4Address === undefined) return
  const [owner] = transaction.all('SELECT name FROM users WHERE ipv4_address = ? AND id <> ?', [
    user.ipv4Address,
    user.id,
  ])
  if (owner !== undefined) {
    throw new StoreError(
      `the address ${formatIpv4(user.ipv4Address)} belongs to user ${String(Object.values(owner)[0])}`,
    )
  }
}

/** Only the keys that make up a `User`, whatever object the caller passed. */
function userSettings(changes: UserChanges): Partial<Record<keyof User, unknown>> {
  const settings: Partial<Record<keyof User, unknown>> = {}
  for (const key of settable) if (key in changes) settings[key] = changes[key]
  return settings
}

const settable = [
  'dialIn',
  'ipv4Address',
  'groups',
  'isDisabled',
  'expires',
  'passwordExpires',
  'mustChangePassword',
  'maxSessions',
  'idleTimeoutMs',
  'sessionTimeoutMs',
  'isReversible',
] as const satisfies readonly (keyof User & keyof UserChanges)[]
