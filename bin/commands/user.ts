/** `openras user`: the users in the state directory's database. */
import { z } from 'zod'
import { SqliteUserStore } from '../../lib/aaa/users/sqlite-user-store.ts'
import type { User, UserChanges } from '../../lib/aaa/users/user-store.ts'
import { formatBase32 } from '../../lib/config/base32.ts'
import { type Column, chooseFormat, formatTable } from '../../lib/control/table.ts'
import { ConfigError, UsageError } from '../../lib/core/errors.ts'
import { formatIpv4, parseIpv4 } from '../../lib/core/ip-address.ts'
import { randomBytes, systemRandom } from '../../lib/core/random.ts'
import { Secret } from '../../lib/core/secret.ts'
import { type Command, callServer, ExitCode, loadConfig, readArguments } from '../command.ts'
import { readNewPassword } from '../password.ts'

const options = {
  config: { type: 'string' },
  json: { type: 'boolean' },
  'password-stdin': { type: 'boolean' },
  password: { type: 'boolean' },
  'dial-in': { type: 'string' },
  address: { type: 'string' },
  group: { type: 'string', multiple: true },
  disable: { type: 'boolean' },
  enable: { type: 'boolean' },
  expires: { type: 'string' },
  'must-change-password': { type: 'boolean' },
  'max-sessions': { type: 'string' },
  'idle-timeout': { type: 'string' },
  'session-timeout': { type: 'string' },
  reversible: { type: 'boolean' },
  totp: { type: 'boolean' },
  'no-totp': { type: 'boolean' },
} as const

type Values = ReturnType<typeof readArguments<typeof options>>['values']

export const user: Command = {
  name: 'user',
  synopsis: 'user add|set|delete|unlock|list [NAME] [...]',
  summary: 'edit and list the users',
  help: `
user add NAME     adds a user; asks for the password, or reads it from standard input
user set NAME     changes what is given; --password asks for a new password
user delete NAME  removes the user; sessions that are up stay until they end
user list         lists the users
user unlock NAME  lifts the lock after failed log-ins, of a user or of a source address, at the running server

  --password-stdin         read the password from standard input, one line
  --dial-in permit|deny|policy
  --address ADDRESS|none   the IPv4 address that the user always gets
  --group NAME             may be repeated; replaces the groups
  --disable, --enable
  --expires DATE|never     for example 2027-01-31
  --must-change-password   the user must choose a new password at the next log-in
  --max-sessions N|default, --idle-timeout SECONDS|default, --session-timeout SECONDS|default
  --reversible             keep the password itself too, encrypted: CHAP-MD5 needs it
  --totp                   make a key of one-time passwords and print it for an authenticator app; the user
                           then comes in by PAP only, with the password and six digits behind it
  --no-totp                without one-time passwords
  --config FILE            the configuration that names the state directory
  --json                   list as JSON

A password never stands on the command line, where others could read it.`,
  run: async args => {
    const { values, positionals } = readArguments(args, options)
    const [action, name, ...rest] = positionals
    if (rest.length > 0) throw new UsageError(`unexpected argument "${rest[0]}"`)
    if (action === 'unlock') return unlock(values.config, needName(name))
    const config = loadConfig(values.config)
    if (config.users !== undefined) {
      throw new ConfigError(
        'users',
        'the users stand in the configuration: edit them there, then "openras reload"',
      )
    }
    const store = SqliteUserStore.open(config.state.directory)
    switch (action) {
      case 'list':
        process.stdout.write(
          formatTable(
            store.list().map(describe),
            columns,
            chooseFormat(values.json === true, process.stdout.isTTY),
          ),
        )
        return ExitCode.success
      case 'add': {
        const changes = changesOf(values)
        const password = await readNewPassword(values['password-stdin'] === true)
        try {
          store.add({ ...changes, name: needName(name), password })
        } finally {
          password.destroy()
        }
        return ExitCode.success
      }
      case 'set': {
        const changes = changesOf(values)
        if (values['password-stdin'] !== true && values.password !== true) {
          store.set(needName(name), changes)
          return ExitCode.success
        }
        const password = await readNewPassword(values['password-stdin'] === true)
        try {
          store.set(needName(name), { ...changes, password })
        } finally {
          password.destroy()
        }
        return ExitCode.success
      }
      case 'delete':
        if (store.delete(needName(name))) return ExitCode.success
        process.stderr.write(`openras: there is no user "${name}"\n`)
        return ExitCode.failure
      default:
        throw new UsageError(`expected add, set, delete, unlock or list, not "${action ?? ''}"`)
    }
  },
}

