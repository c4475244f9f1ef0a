/** PPTP for those who compose the server: the listener, the dialler and what they speak of. */
export type { ClientHabits } from './control-settings.ts'
export {
  type DialledCall,
  PptpDialler,
  type PptpDiallerOptions,
  type PptpTarget,
} from './dialler.ts'
export { GRE_PROTOCOL } from './gre-hub.ts'
export {
  defaultLimits,
  PPTP_PORT,
  type PptpAddress,
  type PptpLimits,
  PptpListener,
  type PptpListenerOptions,
  type PptpStatus,
} from './listener.ts'
