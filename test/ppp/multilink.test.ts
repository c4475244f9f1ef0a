/** Multilink (RFC 1990): what LCP says, packets in pieces and together again, with loss, in bounded memory. */
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { copyBytes, equalBytes, fromHex, putU16 } from '../../lib/core/bytes.ts'
import { ManualClock } from '../../lib/core/clock.ts'
import { Counters } from '../../lib/core/faults.ts'
import { noRoom, type PacketSink } from '../../lib/core/packet-sink.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { TimerWheel } from '../../lib/core/timers.ts'
import { createMemoryDataplane, StackSlotPool } from '../../lib/dataplane/index.ts'
import type { FrameSealer } from '../../lib/ppp/carrier.ts'
import { PlainSealer } from '../../lib/ppp/frame-sealers.ts'
import { BundleTable } from '../../lib/ppp/multilink/bundle-table.ts'
import { EndpointClass, type MultilinkAgreement } from '../../lib/ppp/multilink/lcp-multilink.ts'
import { LinkInBundle } from '../../lib/ppp/multilink/link-in-bundle.ts'
import {
  fragmentWaitMs,
  leastFragments,
  Reassembler,
  windowFragments,
} from '../../lib/ppp/multilink/reassembler.ts'
import type { MultilinkSettings } from '../../lib/ppp/settings.ts'
import {
  FragmentBit,
  longSequence,
  putFragmentHeader,
  type SequenceForm,
  shortSequence,
} from '../../lib/ppp/wire/multilink.ts'
import { Pair } from './ppp-pair.ts'

const slotCount = 200
const mrruBytes = 2000
const { begin, end } = FragmentBit

const whole = begin | end

/** A reassembler with links, and what came out of it as text. */
function receiving(form: SequenceForm = longSequence, links = 2) {
  const clock = new ManualClock(1000)
  const wheel = new TimerWheel(clock.nowMs())
  const { dataplane } = createMemoryDataplane({ clock })
  const { memory } = dataplane
  const slots = new StackSlotPool(memory, 512, slotCount)
  const counters = new Counters()
  const packets: string[] = []
  const reassembler = new Reassembler(form, mrruBytes, {
    ...{ memory, slots, wheel, counters },
    nowMs: () => clock.nowMs(),
    intake: lengthBytes => dataplane.intake(lengthBytes),
    deliver: (at, lengthBytes) =>
      packets.push(Buffer.from(copyBytes(memory.bytes, at, at + lengthBytes)).toString()),
  })
  const members = Array.from({ length: links }, () => ({ lastSequence: 0 }))
  for (const member of members) reassembler.addLink(member)
  const at = memory.allocate(4096)
  return {
    ...{ reassembler, slots, counters, packets, members },
    feed: (link: number, flags: number, sequence: number, text = '') => {
      const textAt = putFragmentHeader(form, memory.bytes, at, flags, sequence & form.mask)
      memory.bytes.set(Buffer.from(text), textAt)
      reassembler.receive(members[link] ?? { lastSequence: 0 }, at, textAt - at + text.length)
      memory.bytes.fill(0xa5, at, at + 4096)
    },
    raw: (lengthBytes: number) =>
      reassembler.receive(members[0] ?? { lastSequence: 0 }, at, lengthBytes),
    pass: (ms: number) => {
      clock.advance(ms)
      wheel.advance(clock.nowMs())
    },
  }
}

t.test('fragments over two links, in any order, are one packet', async t => {
  const { feed, packets, slots } = receiving()
  feed(0, begin, 0, 'one ')
  feed(1, end, 2, 'three')
  t.same(packets, [])
  feed(0, 0, 1, 'two ')
  t.same(packets, ['one two three'])
  feed(0, whole, 4, 'later')
  feed(1, whole, 3, 'first')
  t.same(packets.slice(1), ['first', 'later'])
  t.equal(slots.freeCount, slotCount)
})

