/** What one ISAKMP SA is made with. */
import type { Counters, FaultCounters } from '../core/faults.ts'
import type { Phase1Options } from './phase1-options.ts'
import type { ProtectedService } from './quick-mode-exchange.ts'

export const udpL2tp: ProtectedService = { protocol: 17, port: 1701 }

export interface IsakmpOptions extends Phase1Options {
  readonly counters: Counters
  readonly faults: FaultCounters
  /** A fresh inbound SPI, unique in the server and at least 256 (RFC 4303 §2.1). */
  allocateSpi(): number
  /** The traffic that ESP carries; UDP port 1701 when absent. */
  readonly service?: ProtectedService
  /** Silence after which a peer that can is asked whether it lives (RFC 3706), ms; 0 never. */
  readonly dpdAfterMs?: number
  readonly halfOpenTimeoutMs?: number
  readonly sendsOriginalAddresses?: boolean
}
