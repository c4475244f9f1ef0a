/**
 * The ways in which IP packets become PPP frames on a tunnel that leaves that to PPP: plain, protected
 * as CCP has agreed, or not at all. Nothing here allocates per packet.
 */
import { putU16 } from '../core/bytes.ts'
import type { FrameSealer } from './carrier.ts'
import type { MppcCompressor } from './mppc/compressor.ts'
import type { MppeEncryptor } from './mppe/mppe-encryptor.ts'
import { coherencyMask, MppeBit, mppeHeaderBytes } from './mppe/mppe-packet.ts'
import { frameHeaderBytes, PppProtocol, putFrameHeader } from './wire/frame.ts'

const protocolFieldBytes = 2

export class PlainSealer implements FrameSealer {
  readonly headerBytes = frameHeaderBytes
  readonly #bytes: Uint8Array

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  seal(at: number, lengthBytes: number): number {
    putFrameHeader(this.#bytes, at - frameHeaderBytes, protocolOf(this.#bytes, at))
    return frameHeaderBytes + lengthBytes
  }
}

/** Data may not pass: CCP is being negotiated anew, or is down where it must not be. */
export class BlockedSealer implements FrameSealer {
  readonly headerBytes = frameHeaderBytes
  droppedPackets = 0

  seal(): number {
    this.droppedPackets++
    return 0
  }
}

/** MPPE, MPPC, or MPPC inside MPPE (RFC 3078 §3: compressed first, then encrypted). */
export class ProtectedSealer implements FrameSealer {
  readonly headerBytes = frameHeaderBytes + mppeHeaderBytes + protocolFieldBytes
  readonly #bytes: Uint8Array
  readonly #encryptor: MppeEncryptor | undefined
  readonly #compressor: MppcCompressor | undefined
  /** Coherency count of packets that are compressed only. */
  #count = coherencyMask

  constructor(
    bytes: Uint8Array,
    encryptor: MppeEncryptor | undefined,
    compressor: MppcCompressor | undefined,
  ) {
    this.#bytes = bytes
    this.#encryptor = encryptor
    this.#compressor = compressor
  }

  /** The peer cannot follow: the next packet begins anew. */
  reset(): void {
    this.#encryptor?.reset()
    this.#compressor?.reset()
  }

  /** As the peer was seen to do in the other direction. */
  followFlushesOf(changesKeyOnFlush: boolean): void {
    if (this.#encryptor !== undefined) this.#encryptor.changesKeyOnFlush = changesKeyOnFlush
  }

  seal(at: number, lengthBytes: number): number {
    const bytes = this.#bytes
    const insideAt = at - protocolFieldBytes
    putU16(bytes, insideAt, protocolOf(bytes, at))
    let insideBytes = lengthBytes + protocolFieldBytes
    let head = 0
    if (this.#compressor !== undefined) {
      // Bit A stands for both (RFC 3078 §3): who begins anew takes the other along.
      if (this.#encryptor?.isFlushNext === true) this.#compressor.reset()
      head = this.#compressor.compress(bytes, insideAt, insideBytes)
      if ((head & MppeBit.flushed) !== 0) this.#encryptor?.reset()
      if ((head & MppeBit.compressed) !== 0) insideBytes = this.#compressor.compressedBytes
    }
    if (this.#encryptor !== undefined) {
      head |= this.#encryptor.encrypt(bytes, insideAt, insideBytes)
    } else {
      this.#count = (this.#count + 1) & coherencyMask
      head |= this.#count
    }
    const frameAt = at - this.headerBytes
    putU16(bytes, putFrameHeader(bytes, frameAt, PppProtocol.compressed), head)
    return frameHeaderBytes + mppeHeaderBytes + insideBytes
  }

  destroy(): void {
    this.#encryptor?.destroy()
  }
}

function protocolOf(bytes: Uint8Array, at: number): number {
  return (bytes[at] ?? 0) >>> 4 === 6 ? PppProtocol.ipv6 : PppProtocol.ipv4
}
