import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { createServer, type Server } from 'node:tls'
import fc from 'fast-check'
import t from 'tap'
import { sealResponse } from '../../../lib/aaa/radius/authenticity.ts'
import { RadiusClient } from '../../../lib/aaa/radius/client.ts'
import {
  type ClientEvent,
  type RadiusAnswer,
  RadiusClientMachine,
  type RadiusRequest,
} from '../../../lib/aaa/radius/client-machine.ts'
import type { RadiusServerSettings } from '../../../lib/aaa/radius/server-state.ts'
import { AttributeList, bytesOf, textOf, u32Of } from '../../../lib/aaa/radius/wire/attributes.ts'
import {
  encodeRadiusPacket,
  parseRadiusPacket,
  RadiusCode,
} from '../../../lib/aaa/radius/wire/packet.ts'
import { ManualClock, systemClock } from '../../../lib/core/clock.ts'
import { silentLogger } from '../../../lib/core/log.ts'
import { timeout } from '../../../lib/core/machine.ts'
import { SeededRandom } from '../../../lib/core/random.ts'
import { Secret } from '../../../lib/core/secret.ts'
import { TimerWheel } from '../../../lib/core/timers.ts'
import { digest } from '../../../lib/crypto/hash.ts'
import { eventually } from '../../support/eventually.ts'
import { ecdsaCertificate } from '../../support/sstp-certificates.ts'
import { answerTo, serverSettings, TestRadiusServer, testSecret } from './radius-server.ts'

const accept = () => ({ code: RadiusCode['Access-Accept'] })

function accessRequest(user: string): RadiusRequest {
  return { code: 'access', attributes: new AttributeList().text('User-Name', user).attributes }
}

type Sent = Extract<ClientEvent, { type: 'send' }>

/** The machine with a hand on its clock and on the wire. */
class Bench {
  readonly machine: RadiusClientMachine
  nowMs = 1000
  #lastTicket = 0
  readonly sent: Sent[] = []
  readonly answers = new Map<number, RadiusAnswer>()
  readonly failures = new Map<number, string>()
  readonly drops: string[] = []
  readonly news: string[] = []

  constructor(
    servers: readonly Partial<RadiusServerSettings>[] = [{}],
    purpose: 'access' | 'accounting' = 'access',
    totalMs = 9000,
  ) {
    this.machine = new RadiusClientMachine({
      servers: servers.map((settings, i) => ({
        ...serverSettings,
        label: `server${i}`,
        isReliable: false,
        ...settings,
      })),
      random: new SeededRandom(7),
      totalMs,
      purpose,
      identity: new AttributeList().text('NAS-Identifier', 'vpn.test').attributes,
    })
  }

  ask(request: RadiusRequest = accessRequest('alice')): number {
    const ticket = ++this.#lastTicket
    this.machine.handle({ type: 'request', ticket, request }, this.nowMs)
    this.#drain()
    return ticket
  }

  /** The last packet that was sent. */
  get last(): Sent {
    const sent = this.sent.at(-1)
    if (sent === undefined) throw new Error('nothing was sent')
    return sent
  }

  packet(bytes: Uint8Array, { server = 0, socket = 0 } = {}): void {
    this.machine.handle({ type: 'packet', server, socket, bytes }, this.nowMs)
    this.#drain()
  }

  answer(sent: Sent, code: number = RadiusCode['Access-Accept']): void {
    const bytes = answerTo(sent.bytes, () => ({ code }))
    if (bytes !== undefined) this.packet(bytes, sent)
  }

  lose(server: number, socket: number): void {
    this.machine.handle({ type: 'socket-lost', server, socket }, this.nowMs)
    this.#drain()
  }

  /** Lets the time pass, from deadline to deadline. */
  pass(byMs: number): void {
    const endMs = this.nowMs + byMs
    for (;;) {
      const nextMs = this.machine.nextDeadlineMs()
      if (nextMs > endMs) break
      this.nowMs = Math.max(this.nowMs, nextMs)
      this.machine.handle(timeout, this.nowMs)
      this.#drain()
    }
    this.nowMs = endMs
  }

