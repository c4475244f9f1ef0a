/** Enhanced GRE: the header, order and acknowledgments of a call, and what strangers send. */
import fc from 'fast-check'
import t from 'tap'
import { copyBytes, fromHex, toHex } from '../../lib/core/bytes.ts'
import { ManualClock } from '../../lib/core/clock.ts'
import { WireFault } from '../../lib/core/faults.ts'
import { noRoom } from '../../lib/core/packet-sink.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { TimerWheel } from '../../lib/core/timers.ts'
import { createMemoryDataplane } from '../../lib/dataplane/index.ts'
import type { Link } from '../../lib/ppp/carrier.ts'
import { PlainSealer } from '../../lib/ppp/frame-sealers.ts'
import { GreCall } from '../../lib/pptp/gre-call.ts'
import { GreHub } from '../../lib/pptp/gre-hub.ts'
import { SendWindow } from '../../lib/pptp/send-window.ts'
import {
  checkGre,
  greAcknowledgment,
  greCallId,
  greHeaderBytes,
  grePayloadBytes,
  greSequence,
  putGreAcknowledgment,
  putGreData,
  putGreDataWithAcknowledgment,
} from '../../lib/pptp/wire/gre.ts'
import { FakePacketSocket } from './packet-socket.ts'

const peer = 0xc0000202
const stranger = 0xc0000263
const local = 0xc0000201
const callId = 0x1234
const peerCallId = 0x00ab

interface SetUp {
  readonly isWithoutLink?: boolean
  readonly window?: SendWindow
}

function setUp({ isWithoutLink = false, window }: SetUp = {}) {
  const { dataplane } = createMemoryDataplane({
    memoryBytes: 8 * 1024 * 1024,
    streamSlotCount: 16,
    intakeBytes: 65_536,
  })
  const clock = new ManualClock()
  const wheel = new TimerWheel(0)
  const socket = new FakePacketSocket(dataplane.memory)
  const hub = new GreHub(socket, dataplane, () => {})
  hub.start()
  const delivered: string[] = []
  const call = new GreCall(
    {
      socket,
      dataplane,
      reorderSlots: hub.reorderSlots,
      waitingRoom: hub.waitingRoom,
      ...(window !== undefined && { window }),
      wheel,
      localAddress: local,
      peerAddress: peer,
      peerCallId,
      nowMs: () => clock.nowMs(),
    },
    new PlainSealer(dataplane.memory.bytes),
  )
  const link: Link = {
    receive: (at, length) => {
      delivered.push(toHex(copyBytes(dataplane.memory.bytes, at, at + length)))
    },
    permitTraffic: () => {},
    carrierLost: () => {},
  }
  if (!isWithoutLink) call.link = link
  call.permit(true)
  hub.add(callId, call)
  return {
    ...{ dataplane, clock, wheel, socket, hub, call, delivered },
    receive: (...packets: Uint8Array[]) => socket.receive(packets, peer, local),
    advance(ms: number) {
      for (let i = 0; i < ms; i += 50) {
        clock.advance(50)
        wheel.advance(clock.nowMs())
      }
    },
    send(packet: Uint8Array): boolean {
      const at = call.reserve(packet.length)
      if (at === noRoom) return false
      dataplane.memory.bytes.set(packet, at)
      call.commit(at, packet.length)
      return true
    },
  }
}

/** Sequence `n` with its own number as payload. */
function data(n: number, to = callId): Uint8Array {
  const out = new Uint8Array(16)
  const at = putGreData(out, 0, 4, to, n >>> 0)
  out.set([n >>> 24, n >>> 16, n >>> 8, n], at)
  return out
}

const payload = (n: number) => (n >>> 0).toString(16).padStart(8, '0')

t.test('headers are those that stock clients send, byte for byte', async t => {
  const out = new Uint8Array(16).fill(0xa5)
  t.equal(putGreData(out, 0, 0x20, 0xabcd, 7), 12)
  t.equal(toHex(copyBytes(out, 0, 12)), '3001880b0020abcd00000007')
  t.equal(putGreDataWithAcknowledgment(out, 0, 0x20, 0xabcd, 7, 0xfffffffe), 16)
  t.equal(toHex(out), '3081880b0020abcd00000007fffffffe')
  t.equal(greHeaderBytes(out, 0), 16)
  t.same(
    [greCallId(out, 0), grePayloadBytes(out, 0), greSequence(out, 0), greAcknowledgment(out, 0)],
    [0xabcd, 0x20, 7, 0xfffffffe],
  )
  t.equal(putGreAcknowledgment(out, 0, 0xabcd, 9), 12)
  t.equal(toHex(copyBytes(out, 0, 12)), '2081880b0000abcd00000009')
  t.equal(greAcknowledgment(out, 0), 9)
})

