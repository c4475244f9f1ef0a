/**
 * Every AVP of RFC 2661 §4.4 and RFC 3145, and every message with the AVPs that it must and may
 * hold (RFC 2661 §6), as data. Codecs and types are derived from these two tables.
 */
import type { AvpFormat } from './avp-value.ts'

export interface AvpDefinition {
  /** Attribute Type; the vendor is 0, the IETF. */
  readonly type: number
  readonly format: AvpFormat
  /** The M bit that we send. */
  readonly isMandatory: boolean
  /** The H bit may be set. */
  readonly canBeHidden: boolean
}

const M = true
const optional = false
const H = true
const clear = false

const avp = <F extends AvpFormat>(
  type: number,
  format: F,
  isMandatory: boolean,
  canBeHidden: boolean,
) => ({ type, format, isMandatory, canBeHidden }) as const

// biome-ignore format: a table
export const avpTable = {
  messageType:             avp(0,  'u16',         M,        clear),
  resultCode:              avp(1,  'result',      M,        clear),
  protocolVersion:         avp(2,  'version',     M,        clear),
  framingCapabilities:     avp(3,  'u32',         M,        H),
  bearerCapabilities:      avp(4,  'u32',         M,        H),
  tieBreaker:              avp(5,  'tie-breaker', optional, clear),
  firmwareRevision:        avp(6,  'u16',         optional, H),
  hostName:                avp(7,  'text',        M,        clear),
  vendorName:              avp(8,  'text',        optional, H),
  assignedTunnelId:        avp(9,  'u16',         M,        H),
  receiveWindowSize:       avp(10, 'u16',         M,        clear),
  challenge:               avp(11, 'octets',      M,        H),
  q931CauseCode:           avp(12, 'q931-cause',  M,        clear),
  challengeResponse:       avp(13, 'md5-digest',  M,        H),
  assignedSessionId:       avp(14, 'u16',         M,        H),
  callSerialNumber:        avp(15, 'u32',         M,        H),
  minimumBps:              avp(16, 'u32',         M,        H),
  maximumBps:              avp(17, 'u32',         M,        H),
  bearerType:              avp(18, 'u32',         M,        H),
  framingType:             avp(19, 'u32',         M,        H),
  calledNumber:            avp(21, 'text',        M,        H),
  callingNumber:           avp(22, 'text',        M,        H),
  subAddress:              avp(23, 'text',        M,        H),
  connectSpeedBps:         avp(24, 'u32',         M,        H),
  physicalChannelId:       avp(25, 'u32',         optional, H),
  initialReceivedConfReq:  avp(26, 'octets',      optional, H),
  lastSentConfReq:         avp(27, 'octets',      optional, H),
  lastReceivedConfReq:     avp(28, 'octets',      optional, H),
  proxyAuthenType:         avp(29, 'u16',         optional, H),
  proxyAuthenName:         avp(30, 'octets',      optional, H),
  proxyAuthenChallenge:    avp(31, 'octets',      optional, H),
  proxyAuthenId:           avp(32, 'proxy-id',    optional, H),
  proxyAuthenResponse:     avp(33, 'octets',      optional, H),
  callErrors:              avp(34, 'call-errors', M,        H),
  accm:                    avp(35, 'accm',        M,        H),
  randomVector:            avp(36, 'octets',      M,        clear),
  privateGroupId:          avp(37, 'octets',      optional, H),
  receiveConnectSpeedBps:  avp(38, 'u32',         optional, H),
  sequencingRequired:      avp(39, 'empty',       M,        clear),
  pppDisconnectCause:      avp(46, 'ppp-cause',   optional, H),
} as const satisfies Record<string, AvpDefinition>

export type AvpName = keyof typeof avpTable

export interface MessageDefinition {
  readonly code: number
  /** Concerns one session: faults end the session, not the tunnel. */
  readonly isSession: boolean
  readonly required: readonly AvpName[]
  readonly allowed: readonly AvpName[]
}

/**
 * RFC 2661 §6.1-§6.14. StopCCN and CDN ask for less than the RFC: who wants to end something is not
 * refused for a missing AVP. We always send those AVPs.
 */
