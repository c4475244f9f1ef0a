/** Which cookies stand in whose messages: RFC 2408 §2.5.3. */
import { equalBytes } from '../core/bytes.ts'
import type { Phase1 } from './phase1.ts'
import { COOKIE_BYTES, type IsakmpHeader } from './wire/header.ts'
import { ExchangeType } from './wire/numbers.ts'

/** Stands where a cookie is not known yet. */
export const noCookie = new Uint8Array(COOKIE_BYTES)

/** The message that a peer begins main mode with. */
export function isFirstMessage(header: IsakmpHeader): boolean {
  return (
    header.exchangeType === ExchangeType.identityProtection &&
    header.messageId === 0 &&
    equalBytes(header.responderCookie, noCookie) &&
    !equalBytes(header.initiatorCookie, noCookie)
  )
}

export function isOfPhase1(header: IsakmpHeader, phase1: Phase1): boolean {
  const { initiatorCookie, responderCookie } = phase1.cookies
  if (!equalBytes(header.initiatorCookie, initiatorCookie)) return false
  if (equalBytes(header.responderCookie, responderCookie)) return true
  // Message 2 tells the initiator the responder's cookie; message 1 comes again without one.
  return phase1.isInitiator
    ? phase1.state === 'sa-sent'
    : equalBytes(header.responderCookie, noCookie)
}
