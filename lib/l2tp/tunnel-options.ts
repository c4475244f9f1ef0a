/** What one tunnel is made with. */
import type { Counters, FaultCounters } from '../core/faults.ts'
import type { RandomSource } from '../core/random.ts'
import type { Secret } from '../core/secret.ts'

export interface TunnelOptions {
  /** Unique among the server's tunnels, from `TunnelTable`. */
  readonly localTunnelId: number
  readonly hostName: string
  readonly vendorName?: string
  readonly random: RandomSource
  readonly counters: Counters
  readonly faults: FaultCounters
  /** With a secret, the peer must prove that it knows it too, and hidden AVPs can be read. */
  readonly secret?: Secret
  /** Hide what may be hidden. Needs a secret. */
  readonly hidesAvps?: boolean
  /**
   * The peer has proved that it receives at its address: always so inside IPsec. Otherwise at most
   * 3 times the bytes received are sent until the tunnel is up.
   */
  readonly isPeerVerified: boolean
  /** Silence before a Hello, ms; 0 sends none. */
  readonly helloAfterMs?: number
  /** From the first message to an established tunnel, ms. */
  readonly setupTimeoutMs?: number
  /** From the first message of a call to its last, ms. */
  readonly callSetupTimeoutMs?: number
  /** An established tunnel without a call is closed after this long, ms; 0 keeps it. */
  readonly emptyTimeoutMs?: number
  readonly mostCalls?: number
  readonly receiveWindowPackets?: number
  /** We serve callers: ICRQ is taken. */
  readonly acceptsIncomingCalls?: boolean
  /** We can reach callees: OCRQ is offered to the owner. */
  readonly acceptsOutgoingCalls?: boolean
  /** Told to the peer in ICCN and OCCN, bits per second. */
  readonly connectSpeedBps?: number
}