  #drain(): void {
    for (let out = this.machine.poll(); out !== undefined; out = this.machine.poll()) {
      if (out.type === 'transmit') throw new Error('the machine knows sockets')
      const { event } = out
      if (event.type === 'send') this.sent.push(event)
      else if (event.type === 'answer') this.answers.set(event.ticket, event.answer)
      else if (event.type === 'failed') this.failures.set(event.ticket, event.reason)
      else if (event.type === 'dropped') this.drops.push(event.counter)
      else this.news.push(`${event.server} ${event.type}`)
    }
  }
}

t.test('a request is answered, and the answer says who gave it', async t => {
  const bench = new Bench()
  const ticket = bench.ask()
  const request = parseRadiusPacket(bench.last.bytes)
  t.equal(request.attributes[0]?.type, 80, 'Message-Authenticator is first')
  t.equal(textOf(request.attributes, 'User-Name'), 'alice')
  bench.answer(bench.last)
  t.equal(bench.answers.get(ticket)?.server, 'server0')
  t.equal(bench.machine.nextDeadlineMs(), Number.POSITIVE_INFINITY)
})

t.test('a lost request is repeated as it was, then given up in time', async t => {
  const bench = new Bench([{ timeoutMs: 2000, tries: 3 }])
  const ticket = bench.ask()
  bench.pass(5999)
  t.equal(bench.sent.length, 3)
  t.same(bench.sent[2]?.bytes, bench.sent[0]?.bytes, 'same identifier, same authenticator')
  t.equal(bench.failures.size, 0)
  bench.pass(1)
  t.equal(bench.failures.get(ticket), 'no-answer')
  t.same(bench.drops, [])
})

t.test('the next server is asked anew, with a packet under its own secret', async t => {
  const other = Secret.fromText('another secret of the tests')
  const bench = new Bench([{ tries: 1 }, { secret: other, tries: 1 }])
  const request = { ...accessRequest('alice'), password: Secret.fromText('open sesame') }
  const ticket = bench.ask(request)
  bench.pass(2000)
  t.same(
    bench.sent.map(({ server }) => server),
    [0, 1],
  )
  const [first, second] = bench.sent.map(({ bytes }) => parseRadiusPacket(bytes))
  t.notSame(first?.authenticator, second?.authenticator)
  t.notSame(
    bytesOf(first?.attributes ?? [], 'User-Password'),
    bytesOf(second?.attributes ?? [], 'User-Password'),
  )
  const bytes = answerTo(bench.last.bytes, accept, other) ?? new Uint8Array(0)
  bench.packet(bytes, bench.last)
  t.equal(bench.answers.get(ticket)?.server, 'server1')
})

t.test('a Reject is an answer: no other server is asked', async t => {
  const bench = new Bench([{}, {}])
  const ticket = bench.ask()
  bench.answer(bench.last, RadiusCode['Access-Reject'])
  t.equal(bench.answers.get(ticket)?.code, RadiusCode['Access-Reject'])
  bench.pass(20_000)
  t.equal(bench.sent.length, 1)
})

t.test('nothing takes longer than the whole request may', async t => {
  const bench = new Bench([{}, {}, {}, {}], 'access', 5000)
  const ticket = bench.ask()
  bench.pass(1000)
  const second = bench.ask()
  bench.pass(3999)
  t.equal(bench.failures.size, 0)
  bench.pass(1)
  t.equal(bench.failures.get(ticket), 'no-answer', 'in the middle of what one server may take')
  t.notOk(bench.failures.has(second))
  bench.answer(bench.last)
  t.ok(bench.answers.has(second), 'who asked later still waits')
  t.notOk(bench.sent.some(({ server }) => server === 3))
})

