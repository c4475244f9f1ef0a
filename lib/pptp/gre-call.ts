/**
 * The packets of one call (RFC 2637 §4): sequence and acknowledgment numbers, order, and the sink
 * that the dataplane writes to. No allocation per packet.
 *
 * Deviations from the RFC, as every implementation in the field has them:
 * - The peer's window is waited for only where that is wanted (§4.2): acknowledgments that a NAT
 *   swallows would stop the traffic, and IP has its own congestion control.
 * - The first sequence number may be any (§4.2 wants 0): some peers begin with 1.
 */
import { noRoom, type PacketSink } from '../core/packet-sink.ts'
import { serialDistance32 } from '../core/serial.ts'
import type { TimerWheel, WheelEntry } from '../core/timers.ts'
import type { Dataplane, SlotPool } from '../dataplane/dataplane.ts'
import { type PacketSocket, RAW_SLOT_BYTES } from '../dataplane/index.ts'
import type { FrameSealer, Link } from '../ppp/carrier.ts'
import { REORDER_PACKETS, ReorderBuffer } from './reorder-buffer.ts'
import type { SendWindow } from './send-window.ts'
import { WaitingPackets, type WaitingRoom } from './waiting-packets.ts'
import {
  GRE_HEADER_MAX_BYTES,
  greAcknowledgment,
  greHasAcknowledgment,
  greHasSequence,
  greHeaderBytes,
  grePayloadBytes,
  greSequence,
  putGreAcknowledgment,
  putGreData,
  putGreDataWithAcknowledgment,
} from './wire/gre.ts'

/** Implementation constants. */

/** How long a packet waits for those before it. */
const REORDER_MS = 100
/** How long an acknowledgment waits for data to ride on; RFC 2637 §4.4 allows half a second. */
const ACKNOWLEDGE_MS = 100
/** Received packets after which an acknowledgment does not wait: half of the window we announce. */
const ACKNOWLEDGE_PACKETS = 32
/** A jump further than this must be confirmed by the packet after it: one forged packet moves nothing. */
const MAX_JUMP_PACKETS = 1024
/** Largest IP packet that fits a slot with all headers in front of it. */
const MAX_PACKET_BYTES = RAW_SLOT_BYTES - 64

export interface GreCallPorts {
  readonly socket: PacketSocket
  readonly dataplane: Dataplane
  readonly reorderSlots: SlotPool
  readonly wheel: TimerWheel
  /** Host order. */
  readonly localAddress: number
  readonly peerAddress: number
  readonly peerCallId: number
  /** Absent: the peer's window is not waited for. */
  readonly window?: SendWindow
  readonly waitingRoom: WaitingRoom
  nowMs(): number
}

export class GreCall implements PacketSink, WheelEntry {
  readonly peerAddress: number
  readonly #ports: GreCallPorts
  readonly #socket: PacketSocket
  readonly #bytes: Uint8Array
  readonly #reorder: ReorderBuffer
  readonly #window: SendWindow | undefined
  readonly #waiting: WaitingPackets
  readonly #localAddress: number
  readonly #peerCallId: number
  link: Link | undefined
  mtuBytes = MAX_PACKET_BYTES
  #sealer: FrameSealer
  #isOpen = true
  #isPermitted = false
  #nextSequence = 0
  /** The sequence number that is due; -1 until the first packet came. */
  #expected = -1
  #jumpCandidate = -1
  /** Received and not acknowledged. */
  #unacknowledged = 0
  #acknowledgeAtMs = Number.POSITIVE_INFINITY
  #releaseAtMs = Number.POSITIVE_INFINITY
  /** On the hub's list of calls that the burst has touched. */
  isTouched = false
  receivedPackets = 0
  receivedAcknowledgments = 0
  receivedReordered = 0
  droppedStale = 0
  droppedJump = 0
  droppedWithoutLink = 0
  /** Sequence numbers that never came. */
  lostPackets = 0
  sentPackets = 0
  sentAcknowledgments = 0
  droppedNoRoom = 0
  droppedNotPermitted = 0
  droppedTooLong = 0
  /** The window stayed closed for longer than packets can wait. */
  droppedWindow = 0
  /** Acknowledgments of what was never sent. */
  droppedAcknowledgments = 0
  windowTimeouts = 0

  constructor(ports: GreCallPorts, sealer: FrameSealer) {
    this.#ports = ports
    this.#socket = ports.socket
    this.#bytes = ports.dataplane.memory.bytes
    this.#reorder = new ReorderBuffer(ports.dataplane.memory, ports.reorderSlots)
    this.#window = ports.window
    this.#waiting = new WaitingPackets(ports.waitingRoom)
    this.#localAddress = ports.localAddress
    this.peerAddress = ports.peerAddress
    this.#peerCallId = ports.peerCallId
    this.#sealer = sealer
  }

