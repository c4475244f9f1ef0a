/**
 * The Security Association payload: proposals of transforms with attributes, RFC 7296 §3.3.
 *
 * Proposal   | Last(0)/More(2) | RESERVED | Proposal Length           |
 *            | Proposal Num    | Protocol | SPI Size  | Num Transforms| SPI, transforms
 * Transform  | Last(0)/More(3) | RESERVED | Transform Length          |
 *            | Transform Type  | RESERVED | Transform ID              | attributes
 * Attribute  |1| Attribute Type | value (16 bits)        (TV)
 *            |0| Attribute Type | length, then the value (TLV)
 */
import { putBytes, putU16, u16 } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'
import type { PayloadCodec } from './payload-codec.ts'

const PROPOSAL_HEADER_BYTES = 8
const TRANSFORM_HEADER_BYTES = 8
const ATTRIBUTE_HEADER_BYTES = 4
const MORE_PROPOSALS = 2
const MORE_TRANSFORMS = 3
const FORMAT_TV = 0x8000

/** Ours: Windows sends about 20 proposals, strongSwan 25 transforms in one. */
export const PROPOSALS_MAX = 64
export const TRANSFORMS_MAX = 128
const ATTRIBUTES_MAX = 8

/** RFC 7296 §3.3.1. */
export const ProtocolId = { IKE: 1, AH: 2, ESP: 3 } as const

/** RFC 7296 §3.3.5: the only attribute in use. */
export const KEY_LENGTH_ATTRIBUTE = 14

export interface TransformAttribute {
  readonly attributeType: number
  /** A number in the short form, bytes in the long one. */
  readonly value: number | Uint8Array
}

export interface Transform {
  readonly transformType: number
  readonly transformId: number
  readonly attributes: readonly TransformAttribute[]
}

export interface Proposal {
  readonly proposalNumber: number
  readonly protocolId: number
  readonly spi: Uint8Array
  readonly transforms: readonly Transform[]
}

export interface SecurityAssociationPayload {
  readonly type: 'SA'
  readonly proposals: readonly Proposal[]
}

/** Key Length in bits, undefined when the transform has none. */
export function keyLengthBits(transform: Transform): number | undefined {
  for (const attribute of transform.attributes) {
    if (attribute.attributeType === KEY_LENGTH_ATTRIBUTE && typeof attribute.value === 'number') {
      return attribute.value
    }
  }
  return undefined
}

function checkAttributes(buf: Uint8Array, from: number, end: number): WireFault {
  let at = from
  for (let count = 0; at < end; count++) {
    if (count === ATTRIBUTES_MAX) return WireFault['too-many']
    if (end - at < ATTRIBUTE_HEADER_BYTES) return WireFault.truncated
    const isShort = (u16(buf, at) & FORMAT_TV) !== 0
    at += ATTRIBUTE_HEADER_BYTES + (isShort ? 0 : u16(buf, at + 2))
    if (at > end) return WireFault['length-overrun']
  }
  return WireFault.none
}

function checkTransforms(buf: Uint8Array, from: number, end: number, count: number): WireFault {
  if (count > TRANSFORMS_MAX) return WireFault['too-many']
  let at = from
  for (let i = 0; i < count; i++) {
    if (end - at < TRANSFORM_HEADER_BYTES) return WireFault.truncated
    const lengthBytes = u16(buf, at + 2)
    if (lengthBytes < TRANSFORM_HEADER_BYTES) return WireFault['length-too-small']
    if (at + lengthBytes > end) return WireFault['length-overrun']
    if (buf[at] !== (i === count - 1 ? 0 : MORE_TRANSFORMS)) return WireFault['bad-value']
    const fault = checkAttributes(buf, at + TRANSFORM_HEADER_BYTES, at + lengthBytes)
    if (fault) return fault
    at += lengthBytes
  }
  return at === end ? WireFault.none : WireFault['length-overrun']
}

function check(body: Uint8Array): WireFault {
  let at = 0
  let isLast = false
  for (let count = 0; !isLast; count++) {
    if (count === PROPOSALS_MAX) return WireFault['too-many']
    if (body.length - at < PROPOSAL_HEADER_BYTES) return WireFault.truncated
    const lengthBytes = u16(body, at + 2)
    if (lengthBytes < PROPOSAL_HEADER_BYTES) return WireFault['length-too-small']
    if (at + lengthBytes > body.length) return WireFault['length-overrun']
    isLast = body[at] === 0
    if (!isLast && body[at] !== MORE_PROPOSALS) return WireFault['bad-value']
    const transformsAt = at + PROPOSAL_HEADER_BYTES + (body[at + 6] ?? 0)
    if (transformsAt > at + lengthBytes) return WireFault['length-overrun']
    const fault = checkTransforms(body, transformsAt, at + lengthBytes, body[at + 7] ?? 0)
    if (fault) return fault
    at += lengthBytes
  }
  return at === body.length ? WireFault.none : WireFault['length-overrun']
}

