/** What an account may do, once it is known whose it is. */
import type { Authorization, RejectReason } from '../authenticator.ts'
import type { User } from './user-store.ts'

/** Why the account may not come in, whatever proof its owner has. */
export function accountRefusal(user: User, now: Date): RejectReason | undefined {
  if (user.isDisabled) return 'account-disabled'
  if (user.expires !== undefined && user.expires <= now) return 'account-expired'
  return user.dialIn === 'deny' ? 'no-dial-in' : undefined
}

export function authorizationOf(user: User): Authorization {
  const { ipv4Address, maxSessions, idleTimeoutMs, sessionTimeoutMs, groups } = user
  return {
    userName: user.name,
    ...(groups.length > 0 && { groups }),
    ...(user.dialIn === 'policy' && { isPolicyRequired: true }),
    ...(ipv4Address !== undefined && { ipv4Address }),
    ...(maxSessions !== undefined && { maxSessions }),
    ...(idleTimeoutMs !== undefined && { idleTimeoutSeconds: idleTimeoutMs / 1000 }),
    ...(sessionTimeoutMs !== undefined && { sessionTimeoutSeconds: sessionTimeoutMs / 1000 }),
  }
}
