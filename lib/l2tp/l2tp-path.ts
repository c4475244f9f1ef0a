/** How the messages of one peer's tunnels travel: inside ESP, or, where that is allowed, plainly in UDP. */

/** Offsets are into pinned memory; numbers only, per message. */
export interface L2tpPath {
  /** Names the peer: tunnels of another are not its. */
  readonly key: string
  /** Without port. */
  readonly peerAddress: string
  /** Address and port for people. */
  readonly peerLabel: string
  /** The peer has proved that it receives at its address. */
  readonly isVerified: boolean
  /** Largest message that travels in one packet of an ordinary link, bytes. */
  readonly largestMessageBytes: number
  /** Where a message of at most `lengthBytes` may be written, or `noRoom`. */
  reserve(lengthBytes: number): number
  /** Sends the message at `at`, at or behind the offset of `reserve`, to this UDP port of the peer. */
  commit(at: number, lengthBytes: number, peerPort: number): void
  flush(): void
}

/** RFC 2661 §8.1. */
export const L2TP_PORT = 1701
