/** Exchange types of IKEv2: RFC 7296 §3.1, RFC 5723 §4.3, RFC 9242 §3, RFC 9370 §3. */

/** Name -> number of the IANA registry "IKEv2 Exchange Types". */
export const ExchangeType = {
  IKE_SA_INIT: 34,
  IKE_AUTH: 35,
  CREATE_CHILD_SA: 36,
  INFORMATIONAL: 37,
  IKE_SESSION_RESUME: 38,
  IKE_INTERMEDIATE: 43,
  IKE_FOLLOWUP_KE: 44,
} as const

export type ExchangeName = keyof typeof ExchangeType

const names = new Map<number, ExchangeName>(
  Object.entries(ExchangeType).map(([name, code]) => [code, name as ExchangeName]),
)

/** The name of an exchange type, undefined for one that we do not speak. */
export function exchangeName(code: number): ExchangeName | undefined {
  return names.get(code)
}
