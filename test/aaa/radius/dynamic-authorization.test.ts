import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import fc from 'fast-check'
import t from 'tap'
import { checkResponse, sealDynamicRequest } from '../../../lib/aaa/radius/authenticity.ts'
import {
  DynamicAuthorization,
  type DynamicClient,
} from '../../../lib/aaa/radius/dynamic-authorization.ts'
import { DynamicAuthorizationListener } from '../../../lib/aaa/radius/dynamic-authorization-listener.ts'
import { AttributeList, bytesOf, u32Of } from '../../../lib/aaa/radius/wire/attributes.ts'
import { parseRadiusPacket, RadiusCode } from '../../../lib/aaa/radius/wire/packet.ts'
import type { Session } from '../../../lib/aaa/session.ts'
import { isRefusal, SessionRegistry } from '../../../lib/aaa/session-registry.ts'
import { ManualClock } from '../../../lib/core/clock.ts'
import { parseIpv4Network } from '../../../lib/core/ip-address.ts'
import { silentLogger } from '../../../lib/core/log.ts'
import { SeededRandom } from '../../../lib/core/random.ts'
import { Secret } from '../../../lib/core/secret.ts'
import { TimerWheel } from '../../../lib/core/timers.ts'
import { testSecret } from './radius-server.ts'

const epochMs = Date.UTC(2026, 10, 21)
const { 'Disconnect-Request': disconnect, 'CoA-Request': coa } = RadiusCode
const network = {
  family: 4,
  ...(parseIpv4Network('192.0.2.0/24') ?? { address: 0, prefixLength: 32 }),
} as const

class World {
  readonly clock = new ManualClock(0)
  readonly wheel = new TimerWheel(0)
  readonly sessions: SessionRegistry
  readonly judge: DynamicAuthorization
  #identifier = 0

  constructor(client: Partial<DynamicClient> = {}) {
    const none = Number.POSITIVE_INFINITY
    const wallClock = { now: () => new Date(epochMs + this.clock.nowMs()) }
    this.sessions = new SessionRegistry({
      limits: {
        sessions: none,
        sessionsPerUser: none,
        sessionsPerSource: none,
        sessionsPerProtocol: new Map(),
        idleTimeoutMs: none,
        sessionTimeoutMs: none,
      },
      clock: this.clock,
      wheel: this.wheel,
      wallClock,
      random: new SeededRandom(11),
      log: silentLogger,
    })
    this.judge = new DynamicAuthorization({
      clients: [
        {
          network,
          secret: testSecret,
          needsMessageAuthenticator: true,
          needsEventTimestamp: true,
          ...client,
        },
      ],
      sessions: this.sessions,
      nas: { name: 'vpn.test', address: '192.0.2.1' },
      clock: this.clock,
      wallClock,
      log: silentLogger,
    })
  }

  dial(userName: string, ipv4: number): Session {
    const admitted = this.sessions.admit({
      protocol: 'sstp',
      peerAddress: '198.51.100.7',
      peerLabel: '198.51.100.7:1',
      close: cause => session.end(cause),
    })
    if (isRefusal(admitted)) throw new Error(admitted.reason)
    const session = admitted
    session.authorize({ userName })
    session.up({ ipv4 }, () => ({
      receivedPackets: 0,
      receivedBytes: 0,
      sentPackets: 0,
      sentBytes: 0,
      lastActiveMs: this.clock.nowMs(),
    }))
    return session
  }

  get nowSeconds(): number {
    return Math.floor((epochMs + this.clock.nowMs()) / 1000)
  }

  seal(code: number, list: AttributeList, secret = testSecret): Uint8Array {
    const identifier = this.#identifier++ & 0xff
    const { attributes } = list
    return sealDynamicRequest({ code, identifier, attributes }, secret) ?? new Uint8Array(0)
  }

  /** `ack`, the Error-Cause, or `silence`. */
  ask(code: number, list: AttributeList, from = '192.0.2.9'): string | number {
    return this.say(this.seal(code, list.u32('Event-Timestamp', this.nowSeconds)), from)
  }

