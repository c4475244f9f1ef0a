/** Addresses that follow from the configuration: where to listen, and our own in the tunnels. */
import type { Config } from '../config.ts'

/** `::` covers IPv4 too (RFC 3493 §3.7), so it and `0.0.0.0` together are one address. */
export function serverAddresses(config: Config): string[] {
  const { listen } = config.server
  return listen.includes('::') ? listen.filter(host => host !== '0.0.0.0') : [...listen]
}

/** ::1 of the prefix that sessions get theirs from; its first /64 is given to no session. */
export function serverIpv6(config: Config): Uint8Array | undefined {
  const prefix = config.addresses.ipv6
  if (prefix === undefined) return undefined
  const address = Uint8Array.from(prefix.address)
  address[15] = 1
  return address
}
