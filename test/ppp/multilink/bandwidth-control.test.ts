/** BACP, BAP and bandwidth on demand: two sides over a link that loses, and one side with a peer played by hand. */
import fc from 'fast-check'
import t from 'tap'
import { fromHex, toHex } from '../../../lib/core/bytes.ts'
import { timeout } from '../../../lib/core/machine.ts'
import { SeededRandom } from '../../../lib/core/random.ts'
import {
  BandwidthControl,
  type BandwidthEvent,
  type BandwidthInput,
} from '../../../lib/ppp/multilink/bandwidth-control.ts'
import { bapRetransmitMs, bapTries } from '../../../lib/ppp/multilink/bap-exchange.ts'
import type { LinkNames } from '../../../lib/ppp/multilink/lcp-multilink.ts'

const settings = {
  mostLinks: 3,
  linkKilobitsPerSecond: 1000,
  addAbovePercent: 75,
  addAfterMs: 20_000,
  dropBelowPercent: 30,
  dropAfterMs: 40_000,
}

/** One side with what it said, and traffic as the test wants it. */
class Side {
  readonly control: BandwidthControl
  readonly events: BandwidthEvent[] = []
  sent: Uint8Array[] = []
  carried = { receivedBytes: 0, sentBytes: 0 }
  links: LinkNames[] = []

  constructor(dials: boolean, seed: number) {
    const random = new SeededRandom(seed)
    this.control = new BandwidthControl(settings, { dials, random, traffic: () => this.carried })
  }

  handle(input: BandwidthInput | typeof timeout, nowMs: number): void {
    this.control.handle(input, nowMs)
    if (input.type === 'packet') input.bytes.fill(0xa5)
    for (let out = this.control.poll(); out !== undefined; out = this.control.poll()) {
      if (out.type === 'transmit') this.sent.push(out.bytes)
      else this.events.push(out.event)
    }
  }

  frame(frame: Uint8Array, nowMs: number): void {
    const protocol = ((frame[2] ?? 0) << 8) | (frame[3] ?? 0)
    this.handle({ type: 'packet', protocol, bytes: frame.slice(4) }, nowMs)
  }

  setLinks(links: LinkNames[], nowMs: number): void {
    this.links = links
    this.handle({ type: 'links', links }, nowMs)
  }

  /** Carries so much per cent of what one link can. */
  carry(percent: number, ms: number): void {
    const bytes = (percent / 100) * settings.linkKilobitsPerSecond * (ms / 8)
    this.carried = {
      receivedBytes: this.carried.receivedBytes + bytes,
      sentBytes: this.carried.sentBytes + bytes / 10,
    }
  }

  of(type: BandwidthEvent['type']): BandwidthEvent[] {
    return this.events.filter(event => event.type === type)
  }

  counters(): string[] {
    return this.events.flatMap(event => (event.type === 'unexpected' ? [event.counter] : []))
  }
}

/** A server and a client that dials, with a clock that only the test moves. */
class World {
  nowMs = 0
  readonly server = new Side(false, 1000)
  readonly client: Side
  lossPercent = 0
  loadPercent = 0
  /** Whether a call that the client makes succeeds. */
  isReachable = true
  readonly #random: SeededRandom
  #links = 1

  constructor(seed = 2, lossPercent = 0) {
    this.client = new Side(true, seed)
    this.#random = new SeededRandom(seed * 31)
    this.lossPercent = lossPercent
    this.#setLinks()
    for (const side of [this.server, this.client]) side.handle({ type: 'open' }, 0)
  }

  get linkCount(): number {
    return this.#links
  }

  run(durationMs: number): this {
    const untilMs = this.nowMs + durationMs
    for (; this.nowMs < untilMs; this.nowMs += 500) {
      this.server.carry(this.loadPercent, 500)
      this.client.carry(this.loadPercent, 500)
      for (const side of [this.server, this.client]) {
        if (side.control.nextDeadlineMs() <= this.nowMs) side.handle(timeout, this.nowMs)
      }
      this.#exchange()
      this.#act()
    }
    return this
  }

  #exchange(): void {
    for (let round = 0; round < 6; round++) {
      for (const [from, to] of [
        [this.server, this.client],
        [this.client, this.server],
      ] as const) {
        for (const frame of from.sent.splice(0)) {
          if (this.#random.next() % 100 >= this.lossPercent) to.frame(frame, this.nowMs)
        }
      }
    }
  }

