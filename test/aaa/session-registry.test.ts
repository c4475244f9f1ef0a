import { pino } from 'pino'
import t from 'tap'
import { FilterCatalogue } from '../../lib/aaa/filter-catalogue.ts'
import { AccessPolicies } from '../../lib/aaa/policy/access-policies.ts'
import type { Session, SessionUsage } from '../../lib/aaa/session.ts'
import {
  isRefusal,
  type SessionEvent,
  type SessionLimits,
  SessionRegistry,
  terminateCause,
} from '../../lib/aaa/session-registry.ts'
import { parseConfig } from '../../lib/config.ts'
import { ManualClock } from '../../lib/core/clock.ts'
import type { DisconnectCause } from '../../lib/core/disconnect-cause.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { TimerWheel } from '../../lib/core/timers.ts'
import type { Port, RateLimits } from '../../lib/dataplane/index.ts'

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
  today = new Date('2026-06-01T12:00:00Z')
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
      wallClock: { now: () => this.today },
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
  'clocks that jump: the wall clock ends nothing, time that was slept counts once',
  async t => {
    const rig = new Rig()
    const session = rig.up('alice', { sessionTimeoutSeconds: 3600 })
    for (const jump of ['2031-01-01T00:00:00Z', '1970-01-01T00:00:00Z', '2026-06-01T12:00:00Z']) {
      rig.today = new Date(jump)
      rig.advance(60_000)
      t.equal(session.state, 'up', jump)
    }
    t.equal(session.status().durationSeconds, 180)
    // The machine slept across both limits: one end, with the cause that comes first.
    const both = rig.up('bob', { sessionTimeoutSeconds: 3600, idleTimeoutSeconds: 60 })
    rig.advance(86_400_000)
    t.equal(session.state, 'ended')
    t.equal(both.state, 'ended')
    t.match(rig.logged('session-down'), [
      { cause: 'session-timeout' },
      { cause: 'session-timeout' },
    ])
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

/** Notes what a session's port is told. */
class NotedPort implements Port {
  readonly routes = new Set<string>()
  readonly counters = { ...unusedCounters }
  isAttached = true
  limits: readonly [number | undefined, RateLimits | undefined] = [undefined, undefined]

  addIpv4(): void {}

  addIpv6(prefix: Uint8Array, prefixLength: number): void {
    this.routes.add(`${prefix[0]}/${prefixLength}`)
  }

  addIpv4Network(address: number, prefixLength: number): void {
    this.routes.add(`${address >>> 24}/${prefixLength}`)
  }

  removeIpv4Network(address: number, prefixLength: number): boolean {
    return this.routes.delete(`${address >>> 24}/${prefixLength}`)
  }

  removeIpv6(prefix: Uint8Array, prefixLength: number): boolean {
    return this.routes.delete(`${prefix[0]}/${prefixLength}`)
  }

  limit(...[filter, rates]: Parameters<Port['limit']>): void {
    this.limits = [filter?.ruleCount, rates]
  }

  deliver(): void {}

  transmit(): void {}

  detach(): void {
    this.isAttached = false
  }
}

const unusedCounters = {
  receivedPackets: 0,
  receivedBytes: 0,
  sentPackets: 0,
  sentBytes: 0,
  droppedPackets: 0,
  lastActiveMs: 0,
}

function withPolicies(rig: Rig, text: string): void {
  const { policies, filters } = parseConfig(text, 'x')
  rig.registry.setPolicies(new AccessPolicies(policies), new FilterCatalogue(filters))
}

const site = { address: 0x0a000000, prefixLength: 8 }

t.test(
  'filter, rates and routes of an authorization hold on every port of the session',
  async t => {
    const rig = new Rig()
    withPolicies(rig, 'filters: {web: [permit in tcp from any to any 443]}')
    const session = rig.up('alice', {
      filterName: 'web',
      filterRules: ['permit in udp from any to any 53'],
      sendBitsPerSecond: 8000,
      ipv4Routes: [site],
    })
    const first = new NotedPort()
    session.bind(first)
    t.same(first.limits, [2, { sendBitsPerSecond: 8000 }])
    t.same([...first.routes], ['10/8'])
    first.detach()
    const second = new NotedPort()
    session.bind(second)
    t.same(second.limits, [2, { sendBitsPerSecond: 8000 }], 'a renegotiated link has a new one')
    t.equal(session.change({ ipv4Routes: [{ address: 0x0b000000, prefixLength: 16 }] }), undefined)
    t.same([...second.routes], ['11/16'])
    t.same([...first.routes], ['10/8'], 'one that is gone is left alone')
    t.equal(session.change({ filterName: undefined, sendBitsPerSecond: undefined }), undefined)
    t.same(second.limits, [1, {}])
    t.match(rig.registry.list(), [{ userName: 'alice' }])
    t.equal(
      session.change({ filterRules: ['permit everything'] })?.startsWith('filter rule:'),
      true,
    )
    t.equal(session.change({ filterName: 'none' }), 'no filter none')
    t.same(second.limits, [1, {}], 'what is wrong changes nothing')
  },
)

t.test('timeouts change on a session that is up, counted from then', async t => {
  const rig = new Rig()
  const session = rig.up()
  rig.advance(600_000)
  session.change({ sessionTimeoutSeconds: 60 })
  rig.advance(59_000)
  t.same(rig.closed, [])
  rig.advance(2000)
  t.same(rig.closed, [[1, 'session-timeout']])
  const idle = rig.up('bob', { sessionTimeoutSeconds: 3600 })
  idle.change({ idleTimeoutSeconds: 30, sessionTimeoutSeconds: undefined })
  rig.advance(31_000)
  t.same(rig.closed.at(-1), [2, 'idle-timeout'])
  t.equal(idle.change({ idleTimeoutSeconds: 1 }), 'the session is not authorized', 'it has ended')
})

t.test(
  'a quarantine holds until it is released, or ends the session when its time is over',
  async t => {
    const rig = new Rig()
    withPolicies(
      rig,
      `filters: {jail: [permit in udp from any to any 53], web: [deny in tcp from any to any 25]}
policies:
  - {name: sick, when: {users: ['sick*']}, give: {filter: web, quarantine: {filter: jail, timeoutSeconds: 60}}}
  - {name: shut, when: {users: [shut]}, give: {quarantine: {}}}
`,
    )
    const session = rig.up('sick1')
    const port = new NotedPort()
    session.bind(port)
    t.same(port.limits, [1, {}])
    t.match(session.status(), { isQuarantined: true, policy: 'sick', filter: 'web' })
    t.equal(rig.registry.release('sick1'), 1)
    t.same(port.limits, [1, {}])
    t.equal(rig.registry.release('sick1'), 0, 'once')
    t.notOk('isQuarantined' in session.status())
    rig.advance(100_000)
    t.same(rig.closed, [], 'who is released stays')
    rig.up('sick2')
    rig.advance(61_000)
    t.same(rig.closed, [[2, 'session-timeout']])
    const shut = rig.up('shut')
    shut.bind(port)
    t.same(port.limits, [2, {}], 'a quarantine without a filter lets nothing through')
    shut.release()
    t.same(port.limits, [undefined, {}])
    session.change({ quarantine: { filterName: 'jail', timeoutSeconds: 5 } })
    t.ok(session.isQuarantined, 'a change may bring one, too')
    rig.advance(6000)
    t.same(rig.closed.at(-1), [1, 'session-timeout'])
  },
)

t.test('a policy that refuses, or names what there is not, keeps a proven user out', async t => {
  const rig = new Rig()
  withPolicies(
    rig,
    `policies:
  - {name: closed, when: {groups: [guests]}, access: deny, reason: restricted-hours}
  - {name: certificates, when: {groups: [admins]}, allowedMethods: [certificate]}
`,
  )
  t.match(rig.admit().authorize({ userName: 'g', groups: ['guests'] }), {
    cause: 'not-authorized',
    reject: 'restricted-hours',
    reason: 'policy closed',
  })
  t.match(rig.admit().authorize({ userName: 'a', groups: ['admins'] }, { method: 'pap' }), {
    reject: 'method-not-allowed',
  })
  t.match(rig.admit().authorize({ userName: 'p', isPolicyRequired: true }), {
    reject: 'no-dial-in',
    reason: 'no policy permits it',
  })
  t.match(rig.admit().authorize({ userName: 'f', filterName: 'of RADIUS' }), {
    cause: 'not-authorized',
    reason: 'no filter of RADIUS',
  })
  t.match(rig.admit().authorize({ userName: 'r', filterRules: ['permit in x'] }), {
    cause: 'not-authorized',
  })
  t.equal(rig.registry.countOf('f'), 0, 'and counts for no limit')
  t.equal(
    rig.admit().authorize({ userName: 'a', groups: ['admins'] }, { method: 'certificate' }),
    undefined,
  )
})

t.test('a bundle is one session: its links count for the server, not for the user', async t => {
  const rig = new Rig({ sessionsPerUser: 1, sessions: 3 })
  const changes: unknown[] = []
  rig.registry.observeChanges(({ bundle }) => changes.push(bundle?.links.length))
  const leader = rig.up('alice')
  leader.lead()
  leader.lead()
  const link = rig.admit('pptp')
  t.equal(link.authorize({ userName: 'alice' }, {}, leader), undefined)
  t.ok(link.join())
  t.ok(link.join(), 'once more changes nothing')
  t.match(link, { state: 'joined', isLink: true })
  t.equal(rig.registry.countOf('alice'), 1)
  t.match(rig.registry.list(), [
    { number: 1, bundle: { linkCount: 2, links: [{ protocol: 'sstp' }, { protocol: 'pptp' }] } },
  ])
  t.equal(rig.registry.size, 2)
  t.same(rig.registry.find('alice'), [leader])
  t.same(rig.registry.find('2'), [link])
  t.match(rig.admit('l2tp').authorize({ userName: 'alice' }), { cause: 'session-limit' })
  t.ok(isRefusal(rig.call('sstp')), 'no fourth call')
  link.end('port-unneeded')
  t.match(rig.registry.list()[0]?.bundle, { linkCount: 2, links: [{ number: 1 }] })
  t.same(changes, [2, 1])
  t.match(rig.logged('link-left'), [{ user: 'alice', cause: 'port-unneeded' }])
  t.equal(rig.registry.disconnect('alice'), 1)
  t.equal(rig.registry.countOf('alice'), 0)
  t.equal(rig.events.filter(({ type }) => type === 'down').length, 1, 'one record')
  t.equal(rig.logged('session-down').length, 1)
  t.equal(terminateCause('port-unneeded'), 12)
})

t.test('a session lives as long as any of its calls, and each link has a name', async t => {
  for (const order of [
    [0, 1, 2],
    [2, 0, 1],
    [1, 2, 0],
  ]) {
    const rig = new Rig({ sessionsPerUser: 1, sessionsPerSource: 3 })
    const leader = rig.up('alice')
    leader.lead()
    const links = [leader]
    for (const protocol of ['pptp', 'l2tp']) {
      const link = rig.admit(protocol)
      t.equal(link.authorize({ userName: 'alice' }, {}, leader), undefined)
      t.ok(link.join())
      links.push(link)
    }
    const names = () => rig.registry.list()[0]?.bundle?.links.map(({ name }) => name)
    t.same(names(), ['1.1', '1.2', '1.3'])
    t.ok(isRefusal(rig.call('sstp')), 'no fourth call from there')
    for (const [gone, index] of order.entries()) {
      t.equal(leader.state, 'up')
      links[index]?.end('lost-carrier')
      links[index]?.end('user-request')
      t.equal(rig.registry.size, 2 - gone, 'calls')
      t.equal(rig.registry.countOf('alice'), gone < 2 ? 1 : 0)
      if (gone < 2) t.equal(names()?.includes(`1.${index + 1}`), false)
    }
    t.equal(leader.state, 'ended')
    t.equal(rig.registry.list().length, 0)
    t.equal(rig.logged('link-left').length, 2)
    t.match(rig.logged('session-down'), [{ user: 'alice', cause: 'lost-carrier' }])
    t.equal(rig.events.filter(({ type }) => type === 'down').length, 1, 'one record')
    t.notOk(isRefusal(rig.call('sstp')), 'what the calls have counted for is free again')
  }
})

t.test('a link ends by its name, a session by all of its names', async t => {
  const rig = new Rig()
  const leader = rig.up('alice')
  leader.lead()
  const link = rig.admit('pptp')
  link.authorize({ userName: 'alice' }, {}, leader)
  link.join()
  t.equal(rig.registry.disconnect('1.3'), 0, 'there is none')
  t.equal(rig.registry.disconnect('9.1'), 0)
  t.equal(rig.registry.disconnect('1.1', 'port-unneeded'), 1)
  t.match(rig.registry.list(), [{ number: 1, bundle: { linkCount: 2, links: [{ name: '1.2' }] } }])
  t.equal(rig.registry.disconnect('1'), 1, 'the session, although its first call has gone')
  t.equal(link.state, 'ended')
  t.equal(rig.registry.size, 0)
  t.match(rig.logged('session-down'), [{ cause: 'admin-reset' }])
})

t.test('nobody joins a session that is over, or without leave', async t => {
  const rig = new Rig()
  const leader = rig.up('alice')
  const late = rig.admit()
  late.authorize({ userName: 'alice' }, {}, leader)
  leader.end('user-request')
  t.notOk(late.join())
  t.equal(late.state, 'setup')
  late.end('lost-carrier')
  t.equal(rig.registry.countOf('alice'), 0)
  t.notOk(rig.up('bob').join())
  t.equal(rig.logged('link-left').length, 0)
})
