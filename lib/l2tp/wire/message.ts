/**
 * L2TPv2 control messages: a header and a list of AVPs (RFC 2661 §4.1, §6).
 *
 *      0                   1                   2                   3
 *     |M|H| rsvd  |      Length       |           Vendor ID           |
 *     |         Attribute Type        |        Attribute Value...
 *
 * Length counts the 6 bytes of this header. A hidden value (H) needs the tunnel secret and the Random
 * Vector before it (§4.3); the arithmetic comes in through `AvpHiding`.
 */
import { copyBytes, putBytes, putU16, u16 } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'
import {
  type AvpDefinition,
  type AvpName,
  avpTable,
  type GeneralError,
  type MessageDefinition,
  type MessageName,
  messageTable,
} from './avp-table.ts'
import { type AvpValueCodec, type AvpValues, avpValueCodecs } from './avp-value.ts'
import { CONTROL_HEADER_BYTES, headerBytes, messageBytes } from './header.ts'

const M = 0x8000
const H = 0x4000
const reservedBits = 0x3c00
const lengthMask = 0x03ff
const AVP_HEADER_BYTES = 6

/** Implementation constants: far beyond what any peer sends, small enough to bound the work. */
const mostAvps = 64
const longestMessageBytes = 4096
/** A longer value is not hidden: length and padding would push it over the 10-bit AVP length. */
const longestHiddenBytes = 960

type AvpValueOf<N extends AvpName> = AvpValues[(typeof avpTable)[N]['format']]

type MessageOf<N extends MessageName> = { readonly type: N } & {
  readonly [A in (typeof messageTable)[N]['required'][number]]: AvpValueOf<A>
} & {
  readonly [A in (typeof messageTable)[N]['allowed'][number]]?: AvpValueOf<A>
}

/** A control message, by type; its fields are those of `messageTable`. */
export type ControlMessage = { [N in MessageName]: MessageOf<N> }[MessageName]

/** One kind of control message. */
export type Control<N extends MessageName> = Extract<ControlMessage, { readonly type: N }>

/** Hides and reveals AVP values with the tunnel secret (RFC 2661 §4.3). */
export interface AvpHiding {
  /** Random Vector for the next hidden AVPs. */
  randomVector(): Uint8Array
  hide(type: number, value: Uint8Array, randomVector: Uint8Array): Uint8Array
  /** The value, or undefined when its length does not fit into the ciphertext. */
  reveal(type: number, hidden: Uint8Array, randomVector: Uint8Array): Uint8Array | undefined
}

export type ParsedControl =
  | { readonly type: 'message'; readonly message: ControlMessage; readonly ignoredAvps: number }
  /** No AVPs at all: an acknowledgement (§5.8). */
  | { readonly type: 'zero-length-body' }
  /** A message type that we do not know; `isMandatory` is its M bit (§4.1). */
  | { readonly type: 'unknown-message'; readonly code: number; readonly isMandatory: boolean }
  | {
      readonly type: 'malformed'
      readonly fault: WireFault
      /** For the Result Code of the answer. */
      readonly error: GeneralError
      /** Attribute Type of the offending AVP. */
      readonly attribute: number
      /** Message Type, 0 when the message has none. */
      readonly code: number
    }

const byCode = new Map<number, MessageName>()
const byType = new Map<number, AvpName>()
for (const name of Object.keys(messageTable) as MessageName[]) {
  byCode.set(messageTable[name].code, name)
}
for (const name of Object.keys(avpTable) as AvpName[]) byType.set(avpTable[name].type, name)

/** Whether a message of this code concerns one session; unknown ones do when they name a session. */
export function isSessionMessage(code: number): boolean {
  const name = byCode.get(code)
  return name !== undefined && messageTable[name].isSession
}

/**
 * The control message of `length` bytes at `at`, whose header `checkHeader` has found good. Keeps
 * nothing of `buf`.
 */
