/**
 * Stock SSTP clients as data: what each puts on the wire, in which order. `source` says where that is
 * written down; what no source says of a client is the specification's, and its list is `assumed`.
 */
import { utf8 } from '../../lib/core/bytes.ts'
import type { DisconnectCause } from '../../lib/core/disconnect-cause.ts'
import { contentLength, correlationId, headText, rawCorrelationId } from './raw-call.ts'

export type AuthenticationName = 'mschapv2' | 'chap-md5' | 'eap' | 'pap'

/** An option: its type and its value in hexadecimal. `magic` and `interface` are filled in. */
export type OptionText = readonly [type: number, value: string | 'magic' | 'interface']

export interface Persona {
  readonly name: string
  readonly source: string
  readonly assumed: readonly string[]
  readonly tls: 'TLSv1.2' | 'TLSv1.3'
  readonly head: (host: string, port: number) => string
  readonly lcp: readonly OptionText[]
  /** Identifier of the first Configure-Request; one counter for all protocols, or one for each. */
  readonly firstIdentifier: number
  readonly hasOneCounter: boolean
  /** What it agrees to; the first is what it asks for in a Configure-Nak. */
  readonly authentication: readonly AuthenticationName[]
  /** LCP Identifications (RFC 1570 §2.1), sent as soon as LCP is open. */
  readonly identifications: readonly Uint8Array[]
  /** How the name is written in the CHAP Response. */
  readonly userName: (name: string) => string
  /**
   * When Call-Connected leaves: in one write with the first NCP requests; by itself before them; when
   * IPCP is open.
   */
  readonly binds: 'with-requests' | 'on-success' | 'at-ip-up'
  /** Network protocols in the order of their first requests. */
  readonly networks: readonly ('ipv6cp' | 'ipcp')[]
  readonly ipcp: readonly OptionText[]
  /** Asks for a router as soon as IPv6 is up. */
  readonly solicitsRouter: boolean
  /** Asks for routes and DNS with DHCPINFORM as soon as IPv4 is up. */
  readonly informs: boolean
  /** Leaves away address, control and half of the protocol field once that is agreed. */
  readonly compressesHeaders: boolean
  /** A protocol that this client also tries, and that the server does not speak. */
  readonly triesProtocol?: number
  readonly leaves:
    | 'terminate-then-disconnect'
    | 'disconnect'
    | 'terminate-then-close'
    | 'abort'
    | 'close'
  readonly cause: DisconnectCause
}

const callback: OptionText = [13, '06']
const windowsIpcp: readonly OptionText[] = [
  [3, '00000000'],
  [129, '00000000'],
  [130, '00000000'],
  [131, '00000000'],
  [132, '00000000'],
]

const windows = {
  // §4.1: Content-Length, Host, SSTPCORRELATIONID.
  head: (host: string) =>
    headText(contentLength, `Host: ${host}`, `SSTPCORRELATIONID: {${correlationId}}`),
  // "LCP: ConfReq id=0 <mru 4091> <magic> <pcomp> <accomp> <callback CBCP>"
  lcp: [[1, '0ffb'], [5, 'magic'], [7, ''], [8, ''], callback],
  firstIdentifier: 0,
  // "ids run across protocols (IPV6CP id 5, IPCP id 6)"
  hasOneCounter: true,
  authentication: ['mschapv2'],
  identifications: [utf8('MSRASV5.20'), utf8('MSRAS-0-DESKTOP-7F3K2'), rawCorrelationId],
  userName: (name: string) => `OFFICE\\${name}`,
  // "concurrently with CCP/IPCP/IPV6CP ConfReqs", Call-Connected first
  binds: 'with-requests',
  networks: ['ipv6cp', 'ipcp'],
  ipcp: windowsIpcp,
  solicitsRouter: true,
  informs: true,
  compressesHeaders: true,
  leaves: 'terminate-then-disconnect',
  cause: 'user-request',
} as const

