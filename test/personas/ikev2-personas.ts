/**
 * Stock IKEv2 clients as data: what each proposes, which payloads it sends in which order, and how it
 * behaves. `source` says where that is written down; what no source says is in `assumed`.
 */
import { ConfigurationAttributeType as Attribute } from '../../lib/ikev2/wire/configuration.ts'

/** Transform ID and key bits (0: the cipher has one size) by the names that clients' manuals use. */
export const cipherIds = {
  des: [2, 0],
  '3des': [3, 0],
  null: [11, 0],
  aes128: [12, 128],
  aes192: [12, 192],
  aes256: [12, 256],
  'aes128-ctr': [13, 128],
  'aes192-ctr': [13, 192],
  'aes256-ctr': [13, 256],
  'aes128-gcm8': [18, 128],
  'aes128-gcm12': [19, 128],
  'aes128-gcm16': [20, 128],
  'aes192-gcm16': [20, 192],
  'aes256-gcm8': [18, 256],
  'aes256-gcm12': [19, 256],
  'aes256-gcm16': [20, 256],
  chacha20: [28, 0],
} as const
export const integrityIds = {
  sha1: 2,
  xcbc: 5,
  cmac: 8,
  sha256: 12,
  sha384: 13,
  sha512: 14,
} as const
export const prfIds = { sha1: 2, xcbc: 4, sha256: 5, sha384: 6, sha512: 7, cmac: 8 } as const
export const groupIds = {
  modp1024: 2,
  modp1536: 5,
  modp2048: 14,
  modp3072: 15,
  modp4096: 16,
  ecp256: 19,
  ecp384: 20,
  dh24: 24,
  x25519: 31,
} as const

export type CipherName = keyof typeof cipherIds
export type IntegrityName = keyof typeof integrityIds
export type PrfName = keyof typeof prfIds
export type GroupName = keyof typeof groupIds

export interface IkeOffer {
  readonly ciphers: readonly CipherName[]
  readonly integrity: readonly IntegrityName[]
  readonly prf: readonly PrfName[]
  readonly groups: readonly GroupName[]
}

export interface EspOffer {
  readonly ciphers: readonly CipherName[]
  readonly integrity: readonly IntegrityName[]
  /** Extended sequence numbers, in the order offered: 1 with, 0 without. */
  readonly esn: readonly (0 | 1)[]
}

/** Payloads of IKE_SA_INIT; a vendor ID is its bytes in hexadecimal. */
export type InitPart =
  | 'sa'
  | 'ke'
  | 'nonce'
  | 'fragmentation'
  | 'nat-source'
  | 'nat-destination'
  | 'hashes'
  | 'redirect'
  | `vendor ${string}`

/** Payloads of the first IKE_AUTH. */
export type AuthPart =
  | 'idi'
  | 'idr'
  | 'certificate'
  | 'certificate-request'
  | 'auth'
  | 'initial-contact'
  | 'mobike'
  | 'no-additional-addresses'
  | 'multiple-auth'
  | 'eap-only'
  | 'no-tfc'
  | 'non-first-fragments'
  | 'message-id-sync'
  | 'configuration'
  | 'sa'
  | 'tsi'
  | 'tsr'

export interface Ikev2Persona {
  readonly name: string
  readonly source: string
  readonly assumed: readonly string[]
  /** The server has to be told to accept what RFC 8247 does not want. */
  readonly needsLegacy: boolean
  readonly ike: readonly IkeOffer[]
  readonly esp: readonly EspOffer[]
  readonly init: readonly InitPart[]
  readonly auth: readonly AuthPart[]
  readonly nonceBytes: number
  /** Data of SIGNATURE_HASH_ALGORITHMS, where that is sent. */
  readonly hashes: readonly number[]
  readonly proof: 'eap' | 'certificate' | 'psk'
  /** What stands in IDi: the private address, a name, the subject of the certificate. */
  readonly identity: 'address' | 'name' | 'subject'
  readonly eapName: (userName: string) => string
  /** CFG_REQUEST, in order; Microsoft's own attributes among them. */
  readonly configuration: readonly number[]
  /** Number of authorities in CERTREQ. */
  readonly authorities: number
  /** Source ports before and after the move to 4500. */
  readonly ports: readonly [before: number, after: number]
  /** Lies about its address, so that a NAT is found in any case. */
  readonly forcesEncapsulation: boolean
  /** A Child SA is rekeyed with its group, and with none beside it (iOS). */
  readonly childRekeyOffers: 'group' | 'group-or-none'
  /** The group is offered in IKE_AUTH already, where it means nothing. */
  readonly offersGroupInAuth: boolean
  /** RFC 7383; 0 for a client that does not fragment. Largest IP packet, bytes. */
  readonly fragmentPacketBytes: number
  /** Waits before a request is sent again, ms. */
  readonly retransmitMs: readonly number[]
  readonly usesMobike: boolean
  /** What it answers when the server rekeys a Child SA: a WIN32 code in MS_STATUS, or it complies. */
  readonly refusesChildRekey?: number
}