t.test('a fragment is lost once every link has brought a later one, not before', async t => {
  const { feed, packets, counters, slots } = receiving()
  feed(0, begin, 0, 'a')
  // 1 is missing. Link 0 is past it, link 1 may still bring it.
  feed(0, whole, 2, 'two')
  t.same(packets, [])
  feed(1, whole, 3, 'three')
  t.same(packets, ['two', 'three'])
  t.equal(counters.get('multilink-lost'), 1)
  feed(1, end, 1, 'late')
  t.equal(counters.get('multilink-stale'), 1)
  t.equal(slots.freeCount, slotCount)
})

t.test('a silent link does not hold the others up: the wait is short', async t => {
  const { feed, packets, pass, counters } = receiving()
  feed(0, whole, 1, 'one')
  feed(0, whole, 2, 'two')
  pass(fragmentWaitMs - 50)
  t.same(packets, [])
  pass(100)
  t.same(packets, ['one', 'two'])
  t.equal(counters.get('multilink-lost'), 1)
})

t.test('a link that goes away is waited for no more', async t => {
  const { feed, packets, reassembler, members } = receiving()
  feed(0, whole, 1, 'one')
  t.same(packets, [])
  if (members[1] !== undefined) reassembler.removeLink(members[1])
  t.same(packets, ['one'])
})

t.test('beginnings without an end and ends without a beginning cost their packet only', async t => {
  const { feed, packets, counters, slots } = receiving(longSequence, 1)
  feed(0, begin, 0, 'never ')
  feed(0, begin, 1, 'next ')
  feed(0, end, 2, 'whole')
  feed(0, end, 3, 'orphan')
  feed(0, 0, 4, 'orphan')
  feed(0, whole, 5, 'good')
  t.same(packets, ['next whole', 'good'])
  t.equal(counters.get('multilink-incomplete'), 3)
  t.equal(slots.freeCount, slotCount)
})

t.test('multilink fragments that never end take no more than one window of slots', async t => {
  for (const text of ['', 'x', 'y'.repeat(400)]) {
    const { feed, packets, slots, counters } = receiving(longSequence, 1)
    let least = slotCount
    for (let i = 0; i < 5000; i++) {
      feed(0, i % 1000 === 0 ? begin : 0, i, text)
      least = Math.min(least, slots.freeCount)
    }
    t.ok(least >= slotCount - windowFragments, `${slotCount - least} slots`)
    t.same(packets, [])
    const reasons = ['multilink-endless', 'multilink-too-long', 'multilink-no-room']
    t.ok(reasons.some(reason => counters.get(reason) > 0))
    feed(0, whole, 5000, 'alive')
    t.equal(packets.at(-1), 'alive')
    t.equal(slots.freeCount, slotCount)
  }
})

t.test('bundles that hold what they can leave room for others', async t => {
  const clock = new ManualClock(1000)
  const wheel = new TimerWheel(clock.nowMs())
  const { dataplane } = createMemoryDataplane({ clock })
  const { memory } = dataplane
  const slots = new StackSlotPool(memory, 512, slotCount)
  const at = memory.allocate(64)
  let delivered = 0
  const bundles = Array.from({ length: 20 }, () => {
    const reassembler = new Reassembler(longSequence, mrruBytes, {
      ...{ memory, slots, wheel, counters: new Counters() },
      nowMs: () => clock.nowMs(),
      intake: lengthBytes => dataplane.intake(lengthBytes),
      deliver: () => delivered++,
    })
    const members = [{ lastSequence: 0 }, { lastSequence: 0 }]
    for (const member of members) reassembler.addLink(member)
    const feed = (flags: number, sequence: number) =>
      reassembler.receive(
        members[0] ?? { lastSequence: 0 },
        at,
        putFragmentHeader(longSequence, memory.bytes, at, flags, sequence) - at + 10,
      )
    return { reassembler, feed }
  })
  const [victim, ...greedy] = bundles
  for (const { feed } of greedy.slice(0, 8)) for (let i = 1; i < 120; i++) feed(begin, i)
  t.ok(greedy[0] !== undefined && greedy[0].reassembler.waitingFragments > leastFragments)
  t.ok(slots.freeCount >= 1, `${slots.freeCount} are free`)
  victim?.feed(end, 1)
  victim?.feed(begin, 0)
  t.equal(delivered, 1)
  for (const { reassembler } of bundles) reassembler.destroy()
  t.equal(slots.freeCount, slotCount)
})

