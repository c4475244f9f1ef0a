/**
 * Packets of EAP-MSCHAPv2 inside EAP type 26, [MS-CHAP] §2.2 (draft-kamath-pppext-eap-mschapv2 §2).
 *
 *  |    OpCode     |  MS-CHAPv2-ID |           MS-Length           |  data
 *
 * Success and Failure responses are the OpCode alone. MS-Length is written as it should be and not
 * believed: the EAP length rules.
 */
import { putBytes, putU16, utf8, utf8Text } from '../core/bytes.ts'
import { WireFault } from '../core/faults.ts'

const HEADER_BYTES = 4
const CHALLENGE_BYTES = 16
const RESPONSE_VALUE_BYTES = 49
const RESERVED_BYTES = 8
const NT_RESPONSE_BYTES = 24
/** Ours: longest name or message that we hold. */
const TEXT_MAX_BYTES = 1024

const OpCode = { Challenge: 1, Response: 2, Success: 3, Failure: 4, 'Change-Password': 7 } as const

export type Mschapv2Packet =
  | {
      readonly type: 'challenge'
      readonly mschapv2Id: number
      readonly challenge: Uint8Array
      readonly name: string
    }
  | {
      readonly type: 'response'
      readonly mschapv2Id: number
      readonly peerChallenge: Uint8Array
      readonly ntResponse: Uint8Array
      readonly flags: number
      readonly name: string
    }
  /** From the authenticator: `S=<40 hex> M=<text>`. */
  | { readonly type: 'success-request'; readonly mschapv2Id: number; readonly message: string }
  /** From the authenticator: `E=691 R=0 C=<32 hex> V=3 M=<text>`. */
  | { readonly type: 'failure-request'; readonly mschapv2Id: number; readonly message: string }
  | { readonly type: 'success-response' }
  | { readonly type: 'failure-response' }
  /** RFC 2759 §7. */
  | {
      readonly type: 'change-password'
      readonly mschapv2Id: number
      readonly encryptedPassword: Uint8Array
      readonly encryptedHash: Uint8Array
      readonly peerChallenge: Uint8Array
      readonly ntResponse: Uint8Array
      readonly flags: number
    }

const ENCRYPTED_PASSWORD_BYTES = 516
const ENCRYPTED_HASH_BYTES = 16
const CHANGE_PASSWORD_BYTES =
  ENCRYPTED_PASSWORD_BYTES +
  ENCRYPTED_HASH_BYTES +
  CHALLENGE_BYTES +
  RESERVED_BYTES +
  NT_RESPONSE_BYTES +
  2

/** `data` is the type-data of the EAP packet; the sender's role decides between request and response. */
export function checkMschapv2Packet(data: Uint8Array): WireFault {
  const opCode = data[0] ?? 0
  if (data.length === 1 && (opCode === OpCode.Success || opCode === OpCode.Failure)) {
    return WireFault.none
  }
  if (data.length < HEADER_BYTES) return WireFault.truncated
  const bodyBytes = data.length - HEADER_BYTES
  switch (opCode) {
    case OpCode.Challenge:
      return checkValue(data, CHALLENGE_BYTES)
    case OpCode.Response:
      return checkValue(data, RESPONSE_VALUE_BYTES)
    case OpCode.Success:
    case OpCode.Failure:
      return bodyBytes > TEXT_MAX_BYTES ? WireFault.oversize : WireFault.none
    case OpCode['Change-Password']:
      return bodyBytes < CHANGE_PASSWORD_BYTES ? WireFault.truncated : WireFault.none
    default:
      return WireFault['unknown-type']
  }
}

function checkValue(data: Uint8Array, valueBytes: number): WireFault {
  if (data.length < HEADER_BYTES + 1 + valueBytes) return WireFault.truncated
  if (data[HEADER_BYTES] !== valueBytes) return WireFault['bad-value']
  const nameBytes = data.length - HEADER_BYTES - 1 - valueBytes
  return nameBytes > TEXT_MAX_BYTES ? WireFault.oversize : WireFault.none
}

