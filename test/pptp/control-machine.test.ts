/** Control messages and the machine of a control connection, in both roles. */
import fc from 'fast-check'
import t from 'tap'
import { concatBytes, copyBytes, fromHex, toHex } from '../../lib/core/bytes.ts'
import { timeout } from '../../lib/core/machine.ts'
import { ControlMachine } from '../../lib/pptp/control-machine.ts'
import type { ControlSettings } from '../../lib/pptp/control-settings.ts'
import { controlTable } from '../../lib/pptp/control-table.ts'
import type { ControlEvent, ControlInput } from '../../lib/pptp/event.ts'
import {
  type ControlMessage,
  type ControlType,
  controlTypes,
  encodeMessage,
  MAX_MESSAGE_BYTES,
  messageBytes,
  parseMessage,
  wholeMessage,
} from '../../lib/pptp/wire/control-message.ts'

/** RFC 2637 §2: the length of each message. */
const lengths: Readonly<Record<ControlType, number>> = {
  'start-control-connection-request': 156,
  'start-control-connection-reply': 156,
  'stop-control-connection-request': 16,
  'stop-control-connection-reply': 16,
  'echo-request': 16,
  'echo-reply': 20,
  'outgoing-call-request': 168,
  'outgoing-call-reply': 32,
  'incoming-call-request': 220,
  'incoming-call-reply': 24,
  'incoming-call-connected': 28,
  'call-clear-request': 16,
  'call-disconnect-notify': 148,
  'wan-error-notify': 40,
  'set-link-info': 24,
}

/** A message of any type, from random bytes behind a good header. */
function messageOf(type: ControlType, body: Uint8Array): ControlMessage {
  const bytes = new Uint8Array(lengths[type])
  bytes.set(copyBytes(body, 0, bytes.length))
  return { ...parseMessage(withHeader(type, bytes), 0) }
}

function withHeader(type: ControlType, bytes: Uint8Array): Uint8Array {
  const number = controlTypes.indexOf(type) + 1
  bytes.set([0, lengths[type], 0, 1, 0x1a, 0x2b, 0x3c, 0x4d, 0, number, 0, 0])
  return bytes
}

/** One machine with what it said. */
class Side {
  readonly machine: ControlMachine
  readonly events: ControlEvent[] = []
  sent: Uint8Array[] = []
  nowMs = 0
  #nextCallId = 0x1001

  constructor(settings: Partial<ControlSettings> = {}) {
    this.machine = new ControlMachine(
      {
        role: 'server',
        hostName: 'openras',
        maxCalls: 4,
        takeCallId: () => this.#nextCallId++,
        ...settings,
      },
      0,
    )
  }

  handle(input: ControlInput | typeof timeout): this {
    if (input.type === 'received') {
      const bytes = copyBytes(input.bytes)
      this.machine.handle({ type: 'received', bytes }, this.nowMs)
      bytes.fill(0xa5)
    } else this.machine.handle(input, this.nowMs)
    for (let out = this.machine.poll(); out !== undefined; out = this.machine.poll()) {
      if (out.type === 'transmit') this.sent.push(out.bytes)
      else this.events.push(out.event)
    }
    return this
  }

  receive(...messages: ControlMessage[]): this {
    return this.handle({ type: 'received', bytes: concatBytes(...messages.map(encodeMessage)) })
  }

  waitUntil(untilMs: number): this {
    while (this.machine.nextDeadlineMs() <= untilMs) {
      this.nowMs = this.machine.nextDeadlineMs()
      this.handle(timeout)
    }
    this.nowMs = untilMs
    return this
  }

  take(): ControlMessage[] {
    return this.sent.splice(0).map(bytes => parseMessage(bytes, 0))
  }

  names(): string[] {
    return this.take().map(message => message.type)
  }

  of<T extends ControlEvent['type']>(type: T): Extract<ControlEvent, { type: T }>[] {
    return this.events.filter((e): e is Extract<ControlEvent, { type: T }> => e.type === type)
  }