  // PacketSink

  reserve(lengthBytes: number): number {
    if (!this.#isPermitted) {
      this.droppedNotPermitted++
      return noRoom
    }
    if (lengthBytes > MAX_PACKET_BYTES) {
      this.droppedTooLong++
      return noRoom
    }
    if (this.#window !== undefined && !this.#waiting.hasRoom && !this.#window.isOpen) {
      this.droppedWindow++
      return noRoom
    }
    const slot = this.#socket.reserve()
    if (slot < 0) {
      this.droppedNoRoom++
      return noRoom
    }
    return slot + GRE_HEADER_MAX_BYTES + this.#sealer.headerBytes
  }

  commit(at: number, lengthBytes: number): void {
    const sealer = this.#sealer
    const frameBytes = sealer.seal(at, lengthBytes)
    if (frameBytes === 0) {
      this.#socket.release(at)
      return
    }
    this.#sendPayload(at - sealer.headerBytes, frameBytes)
  }

  flush(): void {
    this.#socket.flush()
  }

  // What the carrier says

  setSealer(sealer: FrameSealer): void {
    this.#sealer = sealer
  }

  permit(isPermitted: boolean): void {
    this.#isPermitted = isPermitted
  }

  /** A control frame of PPP: never dropped while there is a slot. */
  sendFrame(frame: Uint8Array): boolean {
    if (!this.#isOpen || frame.length > RAW_SLOT_BYTES - GRE_HEADER_MAX_BYTES) return false
    const slot = this.#socket.reserve()
    if (slot < 0) return false
    const at = slot + GRE_HEADER_MAX_BYTES
    this.#bytes.set(frame, at)
    this.#sendPayload(at, frame.length)
    this.#socket.flush()
    return true
  }

  /** Nothing passes any more, and what waits is given back. */
  close(): void {
    this.#isOpen = false
    this.#isPermitted = false
    this.link = undefined
    this.#reorder.clear()
    while (this.#waiting.count > 0) {
      this.#socket.release(this.#waiting.firstAt)
      this.#waiting.removeFirst()
    }
    this.#ports.wheel.cancel(this)
  }

  // From the peer

  /** A checked GRE packet of this call at `at`. */
  receive(at: number): void {
    const bytes = this.#bytes
    if (greHasAcknowledgment(bytes, at)) {
      this.receivedAcknowledgments++
      if (this.#window !== undefined) this.#heard(this.#window, greAcknowledgment(bytes, at))
    }
    const payloadBytes = grePayloadBytes(bytes, at)
    if (payloadBytes === 0 || !greHasSequence(bytes, at)) return
    this.#order(greSequence(bytes, at), at + greHeaderBytes(bytes, at), payloadBytes)
  }

  /** After a burst: acknowledges at once, or soon. */
  endBurst(): void {
    if (this.#unacknowledged >= ACKNOWLEDGE_PACKETS) this.#acknowledge()
    else if (this.#unacknowledged > 0 && this.#acknowledgeAtMs === Number.POSITIVE_INFINITY) {
      this.#acknowledgeAtMs = this.#ports.nowMs() + ACKNOWLEDGE_MS
      this.#schedule()
    }
  }

  onDeadline(nowMs: number): void {
    if (nowMs >= this.#acknowledgeAtMs) {
      this.#acknowledgeAtMs = Number.POSITIVE_INFINITY
      if (this.#unacknowledged > 0) this.#acknowledge()
    }
    if (nowMs >= this.#releaseAtMs) {
      this.#releaseAtMs = Number.POSITIVE_INFINITY
      this.#skipMissing()
      this.#release()
    }
    if (this.#window !== undefined && nowMs >= this.#window.deadlineMs) {
      this.windowTimeouts++
      this.#window.expire()
      this.#sendWaiting(this.#window)
      this.#socket.flush()
    }
    this.#schedule()
  }

  #order(sequence: number, at: number, lengthBytes: number): void {
    if (this.#expected < 0) this.#expected = sequence
    let distance = serialDistance32(this.#expected, sequence)
    if (distance < 0) {
      this.droppedStale++
      return
    }
    if (distance > MAX_JUMP_PACKETS && sequence !== this.#jumpCandidate) {
      this.#jumpCandidate = (sequence + 1) >>> 0
      this.droppedJump++
      return
    }
    while (distance >= REORDER_PACKETS) {
      // Further than the window: whoever is missing is not waited for any more.
      if (this.#reorder.count === 0) {
        this.lostPackets += distance
        this.#expected = sequence
        break
      }
      this.#skipMissing()
      this.#release()
      distance = serialDistance32(this.#expected, sequence)
    }
    this.#unacknowledged++
    if (sequence === this.#expected) {
      this.#expected = (sequence + 1) >>> 0
      this.#deliver(at, lengthBytes)
      if (this.#reorder.count > 0) this.#release()
      return
    }
    this.receivedReordered++
    if (!this.#reorder.keep(sequence, at, lengthBytes)) {
      this.droppedStale++
      return
    }
    if (this.#releaseAtMs === Number.POSITIVE_INFINITY) {
      this.#releaseAtMs = this.#ports.nowMs() + REORDER_MS
      this.#schedule()
    }
  }

  #skipMissing(): void {
    if (this.#reorder.count === 0) return
    const missing = this.#reorder.gap(this.#expected)
    this.lostPackets += missing
    this.#expected = (this.#expected + missing) >>> 0
  }

  /** Delivers what is in order now. */
  #release(): void {
    const { dataplane } = this.#ports
    while (this.#reorder.has(this.#expected)) {
      const sequence = this.#expected
      const lengthBytes = this.#reorder.lengthOf(sequence)
      // copied: the dataplane may hold the packet until the burst ends
      const at = dataplane.intake(lengthBytes)
      this.#reorder.take(sequence, at)
      this.#expected = (sequence + 1) >>> 0
      this.#deliver(at, lengthBytes)
    }
    if (this.#reorder.count === 0) this.#releaseAtMs = Number.POSITIVE_INFINITY
    else this.#releaseAtMs = this.#ports.nowMs() + REORDER_MS
    this.#schedule()
  }

  #deliver(at: number, lengthBytes: number): void {
    this.receivedPackets++
    if (this.link === undefined) this.droppedWithoutLink++
    else this.link.receive(at, lengthBytes)
  }

  // To the peer

  /** Sends the payload at `at`, now or when the peer's window opens. */
  #sendPayload(at: number, lengthBytes: number): void {
    const window = this.#window
    if (window === undefined) this.#transmit(at, lengthBytes)
    else if (this.#waiting.count === 0 && window.isOpen) this.#transmitIn(window, at, lengthBytes)
    else if (!this.#waiting.add(at, lengthBytes)) {
      this.droppedWindow++
      this.#socket.release(at)
    }
  }

  #transmitIn(window: SendWindow, at: number, lengthBytes: number): void {
    const wasWaiting = window.deadlineMs !== Number.POSITIVE_INFINITY
    this.#transmit(at, lengthBytes)
    window.sent(this.#ports.nowMs())
    if (!wasWaiting) this.#schedule()
  }

  #heard(window: SendWindow, acknowledgment: number): void {
    if (!window.acknowledged(acknowledgment, this.#ports.nowMs())) {
      this.droppedAcknowledgments++
      return
    }
    this.#sendWaiting(window)
    this.#schedule()
  }

  #sendWaiting(window: SendWindow): void {
    while (this.#waiting.count > 0 && window.isOpen) {
      const { firstAt, firstBytes } = this.#waiting
      this.#waiting.removeFirst()
      this.#transmitIn(window, firstAt, firstBytes)
    }
  }

  /** Puts GRE in front of the payload at `at` and hands it to the socket. */
  #transmit(at: number, lengthBytes: number): void {
    const sequence = this.#nextSequence
    this.#nextSequence = (sequence + 1) >>> 0
    this.sentPackets++
    let headerBytes = GRE_HEADER_MAX_BYTES
    if (this.#unacknowledged > 0) {
      this.#unacknowledged = 0
      this.#acknowledgeAtMs = Number.POSITIVE_INFINITY
      putGreDataWithAcknowledgment(
        this.#bytes,
        at - headerBytes,
        lengthBytes,
        this.#peerCallId,
        sequence,
        (this.#expected - 1) >>> 0,
      )
    } else {
      headerBytes -= 4
      putGreData(this.#bytes, at - headerBytes, lengthBytes, this.#peerCallId, sequence)
    }
    this.#commit(at - headerBytes, headerBytes + lengthBytes)
  }

  #acknowledge(): void {
    const slot = this.#isOpen ? this.#socket.reserve() : noRoom
    if (slot < 0) return
    this.#unacknowledged = 0
    this.#acknowledgeAtMs = Number.POSITIVE_INFINITY
    this.sentAcknowledgments++
    const acknowledgment = (this.#expected - 1) >>> 0
    const end = putGreAcknowledgment(this.#bytes, slot, this.#peerCallId, acknowledgment)
    this.#commit(slot, end - slot)
    this.#socket.flush()
  }

  #commit(at: number, lengthBytes: number): void {
    this.#socket.commit(at, lengthBytes, this.#localAddress, this.peerAddress)
  }

  #schedule(): void {
    if (!this.#isOpen) return
    const windowMs = this.#window?.deadlineMs ?? Number.POSITIVE_INFINITY
    const deadlineMs = Math.min(this.#acknowledgeAtMs, this.#releaseAtMs, windowMs)
    this.#ports.wheel.schedule(this, deadlineMs)
  }
}