t.test('a silent server is left alone, asked whether it lives, and taken back', async t => {
  const bench = new Bench([{ score: 30 }, { score: 20 }])
  for (let i = 0; i < 2; i++) {
    bench.ask()
    bench.pass(4000)
    bench.answer(bench.last)
  }
  t.same(bench.news, ['server0 server-dead'])
  bench.ask()
  t.equal(bench.last.server, 1, 'the dead one is not asked')
  bench.answer(bench.last)
  bench.pass(5000)
  const probe = bench.last
  t.equal(probe.server, 0)
  const status = parseRadiusPacket(probe.bytes)
  t.equal(status.code, RadiusCode['Status-Server'])
  t.equal(textOf(status.attributes, 'NAS-Identifier'), 'vpn.test')
  bench.answer(probe)
  t.same(bench.news, ['server0 server-dead', 'server0 server-alive'])
  for (let i = 0; i < 12; i++) {
    bench.ask()
    bench.answer(bench.last)
  }
  const [first, second] = bench.machine.status(bench.nowMs)
  t.ok((first?.score ?? 0) <= 30 && (second?.score ?? 0) <= 20, 'no score grows past its start')
})

t.test('when nobody lives the best of the dead is asked all the same', async t => {
  const bench = new Bench([{ deadTimeMs: 600_000, isProbed: false }])
  for (let i = 0; i < 2; i++) {
    bench.ask()
    bench.pass(4000)
  }
  t.same(bench.news, ['server0 server-dead'])
  const ticket = bench.ask()
  bench.answer(bench.last)
  t.ok(bench.answers.has(ticket))
  t.same(bench.news, ['server0 server-dead', 'server0 server-alive'])
})

t.test(
  'more than 256 requests are in flight over several ports, and no more than 4,096',
  async t => {
    const bench = new Bench()
    for (let i = 0; i < 4096; i++) bench.ask()
    t.equal(new Set(bench.sent.map(({ socket }) => socket)).size, 16)
    t.equal(
      new Set(bench.sent.map(({ socket, bytes }) => socket * 256 + (bytes[1] ?? 0))).size,
      4096,
    )
    const ticket = bench.ask()
    t.equal(bench.failures.get(ticket), 'too-many')
    for (const sent of [...bench.sent].reverse()) bench.answer(sent)
    t.equal(bench.answers.size, 4096)
    t.same(
      bench.machine.status(0).map(({ inFlight }) => inFlight),
      [0],
    )
  },
)

t.test('what is not an answer to what was asked is dropped under its own name', async t => {
  const bench = new Bench()
  const ticket = bench.ask()
  const { bytes } = bench.last
  const { identifier, authenticator } = parseRadiusPacket(bytes)
  const good = answerTo(bytes, accept) ?? new Uint8Array(0)

  bench.packet(good.slice(0, 19))
  const forged = sealResponse(
    { code: 2, identifier, attributes: [] },
    authenticator,
    Secret.fromText('guess'),
  )
  bench.packet(forged ?? new Uint8Array(0))
  // Blast-RADIUS: a good Response Authenticator without Message-Authenticator.
  const blast =
    encodeRadiusPacket({ code: 2, identifier, authenticator, attributes: [] }) ?? new Uint8Array(0)
  blast.set(digest('md5', blast, testSecret.expose()), 4)
  bench.packet(blast)
  const wrongHead = good.map((byte, i) => (i === 5 ? byte ^ 1 : byte))
  bench.packet(wrongHead)
  bench.packet(good.map((byte, i) => (i === 1 ? byte + 9 : byte)))
  bench.packet(good, { socket: 3 })
  const accounting = sealResponse(
    { code: 2, identifier, attributes: [] },
    authenticator,
    testSecret,
  )?.slice()
  t.ok(accounting)
  const challengeless = answerTo(bytes, () => ({ code: RadiusCode['CoA-ACK'] }))
  bench.packet(challengeless ?? new Uint8Array(0))
  t.same(bench.drops, [
    'malformed-truncated',
    'bad-message-authenticator',
    'missing-message-authenticator',
    'bad-authenticator',
    'unasked-answer',
    'unasked-answer',
    'wrong-code',
  ])
  t.equal(bench.answers.size, 0, 'and the request goes on waiting')
  bench.packet(good)
  t.ok(bench.answers.has(ticket))
  bench.packet(good)
  t.equal(bench.drops.at(-1), 'duplicate-answer')
  const late = bench.ask()
  const lateRequest = bench.last
  bench.pass(10_000)
  t.equal(bench.failures.get(late), 'no-answer')
  bench.answer(lateRequest)
  t.equal(bench.drops.at(-1), 'late-answer')
})

