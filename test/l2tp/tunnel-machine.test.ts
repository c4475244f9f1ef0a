import fc from 'fast-check'
import t from 'tap'
import { fromHex } from '../../lib/core/bytes.ts'
import { Counters, FaultCounters, WireFault } from '../../lib/core/faults.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { Secret } from '../../lib/core/secret.ts'
import { Call } from '../../lib/l2tp/call.ts'
import {
  type CallEvent,
  type CallRole,
  type CallState,
  callTables,
} from '../../lib/l2tp/call-table.ts'
import { callReason } from '../../lib/l2tp/close-reason.ts'
import { ControlChannel } from '../../lib/l2tp/control-channel.ts'
import {
  type ControlConnectionEvent,
  type ControlConnectionState,
  controlConnectionTable,
} from '../../lib/l2tp/control-connection.ts'
import { DataSequence } from '../../lib/l2tp/data-sequence.ts'
import type { L2tpEvent, L2tpInput } from '../../lib/l2tp/event.ts'
import { TunnelMachine } from '../../lib/l2tp/tunnel-machine.ts'
import type { TunnelOptions } from '../../lib/l2tp/tunnel-options.ts'
import { TunnelTable } from '../../lib/l2tp/tunnel-table.ts'
import { encodeControlHeader, nrOf, nsOf, tunnelIdOf } from '../../lib/l2tp/wire/header.ts'
import { type ControlMessage, encodeControl, parseControl } from '../../lib/l2tp/wire/message.ts'
import { LossyLink } from '../support/lossy-link.ts'

let nextSeed = 1

function machineOf(localTunnelId: number, options: Partial<TunnelOptions> = {}) {
  const counters = new Counters()
  const faults = new FaultCounters()
  const machine = new TunnelMachine({
    localTunnelId,
    hostName: `host${localTunnelId}`,
    random: new SeededRandom(nextSeed++),
    counters,
    faults,
    isPeerVerified: true,
    ...options,
  })
  return { machine, counters, faults }
}

/** One machine, its events and what it sends, decoded. */
class Station {
  readonly machine: TunnelMachine
  readonly counters: Counters
  readonly faults: FaultCounters
  readonly events: L2tpEvent[] = []
  readonly sent: Uint8Array[] = []
  nowMs = 0
  /** What an acknowledgement of everything sent says. */
  nextNs = 0

  constructor(localTunnelId: number, options?: Partial<TunnelOptions>) {
    const made = machineOf(localTunnelId, options)
    this.machine = made.machine
    this.counters = made.counters
    this.faults = made.faults
  }

  input(input: L2tpInput | { type: 'timeout' }): this {
    this.machine.handle(input, this.nowMs)
    for (let out = this.machine.poll(); out !== undefined; out = this.machine.poll()) {
      if (out.type === 'event') this.events.push(out.event)
      else {
        this.sent.push(out.bytes)
        if (nameOf(out.bytes) !== 'zlb') this.nextNs = Math.max(this.nextNs, nsOf(out.bytes, 0) + 1)
      }
    }
    return this
  }

  /** Moves time forward, firing every deadline on the way. */
  wait(ms: number): this {
    const end = this.nowMs + ms
    while (this.machine.nextDeadlineMs() <= end) {
      this.nowMs = Math.max(this.nowMs, this.machine.nextDeadlineMs())
      this.input({ type: 'timeout' })
    }
    this.nowMs = end
    return this
  }

  types(): string[] {
    return this.events.map(event => event.type)
  }

  last<T extends L2tpEvent['type']>(type: T): Extract<L2tpEvent, { type: T }> | undefined {
    return this.events.findLast(
      (event): event is Extract<L2tpEvent, { type: T }> => event.type === type,
    )
  }

  /** What was sent since the last call: names, `zlb` for acknowledgements. */
  take(): string[] {
    return this.sent.splice(0).map(nameOf)
  }
}

function nameOf(bytes: Uint8Array): string {
  const parsed = parseControl(bytes, 0, bytes.length)
  if (parsed.type === 'message') return parsed.message.type
  return parsed.type === 'zero-length-body' ? 'zlb' : parsed.type
}

/** The peer of a station, played by hand: right numbers, any message. */
class Script {
  readonly #station: Station
  readonly #tunnelId: number
  ns = 0
  constructor(station: Station, tunnelId = station.machine.localTunnelId) {
    this.#station = station
    this.#tunnelId = tunnelId
  }

  say(message: ControlMessage, sessionId = 0, tunnelId = this.#tunnelId): Station {
    return this.raw(encodeControl(message), sessionId, tunnelId)
  }

  raw(bytes: Uint8Array, sessionId = 0, tunnelId = this.#tunnelId): Station {
    const nr = this.#station.nextNs
    encodeControlHeader(bytes, 0, bytes.length, tunnelId, sessionId, this.ns++, nr)
    return this.#station.input({ type: 'packet', bytes })
  }
}

