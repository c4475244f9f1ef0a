import fc from 'fast-check'
import t from 'tap'
import { concatBytes, toHex } from '../../lib/core/bytes.ts'
import { BurstStream } from '../../lib/sstp/burst-stream.ts'
import { frameBytes, putFrameHeader } from '../../lib/sstp/wire/frame.ts'

interface Waiting {
  readonly bytes: Uint8Array
  readonly callback: () => void
}

/** As a TLS socket of Node: what waits while a write is under way or it is corked becomes one record. */
class RecordStream {
  readonly records: Uint8Array[] = []
  /** As they were written. */
  readonly pieces: Uint8Array[] = []
  readonly #waiting: Waiting[] = []
  #underWay: readonly Waiting[] = []
  #isCorked = false
  isEnded = false

  write(bytes: Uint8Array, callback: () => void): void {
    this.pieces.push(bytes)
    this.#waiting.push({ bytes, callback })
    this.#begin()
  }

  cork(): void {
    this.#isCorked = true
  }

  uncork(): void {
    this.#isCorked = false
    this.#begin()
  }

  end(): void {
    this.isEnded = true
  }

  destroy(): void {
    this.isEnded = true
  }

  /** One write has left. False when none was under way. */
  leave(): boolean {
    const left = this.#underWay
    this.#underWay = []
    this.#begin()
    for (const { callback } of left) callback()
    return left.length > 0
  }

