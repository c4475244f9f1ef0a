/** The receiving half of an ESP SA: RFC 4303 §3.4. Packets are opened where they stand. */
import { u16 } from '../core/bytes.ts'
import {
  type PacketBytes,
  type PacketCipherProvider,
  type PacketOpener,
  type PacketSuite,
  suiteIcvBytes,
} from '../crypto/packet-cipher.ts'
import {
  bodyAlignment,
  HEADER_BYTES,
  NextHeader,
  payloadBytes,
  SEQUENCE_AT,
  TRAILER_BYTES,
} from './esp.ts'
import { DropCounters, EspDrop } from './esp-drop.ts'
import { type HeldKeys, noKeys } from './held-keys.ts'
import { Lifetime, type LifetimeOptions } from './lifetime.ts'
import { ReplayWindow } from './replay-window.ts'
import type { TrafficSelectors } from './traffic-selectors.ts'

export type EspMode = 'tunnel' | 'transport'

export interface InboundSaOptions {
  /** Our SPI. */
  readonly spi: number
  readonly mode: EspMode
  readonly suite: PacketSuite
  /** Taken over, and wiped when the SA has no more use for them. */
  readonly keys: HeldKeys
  /** From `packetCipherProvider(suite, memory)`. */
  readonly provider: PacketCipherProvider
  readonly memory: PacketBytes
  readonly lifetime: LifetimeOptions
  readonly nowMs: number
  readonly replayWindowPackets: number
  /** What may come out; undefined lets everything out. */
  readonly selectors: TrafficSelectors | undefined
}

const ipv4HeaderBytes = 20
const ipv6HeaderBytes = 40
const udpHeaderBytes = 8

export class InboundSa {
  readonly spi: number
  readonly mode: EspMode
  readonly suite: PacketSuite
  /** The payload of a packet starts this many bytes into it. */
  readonly payloadOffset: number
  readonly lifetime: Lifetime
  readonly replay: ReplayWindow
  readonly drops = new DropCounters()
  readonly #memory: PacketBytes
  readonly #bytes: Uint8Array
  readonly #provider: PacketCipherProvider
  /** Taken when the first packet comes: an SA that waits holds a key and no more. */
  #keys: HeldKeys | undefined
  #opener: PacketOpener | undefined
  readonly #alignment: number
  readonly #icvBytes: number
  readonly #selectors: TrafficSelectors | undefined
  #nextHeader = 0
  #authenticPackets = 0
  #isClosed = false

  constructor(options: InboundSaOptions) {
    const { suite, memory } = options
    this.spi = options.spi
    this.mode = options.mode
    this.suite = suite
    this.payloadOffset = HEADER_BYTES + suite.encryption.ivBytes
    this.lifetime = new Lifetime(options.lifetime, options.nowMs)
    this.replay = new ReplayWindow(options.replayWindowPackets, suite.hasEsn)
    this.#bytes = memory.bytes
    this.#alignment = bodyAlignment(suite.encryption.blockBytes)
    this.#icvBytes = suiteIcvBytes(suite)
    this.#selectors = options.selectors
    this.#memory = memory
    this.#provider = options.provider
    this.#keys = options.keys
  }

  get provider(): string {
    return this.#provider.name
  }

  /** The protocol of the payload that `open` returned last. */
  get nextHeader(): number {
    return this.#nextHeader
  }

  /** Packets with a right ICV, dummies and refused ones too: the peer lives. */
  get authenticPackets(): number {
    return this.#authenticPackets
  }

