/**
 * DHCP messages as they stand in UDP, for a relay agent and for the client behind it: RFC 2131 §2,
 * RFC 3046, RFC 3396, RFC 3527. The layout is drawn in `dhcp.ts`. Options in `sname` and `file` are not
 * read: what we ask for fits the options field.
 */
import { concatBytes, copyBytes, putBytes, putU16, putU32, u16, u32 } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'
import { DhcpOption, MAGIC_COOKIE, optionBytes, putOption } from './dhcp.ts'

const HOPS_AT = 3
const XID_AT = 4
const SECS_AT = 8
const CIADDR_AT = 12
const YIADDR_AT = 16
const GIADDR_AT = 24
const CHADDR_AT = 28
const COOKIE_AT = 236
const OPTIONS_AT = 240
const ETHERNET = 1
const ETHERNET_BYTES = 6
/** RFC 1542 §2.1. */
const SMALLEST_BYTES = 300
/** RFC 1542 §4.1.1: a message that came through so many relays goes in circles. */
const MOST_HOPS = 16
/** RFC 3527. */
const LINK_SELECTION = 5

export const DhcpOp = { request: 1, reply: 2 } as const

/** Addresses in host order, 0 for none. */
export interface DhcpMessage {
  readonly op: number
  readonly transactionId: number
  /** Since the client began. */
  readonly seconds: number
  readonly clientAddress: number
  readonly yourAddress: number
  readonly relayAddress: number
  /** 6 bytes. */
  readonly hardwareAddress: Uint8Array
  /** By code, what came in parts put together. */
  readonly options: ReadonlyMap<number, Uint8Array>
}

/** `parseDhcpMessage` takes what this finds good. */
export function checkDhcpMessage(bytes: Uint8Array): WireFault {
  if (bytes.length < OPTIONS_AT) return WireFault.truncated
  if (u32(bytes, COOKIE_AT) !== MAGIC_COOKIE) return WireFault['bad-magic']
  if (bytes[0] !== DhcpOp.request && bytes[0] !== DhcpOp.reply) return WireFault['bad-value']
  if ((bytes[2] ?? 0) > 16) return WireFault['length-overrun']
  let types = 0
  for (let at = OPTIONS_AT; at < bytes.length; ) {
    const code = bytes[at]
    if (code === DhcpOption.end) break
    if (code === DhcpOption.pad) {
      at++
      continue
    }
    if (at + 2 > bytes.length) return WireFault.truncated
    const lengthBytes = bytes[at + 1] ?? 0
    if (at + 2 + lengthBytes > bytes.length) return WireFault['length-overrun']
    if (code === DhcpOption.messageType) {
      if (types > 0) return WireFault.duplicate
      if (lengthBytes !== 1) return WireFault['bad-value']
      types++
    }
    at += 2 + lengthBytes
  }
  return types === 1 ? WireFault.none : WireFault.missing
}

export function parseDhcpMessage(bytes: Uint8Array): DhcpMessage {
  const options = new Map<number, Uint8Array>()
  for (let at = OPTIONS_AT; at < bytes.length && bytes[at] !== DhcpOption.end; ) {
    const code = bytes[at] ?? 0
    if (code === DhcpOption.pad) {
      at++
      continue
    }
    const end = at + 2 + (bytes[at + 1] ?? 0)
    const value = copyBytes(bytes, at + 2, end)
    const earlier = options.get(code)
    options.set(code, earlier === undefined ? value : concatBytes(earlier, value))
    at = end
  }
  return {
    op: bytes[0] ?? 0,
    transactionId: u32(bytes, XID_AT),
    seconds: u16(bytes, SECS_AT),
    clientAddress: u32(bytes, CIADDR_AT),
    yourAddress: u32(bytes, YIADDR_AT),
    relayAddress: u32(bytes, GIADDR_AT),
    hardwareAddress: copyBytes(bytes, CHADDR_AT, CHADDR_AT + ETHERNET_BYTES),
    options,
  }
}

export function dhcpMessageBytes({ options }: DhcpMessage): number {
  let lengthBytes = OPTIONS_AT + 1
  for (const value of options.values()) lengthBytes += optionBytes(value.length)
  return Math.max(lengthBytes, SMALLEST_BYTES)
}

/** Fills the first `dhcpMessageBytes` of `out`; gives the bytes written. */
export function encodeDhcpMessage(message: DhcpMessage, out: Uint8Array): number {
  const lengthBytes = dhcpMessageBytes(message)
  out.fill(0, 0, lengthBytes)
  out[0] = message.op
  out[1] = ETHERNET
  out[2] = ETHERNET_BYTES
  out[HOPS_AT] = message.relayAddress === 0 ? 0 : 1
  putU32(out, XID_AT, message.transactionId)
  putU16(out, SECS_AT, message.seconds)
  putU32(out, CIADDR_AT, message.clientAddress)
  putU32(out, YIADDR_AT, message.yourAddress)
  putU32(out, GIADDR_AT, message.relayAddress)
  putBytes(out, CHADDR_AT, message.hardwareAddress.subarray(0, ETHERNET_BYTES))
  putU32(out, COOKIE_AT, MAGIC_COOKIE)
  let at = OPTIONS_AT
  for (const [code, value] of message.options) at = putOption(out, at, code, value)
  out[at] = DhcpOption.end
  return lengthBytes
}

/** RFC 3527: the link whose addresses are wanted, where `giaddr` only says where answers go. */
export function linkSelection(address: number): Uint8Array {
  const option = new Uint8Array(6)
  option[0] = LINK_SELECTION
  option[1] = 4
  putU32(option, 2, address)
  return option
}

/**
 * A client's message as a relay agent passes it on (RFC 1542 §4.1.1, RFC 3046 §2.1), with the address of
 * the client, which not all clients tell. Undefined when it came over a relay already, or has gone too far.
 */
export function relayed(
  bytes: Uint8Array,
  clientAddress: number,
  relayAddress: number,
  link: Uint8Array,
): Uint8Array | undefined {
  const hops = bytes[HOPS_AT] ?? 0
  if (u32(bytes, GIADDR_AT) !== 0 || hops >= MOST_HOPS) return undefined
  let end = OPTIONS_AT
  for (; end < bytes.length && bytes[end] !== DhcpOption.end; ) {
    if (bytes[end] === DhcpOption.relayAgentInformation) return undefined
    end += bytes[end] === DhcpOption.pad ? 1 : 2 + (bytes[end + 1] ?? 0)
  }
  end = Math.min(end, bytes.length)
  const out = new Uint8Array(Math.max(end + optionBytes(link.length) + 1, SMALLEST_BYTES))
  out.set(bytes.subarray(0, end))
  out[HOPS_AT] = hops + 1
  putU32(out, CIADDR_AT, clientAddress)
  putU32(out, GIADDR_AT, relayAddress)
  out[putOption(out, end, DhcpOption.relayAgentInformation, link)] = DhcpOption.end
  return out
}

/** The client's address, where it has one: answers to it go there (RFC 2131 §4.1). */
export function clientOf(bytes: Uint8Array): number {
  return u32(bytes, CIADDR_AT)
}
