/**
 * The way out through a tunnel, as the dataplane sees it. Called per packet, so numbers only: every
 * position is an offset into the dataplane's pinned memory.
 *
 * The dataplane asks where a packet shall stand, writes it there (whole, or cut out of a
 * super-packet), and commits it. The tunnel has left room for its headers before that place and for
 * its trailer behind it, so nothing is moved again.
 */
export interface PacketSink {
  /** Largest IP packet that the tunnel carries now, bytes. */
  readonly mtuBytes: number

  /**
   * The offset where an IP packet of `lengthBytes` must be written, or `noRoom`: then the packet is
   * dropped and counted. Each successful `reserve` is followed by one `commit` before the next.
   */
  reserve(lengthBytes: number): number

  /** The packet stands at `at`, the offset that `reserve` gave. */
  commit(at: number, lengthBytes: number): void

  /** The burst is over: send what was committed. */
  flush(): void
}

export const noRoom = -1
