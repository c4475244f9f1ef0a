/** Ranges of addresses and ports as sets: narrowing, RFC 7296 §2.9. */
import { copyBytes, putU32, u32 } from '../core/bytes.ts'
import {
  formatIpv4,
  formatIpv6,
  type Ipv4Network,
  type Ipv6Network,
  ipv4Mask,
} from '../core/ip-address.ts'
import { SELECTORS_MAX, type TrafficSelector } from './wire/traffic-selector.ts'

const ANY_PROTOCOL = 0
const PORT_MAX = 65_535

function wholeRange(
  family: 4 | 6,
  startAddress: Uint8Array,
  endAddress: Uint8Array,
): TrafficSelector {
  return {
    family,
    ipProtocol: ANY_PROTOCOL,
    startPort: 0,
    endPort: PORT_MAX,
    startAddress,
    endAddress,
  }
}

export function ipv4Selector(network: Ipv4Network): TrafficSelector {
  const start = new Uint8Array(4)
  const end = new Uint8Array(4)
  putU32(start, 0, network.address)
  putU32(end, 0, (network.address | ~ipv4Mask(network.prefixLength)) >>> 0)
  return wholeRange(4, start, end)
}

export function ipv6Selector(network: Ipv6Network): TrafficSelector {
  const end = copyBytes(network.address)
  for (let bit = network.prefixLength; bit < 128; bit++) {
    end[bit >>> 3] = (end[bit >>> 3] ?? 0) | (0x80 >>> (bit & 7))
  }
  return wholeRange(6, copyBytes(network.address), end)
}

/** All of IPv4, and all of IPv6: what clients ask for. */
export const everything: readonly TrafficSelector[] = [
  ipv4Selector({ address: 0, prefixLength: 0 }),
  ipv6Selector({ address: new Uint8Array(16), prefixLength: 0 }),
]

/** One address, of 4 or 16 bytes. */
export function hostSelector(address: Uint8Array): TrafficSelector {
  const copy = copyBytes(address)
  return wholeRange(address.length === 4 ? 4 : 6, copy, copy)
}

function compare(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < a.length; i++) {
    const difference = (a[i] ?? 0) - (b[i] ?? 0)
    if (difference !== 0) return difference
  }
  return 0
}

function later(a: Uint8Array, b: Uint8Array): Uint8Array {
  return compare(a, b) >= 0 ? a : b
}

function earlier(a: Uint8Array, b: Uint8Array): Uint8Array {
  return compare(a, b) <= 0 ? a : b
}

function intersection(a: TrafficSelector, b: TrafficSelector): TrafficSelector | undefined {
  if (a.family !== b.family) return undefined
  const hasAny = a.ipProtocol === ANY_PROTOCOL || b.ipProtocol === ANY_PROTOCOL
  if (!hasAny && a.ipProtocol !== b.ipProtocol) return undefined
  const startAddress = later(a.startAddress, b.startAddress)
  const endAddress = earlier(a.endAddress, b.endAddress)
  if (compare(startAddress, endAddress) > 0) return undefined
  // A start port of 65535 with an end port of 0 is OPAQUE (RFC 7296 §3.13.1): we have no such flows.
  const startPort = Math.max(a.startPort, b.startPort)
  const endPort = Math.min(a.endPort, b.endPort)
  if (startPort > endPort) return undefined
  return {
    family: a.family,
    ipProtocol: a.ipProtocol === ANY_PROTOCOL ? b.ipProtocol : a.ipProtocol,
    startPort,
    endPort,
    // copied: outlive the message
    startAddress: copyBytes(startAddress),
    endAddress: copyBytes(endAddress),
  }
}

function contains(outer: TrafficSelector, inner: TrafficSelector): boolean {
  return (
    outer.family === inner.family &&
    (outer.ipProtocol === ANY_PROTOCOL || outer.ipProtocol === inner.ipProtocol) &&
    outer.startPort <= inner.startPort &&
    outer.endPort >= inner.endPort &&
    compare(outer.startAddress, inner.startAddress) <= 0 &&
    compare(outer.endAddress, inner.endAddress) >= 0
  )
}

/**
 * What both sides allow, without ranges that others contain. Empty: TS_UNACCEPTABLE. Who asks for
 * everything, as clients do, gets the one list of all that is permitted.
 */
export function narrow(
  proposed: readonly TrafficSelector[],
  permitted: readonly TrafficSelector[],
): readonly TrafficSelector[] {
  if (permitted.length <= SELECTORS_MAX && isWithin(permitted, proposed)) return permitted
  const kept: TrafficSelector[] = []
  for (const a of proposed) {
    for (const b of permitted) {
      const both = intersection(a, b)
      if (both === undefined || kept.some(other => contains(other, both))) continue
      for (let i = kept.length - 1; i >= 0; i--) {
        const other = kept[i]
        if (other !== undefined && contains(both, other)) kept.splice(i, 1)
      }
      if (kept.length < SELECTORS_MAX) kept.push(both)
    }
  }
  return kept
}

/** Whether every part of `inner` lies in some part of `outer`. */
export function isWithin(
  inner: readonly TrafficSelector[],
  outer: readonly TrafficSelector[],
): boolean {
  return inner.every(part => outer.some(whole => contains(whole, part)))
}

export function copySelectors(selectors: readonly TrafficSelector[]): TrafficSelector[] {
  return selectors.map(selector => ({
    ...selector,
    startAddress: copyBytes(selector.startAddress),
    endAddress: copyBytes(selector.endAddress),
  }))
}

/** `10.0.0.0-10.0.0.255`, with `/17:53-53` when protocol or ports are narrowed. */
export function describeSelector(selector: TrafficSelector): string {
  const text = (address: Uint8Array) =>
    selector.family === 4 ? formatIpv4(u32(address, 0)) : formatIpv6(address)
  const start = text(selector.startAddress)
  const end = text(selector.endAddress)
  const range = start === end ? start : `${start}-${end}`
  const isNarrowed =
    selector.ipProtocol !== ANY_PROTOCOL || selector.startPort > 0 || selector.endPort < PORT_MAX
  if (!isNarrowed) return range
  return `${range}/${selector.ipProtocol}:${selector.startPort}-${selector.endPort}`
}
