/**
 * CHAP (RFC 1994 §4) and the values that MS-CHAPv2 puts into it (RFC 2759 §4 to §7).
 *
 * ```
 * Challenge, Response: Value-Size | Value ... | Name ...
 * Success, Failure:    Message ...
 * MS-CHAPv2 value:     Peer-Challenge 16 | Reserved 8 | NT-Response 24 | Flags 1
 * Change-Password:     Encrypted-Password 516 | Encrypted-Hash 16 | Peer-Challenge 16 |
 *                      Reserved 8 | NT-Response 24 | Flags 2
 * ```
 */
import { copyBytes, fromHex, putBytes, toHex } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'

export const ChapCode = {
  challenge: 1,
  response: 2,
  success: 3,
  failure: 4,
  /** RFC 2759 §7. */
  changePassword: 7,
} as const

/** A Challenge or a Response. */
export interface ChapValue {
  readonly value: Uint8Array
  readonly name: Uint8Array
}

export const md5ValueBytes = 16

const RESERVED_AT = 16
const NT_RESPONSE_AT = 24
const FLAGS_AT = 48
export const mschapv2ValueBytes = 49

const ENCRYPTED_HASH_AT = 516
const CHANGE_PEER_CHALLENGE_AT = 532
const CHANGE_NT_RESPONSE_AT = 556
export const changePasswordBytes = 582

export function checkChapValue(data: Uint8Array): WireFault {
  if (data.length < 1) return WireFault.truncated
  const valueBytes = data[0] ?? 0
  if (valueBytes === 0) return WireFault['length-too-small']
  return 1 + valueBytes > data.length ? WireFault['length-overrun'] : WireFault.none
}

/** Cannot fail after `checkChapValue`. */
export function parseChapValue(data: Uint8Array): ChapValue {
  const nameAt = 1 + (data[0] ?? 0)
  return { value: copyBytes(data, 1, nameAt), name: copyBytes(data, nameAt) }
}

/** The value is at most 255 bytes. */
export function encodeChapValue({ value, name }: ChapValue): Uint8Array {
  const data = new Uint8Array(1 + value.length + name.length)
  data[0] = value.length
  putBytes(data, putBytes(data, 1, value), name)
  return data
}

export interface Mschapv2Value {
  /** 16 bytes. */
  readonly peerChallenge: Uint8Array
  /** 24 bytes. */
  readonly ntResponse: Uint8Array
}

/** RFC 2759 §4. Reserved bytes and flags are not looked at. */
export function checkMschapv2Value(value: Uint8Array): WireFault {
  return value.length === mschapv2ValueBytes ? WireFault.none : WireFault['bad-value']
}

/** Cannot fail after `checkMschapv2Value`. */
export function parseMschapv2Value(value: Uint8Array): Mschapv2Value {
  return {
    peerChallenge: copyBytes(value, 0, RESERVED_AT),
    ntResponse: copyBytes(value, NT_RESPONSE_AT, FLAGS_AT),
  }
}

export function encodeMschapv2Value({ peerChallenge, ntResponse }: Mschapv2Value): Uint8Array {
  const value = new Uint8Array(mschapv2ValueBytes)
  putBytes(value, 0, peerChallenge)
  putBytes(value, NT_RESPONSE_AT, ntResponse)
  return value
}

export interface ChangePassword extends Mschapv2Value {
  /** 516 bytes. */
  readonly encryptedPassword: Uint8Array
  /** 16 bytes. */
  readonly encryptedHash: Uint8Array
}

export function checkChangePassword(data: Uint8Array): WireFault {
  return data.length < changePasswordBytes ? WireFault.truncated : WireFault.none
}

/** Cannot fail after `checkChangePassword`. */
export function parseChangePassword(data: Uint8Array): ChangePassword {
  return {
    encryptedPassword: copyBytes(data, 0, ENCRYPTED_HASH_AT),
    encryptedHash: copyBytes(data, ENCRYPTED_HASH_AT, CHANGE_PEER_CHALLENGE_AT),
    peerChallenge: copyBytes(data, CHANGE_PEER_CHALLENGE_AT, CHANGE_PEER_CHALLENGE_AT + 16),
    ntResponse: copyBytes(data, CHANGE_NT_RESPONSE_AT, CHANGE_NT_RESPONSE_AT + 24),
  }
}

export function encodeChangePassword(change: ChangePassword): Uint8Array {
  const data = new Uint8Array(changePasswordBytes)
  putBytes(data, 0, change.encryptedPassword)
  putBytes(data, ENCRYPTED_HASH_AT, change.encryptedHash)
  putBytes(data, CHANGE_PEER_CHALLENGE_AT, change.peerChallenge)
  putBytes(data, CHANGE_NT_RESPONSE_AT, change.ntResponse)
  return data
}

/** The text of a Failure packet, RFC 2759 §6. */
export interface Mschapv2Failure {
  /** Windows error number, e.g. 691. */
  readonly errorCode: number
  readonly canRetry: boolean
  /** 16 bytes: what the next Response answers. */
  readonly challenge?: Uint8Array
  readonly message?: string
}

/** `E=691 R=1 C=… V=3 M=…`. */
export function encodeMschapv2Failure(failure: Mschapv2Failure): string {
  const { errorCode, canRetry, challenge, message } = failure
  const fields = [`E=${errorCode}`, `R=${canRetry ? 1 : 0}`]
  if (challenge !== undefined) fields.push(`C=${toHex(challenge).toUpperCase()}`)
  fields.push('V=3')
  if (message !== undefined) fields.push(`M=${message}`)
  return fields.join(' ')
}

/** Undefined when there is no `E=`. Order and unknown fields do not matter; `M=` ends the fields. */
export function parseMschapv2Failure(text: string): Mschapv2Failure | undefined {
  const messageAt = text.indexOf('M=')
  const fields = (messageAt < 0 ? text : text.slice(0, messageAt)).slice(0, 128).split(' ')
  const field = (key: string) => fields.find(part => part.startsWith(key))?.slice(key.length)
  const errorText = field('E=')
  if (errorText === undefined || !/^\d{1,5}$/.test(errorText)) return undefined
  const challengeText = field('C=')
  return {
    errorCode: Number(errorText),
    canRetry: field('R=') === '1',
    ...(challengeText !== undefined && /^[0-9a-f]{32}$/i.test(challengeText)
      ? { challenge: fromHex(challengeText) }
      : {}),
    ...(messageAt < 0 ? {} : { message: text.slice(messageAt + 2) }),
  }
}
