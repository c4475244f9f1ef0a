/**
 * The dataplane itself, over any device: bursts, ports, and the two ways of a packet. All state
 * belongs to one thread.
 */
import type { Clock, WallClock } from '../core/clock.ts'
import { Coalescer, type FrameWriter } from './coalescer.ts'
import type { Dataplane, DataplaneStatus, Port, PortOptions } from './dataplane.ts'
import { type Device, offloadNames } from './device.ts'
import { Frame } from './frame.ts'
import { HostPath } from './host-path.ts'
import { IcmpAnswers, type OwnAddresses } from './icmp-answers.ts'
import { IntakeArena } from './intake-arena.ts'
import { DirtyOutlets, Outlet } from './outlet.ts'
import { type CaptureOptions, PcapFile, PcapTap } from './pcap.ts'
import type { PacketMemory } from './pinned-memory.ts'
import { RouteTable } from './route-table.ts'
import { SessionPath } from './session-path.ts'
import { SessionPort, type SessionPortParts } from './session-port.ts'
import { StackSlotPool } from './slot-pool.ts'
import { Count, Tally } from './tally.ts'

// Implementation constants: one wake-up reads no more than this, so that control traffic stays live.
const BURST_MS = 2
/** 16 super-packets of 64 KiB. */
const BURST_BYTES = 1_048_576
const BURST_FRAMES = 128
/** Reading the clock costs as much as a small packet: look every so many frames (a power of two). */
const CLOCK_EVERY_FRAMES = 8

/** Four TLS records: one write of a call hands the kernel that much at a time. */
const STREAM_SLOT_BYTES = 65_536

const tunReadFrames = Count['tun-read-frames']
const tunReadBytes = Count['tun-read-bytes']
const tunWrittenFrames = Count['tun-written-frames']
const tunWrittenBytes = Count['tun-written-bytes']
const bursts = Count.bursts
const burstsCutShort = Count['bursts-cut-short']
const intakeOverflows = Count['intake-overflows']
const dropDeviceRefused = Count['drop-device-refused']
const dropDeviceStopped = Count['drop-device-stopped']

export interface EngineOptions {
  readonly own: OwnAddresses
  readonly allowsClientToClient: boolean
  readonly clock: Clock
  readonly wallClock: WallClock
  readonly streamSlotCount: number
  readonly intakeBytes: number
  onDeviceLost(reason: string): void
}

