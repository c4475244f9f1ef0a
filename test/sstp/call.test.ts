import fc from 'fast-check'
import t from 'tap'
import { concatBytes, copyBytes, fromHex, toHex } from '../../lib/core/bytes.ts'
import { ManualClock } from '../../lib/core/clock.ts'
import type { DisconnectCause } from '../../lib/core/disconnect-cause.ts'
import { noRoom } from '../../lib/core/packet-sink.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { TimerWheel } from '../../lib/core/timers.ts'
import { Call } from '../../lib/sstp/call.ts'
import { callConnectedBytes } from '../../lib/sstp/crypto-binding.ts'
import { elsewhere } from '../../lib/sstp/landing.ts'
import { PacketPacker } from '../../lib/sstp/packet-packer.ts'
import { ServerCallMachine } from '../../lib/sstp/server-call-machine.ts'
import { frameBytes } from '../../lib/sstp/wire/frame.ts'
import { messageBytes } from '../../lib/sstp/wire/message.ts'
import { StreamDataplane } from '../support/sstp-dataplane.ts'
import { FakeLinks } from '../support/sstp-link.ts'

const certificate = new Uint8Array(600).fill(0x30)
const key = new Uint8Array(32).fill(1)
const lcp = fromHex('ff03c021 01010004')
const connectRequest = messageBytes('call-connect-request', {
  type: 'encapsulated-protocol-id',
  protocol: 1,
})

/** A stream that sends nothing until it is told to. */
class HeldStream {
  readonly sizes: number[] = []
  readonly pending: { bytes: Uint8Array; callback: () => void }[] = []
  sent: Uint8Array = new Uint8Array(0)

  write(bytes: Uint8Array, callback: () => void): void {
    this.sizes.push(bytes.length)
    this.pending.push({ bytes, callback })
  }

  /** The bytes are read only now: who changes them before is found out. */
  release(): Uint8Array {
    for (const { bytes, callback } of this.pending.splice(0)) {
      this.sent = concatBytes(this.sent, bytes)
      callback()
    }
    return this.sent
  }

  end(): void {}

  destroy(): void {}
}

/** The frames that a stream consists of, without SSTP header. */
function framesOf(stream: Uint8Array): string[] {
  const frames: string[] = []
  for (let at = 0; at < stream.length; ) {
    const length = frameBytes(stream, at, stream.length)
    if (length <= 0) throw new Error(`fault ${length} at ${at}`)
    frames.push(toHex(stream.subarray(at + 4, at + length)))
    at += length
  }
  return frames
}

function dataFrame(ppp: Uint8Array): Uint8Array {
  const length = ppp.length + 4
  return concatBytes(Uint8Array.of(0x10, 0, length >>> 8, length), ppp)
}

function setUp(options: { maxIntakeBytes?: number; slots?: number } = {}) {
  const clock = new ManualClock(1_000_000)
  const wheel = new TimerWheel(clock.nowMs())
  const dataplane = new StreamDataplane(options)
  const links = new FakeLinks(dataplane.memory)
  const stream = new HeldStream()
  const remarks: string[] = []
  const ends: DisconnectCause[] = []
  const machine = new ServerCallMachine(
    { hashes: ['sha256'], certificate, random: new SeededRandom(2) },
    clock.nowMs(),
  )
  const call = new Call({ address: '2001:db8::1', port: 5 }, machine, {
    dataplane,
    links,
    clock,
    wheel,
    stream,
    remark: reason => remarks.push(reason),
    established: () => remarks.push('established'),
    ended: cause => ends.push(cause),
  })
  call.start()
  const advance = (byMs: number) => {
    for (let passed = 0; passed < byMs; passed += 50) {
      clock.advance(50)
      wheel.advance(clock.nowMs())
    }
  }
  /** PPP is up and the binding verified. */
  const establish = () => {
    call.receive(connectRequest)
    const nonce = copyBytes(stream.release(), 16, 48)
    call.authenticated(key)
    call.receive(callConnectedBytes('sha256', nonce, certificate, key))
    stream.sent = new Uint8Array(0)
    stream.sizes.length = 0
    const [link] = links.links
    if (link === undefined) throw new Error('no link')
    return link
  }
  return {
    call,
    machine,
    dataplane,
    links,
    stream,
    remarks,
    ends,
    clock,
    wheel,
    advance,
    establish,
  }
}

