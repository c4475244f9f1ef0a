/** Opens the dataplane: probes what this machine can do and takes the best backend. */
import { type Clock, systemClock, systemWallClock, type WallClock } from '../core/clock.ts'
import { SystemError, TunError } from '../core/errors.ts'
import type { RandomSource } from '../core/random.ts'
import type { Device, DeviceOffloads } from './device.ts'
import { type FaultChances, FaultInjector } from './fault-injector.ts'
import { inlinePaths } from './inlining.ts'
import { type Kernel, loadKernel } from './kernel.ts'
import { MemoryDevice } from './memory-device.ts'
import { PacketEngine } from './packet-engine.ts'
import { PacketMemory } from './pinned-memory.ts'
import { TunDevice } from './tun-device.ts'
import { type OpenedTun, openTun } from './tun-setup.ts'

const MEMORY_BYTES = 128 * 1024 * 1024
const MEMORY_BACKEND_BYTES = 32 * 1024 * 1024
const INTAKE_BYTES = 2 * 1024 * 1024
const STREAM_SLOTS = 1024
const MEMORY_BACKEND_STREAM_SLOTS = 256
const MTU_BYTES = 1420
const TX_QUEUE_PACKETS = 1000

/** Faults to inject between device and dataplane, for soak tests. */
export interface InjectionOptions {
  readonly chances: FaultChances
  readonly random: RandomSource
}

interface CommonOptions {
  readonly mtuBytes?: number
  /** Our own tunnel address (host order): where ICMP answers come from. */
  readonly ipv4Address?: number
  readonly ipv6Address?: Uint8Array
  /** Whether sessions may reach each other; they do so without the TUN. True by default. */
  readonly clientToClient?: boolean
  readonly clock?: Clock
  readonly wallClock?: WallClock
  readonly memoryBytes?: number
  readonly streamSlotCount?: number
  readonly intakeBytes?: number
  readonly faults?: InjectionOptions
  /** The device went away by itself: deleted, or an error of the kernel. Nothing is read any more. */
  onDeviceLost?(reason: string): void
}

export interface DataplaneOptions extends CommonOptions {
  /** `best` takes `offload` if the kernel has it, else `plain`. */
  readonly backend?: 'best' | 'offload' | 'plain'
  /** Interface name, or a pattern with `%d` for the kernel to number. */
  readonly tunName?: string
  readonly txQueuePackets?: number
}

/**
 * Opens a TUN device, up and with its MTU, without addresses or routes. Throws TunError (or
 * SystemError where there are no system calls), whose message says what to do. Does not yield.
 */
export function openDataplane(options: DataplaneOptions = {}): PacketEngine {
  inlinePaths()
  const kernel = loadKernel()
  if (kernel instanceof SystemError) throw kernel
  const mtuBytes = options.mtuBytes ?? MTU_BYTES
  const tun = openBest(kernel, options, mtuBytes)
  const memory = new PacketMemory({
    sizeBytes: options.memoryBytes ?? MEMORY_BYTES,
    addressOf: bytes => kernel.addressOf(bytes),
  })
  const device = new TunDevice(kernel, tun, memory, mtuBytes)
  return buildEngine(memory, device, options, STREAM_SLOTS)
}

export interface MemoryDataplaneOptions extends CommonOptions {
  /** What the imagined host can do; nothing by default. */
  readonly offloads?: DeviceOffloads
  /** `plain` does without WebAssembly. */
  readonly kernels?: 'wasm' | 'plain'
  /** Runs the rest of a burst that was cut short; the next turn of the event loop by default. */
  schedule?(action: () => void): void
}

export interface MemoryDataplane {
  readonly dataplane: PacketEngine
  readonly memoryDevice: MemoryDevice
}

/** A dataplane without a kernel, for tests and simulations: the host is two arrays. */
export function createMemoryDataplane(options: MemoryDataplaneOptions = {}): MemoryDataplane {
  const memory = new PacketMemory({
    sizeBytes: options.memoryBytes ?? MEMORY_BACKEND_BYTES,
    ...(options.kernels !== undefined && { kernels: options.kernels }),
  })
  const memoryDevice = new MemoryDevice(memory, {
    mtuBytes: options.mtuBytes ?? MTU_BYTES,
    ...(options.offloads !== undefined && { offloads: options.offloads }),
    ...(options.schedule !== undefined && { schedule: options.schedule }),
  })
  const dataplane = buildEngine(memory, memoryDevice, options, MEMORY_BACKEND_STREAM_SLOTS)
  return { dataplane, memoryDevice }
}

function openBest(kernel: Kernel, options: DataplaneOptions, mtuBytes: number): OpenedTun {
  const setup = {
    name: options.tunName ?? 'ras%d',
    mtuBytes,
    txQueuePackets: options.txQueuePackets ?? TX_QUEUE_PACKETS,
  }
  const backend = options.backend ?? 'best'
  if (backend === 'plain') return openTun(kernel, { ...setup, wantsOffloads: false })
  try {
    return openTun(kernel, { ...setup, wantsOffloads: true })
  } catch (thrown) {
    if (backend === 'offload' || !(thrown instanceof TunError)) throw thrown
    // A reason that has nothing to do with offloads comes again, with the same words.
    return openTun(kernel, { ...setup, wantsOffloads: false })
  }
}

function buildEngine(
  memory: PacketMemory,
  device: Device,
  options: CommonOptions,
  streamSlotCount: number,
): PacketEngine {
  const { faults } = options
  const shown =
    faults === undefined ? device : new FaultInjector(device, memory, faults.chances, faults.random)
  return new PacketEngine(memory, shown, {
    own: { ipv4Address: options.ipv4Address, ipv6Address: options.ipv6Address },
    allowsClientToClient: options.clientToClient ?? true,
    clock: options.clock ?? systemClock,
    wallClock: options.wallClock ?? systemWallClock,
    streamSlotCount: options.streamSlotCount ?? streamSlotCount,
    intakeBytes: options.intakeBytes ?? INTAKE_BYTES,
    onDeviceLost: reason => options.onDeviceLost?.(reason),
  })
}
