import { appendFileSync, cpSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { Accountant } from '../../../../lib/aaa/radius/accounting/accountant.ts'
import { AccountingDelivery } from '../../../../lib/aaa/radius/accounting/delivery.ts'
import { AccountingJournal } from '../../../../lib/aaa/radius/accounting/journal.ts'
import {
  type AccountingRecord,
  recordOf,
  recordText,
  serverRecord,
  sessionRecord,
} from '../../../../lib/aaa/radius/accounting/record.ts'
import type { RadiusAnswer, RadiusRequest } from '../../../../lib/aaa/radius/client-machine.ts'
import {
  AttributeList,
  bytesOfAll,
  textOf,
  u32Of,
} from '../../../../lib/aaa/radius/wire/attributes.ts'
import type { Session, SessionAddresses } from '../../../../lib/aaa/session.ts'
import { isRefusal, SessionRegistry } from '../../../../lib/aaa/session-registry.ts'
import { ManualClock } from '../../../../lib/core/clock.ts'
import { silentLogger } from '../../../../lib/core/log.ts'
import { SeededRandom } from '../../../../lib/core/random.ts'
import { TimerWheel } from '../../../../lib/core/timers.ts'
import { eventually, turn } from '../../../support/eventually.ts'
import { testSecret } from '../radius-server.ts'

const nas = { name: 'vpn.test', address: '192.0.2.1' }
const epochMs = Date.UTC(2026, 10, 21)

function folder(t: Tap): string {
  const path = mkdtempSync(join(tmpdir(), 'openras-accounting-'))
  t.teardown(() => rmSync(path, { recursive: true, force: true }))
  return path
}

type Tap = { teardown(work: () => void): void }

const answer: RadiusAnswer = {
  code: 5,
  attributes: [],
  requestAuthenticator: new Uint8Array(16),
  secret: testSecret,
  server: 'test',
}

/** A server that can be down; it keeps what it has confirmed. */
class Backend {
  isDown = false
  readonly confirmed: RadiusRequest[] = []
  inFlight = 0
  mostInFlight = 0
  tries = 0

  async request(request: RadiusRequest): Promise<RadiusAnswer | undefined> {
    this.tries++
    this.inFlight++
    this.mostInFlight = Math.max(this.mostInFlight, this.inFlight)
    await turn()
    this.inFlight--
    if (this.isDown) return undefined
    this.confirmed.push(request)
    return answer
  }

  /** `alice start`, `alice stop` and so on. */
  said(): string[] {
    const kinds = ['', 'start', 'stop', 'interim', '', '', '', 'on', 'off']
    return this.confirmed.map(({ attributes }) => {
      const user = textOf(attributes, 'User-Name') ?? 'server'
      return `${user} ${kinds[u32Of(attributes, 'Acct-Status-Type') ?? 0]}`
    })
  }
}

class World {
  readonly clock = new ManualClock(50_000)
  readonly wheel = new TimerWheel(50_000)
  /** How far the wall clock has jumped. */
  jumpMs = 0
  readonly wallClock = { now: () => new Date(epochMs + this.clock.nowMs() + this.jumpMs) }
  readonly backend = new Backend()
  readonly sessions: SessionRegistry
  readonly directory: string
  #runs = 0

  constructor(directory: string) {
    this.directory = directory
    const none = Number.POSITIVE_INFINITY
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
      wallClock: this.wallClock,
      random: new SeededRandom(11),
      log: silentLogger,
    })
  }

  open(interimIntervalMs = Number.POSITIVE_INFINITY): Promise<Accountant> {
    return Accountant.open({
      exchange: this.backend,
      sessions: this.sessions,
      nas,
      instance: `run${++this.#runs}`,
      directory: this.directory,
      interimIntervalMs,
      authentic: 'radius',
      clock: this.clock,
      wallClock: this.wallClock,
      wheel: this.wheel,
      log: silentLogger,
    })
  }

  dial(
    userName: string,
    authorization = {},
    addresses: SessionAddresses = { ipv4: 0x0a09_0909 },
  ): Session {
    const admitted = this.sessions.admit({
      protocol: 'sstp',
      peerAddress: '198.51.100.7',
      peerLabel: '198.51.100.7:1',
      close: cause => admittedSession.end(cause),
    })
    if (isRefusal(admitted)) throw new Error(admitted.reason)
    const admittedSession = admitted
    admittedSession.authorize({ userName, ...authorization })
    admittedSession.up(addresses, () => ({
      receivedPackets: 10,
      receivedBytes: 5 * 2 ** 32 + 7,
      sentPackets: 20,
      sentBytes: 2 ** 32,
      lastActiveMs: this.clock.nowMs(),
    }))
    return admittedSession
  }

  async pass(ms: number): Promise<void> {
    this.clock.advance(ms)
    this.wheel.advance(this.clock.nowMs())
    await turn()
  }

  async settled(accountant: Accountant): Promise<void> {
    await eventually(
      () => accountant.status().waiting === 0,
      () => JSON.stringify(accountant.status()),
    )
  }
}

