/** Attributes by name: a list that is built, and questions to a list that was received. */
import { concatBytes, copyBytes, putU32, u32, utf8, utf8Text } from '../../../core/bytes.ts'
import type { Ipv6Network } from '../../../core/ip-address.ts'
import { type AttributeName, dictionary, type NameOf } from './dictionary.ts'
import { longestValueBytes, type RadiusAttribute } from './packet.ts'

/** In the order in which they were added. */
export class AttributeList {
  readonly #attributes: RadiusAttribute[] = []

  get attributes(): readonly RadiusAttribute[] {
    return this.#attributes
  }

  bytes(name: NameOf<'bytes'>, value: Uint8Array): this {
    return this.#add(name, value)
  }

  /** Cut at 253 bytes: a longer text cannot be said. */
  text(name: NameOf<'text'>, value: string): this {
    const bytes = utf8(value)
    return this.#add(name, copyBytes(bytes, 0, Math.min(bytes.length, longestValueBytes)))
  }

  u32(name: NameOf<'u32'>, value: number): this {
    return this.#add(name, u32Bytes(value))
  }

  ipv4(name: NameOf<'ipv4'>, address: number): this {
    return this.#add(name, u32Bytes(address))
  }

  ipv6(name: NameOf<'ipv6'>, address: Uint8Array): this {
    return this.#add(name, copyBytes(address))
  }

  prefix(name: NameOf<'ipv6-prefix'>, { address, prefixLength }: Ipv6Network): this {
    const bytes = Math.ceil(prefixLength / 8)
    return this.#add(
      name,
      concatBytes(Uint8Array.of(0, prefixLength), copyBytes(address, 0, bytes)),
    )
  }

  /** RFC 2868 §3.1: tag 0, so that the value may use all 24 bits; larger ones overwrite the tag. */
  taggedU32(name: NameOf<'tagged-u32'>, value: number): this {
    return this.#add(name, u32Bytes(value))
  }

  /** RFC 2868 §3.3, tag 0. */
  taggedText(name: NameOf<'tagged-text'>, value: string): this {
    return this.#add(name, concatBytes(Uint8Array.of(0), copyBytes(utf8(value), 0, 252)))
  }

  /** RFC 3579 §3.1: a long value in several attributes, one after the other. */
  split(name: 'EAP-Message', value: Uint8Array): this {
    for (let at = 0; at < value.length; at += longestValueBytes) {
      this.#add(name, copyBytes(value, at, Math.min(at + longestValueBytes, value.length)))
    }
    return this
  }

  all(attributes: readonly RadiusAttribute[]): this {
    this.#attributes.push(...attributes)
    return this
  }

  #add(name: AttributeName, value: Uint8Array): this {
    const [vendor, type] = dictionary[name]
    this.#attributes.push({ vendor, type, value })
    return this
  }
}

function u32Bytes(value: number): Uint8Array {
  const out = new Uint8Array(4)
  putU32(out, 0, value)
  return out
}

type Received = readonly RadiusAttribute[]

/** All values of that name, in order. */
export function bytesOfAll(list: Received, name: AttributeName): Uint8Array[] {
  const [vendor, type] = dictionary[name]
  return list.filter(one => one.vendor === vendor && one.type === type).map(({ value }) => value)
}

/** The first of that name. */
export function bytesOf(list: Received, name: AttributeName): Uint8Array | undefined {
  const [vendor, type] = dictionary[name]
  return list.find(one => one.vendor === vendor && one.type === type)?.value
}

export function textOf(list: Received, name: NameOf<'text'>): string | undefined {
  const value = bytesOf(list, name)
  return value === undefined ? undefined : utf8Text(value)
}

export function textsOf(list: Received, name: NameOf<'text'>): string[] {
  return bytesOfAll(list, name).map(utf8Text)
}

export function u32Of(list: Received, name: NameOf<'u32' | 'ipv4'>): number | undefined {
  const value = bytesOf(list, name)
  return value === undefined ? undefined : u32(value, 0)
}

/** Bits behind the prefix are taken as zero, and bytes that were left out as well. */
export function prefixOf(list: Received, name: NameOf<'ipv6-prefix'>): Ipv6Network | undefined {
  const value = bytesOf(list, name)
  if (value === undefined) return undefined
  const prefixLength = value[1] ?? 0
  const address = new Uint8Array(16)
  for (let bit = 0; bit < prefixLength; bit++) {
    const mask = 0x80 >>> (bit & 7)
    address[bit >>> 3] = (address[bit >>> 3] ?? 0) | ((value[2 + (bit >>> 3)] ?? 0) & mask)
  }
  return { address, prefixLength }
}

/** The parts of a value that was split over several attributes, put together. */
export function joinedOf(list: Received, name: NameOf<'bytes' | 'text'>): Uint8Array | undefined {
  const parts = bytesOfAll(list, name)
  return parts.length === 0 ? undefined : concatBytes(...parts)
}
