/** Users of an LDAP directory beside our own, as the configuration has it. */
import { readFileSync } from 'node:fs'
import type { Authenticator } from '../aaa/authenticator.ts'
import { LdapDirectory } from '../aaa/ldap/directory.ts'
import { type Directory, LdapAuthenticator } from '../aaa/ldap/ldap-authenticator.ts'
import type { Lockout } from '../aaa/lockout.ts'
import type { UserStore } from '../aaa/users/user-store.ts'
import type { Config } from '../config.ts'
import type { Clock } from '../core/clock.ts'
import { ConfigError, messageOf } from '../core/errors.ts'
import type { Logger } from '../core/log.ts'
import type { TimerWheel } from '../core/timers.ts'

export interface DirectoryParts {
  readonly clock: Clock
  readonly wheel: TimerWheel
  readonly log: Logger
}

export interface LocalParts {
  readonly local: Authenticator
  readonly users: UserStore
  readonly methods: readonly string[]
  readonly lockout: Lockout
}

/** Who judges beside the local users; undefined: nobody. Throws ConfigError. */
export function makeDirectory(
  { ldap }: Pick<Config, 'ldap'>,
  parts: DirectoryParts,
): ((local: LocalParts) => Authenticator) | undefined {
  if (ldap === undefined) return undefined
  const { clock, wheel } = parts
  const log = parts.log.child({ proto: 'ldap' })
  const authorityPem = directoryAuthority({ ldap })
  const directory: Directory = new LdapDirectory({
    config: ldap,
    ...(authorityPem !== undefined && { authorityPem }),
    ...{ clock, wheel, log },
  })
  return ({ local, users, methods, lockout }) =>
    new LdapAuthenticator({
      isLocal: name => users.find(name) !== undefined,
      timeoutMs: ldap.timeoutMs,
      mostQuestions: ldap.mostConnections,
      ...{ directory, local, methods, lockout, clock, wheel, log },
    })
}

/** PEM of the authority of its servers; undefined: the usual ones. Throws ConfigError. */
export function directoryAuthority({ ldap }: Pick<Config, 'ldap'>): string | undefined {
  const path = ldap?.authority
  if (path === undefined) return undefined
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (thrown) {
    throw new ConfigError('ldap', `cannot read ${path}: ${messageOf(thrown)}`, { cause: thrown })
  }
  if (text.includes('-----BEGIN CERTIFICATE-----')) return text
  throw new ConfigError('ldap', `${path} holds no certificate: it must be PEM text`)
}
