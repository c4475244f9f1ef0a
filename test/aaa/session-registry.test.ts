import { pino } from 'pino'
import t from 'tap'
import type { Session, SessionUsage } from '../../lib/aaa/session.ts'
import {
  isRefusal,
  type SessionEvent,
  type SessionLimits,
  SessionRegistry,
  terminateCause,
} from '../../lib/aaa/session-registry.ts'
import { ManualClock } from '../../lib/core/clock.ts'
import type { DisconnectCause } from '../../lib/core/disconnect-cause.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { TimerWheel } from '../../lib/core/timers.ts'

const none = Number.POSITIVE_INFINITY
const noLimits: SessionLimits = {
  sessions: none,
  sessionsPerUser: none,
  sessionsPerSource: none,
  sessionsPerProtocol: new Map(),
  idleTimeoutMs: none,
  sessionTimeoutMs: none,
}

class Rig {
  readonly clock = new ManualClock(5000)
  readonly wheel = new TimerWheel(5000)
  readonly lines: Record<string, unknown>[] = []
  readonly events: SessionEvent[] = []
  readonly closed: [number, DisconnectCause][] = []
  readonly usage: { -readonly [Key in keyof SessionUsage]: SessionUsage[Key] } = {
    receivedPackets: 0,
    receivedBytes: 0,
    sentPackets: 0,
    sentBytes: 0,
    lastActiveMs: 0,
  }
  readonly registry: SessionRegistry
  /** Whether a tunnel that is asked to close does so at once. */
  closesAtOnce = true

  constructor(limits: Partial<SessionLimits> = {}) {
    this.registry = new SessionRegistry({
      limits: { ...noLimits, ...limits },
      clock: this.clock,
      wheel: this.wheel,
      wallClock: { now: () => new Date('2026-06-01T12:00:00Z') },
      random: new SeededRandom(3),
      log: pino(
        { base: null, timestamp: false },
        { write: line => this.lines.push(JSON.parse(line)) },
      ),
    })
    this.registry.observe(event => this.events.push(event))
  }

  call(protocol = 'sstp', peerAddress = '192.0.2.1') {
    let session: Session | undefined
    const answer = this.registry.admit({
      protocol,
      peerAddress,
      peerLabel: `${peerAddress}:5000`,
      close: cause => {
        this.closed.push([session?.number ?? 0, cause])
        if (this.closesAtOnce) session?.end('user-request')
      },
    })
    if (!isRefusal(answer)) session = answer
    return answer
  }

  admit(protocol?: string, peerAddress?: string): Session {
    const answer = this.call(protocol, peerAddress)
    if (isRefusal(answer)) throw new Error(answer.reason)
    return answer
  }

  up(userName = 'alice', extra: object = {}): Session {
    const session = this.admit()
    session.authorize({ userName, ...extra })
    session.up({ ipv4: 0x0a570002 }, () => this.usage)
    return session
  }

  advance(byMs: number): void {
    this.clock.advance(byMs)
    this.wheel.advance(this.clock.nowMs())
  }

  logged(event: string) {
    return this.lines.filter(({ event: name }) => name === event)
  }
}

t.test('a session is one line up and one accounting line down', async t => {
  const rig = new Rig()
  const session = rig.up()
  const prefix = new Uint8Array(16)
  prefix.set([0xfd, 0, 0, 1])
  session.addAddresses({ ipv6: { address: prefix, prefixLength: 64 } })
  Object.assign(rig.usage, {
    receivedPackets: 3,
    receivedBytes: 300,
    sentPackets: 2,
    sentBytes: 200,
  })
  rig.advance(90_500)
  t.match(rig.registry.list(), [
    {
      id: session.id,
      number: 1,
      state: 'up',
      protocol: 'sstp',
      peer: '192.0.2.1:5000',
      userName: 'alice',
      ipv4: '10.87.0.2',
      ipv6: 'fd00:1::/64',
      since: new Date('2026-06-01T12:00:00Z'),
      durationSeconds: 90,
      idleSeconds: 90,
    },
  ])
  session.end('user-request')
  t.match(rig.lines, [
    {
      event: 'session-up',
      sessionId: session.id,
      proto: 'sstp',
      peer: '192.0.2.1:5000',
      user: 'alice',
      ipv4: '10.87.0.2',
    },
    {
      event: 'session-down',
      sessionId: session.id,
      user: 'alice',
      ipv6: 'fd00:1::/64',
      durationSeconds: 90,
      receivedPackets: 3,
      receivedBytes: 300,
      sentPackets: 2,
      sentBytes: 200,
      cause: 'user-request',
    },
  ])
  t.equal(rig.lines.length, 2)
  t.match(rig.events, [
    { type: 'up', session: { userName: 'alice' } },
    { type: 'down', cause: 'user-request', session: { state: 'ended', sentBytes: 200 } },
  ])
  t.equal(rig.registry.size, 0)
  t.equal(rig.wheel.size, 0)
})

t.test('the first cause counts, and a second end is ignored', async t => {
  const rig = new Rig()
  const session = rig.up()
  t.equal(rig.registry.disconnect('ALICE'), 1)
  session.end('lost-carrier')
  t.notOk(session.disconnect('nas-reboot'))
  t.match(rig.logged('session-down'), [{ cause: 'admin-reset' }])
  t.equal(rig.logged('session-down').length, 1)
  t.equal(rig.events.length, 2)
  t.same(rig.closed, [[1, 'admin-reset']])
  session.up({}, () => rig.usage)
  t.equal(session.authorize({ userName: 'x' }), undefined)
  t.equal(session.state, 'ended')
})

