/** From the document as written to the configuration that the server works with. */
import { hostname } from 'node:os'
import { join } from 'node:path'
import type { Ipv6Network } from '../core/ip-address.ts'
import type { LogLevel } from '../core/log.ts'
import type { Secret } from '../core/secret.ts'
import { defaultControlSocketName } from './defaults.ts'
import type { ConfigDocument } from './document.ts'
import type { IpNetwork, Ipv4Range } from './fields.ts'
import type { FilterRule } from './filter-rule.ts'
import { type LdapConfig, resolveLdap } from './ldap-section.ts'
import { type MultilinkConfig, resolveMultilink } from './multilink-section.ts'
import { type Policy, resolveFilters, resolvePolicy } from './policies.ts'
import type { PathKey } from './problems.ts'
import { type RadiusConfig, resolveRadius } from './radius-section.ts'

export type AuthMethodName = 'mschapv2' | 'chap' | 'pap'
export type EapMethodName = 'tls' | 'peap' | 'ttls' | 'mschapv2' | 'md5'
export type DialIn = 'permit' | 'deny' | 'policy'

/** A PEM pair on disk. */
export interface CertificateFiles {
  readonly cert: string
  readonly key: string
  /** DER; absent: nothing is stapled. */
  readonly ocspResponse?: string
}

/** Another gateway with a preshared key. */
export interface SiteConfig {
  readonly identity: string
  readonly localIdentity: string
  readonly presharedKey: Secret
  /** Empty: all. */
  readonly localNetworks: readonly IpNetwork[]
  readonly remoteNetworks: readonly IpNetwork[]
}

export interface UserConfig {
  readonly name: string
  readonly password: Secret
  /** Key of one-time passwords. */
  readonly totpKey?: Secret
  readonly dialIn: DialIn
  /** Host order. */
  readonly ipv4Address?: number
  readonly groups: readonly string[]
  readonly isDisabled: boolean
  readonly expires?: Date
  /** `Infinity` when there is none of its own, here and below; absent: those of `limits`. */
  readonly maxSessions?: number
  readonly idleTimeoutMs?: number
  readonly sessionTimeoutMs?: number
}

/**
 * The one shape of the configuration that the rest of the server sees: complete, checked, in the
 * units that its names say. Where the document has 0 for no limit, this has `Infinity`.
 */
