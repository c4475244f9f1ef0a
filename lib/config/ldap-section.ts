/** The section `ldap` of the configuration: a directory that knows the passwords of users. */
import { z } from 'zod'
import type { Secret } from '../core/secret.ts'
import { defaults } from './defaults.ts'
import * as field from './fields.ts'

const server = z
  .string()
  .max(512)
  .regex(/^ldaps?:\/\/(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?\/?$/, {
    error: 'expected ldaps://HOST or ldap://HOST, perhaps with :PORT',
  })

const name = z.string().min(1).max(1024)
const template = (place: string) =>
  name.refine(text => text.includes(place), { error: `expected ${place} in it` })

const search = z.strictObject({
  base: name.describe('Where users are, such as ou=people,dc=example,dc=net'),
  filter: template('{user}').describe('Such as (&(objectClass=person)(uid={user}))'),
  bindName: name.optional().describe('Who searches; absent: anybody, or with bindAs the user'),
  bindPassword: field.password.optional(),
})

const groupSearch = z.strictObject({
  base: name.describe('Where groups are'),
  filter: template('{dn}').describe('Such as (member={dn})'),
})

export const ldapSchema = z
  .strictObject({
    servers: z
      .array(server)
      .max(8)
      .default([...defaults.ldap.servers])
      .describe('The one that answered last is asked first; none: no directory'),
    startTls: z
      .boolean()
      .default(defaults.ldap.startTls)
      .describe('Over ldap:// passwords go through TLS all the same; off: in clear'),
    authority: field.absolutePath
      .optional()
      .describe('PEM file: whose certificates are believed; absent: the usual authorities'),
    bindAs: template('{user}')
      .refine(text => /[=@\\]/.test(text), {
        error: 'expected a DN, {user}@DOMAIN or DOMAIN\\{user}',
      })
      .optional()
      .describe(
        'The name of a user there: uid={user},ou=people,dc=example,dc=net or {user}@ad.example',
      ),
    search: search.optional().describe('Finds users whose name there is not known'),
    groupAttribute: z
      .string()
      .regex(/^[A-Za-z][A-Za-z0-9-]{0,63}$/, { error: 'expected the name of an attribute' })
      .default(defaults.ldap.groupAttribute)
      .describe('Of a user: the groups, by name or DN'),
    groupSearch: groupSearch.optional().describe('Finds groups that users do not name themselves'),
    timeoutSeconds: z.int().min(1).max(60).default(defaults.ldap.timeoutSeconds),
    connections: z
      .int()
      .min(1)
      .max(256)
      .default(defaults.ldap.connections)
      .describe('Users who are judged at a time'),
  })
  .refine(
    ({ servers, bindAs, search }) =>
      servers.length === 0 || bindAs !== undefined || search !== undefined,
    { error: 'expected bindAs or search: how users are found' },
  )
  .refine(
    ({ search }) => (search?.bindName === undefined) === (search?.bindPassword === undefined),
    {
      error: 'expected bindName and bindPassword together',
      path: ['search'],
    },
  )
  .prefault({})
  .meta({ description: 'LDAP or Active Directory: users who prove themselves by PAP' })

type LdapDocument = z.output<typeof ldapSchema>

export interface LdapConfig {
  /** URLs, not empty. */
  readonly servers: readonly string[]
  readonly usesStartTls: boolean
  /** File. */
  readonly authority?: string
  /** With `{user}`. */
  readonly bindAs?: string
  readonly search?: {
    readonly base: string
    /** With `{user}`. */
    readonly filter: string
    readonly searcher?: { readonly name: string; readonly password: Secret }
  }
  readonly groupAttribute: string
  /** `filter` with `{dn}`. */
  readonly groupSearch?: { readonly base: string; readonly filter: string }
  readonly timeoutMs: number
  readonly mostConnections: number
}

/** Undefined when there is no directory. */
export function resolveLdap(document: LdapDocument): LdapConfig | undefined {
  const { servers, authority, bindAs, search, groupSearch } = document
  if (servers.length === 0) return undefined
  const { bindName, bindPassword } = search ?? {}
  return {
    servers,
    usesStartTls: document.startTls,
    ...(authority !== undefined && { authority }),
    ...(bindAs !== undefined && { bindAs }),
    ...(search !== undefined && {
      search: {
        base: search.base,
        filter: search.filter,
        ...(bindName !== undefined &&
          bindPassword !== undefined && {
            searcher: { name: bindName, password: bindPassword },
          }),
      },
    }),
    groupAttribute: document.groupAttribute,
    ...(groupSearch !== undefined && { groupSearch }),
    timeoutMs: document.timeoutSeconds * 1000,
    mostConnections: document.connections,
  }
}
