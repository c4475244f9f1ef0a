import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { connect, createServer, type TLSSocket } from 'node:tls'
import t from 'tap'
import { landReads } from '../../lib/sstp/landing.ts'
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

t.test(
  'reads land without a data event, in order and whole, and the end is still said',
  async t => {
    const { near, far, close } = await tlsPair()
    t.teardown(close)
    const expected = Uint8Array.from({ length: 1_000_003 }, (_, i) => (i * 31 + (i >>> 8)) & 255)
    const received = new Uint8Array(expected.length)
    let at = 0
    let dataEvents = 0
    const places = new Set<ArrayBufferLike>()
    near.on('data', () => dataEvents++)
    t.ok(
      landReads(near, bytes => {
        places.add(bytes.buffer)
        received.set(bytes, at)
        at += bytes.length
      }),
    )
    const ended = once(near, 'end')
    far.end(expected)
    await ended
    t.equal(at, expected.length)
    t.equal(Buffer.compare(received, expected), 0)
    t.equal(dataEvents, 0)
    t.equal(places.size, 1, 'one buffer for all reads')
  },
)

t.test(
  'two connections share the place and not the bytes, and one that breaks harms no other',
  async t => {
    const [one, other] = [await tlsPair(), await tlsPair()]
    t.teardown(() => {
      one.close()
      other.close()
    })
    const texts = { one: '', other: '' }
    const watch = (name: keyof typeof texts, socket: TLSSocket) =>
      new Promise<void>(resolve => {
        socket.on('error', () => {})
        socket.on('data', () => t.fail('a data event'))
        landReads(socket, bytes => {
          texts[name] += Buffer.from(bytes).toString()
          if (texts[name].endsWith('.')) resolve()
        })
      })
    const [oneDone, otherDone] = [watch('one', one.near), watch('other', other.near)]
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
    t.equal(texts.one, `${words.map(word => `a${word}`).join('')}.`)
    t.equal(texts.other, `${words.map(word => `b${word}`).join('')}.`)
  },
)

t.test('a socket that is no such thing is left alone', async t => {
  t.notOk(landReads({} as TLSSocket, () => t.fail('read')))
})