t.test('what is not enhanced GRE has a name', async t => {
  const check = (hex: string) => {
    const bytes = fromHex(hex)
    return checkGre(bytes, 0, bytes.length)
  }
  t.equal(check('3001880b 0000 0001 00000000'), WireFault.none)
  t.equal(check('2081880b 0000 0001 00000000 0000'), WireFault.none, 'padding is ignored')
  t.equal(check('3001880b 0000'), WireFault.truncated)
  t.equal(check('3000880b 0000 0001 00000000'), WireFault['bad-version'])
  t.equal(check('30010800 0000 0001 00000000'), WireFault['bad-magic'])
  t.equal(check('b001880b 0000 0001 00000000'), WireFault['bad-flags'], 'checksum')
  t.equal(check('7001880b 0000 0001 00000000'), WireFault['bad-flags'], 'routing')
  t.equal(check('1001880b 0000 0001 00000000'), WireFault['bad-flags'], 'no key')
  t.equal(check('3009880b 0000 0001 00000000'), WireFault['bad-flags'], 'reserved')
  t.equal(check('2001880b 0004 0001 00000000'), WireFault['bad-flags'], 'payload, no sequence')
  t.equal(check('3001880b 0005 0001 00000000 00000000'), WireFault['length-overrun'])
  t.equal(check('3081880b 0000 0001 00000000'), WireFault['length-overrun'], 'no acknowledgment')
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), bytes => {
        const fault = checkGre(bytes, 0, bytes.length)
        return fault !== 0 || greHeaderBytes(bytes, 0) + grePayloadBytes(bytes, 0) <= bytes.length
      }),
      { seed: 47, numRuns: 2000 },
    ),
  )
})

t.test('packets leave with their numbers; acknowledgments ride on them', async t => {
  const pair = setUp()
  const packet = fromHex('45000014 00000000 40110000 0a000001 0a000002')
  t.ok(pair.send(packet))
  pair.receive(data(0), data(1))
  t.ok(pair.send(packet))
  pair.call.flush()
  const [first, second] = pair.socket.sent.map(sent => toHex(sent.bytes))
  t.equal(first, `3001880b001800ab00000000ff030021${toHex(packet)}`)
  t.equal(second, `3081880b001800ab0000000100000001ff030021${toHex(packet)}`)
  t.match(pair.socket.sent[0], { source: local, destination: peer })
  pair.advance(500)
  t.equal(pair.socket.sent.length, 2, 'nothing is left to acknowledge')
  t.ok(pair.socket.isWhole)
})

t.test(
  'an acknowledgment without data comes soon, and at once when half a window waits',
  async t => {
    const pair = setUp()
    pair.receive(data(0))
    t.equal(pair.socket.sent.length, 0)
    pair.advance(150)
    t.equal(toHex(pair.socket.sent[0]?.bytes ?? new Uint8Array(0)), '2081880b000000ab00000000')
    pair.receive(...Array.from({ length: 32 }, (_, i) => data(i + 1)))
    t.equal(toHex(pair.socket.sent[1]?.bytes ?? new Uint8Array(0)), '2081880b000000ab00000020')
    pair.advance(500)
    t.equal(pair.socket.sent.length, 2)
  },
)

t.test('early packets wait for those before them, but not for long', async t => {
  const pair = setUp()
  pair.receive(data(5), data(8), data(6), data(8), data(5))
  t.same(pair.delivered, [5, 6].map(payload), 'the first may be any')
  pair.receive(data(7))
  t.same(pair.delivered, [5, 6, 7, 8].map(payload))
  pair.receive(data(11), data(10), data(13))
  t.equal(pair.delivered.length, 4)
  pair.advance(50)
  t.equal(pair.delivered.length, 4, 'not before its time')
  pair.advance(100)
  t.same(pair.delivered.slice(4), [10, 11].map(payload), '9 is given up')
  pair.advance(150)
  t.same(pair.delivered.slice(6), [13].map(payload))
  t.equal(pair.call.lostPackets, 2)
  t.equal(pair.call.droppedStale, 2)
})

t.test('the numbers wrap, and any order within the window is put right', async t => {
  const pair = setUp()
  const random = new SeededRandom(5)
  const numbers = Array.from({ length: 400 }, (_, i) => (0xffffff00 + i) >>> 0)
  const shuffled = numbers
    .map((n, i) => ({ n, at: i + (i === 0 ? 0 : 1 + (random.next() % 20)) }))
    .sort((a, b) => a.at - b.at)
  for (const { n } of shuffled) pair.receive(data(n))
  pair.advance(300)
  t.same(pair.delivered, numbers.map(payload))
})

