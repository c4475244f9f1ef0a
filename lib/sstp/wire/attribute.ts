/**
 * Attributes of SSTP control messages ([MS-SSTP] §2.2.4 to §2.2.8).
 *
 *  0                   1                   2                   3
 *  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 * +---------------+---------------+-------+-----------------------+
 * |   Reserved    | Attribute ID  |   R   |        Length         |
 * +---------------+---------------+-------+-----------------------+
 * |  Value …                        Length counts this header too
 * +---------------------------------------------------------------+
 */
import { copyBytes, putBytes, putU16, putU32, u16, u32 } from '../../core/bytes.ts'

export const ATTRIBUTE_HEADER_BYTES = 4
export const ATTRIBUTE_LENGTH_MASK = 0x0fff

/** §2.2.4. */
export const AttributeId = {
  noError: 0,
  encapsulatedProtocolId: 1,
  statusInfo: 2,
  cryptoBinding: 3,
  cryptoBindingRequest: 4,
} as const

/** §2.2.5: the only protocol there is. */
export const PROTOCOL_PPP = 0x0001

/** Bits of the hash protocol bitmask, §2.2.6 and §2.2.7. */
export const HashProtocol = { sha1: 0x01, sha256: 0x02 } as const
export type HashName = keyof typeof HashProtocol

/** Status values of Status Info, §2.2.8. */
export const Status = {
  'no-error': 0,
  'duplicate-attribute': 1,
  'unrecognized-attribute': 2,
  'invalid-attrib-value-length': 3,
  'value-not-supported': 4,
  'unaccepted-frame-received': 5,
  'retry-count-exceeded': 6,
  'invalid-frame-received': 7,
  'negotiation-timeout': 8,
  'attrib-not-supported-in-msg': 9,
  'required-attribute-missing': 10,
  'status-info-not-supported-in-msg': 11,
} as const
export type StatusName = keyof typeof Status

const statusNames: readonly string[] = Object.keys(Status)

/** Name of a received status for logs; the number when it has none. */
export function statusText(status: number): string {
  return statusNames[status] ?? `status ${status}`
}

export const NONCE_BYTES = 32
/** Room for a hash in Crypto Binding, whatever the hash; SHA-1 is followed by 12 zeros. */
export const HASH_FIELD_BYTES = 32

export interface EncapsulatedProtocolId {
  readonly type: 'encapsulated-protocol-id'
  readonly protocol: number
}

/** What a status is about, and the value that was refused (we keep and send at most 64 bytes). */
export interface StatusInfo {
  readonly type: 'status-info'
  readonly attributeId: number
  readonly status: number
  readonly value: Uint8Array
}

export interface CryptoBindingRequest {
  readonly type: 'crypto-binding-request'
  readonly hashBitmask: number
  readonly nonce: Uint8Array
}

export interface CryptoBinding {
  readonly type: 'crypto-binding'
  readonly hashProtocol: number
  readonly nonce: Uint8Array
  /** 32 bytes, padded with zeros after a SHA-1 hash. */
  readonly certificateHash: Uint8Array
  /** 32 bytes, padded likewise. */
  readonly compoundMac: Uint8Array
}

/** An attribute that we do not know, or one whose value has the wrong length for its type. */
export interface OpaqueAttribute {
  readonly type: 'unknown' | 'wrong-length'
  readonly attributeId: number
  readonly value: Uint8Array
}

export type Attribute =
  | EncapsulatedProtocolId
  | StatusInfo
  | CryptoBindingRequest
  | CryptoBinding
  | OpaqueAttribute

/** Sizes of the values, without attribute header, in bytes. */
const PROTOCOL_VALUE_BYTES = 2
const STATUS_VALUE_MIN_BYTES = 8
const BINDING_REQUEST_VALUE_BYTES = 4 + NONCE_BYTES
const BINDING_VALUE_BYTES = 4 + NONCE_BYTES + 2 * HASH_FIELD_BYTES
const STATUS_ECHO_MAX_BYTES = 64

export const CRYPTO_BINDING_BYTES = ATTRIBUTE_HEADER_BYTES + BINDING_VALUE_BYTES