/** After `checkMschapv2Packet`; holds views into `data`. */
export function parseMschapv2Packet(data: Uint8Array): Mschapv2Packet {
  const opCode = data[0] ?? 0
  const mschapv2Id = data[1] ?? 0
  const valueAt = HEADER_BYTES + 1
  const ntAt = valueAt + CHALLENGE_BYTES + RESERVED_BYTES
  switch (opCode) {
    case OpCode.Challenge:
      return {
        type: 'challenge',
        mschapv2Id,
        challenge: data.subarray(valueAt, valueAt + CHALLENGE_BYTES),
        name: utf8Text(data.subarray(valueAt + CHALLENGE_BYTES)),
      }
    case OpCode.Response:
      return {
        type: 'response',
        mschapv2Id,
        peerChallenge: data.subarray(valueAt, valueAt + CHALLENGE_BYTES),
        ntResponse: data.subarray(ntAt, ntAt + NT_RESPONSE_BYTES),
        flags: data[ntAt + NT_RESPONSE_BYTES] ?? 0,
        name: utf8Text(data.subarray(valueAt + RESPONSE_VALUE_BYTES)),
      }
    case OpCode['Change-Password']: {
      const hashAt = HEADER_BYTES + ENCRYPTED_PASSWORD_BYTES
      const challengeAt = hashAt + ENCRYPTED_HASH_BYTES
      const newNtAt = challengeAt + CHALLENGE_BYTES + RESERVED_BYTES
      return {
        type: 'change-password',
        mschapv2Id,
        encryptedPassword: data.subarray(HEADER_BYTES, hashAt),
        encryptedHash: data.subarray(hashAt, challengeAt),
        peerChallenge: data.subarray(challengeAt, challengeAt + CHALLENGE_BYTES),
        ntResponse: data.subarray(newNtAt, newNtAt + NT_RESPONSE_BYTES),
        flags:
          ((data[newNtAt + NT_RESPONSE_BYTES] ?? 0) << 8) |
          (data[newNtAt + NT_RESPONSE_BYTES + 1] ?? 0),
      }
    }
    case OpCode.Success:
      if (data.length === 1) return { type: 'success-response' }
      return { type: 'success-request', mschapv2Id, message: utf8Text(data.subarray(HEADER_BYTES)) }
    default:
      if (data.length === 1) return { type: 'failure-response' }
      return { type: 'failure-request', mschapv2Id, message: utf8Text(data.subarray(HEADER_BYTES)) }
  }
}

function framed(opCode: number, mschapv2Id: number, bodyBytes: number): Uint8Array {
  const out = new Uint8Array(HEADER_BYTES + bodyBytes)
  out[0] = opCode
  out[1] = mschapv2Id
  putU16(out, 2, out.length)
  return out
}

function framedText(opCode: number, mschapv2Id: number, message: string): Uint8Array {
  const text = utf8(message)
  const out = framed(opCode, mschapv2Id, text.length)
  putBytes(out, HEADER_BYTES, text)
  return out
}

/** The type-data of the EAP packet. */
export function mschapv2PacketOf(packet: Mschapv2Packet): Uint8Array {
  switch (packet.type) {
    case 'challenge': {
      const name = utf8(packet.name)
      const out = framed(OpCode.Challenge, packet.mschapv2Id, 1 + CHALLENGE_BYTES + name.length)
      out[HEADER_BYTES] = CHALLENGE_BYTES
      putBytes(out, putBytes(out, HEADER_BYTES + 1, packet.challenge), name)
      return out
    }
    case 'response': {
      const name = utf8(packet.name)
      const out = framed(OpCode.Response, packet.mschapv2Id, 1 + RESPONSE_VALUE_BYTES + name.length)
      out[HEADER_BYTES] = RESPONSE_VALUE_BYTES
      const at = putBytes(out, HEADER_BYTES + 1, packet.peerChallenge) + RESERVED_BYTES
      const flagsAt = putBytes(out, at, packet.ntResponse)
      out[flagsAt] = packet.flags
      putBytes(out, flagsAt + 1, name)
      return out
    }
    case 'change-password': {
      const out = framed(OpCode['Change-Password'], packet.mschapv2Id, CHANGE_PASSWORD_BYTES)
      const hashAt = putBytes(out, HEADER_BYTES, packet.encryptedPassword)
      const challengeAt = putBytes(out, hashAt, packet.encryptedHash)
      const newNtAt = putBytes(out, challengeAt, packet.peerChallenge) + RESERVED_BYTES
      putU16(out, putBytes(out, newNtAt, packet.ntResponse), packet.flags)
      return out
    }
    case 'success-request':
      return framedText(OpCode.Success, packet.mschapv2Id, packet.message)
    case 'failure-request':
      return framedText(OpCode.Failure, packet.mschapv2Id, packet.message)
    case 'success-response':
      return Uint8Array.of(OpCode.Success)
    case 'failure-response':
      return Uint8Array.of(OpCode.Failure)
  }
}
