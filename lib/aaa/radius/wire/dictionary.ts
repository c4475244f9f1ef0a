/**
 * The attributes that a NAS sends, reads or must know, as data: vendor (0: none), number, and how its
 * value is written. Sources: RFC 2865, 2866, 2868, 2869, 3162, 3576/5176, 3579, 4372, 4675, 4818, 4849,
 * 6911, 6929; RFC 2548 for the numbers of Microsoft; the published dictionaries of MikroTik and WISPr.
 */

/** The SMI private enterprise numbers of vendors. */
export const Vendor = { none: 0, microsoft: 311, wispr: 14122, mikrotik: 14988 } as const

/**
 * `text` UTF-8; `bytes` opaque; `u32` an integer, an enumerated value or seconds since 1970; `tagged-u32`
 * and `tagged-text` as in RFC 2868 §3; `ipv6-prefix` as in RFC 3162 §2.3.
 */
export type AttributeKind =
  | 'text'
  | 'bytes'
  | 'u32'
  | 'ipv4'
  | 'ipv6'
  | 'ipv6-prefix'
  | 'interface-id'
  | 'tagged-u32'
  | 'tagged-text'

export type AttributeDefinition = readonly [vendor: number, type: number, kind: AttributeKind]

const { microsoft, mikrotik, wispr } = Vendor

