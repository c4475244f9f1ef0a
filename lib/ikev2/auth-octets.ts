/** What the AUTH payloads cover and how shared keys prove it, RFC 7296 §2.15 and §2.16. */
import { concatBytes, equalBytes, utf8 } from '../core/bytes.ts'
import { type Secret, wipe } from '../core/secret.ts'
import type { Prf } from '../crypto/prf.ts'

const KEY_PAD = utf8('Key Pad for IKEv2')

export interface SignedOctetsInput {
  /** IKE_SA_INIT message of the signer, as it was sent: after a COOKIE retry the last one. */
  readonly message: Uint8Array
  /** The nonce of the other side. */
  readonly otherNonce: Uint8Array
  /** SK_pi for the initiator's octets, SK_pr for the responder's. */
  readonly macKey: Secret
  /** Body of the signer's ID payload. */
  readonly idBody: Uint8Array
  /** RFC 9242 §3.3.2: what covers the IKE_INTERMEDIATE exchanges; absent when there were none. */
  readonly intermediateAuth: Uint8Array | undefined
}

/** InitiatorSignedOctets or ResponderSignedOctets. */
export function signedOctets(prf: Prf, input: SignedOctetsInput): Uint8Array {
  return concatBytes(
    input.message,
    input.otherNonce,
    prf.compute(input.macKey.expose(), input.idBody),
    input.intermediateAuth ?? new Uint8Array(0),
  )
}

/** AUTH = prf(prf(shared secret, "Key Pad for IKEv2"), octets): PSK, EAP's MSK, or SK_p. */
export function sharedKeyAuth(prf: Prf, secret: Secret, octets: Uint8Array): Uint8Array {
  const key = prf.compute(secret.expose(), KEY_PAD)
  const out = prf.compute(key, octets)
  wipe(key)
  return out
}

/** Compares in constant time. */
export function verifySharedKeyAuth(
  prf: Prf,
  secret: Secret,
  octets: Uint8Array,
  received: Uint8Array,
): boolean {
  return equalBytes(sharedKeyAuth(prf, secret, octets), received)
}
