/** What clients reach through their tunnel, as each way to tell them has it. */
import type { DhcpSettings } from '../address/dhcp-responder.ts'
import type { Config, IpNetwork } from '../config.ts'
import { type Ipv4Network, isInIpv4Network, isInIpv6Network } from '../core/ip-address.ts'
import { everything, ipv4Selector, ipv6Selector } from '../ikev2/traffic-selectors.ts'
import type { TrafficSelector } from '../ikev2/wire/traffic-selector.ts'
import { serverIpv6 } from './server-addresses.ts'

/** RFC 919 §7: where Windows sends its DHCPINFORM. */
const limitedBroadcast: IpNetwork = { family: 4, address: 0xffffffff, prefixLength: 32 }

/**
 * The networks of one family, undefined for everything. The server and the DNS servers that clients
 * are told of are among them.
 */
function networksOf(config: Config, family: 4 | 6): IpNetwork[] | undefined {
  const { access, addresses } = config
  const own6 = serverIpv6(config)
  const own: IpNetwork[] = [
    { family: 4, address: addresses.server, prefixLength: 32 },
    ...(own6 === undefined ? [] : [{ family: 6, address: own6, prefixLength: 128 } as const]),
  ]
  const isOfFamily = (network: IpNetwork) => network.family === family
  if (access === 'serveronly') return own.filter(isOfFamily)
  const routes = addresses.routes.filter(isOfFamily)
  if (routes.length === 0) return undefined
  const hosts: IpNetwork[] = [
    ...own,
    ...addresses.dnsIpv4.map(address => ({ family: 4, address, prefixLength: 32 }) as const),
    ...addresses.dnsIpv6.map(address => ({ family: 6, address, prefixLength: 128 }) as const),
  ]
  const missing = hosts.filter(
    host => isOfFamily(host) && !routes.some(route => isHostIn(route, host)),
  )
  return [...routes, ...missing]
}

function isHostIn(network: IpNetwork, host: IpNetwork): boolean {
  if (network.family === 4) return host.family === 4 && isInIpv4Network(network, host.address)
  return host.family === 6 && isInIpv6Network(network, host.address)
}

/** For IKEv2, where selectors are what clients make routes of. */
export function clientSelectors(config: Config, family: 4 | 6): TrafficSelector[] {
  const networks = networksOf(config, family)
  if (networks === undefined) return everything.filter(selector => selector.family === family)
  return [...networks, ...(family === 4 ? [limitedBroadcast] : [])].map(selectorOf)
}

export function selectorOf(network: IpNetwork): TrafficSelector {
  return network.family === 4 ? ipv4Selector(network) : ipv6Selector(network)
}

/** For DHCPINFORM, which is how Windows asks. */
export function dhcpSettings(config: Config): DhcpSettings {
  const { server, dnsIpv4, domain } = config.addresses
  const routes = (networksOf(config, 4) ?? []).filter(
    (network): network is { family: 4 } & Ipv4Network => network.family === 4,
  )
  return {
    serverAddress: server,
    dnsServers: dnsIpv4,
    ...(domain !== undefined && { domain }),
    routes,
  }
}
