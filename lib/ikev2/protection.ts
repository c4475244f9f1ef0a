/**
 * Sealing and opening of protected messages: the Encrypted payload (RFC 7296 §3.14, RFC 5282) and the
 * Encrypted Fragment payload (RFC 7383 §2.5).
 */
import { putU16 } from '../core/bytes.ts'
import { WireFault } from '../core/faults.ts'
import type { RandomSource } from '../core/random.ts'
import { type PayloadCipher, PayloadRefusal } from '../crypto/payload-cipher.ts'
import { FRAGMENT_FIELDS_BYTES, FRAGMENTS_MAX } from './wire/encrypted-fragment.ts'
import { encodeHeader, HEADER_BYTES } from './wire/header.ts'
import type { MessageHead } from './wire/message.ts'
import type { Payload } from './wire/payload.ts'
import {
  encodeGenericHeader,
  encodePayloadChain,
  firstPayloadType,
  GENERIC_HEADER_BYTES,
  parsePayloadChain,
  payloadChainBytes,
} from './wire/payload-chain.ts'
import { NO_NEXT_PAYLOAD, PayloadType } from './wire/payload-type.ts'

const SK_BODY_AT = HEADER_BYTES + GENERIC_HEADER_BYTES
const SKF_BODY_AT = SK_BODY_AT + FRAGMENT_FIELDS_BYTES

/** UDP header and non-ESP marker, beside the IP header (RFC 3948 §2.2). */
const UDP_OVERHEAD_BYTES = 8 + 4

/** Room for IKE in an IP packet of `packetBytes`. */
export function messageRoomBytes(packetBytes: number, isIpv6: boolean): number {
  return packetBytes - (isIpv6 ? 40 : 20) - UDP_OVERHEAD_BYTES
}

function chainOf(payloads: readonly Payload[]): Uint8Array {
  const chain = new Uint8Array(payloadChainBytes(payloads))
  encodePayloadChain(payloads, chain, 0)
  return chain
}

/** One message with one SK payload. */
export function sealMessage(
  cipher: PayloadCipher,
  head: MessageHead,
  payloads: readonly Payload[],
  random: RandomSource,
): Uint8Array {
  return sealChain(cipher, head, firstPayloadType(payloads), chainOf(payloads), random)
}

function sealChain(
  cipher: PayloadCipher,
  head: MessageHead,
  innerType: number,
  chain: Uint8Array,
  random: RandomSource,
): Uint8Array {
  const lengthBytes = SK_BODY_AT + cipher.bodyBytes(chain.length)
  const out = new Uint8Array(lengthBytes)
  encodeHeader({ ...head, nextPayload: PayloadType.SK, lengthBytes }, out, 0)
  encodeGenericHeader(innerType, lengthBytes - HEADER_BYTES, out, HEADER_BYTES)
  out.set(chain, SK_BODY_AT + cipher.ivBytes)
  cipher.seal(out, SK_BODY_AT, chain.length, random)
  return out
}

/**
 * The same as fragments of at most `roomBytes` each, or one message when it fits. Each fragment is
 * sealed by itself; the first one names the first payload (RFC 7383 §2.5).
 */
export function sealFragments(
  cipher: PayloadCipher,
  head: MessageHead,
  payloads: readonly Payload[],
  roomBytes: number,
  random: RandomSource,
): Uint8Array[] {
  const chain = chainOf(payloads)
  const innerType = firstPayloadType(payloads)
  if (SK_BODY_AT + cipher.bodyBytes(chain.length) <= roomBytes) {
    return [sealChain(cipher, head, innerType, chain, random)]
  }
  let partBytes = Math.max(roomBytes - SKF_BODY_AT, 1)
  while (partBytes > 1 && SKF_BODY_AT + cipher.bodyBytes(partBytes) > roomBytes) partBytes--
  // Fewer and larger fragments rather than more than a peer has to take.
  partBytes = Math.max(partBytes, Math.ceil(chain.length / FRAGMENTS_MAX))
  const total = Math.ceil(chain.length / partBytes)
  const fragments: Uint8Array[] = []
  for (let i = 0; i < total; i++) {
    const part = chain.subarray(i * partBytes, (i + 1) * partBytes)
    const lengthBytes = SKF_BODY_AT + cipher.bodyBytes(part.length)
    const out = new Uint8Array(lengthBytes)
    encodeHeader({ ...head, nextPayload: PayloadType.SKF, lengthBytes }, out, 0)
    encodeGenericHeader(
      i === 0 ? innerType : NO_NEXT_PAYLOAD,
      lengthBytes - HEADER_BYTES,
      out,
      HEADER_BYTES,
    )
    putU16(out, SK_BODY_AT, i + 1)
    putU16(out, SK_BODY_AT + 2, total)
    out.set(part, SKF_BODY_AT + cipher.ivBytes)
    cipher.seal(out, SKF_BODY_AT, part.length, random)
    fragments.push(out)
  }
  return fragments
}

export interface Opened {
  /** `bad-checksum` when the check value is wrong: then nothing is known of the sender. */
  readonly fault: WireFault
  /** A view into the message, in which it was decrypted. */
  readonly plaintext: Uint8Array
}

const nothing = new Uint8Array(0)

/** Opens in place. `encryptedAt` is the offset of the SK or SKF payload's generic header. */
export function openMessage(
  cipher: PayloadCipher,
  message: Uint8Array,
  encryptedAt: number,
  isFragment: boolean,
): Opened {
  const bodyAt = encryptedAt + GENERIC_HEADER_BYTES + (isFragment ? FRAGMENT_FIELDS_BYTES : 0)
  const lengthBytes = cipher.open(message, bodyAt)
  if (lengthBytes >= 0) {
    const at = bodyAt + cipher.ivBytes
    return { fault: WireFault.none, plaintext: message.subarray(at, at + lengthBytes) }
  }
  if (lengthBytes === PayloadRefusal.notAuthentic) {
    return { fault: WireFault['bad-checksum'], plaintext: nothing }
  }
  const fault =
    lengthBytes === PayloadRefusal.malformed ? WireFault.truncated : WireFault['bad-value']
  return { fault, plaintext: nothing }
}

/** The payloads of a plaintext. SK inside SK is not a thing. */
export function parseInner(
  plaintext: Uint8Array,
  innerType: number,
): { readonly fault: WireFault; readonly payloads: readonly Payload[] } {
  const chain = parsePayloadChain(plaintext, 0, innerType)
  if (chain.fault) return chain
  return chain.encryptedAt >= 0 ? { fault: WireFault['bad-value'], payloads: [] } : chain
}