t.test('an answer that was recorded is nothing to a later request with its identifier', async t => {
  const bench = new Bench()
  bench.ask()
  const recorded = answerTo(bench.last.bytes, accept) ?? new Uint8Array(0)
  bench.packet(recorded)
  // Identifiers go round and round: the 256th after it has the same.
  for (let i = 0; i < 255; i++) {
    bench.ask()
    bench.answer(bench.last)
  }
  const ticket = bench.ask()
  t.equal(bench.last.bytes[1], recorded[1])
  bench.packet(recorded)
  t.same(bench.drops, ['bad-message-authenticator'])
  t.notOk(bench.answers.has(ticket))
  bench.answer(bench.last)
  t.ok(bench.answers.has(ticket), 'and its own is still taken')
})

t.test('an answer without Message-Authenticator is taken where that was switched on', async t => {
  const bench = new Bench([{ needsMessageAuthenticator: false }])
  const answerWithout = (attributes: AttributeList) => {
    const { identifier, authenticator } = parseRadiusPacket(bench.last.bytes)
    const packet = { code: 2, identifier, authenticator, attributes: attributes.attributes }
    const bytes = encodeRadiusPacket(packet) ?? new Uint8Array(0)
    bytes.set(digest('md5', bytes, testSecret.expose()), 4)
    bench.packet(bytes)
  }
  const plain = bench.ask()
  answerWithout(new AttributeList())
  t.ok(bench.answers.has(plain))
  const eap = bench.ask()
  answerWithout(new AttributeList().bytes('EAP-Message', Uint8Array.of(3, 1, 0, 4)))
  t.notOk(bench.answers.has(eap), 'never with EAP in it (RFC 3579 §3.2)')
  t.same(bench.drops, ['missing-message-authenticator'])
})

t.test('accounting says how long ago it was, and is repeated without change', async t => {
  const bench = new Bench([{}, {}], 'accounting')
  const { attributes } = new AttributeList().u32('Acct-Status-Type', 2)
  bench.ask({ code: 'accounting', attributes, eventMs: bench.nowMs - 7500 })
  t.equal(u32Of(parseRadiusPacket(bench.last.bytes).attributes, 'Acct-Delay-Time'), 7)
  bench.pass(2000)
  t.same(bench.sent[1]?.bytes, bench.sent[0]?.bytes)
  bench.pass(2000)
  t.equal(bench.last.server, 1)
  t.equal(u32Of(parseRadiusPacket(bench.last.bytes).attributes, 'Acct-Delay-Time'), 11)
  bench.answer(bench.last, RadiusCode['Accounting-Response'])
  t.equal(bench.answers.size, 1)
})

function accountingRequest(key?: number): RadiusRequest {
  const { attributes } = new AttributeList().text('Acct-Session-Id', 'one')
  return { code: 'accounting', attributes, eventMs: 1000, ...(key !== undefined && { key }) }
}

t.test('a record that is told again is the same packet, however late', async t => {
  const bench = new Bench([{}], 'accounting')
  bench.ask(accountingRequest(7))
  bench.pass(600_000)
  t.equal(bench.failures.size, 1)
  const before = bench.sent.length
  const ticket = bench.ask(accountingRequest(7))
  const other = bench.ask(accountingRequest(8))
  t.equal(bench.sent.length, before + 2)
  for (const { bytes, socket } of bench.sent.slice(0, before + 1)) {
    t.same([bytes, socket], [bench.sent[0]?.bytes, 0])
  }
  t.not(
    bench.last.bytes[1],
    bench.sent[0]?.bytes[1],
    'its identifier is what nobody else has meanwhile',
  )
  bench.answer(bench.last, RadiusCode['Accounting-Response'])
  t.ok(bench.answers.has(other))
  const [first] = bench.sent
  if (first === undefined) throw new Error('nothing was sent')
  bench.answer(first, RadiusCode['Accounting-Response'])
  t.ok(bench.answers.has(ticket))
  t.equal(bench.machine.status(bench.nowMs)[0]?.inFlight, 0)
})

