/**
 * Stock PPTP clients as data: fields of their control messages, options of PPP in order, wishes for
 * encryption and habits. `source` says where that is written down; what no source says is in `assumed`.
 */
import { utf8 } from '../../lib/core/bytes.ts'
import type { OptionText } from './personas.ts'
import type { StockNetworks } from './stock-ppp.ts'

export interface PptpPersona {
  readonly name: string
  readonly source: string
  readonly assumed: readonly string[]
  /** Start-Control-Connection-Request (RFC 2637 §2.1). */
  readonly start: {
    readonly framing: number
    readonly bearer: number
    readonly maxChannels: number
    readonly firmwareRevision: number
    readonly hostName: string
    readonly vendorName: string
  }
  /** Outgoing-Call-Request (RFC 2637 §2.7). */
  readonly call: {
    readonly minimumBps: number
    readonly maximumBps: number
    readonly bearer: number
    readonly framing: number
    readonly windowPackets: number
    readonly processingDelay: number
  }
  /** Set-Link-Info with these character maps, when LCP is open. */
  readonly setsLinkInfo: boolean
  readonly firstSequence: 0 | 1
  /** With packets only, or also in packets of their own. */
  readonly acknowledges: 'with-data' | 'alone'
  /** Its own Echo-Request after 60 s of silence. */
  readonly asksForEcho: boolean
  readonly lcp: readonly OptionText[]
  readonly ipcp: readonly OptionText[]
  readonly networks: StockNetworks
  readonly waitsForEncryption: boolean
  /** Bits of CCP option 18: its first request, and what it insists on. */
  readonly encryption: { readonly request: string; readonly wish: string }
  readonly compressesHeaders: boolean
  readonly identifications: readonly Uint8Array[]
  readonly userName: (name: string) => string
  readonly leaves: readonly ('terminate' | 'clear' | 'stop')[]
}

/** +H +M +S +L +C and what Windows Naks with: exactly one strength, and H. */
const everything = '010000e1'
const stateless128 = '01000040'

const windows = {
  start: {
    ...{ framing: 1, bearer: 1, maxChannels: 0, firmwareRevision: 2600 },
    ...{ hostName: '', vendorName: 'Microsoft Windows NT' },
  },
  call: {
    ...{ minimumBps: 300, maximumBps: 100_000_000, bearer: 3, framing: 3 },
    ...{ windowPackets: 64, processingDelay: 0 },
  },
  setsLinkInfo: true,
  firstSequence: 0,
  acknowledges: 'alone',
  asksForEcho: false,
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
  networks: ['ccp', 'ipv6cp', 'ipcp'],
  waitsForEncryption: false,
  encryption: { request: everything, wish: stateless128 },
  compressesHeaders: true,
  identifications: [utf8('MSRASV5.20'), utf8('MSRAS-0-DESKTOP-7F3K2')],
  userName: (name: string) => `OFFICE\\${name}`,
  leaves: ['terminate', 'clear', 'stop'],
} as const

const pppd = {
  lcp: [
    [2, '00000000'],
    [5, 'magic'],
    [7, ''],
    [8, ''],
  ],
  encryption: { request: stateless128, wish: stateless128 },
  waitsForEncryption: true,
  compressesHeaders: true,
  identifications: [],
  userName: (name: string) => name,
} as const

