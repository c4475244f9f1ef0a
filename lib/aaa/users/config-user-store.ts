/** The users that stand in the configuration document. */
import type { UserConfig } from '../../config.ts'
import { toHex } from '../../core/bytes.ts'
import { StoreError } from '../../core/errors.ts'
import { type RandomSource, randomBytes, systemRandom } from '../../core/random.ts'
import { Secret, wipe } from '../../core/secret.ts'
import { ntPasswordHash } from '../../crypto/ms-chap.ts'
import { type User, type UserSecrets, type UserStore, userKey } from './user-store.ts'

interface Entry {
  readonly user: User
  readonly secrets: UserSecrets
}

export class ConfigUserStore implements UserStore {
  readonly isWritable = false
  readonly decoy: User
  readonly #entries = new Map<string, Entry>()
  readonly #secretsById = new Map<string, UserSecrets>()
  readonly #fixedAddresses: ReadonlySet<number>

  constructor(users: readonly UserConfig[], random: RandomSource = systemRandom) {
    for (const config of users) {
      const user = userOf(config)
      const entry = { user, secrets: secretsOf(config.password, config.totpKey) }
      this.#entries.set(userKey(config.name), entry)
      this.#secretsById.set(user.id, entry.secrets)
    }
    const password = Secret.fromText(toHex(randomBytes(random, 16)))
    this.decoy = userOf({ name: '', password, dialIn: 'deny', groups: [], isDisabled: true })
    this.#secretsById.set(this.decoy.id, secretsOf(password))
    this.#fixedAddresses = new Set(users.flatMap(user => user.ipv4Address ?? []))
  }

  find(name: string): User | undefined {
    return this.#entries.get(userKey(name))?.user
  }

  list(): readonly User[] {
    return [...this.#entries].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, { user }]) => user)
  }

  secretsOf(user: User): UserSecrets {
    const secrets = this.#secretsById.get(user.id)
    if (secrets === undefined) throw new StoreError(`no user ${user.name}`)
    // Copies: the caller destroys what it gets.
    return {
      ntHash: new Secret(secrets.ntHash.expose()),
      ...(secrets.password !== undefined && { password: new Secret(secrets.password.expose()) }),
      ...(secrets.totpKey !== undefined && { totpKey: new Secret(secrets.totpKey.expose()) }),
    }
  }

  fixedAddresses(): ReadonlySet<number> {
    return this.#fixedAddresses
  }

  add(): never {
    throw notHere()
  }

  set(): never {
    throw notHere()
  }

  delete(): never {
    throw notHere()
  }
}

function notHere(): StoreError {
  return new StoreError(
    'the users are in the configuration document: edit its section users, or remove it to use the database',
  )
}

function userOf(config: UserConfig): User {
  const { name, dialIn, groups, isDisabled, ipv4Address, expires } = config
  const { maxSessions, idleTimeoutMs, sessionTimeoutMs } = config
  return {
    id: userKey(name),
    name,
    dialIn,
    groups,
    isDisabled,
    mustChangePassword: false,
    isReversible: true,
    ...(ipv4Address !== undefined && { ipv4Address }),
    ...(expires !== undefined && { expires }),
    ...(maxSessions !== undefined && { maxSessions }),
    ...(idleTimeoutMs !== undefined && { idleTimeoutMs }),
    ...(sessionTimeoutMs !== undefined && { sessionTimeoutMs }),
  }
}

function secretsOf(password: Secret, totpKey?: Secret): UserSecrets {
  const hash = ntPasswordHash(password.exposeText())
  const ntHash = new Secret(hash)
  wipe(hash)
  return {
    ntHash,
    password: new Secret(password.expose()),
    ...(totpKey !== undefined && { totpKey }),
  }
}
