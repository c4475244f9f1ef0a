/**
 * A lock between processes that the kernel takes back when its holder dies, however it dies:
 * flock(2). Nothing in Node offers it, so it is called through koffi.
 */
import { closeSync, openSync } from 'node:fs'
import koffi from 'koffi'
import { StoreError } from '../core/errors.ts'

/** flock(2). */
const LOCK_EX = 2
const LOCK_NB = 4

/** Between two attempts, ms. */
const retryMs = 3

let flock: ((fd: number, operation: number) => number) | undefined

/** Runs `work` while this process holds the lock file at `path`; waits up to `waitMs` for it. */
export function withFileLock<T>(path: string, waitMs: number, work: () => T): T {
  flock ??= koffi.load(null).func('int flock(int, int)')
  const fd = openSync(path, 'a', 0o600)
  try {
    for (let waitedMs = 0; flock(fd, LOCK_EX | LOCK_NB) !== 0; waitedMs += retryMs) {
      if (waitedMs >= waitMs) throw new StoreError(`${path} is held by another process`)
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, retryMs)
    }
    return work()
  } finally {
    // Closing the last descriptor of the open file gives the lock back.
    closeSync(fd)
  }
}
