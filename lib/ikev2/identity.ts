/** Identities: making them, comparing them, showing them. RFC 7296 §3.5. */
import { equalBytes, toHex, u32, utf8, utf8Text } from '../core/bytes.ts'
import { formatIpv4, formatIpv6 } from '../core/ip-address.ts'
import { addressBytes } from './path.ts'
import { type Identification, IdType } from './wire/identification.ts'

/**
 * The identity that a text means: an address, a mail address or a domain name. `keyid:` and `dn:`
 * (hexadecimal DER) prefixes name the others.
 */
export function identityOf(text: string): Identification {
  const address = addressBytes(text)
  if (address.length === 4) return { idType: IdType.ID_IPV4_ADDR, data: address }
  if (address.length === 16) return { idType: IdType.ID_IPV6_ADDR, data: address }
  if (text.startsWith('keyid:')) return { idType: IdType.ID_KEY_ID, data: utf8(text.slice(6)) }
  const idType = text.includes('@') ? IdType.ID_RFC822_ADDR : IdType.ID_FQDN
  return { idType, data: utf8(text) }
}

export function isSameIdentity(a: Identification, b: Identification): boolean {
  if (a.idType !== b.idType) return false
  const isText = a.idType === IdType.ID_FQDN || a.idType === IdType.ID_RFC822_ADDR
  // Names of hosts do not care for case (RFC 4343); mail domains neither, and local parts rarely.
  if (isText) return utf8Text(a.data).toLowerCase() === utf8Text(b.data).toLowerCase()
  return equalBytes(a.data, b.data)
}

/** For logs and as the user name of peers that authenticate without EAP. */
export function describeIdentity(identity: Identification): string {
  switch (identity.idType) {
    case IdType.ID_IPV4_ADDR:
      return formatIpv4(u32(identity.data, 0))
    case IdType.ID_IPV6_ADDR:
      return formatIpv6(identity.data)
    case IdType.ID_FQDN:
    case IdType.ID_RFC822_ADDR:
      return printable(identity.data)
    case IdType.ID_KEY_ID:
      return `keyid:${printable(identity.data)}`
    case IdType.ID_DER_ASN1_DN:
      return `dn:${toHex(identity.data)}`
    default:
      return `id-${identity.idType}:${toHex(identity.data)}`
  }
}

/** Control characters of a stranger do not reach a log. */
function printable(bytes: Uint8Array): string {
  return utf8Text(bytes).replace(/\p{Cc}/gu, '\u{fffd}')
}
