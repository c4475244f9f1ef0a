/**
 * AES-GCM (RFC 4106) over packets, by four calls into OpenSSL on a context that keeps its key: IV and
 * ICV go together through one array of parameters, which costs a fifth less than `EVP_EncryptInit_ex`
 * and `EVP_CIPHER_CTX_ctrl`.
 *
 * These are the parameters of TLS 1.2, where the IV of 8 bytes travels as it does in ESP: a sealing
 * context is told the whole first IV and counts on by itself (`tlsivgen`), so no IV can come twice; an
 * opening one is told that of each packet (`tlsivinv`).
 */
import { SystemError } from '../core/errors.ts'
import { createEvpContext } from './evp-context.ts'
import { octetParams } from './evp-params.ts'
import type { EvpCalls, EvpParamCalls, Libcrypto } from './libcrypto.ts'
import { NativeScratch } from './native-scratch.ts'
import {
  PACKET_HEADER_BYTES,
  type PacketBytes,
  type PacketKeys,
  type PacketOpener,
  type PacketSealer,
  type PacketSuite,
} from './packet-cipher.ts'

const saltBytes = 4
const ivBytes = 8
const bodyOffset = PACKET_HEADER_BYTES + ivBytes
/** RFC 4106 §5: SPI and both halves of the sequence number; used with ESN only. */
const esnAssociatedBytes = 12
/** To `tlsivfixed`: all of the IV is given, not its fixed part only. */
const wholeIv = -1

// Places in the scratch that all contexts of the process share; it is used during one packet only.
const tagAt = 0
const ivAt = 16
const associatedAt = 24
/** Where OpenSSL says how many bytes its last step wrote: none, in this mode. */
const lengthAt = 36
const firstIvAt = 40
const scratchBytes = 64

/** The scratch, and the parameter arrays that point into it, by length of the ICV. */
interface Shared {
  readonly scratch: NativeScratch
  readonly firstIv: NativeScratch
  readonly nextIv: NativeScratch
  readonly sealed: ReadonlyMap<number, NativeScratch>
  readonly opened: ReadonlyMap<number, NativeScratch>
}

let shared: Shared | undefined

function sharedParams(library: Libcrypto): Shared {
  if (shared !== undefined) return shared
  const scratch = new NativeScratch(library, scratchBytes)
  const { address } = scratch
  const generated = { name: 'tlsivgen', dataAddress: address + ivAt, dataBytes: ivBytes }
  const taken = { name: 'tlsivinv', dataAddress: address + ivAt, dataBytes: ivBytes }
  const tag = (dataBytes: number) => ({ name: 'tag', dataAddress: address + tagAt, dataBytes })
  const lengths = [8, 12, 16]
  shared = {
    scratch,
    firstIv: octetParams(library, [
      { name: 'tlsivfixed', dataAddress: address + firstIvAt, dataBytes: wholeIv },
    ]),
    nextIv: octetParams(library, [generated]),
    sealed: new Map(lengths.map(n => [n, octetParams(library, [tag(n), generated])])),
    opened: new Map(lengths.map(n => [n, octetParams(library, [tag(n), taken])])),
  }
  return shared
}

/** Tells a context its salt and the IV that comes first; afterwards only IVs of 8 bytes. */
function setFirstIv(
  calls: EvpParamCalls,
  { scratch, firstIv }: Shared,
  context: number,
  salt: Uint8Array,
  high: number,
  low: number,
): boolean {
  scratch.bytes.set(salt, firstIvAt)
  scratch.view.setUint32(firstIvAt + saltBytes, high)
  scratch.view.setUint32(firstIvAt + saltBytes + 4, low)
  const result = calls.setParams(context, firstIv.address)
  scratch.bytes.fill(0, firstIvAt)
  return result === 1
}

function paramsOf(arrays: ReadonlyMap<number, NativeScratch>, icvBytes: number): number {
  return arrays.get(icvBytes)?.address ?? 0
}

export class EvpGcmSealer implements PacketSealer {
  readonly provider = 'evp'
  readonly #evp: EvpCalls
  readonly #calls: EvpParamCalls
  readonly #view: DataView
  readonly #memoryAddress: number
  readonly #shared: Shared
  readonly #scratchView: DataView
  readonly #salt: Uint8Array
  readonly #paramsAddress: number
  readonly #associatedAddress: number
  readonly #lengthAddress: number
  readonly #hasEsn: boolean
  readonly #icvBytes: number
  #context: number
  /** The IV that the context holds for the next packet. */
  #nextIvHigh = -1
  #nextIvLow = -1

  constructor(
    library: Libcrypto,
    calls: EvpParamCalls,
    suite: PacketSuite,
    keys: PacketKeys,
    memory: PacketBytes,
  ) {
    const { encryption } = suite
    const key = keys.encryptionKey
    this.#evp = library.evp
    this.#calls = calls
    this.#view = memory.view
    this.#memoryAddress = memory.address
    this.#shared = sharedParams(library)
    const { scratch } = this.#shared
    this.#scratchView = scratch.view
    this.#salt = key.slice(-saltBytes)
    this.#paramsAddress = paramsOf(this.#shared.sealed, encryption.icvBytes)
    this.#associatedAddress = scratch.address + associatedAt
    this.#lengthAddress = scratch.address + lengthAt
    this.#hasEsn = suite.hasEsn
    this.#icvBytes = encryption.icvBytes
    this.#context = createEvpContext(library, encryption, key.subarray(0, -saltBytes), 'seal')
  }

