/**
 * The one CCP option that we speak (RFC 1962 §4): Microsoft's, with its supported bits (RFC 3078 §2,
 * RFC 2118 §4).
 *
 * ```
 *  0                   1                   2                   3
 *  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |     Type      |    Length     |       0       |      H        |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |               |  M S L D   C  |   (least significant octets)
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * ```
 */
import { type Option, type OptionRow, optionU32 } from './option.ts'

export const ccpOptions = {
  microsoft: { type: 18, dataBytes: 4 },
} as const satisfies Record<string, OptionRow>

/** Codes above those of RFC 1661: RFC 1962 §3. */
export const CcpCode = { resetRequest: 14, resetAck: 15 } as const

/** Supported bits. */
export const MicrosoftBit = {
  stateless: 0x0100_0000,
  mppe56: 0x80,
  mppe128: 0x40,
  mppe40: 0x20,
  mppc: 0x01,
} as const

export const mppeBitOf = {
  128: MicrosoftBit.mppe128,
  56: MicrosoftBit.mppe56,
  40: MicrosoftBit.mppe40,
} as const

export type MppeKeyBits = keyof typeof mppeBitOf

export const mppeStrengths: readonly MppeKeyBits[] = [128, 56, 40]

export function microsoftOption(bits: number): Option {
  return optionU32(ccpOptions.microsoft.type, bits)
}
