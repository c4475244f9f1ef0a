import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { connect, createServer, type TLSSocket } from 'node:tls'
import t from 'tap'
import { concatBytes, copyBytes } from '../../lib/core/bytes.ts'
import { createMemoryDataplane } from '../../lib/dataplane/index.ts'
import { elsewhere, type LandedReader, landReads } from '../../lib/sstp/landing.ts'
import { LandingPlaces, MAX_RECORD_BYTES } from '../../lib/sstp/landing-places.ts'
import { rsaCertificate } from '../support/sstp-certificates.ts'

const { cert, key } = rsaCertificate()

/** A TLS connection over loopback; both ends as Node made them. */
async function tlsPair(): Promise<{ near: TLSSocket; far: TLSSocket; close(): void }> {
  const server = createServer({ cert, key: Buffer.from(key.expose()) })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const accepted = once(server, 'secureConnection')
  const { port } = server.address() as AddressInfo
  const far = connect({ port, host: '127.0.0.1', rejectUnauthorized: false })
  const connected = once(far, 'secureConnect')
  const [near] = (await accepted) as [TLSSocket]
  await connected
  return {
    near,
    far,
    close: () => {
      for (const socket of [near, far]) socket.destroy()
      server.close()
    },
  }
}

function packetMemory(placeCount?: number) {
  const { dataplane } = createMemoryDataplane()
  return { dataplane, places: new LandingPlaces(dataplane, placeCount) }
}

interface Piece {
  readonly at: number
  readonly bytes: Uint8Array
}

/** Notes what it reads, and whether that came to where it was said to come. */
class Reader implements LandedReader {
  readonly pieces: Piece[] = []
  readonly surprises: string[] = []
  readonly #memory: Uint8Array
  readonly #onRead: (reader: Reader) => void
  #expectedAt: number | undefined
  /** Pieces from here on landed in this burst. */
  #burstFrom = 0

  constructor(memory: Uint8Array, onRead: (reader: Reader) => void = () => {}) {
    this.#memory = memory
    this.#onRead = onRead
  }

  get all(): Uint8Array {
    return concatBytes(...this.pieces.map(({ bytes }) => bytes))
  }

  get inPlaceCount(): number {
    return this.pieces.filter(({ at }) => at !== elsewhere).length
  }

