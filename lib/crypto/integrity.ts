/** Integrity algorithms over control messages (RFC 7296 §3.3.2 transform type 3). */
import { equalBytes } from '../core/bytes.ts'
import { aesCmac, aesXcbc } from './aes-mac.ts'
import { hmac } from './hash.ts'
import { IntegrityId, type IntegrityTransform } from './transforms.ts'

type Mac = (key: Uint8Array, ...parts: Uint8Array[]) => Uint8Array

const macs: Readonly<Record<IntegrityId, Mac | undefined>> = {
  [IntegrityId.none]: undefined,
  [IntegrityId.hmacSha1_96]: (key, ...parts) => hmac('sha1', key, ...parts),
  [IntegrityId.aesXcbc96]: aesXcbc,
  [IntegrityId.aesCmac96]: aesCmac,
  [IntegrityId.hmacSha256_128]: (key, ...parts) => hmac('sha256', key, ...parts),
  [IntegrityId.hmacSha384_192]: (key, ...parts) => hmac('sha384', key, ...parts),
  [IntegrityId.hmacSha512_256]: (key, ...parts) => hmac('sha512', key, ...parts),
}

/** The ICV, cut to `transform.icvBytes`; `key` has `transform.keyBytes`. */
export function integrityCheckValue(
  transform: IntegrityTransform,
  key: Uint8Array,
  ...parts: Uint8Array[]
): Uint8Array {
  const mac = macs[transform.id]
  if (mac === undefined) throw new TypeError(`${transform.name} has no check value`)
  return mac(key, ...parts).subarray(0, transform.icvBytes)
}

/** Compares in constant time. */
export function verifyIntegrity(
  transform: IntegrityTransform,
  key: Uint8Array,
  icv: Uint8Array,
  ...parts: Uint8Array[]
): boolean {
  return equalBytes(icv, integrityCheckValue(transform, key, ...parts))
}