const modp1024Matrix = (['3des', 'aes128', 'aes192', 'aes256'] as const).flatMap(cipher =>
  (['sha1', 'sha256', 'sha384'] as const).map(
    (hash): IkeOffer => ({
      ciphers: [cipher],
      integrity: [hash],
      prf: [hash],
      groups: ['modp1024'],
    }),
  ),
)

const windows = {
  init: [
    'sa',
    'ke',
    'nonce',
    'fragmentation',
    'nat-source',
    'nat-destination',
    'vendor 1e2b516905991c7d7c96fcbfb587e46100000009',
    'vendor fb1de3cdf341b7ea16b7e5be0855f120',
    'vendor 26244d38eddb61b3172a36e3d0cfb819',
    'vendor 01528bbbc00696121849ab9a1c5b2a5100000001',
  ],
  auth: ['idi', 'certificate-request', 'mobike', 'configuration', 'sa', 'tsi', 'tsr'],
  nonceBytes: 48,
  hashes: [],
  proof: 'eap',
  identity: 'address',
  eapName: (userName: string) => `OFFICE\\${userName}`,
  configuration: [
    Attribute.INTERNAL_IP4_ADDRESS,
    Attribute.INTERNAL_IP4_DNS,
    Attribute.INTERNAL_IP4_NBNS,
    Attribute.INTERNAL_IP4_SERVER,
    Attribute.INTERNAL_IP6_ADDRESS,
    Attribute.INTERNAL_IP6_DNS,
    Attribute.INTERNAL_IP6_SERVER,
  ],
  // 1720 bytes of CERTREQ were seen: 85 hashes of 20 bytes and a few bytes of headers.
  authorities: 85,
  ports: [500, 4500],
  forcesEncapsulation: false,
  childRekeyOffers: 'group',
  offersGroupInAuth: false,
  fragmentPacketBytes: 1280,
  retransmitMs: [1000, 2000, 4000, 8000],
  usesMobike: true,
  refusesChildRekey: 13_863,
} as const

const windowsEsp: readonly EspOffer[] = (['aes256', 'aes128', '3des', 'des', 'null'] as const).map(
  cipher => ({ ciphers: [cipher], integrity: ['sha1'], esn: [0] }),
)

/** `Set-VpnConnectionIPsecConfiguration` with GCMAES256 GCMAES256 AES256 SHA256 and ECP384 twice. */
const provisioned = {
  needsLegacy: false,
  ike: [{ ciphers: ['aes256'], integrity: ['sha256'], prf: ['sha256'], groups: ['ecp384'] }],
  esp: [{ ciphers: ['aes256-gcm16'], integrity: [], esn: [0] }],
} as const

const apple = {
  needsLegacy: false,
  init: ['sa', 'ke', 'nonce', 'redirect', 'nat-source', 'nat-destination', 'fragmentation'],
  auth: [
    'idi',
    'initial-contact',
    'idr',
    'mobike',
    'configuration',
    'no-tfc',
    'non-first-fragments',
    'sa',
    'tsi',
    'tsr',
  ],
  nonceBytes: 16,
  hashes: [],
  proof: 'eap',
  identity: 'address',
  eapName: (userName: string) => userName,
  configuration: [
    Attribute.INTERNAL_IP4_ADDRESS,
    Attribute.INTERNAL_IP4_DHCP,
    Attribute.INTERNAL_IP4_DNS,
    Attribute.INTERNAL_IP4_NETMASK,
    Attribute.INTERNAL_IP6_ADDRESS,
    Attribute.INTERNAL_IP6_DHCP,
    Attribute.INTERNAL_IP6_DNS,
    Attribute.INTERNAL_DNS_DOMAIN,
  ],
  authorities: 0,
  ports: [500, 4500],
  forcesEncapsulation: false,
  fragmentPacketBytes: 1280,
  retransmitMs: [1000, 2000, 4000, 8000, 16_000],
  usesMobike: true,
  offersGroupInAuth: false,
} as const

const androidCiphers = [
  'aes256-ctr',
  'aes256',
  'aes192-ctr',
  'aes192',
  'aes128-ctr',
  'aes128',
] as const
const androidAeads = [
  'chacha20',
  'aes256-gcm16',
  'aes256-gcm12',
  'aes256-gcm8',
  'aes128-gcm16',
  'aes128-gcm12',
  'aes128-gcm8',
] as const
const androidIntegrity = ['sha512', 'sha384', 'sha256', 'xcbc', 'cmac'] as const
const androidRest = {
  prf: ['sha512', 'sha384', 'sha256', 'xcbc', 'cmac', 'sha1'],
  groups: ['modp4096', 'x25519', 'modp3072', 'modp2048'],
} as const