  #act(): void {
    for (const event of this.client.events.splice(0)) {
      if (event.type === 'add-link') this.#dial()
      else this.#act1(event, this.client)
    }
    for (const event of this.server.events.splice(0)) this.#act1(event, this.server)
  }

  readonly seen: string[] = []

  #dial(): void {
    this.seen.push('add')
    if (this.isReachable) {
      this.#links++
      this.#setLinks()
    }
    this.client.handle({ type: 'dialled', isUp: this.isReachable }, this.nowMs)
  }

  #act1(event: BandwidthEvent, side: Side): void {
    if (event.type === 'drop-link') {
      // Both may have asked for the same.
      if (!side.links.some(({ own }) => own === event.own)) return
      this.seen.push('drop')
      this.#links--
      this.#setLinks()
    } else if (event.type === 'unexpected') this.seen.push(event.counter)
  }

  #setLinks(): void {
    const names = Array.from({ length: this.#links }, (_, i) => ({ s: 100 + i, c: 200 + i }))
    this.server.setLinks(
      names.map(({ s, c }) => ({ own: s, peer: c })),
      this.nowMs,
    )
    this.client.setLinks(
      names.map(({ s, c }) => ({ own: c, peer: s })),
      this.nowMs,
    )
  }
}

t.test(
  'links are added while the load is high, to the most there may be, and dropped when it is low',
  async t => {
    const world = new World()
    world.loadPercent = 60
    world.run(120_000)
    t.equal(world.linkCount, 1, '60 % of one link is carried by one')
    world.loadPercent = 95
    world.run(45_000)
    t.equal(world.linkCount, 2)
    world.loadPercent = 1000
    world.run(120_000)
    t.equal(world.linkCount, settings.mostLinks)
    world.loadPercent = 100
    world.run(60_000)
    t.equal(world.linkCount, settings.mostLinks, 'a third of each is enough to keep them')
    world.loadPercent = 70
    world.run(90_000)
    t.equal(world.linkCount, 2, '23 % of each is not; 35 % of two is')
    world.loadPercent = 1
    world.run(200_000)
    t.equal(world.linkCount, 1, 'one stays')
    const kinds = new Set(world.seen)
    for (const kind of kinds)
      t.ok(/^(add|drop|bap-(collision|yielded|stale-response))$/.test(kind), kind)
  },
)

t.test('a burst that is over before its window changes nothing', async t => {
  const world = new World()
  for (let i = 0; i < 10; i++) {
    world.loadPercent = 200
    world.run(4000)
    world.loadPercent = 5
    world.run(36_000)
  }
  t.equal(world.linkCount, 1)
})

t.test('lost datagrams are sent again, and every link is added once', async t => {
  for (let seed = 1; seed <= 12; seed++) {
    const world = new World(seed, 30)
    world.loadPercent = 500
    world.run(400_000)
    t.equal(world.linkCount, settings.mostLinks, `seed ${seed}`)
    t.equal(world.seen.filter(one => one === 'add').length, settings.mostLinks - 1, `seed ${seed}`)
    world.loadPercent = 0
    world.run(600_000)
    t.equal(world.linkCount, 1, `seed ${seed}`)
  }
})

t.test('a call that fails is told of, and tried again while the load lasts', async t => {
  const world = new World()
  world.isReachable = false
  world.loadPercent = 300
  world.run(130_000)
  t.ok(world.seen.filter(one => one === 'add').length >= 2)
  t.ok(world.seen.includes('bap-call-failed'), 'the server has heard of it')
  world.isReachable = true
  world.run(60_000)
  t.ok(world.linkCount > 1)
})

const bacp = (hex: string) => fromHex(`ff03c02b ${hex}`)
const bap = (hex: string) => fromHex(`ff03c02d ${hex}`)

