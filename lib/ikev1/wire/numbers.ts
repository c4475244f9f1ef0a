/** The numbers of ISAKMP and IKEv1: RFC 2407, 2408, 2409, 3706, 3947 and their IANA registries. */

/** RFC 2408 §3.1; NAT payloads RFC 3947 §3.2, §5.2 and the drafts before it; fragments Microsoft and Cisco. */
export const PayloadType = {
  none: 0,
  SA: 1,
  P: 2,
  T: 3,
  KE: 4,
  ID: 5,
  CERT: 6,
  CR: 7,
  HASH: 8,
  SIG: 9,
  NONCE: 10,
  N: 11,
  D: 12,
  VID: 13,
  'NAT-D': 20,
  'NAT-OA': 21,
  'NAT-D-draft': 130,
  'NAT-OA-draft': 131,
  fragment: 132,
} as const

/** RFC 2408 §3.1, RFC 2409 appendix A. */
export const ExchangeType = {
  base: 1,
  identityProtection: 2,
  authenticationOnly: 3,
  aggressive: 4,
  informational: 5,
  /** Mode-Config and XAuth (expired drafts). */
  transaction: 6,
  quickMode: 32,
  newGroupMode: 33,
} as const

/** RFC 2408 §3.14.1, RFC 2407 §4.6.3, RFC 3706 §5.2. */
export const NotifyType = {
  'INVALID-PAYLOAD-TYPE': 1,
  'INVALID-COOKIE': 4,
  'INVALID-EXCHANGE-TYPE': 7,
  'INVALID-MESSAGE-ID': 9,
  'INVALID-SPI': 11,
  'NO-PROPOSAL-CHOSEN': 14,
  'PAYLOAD-MALFORMED': 16,
  'INVALID-ID-INFORMATION': 18,
  'INVALID-HASH-INFORMATION': 23,
  'AUTHENTICATION-FAILED': 24,
  CONNECTED: 16384,
  'RESPONDER-LIFETIME': 24576,
  'REPLAY-STATUS': 24577,
  'INITIAL-CONTACT': 24578,
  'R-U-THERE': 36136,
  'R-U-THERE-ACK': 36137,
} as const

const notifyNames = new Map<number, string>(
  Object.entries(NotifyType).map(([name, type]) => [type, name]),
)

export function notifyName(type: number): string {
  return notifyNames.get(type) ?? `notify-${type}`
}

/** RFC 2407 §4.4.1. */
export const ProtocolId = { isakmp: 1, ah: 2, esp: 3 } as const

/** RFC 2407 §2, §4.2.1. */
export const DOI_IPSEC = 1
export const SIT_IDENTITY_ONLY = 1

/** RFC 2407 §4.4.2: the one transform of an ISAKMP proposal. */
export const KEY_IKE = 1

/** RFC 2407 §4.4.4, RFC 3602, RFC 4106. */
export const EspTransform = { tripleDes: 3, aesCbc: 12, aesGcm16: 20 } as const

/** RFC 2409 appendix A: phase 1 attributes. */
export const Phase1Attribute = {
  encryption: 1,
  hash: 2,
  authentication: 3,
  group: 4,
  lifeType: 11,
  lifeDuration: 12,
  keyLength: 14,
} as const

export const Phase1Encryption = { des: 1, tripleDes: 5, aesCbc: 7 } as const
export const Phase1Hash = { md5: 1, sha1: 2, sha256: 4, sha384: 5, sha512: 6 } as const
export const Phase1Authentication = {
  preSharedKey: 1,
  rsaSignatures: 3,
  /** XAuth, draft-beaulieu-ike-xauth-02: refused. */
  xauthFirst: 64221,
  xauthLast: 65010,
} as const

/** RFC 2409 appendix A, RFC 2407 §4.5: life types are the same in both phases. */
export const LifeType = { seconds: 1, kilobytes: 2 } as const

/** RFC 2407 §4.5: phase 2 attributes. */
export const Phase2Attribute = {
  lifeType: 1,
  lifeDuration: 2,
  group: 3,
  encapsulation: 4,
  authentication: 5,
  keyLength: 6,
} as const

/** RFC 2407 §4.5, RFC 3947 §5.1 and the drafts before it. */
export const Encapsulation = {
  tunnel: 1,
  transport: 2,
  udpTunnel: 3,
  udpTransport: 4,
  udpTunnelDraft: 61443,
  udpTransportDraft: 61444,
} as const

/** RFC 2407 §4.5, RFC 4868. */
export const Phase2Authentication = {
  hmacMd5: 1,
  hmacSha1: 2,
  hmacSha256: 5,
  hmacSha384: 6,
  hmacSha512: 7,
} as const

/** RFC 2407 §4.6.2.1. */
export const IdType = {
  ipv4Address: 1,
  fqdn: 2,
  userFqdn: 3,
  ipv4Subnet: 4,
  ipv6Address: 5,
  derAsn1Dn: 9,
  keyId: 11,
} as const

/** RFC 2408 §3.9. */
export const CertificateEncoding = { x509Signature: 4 } as const