  counters(): string[] {
    return this.of('remark').map(event => event.counter)
  }
}

const start = messageOf('start-control-connection-request', fromHex(`${'00'.repeat(12)}0100`))
const callRequest = (callId: number): ControlMessage => ({
  ...(messageOf('outgoing-call-request', new Uint8Array(0)) as Extract<
    ControlMessage,
    { type: 'outgoing-call-request' }
  >),
  callId,
  windowPackets: 3,
})

function established(settings: Partial<ControlSettings> = {}): Side {
  const side = new Side(settings).receive(start)
  side.take()
  return side
}

/** A server with one call, whose peer says `callId`. */
function withCall(callId: number): Side {
  const side = established().receive(callRequest(callId))
  side.handle({ type: 'answer', callId: 0x1001, isAccepted: true })
  return side
}

// ---- codec

t.test('every message has the length of RFC 2637 §2, and comes back as it went', async t => {
  t.equal(MAX_MESSAGE_BYTES, 220)
  for (const type of controlTypes) {
    t.equal(messageBytes(type), lengths[type], type)
    const property = fc.property(fc.uint8Array({ minLength: 220, maxLength: 220 }), body => {
      const message = messageOf(type, body)
      const bytes = encodeMessage(message)
      t.equal(bytes.length, lengths[type])
      if (wholeMessage(bytes, 0, bytes.length) !== bytes.length) return false
      return JSON.stringify(parseMessage(bytes, 0)) === JSON.stringify(message)
    })
    t.doesNotThrow(() => fc.assert(property, { seed: 2637, numRuns: 20 }), type)
  }
})

t.test('a request of Windows reads as its log says', async t => {
  const bytes = fromHex(
    `009c0001 1a2b3c4d 00010000 01000000 00000001 00000001 0000 0a28 ${'00'.repeat(64)}
     4d6963726f736f66742057696e646f7773204e54 ${'00'.repeat(44)}`,
  )
  t.match(parseMessage(bytes, 0), {
    type: 'start-control-connection-request',
    protocolVersion: 0x0100,
    framing: 1,
    bearer: 1,
    maxChannels: 0,
    firmwareRevision: 2600,
    hostName: '',
    vendorName: 'Microsoft Windows NT',
  })
  t.equal(toHex(encodeMessage(parseMessage(bytes, 0))), toHex(bytes))
})

t.test(
  'arbitrary bytes never throw and never let the machine keep more than a message',
  async t => {
    const chunks = fc.array(fc.uint8Array({ maxLength: 300 }), { maxLength: 10 })
    const property = fc.property(chunks, fc.boolean(), (list, hasBegun) => {
      const side = hasBegun ? established() : new Side()
      for (const bytes of list) side.handle({ type: 'received', bytes })
      return side.of('close').length <= 1
    })
    t.doesNotThrow(() => fc.assert(property, { seed: 1723, numRuns: 500 }))
  },
)

t.test('messages that are cut anywhere, or come together, are the same messages', async t => {
  const bytes = concatBytes(
    ...[start, callRequest(7), messageOf('echo-request', new Uint8Array(0))].map(encodeMessage),
  )
  for (const step of [1, 2, 7, 12, 155, 157, bytes.length]) {
    const side = new Side()
    for (let at = 0; at < bytes.length; at += step) {
      side.handle({
        type: 'received',
        bytes: copyBytes(bytes, at, Math.min(bytes.length, at + step)),
      })
    }
    t.same(side.names(), ['start-control-connection-reply', 'echo-reply'], `${step} bytes`)
    t.equal(side.of('call-requested').length, 1)
  }
})

// ---- server