async function unlock(config: string | undefined, name: string): Promise<ExitCode> {
  const { isUnlocked } = unlocked.parse(await callServer(config, 'unlock', { name }))
  if (isUnlocked) return ExitCode.success
  process.stderr.write(`openras: nothing is locked or counted for "${name}"\n`)
  return ExitCode.failure
}

const unlocked = z.object({ isUnlocked: z.boolean() })

function needName(name: string | undefined): string {
  if (name === undefined) throw new UsageError('expected the name of a user')
  return name
}

/** Only what was given on the command line. */
function changesOf(values: Values): UserChanges {
  if (values.disable === true && values.enable === true) {
    throw new UsageError('--disable and --enable exclude each other')
  }
  const { address, expires, group } = values
  const dialIn = values['dial-in']
  const maxSessions = values['max-sessions']
  const idle = values['idle-timeout']
  const session = values['session-timeout']
  return {
    ...(dialIn !== undefined && { dialIn: dialInOf(dialIn) }),
    ...(address !== undefined && { ipv4Address: address === 'none' ? undefined : ipv4Of(address) }),
    ...(group !== undefined && { groups: group }),
    ...(values.disable === true && { isDisabled: true }),
    ...(values.enable === true && { isDisabled: false }),
    ...(expires !== undefined && { expires: expires === 'never' ? undefined : dateOf(expires) }),
    ...(values['must-change-password'] === true && { mustChangePassword: true }),
    ...(maxSessions !== undefined && { maxSessions: limitOf('--max-sessions', maxSessions, 1) }),
    ...(idle !== undefined && { idleTimeoutMs: limitOf('--idle-timeout', idle, 1000) }),
    ...(session !== undefined && { sessionTimeoutMs: limitOf('--session-timeout', session, 1000) }),
    ...(values.reversible === true && { isReversible: true }),
    ...(values['no-totp'] === true && { totpKey: undefined }),
    ...(values.totp === true && { totpKey: newTotpKey() }),
  }
}

/** 160 bits, as RFC 4226 §4 recommends. It is shown this once. */
function newTotpKey(): Secret {
  const key = randomBytes(systemRandom, 20)
  process.stdout.write(`one-time passwords (SHA-1, 6 digits, 30 seconds): ${formatBase32(key)}\n`)
  return new Secret(key)
}

function dialInOf(text: string): 'permit' | 'deny' | 'policy' {
  if (text === 'permit' || text === 'deny' || text === 'policy') return text
  throw new UsageError(`--dial-in: expected permit, deny or policy, not "${text}"`)
}

function ipv4Of(text: string): number {
  const address = parseIpv4(text)
  if (address === undefined) throw new UsageError(`--address: "${text}" is not an IPv4 address`)
  return address
}

function dateOf(text: string): Date {
  const date = new Date(text)
  if (Number.isNaN(date.getTime())) throw new UsageError(`--expires: "${text}" is not a date`)
  return date
}

/** 0 is no limit; `default` takes the user's own limit away. */
function limitOf(option: string, text: string, factor: number): number | undefined {
  if (text === 'default') return undefined
  if (!/^\d{1,9}$/.test(text)) throw new UsageError(`${option}: "${text}" is not a number`)
  return text === '0' ? Number.POSITIVE_INFINITY : Number(text) * factor
}

interface UserRow {
  readonly name: string
  readonly dialIn: string
  readonly state: string
  readonly address?: string
  readonly groups: readonly string[]
  readonly expires?: string
  readonly isReversible: boolean
}

function describe(one: User): UserRow {
  return {
    name: one.name,
    dialIn: one.dialIn,
    state: one.isDisabled
      ? 'disabled'
      : one.mustChangePassword
        ? 'must change password'
        : 'enabled',
    ...(one.ipv4Address !== undefined && { address: formatIpv4(one.ipv4Address) }),
    groups: one.groups,
    ...(one.expires !== undefined && { expires: one.expires.toISOString() }),
    isReversible: one.isReversible,
  }
}

const columns: readonly Column<UserRow>[] = [
  { title: 'name', value: row => row.name },
  { title: 'dial-in', value: row => row.dialIn },
  { title: 'state', value: row => row.state },
  { title: 'address', value: row => row.address },
  { title: 'groups', value: row => row.groups.join(',') },
  { title: 'expires', value: row => row.expires },
]
