/** What a peer asks of us and what it is given: Configuration payloads as values, RFC 7296 §2.19, §3.15. */
import { copyBytes, putU32, u32, utf8, utf8Text } from '../core/bytes.ts'
import { type Ipv4Network, type Ipv6Network, ipv4Mask } from '../core/ip-address.ts'
import {
  ConfigurationAttributeType as Attribute,
  type ConfigurationAttribute,
  type ConfigurationPayload,
  ConfigurationType,
} from './wire/configuration.ts'

export interface ConfigurationRequest {
  readonly wantsIpv4: boolean
  readonly wantsIpv6: boolean
  /** Windows asks for its old IPv6 address again: honour it only when it is free. */
  readonly ipv4Address: number | undefined
  readonly ipv6Address: Uint8Array | undefined
  /** Numbers of all attributes in the request. */
  readonly attributeTypes: readonly number[]
}

/** What the peer gets. Lists may be empty. IPv4 in host order, IPv6 as 16 bytes. */
export interface ConfigurationGrant {
  readonly ipv4Address?: number
  readonly ipv6Address?: { readonly address: Uint8Array; readonly prefixLength: number }
  readonly ipv4Dns?: readonly number[]
  readonly ipv6Dns?: readonly Uint8Array[]
  readonly ipv4Nbns?: readonly number[]
  readonly ipv4Subnets?: readonly Ipv4Network[]
  readonly ipv6Subnets?: readonly Ipv6Network[]
  readonly dnsDomains?: readonly string[]
  /** Answer to APPLICATION_VERSION. */
  readonly applicationVersion?: string
}

const nothing = new Uint8Array(0)

export function parseConfigurationRequest(payload: ConfigurationPayload): ConfigurationRequest {
  const types = payload.attributes.map(attribute => attribute.attributeType)
  const wished = (attributeType: number, minBytes: number) =>
    payload.attributes.find(
      attribute => attribute.attributeType === attributeType && attribute.value.length >= minBytes,
    )?.value
  const ipv4 = wished(Attribute.INTERNAL_IP4_ADDRESS, 4)
  const ipv6 = wished(Attribute.INTERNAL_IP6_ADDRESS, 16)
  return {
    wantsIpv4: types.includes(Attribute.INTERNAL_IP4_ADDRESS),
    wantsIpv6: types.includes(Attribute.INTERNAL_IP6_ADDRESS),
    ipv4Address: ipv4 === undefined || u32(ipv4, 0) === 0 ? undefined : u32(ipv4, 0),
    ipv6Address: ipv6 === undefined ? undefined : copyBytes(ipv6, 0, 16),
    attributeTypes: [...new Set(types)],
  }
}

function ipv4Bytes(address: number): Uint8Array {
  const out = new Uint8Array(4)
  putU32(out, 0, address)
  return out
}

function ipv4NetworkBytes(network: Ipv4Network): Uint8Array {
  const out = new Uint8Array(8)
  putU32(out, putU32(out, 0, network.address), ipv4Mask(network.prefixLength))
  return out
}

function ipv6NetworkBytes(address: Uint8Array, prefixLength: number): Uint8Array {
  const out = new Uint8Array(17)
  out.set(address)
  out[16] = prefixLength
  return out
}

