/** Whole ISAKMP messages: a header, payloads, and encryption with a keyed hash in front (RFC 2409 §5). */
import { equalBytes } from '../core/bytes.ts'
import { assertNever } from '../core/errors.ts'
import type { Counters, FaultCounters, WireFault } from '../core/faults.ts'
import { wipe } from '../core/secret.ts'
import type { CookiePair } from './path.ts'
import type { CbcChain } from './protection.ts'
import { encodeHeader, HEADER_BYTES, HeaderFlag, type IsakmpHeader } from './wire/header.ts'
import { encodePayloads, firstPayloadType, type Payload, parsePayloads } from './wire/payload.ts'

/**
 * A message, encrypted when there is a chain, which then moves on. Undefined when this Node lacks the
 * cipher.
 */
export function encodeMessage(
  cookies: CookiePair,
  exchangeType: number,
  messageId: number,
  payloads: readonly Payload[],
  chain: CbcChain | undefined,
): Uint8Array | undefined {
  const plain = encodePayloads(payloads)
  const body = chain === undefined ? plain : chain.seal(plain)
  if (body === undefined) return undefined
  const bytes = new Uint8Array(HEADER_BYTES + body.length)
  const header = {
    ...cookies,
    nextPayload: firstPayloadType(payloads),
    exchangeType,
    flags: chain === undefined ? 0 : HeaderFlag.encryption,
    messageId,
    length: bytes.length,
  }
  bytes.set(body, encodeHeader(header, bytes, 0))
  if (chain !== undefined) wipe(plain)
  return bytes
}

export type OpenedMessage =
  /** Authentic: the payloads behind the hash. The chain has moved on. */
  | { readonly type: 'authentic'; readonly payloads: readonly Payload[] }
  | { readonly type: 'malformed'; readonly fault: WireFault }
  | { readonly type: 'bad-ciphertext' }
  | { readonly type: 'bad-hash' }

/**
 * Decrypts a message of quick mode or an informational exchange and checks the hash that comes first;
 * `hashOf` computes it over everything between it and the padding.
 */
export function openMessage(
  header: IsakmpHeader,
  message: Uint8Array,
  chain: CbcChain,
  hashOf: (rest: Uint8Array) => Uint8Array,
): OpenedMessage {
  const opened = chain.open(message.subarray(HEADER_BYTES))
  if (opened === undefined) return { type: 'bad-ciphertext' }
  const { plaintext } = opened
  const parsed = parsePayloads(plaintext, 0, plaintext.length, header.nextPayload)
  if (typeof parsed === 'number') return { type: 'malformed', fault: parsed }
  const [hash, ...payloads] = parsed.payloads
  const rest = plaintext.subarray(parsed.firstEnd, parsed.end)
  if (hash?.type !== 'HASH' || !equalBytes(hash.data, hashOf(rest))) return { type: 'bad-hash' }
  opened.accept()
  wipe(plaintext)
  return { type: 'authentic', payloads }
}

/** The payloads behind a good hash, undefined when the message is not authentic, which is counted. */
export function openCounted(
  header: IsakmpHeader,
  message: Uint8Array,
  chain: CbcChain,
  hashOf: (rest: Uint8Array) => Uint8Array,
  { counters, faults }: { readonly counters: Counters; readonly faults: FaultCounters },
): readonly Payload[] | undefined {
  const opened = openMessage(header, message, chain, hashOf)
  switch (opened.type) {
    case 'authentic':
      return opened.payloads
    case 'malformed':
      faults.count(opened.fault)
      return undefined
    case 'bad-ciphertext':
    case 'bad-hash':
      counters.count(`ikev1-${opened.type}`)
      return undefined
    default:
      return assertNever(opened)
  }
}