t.test('frames are the same however the stream is cut', async t => {
  const frame = fc.uint8Array({ minLength: 1, maxLength: 60 }).map(dataFrame)
  const cuts = fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 20 })
  fc.assert(
    fc.property(fc.array(frame, { maxLength: 20 }), cuts, (frames, sizes) => {
      const { call, establish } = setUp()
      const link = establish()
      const bytes = concatBytes(...frames)
      for (let at = 0, i = 0; at < bytes.length; i++) {
        const end = Math.min(bytes.length, at + (sizes[i % sizes.length] ?? 1))
        const chunk = copyBytes(bytes, at, end)
        call.receive(chunk)
        chunk.fill(0xa5)
        at = end
      }
      t.same(
        link.received,
        frames.map(one => toHex(one.subarray(4))),
      )
    }),
    { seed: 20260105, numRuns: 200 },
  )
})

t.test('frames are the same wherever the stream lands, in packet memory or outside', async t => {
  const frame = fc.uint8Array({ minLength: 1, maxLength: 60 }).map(dataFrame)
  const landings = fc.array(
    fc.record({ bytes: fc.integer({ min: 1, max: 90 }), isInPlace: fc.boolean() }),
    { minLength: 1, maxLength: 20 },
  )
  fc.assert(
    fc.property(fc.array(frame, { maxLength: 20 }), landings, (frames, plan) => {
      const { call, establish, dataplane } = setUp()
      const link = establish()
      const { bytes } = dataplane.memory
      const stream = concatBytes(...frames)
      // Two places behind the intake, with room before them, which are used in turn.
      const places = [0x8000, 0xa000].map(at => dataplane.maxIntakeBytes + at)
      const landingOf = (i: number) => plan[i % plan.length] ?? { bytes: 1, isInPlace: false }
      for (let at = 0, i = 0; at < stream.length; i++) {
        const { bytes: lengthBytes, isInPlace } = landingOf(i)
        const chunk = copyBytes(stream, at, Math.min(stream.length, at + lengthBytes))
        const [here = 0, next = 0] = i % 2 === 0 ? places : places.toReversed()
        if (isInPlace) {
          bytes.set(chunk, here)
          call.receiveInPlace(here, chunk.length, landingOf(i + 1).isInPlace ? next : elsewhere)
          bytes.fill(0xa5, here - 4096, here + chunk.length)
        } else call.receive(chunk)
        at += chunk.length
      }
      t.same(
        link.received,
        frames.map(one => toHex(one.subarray(4))),
      )
    }),
    { seed: 20261121, numRuns: 300 },
  )
})

t.test(
  'the longest frames come through byte by byte, and a chunk larger than the intake too',
  async t => {
    const { call, establish, dataplane } = setUp({ maxIntakeBytes: 6000 })
    const link = establish()
    const longest = new Uint8Array(4091).map((_, i) => i)
    const stream = concatBytes(dataFrame(longest), dataFrame(lcp), dataFrame(longest))
    for (const byte of stream) call.receive(Uint8Array.of(byte))
    t.same(link.received, [toHex(longest), toHex(lcp), toHex(longest)])
    link.frames.length = 0
    call.receive(concatBytes(stream, stream, stream))
    t.same(
      link.received,
      Array(3)
        .fill([toHex(longest), toHex(lcp), toHex(longest)])
        .flat(),
    )
    t.equal(dataplane.maxIntakeBytes, 6000)
    t.equal(call.counters.receivedFrames, 12)
  },
)