export const dictionary = {
  // RFC 2865
  'User-Name': [0, 1, 'text'],
  'User-Password': [0, 2, 'bytes'],
  'CHAP-Password': [0, 3, 'bytes'],
  'NAS-IP-Address': [0, 4, 'ipv4'],
  'NAS-Port': [0, 5, 'u32'],
  'Service-Type': [0, 6, 'u32'],
  'Framed-Protocol': [0, 7, 'u32'],
  'Framed-IP-Address': [0, 8, 'ipv4'],
  'Framed-IP-Netmask': [0, 9, 'ipv4'],
  'Filter-Id': [0, 11, 'text'],
  'Framed-MTU': [0, 12, 'u32'],
  'Reply-Message': [0, 18, 'text'],
  'Framed-Route': [0, 22, 'text'],
  State: [0, 24, 'bytes'],
  Class: [0, 25, 'bytes'],
  'Vendor-Specific': [0, 26, 'bytes'],
  'Session-Timeout': [0, 27, 'u32'],
  'Idle-Timeout': [0, 28, 'u32'],
  'Termination-Action': [0, 29, 'u32'],
  'Called-Station-Id': [0, 30, 'text'],
  'Calling-Station-Id': [0, 31, 'text'],
  'NAS-Identifier': [0, 32, 'text'],
  'Proxy-State': [0, 33, 'bytes'],
  'CHAP-Challenge': [0, 60, 'bytes'],
  'NAS-Port-Type': [0, 61, 'u32'],
  'Port-Limit': [0, 62, 'u32'],
  // RFC 2866
  'Acct-Status-Type': [0, 40, 'u32'],
  'Acct-Delay-Time': [0, 41, 'u32'],
  'Acct-Input-Octets': [0, 42, 'u32'],
  'Acct-Output-Octets': [0, 43, 'u32'],
  'Acct-Session-Id': [0, 44, 'text'],
  'Acct-Authentic': [0, 45, 'u32'],
  'Acct-Session-Time': [0, 46, 'u32'],
  'Acct-Input-Packets': [0, 47, 'u32'],
  'Acct-Output-Packets': [0, 48, 'u32'],
  'Acct-Terminate-Cause': [0, 49, 'u32'],
  'Acct-Multi-Session-Id': [0, 50, 'text'],
  'Acct-Link-Count': [0, 51, 'u32'],
  // RFC 2868
  'Tunnel-Type': [0, 64, 'tagged-u32'],
  'Tunnel-Medium-Type': [0, 65, 'tagged-u32'],
  'Tunnel-Client-Endpoint': [0, 66, 'tagged-text'],
  'Tunnel-Server-Endpoint': [0, 67, 'tagged-text'],
  // RFC 2869
  'Acct-Input-Gigawords': [0, 52, 'u32'],
  'Acct-Output-Gigawords': [0, 53, 'u32'],
  'Event-Timestamp': [0, 55, 'u32'],
  'Connect-Info': [0, 77, 'text'],
  'EAP-Message': [0, 79, 'bytes'],
  'Message-Authenticator': [0, 80, 'bytes'],
  'Acct-Interim-Interval': [0, 85, 'u32'],
  'NAS-Port-Id': [0, 87, 'text'],
  'Framed-Pool': [0, 88, 'text'],
  // RFC 4372, 4849
  'Chargeable-User-Identity': [0, 89, 'bytes'],
  'NAS-Filter-Rule': [0, 92, 'text'],
  // RFC 3162, 4818
  'NAS-IPv6-Address': [0, 95, 'ipv6'],
  'Framed-Interface-Id': [0, 96, 'interface-id'],
  'Framed-IPv6-Prefix': [0, 97, 'ipv6-prefix'],
  'Framed-IPv6-Route': [0, 99, 'text'],
  'Framed-IPv6-Pool': [0, 100, 'text'],
  'Delegated-IPv6-Prefix': [0, 123, 'ipv6-prefix'],
  // RFC 5176
  'Error-Cause': [0, 101, 'u32'],
  // RFC 6911
  'Framed-IPv6-Address': [0, 168, 'ipv6'],
  'DNS-Server-IPv6-Address': [0, 169, 'ipv6'],
  'Route-IPv6-Information': [0, 170, 'ipv6-prefix'],
  'Delegated-IPv6-Prefix-Pool': [0, 171, 'text'],
  'Stateful-IPv6-Address-Pool': [0, 172, 'text'],
  // RFC 2548
  'MS-CHAP-Error': [microsoft, 2, 'bytes'],
  'MS-CHAP-NT-Enc-PW': [microsoft, 6, 'bytes'],
  'MS-MPPE-Encryption-Policy': [microsoft, 7, 'u32'],
  'MS-MPPE-Encryption-Types': [microsoft, 8, 'u32'],
  'MS-RAS-Vendor': [microsoft, 9, 'u32'],
  'MS-CHAP-Domain': [microsoft, 10, 'bytes'],
  'MS-CHAP-Challenge': [microsoft, 11, 'bytes'],
  'MS-CHAP-MPPE-Keys': [microsoft, 12, 'bytes'],
  'MS-MPPE-Send-Key': [microsoft, 16, 'bytes'],
  'MS-MPPE-Recv-Key': [microsoft, 17, 'bytes'],
  'MS-RAS-Version': [microsoft, 18, 'text'],
  'MS-BAP-Usage': [microsoft, 13, 'u32'],
  'MS-Link-Utilization-Threshold': [microsoft, 14, 'u32'],
  'MS-Link-Drop-Time-Limit': [microsoft, 15, 'u32'],
  'MS-Filter': [microsoft, 22, 'bytes'],
  'MS-CHAP2-Response': [microsoft, 25, 'bytes'],
  'MS-CHAP2-Success': [microsoft, 26, 'bytes'],
  'MS-CHAP2-CPW': [microsoft, 27, 'bytes'],
  'MS-Primary-DNS-Server': [microsoft, 28, 'ipv4'],
  'MS-Secondary-DNS-Server': [microsoft, 29, 'ipv4'],
  'MS-Primary-NBNS-Server': [microsoft, 30, 'ipv4'],
  'MS-Secondary-NBNS-Server': [microsoft, 31, 'ipv4'],
  'MS-RAS-Client-Name': [microsoft, 34, 'text'],
  'MS-RAS-Client-Version': [microsoft, 35, 'text'],
  'MS-Quarantine-IPFilter': [microsoft, 36, 'bytes'],
  'MS-Quarantine-Session-Timeout': [microsoft, 37, 'u32'],
  'MS-Network-Access-Server-Type': [microsoft, 47, 'u32'],
  'MS-RAS-Correlation': [microsoft, 56, 'bytes'],
  // MikroTik and WISPr: rates
  'MikroTik-Rate-Limit': [mikrotik, 8, 'text'],
  'WISPr-Bandwidth-Max-Up': [wispr, 7, 'u32'],
  'WISPr-Bandwidth-Max-Down': [wispr, 8, 'u32'],
} as const satisfies Record<string, AttributeDefinition>

export type AttributeName = keyof typeof dictionary

/** The names of attributes whose value is written so. */
export type NameOf<Kind extends AttributeKind> = {
  [Name in AttributeName]: (typeof dictionary)[Name][2] extends Kind ? Name : never
}[AttributeName]

interface KnownAttribute {
  readonly name: string
  readonly kind: AttributeKind
}

const byNumber = new Map<number, KnownAttribute>(
  Object.entries(dictionary).map(([name, [vendor, type, kind]]) => [
    vendor * 256 + type,
    { name, kind },
  ]),
)

/** What is known of an attribute by its number. */
export function knownAttribute(vendor: number, type: number): KnownAttribute | undefined {
  return byNumber.get(vendor * 256 + type)
}

/** Fewest and most bytes of a value of a kind. */
export const kindBytes = {
  text: [0, 253],
  bytes: [0, 253],
  u32: [4, 4],
  ipv4: [4, 4],
  ipv6: [16, 16],
  'ipv6-prefix': [2, 18],
  'interface-id': [8, 8],
  'tagged-u32': [4, 4],
  'tagged-text': [1, 253],
} as const satisfies Record<AttributeKind, readonly [number, number]>
