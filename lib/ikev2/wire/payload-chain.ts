/**
 * Payloads one after the other, each naming the type of the next, RFC 7296 §3.2.
 *
 *  | Next Payload  |C|  RESERVED   |         Payload Length        |
 *
 * An SK or SKF payload is the last one; its next-payload field names the first payload inside.
 */
import { putU16, u16 } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'
import {
  checkPayload,
  encodePayloadBody,
  type Payload,
  parsePayload,
  payloadBodyBytes,
  payloadCode,
} from './payload.ts'
import { NO_NEXT_PAYLOAD, PayloadType } from './payload-type.ts'

export const GENERIC_HEADER_BYTES = 4
const CRITICAL = 0x80

/** Ours: Windows with two certificates sends about 20. */
export const PAYLOADS_MAX = 64

export interface PayloadChain {
  readonly fault: WireFault
  /** Empty when there is a fault. */
  readonly payloads: readonly Payload[]
  /** Offset of the generic header of the SK or SKF payload that ends the chain, else -1. */
  readonly encryptedAt: number
  /** Type of the first payload inside SK or SKF. */
  readonly innerType: number
}

function faulty(fault: WireFault): PayloadChain {
  return { fault, payloads: [], encryptedAt: -1, innerType: NO_NEXT_PAYLOAD }
}

/** Parses the chain that fills `buf` from `from` to its end. The result holds views into `buf`. */
export function parsePayloadChain(buf: Uint8Array, from: number, firstType: number): PayloadChain {
  const payloads: Payload[] = []
  let at = from
  let type = firstType
  while (type !== NO_NEXT_PAYLOAD) {
    if (payloads.length === PAYLOADS_MAX) return faulty(WireFault['too-many'])
    if (buf.length - at < GENERIC_HEADER_BYTES) return faulty(WireFault.truncated)
    const lengthBytes = u16(buf, at + 2)
    if (lengthBytes < GENERIC_HEADER_BYTES) return faulty(WireFault['length-too-small'])
    const end = at + lengthBytes
    if (end > buf.length) return faulty(WireFault['length-overrun'])
    const body = buf.subarray(at + GENERIC_HEADER_BYTES, end)
    const fault = checkPayload(type, body)
    if (fault) return faulty(fault)
    payloads.push(parsePayload(type, ((buf[at + 1] ?? 0) & CRITICAL) !== 0, body))
    const nextType = buf[at] ?? 0
    if (type === PayloadType.SK || type === PayloadType.SKF) {
      if (end !== buf.length) return faulty(WireFault['length-overrun'])
      return { fault: WireFault.none, payloads, encryptedAt: at, innerType: nextType }
    }
    type = nextType
    at = end
  }
  if (at !== buf.length) return faulty(WireFault['length-overrun'])
  return { fault: WireFault.none, payloads, encryptedAt: -1, innerType: NO_NEXT_PAYLOAD }
}

export function payloadChainBytes(payloads: readonly Payload[]): number {
  let lengthBytes = 0
  for (const payload of payloads) lengthBytes += GENERIC_HEADER_BYTES + payloadBodyBytes(payload)
  return lengthBytes
}

/** Type of the first payload, for the field before the chain. */
export function firstPayloadType(payloads: readonly Payload[]): number {
  const first = payloads[0]
  return first === undefined ? NO_NEXT_PAYLOAD : payloadCode(first)
}

/** Writes the generic header of a payload. */
export function encodeGenericHeader(
  nextType: number,
  lengthBytes: number,
  out: Uint8Array,
  at: number,
): number {
  out[at] = nextType
  out[at + 1] = 0
  return putU16(out, at + 2, lengthBytes)
}

/** Writes `payloadChainBytes` and returns the offset after them. */
export function encodePayloadChain(
  payloads: readonly Payload[],
  out: Uint8Array,
  from: number,
): number {
  let at = from
  payloads.forEach((payload, i) => {
    const next = payloads[i + 1]
    const lengthBytes = GENERIC_HEADER_BYTES + payloadBodyBytes(payload)
    const nextType = next === undefined ? NO_NEXT_PAYLOAD : payloadCode(next)
    encodeGenericHeader(nextType, lengthBytes, out, at)
    if (payload.type === 'unknown' && payload.isCritical) out[at + 1] = CRITICAL
    at = encodePayloadBody(payload, out, at + GENERIC_HEADER_BYTES)
  })
  return at
}
