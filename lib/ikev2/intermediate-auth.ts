/**
 * What AUTH covers of the IKE_INTERMEDIATE exchanges, RFC 9242 §3.3.2: for each direction a chain
 *
 *   IntAuth_N = prf(SK_p, IntAuth_(N-1) | header and SK header | plaintext)
 *
 * with the lengths in both headers as if there were no IV, padding and check value, and as if the
 * message had not been cut.
 */
import { copyBytes, putU32 } from '../core/bytes.ts'
import type { Association } from './association.ts'
import type { Connection } from './connection.ts'
import { encodeHeader, HEADER_BYTES } from './wire/header.ts'
import type { MessageHead } from './wire/message.ts'
import type { Payload } from './wire/payload.ts'
import {
  encodeGenericHeader,
  encodePayloadChain,
  firstPayloadType,
  GENERIC_HEADER_BYTES,
  payloadChainBytes,
} from './wire/payload-chain.ts'
import { PayloadType } from './wire/payload-type.ts'

const LENGTH_AT = 24
const NEXT_PAYLOAD_AT = 16

function cover(
  connection: Connection,
  association: Association,
  side: 'initiator' | 'responder',
  header: Uint8Array,
  innerType: number,
  plaintext: Uint8Array,
): void {
  const { suite, keys } = association
  const { setup } = connection
  if (suite === undefined || keys === undefined) return
  const prefix = new Uint8Array(HEADER_BYTES + GENERIC_HEADER_BYTES)
  prefix.set(header)
  prefix[NEXT_PAYLOAD_AT] = PayloadType.SK
  putU32(prefix, LENGTH_AT, prefix.length + plaintext.length)
  const skBytes = GENERIC_HEADER_BYTES + plaintext.length
  encodeGenericHeader(innerType, skBytes, prefix, HEADER_BYTES)
  const isInitiator = side === 'initiator'
  const before = isInitiator ? setup.intermediateInitiator : setup.intermediateResponder
  const key = isInitiator ? keys.pi : keys.pr
  const after = suite.prf.compute(key.expose(), before ?? new Uint8Array(0), prefix, plaintext)
  if (isInitiator) setup.intermediateInitiator = after
  else setup.intermediateResponder = after
}

/** A message of ours, under the keys that it was sealed with. */
export function coverSent(
  connection: Connection,
  association: Association,
  head: MessageHead,
  payloads: readonly Payload[],
): void {
  const header = new Uint8Array(HEADER_BYTES)
  encodeHeader({ ...head, nextPayload: 0, lengthBytes: 0 }, header, 0)
  const plaintext = new Uint8Array(payloadChainBytes(payloads))
  encodePayloadChain(payloads, plaintext, 0)
  const { role } = connection.options
  cover(connection, association, role, header, firstPayloadType(payloads), plaintext)
}

/** A message of the peer; `datagram` is any of its fragments. */
export function coverReceived(
  connection: Connection,
  association: Association,
  datagram: Uint8Array,
  plaintext: Uint8Array,
  innerType: number,
): void {
  const side = connection.options.role === 'initiator' ? 'responder' : 'initiator'
  const header = copyBytes(datagram, 0, HEADER_BYTES)
  cover(connection, association, side, header, innerType, plaintext)
}
