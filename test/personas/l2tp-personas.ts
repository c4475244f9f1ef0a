/**
 * Stock L2TP/IPsec clients as data: proposals of both phases in order, vendor IDs, AVPs, options of PPP
 * and habits. `source` says where that is written down; what no source says is in `assumed`.
 */
import type { OptionText } from './personas.ts'

/** Attribute values of phase 1 (RFC 2409 appendix A). */
export const phase1Numbers = {
  ciphers: { '3des': [5, 0], aes128: [7, 128], aes192: [7, 192], aes256: [7, 256] },
  hashes: { md5: 1, sha1: 2, sha256: 4, sha384: 5, sha512: 6 },
  groups: {
    modp1024: 2,
    modp1536: 5,
    modp2048: 14,
    ecp256: 19,
    ecp384: 20,
  },
} as const
/** Transform ID and key bits, and the authentication attribute, of phase 2 (RFC 2407 §4.4.4, §4.5). */
export const phase2Numbers = {
  ciphers: {
    des: [2, 0],
    '3des': [3, 0],
    null: [11, 0],
    aes128: [12, 128],
    aes192: [12, 192],
    aes256: [12, 256],
  },
  integrity: { md5: 1, sha1: 2, sha256: 5 },
} as const

export type Phase1Suite = readonly [
  cipher: keyof typeof phase1Numbers.ciphers,
  hash: keyof typeof phase1Numbers.hashes,
  group: keyof typeof phase1Numbers.groups,
]
export type Phase2Suite = readonly [
  cipher: keyof typeof phase2Numbers.ciphers,
  integrity: keyof typeof phase2Numbers.integrity,
]

/** An AVP: its type, whether it is mandatory, its value in hexadecimal or what is put there. */
export type AvpText = readonly [
  type: number,
  isMandatory: boolean,
  value: string | 'tunnel' | 'session' | 'serial' | 'host',
]

export interface L2tpPersona {
  readonly name: string
  readonly source: string
  readonly assumed: readonly string[]
  readonly needsLegacy: boolean
  readonly phase1: readonly Phase1Suite[]
  readonly phase1Seconds: number
  /** Vendor IDs of the first message, hexadecimal. */
  readonly vendorIds: readonly string[]
  readonly nonceBytes: number
  readonly sendsInitialContact: boolean
  /** Announces DPD, asks and answers (RFC 3706). */
  readonly speaksDpd: boolean
  readonly phase2: readonly Phase2Suite[]
  readonly phase2Seconds: number
  /** 0: no limit of volume. */
  readonly phase2Kilobytes: number
  /** Encapsulation modes that the whole list is repeated with. */
  readonly modes: readonly (1 | 2 | 3 | 4 | 61_443 | 61_444)[]
  readonly pfs: boolean
  readonly sendsOriginalAddresses: boolean
  /** UDP port of L2TP inside ESP. */
  readonly l2tpPort: number
  readonly sccrq: readonly AvpText[]
  readonly icrq: readonly AvpText[]
  readonly iccn: readonly AvpText[]
  /** Flags of its data messages: L is 0x4000. */
  readonly dataFlags: number
  /** Result codes in the wrong byte order (field notes, l2tp-ipsec §5, Apple). */
  readonly isResultSwapped: boolean
  readonly answersHello: boolean
  readonly retransmitMs: readonly number[]
  readonly leaves: readonly ('terminate' | 'cdn' | 'stopccn' | 'delete-esp' | 'delete-isakmp')[]
  readonly lcp: readonly OptionText[]
  readonly ipcp: readonly OptionText[]
  readonly userName: (name: string) => string
  readonly speaksIpv6: boolean
}

const rfc3947 = '4a131c81070358455c5728f20e95452f'
const draft03 = '7d9419a65310ca6f2c179d9215529d56'
const draft02lf = '90cb80913ebb696e086381b5ec427b1f'
const draft02 = 'cd60464335df21f87cfdb2fc68b6a448'
const draft00 = '4485152d18b6bbcd0be8a8469579ddcc'
const dpd = 'afcad71368a1f1c96b8696fc77570100'