/** CFG_REPLY: what was asked for and is granted; several DNS servers are several attributes. */
export function configurationReply(
  request: ConfigurationRequest,
  grant: ConfigurationGrant,
): ConfigurationPayload {
  const attributes: ConfigurationAttribute[] = []
  const add = (attributeType: number, value: Uint8Array | undefined) => {
    if (value === undefined || !request.attributeTypes.includes(attributeType)) return
    attributes.push({ attributeType, value })
  }
  const { ipv4Address, ipv6Address } = grant
  if (ipv4Address !== undefined) {
    add(Attribute.INTERNAL_IP4_ADDRESS, ipv4Bytes(ipv4Address))
    add(Attribute.INTERNAL_IP4_NETMASK, ipv4Bytes(0xffffffff))
  }
  if (ipv6Address !== undefined) {
    const { address, prefixLength } = ipv6Address
    add(Attribute.INTERNAL_IP6_ADDRESS, ipv6NetworkBytes(address, prefixLength))
  }
  for (const dns of grant.ipv4Dns ?? []) add(Attribute.INTERNAL_IP4_DNS, ipv4Bytes(dns))
  for (const dns of grant.ipv6Dns ?? []) add(Attribute.INTERNAL_IP6_DNS, dns)
  for (const nbns of grant.ipv4Nbns ?? []) add(Attribute.INTERNAL_IP4_NBNS, ipv4Bytes(nbns))
  for (const network of grant.ipv4Subnets ?? []) {
    add(Attribute.INTERNAL_IP4_SUBNET, ipv4NetworkBytes(network))
  }
  for (const network of grant.ipv6Subnets ?? []) {
    add(Attribute.INTERNAL_IP6_SUBNET, ipv6NetworkBytes(network.address, network.prefixLength))
  }
  for (const domain of grant.dnsDomains ?? []) add(Attribute.INTERNAL_DNS_DOMAIN, utf8(domain))
  if (grant.applicationVersion !== undefined) {
    add(Attribute.APPLICATION_VERSION, utf8(grant.applicationVersion))
  }
  return { type: 'CP', configurationType: ConfigurationType.CFG_REPLY, attributes }
}

/** CFG_REQUEST of an initiator: empty attributes for what it would like. */
export function configurationRequest(attributeTypes: readonly number[]): ConfigurationPayload {
  return {
    type: 'CP',
    configurationType: ConfigurationType.CFG_REQUEST,
    attributes: attributeTypes.map(attributeType => ({ attributeType, value: nothing })),
  }
}

/** What an initiator was given; attributes of wrong lengths are left out. */
export function parseConfigurationReply(payload: ConfigurationPayload): ConfigurationGrant {
  const ipv4Dns: number[] = []
  const ipv6Dns: Uint8Array[] = []
  const ipv4Nbns: number[] = []
  const ipv4Subnets: Ipv4Network[] = []
  const ipv6Subnets: Ipv6Network[] = []
  const dnsDomains: string[] = []
  let ipv4Address: number | undefined
  let ipv6Address: { address: Uint8Array; prefixLength: number } | undefined
  let applicationVersion: string | undefined
  for (const { attributeType, value } of payload.attributes) {
    switch (attributeType) {
      case Attribute.INTERNAL_IP4_ADDRESS:
        if (value.length === 4) ipv4Address ??= u32(value, 0)
        break
      case Attribute.INTERNAL_IP6_ADDRESS:
        if (value.length === 17 && (value[16] ?? 0) <= 128) {
          ipv6Address ??= { address: copyBytes(value, 0, 16), prefixLength: value[16] ?? 0 }
        }
        break
      case Attribute.INTERNAL_IP4_DNS:
        if (value.length === 4) ipv4Dns.push(u32(value, 0))
        break
      case Attribute.INTERNAL_IP6_DNS:
        if (value.length === 16) ipv6Dns.push(copyBytes(value))
        break
      case Attribute.INTERNAL_IP4_NBNS:
        if (value.length === 4) ipv4Nbns.push(u32(value, 0))
        break
      case Attribute.INTERNAL_IP4_SUBNET:
        if (value.length === 8) {
          const prefixLength = Math.clz32(~u32(value, 4))
          ipv4Subnets.push({ address: (u32(value, 0) & u32(value, 4)) >>> 0, prefixLength })
        }
        break
      case Attribute.INTERNAL_IP6_SUBNET:
        if (value.length === 17 && (value[16] ?? 0) <= 128) {
          ipv6Subnets.push({ address: copyBytes(value, 0, 16), prefixLength: value[16] ?? 0 })
        }
        break
      case Attribute.INTERNAL_DNS_DOMAIN:
        dnsDomains.push(utf8Text(value))
        break
      case Attribute.APPLICATION_VERSION:
        applicationVersion = utf8Text(value)
        break
      default:
        break
    }
  }
  return {
    ...(ipv4Address === undefined ? {} : { ipv4Address }),
    ...(ipv6Address === undefined ? {} : { ipv6Address }),
    ...(applicationVersion === undefined ? {} : { applicationVersion }),
    ipv4Dns,
    ipv6Dns,
    ipv4Nbns,
    ipv4Subnets,
    ipv6Subnets,
    dnsDomains,
  }
}
