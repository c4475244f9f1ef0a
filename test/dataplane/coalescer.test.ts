import fc from 'fast-check'
import t from 'tap'
import { concatBytes, u16, u32 } from '../../lib/core/bytes.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { Coalescer } from '../../lib/dataplane/coalescer.ts'
import { type Frame, Gso, Frame as NewFrame } from '../../lib/dataplane/frame.ts'
import { DirtyOutlets, Outlet } from '../../lib/dataplane/outlet.ts'
import { PacketMemory } from '../../lib/dataplane/pinned-memory.ts'
import { Segmenter } from '../../lib/dataplane/segmenter.ts'
import { Tally } from '../../lib/dataplane/tally.ts'
import {
  CollectingSink,
  pattern,
  readPacket,
  readTcp,
  referenceSum,
  type TcpFields,
  tcp,
  udp,
} from './packets.ts'

const all = { checksum: true, tso4: true, tso6: true, uso: true }
const ACK = 0x10
const PSH = 0x08
const FIN = 0x01

interface Written {
  readonly packet: Uint8Array
  readonly gsoType: number
  readonly segmentBytes: number
  readonly needsChecksum: boolean
  readonly checksumStart: number
  readonly checksumOffset: number
}

/** A coalescer over memory of its own, and a segmenter that takes what it wrote. */
class Bench {
  readonly memory = new PacketMemory({ sizeBytes: 4 << 20 })
  readonly written: Written[] = []
  readonly coalescer: Coalescer
  readonly #sink = new CollectingSink(this.memory)
  readonly #outlet: Outlet
  readonly #segmenter = new Segmenter(this.memory)
  readonly #firstAt = this.memory.allocate(2 << 20)
  readonly #frameAt = this.memory.allocate(70_000)
  #at = this.#firstAt

