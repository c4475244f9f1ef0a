/**
 * Who may come in with a client certificate. The chain must be good and what the peer calls itself must
 * be in it; then the user of that name decides, if there is one: whether it may dial in, what address it
 * has, which groups and limits. A certificate that names no user, of a machine, is enough by itself.
 */
import { accountRefusal, authorizationOf } from '../aaa/users/account.ts'
import type { UserStore } from '../aaa/users/user-store.ts'
import type { ClientAuthorities, IdentityClaim } from '../certificates/client-authorities.ts'
import { utf8Text } from '../core/bytes.ts'
import type { WallClock } from '../core/clock.ts'
import type { CertificateVerdict } from '../ikev2/input.ts'
import { type Identification, IdType } from '../ikev2/wire/identification.ts'

export interface CertificateJudges {
  readonly authorities: ClientAuthorities
  readonly users?: () => UserStore
  readonly wallClock: WallClock
}

export function judgeCertificate(
  { authorities, users, wallClock }: CertificateJudges,
  certificates: readonly Uint8Array[],
  identity: Identification,
): CertificateVerdict {
  const now = wallClock.now()
  const judged = authorities.judge(certificates, now, claimOf(identity))
  if (judged.type === 'reject') return judged
  const { publicKey, userName, names } = judged
  const store = users?.()
  for (const name of names) {
    const user = store?.find(name)
    if (user === undefined) continue
    const refusal = accountRefusal(user, now)
    return refusal === undefined
      ? { type: 'accept', publicKey, authorization: authorizationOf(user) }
      : { type: 'reject', detail: refusal }
  }
  return { type: 'accept', publicKey, authorization: { userName } }
}

/**
 * RFC 4945 §3.1. An address is no claim: Windows and Apple's systems send the one of their network card
 * when nothing else is set, and nobody is let in for it.
 */
function claimOf({ idType, data }: Identification): IdentityClaim | undefined {
  switch (idType) {
    case IdType.ID_IPV4_ADDR:
    case IdType.ID_IPV6_ADDR:
      return undefined
    case IdType.ID_DER_ASN1_DN:
      return { type: 'subject', der: data }
    default:
      return { type: 'name', text: utf8Text(data) }
  }
}