const protocolVersion: AvpText = [2, true, '0100']
const tunnelId: AvpText = [9, true, 'tunnel']
const sessionId: AvpText = [14, true, 'session']
const serial: AvpText = [15, true, 'serial']

const windows = {
  needsLegacy: false,
  phase1: [
    ['aes256', 'sha1', 'ecp384'],
    ['aes128', 'sha1', 'ecp256'],
    ['aes256', 'sha1', 'modp2048'],
    ['3des', 'sha1', 'modp2048'],
    ['3des', 'sha1', 'modp1024'],
  ],
  phase1Seconds: 28_800,
  vendorIds: [
    '01528bbbc00696121849ab9a1c5b2a5100000001',
    '1e2b516905991c7d7c96fcbfb587e46100000009',
    rfc3947,
    draft02lf,
    '4048b7d56ebce88525e7de7f00d6c2d3',
    'fb1de3cdf341b7ea16b7e5be0855f120',
    '26244d38eddb61b3172a36e3d0cfb819',
    'e3a5966a76379fe707228231e5ce8652',
  ],
  nonceBytes: 48,
  sendsInitialContact: false,
  speaksDpd: false,
  phase2: [
    ['aes256', 'sha1'],
    ['aes128', 'sha1'],
    ['3des', 'sha1'],
    ['des', 'sha1'],
    ['null', 'sha1'],
  ],
  phase2Seconds: 3600,
  phase2Kilobytes: 250_000,
  modes: [4, 61_444, 2],
  pfs: false,
  sendsOriginalAddresses: true,
  l2tpPort: 1701,
  sccrq: [
    protocolVersion,
    [3, true, '00000001'],
    [4, true, '00000000'],
    [6, false, '0601'],
    [7, true, 'host'],
    [8, false, '4d6963726f736f6674'],
    tunnelId,
    [10, true, '0008'],
  ],
  icrq: [sessionId, serial, [18, true, '00000002']],
  iccn: [
    [24, true, '05f5e100'],
    [19, true, '00000001'],
    [29, false, '0004'],
  ],
  dataFlags: 0x4000,
  isResultSwapped: false,
  answersHello: true,
  retransmitMs: [1000, 2000, 4000, 8000, 16_000],
  leaves: ['terminate', 'cdn', 'stopccn', 'delete-esp', 'delete-isakmp'],
  lcp: [
    [1, '0578'],
    [5, 'magic'],
    [7, ''],
    [8, ''],
    [13, '06'],
  ],
  ipcp: [
    [3, '00000000'],
    [129, '00000000'],
    [130, '00000000'],
    [131, '00000000'],
    [132, '00000000'],
  ],
  userName: (name: string) => `OFFICE\\${name}`,
  speaksIpv6: true,
} as const

const racoonPhase1: readonly Phase1Suite[] = [
  ...(['sha256', 'sha1', 'md5', 'sha512'] as const).map(
    (hash): Phase1Suite => ['aes256', hash, 'modp2048'],
  ),
  ...(['sha256', 'sha1', 'md5', 'sha512'] as const).map(
    (hash): Phase1Suite => ['aes256', hash, 'modp1536'],
  ),
  ...(['sha256', 'sha1', 'md5', 'sha512'] as const).map(
    (hash): Phase1Suite => ['aes256', hash, 'modp1024'],
  ),
  ...(['aes128', '3des'] as const).flatMap(cipher =>
    (['sha1', 'md5'] as const).map((hash): Phase1Suite => [cipher, hash, 'modp1024']),
  ),
]