const sccrq = (extra: object = {}): ControlMessage => ({
  type: 'sccrq',
  protocolVersion: 0x0100,
  hostName: 'client',
  framingCapabilities: 3,
  assignedTunnelId: 77,
  ...extra,
})
const sccrp = (extra: object = {}): ControlMessage => ({
  ...(sccrq(extra) as Extract<ControlMessage, { type: 'sccrq' }>),
  type: 'sccrp',
})
const icrq = (assignedSessionId = 9): ControlMessage => ({
  type: 'icrq',
  assignedSessionId,
  callSerialNumber: 1,
})
const ocrq = (assignedSessionId = 9): ControlMessage => ({
  type: 'ocrq',
  assignedSessionId,
  callSerialNumber: 1,
  minimumBps: 1,
  maximumBps: 2,
  bearerType: 1,
  framingType: 1,
  calledNumber: '100',
})
const iccn: ControlMessage = { type: 'iccn', connectSpeedBps: 1_000, framingType: 1 }
const occn: ControlMessage = { type: 'occn', connectSpeedBps: 1_000, framingType: 1 }
const cdn: ControlMessage = {
  type: 'cdn',
  assignedSessionId: 9,
  resultCode: { result: 3, error: 0, message: '' },
}

/** A station brought into a state of the control connection. */
function stationIn(state: ControlConnectionState, options?: Partial<TunnelOptions>) {
  const station = new Station(5, options)
  const script = new Script(station)
  switch (state) {
    case 'idle':
      break
    case 'wait-ctl-reply':
      station.input({ type: 'open' })
      break
    case 'wait-ctl-conn':
      script.say(sccrq(), 0, 0)
      break
    case 'established':
      script.say(sccrq(), 0, 0)
      script.say({ type: 'scccn' })
      break
    case 'closing':
      script.say(sccrq(), 0, 0)
      script.say({ type: 'stopccn', assignedTunnelId: 77 })
      break
  }
  t.equal(station.machine.state, state)
  return { station, script }
}

t.test('every cell of the control connection table does what it says (RFC 2661 7.2.1)', async t => {
  const badVersion = { protocolVersion: 0x0200 }
  const trigger: Record<ControlConnectionEvent, (script: Script, station: Station) => void> = {
    open: (_, station) => station.input({ type: 'open' }),
    sccrq: script => script.say(sccrq()),
    'sccrq-bad': script => script.say(sccrq(badVersion)),
    'sccrq-lost-tie': script => script.say(sccrq({ tieBreaker: new Uint8Array(8) }), 0, 0),
    sccrp: script => script.say(sccrp()),
    'sccrp-bad': script => script.say(sccrp(badVersion)),
    scccn: script => script.say({ type: 'scccn' }),
    'scccn-bad': script => script.say({ type: 'scccn', challengeResponse: new Uint8Array(16) }),
    stopccn: script => script.say({ type: 'stopccn', assignedTunnelId: 77 }),
    close: (_, station) => station.input({ type: 'close', cause: 'admin-reset' }),
  }
  const messageOf: Record<string, string> = {
    'send-sccrq': 'sccrq',
    'send-sccrp': 'sccrp',
    'send-scccn': 'scccn',
    'send-stopccn': 'stopccn',
  }
  for (const state of Object.keys(controlConnectionTable) as ControlConnectionState[]) {
    for (const event of Object.keys(trigger) as ControlConnectionEvent[]) {
      // A tie exists only while our own request is out.
      if (event === 'sccrq-lost-tie' && state !== 'wait-ctl-reply') continue
      // Out of state, a bad message is treated as a good one.
      const isBadOutOfState =
        (event === 'sccrq-bad' && state !== 'idle') ||
        (event === 'sccrp-bad' && state !== 'wait-ctl-reply') ||
        (event === 'scccn-bad' && state !== 'wait-ctl-conn')
      const secret = event === 'scccn-bad' ? { secret: Secret.fromText('x') } : {}
      const needsSecret = event === 'scccn-bad' && state === 'wait-ctl-conn'
      const { station, script } = stationIn(state, needsSecret ? secret : {})
      station.take()
      const before = station.events.length
      trigger[event](script, station)
      const effective = isBadOutOfState ? (event.slice(0, -4) as ControlConnectionEvent) : event
      const cell = controlConnectionTable[state][effective]
      const name = `${state} / ${event}`
      if (cell === null) {
        t.equal(station.machine.state, state, `${name}: nothing changes`)
        if (event !== 'open' && event !== 'close') {
          t.same(station.types().slice(before), ['unexpected'], `${name}: one event`)
        }
        continue
      }
      t.equal(station.machine.state, cell.next, name)
      const sent = cell.actions.flatMap(action => messageOf[action] ?? [])
      t.same(
        station.take().filter(one => one !== 'zlb'),
        sent,
        `${name}: messages`,
      )
      t.equal(
        station.types().includes('tunnel-down'),
        cell.actions.includes('clean-up'),
        `${name}: clean-up`,
      )
    }
  }
})

