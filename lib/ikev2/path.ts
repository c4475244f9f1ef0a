/** Where datagrams of an IKE SA go: two endpoints. */
import { equalBytes, fromHex, putU32 } from '../core/bytes.ts'
import { parseIpv4, parseIpv6 } from '../core/ip-address.ts'

/** An address in its usual text form and a port. */
export interface Endpoint {
  readonly address: string
  readonly port: number
  /** One end of a TCP connection (RFC 9329); UDP when absent. */
  readonly isTcp?: true
}

export interface Path {
  readonly local: Endpoint
  readonly peer: Endpoint
}

/** RFC 7296 §2: IKE, and IKE with UDP-encapsulated ESP. */
export const IKE_PORT = 500
export const NAT_TRAVERSAL_PORT = 4500

/** 4 or 16 bytes; none when the text is no address. */
export function addressBytes(address: string): Uint8Array {
  const ipv4 = parseIpv4(address)
  if (ipv4 === undefined) return parseIpv6(address) ?? fromHex('')
  const out = new Uint8Array(4)
  putU32(out, 0, ipv4)
  return out
}

export function isSameEndpoint(a: Endpoint, b: Endpoint): boolean {
  if (a.port !== b.port || a.isTcp !== b.isTcp) return false
  return a.address === b.address || equalBytes(addressBytes(a.address), addressBytes(b.address))
}

/** For people: `192.0.2.1:500`, `[2001:db8::1]:4500`, `192.0.2.1:40000/tcp`. */
export function describeEndpoint({ address, port, isTcp }: Endpoint): string {
  const host = address.includes(':') ? `[${address}]` : address
  return `${host}:${port}${isTcp === true ? '/tcp' : ''}`
}

export function isSamePath(a: Path, b: Path): boolean {
  return isSameEndpoint(a.local, b.local) && isSameEndpoint(a.peer, b.peer)
}
