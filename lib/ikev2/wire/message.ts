/** A whole IKE message: header and payload chain, RFC 7296 §3.1 and §3.2. */
import { WireFault } from '../../core/faults.ts'
import { checkHeader, encodeHeader, HEADER_BYTES, type Header, parseHeader } from './header.ts'
import type { Payload, PayloadOf } from './payload.ts'
import {
  encodePayloadChain,
  firstPayloadType,
  type PayloadChain,
  parsePayloadChain,
  payloadChainBytes,
} from './payload-chain.ts'

/** A header without the fields that follow from the payloads. */
export type MessageHead = Omit<Header, 'nextPayload' | 'lengthBytes'>

/** Parses the outer chain: all of a cleartext message, up to SK or SKF of a protected one. */
export function parseMessage(buf: Uint8Array): PayloadChain {
  const fault = checkHeader(buf)
  if (fault) return { fault, payloads: [], encryptedAt: -1, innerType: 0 }
  const chain = parsePayloadChain(buf, HEADER_BYTES, parseHeader(buf).nextPayload)
  // Nothing may follow or stand beside another encrypted payload; a lone chain of none is legal
  // only inside SK.
  return !chain.fault && chain.payloads.length === 0
    ? { ...chain, fault: WireFault.missing }
    : chain
}

/** A cleartext message: IKE_SA_INIT, and answers to strangers. */
export function encodeMessage(head: MessageHead, payloads: readonly Payload[]): Uint8Array {
  const lengthBytes = HEADER_BYTES + payloadChainBytes(payloads)
  const out = new Uint8Array(lengthBytes)
  encodeHeader({ ...head, nextPayload: firstPayloadType(payloads), lengthBytes }, out, 0)
  encodePayloadChain(payloads, out, HEADER_BYTES)
  return out
}

/** The first payload of a kind, undefined when there is none. */
export function findPayload<Name extends Payload['type']>(
  payloads: readonly Payload[],
  name: Name,
): PayloadOf<Name> | undefined {
  for (const payload of payloads) {
    if (payload.type === name) return payload as PayloadOf<Name>
  }
  return undefined
}

export function allPayloads<Name extends Payload['type']>(
  payloads: readonly Payload[],
  name: Name,
): PayloadOf<Name>[] {
  return payloads.filter((payload): payload is PayloadOf<Name> => payload.type === name)
}

/** The first notification of a type, undefined when there is none. */
export function findNotify(
  payloads: readonly Payload[],
  notifyType: number,
): PayloadOf<'N'> | undefined {
  for (const payload of payloads) {
    if (payload.type === 'N' && payload.notifyType === notifyType) return payload
  }
  return undefined
}