t.test(
  'data before there is a link is dropped and counted, data before the binding is counted',
  async t => {
    const { call, links } = setUp()
    call.receive(dataFrame(lcp))
    t.equal(call.counters.droppedWithoutLink, 1)
    call.receive(connectRequest)
    const [link] = links.links
    for (const hex of ['ff030021 45', '0021 45', '21 45', 'ff0321 45', 'ff030057 60']) {
      call.receive(dataFrame(fromHex(hex)))
    }
    call.receive(dataFrame(lcp))
    call.receive(dataFrame(fromHex('c021 01010004')))
    call.receive(Uint8Array.of(0x10, 0, 0, 4))
    t.equal(call.counters.dataBeforeBinding, 5)
    t.equal(call.counters.emptyFrames, 1)
    t.equal(link?.frames.length, 7)
    t.equal(link?.isPermitted, false)
    t.equal(call.sink.reserve(100), noRoom)
    t.equal(call.counters.droppedNotPermitted, 1)
  },
)

t.test('the carrier tells PPP what it is', async t => {
  const { call, establish } = setUp()
  establish()
  t.match(call, { protocol: 'sstp', peerAddress: '2001:db8::1', peerLabel: '[2001:db8::1]:5' })
  t.equal(call.mruBytes, 4087)
  t.equal(call.sink.mtuBytes, 4087)
  call.setMtu(1400)
  t.equal(call.sink.mtuBytes, 1400)
  call.setMtu(9000)
  t.equal(call.sink.mtuBytes, 4087)
})

t.test(
  'packets are packed into writes of 8 to 16 KiB, in order, with control between them',
  async t => {
    const { establish, stream, dataplane, call } = setUp()
    const link = establish()
    const expected: string[] = []
    for (let i = 0; i < 93; i++) {
      const packet = new Uint8Array(1400).fill(i)
      packet[0] = i % 2 === 0 ? 0x45 : 0x60
      t.ok(link.send(packet))
      expected.push(`ff0300${i % 2 === 0 ? '21' : '57'}${toHex(packet)}`)
      if (i !== 46) continue
      call.sendFrame(lcp)
      expected.push(toHex(lcp))
    }
    link.carrier.sink.flush()
    const sizes = stream.sizes.filter(size => size > 12)
    t.ok(sizes.length <= 11, `${sizes.length} writes`)
    t.equal(sizes.filter(size => size < 8192).length, 2, 'before the control frame, and the last')
    t.ok(Math.max(...sizes) <= 16384)
    t.same(framesOf(stream.release()), expected)
    t.equal(call.heldSlots, 0)
    t.equal(dataplane.streamSlots.freeCount, 64)
    t.equal(call.counters.sentPackets, 93)
  },
)

t.test('a reserved packet may turn out shorter, and an empty flush writes nothing', async t => {
  const { establish, stream, dataplane } = setUp()
  const { sink } = establish().carrier
  sink.flush()
  t.equal(stream.sizes.length, 0)
  const at = sink.reserve(1000)
  dataplane.memory.bytes.set([0x45, 1, 2], at)
  sink.commit(at, 3)
  const unused = sink.reserve(16)
  t.equal(unused, at + 3 + 8)
  sink.flush()
  t.same(framesOf(stream.release()), ['ff030021450102'])
  t.equal(sink.reserve(4088), noRoom)
  const longest = sink.reserve(4087)
  t.ok(longest > 0)
  dataplane.memory.bytes.fill(0x45, longest, longest + 4087)
  sink.commit(longest, 4087)
  sink.flush()
  t.equal(framesOf(stream.release()).at(-1)?.length, 2 * 4091)
})

