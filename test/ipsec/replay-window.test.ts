import fc from 'fast-check'
import t from 'tap'
import { SeededRandom } from '../../lib/core/random.ts'
import { EspDrop } from '../../lib/ipsec/esp-drop.ts'
import { ReplayWindow } from '../../lib/ipsec/replay-window.ts'

const range = 2n ** 32n

/** RFC 4303 §3.4.3 said plainly: a set of everything seen, and bigints. */
class PlainWindow {
  readonly #size: bigint
  readonly #hasEsn: boolean
  readonly #seen = new Set<bigint>()
  #top = 0n

  constructor(size: number, hasEsn: boolean) {
    this.#size = BigInt(size)
    this.#hasEsn = hasEsn
  }

  /** RFC 4303 appendix A2.2, in its own letters. */
  infer(seqLow: bigint): bigint {
    if (!this.#hasEsn) return seqLow
    const th = this.#top / range
    const tl = this.#top % range
    const w = this.#size
    let seqHigh: bigint
    if (tl >= w - 1n) seqHigh = seqLow >= tl - w + 1n ? th : th + 1n
    else seqHigh = seqLow >= (tl - w + 1n + range) % range ? th - 1n : th
    return seqHigh * range + seqLow
  }

  /** Whether the packet is taken, noting it when it is. */
  take(sequence: bigint): boolean {
    if (sequence <= 0n || sequence + this.#size <= this.#top || this.#seen.has(sequence)) {
      return false
    }
    this.#seen.add(sequence)
    if (sequence > this.#top) this.#top = sequence
    return true
  }
}

/** As an SA does it: infer, check, and accept what is authentic. */
function take(window: ReplayWindow, low: number): boolean {
  const high = window.highOf(low)
  if (window.check(high, low) !== 0) return false
  window.accept(high, low)
  return true
}

const sizes = [64, 96, 100, 128, 1000, 1024, 2048]

t.test('the window decides as the plain one does, for any order of packets', async t => {
  for (const size of sizes) {
    for (const hasEsn of [false, true]) {
      const random = new SeededRandom(size + Number(hasEsn))
      const window = new ReplayWindow(size, hasEsn)
      const plain = new PlainWindow(size, hasEsn)
      let position = 1
      for (let i = 0; i < 20_000; i++) {
        const kind = random.next() % 100
        if (kind < 90) position += 1
        else if (kind < 97) position += random.next() % 300
        else position += random.next() % (4 * size)
        const back = kind % 3 === 0 ? random.next() % (2 * size) : 0
        const low = Math.max(0, position - back)
        const expected = plain.take(plain.infer(BigInt(low)))
        if (take(window, low) !== expected) t.fail(`size ${size}, packet ${i}: ${low}`)
      }
    }
  }
  t.pass(`${sizes.length} sizes`)
})

t.test('ESN: the high half is inferred across every wrap of the low one', async t => {
  for (const size of sizes) {
    const random = new SeededRandom(7 * size)
    const window = new ReplayWindow(size, true)
    const plain = new PlainWindow(size, true)
    // Steps below 2^31 so that the receiver can follow; several wraps happen.
    let position = 1n
    for (let i = 0; i < 5_000; i++) {
      const kind = random.next() % 100
      position += kind < 4 ? BigInt(random.next() >>> 1) : 1n
      if (kind === 5) position = (position / range + 1n) * range - BigInt(random.next() % 40)
      const back = BigInt(kind % 2 === 0 ? random.next() % (size + 20) : 0)
      const sequence = position > back ? position - back : position
      const low = Number(sequence % range)
      const expected = plain.take(plain.infer(BigInt(low)))
      if (take(window, low) !== expected) t.fail(`size ${size}, packet ${i}: ${sequence}`)
    }
    t.ok(window.top > 2 ** 33, `size ${size} went over several wraps`)
  }
})

t.test('any small sequence of numbers, each twice: nothing is taken a second time', async t => {
  fc.assert(
    fc.property(
      fc.boolean(),
      fc.array(
        fc.oneof(
          fc.integer({ min: 0, max: 200 }),
          fc.integer({ min: 2 ** 32 - 200, max: 2 ** 32 - 1 }),
        ),
        { maxLength: 60 },
      ),
      (hasEsn, lows) => {
        const window = new ReplayWindow(64, hasEsn)
        const taken = new Set<number>()
        for (const low of [...lows, ...lows]) {
          const high = window.highOf(low)
          if (window.check(high, low) !== 0) continue
          window.accept(high, low)
          const sequence = high * 2 ** 32 + low
          if (taken.has(sequence)) return false
          taken.add(sequence)
        }
        return true
      },
    ),
    { seed: 5, numRuns: 2000 },
  )
  t.pass('no replay')
})

t.test('the reasons: zero, replayed, too old', async t => {
  const window = new ReplayWindow(64, false)
  t.equal(window.check(0, 0), EspDrop['zero-sequence'])
  window.accept(0, 100)
  t.equal(window.check(0, 100), EspDrop.replayed)
  t.equal(window.check(0, 37), 0, 'the last place in the window')
  t.equal(window.check(0, 36), EspDrop['too-old'], 'one behind it')
  window.accept(0, 37)
  t.equal(window.check(0, 37), EspDrop.replayed)
  t.equal(window.top, 100)
})

t.test('without ESN the window ends at 2^32 - 1: nothing wraps', async t => {
  const window = new ReplayWindow(64, false)
  for (const low of [2 ** 32 - 2, 2 ** 32 - 1]) t.ok(take(window, low))
  for (const low of [0, 1, 2, 63]) t.notOk(take(window, low), `${low} is not the next round`)
})

t.test('ESN: a low half from before the first packet is too old', async t => {
  const window = new ReplayWindow(64, true)
  t.equal(window.highOf(2 ** 32 - 1), -1)
  t.equal(window.check(-1, 2 ** 32 - 1), EspDrop['too-old'])
  t.ok(take(window, 1))
})

t.test('ESN: beyond 2^53 nothing is accepted', async t => {
  const window = new ReplayWindow(64, true)
  window.accept(2 ** 21 - 1, 2 ** 32 - 1)
  t.equal(window.highOf(5), 2 ** 21)
  t.equal(window.check(2 ** 21, 5), EspDrop['too-old'])
})

t.test('a forged far-ahead packet moves nothing until it is accepted', async t => {
  const window = new ReplayWindow(64, false)
  window.accept(0, 10)
  t.equal(window.check(0, 4_000_000_000), 0)
  t.equal(window.top, 10)
  t.equal(window.check(0, 9), 0)
})

t.test('sizes are held between 64 and 65,536', async t => {
  t.equal(new ReplayWindow(1, false).sizePackets, 64)
  t.equal(new ReplayWindow(1e9, false).sizePackets, 65_536)
  const window = new ReplayWindow(1024, false)
  window.accept(0, 5000)
  t.equal(window.check(0, 5000 - 1023), 0)
  t.equal(window.check(0, 5000 - 1024), EspDrop['too-old'])
})