export interface Config {
  readonly server: {
    readonly name: string
    readonly listen: readonly string[]
  }
  readonly tun: {
    /** May hold `%d`: the kernel chooses. */
    readonly name: string
    readonly mtuBytes: number
    readonly backend: 'auto' | 'offload' | 'plain' | 'memory'
  }
  readonly sstp: {
    readonly isEnabled: boolean
    readonly port: number
    /** Empty: the pair in the state directory. */
    readonly certificates: readonly CertificateFiles[]
    readonly hashes: readonly ('sha256' | 'sha1')[]
    readonly proxyProtocolFrom: readonly IpNetwork[]
  }
  readonly ikev2: {
    readonly isEnabled: boolean
    /** Empty: those of `sstp`. */
    readonly certificates: readonly CertificateFiles[]
    /** PEM files; empty: no client certificates. */
    readonly clientAuthorities: readonly string[]
    /** Files with certificates that authorities have taken back. */
    readonly revocationLists: readonly string[]
    readonly acceptsLegacyAlgorithms: boolean
    readonly takesPlainEsp: boolean
    /** 0: none. */
    readonly tcpPort: number
    readonly additionalKeyExchanges: readonly ('ml-kem-512' | 'ml-kem-768' | 'ml-kem-1024')[]
    readonly postQuantumKeys: readonly { readonly identity: string; readonly key: Secret }[]
    readonly requiresPostQuantumKey: boolean
    readonly acceptsEapOnly: boolean
    /** 0: no tickets. */
    readonly resumptionMs: number
    /** A name or an address. */
    readonly redirectTo?: string
    readonly sites: readonly SiteConfig[]
    /** Undefined: that of `limits`. */
    readonly idleTimeoutSeconds?: number
    readonly networkOutageMs: number
    readonly saLifetimeMs: number
    /** `Infinity` for no limit. */
    readonly saDataBytes: number
  }
  readonly l2tp: {
    readonly isEnabled: boolean
    readonly preSharedKeys: readonly {
      /** Absent: everybody. */
      readonly peer?: IpNetwork
      readonly key: Secret
    }[]
    /** PEM files. */
    readonly clientAuthorities: readonly string[]
    readonly acceptsLegacyAlgorithms: boolean
    readonly secret?: Secret
    readonly helloMs: number
    readonly isAllowedWithoutIpsec: boolean
  }
  readonly pptp: {
    readonly isEnabled: boolean
    readonly encryption: 'none' | 'optional' | 'required'
    readonly keyBits: readonly (40 | 56 | 128)[]
    readonly isStateless: boolean
    readonly isCompressed: boolean
    readonly isWindowObeyed: boolean
  }
  readonly ppp: {
    /** Absent: links of PPP stand alone. */
    readonly multilink?: MultilinkConfig
  }
  readonly auth: {
    /** Strongest first. */
    readonly methods: readonly AuthMethodName[]
    readonly lockout: {
      readonly attemptsPerUser: number
      readonly attemptsPerAddress: number
      readonly windowMs: number
      readonly durationMs: number
    }
  }
  readonly eap: {
    /** In order of preference; empty: none over PPP. */
    readonly methods: readonly EapMethodName[]
    /** Absent: the first of `sstp`. */
    readonly certificate?: CertificateFiles
    /** PEM files. */
    readonly clientAuthorities: readonly string[]
    readonly revocationLists: readonly string[]
    /** Folder of OCSP responses about clients. */
    readonly ocsp?: { readonly folder: string; readonly isRequired: boolean }
    /** In the tunnel of EAP-TTLS, strongest first. */
    readonly inner: readonly AuthMethodName[]
    readonly mostConversations: number
  }
  readonly radius: RadiusConfig
  /** Absent: no directory is asked. */
  readonly ldap?: LdapConfig
  /** Absent: the users are those of the database. */
  readonly users?: readonly UserConfig[]
  /** In their order. */
  readonly policies: readonly Policy[]
  readonly filters: ReadonlyMap<string, readonly FilterRule[]>
  readonly addresses: {
    /** Host order. */
    readonly server: number
    readonly ipv4: readonly Ipv4Range[]
    /** By name. */
    readonly pools: ReadonlyMap<
      string,
      { readonly ranges: readonly Ipv4Range[]; readonly next?: string }
    >
    readonly exclude: readonly Ipv4Range[]
    readonly ipv6?: Ipv6Network
    /** What is delegated to clients, in prefixes of `prefixLength`; absent: nothing of ours. */
    readonly delegated?: { readonly prefix: Ipv6Network; readonly prefixLength: number }
    /** Host order. */
    readonly dnsIpv4: readonly number[]
    readonly dnsIpv6: readonly Uint8Array[]
    readonly winsIpv4: readonly number[]
    /** Suffix of names. */
    readonly domain?: string
    /** Where a split tunnel leads; a family without a network: everywhere. */
    readonly routes: readonly IpNetwork[]
    /** Absent: addresses are ours to give. Host order. */
    readonly dhcp?: {
      readonly servers: readonly number[]
      readonly relayAddress?: number
      readonly relaysInform: boolean
    }
    readonly isRequestable: boolean
    /** Whether hosts beside us are asked for an address before it is given. */
    readonly isProbed: boolean
  }
  readonly access: 'all' | 'serveronly'
  readonly nat: {
    readonly isEnabled: boolean
    /** Absent: whatever interface the kernel's routes choose. */
    readonly interface?: string
  }
  readonly limits: {
    readonly sessions: number
    readonly sessionsPerUser: number
    readonly sessionsPerSource: number
    readonly sessionsPerProtocol: ReadonlyMap<string, number>
    readonly idleTimeoutMs: number
    readonly sessionTimeoutMs: number
  }
  readonly log: {
    readonly level: LogLevel
    readonly file?: string
  }
  readonly state: {
    readonly directory: string
    readonly controlSocket: string
  }
}

const strongestFirst: readonly AuthMethodName[] = ['mschapv2', 'chap', 'pap']

