/** Keys of IKE SAs and Child SAs: RFC 7296 §2.13 to §2.18, RFC 5723 §5.1, RFC 9370 §2.2.2, RFC 8784 §3. */
import { concatBytes, copyBytes, utf8 } from '../core/bytes.ts'
import { Secret, wipe } from '../core/secret.ts'
import { type Prf, prfPlus } from '../crypto/prf.ts'
import { encryptionKeyBytes } from '../crypto/transforms.ts'
import type { SpiPair } from './nat-detection.ts'
import type { EspSuite, IkeSuite } from './suite.ts'

/** The seven keys of an IKE SA (RFC 7296 §2.14). `ai` and `ar` are empty for AEADs. */
export interface IkeKeys {
  readonly d: Secret
  readonly ai: Secret
  readonly ar: Secret
  readonly ei: Secret
  readonly er: Secret
  readonly pi: Secret
  readonly pr: Secret
}

export interface NoncePair {
  readonly initiator: Uint8Array
  readonly responder: Uint8Array
}

/** Keys of one direction of a Child SA; `encryption` ends with the salt where the cipher has one. */
export interface EspKeys {
  readonly encryption: Secret
  /** Empty for AEADs. */
  readonly integrity: Secret
}

export interface ChildKeys {
  /** For packets from the initiator of the exchange that made the Child SA. */
  readonly fromInitiator: EspKeys
  readonly fromResponder: EspKeys
}

/** RFC 7296 §2.14: a PRF with keys of fixed size takes half of them from each nonce. */
function nonceKey(prf: Prf, nonces: NoncePair): Uint8Array {
  if (prf.fixedKeyBytes === undefined) return concatBytes(nonces.initiator, nonces.responder)
  const half = prf.fixedKeyBytes / 2
  return concatBytes(copyBytes(nonces.initiator, 0, half), copyBytes(nonces.responder, 0, half))
}

/** SKEYSEED = prf(Ni | Nr, g^ir), RFC 7296 §2.14. */
export function initialSkeyseed(prf: Prf, nonces: NoncePair, sharedSecret: Secret): Secret {
  const key = nonceKey(prf, nonces)
  return taken(prf.compute(key, sharedSecret.expose()))
}

/**
 * SKEYSEED = prf(SK_d (old), g^ir (new) | Ni | Nr) with the old PRF, RFC 7296 §2.18; with additional key
 * exchanges prf(SK_d (old), SK(0) | Ni | Nr | SK(1) | … SK(n)), RFC 9370 §2.2.4.
 */
export function rekeySkeyseed(
  oldPrf: Prf,
  oldD: Secret,
  nonces: NoncePair,
  sharedSecret: Secret,
  additional: readonly Secret[] = [],
): Secret {
  return taken(
    oldPrf.compute(
      oldD.expose(),
      sharedSecret.expose(),
      nonces.initiator,
      nonces.responder,
      ...additional.map(secret => secret.expose()),
    ),
  )
}

const RESUMPTION = utf8('Resumption')

/** SKEYSEED = prf(SK_d (old), "Resumption" | Ni | Nr), RFC 5723 §5.1. */
export function resumedSkeyseed(prf: Prf, oldD: Secret, nonces: NoncePair): Secret {
  return taken(prf.compute(oldD.expose(), RESUMPTION, nonces.initiator, nonces.responder))
}

/** SKEYSEED(n) = prf(SK_d(n-1), SK(n) | Ni | Nr), RFC 9370 §2.2.2. */
export function additionalSkeyseed(
  prf: Prf,
  previousD: Secret,
  nonces: NoncePair,
  sharedSecret: Secret,
): Secret {
  return rekeySkeyseed(prf, previousD, nonces, sharedSecret)
}

function taken(bytes: Uint8Array): Secret {
  const secret = new Secret(bytes)
  wipe(bytes)
  return secret
}