t.test('every cell of the four call tables does what it says (RFC 2661 7.4)', async t => {
  const sentBy = {
    'incoming-lac': { request: 'icrq', reply: 'icrp', connected: 'iccn' },
    'incoming-lns': { request: 'icrq', reply: 'icrp', connected: 'iccn' },
    'outgoing-lac': { request: 'ocrq', reply: 'ocrp', connected: 'occn' },
    'outgoing-lns': { request: 'ocrq', reply: 'ocrp', connected: 'occn' },
  } as const
  const paths: Record<CallState, readonly CallEvent[]> = {
    idle: [],
    'wait-tunnel': ['open'],
    'wait-reply': ['open', 'tunnel-open'],
    'wait-connect': [],
    'wait-cs-answer': ['request'],
    established: [],
  }
  const pathTo = (role: CallRole, state: CallState): readonly CallEvent[] => {
    if (state === 'wait-connect') {
      return role === 'incoming-lns' ? ['request'] : ['open', 'tunnel-open', 'reply']
    }
    if (state !== 'established') return paths[state]
    if (role === 'incoming-lac') return ['open', 'tunnel-open', 'reply']
    if (role === 'incoming-lns') return ['request', 'connected']
    if (role === 'outgoing-lac') return ['request', 'answer']
    return ['open', 'tunnel-open', 'reply', 'connected']
  }
  for (const role of Object.keys(callTables) as CallRole[]) {
    const table: Partial<
      Record<CallState, Record<CallEvent, { next: CallState; actions: readonly string[] } | null>>
    > = callTables[role]
    for (const [state, row] of Object.entries(table) as [CallState, Record<CallEvent, never>][]) {
      for (const event of Object.keys(row) as CallEvent[]) {
        const sent: string[] = []
        const events: L2tpEvent[] = []
        let isForgotten = false
        const call = new Call(
          role,
          3,
          1,
          { reference: 8, direction: role.startsWith('incoming') ? 'incoming' : 'outgoing' },
          {
            send: message => sent.push(message.type),
            event: one => events.push(one),
            openTunnel: () => false,
            forget: () => {
              isForgotten = true
            },
            peerTunnelId: 77,
            connectSpeedBps: 1,
          },
        )
        const names = sentBy[role]
        const say: Record<string, ControlMessage> = {
          icrq: icrq(),
          ocrq: ocrq(),
          icrp: { type: 'icrp', assignedSessionId: 9 },
          ocrp: { type: 'ocrp', assignedSessionId: 9 },
          iccn,
          occn,
        }
        const feed = (one: CallEvent) => {
          const bad = one.endsWith('-bad') ? callReason('session-limit', '') : undefined
          const plain = one.replace('-bad', '')
          if (plain === 'request' || plain === 'reply' || plain === 'connected') {
            const message = say[names[plain]]
            if (message !== undefined) call.receive(message, bad)
          } else if (plain === 'cdn') call.disconnected(callReason('user-request', ''))
          else call.handle(plain as 'open')
        }
        for (const one of pathTo(role, state)) feed(one)
        t.equal(call.state, state)
        sent.length = 0
        events.length = 0
        feed(event)
        const cell = table[state]?.[event] ?? null
        const name = `${role}: ${state} / ${event}`
        t.equal(call.state, cell?.next ?? state, name)
        const wanted = (cell?.actions ?? []).flatMap(action => {
          if (action === 'send-cdn') return ['cdn']
          if (action === 'send-request') return [names.request]
          if (action === 'send-reply') return [names.reply]
          return action === 'send-connected' ? [names.connected] : []
        })
        t.same(sent, wanted, `${name}: messages`)
        t.equal(isForgotten, cell?.actions.includes('clean-up') ?? false, `${name}: clean-up`)
        t.equal(
          events.some(one => one.type === 'call-up'),
          cell?.actions.includes('call-up') ?? false,
          `${name}: call-up`,
        )
      }
    }
  }
})

interface PairOptions {
  readonly client?: Partial<TunnelOptions>
  readonly server?: Partial<TunnelOptions>
  readonly lossPercent?: number
  readonly duplicatePercent?: number
  readonly reorderPercent?: number
  readonly seed?: number
}

/** Our client machine against our server machine over a simulated network. */
class Pair {
  readonly link: LossyLink
  readonly client: Station
  readonly server: Station

  constructor(options: PairOptions = {}) {
    this.link = new LossyLink({ seed: options.seed ?? 42, ...options })
    this.client = new Station(11, options.client)
    this.server = new Station(22, options.server)
    for (const [mine, peer] of [
      [this.client, this.server],
      [this.server, this.client],
    ] as const) {
      this.link.add({
        nextDeadlineMs: () => mine.machine.nextDeadlineMs(),
        onDeadline: () => this.input(mine, peer, { type: 'timeout' }),
      })
    }
  }

  input(mine: Station, peer: Station, input: L2tpInput | { type: 'timeout' }): void {
    mine.nowMs = this.link.clock.nowMs()
    mine.input(input)
    for (const bytes of mine.sent.splice(0)) {
      this.link.send(bytes, copy => this.input(peer, mine, { type: 'packet', bytes: copy }))
    }
  }

  fromClient(input: L2tpInput): void {
    this.input(this.client, this.server, input)
  }

  fromServer(input: L2tpInput): void {
    this.input(this.server, this.client, input)
  }

  dial(reference = 1): boolean {
    this.fromClient({ type: 'place-call', call: { reference, direction: 'incoming' } })
    return this.link.run(40_000, () => this.upCount(this.server) >= reference)
  }

  upCount(station: Station): number {
    return station.events.filter(event => event.type === 'call-up').length
  }
}