export function resolveConfig(document: ConfigDocument): Config {
  const { server, tun, sstp, ikev2, l2tp, pptp, ppp, auth, addresses, limits, log, state, nat } =
    document
  const serverName = server.name ?? hostname()
  const ldap = resolveLdap(document.ldap)
  return {
    server: { name: serverName, listen: server.listen },
    tun: { name: tun.name, mtuBytes: tun.mtu, backend: tun.backend },
    sstp: {
      isEnabled: sstp.enabled,
      port: sstp.port,
      certificates: sstp.certificates.map(certificateFiles),
      hashes: sstp.hashes,
      proxyProtocolFrom: sstp.proxyProtocolFrom,
    },
    ikev2: {
      isEnabled: ikev2.enabled,
      certificates: ikev2.certificates,
      clientAuthorities: ikev2.clientAuthorities,
      revocationLists: ikev2.revocationLists,
      acceptsLegacyAlgorithms: ikev2.legacyAlgorithms,
      takesPlainEsp: ikev2.plainEsp,
      tcpPort: ikev2.tcpPort,
      additionalKeyExchanges: ikev2.additionalKeyExchanges,
      postQuantumKeys: ikev2.postQuantumKeys,
      requiresPostQuantumKey: ikev2.requirePostQuantumKey,
      acceptsEapOnly: ikev2.eapOnly,
      resumptionMs: ikev2.resumptionSeconds * 1000,
      ...(ikev2.redirectTo !== undefined && { redirectTo: ikev2.redirectTo }),
      sites: ikev2.sites.map(site => ({
        identity: site.identity,
        localIdentity: site.localIdentity ?? serverName,
        presharedKey: site.presharedKey,
        localNetworks: site.localNetworks,
        remoteNetworks: site.remoteNetworks,
      })),
      ...(ikev2.idleTimeoutSeconds > 0 && { idleTimeoutSeconds: ikev2.idleTimeoutSeconds }),
      networkOutageMs: ikev2.networkOutageSeconds * 1000,
      saLifetimeMs: ikev2.saLifetimeSeconds * 1000,
      saDataBytes: orNone(ikev2.saDataMegabytes * 1e6),
    },
    l2tp: {
      isEnabled:
        l2tp.enabled ?? (l2tp.preSharedKeys.length > 0 || l2tp.clientAuthorities.length > 0),
      preSharedKeys: l2tp.preSharedKeys.map(({ peer, key }) => ({
        ...(peer !== undefined && { peer }),
        key,
      })),
      clientAuthorities: l2tp.clientAuthorities,
      acceptsLegacyAlgorithms: l2tp.legacyAlgorithms,
      ...(l2tp.secret !== undefined && { secret: l2tp.secret }),
      helloMs: l2tp.helloSeconds * 1000,
      isAllowedWithoutIpsec: l2tp.withoutIpsec,
    },
    pptp: {
      isEnabled: pptp.enabled,
      encryption: pptp.encryption,
      keyBits: pptp.keyBits,
      isStateless: pptp.stateless,
      isCompressed: pptp.compression,
      isWindowObeyed: pptp.sendWindow === 'obeyed',
    },
    ppp: resolvePpp(ppp),
    auth: {
      methods: strongestFirst.filter(method => auth.methods.includes(method)),
      lockout: {
        attemptsPerUser: auth.lockout.attempts,
        attemptsPerAddress: auth.lockout.attemptsPerAddress,
        windowMs: auth.lockout.windowSeconds * 1000,
        durationMs: auth.lockout.durationSeconds * 1000,
      },
    },
    eap: resolveEap(document.eap),
    radius: resolveRadius(document.radius),
    ...(ldap !== undefined && { ldap }),
    ...(document.users !== undefined && { users: document.users.map(resolveUser) }),
    policies: document.policies.map(resolvePolicy),
    filters: resolveFilters(document.filters),
    addresses: {
      server: addresses.server ?? firstUsable(addresses.ipv4),
      ipv4: addresses.ipv4,
      pools: new Map(
        Object.entries(addresses.pools).map(([name, { ipv4, next }]) => [
          name,
          { ranges: ipv4, ...(next !== undefined && { next }) },
        ]),
      ),
      exclude: addresses.exclude,
      ...(addresses.ipv6 !== undefined && { ipv6: addresses.ipv6 }),
      ...(addresses.delegated !== undefined && {
        delegated: {
          prefix: addresses.delegated.prefix,
          prefixLength: addresses.delegated.length,
        },
      }),
      dnsIpv4: addresses.dns.flatMap(dns => (dns.family === 4 ? [dns.address] : [])),
      dnsIpv6: addresses.dns.flatMap(dns => (dns.family === 6 ? [dns.address] : [])),
      winsIpv4: addresses.wins,
      ...(addresses.domain !== undefined && { domain: addresses.domain }),
      routes: addresses.routes,
      ...(addresses.dhcp !== undefined && { dhcp: resolveDhcp(addresses.dhcp) }),
      isRequestable: addresses.requestable,
      isProbed: addresses.conflictProbe,
    },
    access: document.access,
    nat: {
      isEnabled: nat.enabled,
      ...(nat.interface !== 'auto' && { interface: nat.interface }),
    },
    limits: {
      sessions: orNone(limits.sessions),
      sessionsPerUser: orNone(limits.perUser),
      sessionsPerSource: orNone(limits.perSource),
      sessionsPerProtocol: new Map(
        Object.entries(limits.perProtocol).map(([protocol, count]) => [protocol, orNone(count)]),
      ),
      idleTimeoutMs: orNone(limits.idleTimeoutSeconds * 1000),
      sessionTimeoutMs: orNone(limits.sessionTimeoutSeconds * 1000),
    },
    log: { level: log.level, ...(log.file !== undefined && { file: log.file }) },
    state: {
      directory: state.directory,
      controlSocket: state.controlSocket ?? join(state.directory, defaultControlSocketName),
    },
  }
}