t.test('a call that never came up is a failed call, not a session', async t => {
  const rig = new Rig()
  const session = rig.admit()
  session.end('authentication-failed')
  t.match(rig.lines, [{ event: 'call-failed', cause: 'authentication-failed' }])
  t.equal(rig.events.length, 0)
  t.equal(rig.registry.size, 0)
})

t.test(
  'there is a limit in all, per protocol, per source and per user, and an end gives back',
  async t => {
    const rig = new Rig({
      sessions: 4,
      sessionsPerSource: 2,
      sessionsPerProtocol: new Map([['l2tp', 1]]),
      sessionsPerUser: 1,
    })
    const first = rig.admit('sstp', '::ffff:192.0.2.1')
    const second = rig.admit('sstp', '192.0.2.1')
    t.match(rig.call(), { cause: 'session-limit', reason: 'limits.perSource: 2 from 192.0.2.1' })
    const third = rig.admit('l2tp', '192.0.2.2')
    t.match(rig.call('l2tp', '192.0.2.3'), { reason: 'limits.perProtocol.l2tp: 1' })
    const fourth = rig.admit('sstp', '192.0.2.3')
    t.match(rig.call('sstp', '192.0.2.4'), { reason: 'limits.sessions: 4' })
    t.equal(rig.logged('call-refused').length, 3)

    t.equal(first.authorize({ userName: 'alice' }), undefined)
    t.match(second.authorize({ userName: 'ALICE' }), { cause: 'session-limit' })
    t.equal(third.authorize({ userName: 'alice', maxSessions: 2 }), undefined, 'a limit of its own')
    t.equal(rig.registry.countOf('Alice'), 2)
    second.end('session-limit')
    first.end('user-request')
    t.equal(rig.registry.countOf('alice'), 1)
    third.end('user-request')
    t.equal(fourth.authorize({ userName: 'alice' }), undefined)
    fourth.end('user-request')
    t.equal(rig.registry.countOf('alice'), 0)
    rig.admit('l2tp', '192.0.2.1')
    rig.admit('sstp', '192.0.2.1')
    rig.registry.setLimits({ ...noLimits, sessions: 2 })
    t.match(rig.call(), { reason: 'limits.sessions: 2' })
  },
)

t.test('an idle session is ended, packets keep it, and only then is it looked at', async t => {
  const rig = new Rig({ idleTimeoutMs: 60_000 })
  const session = rig.up()
  rig.advance(50_000)
  rig.usage.lastActiveMs = rig.clock.nowMs()
  rig.advance(59_000)
  t.equal(session.state, 'up')
  t.equal(session.status().idleSeconds, 59)
  rig.advance(1050)
  t.match(rig.logged('session-down'), [{ cause: 'idle-timeout' }])
})

t.test(
  'a session ends when its time is over, its own limits before those of the server',
  async t => {
    const rig = new Rig({ idleTimeoutMs: 10_000, sessionTimeoutMs: 3_600_000 })
    const plain = rig.up()
    const own = rig.up('bob', { idleTimeoutSeconds: 0, sessionTimeoutSeconds: 20 })
    rig.advance(10_100)
    t.equal(plain.state, 'ended')
    t.equal(own.state, 'up')
    rig.advance(10_000)
    t.equal(own.state, 'ended')
    t.match(rig.logged('session-down'), [{ cause: 'idle-timeout' }, { cause: 'session-timeout' }])
  },
)

t.test(
  'a tunnel that does not close in time is given up, with the cause that was asked for',
  async t => {
    const rig = new Rig()
    rig.closesAtOnce = false
    const session = rig.up()
    t.ok(session.disconnect('admin-reset'))
    t.equal(session.state, 'closing')
    t.equal(rig.registry.size, 1)
    rig.advance(10_100)
    t.equal(rig.registry.size, 0)
    t.match(rig.logged('session-down'), [{ cause: 'admin-reset' }])
  },
)

t.test('sessions are found by id, by number and by user', async t => {
  const rig = new Rig()
  const one = rig.up('alice')
  const two = rig.up('Alice')
  const three = rig.up('2')
  t.same(rig.registry.find(one.id), [one])
  t.same(rig.registry.find('1'), [one])
  t.same(rig.registry.find('alice'), [one, two])
  t.same(rig.registry.find('2'), [two, three], 'a number and a name')
  t.same(rig.registry.find('nobody'), [])
  t.equal(rig.registry.disconnect('nobody'), 0)
  t.equal(new Set([one.id, two.id, three.id]).size, 3)
  t.match(one.id, /^[0-9a-f]{24}$/)
  t.equal(rig.registry.upCount, 3)
  rig.registry.drain()
  t.match(rig.call(), { cause: 'nas-reboot' })
  t.equal(rig.registry.disconnectAll('nas-reboot'), 3)
  t.equal(rig.registry.size, 0)
})

t.test('an observer that leaves hears nothing more', async t => {
  const rig = new Rig()
  const heard: string[] = []
  const leave = rig.registry.observe(event => heard.push(event.type))
  rig.up().end('user-request')
  leave()
  rig.up().end('user-request')
  t.same(heard, ['up', 'down'])
  t.equal(terminateCause('idle-timeout'), 4)
})