t.test('a jump in the numbers moves the window, forgets what it passed, and heals', async t => {
  const { feed, packets, slots } = receiving(longSequence, 1)
  for (let i = 10; i < 60; i += 2) feed(0, begin, i, 'held')
  feed(0, whole, 5_000_000, 'far')
  feed(0, whole, 5_000_001, 'on')
  t.same(packets, ['far', 'on'])
  t.equal(slots.freeCount, slotCount)
})

t.test(
  'heads without room, packets beyond the MRRU and fragments beyond a slot are dropped',
  async t => {
    const { feed, raw, packets, counters } = receiving(longSequence, 1)
    raw(3)
    t.equal(counters.get('multilink-malformed'), 1)
    feed(0, begin, 0, 'z'.repeat(600))
    feed(0, end, 1, 'z')
    t.equal(counters.get('multilink-no-room'), 1)
    feed(0, whole, 2, 'z'.repeat(mrruBytes + 3))
    t.equal(counters.get('multilink-too-long'), 1)
    feed(0, whole, 3, '')
    feed(0, whole, 4, 'after')
    t.same(packets, ['after'])
  },
)

t.test('the numbers wrap, long and short', async t => {
  for (const form of [longSequence, shortSequence]) {
    const { feed, packets } = receiving(form)
    const quarter = (form.mask + 1) / 4
    for (const sequence of [quarter, 2 * quarter, 3 * quarter, form.mask - 1]) {
      feed(0, whole, sequence, 'on the way')
      feed(1, whole, sequence, 'again')
    }
    packets.length = 0
    feed(0, begin, form.mask, 'a')
    feed(1, end, form.mask + 1, 'b')
    feed(0, whole, form.mask + 2, 'c')
    t.same(packets, ['ab', 'c'])
  }
})

t.test('arbitrary fragments: no exception, bounded slots, and all are given back', async () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(1), fc.nat(255), fc.nat(0xffff), fc.string({ maxLength: 40 })), {
        maxLength: 300,
      }),
      fc.boolean(),
      (fragments, isShort) => {
        const { feed, reassembler, slots, pass } = receiving(isShort ? shortSequence : longSequence)
        for (const [link, flags, sequence, text] of fragments) {
          feed(link, flags & (isShort ? 0xc0 : 0xff), sequence, text)
          if (slotCount - slots.freeCount !== reassembler.waitingFragments) return false
          if (reassembler.waitingFragments > windowFragments) return false
          if ((sequence & 31) === 0) pass(400)
        }
        reassembler.destroy()
        return slots.freeCount === slotCount
      },
    ),
    { seed: 1990, numRuns: 200 },
  )
})

// The bundle

/** A tunnel of arrays: what is committed is sealed and kept. */
class ArraySink implements PacketSink {
  mtuBytes = 1400
  isFull = false
  sealer: FrameSealer | undefined
  readonly frames: Uint8Array[] = []
  readonly #bytes: Uint8Array
  readonly #at: number

  constructor(bytes: Uint8Array, at: number) {
    this.#bytes = bytes
    this.#at = at
  }

  reserve(): number {
    return this.isFull ? noRoom : this.#at + (this.sealer?.headerBytes ?? 0)
  }

