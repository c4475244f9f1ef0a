import fc from 'fast-check'
import t from 'tap'
import { type FilterRule, isFilterRule, parseFilterRule } from '../../lib/config/filter-rule.ts'
import { ManualClock } from '../../lib/core/clock.ts'
import type { Port } from '../../lib/dataplane/dataplane.ts'
import { Gso } from '../../lib/dataplane/frame.ts'
import { createMemoryDataplane } from '../../lib/dataplane/open-dataplane.ts'
import { PacketFilter } from '../../lib/dataplane/packet-filter.ts'
import { PacketMemory } from '../../lib/dataplane/pinned-memory.ts'
import { TokenBucket } from '../../lib/dataplane/token-bucket.ts'
import { CollectingSink, icmp, ip4, ip6, pattern, readTcp, tcp, udp, wrap } from './packets.ts'

const CLIENT = '10.0.0.2'
const HOST = '192.0.2.1'
const CLIENT6 = '2001:db8:2::1'
const HOST6 = '2001:db8:ffff::1'
const SYN = 0x02
const RST = 0x04
const ACK = 0x10

function rules(...texts: string[]): FilterRule[] {
  return texts.map(text => {
    const parsed = parseFilterRule(text)
    if (!isFilterRule(parsed)) throw new TypeError(`${text}: ${parsed.error}`)
    return parsed
  })
}

const memory = new PacketMemory({ sizeBytes: 1 << 20 })
const packetAt = memory.allocate(4096)

function permits(direction: 'in' | 'out', packet: Uint8Array, ...texts: string[]): boolean {
  const filter = new PacketFilter(rules(...texts))
  // What stands behind the packet must not be looked at.
  memory.bytes.fill(0xa5, packetAt, packetAt + 4096)
  memory.bytes.set(packet, packetAt)
  return direction === 'in'
    ? filter.permitsFromClient(memory, packetAt, packet.length)
    : filter.permitsToClient(memory, packetAt, packet.length)
}

function fragment(packet: Uint8Array, offset: number): Uint8Array {
  const changed = Uint8Array.from(packet)
  changed[6] = offset >>> 8
  changed[7] = offset
  return changed
}

const web = tcp({ source: CLIENT, destination: HOST, destinationPort: 443, flags: SYN })
const answer = tcp({ source: HOST, destination: CLIENT, sourcePort: 443, flags: SYN | ACK })
const dns = udp({ source: CLIENT, destination: HOST, destinationPort: 53 })
const web6 = tcp({ source: CLIENT6, destination: HOST6, destinationPort: 443, flags: SYN })

t.test(
  'the first rule that matches decides, and what none matches has the opposite fate of the last',
  async t => {
    t.ok(permits('in', web, 'permit in tcp from any to any 443', 'deny in ip from any to any'))
    t.notOk(permits('in', dns, 'permit in tcp from any to any 443', 'deny in ip from any to any'))
    t.notOk(permits('in', dns, 'permit in tcp from any to any 443'), 'behind a permit: dropped')
    t.ok(permits('in', dns, 'deny in tcp from any to any 443'), 'behind a deny: passed')
    t.ok(permits('in', dns, 'deny out ip from any to any'), 'rules of the other way do not count')
    t.notOk(permits('out', answer, 'deny out ip from any to any'))
    t.ok(permits('in', dns), 'no rules, no filter')
    t.notOk(
      permits('in', web, 'deny in tcp from any to any 443', 'permit in tcp from any to any 443'),
      'order counts',
    )
  },
)

t.test('networks, ports, protocols and families are told apart', async t => {
  t.ok(permits('in', web, 'permit in ip from 10.0.0.0/8 to 192.0.2.0/24'))
  t.notOk(permits('in', web, 'permit in ip from 10.0.0.0/30 to 192.0.3.0/24'))
  t.notOk(permits('in', web, 'permit in ip from !10.0.0.0/8 to any'))
  t.ok(permits('in', web, 'permit in ip from !11.0.0.0/8 to any'))
  t.ok(permits('in', web, 'permit in tcp from any 40000 to any 80,400-500'))
  t.notOk(permits('in', web, 'permit in tcp from any to any 80,444-500'))
  t.notOk(permits('in', web, 'permit in udp from any to any 443'))
  t.ok(permits('in', web6, 'permit in tcp from 2001:db8::/32 to 2001:db8:ffff::1'))
  t.notOk(permits('in', web6, 'permit in tcp from 2001:db8:3::/48 to any'))
  t.notOk(permits('in', web6, 'permit in ip from 10.0.0.0/8 to any'), 'other family')
  t.ok(permits('in', web6, 'permit in ip from !10.0.0.0/8 to any'), 'which a negation holds')
  t.notOk(permits('in', web, 'permit in ip from ::/0 to any'))
  t.ok(permits('in', web, 'permit in ip from 0.0.0.0/0 to any'))
  t.notOk(permits('in', dns, 'permit in ip from any to any 54'), 'ports of any protocol')
  t.notOk(
    permits('in', icmp(CLIENT, HOST, 8), 'permit in ip from any to any 0-65535'),
    'a protocol without ports has none that match',
  )
})