t.test('a jump must be confirmed: one forged packet stops nobody', async t => {
  const pair = setUp()
  pair.receive(data(0), data(65_535), data(1), data(1_000_000), data(2))
  t.same(pair.delivered, [0, 1, 2].map(payload))
  t.equal(pair.call.droppedJump, 2)
  pair.receive(data(70_000), data(70_001), data(70_002))
  t.same(pair.delivered.slice(3), [70_001, 70_002].map(payload), 'a peer that means it')
  pair.receive(data(70_040), data(70_100))
  t.same(pair.delivered.slice(5), [70_040, 70_100].map(payload), 'a loss within reason')
})

t.test('unknown calls, other sources, plain nonsense: counted, and no more', async t => {
  const pair = setUp()
  pair.receive(data(0, 0x4321))
  pair.socket.receive([data(0)], stranger)
  pair.receive(fromHex('00000800'), fromHex('3001880b 0000 1234 00000000'))
  pair.receive(putAck(callId))
  t.same(pair.delivered, [])
  t.match(pair.hub.counters, { droppedUnknownCall: 1, droppedWrongSource: 1 })
  t.equal(pair.hub.counters['malformed-truncated'], 1)
  pair.hub.forget(callId)
  pair.receive(putAck(callId), data(1))
  t.equal(pair.hub.counters['droppedUnknownCall'], 3, 'an acknowledgment without a call')
})

function putAck(id: number): Uint8Array {
  const out = new Uint8Array(12)
  putGreAcknowledgment(out, 0, id, 0xffffffff)
  return out
}

t.test('a call that ends gives everything back and says nothing more', async t => {
  const pair = setUp()
  pair.receive(data(0), ...Array.from({ length: 20 }, (_, i) => data(i + 3)))
  const free = pair.hub.reorderSlots.freeCount
  pair.call.close()
  t.equal(pair.hub.reorderSlots.freeCount, free + 20)
  t.equal(pair.send(new Uint8Array(20)), false)
  t.equal(pair.call.sendFrame(new Uint8Array(20)), false)
  pair.advance(1000)
  t.equal(pair.socket.sent.length, 0)
  t.equal(pair.wheel.size, 0)
})

t.test('packets before the link, or too long, are counted; slots never leak', async t => {
  const pair = setUp({ isWithoutLink: true })
  pair.receive(data(0), data(1))
  t.equal(pair.call.droppedWithoutLink, 2)
  t.equal(pair.call.reserve(4000), noRoom)
  t.equal(pair.call.droppedTooLong, 1)
  pair.call.permit(false)
  t.equal(pair.call.reserve(40), noRoom)
  t.equal(pair.call.droppedNotPermitted, 1)
  t.equal(pair.call.sendFrame(new Uint8Array(3000)), false)
  t.ok(pair.socket.isWhole)
})

t.test('call ids are drawn at random, never 0, never one that lives', async t => {
  const { hub } = setUp()
  const queue = [0, 0x1234, 0x4242]
  const random = {
    fill(out: Uint8Array) {
      const id = queue.shift() ?? 0x1234
      out.set([id >>> 8, id])
    },
  }
  t.equal(hub.takeCallId(random), 0x4242)
  t.equal(hub.takeCallId(random), 0, 'given up when nothing free is drawn')
})

// ---- the peer's window

/** Lets `count` packets leave and be acknowledged after `roundTripMs` each. */
function acknowledge(window: SendWindow, clock: ManualClock, count: number, roundTripMs: number) {
  for (let i = 0; i < count; i++) {
    const { outstandingPackets } = window
    window.sent(clock.nowMs())
    clock.advance(roundTripMs)
    const sequence = nextOf(window) - 1 - outstandingPackets
    window.acknowledged(sequence >>> 0, clock.nowMs())
  }
}

/** Sequence number that is due: all that was sent so far, when nothing is given up. */
const sequences = new WeakMap<SendWindow, number>()
function nextOf(window: SendWindow): number {
  const next = (sequences.get(window) ?? 0) + 1
  sequences.set(window, next)
  return next
}

