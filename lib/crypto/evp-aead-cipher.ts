/**
 * AEADs (RFC 4106, RFC 7634) over packets, by five calls into OpenSSL on a
 * context that keeps its key.
 */
import { createEvpContext } from './evp-context.ts'
import { type EvpCalls, EvpCtrl, type Libcrypto } from './libcrypto.ts'
import { NativeScratch } from './native-scratch.ts'
import {
  PACKET_HEADER_BYTES,
  type PacketBytes,
  type PacketKeys,
  type PacketOpener,
  type PacketSealer,
  type PacketSuite,
} from './packet-cipher.ts'

const nonceAt = 0
const saltBytes = 4
/** RFC 4106 §5: SPI and both halves of the sequence number, 12 bytes; used with ESN only. */
const associatedAt = 16
const esnAssociatedBytes = 12
/** Where OpenSSL says how many bytes its last step wrote: none, in these modes. */
const lengthAt = 28
const scratchBytes = 32
const bodyOffset = PACKET_HEADER_BYTES + 8

export class EvpAeadSealer implements PacketSealer {
  readonly provider = 'evp'
  readonly #evp: EvpCalls
  readonly #view: DataView
  readonly #memoryAddress: number
  readonly #scratch: NativeScratch
  readonly #scratchView: DataView
  readonly #nonceAddress: number
  readonly #associatedAddress: number
  readonly #lengthAddress: number
  readonly #hasEsn: boolean
  readonly #icvBytes: number
  #context: number

  constructor(library: Libcrypto, suite: PacketSuite, keys: PacketKeys, memory: PacketBytes) {
    const { encryption } = suite
    const key = keys.encryptionKey
    this.#evp = library.evp
    this.#view = memory.view
    this.#memoryAddress = memory.address
    this.#scratch = new NativeScratch(library, scratchBytes)
    this.#scratchView = this.#scratch.view
    this.#scratch.bytes.set(key.subarray(key.length - saltBytes), nonceAt)
    this.#nonceAddress = this.#scratch.address + nonceAt
    this.#associatedAddress = this.#scratch.address + associatedAt
    this.#lengthAddress = this.#scratch.address + lengthAt
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
    const spi = view.getUint32(at)
    const sequence = view.getUint32(at + 4)
    view.setUint32(at + 8, sequenceHigh)
    view.setUint32(at + 12, sequence)
    scratch.setUint32(nonceAt + 4, sequenceHigh)
    scratch.setUint32(nonceAt + 8, sequence)
    evp.initEncrypt(context, 0, 0, 0, this.#nonceAddress)
    if (this.#hasEsn) {
      scratch.setUint32(associatedAt, spi)
      scratch.setUint32(associatedAt + 4, sequenceHigh)
      scratch.setUint32(associatedAt + 8, sequence)
      evp.cipher(context, 0, this.#associatedAddress, esnAssociatedBytes)
    } else {
      evp.cipher(context, 0, this.#memoryAddress + at, PACKET_HEADER_BYTES)
    }
    const body = this.#memoryAddress + (at + bodyOffset)
    const written = evp.cipher(context, body, body, bodyBytes)
    const finished = evp.finishEncrypt(context, this.#nonceAddress, this.#lengthAddress)
    const tagged = evp.control(context, EvpCtrl.getTag, this.#icvBytes, body + bodyBytes)
    return written === bodyBytes && finished === 1 && tagged === 1
  }

  destroy(): void {
    if (this.#context !== 0) this.#evp.freeContext(this.#context)
    this.#context = 0
    this.#scratch.wipe()
  }
}

export class EvpAeadOpener implements PacketOpener {
  readonly provider = 'evp'
  readonly #evp: EvpCalls
  readonly #view: DataView
  readonly #memoryAddress: number
  readonly #scratch: NativeScratch
  readonly #scratchView: DataView
  readonly #nonceAddress: number
  readonly #associatedAddress: number
  readonly #lengthAddress: number
  readonly #hasEsn: boolean
  readonly #icvBytes: number
  #context: number

  constructor(library: Libcrypto, suite: PacketSuite, keys: PacketKeys, memory: PacketBytes) {
    const { encryption } = suite
    const key = keys.encryptionKey
    this.#evp = library.evp
    this.#view = memory.view
    this.#memoryAddress = memory.address
    this.#scratch = new NativeScratch(library, scratchBytes)
    this.#scratchView = this.#scratch.view
    this.#scratch.bytes.set(key.subarray(key.length - saltBytes), nonceAt)
    this.#nonceAddress = this.#scratch.address + nonceAt
    this.#associatedAddress = this.#scratch.address + associatedAt
    this.#lengthAddress = this.#scratch.address + lengthAt
    this.#hasEsn = suite.hasEsn
    this.#icvBytes = encryption.icvBytes
    this.#context = createEvpContext(library, encryption, key.subarray(0, -saltBytes), 'open')
  }

  open(at: number, bodyBytes: number, sequenceHigh: number): boolean {
    const context = this.#context
    if (context === 0) return false
    const evp = this.#evp
    const view = this.#view
    const scratch = this.#scratchView
    scratch.setUint32(nonceAt + 4, view.getUint32(at + 8))
    scratch.setUint32(nonceAt + 8, view.getUint32(at + 12))
    evp.initDecrypt(context, 0, 0, 0, this.#nonceAddress)
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
    const tagged = evp.control(context, EvpCtrl.setTag, this.#icvBytes, body + bodyBytes)
    // The tag is compared in here.
    const finished = evp.finishDecrypt(context, this.#nonceAddress, this.#lengthAddress)
    return finished === 1 && tagged === 1 && written === bodyBytes
  }

  destroy(): void {
    if (this.#context !== 0) this.#evp.freeContext(this.#context)
    this.#context = 0
    this.#scratch.wipe()
  }
}