t.test('assigned is the session itself, on its own side only', async t => {
  t.ok(permits('in', web, 'permit in ip from assigned to any'))
  t.notOk(permits('in', web, 'permit in ip from any to assigned'))
  t.ok(permits('out', answer, 'permit out ip from any to assigned'))
  t.notOk(permits('out', answer, 'permit out ip from assigned to any'))
  t.ok(permits('in', web, 'permit in ip from any to !assigned'))
})

t.test('TCP flags and ICMP types are looked at', async t => {
  const ack = tcp({ source: CLIENT, destination: HOST, flags: ACK })
  const reset = tcp({ source: CLIENT, destination: HOST, flags: RST })
  const established = 'permit in tcp from any to any established'
  t.ok(permits('in', ack, established))
  t.ok(permits('in', reset, established))
  t.notOk(permits('in', web, established))
  t.notOk(permits('in', dns, 'permit in ip from any to any established'))
  t.ok(permits('in', web, 'permit in tcp from any to any setup'))
  t.notOk(permits('in', answer, 'permit in tcp from any to any setup'))
  t.ok(permits('in', web, 'permit in tcp from any to any tcpflags syn,!rst'))
  t.notOk(permits('in', web, 'permit in tcp from any to any tcpflags syn,ack'))
  const echo = 'permit in icmp from any to any icmptypes 8'
  t.ok(permits('in', icmp(CLIENT, HOST, 8), echo))
  t.notOk(permits('in', icmp(CLIENT, HOST, 13), echo))
  t.ok(permits('in', icmp(CLIENT6, HOST6, 200), 'permit in 58 from any to any icmptypes 128-255'))
})

t.test('fragments cannot bring past a filter what a whole packet could not', async t => {
  const first = fragment(web, 0x2000)
  const later = fragment(web, 0x2000 | 185)
  t.notOk(permits('in', first, 'deny in tcp from any to any 443'), 'the first has the ports')
  t.ok(permits('in', later, 'deny in tcp from any to any 443'), 'later ones have none')
  t.notOk(permits('in', later, 'permit in tcp from any to any 443'))
  t.notOk(permits('in', later, 'deny in ip from any to any frag'))
  t.ok(permits('in', first, 'deny in ip from any to any frag'))
  t.notOk(
    permits('in', fragment(web, 1), 'deny in udp from any to any'),
    'one that could overwrite the flags (RFC 1858 section 4.2)',
  )
  const tiny = wrap({ source: CLIENT, destination: HOST }, 6, new Uint8Array(8), 4)
  t.notOk(permits('in', tiny, 'deny in udp from any to any'), 'one too short for its flags')
  const noPorts = wrap({ source: CLIENT, destination: HOST }, 17, new Uint8Array(2), 0)
  t.notOk(permits('in', noPorts, 'deny in tcp from any to any'))
})

t.test('IPv6 extension headers are passed over, within bounds', async t => {
  const behind = (...headers: number[][]) => {
    const chain = headers.flatMap(([, ...bytes]) => bytes)
    const message = Uint8Array.from([...chain, ...web6.subarray(40)])
    const packet = wrap(
      { source: CLIENT6, destination: HOST6 },
      headers[0]?.[0] ?? 6,
      message.slice(),
      0,
    )
    packet.set(message, 40)
    return packet
  }
  const options = (next: number, kind: number) => [kind, next, 0, 1, 4, 0, 0, 0, 0]
  const rule = 'permit in tcp from any to any 443'
  t.ok(permits('in', behind(options(60, 0), options(6, 60)), rule))
  t.notOk(permits('in', behind(options(17, 0)), rule), 'the last header names the protocol')
  const fragmentHeader = (offset: number) => [44, 6, 0, offset >>> 5, (offset << 3) | 1, 0, 0, 0, 1]
  t.ok(permits('in', behind(fragmentHeader(0)), rule))
  t.notOk(permits('in', behind(fragmentHeader(100)), rule))
  t.ok(permits('in', behind(fragmentHeader(100)), 'permit in ip from any to any frag'))
  const many = Array.from({ length: 9 }, () => options(60, 60))
  t.notOk(permits('in', behind(...many), 'deny in udp from any to any'), 'an endless chain')
  const cut = behind(options(60, 0)).subarray(0, 44)
  t.notOk(permits('in', cut, 'deny in udp from any to any'), 'a chain that is cut off')
})