const apple = {
  needsLegacy: false,
  phase1: racoonPhase1,
  phase1Seconds: 3600,
  vendorIds: [rfc3947, '4df37928e9fc4fd1b3262170d515c662', draft03, draft02, draft02lf, dpd],
  nonceBytes: 16,
  sendsInitialContact: true,
  speaksDpd: true,
  phase2: [
    ['aes256', 'sha1'],
    ['aes256', 'md5'],
    ['aes128', 'sha1'],
    ['aes128', 'md5'],
    ['3des', 'sha1'],
    ['3des', 'md5'],
  ],
  phase2Seconds: 3600,
  phase2Kilobytes: 0,
  modes: [4],
  pfs: false,
  sendsOriginalAddresses: true,
  // "macOS seen from port 51239"
  l2tpPort: 51_239,
  sccrq: [protocolVersion, [3, true, '00000003'], [7, true, 'host'], tunnelId, [10, true, '0004']],
  icrq: [sessionId, serial],
  iccn: [
    [24, true, '000f4240'],
    [19, true, '00000001'],
  ],
  dataFlags: 0x4000,
  isResultSwapped: true,
  answersHello: true,
  retransmitMs: [1000, 2000, 4000, 8000, 16_000],
  leaves: ['terminate', 'cdn', 'stopccn', 'delete-esp', 'delete-isakmp'],
  lcp: [
    [2, '00000000'],
    [5, 'magic'],
    [7, ''],
    [8, ''],
  ],
  ipcp: [
    [3, '00000000'],
    [129, '00000000'],
    [131, '00000000'],
  ],
  userName: (name: string) => name,
  speaksIpv6: false,
} as const