t.test('a LAC dials an LNS: tunnel, call, hang-up, all state gone', async t => {
  const pair = new Pair({ server: { vendorName: 'OpenRAS' } })
  t.ok(pair.dial())
  t.equal(pair.client.last('tunnel-up')?.peer.vendorName, 'OpenRAS')
  const up = pair.client.last('call-up')
  const serverUp = pair.server.last('call-up')
  t.match(up, { role: 'incoming-lac', peerTunnelId: 22, reference: 1 })
  t.match(serverUp, { role: 'incoming-lns', peerTunnelId: 11 })
  t.equal(up?.peerSessionId, serverUp?.sessionId)
  t.equal(serverUp?.peerSessionId, up?.sessionId)
  pair.fromClient({ type: 'close-call', sessionId: up?.sessionId ?? 0, cause: 'user-request' })
  pair.link.run(1_000)
  t.match(pair.server.last('call-down'), {
    wasUp: true,
    by: 'peer',
    reason: { cause: 'user-request' },
  })
  t.equal(pair.server.machine.callCount, 0)
  pair.fromClient({ type: 'close', cause: 'user-request' })
  pair.link.run(60_000)
  t.match(pair.server.last('tunnel-down'), { by: 'peer', wasUp: true })
  for (const station of [pair.client, pair.server]) {
    t.equal(station.types().at(-1), 'closed')
    t.equal(station.machine.nextDeadlineMs(), Number.POSITIVE_INFINITY)
  }
})

t.test('several calls share a tunnel, and one of them ends alone', async t => {
  const pair = new Pair()
  for (let reference = 1; reference <= 5; reference++) t.ok(pair.dial(reference))
  t.equal(pair.server.machine.callCount, 5)
  const ids = new Set(pair.server.events.flatMap(e => (e.type === 'call-up' ? [e.sessionId] : [])))
  t.equal(ids.size, 5)
  const first = pair.server.last('call-up')?.sessionId ?? 0
  pair.fromServer({ type: 'close-call', sessionId: first, cause: 'session-timeout' })
  pair.link.run(1_000)
  t.equal(pair.client.machine.callCount, 4)
  t.match(pair.client.last('call-down'), { reference: 5, by: 'peer' })
})

t.test('an LNS places an outgoing call through a LAC', async t => {
  const pair = new Pair({ server: { acceptsOutgoingCalls: true } })
  pair.fromClient({
    type: 'place-call',
    call: { reference: 4, direction: 'outgoing', calledNumber: '0123', maximumBps: 64_000 },
  })
  pair.link.run(2_000)
  const offered = pair.server.last('call-offered')
  t.match(offered?.parameters, { calledNumber: '0123', maximumBps: 64_000 })
  t.equal(pair.client.last('call-up'), undefined, 'not before the callee answers')
  pair.fromServer({ type: 'answer-call', sessionId: offered?.sessionId ?? 0 })
  pair.link.run(2_000)
  t.match(pair.client.last('call-up'), { role: 'outgoing-lns', reference: 4 })
  t.match(pair.server.last('call-up'), { role: 'outgoing-lac' })
  pair.link.run(100_000)
  t.equal(pair.upCount(pair.client), 1)
  t.equal(pair.client.last('call-down'), undefined, 'a call that is up has no setup deadline')
})

t.test('an outgoing call nobody answers is given up', async t => {
  const pair = new Pair({ server: { acceptsOutgoingCalls: true } })
  pair.fromClient({ type: 'place-call', call: { reference: 1, direction: 'outgoing' } })
  pair.link.run(70_000)
  t.match(pair.client.last('call-down'), { wasUp: false, reason: { cause: 'setup-timeout' } })
  t.equal(pair.server.machine.callCount, 0)
})

t.test('calls come up over loss, duplication and reordering, each once', async t => {
  let isUp = 0
  const runs = 40
  for (let seed = 1; seed <= runs; seed++) {
    const pair = new Pair({ seed, lossPercent: 15, duplicatePercent: 10, reorderPercent: 20 })
    for (let reference = 1; reference <= 3; reference++) pair.dial(reference)
    pair.link.run(5_000)
    if (pair.upCount(pair.client) === 3 && pair.upCount(pair.server) === 3) isUp++
    t.ok(pair.upCount(pair.server) <= 3 && pair.upCount(pair.client) <= 3, `seed ${seed}: once`)
    pair.fromClient({ type: 'close', cause: 'user-request' })
    pair.link.run(80_000)
    t.equal(pair.server.types().filter(type => type === 'closed').length, 1, `seed ${seed}: gone`)
  }
  t.ok(isUp >= runs * 0.95, `${isUp} of ${runs} up`)
})

t.test('tunnel authentication: the same secret works, hidden or not', async t => {
  for (const hidesAvps of [false, true]) {
    const secret = Secret.fromText('shared')
    const pair = new Pair({
      client: { secret, hidesAvps },
      server: { secret, hidesAvps },
    })
    t.ok(pair.dial(), `hidden: ${hidesAvps}`)
  }
})

t.test('a wrong, a missing and an unexpected secret end the tunnel with result 4', async t => {
  const a = { secret: Secret.fromText('a') }
  const b = { secret: Secret.fromText('b') }
  for (const [client, server] of [
    [a, b],
    [a, {}],
    [{}, a],
  ] as const) {
    const pair = new Pair({ client, server })
    t.notOk(pair.dial())
    const downs = [pair.client.last('tunnel-down'), pair.server.last('tunnel-down')]
    t.ok(downs.every(down => down?.reason.cause === 'authentication-failed'))
    t.ok(downs.every(down => down?.reason.result === 4))
    t.equal(pair.client.last('call-down')?.wasUp, false)
  }
})

