/**
 * The Configuration payload, RFC 7296 §3.15: type, three reserved bytes, attributes of
 * | R | attribute type (15 bits) | length (16 bits) | value |.
 */
import { putBytes, putU16, u16 } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'
import type { PayloadCodec } from './payload-codec.ts'

const HEADER_BYTES = 4
const ATTRIBUTE_HEADER_BYTES = 4
const TYPE_MASK = 0x7fff

/** Ours. */
export const CONFIGURATION_ATTRIBUTES_MAX = 128

/** RFC 7296 §3.15. */
export const ConfigurationType = {
  CFG_REQUEST: 1,
  CFG_REPLY: 2,
  CFG_SET: 3,
  CFG_ACK: 4,
} as const

/** RFC 7296 §3.15.1, RFC 8598 §4, [MS-IKEE]. */
export const ConfigurationAttributeType = {
  INTERNAL_IP4_ADDRESS: 1,
  INTERNAL_IP4_NETMASK: 2,
  INTERNAL_IP4_DNS: 3,
  INTERNAL_IP4_NBNS: 4,
  INTERNAL_IP4_DHCP: 6,
  APPLICATION_VERSION: 7,
  INTERNAL_IP6_ADDRESS: 8,
  INTERNAL_IP6_DNS: 10,
  INTERNAL_IP6_DHCP: 12,
  INTERNAL_IP4_SUBNET: 13,
  SUPPORTED_ATTRIBUTES: 14,
  INTERNAL_IP6_SUBNET: 15,
  INTERNAL_DNS_DOMAIN: 25,
  INTERNAL_DNSSEC_TA: 26,
  INTERNAL_IP4_SERVER: 23456,
  INTERNAL_IP6_SERVER: 23457,
} as const

export interface ConfigurationAttribute {
  readonly attributeType: number
  readonly value: Uint8Array
}

export interface ConfigurationPayload {
  readonly type: 'CP'
  readonly configurationType: number
  readonly attributes: readonly ConfigurationAttribute[]
}

export const configurationCodec: PayloadCodec<ConfigurationPayload> = {
  check: body => {
    if (body.length < HEADER_BYTES) return WireFault.truncated
    let at = HEADER_BYTES
    for (let count = 0; at < body.length; count++) {
      if (count === CONFIGURATION_ATTRIBUTES_MAX) return WireFault['too-many']
      if (body.length - at < ATTRIBUTE_HEADER_BYTES) return WireFault.truncated
      at += ATTRIBUTE_HEADER_BYTES + u16(body, at + 2)
      if (at > body.length) return WireFault['length-overrun']
    }
    return WireFault.none
  },
  parse: body => {
    const attributes: ConfigurationAttribute[] = []
    for (let at = HEADER_BYTES; at < body.length; ) {
      const valueAt = at + ATTRIBUTE_HEADER_BYTES
      const end = valueAt + u16(body, at + 2)
      attributes.push({
        attributeType: u16(body, at) & TYPE_MASK,
        value: body.subarray(valueAt, end),
      })
      at = end
    }
    return { type: 'CP', configurationType: body[0] ?? 0, attributes }
  },
  bodyBytes: payload =>
    payload.attributes.reduce(
      (sum, attribute) => sum + ATTRIBUTE_HEADER_BYTES + attribute.value.length,
      HEADER_BYTES,
    ),
  encode: (payload, out, at) => {
    out[at] = payload.configurationType
    out.fill(0, at + 1, at + HEADER_BYTES)
    let next = at + HEADER_BYTES
    for (const { attributeType, value } of payload.attributes) {
      next = putBytes(out, putU16(out, putU16(out, next, attributeType), value.length), value)
    }
    return next
  },
}
