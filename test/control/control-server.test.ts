import { chmodSync, existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { z } from 'zod'
import { controlCall } from '../../lib/control/control-call.ts'
import { ControlServer } from '../../lib/control/control-server.ts'
import { LineSplitter } from '../../lib/control/line-splitter.ts'
import { maxLineBytes } from '../../lib/control/protocol.ts'
import { BindError, ControlError, StoreError } from '../../lib/core/errors.ts'
import { silentLogger } from '../../lib/core/log.ts'

const folder = mkdtempSync(join(tmpdir(), 'openras-control-'))
t.teardown(() => rmSync(folder, { recursive: true }))

async function startServer(t: Test, name: string): Promise<[ControlServer, string]> {
  const path = join(folder, name)
  const server = new ControlServer(path, silentLogger)
  server.register('double', z.strictObject({ value: z.number() }), ({ value }) => ({
    value: value * 2,
  }))
  server.register('nothing', z.undefined(), () => undefined)
  server.register('refuse', z.unknown(), () => {
    throw new StoreError('the database is full')
  })
  server.register('break', z.unknown(), async () => {
    throw new TypeError('x is not a function')
  })
  server.register('long', z.strictObject({ bytes: z.int() }), ({ bytes }) => 'x'.repeat(bytes))
  await server.listen()
  t.teardown(() => server.close())
  return [server, path]
}

/** A raw connection that collects what it gets. */
class RawClient {
  readonly socket: Socket
  #received = ''
  readonly closed: Promise<void>

  constructor(path: string) {
    this.socket = connect(path)
    this.socket.on('error', () => undefined)
    this.socket.on('data', chunk => {
      this.#received += chunk.toString()
    })
    this.closed = new Promise(resolve => this.socket.on('close', () => resolve()))
  }

  /** The answers, once `count` of them are complete. */
  async replies(count: number): Promise<{ id: number; result?: unknown; error?: unknown }[]> {
    while (this.#received.split('\n').length <= count) {
      await new Promise(resolve => this.socket.once('data', resolve))
    }
    return this.#received
      .trim()
      .split('\n')
      .map(line => JSON.parse(line))
  }
}

t.test('a command is called, checked and answered', async t => {
  const [, path] = await startServer(t, 'basic')
  t.same(await controlCall(path, 'double', { value: 21 }), { value: 42 })
  t.equal(await controlCall(path, 'nothing'), null)
  t.equal(statSync(path).mode & 0o777, 0o600, 'for its owner only')
})

t.test('errors are sentences for people', async t => {
  const [server, path] = await startServer(t, 'errors')
  const fails = (name: string, args: unknown, message: RegExp | string) =>
    t.rejects(controlCall(path, name, args), { name: 'ControlError', message })
  await fails('double', { value: 'x' }, /^double: value: /)
  await fails('double', { value: 1, extra: 1 }, /^double: /)
  await fails('no-such', {}, /there is no command "no-such": double, nothing/)
  await fails('refuse', {}, 'the database is full')
  await fails('break', {}, 'break failed: x is not a function')
  t.match(server.counters.toJSON(), {
    'bad-arguments': 2,
    'unknown-command': 1,
    refused: 1,
    failed: 1,
  })
  await t.rejects(controlCall(join(folder, 'absent'), 'double'), {
    message: /^no server is running/,
  })
})

t.test('many clients at once, each with many requests, get their own answers', async t => {
  const [, path] = await startServer(t, 'many')
  const results = await Promise.all(
    Array.from({ length: 50 }, (_, value) => controlCall(path, 'double', { value })),
  )
  t.same(
    results,
    Array.from({ length: 50 }, (_, value) => ({ value: 2 * value })),
  )
  const client = new RawClient(path)
  const lines = Array.from({ length: 200 }, (_, id) =>
    JSON.stringify({ version: 1, id, command: 'double', arguments: { value: id } }),
  )
  client.socket.write(`${lines.join('\n')}\n`)
  const replies = await client.replies(200)
  t.ok(
    replies.every(({ id, result }) => (result as { value: number }).value === 2 * id),
    'two hundred on one connection',
  )
  client.socket.destroy()
  await client.closed
})

t.test('garbage is answered and harms nobody', async t => {
  const [server, path] = await startServer(t, 'garbage')
  const client = new RawClient(path)
  const bad = ['', '{', 'null', '[]', '{"version":2,"id":1,"command":"x"}', '\u{0}\u{fffd}', '"x"']
  client.socket.write(`${bad.join('\n')}\n`)
  const replies = await client.replies(bad.length)
  t.ok(replies.every(reply => reply.id === null && reply.error !== undefined))
  client.socket.write('{"version":1,"id":7,"command":"double","arguments":{"value":1}}\n')
  t.match((await client.replies(bad.length + 1)).at(-1), { id: 7, result: { value: 2 } })
  client.socket.destroy()
  await client.closed
  t.equal(server.counters.get('bad-request'), bad.length)

  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async bytes => {
      const raw = new RawClient(path)
      raw.socket.end(bytes)
      raw.socket.resume()
      await raw.closed
    }),
    { seed: 2661, numRuns: 30 },
  )
  t.same(await controlCall(path, 'double', { value: 3 }), { value: 6 }, 'still there')
})

