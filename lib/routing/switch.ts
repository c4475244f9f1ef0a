/**
 * A kernel setting that we change and put back exactly, together with the settings that the kernel
 * changes along with it. Turning forwarding on or off rewrites `forwarding` of every interface and
 * `accept_redirects`; turning it off again would not bring back what an administrator had there.
 */
import { interfaceSysctls, readSysctl, type SysctlKey, writeSysctl } from './sysctl.ts'

/** A change as it stands in the ledger. */
export interface Change {
  readonly key: SysctlKey
  readonly before: string
  readonly set: string
  /** Follower -> its value before the change and right after it; the latter once it is known. */
  readonly followers: Readonly<Record<SysctlKey, readonly [before: string, after?: string]>>
}

/** What the kernel rewrites together with a setting. */
function followersOf(key: SysctlKey): SysctlKey[] {
  if (key === 'net/ipv4/ip_forward') {
    return [
      ...interfaceSysctls('ipv4', 'forwarding'),
      ...interfaceSysctls('ipv4', 'accept_redirects'),
    ]
  }
  if (key === 'net/ipv6/conf/all/forwarding') {
    return [
      ...interfaceSysctls('ipv6', 'forwarding').filter(follower => follower !== key),
      ...interfaceSysctls('ipv6', 'accept_redirects'),
    ]
  }
  return []
}

/** The change that setting `key` to `value` would be; undefined when it has that value, or is absent. */
export function planChange(key: SysctlKey, value: string): Change | undefined {
  const before = readSysctl(key)
  if (before === undefined || before === value) return undefined
  const followers: Record<SysctlKey, [string]> = {}
  for (const follower of followersOf(key)) {
    const now = readSysctl(follower)
    if (now !== undefined) followers[follower] = [now]
  }
  return { key, before, set: value, followers }
}

/** Makes the change and returns it with what the kernel did to the followers. */
export function makeChange(change: Change): Change {
  writeSysctl(change.key, change.set)
  const followers: Record<SysctlKey, readonly [string, string?]> = {}
  for (const [key, [before]] of Object.entries(change.followers)) {
    const after = readSysctl(key)
    followers[key] = after === undefined ? [before] : [before, after]
  }
  return { ...change, followers }
}

/**
 * Puts the setting and its followers back. What somebody else has changed since then stays as they
 * want it: the setting when it is no longer what we set, a follower when it is no longer what our
 * change made of it.
 */
export function undoChange(change: Change): void {
  if (readSysctl(change.key) !== change.set) return
  const wanted = new Map<SysctlKey, string>()
  for (const [key, [before, after]] of Object.entries(change.followers)) {
    const now = readSysctl(key)
    if (now !== undefined) wanted.set(key, after === undefined || now === after ? before : now)
  }
  writeSysctl(change.key, change.before)
  for (const [key, value] of wanted) if (readSysctl(key) !== value) writeSysctl(key, value)
}