t.test('an answer between two tries counts for the next, and nothing more is sent', async t => {
  const bench = new Bench([{ score: 30 }, { score: 20 }], 'accounting')
  bench.ask(accountingRequest(7))
  bench.pass(20_000)
  t.equal(bench.failures.size, 1)
  const toSecond = bench.sent.find(({ server }) => server === 1)
  const toFirst = bench.sent.find(({ server }) => server === 0)
  if (toFirst === undefined || toSecond === undefined) throw new Error('not both were asked')
  bench.answer(toSecond, RadiusCode['Accounting-Response'])
  t.equal(bench.answers.size, 0, 'nobody asks')
  const sent = bench.sent.length
  const ticket = bench.ask(accountingRequest(7))
  t.equal(bench.answers.get(ticket)?.server, 'server1')
  t.equal(bench.sent.length, sent)
  bench.answer(toFirst, RadiusCode['Accounting-Response'])
  t.same(bench.drops, ['late-answer'], 'it is settled')
  t.equal(bench.machine.nextDeadlineMs() > bench.nowMs, true)
})

t.test('what one server has confirmed waits at no other', async t => {
  const bench = new Bench([{ score: 30 }, { score: 20 }], 'accounting')
  bench.ask(accountingRequest(7))
  bench.pass(20_000)
  const ticket = bench.ask(accountingRequest(7))
  bench.answer(bench.last, RadiusCode['Accounting-Response'])
  t.ok(bench.answers.has(ticket))
  t.same(
    bench.machine.status(bench.nowMs).map(({ inFlight }) => inFlight),
    [0, 0],
  )
  for (const { bytes, server, socket } of [...bench.sent]) {
    if (server === bench.last.server) continue
    bench.answer({ type: 'send', bytes, server, socket }, RadiusCode['Accounting-Response'])
  }
  t.ok(bench.drops.length > 0 && bench.drops.every(name => name === 'late-answer'))
})

t.test('packets that are kept leave identifiers for others', async t => {
  const bench = new Bench([{}], 'accounting')
  for (let key = 0; key < 1500; key++) bench.ask(accountingRequest(key))
  bench.pass(20_000)
  t.equal(bench.failures.size, 1500)
  const sockets = new Set<number>()
  for (let key = 2000; key < 5000; key++) {
    bench.ask(accountingRequest(key))
    sockets.add(bench.last.socket)
  }
  t.equal(bench.failures.size, 1500, 'all of them found one')
  t.ok(Math.max(...sockets) < 16)
})

t.test('a connection that breaks hands its requests to the next server at once', async t => {
  const bench = new Bench([{ isReliable: true }, {}])
  bench.ask()
  bench.pass(3000)
  t.equal(bench.sent.length, 1, 'nothing is repeated on a stream')
  bench.lose(0, 0)
  t.equal(bench.last.server, 1)
  bench.answer(bench.last)
  t.equal(bench.answers.size, 1)
})

t.test('a password that is too long and a packet that is too large fail alone', async t => {
  const bench = new Bench()
  const long = bench.ask({ ...accessRequest('a'), password: Secret.fromText('x'.repeat(129)) })
  const { attributes } = new AttributeList().split('EAP-Message', new Uint8Array(5000))
  const large = bench.ask({ code: 'access', attributes })
  t.equal(bench.failures.get(long), 'oversize')
  t.equal(bench.failures.get(large), 'oversize')
  t.equal(bench.machine.status(0)[0]?.inFlight, 0)
})

