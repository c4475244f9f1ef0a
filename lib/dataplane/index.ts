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
