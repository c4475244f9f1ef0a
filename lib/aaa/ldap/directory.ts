/**
 * Asks an LDAP directory whether a user has a password, by binding as that user (RFC 4513 §5.1.3), and in
 * which groups the user is. One connection for each question: who is bound on it is never in doubt.
 */
import { isIP } from 'node:net'
import type { ConnectionOptions } from 'node:tls'
import { Client, type Entry, ResultCodeError } from 'ldapts'
import type { LdapConfig } from '../../config/ldap-section.ts'
import type { Clock } from '../../core/clock.ts'
import { messageOf, SystemError } from '../../core/errors.ts'
import type { Logger } from '../../core/log.ts'
import type { Secret } from '../../core/secret.ts'
import type { TimerWheel } from '../../core/timers.ts'
import type { RejectReason } from '../authenticator.ts'
import { filterFor, groupName, isDn, nameFor } from './user-template.ts'

export interface LdapDirectoryOptions {
  readonly config: LdapConfig
  /** PEM; absent: the authorities that Node brings. */
  readonly authorityPem?: string
  readonly clock: Clock
  readonly wheel: TimerWheel
  readonly log: Logger
}

export type DirectoryAnswer =
  | { readonly type: 'proven'; readonly groups: readonly string[] }
  | { readonly type: 'refused'; readonly reason: RejectReason }
  /** No server could say. */
  | { readonly type: 'unavailable' }

/** One connection to a server. */
interface Line {
  readonly client: Client
  readonly url: string
  readonly startsTls: boolean
  isOver: boolean
}

/** RFC 4511 appendix A: results of a bind that are about the user, not about the directory. */
const refusals: ReadonlySet<number> = new Set([32, 34, 48, 49, 50, 53])
/** What Active Directory says behind `data` beside invalidCredentials. */
const activeDirectoryReasons: Readonly<Record<string, RejectReason>> = {
  '530': 'restricted-hours',
  '532': 'password-expired',
  '533': 'account-disabled',
  '701': 'account-expired',
  '773': 'password-expired',
  '775': 'locked-out',
}
const mostGroups = 1000

export class LdapDirectory {
  readonly #options: LdapDirectoryOptions
  /** Index of the server that answered last. */
  #first = 0

  constructor(options: LdapDirectoryOptions) {
    this.#options = options
  }

  /** Within `leftMs`. An empty password proves nothing (RFC 4513 §5.1.2). Never rejects. */
  async judge(user: string, password: Secret, leftMs: number): Promise<DirectoryAnswer> {
    if (password.length === 0) return { type: 'refused', reason: 'bad-credentials' }
    const { servers } = this.#options.config
    const { clock } = this.#options
    const endMs = clock.nowMs() + leftMs
    for (let i = 0; i < servers.length; i++) {
      const index = (this.#first + i) % servers.length
      const url = servers[index] ?? ''
      const eachMs = (endMs - clock.nowMs()) / (servers.length - i)
      if (eachMs <= 0) break
      try {
        const answer = await this.#ask(url, user, password, eachMs)
        this.#first = index
        return answer
      } catch (thrown) {
        this.#options.log.warn(
          { event: 'ldap-unavailable', server: url, reason: messageOf(thrown).slice(0, 256) },
          'ldap server did not answer',
        )
      }
    }
    return { type: 'unavailable' }
  }