t.test('arbitrary packets, losses and times never throw and never hang a request', async t => {
  const step = fc.oneof(
    fc.record({ do: fc.constant('ask' as const) }),
    fc.record({ do: fc.constant('pass' as const), ms: fc.nat(5000) }),
    fc.record({ do: fc.constant('junk' as const), bytes: fc.uint8Array({ maxLength: 60 }) }),
    fc.record({ do: fc.constant('answer' as const), which: fc.nat(30) }),
    fc.record({ do: fc.constant('lose' as const), server: fc.nat(2) }),
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), steps => {
      const bench = new Bench([{}, { isReliable: true }])
      let asked = 0
      for (const one of steps) {
        if (one.do === 'ask') asked = bench.ask()
        else if (one.do === 'pass') bench.pass(one.ms)
        else if (one.do === 'junk') bench.packet(one.bytes)
        else if (one.do === 'lose') bench.lose(one.server, 0)
        else {
          const sent = bench.sent[one.which]
          if (sent !== undefined) bench.answer(sent)
        }
      }
      bench.pass(30_000)
      t.equal(bench.answers.size + bench.failures.size, asked)
    }),
    { seed: 20261121, numRuns: 200 },
  )
})

// On sockets

function realClient(servers: ConstructorParameters<typeof RadiusClient>[0]['servers']) {
  const wheel = new TimerWheel(systemClock.nowMs())
  wheel.start(systemClock)
  const client = new RadiusClient({
    servers,
    purpose: 'access',
    totalMs: 9000,
    identity: [],
    clock: systemClock,
    wheel,
    random: new SeededRandom(3),
    log: silentLogger,
  })
  return {
    client,
    close: () => {
      client.close()
      wheel.stop()
    },
  }
}

t.test('over UDP 300 requests at a time are answered from two ports', async t => {
  const server = await TestRadiusServer.open(accept)
  const { client, close } = realClient([server.endpoint({ timeoutMs: 200, tries: 20 })])
  t.teardown(() => {
    close()
    server.close()
  })
  const answers = await Promise.all(
    Array.from({ length: 300 }, (_, i) => client.request(accessRequest(`user${i}`))),
  )
  t.ok(answers.every(answer => answer?.code === 2))
  t.equal(server.ports.size, 2)
  t.equal(server.fault, undefined)
})

t.test('a refusal is known within the configured time, wherever the wheel stands', async t => {
  const server = await TestRadiusServer.open(() => undefined)
  t.teardown(() => server.close())
  const tickMs = 50
  for (const phaseMs of [0, 1, 24, 49]) {
    for (const startMs of [1000, 1001, 1025, 1049]) {
      const clock = new ManualClock(startMs)
      const wheel = new TimerWheel(startMs, { tickMs })
      const client = new RadiusClient({
        servers: [server.endpoint({ timeoutMs: 2000, tries: 2 })],
        purpose: 'access',
        totalMs: 3000,
        identity: [],
        ...{ clock, wheel, random: new SeededRandom(3), log: silentLogger },
      })
      let refusedMs: number | undefined
      const asked = client.request(accessRequest('alice')).then(answer => {
        t.equal(answer, undefined)
        refusedMs = clock.nowMs() - startMs
      })
      // As the interval of a started wheel would, with its beat anywhere between two ticks.
      for (let nowMs = 1050 + phaseMs; nowMs < startMs + 3100; nowMs += tickMs) {
        clock.set(nowMs)
        wheel.advance(nowMs)
        await Promise.resolve()
        await Promise.resolve()
      }
      client.close()
      await asked
      t.ok(refusedMs !== undefined && refusedMs <= 3000, `refused after ${refusedMs} ms`)
      t.ok((refusedMs ?? 0) > 2800, 'and not long before')
    }
  }
})

