/** Opens a raw socket in the best way that this process has. */
import { SystemError } from '../core/errors.ts'
import type { PinnedMemory } from './dataplane.ts'
import { loadKernel } from './kernel.ts'
import type { PacketSocket } from './packet-socket.ts'
import { loadRawSocketPackage, PortableRawSocket } from './portable-raw-socket.ts'
import { RawSocket } from './raw-socket.ts'

/**
 * In batches where `memory` can be reached by system calls; a packet at a time through the package
 * `raw-socket` where it cannot, as on the memory backend. Throws BindError when the process may not
 * have raw sockets, SystemError when there is no way to them.
 */
export function openRawSocket(memory: PinnedMemory, protocol: number): PacketSocket {
  const kernel = loadKernel()
  if (memory.address !== 0 && !(kernel instanceof SystemError)) {
    return new RawSocket(kernel, memory, protocol)
  }
  const rawSocketPackage = loadRawSocketPackage()
  if (rawSocketPackage instanceof SystemError) throw rawSocketPackage
  return new PortableRawSocket(rawSocketPackage, memory, protocol)
}
