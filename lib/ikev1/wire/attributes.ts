/**
 * Data attributes of transforms: RFC 2408 §3.3.
 *
 *     |A|       Attribute Type        |    AF=0  Attribute Length     |
 *     |F|                             |    AF=1  Attribute Value      |
 *     |                   AF=0  Attribute Value                       |
 *
 * Lifetimes come in either form, so both are numbers here. Order matters: a life duration belongs to
 * the life type before it.
 */
import { copyBytes, putBytes, putU16, putU32, u16, u32 } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'

export interface Attribute {
  readonly type: number
  /** A value of up to 32 bits; longer ones are kept as they are. */
  readonly value: number | Uint8Array
}

const headerBytes = 4
const mostAttributes = 32
const shortForm = 0x8000

/** The attributes of `length` bytes at `at`, or what is wrong with them. */
export function parseAttributes(
  buf: Uint8Array,
  at: number,
  length: number,
): Attribute[] | WireFault {
  const attributes: Attribute[] = []
  const end = at + length
  for (let next = at; next < end; ) {
    if (end - next < headerBytes) return WireFault.truncated
    if (attributes.length === mostAttributes) return WireFault['too-many']
    const type = u16(buf, next) & ~shortForm
    const field = u16(buf, next + 2)
    if ((u16(buf, next) & shortForm) !== 0) {
      attributes.push({ type, value: field })
      next += headerBytes
      continue
    }
    next += headerBytes
    if (field > end - next) return WireFault['length-overrun']
    if (field === 2) attributes.push({ type, value: u16(buf, next) })
    else if (field === 4) attributes.push({ type, value: u32(buf, next) })
    else attributes.push({ type, value: copyBytes(buf, next, next + field) })
    next += field
  }
  return attributes
}

function isShort(attribute: Attribute): boolean {
  return typeof attribute.value === 'number' && attribute.value <= 0xffff
}

export function encodedAttributesBytes(attributes: readonly Attribute[]): number {
  let length = 0
  for (const attribute of attributes) {
    const longBytes = typeof attribute.value === 'number' ? 4 : attribute.value.length
    length += headerBytes + (isShort(attribute) ? 0 : longBytes)
  }
  return length
}

/** Writes the attributes, numbers in the shortest form; returns the offset after them. */
export function encodeAttributes(
  attributes: readonly Attribute[],
  out: Uint8Array,
  at: number,
): number {
  let to = at
  for (const { type, value } of attributes) {
    if (typeof value !== 'number') {
      to = putU16(out, putU16(out, to, type), value.length)
      to = putBytes(out, to, value)
    } else if (value <= 0xffff) {
      to = putU16(out, putU16(out, to, type | shortForm), value)
    } else {
      to = putU16(out, putU16(out, to, type), 4)
      to = putU32(out, to, value)
    }
  }
  return to
}
