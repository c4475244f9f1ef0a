/**
 * Who has proved who it is, may it come in, and with what? Policies are looked at in their order; the
 * first whose conditions hold decides, for every protocol and for every way to prove oneself.
 */
import type { Policy, PolicyConditions, PolicyMethod } from '../../config/policies.ts'
import {
  isInIpv4Network,
  isInIpv6Network,
  parseIpv4,
  parseIpv6,
  unmapped,
} from '../../core/ip-address.ts'
import type { Authorization, RejectReason } from '../authenticator.ts'
import { splitUserName } from './user-name.ts'

/** NAS-Port-Type Virtual, RFC 2865 §5.41. */
const virtualPort = 5

/** How a user came to be accepted; what is absent is not known. */
export interface ProofFacts {
  /** As the peer sent it. */
  readonly loginName?: string
  readonly method?: PolicyMethod
  readonly eapType?: number
  /** Names of the client's certificate, a line for each part. */
  readonly certificate?: { readonly subject: string; readonly issuer: string }
}

export interface PolicyFacts extends ProofFacts {
  readonly protocol: string
  readonly peerAddress: string
  readonly now: Date
}

export type PolicyDecision =
  /** `policy` is the name of the one that decided. */
  | { readonly type: 'permit'; readonly authorization: Authorization; readonly policy?: string }
  | { readonly type: 'deny'; readonly reason: RejectReason; readonly policy?: string }

export class AccessPolicies {
  readonly #policies: readonly Policy[]

  constructor(policies: readonly Policy[]) {
    this.#policies = policies
  }

  /** What the account says goes before what the policy says. */
  decide(facts: PolicyFacts, authorization: Authorization): PolicyDecision {
    const policy = this.#policies.find(one => holds(one.conditions, facts, authorization))
    if (policy === undefined) {
      return authorization.isPolicyRequired === true
        ? { type: 'deny', reason: 'no-dial-in' }
        : { type: 'permit', authorization }
    }
    const { name, access, reason, allowedMethods, settings } = policy
    if (access === 'deny') return { type: 'deny', reason, policy: name }
    if (allowedMethods !== undefined && !isOneOf(allowedMethods, facts.method)) {
      return { type: 'deny', reason: 'method-not-allowed', policy: name }
    }
    return { type: 'permit', authorization: { ...settings, ...authorization }, policy: name }
  }
}

function holds(
  conditions: PolicyConditions,
  facts: PolicyFacts,
  { userName, groups = [] }: Authorization,
): boolean {
  const { certificate } = conditions
  const name = splitUserName(facts.loginName ?? userName)
  return (
    fits(conditions.users, wanted =>
      [userName, splitUserName(userName).user].some(user => isLike(wanted, user)),
    ) &&
    fits(conditions.groups, wanted => groups.some(group => isLike(wanted, group))) &&
    fits(conditions.realms, wanted => name.realm !== undefined && isLike(wanted, name.realm)) &&
    fits(conditions.protocols, wanted => wanted === facts.protocol) &&
    fits(conditions.sources, wanted => isInNetwork(wanted, facts.peerAddress)) &&
    fits(conditions.times, wanted => wanted.holds(facts.now)) &&
    fits(conditions.methods, wanted => wanted === facts.method) &&
    fits(conditions.eapTypes, wanted => wanted === facts.eapType) &&
    fits(conditions.portTypes, wanted => wanted === virtualPort) &&
    (certificate === undefined ||
      (facts.certificate !== undefined &&
        hasPart(facts.certificate.subject, certificate.subject) &&
        hasPart(facts.certificate.issuer, certificate.issuer)))
  )
}

/** A condition that is not given holds. */
function fits<T>(list: readonly T[] | undefined, test: (wanted: T) => boolean): boolean {
  return list === undefined || list.some(test)
}

function isOneOf(list: readonly PolicyMethod[], method: PolicyMethod | undefined): boolean {
  return method !== undefined && list.includes(method)
}

function hasPart(lines: string, wanted: string | undefined): boolean {
  return wanted === undefined || lines.split('\n').some(line => isLike(wanted, line))
}

function isInNetwork(
  network: NonNullable<PolicyConditions['sources']>[number],
  text: string,
): boolean {
  const address = unmapped(text)
  if (network.family === 4) {
    const ipv4 = parseIpv4(address)
    return ipv4 !== undefined && isInIpv4Network(network, ipv4)
  }
  const ipv6 = parseIpv6(address)
  return ipv6 !== undefined && isInIpv6Network(network, ipv6)
}

/** Case does not matter; `*` stands for any characters. Time is at most pattern times text. */
function isLike(pattern: string, text: string): boolean {
  const wanted = pattern.normalize('NFC').toLowerCase()
  const given = text.normalize('NFC').toLowerCase()
  const [first = '', ...rest] = wanted.split('*')
  const last = rest.pop()
  if (last === undefined) return wanted === given
  if (given.length < first.length + last.length) return false
  if (!given.startsWith(first) || !given.endsWith(last)) return false
  let at = first.length
  for (const part of rest) {
    const found = given.indexOf(part, at)
    if (found < 0) return false
    at = found + part.length
  }
  return at <= given.length - last.length
}
