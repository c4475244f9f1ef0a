/**
 * One SSTP call on an open connection, in either role: it cuts the stream into frames, hands PPP
 * frames to the link and control messages to the call's machine, and is the tunnel that PPP sees.
 */
import { putBytes, u16 } from '../core/bytes.ts'
import type { Clock } from '../core/clock.ts'
import type { DisconnectCause } from '../core/disconnect-cause.ts'
import { Driver } from '../core/driver.ts'
import { faultName, type WireFault } from '../core/faults.ts'
import type { Machine } from '../core/machine.ts'
import type { PacketSink } from '../core/packet-sink.ts'
import type { TimerWheel } from '../core/timers.ts'
import type { Dataplane } from '../dataplane/dataplane.ts'
import type { Carrier, FrameSealer, Link, LinkFactory } from '../ppp/carrier.ts'
import type { ByteStream } from './byte-stream.ts'
import type { CallInput, CallOutput, CallReason } from './call-state.ts'
import { elsewhere, type LandedReader } from './landing.ts'
import { MAX_INFORMATION_BYTES, PacketPacker } from './packet-packer.ts'
import type { HashName } from './wire/attribute.ts'
import {
  FRAME_HEADER_BYTES,
  frameBytes,
  isControlFrame,
  MAX_FRAME_BYTES,
  MAX_PPP_FRAME_BYTES,
  needMore,
  putFrameHeader,
} from './wire/frame.ts'

/** Implementation constants. */

/** Control bytes that may wait for a peer that does not read. */
const MAX_CONTROL_BACKLOG_BYTES = 64 * 1024
/** How often at most a machine hears that something came: the hello timer needs no more. */
const RECEIVED_GRANULARITY_MS = 1_000
/** Slots of one call on their way to its socket, however many are free. */
const MAX_SLOTS = 16
/** PPP protocol numbers below this carry data, RFC 1661 §2. */
const FIRST_CONTROL_PROTOCOL = 0x8000

/** Everything that a call counts; a listener adds up the calls that ended. */
export interface CallCounters {
  receivedFrames: number
  receivedControl: number
  emptyFrames: number
  /** PPP frames before there was a link, or after it ended. */
  droppedWithoutLink: number
  /** PPP data frames before the binding was verified, handed to the link, which drops them. */
  dataBeforeBinding: number
  /** PPP control frames that PPP wanted to send after the call had ended, or that were too long. */
  droppedControl: number
  sentPackets: number
  droppedNoRoom: number
  droppedNotPermitted: number
  droppedTooLong: number
}

export interface CallPorts {
  readonly dataplane: Dataplane
  readonly links: LinkFactory
  readonly clock: Clock
  readonly wheel: TimerWheel
  readonly stream: ByteStream
  /** Something worth a counter and perhaps a log line. */
  remark(
    reason: CallReason | 'undelineable' | 'link-refused' | 'control-backlog',
    detail: string,
  ): void
  /** The binding has been verified or sent. */
  established(hash: HashName): void
  /** The call is over and the stream is being closed. Said once. */
  ended(cause: DisconnectCause): void
}

export interface CallPeer {
  /** Without port. */
  readonly address: string
  readonly port: number
}

export type CallMachine = Machine<CallInput, CallOutput>

