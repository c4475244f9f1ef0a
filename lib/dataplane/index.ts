/** What other rooms use of the dataplane. */
export { ArpSocket, type ArpSocketEvents } from './arp-socket.ts'
export type {
  BackendName,
  Dataplane,
  DataplaneStatus,
  PinnedMemory,
  Port,
  PortCounters,
  PortOptions,
  RateLimits,
  SlotPool,
} from './dataplane.ts'
export { loadKernel } from './kernel.ts'
export {
  createMemoryDataplane,
  type DataplaneOptions,
  type MemoryDataplane,
  type MemoryDataplaneOptions,
  openDataplane,
} from './open-dataplane.ts'
export { openRawSocket } from './open-raw-socket.ts'
export { mostFilterRules, PacketFilter } from './packet-filter.ts'
export { type PacketSocket, RAW_SLOT_BYTES, type RawSocketEvents } from './packet-socket.ts'
export { StackSlotPool } from './slot-pool.ts'
