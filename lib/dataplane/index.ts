/** What other rooms use of the dataplane. */
export type {
  BackendName,
  Dataplane,
  DataplaneStatus,
  PinnedMemory,
  Port,
  PortCounters,
  PortOptions,
  SlotPool,
} from './dataplane.ts'
export {
  createMemoryDataplane,
  type DataplaneOptions,
  type MemoryDataplane,
  type MemoryDataplaneOptions,
  openDataplane,
} from './open-dataplane.ts'
export {
  openRawSocket,
  type PacketSocket,
  RAW_SLOT_BYTES,
  type RawSocketEvents,
} from './raw-socket.ts'
export { StackSlotPool } from './slot-pool.ts'