t.test('a call comes, is named by both ids, and goes when the client clears it', async t => {
  const side = withCall(0x0042)
  t.match(side.of('call-requested'), [{ callId: 0x1001, peerCallId: 0x42, peerWindowPackets: 3 }])
  const [reply] = side.take()
  t.match(reply, {
    type: 'outgoing-call-reply',
    callId: 0x1001,
    peerCallId: 0x42,
    resultCode: 1,
    errorCode: 0,
    windowPackets: 64,
  })
  t.equal(side.of('call-up').length, 1)
  side.receive({ type: 'set-link-info', peerCallId: 0x1001, sendAccm: 0, receiveAccm: 0 })
  side.receive({ type: 'call-clear-request', callId: 0x42 })
  t.match(side.take(), [{ type: 'call-disconnect-notify', callId: 0x1001, resultCode: 4 }])
  t.same(side.of('call-down'), [{ type: 'call-down', callId: 0x1001, cause: 'user-request' }])
  side.receive({ type: 'stop-control-connection-request', reason: 1 })
  t.same(side.names(), ['stop-control-connection-reply'])
  t.equal(side.of('close').length, 1)
  t.equal(side.machine.nextDeadlineMs(), Number.POSITIVE_INFINITY)
  t.equal(side.receive(start).sent.length, 0, 'nothing is said after the end')
})

t.test('we end a call, the transport breaks, we stop: each call is down exactly once', async t => {
  const cleared = withCall(1)
  cleared.take()
  cleared.handle({ type: 'clear-call', callId: 0x1001, cause: 'idle-timeout' })
  t.match(cleared.take(), [{ type: 'call-disconnect-notify', callId: 0x1001, resultCode: 3 }])
  cleared.handle({ type: 'clear-call', callId: 0x1001, cause: 'idle-timeout' })
  t.same(
    cleared.of('call-down').map(e => e.cause),
    ['idle-timeout'],
  )

  const broken = withCall(1).handle({ type: 'transport-closed' })
  t.same(
    broken.of('call-down').map(e => e.cause),
    ['lost-carrier'],
  )
  t.equal(broken.of('close').length, 1)

  const stopped = withCall(1)
  stopped.take()
  stopped.handle({ type: 'stop', cause: 'nas-reboot' })
  t.same(stopped.names(), ['call-disconnect-notify', 'stop-control-connection-request'])
  t.same(
    stopped.of('call-down').map(e => e.cause),
    ['nas-reboot'],
  )
  t.equal(stopped.of('close').length, 0)
  stopped.receive({ type: 'stop-control-connection-reply', resultCode: 1, errorCode: 0 })
  t.equal(stopped.of('close').length, 1)

  const silent = withCall(1).handle({ type: 'stop', cause: 'nas-reboot' }).waitUntil(5_000)
  t.same(
    silent.of('close').map(e => e.counter),
    ['stop-timeout'],
  )
})

t.test('one connection carries several calls, but not more than it may', async t => {
  const side = established({ maxCalls: 2 })
  for (const id of [1, 2, 3]) side.receive(callRequest(id))
  t.equal(side.of('call-requested').length, 2)
  t.match(side.take(), [{ type: 'outgoing-call-reply', callId: 0, peerCallId: 3, resultCode: 2 }])
  side.receive(callRequest(2))
  t.ok(side.counters().includes('call-id-repeated'))
  side.handle({ type: 'answer', callId: 0x1001, isAccepted: false })
  t.match(side.take().at(-1), { resultCode: 7, peerCallId: 1 })
  t.equal(side.machine.callCount, 1)
  const exhausted = established({ takeCallId: () => 0 }).receive(callRequest(1))
  t.match(exhausted.take(), [{ resultCode: 2, errorCode: 4 }], 'no id is left')
})

t.test('whoever calls us as a PAC is declined', async t => {
  const side = established()
  const incoming = messageOf('incoming-call-request', new Uint8Array(220).fill(1))
  side.receive(incoming)
  t.match(side.take(), [{ type: 'incoming-call-reply', peerCallId: 0x0101, resultCode: 3 }])
})

