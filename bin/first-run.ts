/** The first run on a machine: configuration, certificate, first user. */
import { randomInt } from 'node:crypto'
import { getServers } from 'node:dns'
import { existsSync, mkdirSync } from 'node:fs'
import { isIP } from 'node:net'
import { hostname } from 'node:os'
import { dirname } from 'node:path'
import { SqliteUserStore } from '../lib/aaa/users/sqlite-user-store.ts'
import { writeFileAtomically } from '../lib/config/state-directory.ts'
import { defaultConfigText, parseConfig } from '../lib/config.ts'
import { ConfigError } from '../lib/core/errors.ts'
import { formatIpv6Network } from '../lib/core/ip-address.ts'
import { randomBytes, systemRandom } from '../lib/core/random.ts'
import { Secret } from '../lib/core/secret.ts'
import { ownCertificate } from '../lib/server/server-certificates.ts'
import { programName } from './command.ts'

const firstUserName = 'vpn'
/** Without letters and digits that look alike; 20 of them are 98 bits. */
const passwordAlphabet = 'abcdefghjkmnpqrstuvwxyz23456789'
const passwordLength = 20

export interface FirstRunOptions {
  readonly stateDirectory?: string
}

/** Writes a configuration at `path` and what it needs, and prints what was made. Throws ConfigError. */
export function firstRun(path: string, options: FirstRunOptions = {}): void {
  if (existsSync(path)) throw new ConfigError('', `${path} exists: it is left as it is`)
  const text = defaultConfigText({
    ...nameOf(hostname()),
    ipv6Prefix: uniqueLocalPrefix(),
    dns: resolvers(),
    ...options,
  })
  const config = parseConfig(text, path)
  const { authorityFile } = ownCertificate(config)
  const users = SqliteUserStore.open(config.state.directory)
  const isFirstUser = users.list().length === 0
  const password = isFirstUser ? newPassword() : ''
  if (isFirstUser) {
    const secret = Secret.fromText(password)
    users.add({ name: firstUserName, password: secret })
    secret.destroy()
  }
  mkdirSync(dirname(path), { recursive: true })
  writeFileAtomically(path, text)
  process.stdout.write(
    [
      'First run. These were made:',
      `  configuration  ${path}`,
      `  authority      ${authorityFile}   (clients must trust it)`,
      ...(isFirstUser
        ? [
            `  user           ${firstUserName}`,
            `  password       ${password}   (shown once; "${programName()} user set ${firstUserName} --password" changes it)`,
          ]
        : [`  users          those of ${config.state.directory}`]),
      '',
      '',
    ].join('\n'),
  )
}

/** A host name that nobody can dial is better left out. */
function nameOf(host: string): { serverName?: string } {
  return /^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/.test(host) ? { serverName: host } : {}
}

/** RFC 4193 §3.2.2: fd00::/8 and 40 random bits. */
function uniqueLocalPrefix(): string {
  const address = new Uint8Array(16)
  address.set(randomBytes(systemRandom, 5), 1)
  address[0] = 0xfd
  return formatIpv6Network({ address, prefixLength: 48 })
}

/** The resolvers of this machine that clients can reach too. */
function resolvers(): string[] {
  return getServers()
    .filter(server => isIP(server) !== 0)
    .filter(server => !server.startsWith('127.') && server !== '::1')
    .slice(0, 2)
}

function newPassword(): string {
  return Array.from(
    { length: passwordLength },
    () => passwordAlphabet[randomInt(passwordAlphabet.length)],
  ).join('')
}
