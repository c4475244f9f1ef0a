/** The sections `policies` and `filters`: who may come in under which conditions, and with what. */
import { z } from 'zod'
import type { Ipv4Network, Ipv6Network } from '../core/ip-address.ts'
import * as field from './fields.ts'
import { type FilterRule, isFilterRule, parseFilterRule } from './filter-rule.ts'
import { parseWeekTime, type WeekTime } from './week-time.ts'

export const policyMethods = ['mschapv2', 'chap', 'pap', 'eap', 'certificate', 'psk'] as const
export type PolicyMethod = (typeof policyMethods)[number]

const denyReasons = ['no-dial-in', 'restricted-hours', 'account-disabled'] as const

/** RFC 2865 §5.41. Every call of a VPN is `virtual`. */
const portTypes = { virtual: 5, ethernet: 15, wireless: 19 } as const
const portTypeNames = ['virtual', 'ethernet', 'wireless'] as const

/** All that are given must hold; of each list one must. */
export interface PolicyConditions {
  /** Names without domain; `*` stands for any characters. Case does not matter, here and below. */
  readonly users?: readonly string[]
  readonly groups?: readonly string[]
  /** `DOMAIN` of `DOMAIN\user`, `realm` of `user@realm`. */
  readonly realms?: readonly string[]
  readonly protocols?: readonly string[]
  readonly sources?: readonly field.IpNetwork[]
  readonly times?: readonly WeekTime[]
  readonly methods?: readonly PolicyMethod[]
  /** RFC 3748 §5. */
  readonly eapTypes?: readonly number[]
  readonly portTypes?: readonly number[]
  /** Parts of the names in the client's certificate, such as `OU=Staff`; `*` as above. */
  readonly certificate?: { readonly subject?: string; readonly issuer?: string }
}

/** What who comes in is given; fields as in `Authorization`. */
export interface PolicySettings {
  readonly ipv4Address?: number
  readonly ipv4Pool?: string
  readonly ipv6Pool?: string
  readonly ipv4Routes?: readonly Ipv4Network[]
  readonly ipv6Routes?: readonly Ipv6Network[]
  readonly dnsIpv4?: readonly number[]
  readonly dnsIpv6?: readonly Uint8Array[]
  readonly winsIpv4?: readonly number[]
  readonly sessionTimeoutSeconds?: number
  readonly idleTimeoutSeconds?: number
  readonly maxSessions?: number
  readonly filterName?: string
  readonly filterRules?: readonly string[]
  readonly receiveBitsPerSecond?: number
  readonly sendBitsPerSecond?: number
  readonly receiveBurstBytes?: number
  readonly sendBurstBytes?: number
  readonly mppeKeyBits?: readonly (40 | 56 | 128)[]
  readonly isEncryptionRequired?: boolean
  readonly quarantine?: { readonly filterName?: string; readonly timeoutSeconds?: number }
}

export interface Policy {
  readonly name: string
  readonly conditions: PolicyConditions
  readonly access: 'permit' | 'deny'
  readonly reason: (typeof denyReasons)[number]
  /** How who fits the conditions must have proved itself; absent: any way. */
  readonly allowedMethods?: readonly PolicyMethod[]
  readonly settings: PolicySettings
}

const name = z.string().min(1).max(64)
const filterName = z.string().regex(/^[A-Za-z0-9._-]{1,64}$/, {
  error: 'expected a name of letters, digits, dots, underscores and hyphens',
})
const seconds = z.int().min(0).max(315_360_000)
const bitsPerSecond = z.int().min(8000).max(1_000_000_000_000)
const burstBytes = z.int().min(1).max(1_000_000_000)

const filterRule = z
  .string()
  .max(4096)
  .superRefine((text, context) => {
    const parsed = parseFilterRule(text)
    if (!isFilterRule(parsed)) context.addIssue({ code: 'custom', message: parsed.error })
  })
  .meta({
    description: 'A rule of RFC 4849 and RFC 6733 §4.3.1',
    examples: ['permit in tcp from any to 192.0.2.0/24 443'],
  })

const weekTime = z
  .string()
  .meta({ description: 'Days, a time of day, or both', examples: ['Mon-Fri 08:00-18:00'] })
  .transform((text, context): WeekTime => {
    const time = parseWeekTime(text)
    if (time !== undefined) return time
    context.addIssue({
      code: 'custom',
      message: 'expected days, a time of day, or both, such as Mon-Fri 08:00-18:00',
    })
    return z.NEVER
  })

const names = z.array(z.string().min(1).max(256)).min(1).max(1000)

const conditions = z
  .strictObject({
    users: names.optional(),
    groups: names.optional(),
    realms: names.optional(),
    protocols: z
      .array(z.enum(['sstp', 'l2tp', 'pptp', 'ikev2']))
      .min(1)
      .optional(),
    sources: z.array(field.ipNetwork).min(1).max(1000).optional(),
    times: z.array(weekTime).min(1).max(64).optional(),
    methods: z.array(z.enum(policyMethods)).min(1).optional(),
    eapTypes: z.array(z.int().min(1).max(255)).min(1).max(64).optional(),
    portTypes: z.array(z.enum(portTypeNames)).min(1).optional(),
    certificate: z
      .strictObject({
        subject: z.string().min(1).max(256).optional(),
        issuer: z.string().min(1).max(256).optional(),
      })
      .optional(),
  })
  .meta({ description: 'All that are given must hold; of each list one must' })

