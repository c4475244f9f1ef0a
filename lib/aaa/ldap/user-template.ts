/** Names of users inside names and filters of a directory: RFC 4514 §2.4, RFC 4515 §3. */

/**
 * What a directory and we take for one name: it would pass over blanks at the ends and count several as
 * one (RFC 4518 §2.6.1), and a user would have many names here.
 */
export function isDirectoryName(user: string): boolean {
  return user.length > 0 && user.length <= 256 && /^[^\s\p{C}]+( [^\s\p{C}]+)*$/u.test(user)
}

/** A DN where the template is one; otherwise a name such as `alice@ad.example`, which has no escapes. */
export function nameFor(template: string, user: string): string {
  return template.replaceAll('{user}', () => (isDn(template) ? escapedInDn(user) : user))
}

/** In place of `{user}` or `{dn}`. */
export function filterFor(template: string, place: '{user}' | '{dn}', value: string): string {
  return template.replaceAll(place, () => escapedInFilter(value))
}

export function isDn(name: string): boolean {
  return name.includes('=')
}

/** `staff` of `CN=staff,OU=groups,DC=example,DC=net`; anything else as it stands. */
export function groupName(value: string): string {
  const match = /^[A-Za-z][A-Za-z0-9-]*=((?:[^,\\+]|\\.)+)(?:,|$)/.exec(value)
  return match?.[1] === undefined ? value : unescaped(match[1]).trim()
}

function escapedInDn(value: string): string {
  return value.replaceAll(/[,+"\\<>;=\0]|^[ #]| $/g, found => escapedBytes(found, '\\'))
}

function escapedInFilter(value: string): string {
  return value.replaceAll(/[*()\\\0]/g, found => escapedBytes(found, '\\'))
}

function escapedBytes(text: string, prefix: string): string {
  return [...Buffer.from(text)]
    .map(byte => `${prefix}${byte.toString(16).padStart(2, '0')}`)
    .join('')
}

/** Pairs of digits are bytes of UTF-8, everything else behind a backslash is itself. */
function unescaped(value: string): string {
  return value.replaceAll(/(?:\\[0-9A-Fa-f]{2})+|\\(.)/g, (found, character?: string) =>
    character === undefined
      ? Buffer.from(found.replaceAll('\\', ''), 'hex').toString('utf8')
      : character,
  )
}