  constructor(offloads = all) {
    this.coalescer = new Coalescer(
      this.memory,
      offloads,
      { writeFrame: frame => this.written.push(this.#copyOf(frame)) },
      new Tally(),
    )
    this.#outlet = new Outlet(this.#sink, new Tally(), this.memory, new DirtyOutlets())
  }

  /** One burst: what was written for these packets. */
  join(...packets: Uint8Array[]): Written[] {
    this.#at = this.#firstAt
    for (const packet of packets) {
      this.memory.bytes.set(packet, this.#at)
      this.coalescer.add(this.#at, packet.length)
      this.#at += packet.length
    }
    this.coalescer.flush()
    return this.written.splice(0)
  }

  /** The packets that a written frame stands for, as our own segmenter cuts them. */
  cut(written: Written): Uint8Array[] {
    if (written.gsoType === Gso.none) return [written.packet]
    this.memory.bytes.set(written.packet, this.#frameAt)
    const frame = new NewFrame()
    frame.setPacket(this.#frameAt, written.packet.length)
    frame.gsoType = written.gsoType
    frame.segmentBytes = written.segmentBytes
    frame.needsChecksum = written.needsChecksum
    frame.checksumStart = written.checksumStart
    frame.checksumOffset = written.checksumOffset
    this.#segmenter.cut(frame, this.#segmenter.headerBytes(frame), this.#outlet, 1000)
    this.#sink.flush()
    return this.#sink.taken()
  }

  #copyOf(frame: Frame): Written {
    const parts: Uint8Array[] = []
    for (let i = 0; i < frame.pieceCount; i++) {
      const at = frame.pieceAt[i] ?? 0
      parts.push(this.memory.bytes.slice(at, at + (frame.pieceBytes[i] ?? 0)))
    }
    const packet = concatBytes(...parts)
    return {
      packet,
      gsoType: frame.gsoType,
      segmentBytes: frame.segmentBytes,
      needsChecksum: frame.needsChecksum,
      checksumStart: frame.checksumStart,
      checksumOffset: frame.checksumOffset,
    }
  }
}

const v4 = { source: '10.0.0.2', destination: '192.0.2.1' }
const v6 = { source: '2001:db8::2', destination: '2001:db8:1::1' }
const timestamps = Uint8Array.of(1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2)

function stream(
  fields: TcpFields,
  count: number,
  segmentBytes: number,
  lastBytes = segmentBytes,
): Uint8Array[] {
  return Array.from({ length: count }, (_, i) =>
    tcp({
      ...fields,
      id: (fields.id ?? 7) + i,
      sequence: ((fields.sequence ?? 1) + i * segmentBytes) >>> 0,
      payload: pattern(i === count - 1 ? lastBytes : segmentBytes, i * segmentBytes),
    }),
  )
}

for (const [family, addresses] of [
  ['IPv4', v4],
  ['IPv6', v6],
] as const) {
  t.test(`${family}: a TCP burst becomes one super-packet that the kernel can finish`, async t => {
    const bench = new Bench()
    const packets = stream(
      { ...addresses, options: timestamps, sequence: 0xffffff00 },
      10,
      1000,
      300,
    )
    const [written, ...rest] = bench.join(...packets)
    t.same(rest, [])
    if (written === undefined) throw new Error('nothing written')
    const header = packets[0]?.length === undefined ? 0 : packets[0].length - 1000
    t.equal(written.gsoType, family === 'IPv4' ? Gso.tcp4 : Gso.tcp6)
    t.equal(written.segmentBytes, 1000)
    t.equal(written.packet.length, header + 9300)
    t.equal(written.checksumOffset, 16)
    // What the kernel does with it: complete the sum from checksumStart on.
    const completed = written.packet.slice()
    const sum = ~referenceSum(completed.subarray(written.checksumStart)) & 0xffff
    completed[written.checksumStart + 16] = sum >> 8
    completed[written.checksumStart + 17] = sum & 255
    t.same(readTcp(completed)?.payload, pattern(9300))
    t.same(bench.cut(written), packets, 'cutting gives the same packets')
  })

  t.test(`${family}: equal datagrams become one super-packet, the last may be shorter`, async t => {
    const bench = new Bench()
    const packets = [800, 800, 800, 120].map((length, i) =>
      udp({ ...addresses, id: 7 + i, payload: pattern(length, i * 800) }),
    )
    const written = bench.join(...packets)
    t.equal(written.length, 1)
    const [frame] = written
    if (frame === undefined) throw new Error('nothing written')
    t.equal(frame.gsoType, Gso.udp)
    t.equal(frame.segmentBytes, 800)
    t.same(bench.cut(frame), packets)
    const [longer, next] = bench.join(
      udp({ ...addresses, payload: pattern(100) }),
      udp({ ...addresses, payload: pattern(101) }),
    )
    t.equal(longer?.gsoType, Gso.none, 'a longer one begins anew')
    t.equal(next?.packet.length, (longer?.packet.length ?? 0) + 1)
  })

  t.test(
    `${family}: whatever is joined, cutting gives back the packets of each flow in order`,
    async () => {
      fc.assert(
        fc.property(fc.integer(), seed => {
          const random = new SeededRandom(seed)
          const bench = new Bench()
          const packets: Uint8Array[] = []
          const sequences = new Map<number, number>()
          const ids = new Map<number, number>()
          const count = 1 + (random.next() % 90)
          for (let i = 0; i < count; i++) {
            const flow = random.next() % (1 + (seed & 31))
            const choice = random.next() % 20
            const length = [500, 500, 500, 500, 500, 500, 400, 0, 501, 1][random.next() % 10] ?? 0
            const sequence = (sequences.get(flow) ?? 0xfffff800) + (choice === 0 ? 7 : 0)
            const id = ids.get(flow) ?? 100
            ids.set(flow, id + 1)
            const isUdp = (flow & 3) === 3
            const flags =
              choice === 1 ? ACK | PSH : choice === 2 ? ACK | FIN : choice === 3 ? 2 : ACK
            if (!isUdp) sequences.set(flow, (sequence + length) >>> 0)
            const common = { ...addresses, sourcePort: 1000 + flow, id, tos: choice === 4 ? 2 : 0 }
            const packet = isUdp
              ? udp({ ...common, payload: pattern(length, i) })
              : tcp({
                  ...common,
                  sequence: sequence >>> 0,
                  flags,
                  acknowledgment: choice === 5 ? 9 : 1,
                  options: choice === 6 ? timestamps : new Uint8Array(0),
                  payload: pattern(length, i),
                })
            // A spoilt payload: the end host must get it as spoilt as it was.
            if (choice === 7 && length > 0) packet[packet.length - 1] = (packet.at(-1) ?? 0) ^ 1
            packets.push(packet)
          }
          const cut = bench.join(...packets).flatMap(written => bench.cut(written))
          if (cut.length !== packets.length) return false
          return flows(packets).every(([flow, sent]) => {
            const got = flows(cut).find(([candidate]) => candidate === flow)?.[1] ?? []
            return got.length === sent.length && got.every((p, i) => isSamePacket(p, sent[i]))
          })
        }),
        { seed: 99, numRuns: 150 },
      )
    },
  )
}

t.test('what kernels do not merge is not merged', async t => {
  const bench = new Bench()
  const first = { ...v4, payload: pattern(500), sequence: 1, id: 1 }
  const second = { ...v4, payload: pattern(500), sequence: 501, id: 2 }
  const cases: Record<string, [TcpFields, TcpFields]> = {
    'a gap in the sequence': [first, { ...second, sequence: 502 }],
    'a repetition': [first, { ...second, sequence: 1 }],
    'another acknowledgment': [first, { ...second, acknowledgment: 2 }],
    'another time stamp': [
      { ...first, options: timestamps },
      { ...second, options: timestamps.map((byte, i) => (i === 7 ? byte + 1 : byte)) },
    ],
    'options on one of them': [first, { ...second, options: timestamps }],
    'another TTL': [first, { ...second, ttl: 63 }],
    'another ECN mark': [first, { ...second, tos: 3 }],
    "another Don't Fragment": [first, { ...second, df: false }],
    'an ECE': [first, { ...second, flags: ACK | 0x40 }],
    'a CWR': [first, { ...second, flags: ACK | 0x80 }],
    'a FIN': [first, { ...second, flags: ACK | FIN }],
    'a RST': [first, { ...second, flags: ACK | 4 }],
    'an urgent pointer': [first, { ...second, flags: ACK | 0x20 }],
    'a longer segment': [first, { ...second, payload: pattern(501) }],
    'no payload': [first, { ...second, payload: new Uint8Array(0) }],
    'a PSH on the first': [{ ...first, flags: ACK | PSH }, second],
    'a short first and a second': [
      { ...first, payload: pattern(400) },
      { ...second, sequence: 401 },
    ],
    'another port': [first, { ...second, sourcePort: 40_001 }],
    'another source': [first, { ...second, source: '10.0.0.3' }],
  }
  for (const [name, [a, b]] of Object.entries(cases)) {
    const packets = [tcp(a), tcp(b)]
    t.same(
      bench.join(...packets).map(written => written.packet),
      packets,
      name,
    )
  }
})

t.test('a packet with a spoilt checksum passes unmerged and unchanged', async t => {
  const bench = new Bench()
  for (const spoilAt of [45, 36, 8]) {
    const packets = stream(v4, 3, 500)
    const spoilt = packets[1]
    if (spoilt === undefined) throw new Error('three packets')
    spoilt[spoilAt] = (spoilt[spoilAt] ?? 0) ^ 0x10
    const written = bench.join(...packets)
    t.same(
      written.map(frame => frame.packet),
      packets,
      `byte ${spoilAt}`,
    )
    t.notOk(written.some(frame => frame.needsChecksum))
  }
})

t.test('the newest window and a PSH are in the headers of the super-packet', async t => {
  const bench = new Bench()
  const [written] = bench.join(
    tcp({ ...v4, sequence: 1, window: 100, payload: pattern(500) }),
    tcp({ ...v4, sequence: 501, window: 200, flags: ACK | PSH, payload: pattern(500) }),
  )
  if (written === undefined) throw new Error('nothing written')
  t.equal(u16(written.packet, 34), 200)
  t.equal(written.packet[33], ACK | PSH)
  const cut = bench.cut(written).map(readTcp)
  t.same(
    cut.map(segment => segment?.flags),
    [ACK, ACK | PSH],
    'PSH on the last segment only',
  )
})

t.test('more flows than rows: the oldest leave first, nothing is lost', async t => {
  const bench = new Bench()
  const packets: Uint8Array[] = []
  for (let i = 0; i < 3; i++) {
    for (let flow = 0; flow < 40; flow++) {
      packets.push(
        tcp({
          ...v4,
          sourcePort: 2000 + flow,
          sequence: 1 + 100 * i,
          id: i,
          payload: pattern(100),
        }),
      )
    }
  }
  t.equal(bench.join(...packets).flatMap(written => bench.cut(written)).length, packets.length)
})

t.test('a super-packet never grows past 64 KiB', async t => {
  const bench = new Bench()
  const packets = stream(v4, 60, 1400)
  const written = bench.join(...packets)
  t.ok(written.length > 1)
  for (const frame of written) t.ok(frame.packet.length <= 65_535)
  t.same(
    written.flatMap(frame => bench.cut(frame)),
    packets,
  )
  const small = stream(v4, 300, 10)
  t.same(
    bench.join(...small).flatMap(frame => bench.cut(frame)),
    small,
    'nor past its pieces',
  )
})

t.test('fragments keep their place among the packets of all flows', async t => {
  const bench = new Bench()
  const packets = stream(v4, 3, 500)
  const fragment = udp({ ...v4, df: false, payload: pattern(64) })
  fragment[6] = 0x20
  const written = bench.join(...packets.slice(0, 2), fragment, ...packets.slice(2))
  t.same(
    written.map(frame => frame.gsoType),
    [Gso.tcp4, Gso.none, Gso.none],
  )
  t.same(written[1]?.packet, fragment)
})

t.test('without the offload of a family its packets pass one by one', async t => {
  const bench = new Bench({ checksum: true, tso4: false, tso6: false, uso: false })
  const packets = [...stream(v4, 3, 500), ...stream(v6, 3, 500), udp(v4), udp(v4)]
  t.same(
    bench.join(...packets).map(frame => frame.packet),
    packets,
  )
})

t.test('short and senseless headers are passed on, not read past', async t => {
  const bench = new Bench()
  const cut = tcp({ ...v4, payload: pattern(10) }).slice(0, 30)
  cut[3] = 30
  const wild = tcp({ ...v4, payload: pattern(10) })
  wild[32] = 0xf0
  const none = tcp({ ...v4, payload: pattern(10) })
  none[32] = 0x10
  const short = udp(v4).slice(0, 24)
  short[3] = 24
  for (const packet of [cut, wild, none, short]) {
    t.same(
      bench.join(packet).map(frame => frame.packet),
      [packet],
    )
  }
})

t.test('frames whose metadata lie are refused by the segmenter', async t => {
  const memory = new PacketMemory({ sizeBytes: 1 << 20 })
  const segmenter = new Segmenter(memory)
  const at = memory.allocate(70_000)
  const packet = tcp({ ...v4, payload: pattern(3000) })
  memory.bytes.set(packet, at)
  const frame = new NewFrame()
  const describe = (gsoType: number, segmentBytes: number, start: number, length: number) => {
    frame.setPacket(at, length)
    frame.gsoType = gsoType
    frame.segmentBytes = segmentBytes
    frame.checksumStart = start
    return segmenter.headerBytes(frame)
  }
  t.equal(describe(Gso.tcp4, 1000, 20, packet.length), 40)
  t.equal(describe(Gso.tcp4, 0, 20, packet.length), 0, 'no segment size')
  t.equal(describe(Gso.tcp4, 1000, 24, packet.length), 0, 'transport elsewhere')
  t.equal(describe(Gso.tcp6, 1000, 20, packet.length), 0, 'the other family')
  t.equal(describe(Gso.tcp4, 1000, 20, 30), 0, 'cut short')
  t.equal(describe(Gso.udp, 1000, 20, 28), 0, 'no payload')
  t.equal(describe(3, 1000, 20, packet.length), 0, 'a kind that was not asked for')
  memory.bytes[at + 32] = 0x10
  t.equal(describe(Gso.tcp4, 1000, 20, packet.length), 0, 'a TCP header of 4 bytes')
})

/** Packets by flow: protocol and ports. */
function flows(packets: readonly Uint8Array[]): [string, Uint8Array[]][] {
  const byFlow = new Map<string, Uint8Array[]>()
  for (const packet of packets) {
    const header = (packet[0] ?? 0) >> 4 === 6 ? 40 : 20
    const key = `${header === 40 ? packet[6] : packet[9]} ${u32(packet, header)}`
    byFlow.set(key, [...(byFlow.get(key) ?? []), packet])
  }
  return [...byFlow]
}

/** Equal but for the window, which may be newer, and what depends on it; spoilt ones byte by byte. */
function isSamePacket(got: Uint8Array, sent: Uint8Array | undefined): boolean {
  if (sent === undefined) return false
  if (readPacket(sent) === undefined) return Buffer.compare(got, sent) === 0
  return readPacket(got) !== undefined && Buffer.compare(got, sent) === 0
}