export const personas: readonly Persona[] = [
  {
    ...windows,
    name: 'Windows 10',
    source: 'field notes, sstp §5 and ppp §2, §4, §6: traces of a Windows 10 client',
    assumed: ['the name has a domain in front', 'how it hangs up: [MS-SSTP] §3.2.4.2'],
    tls: 'TLSv1.2',
  },
  {
    ...windows,
    name: 'Windows 11',
    source: 'field notes, sstp §5 (TLS 1.3 may be offered; router solicitations must be answered)',
    assumed: ['TLS 1.3 for SSTP', 'all else as Windows 10'],
    tls: 'TLSv1.3',
    head: (host, port) =>
      headText(
        `SSTPCORRELATIONID: {${correlationId.toLowerCase()}}`,
        contentLength,
        `Host: ${host}:${port}`,
      ),
    // Multilink is on by default in some editions: "+ mrru 1614, endpoint discriminator class 1, ssnhf".
    lcp: [
      [1, '0ffb'],
      [5, 'magic'],
      [7, ''],
      [8, ''],
      callback,
      [17, '064e'],
      [19, `01${'5c'.repeat(20)}`],
      [18, ''],
    ],
    userName: name => name,
  },
  {
    name: 'sstp-client with pppd',
    source: 'field notes, sstp §4 (Call-Connected on CHAP Success), ppp §2 row pppd',
    assumed: ['the order of the HTTP headers', 'pppd asks for CCP first', 'TLS 1.3'],
    tls: 'TLSv1.3',
    head: (host, port) =>
      headText(
        `Host: ${host}:${port}`,
        contentLength,
        `SSTPCORRELATIONID: {${correlationId.toLowerCase()}}`,
      ),
    lcp: [
      [2, '00000000'],
      [5, 'magic'],
      [7, ''],
      [8, ''],
    ],
    firstIdentifier: 1,
    hasOneCounter: false,
    authentication: ['mschapv2', 'chap-md5', 'pap'],
    identifications: [],
    userName: name => name,
    binds: 'on-success',
    networks: ['ipcp', 'ipv6cp'],
    // With VJ compression, which "reject" in ppp §4 is about.
    ipcp: [
      [2, '002d0f01'],
      [3, '00000000'],
      [129, '00000000'],
      [131, '00000000'],
    ],
    solicitsRouter: true,
    informs: false,
    compressesHeaders: true,
    triesProtocol: 0x80fd,
    leaves: 'terminate-then-close',
    cause: 'user-request',
  },
  {
    name: 'Open SSTP Client (Android)',
    source: 'field notes, sstp §5: SSTPCORRELATIONID in braces; PAP and MS-CHAPv2',
    assumed: ['LCP asks for an MRU only', 'one DNS server', 'Call-Connected when IPCP is open'],
    tls: 'TLSv1.3',
    head: host => headText(contentLength, `Host: ${host}`, `SSTPCORRELATIONID: {${correlationId}}`),
    lcp: [[1, '05dc']],
    firstIdentifier: 1,
    hasOneCounter: true,
    authentication: ['mschapv2', 'pap'],
    identifications: [],
    userName: name => name,
    binds: 'at-ip-up',
    networks: ['ipcp', 'ipv6cp'],
    ipcp: [
      [3, '00000000'],
      [129, '00000000'],
    ],
    solicitsRouter: true,
    informs: false,
    compressesHeaders: false,
    leaves: 'disconnect',
    cause: 'user-request',
  },
  {
    name: 'MikroTik RouterOS',
    source: 'field notes, sstp §5: TLS "only-1.2"; ppp §3: RouterOS and PAP',
    assumed: ['LCP options', 'order of the headers', 'IPv4 only', 'it closes TLS to hang up'],
    tls: 'TLSv1.2',
    head: (host, port) => headText(`Host: ${host}:${port}`, contentLength),
    lcp: [
      [1, '05dc'],
      [5, 'magic'],
    ],
    firstIdentifier: 1,
    hasOneCounter: true,
    authentication: ['mschapv2', 'pap'],
    identifications: [],
    userName: name => name,
    binds: 'on-success',
    networks: ['ipcp'],
    ipcp: [[3, '00000000']],
    solicitsRouter: false,
    informs: false,
    compressesHeaders: false,
    leaves: 'close',
    cause: 'lost-carrier',
  },
]

export function persona(name: string): Persona {
  const found = personas.find(one => one.name === name)
  if (found === undefined) throw new TypeError(name)
  return found
}