/** One side whose BACP is open; the peer's number is `ffffffff` or `00000001`. */
function opened({ dials = false, isFavored = true, links = 1 } = {}) {
  const side = new Side(dials, 3)
  side.setLinks(
    Array.from({ length: links }, (_, i) => ({ own: 0x100 + i, peer: 0x200 + i })),
    0,
  )
  side.handle({ type: 'open' }, 0)
  const [request] = side.sent.splice(0)
  const asked = Uint8Array.from(request ?? [])
  asked[4] = 2
  side.frame(asked, 0)
  side.frame(bacp(`01 01 000a 01 06 ${isFavored ? 'ffffffff' : '00000001'}`), 0)
  side.sent = []
  const ask = (hex: string, nowMs = 0) => {
    side.frame(bap(hex), nowMs)
    return side.sent.splice(0).map(frame => toHex(frame.slice(4)))
  }
  return { side, ask }
}

t.test('BACP elects the lower number, and refuses none, its own and foreign options', async t => {
  const { side } = opened({ isFavored: true })
  t.match(side.of('bandwidth-up'), [{ isFavored: true }])
  t.match(opened({ isFavored: false }).side.of('bandwidth-up'), [{ isFavored: false }])
  const fresh = new Side(false, 4)
  fresh.handle({ type: 'open' }, 0)
  const own = toHex(fresh.sent[0]?.slice(-4) ?? new Uint8Array(0))
  t.match(toHex(fresh.sent.splice(0)[0] ?? new Uint8Array(0)), /^ff03c02b0101000a0106[0-9a-f]{8}$/)
  const answer = (hex: string) => {
    fresh.frame(bacp(hex), 0)
    return toHex(fresh.sent.splice(0).at(-1) ?? new Uint8Array(0)).slice(8)
  }
  t.match(answer('01 05 000a 01 06 00000000'), /^0305000a0106/, 'zero is Naked')
  t.match(answer(`01 06 000a 01 06 ${own}`), /^0306000a0106(?!00000000)/, 'ours is Naked')
  t.match(answer('01 07 0004'), /^0307000a0106/, 'and so is none')
  t.equal(answer('01 08 0007 02 03 01'), '04080007020301', 'others are rejected')
  t.equal(answer('01 09 000a 01 06 00000009'), '0209000a010600000009')
})

t.test('before BACP is open BAP is dropped, and a peer without either is left alone', async t => {
  const side = new Side(true, 5)
  side.handle({ type: 'open' }, 0)
  side.frame(bap('05 01 0008 05 04 0100'), 0)
  t.same(side.counters(), ['bap-before-bacp'])
  side.handle({ type: 'protocol-rejected', protocol: 0xc02b }, 0)
  side.sent = []
  t.equal(side.control.nextDeadlineMs(), Number.POSITIVE_INFINITY, 'nothing is waited for')
  const { side: other } = opened({ dials: true })
  other.handle({ type: 'protocol-rejected', protocol: 0xc02d }, 0)
  t.equal(other.of('bandwidth-down').length, 1)
})

t.test('a server answers calls, refuses to call back, and keeps one link', async t => {
  const { side, ask } = opened({ links: 2 })
  t.same(ask('01 10 000b 01 05 0040 08 03 02'), ['0210000500'], 'Call-Request: Ack')
  t.same(ask('01 11 0009 01 05 0040 08'), ['0211000c000207010300' + '0202'], 'with the same number')
  t.same(ask('03 12 0009 01 05 0040 08'), ['0412000502'], 'Callback-Request: Rej')
  t.same(ask('05 13 0008 05 04 0101'), ['0613000500'], 'Link-Drop-Query of the second: Ack')
  t.same(ask('05 13 0008 05 04 0101'), ['0613000500'], 'again: the same answer')
  t.same(ask('05 14 0008 05 04 0100'), ['0614000500'], 'of the first: Ack')
  t.same(ask('05 15 0008 05 04 7777'), ['0615000501'], 'of none: Nak')
  t.same(ask('05 16 0004'), ['0616000501'], 'without a name: Nak')
  t.same(ask('07 17 0008 06 04 00 00'), ['0817000500'])
  t.same(side.counters(), ['bap-repeated-request', 'bap-unknown-link', 'bap-unknown-link'])
  side.setLinks(side.links.slice(0, 1), 0)
  t.same(ask('05 18 0008 05 04 0100'), ['0618000503'], 'the only one: Full-Nak')
  side.setLinks([side.links, side.links, side.links].flat(), 0)
  t.same(ask('01 19 000b 01 05 0040 08 03 02'), ['0219000503'], 'no more links: Full-Nak')
})

