/** LCP options (RFC 1661 §6, RFC 1662 §7, RFC 1570 §2, RFC 1990 §5) as one table. */
import { putU16, u16 } from '../../core/bytes.ts'
import type { Option, OptionRow } from './option.ts'

/** Those that we negotiate. The authentication option has 2 or 3 bytes and is checked apart. */
export const lcpOptions = {
  maximumReceiveUnit: { type: 1, dataBytes: 2 },
  asyncControlCharacterMap: { type: 2, dataBytes: 4 },
  magicNumber: { type: 5, dataBytes: 4 },
  protocolFieldCompression: { type: 7, dataBytes: 0 },
  addressAndControlFieldCompression: { type: 8, dataBytes: 0 },
} as const satisfies Record<string, OptionRow>

export const authenticationOption = 3

/** Those that we know by name and reject. */
export const rejectedLcpOptions = {
  qualityProtocol: 4,
  fcsAlternatives: 9,
  selfDescribingPad: 10,
  numberedMode: 11,
  callback: 13,
} as const

/** RFC 1990 §5.1, RFC 2125 §2.1: negotiated on links that may be bundled, rejected on all others. */
export const multilinkOptions = { mrru: 17, short: 18, endpoint: 19, discriminator: 23 } as const
export type MultilinkOptionName = keyof typeof multilinkOptions

/** RFC 1661 §6.1: what holds when nothing is negotiated. */
export const defaultMruBytes = 1500

/** An authentication protocol as option 3 names it: RFC 1661 §6.2, RFC 1994 §3, RFC 2759 §3, RFC 2284 §2. */
export const authenticationValues = {
  mschapv2: [0xc2, 0x23, 0x81],
  'chap-md5': [0xc2, 0x23, 0x05],
  eap: [0xc2, 0x27],
  pap: [0xc0, 0x23],
} as const satisfies Record<string, readonly number[]>

export type AuthenticationProtocol = keyof typeof authenticationValues

const authenticationNames = [
  'eap',
  'mschapv2',
  'chap-md5',
  'pap',
] as const satisfies readonly AuthenticationProtocol[]

export function authenticationOptionOf(protocol: AuthenticationProtocol): Option {
  return { type: authenticationOption, data: Uint8Array.from(authenticationValues[protocol]) }
}

/** Undefined for MS-CHAPv1, SHA-1 CHAP and whatever else we do not speak. */
export function authenticationOf(option: Option): AuthenticationProtocol | undefined {
  if (option.type !== authenticationOption) return undefined
  return authenticationNames.find(name => {
    const value = authenticationValues[name]
    return value.length === option.data.length && value.every((byte, i) => byte === option.data[i])
  })
}

export function mruOption(mruBytes: number): Option {
  const data = new Uint8Array(2)
  putU16(data, 0, mruBytes)
  return { type: lcpOptions.maximumReceiveUnit.type, data }
}

export function mruOf(option: Option): number {
  return u16(option.data, 0)
}
