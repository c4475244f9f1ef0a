/** The two ways in which people name a user and where the account lives. */

export interface SplitUserName {
  readonly user: string
  /** `DOMAIN` of `DOMAIN\user`, `realm` of `user@realm` (RFC 7542 §2). */
  readonly realm?: string
}

export function splitUserName(name: string): SplitUserName {
  const backslash = name.indexOf('\\')
  if (backslash >= 0) return { realm: name.slice(0, backslash), user: name.slice(backslash + 1) }
  const at = name.lastIndexOf('@')
  return at > 0 ? { user: name.slice(0, at), realm: name.slice(at + 1) } : { user: name }
}