export const l2tpPersonas: readonly L2tpPersona[] = [
  {
    ...windows,
    name: 'Windows 7',
    source:
      'field notes, l2tp-ipsec §2 (vendor IDs, quick mode), §4 (port 1701, no INITIAL-CONTACT)',
    assumed: [
      'the list of Windows 10 without ECP after MODP',
      'version 8 of its vendor ID',
      'AVPs',
    ],
    phase1: [
      ['aes256', 'sha1', 'ecp384'],
      ['aes128', 'sha1', 'ecp256'],
      ['aes256', 'sha1', 'modp2048'],
      ['3des', 'sha1', 'modp2048'],
      ['3des', 'sha1', 'modp1024'],
    ],
    vendorIds: windows.vendorIds.map(id => id.replace(/00000009$/, '00000008')),
  },
  {
    ...windows,
    name: 'Windows 8.1',
    source: 'field notes, l2tp-ipsec §2: the set of Windows, version 9 of its vendor ID',
    assumed: ['order of proposals', 'AVPs', 'transport mode is offered first'],
    modes: [2, 4, 61_444],
  },
  {
    ...windows,
    name: 'Windows 10',
    source: 'field notes, l2tp-ipsec §2 and ppp §2: AES256-SHA1-ECP384 first, 28,800 s, mru 1400',
    assumed: ['order of proposals', 'AVPs of its LAC and their order'],
  },
  {
    ...windows,
    name: 'Windows 11',
    source: 'field notes, l2tp-ipsec §2 as Windows 10',
    assumed: ['all as Windows 10, without a domain in front of the name'],
    userName: name => name,
  },
  {
    ...apple,
    name: 'macOS',
    source: 'field notes, l2tp-ipsec §2: AES256 with four hashes and three groups, 3,600 s; §5, §6',
    assumed: ['order of proposals', 'AVPs', 'no IPv6'],
  },
  {
    ...apple,
    name: 'iOS',
    source: 'field notes, l2tp-ipsec §2 as macOS; §8: leaves without a word on sleep',
    assumed: ['order of proposals', 'AVPs', 'it deletes its SAs and nothing else'],
    leaves: ['delete-esp', 'delete-isakmp'],
    l2tpPort: 60_001,
  },
  {
    ...apple,
    name: 'Android 11',
    source: 'field notes, l2tp-ipsec §2: racoon, MODP1024 only; §5: some builds never answer HELLO',
    assumed: ['order of proposals', 'AVPs', 'life of 28,800 s', 'it just goes'],
    needsLegacy: true,
    phase1: (['aes256', 'aes128', '3des'] as const).flatMap(cipher =>
      (['sha384', 'sha256', 'sha1', 'md5'] as const).map(
        (hash): Phase1Suite => [cipher, hash, 'modp1024'],
      ),
    ),
    phase1Seconds: 28_800,
    phase2Seconds: 28_800,
    vendorIds: [
      rfc3947,
      draft02,
      draft02lf,
      draft00,
      '4048b7d56ebce88525e7de7f00d6c2d380000000',
      dpd,
    ],
    l2tpPort: 42_424,
    isResultSwapped: false,
    answersHello: false,
    leaves: ['terminate', 'cdn', 'stopccn', 'delete-esp', 'delete-isakmp'],
    ipcp: [
      [3, '00000000'],
      [129, '00000000'],
      [131, '00000000'],
    ],
  },
  {
    ...apple,
    name: 'NetworkManager-l2tp',
    source: 'field notes, l2tp-ipsec §2: proposals of nm-l2tp-service.c; ppp §2 row pppd',
    assumed: ['vendor IDs of charon', 'AVPs of xl2tpd and their order'],
    phase1: [
      ...(['modp2048', 'modp1536', 'modp1024'] as const).map(
        (group): Phase1Suite => ['aes256', 'sha256', group],
      ),
      ...(['modp2048', 'modp1536', 'modp1024', 'ecp384'] as const).map(
        (group): Phase1Suite => ['aes256', 'sha1', group],
      ),
      ['aes128', 'sha1', 'modp1024'],
      ['aes128', 'sha1', 'ecp256'],
      ['3des', 'sha1', 'modp2048'],
      ['3des', 'sha1', 'modp1024'],
    ],
    phase1Seconds: 10_800,
    vendorIds: ['09002689dfd6b712', dpd, rfc3947, draft02lf, '882fe56d6fd20dbc2251613b2ebe5beb'],
    nonceBytes: 32,
    phase2: [
      ['aes256', 'sha1'],
      ['aes128', 'sha1'],
      ['3des', 'sha1'],
    ],
    l2tpPort: 1701,
    sccrq: [
      protocolVersion,
      [3, true, '00000003'],
      [4, true, '00000000'],
      [6, false, '0690'],
      [7, true, 'host'],
      [8, false, '7865 6c65 72616e63652e636f6d'.replaceAll(' ', '')],
      tunnelId,
      [10, true, '0004'],
    ],
    icrq: [sessionId, serial, [18, true, '00000000']],
    isResultSwapped: false,
    retransmitMs: [4000, 7200, 12_960, 23_328],
    leaves: ['terminate', 'stopccn', 'delete-esp', 'delete-isakmp'],
    speaksIpv6: true,
  },
  {
    ...apple,
    name: 'MikroTik RouterOS',
    source: 'field notes, l2tp-ipsec §2: profile default; PFS modp1024 in the default proposal, §5',
    assumed: ['order of proposals', 'vendor IDs', 'AVPs', 'data without the L bit'],
    needsLegacy: true,
    phase1: [
      ...(['aes256', 'aes128', '3des'] as const).flatMap(cipher =>
        (['modp2048', 'modp1024'] as const).map((group): Phase1Suite => [cipher, 'sha1', group]),
      ),
    ],
    phase1Seconds: 86_400,
    vendorIds: [rfc3947, draft03, draft02lf, draft02, draft00, dpd],
    nonceBytes: 24,
    phase2: [
      ['aes256', 'sha1'],
      ['aes192', 'sha1'],
      ['aes128', 'sha1'],
    ],
    phase2Seconds: 1800,
    pfs: true,
    l2tpPort: 1701,
    sccrq: [
      protocolVersion,
      [3, true, '00000001'],
      [4, true, '00000000'],
      [7, true, 'host'],
      [8, false, '4d696b726f54696b'],
      tunnelId,
      [10, true, '0004'],
    ],
    dataFlags: 0,
    isResultSwapped: false,
    leaves: ['terminate', 'cdn', 'stopccn', 'delete-isakmp'],
    lcp: [
      [1, '05aa'],
      [5, 'magic'],
    ],
    ipcp: [[3, '00000000']],
  },
]

export function l2tpPersona(name: string): L2tpPersona {
  const found = l2tpPersonas.find(one => one.name === name)
  if (found === undefined) throw new TypeError(name)
  return found
}