export const pptpPersonas: readonly PptpPersona[] = [
  {
    ...windows,
    name: 'Windows 7',
    source: 'field notes, pptp-mppe §1 (fields), §3 (CCP), ppp §2 row Windows L2TP/PPTP',
    assumed: [
      'its firmware revision',
      'no Multilink',
      'how it leaves',
      'bits of its first request',
    ],
    start: { ...windows.start, firmwareRevision: 7600 },
  },
  {
    ...windows,
    name: 'Windows 8.1',
    source: 'field notes, pptp-mppe §1, §3; ppp §2 row Windows multilink enabled',
    assumed: ['its firmware revision', 'that it asks for Multilink', 'how it leaves'],
    start: { ...windows.start, firmwareRevision: 9600 },
    lcp: [...windows.lcp, [17, '064e'], [19, `01${'8c'.repeat(20)}`], [18, '']],
  },
  {
    ...windows,
    name: 'Windows 10',
    source: 'field notes, pptp-mppe §1: its log and trace; §3: one strength and H in its Nak',
    assumed: ['bits of its first request', 'how it leaves'],
  },
  {
    ...windows,
    name: 'Windows 11',
    source: 'field notes, pptp-mppe §6 (it still has PPTP), §1, §3 as Windows 10',
    assumed: ['all as Windows 10, without a domain in front of the name', 'asks for 128 bits only'],
    encryption: { request: stateless128, wish: stateless128 },
    userName: name => name,
  },
  {
    ...pppd,
    name: 'pptp-linux',
    source:
      'field notes, ppp §2 row pppd, pptp-mppe §2, §3; the real one runs in the interop suite',
    assumed: ['fields of its control messages', 'first sequence number 1', 'how it leaves'],
    start: {
      ...{ framing: 3, bearer: 3, maxChannels: 65_535, firmwareRevision: 1 },
      ...{ hostName: 'local', vendorName: 'cananian' },
    },
    call: {
      ...{ minimumBps: 2400, maximumBps: 1_000_000_000, bearer: 3, framing: 3 },
      ...{ windowPackets: 3, processingDelay: 0 },
    },
    setsLinkInfo: false,
    firstSequence: 1,
    acknowledges: 'alone',
    asksForEcho: true,
    // With VJ compression, which "reject" in ppp §4 is about.
    ipcp: [
      [2, '002d0f01'],
      [3, '00000000'],
    ],
    networks: ['ccp', 'ipcp', 'ipv6cp'],
    leaves: ['terminate', 'clear', 'stop'],
  },
  {
    ...pppd,
    name: 'Android 11',
    source: 'field notes, ppp §2 row pppd, pptp-mppe §6 (Android 12 removed it)',
    assumed: ['fields of its control messages', 'never acknowledges alone', 'it just goes'],
    start: {
      ...{ framing: 3, bearer: 3, maxChannels: 1, firmwareRevision: 0 },
      ...{ hostName: 'anonymous', vendorName: '' },
    },
    call: {
      ...{ minimumBps: 0, maximumBps: 1_000_000_000, bearer: 3, framing: 3 },
      ...{ windowPackets: 8192, processingDelay: 0 },
    },
    setsLinkInfo: false,
    firstSequence: 0,
    acknowledges: 'with-data',
    asksForEcho: false,
    ipcp: [
      [3, '00000000'],
      [129, '00000000'],
      [131, '00000000'],
    ],
    networks: ['ccp', 'ipcp'],
    leaves: [],
  },
  {
    name: 'MikroTik RouterOS',
    source: 'field notes, pptp-mppe §1 (its log of control messages), §2 (numbers from 1)',
    assumed: ['fields of its control messages', 'LCP and IPCP options', 'stateful bit left away'],
    start: {
      ...{ framing: 1, bearer: 1, maxChannels: 1, firmwareRevision: 1 },
      ...{ hostName: 'MikroTik', vendorName: 'MikroTik' },
    },
    call: {
      ...{ minimumBps: 300, maximumBps: 100_000_000, bearer: 3, framing: 3 },
      ...{ windowPackets: 32, processingDelay: 1 },
    },
    setsLinkInfo: false,
    firstSequence: 1,
    acknowledges: 'with-data',
    asksForEcho: true,
    lcp: [
      [1, '05aa'],
      [5, 'magic'],
    ],
    ipcp: [[3, '00000000']],
    networks: ['ccp', 'ipcp'],
    waitsForEncryption: false,
    encryption: { request: '01000060', wish: stateless128 },
    compressesHeaders: false,
    identifications: [],
    userName: name => name,
    leaves: ['clear', 'stop'],
  },
]

export function pptpPersona(name: string): PptpPersona {
  const found = pptpPersonas.find(one => one.name === name)
  if (found === undefined) throw new TypeError(name)
  return found
}
