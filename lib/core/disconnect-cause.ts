/**
 * Why a call ended. Exactly one of these reaches the log, the accounting record and the status; each
 * protocol maps its own codes to it. The numbers are those of RADIUS accounting.
 */

/** Name -> Acct-Terminate-Cause (RFC 2866 §5.10). */
export const DisconnectCause = {
  /** The user or the client's operating system hung up. */
  'user-request': 1,
  /** The transport below the tunnel vanished: TCP reset, no answer to echoes. */
  'lost-carrier': 2,
  /** The peer broke its protocol, or negotiation did not converge. */
  'protocol-error': 9,
  'idle-timeout': 4,
  'session-timeout': 5,
  /** An administrator disconnected the session. */
  'admin-reset': 6,
  /** The server is stopping or restarting. */
  'nas-reboot': 11,
  /** A fault of ours. */
  'nas-error': 9,
  /** Nobody could be reached who knows the user. */
  'service-unavailable': 15,
  /** Wrong name or password. */
  'authentication-failed': 17,
  /** Right password, but this user may not dial in, or not now, or not like this. */
  'not-authorized': 17,
  /** Too many sessions: of this user, of this protocol, or in all. */
  'session-limit': 17,
  /** No address left to give. */
  'no-address': 9,
  /** The PPP phase, the SSTP call or the tunnel did not come up in time. */
  'setup-timeout': 9,
  /** A link of a bundle that carries too little to be needed. */
  'port-unneeded': 12,
  /** The same user dialled again and the policy keeps one session. */
  replaced: 13,
} as const satisfies Record<string, number>

export type DisconnectCause = keyof typeof DisconnectCause
