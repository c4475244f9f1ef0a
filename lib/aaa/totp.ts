/** One-time passwords by time: RFC 6238, over RFC 4226. Six digits, SHA-1, a new one each 30 seconds. */
import { createHmac } from 'node:crypto'
import { equalBytes, putU32, u32, utf8 } from '../core/bytes.ts'
import type { Secret } from '../core/secret.ts'

export const totpDigits = 6
const stepSeconds = 30
/** RFC 6238 §5.2: clocks that differ, and people who type slowly. */
const stepsEitherWay = 1

/** RFC 4226 §5.3. `counter` is the number of the time step. */
export function oneTimePassword(secret: Secret, counter: number, digits = totpDigits): string {
  const message = new Uint8Array(8)
  putU32(message, 0, Math.floor(counter / 2 ** 32))
  putU32(message, 4, counter % 2 ** 32)
  const mac = Uint8Array.from(createHmac('sha1', secret.expose()).update(message).digest())
  const offset = (mac[19] ?? 0) & 15
  const number = u32(mac, offset) % 2 ** 31
  return String(number % 10 ** digits).padStart(digits, '0')
}

/** The step of `date`, RFC 6238 §4.2. */
export function timeStep(date: Date): number {
  return Math.floor(date.getTime() / 1000 / stepSeconds)
}

/** Takes each password once (RFC 6238 §5.2). Remembers one number for each user who came in. */
export class TotpVerifier {
  readonly #lastStep = new Map<string, number>()

  /** Whether `code` is good now for this user; if so, it is used up. */
  accept(userId: string, secret: Secret, code: string, now: Date): boolean {
    const present = timeStep(now)
    const last = this.#lastStep.get(userId) ?? Number.NEGATIVE_INFINITY
    let found = Number.NaN
    for (let step = present - stepsEitherWay; step <= present + stepsEitherWay; step++) {
      // No early end: the time must not tell which step it was.
      if (equalBytes(utf8(oneTimePassword(secret, step)), utf8(code)) && step > last) found = step
    }
    if (Number.isNaN(found)) return false
    this.#lastStep.set(userId, found)
    return true
  }
}