t.test('a sealer makes the frames of packets, or none', async t => {
  const { establish, stream, dataplane } = setUp()
  const { carrier } = establish()
  const { bytes } = dataplane.memory
  let isBlocked = false
  t.equal(carrier.isProtected, true)
  carrier.setSealer?.({
    headerBytes: 6,
    seal: (at, lengthBytes) => {
      if (isBlocked) return 0
      bytes.set([0xff, 3, 0, 0x3d, 0xc0, 7], at - 6)
      return 6 + lengthBytes
    },
  })
  const send = (packet: number[]) => {
    const at = carrier.sink.reserve(packet.length)
    bytes.set(packet, at)
    carrier.sink.commit(at, packet.length)
  }
  send([0x45, 1])
  isBlocked = true
  send([0x45, 9, 9, 9])
  isBlocked = false
  send([1, 2, 3])
  carrier.sink.flush()
  t.same(framesOf(stream.release()), ['ff03003dc0074501', 'ff03003dc007010203'])
})

t.test('slow readers share the slots: nobody takes all', async t => {
  const dataplane = new StreamDataplane({ slots: 64 })
  const { memory, streamSlots } = dataplane
  const packers = Array.from({ length: 40 }, () => {
    const stream = new HeldStream()
    const packer = new PacketPacker(memory, streamSlots, stream, 64)
    packer.permit(true)
    return { packer, stream }
  })
  const fill = ({ packer }: (typeof packers)[number]) => {
    for (let i = 0; i < 1000; i++) {
      const at = packer.reserve(4000)
      if (at === noRoom) break
      packer.commit(at, 4000)
    }
    packer.flush()
    return packer.heldSlots
  }
  const held = packers.map(fill)
  t.ok((held[0] ?? 0) >= 16 && (held[0] ?? 0) <= 32, `the first holds ${held[0]}`)
  t.ok((held[1] ?? 0) < (held[0] ?? 0))
  t.ok(
    held.slice(0, 8).every(count => count >= 2),
    held.join(),
  )
  t.equal(streamSlots.freeCount, 64 - held.reduce((sum, count) => sum + count, 0))
  t.ok(packers.every(({ packer }) => packer.droppedNoRoom === 1))
  for (const { stream } of packers) stream.release()
  t.equal(streamSlots.freeCount, 64)
})

t.test('control that piles up ends the call, and nothing is lost before', async t => {
  const { establish, stream, call, ends, remarks, dataplane } = setUp()
  const link = establish()
  let frames = 0
  while (ends.length === 0) {
    call.sendFrame(new Uint8Array(1000))
    frames++
  }
  t.same(ends, ['lost-carrier'])
  t.equal(link.lost, 'lost-carrier')
  t.ok(remarks.includes('control-backlog'))
  t.equal(frames, 66, '64 KiB of frames of 1,004 bytes, and one')
  call.sendFrame(lcp)
  t.equal(call.counters.droppedControl, 1)
  t.equal(framesOf(stream.release()).length, 65)
  t.equal(dataplane.streamSlots.freeCount, 64)
})

t.test('a peer that asks for echoes and never reads ends its own call', async t => {
  const { call, establish, ends } = setUp()
  establish()
  const echo = messageBytes('echo-request')
  for (let i = 0; i < 10_000 && ends.length === 0; i++) call.receive(echo)
  t.same(ends, ['lost-carrier'])
})

t.test('a stream that cannot be followed ends the call at once', async t => {
  for (const hex of [
    '11000008',
    '10000000',
    '10000003',
    '10010004',
    '1000000cff03c02101010004 99',
  ]) {
    const { call, establish, ends, remarks, advance } = setUp()
    const link = establish()
    call.receive(fromHex(`${hex} 00000000`))
    call.receive(dataFrame(lcp))
    t.same(ends, ['protocol-error'], hex)
    t.equal(link.lost, 'protocol-error')
    t.equal(remarks.at(-1), 'undelineable')
    t.equal(link.frames.length, hex.length > 8 ? 1 : 0)
    advance(300_000)
    t.equal(ends.length, 1)
  }
})