t.test('a Start waits a while for the IPv4 address, and tells when the session was up', async t => {
  const prefix = { address: new Uint8Array(16), prefixLength: 64 }
  const world = new World(folder(t))
  const accountant = await world.open()
  const upAtMs = world.wallClock.now().getTime()
  const soon = world.dial('soon', {}, { ipv6: prefix })
  world.dial('never', {}, { ipv6: prefix }).end('user-request')
  const late = world.dial('late', {}, { ipv6: prefix })
  await world.pass(1500)
  soon.addAddresses({ ipv4: 0x0a09_0901 })
  soon.addAddresses({ ipv6: prefix })
  await world.pass(1500)
  late.addAddresses({ ipv4: 0x0a09_0902 })
  soon.end('user-request')
  await world.settled(accountant)
  const said = world.backend.confirmed.map(({ attributes }, index) => {
    const address = u32Of(attributes, 'Framed-IP-Address')
    return `${world.backend.said()[index]} ${address === undefined ? '-' : address & 0xff}`
  })
  t.same(said.length, 1 + 6)
  t.same(
    new Set(said.slice(1)),
    new Set([
      'never start -',
      'never stop -',
      'soon start 1',
      'late start -',
      'late interim 2',
      'soon stop 1',
    ]),
  )
  for (const { attributes } of world.backend.confirmed) {
    if (u32Of(attributes, 'Acct-Status-Type') !== 1) continue
    t.equal(u32Of(attributes, 'Event-Timestamp'), Math.floor(upAtMs / 1000))
  }
  await accountant.close(0)
})

t.test('a wall clock that jumps makes no record late, early, or more', async t => {
  for (const jumpMs of [-86_400_000, 86_400_000, -epochMs]) {
    const world = new World(folder(t))
    const accountant = await world.open(600_000)
    await world.settled(accountant)
    world.backend.isDown = true
    const session = world.dial('alice')
    await world.pass(10_000)
    world.jumpMs = jumpMs
    await world.pass(20_000)
    session.end('user-request')
    await world.pass(10_000)
    world.backend.isDown = false
    for (let i = 0; i < 10; i++) await world.pass(1000)
    await world.settled(accountant)
    t.same(world.backend.said(), ['server on', 'alice start', 'alice stop'])
    const [, start, stop] = world.backend.confirmed
    t.equal(start?.eventMs, 50_000, 'when it happened is not asked of the wall clock')
    t.equal(stop?.eventMs, 80_000)
    t.equal(u32Of(stop?.attributes ?? [], 'Acct-Session-Time'), 30)
    await accountant.close(0)
  }
})