export const messageTable = {
  sccrq: {
    code: 1,
    isSession: false,
    required: ['protocolVersion', 'hostName', 'framingCapabilities', 'assignedTunnelId'],
    allowed: [
      'bearerCapabilities',
      'receiveWindowSize',
      'challenge',
      'tieBreaker',
      'firmwareRevision',
      'vendorName',
    ],
  },
  sccrp: {
    code: 2,
    isSession: false,
    required: ['protocolVersion', 'hostName', 'framingCapabilities', 'assignedTunnelId'],
    allowed: [
      'bearerCapabilities',
      'receiveWindowSize',
      'challenge',
      'challengeResponse',
      'firmwareRevision',
      'vendorName',
    ],
  },
  scccn: { code: 3, isSession: false, required: [], allowed: ['challengeResponse'] },
  stopccn: { code: 4, isSession: false, required: [], allowed: ['assignedTunnelId', 'resultCode'] },
  hello: { code: 6, isSession: false, required: [], allowed: [] },
  ocrq: {
    code: 7,
    isSession: true,
    required: [
      'assignedSessionId',
      'callSerialNumber',
      'minimumBps',
      'maximumBps',
      'bearerType',
      'framingType',
      'calledNumber',
    ],
    allowed: ['subAddress'],
  },
  ocrp: {
    code: 8,
    isSession: true,
    required: ['assignedSessionId'],
    allowed: ['physicalChannelId'],
  },
  occn: {
    code: 9,
    isSession: true,
    required: ['connectSpeedBps', 'framingType'],
    allowed: ['receiveConnectSpeedBps', 'sequencingRequired'],
  },
  icrq: {
    code: 10,
    isSession: true,
    required: ['assignedSessionId', 'callSerialNumber'],
    allowed: ['bearerType', 'physicalChannelId', 'callingNumber', 'calledNumber', 'subAddress'],
  },
  icrp: { code: 11, isSession: true, required: ['assignedSessionId'], allowed: [] },
  iccn: {
    code: 12,
    isSession: true,
    required: ['connectSpeedBps', 'framingType'],
    allowed: [
      'initialReceivedConfReq',
      'lastSentConfReq',
      'lastReceivedConfReq',
      'proxyAuthenType',
      'proxyAuthenName',
      'proxyAuthenChallenge',
      'proxyAuthenId',
      'proxyAuthenResponse',
      'privateGroupId',
      'receiveConnectSpeedBps',
      'sequencingRequired',
    ],
  },
  cdn: {
    code: 14,
    isSession: true,
    required: [],
    allowed: ['resultCode', 'assignedSessionId', 'q931CauseCode', 'pppDisconnectCause'],
  },
  wen: { code: 15, isSession: true, required: ['callErrors'], allowed: [] },
  sli: { code: 16, isSession: true, required: ['accm'], allowed: [] },
} as const satisfies Record<string, MessageDefinition>

export type MessageName = keyof typeof messageTable

/** RFC 2661 §4.4.2: Result Codes of StopCCN. */
export const StopResult = {
  clear: 1,
  'general-error': 2,
  'channel-exists': 3,
  'not-authorized': 4,
  'version-not-supported': 5,
  'shutting-down': 6,
  'state-machine-error': 7,
} as const

export type StopResult = keyof typeof StopResult

/** RFC 2661 §4.4.2: Result Codes of CDN. */
export const CallResult = {
  'lost-carrier': 1,
  'general-error': 2,
  administrative: 3,
  'no-facilities': 4,
  'no-facilities-permanent': 5,
  'invalid-destination': 6,
  'no-carrier': 7,
  busy: 8,
  'no-dial-tone': 9,
  'not-established-in-time': 10,
  'no-framing': 11,
} as const

export type CallResult = keyof typeof CallResult

/** RFC 2661 §4.4.2: General Error Codes, which go with result 2 (and some others). */
export const GeneralError = {
  none: 0,
  'no-control-connection': 1,
  'wrong-length': 2,
  'out-of-range': 3,
  'insufficient-resources': 4,
  'invalid-session-id': 5,
  'vendor-specific': 6,
  'try-another': 7,
  'unknown-mandatory-avp': 8,
} as const

export type GeneralError = keyof typeof GeneralError
