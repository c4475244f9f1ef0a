/** Pseudo-random functions of IKE and the key stream made of them: RFC 7296 §2.13. */
import { assertNever } from '../core/errors.ts'
import { wipe } from '../core/secret.ts'
import { type AesMac, aesCmac, aesMacBytes, aesXcbc } from './aes-mac.ts'
import { type HashName, hashBytes, hmac } from './hash.ts'
import { PrfId } from './transforms.ts'

export interface Prf {
  readonly id: PrfId
  /** What the function yields, and what SK_d, SK_pi and SK_pr are long (RFC 7296 §2.14), bytes. */
  readonly outputBytes: number
  /**
   * When set, the key made of the nonces is this long: half the bytes from the start of Ni, half
   * from the start of Nr (RFC 7296 §2.14).
   */
  readonly fixedKeyBytes: number | undefined
  /** The PRF over the parts one after the other. Keys of any length are accepted. */
  compute(key: Uint8Array, ...parts: Uint8Array[]): Uint8Array
}

function hmacPrf(id: PrfId, hash: HashName): Prf {
  return {
    id,
    outputBytes: hashBytes[hash],
    fixedKeyBytes: undefined,
    compute: (key, ...parts) => hmac(hash, key, ...parts),
  }
}

/** RFC 4434 §2, RFC 4615 §3: a long key is condensed with the MAC under a zero key, a short XCBC key padded. */
function aesPrf(id: PrfId, mac: AesMac, padsShortKeys: boolean): Prf {
  return {
    id,
    outputBytes: aesMacBytes,
    fixedKeyBytes: 16,
    compute: (key, ...parts) => {
      if (key.length === aesMacBytes) return mac(key, ...parts)
      const fitted = new Uint8Array(aesMacBytes)
      if (key.length < aesMacBytes && padsShortKeys) fitted.set(key)
      else fitted.set(mac(new Uint8Array(aesMacBytes), key))
      const out = mac(fitted, ...parts)
      wipe(fitted)
      return out
    },
  }
}

export function createPrf(id: PrfId): Prf {
  switch (id) {
    case PrfId.hmacSha1:
      return hmacPrf(id, 'sha1')
    case PrfId.hmacSha256:
      return hmacPrf(id, 'sha256')
    case PrfId.hmacSha384:
      return hmacPrf(id, 'sha384')
    case PrfId.hmacSha512:
      return hmacPrf(id, 'sha512')
    case PrfId.aesXcbc:
      return aesPrf(id, aesXcbc, true)
    case PrfId.aesCmac:
      return aesPrf(id, aesCmac, false)
    default:
      return assertNever(id)
  }
}

/**
 * prf+ (RFC 7296 §2.13): T1 = prf(K, S | 0x01), Tn = prf(K, Tn-1 | S | n).
 * `lengthBytes` is at most 255 blocks; more throws RangeError, for it is our own table that is wrong.
 */
export function prfPlus(
  prf: Prf,
  key: Uint8Array,
  seed: Uint8Array,
  lengthBytes: number,
): Uint8Array {
  const blocks = Math.ceil(lengthBytes / prf.outputBytes)
  if (blocks > 255) throw new RangeError(`prf+ yields at most 255 blocks, ${blocks} asked`)
  const stream = new Uint8Array(blocks * prf.outputBytes)
  let previous: Uint8Array = new Uint8Array(0)
  for (let n = 1; n <= blocks; n++) {
    previous = prf.compute(key, previous, seed, Uint8Array.of(n))
    stream.set(previous, (n - 1) * prf.outputBytes)
  }
  const out = stream.slice(0, lengthBytes)
  wipe(stream)
  return out
}