function resolveDhcp({
  servers,
  relay,
  inform,
}: NonNullable<ConfigDocument['addresses']['dhcp']>): NonNullable<Config['addresses']['dhcp']> {
  return {
    servers,
    ...(relay !== undefined && { relayAddress: relay }),
    relaysInform: inform === 'relay',
  }
}

function resolvePpp(ppp: ConfigDocument['ppp']): Config['ppp'] {
  const multilink = resolveMultilink(ppp.multilink)
  return multilink === undefined ? {} : { multilink }
}

function certificateFiles({
  cert,
  key,
  ocspResponse,
}: ConfigDocument['sstp']['certificates'][number]): CertificateFiles {
  return { cert, key, ...(ocspResponse !== undefined && { ocspResponse }) }
}

function resolveEap(eap: ConfigDocument['eap']): Config['eap'] {
  return {
    methods: eap.methods,
    ...(eap.certificate !== undefined && { certificate: certificateFiles(eap.certificate) }),
    clientAuthorities: eap.clientAuthorities,
    revocationLists: eap.revocationLists,
    ...(eap.ocspResponses !== undefined && {
      ocsp: { folder: eap.ocspResponses, isRequired: eap.requireOcsp },
    }),
    inner: strongestFirst.filter(method => eap.inner.includes(method)),
    mostConversations: eap.conversations,
  }
}

