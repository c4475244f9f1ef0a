/**
 * Which payloads a message may hold, as data: RFC 7296 Appendix C, line by line, with the exchanges
 * of RFC 5723, RFC 9242 and RFC 9370. The order of payloads is free (RFC 7296 §2.5); Notify, Vendor ID
 * and unknown payloads may stand anywhere.
 */
import { WireFault } from '../../core/faults.ts'
import type { ExchangeName } from './exchange-type.ts'
import type { Payload } from './payload.ts'
import { PAYLOADS_MAX } from './payload-chain.ts'
import type { PayloadName } from './payload-type.ts'

/** Least and greatest number of payloads of one kind. */
type Range = readonly [min: number, max: number]

/** One legal form of a message. What is not named may not appear. */
interface MessageForm {
  readonly name: string
  readonly isProtected: boolean
  readonly payloads: { readonly [Name in PayloadName]?: Range }
}

const one: Range = [1, 1]
const optional: Range = [0, 1]
/** Ours: a chain of certificates, or requests for several encodings. */
const several: Range = [0, 16]
const any: Range = [0, PAYLOADS_MAX]

const notifyOnly = { N: [1, PAYLOADS_MAX], V: any } as const satisfies MessageForm['payloads']

const childRequest = {
  SA: one,
  Nonce: one,
  KE: optional,
  TSi: one,
  TSr: one,
  CP: optional,
  N: any,
  V: any,
} as const satisfies MessageForm['payloads']

const ikeRekey = { SA: one, Nonce: one, KE: one, N: any, V: any } as const

/** The Child SA of IKE_AUTH; absent as a whole for childless set-up (RFC 6023 §3). */
const child = { SA: optional, TSi: optional, TSr: optional, CP: optional } as const

const sessionEnd: MessageForm = {
  name: 'error',
  isProtected: true,
  payloads: notifyOnly,
}

/** Every exchange that we speak, both directions; the first form that fits is taken. */
export const exchangeRules = {
  IKE_SA_INIT: {
    request: [
      {
        name: 'initial',
        isProtected: false,
        payloads: { SA: one, KE: one, Nonce: one, CERTREQ: several, N: any, V: any },
      },
    ],
    response: [
      {
        name: 'initial',
        isProtected: false,
        payloads: { SA: one, KE: one, Nonce: one, CERTREQ: several, N: any, V: any },
      },
      // COOKIE, INVALID_KE_PAYLOAD, REDIRECT, NO_PROPOSAL_CHOSEN and other errors.
      { name: 'error', isProtected: false, payloads: notifyOnly },
    ],
  },
  IKE_AUTH: {
    request: [
      {
        name: 'first',
        isProtected: true,
        payloads: {
          IDi: one,
          IDr: optional,
          CERT: several,
          CERTREQ: several,
          AUTH: optional,
          ...child,
          N: any,
          V: any,
        },
      },
      { name: 'eap', isProtected: true, payloads: { EAP: one, N: any, V: any } },
      { name: 'final', isProtected: true, payloads: { AUTH: one, N: any, V: any } },
    ],
    response: [
      {
        name: 'first-eap',
        isProtected: true,
        payloads: {
          IDr: one,
          CERT: several,
          AUTH: optional,
          EAP: one,
          N: any,
          V: any,
        },
      },
      {
        name: 'first',
        isProtected: true,
        payloads: { IDr: one, CERT: several, AUTH: one, ...child, N: any, V: any },
      },
      { name: 'eap', isProtected: true, payloads: { EAP: one, N: any, V: any } },
      {
        name: 'final',
        isProtected: true,
        payloads: { AUTH: one, ...child, N: any, V: any },
      },
      sessionEnd,
    ],
  },
  CREATE_CHILD_SA: {
    request: [
      { name: 'child', isProtected: true, payloads: childRequest },
      { name: 'ike', isProtected: true, payloads: ikeRekey },
    ],
    response: [
      { name: 'child', isProtected: true, payloads: childRequest },
      { name: 'ike', isProtected: true, payloads: ikeRekey },
      sessionEnd,
    ],
  },
  INFORMATIONAL: {
    request: [
      {
        name: 'informational',
        isProtected: true,
        payloads: { N: any, D: any, CP: optional, V: any },
      },
    ],
    response: [
      {
        name: 'informational',
        isProtected: true,
        payloads: { N: any, D: any, CP: optional, V: any },
      },
    ],
  },
  IKE_SESSION_RESUME: {
    request: [
      {
        name: 'resume',
        isProtected: false,
        payloads: { Nonce: one, N: [1, PAYLOADS_MAX], V: any },
      },
    ],
    response: [
      { name: 'resume', isProtected: false, payloads: { Nonce: one, N: any, V: any } },
      { name: 'error', isProtected: false, payloads: notifyOnly },
    ],
  },
  IKE_INTERMEDIATE: {
    request: [
      { name: 'intermediate', isProtected: true, payloads: { KE: optional, N: any, V: any } },
    ],
    response: [
      { name: 'intermediate', isProtected: true, payloads: { KE: optional, N: any, V: any } },
    ],
  },
  IKE_FOLLOWUP_KE: {
    request: [{ name: 'follow-up', isProtected: true, payloads: { KE: one, N: any, V: any } }],
    response: [
      { name: 'follow-up', isProtected: true, payloads: { KE: optional, N: any, V: any } },
    ],
  },
} as const satisfies Record<
  ExchangeName,
  { readonly request: readonly MessageForm[]; readonly response: readonly MessageForm[] }
>

export type MessageFormName = (typeof exchangeRules)[ExchangeName][
  | 'request'
  | 'response'][number]['name']

export interface Legality {
  readonly fault: WireFault
  /** The form that fits, when there is no fault. */
  readonly form: MessageFormName | undefined
}

function faultOf(form: MessageForm, counts: ReadonlyMap<string, number>): WireFault {
  for (const [name, [min]] of Object.entries(form.payloads)) {
    if ((counts.get(name) ?? 0) < min) return WireFault.missing
  }
  for (const [name, count] of counts) {
    const range = form.payloads[name as PayloadName]
    if (range === undefined) return WireFault['bad-value']
    if (count > range[1]) return WireFault.duplicate
  }
  return WireFault.none
}

/**
 * The form of a message. `payloads` are those inside SK for a protected message. The fault is that of
 * the first form when none fits.
 */
export function legality(
  exchange: ExchangeName,
  direction: 'request' | 'response',
  isProtected: boolean,
  payloads: readonly Payload[],
): Legality {
  const counts = new Map<string, number>()
  for (const payload of payloads) {
    if (payload.type !== 'unknown') counts.set(payload.type, (counts.get(payload.type) ?? 0) + 1)
  }
  const forms: readonly MessageForm[] = exchangeRules[exchange][direction]
  let first: WireFault = WireFault.none
  for (const form of forms) {
    const fault = form.isProtected === isProtected ? faultOf(form, counts) : WireFault['bad-flags']
    if (!fault) return { fault, form: form.name as MessageFormName }
    if (!first) first = fault
  }
  return { fault: first, form: undefined }
}

/** The first critical payload of a type that we do not know (RFC 7296 §2.5), or undefined. */
export function unknownCritical(payloads: readonly Payload[]): number | undefined {
  for (const payload of payloads) {
    if (payload.type === 'unknown' && payload.isCritical) return payload.code
  }
  return undefined
}
