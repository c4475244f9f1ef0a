/**
 * Configuration options (RFC 1661 §6): type, length with header, data. What is not understood is
 * kept, since a Configure-Reject must quote it.
 *
 * ```
 *  0                   1
 *  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * |     Type      |    Length     |  Data ...
 * +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
 * ```
 */
import { copyBytes, equalBytes, putBytes, putU32, u32 } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'

const LENGTH_AT = 1
export const optionHeaderBytes = 2
/** Implementation constant: nobody sends a third of this; it bounds what one packet costs. */
export const maxOptions = 48

export interface Option {
  readonly type: number
  readonly data: Uint8Array
}

/** One row of an option table. `dataBytes` is the only length that the option may have. */
export interface OptionRow {
  readonly type: number
  readonly dataBytes: number
}

/** Whether `data` is a list of whole options and nothing else. */
export function checkOptions(data: Uint8Array): WireFault {
  let count = 0
  for (let at = 0; at < data.length; ) {
    if (data.length - at < optionHeaderBytes) return WireFault.truncated
    const lengthBytes = data[at + LENGTH_AT] ?? 0
    if (lengthBytes < optionHeaderBytes) return WireFault['length-too-small']
    if (lengthBytes > data.length - at) return WireFault['length-overrun']
    if (++count > maxOptions) return WireFault['too-many']
    at += lengthBytes
  }
  return WireFault.none
}

/** Cannot fail after `checkOptions`. */
export function parseOptions(data: Uint8Array): Option[] {
  const options: Option[] = []
  for (let at = 0; at < data.length; ) {
    const end = at + Math.max(data[at + LENGTH_AT] ?? 0, optionHeaderBytes)
    options.push({ type: data[at] ?? 0, data: copyBytes(data, at + optionHeaderBytes, end) })
    at = end
  }
  return options
}

export function optionsBytes(options: readonly Option[]): number {
  let length = 0
  for (const option of options) length += optionHeaderBytes + option.data.length
  return length
}

export function putOptions(options: readonly Option[], out: Uint8Array, at: number): number {
  let to = at
  for (const { type, data } of options) {
    out[to] = type
    out[to + LENGTH_AT] = optionHeaderBytes + data.length
    to = putBytes(out, to + optionHeaderBytes, data)
  }
  return to
}

export function encodeOptions(options: readonly Option[]): Uint8Array {
  const out = new Uint8Array(optionsBytes(options))
  putOptions(options, out, 0)
  return out
}

/** Two options that would look the same on the wire. */
export function isSameOption(a: Option, b: Option): boolean {
  return a.type === b.type && equalBytes(a.data, b.data)
}

/** Whether the option's type is in the table and its length is the one the table gives. */
export function isWellFormed(table: Readonly<Record<string, OptionRow>>, option: Option): boolean {
  for (const row of Object.values(table)) {
    if (row.type === option.type) return row.dataBytes === option.data.length
  }
  return false
}

export function optionU32(type: number, value: number): Option {
  const data = new Uint8Array(4)
  putU32(data, 0, value)
  return { type, data }
}

export function u32OfOption(option: Option): number {
  return u32(option.data, 0)
}