t.test('simultaneous requests: the lower tie breaker wins, and one tunnel remains', async t => {
  const { station, script } = stationIn('wait-ctl-reply')
  script.say(sccrq({ tieBreaker: fromHex('ffffffffffffffff') }), 0, 0)
  t.equal(station.machine.state, 'wait-ctl-reply', 'ours is lower')
  t.same(station.types(), ['unexpected'])
  script.ns = 0
  script.say(sccrq({ tieBreaker: fromHex('0000000000000000') }), 0, 0)
  t.ok(station.types().includes('tie-lost'))
  t.equal(station.types().at(-1), 'closed')
  const without = stationIn('wait-ctl-reply')
  without.script.say(sccrq(), 0, 0)
  t.equal(without.station.machine.state, 'wait-ctl-reply', 'a request without one loses')
})

t.test('a Hello goes out after 60 s of silence, and its loss ends the tunnel', async t => {
  const pair = new Pair()
  pair.dial()
  pair.link.run(600_000)
  t.equal(pair.server.last('tunnel-down'), undefined, 'answered Hellos keep it')
  const { station } = stationIn('established')
  station.take()
  station.wait(59_000)
  t.notOk(station.take().includes('hello'))
  station.wait(1_500)
  t.same(station.take(), ['hello'])
  station.wait(31_000)
  t.same(station.take(), ['hello', 'hello', 'hello', 'hello', 'hello'], 'five repetitions')
  t.match(station.last('tunnel-down'), { reason: { cause: 'lost-carrier' } })
  t.equal(station.types().at(-1), 'closed')
})

t.test('data keeps a tunnel whose peer never acknowledges a Hello (Android 9 and 10)', async t => {
  const { station } = stationIn('established')
  for (let i = 0; i < 30; i++) {
    station.wait(20_000)
    station.input({ type: 'alive' })
  }
  t.notOk(station.take().includes('hello'), 'no Hello while data comes')
  station.wait(61_000)
  t.ok(station.take().includes('hello'))
  for (let i = 0; i < 30; i++) {
    station.input({ type: 'alive' })
    station.wait(20_000)
  }
  t.equal(station.last('tunnel-down'), undefined)
})

t.test('retransmissions wait 1, 2, 4, 8, 8 s and the tunnel is lost after 31 s (5.8)', async t => {
  const { station } = stationIn('wait-ctl-reply', { setupTimeoutMs: 100_000 })
  const times: number[] = []
  for (let ms = 0; ms < 40_000; ms += 100) {
    station.take()
    station.wait(100)
    if (station.sent.length > 0) times.push(station.nowMs)
  }
  t.same(times, [1_000, 3_000, 7_000, 15_000, 23_000])
  t.match(station.last('tunnel-down'), { wasUp: false, reason: { cause: 'lost-carrier' } })
})

t.test('a tunnel that is never completed is closed by its setup deadline', async t => {
  const { station, script } = stationIn('wait-ctl-conn')
  for (let i = 0; i < 5; i++) {
    station.wait(5_000)
    script.ns = 1
    script.say({ type: 'hello' })
  }
  station.wait(10_000)
  t.match(station.last('tunnel-down'), { reason: { cause: 'setup-timeout' } })
  station.wait(40_000)
  t.equal(station.types().at(-1), 'closed')
})

t.test('a tunnel without calls is closed when configured so', async t => {
  const pair = new Pair({ server: { emptyTimeoutMs: 30_000 } })
  pair.dial()
  pair.link.run(100_000)
  t.equal(pair.server.last('tunnel-down'), undefined)
  const sessionId = pair.client.last('call-up')?.sessionId ?? 0
  pair.fromClient({ type: 'close-call', sessionId, cause: 'user-request' })
  pair.link.run(29_000)
  t.equal(pair.server.last('tunnel-down'), undefined)
  pair.link.run(3_000)
  t.match(pair.client.last('tunnel-down'), { by: 'peer' })
})

t.test('acknowledgements wait for company, duplicates are acknowledged at once', async t => {
  const { station, script } = stationIn('established')
  station.take()
  script.say({ type: 'hello' })
  t.same(station.take(), [])
  station.wait(250)
  t.same(station.take(), ['zlb'])
  script.ns--
  script.say({ type: 'hello' })
  t.same(station.take(), ['zlb'])
  t.equal(station.counters.get('l2tp-duplicate'), 1)
})

t.test('messages inside the window wait for their turn; outside they are dropped', async t => {
  const { station, script } = stationIn('established')
  station.take()
  script.ns = 3
  script.say({ type: 'wen', callErrors: noErrors })
  t.equal(station.events.filter(e => e.type === 'unexpected').length, 0)
  script.ns = 200
  script.say({ type: 'stopccn', assignedTunnelId: 77 })
  t.equal(station.machine.state, 'established', 'far out of the window')
  t.equal(station.counters.get('l2tp-out-of-window'), 1)
  script.ns = 2
  script.say(icrq())
  t.same(
    station.take().filter(one => one !== 'zlb'),
    ['icrp'],
  )
  t.equal(station.counters.get('l2tp-out-of-order'), 1)
  t.equal(station.counters.get('l2tp-unknown-session'), 1, 'the held message came after')
})

const noErrors = {
  crcErrors: 0,
  framingErrors: 0,
  hardwareOverruns: 0,
  bufferOverruns: 0,
  timeoutErrors: 0,
  alignmentErrors: 0,
}

t.test('an acknowledgement of what was never sent is ignored', async t => {
  const { station } = stationIn('wait-ctl-reply')
  const bytes = encodeControl(sccrp())
  encodeControlHeader(bytes, 0, bytes.length, 5, 0, 0, 9)
  station.input({ type: 'packet', bytes })
  t.equal(station.machine.state, 'wait-ctl-reply')
  t.equal(station.counters.get('l2tp-nr-not-sent'), 1)
})

