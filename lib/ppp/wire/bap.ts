/**
 * Datagrams of the Bandwidth Allocation Protocol (RFC 2125 §5.5, §6), behind the PPP protocol 0xc02d.
 *
 * ```
 *  0                   1                   2                   3
 *  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |     Type      |  Identifier   |            Length             |
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * | Response Code |  in responses only; then options
 * +-+-+-+-+-+-+-+-+
 * ```
 */
import { concatBytes, putU16, u16, utf8 } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'
import { checkControlPacket, encodeControlPacket, parseControlPacket } from './control-packet.ts'
import { printableText } from './link-packet.ts'
import { checkOptions, encodeOptions, type Option, type OptionRow, parseOptions } from './option.ts'

export const BapType = {
  callRequest: 1,
  callResponse: 2,
  callbackRequest: 3,
  callbackResponse: 4,
  linkDropQueryRequest: 5,
  linkDropQueryResponse: 6,
  callStatusIndication: 7,
  callStatusResponse: 8,
} as const
export type BapType = (typeof BapType)[keyof typeof BapType]

/** RFC 2125 §5.5: what a response says. */
export const BapResponse = {
  ack: 0,
  /** Not now. */
  nak: 1,
  /** A request of this kind is not implemented, or not allowed. */
  reject: 2,
  /** Not before the bundle has changed: it has all, or only, the links that it may have. */
  fullNak: 3,
} as const

const optionRows = {
  linkType: { type: 1, dataBytes: 3 },
  noPhoneNumberNeeded: { type: 3, dataBytes: 0 },
  linkDiscriminator: { type: 5, dataBytes: 2 },
  callStatus: { type: 6, dataBytes: 2 },
} as const satisfies Record<string, OptionRow>
const phoneDelta = 2
const reason = 4
/** RFC 2125 §6.2: inside a Phone-Delta. */
const phoneParts = { uniqueDigits: 1, subscriberNumber: 2, subAddress: 3 } as const

/** RFC 2125 §6.1: kinds of links, one bit each. */
export const LinkKind = {
  isdn: 0x01,
  x25: 0x02,
  analog: 0x04,
  /** Switched digital, not ISDN: what comes nearest to a tunnel. */
  switchedDigital: 0x08,
  isdnDataOverVoice: 0x10,
} as const

/** RFC 2125 §6.6: other values are causes of Q.931. */
export const CallStatus = { success: 0, unspecificFailure: 255 } as const
export const CallAction = { noRetry: 0, retry: 1 } as const

/** How a number differs from the one that was dialled first; no digit at all: the same. */
export interface PhoneDelta {
  readonly uniqueDigits: number
  readonly subscriberNumber: string
  readonly subAddress: string
}

/** Absent is what was not said. */
export interface BapOptions {
  readonly link?: { readonly kilobitsPerSecond: number; readonly kinds: number }
  readonly phoneDeltas?: readonly PhoneDelta[]
  readonly isNumberNeedless?: boolean
  readonly reason?: string
  readonly discriminator?: number
  readonly callStatus?: { readonly status: number; readonly action: number }
}

export interface BapPacket {
  readonly type: BapType
  readonly identifier: number
  /** Of responses; one of `BapResponse`, or what nobody knows. */
  readonly response?: number
  readonly options: BapOptions
}

const typeNumbers: ReadonlySet<number> = new Set(Object.values(BapType))

function isBapType(code: number): code is BapType {
  return typeNumbers.has(code)
}

/** Responses have even numbers. */
export function isBapResponse(type: BapType): boolean {
  return (type & 1) === 0
}

/** The only place that looks at lengths. Options that nobody knows are none of its business. */
export function checkBapPacket(bytes: Uint8Array, at: number, length: number): WireFault {
  const fault = checkControlPacket(bytes, at, length)
  if (fault) return fault
  const { code, data } = parseControlPacket(bytes, at)
  if (!isBapType(code)) return WireFault['unknown-type']
  if (isBapResponse(code) && data.length === 0) return WireFault.truncated
  const list = data.subarray(isBapResponse(code) ? 1 : 0)
  const listFault = checkOptions(list)
  if (listFault) return listFault
  for (const option of parseOptions(list)) {
    const optionFault = checkOption(option)
    if (optionFault) return optionFault
  }
  return WireFault.none
}