  /**
   * Opens the ESP packet of `lengthBytes` at `at`. The payload then stands at `at + payloadOffset`
   * and its length is returned, padding for traffic flow confidentiality (RFC 4303 §2.7) cut off;
   * or an `EspDrop`, which is counted, and then nothing of the packet may be used. Throws RangeError
   * when the packet is not inside the memory: OpenSSL reads and writes where it is told.
   */
  open(at: number, lengthBytes: number): number {
    if (!(at >= 0 && at + lengthBytes <= this.#bytes.length)) {
      throw new RangeError(`no packet of ${lengthBytes} bytes at ${at}`)
    }
    const length = this.#opened(at, lengthBytes)
    if (length < 0) this.drops.count(length as EspDrop)
    return length
  }

  /** Wipes the keys; afterwards every `open` is a counted drop. */
  close(): void {
    this.#isClosed = true
    this.#keys?.destroy()
    this.#opener?.destroy()
  }

  #opened(at: number, lengthBytes: number): number {
    if (this.#isClosed) return EspDrop.closed
    const payloadAt = at + this.payloadOffset
    const encryptedBytes = lengthBytes - this.payloadOffset - this.#icvBytes
    if (encryptedBytes < TRAILER_BYTES) return EspDrop.truncated
    if ((encryptedBytes & (this.#alignment - 1)) !== 0) return EspDrop.misaligned
    if (this.lifetime.isSpent) return EspDrop.expired
    const low = this.#memory.view.getUint32(at + SEQUENCE_AT)
    const high = this.replay.highOf(low)
    const seen = this.replay.check(high, low)
    if (seen !== 0) return seen
    const opener = this.#opener ?? this.#start()
    if (!opener.open(at, encryptedBytes, high)) return EspDrop['not-authentic']
    this.replay.accept(high, low)
    this.#authenticPackets++
    const end = payloadAt + encryptedBytes
    const length = payloadBytes(this.#bytes, payloadAt, end)
    if (length < 0) return EspDrop['bad-padding']
    this.lifetime.count(length)
    const nextHeader = this.#bytes[end - 1] ?? 0
    this.#nextHeader = nextHeader
    if (nextHeader === NextHeader.none) return EspDrop.dummy
    if (nextHeader === NextHeader.aggfrag) return EspDrop.aggfrag
    return this.mode === 'tunnel'
      ? this.#innerPacket(nextHeader, payloadAt, length)
      : this.#transportPayload(nextHeader, payloadAt, length)
  }

  #start(): PacketOpener {
    const keys = this.#keys ?? noKeys
    this.#opener = this.#provider.opener(this.suite, keys, this.#memory)
    this.#keys?.destroy()
    this.#keys = undefined
    return this.#opener
  }

  #innerPacket(nextHeader: number, at: number, length: number): number {
    const version = (this.#bytes[at] ?? 0) >>> 4
    let packetBytes: number
    if (nextHeader === NextHeader.ipv4) {
      if (length < ipv4HeaderBytes || version !== 4) return EspDrop['bad-inner-packet']
      packetBytes = this.#memory.view.getUint16(at + 2)
      const headerBytes = ((this.#bytes[at] ?? 0) & 15) * 4
      if (headerBytes < ipv4HeaderBytes || packetBytes < headerBytes) {
        return EspDrop['bad-inner-packet']
      }
    } else if (nextHeader === NextHeader.ipv6) {
      if (length < ipv6HeaderBytes || version !== 6) return EspDrop['bad-inner-packet']
      packetBytes = ipv6HeaderBytes + u16(this.#bytes, at + 4)
    } else {
      return EspDrop['wrong-next-header']
    }
    if (packetBytes > length) return EspDrop['bad-inner-packet']
    if (this.#selectors !== undefined && !this.#selectors.allows(this.#bytes, at, packetBytes)) {
      return EspDrop['selector-mismatch']
    }
    return packetBytes
  }

  #transportPayload(nextHeader: number, at: number, length: number): number {
    let payload = length
    if (nextHeader === NextHeader.udp) {
      if (length < udpHeaderBytes) return EspDrop['bad-inner-packet']
      payload = u16(this.#bytes, at + 4)
      if (payload < udpHeaderBytes || payload > length) return EspDrop['bad-inner-packet']
    }
    if (
      this.#selectors !== undefined &&
      !this.#selectors.allowsTransport(nextHeader, this.#bytes, at, payload)
    ) {
      return EspDrop['selector-mismatch']
    }
    return payload
  }
}
