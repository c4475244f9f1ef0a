/**
 * Control messages over TCP port 1723 (RFC 2637 §2). Every message begins alike:
 *
 * ```
 *  0                   1                   2                   3
 *  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |             Length            |       PPTP Message Type       |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |                         Magic Cookie                          |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |     Control Message Type      |           Reserved0           |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * ```
 *
 * What follows has a fixed layout for each type, so the layouts are a table and one reader and one
 * writer serve them all.
 */
import { putU16, putU32, u16, u32 } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'

const MESSAGE_TYPE_AT = 2
const COOKIE_AT = 4
const CONTROL_TYPE_AT = 8
export const CONTROL_HEADER_BYTES = 12

/** Specification constants, RFC 2637 §1.4 and §2.1. */
const CONTROL_MESSAGE = 1
const MAGIC_COOKIE = 0x1a2b3c4d
export const PROTOCOL_VERSION = 0x0100

/** RFC 2637 §2.1: framing and bearer capabilities. */
export const Framing = { asynchronous: 1, synchronous: 2, either: 3 } as const
export const Bearer = { analog: 1, digital: 2, any: 3 } as const

/** Bytes of a number; `text64` is text padded with zeros, `text128` likewise. */
type FieldKind = 'u8' | 'u16' | 'u32' | 'text64' | 'text128'
type Layout = readonly (readonly [name: string, kind: FieldKind])[]

const fieldBytes: Readonly<Record<FieldKind, number>> = {
  u8: 1,
  u16: 2,
  u32: 4,
  text64: 64,
  text128: 128,
}

const startFields = [
  ['framing', 'u32'],
  ['bearer', 'u32'],
  ['maxChannels', 'u16'],
  ['firmwareRevision', 'u16'],
  ['hostName', 'text64'],
  ['vendorName', 'text64'],
] as const

/** RFC 2637 §2.1 to §2.15, in the order of the octets behind the common header. */
const layouts = {
  'start-control-connection-request': [
    ['protocolVersion', 'u16'],
    ['reserved', 'u16'],
    ...startFields,
  ],
  'start-control-connection-reply': [
    ['protocolVersion', 'u16'],
    ['resultCode', 'u8'],
    ['errorCode', 'u8'],
    ...startFields,
  ],
  'stop-control-connection-request': [
    ['reason', 'u8'],
    ['reserved', 'u8'],
    ['reserved', 'u16'],
  ],
  'stop-control-connection-reply': [
    ['resultCode', 'u8'],
    ['errorCode', 'u8'],
    ['reserved', 'u16'],
  ],
  'echo-request': [['identifier', 'u32']],
  'echo-reply': [
    ['identifier', 'u32'],
    ['resultCode', 'u8'],
    ['errorCode', 'u8'],
    ['reserved', 'u16'],
  ],
  'outgoing-call-request': [
    ['callId', 'u16'],
    ['callSerialNumber', 'u16'],
    ['minimumBps', 'u32'],
    ['maximumBps', 'u32'],
    ['bearer', 'u32'],
    ['framing', 'u32'],
    ['windowPackets', 'u16'],
    ['processingDelay', 'u16'],
    ['phoneNumberLength', 'u16'],
    ['reserved', 'u16'],
    ['phoneNumber', 'text64'],
    ['subaddress', 'text64'],
  ],
  'outgoing-call-reply': [
    ['callId', 'u16'],
    ['peerCallId', 'u16'],
    ['resultCode', 'u8'],
    ['errorCode', 'u8'],
    ['causeCode', 'u16'],
    ['connectBps', 'u32'],
    ['windowPackets', 'u16'],
    ['processingDelay', 'u16'],
    ['physicalChannelId', 'u32'],
  ],
  'incoming-call-request': [
    ['callId', 'u16'],
    ['callSerialNumber', 'u16'],
    ['bearer', 'u32'],
    ['physicalChannelId', 'u32'],
    ['dialledNumberLength', 'u16'],
    ['diallingNumberLength', 'u16'],
    ['dialledNumber', 'text64'],
    ['diallingNumber', 'text64'],
    ['subaddress', 'text64'],
  ],
  'incoming-call-reply': [
    ['callId', 'u16'],
    ['peerCallId', 'u16'],
    ['resultCode', 'u8'],
    ['errorCode', 'u8'],
    ['windowPackets', 'u16'],
    ['processingDelay', 'u16'],
    ['reserved', 'u16'],
  ],
  'incoming-call-connected': [
    ['peerCallId', 'u16'],
    ['reserved', 'u16'],
    ['connectBps', 'u32'],
    ['windowPackets', 'u16'],
    ['processingDelay', 'u16'],
    ['framing', 'u32'],
  ],
  'call-clear-request': [
    ['callId', 'u16'],
    ['reserved', 'u16'],
  ],
  'call-disconnect-notify': [
    ['callId', 'u16'],
    ['resultCode', 'u8'],
    ['errorCode', 'u8'],
    ['causeCode', 'u16'],
    ['reserved', 'u16'],
    ['statistics', 'text128'],
  ],
  'wan-error-notify': [
    ['peerCallId', 'u16'],
    ['reserved', 'u16'],
    ['crcErrors', 'u32'],
    ['framingErrors', 'u32'],
    ['hardwareOverruns', 'u32'],
    ['bufferOverruns', 'u32'],
    ['timeoutErrors', 'u32'],
    ['alignmentErrors', 'u32'],
  ],
  'set-link-info': [
    ['peerCallId', 'u16'],
    ['reserved', 'u16'],
    ['sendAccm', 'u32'],
    ['receiveAccm', 'u32'],
  ],
} as const satisfies Record<string, Layout>