  commit(at: number, lengthBytes: number): void {
    const { sealer } = this
    if (sealer === undefined) throw new TypeError('no sealer')
    const from = at - sealer.headerBytes
    const frameBytes = sealer.seal(at, lengthBytes)
    this.frames.push(copyBytes(this.#bytes, from, from + frameBytes))
  }

  flush(): void {}
}

const endpoint = Uint8Array.of(EndpointClass.local, 1, 2, 3)
const agreement: MultilinkAgreement = {
  peerMrruBytes: 1500,
  sendsShort: false,
  receivesShort: false,
  endpoint,
}

function side(seed: number, linksPerBundle = 4) {
  const clock = new ManualClock(1000)
  const wheel = new TimerWheel(clock.nowMs())
  const { dataplane } = createMemoryDataplane({ clock })
  const { memory } = dataplane
  const slots = new StackSlotPool(memory, 2048, 300)
  const random = new SeededRandom(seed)
  const table = new BundleTable<string>({
    ...{ dataplane, slots, clock, wheel, random, linksPerBundle, mrruBytes: 1600 },
  })
  const packets: Uint8Array[] = []
  const ended: number[] = []
  let links = 0
  const open = (peerMruBytes = 1400, given: MultilinkAgreement | undefined = agreement) => {
    const number = links++
    const sink = new ArraySink(memory.bytes, memory.allocate(4096))
    const link = new LinkInBundle<string>(table, {
      ...{ bytes: memory.bytes, sink },
      setSealer: sealer => {
        sink.sealer = sealer
      },
      end: () => ended.push(number),
    })
    link.agreed(given, peerMruBytes)
    return { link, sink }
  }
  const inbox = memory.allocate(4096)
  /** Whether the bundle of that user takes the link. */
  const enter = (
    link: LinkInBundle<string>,
    userKey: string,
    given: { needsEncryption?: boolean; owner?: string; maxLinks?: number } = {},
  ) => {
    const refusal = link.enter({
      ...{ userKey, needsEncryption: false, owner: userKey, ...given },
      sealer: new PlainSealer(memory.bytes),
      deliver: (at, lengthBytes) => packets.push(copyBytes(memory.bytes, at, at + lengthBytes)),
    })
    link.carry()
    return refusal ?? 'entered'
  }
  return {
    ...{ table, open, enter, packets, ended, slots },
    /** A frame of the peer on `link`. */
    receive: (link: LinkInBundle<string>, frame: Uint8Array) => {
      memory.bytes.set(frame, inbox)
      return link.receiveFragment(inbox + 4, frame.length - 4)
    },
    send: (sink: PacketSink, packet: Uint8Array) => {
      const at = sink.reserve(packet.length)
      if (at === noRoom) return false
      memory.bytes.set(packet, at)
      sink.commit(at, packet.length)
      return true
    },
  }
}

function ipv4Packet(lengthBytes: number, seed: number): Uint8Array {
  const packet = new Uint8Array(lengthBytes)
  for (let i = 0; i < lengthBytes; i++) packet[i] = seed * 31 + i * 7
  packet[0] = 0x45
  putU16(packet, 2, lengthBytes)
  return packet
}

const bundleOf = (link: LinkInBundle<string>, t: Test) => {
  const { bundle } = link
  if (bundle === undefined) {
    t.fail('no bundle')
    throw new TypeError('no bundle')
  }
  return bundle
}

t.test(
  'one link carries packets as they are; two carry fragments in turn, with loss and without',
  async t => {
    const [from, to] = [side(1), side(2)]
    const [a, b] = [from.open(600), from.open(900)]
    const [c, d] = [to.open(), to.open()]
    for (const { link } of [a, b]) t.equal(from.enter(link, 'alice'), 'entered')
    for (const { link } of [c, d]) t.equal(to.enter(link, 'alice'), 'entered')
    const bundle = bundleOf(a.link, t)
    t.equal(b.link.bundle, bundle)
    t.equal(bundle.linkCount, 2)
    let lost = 0
    const random = new SeededRandom(9)
    const draw = new Uint8Array(1)
    for (let i = 0; i < 500; i++) {
      t.ok(from.send(bundle, ipv4Packet(20 + ((i * 37) % 1380), i)), `packet ${i}`)
      for (const [sink, link] of [
        [a.sink, c.link],
        [b.sink, d.link],
      ] as const) {
        for (const frame of sink.frames.splice(0)) {
          t.ok(frame.length <= (sink === a.sink ? 604 : 904))
          random.fill(draw)
          if (i >= 250 && (draw[0] ?? 0) < 12) lost++
          else to.receive(link, frame)
        }
      }
    }
    const sent = new Map(
      Array.from({ length: 500 }, (_, i) => {
        const packet = ipv4Packet(20 + ((i * 37) % 1380), i)
        return [Buffer.from(packet).toString('hex'), i] as const
      }),
    )
    const received = to.packets.map(packet =>
      sent.get(Buffer.from(packet.subarray(2)).toString('hex')),
    )
    t.ok(
      received.every(number => number !== undefined),
      'nothing that was not sent',
    )
    t.same(
      received.slice(0, 250),
      Array.from({ length: 250 }, (_, i) => i),
      'in order, none lost',
    )
    t.same(
      received,
      [...received].sort((x, y) => (x ?? 0) - (y ?? 0)),
      'in order to the end',
    )
    t.ok(lost > 5 && received.length >= 500 - lost - 3, `${received.length} of 500, ${lost} lost`)
    b.link.leave()
    t.equal(bundle.linkCount, 1)
    from.send(bundle, ipv4Packet(100, 1))
    t.same(
      a.sink.frames.map(frame => frame[3]),
      [0x21],
      'plain again',
    )
  },
)

t.test('a link without room is passed over; without any room the peer sees a loss', async t => {
  const { open, enter, send, table } = side(3)
  const [a, b] = [open(), open()]
  enter(a.link, 'alice')
  enter(b.link, 'alice')
  const bundle = bundleOf(a.link, t)
  a.sink.isFull = true
  for (let i = 0; i < 4; i++) send(bundle, ipv4Packet(100, i))
  t.equal(b.sink.frames.length, 4)
  b.sink.isFull = true
  send(bundle, ipv4Packet(100, 4))
  t.equal(table.counters.get('multilink-no-link'), 1)
  b.sink.isFull = false
  send(bundle, ipv4Packet(100, 5))
  t.equal(b.sink.frames.at(-1)?.[7], 5, 'number 4 is spent')
  t.equal(bundle.reserve(5000), noRoom)
  t.equal(table.counters.get('multilink-packet-too-long'), 1)
})

t.test(
  'links join by user and endpoint, both; limits and other options keep a link out',
  async t => {
    const { open, enter, table } = side(4, 2)
    const first = open().link
    t.equal(enter(first, 'alice'), 'entered')
    const [bob, elsewhere] = [
      open().link,
      open(1400, { ...agreement, endpoint: fromHex('01ff') }).link,
    ]
    t.equal(enter(bob, 'bob'), 'entered')
    t.equal(enter(elsewhere, 'alice'), 'entered')
    t.equal(table.size, 3)
    t.equal(enter(open(1400, { ...agreement, sendsShort: true }).link, 'alice'), 'other-options')
    t.equal(enter(open(1400, { ...agreement, peerMrruBytes: 1700 }).link, 'alice'), 'other-options')
    t.equal(table.counters.get('multilink-other-options'), 2)
    const late = open().link
    t.equal(late.ownerOf('alice'), 'alice', 'it says whose it would be')
    t.equal(enter(late, 'alice', { owner: 'a session that has begun meanwhile' }), 'other-owner')
    t.equal(enter(late, 'alice'), 'entered')
    t.equal(enter(open().link, 'alice'), 'too-many-links')
    t.equal(table.counters.get('multilink-too-many-links'), 1)
    t.equal(enter(open().link, 'bob', { maxLinks: 1 }), 'too-many-links', 'the user may have fewer')
  },
)

t.test('who must encrypt joins no bundle that does not; who need not joins either', async t => {
  const { open, enter, table } = side(6)
  const must = { needsEncryption: true }
  t.equal(enter(open().link, 'alice'), 'entered')
  t.equal(enter(open().link, 'bob', must), 'entered')
  t.equal(enter(open().link, 'alice', must), 'not-encrypted')
  t.equal(table.counters.get('multilink-not-encrypted'), 1)
  t.equal(enter(open().link, 'bob'), 'entered')
  t.equal(enter(open().link, 'bob', must), 'entered')
})

t.test('links leave in any order, and the last one ends the bundle', async t => {
  for (const order of [
    [0, 1, 2],
    [1, 0, 2],
    [2, 1, 0],
  ]) {
    const { open, enter, send, table, receive, packets } = side(5)
    const links = [open(700), open(), open()]
    for (const { link } of links) enter(link, 'alice')
    const [{ link: one } = open()] = links
    const bundle = bundleOf(one, t)
    t.equal(bundle.linkCount, 3)
    let number = 0
    for (const [gone, index] of order.entries()) {
      const left = links[index]
      t.ok(left !== undefined && receive(left.link, fromHex(`ff03003d c000000${number++} 0021 45`)))
      t.equal(packets.length, number, 'what comes is whole')
      left?.link.leave()
      t.equal(bundle.linkCount, 2 - gone)
      t.equal(
        send(bundle, ipv4Packet(600, 1)),
        gone < 2,
        'what goes has a link, while there is one',
      )
      t.notOk(left !== undefined && receive(left.link, fromHex('ff03003d c0000000 45')))
    }
    const frames = links.map(({ sink }) => sink.frames.length)
    t.equal(frames[order[0] ?? 0], 0, 'nothing over one that has gone')
    t.equal(links[order[2] ?? 0]?.sink.frames.at(-1)?.[3], 0x21, 'plain over the last')
    t.equal(table.size, 0)
    t.equal(enter(one, 'alice', { owner: 'another session' }), 'entered', 'the name is free again')
  }
})

t.test(
  'a link that may not carry yet belongs to the bundle, and nothing passes over it',
  async t => {
    const { open, enter, send, table, receive, packets } = side(7)
    const [a, b] = [open(), open()]
    enter(a.link, 'alice')
    const sealer = new PlainSealer(new Uint8Array(64))
    const entrant = { userKey: 'alice', needsEncryption: false, owner: 'alice', sealer }
    t.equal(b.link.enter({ ...entrant, deliver: () => t.fail('not this one') }), undefined)
    const bundle = bundleOf(a.link, t)
    t.equal(bundle.linkCount, 2)
    for (let i = 0; i < 4; i++) send(bundle, ipv4Packet(100, i))
    t.equal(b.sink.frames.length, 0)
    t.ok(receive(b.link, fromHex('ff03003d c0000000 0021 45')))
    t.equal(table.counters.get('multilink-not-permitted'), 1)
    t.same(packets, [])
    b.link.carry()
    b.link.carry()
    for (let i = 0; i < 4; i++) send(bundle, ipv4Packet(100, i))
    t.equal(b.sink.frames.length, 2)
    t.equal(bundle.mtuBytes, 1400)
    b.sink.mtuBytes = 1200
    t.equal(bundle.mtuBytes, 1200, 'it may be the last one')
  },
)

// LCP

const offer: MultilinkSettings = { mrruBytes: 1600, endpoint, wantsShort: true }

t.test(
  'LCP agrees on MRRU, short numbers and endpoints, and networks wait for the bundle',
  async t => {
    const pair = new Pair({ server: { multilink: offer }, client: { multilink: offer } }).open()
    pair.run(5000)
    for (const one of [pair.server, pair.client]) {
      t.match(one.of('link-up'), [
        { multilink: { peerMrruBytes: 1600, sendsShort: true, receivesShort: true, endpoint } },
      ])
    }
    t.equal(pair.upCount(), 0)
    pair.server.handle({ type: 'bundled', isFollower: false }, pair.nowMs)
    pair.client.handle({ type: 'bundled', isFollower: false }, pair.nowMs)
    t.ok(pair.run(pair.nowMs + 10_000, () => pair.isUp()))
  },
)

t.test('links have names when both sides give some, and none otherwise', async t => {
  const named = (discriminator: number) => ({ multilink: { ...offer, discriminator } })
  const pair = new Pair({ server: named(7), client: named(0xfffe) }).open()
  pair.run(5000)
  t.same(pair.server.of('link-up')[0]?.multilink?.names, { own: 7, peer: 0xfffe })
  t.same(pair.client.of('link-up')[0]?.multilink?.names, { own: 0xfffe, peer: 7 })
  for (const options of [
    { server: named(7), client: { multilink: offer } },
    { server: { multilink: offer }, client: named(7) },
  ]) {
    const other = new Pair(options).open()
    other.run(5000)
    for (const one of [other.server, other.client]) {
      const { multilink } = one.of('link-up')[0] ?? {}
      t.ok(multilink !== undefined && multilink.names === undefined, 'bundled, without BAP')
    }
  }
  const { server } = new Pair({ server: named(7) })
  server.handle({ type: 'open' }, 0)
  server.takeSent()
  server.frame('ff03c021 0101 0007 170301')
  t.equal(Buffer.from(server.takeSent().at(-1) ?? []).toString('hex'), 'ff03c02104010007170301')
})

t.test('a link that follows stays up without networks of its own', async t => {
  const pair = new Pair({ server: { multilink: offer }, client: { multilink: offer } }).open()
  pair.run(5000)
  for (const one of [pair.server, pair.client]) {
    one.handle({ type: 'bundled', isFollower: true }, pair.nowMs)
    one.handle({ type: 'bundled', isFollower: true }, pair.nowMs)
    t.same(one.counters().slice(-1), ['placed-not-due'])
  }
  pair.run(pair.nowMs + 200_000)
  t.equal(pair.server.of('closed').length + pair.client.of('closed').length, 0)
  t.equal(pair.upCount(), 0)
})

t.test(
  'one side alone does not bundle: the other rejects the options and the link comes up',
  async t => {
    for (const options of [{ server: { multilink: offer } }, { client: { multilink: offer } }]) {
      const pair = new Pair(options).open()
      t.ok(pair.run(20_000, () => pair.isUp()))
      t.ok([pair.server, pair.client].every(one => one.of('link-up')[0]?.multilink === undefined))
    }
  },
)

t.test(
  'an MRRU that is too small or too large is Naked, and malformed options are rejected',
  async t => {
    const { server } = new Pair({ server: { multilink: offer } })
    server.handle({ type: 'open' }, 0)
    const answerTo = (options: string) => {
      server.takeSent()
      server.frame(
        `ff03c021 0101 ${(4 + options.length / 2).toString(16).padStart(4, '0')} ${options}`,
      )
      return Buffer.from(server.takeSent().at(-1) ?? []).toString('hex')
    }
    t.equal(answerTo('11040010'), 'ff03c021030100081104' + '0240')
    t.equal(answerTo('1104ffff'), 'ff03c021030100081104' + '4000')
    t.equal(answerTo('110300'), 'ff03c02104010007110300')
    t.equal(answerTo('1302'), 'ff03c021040100061302')
    t.equal(answerTo('120300'), 'ff03c02104010007120300')
    t.ok(equalBytes(fromHex(answerTo('11040640130401aa')).subarray(4, 5), Uint8Array.of(2)), 'Ack')
  },
)