t.test('a session is accounted from start to stop, with what RADIUS gave', async t => {
  const world = new World(folder(t))
  const accountant = await world.open()
  const session = world.dial('alice', {
    accountingClass: [Uint8Array.of(1, 2), Uint8Array.of(3)],
    interimIntervalSeconds: 60,
  })
  await world.pass(61_000)
  await world.pass(61_000)
  session.end('idle-timeout')
  await world.settled(accountant)
  t.same(world.backend.said(), [
    'server on',
    'alice start',
    'alice interim',
    'alice interim',
    'alice stop',
  ])
  const [, start, interim, , stop] = world.backend.confirmed.map(({ attributes }) => attributes)
  for (const record of [start, interim, stop]) {
    t.same(bytesOfAll(record ?? [], 'Class'), [Uint8Array.of(1, 2), Uint8Array.of(3)])
    t.equal(textOf(record ?? [], 'Acct-Session-Id'), session.id)
    t.equal(u32Of(record ?? [], 'Framed-IP-Address'), 0x0a09_0909)
    t.equal(u32Of(record ?? [], 'NAS-Port'), session.number)
  }
  t.equal(u32Of(start ?? [], 'Acct-Input-Octets'), undefined)
  t.equal(u32Of(stop ?? [], 'Acct-Input-Octets'), 7)
  t.equal(u32Of(stop ?? [], 'Acct-Input-Gigawords'), 5)
  t.equal(u32Of(stop ?? [], 'Acct-Output-Octets'), 0)
  t.equal(u32Of(stop ?? [], 'Acct-Output-Gigawords'), 1)
  t.equal(u32Of(stop ?? [], 'Acct-Terminate-Cause'), 4)
  t.equal(u32Of(stop ?? [], 'Acct-Session-Time'), 122)
  await accountant.close(1000)
  t.equal(world.backend.said().at(-1), 'server off')
  t.same(readdirSync(world.directory).length, 1, 'one segment, of which nothing is waiting')
  t.equal((await AccountingJournal.open(journalOptions(world.directory))).entries.length, 0)
})

function journalOptions(directory: string) {
  return {
    directory,
    onFault: (reason: string) => {
      throw new Error(reason)
    },
  }
}

t.test('in an outage of ten minutes nothing is lost and nothing comes twice', async t => {
  const world = new World(folder(t))
  let accountant = await world.open()
  await world.settled(accountant)
  world.backend.isDown = true
  const live: Session[] = []
  for (let second = 0; second < 600; second++) {
    for (let i = 0; i < 2; i++) live.push(world.dial(`user${second * 2 + i}`))
    if (live.length > 1000) for (const session of live.splice(0, 2)) session.end('user-request')
    await world.pass(1000)
  }
  t.equal(accountant.status().isDown, true)
  t.ok(world.backend.tries < 200, 'the server is not flooded while it is down')
  // In the middle of it the server is restarted.
  for (const session of live.splice(0)) session.end('nas-reboot')
  let isClosed = false
  const closing = accountant.close(1000).then(() => {
    isClosed = true
  })
  while (!isClosed) await world.pass(500)
  await closing
  accountant = await world.open()
  t.ok(accountant.status().waiting > 2400)
  world.backend.isDown = false
  for (let i = 0; i < 20; i++) await world.pass(1000)
  await world.settled(accountant)
  const said = world.backend.said()
  t.equal(said.length, 1 + 2400 + 1 + 1)
  t.equal(new Set(said.filter(one => one.startsWith('user'))).size, 2400, 'none lost, none twice')
  const place = new Map(said.map((one, i) => [one, i]))
  let misplaced = 0
  for (let i = 0; i < 1200; i++) {
    if ((place.get(`user${i} start`) ?? 0) > (place.get(`user${i} stop`) ?? 0)) misplaced++
  }
  t.equal(misplaced, 0, 'each start before its stop')
  t.same(said.slice(-2), ['server off', 'server on'], 'and the servers own news in their place')
  const eventMs = world.backend.confirmed[1]?.eventMs ?? 0
  t.ok(world.clock.nowMs() - eventMs > 600_000, 'with the time at which it happened')
  await accountant.close(0)
})

function record(user: string, kind: 'start' | 'stop' = 'start'): AccountingRecord {
  const { attributes } = new AttributeList().text('User-Name', user)
  return { kind, sessionId: user, atMs: epochMs, attributes }
}

t.test('a journal cut anywhere gives back whole records only', async t => {
  const directory = folder(t)
  const { journal } = await AccountingJournal.open(journalOptions(directory))
  const sequences = await Promise.all(['a', 'b', 'c'].map(user => journal.append(record(user))))
  journal.settle(sequences[1] ?? 0)
  await journal.flush()
  const copy = `${directory}-copy`
  t.teardown(() => rmSync(copy, { recursive: true, force: true }))
  cpSync(directory, copy, { recursive: true })
  const [name = ''] = readdirSync(copy)
  appendFileSync(join(copy, name), '{"sequence":99,"record":{"kind":"sta')
  writeFileSync(join(copy, 'unrelated.txt'), 'x')
  const again = await AccountingJournal.open(journalOptions(copy))
  t.same(
    again.entries.map(({ record: { sessionId } }) => sessionId),
    ['a', 'c'],
  )
  t.equal(again.journal.counters.get('unreadable-line'), 1)
  const next = await again.journal.append(record('d'))
  t.ok(next > Math.max(...sequences), 'numbers go on')
  await again.journal.close()
  await journal.close()
})

