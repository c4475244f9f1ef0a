/**
 * Who may come back with a ticket (RFC 5723): what stands in it of a call, and the judgement anew when
 * somebody shows it. Permit, expiry, limits, policies and revocation hold as for everybody; only the
 * proof is that of the old call. Users of a RADIUS server and of EAP-TLS get no tickets: what they may
 * do is not ours to judge again.
 */
import { z } from 'zod'
import type { Authorization } from '../aaa/authenticator.ts'
import { accountRefusal, authorizationOf } from '../aaa/users/account.ts'
import type { User, UserStore } from '../aaa/users/user-store.ts'
import type { Config } from '../config.ts'
import { fromHex, toHex, utf8, utf8Text } from '../core/bytes.ts'
import type { Secret } from '../core/secret.ts'
import { digest } from '../crypto/hash.ts'
import { identityOf, isSameIdentity } from '../ikev2/identity.ts'
import type { Identification } from '../ikev2/wire/identification.ts'
import { type CertificateJudges, judgeCertificate } from './ikev2-certificates.ts'

/** How a call came in, or the one whose ticket it came with. */
export type CallProof =
  | { readonly by: 'eap' }
  | { readonly by: 'psk' }
  | { readonly by: 'certificate'; readonly chain: readonly Uint8Array[] }

const memo = z.strictObject({
  /** Of the session that was given the ticket. */
  session: z.string(),
  login: z.string(),
  by: z.enum(['eap', 'psk', 'certificate']),
  /** EAP: id of the account. */
  account: z.string().optional(),
  /** Changes with the password or the preshared key. */
  stamp: z.string().optional(),
  chain: z.array(z.string()).optional(),
})

export interface ResumptionJudges extends CertificateJudges {
  readonly config: Config
}

export interface TicketHolder {
  readonly sessionId: string
  readonly loginName: string
  /** The one that the policies have not changed yet: its user is the account. */
  readonly userName: string
  readonly identity: Identification
}

/** What goes into a ticket; undefined when there shall be none. */
export function resumeMemo(
  judges: ResumptionJudges,
  proof: CallProof,
  { sessionId: session, loginName: login, userName, identity }: TicketHolder,
): Uint8Array | undefined {
  const head = { session, login, by: proof.by }
  switch (proof.by) {
    case 'eap': {
      const store = isOurs(judges.config) ? judges.users?.() : undefined
      const user = store?.find(userName)
      if (store === undefined || user === undefined) return undefined
      return encode({ ...head, account: user.id, stamp: stampOfUser(store, user) })
    }
    case 'psk': {
      const key = siteKey(judges.config, identity)
      return key && encode({ ...head, stamp: stampOf(key) })
    }
    case 'certificate':
      return encode({ ...head, chain: proof.chain.map(toHex) })
  }
}

export type ResumptionVerdict =
  | {
      readonly type: 'accept'
      readonly proof: CallProof
      readonly loginName: string
      readonly authorization: Authorization
      /** Gone for the peer. */
      readonly oldSessionId: string
    }
  | { readonly type: 'reject'; readonly detail: string }

/** Judges what stands in a ticket of ours, for a peer that has proved to be its owner. */
export function judgeResumption(
  judges: ResumptionJudges,
  bytes: Uint8Array,
  identity: Identification,
): ResumptionVerdict {
  const { session: oldSessionId, login: loginName, ...said } = decode(bytes)
  const accept = (proof: CallProof, authorization: Authorization) =>
    ({ type: 'accept', proof, loginName, authorization, oldSessionId }) as const
  switch (said.by) {
    case 'eap': {
      const judged = judgeAccount(judges, loginName, said.account, said.stamp)
      return 'detail' in judged ? judged : accept({ by: 'eap' }, judged)
    }
    case 'psk': {
      const key = siteKey(judges.config, identity)
      return key !== undefined && stampOf(key) === said.stamp
        ? accept({ by: 'psk' }, { userName: loginName })
        : reject('site-changed')
    }
    case 'certificate': {
      const chain = (said.chain ?? []).map(fromHex)
      const verdict = judgeCertificate(judges, chain, identity)
      return verdict.type === 'reject'
        ? verdict
        : accept({ by: 'certificate', chain }, verdict.authorization)
    }
  }
}

function judgeAccount(
  { config, users, wallClock }: ResumptionJudges,
  name: string,
  account: string | undefined,
  stamp: string | undefined,
): Authorization | Extract<ResumptionVerdict, { type: 'reject' }> {
  const store = isOurs(config) ? users?.() : undefined
  const user = store?.find(name)
  if (store === undefined || user === undefined || user.id !== account) return reject('no-account')
  if (stampOfUser(store, user) !== stamp) return reject('password-changed')
  const now = wallClock.now()
  const isStale = user.passwordExpires !== undefined && user.passwordExpires <= now
  if (isStale || user.mustChangePassword) return reject('password-expired')
  const refusal = accountRefusal(user, now)
  return refusal === undefined ? authorizationOf(user) : reject(refusal)
}

/** Whether users with passwords are those of our own store. */
function isOurs({ radius, eap }: Config): boolean {
  return radius.authentication.servers.length === 0 && !eap.methods.includes('tls')
}

function siteKey({ ikev2 }: Config, identity: Identification): Secret | undefined {
  return ikev2.sites.find(site => isSameIdentity(identityOf(site.identity), identity))?.presharedKey
}

function stampOfUser(store: UserStore, user: User): string {
  const { ntHash, password, totpKey } = store.secretsOf(user)
  const stamp = stampOf(ntHash)
  for (const secret of [ntHash, password, totpKey]) secret?.destroy()
  return stamp
}

const STAMP_BYTES = 8

function stampOf(secret: Secret): string {
  return toHex(digest('sha256', secret.expose()).subarray(0, STAMP_BYTES))
}

function encode(value: z.infer<typeof memo>): Uint8Array {
  return utf8(JSON.stringify(value))
}

/** Throws only on what we have not made: tickets are authentic. */
function decode(bytes: Uint8Array): z.infer<typeof memo> {
  return memo.parse(JSON.parse(utf8Text(bytes)))
}

function reject(detail: string) {
  return { type: 'reject', detail } as const
}