  /** Throws when the server cannot say. */
  async #ask(url: string, user: string, password: Secret, ms: number): Promise<DirectoryAnswer> {
    const { clock, wheel, config } = this.#options
    const isTls = url.startsWith('ldaps:')
    const client = new Client({
      url,
      timeout: ms,
      connectTimeout: ms,
      ...(isTls && { tlsOptions: this.#tlsOptions(url) }),
    })
    const line: Line = { client, url, startsTls: !isTls && config.usesStartTls, isOver: false }
    const entry = { onDeadline: () => {} }
    const tooLate = new Promise<never>((_, reject) => {
      entry.onDeadline = () => reject(new SystemError('it took too long'))
    })
    wheel.schedule(entry, clock.nowMs() + ms)
    try {
      return await Promise.race([this.#converse(line, user, password), tooLate])
    } finally {
      line.isOver = true
      wheel.cancel(entry)
      client.unbind().catch(() => undefined)
    }
  }

  async #converse(line: Line, user: string, password: Secret): Promise<DirectoryAnswer> {
    const { bindAs, search } = this.#options.config
    const { client } = line
    if (line.startsTls) await client.startTLS(this.#tlsOptions(line.url))
    if (bindAs !== undefined) {
      const name = nameFor(bindAs, user)
      const refused = await this.#bind(line, name, password)
      if (refused !== undefined) return refused
      if (search === undefined) return this.#proven(client, await this.#read(client, name))
      const [entry, other] = await this.#find(client, search, user)
      return entry === undefined || other !== undefined
        ? { type: 'refused', reason: 'no-dial-in' }
        : this.#proven(client, entry)
    }
    if (search === undefined) throw new SystemError('no way to find users is configured')
    const { searcher } = search
    if (searcher !== undefined) await bindOn(line, searcher.name, searcher.password)
    const [entry, other] = await this.#find(client, search, user)
    if (other !== undefined) {
      this.#options.log.warn({ event: 'ldap-ambiguous', user }, 'more than one user has this name')
    }
    if (entry === undefined || other !== undefined) {
      return { type: 'refused', reason: 'bad-credentials' }
    }
    return (await this.#bind(line, entry.dn, password)) ?? this.#proven(client, entry)
  }

  /** Undefined when the directory has taken the password. */
  async #bind(line: Line, name: string, password: Secret): Promise<DirectoryAnswer | undefined> {
    try {
      await bindOn(line, name, password)
      return undefined
    } catch (thrown) {
      if (!(thrown instanceof ResultCodeError) || !refusals.has(thrown.code)) throw thrown
      const data = /\bdata ([0-9a-f]{3})\b/.exec(thrown.message)?.[1] ?? ''
      return { type: 'refused', reason: activeDirectoryReasons[data] ?? 'bad-credentials' }
    }
  }

  async #find(
    client: Client,
    search: NonNullable<LdapConfig['search']>,
    user: string,
  ): Promise<Entry[]> {
    const { searchEntries } = await client.search(search.base, {
      scope: 'sub',
      filter: filterFor(search.filter, '{user}', user),
      attributes: [this.#options.config.groupAttribute],
      sizeLimit: 2,
    })
    return searchEntries
  }

  async #read(client: Client, name: string): Promise<Entry | undefined> {
    if (!isDn(name)) return undefined
    const { searchEntries } = await client.search(name, {
      scope: 'base',
      attributes: [this.#options.config.groupAttribute],
      sizeLimit: 1,
    })
    return searchEntries[0]
  }

  async #proven(client: Client, entry: Entry | undefined): Promise<DirectoryAnswer> {
    return { type: 'proven', groups: entry === undefined ? [] : await this.#groups(client, entry) }
  }

  async #groups(client: Client, entry: Entry): Promise<string[]> {
    const { groupAttribute, groupSearch } = this.#options.config
    const named = Object.entries(entry)
      .filter(([name]) => name.toLowerCase() === groupAttribute.toLowerCase())
      .flatMap(([, value]) => value)
      .map(value => groupName(String(value)))
    if (groupSearch === undefined) return named.slice(0, mostGroups)
    const { searchEntries } = await client.search(groupSearch.base, {
      scope: 'sub',
      filter: filterFor(groupSearch.filter, '{dn}', entry.dn),
      attributes: ['1.1'],
      sizeLimit: mostGroups,
    })
    const found = searchEntries.map(({ dn }) => groupName(dn))
    return [...new Set([...named, ...found])].slice(0, mostGroups)
  }

  #tlsOptions(url: string): ConnectionOptions {
    const host = new URL(url.replace(/^ldaps?:/, 'https:')).hostname.replace(/^\[(.*)\]$/, '$1')
    const { authorityPem } = this.#options
    return {
      host,
      ...(isIP(host) === 0 && { servername: host }),
      ...(authorityPem !== undefined && { ca: authorityPem }),
      minVersion: 'TLSv1.2',
      rejectUnauthorized: true,
    }
  }
}

/**
 * The client opens a new connection when it has none, without StartTLS: where that is wanted, no password
 * goes over another. Nor when nobody waits any more, who may have wiped it.
 */
async function bindOn(line: Line, name: string, password: Secret): Promise<void> {
  if (line.isOver || password.length === 0) throw new SystemError('there is nothing to prove')
  if (line.startsTls && !line.client.isConnected) throw new SystemError('the connection is lost')
  await line.client.bind(name, password.exposeText())
}
