/** What an Access-Accept gives to its user: RFC 2865 §5, 2869, 3162, 4818, 4849, 6911, 2548. */
import { utf8Text } from '../../core/bytes.ts'
import {
  type Ipv4Network,
  type Ipv6Network,
  ipv4Mask,
  parseIpv4,
  parseIpv6Network,
} from '../../core/ip-address.ts'
import type { Authorization } from '../authenticator.ts'
import { bytesOfAll, joinedOf, prefixOf, textOf, textsOf, u32Of } from './wire/attributes.ts'
import type { NameOf } from './wire/dictionary.ts'
import type { RadiusAttribute } from './wire/packet.ts'

// Specification constants.

/** RFC 2865 §5.8: the user may choose, or the NAS. Neither is an address. */
const lowestSpecialAddress = 0xffff_fffe
/** RFC 2869 §5.16: "MUST NOT be smaller than 60". */
const shortestInterimSeconds = 60
/** RFC 2548 §2.3.1: 2 is required. */
const encryptionRequired = 2
/** RFC 2548 §2.3.2, as the bits of Windows. */
const encryptionTypes = [
  [0x2, 40],
  [0x8, 56],
  [0x4, 128],
] as const

// Implementation constants.

/** Of one kind, for one user. */
const mostRoutes = 256
const mostFilterRules = 512
/** Between looks at the load of a bundle. */
const shortestDropSeconds = 5

type Received = readonly RadiusAttribute[]

/** `userName` is what the peer sent; an Accept may say otherwise (RFC 2865 §5.1). */
export function authorizationOf(list: Received, userName: string): Authorization {
  const ipv4Address = u32Of(list, 'Framed-IP-Address')
  const ipv6Prefix = prefixOf(list, 'Framed-IPv6-Prefix')
  const delegatedIpv6Prefix = prefixOf(list, 'Delegated-IPv6-Prefix')
  const mostPorts = u32Of(list, 'Port-Limit')
  const interimSeconds = u32Of(list, 'Acct-Interim-Interval')
  const accountingClass = bytesOfAll(list, 'Class')
  const chosenName = textOf(list, 'User-Name')
  return {
    userName: chosenName === undefined || chosenName === '' ? userName : chosenName,
    ...(ipv4Address !== undefined &&
      ipv4Address !== 0 &&
      ipv4Address < lowestSpecialAddress && { ipv4Address }),
    ...optional('ipv4Pool', textOf(list, 'Framed-Pool')),
    ...optional('ipv6Pool', textOf(list, 'Framed-IPv6-Pool')),
    ...optional('ipv6Prefix', ipv6Prefix),
    ...optional('delegatedIpv6Prefix', delegatedIpv6Prefix),
    ...routesOf(list),
    ...namesOf(list),
    ...optional('sessionTimeoutSeconds', u32Of(list, 'Session-Timeout')),
    ...optional('idleTimeoutSeconds', u32Of(list, 'Idle-Timeout')),
    // RFC 2865 §5.42: ports, be they sessions or links of one.
    ...(mostPorts !== undefined &&
      mostPorts > 0 && { maxSessions: mostPorts, maxLinks: mostPorts }),
    ...(interimSeconds !== undefined && {
      interimIntervalSeconds: Math.max(interimSeconds, shortestInterimSeconds),
    }),
    ...filtersOf(list),
    ...ratesOf(list),
    ...encryptionOf(list),
    ...linkLoadOf(list),
    ...quarantineOf(list),
    ...(accountingClass.length > 0 && { accountingClass }),
  }
}

/** Names and rules of filters; the same attributes come in a CoA-Request. */
export function filtersOf(list: Received): Pick<Authorization, 'filterName' | 'filterRules'> {
  const rules = filterRulesOf(joinedOf(list, 'NAS-Filter-Rule'))
  return {
    ...optional('filterName', textOf(list, 'Filter-Id')),
    ...(rules.length > 0 && { filterRules: rules }),
  }
}

/** bit/s. The attribute of MikroTik counts before those of WISPr. */
export function ratesOf(
  list: Received,
): Pick<Authorization, 'receiveBitsPerSecond' | 'sendBitsPerSecond'> {
  const mikrotik = rateLimitOf(textOf(list, 'MikroTik-Rate-Limit'))
  const receive = mikrotik?.receive ?? u32Of(list, 'WISPr-Bandwidth-Max-Up')
  const send = mikrotik?.send ?? u32Of(list, 'WISPr-Bandwidth-Max-Down')
  return {
    ...(receive !== undefined && receive > 0 && { receiveBitsPerSecond: receive }),
    ...(send !== undefined && send > 0 && { sendBitsPerSecond: send }),
  }
}

/** Routes that cannot be read, and default routes, are left out. */
export function routesOf(list: Received): Pick<Authorization, 'ipv4Routes' | 'ipv6Routes'> {
  const ipv4Routes = read(textsOf(list, 'Framed-Route').slice(0, mostRoutes), framedRoute)
  const ipv6Routes = read(textsOf(list, 'Framed-IPv6-Route').slice(0, mostRoutes), framedIpv6Route)
  return {
    ...(ipv4Routes.length > 0 && { ipv4Routes }),
    ...(ipv6Routes.length > 0 && { ipv6Routes }),
  }
}

/** Text for the user without anything that a terminal or a log would stumble over. */
export function messageOfReply(list: Received): string | undefined {
  const text = textsOf(list, 'Reply-Message')
    .join(' ')
    .replace(/\p{C}+/gu, ' ')
    .trim()
    .slice(0, 240)
  return text === '' ? undefined : text
}

