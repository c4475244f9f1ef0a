/**
 * How RADIUS packets prove where they come from: Request and Response Authenticator (RFC 2865 §3,
 * RFC 2866 §3, RFC 5176 §2.3) and Message-Authenticator (RFC 3579 §3.2), which stands first in what we
 * send and is asked for in what we get (CVE-2024-3596).
 */
import { copyBytes, equalBytes, putBytes, u16 } from '../../core/bytes.ts'
import type { Secret } from '../../core/secret.ts'
import { digest, hmac } from '../../crypto/hash.ts'
import { dictionary } from './wire/dictionary.ts'
import {
  authenticatorAt,
  authenticatorBytes,
  encodeRadiusPacket,
  packetHeaderBytes,
  type RadiusAttribute,
  RadiusCode,
  type RadiusPacket,
  valueOffset,
} from './wire/packet.ts'

const [, messageAuthenticatorType] = dictionary['Message-Authenticator']
const macBytes = 16
const zeros = new Uint8Array(authenticatorBytes)

/** Its value is filled in when the packet is sealed. */
const emptyMac: RadiusAttribute = {
  vendor: 0,
  type: messageAuthenticatorType,
  value: new Uint8Array(macBytes),
}

/** What is wrong with a packet's proof; a name to count. */
export type AuthenticityFault =
  | 'bad-authenticator'
  | 'bad-message-authenticator'
  | 'missing-message-authenticator'

/**
 * An Access-Request or Status-Server: the authenticator is random, and Message-Authenticator proves the
 * packet. Undefined when it does not fit in 4096 bytes.
 */
export function sealAccessRequest(packet: RadiusPacket, secret: Secret): Uint8Array | undefined {
  const out = encodeRadiusPacket({ ...packet, attributes: [emptyMac, ...packet.attributes] })
  if (out !== undefined) signMessage(out, packet.authenticator, secret)
  return out
}

/**
 * RFC 2866 §3: the authenticator itself proves an Accounting-Request, so RFC 2869 §5.19 has no
 * Message-Authenticator in it. Undefined when it does not fit.
 */
export function sealAccountingRequest(
  packet: Omit<RadiusPacket, 'authenticator'>,
  secret: Secret,
): Uint8Array | undefined {
  const out = encodeRadiusPacket({ ...packet, authenticator: zeros })
  if (out !== undefined) putBytes(out, authenticatorAt, digest('md5', out, secret.expose()))
  return out
}

/** RFC 5176 §2.3 and RFC 3579 §3.2: as accounting, with a Message-Authenticator made over zeros. */
export function sealDynamicRequest(
  packet: Omit<RadiusPacket, 'authenticator'>,
  secret: Secret,
): Uint8Array | undefined {
  const attributes = [emptyMac, ...packet.attributes]
  const out = encodeRadiusPacket({ ...packet, attributes, authenticator: zeros })
  if (out === undefined) return undefined
  signMessage(out, zeros, secret)
  putBytes(out, authenticatorAt, digest('md5', out, secret.expose()))
  return out
}

/** An answer to a request with this authenticator. Undefined when it does not fit. */
export function sealResponse(
  packet: Omit<RadiusPacket, 'authenticator'>,
  requestAuthenticator: Uint8Array,
  secret: Secret,
): Uint8Array | undefined {
  const isAccounting = packet.code === RadiusCode['Accounting-Response']
  const attributes = isAccounting ? packet.attributes : [emptyMac, ...packet.attributes]
  const out = encodeRadiusPacket({ ...packet, attributes, authenticator: requestAuthenticator })
  if (out === undefined) return undefined
  if (!isAccounting) signMessage(out, requestAuthenticator, secret)
  putBytes(out, authenticatorAt, digest('md5', out, secret.expose()))
  return out
}

/** `buf` has passed `checkRadiusPacket`. Both proofs are looked at before anything is believed. */
export function checkResponse(
  buf: Uint8Array,
  requestAuthenticator: Uint8Array,
  secret: Secret,
  needsMessageAuthenticator: boolean,
): AuthenticityFault | undefined {
  const packet = copyBytes(buf, 0, u16(buf, 2))
  const claimed = copyBytes(packet, authenticatorAt, packetHeaderBytes)
  putBytes(packet, authenticatorAt, requestAuthenticator)
  const macFault = checkMessage(packet, secret, needsMessageAuthenticator)
  if (macFault !== undefined) return macFault
  return equalBytes(digest('md5', packet, secret.expose()), claimed)
    ? undefined
    : 'bad-authenticator'
}

/** RFC 5176 §2.3: a Disconnect-Request or CoA-Request; its Message-Authenticator may be asked for. */
export function checkDynamicRequest(
  buf: Uint8Array,
  secret: Secret,
  needsMessageAuthenticator: boolean,
): AuthenticityFault | undefined {
  return checkResponse(buf, zeros, secret, needsMessageAuthenticator)
}

/** An Access-Request, as a server sees it: with Message-Authenticator or not at all. */
export function checkAccessRequest(buf: Uint8Array, secret: Secret): AuthenticityFault | undefined {
  return checkMessage(copyBytes(buf, 0, u16(buf, 2)), secret, true)
}

/** `packet` holds the authenticator that the MAC was made over, and is left as it was. */
function checkMessage(
  packet: Uint8Array,
  secret: Secret,
  isNeeded: boolean,
): AuthenticityFault | undefined {
  const at = valueOffset(packet, messageAuthenticatorType, macBytes)
  if (at < 0) return isNeeded ? 'missing-message-authenticator' : undefined
  const claimed = copyBytes(packet, at, at + macBytes)
  packet.fill(0, at, at + macBytes)
  const isGood = equalBytes(hmac('md5', secret.expose(), packet), claimed)
  putBytes(packet, at, claimed)
  return isGood ? undefined : 'bad-message-authenticator'
}

function signMessage(out: Uint8Array, authenticator: Uint8Array, secret: Secret): void {
  putBytes(out, authenticatorAt, authenticator)
  const at = valueOffset(out, messageAuthenticatorType, macBytes)
  putBytes(out, at, hmac('md5', secret.expose(), out))
}