t.test('a request in single bytes is understood', async t => {
  const [, path] = await startServer(t, 'slow')
  const client = new RawClient(path)
  client.socket.setNoDelay(true)
  for (const byte of '{"version":1,"id":9,"command":"nothing"}\n') {
    await new Promise(resolve => client.socket.write(byte, resolve))
  }
  t.match(await client.replies(1), [{ id: 9, result: null }])
  client.socket.destroy()
  await client.closed
})

t.test('a line beyond 1 MiB is refused, one below it is not', async t => {
  const [server, path] = await startServer(t, 'big')
  const client = new RawClient(path)
  client.socket.write('x'.repeat(maxLineBytes + 1))
  t.match(await client.replies(1), [{ id: null, error: { message: /longer than 1048576 bytes/ } }])
  await client.closed
  t.equal(server.counters.get('line-too-long'), 1)
  await t.rejects(controlCall(path, 'double', { value: 'x'.repeat(maxLineBytes - 200) }), {
    message: /^double: value/,
  })
  const answer = await controlCall(path, 'long', { bytes: 3 * maxLineBytes })
  t.equal(String(answer).length, 3 * maxLineBytes, 'answers may be longer')
})

t.test('a client that never reads is cut off, and nobody waits for it', async t => {
  const [server, path] = await startServer(t, 'unread')
  const client = new RawClient(path)
  client.socket.pause()
  const line = JSON.stringify({
    version: 1,
    id: 1,
    command: 'long',
    arguments: { bytes: 2 * maxLineBytes },
  })
  for (let i = 0; i < 20; i++) client.socket.write(`${line}\n`)
  t.same(await controlCall(path, 'double', { value: 1 }), { value: 2 })
  client.socket.resume()
  await client.closed
  t.equal(server.counters.get('client-does-not-read'), 1)
})

t.test('the sixty-fifth connection is closed at once', async t => {
  const [server, path] = await startServer(t, 'crowd')
  const clients = Array.from({ length: 65 }, () => new RawClient(path))
  await clients[64]?.closed
  t.equal(server.counters.get('too-many-connections'), 1)
  for (const client of clients) client.socket.destroy()
  await Promise.all(clients.map(client => client.closed))
})

t.test('a socket left by a killed server is replaced, a living one is not', async t => {
  const [, path] = await startServer(t, 'taken')
  await t.rejects(new ControlServer(path, silentLogger).listen(), BindError)
  t.same(await controlCall(path, 'double', { value: 1 }), { value: 2 }, 'the first goes on')

  const plain = join(folder, 'plain-file')
  writeFileSync(plain, 'precious')
  await t.rejects(new ControlServer(plain, silentLogger).listen(), BindError)
  t.ok(existsSync(plain), 'what is not a socket stays')

  const [server] = await startServer(t, 'gone')
  await server.close()
  t.notOk(existsSync(join(folder, 'gone')), 'removed on close')
})

t.test('a server that talks nonsense, hangs up or says nothing is an error', async t => {
  const path = join(folder, 'odd')
  let answer: string | undefined = 'nonsense\n'
  const odd = createServer(socket => {
    socket.on('error', () => undefined)
    if (answer === undefined) socket.resume()
    else socket.end(answer)
  })
  await new Promise<void>(resolve => odd.listen(path, resolve))
  t.teardown(() => odd.close())
  await t.rejects(controlCall(path, 'x'), /another version/)
  answer = '{"version":9,"id":1,"result":1}\n'
  await t.rejects(controlCall(path, 'x'), /another version/)
  answer = 'half a li'
  await t.rejects(controlCall(path, 'x'), /closed the connection/)
  answer = undefined
  await t.rejects(controlCall(path, 'x', {}, 20), ControlError)
  chmodSync(path, 0o600)
})

t.test('lines come out of any cut of the stream', async t => {
  fc.assert(
    fc.property(
      fc.array(fc.string({ unit: 'grapheme', maxLength: 20 }).filter(s => !s.includes('\n'))),
      fc.array(fc.nat(30), { minLength: 1 }),
      (lines, cuts) => {
        const bytes = Buffer.from(lines.map(line => `${line}\n`).join(''))
        const splitter = new LineSplitter(200)
        const out: string[] = []
        let at = 0
        for (let i = 0; at < bytes.length; i++) {
          const size = 1 + (cuts[i % cuts.length] ?? 0)
          out.push(...(splitter.push(bytes.subarray(at, at + size)) ?? []))
          at += size
        }
        t.same(out, lines)
      },
    ),
    { seed: 1661, numRuns: 50 },
  )
})
