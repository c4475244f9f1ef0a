/**
 * What a ticket brings back, RFC 5723 §5, and how it stands in one. The peer cannot read it; its form is
 * our own:
 *
 *  |  expiry, s (4)  |  cipher (2)  |  key bits (2)  |  PRF (2)  |  integrity (2)  |  group (2)  |
 *  |  SK_d, IDi, IDr, memo: each a length (2) and its bytes; identities begin with their type (1)  |
 */
import { copyBytes, putBytes, putU16, putU32, u16, u32 } from '../core/bytes.ts'
import { Secret } from '../core/secret.ts'
import { encryptionTransform, integrityTransform } from '../crypto/transforms.ts'
import { prfOf } from './proposal.ts'
import type { IkeAlgorithms, IkeSuite } from './suite.ts'
import type { Identification } from './wire/identification.ts'

/** What both sides keep of an IKE SA to bring it back. */
export interface Resumption {
  readonly suite: IkeSuite
  /** SK_d of the IKE SA when the ticket was made. */
  readonly d: Secret
  readonly initiatorIdentity: Identification
  readonly responderIdentity: Identification
}

export interface TicketState extends Resumption {
  /** What the composer put in, to see it again. */
  readonly memo: Uint8Array
}

const FIXED_BYTES = 14
const LENGTH_BYTES = 2

export function encodeTicket(state: TicketState, expirySeconds: number): Uint8Array {
  const { suite, d, memo } = state
  const parts = [
    d.expose(),
    identityBytes(state.initiatorIdentity),
    identityBytes(state.responderIdentity),
    memo,
  ]
  const out = new Uint8Array(
    parts.reduce((sum, part) => sum + LENGTH_BYTES + part.length, FIXED_BYTES),
  )
  let at = putU32(out, 0, expirySeconds)
  at = putU16(out, at, suite.encryption.id)
  at = putU16(out, at, suite.keyBits)
  at = putU16(out, at, suite.prf.id)
  at = putU16(out, at, suite.integrity?.id ?? 0)
  at = putU16(out, at, suite.keyExchangeId)
  for (const part of parts) at = putBytes(out, putU16(out, at, part.length), part)
  return out
}

/** Undefined for what we have not made, or not in this version. */
export function parseTicket(
  bytes: Uint8Array,
): { readonly state: TicketState; readonly expirySeconds: number } | undefined {
  if (bytes.length < FIXED_BYTES) return undefined
  const encryption = encryptionTransform(u16(bytes, 4))
  const prf = prfOf(u16(bytes, 8))
  const integrity = integrityTransform(u16(bytes, 10))
  const parts: Uint8Array[] = []
  for (let at = FIXED_BYTES; at < bytes.length; ) {
    const end = at + LENGTH_BYTES + u16(bytes, at)
    if (end > bytes.length) return undefined
    parts.push(copyBytes(bytes, at + LENGTH_BYTES, end))
    at = end
  }
  const [d, initiator, responder, memo] = parts
  if (parts.length !== 4 || !d || !initiator || !responder || !memo) return undefined
  if (!encryption || !prf || encryption.isAead !== (integrity === undefined)) return undefined
  const suite: IkeSuite = {
    encryption,
    keyBits: u16(bytes, 6),
    prf,
    integrity,
    keyExchangeId: u16(bytes, 12),
    additionalKeyExchanges: [],
  }
  return {
    expirySeconds: u32(bytes, 0),
    state: {
      suite,
      d: new Secret(d),
      initiatorIdentity: identityOf(initiator),
      responderIdentity: identityOf(responder),
      memo,
    },
  }
}

/** Whether a new IKE SA might have these algorithms too: what we accept may have changed since. */
export function isAcceptable(suite: IkeSuite, algorithms: IkeAlgorithms): boolean {
  const { encryption, keyBits, prf, integrity, keyExchangeId } = suite
  return (
    algorithms.encryption.some(one => one.id === encryption.id && one.keyBits === keyBits) &&
    algorithms.prf.includes(prf.id) &&
    (integrity === undefined || algorithms.integrity.includes(integrity.id)) &&
    algorithms.keyExchange.includes(keyExchangeId)
  )
}

function identityBytes({ idType, data }: Identification): Uint8Array {
  const out = new Uint8Array(1 + data.length)
  out[0] = idType
  putBytes(out, 1, data)
  return out
}

function identityOf(bytes: Uint8Array): Identification {
  return { idType: bytes[0] ?? 0, data: copyBytes(bytes, 1) }
}
