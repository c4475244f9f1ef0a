/** What we say of ourselves and of a call, in requests of all kinds (RFC 2865 §5, RFC 2868, [MS-RNAS]). */
import { fromHex } from '../../core/bytes.ts'
import { parseIpv4, parseIpv6 } from '../../core/ip-address.ts'
import type { CallContext } from '../authenticator.ts'
import { AttributeList } from './wire/attributes.ts'
import type { RadiusAttribute } from './wire/packet.ts'

export interface NasIdentity {
  /** NAS-Identifier and Called-Station-Id. */
  readonly name: string
  /** NAS-IP-Address or NAS-IPv6-Address; absent: the identifier must do. */
  readonly address?: string
}

/** RFC 2865 §5.41. */
const portTypeVirtual = 5
/** RFC 2865 §5.6 and §5.7. */
const serviceTypeFramed = 2
const framedProtocolPpp = 1
/** RFC 2868 §3.1 and [MS-RNAS] §2.2.2.1: SSTP is Microsoft's first own type. */
const tunnelTypes: Readonly<Record<string, number>> = {
  pptp: 1,
  l2tp: 3,
  ikev2: 9,
  sstp: 0x0001_3701,
}
/** RFC 2868 §3.2. */
const mediumIpv4 = 1
const mediumIpv6 = 2
/** RFC 2548 §2.4: what policies of NPS look at. */
const vendorMicrosoft = 311
const rasVersion = 'MSRASV5.20'
const serverTypeRemoteAccess = 2

/** Who we are; alone in Status-Server and in Accounting-On. */
export function nasAttributes({ name, address }: NasIdentity): readonly RadiusAttribute[] {
  const list = new AttributeList().text('NAS-Identifier', name)
  const ipv4 = address === undefined ? undefined : parseIpv4(address)
  const ipv6 = address === undefined ? undefined : parseIpv6(address)
  if (ipv4 !== undefined) list.ipv4('NAS-IP-Address', ipv4)
  if (ipv6 !== undefined) list.ipv6('NAS-IPv6-Address', ipv6)
  return list.attributes
}

/** Which call it is; the same in Access-Request and Accounting-Request. */
export function callAttributes(nas: NasIdentity, call: CallContext): readonly RadiusAttribute[] {
  const { protocol, peerAddress, sessionId } = call
  const list = new AttributeList()
    .all(nasAttributes(nas))
    .u32('NAS-Port-Type', portTypeVirtual)
    .text('NAS-Port-Id', protocol)
    .u32('Service-Type', serviceTypeFramed)
    .text('Called-Station-Id', nas.name)
    .text('Calling-Station-Id', peerAddress)
    .text('Acct-Session-Id', sessionId)
  if (protocol !== 'ikev2') list.u32('Framed-Protocol', framedProtocolPpp)
  const tunnelType = tunnelTypes[protocol]
  if (tunnelType !== undefined) {
    list
      .taggedU32('Tunnel-Type', tunnelType)
      .taggedU32('Tunnel-Medium-Type', peerAddress.includes(':') ? mediumIpv6 : mediumIpv4)
      .taggedText('Tunnel-Client-Endpoint', peerAddress)
  }
  return list.attributes
}

/** [MS-RNAS]: what a Windows server expects of a remote access server. */
export function microsoftAttributes({ sessionId }: CallContext): readonly RadiusAttribute[] {
  const list = new AttributeList()
    .u32('MS-RAS-Vendor', vendorMicrosoft)
    .text('MS-RAS-Version', rasVersion)
    .u32('MS-Network-Access-Server-Type', serverTypeRemoteAccess)
  if (/^[0-9a-f]{24,}$/.test(sessionId)) list.bytes('MS-RAS-Correlation', correlation(sessionId))
  return list.attributes
}

/** A GUID in braces of the session identifier, so that the records of both sides can be matched. */
function correlation(sessionId: string): Uint8Array {
  const hex = toGuid(sessionId)
  return Uint8Array.from(`{${hex}}`, digit => digit.charCodeAt(0))
}

function toGuid(sessionId: string): string {
  const bytes = fromHex(sessionId.slice(0, 24))
  const digits = Array.from({ length: 16 }, (_, i) => (bytes[i] ?? 0).toString(16).padStart(2, '0'))
  const part = (from: number, to: number) => digits.slice(from, to).join('')
  return [part(0, 4), part(4, 6), part(6, 8), part(8, 10), part(10, 16)].join('-').toUpperCase()
}