function parseTransform(buf: Uint8Array, at: number): Transform {
  const attributes: TransformAttribute[] = []
  const end = at + u16(buf, at + 2)
  for (let next = at + TRANSFORM_HEADER_BYTES; next < end; ) {
    const head = u16(buf, next)
    const lengthBytes = (head & FORMAT_TV) === 0 ? u16(buf, next + 2) : 0
    const valueAt = next + ATTRIBUTE_HEADER_BYTES
    attributes.push({
      attributeType: head & ~FORMAT_TV,
      value:
        (head & FORMAT_TV) === 0
          ? buf.subarray(valueAt, valueAt + lengthBytes)
          : u16(buf, next + 2),
    })
    next = valueAt + lengthBytes
  }
  return { transformType: buf[at + 4] ?? 0, transformId: u16(buf, at + 6), attributes }
}

function parse(body: Uint8Array): SecurityAssociationPayload {
  const proposals: Proposal[] = []
  for (let at = 0; at < body.length; at += u16(body, at + 2)) {
    const spiBytes = body[at + 6] ?? 0
    const transforms: Transform[] = []
    const end = at + u16(body, at + 2)
    let next = at + PROPOSAL_HEADER_BYTES + spiBytes
    for (; next < end; next += u16(body, next + 2)) transforms.push(parseTransform(body, next))
    proposals.push({
      proposalNumber: body[at + 4] ?? 0,
      protocolId: body[at + 5] ?? 0,
      spi: body.subarray(at + PROPOSAL_HEADER_BYTES, at + PROPOSAL_HEADER_BYTES + spiBytes),
      transforms,
    })
  }
  return { type: 'SA', proposals }
}

function transformBytes(transform: Transform): number {
  let lengthBytes = TRANSFORM_HEADER_BYTES
  for (const { value } of transform.attributes) {
    lengthBytes += ATTRIBUTE_HEADER_BYTES + (typeof value === 'number' ? 0 : value.length)
  }
  return lengthBytes
}

function proposalBytes(proposal: Proposal): number {
  let lengthBytes = PROPOSAL_HEADER_BYTES + proposal.spi.length
  for (const transform of proposal.transforms) lengthBytes += transformBytes(transform)
  return lengthBytes
}

function encodeTransform(
  transform: Transform,
  isLast: boolean,
  out: Uint8Array,
  at: number,
): number {
  out[at] = isLast ? 0 : MORE_TRANSFORMS
  out[at + 1] = 0
  putU16(out, at + 2, transformBytes(transform))
  out[at + 4] = transform.transformType
  out[at + 5] = 0
  let next = putU16(out, at + 6, transform.transformId)
  for (const { attributeType, value } of transform.attributes) {
    if (typeof value === 'number') {
      next = putU16(out, putU16(out, next, attributeType | FORMAT_TV), value)
    } else {
      next = putBytes(out, putU16(out, putU16(out, next, attributeType), value.length), value)
    }
  }
  return next
}

function encode(payload: SecurityAssociationPayload, out: Uint8Array, from: number): number {
  let at = from
  payload.proposals.forEach((proposal, i) => {
    out[at] = i === payload.proposals.length - 1 ? 0 : MORE_PROPOSALS
    out[at + 1] = 0
    putU16(out, at + 2, proposalBytes(proposal))
    out[at + 4] = proposal.proposalNumber
    out[at + 5] = proposal.protocolId
    out[at + 6] = proposal.spi.length
    out[at + 7] = proposal.transforms.length
    at = putBytes(out, at + PROPOSAL_HEADER_BYTES, proposal.spi)
    proposal.transforms.forEach((transform, j) => {
      at = encodeTransform(transform, j === proposal.transforms.length - 1, out, at)
    })
  })
  return at
}

export const securityAssociationCodec: PayloadCodec<SecurityAssociationPayload> = {
  check,
  parse,
  bodyBytes: payload => payload.proposals.reduce((sum, item) => sum + proposalBytes(item), 0),
  encode,
}
