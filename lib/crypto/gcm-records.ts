/**
 * Where OpenSSL keeps the associated data of an AES-GCM record, found out by experiment.
 *
 * The way to set them, `EVP_CTRL_AEAD_TLS1_AAD`, takes the 13 bytes of TLS and no other number. It puts
 * the bytes into the buffer of the context (`EVP_CIPHER_CTX_buf_noconst`) and their number into an
 * integer of the cipher's data (`EVP_CIPHER_CTX_get_cipher_data`) that is -1 as long as there are none:
 * the one integer of which both is true around such a call. Where there is not exactly one, other
 * ciphers serve. What was found is proven before it is used: packets are compared with those of an
 * independent cipher (`passesSelfTest`).
 *
 * Contexts of OpenSSL 3 show neither buffer nor data, but those of a copied method do.
 */
import { cipherMethod, createEvpContext } from './evp-context.ts'
import { EvpCtrl, type Libcrypto, type MethodCopyCalls } from './libcrypto.ts'
import { NativeScratch } from './native-scratch.ts'
import { EncryptionId, type EncryptionTransform, encryptionTransform } from './transforms.ts'

const TLS_ASSOCIATED_BYTES = 13
/** A record's length, the last two bytes of those 13: enough for IV and tag. */
const RECORD_BYTES = 256
/** `EVP_MAX_BLOCK_LENGTH`, the size of a context's buffer. */
const BUFFER_BYTES = 32
const NO_ASSOCIATED_DATA = -1
/** What the call answers: the tag behind a record's text. */
const TAG_BYTES = 16

export interface RecordParts {
  /** The associated data of the next record. */
  readonly associated: DataView
  /** One element: how many bytes of them count. Forgotten after each record. */
  readonly associatedLength: Int32Array
}

export class GcmRecords {
  static #found: GcmRecords | undefined
  static #isSought = false
  readonly #calls: MethodCopyCalls
  readonly #lengthOffset: number
  /** Copied methods by key size; they live as long as the process. */
  readonly #methods = new Map<number, number>()

  /** Undefined where this OpenSSL cannot do it. */
  static of(library: Libcrypto | undefined): GcmRecords | undefined {
    if (library === undefined || GcmRecords.#isSought) return GcmRecords.#found
    GcmRecords.#isSought = true
    GcmRecords.#found = soughtRecords(library)
    return GcmRecords.#found
  }

  constructor(calls: MethodCopyCalls, lengthOffset: number) {
    this.#calls = calls
    this.#lengthOffset = lengthOffset
  }

  /** A method whose contexts show their parts; 0 when OpenSSL does not have the cipher. */
  methodFor(library: Libcrypto, transform: EncryptionTransform, keyBits: number): number {
    let method = this.#methods.get(keyBits)
    if (method === undefined) {
      const original = cipherMethod(library, transform, keyBits)
      method = original === 0 ? 0 : this.#calls.copyMethod(original)
      this.#methods.set(keyBits, method)
    }
    return method
  }

  /** They show memory of the context and must not be touched once it is freed. */
  partsOf(context: number): RecordParts {
    const calls = this.#calls
    const lengthAddress = calls.dataOf(context) + this.#lengthOffset
    return {
      associated: new DataView(calls.memoryAt(calls.bufferOf(context), BUFFER_BYTES)),
      associatedLength: new Int32Array(calls.memoryAt(lengthAddress, 4)),
    }
  }
}

/** Looks for it anew. Undefined where it is not to be found. */
export function soughtRecords(library: Libcrypto): GcmRecords | undefined {
  const { copies: calls } = library
  const transform = encryptionTransform(EncryptionId.aesGcm16)
  if (calls === undefined || transform === undefined) return undefined
  const keyBits = 128
  const original = cipherMethod(library, transform, keyBits)
  const method = original === 0 ? 0 : calls.copyMethod(original)
  if (method === 0) return undefined
  const key = new Uint8Array(keyBits / 8)
  const context = createEvpContext(library, transform, key, 'seal', method)
  try {
    const offset = lengthOffset(library, calls, context, calls.dataBytes(method))
    return offset === undefined ? undefined : new GcmRecords(calls, offset)
  } finally {
    library.evp.freeContext(context)
  }
}

/** The place in the cipher's data of `context`, bytes, that goes from "none" to 13. */
function lengthOffset(
  library: Libcrypto,
  calls: MethodCopyCalls,
  context: number,
  dataBytes: number,
): number | undefined {
  const dataAddress = calls.dataOf(context)
  const bufferAddress = calls.bufferOf(context)
  if (dataAddress === 0 || bufferAddress === 0 || dataBytes <= 0) return undefined
  const data = new Int32Array(calls.memoryAt(dataAddress, dataBytes & ~3))
  const buffer = new Uint8Array(calls.memoryAt(bufferAddress, BUFFER_BYTES))
  const before = data.slice()
  const scratch = new NativeScratch(library, TLS_ASSOCIATED_BYTES)
  for (let i = 0; i < TLS_ASSOCIATED_BYTES; i++) scratch.bytes[i] = 0xa0 + i
  scratch.view.setUint16(TLS_ASSOCIATED_BYTES - 2, RECORD_BYTES)
  const command = EvpCtrl.setTlsAssociated
  const tagBytes = library.evp.control(context, command, TLS_ASSOCIATED_BYTES, scratch.address)
  if (tagBytes !== TAG_BYTES) return undefined
  // The length is corrected there, so it is left out.
  for (let i = 0; i < TLS_ASSOCIATED_BYTES - 2; i++) {
    if (buffer[i] !== scratch.bytes[i]) return undefined
  }
  const changed = [...data.keys()].filter(i => data[i] !== before[i])
  const [only] = changed
  if (changed.length !== 1 || only === undefined) return undefined
  const isLength = before[only] === NO_ASSOCIATED_DATA && data[only] === TLS_ASSOCIATED_BYTES
  return isLength ? only * 4 : undefined
}
