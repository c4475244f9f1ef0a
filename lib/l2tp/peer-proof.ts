/** What a peer has to say and to prove before there is a tunnel: RFC 2661 §4.4.3, §5.1.1. */
import { u32 } from '../core/bytes.ts'
import type { Secret } from '../core/secret.ts'
import { isResponseGood } from './avp-hiding.ts'
import { type CloseReason, stopReason, versionNotSupported } from './close-reason.ts'
import type { Control } from './wire/message.ts'

/** RFC 2661 §4.4.3: the version in Protocol Version. */
const majorVersion = 1

/** Why we do not talk to this peer; undefined when we do. */
export function refusalOfPeer(
  message: Control<'sccrq'> | Control<'sccrp'>,
  hasSecret: boolean,
): CloseReason | undefined {
  if (message.protocolVersion >>> 8 !== majorVersion) return versionNotSupported
  if (message.assignedTunnelId === 0) {
    return stopReason('protocol-error', 'tunnel ID 0', 'out-of-range')
  }
  if (message.challenge !== undefined && !hasSecret) {
    return stopReason('authentication-failed', 'no tunnel secret is set here')
  }
  return undefined
}

/** §5.1.1: who challenges, insists on the right response. */
export function refusalOfResponse(
  type: 'sccrp' | 'scccn',
  response: Uint8Array | undefined,
  secret: Secret | undefined,
  ourChallenge: Uint8Array | undefined,
): CloseReason | undefined {
  if (secret === undefined || ourChallenge === undefined) return undefined
  if (response === undefined) {
    return stopReason('authentication-failed', 'no challenge response')
  }
  if (isResponseGood(type, secret, ourChallenge, response)) return undefined
  return stopReason('authentication-failed', 'wrong challenge response')
}

/** Negative when `ours` is lower and wins. */
export function compareTieBreakers(ours: Uint8Array, theirs: Uint8Array): number {
  return u32(ours, 0) - u32(theirs, 0) || u32(ours, 4) - u32(theirs, 4)
}
