/**
 * The body of an SA payload: DOI, situation, proposals and their transforms. RFC 2408 §3.4 to §3.6,
 * RFC 2407 §4.2.
 *
 *     |                  DOI                  |
 *     |               Situation               |
 *     Proposal:  | next | rsvd | length | number | protocol | SPI size | transforms | SPI
 *     Transform: | next | rsvd | length | number | id | rsvd2 | attributes
 */
import { copyBytes, putBytes, putU16, putU32, u16, u32 } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'
import {
  type Attribute,
  encodeAttributes,
  encodedAttributesBytes,
  parseAttributes,
} from './attributes.ts'
import { DOI_IPSEC, PayloadType, SIT_IDENTITY_ONLY } from './numbers.ts'

export interface Transform {
  readonly number: number
  readonly id: number
  readonly attributes: readonly Attribute[]
}

/** Proposals with one number are offered together (ESP and AH); different numbers are alternatives. */
export interface Proposal {
  readonly number: number
  readonly protocolId: number
  readonly spi: Uint8Array
  readonly transforms: readonly Transform[]
}

const fixedBytes = 8
const proposalHeaderBytes = 8
const transformHeaderBytes = 8
const longestSpiBytes = 16

/** Implementation constants: strongSwan's longest list has about 100 transforms. */
const mostProposals = 64
const mostTransforms = 256

/** The proposals of an SA body of `length` bytes at `at`, or what is wrong. */
export function parseProposals(
  buf: Uint8Array,
  at: number,
  length: number,
): Proposal[] | WireFault {
  if (length < fixedBytes) return WireFault.truncated
  if (u32(buf, at) !== DOI_IPSEC) return WireFault['bad-value']
  if (u32(buf, at + 4) !== SIT_IDENTITY_ONLY) return WireFault['bad-value']
  const end = at + length
  const proposals: Proposal[] = []
  let transformCount = 0
  let following: number = PayloadType.P
  for (let next = at + fixedBytes; following === PayloadType.P; ) {
    if (proposals.length === mostProposals) return WireFault['too-many']
    if (end - next < proposalHeaderBytes) return WireFault.truncated
    following = buf[next] ?? 0
    const proposalBytes = u16(buf, next + 2)
    const spiBytes = buf[next + 6] ?? 0
    if (proposalBytes < proposalHeaderBytes + spiBytes) return WireFault['length-too-small']
    if (proposalBytes > end - next) return WireFault['length-overrun']
    if (spiBytes > longestSpiBytes) return WireFault.oversize
    const spiAt = next + proposalHeaderBytes
    const transforms = parseTransforms(
      buf,
      spiAt + spiBytes,
      next + proposalBytes,
      buf[next + 7] ?? 0,
    )
    if (typeof transforms === 'number') return transforms
    transformCount += transforms.length
    if (transformCount > mostTransforms) return WireFault['too-many']
    proposals.push({
      number: buf[next + 4] ?? 0,
      protocolId: buf[next + 5] ?? 0,
      spi: copyBytes(buf, spiAt, spiAt + spiBytes),
      transforms,
    })
    next += proposalBytes
  }
  if (following !== PayloadType.none) return WireFault['bad-value']
  return proposals
}

function parseTransforms(
  buf: Uint8Array,
  at: number,
  end: number,
  count: number,
): Transform[] | WireFault {
  const transforms: Transform[] = []
  let next = at
  for (let i = 0; i < count; i++) {
    if (end - next < transformHeaderBytes) return WireFault.truncated
    const transformBytes = u16(buf, next + 2)
    if (transformBytes < transformHeaderBytes) return WireFault['length-too-small']
    if (transformBytes > end - next) return WireFault['length-overrun']
    const attributes = parseAttributes(
      buf,
      next + transformHeaderBytes,
      transformBytes - transformHeaderBytes,
    )
    if (typeof attributes === 'number') return attributes
    transforms.push({ number: buf[next + 4] ?? 0, id: buf[next + 5] ?? 0, attributes })
    next += transformBytes
  }
  return transforms
}

function transformBytesOf(transform: Transform): number {
  return transformHeaderBytes + encodedAttributesBytes(transform.attributes)
}

function proposalBytesOf(proposal: Proposal): number {
  let length = proposalHeaderBytes + proposal.spi.length
  for (const transform of proposal.transforms) length += transformBytesOf(transform)
  return length
}

/** A whole SA body, from the DOI on. */
export function encodeProposals(proposals: readonly Proposal[]): Uint8Array {
  let length = fixedBytes
  for (const proposal of proposals) length += proposalBytesOf(proposal)
  const out = new Uint8Array(length)
  let to = putU32(out, putU32(out, 0, DOI_IPSEC), SIT_IDENTITY_ONLY)
  proposals.forEach((proposal, i) => {
    out[to] = i + 1 < proposals.length ? PayloadType.P : PayloadType.none
    putU16(out, to + 2, proposalBytesOf(proposal))
    out[to + 4] = proposal.number
    out[to + 5] = proposal.protocolId
    out[to + 6] = proposal.spi.length
    out[to + 7] = proposal.transforms.length
    to = putBytes(out, to + proposalHeaderBytes, proposal.spi)
    proposal.transforms.forEach((transform, j) => {
      out[to] = j + 1 < proposal.transforms.length ? PayloadType.T : PayloadType.none
      putU16(out, to + 2, transformBytesOf(transform))
      out[to + 4] = transform.number
      out[to + 5] = transform.id
      to = encodeAttributes(transform.attributes, out, to + transformHeaderBytes)
    })
  })
  return out
}
