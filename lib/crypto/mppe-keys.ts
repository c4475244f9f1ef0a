/** Keys out of an MS-CHAPv2 exchange, RFC 3079 §3. */
import { createHash } from 'node:crypto'
import { concatBytes, copyBytes, utf8 } from '../core/bytes.ts'
import { wipe } from '../core/secret.ts'
import { hashNtPasswordHash } from './ms-chap.ts'

/** RFC 3079 §3.4: the constants Magic1, Magic2 and Magic3. */
const magic1 = utf8('This is the MPPE Master Key')
const magic2 = utf8(
  'On the client side, this is the send key; on the server side, it is the receive key.',
)
const magic3 = utf8(
  'On the client side, this is the receive key; on the server side, it is the send key.',
)
/** RFC 3079 §3.4: SHSpad1 and SHSpad2. */
const shsPad1 = new Uint8Array(40)
const shsPad2 = new Uint8Array(40).fill(0xf2)

export const masterKeyBytes = 16
/** [MS-SSTP] §3.2.5.2.2. */
export const higherLayerKeyBytes = 32

/** The two 16-byte master session keys of a server. A client's are the same, swapped. */
export interface ServerKeys {
  readonly receive: Uint8Array
  readonly send: Uint8Array
}

/** RFC 3079 §3.4 GetMasterKey: 16 bytes from the hash of the password hash and the NT-response. */
export function masterKey(ntHashHash: Uint8Array, ntResponse: Uint8Array): Uint8Array {
  const digest = sha1(ntHashHash, ntResponse, magic1)
  const key = copyBytes(digest, 0, masterKeyBytes)
  wipe(digest)
  return key
}

/** RFC 3079 §3.4 GetAsymmetricStartKey, both directions, from the server's point of view. */
export function serverStartKeys(master: Uint8Array): ServerKeys {
  return { receive: startKey(master, magic2), send: startKey(master, magic3) }
}

/** Everything at once: the keys of a server that knows the NT hash and saw the NT-response. */
export function serverKeysOf(ntHash: Uint8Array, ntResponse: Uint8Array): ServerKeys {
  const hashHash = hashNtPasswordHash(ntHash)
  const master = masterKey(hashHash, ntResponse)
  const keys = serverStartKeys(master)
  wipe(hashHash, master)
  return keys
}

/** The 32-byte higher-layer authentication key: server receive, then server send. */
export function higherLayerKey(keys: ServerKeys): Uint8Array {
  return concatBytes(keys.receive, keys.send)
}

function startKey(master: Uint8Array, magic: Uint8Array): Uint8Array {
  const digest = sha1(master, shsPad1, magic, shsPad2)
  const key = copyBytes(digest, 0, masterKeyBytes)
  wipe(digest)
  return key
}

function sha1(...parts: Uint8Array[]): Uint8Array {
  const hash = createHash('sha1')
  for (const part of parts) hash.update(part)
  return Uint8Array.from(hash.digest())
}