export type ControlType = keyof typeof layouts

type FieldsOf<L extends Layout> = {
  readonly [Field in L[number] as Exclude<Field[0], 'reserved'>]: Field[1] extends
    | 'text64'
    | 'text128'
    ? string
    : number
}

/** One message; numbers in host order, text without its padding. */
export type ControlMessage = {
  [Type in ControlType]: { readonly type: Type } & FieldsOf<(typeof layouts)[Type]>
}[ControlType]

export type ControlMessageOf<Type extends ControlType> = Extract<ControlMessage, { type: Type }>

/** In the order of the numbers 1 to 15, RFC 2637 §1.4. */
export const controlTypes = Object.keys(layouts) as readonly ControlType[]

const lengths: readonly number[] = controlTypes.map(type => messageBytes(type))

/** The longest message: Incoming-Call-Request. */
export const MAX_MESSAGE_BYTES = Math.max(...lengths)

/** Whole length of a message of this type, bytes. */
export function messageBytes(type: ControlType): number {
  let length = CONTROL_HEADER_BYTES
  for (const [, kind] of layouts[type]) length += fieldBytes[kind]
  return length
}

/** Not an error: more bytes are needed to say. */
export const needMore = 0

/**
 * Length of the message that begins at `at`, when it is whole: its bytes, `needMore`, or a fault as a
 * negative number. A stream that has one fault cannot be read on.
 */
export function wholeMessage(bytes: Uint8Array, at: number, end: number): number {
  const available = end - at
  if (available < CONTROL_HEADER_BYTES) {
    // What is there already must not be wrong: a stranger need not send it all.
    return available >= COOKIE_AT + 4 && u32(bytes, at + COOKIE_AT) !== MAGIC_COOKIE
      ? -WireFault['bad-magic']
      : needMore
  }
  if (u32(bytes, at + COOKIE_AT) !== MAGIC_COOKIE) return -WireFault['bad-magic']
  if (u16(bytes, at + MESSAGE_TYPE_AT) !== CONTROL_MESSAGE) return -WireFault['unknown-type']
  const length = u16(bytes, at)
  const expected = lengths[u16(bytes, at + CONTROL_TYPE_AT) - 1]
  if (expected === undefined) return -WireFault['unknown-type']
  if (length < expected) return -WireFault['length-too-small']
  if (length > expected) return -WireFault.oversize
  return available < length ? needMore : length
}

/** The message at `at`. Cannot fail after `wholeMessage`. */
export function parseMessage(bytes: Uint8Array, at: number): ControlMessage {
  const type = controlTypes[u16(bytes, at + CONTROL_TYPE_AT) - 1] ?? 'echo-request'
  const fields: Record<string, number | string> = { type }
  let from = at + CONTROL_HEADER_BYTES
  for (const [name, kind] of layouts[type] as Layout) {
    if (name !== 'reserved') fields[name] = readField(bytes, from, kind)
    from += fieldBytes[kind]
  }
  return fields as unknown as ControlMessage
}

/** The message as it goes on the wire; text that is too long is cut. */
export function encodeMessage(message: ControlMessage): Uint8Array {
  const out = new Uint8Array(messageBytes(message.type))
  putU16(out, 0, out.length)
  putU16(out, MESSAGE_TYPE_AT, CONTROL_MESSAGE)
  putU32(out, COOKIE_AT, MAGIC_COOKIE)
  putU16(out, CONTROL_TYPE_AT, controlTypes.indexOf(message.type) + 1)
  const fields: Readonly<Record<string, number | string>> = { ...message }
  let at = CONTROL_HEADER_BYTES
  for (const [name, kind] of layouts[message.type] as Layout) {
    if (name !== 'reserved') writeField(out, at, kind, fields[name] ?? 0)
    at += fieldBytes[kind]
  }
  return out
}

function readField(bytes: Uint8Array, at: number, kind: FieldKind): number | string {
  switch (kind) {
    case 'u8':
      return bytes[at] ?? 0
    case 'u16':
      return u16(bytes, at)
    case 'u32':
      return u32(bytes, at)
    case 'text64':
    case 'text128':
      return readText(bytes, at, fieldBytes[kind])
  }
}

/** Up to the first zero; what is not printable ASCII becomes a question mark. */
function readText(bytes: Uint8Array, at: number, length: number): string {
  let text = ''
  for (let i = at; i < at + length; i++) {
    const byte = bytes[i] ?? 0
    if (byte === 0) break
    text += byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '?'
  }
  return text
}

function writeField(out: Uint8Array, at: number, kind: FieldKind, value: number | string): void {
  if (typeof value === 'string') {
    const length = Math.min(value.length, fieldBytes[kind])
    for (let i = 0; i < length; i++) out[at + i] = value.charCodeAt(i)
  } else if (kind === 'u8') out[at] = value
  else if (kind === 'u16') putU16(out, at, value)
  else putU32(out, at, value)
}