  say(bytes: Uint8Array, from = '192.0.2.9'): string | number {
    const answer = this.judge.answer(bytes, from)
    if (answer === undefined) return 'silence'
    const request = parseRadiusPacket(bytes)
    const disbelief = checkResponse(answer, request.authenticator, testSecret, true)
    if (disbelief !== undefined) throw new Error(disbelief)
    const packet = parseRadiusPacket(answer)
    if (packet.identifier !== request.identifier) throw new Error('another identifier')
    const isAck = packet.code === request.code + 1
    return isAck ? 'ack' : (u32Of(packet.attributes, 'Error-Cause') ?? 'no cause')
  }
}

const list = () => new AttributeList()

t.test('a session is ended by whatever names it alone', async t => {
  const world = new World()
  const naming: ((session: Session) => AttributeList)[] = [
    ({ id }) => list().text('Acct-Session-Id', id),
    () => list().text('User-Name', 'ALICE'),
    () => list().ipv4('Framed-IP-Address', 0x0a00_0001),
    ({ number }) => list().u32('NAS-Port', number),
    ({ id }) =>
      list()
        .text('Acct-Session-Id', id)
        .text('User-Name', 'alice')
        .text('NAS-Identifier', 'vpn.test'),
  ]
  for (const name of naming) {
    const alice = world.dial('alice', 0x0a00_0001)
    const bob = world.dial('bob', 0x0a00_0002)
    t.equal(world.ask(disconnect, name(alice)), 'ack')
    t.equal(alice.state, 'ended')
    t.equal(bob.state, 'up')
    bob.end('user-request')
  }
})

t.test('a bundle is ended by the name of all its links', async t => {
  const world = new World()
  const alice = world.dial('alice', 1)
  const named = () => list().text('Acct-Multi-Session-Id', alice.id)
  t.equal(world.ask(disconnect, named()), 503, 'it is no bundle')
  alice.lead()
  t.equal(world.ask(disconnect, named().text('Acct-Session-Id', 'other')), 503)
  t.equal(world.ask(disconnect, named()), 'ack')
  t.equal(alice.state, 'ended')
})

t.test('what names no session, or more than one, is refused with its cause', async t => {
  const world = new World()
  const alice = world.dial('alice', 1)
  world.dial('alice', 2)
  t.equal(world.ask(disconnect, list().text('User-Name', 'alice')), 508)
  t.equal(world.ask(disconnect, list().text('Calling-Station-Id', '198.51.100.7')), 508)
  t.equal(world.ask(disconnect, list().text('User-Name', 'carol')), 503)
  t.equal(
    world.ask(disconnect, list().text('Acct-Session-Id', alice.id).text('User-Name', 'bob')),
    503,
    'all that is said must be true',
  )
  t.equal(world.ask(disconnect, list()), 402)
  t.equal(world.ask(disconnect, list().text('User-Name', 'a').u32('Session-Timeout', 1)), 401)
  t.equal(world.ask(disconnect, list().text('User-Name', 'a').u32('Service-Type', 17)), 405)
  const other = list().text('Acct-Session-Id', alice.id).text('NAS-Identifier', 'elsewhere')
  t.equal(world.ask(disconnect, other), 403)
  const elsewhere = list().text('Acct-Session-Id', alice.id).ipv4('NAS-IP-Address', 7)
  t.equal(world.ask(disconnect, elsewhere), 403)
  t.equal(world.sessions.upCount, 2)
})

t.test('a change takes hold of the live session', async t => {
  const world = new World()
  const alice = world.dial('alice', 1)
  const change = list()
    .text('Acct-Session-Id', alice.id)
    .u32('Session-Timeout', 120)
    .u32('Idle-Timeout', 60)
    .u32('Acct-Interim-Interval', 5)
    .text('MikroTik-Rate-Limit', '1M/2M')
    .text('Framed-Route', '192.168.5.0/24')
    .text('NAS-Filter-Rule', 'permit in ip from any to any')
  t.equal(world.ask(coa, change), 'ack')
  t.match(alice.authorization, {
    sessionTimeoutSeconds: 120,
    idleTimeoutSeconds: 60,
    interimIntervalSeconds: 60,
    receiveBitsPerSecond: 1e6,
    sendBitsPerSecond: 2e6,
    ipv4Routes: [{ prefixLength: 24 }],
    filterRules: ['permit in ip from any to any'],
  })
  world.clock.advance(130_000)
  world.wheel.advance(world.clock.nowMs())
  t.equal(alice.state, 'ended', 'the new timeout counts')
  const bob = world.dial('bob', 2)
  const naming = () => list().text('Acct-Session-Id', bob.id)
  t.equal(world.ask(coa, naming()), 402, 'nothing to change')
  t.equal(world.ask(coa, naming().text('Filter-Id', 'no-such-filter')), 407)
  t.equal(world.ask(coa, naming().u32('Port-Limit', 1)), 401)
})

