/** L2TPv2 (RFC 2661), sans-IO: what a listener needs. */
export type { CallRole } from './call-table.ts'
export type { CloseReason } from './close-reason.ts'
export { DataSequence } from './data-sequence.ts'
export { EspPath } from './esp-path.ts'
export type {
  CallParameters,
  CallRequest,
  L2tpEvent,
  L2tpInput,
  PeerIdentity,
  ProxyState,
} from './event.ts'
export type { L2tpPath } from './l2tp-path.ts'
export {
  L2tpListener,
  type L2tpListenerOptions,
  type L2tpStatus,
  type TunnelSettings,
} from './listener.ts'
export { TunnelMachine } from './tunnel-machine.ts'
export type { TunnelOptions } from './tunnel-options.ts'
export {
  defaultTunnelLimits,
  type Tunnel,
  type TunnelLimits,
  type TunnelRoute,
  TunnelTable,
  type TunnelTableOptions,
} from './tunnel-table.ts'
