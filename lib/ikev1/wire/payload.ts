/**
 * The payloads of ISAKMP messages: RFC 2408 §3, RFC 2407 §4.6, RFC 3947 §3.2 and §5.2. Each has a
 * generic header: next payload, a reserved byte and its length (§3.2).
 */
import { copyBytes, equalBytes, putBytes, putU16, putU32, u16 } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'
import { DOI_IPSEC, PayloadType } from './numbers.ts'
import { encodeProposals, type Proposal, parseProposals } from './sa.ts'

/** RFC 2407 §4.6.2: who, and for phase 2 which traffic. */
export interface Identification {
  readonly idType: number
  /** IP protocol, 0 for any. */
  readonly protocol: number
  /** 0 for any. */
  readonly port: number
  readonly data: Uint8Array
}

/** Payloads whose body has no structure for us. */
type Plain = 'KE' | 'HASH' | 'SIG' | 'NONCE' | 'VID'

export type Payload =
  /** `body` is as received: it is part of HASH_I (RFC 2409 §5). */
  | { readonly type: 'SA'; readonly proposals: readonly Proposal[]; readonly body: Uint8Array }
  | ({ readonly type: 'ID'; readonly body: Uint8Array } & Identification)
  | { readonly [P in Plain]: { readonly type: P; readonly data: Uint8Array } }[Plain]
  | { readonly type: 'CERT'; readonly encoding: number; readonly data: Uint8Array }
  | { readonly type: 'CR'; readonly encoding: number; readonly data: Uint8Array }
  | {
      readonly type: 'N'
      readonly protocolId: number
      readonly notifyType: number
      readonly spi: Uint8Array
      readonly data: Uint8Array
    }
  | { readonly type: 'D'; readonly protocolId: number; readonly spis: readonly Uint8Array[] }
  | { readonly type: 'NAT-D'; readonly isDraft: boolean; readonly data: Uint8Array }
  | {
      readonly type: 'NAT-OA'
      readonly isDraft: boolean
      readonly idType: number
      readonly data: Uint8Array
    }
  /** RFC 2408 §5.3 lets them pass. */
  | { readonly type: 'unknown'; readonly payloadType: number; readonly data: Uint8Array }

export type PayloadOf<T extends Payload['type']> = Extract<Payload, { readonly type: T }>

export interface ParsedPayloads {
  readonly payloads: readonly Payload[]
  /** End of the last payload: what follows is padding (RFC 2408 §2.5.1 has none, peers do). */
  readonly end: number
  /** End of the first payload: the keyed hashes cover what is between (RFC 2409 §5.5). */
  readonly firstEnd: number
}

const GENERIC_HEADER_BYTES = 4
const plainTypes = new Map<number, Plain>([
  [PayloadType.KE, 'KE'],
  [PayloadType.HASH, 'HASH'],
  [PayloadType.SIG, 'SIG'],
  [PayloadType.NONCE, 'NONCE'],
  [PayloadType.VID, 'VID'],
])

/** Implementation constants. */
const mostPayloads = 64
const mostSpis = 64
const longestSpiBytes = 16

/** The payloads between `at` and `end`, the first of type `first`. Keeps nothing of `buf`. */
export function parsePayloads(
  buf: Uint8Array,
  at: number,
  end: number,
  first: number,
): ParsedPayloads | WireFault {
  const payloads: Payload[] = []
  let type = first
  let next = at
  let firstEnd = at
  while (type !== PayloadType.none) {
    if (payloads.length === mostPayloads) return WireFault['too-many']
    if (end - next < GENERIC_HEADER_BYTES) return WireFault.truncated
    const length = u16(buf, next + 2)
    if (length < GENERIC_HEADER_BYTES) return WireFault['length-too-small']
    if (length > end - next) return WireFault['length-overrun']
    const payload = parseBody(type, buf, next + GENERIC_HEADER_BYTES, length - GENERIC_HEADER_BYTES)
    if (typeof payload === 'number') return payload
    payloads.push(payload)
    type = buf[next] ?? 0
    next += length
    if (payloads.length === 1) firstEnd = next
  }
  return { payloads, end: next, firstEnd }
}