t.test('a busy bundle is not made smaller', async t => {
  const { side, ask } = opened({ links: 2 })
  side.carry(90, 5000)
  t.same(ask('05 13 0008 05 04 0101', 5000), ['0613000501'])
})

t.test('who dials calls back once when asked, and is not called', async t => {
  const { side, ask } = opened({ dials: true })
  t.same(ask('01 10 000b 01 05 0040 08 03 02'), ['0210000502'])
  t.same(ask('03 11 0009 01 05 0040 08'), ['0411000500'])
  t.same(ask('03 12 0009 01 05 0040 08'), ['0412000501'], 'one after the other')
  t.equal(side.of('add-link').length, 1)
  side.handle({ type: 'dialled', isUp: true }, 0)
  t.match(toHex(side.sent.splice(0)[0] ?? new Uint8Array(0)), /^ff03c02d07..000806040000$/)
  side.handle({ type: 'dialled', isUp: true }, 0)
  t.ok(side.counters().includes('bap-dialled-not-due'))
})

t.test('two requests at once: the favored peer is heard, the other gives way', async t => {
  for (const isFavored of [true, false]) {
    const { side, ask } = opened({ dials: true, isFavored, links: 2 })
    side.carry(400, settings.addAfterMs)
    side.handle(timeout, settings.addAfterMs)
    t.match(toHex(side.sent.splice(0)[0] ?? new Uint8Array(0)), /^ff03c02d01..000b0105/)
    const [answer] = ask('03 40 0009 01 05 0040 08', settings.addAfterMs)
    t.equal(answer, isFavored ? '0440000501' : '0440000500')
    t.same(side.counters(), [isFavored ? 'bap-collision' : 'bap-yielded'])
    side.frame(bap('02 01 0005 00'), settings.addAfterMs)
    t.equal(side.of('add-link').length, 1, 'one link, whoever is heard')
  }
})

t.test(
  'a request without answer is sent so often and no more; Rej is for good, Full-Nak until a change',
  async t => {
    const { side } = opened({ dials: true })
    let nowMs = 0
    let requests = 0
    const busyWindow = (answer?: string) => {
      const untilMs = nowMs + settings.addAfterMs
      for (; nowMs < untilMs; nowMs += 1000) {
        side.carry(400, 1000)
        if (side.control.nextDeadlineMs() <= nowMs) side.handle(timeout, nowMs)
        for (const frame of side.sent.splice(0)) {
          requests++
          const identifier = toHex(frame.slice(5, 6))
          if (answer !== undefined) side.frame(bap(`02 ${identifier} 0005 ${answer}`), nowMs)
        }
      }
    }
    busyWindow()
    busyWindow()
    t.equal(requests, bapTries, `${bapTries} tries, ${bapRetransmitMs} ms apart`)
    t.ok(side.counters().includes('bap-unanswered'))
    requests = 0
    for (let i = 0; i < 4; i++) busyWindow('03')
    t.equal(requests, 1, 'all that there may be')
    side.setLinks([{ own: 1, peer: 1 }], nowMs)
    for (let i = 0; i < 4; i++) busyWindow('01')
    t.ok(requests > 2, 'Nak: asked again')
    requests = 0
    for (let i = 0; i < 4; i++) busyWindow('02')
    side.setLinks([{ own: 2, peer: 2 }], nowMs)
    for (let i = 0; i < 4; i++) busyWindow('02')
    t.equal(requests, 1)
    t.equal(side.of('add-link').length, 0)
  },
)

t.test('arbitrary packets of BACP and BAP: no exception, at most one answer each', async () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.boolean(), fc.nat(9), fc.uint8Array({ maxLength: 24 })), {
        maxLength: 60,
      }),
      fc.boolean(),
      (packets, dials) => {
        const { side } = opened({ dials, links: 2 })
        return packets.every(([isBap, type, tail], i) => {
          const head = Uint8Array.from([type, i, 0, tail.length + 4])
          const frame = Uint8Array.from([0xff, 3, 0xc0, isBap ? 0x2d : 0x2b, ...head, ...tail])
          side.frame(frame, i * 10)
          // BACP says twice what it says when it begins anew.
          return side.sent.splice(0).length <= (isBap ? 1 : 2)
        })
      },
    ),
    { seed: 2127, numRuns: 200 },
  )
})