const strongswan = {
  needsLegacy: false,
  ike: [
    {
      ciphers: ['aes128', 'aes192', 'aes256'],
      integrity: ['sha256', 'sha384', 'sha512', 'sha1', 'xcbc'],
      prf: ['sha256', 'sha384', 'sha512', 'xcbc', 'sha1'],
      groups: ['ecp256', 'ecp384', 'x25519', 'modp3072', 'modp4096', 'modp2048'],
    },
    {
      ciphers: ['aes128-gcm16', 'aes192-gcm16', 'aes256-gcm16', 'chacha20', 'aes128-gcm12'],
      integrity: [],
      prf: ['sha256', 'sha384', 'sha512', 'xcbc', 'sha1'],
      groups: ['ecp256', 'ecp384', 'x25519', 'modp3072', 'modp4096', 'modp2048'],
    },
  ],
  esp: [
    { ciphers: ['aes128-gcm16', 'aes256-gcm16', 'chacha20'], integrity: [], esn: [0] },
    {
      ciphers: ['aes128', 'aes192', 'aes256'],
      integrity: ['sha256', 'sha384', 'sha512', 'sha1'],
      esn: [0],
    },
  ],
  init: [
    'sa',
    'ke',
    'nonce',
    'nat-source',
    'nat-destination',
    'fragmentation',
    'hashes',
    'redirect',
  ],
  nonceBytes: 32,
  hashes: [2, 3, 4, 5],
  proof: 'eap',
  identity: 'name',
  eapName: (userName: string) => userName,
  configuration: [
    Attribute.INTERNAL_IP4_ADDRESS,
    Attribute.INTERNAL_IP6_ADDRESS,
    Attribute.INTERNAL_IP4_DNS,
    Attribute.INTERNAL_IP6_DNS,
  ],
  forcesEncapsulation: true,
  childRekeyOffers: 'group',
  fragmentPacketBytes: 1280,
  retransmitMs: [4000, 7200, 12_960, 23_328, 41_990],
  usesMobike: true,
  offersGroupInAuth: false,
} as const