/** Reads an attribute whose length its container has bounded: `end - at` is its length field. */
export function parseAttribute(buf: Uint8Array, at: number, end: number): Attribute {
  const attributeId = buf[at + 1] ?? 0
  const valueAt = at + ATTRIBUTE_HEADER_BYTES
  const valueBytes = end - valueAt
  const wrongLength = (): OpaqueAttribute => ({
    type: 'wrong-length',
    attributeId,
    value: copyBytes(buf, valueAt, end),
  })
  switch (attributeId) {
    case AttributeId.encapsulatedProtocolId:
      if (valueBytes !== PROTOCOL_VALUE_BYTES) return wrongLength()
      return { type: 'encapsulated-protocol-id', protocol: u16(buf, valueAt) }
    case AttributeId.statusInfo:
      if (valueBytes < STATUS_VALUE_MIN_BYTES) return wrongLength()
      return {
        type: 'status-info',
        attributeId: buf[valueAt + 3] ?? 0,
        status: u32(buf, valueAt + 4),
        value: copyBytes(buf, valueAt + 8, Math.min(end, valueAt + 8 + STATUS_ECHO_MAX_BYTES)),
      }
    case AttributeId.cryptoBindingRequest:
      if (valueBytes !== BINDING_REQUEST_VALUE_BYTES) return wrongLength()
      return {
        type: 'crypto-binding-request',
        hashBitmask: buf[valueAt + 3] ?? 0,
        nonce: copyBytes(buf, valueAt + 4, end),
      }
    case AttributeId.cryptoBinding: {
      if (valueBytes !== BINDING_VALUE_BYTES) return wrongLength()
      const hashAt = valueAt + 4 + NONCE_BYTES
      const macAt = hashAt + HASH_FIELD_BYTES
      return {
        type: 'crypto-binding',
        hashProtocol: buf[valueAt + 3] ?? 0,
        nonce: copyBytes(buf, valueAt + 4, hashAt),
        certificateHash: copyBytes(buf, hashAt, macAt),
        compoundMac: copyBytes(buf, macAt, end),
      }
    }
    default:
      return { type: 'unknown', attributeId, value: copyBytes(buf, valueAt, end) }
  }
}

export function attributeIdOf(attribute: Attribute): number {
  switch (attribute.type) {
    case 'encapsulated-protocol-id':
      return AttributeId.encapsulatedProtocolId
    case 'status-info':
      return AttributeId.statusInfo
    case 'crypto-binding-request':
      return AttributeId.cryptoBindingRequest
    case 'crypto-binding':
      return AttributeId.cryptoBinding
    default:
      return attribute.attributeId
  }
}

export function encodedAttributeBytes(attribute: Attribute): number {
  switch (attribute.type) {
    case 'encapsulated-protocol-id':
      return ATTRIBUTE_HEADER_BYTES + PROTOCOL_VALUE_BYTES
    case 'status-info':
      return ATTRIBUTE_HEADER_BYTES + STATUS_VALUE_MIN_BYTES + attribute.value.length
    case 'crypto-binding-request':
      return ATTRIBUTE_HEADER_BYTES + BINDING_REQUEST_VALUE_BYTES
    case 'crypto-binding':
      return CRYPTO_BINDING_BYTES
    default:
      return ATTRIBUTE_HEADER_BYTES + attribute.value.length
  }
}

/** Writes an attribute and returns the offset after it. */
export function encodeAttribute(attribute: Attribute, out: Uint8Array, at: number): number {
  out[at] = 0
  out[at + 1] = attributeIdOf(attribute)
  const valueAt = putU16(out, at + 2, encodedAttributeBytes(attribute))
  switch (attribute.type) {
    case 'encapsulated-protocol-id':
      return putU16(out, valueAt, attribute.protocol)
    case 'status-info':
      putU32(out, valueAt, attribute.attributeId)
      return putBytes(out, putU32(out, valueAt + 4, attribute.status), attribute.value)
    case 'crypto-binding-request':
      return putBytes(out, putU32(out, valueAt, attribute.hashBitmask), attribute.nonce)
    case 'crypto-binding': {
      const nonceAt = putU32(out, valueAt, attribute.hashProtocol)
      const hashAt = putBytes(out, nonceAt, attribute.nonce)
      const macAt = putBytes(out, hashAt, attribute.certificateHash)
      return putBytes(out, macAt, attribute.compoundMac)
    }
    default:
      return putBytes(out, valueAt, attribute.value)
  }
}