t.test('segments are removed once they are settled, oldest first', async t => {
  const directory = folder(t)
  const options = { ...journalOptions(directory), segmentBytes: 1 }
  const { journal } = await AccountingJournal.open(options)
  const sequences: number[] = []
  for (const user of ['a', 'b', 'c']) sequences.push(await journal.append(record(user)))
  t.equal(readdirSync(directory).length, 3)
  journal.settle(sequences[1] ?? 0)
  await journal.flush()
  t.equal(readdirSync(directory).length, 4, 'the oldest holds a record that waits')
  journal.settle(sequences[0] ?? 0)
  await journal.flush()
  await journal.close()
  const names = readdirSync(directory)
  t.ok(names.length <= 3, names.join(' '))
  const again = await AccountingJournal.open(options)
  t.same(
    again.entries.map(({ record: { sessionId } }) => sessionId),
    ['c'],
  )
  await again.journal.close()
})

t.test('a disk that cannot be written is said, and the records are sent all the same', async t => {
  const directory = folder(t)
  const faults: string[] = []
  const { journal } = await AccountingJournal.open({
    directory,
    onFault: reason => faults.push(reason),
  })
  rmSync(directory, { recursive: true })
  t.type(await journal.append(record('a')), 'number')
  t.equal(faults.length, 1)
  t.equal(journal.counters.get('write-error'), 1)
  await journal.close()
})

t.test('records survive being written and read, and others are refused', async t => {
  const status = {
    ...new World(folder(t)).dial('alice').status(),
    ipv6: 'fd00:1::/64',
    bundle: { linkCount: 3, links: [] },
  }
  const facts = {
    status,
    peerAddress: '2001:db8::7',
    authorization: {
      userName: 'alice',
      delegatedIpv6Prefix: { address: new Uint8Array(16), prefixLength: 56 },
    },
    authentic: 'local',
  } as const
  const stop = sessionRecord('stop', { name: 'vpn' }, facts, epochMs, 'admin-reset')
  t.same(recordOf(JSON.parse(recordText(stop))), stop)
  t.equal(textOf(stop.attributes, 'Acct-Multi-Session-Id'), status.id)
  t.equal(u32Of(stop.attributes, 'Acct-Link-Count'), 3)
  t.equal(u32Of(stop.attributes, 'Acct-Authentic'), 2)
  t.equal(bytesOfAll(stop.attributes, 'Framed-IPv6-Prefix').length, 1)
  t.equal(bytesOfAll(stop.attributes, 'Delegated-IPv6-Prefix').length, 1)
  const good = { kind: 'start', sessionId: 'a', atMs: 1, attributes: [[0, 1, '00']] }
  t.ok(recordOf(good))
  for (const bad of [
    null,
    7,
    { ...good, kind: 'toString' },
    { ...good, sessionId: 1 },
    { ...good, atMs: '1' },
    { ...good, attributes: 'x' },
    { ...good, attributes: [[0, 1, 'zz']] },
    { ...good, attributes: [7] },
  ]) {
    t.equal(recordOf(bad), undefined, JSON.stringify(bad))
  }
})

t.test('on and off stand alone between what came before and after', async t => {
  const clock = new ManualClock(0)
  const backend = new Backend()
  const settled: number[] = []
  const delivery = new AccountingDelivery({
    exchange: backend,
    settled: sequence => settled.push(sequence),
    clock,
    wallClock: { now: () => new Date(epochMs) },
    wheel: new TimerWheel(0),
    log: silentLogger,
  })
  const entries: AccountingRecord[] = [
    record('a'),
    record('b'),
    serverRecord('off', nas, 'run1', epochMs),
    serverRecord('on', nas, 'run2', epochMs),
    record('c'),
    record('c', 'stop'),
    serverRecord('off', nas, 'run2', epochMs),
  ]
  for (const [sequence, one] of entries.entries()) delivery.add({ sequence, record: one })
  await delivery.whenIdle()
  t.same(settled, [0, 1, 2, 3, 4, 5, 6])
  t.equal(backend.mostInFlight, 2)
  await delivery.whenIdle()
})
