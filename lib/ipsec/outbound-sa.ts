/** The sending half of an ESP SA: RFC 4303 §3.3. Packets are sealed where they stand. */
import type { PacketCipherProvider } from '../crypto/packet-cipher.ts'
import {
  type PacketBytes,
  type PacketSealer,
  type PacketSuite,
  suiteIcvBytes,
} from '../crypto/packet-cipher.ts'
import {
  bodyAlignment,
  bodyBytes,
  HEADER_BYTES,
  largestPayload,
  NextHeader,
  putTrailer,
  SEQUENCE_AT,
  TRAILER_BYTES,
} from './esp.ts'
import { DropCounters, EspDrop } from './esp-drop.ts'
import { type HeldKeys, noKeys } from './held-keys.ts'
import { Lifetime, type LifetimeOptions } from './lifetime.ts'

export interface OutboundSaOptions {
  /** The peer's SPI, which goes into every packet. */
  readonly spi: number
  readonly suite: PacketSuite
  /** Taken over, and wiped when the SA has no more use for them. */
  readonly keys: HeldKeys
  /** From `packetCipherProvider(suite, memory)`. */
  readonly provider: PacketCipherProvider
  readonly memory: PacketBytes
  readonly lifetime: LifetimeOptions
  readonly nowMs: number
  /** The last sequence number that is taken for sent already; tests start near the end. */
  readonly startSequence?: { readonly high: number; readonly low: number }
}

const maxLow = 0xffff_ffff
/** With ESN the receiver's arithmetic ends at 2^53 (replay-window.ts), so ours does too. */
const maxEsnHigh = 0x1f_ffff

export class OutboundSa {
  readonly spi: number
  readonly suite: PacketSuite
  /** What must be free in front of a payload: ESP header and IV, bytes. */
  readonly headroomBytes: number
  /** What must be free behind a payload at most: padding, trailer, ICV, bytes. */
  readonly tailroomBytes: number
  readonly lifetime: Lifetime
  readonly drops = new DropCounters()
  readonly #memory: PacketBytes
  readonly #bytes: Uint8Array
  readonly #provider: PacketCipherProvider
  /** Taken when the first packet goes: an SA that waits holds a key and no more. */
  #keys: HeldKeys | undefined
  #sealer: PacketSealer | undefined
  readonly #alignment: number
  readonly #icvBytes: number
  readonly #maxHigh: number
  #sequenceLow: number
  #sequenceHigh: number
  #isClosed = false

  constructor(options: OutboundSaOptions) {
    const { suite, memory, startSequence } = options
    this.spi = options.spi
    this.suite = suite
    this.#bytes = memory.bytes
    this.#alignment = bodyAlignment(suite.encryption.blockBytes)
    this.#icvBytes = suiteIcvBytes(suite)
    this.headroomBytes = HEADER_BYTES + suite.encryption.ivBytes
    this.tailroomBytes = this.#alignment - 1 + TRAILER_BYTES + this.#icvBytes
    this.lifetime = new Lifetime(options.lifetime, options.nowMs)
    this.#maxHigh = suite.hasEsn ? maxEsnHigh : 0
    this.#sequenceLow = startSequence?.low ?? 0
    this.#sequenceHigh = startSequence?.high ?? 0
    this.#memory = memory
    this.#provider = options.provider
    this.#keys = options.keys
  }

  get provider(): string {
    return this.#provider.name
  }

  /** Length of the ESP packet that a payload becomes, bytes. */
  sealedBytes(payloadBytes: number): number {
    return this.headroomBytes + bodyBytes(payloadBytes, this.#alignment) + this.#icvBytes
  }

  /** The longest payload whose ESP packet has at most `espBytes`. */
  largestPayload(espBytes: number): number {
    return largestPayload(espBytes - this.headroomBytes - this.#icvBytes, this.#alignment)
  }

  /** Packets that may still be sent before the sequence number would repeat (RFC 4303 §3.3.3). */
  get remainingPackets(): number {
    return (this.#maxHigh - this.#sequenceHigh) * 2 ** 32 + (maxLow - this.#sequenceLow)
  }

  /**
   * Seals the payload that stands at `at`. The ESP packet then starts `headroomBytes` earlier, and
   * its length is returned; or an `EspDrop`, and then nothing may be sent. The `headroomBytes`
   * before the payload and the `tailroomBytes` behind it are overwritten. Throws RangeError when they
   * are not inside the memory: OpenSSL writes where it is told.
   */
  seal(at: number, payloadBytes: number, nextHeader: number): number {
    const start = at - this.headroomBytes
    if (!(start >= 0 && at + payloadBytes + this.tailroomBytes <= this.#bytes.length)) {
      throw new RangeError(`no room for ESP around ${payloadBytes} bytes at ${at}`)
    }
    if (this.#isClosed) return this.#drop(EspDrop.closed)
    if (this.lifetime.isSpent) return this.#drop(EspDrop.expired)
    if (this.#sequenceLow === maxLow) {
      if (this.#sequenceHigh >= this.#maxHigh) return this.#drop(EspDrop['sequence-exhausted'])
      this.#sequenceHigh++
      this.#sequenceLow = 0
    } else {
      this.#sequenceLow++
    }
    const encryptedBytes = bodyBytes(payloadBytes, this.#alignment)
    putTrailer(this.#bytes, at + payloadBytes, at + encryptedBytes, nextHeader)
    const { view } = this.#memory
    view.setUint32(start, this.spi)
    view.setUint32(start + SEQUENCE_AT, this.#sequenceLow)
    const sealer = this.#sealer ?? this.#start()
    if (!sealer.seal(start, encryptedBytes, this.#sequenceHigh)) {
      return this.#drop(EspDrop['cipher-failed'])
    }
    this.lifetime.count(payloadBytes)
    return this.headroomBytes + encryptedBytes + this.#icvBytes
  }

  /** `seal` for an IP packet in tunnel mode: its version says the next header. */
  sealIp(at: number, lengthBytes: number): number {
    const version = (this.#bytes[at] ?? 0) >>> 4
    return this.seal(at, lengthBytes, version === 6 ? NextHeader.ipv6 : NextHeader.ipv4)
  }

  /** A dummy packet (RFC 4303 §2.6) of `lengthBytes` bytes of whatever stands at `at`. */
  sealDummy(at: number, lengthBytes: number): number {
    return this.seal(at, lengthBytes, NextHeader.none)
  }

  /** Wipes the keys; afterwards every `seal` is a counted drop. */
  close(): void {
    this.#isClosed = true
    this.#keys?.destroy()
    this.#sealer?.destroy()
  }

  #start(): PacketSealer {
    const keys = this.#keys ?? noKeys
    this.#sealer = this.#provider.sealer(this.suite, keys, this.#memory)
    this.#keys?.destroy()
    this.#keys = undefined
    return this.#sealer
  }

  #drop(reason: EspDrop): EspDrop {
    this.drops.count(reason)
    return reason
  }
}
