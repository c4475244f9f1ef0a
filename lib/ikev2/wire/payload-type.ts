/** Payload types of IKEv2: RFC 7296 §3.2, RFC 7383 §2.5. */

/** Notation of the RFC -> number of the IANA registry "IKEv2 Payload Types". */
export const PayloadType = {
  SA: 33,
  KE: 34,
  IDi: 35,
  IDr: 36,
  CERT: 37,
  CERTREQ: 38,
  AUTH: 39,
  Nonce: 40,
  N: 41,
  D: 42,
  V: 43,
  TSi: 44,
  TSr: 45,
  SK: 46,
  CP: 47,
  EAP: 48,
  SKF: 53,
} as const

export type PayloadName = keyof typeof PayloadType

/** "No Next Payload" (RFC 7296 §3.2). */
export const NO_NEXT_PAYLOAD = 0

const names = new Map<number, PayloadName>(
  Object.entries(PayloadType).map(([name, code]) => [code, name as PayloadName]),
)

/** The notation of a payload type, undefined for one that we do not know. */
export function payloadName(code: number): PayloadName | undefined {
  return names.get(code)
}