export const ikev2Personas: readonly Ikev2Persona[] = [
  {
    ...windows,
    name: 'Windows 10',
    source: 'field notes, ikev2 §3 Windows: default proposals, sizes in WatchGuard logs',
    assumed: [
      'the order of the matrix',
      'retransmission after 1, 2, 4, 8 s',
      'a domain before EAP',
    ],
    needsLegacy: true,
    ike: modp1024Matrix,
    esp: windowsEsp,
  },
  {
    ...windows,
    name: 'Windows 11',
    source: 'field notes, ikev2 §3 Windows: AES-GCM with MODP1024 beside the matrix',
    assumed: ['GCM comes last', 'all else as Windows 10'],
    needsLegacy: true,
    ike: [
      ...modp1024Matrix,
      ...(['aes128-gcm16', 'aes256-gcm16'] as const).map(
        (cipher): IkeOffer => ({
          ciphers: [cipher],
          integrity: [],
          prf: ['sha256', 'sha384'],
          groups: ['modp1024'],
        }),
      ),
    ],
    esp: windowsEsp,
    eapName: userName => userName,
  },
  {
    ...windows,
    ...provisioned,
    name: 'Windows 11, provisioned',
    source: 'field notes, client-provisioning §1: GCMAES256 GCMAES256 AES256 SHA256 ECP384 ECP384',
    assumed: ['all else as Windows 11'],
  },
  {
    ...windows,
    ...provisioned,
    name: 'Windows 11, device certificate',
    source:
      'field notes, ikev2 §3 Windows: DN as IDi, RSA with SHA-1 (method 1), no hashes notified',
    assumed: ['CERT before CERTREQ'],
    auth: [
      'idi',
      'certificate',
      'certificate-request',
      'auth',
      'mobike',
      'configuration',
      'sa',
      'tsi',
      'tsr',
    ],
    proof: 'certificate',
    identity: 'subject',
  },
  {
    ...apple,
    name: 'macOS 14',
    source: 'field notes, ikev2 §3 Apple: AES-GCM-256 and AES256-SHA256 with ECP256 and MODP2048',
    assumed: ['order of payloads and of attributes', 'retransmission', 'nonces of 16 bytes'],
    ike: [
      {
        ciphers: ['aes256-gcm16'],
        integrity: [],
        prf: ['sha256'],
        groups: ['ecp256', 'modp2048'],
      },
      {
        ciphers: ['aes256'],
        integrity: ['sha256'],
        prf: ['sha256'],
        groups: ['ecp256', 'modp2048'],
      },
    ],
    esp: [
      { ciphers: ['aes256-gcm16'], integrity: [], esn: [0] },
      { ciphers: ['aes256'], integrity: ['sha256'], esn: [0] },
    ],
    childRekeyOffers: 'group',
  },
  {
    ...apple,
    name: 'iOS 16',
    source: 'field notes, ikev2 §3 Apple: AES256-SHA256 with three groups, two legacy proposals',
    assumed: ['order of payloads and of attributes', 'retransmission', 'nonces of 16 bytes'],
    ike: [
      ...(['modp2048', 'ecp256', 'modp1536'] as const).map(
        (group): IkeOffer => ({
          ciphers: ['aes256'],
          integrity: ['sha256'],
          prf: ['sha256'],
          groups: [group],
        }),
      ),
      ...(['aes128', '3des'] as const).map(
        (cipher): IkeOffer => ({
          ciphers: [cipher],
          integrity: ['sha1'],
          prf: ['sha1'],
          groups: ['modp1024'],
        }),
      ),
    ],
    esp: [
      { ciphers: ['aes256'], integrity: ['sha256'], esn: [0] },
      { ciphers: ['aes128'], integrity: ['sha1'], esn: [0] },
      { ciphers: ['3des'], integrity: ['sha1'], esn: [0] },
    ],
    childRekeyOffers: 'group-or-none',
  },
  {
    name: 'Android 12',
    source: 'field notes, ikev2 §3 Android 11+ platform: AOSP VpnIkev2Utils and strongSwan#2189',
    assumed: ['places of the notifications', 'retransmission', 'an ephemeral source port'],
    needsLegacy: false,
    ike: [
      { ciphers: androidCiphers, integrity: androidIntegrity, ...androidRest },
      { ciphers: androidAeads, integrity: [], ...androidRest },
    ],
    esp: [
      { ciphers: androidCiphers, integrity: androidIntegrity, esn: [0] },
      { ciphers: androidAeads, integrity: [], esn: [0] },
    ],
    init: ['sa', 'ke', 'nonce', 'nat-source', 'nat-destination', 'fragmentation', 'hashes'],
    auth: ['idi', 'idr', 'sa', 'tsi', 'tsr', 'configuration', 'mobike', 'eap-only'],
    nonceBytes: 32,
    hashes: [1, 2, 3, 4],
    proof: 'eap',
    identity: 'name',
    eapName: userName => userName,
    configuration: [
      Attribute.INTERNAL_IP4_ADDRESS,
      Attribute.INTERNAL_IP6_ADDRESS,
      Attribute.INTERNAL_IP4_DNS,
      Attribute.INTERNAL_IP6_DNS,
      Attribute.INTERNAL_IP4_NETMASK,
      Attribute.APPLICATION_VERSION,
    ],
    authorities: 0,
    ports: [43_210, 43_210],
    forcesEncapsulation: false,
    childRekeyOffers: 'group',
    fragmentPacketBytes: 1280,
    retransmitMs: [500, 1000, 2000, 4000, 8000],
    usesMobike: true,
    offersGroupInAuth: false,
  },
  {
    ...strongswan,
    name: 'strongSwan for Android',
    source: 'field notes, ikev2 §3: forced encapsulation, no IDr, many CERTREQs; charon.opt timers',
    assumed: ['order inside the proposals', 'ephemeral ports'],
    auth: [
      'idi',
      'initial-contact',
      'certificate-request',
      'configuration',
      'no-tfc',
      'sa',
      'tsi',
      'tsr',
      'mobike',
      'multiple-auth',
      'eap-only',
      'message-id-sync',
    ],
    authorities: 130,
    ports: [38_111, 38_111],
  },
  {
    ...strongswan,
    name: 'NetworkManager-strongswan',
    source: 'field notes, ikev2 §3: wide defaults, 0.0.0.0/0; charon.opt timers',
    assumed: ['order inside the proposals', 'IDr is the gateway', 'IPv4 alone', 'ports'],
    auth: [
      'idi',
      'initial-contact',
      'idr',
      'configuration',
      'no-tfc',
      'sa',
      'tsi',
      'tsr',
      'mobike',
      'multiple-auth',
      'eap-only',
    ],
    configuration: [Attribute.INTERNAL_IP4_ADDRESS, Attribute.INTERNAL_IP4_DNS],
    authorities: 0,
    ports: [51_820, 51_821],
  },
]

export function ikev2Persona(name: string): Ikev2Persona {
  const found = ikev2Personas.find(one => one.name === name)
  if (found === undefined) throw new TypeError(name)
  return found
}