t.test('the window opens by slow start, closes on loss, and obeys the peer (App. A)', async t => {
  const sent: Uint8Array[] = []
  const channel = new ControlChannel(4, {
    transmit: bytes => sent.push(bytes),
    count: () => {},
  })
  channel.setPeerWindow(8, 0)
  const message = () => encodeControl({ type: 'hello' })
  for (let i = 0; i < 40; i++) channel.send(message(), 0, 0)
  const empty = new Uint8Array(0)
  const sizes: number[] = []
  let nr = 0
  for (let i = 0; i < 4; i++) {
    sizes.push(sent.length)
    nr += sent.length
    sent.length = 0
    channel.receive(0, nr, empty, true, 10 * i)
  }
  t.same(sizes, [1, 2, 4, 8])
  t.equal(sent.length, 8, 'never more than the peer allows')
  channel.onTimeout(5_000)
  channel.receive(0, nr + 8, empty, true, 5_010)
  sent.length = 0
  channel.receive(0, nr + 9, empty, true, 5_020)
  t.ok(sent.length <= 4, 'half of the window after a loss')
  for (let i = 0; i < 300; i++) channel.send(message(), 0, 5_020)
  t.equal(channel.send(message(), 0, 5_020), false, 'the queue has an end')
})

t.test('sequence numbers wrap after 65,536 messages', async t => {
  const toB: Uint8Array[] = []
  const toA: Uint8Array[] = []
  const a = new ControlChannel(8, { transmit: bytes => toB.push(bytes), count: () => {} })
  const b = new ControlChannel(8, { transmit: bytes => toA.push(bytes), count: () => {} })
  let received = 0
  for (let i = 0; i < 66_000; i++) {
    a.send(encodeControl({ type: 'hello' }), 0, i)
    for (const bytes of toB.splice(0)) {
      if (b.receive(nsOf(bytes, 0), nrOf(bytes, 0), bytes, false, i) === 'in-order') received++
    }
    b.flushAcknowledgement()
    for (const bytes of toA.splice(0)) a.receive(nsOf(bytes, 0), nrOf(bytes, 0), bytes, true, i)
  }
  t.equal(received, 66_000)
})

t.test('an unverified peer gets at most three times what it sent', async t => {
  const station = new Station(5, { isPeerVerified: false, setupTimeoutMs: 60_000 })
  const bytes = encodeControl(sccrq())
  encodeControlHeader(bytes, 0, bytes.length, 0, 0, 0, 0)
  station.input({ type: 'packet', bytes })
  station.wait(60_000)
  let total = 0
  for (const sent of station.sent) total += sent.length
  t.ok(total > 0 && total <= 3 * bytes.length, `${total} for ${bytes.length} bytes`)
  t.ok(station.counters.get('l2tp-amplification-limit') > 0)
})

t.test('bad messages end what they concern, or nothing', async t => {
  t.test('an unknown mandatory AVP in a tunnel message ends the tunnel with error 8', async t => {
    const { station, script } = stationIn('established')
    station.take()
    const bytes = encodeControl({ type: 'hello' })
    script.raw(Uint8Array.of(...bytes, ...fromHex('800600000063')))
    t.match(station.last('tunnel-down'), { reason: { result: 2, error: 8 } })
    t.same(station.take(), ['stopccn'])
  })
  t.test('in a session message it ends the call only', async t => {
    const { station, script } = stationIn('established')
    script.say(icrq())
    const sessionId = sessionIdFor(station)
    station.take()
    script.raw(Uint8Array.of(...encodeControl(iccn), ...fromHex('800600000063')), sessionId)
    t.match(station.last('call-down'), { wasUp: false, reason: { result: 2, error: 8 } })
    t.same(station.take(), ['cdn'])
    t.equal(station.machine.state, 'established')
  })
  t.test('an unknown message type: mandatory ends the tunnel, optional does nothing', async t => {
    const { station, script } = stationIn('established')
    script.raw(fromHex(`${'00'.repeat(12)}00080000000000c8`))
    t.equal(station.machine.state, 'established')
    script.raw(fromHex(`${'00'.repeat(12)}80080000000000c8`))
    t.equal(station.machine.state, 'closing')
  })
  t.test('a malformed StopCCN still ends the tunnel', async t => {
    const { station, script } = stationIn('established')
    script.raw(Uint8Array.of(...encodeControl({ type: 'stopccn' }), ...fromHex('8003')))
    t.match(station.last('tunnel-down'), { by: 'peer' })
  })
  t.test('messages for sessions that do not exist are counted', async t => {
    const { station, script } = stationIn('established')
    script.say(cdn, 4_242)
    script.say(iccn, 4_242)
    script.say({ type: 'sli', accm: { send: 0, receive: 0 } }, 4_242)
    t.equal(station.counters.get('l2tp-unknown-session'), 3)
    t.equal(station.machine.state, 'established')
  })
  t.test('session messages before the tunnel is up change nothing', async t => {
    const { station, script } = stationIn('wait-ctl-conn')
    script.say(icrq())
    t.match(station.last('unexpected'), { state: 'wait-ctl-conn', message: 'icrq' })
    t.equal(station.machine.callCount, 0)
  })
  t.test('session ID 0, tunnel ID 0 and too many calls are refused', async t => {
    const { station, script } = stationIn('established', { mostCalls: 1 })
    script.say(icrq(0))
    t.match(station.last('call-down'), { reason: { result: 2, error: 3 } })
    script.say(icrq(1))
    script.say(icrq(2))
    t.match(station.last('call-down'), { reason: { cause: 'session-limit', result: 4 } })
    t.equal(station.machine.callCount, 1)
    script.say(ocrq(3))
    t.match(station.last('call-down'), { reason: { cause: 'service-unavailable' } })
    const other = stationIn('idle')
    other.script.say(sccrq({ assignedTunnelId: 0 }), 0, 0)
    t.match(other.station.last('tunnel-down'), { reason: { result: 2, error: 3 } })
  })
  t.test('a CDN by the peer that does not know our session ID finds the call', async t => {
    const { station, script } = stationIn('established')
    script.say(icrq(9))
    script.say(cdn, 0)
    t.match(station.last('call-down'), { by: 'peer' })
  })
  t.test('data, other tunnels and broken headers are counted', async t => {
    const { station } = stationIn('established')
    station.input({ type: 'packet', bytes: fromHex('4002000a00050001ff03') })
    station.input({ type: 'packet', bytes: fromHex('c802000c0009000000000000') })
    station.input({ type: 'packet', bytes: fromHex('c803') })
    t.equal(station.counters.get('l2tp-data-at-control'), 1)
    t.equal(station.counters.get('l2tp-unknown-tunnel'), 1)
    t.equal(station.faults.get(WireFault.truncated), 1)
  })
  t.test('SLI and WEN are reported, Hello is answered', async t => {
    const { station, script } = stationIn('established')
    script.say(icrq())
    const sessionId = sessionIdFor(station)
    script.say(iccn, sessionId)
    script.say({ type: 'sli', accm: { send: 1, receive: 2 } }, sessionId)
    script.say({ type: 'wen', callErrors: { ...noErrors, crcErrors: 4 } }, sessionId)
    t.match(station.last('link-info'), { sessionId, accm: { send: 1, receive: 2 } })
    t.match(station.last('wan-error'), { sessionId, errors: { crcErrors: 4 } })
    t.equal(station.machine.callCount, 1)
  })
})

