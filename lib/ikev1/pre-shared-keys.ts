/** Which pre-shared keys may be a peer's: by its address, and those for everybody. */
import {
  type Ipv4Network,
  type Ipv6Network,
  isInIpv4Network,
  isInIpv6Network,
  parseIpv4,
  parseIpv6,
} from '../core/ip-address.ts'
import type { Secret } from '../core/secret.ts'

export type KeyScope =
  | { readonly type: 'anyone' }
  | { readonly type: 'ipv4'; readonly network: Ipv4Network }
  | { readonly type: 'ipv6'; readonly network: Ipv6Network }

export interface PreSharedKey {
  readonly scope: KeyScope
  readonly key: Secret
}

/** Implementation constant: each costs a key derivation per attempt. */
const mostCandidates = 8

function prefixLength(scope: KeyScope): number {
  return scope.type === 'anyone' ? -1 : scope.network.prefixLength
}

/**
 * The keys to try for a peer, the most specific first. Main mode cannot tell the identity before it
 * is decrypted, so only the address chooses (RFC 2409 §5.4).
 */
export function keysFor(keys: readonly PreSharedKey[], peerAddress: string): Secret[] {
  const ipv4 = parseIpv4(peerAddress)
  const ipv6 = parseIpv6(peerAddress)
  return keys
    .filter(({ scope }) => {
      if (scope.type === 'anyone') return true
      if (scope.type === 'ipv4') return ipv4 !== undefined && isInIpv4Network(scope.network, ipv4)
      return ipv6 !== undefined && isInIpv6Network(scope.network, ipv6)
    })
    .sort((a, b) => prefixLength(b.scope) - prefixLength(a.scope))
    .slice(0, mostCandidates)
    .map(({ key }) => key)
}