t.test('an unknown version is answered and closed', async t => {
  const side = new Side().receive({ ...start, protocolVersion: 0x0200 } as ControlMessage)
  t.match(side.take(), [{ type: 'start-control-connection-reply', resultCode: 5 }])
  t.same(
    side.of('close').map(e => e.counter),
    ['bad-version'],
  )
})

// ---- time

t.test('60 s of silence ask for an echo, 60 more close the connection', async t => {
  const side = withCall(1)
  side.take()
  side.waitUntil(60_000)
  const [echo] = side.take()
  t.equal(echo?.type, 'echo-request')
  side.nowMs = 100_000
  side.receive({ type: 'echo-reply', identifier: 1, resultCode: 1, errorCode: 0 })
  side.waitUntil(159_000)
  t.same(side.names(), [])
  side.waitUntil(220_001)
  t.same(side.names(), ['echo-request'])
  t.same(
    side.of('close').map(e => e.counter),
    ['echo-timeout'],
  )
  t.same(
    side.of('call-down').map(e => e.cause),
    ['lost-carrier'],
  )
})

t.test('strangers get seconds: nothing said, one byte a second, no call', async t => {
  const mute = new Side().waitUntil(60_000)
  t.same(
    mute.of('close').map(e => e.counter),
    ['setup-timeout'],
  )

  const slow = established()
  const bytes = encodeMessage(callRequest(1))
  for (let i = 0; i < 20; i++) {
    slow.handle({ type: 'received', bytes: copyBytes(bytes, i, i + 1) })
    slow.waitUntil((i + 1) * 1000)
  }
  t.same(
    slow.of('close').map(e => e.counter),
    ['message-timeout'],
  )

  const idle = established().waitUntil(40_000)
  t.same(
    idle.of('close').map(e => e.counter),
    ['stop-timeout'],
  )
  t.ok(idle.machine.state === 'closed')
})

t.test('timeouts that come early, late or for nothing do no harm', async t => {
  const side = withCall(1)
  const before = side.events.length
  for (let i = 0; i < 5; i++) side.handle(timeout)
  t.equal(side.events.length, before)
})

// ---- bad input

t.test('a wrong cookie, message type, control type or length closes at once', async t => {
  const good = encodeMessage(start)
  const bad = (at: number, ...values: number[]) => {
    const bytes = copyBytes(good)
    bytes.set(values, at)
    return bytes
  }
  for (const [what, bytes, counter] of [
    ['cookie', bad(4, 0x1a, 0x2b, 0x3c, 0x4e), 'malformed-bad-magic'],
    ['half a cookie', copyBytes(bad(4, 9), 0, 8), 'malformed-bad-magic'],
    ['message type', bad(2, 0, 2), 'malformed-unknown-type'],
    ['control type 0', bad(8, 0, 0), 'malformed-unknown-type'],
    ['control type 16', bad(8, 0, 16), 'malformed-unknown-type'],
    ['too short', bad(0, 0, 155), 'malformed-length-too-small'],
    ['too long', bad(0, 0xff, 0xff), 'malformed-oversize'],
    ['length 0', bad(0, 0, 0), 'malformed-length-too-small'],
  ] as const) {
    const side = new Side().handle({ type: 'received', bytes })
    t.same(side.counters(), [counter], what)
    t.same(
      side.of('close').map(e => e.counter),
      ['undelineable'],
      what,
    )
    t.equal(side.sent.length, 0, what)
  }
})

t.test('a message that the table does not want changes nothing but a counter', async t => {
  for (const type of controlTypes) {
    const reaction = controlTable.established[type]
    if (reaction !== null) continue
    const side = withCall(1)
    side.take()
    const callsBefore = side.machine.callCount
    side.receive(messageOf(type, new Uint8Array(220)))
    t.ok(side.counters().includes(`unexpected-${type}`), type)
    t.equal(side.machine.state, 'established', type)
    t.equal(side.machine.callCount, callsBefore, type)
    t.same(side.take(), [], type)
  }
  for (const type of controlTypes) {
    if (controlTable['wait-request'][type] !== 'violation') continue
    const side = new Side().receive(messageOf(type, new Uint8Array(220)))
    t.same(
      side.of('close').map(e => e.counter),
      ['violation'],
      type,
    )
    t.equal(side.sent.length, 0, type)
  }
})