function parseBody(type: number, buf: Uint8Array, at: number, length: number): Payload | WireFault {
  const end = at + length
  const plain = plainTypes.get(type)
  if (plain !== undefined) return { type: plain, data: copyBytes(buf, at, end) }
  switch (type) {
    case PayloadType.SA: {
      const proposals = parseProposals(buf, at, length)
      if (typeof proposals === 'number') return proposals
      return { type: 'SA', proposals, body: copyBytes(buf, at, end) }
    }
    case PayloadType.ID:
      if (length < 4) return WireFault.truncated
      return {
        type: 'ID',
        idType: buf[at] ?? 0,
        protocol: buf[at + 1] ?? 0,
        port: u16(buf, at + 2),
        data: copyBytes(buf, at + 4, end),
        body: copyBytes(buf, at, end),
      }
    case PayloadType.CERT:
    case PayloadType.CR:
      if (length < 1) return WireFault.truncated
      return {
        type: type === PayloadType.CERT ? 'CERT' : 'CR',
        encoding: buf[at] ?? 0,
        data: copyBytes(buf, at + 1, end),
      }
    case PayloadType.N: {
      if (length < 8) return WireFault.truncated
      const spiBytes = buf[at + 5] ?? 0
      if (spiBytes > longestSpiBytes) return WireFault.oversize
      if (8 + spiBytes > length) return WireFault['length-overrun']
      return {
        type: 'N',
        protocolId: buf[at + 4] ?? 0,
        notifyType: u16(buf, at + 6),
        spi: copyBytes(buf, at + 8, at + 8 + spiBytes),
        data: copyBytes(buf, at + 8 + spiBytes, end),
      }
    }
    case PayloadType.D: {
      if (length < 8) return WireFault.truncated
      const spiBytes = buf[at + 5] ?? 0
      const count = u16(buf, at + 6)
      if (spiBytes > longestSpiBytes) return WireFault.oversize
      if (count > mostSpis) return WireFault['too-many']
      if (8 + spiBytes * count > length) return WireFault['length-overrun']
      const spis: Uint8Array[] = []
      for (let i = 0; i < count; i++) {
        const spiAt = at + 8 + i * spiBytes
        spis.push(copyBytes(buf, spiAt, spiAt + spiBytes))
      }
      return { type: 'D', protocolId: buf[at + 4] ?? 0, spis }
    }
    case PayloadType['NAT-D']:
    case PayloadType['NAT-D-draft']:
      return {
        type: 'NAT-D',
        isDraft: type === PayloadType['NAT-D-draft'],
        data: copyBytes(buf, at, end),
      }
    case PayloadType['NAT-OA']:
    case PayloadType['NAT-OA-draft']:
      if (length < 4) return WireFault.truncated
      return {
        type: 'NAT-OA',
        isDraft: type === PayloadType['NAT-OA-draft'],
        idType: buf[at] ?? 0,
        data: copyBytes(buf, at + 4, end),
      }
    default:
      return { type: 'unknown', payloadType: type, data: copyBytes(buf, at, end) }
  }
}

/** The body of an ID payload, which the keyed hashes cover (RFC 2409 §5). */
export function identificationBody(id: Identification): Uint8Array {
  const out = new Uint8Array(4 + id.data.length)
  out[0] = id.idType
  out[1] = id.protocol
  putBytes(out, putU16(out, 2, id.port), id.data)
  return out
}

/** SA payload of our own making. */
export function saPayload(proposals: readonly Proposal[]): PayloadOf<'SA'> {
  return { type: 'SA', proposals, body: encodeProposals(proposals) }
}

export function idPayload(id: Identification): PayloadOf<'ID'> {
  return { ...id, type: 'ID', body: identificationBody(id) }
}

function typeNumber(payload: Payload): number {
  switch (payload.type) {
    case 'NAT-D':
      return payload.isDraft ? PayloadType['NAT-D-draft'] : PayloadType['NAT-D']
    case 'NAT-OA':
      return payload.isDraft ? PayloadType['NAT-OA-draft'] : PayloadType['NAT-OA']
    case 'unknown':
      return payload.payloadType
    default:
      return PayloadType[payload.type]
  }
}

function bodyOf(payload: Payload): Uint8Array {
  switch (payload.type) {
    case 'SA':
    case 'ID':
      return payload.body
    case 'CERT':
    case 'CR': {
      const out = new Uint8Array(1 + payload.data.length)
      out[0] = payload.encoding
      out.set(payload.data, 1)
      return out
    }
    case 'N': {
      const out = new Uint8Array(8 + payload.spi.length + payload.data.length)
      putU32(out, 0, DOI_IPSEC)
      out[4] = payload.protocolId
      out[5] = payload.spi.length
      putBytes(out, putBytes(out, putU16(out, 6, payload.notifyType), payload.spi), payload.data)
      return out
    }
    case 'D': {
      const spiBytes = payload.spis[0]?.length ?? 0
      const out = new Uint8Array(8 + spiBytes * payload.spis.length)
      putU32(out, 0, DOI_IPSEC)
      out[4] = payload.protocolId
      out[5] = spiBytes
      let to = putU16(out, 6, payload.spis.length)
      for (const spi of payload.spis) to = putBytes(out, to, spi)
      return out
    }
    case 'NAT-OA': {
      const out = new Uint8Array(4 + payload.data.length)
      out[0] = payload.idType
      out.set(payload.data, 4)
      return out
    }
    default:
      return payload.data
  }
}

/** The type of the first payload, for the header. */
export function firstPayloadType(payloads: readonly Payload[]): number {
  const [first] = payloads
  return first === undefined ? PayloadType.none : typeNumber(first)
}

/** The payloads one after the other, without a header. */
export function encodePayloads(payloads: readonly Payload[]): Uint8Array {
  const bodies = payloads.map(bodyOf)
  let length = 0
  for (const body of bodies) length += GENERIC_HEADER_BYTES + body.length
  const out = new Uint8Array(length)
  let to = 0
  bodies.forEach((body, i) => {
    const following = payloads[i + 1]
    out[to] = following === undefined ? PayloadType.none : typeNumber(following)
    to = putU16(out, to + 2, GENERIC_HEADER_BYTES + body.length)
    to = putBytes(out, to, body)
  })
  return out
}

/** The first payload of a type. */
export function findPayload<T extends Payload['type']>(
  payloads: readonly Payload[],
  type: T,
): PayloadOf<T> | undefined {
  return payloads.find((payload): payload is PayloadOf<T> => payload.type === type)
}

/** All payloads of a type. */
export function filterPayloads<T extends Payload['type']>(
  payloads: readonly Payload[],
  type: T,
): PayloadOf<T>[] {
  return payloads.filter((payload): payload is PayloadOf<T> => payload.type === type)
}

/** Whether two identities name the same traffic; their types may differ in form only. */
export function isSameIdentification(a: Identification, b: Identification): boolean {
  return a.protocol === b.protocol && a.port === b.port && equalBytes(a.data, b.data)
}
