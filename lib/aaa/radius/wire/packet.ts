/**
 * RADIUS packets, RFC 2865 §3 and §5.
 *
 *  |     Code      |  Identifier   |            Length             |
 *  |                     Authenticator (16)                        |
 *  |  Attributes ...  each:  | Type | Length | Value ... |
 *
 *  Vendor-Specific (26):  | Vendor-Id (4) | Type | Length | Value ... | ...
 */
import { copyBytes, putBytes, putU16, putU32, u16, u32 } from '../../../core/bytes.ts'
import { WireFault } from '../../../core/faults.ts'
import { kindBytes, knownAttribute } from './dictionary.ts'

// Specification constants.

/** RFC 2865 §3 and RFC 3575 §2.1, RFC 5176 §2. */
export const RadiusCode = {
  'Access-Request': 1,
  'Access-Accept': 2,
  'Access-Reject': 3,
  'Accounting-Request': 4,
  'Accounting-Response': 5,
  'Access-Challenge': 11,
  'Status-Server': 12,
  'Disconnect-Request': 40,
  'Disconnect-ACK': 41,
  'Disconnect-NAK': 42,
  'CoA-Request': 43,
  'CoA-ACK': 44,
  'CoA-NAK': 45,
} as const

export type RadiusCode = (typeof RadiusCode)[keyof typeof RadiusCode]

export const packetHeaderBytes = 20
export const longestPacketBytes = 4096
export const authenticatorAt = 4
export const authenticatorBytes = 16
const attributeHeaderBytes = 2
const vendorIdBytes = 4
const vendorSpecific = 26
/** What fits in one attribute. */
export const longestValueBytes = 253

// Implementation constants.

/** 4096 bytes hold 2,038 empty ones; no server means that. */
const mostAttributes = 512

const codes: ReadonlySet<number> = new Set(Object.values(RadiusCode))

export interface RadiusAttribute {
  /** 0: not of a vendor. */
  readonly vendor: number
  readonly type: number
  readonly value: Uint8Array
}

export interface RadiusPacket {
  readonly code: number
  readonly identifier: number
  /** 16 bytes. */
  readonly authenticator: Uint8Array
  readonly attributes: readonly RadiusAttribute[]
}

/** Bytes behind the length field's end are padding (RFC 2865 §3) and ignored. */
export function checkRadiusPacket(buf: Uint8Array): WireFault {
  if (buf.length < packetHeaderBytes) return WireFault.truncated
  const lengthBytes = u16(buf, 2)
  if (lengthBytes < packetHeaderBytes) return WireFault['length-too-small']
  if (lengthBytes > longestPacketBytes) return WireFault.oversize
  if (lengthBytes > buf.length) return WireFault['length-overrun']
  if (!codes.has(buf[0] ?? 0)) return WireFault['unknown-type']
  let count = 0
  for (let at = packetHeaderBytes; at < lengthBytes; ) {
    if (at + attributeHeaderBytes > lengthBytes) return WireFault.truncated
    const attributeBytes = buf[at + 1] ?? 0
    if (attributeBytes < attributeHeaderBytes) return WireFault['length-too-small']
    if (at + attributeBytes > lengthBytes) return WireFault['length-overrun']
    if (++count > mostAttributes) return WireFault['too-many']
    const fault = checkValue(buf, at, attributeBytes)
    if (fault) return fault
    at += attributeBytes
  }
  return WireFault.none
}

/** After `checkRadiusPacket`. Copies, so the packet outlives `buf`. */
export function parseRadiusPacket(buf: Uint8Array): RadiusPacket {
  const lengthBytes = u16(buf, 2)
  const attributes: RadiusAttribute[] = []
  for (let at = packetHeaderBytes; at < lengthBytes; ) {
    const end = at + Math.max(buf[at + 1] ?? 0, attributeHeaderBytes)
    const type = buf[at] ?? 0
    const value = copyBytes(buf, at + attributeHeaderBytes, end)
    if (type === vendorSpecific) attributes.push(...vendorAttributes(value))
    else attributes.push({ vendor: 0, type, value })
    at = end
  }
  return {
    code: buf[0] ?? 0,
    identifier: buf[1] ?? 0,
    authenticator: copyBytes(buf, authenticatorAt, authenticatorAt + authenticatorBytes),
    attributes,
  }
}