/** What no single field can say: `report` is called for each contradiction between fields. */
export function checkTogether(
  document: ConfigDocument,
  report: (path: readonly PathKey[], message: string) => void,
): void {
  const { addresses, eap, ikev2, tun, users = [], state } = document
  if (eap.methods.includes('tls') && eap.clientAuthorities.length === 0) {
    report(['eap', 'clientAuthorities'], 'expected an authority, since eap.methods has tls')
  }
  if (eap.requireOcsp && eap.ocspResponses === undefined) {
    report(['eap', 'ocspResponses'], 'expected a folder, since eap.requireOcsp is on')
  }
  const { certificates } = document.sstp
  const stapled = certificates.findIndex(({ ocspResponse }) => ocspResponse !== undefined)
  if (stapled >= 0 && certificates.length > 1) {
    report(
      ['sstp', 'certificates', stapled, 'ocspResponse'],
      'expected one certificate alone: with two it is not known which one a client is shown',
    )
  }
  if (ikev2.requirePostQuantumKey && ikev2.postQuantumKeys.length === 0) {
    report(['ikev2', 'postQuantumKeys'], 'expected a key, since ikev2.requirePostQuantumKey is on')
  }
  if (addresses.delegated !== undefined && addresses.ipv6 === undefined) {
    report(['addresses', 'delegated'], 'expected addresses.ipv6 too: clients ask over IPv6')
  }
  if (addresses.ipv6 !== undefined && tun.mtu < 1280) {
    report(['tun', 'mtu'], 'expected at least 1280, since addresses.ipv6 is set (RFC 8200 §5)')
  }
  if (addresses.dhcp !== undefined && addresses.ipv4.length === 0) {
    report(['addresses', 'ipv4'], 'expected the networks that the servers of addresses.dhcp serve')
  }
  if (addresses.ipv4.length === 0 && addresses.server === undefined) {
    report(['addresses', 'server'], 'expected an IPv4 address, since addresses.ipv4 is empty')
  }
  addresses.ipv4.forEach((range, i) => {
    const other = addresses.ipv4.findIndex(
      (earlier, j) => j < i && earlier.first <= range.last && range.first <= earlier.last,
    )
    if (other >= 0) {
      report(['addresses', 'ipv4', i], `expected a range apart from addresses.ipv4[${other}]`)
    }
    if (!isUnicast(range)) report(['addresses', 'ipv4', i], unicastExpected)
  })
  const ranges = [...addresses.ipv4]
  for (const [name, pool] of Object.entries(addresses.pools)) {
    pool.ipv4.forEach((range, i) => {
      const path = ['addresses', 'pools', name, 'ipv4', i] as const
      if (ranges.some(({ first, last }) => first <= range.last && range.first <= last)) {
        report(path, 'expected a range apart from those of the other pools')
      }
      if (!isUnicast(range)) report(path, unicastExpected)
      ranges.push(range)
    })
    if (pool.next !== undefined && !Object.hasOwn(addresses.pools, pool.next)) {
      report(['addresses', 'pools', name, 'next'], 'expected the name of one of addresses.pools')
    }
  }
  document.policies.forEach(({ give }, i) => {
    if (give.pool !== undefined && !Object.hasOwn(addresses.pools, give.pool)) {
      report(
        ['policies', i, 'give', 'pool'],
        `expected the name of one of addresses.pools, not "${give.pool}"`,
      )
    }
    const named = { filter: give.filter, quarantine: give.quarantine?.filter }
    for (const [key, filter] of Object.entries(named)) {
      if (filter === undefined || Object.hasOwn(document.filters, filter)) continue
      report(['policies', i, 'give', key], `expected the name of one of filters, not "${filter}"`)
    }
  })
  const names = new Map<string, number>()
  const fixed = new Map<number, number>()
  users.forEach((user, i) => {
    const key = user.name.toLowerCase()
    const sameName = names.get(key)
    if (sameName !== undefined) {
      report(['users', i, 'name'], `expected a name of its own; users[${sameName}] has this one`)
    }
    names.set(key, sameName ?? i)
    if (user.address === undefined) return
    const sameAddress = fixed.get(user.address)
    if (sameAddress !== undefined) {
      report(
        ['users', i, 'address'],
        `expected an address of its own; users[${sameAddress}] has this one`,
      )
    }
    fixed.set(user.address, sameAddress ?? i)
  })
  const socket = state.controlSocket ?? join(state.directory, defaultControlSocketName)
  if (Buffer.byteLength(socket) > 107) {
    report(
      ['state', 'directory'],
      'expected a shorter path, or state.controlSocket: a socket path has at most 107 bytes',
    )
  }
}

function resolveUser(user: NonNullable<ConfigDocument['users']>[number]): UserConfig {
  const { name, password, totp, dialIn, groups, address, expires } = user
  const { maxSessions, idleTimeoutSeconds, sessionTimeoutSeconds } = user
  return {
    name,
    password,
    dialIn,
    groups,
    isDisabled: user.disabled,
    ...(totp !== undefined && { totpKey: totp }),
    ...(address !== undefined && { ipv4Address: address }),
    ...(expires !== undefined && { expires }),
    ...(maxSessions !== undefined && { maxSessions: orNone(maxSessions) }),
    ...(idleTimeoutSeconds !== undefined && { idleTimeoutMs: orNone(idleTimeoutSeconds * 1000) }),
    ...(sessionTimeoutSeconds !== undefined && {
      sessionTimeoutMs: orNone(sessionTimeoutSeconds * 1000),
    }),
  }
}

function orNone(value: number): number {
  return value === 0 ? Number.POSITIVE_INFINITY : value
}

/** The first address that is not a network's own: `.0` names a network to many clients. */
function firstUsable(ranges: readonly Ipv4Range[]): number {
  const range = ranges[0]
  if (range === undefined) return 0
  return (range.first & 255) === 0 && range.first < range.last ? range.first + 1 : range.first
}

const unicastExpected = 'expected unicast addresses, none of 0/8, 127/8 or above 223'

function isUnicast(range: Ipv4Range): boolean {
  return range.first >>> 24 !== 0 && range.last >>> 24 < 224 && !holdsLoopback(range)
}

function holdsLoopback(range: Ipv4Range): boolean {
  return range.first >>> 24 <= 127 && range.last >>> 24 >= 127
}
