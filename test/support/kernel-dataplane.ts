/** A dataplane whose host is two arrays and whose memory the kernel can reach: for real sockets. */
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { type Clock, systemClock, systemWallClock } from '../../lib/core/clock.ts'
import { SystemError } from '../../lib/core/errors.ts'
import { type Kernel, loadKernel } from '../../lib/dataplane/kernel.ts'
import { MemoryDevice } from '../../lib/dataplane/memory-device.ts'
import { PacketEngine } from '../../lib/dataplane/packet-engine.ts'
import { PacketMemory } from '../../lib/dataplane/pinned-memory.ts'

export interface KernelDataplaneOptions {
  readonly mtuBytes?: number
  readonly clock?: Clock
  readonly ipv4Address?: number
  readonly ipv6Address?: Uint8Array
}

/** The system calls of this process; one object, so that a test may put itself in between. */
export function systemCalls(): Kernel {
  const kernel = loadKernel()
  if (kernel instanceof SystemError) throw kernel
  return kernel
}

export function createKernelDataplane(options: KernelDataplaneOptions = {}) {
  const kernel = systemCalls()
  const memory = new PacketMemory({
    sizeBytes: 12 * 1024 * 1024,
    addressOf: bytes => kernel.addressOf(bytes),
  })
  const host = new MemoryDevice(memory, { mtuBytes: options.mtuBytes ?? 1400 })
  const dataplane = new PacketEngine(memory, host, {
    own: { ipv4Address: options.ipv4Address, ipv6Address: options.ipv6Address },
    allowsClientToClient: true,
    clock: options.clock ?? systemClock,
    wallClock: systemWallClock,
    streamSlotCount: 16,
    intakeBytes: 1024 * 1024,
    onDeviceLost: () => {},
  })
  dataplane.start()
  return { dataplane, host, memory }
}

/** A UDP port of this address that nobody has. */
export async function freePort(address: string): Promise<number> {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4')
  socket.bind(0, address)
  await once(socket, 'listening')
  const { port } = socket.address()
  socket.close()
  await once(socket, 'close')
  return port
}
