/** What a tunnel over an IP protocol of its own needs; the machine's two ways to it implement this. */

/** The largest packet that is received or sent, IP header included. A power of two. */
export const RAW_SLOT_BYTES = 2048

export interface RawSocketEvents {
  /** The IP payload at `at`; addresses in host order. */
  onPacket(at: number, lengthBytes: number, source: number, destination: number): void
  /** All packets of this wake-up have been shown: finish with them. */
  onBurstEnd(): void
  /** The kernel has taken the socket away. */
  onLost(reason: string): void
}

export interface PacketSocket {
  /** The place for a packet, `RAW_SLOT_BYTES` long, or -1. */
  reserve(): number
  /** Sends `lengthBytes` at `at`, which lies in the place that `reserve` gave. Host-order addresses. */
  commit(at: number, lengthBytes: number, source: number, destination: number): void
  /** Gives the place back unused. */
  release(at: number): void
  /** Hands what was committed to the kernel. */
  flush(): void
  start(events: RawSocketEvents): void
  close(): void
  readonly counters: Readonly<Record<string, number>>
}
