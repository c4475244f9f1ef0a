/**
 * What ends PEAPv0 inside its tunnel, [MS-PEAP] §2.2.8: an EAP packet of type 33 with a Result TLV and a
 * Cryptobinding TLV, which proves that tunnel and inner method have the same two ends.
 *
 *  |M|R|  TLV Type (14)  |  Length  |  Value ...
 */
import { createHmac } from 'node:crypto'
import { concatBytes, equalBytes, putBytes, putU16, u16, utf8 } from '../core/bytes.ts'
import { wipe } from '../core/secret.ts'
import { EapType } from './packet.ts'

/** IANA: EAP type "MS-Authentication-TLV", [MS-PEAP] §2.2.8. */
export const EAP_EXTENSIONS_TYPE = 33

const TLV_TYPE_MASK = 0x3fff
const TLV_MANDATORY = 0x8000
const TlvType = { Result: 3, Cryptobinding: 12 } as const
const TLV_HEADER_BYTES = 4
const BINDING_BYTES = 60
const NONCE_AT = 8
export const NONCE_BYTES = 32
const MAC_AT = 40
const MAC_BYTES = 20
const SUBTYPE_AT = 7
const MOST_TLVS = 16

/** Keys of one tunnel. */
export interface BindingKeys {
  /** 40 bytes. */
  readonly ipmk: Uint8Array
  /** 20 bytes. */
  readonly cmk: Uint8Array
}

/** [MS-PEAP] §3.1.5.5.2.1: PRF+ of version 0; HMAC-SHA1 blocks with a counter and two zero bytes. */
function prfPlus(key: Uint8Array, seed: Uint8Array, lengthBytes: number): Uint8Array {
  const out = new Uint8Array(lengthBytes)
  let block: Uint8Array = new Uint8Array(0)
  for (let [at, counter] = [0, 1]; at < lengthBytes; counter++) {
    block = createHmac('sha1', key)
      .update(concatBytes(block, seed, Uint8Array.of(counter, 0, 0)))
      .digest()
    const part = block.subarray(0, lengthBytes - at)
    at = putBytes(out, at, part)
  }
  return out
}

/** `tunnelKey`: first 60 bytes of the tunnel's key material; `innerKey`: 32 bytes of the inner MSK. */
export function bindingKeysOf(tunnelKey: Uint8Array, innerKey: Uint8Array): BindingKeys {
  const seed = concatBytes(utf8('Inner Methods Compound Keys'), innerKey)
  const both = prfPlus(tunnelKey.subarray(0, 40), seed, 60)
  const keys = { ipmk: both.slice(0, 40), cmk: both.slice(40) }
  wipe(both, seed)
  return keys
}

/** The compound session key, 128 bytes; the first 64 are the MSK. */
export function compoundSessionKey({ ipmk }: BindingKeys): Uint8Array {
  return prfPlus(ipmk, utf8('Session Key Generating Function\0'), 128)
}

/** The MAC covers the TLV with zeros in its place, and the type of PEAP. */
function macOf(tlv: Uint8Array, cmk: Uint8Array): Uint8Array {
  const copy = tlv.slice()
  copy.fill(0, MAC_AT, MAC_AT + MAC_BYTES)
  return createHmac('sha1', cmk).update(copy).update(Uint8Array.of(EapType.PEAP)).digest()
}

/** The TLV with its header; `subtype` is that of §2.2.8.1.1. */
export function cryptobindingTlv(
  subtype: 'request' | 'response',
  nonce: Uint8Array,
  { cmk }: BindingKeys,
): Uint8Array {
  const tlv = new Uint8Array(BINDING_BYTES)
  putU16(tlv, 0, TlvType.Cryptobinding)
  putU16(tlv, 2, BINDING_BYTES - TLV_HEADER_BYTES)
  tlv[SUBTYPE_AT] = subtype === 'request' ? 0 : 1
  putBytes(tlv, NONCE_AT, nonce)
  putBytes(tlv, MAC_AT, macOf(tlv, cmk))
  return tlv
}

export function resultTlv(isSuccess: boolean): Uint8Array {
  const tlv = new Uint8Array(6)
  putU16(tlv, 0, TLV_MANDATORY | TlvType.Result)
  putU16(tlv, 2, 2)
  putU16(tlv, 4, isSuccess ? 1 : 2)
  return tlv
}

/** What a peer has answered. */
export interface ExtensionsAnswer {
  readonly isSuccess: boolean
  /** The whole TLV; absent when the peer does not bind. */
  readonly binding: Uint8Array | undefined
}

/** Undefined when it is malformed or has no result. Other TLVs are passed over. */
export function parseExtensions(typeData: Uint8Array): ExtensionsAnswer | undefined {
  let result: number | undefined
  let binding: Uint8Array | undefined
  let at = 0
  for (let count = 0; at < typeData.length; count++) {
    if (count >= MOST_TLVS || typeData.length - at < TLV_HEADER_BYTES) return undefined
    const type = u16(typeData, at) & TLV_TYPE_MASK
    const end = at + TLV_HEADER_BYTES + u16(typeData, at + 2)
    if (end > typeData.length) return undefined
    if (type === TlvType.Result) {
      if (end - at !== 6 || result !== undefined) return undefined
      result = u16(typeData, at + TLV_HEADER_BYTES)
    }
    if (type === TlvType.Cryptobinding) {
      if (end - at !== BINDING_BYTES || binding !== undefined) return undefined
      binding = typeData.slice(at, end)
    }
    at = end
  }
  return result === undefined ? undefined : { isSuccess: result === 1, binding }
}

export function isBindingResponse(tlv: Uint8Array, { cmk }: BindingKeys): boolean {
  const mac = tlv.subarray(MAC_AT, MAC_AT + MAC_BYTES)
  return tlv[SUBTYPE_AT] === 1 && equalBytes(mac, macOf(tlv, cmk))
}
