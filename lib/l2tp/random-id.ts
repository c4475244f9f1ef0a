/** Tunnel and session IDs: 16 bits, not 0, not guessable (RFC 2661 §9.2). */
import { u16 } from '../core/bytes.ts'
import { type RandomSource, randomBytes } from '../core/random.ts'

/** An ID for which `isUsed` is false. The caller keeps far fewer than 2^15 IDs in use. */
export function randomId(random: RandomSource, isUsed: (id: number) => boolean): number {
  for (;;) {
    const id = u16(randomBytes(random, 2), 0)
    if (id !== 0 && !isUsed(id)) return id
  }
}