t.test('no bytes make the filter throw, and a filter of nothing but deny passes none', async t => {
  const filter = new PacketFilter(
    rules(
      'deny in tcp from 10.0.0.0/8 1-2 to any established',
      'deny in icmp from any to any icmptypes 8',
      'deny in ip from any to any frag',
      'deny in ip from any to any',
    ),
  )
  const packet = fc.uint8Array({ minLength: 40, maxLength: 120 })
  fc.assert(
    fc.property(packet, fc.constantFrom(0x45, 0x4f, 0x60), (bytes, version) => {
      memory.bytes.set(bytes, packetAt)
      memory.bytes[packetAt] = version
      return !filter.permitsFromClient(memory, packetAt, bytes.length)
    }),
    { seed: 4849, numRuns: 3000 },
  )
  t.pass()
})

t.test('a bucket lets its burst through, then its rate, and never more', async t => {
  const bucket = new TokenBucket(8_000_000, 10_000, 0)
  let passed = 0
  for (let i = 0; i < 20; i++) if (bucket.take(1000, 0)) passed++
  t.equal(passed, 10, 'the burst')
  t.notOk(bucket.take(1000, 0.5))
  t.ok(bucket.take(1000, 1), '1000 bytes each ms')
  t.notOk(bucket.take(1, 1))
  t.notOk(bucket.take(1000, 0.2), 'a clock that goes back fills nothing')
  t.equal(bucket.takePackets(20, 40, 960, 20 * 960, 1e9), 10, 'an idle time gives one burst')
  t.equal(bucket.takePackets(3, 40, 960, 2 * 960 + 10, 1e9 + 3), 3, 'a short last packet fits')
})

interface Site {
  readonly dataplane: ReturnType<typeof createMemoryDataplane>['dataplane']
  readonly device: ReturnType<typeof createMemoryDataplane>['memoryDevice']
  readonly clock: ManualClock
  readonly port: Port
  readonly sink: CollectingSink
  readonly other: CollectingSink
  send(packet: Uint8Array): void
  count(name: string): number
}

function setUp(): Site {
  const clock = new ManualClock(1000)
  const { dataplane, memoryDevice: device } = createMemoryDataplane({
    mtuBytes: 1500,
    ipv4Address: ip4('10.0.0.1'),
    clock,
    memoryBytes: 4 << 20,
    streamSlotCount: 4,
    intakeBytes: 256 << 10,
  })
  dataplane.start()
  const sink = new CollectingSink(dataplane.memory)
  const other = new CollectingSink(dataplane.memory)
  const port = dataplane.attach({ label: 'alice', sink, onLinkPacket: () => {} })
  port.addIpv4(ip4(CLIENT))
  port.addIpv6(ip6('2001:db8:2::'), 64)
  dataplane.attach({ label: 'bob', sink: other, onLinkPacket: () => {} }).addIpv4(ip4('10.0.0.3'))
  return {
    dataplane,
    device,
    clock,
    port,
    sink,
    other,
    send: packet => {
      const at = dataplane.intake(packet.length)
      dataplane.memory.bytes.set(packet, at)
      port.deliver(at, packet.length)
      dataplane.flush()
    },
    count: name => dataplane.status().counters[name] ?? 0,
  }
}