/** Cannot fail after `checkBapPacket`. */
export function parseBapPacket(bytes: Uint8Array, at: number): BapPacket {
  const { code, identifier, data } = parseControlPacket(bytes, at)
  const type = isBapType(code) ? code : BapType.callRequest
  if (!isBapResponse(type)) return { type, identifier, options: optionsOf(parseOptions(data)) }
  const options = optionsOf(parseOptions(data.subarray(1)))
  return { type, identifier, response: data[0] ?? BapResponse.reject, options }
}

export function encodeBapPacket({ type, identifier, response, options }: BapPacket): Uint8Array {
  const list = encodeOptions(optionList(options))
  const head = isBapResponse(type) ? Uint8Array.of(response ?? BapResponse.reject) : []
  return encodeControlPacket({
    code: type,
    identifier,
    data: concatBytes(Uint8Array.from(head), list),
  })
}

function checkOption({ type, data }: Option): WireFault {
  for (const row of Object.values(optionRows)) {
    if (row.type === type && row.dataBytes !== data.length) return WireFault['bad-value']
  }
  if (type !== phoneDelta) return WireFault.none
  const fault = checkOptions(data)
  if (fault) return fault
  const digits = parseOptions(data).find(part => part.type === phoneParts.uniqueDigits)
  if (digits === undefined) return WireFault.missing
  return digits.data.length === 1 ? WireFault.none : WireFault['bad-value']
}

/** Of options that are there twice the last counts; of numbers all do. */
function optionsOf(list: readonly Option[]): BapOptions {
  let options: BapOptions = {}
  for (const { type, data } of list) {
    switch (type) {
      case optionRows.linkType.type: {
        const link = { kilobitsPerSecond: u16(data, 0), kinds: data[2] ?? 0 }
        options = { ...options, link }
        break
      }
      case phoneDelta:
        options = { ...options, phoneDeltas: [...(options.phoneDeltas ?? []), phoneDeltaOf(data)] }
        break
      case optionRows.noPhoneNumberNeeded.type:
        options = { ...options, isNumberNeedless: true }
        break
      case reason:
        options = { ...options, reason: printableText(data) ?? '' }
        break
      case optionRows.linkDiscriminator.type:
        options = { ...options, discriminator: u16(data, 0) }
        break
      case optionRows.callStatus.type: {
        const callStatus = { status: data[0] ?? 0, action: data[1] ?? 0 }
        options = { ...options, callStatus }
        break
      }
    }
  }
  return options
}

function phoneDeltaOf(data: Uint8Array): PhoneDelta {
  const parts = parseOptions(data)
  const partOf = (wanted: number) => parts.find(({ type }) => type === wanted)?.data
  const textOf = (wanted: number) => printableText(partOf(wanted) ?? new Uint8Array(0)) ?? ''
  return {
    uniqueDigits: partOf(phoneParts.uniqueDigits)?.[0] ?? 0,
    subscriberNumber: textOf(phoneParts.subscriberNumber),
    subAddress: textOf(phoneParts.subAddress),
  }
}

/** In the order of their numbers. */
function optionList(options: BapOptions): Option[] {
  const list: Option[] = []
  const { link, phoneDeltas = [], isNumberNeedless, discriminator, callStatus } = options
  if (link !== undefined) {
    const data = new Uint8Array(optionRows.linkType.dataBytes)
    putU16(data, 0, link.kilobitsPerSecond)
    data[2] = link.kinds
    list.push({ type: optionRows.linkType.type, data })
  }
  for (const delta of phoneDeltas) list.push({ type: phoneDelta, data: phoneDeltaData(delta) })
  if (isNumberNeedless === true) {
    list.push({ type: optionRows.noPhoneNumberNeeded.type, data: new Uint8Array(0) })
  }
  if (options.reason !== undefined) list.push({ type: reason, data: utf8(options.reason) })
  if (discriminator !== undefined) {
    const data = new Uint8Array(optionRows.linkDiscriminator.dataBytes)
    putU16(data, 0, discriminator)
    list.push({ type: optionRows.linkDiscriminator.type, data })
  }
  if (callStatus !== undefined) {
    const data = Uint8Array.of(callStatus.status, callStatus.action)
    list.push({ type: optionRows.callStatus.type, data })
  }
  return list
}

function phoneDeltaData({ uniqueDigits, subscriberNumber, subAddress }: PhoneDelta): Uint8Array {
  const { uniqueDigits: digits, subscriberNumber: number, subAddress: sub } = phoneParts
  return encodeOptions([
    { type: digits, data: Uint8Array.of(uniqueDigits) },
    { type: number, data: utf8(subscriberNumber) },
    ...(subAddress === '' ? [] : [{ type: sub, data: utf8(subAddress) }]),
  ])
}
