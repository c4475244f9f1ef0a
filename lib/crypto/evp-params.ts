/**
 * Arrays of `OSSL_PARAM` (openssl/core.h), made once: OpenSSL 3 reads and writes several values of a
 * context in one call, in the memory that the array names.
 *
 *   key ptr | data_type u32, 4 bytes of padding | data ptr | data_size | return_size
 */
import type { Libcrypto } from './libcrypto.ts'
import { NativeScratch } from './native-scratch.ts'

const OCTET_STRING = 5
const PARAM_BYTES = 40
/** Room for a name with its zero byte. */
const NAME_BYTES = 16
const TYPE_AT = 8
const DATA_AT = 16
const SIZE_AT = 24

export interface OctetParam {
  /** At most 15 characters. */
  readonly name: string
  /** Native address of the value. */
  readonly dataAddress: number
  readonly dataBytes: number
}

/** The array; it holds while this object is reachable. */
export function octetParams(library: Libcrypto, params: readonly OctetParam[]): NativeScratch {
  const namesAt = PARAM_BYTES * (params.length + 1)
  // The last entry stays zero: it ends the array.
  const scratch = new NativeScratch(library, namesAt + NAME_BYTES * params.length)
  const { view } = scratch
  params.forEach(({ name, dataAddress, dataBytes }, i) => {
    const at = PARAM_BYTES * i
    const nameAt = namesAt + NAME_BYTES * i
    for (let c = 0; c < name.length; c++) view.setUint8(nameAt + c, name.charCodeAt(c))
    view.setBigUint64(at, BigInt(scratch.address + nameAt), true)
    view.setUint32(at + TYPE_AT, OCTET_STRING, true)
    view.setBigUint64(at + DATA_AT, BigInt(dataAddress), true)
    view.setBigInt64(at + SIZE_AT, BigInt(dataBytes), true)
  })
  return scratch
}