/** Cuts secrets of the given lengths from the front; wipes the stream. */
function cut(stream: Uint8Array, lengths: readonly number[]): Secret[] {
  let at = 0
  const out = lengths.map(length => {
    const part = stream.subarray(at, at + length)
    at += length
    return new Secret(part)
  })
  wipe(stream)
  return out
}

/** SK_d | SK_ai | SK_ar | SK_ei | SK_er | SK_pi | SK_pr, RFC 7296 §2.14. Destroys `skeyseed`. */
export function ikeKeys(
  suite: IkeSuite,
  skeyseed: Secret,
  nonces: NoncePair,
  spis: SpiPair,
): IkeKeys {
  const { prf } = suite
  const seed = concatBytes(nonces.initiator, nonces.responder, spis.initiatorSpi, spis.responderSpi)
  const a = suite.integrity?.keyBytes ?? 0
  const e = encryptionKeyBytes(suite.encryption, suite.keyBits)
  const p = prf.outputBytes
  const lengths = [p, a, a, e, e, p, p]
  const total = lengths.reduce((sum, length) => sum + length, 0)
  const parts = cut(prfPlus(prf, skeyseed.expose(), seed, total), lengths)
  skeyseed.destroy()
  const [d, ai, ar, ei, er, pi, pr] = parts
  const none = new Secret(new Uint8Array(0))
  return {
    d: d ?? none,
    ai: ai ?? none,
    ar: ar ?? none,
    ei: ei ?? none,
    er: er ?? none,
    pi: pi ?? none,
    pr: pr ?? none,
  }
}

const spent = new Secret(new Uint8Array(0))

/**
 * SK_d alone, once both sides are known: ciphers hold keys of their own, and nothing is proved any more. The
 * copy has not been through a cryptographic library, which moves bytes that it works on off the heap.
 * Destroys `keys`.
 */
export function keepDerivationKey(keys: IkeKeys): IkeKeys {
  const d = new Secret(keys.d.expose())
  destroyIkeKeys(keys)
  return { d, ai: spent, ar: spent, ei: spent, er: spent, pi: spent, pr: spent }
}

export function destroyIkeKeys(keys: IkeKeys): void {
  for (const secret of Object.values(keys)) secret.destroy()
}

/**
 * KEYMAT = prf+(SK_d, [g^ir (new) |] Ni | Nr), RFC 7296 §2.17. The initiator of the exchange is the one
 * whose direction comes first.
 */
export function childKeys(
  prf: Prf,
  d: Secret,
  suite: EspSuite,
  nonces: NoncePair,
  sharedSecret: Secret | undefined,
): ChildKeys {
  const seed = concatBytes(
    sharedSecret?.expose() ?? new Uint8Array(0),
    nonces.initiator,
    nonces.responder,
  )
  const e = encryptionKeyBytes(suite.encryption, suite.keyBits)
  const a = suite.integrity?.keyBytes ?? 0
  const stream = prfPlus(prf, d.expose(), seed, 2 * (e + a))
  wipe(seed)
  const [encryptionI, integrityI, encryptionR, integrityR] = cut(stream, [e, a, e, a])
  const none = new Secret(new Uint8Array(0))
  return {
    fromInitiator: { encryption: encryptionI ?? none, integrity: integrityI ?? none },
    fromResponder: { encryption: encryptionR ?? none, integrity: integrityR ?? none },
  }
}

/** Keys with a post-quantum preshared key mixed into SK_d, SK_pi and SK_pr (RFC 8784 §3). */
export function withPpk(prf: Prf, keys: IkeKeys, ppk: Secret): IkeKeys {
  const mix = (old: Secret) => taken(prfPlus(prf, ppk.expose(), old.expose(), old.length))
  return { ...keys, d: mix(keys.d), pi: mix(keys.pi), pr: mix(keys.pr) }
}

/** Wipes what `withPpk` makes anew, of the set that is not used any more. */
export function destroyPpkPart(keys: IkeKeys): void {
  keys.d.destroy()
  keys.pi.destroy()
  keys.pr.destroy()
}