/** Undefined when it does not fit: a packet over 4096 bytes, or a value over its attribute. */
export function encodeRadiusPacket(packet: RadiusPacket): Uint8Array | undefined {
  let lengthBytes = packetHeaderBytes
  for (const { vendor, value } of packet.attributes) {
    const bytes = value.length + (vendor === 0 ? 0 : vendorIdBytes + attributeHeaderBytes)
    if (bytes > longestValueBytes) return undefined
    lengthBytes += attributeHeaderBytes + bytes
  }
  if (lengthBytes > longestPacketBytes) return undefined
  const out = new Uint8Array(lengthBytes)
  out[0] = packet.code
  out[1] = packet.identifier
  putU16(out, 2, lengthBytes)
  let at = putBytes(out, authenticatorAt, packet.authenticator)
  for (const { vendor, type, value } of packet.attributes) {
    if (vendor !== 0) {
      out[at++] = vendorSpecific
      out[at++] = attributeHeaderBytes + vendorIdBytes + attributeHeaderBytes + value.length
      at = putU32(out, at, vendor)
    }
    out[at++] = type
    out[at++] = attributeHeaderBytes + value.length
    at = putBytes(out, at, value)
  }
  return out
}

/** Offset of the value of the first such attribute in a checked packet, or -1. */
export function valueOffset(buf: Uint8Array, type: number, lengthBytes: number): number {
  const end = u16(buf, 2)
  for (let at = packetHeaderBytes; at < end; ) {
    const attributeBytes = Math.max(buf[at + 1] ?? 0, attributeHeaderBytes)
    if (buf[at] === type && attributeBytes === attributeHeaderBytes + lengthBytes) {
      return at + attributeHeaderBytes
    }
    at += attributeBytes
  }
  return -1
}

/** Whether a checked packet has such an attribute at all. */
export function hasAttribute(buf: Uint8Array, type: number): boolean {
  const end = u16(buf, 2)
  for (let at = packetHeaderBytes; at < end; ) {
    if (buf[at] === type) return true
    at += Math.max(buf[at + 1] ?? 0, attributeHeaderBytes)
  }
  return false
}

/** What we know by name must have the size of its kind; what we do not know may be anything. */
function checkValue(buf: Uint8Array, at: number, attributeBytes: number): WireFault {
  const type = buf[at] ?? 0
  const known = knownAttribute(0, type)
  if (known === undefined || type === vendorSpecific) return WireFault.none
  const [least, most] = kindBytes[known.kind]
  const valueBytes = attributeBytes - attributeHeaderBytes
  if (valueBytes < least || valueBytes > most) return WireFault['bad-value']
  if (known.kind !== 'ipv6-prefix') return WireFault.none
  return (buf[at + 3] ?? 0) <= 128 ? WireFault.none : WireFault['bad-value']
}

/**
 * RFC 2865 §5.26: one Vendor-Specific may hold several. What does not follow the recommended layout,
 * or has not the size of its kind, stays a Vendor-Specific that nobody reads.
 */
function vendorAttributes(value: Uint8Array): RadiusAttribute[] {
  const opaque = [{ vendor: 0, type: vendorSpecific, value }]
  if (value.length < vendorIdBytes + attributeHeaderBytes) return opaque
  const vendor = u32(value, 0)
  if (vendor === 0) return opaque
  const found: RadiusAttribute[] = []
  for (let at = vendorIdBytes; at < value.length; ) {
    const lengthBytes = value[at + 1] ?? 0
    if (lengthBytes < attributeHeaderBytes || at + lengthBytes > value.length) return opaque
    const type = value[at] ?? 0
    const known = knownAttribute(vendor, type)
    const valueBytes = lengthBytes - attributeHeaderBytes
    if (known !== undefined) {
      const [least, most] = kindBytes[known.kind]
      if (valueBytes < least || valueBytes > most) return opaque
    }
    found.push({
      vendor,
      type,
      value: copyBytes(value, at + attributeHeaderBytes, at + lengthBytes),
    })
    at += lengthBytes
  }
  return found
}
