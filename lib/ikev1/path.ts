/** Where the datagrams of an ISAKMP SA go, and what NATs do to them: RFC 3947 §3. */
import { equalBytes, putU16, putU32 } from '../core/bytes.ts'
import { parseIpv4, parseIpv6 } from '../core/ip-address.ts'
import { digest, type HashName } from '../crypto/hash.ts'
import type { PayloadOf } from './wire/payload.ts'

/** An address in its usual text form and a UDP port. */
export interface Endpoint {
  readonly address: string
  readonly port: number
}

export interface Path {
  readonly local: Endpoint
  readonly peer: Endpoint
  /** Datagrams travel on port 4500, behind the non-ESP marker (RFC 3948 §2.2). */
  readonly isFloated: boolean
}

/** Before a datagram has come. */
export const noPath: Path = {
  local: { address: '0.0.0.0', port: 0 },
  peer: { address: '0.0.0.0', port: 0 },
  isFloated: false,
}

export interface NatState {
  readonly isLocalBehindNat: boolean
  readonly isPeerBehindNat: boolean
}

export interface CookiePair {
  readonly initiatorCookie: Uint8Array
  readonly responderCookie: Uint8Array
}

export const NAT_TRAVERSAL_PORT = 4500

/** 4 or 16 bytes; none when the text is no address. */
export function addressBytes(address: string): Uint8Array {
  const ipv4 = parseIpv4(address)
  if (ipv4 === undefined) return parseIpv6(address) ?? new Uint8Array(0)
  const out = new Uint8Array(4)
  putU32(out, 0, ipv4)
  return out
}

/** Between one of our addresses and one socket of a peer. */
export function isSameEnds(a: Path, b: Path): boolean {
  return (
    a.peer.address === b.peer.address &&
    a.peer.port === b.peer.port &&
    a.local.address === b.local.address
  )
}

export function isSamePath(a: Path, b: Path): boolean {
  return isSameEnds(a, b) && a.local.port === b.local.port && a.isFloated === b.isFloated
}

/** HASH(CKY-I | CKY-R | address | port), RFC 3947 §3.2. */
export function natHash(hash: HashName, cookies: CookiePair, endpoint: Endpoint): Uint8Array {
  const port = new Uint8Array(2)
  putU16(port, 0, endpoint.port)
  return digest(
    hash,
    cookies.initiatorCookie,
    cookies.responderCookie,
    addressBytes(endpoint.address),
    port,
  )
}

/**
 * The remote end first, then our own. `forcesEncapsulation` lies about our own, so that both sides
 * find a NAT and ESP always travels in UDP: no raw socket is needed.
 */
export function natPayloads(
  hash: HashName,
  cookies: CookiePair,
  path: Path,
  isDraft: boolean,
  forcesEncapsulation: boolean,
): PayloadOf<'NAT-D'>[] {
  const own = natHash(hash, cookies, path.local)
  if (forcesEncapsulation) own[0] = (own[0] ?? 0) ^ 0xff
  return [
    { type: 'NAT-D', isDraft, data: natHash(hash, cookies, path.peer) },
    { type: 'NAT-D', isDraft, data: own },
  ]
}

/** What the peer's payloads say; undefined when it sent none. */
export function detectNat(
  payloads: readonly PayloadOf<'NAT-D'>[],
  hash: HashName,
  cookies: CookiePair,
  path: Path,
): NatState | undefined {
  const [ours, ...theirs] = payloads
  if (ours === undefined || theirs.length === 0) return undefined
  const peerHash = natHash(hash, cookies, path.peer)
  return {
    isLocalBehindNat: !equalBytes(ours.data, natHash(hash, cookies, path.local)),
    // A peer with several addresses sends one hash for each (§3.2).
    isPeerBehindNat: !theirs.some(payload => equalBytes(payload.data, peerHash)),
  }
}