export class PacketEngine implements Dataplane, FrameWriter {
  readonly memory: PacketMemory
  readonly streamSlots: StackSlotPool
  readonly mtuBytes: number
  readonly maxIntakeBytes: number
  endedBursts = 0
  readonly #options: EngineOptions
  /** What is no port's, and what ports that are gone have counted. */
  readonly #tally = new Tally()
  readonly #routes = new RouteTable<SessionPort>()
  readonly #ports = new Set<SessionPort>()
  readonly #dirty = new DirtyOutlets()
  readonly #arena: IntakeArena
  readonly #coalescer: Coalescer
  readonly #hostPath: HostPath
  readonly #sessionPath: SessionPath
  readonly #portParts: SessionPortParts
  readonly #readFrame = new Frame()
  readonly #packetFrame = new Frame()
  readonly #baseDevice: Device
  /** The device, or the capture in front of it. */
  #device: Device
  #isRunning = false
  /** Something was delivered or committed since the last flush. */
  #isBurst = false
  #burstMs = 0
  #isFlushScheduled = false
  readonly #onTurnEnd = () => {
    this.#isFlushScheduled = false
    this.flush()
  }

  constructor(memory: PacketMemory, device: Device, options: EngineOptions) {
    this.memory = memory
    this.mtuBytes = device.mtuBytes
    this.streamSlots = new StackSlotPool(memory, STREAM_SLOT_BYTES, options.streamSlotCount)
    this.#arena = new IntakeArena(memory, options.intakeBytes)
    this.maxIntakeBytes = this.#arena.maxPieceBytes
    this.#baseDevice = device
    this.#device = device
    this.#options = options
    const answers = new IcmpAnswers(memory, options.clock, options.own, this.#tally)
    this.#coalescer = new Coalescer(memory, device.offloads, this, this.#tally)
    this.#hostPath = new HostPath({
      memory,
      routes: this.#routes,
      answers,
      writer: this,
      tally: this.#tally,
    })
    this.#sessionPath = new SessionPath({
      memory,
      routes: this.#routes,
      coalescer: this.#coalescer,
      answers,
      own: options.own,
      allowsClientToClient: options.allowsClientToClient,
      burstMs: () => this.#beginBurst(),
    })
    this.#portParts = {
      memory,
      routes: this.#routes,
      path: this.#sessionPath,
      strayTally: this.#tally,
      nowMs: () => this.#nowMs(),
      onWork: () => this.#beginBurst(),
      onDetach: port => {
        this.#ports.delete(port)
        this.#tally.add(port.tally)
      },
    }
  }

  intake(lengthBytes: number): number {
    this.#beginBurst()
    const at = this.#arena.take(lengthBytes)
    if (at >= 0) return at
    this.#tally.count(intakeOverflows, 1)
    this.flush()
    this.#beginBurst()
    return this.#arena.take(lengthBytes)
  }

  flush(): void {
    this.#isBurst = false
    this.#coalescer.flush()
    this.#arena.reset()
    this.endedBursts++
    this.#dirty.flush()
  }

  attach(options: PortOptions): Port {
    const outlet = new Outlet(options.sink, new Tally(), this.memory, this.#dirty)
    const port = new SessionPort(options, outlet, this.#portParts)
    this.#ports.add(port)
    return port
  }

  start(): void {
    if (this.#isRunning) return
    this.#isRunning = true
    this.#baseDevice.start({
      onReadable: () => this.#readBurst(),
      onLost: reason => {
        this.#isRunning = false
        this.#options.onDeviceLost(reason)
      },
    })
  }

  stop(): void {
    this.flush()
    this.#isRunning = false
    this.#device.stop()
  }

  status(): DataplaneStatus {
    const sum = new Tally()
    sum.add(this.#tally)
    for (const { tally } of this.#ports) sum.add(tally)
    return {
      backend: this.#baseDevice.backend,
      offloads: offloadNames(this.#baseDevice.offloads),
      tunName: this.#baseDevice.name,
      mtuBytes: this.mtuBytes,
      counters: sum.toJSON(),
    }
  }

  /** Ports by label with their counters, for status and diagnosis. */
  portCounters(): { readonly label: string; readonly counters: Record<string, number> }[] {
    return [...this.#ports].map(port => ({ label: port.label, counters: port.tally.toJSON() }))
  }

  /**
   * Records what passes the TUN until `stop` is called or the file is full. One at a time: a second
   * one records instead of the first.
   */
  capture(options: CaptureOptions): { stop(): void } {
    const file = new PcapFile(options, this.#options.wallClock)
    const tap = new PcapTap(this.#baseDevice, this.memory, file)
    const before = this.#device
    if (before instanceof PcapTap) before.close()
    this.#device = tap
    return {
      stop: () => {
        tap.close()
        if (this.#device === tap) this.#device = this.#baseDevice
      },
    }
  }

  writeFrame(frame: Frame): void {
    if (!this.#isRunning) {
      this.#tally.drop(dropDeviceStopped, frame.pieceCount)
    } else if (this.#device.write(frame)) {
      this.#tally.count(tunWrittenFrames, 1)
      this.#tally.count(tunWrittenBytes, frame.lengthBytes)
    } else {
      this.#tally.drop(dropDeviceRefused, frame.pieceCount)
    }
  }

  writePacket(at: number, lengthBytes: number): void {
    this.#packetFrame.setPacket(at, lengthBytes)
    this.writeFrame(this.#packetFrame)
  }

  /** One wake-up of the device: reads what there is, within bounds, and sends it. */
  #readBurst(): void {
    const frame = this.#readFrame
    const startedMs = this.#nowMs()
    this.#tally.count(bursts, 1)
    let bytes = 0
    for (let frames = 1; this.#isRunning && this.#device.read(frame); frames++) {
      bytes += frame.lengthBytes
      this.#tally.count(tunReadFrames, 1)
      this.#tally.count(tunReadBytes, frame.lengthBytes)
      this.#hostPath.receive(frame, startedMs)
      const isLate =
        (frames & (CLOCK_EVERY_FRAMES - 1)) === 0 && this.#nowMs() - startedMs >= BURST_MS
      if (frames === BURST_FRAMES || bytes >= BURST_BYTES || isLate) {
        this.#tally.count(burstsCutShort, 1)
        break
      }
    }
    this.#dirty.flush()
  }

  /** In whole ms: such numbers travel from packet to packet without memory of their own. */
  #nowMs(): number {
    return Math.floor(this.#options.clock.nowMs())
  }

  #beginBurst(): number {
    if (!this.#isBurst) {
      this.#isBurst = true
      this.#burstMs = this.#nowMs()
      if (!this.#isFlushScheduled) {
        this.#isFlushScheduled = true
        setImmediate(this.#onTurnEnd)
      }
    }
    return this.#burstMs
  }
}
