/** The value formats of AVPs (RFC 2661 §4.4, RFC 3145 §2): one small codec for each. */
import { copyBytes, putBytes, putU16, putU32, u16, u32, utf8, utf8Text } from '../../core/bytes.ts'

/** RFC 2661 §4.4.2, Result Code. */
export interface ResultCode {
  readonly result: number
  /** 0 when the peer left it out: many do. */
  readonly error: number
  readonly message: string
}

/** RFC 2661 §4.4.6, Q.931 Cause Code. */
export interface Q931Cause {
  readonly cause: number
  readonly message: number
  readonly advisory: string
}

/** RFC 2661 §4.4.6, Call Errors: totals since the call began. */
export interface CallErrors {
  readonly crcErrors: number
  readonly framingErrors: number
  readonly hardwareOverruns: number
  readonly bufferOverruns: number
  readonly timeoutErrors: number
  readonly alignmentErrors: number
}

/** RFC 2661 §4.4.6, ACCM: async control character maps. */
export interface Accm {
  readonly send: number
  readonly receive: number
}

/** RFC 3145 §2, PPP Disconnect Cause Code. */
export interface PppDisconnectCause {
  readonly code: number
  /** PPP protocol number of the control protocol concerned, 0 when none. */
  readonly controlProtocol: number
  /** 0 global, 1 at the peer, 2 at the sender (§2.1). */
  readonly direction: number
  readonly message: string
}

/** What each format holds. */
export interface AvpValues {
  u16: number
  u32: number
  octets: Uint8Array
  'tie-breaker': Uint8Array
  'md5-digest': Uint8Array
  text: string
  empty: true
  version: number
  result: ResultCode
  'q931-cause': Q931Cause
  'proxy-id': number
  'call-errors': CallErrors
  accm: Accm
  'ppp-cause': PppDisconnectCause
}

export type AvpFormat = keyof AvpValues

export interface AvpValueCodec<Value> {
  /** Allowed lengths of the value, bytes. */
  readonly minBytes: number
  readonly maxBytes: number
  /** The value of `length` bytes at `at`; `length` is within the bounds. Keeps nothing of `buf`. */
  parse(buf: Uint8Array, at: number, length: number): Value
  encode(value: Value): Uint8Array
}

/** The 10-bit AVP length less its header. */
const longest = 1023 - 6

const numberOf = (bytes: 2 | 4): AvpValueCodec<number> => ({
  minBytes: bytes,
  maxBytes: bytes,
  parse: (buf, at) => (bytes === 2 ? u16(buf, at) : u32(buf, at)),
  encode: value => {
    const out = new Uint8Array(bytes)
    if (bytes === 2) putU16(out, 0, value)
    else putU32(out, 0, value)
    return out
  },
})

const octetsOf = (minBytes: number, maxBytes: number): AvpValueCodec<Uint8Array> => ({
  minBytes,
  maxBytes,
  parse: (buf, at, length) => copyBytes(buf, at, at + length), // copied: outlives the burst
  encode: value => value,
})

function withText(head: Uint8Array, text: string): Uint8Array {
  const tail = utf8(text)
  const out = new Uint8Array(head.length + tail.length)
  putBytes(out, putBytes(out, 0, head), tail)
  return out
}

function textAt(buf: Uint8Array, at: number, end: number): string {
  return end > at ? utf8Text(copyBytes(buf, at, end)) : ''
}

/**
 * Apple's clients write their result codes in little-endian order: 768 is 3. Real codes are small,
 * so a number that is a multiple of 256 is one of those.
 */
function hostOrder(code: number): number {
  return code > 0xff && (code & 0xff) === 0 ? code >>> 8 : code
}

export const avpValueCodecs: { readonly [F in AvpFormat]: AvpValueCodec<AvpValues[F]> } = {
  u16: numberOf(2),
  u32: numberOf(4),
  octets: octetsOf(0, longest),
  'tie-breaker': octetsOf(8, 8),
  'md5-digest': octetsOf(16, 16),
  text: {
    minBytes: 0,
    maxBytes: longest,
    parse: (buf, at, length) => textAt(buf, at, at + length),
    encode: value => utf8(value),
  },
  empty: { minBytes: 0, maxBytes: 0, parse: () => true, encode: () => new Uint8Array(0) },
  // Version and revision, one byte each; 1.0 is 0x0100.
  version: numberOf(2),
  result: {
    minBytes: 2,
    maxBytes: longest,
    parse: (buf, at, length) => ({
      result: hostOrder(u16(buf, at)),
      error: length >= 4 ? hostOrder(u16(buf, at + 2)) : 0,
      message: textAt(buf, at + 4, at + length),
    }),
    encode: value => {
      const head = new Uint8Array(4)
      putU16(head, putU16(head, 0, value.result), value.error)
      return withText(head, value.message)
    },
  },
  'q931-cause': {
    minBytes: 3,
    maxBytes: longest,
    parse: (buf, at, length) => ({
      cause: u16(buf, at),
      message: buf[at + 2] ?? 0,
      advisory: textAt(buf, at + 3, at + length),
    }),
    encode: value => {
      const head = new Uint8Array(3)
      head[putU16(head, 0, value.cause)] = value.message
      return withText(head, value.advisory)
    },
  },
  // The high byte is reserved.
  'proxy-id': {
    minBytes: 2,
    maxBytes: 2,
    parse: (buf, at) => buf[at + 1] ?? 0,
    encode: value => Uint8Array.of(0, value),
  },
  'call-errors': {
    minBytes: 26,
    maxBytes: 26,
    parse: (buf, at) => ({
      crcErrors: u32(buf, at + 2),
      framingErrors: u32(buf, at + 6),
      hardwareOverruns: u32(buf, at + 10),
      bufferOverruns: u32(buf, at + 14),
      timeoutErrors: u32(buf, at + 18),
      alignmentErrors: u32(buf, at + 22),
    }),
    encode: value => {
      const out = new Uint8Array(26)
      let to = putU32(out, 2, value.crcErrors)
      to = putU32(out, to, value.framingErrors)
      to = putU32(out, to, value.hardwareOverruns)
      to = putU32(out, to, value.bufferOverruns)
      to = putU32(out, to, value.timeoutErrors)
      putU32(out, to, value.alignmentErrors)
      return out
    },
  },
  accm: {
    minBytes: 10,
    maxBytes: 10,
    parse: (buf, at) => ({ send: u32(buf, at + 2), receive: u32(buf, at + 6) }),
    encode: value => {
      const out = new Uint8Array(10)
      putU32(out, putU32(out, 2, value.send), value.receive)
      return out
    },
  },
  'ppp-cause': {
    minBytes: 5,
    maxBytes: longest,
    parse: (buf, at, length) => ({
      code: u16(buf, at),
      controlProtocol: u16(buf, at + 2),
      direction: buf[at + 4] ?? 0,
      message: textAt(buf, at + 5, at + length),
    }),
    encode: value => {
      const head = new Uint8Array(5)
      head[putU16(head, putU16(head, 0, value.code), value.controlProtocol)] = value.direction
      return withText(head, value.message)
    },
  },
}