t.test('strangers, forgeries and stale requests are not answered', async t => {
  const world = new World()
  const alice = world.dial('alice', 1)
  const naming = () => list().text('Acct-Session-Id', alice.id)
  t.equal(world.ask(disconnect, naming(), '198.51.100.1'), 'silence')
  t.equal(world.ask(disconnect, naming(), '2001:db8::1'), 'silence')
  t.equal(world.say(world.seal(disconnect, naming(), Secret.fromText('guess'))), 'silence')
  t.equal(world.say(world.seal(disconnect, naming())), 'silence')
  const old = naming().u32('Event-Timestamp', world.nowSeconds - 301)
  t.equal(world.say(world.seal(disconnect, old)), 'silence')
  const early = naming().u32('Event-Timestamp', world.nowSeconds + 301)
  t.equal(world.say(world.seal(disconnect, early)), 'silence')
  t.equal(world.say(world.seal(RadiusCode['Access-Request'], naming())), 'silence')
  t.equal(world.say(new Uint8Array(20)), 'silence')
  t.equal(alice.state, 'up')
  t.same(world.judge.counters.toJSON(), {
    'bad-message-authenticator': 1,
    'malformed-length-too-small': 1,
    'missing-event-timestamp': 1,
    stale: 2,
    'unknown-client': 2,
    'wrong-code': 1,
  })
  const lax = new World({ needsEventTimestamp: false })
  const bob = lax.dial('bob', 1)
  t.equal(
    lax.say(lax.seal(disconnect, list().text('Acct-Session-Id', bob.id)), '::ffff:192.0.2.9'),
    'ack',
  )
})

t.test('the same request again gets the same answer and does nothing', async t => {
  const world = new World()
  world.dial('alice', 1)
  const naming = list().text('User-Name', 'alice').u32('Event-Timestamp', world.nowSeconds)
  const bytes = world.seal(disconnect, naming.bytes('Proxy-State', Uint8Array.of(9)))
  const first = world.judge.answer(bytes, '192.0.2.9') ?? new Uint8Array(0)
  t.same(bytesOf(parseRadiusPacket(first).attributes, 'Proxy-State'), Uint8Array.of(9))
  const again = world.dial('alice', 1)
  t.same(world.judge.answer(bytes, '192.0.2.9'), first)
  t.equal(again.state, 'up', 'a replay ends no other session')
  world.clock.advance(600_001)
  t.equal(world.judge.answer(bytes, '192.0.2.9'), undefined, 'later its time is over')
  t.equal(again.state, 'up')
})

t.test('arbitrary packets never throw', async t => {
  const world = new World()
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), bytes => {
      t.equal(world.say(bytes), 'silence')
    }),
    { seed: 20261121, numRuns: 500 },
  )
})

t.test('over UDP', async t => {
  const loopback = { family: 4, address: 0x7f00_0001, prefixLength: 32 } as const
  const world = new World({ network: loopback })
  const listener = new DynamicAuthorizationListener(world.judge)
  await listener.start(['127.0.0.1'], 0)
  const socket = createSocket('udp4')
  t.teardown(() => {
    listener.stop()
    socket.close()
  })
  const alice = world.dial('alice', 1)
  const naming = list().text('Acct-Session-Id', alice.id).u32('Event-Timestamp', world.nowSeconds)
  socket.send(world.seal(disconnect, naming), listener.port, '127.0.0.1')
  const [answer]: Uint8Array[] = await once(socket, 'message')
  t.equal(answer?.[0], RadiusCode['Disconnect-ACK'])
  t.equal(alice.state, 'ended')
  const taken = new DynamicAuthorizationListener(world.judge)
  await t.rejects(taken.start(['127.0.0.1'], listener.port), { code: 'ERR_BIND' })
})
