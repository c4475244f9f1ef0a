/** Packets of ARP between Ethernet and IPv4, without the frame around them: RFC 826, RFC 5227 §2. */
import { copyBytes, putBytes, putU16, putU32, u16, u32 } from '../../core/bytes.ts'

/** Length of a packet; frames may have padding behind it. */
export const arpPacketBytes = 28
export const hardwareAddressBytes = 6

const ETHERNET = 1
const IPV4 = 0x0800
const OPERATION_AT = 6
const SENDER_HARDWARE_AT = 8
const SENDER_ADDRESS_AT = 14
const TARGET_ADDRESS_AT = 24

export interface ArpPacket {
  readonly operation: 'request' | 'reply'
  readonly senderHardware: Uint8Array
  /** Host order; 0 in a probe. */
  readonly senderAddress: number
  readonly targetAddress: number
}

/** RFC 5227 §1.1: asks for an address without claiming it. */
export function encodeArpProbe(hardware: Uint8Array, address: number): Uint8Array {
  return encodeRequest(hardware, 0, address)
}

/** RFC 5227 §1.1: says whose an address is from now on. */
export function encodeArpAnnouncement(hardware: Uint8Array, address: number): Uint8Array {
  return encodeRequest(hardware, address, address)
}

/** Undefined when it is damaged, or not about IPv4 on Ethernet. */
export function parseArp(bytes: Uint8Array): ArpPacket | undefined {
  if (bytes.length < arpPacketBytes) return undefined
  if (u16(bytes, 0) !== ETHERNET || u16(bytes, 2) !== IPV4) return undefined
  if (bytes[4] !== hardwareAddressBytes || bytes[5] !== 4) return undefined
  const operation = u16(bytes, OPERATION_AT)
  if (operation !== 1 && operation !== 2) return undefined
  return {
    operation: operation === 1 ? 'request' : 'reply',
    senderHardware: copyBytes(bytes, SENDER_HARDWARE_AT, SENDER_ADDRESS_AT),
    senderAddress: u32(bytes, SENDER_ADDRESS_AT),
    targetAddress: u32(bytes, TARGET_ADDRESS_AT),
  }
}

function encodeRequest(hardware: Uint8Array, sender: number, target: number): Uint8Array {
  const bytes = new Uint8Array(arpPacketBytes)
  putU16(bytes, 0, ETHERNET)
  putU16(bytes, 2, IPV4)
  bytes[4] = hardwareAddressBytes
  bytes[5] = 4
  putU16(bytes, OPERATION_AT, 1)
  putBytes(bytes, SENDER_HARDWARE_AT, hardware)
  putU32(bytes, SENDER_ADDRESS_AT, sender)
  putU32(bytes, TARGET_ADDRESS_AT, target)
  return bytes
}
