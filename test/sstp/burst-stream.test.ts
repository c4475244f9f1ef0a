import fc from 'fast-check'
import t from 'tap'
import { concatBytes } from '../../lib/core/bytes.ts'
import { BurstStream } from '../../lib/sstp/burst-stream.ts'
import { frameBytes, putFrameHeader } from '../../lib/sstp/wire/frame.ts'

/** As a TLS socket of Node: what waits while a write is under way becomes one record. */
class RecordStream {
  readonly records: Uint8Array[] = []
  #waiting: { bytes: Uint8Array; callback: () => void }[] = []
  #underWay: (() => void)[] | undefined
  isEnded = false

  write(bytes: Uint8Array, callback: () => void): void {
    this.#waiting.push({ bytes, callback })
    if (this.#underWay === undefined) this.#begin()
  }

  end(): void {
    this.isEnded = true
  }

  destroy(): void {
    this.isEnded = true
  }

  /** One write has left. False when none was under way. */
  leave(): boolean {
    const callbacks = this.#underWay
    if (callbacks === undefined) return false
    this.#underWay = undefined
    if (this.#waiting.length > 0) this.#begin()
    for (const callback of callbacks) callback()
    return true
  }

  #begin(): void {
    const writes = this.#waiting.splice(0)
    this.records.push(concatBytes(...writes.map(({ bytes }) => bytes)))
    this.#underWay = writes.map(({ callback }) => callback)
  }
}

function frames(count: number, bodyBytes: number, mark: number): Uint8Array {
  const one = new Uint8Array(4 + bodyBytes).fill(mark)
  putFrameHeader(one, 0, false, one.length)
  return concatBytes(...Array.from({ length: count }, () => one))
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

t.test('one frame alone leaves at once', async t => {
  const stream = new RecordStream()
  let calls = 0
  new BurstStream(stream).write(frames(1, 9, 1), () => calls++)
  t.same(stream.records.map(countFrames), [1])
  t.equal(calls, 0)
  stream.leave()
  t.equal(calls, 1)
})

t.test('the last of several frames is a record of its own', async t => {
  const stream = new RecordStream()
  let calls = 0
  new BurstStream(stream).write(frames(3, 9, 1), () => calls++)
  t.same(stream.records.map(countFrames), [2], 'sent when the others have left')
  stream.leave()
  t.same(stream.records.map(countFrames), [2, 1])
  t.equal(calls, 0, 'the bytes are still needed')
  stream.leave()
  t.equal(calls, 1)
})

t.test('three frames that are written at the same time do not end in one record', async t => {
  const stream = new RecordStream()
  const burst = new BurstStream(stream)
  for (const mark of [1, 2, 3]) burst.write(frames(1, 9, mark), () => {})
  while (stream.leave());
  t.same(stream.records.map(countFrames), [1, 1, 1])
})

t.test('however bursts come, a client that reads frame by frame has all of them', async t => {
  const write = fc.record({
    count: fc.integer({ min: 1, max: 12 }),
    bodyBytes: fc.integer({ min: 0, max: 60 }),
    leaves: fc.integer({ min: 0, max: 3 }),
  })
  fc.assert(
    fc.property(fc.array(write, { minLength: 1, maxLength: 30 }), writes => {
      const stream = new RecordStream()
      const burst = new BurstStream(stream)
      const called: number[] = []
      const written: Uint8Array[] = []
      for (const [mark, { count, bodyBytes, leaves }] of writes.entries()) {
        const bytes = frames(count, bodyBytes, mark)
        written.push(bytes)
        burst.write(bytes, () => called.push(mark))
        let isBusy = true
        for (let i = 0; i < leaves; i++) isBusy = stream.leave()
        if (!isBusy) t.equal(readByFrame(stream.records), countFrames(concatBytes(...written)))
      }
      while (stream.leave());
      const all = concatBytes(...written)
      t.same(concatBytes(...stream.records), all)
      t.equal(readByFrame(stream.records), countFrames(all))
      t.same(
        called,
        writes.map((_, mark) => mark),
      )
      return true
    }),
    { seed: 58, numRuns: 300 },
  )
})

t.test(
  'what is kept leaves before the end, and is given back when the stream is dropped',
  async t => {
    for (const last of ['end', 'destroy'] as const) {
      const stream = new RecordStream()
      const burst = new BurstStream(stream)
      let calls = 0
      burst.write(frames(2, 9, 1), () => calls++)
      burst[last]()
      t.ok(stream.isEnded)
      while (stream.leave());
      t.same(stream.records.map(countFrames), [1, 1])
      t.equal(calls, 1)
    }
  },
)
