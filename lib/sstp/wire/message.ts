/**
 * SSTP control messages ([MS-SSTP] §2.2.2, §2.2.9 to §2.2.17).
 *
 *  0                   1                   2                   3
 *  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 * +---------------+-------------+-+-------+-----------------------+
 * |  Version 1.0  |  Reserved   |1|   R   |        Length         |
 * +---------------+-------------+-+-------+-----------------------+
 * |         Message Type          |        Num Attributes         |
 * +-------------------------------+-------------------------------+
 * |  Attributes …
 * +---------------------------------------------------------------+
 */
import { putU16, u16 } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'
import {
  ATTRIBUTE_HEADER_BYTES,
  ATTRIBUTE_LENGTH_MASK,
  type Attribute,
  AttributeId,
  attributeIdOf,
  encodeAttribute,
  encodedAttributeBytes,
  parseAttribute,
  type StatusName,
} from './attribute.ts'
import { FRAME_HEADER_BYTES, frameBytes, isControlFrame, putFrameHeader } from './frame.ts'

const TYPE_AT = FRAME_HEADER_BYTES
const COUNT_AT = 6
const ATTRIBUTES_AT = 8
export const MESSAGE_MIN_BYTES = 8

/** Implementation constant: no message of the specification has more than a few attributes. */
const MAX_ATTRIBUTES = 16

/** §2.2.2. */
export const MessageType = {
  'call-connect-request': 1,
  'call-connect-ack': 2,
  'call-connect-nak': 3,
  'call-connected': 4,
  'call-abort': 5,
  'call-disconnect': 6,
  'call-disconnect-ack': 7,
  'echo-request': 8,
  'echo-response': 9,
} as const
export type MessageName = keyof typeof MessageType

const messageNames = Object.keys(MessageType) as readonly MessageName[]

/** `name` is undefined for a message type that we do not know; `code` and attributes are kept. */
export interface Message {
  readonly name: MessageName | undefined
  readonly code: number
  readonly attributes: readonly Attribute[]
}

interface AttributeRule {
  readonly attributeId: number
  readonly isRequired: boolean
  /** Only Connect-Nak may carry an attribute more than once: one status per refused attribute. */
  readonly canRepeat?: true
}

const status = { attributeId: AttributeId.statusInfo, isRequired: false } as const

/** Which attributes a message must and may carry, §2.2.9 to §2.2.17. */
export const messageAttributes: Record<MessageName, readonly AttributeRule[]> = {
  // §3.3.5.2.1 speaks of a Status Info in a Connect-Request: allowed, and its status must be zero.
  'call-connect-request': [
    { attributeId: AttributeId.encapsulatedProtocolId, isRequired: true },
    status,
  ],
  'call-connect-ack': [{ attributeId: AttributeId.cryptoBindingRequest, isRequired: true }],
  'call-connect-nak': [{ ...status, canRepeat: true }],
  'call-connected': [{ attributeId: AttributeId.cryptoBinding, isRequired: true }],
  'call-abort': [status],
  'call-disconnect': [status],
  'call-disconnect-ack': [],
  'echo-request': [],
  'echo-response': [],
}

/**
 * Looks at every length of the control message in `buf[at, end)`: a fault here means that the peer's
 * idea of lengths differs from ours, and the stream cannot be followed (§3.1.5.1).
 */
export function checkMessage(buf: Uint8Array, at: number, end: number): WireFault {
  const length = frameBytes(buf, at, end)
  if (length < 0) return -length as WireFault
  if (length < MESSAGE_MIN_BYTES || end - at < length) return WireFault.truncated
  if (length !== end - at) return WireFault['length-overrun']
  if (!isControlFrame(buf, at)) return WireFault['bad-flags']
  const count = u16(buf, at + COUNT_AT)
  if (count > MAX_ATTRIBUTES) return WireFault['too-many']
  let next = at + ATTRIBUTES_AT
  for (let i = 0; i < count; i++) {
    if (end - next < ATTRIBUTE_HEADER_BYTES) return WireFault.truncated
    const attributeBytes = u16(buf, next + 2) & ATTRIBUTE_LENGTH_MASK
    if (attributeBytes < ATTRIBUTE_HEADER_BYTES) return WireFault['length-too-small']
    if (attributeBytes > end - next) return WireFault['length-overrun']
    next += attributeBytes
  }
  return next === end ? WireFault.none : WireFault['length-overrun']
}

/** Reads a message that `checkMessage` passed. Its bytes are copied. */
export function parseMessage(buf: Uint8Array, at: number): Message {
  const code = u16(buf, at + TYPE_AT)
  const count = u16(buf, at + COUNT_AT)
  const attributes: Attribute[] = []
  let next = at + ATTRIBUTES_AT
  for (let i = 0; i < count; i++) {
    const end = next + (u16(buf, next + 2) & ATTRIBUTE_LENGTH_MASK)
    attributes.push(parseAttribute(buf, next, end))
    next = end
  }
  return { name: messageNames[code - 1], code, attributes }
}

/** What is wrong with the attributes of a message, in the terms of Status Info. */
export interface AttributeComplaint {
  readonly status: StatusName
  readonly attributeId: number
  /** The refused value, when the complaint is about one. */
  readonly value?: Uint8Array
}

/** Judges a message's attributes by the table above; undefined when all is well. */
export function complaintAbout(
  name: MessageName,
  attributes: readonly Attribute[],
): AttributeComplaint | undefined {
  const rules = messageAttributes[name]
  const seen = new Set<number>()
  for (const attribute of attributes) {
    const attributeId = attributeIdOf(attribute)
    if (attribute.type === 'unknown') {
      return { status: 'unrecognized-attribute', attributeId, value: attribute.value }
    }
    const rule = rules.find(candidate => candidate.attributeId === attributeId)
    if (rule === undefined) {
      const isStatus = attributeId === AttributeId.statusInfo
      return {
        status: isStatus ? 'status-info-not-supported-in-msg' : 'attrib-not-supported-in-msg',
        attributeId,
      }
    }
    if (attribute.type === 'wrong-length') {
      return { status: 'invalid-attrib-value-length', attributeId, value: attribute.value }
    }
    if (seen.has(attributeId) && rule.canRepeat !== true) {
      return { status: 'duplicate-attribute', attributeId }
    }
    seen.add(attributeId)
  }
  for (const { attributeId, isRequired } of rules) {
    if (isRequired && !seen.has(attributeId)) {
      return { status: 'required-attribute-missing', attributeId }
    }
  }
  return undefined
}

export function encodedMessageBytes(attributes: readonly Attribute[]): number {
  let length = MESSAGE_MIN_BYTES
  for (const attribute of attributes) length += encodedAttributeBytes(attribute)
  return length
}

/** Writes a message of `encodedMessageBytes` and returns the offset after it. */
export function encodeMessage(
  code: number,
  attributes: readonly Attribute[],
  out: Uint8Array,
  at: number,
): number {
  let next = putFrameHeader(out, at, true, encodedMessageBytes(attributes))
  next = putU16(out, next, code)
  next = putU16(out, next, attributes.length)
  for (const attribute of attributes) next = encodeAttribute(attribute, out, next)
  return next
}

/** A message in bytes of its own. */
export function messageBytes(name: MessageName, ...attributes: Attribute[]): Uint8Array {
  const out = new Uint8Array(encodedMessageBytes(attributes))
  encodeMessage(MessageType[name], attributes, out, 0)
  return out
}