t.test('the window begins at half, opens with each window that is acknowledged', async t => {
  const clock = new ManualClock()
  const window = new SendWindow(8)
  t.equal(window.sizePackets, 4, 'RFC 2637 §4.2.1')
  t.ok(window.isOpen, 'nothing is waited for before the first acknowledgment')
  acknowledge(window, clock, 4, 10)
  t.equal(window.sizePackets, 5)
  acknowledge(window, clock, 5 + 6, 10)
  t.equal(window.sizePackets, 7)
  acknowledge(window, clock, 100, 10)
  t.equal(window.sizePackets, 8, 'never more than the peer offered')
  for (const [offered, first] of [
    [0, 1],
    [1, 1],
    [3, 2],
    [65_535, 128],
  ] as const) {
    t.equal(new SendWindow(offered).sizePackets, first, `${offered} offered`)
  }
})

t.test('time-outs adapt to the round trip, and halve the window (RFC 2637 §4.4)', async t => {
  const clock = new ManualClock()
  const window = new SendWindow(64, 300)
  t.equal(window.roundTripMs, 300, 'the processing delay is the first guess')
  acknowledge(window, clock, 60, 900)
  t.ok(Math.abs(window.roundTripMs - 900) < 5, `${window.roundTripMs}`)
  t.ok(window.timeoutMs >= 900 && window.timeoutMs < 1100, `${window.timeoutMs}`)
  const { sizePackets } = window
  window.sent(clock.nowMs())
  t.equal(window.deadlineMs, clock.nowMs() + window.timeoutMs)
  window.expire()
  t.equal(window.sizePackets, Math.ceil(sizePackets / 2))
  t.ok(window.roundTripMs > 1790, 'doubled')
  t.equal(window.outstandingPackets, 0, 'what was on its way counts as lost')
  t.equal(window.deadlineMs, Number.POSITIVE_INFINITY)
  for (let i = 0; i < 2; i++) {
    t.ok(window.isObeyed)
    window.sent(clock.nowMs())
    window.expire()
  }
  t.notOk(window.isObeyed, 'three in a row: this path swallows acknowledgments')
  t.ok(window.isOpen)
  window.sent(clock.nowMs())
  t.equal(window.deadlineMs, Number.POSITIVE_INFINITY)
  t.ok(window.acknowledged(60, clock.nowMs()), 'a late one')
  t.ok(window.isObeyed, 'and it is waited for again')
  t.notOk(window.acknowledged(1000, clock.nowMs()), 'what was never sent')
  t.ok(window.timeoutMs <= 4000)
})

t.test('where the window is obeyed packets wait for it in their order, and for a time', async t => {
  const window = new SendWindow(4)
  const pair = setUp({ window })
  const packet = (n: number) => Uint8Array.of(0x45, n)
  const numbers = () => pair.socket.sent.map(({ bytes }) => bytes.at(-1))
  for (let n = 0; n < 6; n++) pair.send(packet(n))
  pair.call.flush()
  t.same(numbers(), [0, 1, 2, 3, 4, 5], 'who never acknowledged is not waited for')
  const ackOf = (n: number) => {
    const out = new Uint8Array(12)
    putGreAcknowledgment(out, 0, callId, n)
    return out
  }
  pair.receive(ackOf(5))
  for (let n = 6; n < 16; n++) pair.send(packet(n))
  t.ok(pair.call.sendFrame(fromHex('ff03c021 09010008 00000000')), 'a control frame waits, too')
  pair.call.flush()
  const { sizePackets } = window
  t.equal(pair.socket.sent.length, 6 + sizePackets, `${sizePackets} are on their way`)
  pair.receive(ackOf(5 + sizePackets))
  t.ok(pair.socket.sent.length > 6 + sizePackets)
  t.same(numbers().slice(0, 9), [0, 1, 2, 3, 4, 5, 6, 7, 8], 'in order')
  for (let i = 0; i < 40 && pair.socket.sent.length < 17; i++) pair.advance(500)
  t.equal(pair.socket.sent.length, 17, 'time-outs let the rest go')
  t.ok(pair.call.windowTimeouts > 0)
  t.equal(pair.hub.waitingRoom.freeCount, 256)
  pair.receive(ackOf(16), ackOf(0x7fff0000))
  t.equal(pair.call.droppedAcknowledgments, 1, 'of what was never sent')
  for (let n = 0; n < 80; n++) pair.send(packet(n))
  t.equal(pair.call.droppedWindow, 80 - 56 - window.sizePackets, 'no more than 56 wait')
  for (let i = 0; i < 9; i++) pair.call.sendFrame(fromHex('ff03c021 09010008 00000000'))
  t.equal(pair.call.droppedWindow, 80 - 56 - window.sizePackets + 1, 'and 8 control frames')
  pair.call.close()
  t.equal(pair.hub.waitingRoom.freeCount, 256)
  t.ok(pair.socket.isWhole)
})