t.test('ends of calls that do not exist are counted', async t => {
  const side = established()
  side.receive({ type: 'call-clear-request', callId: 9 })
  side.receive(messageOf('call-disconnect-notify', new Uint8Array(0)))
  side.receive(messageOf('outgoing-call-reply', new Uint8Array(0)))
  t.same(side.counters(), ['clear-of-no-call', 'disconnect-of-no-call', 'reply-to-no-call'])
  t.same(side.take(), [])
})

// ---- both roles

/** Carries what each says to the other until both are silent. */
function exchange(a: Side, b: Side): void {
  for (let i = 0; i < 50 && a.sent.length + b.sent.length > 0; i++) {
    for (const bytes of a.sent.splice(0)) b.handle({ type: 'received', bytes })
    for (const bytes of b.sent.splice(0)) a.handle({ type: 'received', bytes })
  }
}

t.test(
  'our client and our server: a call up, the ids crossed, and down from either side',
  async t => {
    for (const who of ['client', 'server'] as const) {
      const server = new Side()
      const client = new Side({ role: 'client', hostName: 'me', maxCalls: 1 })
      client.handle({ type: 'open' })
      exchange(client, server)
      t.match(server.of('established'), [{ hostName: 'me', vendorName: 'OpenRAS' }])
      client.handle({ type: 'place-call' })
      exchange(client, server)
      const [{ callId } = { callId: 0 }] = server.of('call-requested')
      server.handle({ type: 'answer', callId, isAccepted: true })
      exchange(client, server)
      const [up] = client.of('call-up')
      const [serverUp] = server.of('call-up')
      t.equal(up?.peerCallId, serverUp?.callId)
      t.equal(up?.callId, serverUp?.peerCallId)
      const side = who === 'client' ? client : server
      const clearId = (who === 'client' ? up?.callId : serverUp?.callId) ?? 0
      side.handle({ type: 'clear-call', callId: clearId, cause: 'user-request' })
      exchange(client, server)
      t.equal(client.of('call-down').length, 1, who)
      t.equal(server.of('call-down').length, 1, who)
      client.handle({ type: 'stop', cause: 'user-request' })
      exchange(client, server)
      t.equal(client.of('close').length, 1, who)
      t.equal(server.of('close').length, 1, who)
    }
  },
)

t.test('a server that refuses connection or call, or says nothing, is given up', async t => {
  const refused = new Side({ role: 'client' }).handle({ type: 'open' })
  const reply = messageOf('start-control-connection-reply', new Uint8Array(220).fill(2))
  refused.receive(reply)
  t.same(
    refused.of('close').map(e => e.counter),
    ['start-refused'],
  )

  const client = new Side({ role: 'client' }).handle({ type: 'open' })
  const ok = { ...reply, resultCode: 1, protocolVersion: 0x0100 } as ControlMessage
  client.receive(ok).handle({ type: 'place-call' })
  const no = messageOf('outgoing-call-reply', new Uint8Array(0)) as Extract<
    ControlMessage,
    { type: 'outgoing-call-reply' }
  >
  client.receive({ ...no, peerCallId: 0x1001, resultCode: 4 })
  t.same(
    client.of('call-down').map(e => e.cause),
    ['service-unavailable'],
  )

  const silent = new Side({ role: 'client' }).handle({ type: 'open' })
  silent.receive(ok).handle({ type: 'place-call' }).waitUntil(31_000)
  t.same(
    silent.of('call-down').map(e => e.cause),
    ['setup-timeout'],
  )
  silent.receive(callRequest(3))
  t.ok(silent.counters().includes('call-to-client'))
})