export class Call implements Carrier, LandedReader {
  readonly protocol = 'sstp'
  readonly isProtected = true
  readonly peerAddress: string
  readonly peerLabel: string
  readonly mruBytes = MAX_INFORMATION_BYTES
  readonly sink: PacketSink
  readonly #ports: CallPorts
  readonly #packer: PacketPacker
  readonly #driver: Driver<CallInput, CallOutput>
  readonly #counters = {
    receivedFrames: 0,
    receivedControl: 0,
    emptyFrames: 0,
    droppedWithoutLink: 0,
    dataBeforeBinding: 0,
    droppedControl: 0,
  }
  #link: Link | undefined
  /** The link has ended, or was refused: there will be no other. */
  #isLinkGone = false
  #isPermitted = false
  /** The stream is being closed. */
  #isOver = false
  #controlBacklogBytes = 0
  #lastReceivedMs = Number.NEGATIVE_INFINITY
  #receivedBurst = -1
  /** The start of a frame whose rest has not come: how much, and where in packet memory. */
  #partialBytes = 0
  #partialAt = elsewhere
  /** Where it stands otherwise; allocated when a frame is first cut so. */
  #partial: Uint8Array | undefined
  /** Where in packet memory the bytes after these will come. */
  #nextAt = elsewhere

  constructor(peer: CallPeer, machine: CallMachine, ports: CallPorts) {
    this.peerAddress = peer.address
    this.peerLabel = peer.address.includes(':')
      ? `[${peer.address}]:${peer.port}`
      : `${peer.address}:${peer.port}`
    this.#ports = ports
    const { memory, streamSlots } = ports.dataplane
    this.#packer = new PacketPacker(memory, streamSlots, ports.stream, MAX_SLOTS)
    this.sink = this.#packer
    this.#driver = new Driver(machine, ports.clock, ports.wheel, {
      transmit: bytes => this.#writeControl(bytes),
      event: output => this.#act(output),
    })
  }

  /** Sends what the machine has to say first and starts its timers. */
  start(): void {
    this.#driver.onDeadline(this.#ports.clock.nowMs())
  }

  get counters(): CallCounters {
    const { sentPackets, droppedNoRoom, droppedNotPermitted, droppedTooLong } = this.#packer
    const sent = { sentPackets, droppedNoRoom, droppedNotPermitted, droppedTooLong }
    return { ...this.#counters, ...sent }
  }

  /** Slots of the dataplane that hold data for this call. */
  get heldSlots(): number {
    return this.#packer.heldSlots
  }

  // LandedReader

  /** Bytes from the stream, cut anywhere. They are copied once, into packet memory. */
  receive(chunk: Uint8Array): void {
    const { dataplane } = this.#ports
    const room = dataplane.maxIntakeBytes - MAX_FRAME_BYTES
    this.#noteReceived()
    for (let from = 0; from < chunk.length && !this.#isOver; from += room) {
      const to = Math.min(chunk.length, from + room)
      const kept = this.#partialBytes
      const at = dataplane.intake(kept + to - from)
      const bytes = dataplane.memory.bytes
      this.#putPartial(at)
      bytes.set(to - from === chunk.length ? chunk : chunk.subarray(from, to), at + kept)
      this.#delineate(bytes, at, at + kept + to - from)
    }
  }

  receiveInPlace(at: number, lengthBytes: number, nextAt: number): void {
    const startAt = at - this.#partialBytes
    this.#noteReceived()
    this.#putPartial(startAt)
    this.#nextAt = nextAt
    this.#delineate(this.#ports.dataplane.memory.bytes, startAt, at + lengthBytes)
    this.#nextAt = elsewhere
  }

  /** The connection is gone. */
  transportClosed(): void {
    this.#driver.handle({ type: 'transport-closed' })
  }

  /** Ends the call in an orderly way without PPP asking for it, and tells PPP. */
  shutDown(cause: DisconnectCause): void {
    const link = this.#link
    this.close(cause)
    link?.carrierLost(cause)
  }

  // Carrier

  setMtu(mtuBytes: number): void {
    this.#packer.mtuBytes = Math.min(mtuBytes, MAX_INFORMATION_BYTES)
  }

  setSealer(sealer: FrameSealer): void {
    this.#packer.setSealer(sealer)
  }

  sendFrame(frame: Uint8Array): void {
    if (this.#isLinkGone || frame.length > MAX_PPP_FRAME_BYTES) {
      this.#counters.droppedControl++
      return
    }
    const packet = new Uint8Array(FRAME_HEADER_BYTES + frame.length)
    putBytes(packet, putFrameHeader(packet, 0, false, packet.length), frame)
    // Packets that were committed before this frame also leave before it.
    this.#packer.flush()
    this.#writeControl(packet)
  }

  authenticated(higherLayerKey: Uint8Array): void {
    this.#driver.handle({ type: 'authenticated', higherLayerKey })
  }

  close(cause: DisconnectCause): void {
    this.#dropLink()
    this.#driver.handle({ type: 'hang-up', cause })
  }

  // Inbound

  /** Looks at the clock once a burst: a busy call is read hundreds of times in one. */
  #noteReceived(): void {
    const { endedBursts } = this.#ports.dataplane
    if (endedBursts === this.#receivedBurst) return
    this.#receivedBurst = endedBursts
    const nowMs = this.#ports.clock.nowMs()
    if (nowMs - this.#lastReceivedMs < RECEIVED_GRANULARITY_MS) return
    this.#lastReceivedMs = nowMs
    this.#driver.handle({ type: 'received' })
  }

  /** Cuts `bytes[at, end)` into frames and keeps what is left of the last. */
  #delineate(bytes: Uint8Array, at: number, end: number): void {
    let next = at
    while (!this.#isOver) {
      const length = frameBytes(bytes, next, end)
      if (length < 0) {
        this.#undelineable(-length as WireFault)
        return
      }
      if (length === needMore || end - next < length) break
      if (isControlFrame(bytes, next)) this.#receiveControl(bytes, next, next + length)
      else this.#receiveData(bytes, next + FRAME_HEADER_BYTES, length - FRAME_HEADER_BYTES)
      next += length
    }
    if (!this.#isOver) this.#keep(bytes, next, end)
  }

  #receiveData(bytes: Uint8Array, at: number, lengthBytes: number): void {
    this.#counters.receivedFrames++
    if (lengthBytes === 0) this.#counters.emptyFrames++
    else if (this.#link === undefined) this.#counters.droppedWithoutLink++
    else {
      if (!this.#isPermitted && isPppData(bytes, at)) this.#counters.dataBeforeBinding++
      this.#link.receive(at, lengthBytes)
    }
  }

  #receiveControl(bytes: Uint8Array, at: number, end: number): void {
    this.#counters.receivedControl++
    this.#driver.handle({ type: 'control', bytes, at, end })
  }

  /** Puts the start of a frame before the bytes that continue it; mostly it stands there already. */
  #putPartial(at: number): void {
    const { memory } = this.#ports.dataplane
    const kept = this.#partialBytes
    if (kept === 0) return
    this.#partialBytes = 0
    if (this.#partialAt !== elsewhere) {
      if (this.#partialAt !== at) memory.copy(at, this.#partialAt, kept)
    } else if (this.#partial !== undefined) {
      memory.bytes.set(this.#partial.subarray(0, kept), at)
    }
  }

  #keep(bytes: Uint8Array, at: number, end: number): void {
    if (at === end) return
    this.#partialBytes = end - at
    if (this.#nextAt !== elsewhere) {
      this.#partialAt = this.#nextAt - this.#partialBytes
      this.#ports.dataplane.memory.copy(this.#partialAt, at, this.#partialBytes)
      return
    }
    this.#partialAt = elsewhere
    this.#partial ??= new Uint8Array(MAX_FRAME_BYTES)
    // copied: these bytes are valid for this burst only
    this.#partial.set(bytes.subarray(at, end))
  }

  /** [MS-SSTP] §3.1.5.1: nobody knows where the next frame begins, so there is nothing to say. */
  #undelineable(fault: WireFault): void {
    this.#ports.remark('undelineable', faultName(fault))
    this.#finish('protocol-error')
  }

  // Outbound

  /** Control is never dropped; a peer that lets it pile up loses the call instead. */
  #writeControl(bytes: Uint8Array): void {
    if (this.#isOver) return
    this.#controlBacklogBytes += bytes.length
    if (this.#controlBacklogBytes > MAX_CONTROL_BACKLOG_BYTES) {
      this.#ports.remark('control-backlog', `${this.#controlBacklogBytes} bytes`)
      this.#finish('lost-carrier')
      return
    }
    this.#ports.stream.write(bytes, () => {
      this.#controlBacklogBytes -= bytes.length
    })
  }

  // What the machine says

  #act(output: CallOutput): void {
    switch (output.type) {
      case 'link-open':
        this.#openLink()
        return
      case 'traffic-permitted':
        this.#isPermitted = true
        this.#packer.permit(true)
        this.#ports.established(output.hash)
        this.#link?.permitTraffic()
        return
      case 'link-down':
        this.#dropLink()?.carrierLost(output.cause)
        return
      case 'remark':
        this.#ports.remark(output.reason, output.detail)
        return
      case 'close':
        this.#finish(output.cause)
    }
  }

  #openLink(): void {
    const link = this.#ports.links.open(this)
    // PPP may have refused, or closed the call again from inside `open`.
    if (this.#isLinkGone) return
    this.#link = link
    if (link !== undefined) return
    this.#ports.remark('link-refused', this.peerAddress)
    this.close('session-limit')
  }

  /** From here on no packet passes between PPP and the stream. */
  #dropLink(): Link | undefined {
    const link = this.#link
    this.#link = undefined
    this.#isLinkGone = true
    this.#isPermitted = false
    this.#packer.flush()
    this.#packer.permit(false)
    return link
  }

  #finish(cause: DisconnectCause): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#driver.close()
    this.#dropLink()?.carrierLost(cause)
    this.#partial = undefined
    this.#ports.ended(cause)
  }
}

/** Whether a PPP frame carries data, whichever header fields its sender left away. */
function isPppData(bytes: Uint8Array, at: number): boolean {
  const protocolAt = bytes[at] === 0xff && bytes[at + 1] === 0x03 ? at + 2 : at
  const isCompressed = ((bytes[protocolAt] ?? 0) & 1) === 1
  return isCompressed || u16(bytes, protocolAt) < FIRST_CONTROL_PROTOCOL
}