const settings = z
  .strictObject({
    address: field.ipv4Address.optional(),
    pool: name.optional().describe('One of addresses.pools'),
    routes: z.array(field.ipNetwork).max(128).optional().describe('Networks behind the client'),
    dns: z.array(field.ipAddress).max(8).optional(),
    wins: z.array(field.ipv4Address).max(2).optional(),
    sessionTimeoutSeconds: seconds.optional(),
    idleTimeoutSeconds: seconds.optional(),
    maxSessions: z.int().min(1).max(1_000_000).optional(),
    filter: filterName.optional().describe('One of filters'),
    filterRules: z.array(filterRule).max(256).optional(),
    receiveBitsPerSecond: bitsPerSecond.optional().describe('From the client'),
    sendBitsPerSecond: bitsPerSecond.optional().describe('To the client'),
    receiveBurstBytes: burstBytes.optional(),
    sendBurstBytes: burstBytes.optional(),
    mppeKeyBits: z.array(z.union([z.literal(40), z.literal(56), z.literal(128)])).optional(),
    encryptionRequired: z.boolean().optional(),
    quarantine: z
      .strictObject({
        filter: filterName.optional().describe('Absent: nothing passes'),
        timeoutSeconds: seconds.optional().describe('The session ends if not released by then'),
      })
      .optional(),
  })
  .meta({ description: 'What who comes in is given, where its own account does not say otherwise' })

export const policySchema = z
  .strictObject({
    name,
    when: conditions.prefault({}),
    access: z.enum(['permit', 'deny']).default('permit'),
    reason: z.enum(denyReasons).default('no-dial-in').describe('Of a refusal'),
    allowedMethods: z
      .array(z.enum(policyMethods))
      .min(1)
      .optional()
      .describe('Who fits but proved itself otherwise is refused'),
    give: settings.prefault({}),
  })
  .meta({ description: 'An access policy; the first whose conditions hold decides' })

export const filtersSchema = z
  .record(filterName, z.array(filterRule).max(512))
  .meta({ description: 'Filters of packets by name; the first rule that matches decides' })

export type PolicyDocument = z.output<typeof policySchema>

export function resolvePolicy(document: PolicyDocument): Policy {
  const { when, give, allowedMethods } = document
  const { portTypes: types, certificate, ...others } = when
  return {
    name: document.name,
    conditions: {
      ...definedOf(others),
      ...(types !== undefined && { portTypes: types.map(type => portTypes[type]) }),
      ...(certificate !== undefined && { certificate: definedOf(certificate) }),
    },
    access: document.access,
    reason: document.reason,
    ...(allowedMethods !== undefined && { allowedMethods }),
    settings: resolveSettings(give),
  }
}

function resolveSettings(give: PolicyDocument['give']): PolicySettings {
  const { address, pool, routes, dns, wins, filter, encryptionRequired, quarantine, ...same } = give
  return {
    ...definedOf(same),
    ...(address !== undefined && { ipv4Address: address }),
    ...(pool !== undefined && { ipv4Pool: pool }),
    ...(routes !== undefined && {
      ipv4Routes: routes.flatMap(route => (route.family === 4 ? [route] : [])),
      ipv6Routes: routes.flatMap(route => (route.family === 6 ? [route] : [])),
    }),
    ...(dns !== undefined && {
      dnsIpv4: dns.flatMap(one => (one.family === 4 ? [one.address] : [])),
      dnsIpv6: dns.flatMap(one => (one.family === 6 ? [one.address] : [])),
    }),
    ...(wins !== undefined && { winsIpv4: wins }),
    ...(filter !== undefined && { filterName: filter }),
    ...(encryptionRequired !== undefined && { isEncryptionRequired: encryptionRequired }),
    ...(quarantine !== undefined && {
      quarantine: {
        ...(quarantine.filter !== undefined && { filterName: quarantine.filter }),
        ...(quarantine.timeoutSeconds !== undefined && {
          timeoutSeconds: quarantine.timeoutSeconds,
        }),
      },
    }),
  }
}

/** The rules of each filter, in order. */
export function resolveFilters(
  document: Readonly<Record<string, readonly string[]>>,
): ReadonlyMap<string, readonly FilterRule[]> {
  return new Map(
    Object.entries(document).map(([filter, texts]) => [
      filter,
      texts.map(parseFilterRule).filter(isFilterRule),
    ]),
  )
}

type Defined<T> = { [K in keyof T]: Exclude<T[K], undefined> }

/** Without the keys whose value is undefined. */
function definedOf<T extends object>(value: T): Defined<T> {
  return Object.fromEntries(
    Object.entries(value).filter(([, one]) => one !== undefined),
  ) as Defined<T>
}
