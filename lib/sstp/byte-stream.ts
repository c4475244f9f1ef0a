/** What a call needs of the connection under it: a TLS socket, or a double in tests. */
export interface ByteStream {
  /**
   * Queues bytes and calls back exactly once: when they have left, or when the stream has failed or
   * was destroyed. `bytes` must not change before that. `headroomBytes` in front of them may be written
   * to until then.
   */
  write(bytes: Uint8Array, callback: () => void, headroomBytes?: number): unknown
  /** As `write`, where more will be written in this turn of the event loop. Absent where that is nothing special. */
  writeOn?(bytes: Uint8Array, callback: () => void, headroomBytes: number): unknown
  /** Sends what is queued, then says that no more comes. */
  end(): unknown
  /** Drops the connection; callbacks of pending writes still come. */
  destroy(): unknown
}
