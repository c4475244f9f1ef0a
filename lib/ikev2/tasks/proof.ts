/** Making and checking AUTH payloads with what both sides know by then, RFC 7296 §2.15. */
import { concatBytes } from '../../core/bytes.ts'
import type { Secret } from '../../core/secret.ts'
import type { Association } from '../association.ts'
import { sharedKeyAuth, signedOctets, verifySharedKeyAuth } from '../auth-octets.ts'
import type { Connection } from '../connection.ts'
import { isSameIdentity } from '../identity.ts'
import type { Credential } from '../options.ts'
import { signOctets } from '../signature.ts'
import { AuthMethod } from '../wire/authentication.ts'
import { CertificateEncoding } from '../wire/certificate.ts'
import { type Identification, identificationBody } from '../wire/identification.ts'
import { allPayloads } from '../wire/message.ts'
import type { Payload, PayloadOf } from '../wire/payload.ts'

type Side = 'initiator' | 'responder'

/** What the AUTH payload of one side covers. */
export function octetsOf(
  connection: Connection,
  association: Association,
  side: Side,
  identity: Identification,
): Uint8Array {
  const { setup } = connection
  const { suite, keys } = association
  if (suite === undefined || keys === undefined) return concatBytes()
  const isInitiator = side === 'initiator'
  const intermediate =
    setup.intermediateInitiator && setup.intermediateResponder
      ? intermediateAuth(connection)
      : undefined
  return signedOctets(suite.prf, {
    message: isInitiator ? setup.initiatorMessage : setup.responderMessage,
    otherNonce: isInitiator ? setup.nonces.responder : setup.nonces.initiator,
    macKey: isInitiator ? keys.pi : keys.pr,
    idBody: identificationBody(identity),
    intermediateAuth: intermediate,
  })
}

/** IntAuth = IntAuth_iN | IntAuth_rN | IKE_AUTH message ID (RFC 9242 §3.3.2). */
function intermediateAuth(connection: Connection): Uint8Array {
  const { intermediateInitiator, intermediateResponder, authMessageId } = connection.setup
  const id = Uint8Array.of(
    authMessageId >>> 24,
    authMessageId >>> 16,
    authMessageId >>> 8,
    authMessageId,
  )
  return concatBytes(
    intermediateInitiator ?? concatBytes(),
    intermediateResponder ?? concatBytes(),
    id,
  )
}

/** AUTH under a shared secret: PSK, MSK, or SK_p for EAP methods that make no keys. */
export function sharedKeyPayload(
  connection: Connection,
  association: Association,
  side: Side,
  identity: Identification,
  secret: Secret,
): Payload[] {
  const { suite } = association
  if (suite === undefined) return []
  const octets = octetsOf(connection, association, side, identity)
  const data = sharedKeyAuth(suite.prf, secret, octets)
  return [{ type: 'AUTH', method: AuthMethod.SHARED_KEY, data }]
}

export function isSharedKeyProof(
  connection: Connection,
  association: Association,
  side: Side,
  identity: Identification,
  secret: Secret,
  auth: PayloadOf<'AUTH'>,
): boolean {
  const { suite } = association
  if (suite === undefined || auth.method !== AuthMethod.SHARED_KEY) return false
  const octets = octetsOf(connection, association, side, identity)
  return verifySharedKeyAuth(suite.prf, secret, octets, auth.data)
}

/** The secret of EAP: its MSK, else SK_p of the side whose AUTH it is (RFC 7296 §2.16). */
export function eapSecret(
  association: Association,
  side: Side,
  msk: Secret | undefined,
): Secret | undefined {
  if (msk !== undefined) return msk
  return side === 'initiator' ? association.keys?.pi : association.keys?.pr
}

/** CERT payloads and a signature. Certificates are always sent: Apple does not ask for them. */
export function certificatePayloads(
  connection: Connection,
  association: Association,
  side: Side,
  identity: Identification,
  credential: Extract<Credential, { type: 'certificate' }>,
): Payload[] | undefined {
  const { peer, options } = connection
  const octets = octetsOf(connection, association, side, identity)
  const policy = {
    ...options.signature,
    prefersPss: options.signature.prefersPss || peer.signsPss,
  }
  const signature = signOctets(credential.key, octets, peer.signatureHashes, policy)
  if (signature === undefined) return undefined
  return [
    ...credential.chain.map(
      (data): Payload => ({ type: 'CERT', encoding: CertificateEncoding.X509_SIGNATURE, data }),
    ),
    { type: 'AUTH', ...signature },
  ]
}

/** X.509 certificates out of a message, in its order; other encodings are not ours to read. */
export function certificatesIn(payloads: readonly Payload[]): Uint8Array[] {
  return allPayloads(payloads, 'CERT')
    .filter(payload => payload.encoding === CertificateEncoding.X509_SIGNATURE)
    .map(payload => Uint8Array.from(payload.data))
}

/** The PSK for a peer. */
export function presharedKeyOf(
  connection: Connection,
  identity: Identification,
): Secret | undefined {
  return connection.options.peer.presharedKeys.find(
    entry => entry.identity === undefined || isSameIdentity(entry.identity, identity),
  )?.secret
}
