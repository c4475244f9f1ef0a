/**
 * The Traffic Selector payloads TSi and TSr, RFC 7296 §3.13.
 *
 *  | Number of TSs |                  RESERVED                     |
 * each:
 *  |   TS Type     |IP Protocol ID |        Selector Length        |
 *  |          Start Port           |           End Port            |
 *  |  Starting Address, Ending Address                             |
 */
import { putBytes, putU16, u16 } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'
import type { PayloadCodec } from './payload-codec.ts'

const HEADER_BYTES = 4
const SELECTOR_HEADER_BYTES = 8

/** Ours. */
export const SELECTORS_MAX = 128

/** RFC 7296 §3.13.1. */
export const TsType = { TS_IPV4_ADDR_RANGE: 7, TS_IPV6_ADDR_RANGE: 8 } as const

/** A range of addresses, ports and one protocol (0 is any), all ends included. */
export interface TrafficSelector {
  readonly family: 4 | 6
  readonly ipProtocol: number
  readonly startPort: number
  readonly endPort: number
  /** 4 or 16 bytes. */
  readonly startAddress: Uint8Array
  readonly endAddress: Uint8Array
}

export interface TrafficSelectorPayload<Name extends 'TSi' | 'TSr' = 'TSi' | 'TSr'> {
  readonly type: Name
  /** Selectors of types that we do not know are left out (RFC 7296 §2.9). */
  readonly selectors: readonly TrafficSelector[]
}

function addressBytes(tsType: number): number {
  if (tsType === TsType.TS_IPV4_ADDR_RANGE) return 4
  return tsType === TsType.TS_IPV6_ADDR_RANGE ? 16 : 0
}

function check(body: Uint8Array): WireFault {
  if (body.length < HEADER_BYTES) return WireFault.truncated
  const count = body[0] ?? 0
  if (count > SELECTORS_MAX) return WireFault['too-many']
  if (count === 0) return WireFault.missing
  let at = HEADER_BYTES
  for (let i = 0; i < count; i++) {
    if (body.length - at < SELECTOR_HEADER_BYTES) return WireFault.truncated
    const lengthBytes = u16(body, at + 2)
    if (lengthBytes < SELECTOR_HEADER_BYTES) return WireFault['length-too-small']
    if (at + lengthBytes > body.length) return WireFault['length-overrun']
    const wanted = addressBytes(body[at] ?? 0)
    if (wanted !== 0 && lengthBytes !== SELECTOR_HEADER_BYTES + 2 * wanted) {
      return WireFault['bad-value']
    }
    at += lengthBytes
  }
  return at === body.length ? WireFault.none : WireFault['length-overrun']
}

function parseSelectors(body: Uint8Array): TrafficSelector[] {
  const selectors: TrafficSelector[] = []
  for (let at = HEADER_BYTES; at < body.length; at += u16(body, at + 2)) {
    const bytes = addressBytes(body[at] ?? 0)
    if (bytes === 0) continue
    const startAt = at + SELECTOR_HEADER_BYTES
    selectors.push({
      family: bytes === 4 ? 4 : 6,
      ipProtocol: body[at + 1] ?? 0,
      startPort: u16(body, at + 4),
      endPort: u16(body, at + 6),
      startAddress: body.subarray(startAt, startAt + bytes),
      endAddress: body.subarray(startAt + bytes, startAt + 2 * bytes),
    })
  }
  return selectors
}

function encode(payload: TrafficSelectorPayload, out: Uint8Array, at: number): number {
  out[at] = payload.selectors.length
  out.fill(0, at + 1, at + HEADER_BYTES)
  let next = at + HEADER_BYTES
  for (const selector of payload.selectors) {
    out[next] = selector.family === 4 ? TsType.TS_IPV4_ADDR_RANGE : TsType.TS_IPV6_ADDR_RANGE
    out[next + 1] = selector.ipProtocol
    putU16(out, next + 2, SELECTOR_HEADER_BYTES + 2 * selector.startAddress.length)
    putU16(out, next + 4, selector.startPort)
    putU16(out, next + 6, selector.endPort)
    next = putBytes(out, next + SELECTOR_HEADER_BYTES, selector.startAddress)
    next = putBytes(out, next, selector.endAddress)
  }
  return next
}

function bodyBytes(payload: TrafficSelectorPayload): number {
  let lengthBytes = HEADER_BYTES
  for (const { startAddress } of payload.selectors) {
    lengthBytes += SELECTOR_HEADER_BYTES + 2 * startAddress.length
  }
  return lengthBytes
}

export const initiatorSelectorsCodec: PayloadCodec<TrafficSelectorPayload<'TSi'>> = {
  check,
  parse: body => ({ type: 'TSi', selectors: parseSelectors(body) }),
  bodyBytes,
  encode,
}

export const responderSelectorsCodec: PayloadCodec<TrafficSelectorPayload<'TSr'>> = {
  check,
  parse: body => ({ type: 'TSr', selectors: parseSelectors(body) }),
  bodyBytes,
  encode,
}
