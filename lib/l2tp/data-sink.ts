/**
 * The way out of a session: IP packets, each behind its PPP and L2TP header, which are written into
 * the headroom in front of it. Nothing is allocated per packet.
 */
import { noRoom, type PacketSink } from '../core/packet-sink.ts'
import type { PinnedMemory } from '../dataplane/dataplane.ts'
import type { FrameSealer } from '../ppp/carrier.ts'
import { frameHeaderBytes, PppProtocol, putFrameHeader } from '../ppp/wire/frame.ts'
import type { DataSequence } from './data-sequence.ts'
import type { L2tpPath } from './l2tp-path.ts'
import {
  DATA_HEADER_BYTES,
  encodeDataHeader,
  encodeSequencedDataHeader,
  SEQUENCED_DATA_HEADER_BYTES,
} from './wire/header.ts'

export interface DataSinkOptions {
  readonly memory: PinnedMemory
  readonly path: L2tpPath
  readonly peerTunnelId: number
  readonly peerSessionId: number
  /** Present when the session numbers its messages (RFC 2661 §5.4). */
  readonly sequence: DataSequence | undefined
  /** UDP port of the peer's tunnel, looked up for each message. */
  peerPort(): number
}

export class DataSink implements PacketSink {
  mtuBytes: number
  sentPackets = 0
  /** Packets that came before PPP was up or after it had ended. */
  droppedNotPermitted = 0
  readonly #options: DataSinkOptions
  readonly #bytes: Uint8Array
  readonly #path: L2tpPath
  readonly #headerBytes: number
  #isOpen = false
  /** Absent: each packet is a frame of its own, behind a plain PPP header. */
  #sealer: FrameSealer | undefined
  #pppHeaderBytes = frameHeaderBytes

  constructor(options: DataSinkOptions, mtuBytes: number) {
    this.mtuBytes = mtuBytes
    this.#options = options
    this.#bytes = options.memory.bytes
    this.#path = options.path
    this.#headerBytes = headerBytesOf(options.sequence)
  }

  /** Lets packets through, or stops them. */
  permit(isOpen: boolean): void {
    this.#isOpen = isOpen
  }

  /** Makes frames of the packets from now on. */
  setSealer(sealer: FrameSealer): void {
    this.#sealer = sealer
    this.#pppHeaderBytes = sealer.headerBytes
  }

  reserve(lengthBytes: number): number {
    if (!this.#isOpen) {
      this.droppedNotPermitted++
      return noRoom
    }
    const headroomBytes = this.#headerBytes + this.#pppHeaderBytes
    const at = this.#path.reserve(headroomBytes + lengthBytes)
    return at === noRoom ? noRoom : at + headroomBytes
  }

  commit(at: number, lengthBytes: number): void {
    const sealer = this.#sealer
    if (sealer === undefined) {
      const bytes = this.#bytes
      const frameAt = at - frameHeaderBytes
      const isIpv6 = (bytes[at] ?? 0) >>> 4 === 6
      putFrameHeader(bytes, frameAt, isIpv6 ? PppProtocol.ipv6 : PppProtocol.ipv4)
      this.#send(frameAt, lengthBytes + frameHeaderBytes)
    } else {
      const frameBytes = sealer.seal(at, lengthBytes)
      if (frameBytes === 0) return
      this.#send(at - sealer.headerBytes, frameBytes)
    }
    this.sentPackets++
  }

  flush(): void {
    this.#path.flush()
  }

  /** Sends a whole PPP frame, whether packets may flow or not. False when there is no room for it. */
  sendFrame(frame: Uint8Array): boolean {
    const at = this.#path.reserve(this.#headerBytes + frame.length)
    if (at === noRoom) return false
    this.#bytes.set(frame, at + this.#headerBytes)
    this.#send(at + this.#headerBytes, frame.length)
    this.#path.flush()
    return true
  }

  #send(frameAt: number, frameBytes: number): void {
    const { peerTunnelId, peerSessionId, sequence } = this.#options
    const at =
      sequence === undefined
        ? encodeDataHeader(this.#bytes, frameAt, frameBytes, peerTunnelId, peerSessionId)
        : encodeSequencedDataHeader(
            this.#bytes,
            frameAt,
            frameBytes,
            peerTunnelId,
            peerSessionId,
            sequence.take(),
          )
    this.#path.commit(at, frameAt + frameBytes - at, this.#options.peerPort())
  }
}

/** The largest PPP information field that one message of `messageBytes` carries. */
export function largestInformationBytes(
  messageBytes: number,
  sequence: DataSequence | undefined,
): number {
  return messageBytes - headerBytesOf(sequence) - frameHeaderBytes
}

function headerBytesOf(sequence: DataSequence | undefined): number {
  return sequence === undefined ? DATA_HEADER_BYTES : SEQUENCED_DATA_HEADER_BYTES
}