function sessionIdFor(station: Station): number {
  const bytes = station.sent.findLast(sent => nameOf(sent) === 'icrp')
  if (bytes === undefined) return 0
  const parsed = parseControl(bytes, 0, bytes.length)
  if (parsed.type !== 'message' || parsed.message.type !== 'icrp') return 0
  return parsed.message.assignedSessionId
}

t.test('proxy LCP and authentication, speeds and sequencing reach the LNS', async t => {
  const pair = new Pair({ client: { connectSpeedBps: 54_000_000 } })
  const proxy = {
    lastSentConfReq: fromHex('0104 05dc'),
    lastReceivedConfReq: fromHex('0104 0578'),
    proxyAuthenType: 2,
    proxyAuthenName: fromHex('616c696365'),
    proxyAuthenId: 7,
  }
  pair.fromClient({
    type: 'place-call',
    call: {
      reference: 1,
      direction: 'incoming',
      callingNumber: '555',
      calledNumber: '100',
      subAddress: '2',
      isSequenced: true,
      proxy,
    },
  })
  pair.link.run(3_000)
  t.match(pair.server.last('call-up')?.parameters, {
    callingNumber: '555',
    calledNumber: '100',
    subAddress: '2',
    connectSpeedBps: 54_000_000,
    isSequenced: true,
    proxy,
  })
  const sessionId = pair.server.last('call-up')?.sessionId ?? 0
  pair.fromServer({ type: 'set-link-info', sessionId, accm: { send: 3, receive: 4 } })
  pair.link.run(1_000)
  t.match(pair.client.last('link-info'), { accm: { send: 3, receive: 4 } })
})

t.test('late and early timeouts are harmless', async t => {
  const { station } = stationIn('established')
  station.take()
  for (let i = 0; i < 50; i++) station.input({ type: 'timeout' })
  t.same(station.take(), [])
  station.nowMs += 1_000_000
  station.input({ type: 'timeout' })
  t.equal(station.machine.state, 'established')
})

t.test('data sequence numbers: late ones are dropped, gaps counted, the end wraps', async t => {
  const sequence = new DataSequence()
  t.ok(sequence.accept(0))
  t.notOk(sequence.accept(0), 'a repetition')
  t.ok(sequence.accept(4))
  t.notOk(sequence.accept(2), 'late')
  t.same([sequence.lateCount, sequence.lostCount], [2, 3])
  for (let i = 5; i < 65_536; i++) sequence.accept(i)
  t.ok(sequence.accept(0))
  t.same([sequence.take(), sequence.take()], [0, 1])
})

