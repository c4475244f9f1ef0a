/**
 * AES-GCM with an ICV of 16 bytes (RFC 4106), one call into OpenSSL a packet. A record of TLS 1.2
 * (RFC 5288 §3) has ESP's shape: an IV of 8 bytes, the text, a tag of 16; OpenSSL seals and opens such
 * a record in place in one step, once it is told the associated data. Of a record they are 13 bytes, of
 * ESP 8 or 12, so they are put where OpenSSL keeps them: see `GcmRecords`.
 */
import { InvariantError, SystemError } from '../core/errors.ts'
import { createEvpContext } from './evp-context.ts'
import { GcmRecords } from './gcm-records.ts'
import { type EvpCalls, EvpCtrl, type Libcrypto, libcrypto } from './libcrypto.ts'
import { NativeScratch } from './native-scratch.ts'
import {
  PACKET_HEADER_BYTES,
  type PacketBytes,
  type PacketCipherProvider,
  type PacketKeys,
  type PacketOpener,
  type PacketSealer,
  type PacketSuite,
} from './packet-cipher.ts'

const saltBytes = 4
const ivBytes = 8
const icvBytes = 16
/** What a record has beside its text. */
const overheadBytes = ivBytes + icvBytes
/** RFC 4106 §5: SPI and sequence number, both halves of it with ESN. */
const esnAssociatedBytes = 12
/** To `setIvFixed`: all of the IV is given, not its fixed part only. */
const wholeIv = -1

/** A context for one direction, and where its associated data belong. */
class RecordContext {
  readonly #evp: EvpCalls
  readonly #scratch: NativeScratch
  readonly #associated: DataView
  readonly #associatedLength: Int32Array
  readonly #associatedBytes: number
  #context: number

  /** Throws SystemError when OpenSSL refuses. */
  constructor(
    library: Libcrypto,
    records: GcmRecords,
    { encryption, keyBits, hasEsn }: PacketSuite,
    key: Uint8Array,
    direction: 'seal' | 'open',
  ) {
    this.#evp = library.evp
    this.#scratch = new NativeScratch(library, saltBytes + ivBytes)
    this.#scratch.bytes.set(key.subarray(-saltBytes))
    this.#associatedBytes = hasEsn ? esnAssociatedBytes : PACKET_HEADER_BYTES
    const method = records.methodFor(library, encryption, keyBits)
    const ownKey = key.subarray(0, -saltBytes)
    this.#context = createEvpContext(library, encryption, ownKey, direction, method)
    const { associated, associatedLength } = records.partsOf(this.#context)
    this.#associated = associated
    this.#associatedLength = associatedLength
    if (this.setIv(0, 0)) return
    this.destroy()
    throw new SystemError(`OpenSSL refuses the salt of ${encryption.name}`)
  }

  /** The IV of the next record that is sealed; each one after it has the next higher. */
  setIv(high: number, low: number): boolean {
    const { view, address } = this.#scratch
    view.setUint32(saltBytes, high)
    view.setUint32(saltBytes + 4, low)
    return this.#evp.control(this.#context, EvpCtrl.setIvFixed, wholeIv, address) === 1
  }

  /** Bytes of the record at `address` when it is sealed, of its text when it is opened; -1 when it is refused. */
  process(
    address: number,
    bodyBytes: number,
    spi: number,
    sequenceHigh: number,
    sequence: number,
  ): number {
    const context = this.#context
    // What the views show is gone with the context.
    if (context === 0) return -1
    const associated = this.#associated
    const length = this.#associatedBytes
    associated.setUint32(0, spi)
    if (length === esnAssociatedBytes) {
      associated.setUint32(4, sequenceHigh)
      associated.setUint32(8, sequence)
    } else {
      associated.setUint32(4, sequence)
    }
    this.#associatedLength[0] = length
    return this.#evp.cipher(context, address, address, bodyBytes + overheadBytes)
  }

  destroy(): void {
    if (this.#context !== 0) this.#evp.freeContext(this.#context)
    this.#context = 0
    this.#scratch.wipe()
  }
}

class EvpRecordSealer implements PacketSealer {
  readonly provider = 'evp-record'
  readonly #context: RecordContext
  readonly #view: DataView
  readonly #recordsAddress: number
  /** The IV that the context holds for the next packet. */
  #nextIvHigh = 0
  #nextIvLow = 0

  constructor(context: RecordContext, memory: PacketBytes) {
    this.#context = context
    this.#view = memory.view
    this.#recordsAddress = memory.address + PACKET_HEADER_BYTES
  }

  seal(at: number, bodyBytes: number, sequenceHigh: number): boolean {
    const view = this.#view
    const spi = view.getUint32(at)
    const sequence = view.getUint32(at + 4)
    if (sequence !== this.#nextIvLow || sequenceHigh !== this.#nextIvHigh) {
      // The first packet, or one after numbers that were left out. Numbers only grow (see
      // `PacketSealer`), so an IV that was skipped stays unused.
      if (!this.#context.setIv(sequenceHigh, sequence)) return false
      this.#nextIvHigh = sequenceHigh
    }
    const nextLow = (sequence + 1) >>> 0
    this.#nextIvLow = nextLow
    if (nextLow === 0) this.#nextIvHigh = (this.#nextIvHigh + 1) >>> 0
    const record = this.#recordsAddress + at
    const sealed = this.#context.process(record, bodyBytes, spi, sequenceHigh, sequence)
    return sealed === bodyBytes + overheadBytes
  }

  destroy(): void {
    this.#context.destroy()
  }
}

class EvpRecordOpener implements PacketOpener {
  readonly provider = 'evp-record'
  readonly #context: RecordContext
  readonly #view: DataView
  readonly #recordsAddress: number

  constructor(context: RecordContext, memory: PacketBytes) {
    this.#context = context
    this.#view = memory.view
    this.#recordsAddress = memory.address + PACKET_HEADER_BYTES
  }

  open(at: number, bodyBytes: number, sequenceHigh: number): boolean {
    const view = this.#view
    const record = this.#recordsAddress + at
    const spi = view.getUint32(at)
    const sequence = view.getUint32(at + 4)
    // The tag is compared in here.
    return this.#context.process(record, bodyBytes, spi, sequenceHigh, sequence) === bodyBytes
  }

  destroy(): void {
    this.#context.destroy()
  }
}

function createContext(
  suite: PacketSuite,
  keys: PacketKeys,
  direction: 'seal' | 'open',
): RecordContext {
  const library = libcrypto()
  const records = GcmRecords.of(library)
  if (library === undefined || records === undefined) {
    throw new InvariantError('the provider of records was not asked if it is there')
  }
  return new RecordContext(library, records, suite, keys.encryptionKey, direction)
}

export const evpRecordCiphers: PacketCipherProvider = {
  name: 'evp-record',
  supports: ({ encryption, keyBits }, memory) =>
    memory.address !== 0 &&
    encryption.mode === 'gcm' &&
    encryption.icvBytes === icvBytes &&
    encryption.keyBits.includes(keyBits) &&
    GcmRecords.of(libcrypto()) !== undefined,
  sealer: (suite: PacketSuite, keys: PacketKeys, memory: PacketBytes) =>
    new EvpRecordSealer(createContext(suite, keys, 'seal'), memory),
  opener: (suite: PacketSuite, keys: PacketKeys, memory: PacketBytes) =>
    new EvpRecordOpener(createContext(suite, keys, 'open'), memory),
}
