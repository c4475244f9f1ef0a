/**
 * PAP (RFC 1334 §2.2) inside a control packet.
 *
 * ```
 * Authenticate-Request: Peer-ID Length | Peer-ID ... | Passwd-Length | Password ...
 * Authenticate-Ack, -Nak: Msg-Length | Message ...
 * ```
 */
import { copyBytes, putBytes } from '../../core/bytes.ts'
import { WireFault } from '../../core/faults.ts'

export const PapCode = { authenticateRequest: 1, authenticateAck: 2, authenticateNak: 3 } as const

export interface PapRequest {
  readonly peerId: Uint8Array
  readonly password: Uint8Array
}

export function checkPapRequest(data: Uint8Array): WireFault {
  if (data.length < 2) return WireFault.truncated
  const passwordAt = 1 + (data[0] ?? 0)
  if (passwordAt >= data.length) return WireFault['length-overrun']
  const end = passwordAt + 1 + (data[passwordAt] ?? 0)
  return end > data.length ? WireFault['length-overrun'] : WireFault.none
}

/** Cannot fail after `checkPapRequest`. */
export function parsePapRequest(data: Uint8Array): PapRequest {
  const passwordAt = 1 + (data[0] ?? 0)
  const password = copyBytes(data, passwordAt + 1, passwordAt + 1 + (data[passwordAt] ?? 0))
  return { peerId: copyBytes(data, 1, passwordAt), password }
}

/** Fields longer than 255 bytes are cut: their length does not fit. */
export function encodePapRequest(request: PapRequest): Uint8Array {
  const peerIdBytes = Math.min(request.peerId.length, 255)
  const passwordBytes = Math.min(request.password.length, 255)
  const data = new Uint8Array(2 + peerIdBytes + passwordBytes)
  data[0] = peerIdBytes
  const at = putBytes(data, 1, copyBytes(request.peerId, 0, peerIdBytes))
  data[at] = passwordBytes
  putBytes(data, at + 1, copyBytes(request.password, 0, passwordBytes))
  return data
}

/**
 * The message of an Ack or Nak. It never fails: RouterOS sends a Msg-Length that fits nothing, and
 * the code alone decides.
 */
export function papMessage(data: Uint8Array): Uint8Array {
  return copyBytes(data, 1, 1 + Math.min(data[0] ?? 0, Math.max(0, data.length - 1)))
}

export function encodePapMessage(message: Uint8Array): Uint8Array {
  const messageBytes = Math.min(message.length, 255)
  const data = new Uint8Array(1 + messageBytes)
  data[0] = messageBytes
  putBytes(data, 1, copyBytes(message, 0, messageBytes))
  return data
}