t.test('a packet from another port is dropped and counted', async t => {
  const stranger = createSocket('udp4')
  stranger.bind(0, '127.0.0.1')
  await once(stranger, 'listening')
  const server = await TestRadiusServer.open(() => undefined)
  const { client, close } = realClient([server.endpoint()])
  t.teardown(() => {
    close()
    stranger.close()
    server.close()
  })
  const answer = client.request(accessRequest('alice'))
  await eventually(
    () => server.requests.length > 0,
    () => 'no request',
  )
  const [port = 0] = server.ports
  stranger.send(Uint8Array.of(2, 0, 0, 20), port, '127.0.0.1')
  await eventually(
    () => client.counters.get('other-source') === 1,
    () => JSON.stringify(client.counters),
  )
  close()
  t.equal(await answer, undefined, 'closing tells who waits')
  t.equal(await client.request(accessRequest('late')), undefined)
})

const serverPair = ecdsaCertificate()
const clientPair = ecdsaCertificate()

async function radsecServer(): Promise<{ server: Server; port: number; protocols: string[] }> {
  const protocols: string[] = []
  const server = createServer(
    {
      cert: serverPair.cert,
      key: serverPair.key.exposeText(),
      ca: clientPair.cert,
      requestCert: true,
      rejectUnauthorized: true,
    },
    socket => {
      protocols.push(socket.getProtocol() ?? '')
      let buffered = Buffer.alloc(0)
      socket.on('error', () => undefined)
      socket.on('data', chunk => {
        buffered = Buffer.concat([buffered, chunk])
        while (buffered.length >= 4 && buffered.length >= buffered.readUInt16BE(2)) {
          const length = buffered.readUInt16BE(2)
          const request = buffered.subarray(0, length)
          buffered = buffered.subarray(length)
          const name = textOf(parseRadiusPacket(request).attributes, 'User-Name')
          if (name === 'hang-up') socket.destroy()
          else if (name === 'garbage') socket.write(Uint8Array.of(2, 0, 0, 3))
          else {
            const answer = answerTo(request, accept, Secret.fromText('radsec'))
            // In two parts: a packet may come in pieces.
            socket.write((answer ?? new Uint8Array(0)).slice(0, 7))
            socket.write((answer ?? new Uint8Array(0)).slice(7))
          }
        }
      })
    },
  )
  server.on('tlsClientError', () => undefined)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  return { server, port: typeof address === 'object' ? (address?.port ?? 0) : 0, protocols }
}

t.test('RadSec: TLS 1.3 with certificates on both sides', async t => {
  const { server, port, protocols } = await radsecServer()
  const radsec = {
    authority: serverPair.cert,
    certificate: clientPair.cert,
    key: clientPair.key.exposeText(),
    serverName: 'localhost',
  }
  const endpoint = {
    ...serverSettings,
    address: '127.0.0.1',
    port,
    secret: Secret.fromText('radsec'),
    radsec,
  }
  const { client, close } = realClient([endpoint])
  const wrongName = realClient([{ ...endpoint, radsec: { ...radsec, serverName: 'other.test' } }])
  const stranger = realClient([
    {
      ...endpoint,
      radsec: { ...radsec, certificate: serverPair.cert, key: serverPair.key.exposeText() },
    },
  ])
  t.teardown(() => {
    close()
    wrongName.close()
    stranger.close()
    server.close()
  })
  const answers = await Promise.all(
    Array.from({ length: 300 }, (_, i) => client.request(accessRequest(`user${i}`))),
  )
  t.ok(answers.every(answer => answer?.code === 2))
  t.same([...new Set(protocols)], ['TLSv1.3'])
  t.equal(protocols.length, 2, 'a second connection for more than 256')
  t.equal(await client.request(accessRequest('hang-up')), undefined)
  t.equal((await client.request(accessRequest('again')))?.code, 2, 'it is opened again')
  t.equal(await client.request(accessRequest('garbage')), undefined)
  t.ok(client.counters.get('connection-lost') >= 2)
  t.equal(await wrongName.client.request(accessRequest('a')), undefined, 'a server of another name')
  t.equal(await stranger.client.request(accessRequest('a')), undefined, 'a client of nobody')
})