t.test('a filter holds from the next packet on, both ways, and can be lifted', async t => {
  const { dataplane, device, clock, port, sink, other, send, count } = setUp()
  t.teardown(() => dataplane.stop())
  const filter = new PacketFilter(
    rules(
      'permit in tcp from any to any 443',
      'permit in udp from any to any 53',
      'permit out tcp from any 443 to assigned',
    ),
  )
  send(icmp(CLIENT, HOST, 8))
  t.equal(device.toHost.length, 1, 'nothing is filtered before')
  port.limit(filter, undefined)
  const activeMs = port.counters.lastActiveMs
  clock.advance(5000)
  send(icmp(CLIENT, HOST, 8))
  send(icmp(CLIENT6, HOST6, 128))
  send(udp({ source: CLIENT, destination: '10.0.0.3' }))
  t.equal(device.toHost.length, 1)
  t.equal(other.packets.length, 0, 'nor to other clients')
  t.equal(count('drop-filtered'), 3)
  t.equal(port.counters.droppedPackets, 3)
  t.equal(port.counters.lastActiveMs, activeMs, 'what is dropped keeps no session alive')
  send(web)
  send(dns)
  t.equal(device.toHost.length, 3)
  device.fromHost(answer)
  device.fromHost(udp({ source: HOST, destination: CLIENT }))
  t.equal(sink.packets.length, 1)
  t.equal(count('drop-filtered'), 4)
  port.limit(undefined, undefined)
  device.fromHost(udp({ source: HOST, destination: CLIENT }))
  t.equal(sink.packets.length, 2)
})

t.test('a super-packet counts as the packets that it stands for', async t => {
  const { dataplane, device, clock, port, sink, count } = setUp()
  t.teardown(() => dataplane.stop())
  const payload = pattern(20 * 1000)
  const packet = tcp({ source: HOST, destination: CLIENT, flags: 0x19, payload })
  const superPacket = () =>
    device.fromHost(packet, {
      gsoType: Gso.tcp4,
      segmentBytes: 1000,
      needsChecksum: true,
      checksumStart: 20,
      checksumOffset: 16,
    })
  // 1040 bytes a packet; the burst holds nine of them.
  port.limit(undefined, { sendBitsPerSecond: 1_040_000 * 8, sendBurstBytes: 9 * 1040 })
  superPacket()
  t.equal(sink.packets.length, 9)
  t.equal(count('drop-rate-limited'), 11)
  t.ok(
    sink.packets.every(sent => ((readTcp(sent)?.flags ?? 1) & 0x01) === 0),
    'the end of the stream was not among them, so nobody is told of it',
  )
  clock.advance(5)
  superPacket()
  t.equal(sink.packets.length, 14, 'five packets in five ms')
  port.limit(new PacketFilter(rules('deny out tcp from any to any')), {})
  superPacket()
  t.equal(sink.packets.length, 14)
  t.equal(count('drop-filtered'), 20)
  port.limit(undefined, undefined)
  superPacket()
  t.equal(sink.packets.length, 34)
})

t.test('a rate from the client is its own, and both can be set at once', async t => {
  const { dataplane, device, port, sink, send, count } = setUp()
  t.teardown(() => dataplane.stop())
  port.limit(undefined, { receiveBitsPerSecond: 8000, receiveBurstBytes: 9216 })
  const packet = udp({ source: CLIENT, destination: HOST, payload: pattern(996) })
  for (let i = 0; i < 12; i++) send(packet)
  t.equal(device.toHost.length, 9)
  t.equal(count('drop-rate-limited'), 3)
  for (let i = 0; i < 12; i++) device.fromHost(udp({ source: HOST, destination: CLIENT }))
  t.equal(sink.packets.length, 12, 'the other way is free')
})

t.test('a network that is taken away is no longer routed nor accepted as source', async t => {
  const { dataplane, device, port, sink, send, count } = setUp()
  t.teardown(() => dataplane.stop())
  port.addIpv4Network(ip4('172.16.0.0'), 16)
  port.addIpv6(ip6('2001:db8:77::'), 48)
  send(udp({ source: '172.16.0.9', destination: HOST }))
  device.fromHost(udp({ source: HOST, destination: '172.16.0.9' }))
  t.equal(device.toHost.length, 1)
  t.equal(sink.packets.length, 1)
  t.ok(port.removeIpv4Network(ip4('172.16.0.0'), 16))
  t.ok(port.removeIpv6(ip6('2001:db8:77::'), 48))
  t.notOk(port.removeIpv4Network(ip4('172.16.0.0'), 16), 'once')
  t.notOk(port.removeIpv4Network(ip4('10.0.0.3'), 32), "another's stays")
  send(udp({ source: '172.16.0.9', destination: HOST }))
  device.fromHost(udp({ source: HOST, destination: '172.16.0.9' }))
  send(udp({ source: CLIENT, destination: HOST }))
  t.equal(device.toHost.length, 2)
  t.equal(count('drop-spoofed-source'), 1)
  t.equal(count('drop-no-route'), 1)
})