  seal(at: number, bodyBytes: number, sequenceHigh: number): boolean {
    const context = this.#context
    if (context === 0) return false
    const evp = this.#evp
    const view = this.#view
    const scratch = this.#scratchView
    const sequence = view.getUint32(at + 4)
    if (sequence !== this.#nextIvLow || sequenceHigh !== this.#nextIvHigh) {
      // The first packet, or one after numbers that were left out.
      if (!this.#skipTo(sequenceHigh, sequence)) return false
    }
    view.setUint32(at + 8, sequenceHigh)
    view.setUint32(at + 12, sequence)
    if (this.#hasEsn) {
      scratch.setUint32(associatedAt, view.getUint32(at))
      scratch.setUint32(associatedAt + 4, sequenceHigh)
      scratch.setUint32(associatedAt + 8, sequence)
      evp.cipher(context, 0, this.#associatedAddress, esnAssociatedBytes)
    } else {
      evp.cipher(context, 0, this.#memoryAddress + at, PACKET_HEADER_BYTES)
    }
    const icvAt = at + bodyOffset + bodyBytes
    const body = this.#memoryAddress + (at + bodyOffset)
    const written = evp.cipher(context, body, body, bodyBytes)
    const finished = evp.finishEncrypt(context, this.#lengthAddress, this.#lengthAddress)
    const tagged = this.#calls.getParams(context, this.#paramsAddress)
    for (let i = 0; i < this.#icvBytes; i += 4) {
      view.setUint32(icvAt + i, scratch.getUint32(tagAt + i))
    }
    this.#nextIvHigh = scratch.getUint32(ivAt)
    this.#nextIvLow = scratch.getUint32(ivAt + 4)
    return written === bodyBytes && finished === 1 && tagged === 1
  }

  destroy(): void {
    if (this.#context !== 0) this.#evp.freeContext(this.#context)
    this.#context = 0
    this.#salt.fill(0)
  }

  /** Sequence numbers only grow (see `PacketSealer`), so an IV that was skipped stays unused. */
  #skipTo(high: number, low: number): boolean {
    const { nextIv } = this.#shared
    return (
      setFirstIv(this.#calls, this.#shared, this.#context, this.#salt, high, low) &&
      this.#calls.getParams(this.#context, nextIv.address) === 1
    )
  }
}

export class EvpGcmOpener implements PacketOpener {
  readonly provider = 'evp'
  readonly #evp: EvpCalls
  readonly #calls: EvpParamCalls
  readonly #view: DataView
  readonly #memoryAddress: number
  readonly #shared: Shared
  readonly #scratchView: DataView
  readonly #paramsAddress: number
  readonly #associatedAddress: number
  readonly #lengthAddress: number
  readonly #hasEsn: boolean
  readonly #icvBytes: number
  #context: number

  /** Throws SystemError when OpenSSL refuses. */
  constructor(
    library: Libcrypto,
    calls: EvpParamCalls,
    suite: PacketSuite,
    keys: PacketKeys,
    memory: PacketBytes,
  ) {
    const { encryption } = suite
    const key = keys.encryptionKey
    this.#evp = library.evp
    this.#calls = calls
    this.#view = memory.view
    this.#memoryAddress = memory.address
    this.#shared = sharedParams(library)
    const { scratch } = this.#shared
    this.#scratchView = scratch.view
    this.#paramsAddress = paramsOf(this.#shared.opened, encryption.icvBytes)
    this.#associatedAddress = scratch.address + associatedAt
    this.#lengthAddress = scratch.address + lengthAt
    this.#hasEsn = suite.hasEsn
    this.#icvBytes = encryption.icvBytes
    this.#context = createEvpContext(library, encryption, key.subarray(0, -saltBytes), 'open')
    if (!setFirstIv(calls, this.#shared, this.#context, key.subarray(-saltBytes), 0, 0)) {
      this.destroy()
      throw new SystemError(`OpenSSL refuses the salt of ${encryption.name}`)
    }
  }

  open(at: number, bodyBytes: number, sequenceHigh: number): boolean {
    const context = this.#context
    if (context === 0) return false
    const evp = this.#evp
    const view = this.#view
    const scratch = this.#scratchView
    const icvAt = at + bodyOffset + bodyBytes
    scratch.setUint32(ivAt, view.getUint32(at + 8))
    scratch.setUint32(ivAt + 4, view.getUint32(at + 12))
    for (let i = 0; i < this.#icvBytes; i += 4) {
      scratch.setUint32(tagAt + i, view.getUint32(icvAt + i))
    }
    const isSet = this.#calls.setParams(context, this.#paramsAddress)
    if (this.#hasEsn) {
      scratch.setUint32(associatedAt, view.getUint32(at))
      scratch.setUint32(associatedAt + 4, sequenceHigh)
      scratch.setUint32(associatedAt + 8, view.getUint32(at + 4))
      evp.cipher(context, 0, this.#associatedAddress, esnAssociatedBytes)
    } else {
      evp.cipher(context, 0, this.#memoryAddress + at, PACKET_HEADER_BYTES)
    }
    const body = this.#memoryAddress + (at + bodyOffset)
    const written = evp.cipher(context, body, body, bodyBytes)
    // The tag is compared in here.
    const finished = evp.finishDecrypt(context, this.#lengthAddress, this.#lengthAddress)
    return finished === 1 && isSet === 1 && written === bodyBytes
  }

  destroy(): void {
    if (this.#context !== 0) this.#evp.freeContext(this.#context)
    this.#context = 0
  }
}