function namesOf(list: Received): Pick<Authorization, 'dnsIpv4' | 'dnsIpv6' | 'winsIpv4'> {
  const addresses = (...names: NameOf<'ipv4'>[]) =>
    names.flatMap(name => u32Of(list, name) ?? []).filter(address => address !== 0)
  const dnsIpv4 = addresses('MS-Primary-DNS-Server', 'MS-Secondary-DNS-Server')
  const winsIpv4 = addresses('MS-Primary-NBNS-Server', 'MS-Secondary-NBNS-Server')
  const dnsIpv6 = bytesOfAll(list, 'DNS-Server-IPv6-Address')
  return {
    ...(dnsIpv4.length > 0 && { dnsIpv4 }),
    ...(winsIpv4.length > 0 && { winsIpv4 }),
    ...(dnsIpv6.length > 0 && { dnsIpv6 }),
  }
}

/** RFC 2548 §2.4. A usage of 0 forbids BAP; what is out of bounds was not said. */
function linkLoadOf(list: Received): Pick<Authorization, 'linkLoad'> {
  const usage = u32Of(list, 'MS-BAP-Usage')
  const percent = u32Of(list, 'MS-Link-Utilization-Threshold') ?? 0
  const seconds = u32Of(list, 'MS-Link-Drop-Time-Limit') ?? 0
  const linkLoad = {
    ...(usage !== undefined && { usesBap: usage !== 0 }),
    ...(percent >= 1 && percent <= 100 && { dropBelowPercent: percent }),
    ...(seconds >= shortestDropSeconds && { dropAfterSeconds: seconds }),
  }
  return Object.keys(linkLoad).length === 0 ? {} : { linkLoad }
}

function encryptionOf(list: Received): Pick<Authorization, 'mppeKeyBits' | 'isEncryptionRequired'> {
  const policy = u32Of(list, 'MS-MPPE-Encryption-Policy')
  const types = u32Of(list, 'MS-MPPE-Encryption-Types')
  return {
    ...(policy !== undefined && { isEncryptionRequired: policy === encryptionRequired }),
    ...(types !== undefined && {
      mppeKeyBits: encryptionTypes.filter(([bit]) => (types & bit) !== 0).map(([, bits]) => bits),
    }),
  }
}

/** RFC 2548 §2.7: a filter for the time being; RADIUS can only name it. */
function quarantineOf(list: Received): Pick<Authorization, 'quarantine'> {
  const filter = joinedOf(list, 'MS-Quarantine-IPFilter')
  const timeoutSeconds = u32Of(list, 'MS-Quarantine-Session-Timeout')
  if (filter === undefined && timeoutSeconds === undefined) return {}
  const name = filter === undefined ? '' : utf8Text(filter)
  return {
    quarantine: {
      ...(/^[\x21-\x7e]{1,253}$/.test(name) && { filterName: name }),
      ...optional('timeoutSeconds', timeoutSeconds),
    },
  }
}

/** RFC 4849 §2: rules end with a zero byte, and go over from attribute to attribute. */
function filterRulesOf(joined: Uint8Array | undefined): string[] {
  if (joined === undefined) return []
  return utf8Text(joined)
    .split('\0')
    .map(rule => rule.trim())
    .filter(rule => rule !== '')
    .slice(0, mostFilterRules)
}

/** `rx[/tx]` from the router's point of view, with k, M or G; bursts behind are not read. */
function rateLimitOf(text: string | undefined): { receive: number; send: number } | undefined {
  const match = /^\s*(\d{1,10})([kMG]?)(?:\/(\d{1,10})([kMG]?))?(?:\s|$)/.exec(text ?? '')
  if (match === null) return undefined
  const factors: Readonly<Record<string, number>> = { '': 1, k: 1e3, M: 1e6, G: 1e9 }
  const [, rx = '', rxUnit = '', tx = rx, txUnit = rxUnit] = match
  return {
    receive: Number(rx) * (factors[rxUnit] ?? 1),
    send: Number(tx) * (factors[txUnit] ?? 1),
  }
}

/** RFC 2865 §5.22: `192.0.2.0/24 192.0.2.1 1`; without a length, that of the address class. */
function framedRoute(text: string): Ipv4Network | undefined {
  const [addressText = '', lengthText] = (text.trim().split(/\s+/)[0] ?? '').split('/')
  const address = parseIpv4(addressText)
  if (address === undefined) return undefined
  if (lengthText !== undefined && !/^\d{1,2}$/.test(lengthText)) return undefined
  const prefixLength = lengthText === undefined ? classLength(address) : Number(lengthText)
  if (prefixLength < 1 || prefixLength > 32) return undefined
  return { address: (address & ipv4Mask(prefixLength)) >>> 0, prefixLength }
}

function classLength(address: number): number {
  if (address >>> 31 === 0) return 8
  return address >>> 30 === 2 ? 16 : 24
}

/** RFC 3162 §2.5: `2001:db8::/32 2001:db8::1 1`. */
function framedIpv6Route(text: string): Ipv6Network | undefined {
  const network = parseIpv6Network(text.trim().split(/\s+/)[0] ?? '')
  return network === undefined || network.prefixLength < 1 ? undefined : network
}

function read<T>(texts: readonly string[], parse: (text: string) => T | undefined): T[] {
  return texts.flatMap(text => parse(text) ?? [])
}

function optional<Name extends string, Value>(
  name: Name,
  value: Value | undefined,
): { [N in Name]?: Value } {
  return value === undefined ? {} : ({ [name]: value } as { [N in Name]?: Value })
}