t.test('PPP may end the call from inside everything that it is called for', async t => {
  const refusing = setUp()
  refusing.links.isRefusing = true
  refusing.call.receive(connectRequest)
  t.ok(refusing.remarks.includes('link-refused'))
  const inOpen = setUp()
  inOpen.links.onOpen = link => {
    link.carrier.sendFrame(lcp)
    link.carrier.close('session-limit')
  }
  inOpen.call.receive(concatBytes(connectRequest, dataFrame(lcp)))
  t.same(framesOf(inOpen.stream.release()).slice(1), [toHex(lcp), '00060000'])
  t.equal(inOpen.links.links[0]?.frames.length, 0)
  inOpen.advance(6_000)
  t.same(inOpen.ends, ['session-limit'])
  t.equal(inOpen.links.links[0]?.lost, undefined)
  const inReceive = setUp()
  const link = inReceive.establish()
  link.receive = () => link.carrier.close('authentication-failed')
  inReceive.call.receive(concatBytes(dataFrame(lcp), dataFrame(lcp)))
  t.equal(inReceive.call.counters.droppedWithoutLink, 1)
  inReceive.call.receive(messageBytes('call-disconnect-ack'))
  t.same(inReceive.ends, ['authentication-failed'])
})

t.test('nothing passes between PPP and the stream once one of them is gone', async t => {
  const { call, establish, stream, ends, dataplane } = setUp()
  const link = establish()
  link.send(fromHex('45000014'))
  call.receive(messageBytes('call-disconnect'))
  t.equal(link.lost, 'user-request')
  const frames = framesOf(stream.release())
  t.same(frames, ['ff03002145000014', '00070000'], 'what was committed is still sent')
  call.sendFrame(lcp)
  t.equal(call.counters.droppedControl, 1)
  t.equal(link.send(fromHex('45000014')), false)
  call.receive(dataFrame(lcp))
  t.equal(link.frames.length, 0)
  call.transportClosed()
  call.transportClosed()
  t.same(ends, ['user-request'])
  t.equal(dataplane.streamSlots.freeCount, 64)
})

t.test('traffic of any kind keeps the call alive, silence does not', async t => {
  const { call, establish, ends, stream, advance } = setUp()
  const link = establish()
  for (let i = 0; i < 10; i++) {
    advance(50_000)
    call.receive(dataFrame(lcp))
  }
  t.equal(stream.sizes.length, 0, 'no echo was needed')
  advance(62_000)
  t.same(framesOf(stream.release()), ['00080000'])
  call.receive(messageBytes('echo-response'))
  advance(62_000)
  t.equal(framesOf(stream.release()).length, 2)
  advance(65_000)
  t.same(ends, ['lost-carrier'])
  t.equal(link.lost, 'lost-carrier')
})

t.test('a client that goes no further is given up after a minute', async t => {
  const asked = setUp()
  asked.advance(59_000)
  t.equal(asked.stream.sizes.length, 0)
  asked.advance(5_000)
  t.same(asked.ends, ['setup-timeout'])
  const unbound = setUp()
  unbound.call.receive(connectRequest)
  unbound.call.authenticated(key)
  unbound.advance(65_000)
  t.same(unbound.ends, ['setup-timeout'])
  t.equal(unbound.links.links[0]?.lost, 'setup-timeout')
  t.equal(unbound.wheel.size, 0)
})

t.test('an administrator ends a call and PPP is told', async t => {
  const { call, establish, ends, advance } = setUp()
  const link = establish()
  call.shutDown('admin-reset')
  t.equal(link.lost, 'admin-reset')
  advance(6_000)
  t.same(ends, ['admin-reset'])
})

t.test('arbitrary streams never throw', async t => {
  const header = fc
    .tuple(fc.constantFrom(0x10, 0x10, 0x10, 0x11), fc.nat(255), fc.nat(40))
    .map(([version, flags, length]) => Uint8Array.of(version, flags, 0, length))
  const piece = fc.oneof(header, fc.uint8Array({ maxLength: 50 }), fc.constant(connectRequest))
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 20 }), pieces => {
      const { call, ends } = setUp()
      for (const one of pieces) call.receive(one)
      return ends.length <= 1
    }),
    { seed: 20260106, numRuns: 2000 },
  )
  t.pass('all survived')
})