  receive(bytes: Uint8Array): void {
    if (bytes.buffer === this.#memory.buffer) this.surprises.push('packet memory, unnamed')
    this.#note({ at: elsewhere, bytes: copyBytes(bytes) }, undefined)
  }

  receiveInPlace(at: number, lengthBytes: number, nextAt: number): void {
    this.#note({ at, bytes: copyBytes(this.#memory, at, at + lengthBytes) }, nextAt)
  }

  /** What landed in this burst must still be there. */
  endBurst(): void {
    for (const { at, bytes } of this.pieces.slice(this.#burstFrom)) {
      const now = this.#memory.subarray(at, at + bytes.length)
      if (at !== elsewhere && Buffer.compare(bytes, now) !== 0) {
        this.surprises.push(`${bytes.length} bytes at ${at} are gone`)
      }
    }
    this.#burstFrom = this.pieces.length
  }

  #note(piece: Piece, nextAt: number | undefined): void {
    if (this.#expectedAt !== undefined && piece.at !== this.#expectedAt) {
      this.surprises.push(`at ${piece.at} and not ${this.#expectedAt}`)
    }
    this.#expectedAt = nextAt
    this.pieces.push(piece)
    this.#onRead(this)
  }
}

function pattern(lengthBytes: number, factor: number): Uint8Array {
  return Uint8Array.from({ length: lengthBytes }, (_, i) => (i * factor + (i >>> 8)) & 255)
}

t.test(
  'reads land without a data event, in order and whole, and the end is still said',
  async t => {
    const { near, far, close } = await tlsPair()
    t.teardown(close)
    const { dataplane, places } = packetMemory()
    const expected = pattern(1_000_003, 31)
    let dataEvents = 0
    near.on('data', () => dataEvents++)
    const reader = new Reader(dataplane.memory.bytes)
    t.ok(landReads(near, places, reader))
    const ended = once(near, 'end')
    far.end(expected)
    await ended
    t.equal(Buffer.compare(reader.all, expected), 0)
    reader.endBurst()
    t.same(reader.surprises, [])
    t.ok(reader.inPlaceCount > 30, `${reader.inPlaceCount} reads in packet memory`)
    t.equal(dataEvents, 0)
    t.equal(places.heldCount, 0, 'the last read was short')
  },
)

t.test(
  'busy connections share few places and not the bytes, within a burst and over many',
  async t => {
    const pairs = [await tlsPair(), await tlsPair(), await tlsPair()]
    t.teardown(() => {
      for (const { close } of pairs) close()
    })
    const { dataplane, places } = packetMemory(6)
    const streams = [7, 13, 29].map(factor => pattern(600_000 + factor, factor))
    let reads = 0
    const readers = pairs.map(
      () =>
        new Reader(dataplane.memory.bytes, () => {
          reads++
          if (reads % 5 !== 0) return
          for (const reader of readers) reader.endBurst()
          dataplane.flush()
        }),
    )
    const ends = pairs.map(({ near }, i) => {
      landReads(near, places, readers[i] ?? new Reader(dataplane.memory.bytes))
      return once(near, 'end')
    })
    for (const [i, { far }] of pairs.entries()) far.end(streams[i] ?? '')
    await Promise.all(ends)
    for (const [i, reader] of readers.entries()) {
      t.equal(Buffer.compare(reader.all, streams[i] ?? new Uint8Array(0)), 0)
      t.same(reader.surprises, [])
      t.ok(reader.inPlaceCount > 0)
    }
    t.ok(places.heldCount <= 3)
  },
)

t.test('short reads land outside packet memory, one place for all', async t => {
  const [one, other] = [await tlsPair(), await tlsPair()]
  t.teardown(() => {
    one.close()
    other.close()
  })
  const { dataplane, places } = packetMemory()
  const texts = ['', '']
  const watch = (index: number, socket: TLSSocket) =>
    new Promise<void>(resolve => {
      socket.on('error', () => {})
      socket.on('data', () => t.fail('a data event'))
      const reader = new Reader(dataplane.memory.bytes, ({ pieces }) => {
        texts[index] += Buffer.from(pieces.at(-1)?.bytes ?? '').toString()
        if (texts[index]?.endsWith('.') === true) resolve()
      })
      landReads(socket, places, reader)
    })
  const [oneDone, otherDone] = [watch(0, one.near), watch(1, other.near)]
  const words = Array.from({ length: 50 }, (_, i) => `${i} `)
  for (const word of words) {
    one.far.write(`a${word}`)
    other.far.write(`b${word}`)
  }
  one.far.write('.')
  await oneDone
  const closed = once(one.near, 'close')
  one.far.destroy()
  one.near.destroy()
  await closed
  other.far.write('.')
  await otherDone
  t.equal(texts[0], `${words.map(word => `a${word}`).join('')}.`)
  t.equal(texts[1], `${words.map(word => `b${word}`).join('')}.`, 'one that breaks harms no other')
  t.equal(places.heldCount, 0)
})

t.test('a connection that closes gives its place back', async t => {
  const { near, far, close } = await tlsPair()
  t.teardown(close)
  const { dataplane, places } = packetMemory()
  near.on('error', () => {})
  const landed = new Promise<void>(resolve => {
    landReads(near, places, new Reader(dataplane.memory.bytes, () => resolve()))
  })
  far.write(new Uint8Array(MAX_RECORD_BYTES))
  await landed
  t.equal(places.heldCount, 1)
  near.destroy()
  await once(near, 'close')
  t.equal(places.heldCount, 0)
})

t.test('a socket that is no such thing is left alone', async t => {
  const { dataplane, places } = packetMemory()
  t.notOk(landReads({} as TLSSocket, places, new Reader(dataplane.memory.bytes)))
})