  #begin(): void {
    if (this.#isCorked || this.#underWay.length > 0 || this.#waiting.length === 0) return
    this.#underWay = this.#waiting.splice(0)
    this.records.push(concatBytes(...this.#underWay.map(({ bytes }) => bytes)))
  }
}

/** An event loop that turns when it is told to. */
class ManualTurns {
  #soon: (() => void)[] = []
  #later: (() => void)[] = []

  soon(work: () => void): void {
    this.#soon.push(work)
  }

  later(work: () => void): void {
    this.#later.push(work)
  }

  /** The burst has been read. */
  settle(): void {
    for (const work of this.#soon.splice(0)) work()
  }

  /** False when there was nothing to do. */
  turn(): boolean {
    const works = this.#later.splice(0)
    for (const work of works) work()
    this.settle()
    return works.length > 0
  }
}

function setUp() {
  const stream = new RecordStream()
  const turns = new ManualTurns()
  const burst = new BurstStream(stream, turns)
  const counts = () => stream.records.map(countFrames)
  /** One turn of the event loop in which nothing comes. False when everything has been done. */
  const turn = () => {
    turns.settle()
    const hasTurned = turns.turn()
    return stream.leave() || hasTurned
  }
  const idle = () => {
    while (turn());
  }
  return { stream, turns, burst, counts, turn, idle }
}

function frames(count: number, bodyBytes: number, mark: number): Uint8Array {
  const one = new Uint8Array(4 + bodyBytes).fill(mark)
  putFrameHeader(one, 0, false, one.length)
  return concatBytes(...Array.from({ length: count }, () => one))
}

/** `bytes` with room in front of them. */
function behind(headroomBytes: number, bytes: Uint8Array): Uint8Array {
  const whole = new Uint8Array(headroomBytes + bytes.length).fill(0xa5)
  whole.set(bytes, headroomBytes)
  return whole.subarray(headroomBytes)
}

function countFrames(record: Uint8Array): number {
  let count = 0
  for (let at = 0; at < record.length; count++) at += frameBytes(record, at, record.length)
  return count
}

/**
 * Frames that a client has of those records when it reads as sstpc does: a frame for each time that
 * the socket is readable, which it is while a record is left in it.
 */
function readByFrame(records: readonly Uint8Array[]): number {
  let [read, decrypted] = [0, 0]
  const inSocket = records.map(countFrames)
  while (inSocket.length > 0) {
    if (decrypted === 0) decrypted = inSocket.shift() ?? 0
    decrypted--
    read++
  }
  return read
}

t.test('one frame alone leaves as soon as the burst is over', async t => {
  const { burst, counts, turns, idle } = setUp()
  let calls = 0
  burst.write(frames(1, 9, 1), () => calls++)
  turns.settle()
  t.same(counts(), [1])
  t.equal(calls, 0)
  idle()
  t.equal(calls, 1)
})

t.test('the last of several frames is a record of its own', async t => {
  const { burst, counts, turns, idle } = setUp()
  let calls = 0
  burst.write(frames(3, 9, 1), () => calls++)
  turns.settle()
  t.same(counts(), [2], 'sent when the others have left')
  t.equal(calls, 0, 'the bytes are still needed')
  idle()
  t.same(counts(), [2, 1])
  t.equal(calls, 1)
})

t.test('three frames that are written at the same time do not end in one record', async t => {
  const { burst, counts, idle } = setUp()
  for (const mark of [1, 2, 3]) burst.write(frames(1, 9, mark), () => {})
  idle()
  t.same(counts(), [2, 1])
})

t.test('what more follows leaves at once, with what waited, and the end does not', async t => {
  const { burst, counts, turns, idle } = setUp()
  const left: number[] = []
  burst.writeOn(frames(5, 9, 1), () => left.push(1))
  t.same(counts(), [5])
  burst.write(frames(3, 9, 2), () => left.push(2))
  turns.settle()
  t.same(counts(), [5], 'a write is under way')
  burst.writeOn(frames(4, 9, 3), () => left.push(3))
  burst.write(frames(2, 9, 4), () => left.push(4))
  idle()
  t.same(counts(), [5, 7, 1, 1])
  t.same(left, [1, 2, 3, 4])
})

t.test(
  'what waited goes into the room before the next write, and is one piece with it',
  async t => {
    for (const isMore of [true, false]) {
      for (const [headroomBytes, pieces] of [
        [13, [2, 1 + 4]],
        [12, [2, 1, 4]],
      ] as const) {
        const { stream, burst, turn, turns, idle } = setUp()
        const left: number[] = []
        burst.write(frames(3, 9, 1), () => left.push(1))
        turn()
        const bytes = behind(headroomBytes, frames(4, 9, 2))
        if (isMore) burst.writeOn(bytes, () => left.push(2), headroomBytes)
        else burst.write(bytes, () => left.push(2), headroomBytes)
        turns.settle()
        idle()
        const name = `${headroomBytes} bytes, ${isMore ? 'more comes' : 'the end'}`
        if (isMore) t.same(stream.pieces.map(countFrames), pieces, name)
        t.equal(
          toHex(concatBytes(...stream.records)),
          toHex(concatBytes(frames(3, 9, 1), frames(4, 9, 2))),
          name,
        )
        t.same(left, [1, 2], name)
      }
    }
  },
)

t.test('while bursts follow each other there is one record for each', async t => {
  const { burst, counts, turn, idle } = setUp()
  for (let i = 0; i < 20; i++) {
    for (const mark of [1, 2, 3]) burst.write(frames(10, 9, mark), () => {})
    turn()
  }
  t.ok(counts().length <= 20, `${counts().length} records`)
  idle()
  t.equal(counts().at(-1), 1)
  t.equal(
    counts().reduce((sum, count) => sum + count),
    600,
  )
})

t.test('however bursts come, a client that reads frame by frame has all of them', async t => {
  const write = fc.record({
    count: fc.integer({ min: 1, max: 12 }),
    bodyBytes: fc.integer({ min: 0, max: 60 }),
    turns: fc.integer({ min: 0, max: 5 }),
    isMore: fc.boolean(),
    headroomBytes: fc.constantFrom(0, 20, 64),
  })
  fc.assert(
    fc.property(fc.array(write, { minLength: 1, maxLength: 30 }), writes => {
      const { stream, burst, turn, idle } = setUp()
      const called: number[] = []
      const written: Uint8Array[] = []
      for (const [mark, { count, bodyBytes, turns, isMore, headroomBytes }] of writes.entries()) {
        const bytes = behind(headroomBytes, frames(count, bodyBytes, mark))
        written.push(bytes)
        if (isMore && mark < writes.length - 1) {
          burst.writeOn(bytes, () => called.push(mark), headroomBytes)
          continue
        }
        burst.write(bytes, () => called.push(mark), headroomBytes)
        let isBusy = true
        for (let i = 0; i < turns; i++) isBusy = turn()
        if (!isBusy && readByFrame(stream.records) !== countFrames(concatBytes(...written))) {
          return false
        }
      }
      idle()
      const all = concatBytes(...written)
      return (
        toHex(concatBytes(...stream.records)) === toHex(all) &&
        readByFrame(stream.records) === countFrames(all) &&
        called.join() === writes.map((_, mark) => mark).join()
      )
    }),
    { seed: 58, numRuns: 300 },
  )
  t.pass('every one of them')
})

t.test(
  'what is kept leaves before the end, and is given back when the stream is dropped',
  async t => {
    for (const last of ['end', 'destroy'] as const) {
      const { stream, burst, turns, idle } = setUp()
      let calls = 0
      burst.write(frames(2, 9, 1), () => calls++)
      turns.settle()
      burst[last]()
      t.ok(stream.isEnded)
      idle()
      t.same(stream.records.map(countFrames), [1, 1])
      t.equal(calls, 1)
    }
  },
)

t.test('in the event loop of Node the frames leave as well', async t => {
  const stream = new RecordStream()
  const burst = new BurstStream(stream)
  burst.write(frames(3, 9, 1), () => {})
  await new Promise(setImmediate)
  stream.leave()
  await new Promise(setImmediate)
  t.same(stream.records.map(countFrames), [2, 1])
})
