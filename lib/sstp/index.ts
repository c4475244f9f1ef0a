/** SSTP for those who compose the server: the listener, the dialler and what they speak of. */
export {
  type DialledCall,
  type ServerProof,
  type SstpClientHabits,
  SstpDialler,
  type SstpDiallerOptions,
  type SstpTarget,
} from './dialler.ts'
export {
  defaultLimits,
  type ProxyNetwork,
  type SstpAddress,
  type SstpLimits,
  SstpListener,
  type SstpListenerOptions,
  type SstpStatus,
} from './listener.ts'
export type { CertificatePair } from './tls-acceptor.ts'