t.test('the table of tunnels', async t => {
  const table = (limits = {}) => {
    const counters = new Counters()
    const faults = new FaultCounters()
    const random = new SeededRandom(99)
    const made = new TunnelTable<string>({ random, counters, faults, limits })
    const stations: Station[] = []
    const packet = (message: ControlMessage, peerKey: string, nowMs = 0, tunnelId = 0, ns = 0) => {
      const bytes = encodeControl(message)
      encodeControlHeader(bytes, 0, bytes.length, tunnelId, 0, ns, 0)
      const route = made.route(bytes, peerKey, nowMs)
      if (route.type === 'new') {
        const tunnel = made.add(peerKey, 'owner', nowMs, id => {
          const station = new Station(id)
          stations.push(station)
          return station.machine
        })
        tunnel.machine.handle({ type: 'packet', bytes }, nowMs)
      }
      return route
    }
    return { made, counters, faults, packet, stations }
  }
  t.test('a request makes a tunnel, its repetition does not', async t => {
    const { made, packet } = table()
    t.equal(packet(sccrq(), 'sa1').type, 'new')
    t.equal(packet(sccrq(), 'sa1').type, 'tunnel')
    t.equal(made.size, 1)
    t.equal(packet(sccrq(), 'sa2').type, 'new', 'the same ID of another peer is another tunnel')
    t.equal(packet(sccrq(), 'sa1', 60_000).type, 'new', 'a peer that started again')
  })
  t.test('a tunnel belongs to its peer alone', async t => {
    const { made, packet, counters, stations } = table()
    packet(sccrq(), 'sa1')
    const id = stations[0]?.machine.localTunnelId ?? 0
    t.equal(packet({ type: 'scccn' }, 'sa2', 0, id).type, 'drop')
    t.equal(counters.get('l2tp-tunnel-of-another-peer'), 1)
    t.equal(packet({ type: 'scccn' }, 'sa1', 0, id).type, 'tunnel')
    t.equal(packet({ type: 'scccn' }, 'sa1', 0, id ^ 1).type, 'drop')
    t.ok(made.get(id, 'sa1'))
    t.equal(made.ofPeer('sa1').length, 1)
  })
  t.test('limits: per peer, half open, in all; the refusal is small', async t => {
    const { packet, counters, made } = table({ mostPerPeer: 2, mostHalfOpen: 3, mostTunnels: 5 })
    for (let i = 1; i <= 2; i++) t.equal(packet(sccrq({ assignedTunnelId: i }), 'a').type, 'new')
    const refused = packet(sccrq({ assignedTunnelId: 3 }), 'a')
    t.equal(refused.type, 'refuse')
    if (refused.type === 'refuse') {
      t.equal(nameOf(refused.reply), 'stopccn')
      t.equal(tunnelIdOf(refused.reply, 0), 3)
      t.equal(nrOf(refused.reply, 0), 1)
      const request = encodeControl(sccrq())
      t.ok(refused.reply.length < request.length)
    }
    t.equal(packet(sccrq(), 'b').type, 'new')
    t.equal(packet(sccrq(), 'c').type, 'refuse')
    t.equal(counters.get('l2tp-too-many-of-peer'), 1)
    t.equal(counters.get('l2tp-too-many-half-open'), 1)
    for (const tunnel of [...made.tunnels()]) made.remove(tunnel)
    t.equal(made.size, 0)
    t.equal(packet(sccrq(), 'c').type, 'new')
  })
  t.test('strangers without a tunnel get no answer and leave nothing', async t => {
    const { made, packet, faults } = table()
    t.equal(packet({ type: 'scccn' }, 'x').type, 'drop')
    t.equal(packet({ type: 'hello' }, 'x').type, 'drop')
    t.equal(packet(icrq(), 'x').type, 'drop')
    t.equal(packet({ type: 'stopccn', assignedTunnelId: 1 }, 'x').type, 'drop')
    t.equal(packet(sccrq({ assignedTunnelId: 0 }), 'x').type, 'drop')
    t.equal(packet(sccrq(), 'x', 0, 0, 7).type, 'drop', 'not the first message')
    t.equal(made.route(fromHex('c802000c0000000000000000'), 'x', 0).type, 'drop')
    t.equal(made.route(fromHex('ffff'), 'x', 0).type, 'drop')
    t.equal(faults.get(WireFault.truncated), 1)
    t.equal(made.size, 0)
  })
  t.test('a StopCCN before SCCRP arrives finds its tunnel', async t => {
    const { packet, stations } = table()
    packet(sccrq(), 'a')
    const route = packet({ type: 'stopccn', assignedTunnelId: 77 }, 'a', 0, 0, 1)
    t.equal(route.type, 'tunnel')
    t.equal(route.type === 'tunnel' && route.tunnel.machine, stations[0]?.machine)
  })
  t.test('100,000 requests allocate no more than the limits', async t => {
    const { packet, made } = table({ mostPerPeer: 4, mostHalfOpen: 50 })
    for (let i = 0; i < 100_000; i++) {
      packet(sccrq({ assignedTunnelId: (i % 65_535) + 1 }), `peer${i % 1_000}`)
    }
    t.equal(made.size, 50)
  })
})

t.test('arbitrary packets in every state never throw and never run away', async t => {
  const states = Object.keys(controlConnectionTable) as ControlConnectionState[]
  fc.assert(
    fc.property(
      fc.constantFrom(...states),
      fc.array(fc.uint8Array({ maxLength: 80 }), { maxLength: 12 }),
      fc.nat(3),
      (state, bodies, kind) => {
        const { station, script } = stationIn(state)
        for (const body of bodies) {
          if (kind === 0) station.input({ type: 'packet', bytes: body })
          else script.raw(Uint8Array.of(...new Uint8Array(12), ...body), body[0] ?? 0)
          station.wait(body.length * 10)
        }
        station.wait(400_000)
        return station.sent.length < 2_000 && station.machine.callCount <= 64
      },
    ),
    { seed: 2661, numRuns: 600 },
  )
  t.pass('nothing was thrown')
})