export function parseControl(
  buf: Uint8Array,
  at: number,
  length: number,
  hiding?: AvpHiding,
): ParsedControl {
  const end = at + messageBytes(buf, at, length)
  let next = at + headerBytes(buf, at)
  if (next === end) return { type: 'zero-length-body' }
  let code = 0
  const malformed = (fault: WireFault, error: GeneralError, attribute: number): ParsedControl => ({
    type: 'malformed',
    fault,
    error,
    attribute,
    code,
  })
  if (end - at > longestMessageBytes) return malformed(WireFault.oversize, 'wrong-length', 0)

  let name: MessageName | undefined
  let definition: MessageDefinition | undefined
  let randomVector: Uint8Array | undefined
  const fields: Record<string, unknown> = {}
  let ignoredAvps = 0
  for (let count = 0; next < end; count++) {
    if (count === mostAvps) return malformed(WireFault['too-many'], 'insufficient-resources', 0)
    if (end - next < AVP_HEADER_BYTES) return malformed(WireFault.truncated, 'wrong-length', 0)
    const flags = u16(buf, next)
    const avpBytes = flags & lengthMask
    const vendor = u16(buf, next + 2)
    const attribute = u16(buf, next + 4)
    if (avpBytes < AVP_HEADER_BYTES) {
      return malformed(WireFault['length-too-small'], 'wrong-length', attribute)
    }
    if (avpBytes > end - next) {
      return malformed(WireFault['length-overrun'], 'wrong-length', attribute)
    }
    let value = buf
    let valueAt = next + AVP_HEADER_BYTES
    let valueBytes = avpBytes - AVP_HEADER_BYTES
    next += avpBytes

    const isMandatory = (flags & M) !== 0
    // §4.1: reserved bits make an AVP an unknown one.
    const isKnown = vendor === 0 && (flags & reservedBits) === 0
    const avpName = isKnown ? byType.get(attribute) : undefined
    const rule: AvpDefinition | undefined = avpName === undefined ? undefined : avpTable[avpName]

    if (count === 0) {
      // §4.4.1: the Message Type comes first, in clear.
      if (avpName !== 'messageType' || (flags & H) !== 0) {
        return malformed(WireFault.missing, 'out-of-range', attribute)
      }
      if (valueBytes !== 2) return malformed(WireFault['bad-value'], 'wrong-length', attribute)
      code = u16(value, valueAt)
      name = byCode.get(code)
      if (name === undefined) return { type: 'unknown-message', code, isMandatory }
      definition = messageTable[name]
      continue
    }

    const isHidden = (flags & H) !== 0
    const canReveal =
      isHidden && rule?.canBeHidden === true && hiding !== undefined && randomVector !== undefined
    if (rule === undefined || avpName === undefined || (isHidden && !canReveal)) {
      // Unknown, or hidden and unreadable: the M bit decides (§4.1).
      if (isMandatory) {
        return malformed(WireFault['unknown-type'], 'unknown-mandatory-avp', attribute)
      }
      ignoredAvps++
      continue
    }
    if (isHidden && hiding !== undefined && randomVector !== undefined) {
      const hidden = copyBytes(buf, valueAt, valueAt + valueBytes)
      const revealed = hiding.reveal(attribute, hidden, randomVector)
      if (revealed === undefined) {
        return malformed(WireFault['length-overrun'], 'wrong-length', attribute)
      }
      value = revealed
      valueAt = 0
      valueBytes = revealed.length
    }
    const codec: AvpValueCodec<unknown> = avpValueCodecs[rule.format]
    if (valueBytes < codec.minBytes || valueBytes > codec.maxBytes) {
      if (!isMandatory) {
        ignoredAvps++
        continue
      }
      return malformed(WireFault['bad-value'], 'wrong-length', attribute)
    }
    if (avpName === 'randomVector') {
      randomVector = copyBytes(value, valueAt, valueAt + valueBytes)
      continue
    }
    const isExpected =
      definition !== undefined &&
      (definition.required.includes(avpName) || definition.allowed.includes(avpName))
    // A known AVP in a message that has no use for it, and a repeated one: the first counts.
    if (!isExpected || avpName in fields) {
      ignoredAvps++
      continue
    }
    fields[avpName] = codec.parse(value, valueAt, valueBytes)
  }
  if (name === undefined || definition === undefined) {
    return malformed(WireFault.missing, 'out-of-range', 0)
  }
  for (const required of definition.required) {
    if (!(required in fields)) {
      return malformed(WireFault.missing, 'out-of-range', avpTable[required].type)
    }
  }
  // The loop above has filled in exactly the fields that the table gives this type.
  return { type: 'message', message: { type: name, ...fields } as ControlMessage, ignoredAvps }
}

/**
 * A whole control message in a new array, with room for the header, which `encodeControlHeader`
 * fills at each transmission. With `hiding`, every AVP that may be hidden is.
 */
export function encodeControl(message: ControlMessage, hiding?: AvpHiding): Uint8Array {
  const definition: MessageDefinition = messageTable[message.type]
  const values = new Map<string, unknown>(Object.entries(message))
  const parts: EncodedAvp[] = []
  const code = new Uint8Array(2)
  putU16(code, 0, definition.code)
  parts.push({ rule: avpTable.messageType, value: code, isHidden: false })
  let randomVector: Uint8Array | undefined
  for (const name of [...definition.required, ...definition.allowed]) {
    const value = values.get(name)
    if (value === undefined) continue
    const rule: AvpDefinition = avpTable[name]
    const codec: AvpValueCodec<unknown> = avpValueCodecs[rule.format]
    const bytes = codec.encode(value).subarray(0, codec.maxBytes)
    if (hiding === undefined || !rule.canBeHidden || bytes.length > longestHiddenBytes) {
      parts.push({ rule, value: bytes, isHidden: false })
      continue
    }
    if (randomVector === undefined) {
      randomVector = hiding.randomVector()
      parts.push({ rule: avpTable.randomVector, value: randomVector, isHidden: false })
    }
    const hidden = hiding.hide(rule.type, bytes, randomVector)
    parts.push({ rule, value: hidden, isHidden: true })
  }
  let length = CONTROL_HEADER_BYTES
  for (const part of parts) length += AVP_HEADER_BYTES + part.value.length
  const out = new Uint8Array(length)
  let to = CONTROL_HEADER_BYTES
  for (const part of parts) {
    const flags = (part.rule.isMandatory ? M : 0) | (part.isHidden ? H : 0)
    to = putU16(out, to, flags | (AVP_HEADER_BYTES + part.value.length))
    to = putU16(out, to, 0)
    to = putU16(out, to, part.rule.type)
    to = putBytes(out, to, part.value)
  }
  return out
}

interface EncodedAvp {
  readonly rule: AvpDefinition
  readonly value: Uint8Array
  readonly isHidden: boolean
}
