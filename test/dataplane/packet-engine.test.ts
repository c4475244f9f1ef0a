import fc from 'fast-check'
import t from 'tap'
import { concatBytes, u16, u32 } from '../../lib/core/bytes.ts'
import { ManualClock } from '../../lib/core/clock.ts'
import { InvariantError } from '../../lib/core/errors.ts'
import type { Port } from '../../lib/dataplane/dataplane.ts'
import { Gso } from '../../lib/dataplane/frame.ts'
import type { FrameMetadata, MemoryDevice } from '../../lib/dataplane/memory-device.ts'
import {
  createMemoryDataplane,
  type MemoryDataplaneOptions,
} from '../../lib/dataplane/open-dataplane.ts'
import type { PacketEngine } from '../../lib/dataplane/packet-engine.ts'
import {
  CollectingSink,
  icmp,
  ip4,
  ip6,
  pattern,
  readPacket,
  readTcp,
  referenceSum,
  tcp,
  udp,
} from './packets.ts'

const HOST = '192.0.2.1'
const HOST6 = '2001:db8:ffff::1'
const SYN = 0x02

interface Session {
  readonly port: Port
  readonly sink: CollectingSink
  readonly linkPackets: Uint8Array[]
  send(packet: Uint8Array): void
}

interface Setup {
  readonly dataplane: PacketEngine
  readonly device: MemoryDevice
  readonly clock: ManualClock
  /** 10.0.0.2 and 2001:db8:2::/64 */
  readonly alice: Session
  /** 10.0.0.3 and 2001:db8:3::/64, and the network 172.16.0.0/16 */
  readonly bob: Session
  count(name: string): number
}

function setUp(options: MemoryDataplaneOptions = {}): Setup {
  const clock = new ManualClock(1000)
  const { dataplane, memoryDevice } = createMemoryDataplane({
    mtuBytes: 1500,
    ipv4Address: ip4('10.0.0.1'),
    ipv6Address: ip6('2001:db8::1'),
    clock,
    memoryBytes: 4 << 20,
    streamSlotCount: 4,
    intakeBytes: 256 << 10,
    ...options,
  })
  dataplane.start()
  const attach = (label: string): Session => {
    const sink = new CollectingSink(dataplane.memory)
    const linkPackets: Uint8Array[] = []
    const port = dataplane.attach({
      label,
      sink,
      onLinkPacket: bytes => linkPackets.push(bytes.slice()),
    })
    return {
      port,
      sink,
      linkPackets,
      send: packet => {
        const at = dataplane.intake(packet.length)
        dataplane.memory.bytes.set(packet, at)
        port.deliver(at, packet.length)
      },
    }
  }
  const alice = attach('alice')
  alice.port.addIpv4(ip4('10.0.0.2'))
  alice.port.addIpv6(ip6('2001:db8:2::'), 64)
  const bob = attach('bob')
  bob.port.addIpv4(ip4('10.0.0.3'))
  bob.port.addIpv6(ip6('2001:db8:3::'), 64)
  bob.port.addIpv4Network(ip4('172.16.0.0'), 16)
  return {
    dataplane,
    device: memoryDevice,
    clock,
    alice,
    bob,
    count: name => dataplane.status().counters[name] ?? 0,
  }
}

const toAlice = { source: HOST, destination: '10.0.0.2' }
const fromAlice = { source: '10.0.0.2', destination: HOST }
const toAlice6 = { source: HOST6, destination: '2001:db8:2::5' }
const fromAlice6 = { source: '2001:db8:2::5', destination: HOST6 }

t.test('from the host', async t => {
  t.test('a packet goes to the session that has its destination', async t => {
    const { device, alice, bob, count } = setUp()
    const packets = [
      tcp({ ...toAlice, payload: pattern(100) }),
      udp({ ...toAlice6, payload: pattern(100) }),
    ]
    for (const packet of packets) device.fromHost(packet)
    const toSite = udp({ source: HOST, destination: '172.16.9.9', payload: pattern(9) })
    device.fromHost(toSite)
    t.same(alice.sink.taken(), packets)
    t.same(bob.sink.taken(), [toSite])
    t.equal(alice.port.counters.sentPackets, 2)
    t.equal(alice.port.counters.sentBytes, (packets[0]?.length ?? 0) + (packets[1]?.length ?? 0))
    t.equal(count('sent-packets'), 3)
  })

  t.test('what belongs to nobody is dropped with its reason', async t => {
    const { device, count } = setUp()
    device.fromHost(udp({ source: HOST, destination: '10.0.0.99' }))
    device.fromHost(udp({ source: HOST6, destination: '2001:db8:99::1' }))
    t.equal(count('drop-no-route'), 2)
    device.fromHost(udp({ source: HOST, destination: '224.0.0.251' }))
    device.fromHost(udp({ source: 'fe80::1', destination: 'ff02::16' }))
    t.equal(count('drop-host-multicast'), 2)
    device.fromHost(new Uint8Array(0))
    device.fromHost(Uint8Array.of(0x45, 0, 0))
    device.fromHost(new Uint8Array(60))
    const shortHeader = udp(toAlice)
    shortHeader[0] = 0x4f
    device.fromHost(shortHeader.slice(0, 28))
    t.equal(count('drop-malformed'), 4)
    t.equal(count('dropped-packets'), 8)
  })

  t.test('a checksum that the host left undone is completed', async t => {
    const { device, alice, count } = setUp()
    for (const [packet, offset] of [
      [tcp({ ...toAlice, payload: pattern(333) }), 16],
      [udp({ ...toAlice, payload: pattern(333) }), 6],
      [tcp({ ...toAlice6, payload: pattern(333) }), 16],
    ] as const) {
      const { undone, metadata } = unfinished(packet, offset, Gso.none, 0)
      device.fromHost(undone, metadata)
      t.same(alice.sink.taken(), [packet])
    }
    const packet = tcp(toAlice)
    device.fromHost(packet, { ...unfinished(packet, 16, Gso.none, 0).metadata, checksumStart: 39 })
    t.equal(count('drop-bad-frame'), 1)
  })

  t.test('a UDP checksum that comes out as zero is sent as all ones (RFC 768)', async t => {
    const { device, alice } = setUp()
    // The last word makes the sum 0xffff.
    const zero = udp({ ...toAlice, payload: pattern(32) })
    zero[58] = 0
    zero[59] = 0
    const probe = udp({ ...toAlice, payload: zero.slice(28) })
    const rest = u16(probe, 26)
    const payload = zero.slice(28)
    payload[30] = rest >> 8
    payload[31] = rest & 255
    const packet = udp({ ...toAlice, payload })
    t.equal(u16(packet, 26), 0xffff)
    const { undone, metadata } = unfinished(packet, 6, Gso.none, 0)
    device.fromHost(undone, metadata)
    t.same(alice.sink.taken(), [packet])
  })

  for (const [family, addresses] of [
    ['IPv4', toAlice],
    ['IPv6', toAlice6],
  ] as const) {
    t.test(
      `${family}: a TCP super-packet is cut; FIN and PSH stay on the last, CWR on the first`,
      async t => {
        const { device, alice } = setUp()
        const payload = pattern(10_123)
        const big = tcp({
          ...addresses,
          sequence: 0xfffff000,
          id: 0xfffe,
          flags: 0x10 | 0x08 | 0x01 | 0x80,
          options: Uint8Array.of(1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2),
          payload,
        })
        const { undone, metadata } = unfinished(
          big,
          16,
          family === 'IPv4' ? Gso.tcp4 : Gso.tcp6,
          1300,
        )
        device.fromHost(undone, metadata)
        const packets = alice.sink.taken()
        const segments = packets.map(readTcp)
        t.equal(segments.length, 8)
        t.same(
          concatBytes(...segments.map(segment => segment?.payload ?? new Uint8Array(0))),
          payload,
        )
        t.same(
          segments.map(segment => segment?.sequence),
          segments.map((_, i) => (0xfffff000 + i * 1300) >>> 0),
        )
        t.equal(segments[0]?.flags, 0x10 | 0x80)
        t.equal(segments[1]?.flags, 0x10)
        t.equal(segments.at(-1)?.flags, 0x10 | 0x08 | 0x01)
        if (family === 'IPv4') {
          t.same(
            packets.slice(0, 3).map(packet => readPacket(packet)?.id),
            [0xfffe, 0xffff, 0],
          )
        }
      },
    )

    t.test(`${family}: a UDP super-packet is cut into datagrams`, async t => {
      const { device, alice } = setUp()
      const big = udp({ ...addresses, payload: pattern(5000) })
      const { undone, metadata } = unfinished(big, 6, Gso.udp, 1200)
      device.fromHost(undone, metadata)
      const datagrams = alice.sink.taken().map(readPacket)
      t.same(
        datagrams.map(datagram => datagram?.message.length),
        [1208, 1208, 1208, 1208, 208],
      )
      t.same(
        concatBytes(...datagrams.map(d => d?.message.subarray(8) ?? new Uint8Array(0))),
        pattern(5000),
      )
    })
  }

  t.test('a sink without room costs counted packets, and the rest of its super-packet', async t => {
    const { device, alice, count } = setUp()
    alice.sink.room = 3
    const { undone, metadata } = unfinished(
      tcp({ ...toAlice, payload: pattern(5000) }),
      16,
      Gso.tcp4,
      1000,
    )
    device.fromHost(undone, metadata)
    t.equal(alice.sink.taken().length, 3)
    t.equal(count('drop-no-room'), 2)
    device.fromHost(udp(toAlice))
    t.equal(count('drop-no-room'), 3)
    t.equal(alice.port.counters.droppedPackets, 3)
  })

  t.test('frames whose metadata do not fit are dropped whole', async t => {
    const { device, alice, count } = setUp()
    const packet = tcp({ ...toAlice, payload: pattern(3000) })
    const { metadata } = unfinished(packet, 16, Gso.tcp4, 1000)
    device.fromHost(packet, { ...metadata, segmentBytes: 0 })
    device.fromHost(packet, { ...metadata, checksumStart: 60 })
    device.fromHost(packet, { ...metadata, gsoType: 3 })
    t.equal(count('drop-bad-frame'), 3)
    t.same(alice.sink.taken(), [])
  })

  t.test('a burst is bounded, and the rest comes later', async t => {
    const later: (() => void)[] = []
    const { device, alice, count } = setUp({ schedule: action => later.push(action) })
    const packets = Array.from({ length: 300 }, (_, i) => udp({ ...toAlice, id: i }))
    device.burstFromHost(packets)
    t.equal(alice.sink.packets.length, 128)
    t.equal(device.waitingCount, 172)
    t.equal(later.length, 1)
    while (later.length > 0) later.shift()?.()
    t.same(alice.sink.taken(), packets, 'in order')
    t.equal(count('bursts'), 3)
    t.equal(count('bursts-cut-short'), 2)
    t.equal(alice.sink.flushCount, 3, 'one flush a burst')
  })

  t.test('a slow sink ends the burst after its time', async t => {
    const later: (() => void)[] = []
    const { device, alice, clock } = setUp({ schedule: action => later.push(action) })
    const { sink } = alice
    const commit = sink.commit.bind(sink)
    sink.commit = (at, length) => {
      clock.advance(1)
      commit(at, length)
    }
    device.burstFromHost(Array.from({ length: 20 }, () => udp(toAlice)))
    t.equal(sink.packets.length, 8)
  })
})

t.test('the MSS of a SYN', async t => {
  const mss = (value: number) => Uint8Array.of(2, 4, value >> 8, value & 255)
  const optionCases: [string, Uint8Array][] = [
    ['alone', mss(1460)],
    ['behind others, on an odd offset', Uint8Array.of(1, ...mss(1460), 1, 1, 1)],
    ['behind a time stamp', Uint8Array.of(8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, ...mss(1460), 0)],
  ]
  for (const [where, options] of optionCases) {
    t.test(`${where}: is lowered to the tunnel both ways, with a correct checksum`, async t => {
      const { dataplane, device, alice, count } = setUp()
      alice.sink.mtuBytes = 1300
      for (const [down, up, limit] of [
        [toAlice, fromAlice, 1260],
        [toAlice6, fromAlice6, 1240],
      ] as const) {
        device.fromHost(tcp({ ...down, flags: SYN, options }))
        alice.send(tcp({ ...up, flags: SYN | 0x10, options }))
        dataplane.flush()
        for (const packet of [alice.sink.taken()[0], device.toHost.pop()]) {
          const segment = readTcp(packet ?? new Uint8Array(0))
          t.ok(segment, 'checksums hold')
          t.equal(mssOf(segment?.options ?? new Uint8Array(0)), limit)
        }
        const { undone, metadata } = unfinished(
          tcp({ ...down, flags: SYN, options }),
          16,
          Gso.none,
          0,
        )
        device.fromHost(undone, metadata)
        const segment = readTcp(alice.sink.taken()[0] ?? new Uint8Array(0))
        t.equal(mssOf(segment?.options ?? new Uint8Array(0)), limit, 'checksum left undone')
      }
      t.equal(count('mss-clamped'), 6)
    })
  }

  t.test('a smaller one, another segment and broken options stay as they are', async t => {
    const { device, alice } = setUp()
    alice.sink.mtuBytes = 1300
    const packets = [
      tcp({ ...toAlice, flags: SYN, options: mss(1200) }),
      tcp({ ...toAlice, flags: 0x10, options: mss(1460) }),
      tcp({ ...toAlice, flags: SYN, options: Uint8Array.of(0, ...mss(1460), 0, 0, 0) }),
      tcp({ ...toAlice, flags: SYN, options: Uint8Array.of(9, 0, 2, 4) }),
      tcp({ ...toAlice, flags: SYN, options: Uint8Array.of(1, 1, 2, 40) }),
      tcp({ ...toAlice, flags: SYN, options: Uint8Array.of(1, 1, 1, 2) }),
      tcp({ ...toAlice, flags: SYN }),
    ]
    for (const packet of packets) device.fromHost(packet)
    t.same(alice.sink.taken(), packets)
  })
})

t.test('packets larger than the tunnel', async t => {
  t.test('IPv4 with DF is answered: fragmentation needed, from our address (RFC 1191)', async t => {
    const { device, alice, count } = setUp()
    const packet = udp({ ...toAlice, payload: pattern(1450) })
    device.fromHost(packet)
    t.same(alice.sink.taken(), [])
    t.equal(count('drop-too-big'), 1)
    const answer = device.toHost[0] ?? new Uint8Array(0)
    const read = readPacket(answer)
    t.ok(read, 'checksums hold')
    t.equal(u32(answer, 12), ip4('10.0.0.1'))
    t.equal(u32(answer, 16), ip4(HOST))
    t.equal(answer.length, 576)
    t.same([...(read?.message.subarray(0, 2) ?? [])], [3, 4])
    t.equal(u16(read?.message ?? answer, 6), 1400)
    t.same(read?.message.subarray(8), packet.subarray(0, 548))
  })

  t.test('IPv6 is answered: packet too big (RFC 4443 §3.2)', async t => {
    const { device, alice } = setUp()
    const packet = udp({ ...toAlice6, payload: pattern(1450) })
    device.fromHost(packet)
    t.same(alice.sink.taken(), [])
    const answer = device.toHost[0] ?? new Uint8Array(0)
    const read = readPacket(answer)
    t.ok(read, 'checksum holds')
    t.same(answer.subarray(8, 24), ip6('2001:db8::1'))
    t.equal(answer.length, 1280)
    t.same([...(read?.message.subarray(0, 2) ?? [])], [2, 0])
    t.equal(u32(read?.message ?? answer, 4), 1400)
    t.same(read?.message.subarray(8), packet.subarray(0, 1232))
  })

  t.test('a super-packet is answered once, and dropped as the packets it stands for', async t => {
    const { device, count } = setUp()
    const { undone, metadata } = unfinished(
      tcp({ ...toAlice, payload: pattern(14_000) }),
      16,
      Gso.tcp4,
      1400,
    )
    device.fromHost(undone, metadata)
    t.equal(device.toHost.length, 1)
    t.equal(count('drop-too-big'), 10)
  })

  t.test('a TCP super-packet without DF is cut smaller instead', async t => {
    const { device, alice } = setUp()
    const { undone, metadata } = unfinished(
      tcp({ ...toAlice, df: false, payload: pattern(14_000) }),
      16,
      Gso.tcp4,
      1400,
    )
    device.fromHost(undone, metadata)
    const packets = alice.sink.taken()
    t.ok(packets.every(packet => packet.length <= 1400))
    t.same(
      concatBytes(...packets.map(packet => readTcp(packet)?.payload ?? new Uint8Array(0))),
      pattern(14_000),
    )
  })

  t.test('without DF it is fragmented, options copied as they say (RFC 791)', async t => {
    const { device, alice, count } = setUp()
    const whole = udp({ ...toAlice, df: false, payload: pattern(4000), id: 77 })
    // Record route (first fragment only) and a security option (copied), then the end.
    const options = Uint8Array.of(7, 7, 4, 0, 0, 0, 0, 0x82, 4, 1, 2, 0)
    const packet = concatBytes(whole.subarray(0, 20), options, whole.subarray(20))
    packet[0] = 0x48
    packet[2] = packet.length >> 8
    packet[3] = packet.length & 255
    packet[10] = 0
    packet[11] = 0
    const sum = ~referenceSum(packet.subarray(0, 32)) & 0xffff
    packet[10] = sum >> 8
    packet[11] = sum & 255
    device.fromHost(packet)
    const fragments = alice.sink.taken()
    t.equal(fragments.length, 3)
    t.equal(count('fragments-made'), 3)
    t.ok(fragments.every(fragment => fragment.length <= 1400 && readPacket(fragment)))
    t.same([...(fragments[0]?.subarray(20, 32) ?? [])], [...options])
    t.same([...(fragments[1]?.subarray(20, 32) ?? [])], [1, 1, 1, 1, 1, 1, 1, 0x82, 4, 1, 2, 0])
    t.same(reassembled(fragments, 32), packet.subarray(32))
    t.same(
      fragments.map(fragment => (readPacket(fragment)?.fragment ?? 0) >> 13),
      [1, 1, 0],
    )
    t.ok(fragments.every(fragment => readPacket(fragment)?.id === 77))
  })

  t.test('a fragment is fragmented again in its place', async t => {
    const { device, alice } = setUp()
    const middle = udp({ ...toAlice, df: false, payload: pattern(1980) })
    middle[6] = 0x20
    middle[7] = 100
    middle[10] = 0
    middle[11] = 0
    const sum = ~referenceSum(middle.subarray(0, 20)) & 0xffff
    middle[10] = sum >> 8
    middle[11] = sum & 255
    device.fromHost(middle)
    t.same(
      alice.sink.taken().map(fragment => readPacket(fragment)?.fragment),
      [0x2000 | 100, 0x2000 | (100 + 1376 / 8)],
    )
  })

  t.test('answers are never about ICMP errors, multicast sources, later fragments', async t => {
    const { device, count } = setUp()
    const long = pattern(1450)
    const df = (packet: Uint8Array) => {
      packet[6] = (packet[6] ?? 0) | 0x40
      return packet
    }
    for (const type of [3, 4, 5, 11, 12]) device.fromHost(df(icmp(HOST, '10.0.0.2', type, long)))
    for (const type of [1, 2, 3, 4, 137]) device.fromHost(icmp(HOST6, '2001:db8:2::5', type, long))
    device.fromHost(udp({ source: '0.0.0.0', destination: '10.0.0.2', payload: long }))
    device.fromHost(udp({ source: '127.0.0.1', destination: '10.0.0.2', payload: long }))
    device.fromHost(udp({ source: '::', destination: '2001:db8:2::5', payload: long }))
    const later = udp({ ...toAlice, payload: long })
    later[7] = 9
    device.fromHost(later)
    t.equal(device.toHost.length, 0)
    t.equal(count('icmp-suppressed'), 14)
    device.fromHost(df(icmp(HOST, '10.0.0.2', 8, long)))
    device.fromHost(icmp(HOST6, '2001:db8:2::5', 128, long))
    t.equal(device.toHost.length, 2, 'echo requests are answered')
  })

  t.test('answers are limited in rate', async t => {
    const { device, clock, count } = setUp()
    const packet = udp({ ...toAlice, payload: pattern(1450) })
    for (let i = 0; i < 80; i++) device.fromHost(packet)
    t.equal(device.toHost.length, 50)
    t.equal(count('icmp-suppressed'), 30)
    clock.advance(50)
    for (let i = 0; i < 80; i++) device.fromHost(packet)
    t.equal(device.toHost.length, 60)
  })

  t.test('without an address of our own there is no answer, only the count', async t => {
    const clock = new ManualClock()
    const { dataplane, memoryDevice } = createMemoryDataplane({ clock })
    dataplane.start()
    const sink = new CollectingSink(dataplane.memory)
    sink.mtuBytes = 1000
    const port = dataplane.attach({ label: 'x', sink, onLinkPacket: () => {} })
    port.addIpv4(ip4('10.0.0.2'))
    memoryDevice.fromHost(udp({ ...toAlice, payload: pattern(1200) }))
    t.same(memoryDevice.toHost, [])
    t.equal(dataplane.status().counters['icmp-suppressed'], 1)
  })
})

t.test('from a session', async t => {
  t.test('packets reach the host at the end of the burst, trimmed to their length', async t => {
    const { dataplane, device, alice } = setUp()
    const packets = [
      tcp({ ...fromAlice, payload: pattern(50) }),
      udp(fromAlice6),
      icmp('10.0.0.2', HOST, 8),
    ]
    for (const packet of packets) alice.send(concatBytes(packet, pattern(13)))
    dataplane.flush()
    t.same(device.toHost, packets)
    t.equal(alice.port.counters.receivedPackets, 3)
  })

  t.test('the burst ends by itself with the turn of the event loop', async t => {
    const { device, alice } = setUp({
      offloads: { checksum: true, tso4: true, tso6: true, uso: true },
    })
    alice.send(udp({ ...fromAlice, payload: pattern(9) }))
    t.equal(device.toHost.length, 0, 'not yet')
    await new Promise(resolve => setImmediate(resolve))
    t.equal(device.toHost.length, 1)
  })

  t.test('with offloads the host gets super-packets', async t => {
    const { dataplane, device, alice, count } = setUp({
      offloads: { checksum: true, tso4: true, tso6: true, uso: true },
    })
    for (let i = 0; i < 20; i++) {
      alice.send(tcp({ ...fromAlice, sequence: 1 + 1000 * i, payload: pattern(1000, 1000 * i) }))
      alice.send(udp({ ...fromAlice6, payload: pattern(900) }))
    }
    dataplane.flush()
    t.same(
      device.toHostMetadata.map(metadata => metadata.gsoType),
      [Gso.tcp4, Gso.udp],
    )
    t.equal(count('coalesced-packets'), 38)
    t.equal(count('tun-written-frames'), 2)
  })

  t.test('a source that is not the session’s own is a forgery', async t => {
    const { dataplane, device, alice, bob, count } = setUp()
    alice.send(udp({ source: '10.0.0.3', destination: HOST }))
    alice.send(udp({ source: '10.0.0.9', destination: HOST }))
    alice.send(udp({ source: '2001:db8:3::1', destination: HOST6 }))
    alice.send(udp({ source: '2001:db8:9::1', destination: HOST6 }))
    alice.send(udp({ source: '0.0.0.0', destination: HOST }))
    alice.send(udp({ source: '10.0.0.3', destination: '255.255.255.255' }))
    alice.send(udp({ source: '2001:db8:3::1', destination: 'ff02::2' }))
    t.equal(count('drop-spoofed-source'), 7)
    alice.send(udp({ source: 'fe80::5', destination: HOST6 }))
    t.equal(count('drop-link-local-source'), 1)
    bob.send(udp({ source: '172.16.200.1', destination: HOST }))
    dataplane.flush()
    t.equal(device.toHost.length, 1, 'a network that is routed here may send')
    t.equal(alice.linkPackets.length, 0)
    t.equal(alice.port.counters.droppedPackets, 8)
  })

  t.test('an address that moved to another session is no longer the old one’s', async t => {
    const { dataplane, device, alice, bob, count } = setUp()
    alice.send(udp(fromAlice))
    bob.port.addIpv4(ip4('10.0.0.2'))
    alice.send(udp(fromAlice))
    bob.send(udp(fromAlice))
    dataplane.flush()
    t.equal(device.toHost.length, 2)
    t.equal(count('drop-spoofed-source'), 1)
  })

  t.test('senseless lengths, versions and destinations are dropped', async t => {
    const { dataplane, device, alice, count } = setUp()
    const good = udp({ ...fromAlice, payload: pattern(20) })
    const good6 = udp({ ...fromAlice6, payload: pattern(20) })
    const changed = (packet: Uint8Array, at: number, value: number) => {
      const copy = packet.slice()
      copy[at] = value
      return copy
    }
    const malformed = [
      new Uint8Array(0),
      good.subarray(0, 19),
      changed(good, 0, 0x44),
      changed(good, 0, 0x4f).subarray(0, 40),
      changed(good, 0, 0x55),
      changed(good, 3, good.length + 1),
      changed(good, 3, 19),
      good6.subarray(0, 39),
      changed(good6, 5, 29),
    ]
    for (const packet of malformed) alice.send(packet)
    t.equal(count('drop-malformed'), malformed.length)
    for (const destination of ['127.0.0.1', '0.0.0.0', '240.0.0.1']) {
      alice.send(udp({ source: '10.0.0.2', destination }))
    }
    alice.send(udp({ source: '2001:db8:2::1', destination: '::1' }))
    alice.send(udp({ source: '2001:db8:2::1', destination: '::' }))
    t.equal(count('drop-bad-destination'), 5)
    dataplane.flush()
    t.same(device.toHost, [])
  })

  t.test('arbitrary bytes never throw and never reach anybody', async t => {
    const { dataplane, device, alice, bob } = setUp({
      offloads: { checksum: true, tso4: true, tso6: true, uso: true },
    })
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 120 }),
        fc.nat(119),
        fc.nat(255),
        (bytes, at, value) => {
          const packet = tcp({ ...fromAlice, flags: SYN, payload: pattern(40) })
          packet[at] = value
          device.fromHost(bytes)
          alice.send(bytes)
          alice.send(packet)
          dataplane.flush()
          return bob.sink.packets.length === 0
        },
      ),
      { seed: 3, numRuns: 600 },
    )
    t.equal(bob.sink.packets.length, 0)
  })

  t.test('packets about the link are handed up, broadcasts are counted', async t => {
    const { dataplane, device, alice, count } = setUp()
    const solicitation = icmp('fe80::5', 'ff02::2', 133)
    const detection = icmp('::', 'ff02::1:ff00:5', 135)
    const discover = udp({
      source: '0.0.0.0',
      destination: '255.255.255.255',
      sourcePort: 68,
      destinationPort: 67,
    })
    const inform = udp({
      source: '10.0.0.2',
      destination: '255.255.255.255',
      sourcePort: 68,
      destinationPort: 67,
    })
    const renewal = udp({
      source: '10.0.0.2',
      destination: '10.0.0.1',
      sourcePort: 68,
      destinationPort: 67,
    })
    const netbios = udp({
      source: '10.0.0.2',
      destination: '255.255.255.255',
      destinationPort: 137,
    })
    const ssdp = udp({ source: '10.0.0.2', destination: '239.255.255.250', destinationPort: 1900 })
    const neighbour = icmp('fe80::5', 'fe80::1', 135)
    const packets = [solicitation, detection, discover, inform, renewal, netbios, ssdp, neighbour]
    for (const packet of packets) alice.send(packet)
    t.same(alice.linkPackets, packets)
    t.equal(count('link-packets'), packets.length)
    t.equal(count('ipv4-broadcasts'), 2)
    dataplane.flush()
    t.same(device.toHost, [])
  })

  t.test('our own address is the host’s, whatever is routed to sessions', async t => {
    const { dataplane, device, alice, bob } = setUp()
    bob.port.addIpv4Network(0, 0)
    bob.port.addIpv6(ip6('::'), 0)
    const packets = [
      udp({ source: '10.0.0.2', destination: '10.0.0.1' }),
      udp({ source: '2001:db8:2::5', destination: '2001:db8::1' }),
    ]
    for (const packet of packets) alice.send(packet)
    dataplane.flush()
    t.same(device.toHost, packets)
  })

  t.test('a session is active when it is used, not when it only makes noise', async t => {
    const { dataplane, device, clock, alice } = setUp()
    clock.advance(500)
    alice.send(udp({ source: '10.0.0.2', destination: '239.1.1.1' }))
    dataplane.flush()
    t.equal(alice.port.counters.lastActiveMs, 1000)
    alice.send(udp(fromAlice))
    dataplane.flush()
    t.equal(alice.port.counters.lastActiveMs, 1500)
    clock.advance(500)
    device.fromHost(udp(toAlice))
    t.equal(alice.port.counters.lastActiveMs, 2000)
  })

  t.test('an intake that is full is flushed first', async t => {
    const { dataplane, device, alice, count } = setUp({
      offloads: { checksum: true, tso4: true, tso6: true, uso: true },
    })
    const payload = pattern(1300)
    for (let i = 0; i < 400; i++) alice.send(udp({ ...fromAlice, payload }))
    const early = device.toHost.length
    t.ok(early > 0)
    dataplane.flush()
    t.ok(device.toHost.length > early, 'the rest was still waiting')
    t.equal(count('tun-written-frames') + count('coalesced-packets'), 400)
    for (const received of device.toHost) {
      for (let at = 28; at < received.length; at += payload.length) {
        if (Buffer.compare(received.subarray(at, at + payload.length), payload) !== 0) {
          t.fail(`payload at ${at} was overwritten`)
        }
      }
    }
    t.ok(count('intake-overflows') >= 1)
    t.throws(() => dataplane.intake(dataplane.maxIntakeBytes + 1), InvariantError)
    t.ok(dataplane.intake(dataplane.maxIntakeBytes) > 0)
  })

  t.test('what the host refuses is counted', async t => {
    const { dataplane, device, alice, count } = setUp()
    device.isRefusing = true
    alice.send(udp(fromAlice))
    dataplane.flush()
    t.equal(count('drop-device-refused'), 1)
    dataplane.stop()
    alice.send(udp(fromAlice))
    dataplane.flush()
    t.equal(count('drop-device-stopped'), 1)
  })
})

t.test('between sessions', async t => {
  const aliceToBob = { source: '10.0.0.2', destination: '10.0.0.3' }

  t.test('packets go from sink to sink, one hop older, without the host', async t => {
    const { dataplane, device, alice, bob, count } = setUp()
    alice.send(tcp({ ...aliceToBob, payload: pattern(99) }))
    alice.send(udp({ source: '2001:db8:2::1', destination: '2001:db8:3::1', ttl: 9 }))
    dataplane.flush()
    const [first, second] = bob.sink.taken().map(readPacket)
    t.equal(first?.ttl, 63, 'and the checksum holds')
    t.equal(second?.ttl, 8)
    t.same(device.toHost, [])
    t.equal(count('client-to-client-packets'), 2)
    t.equal(bob.port.counters.sentPackets, 2)
  })

  t.test('are forbidden when they shall not see each other', async t => {
    const { dataplane, device, alice, bob, count } = setUp({ clientToClient: false })
    alice.send(udp(aliceToBob))
    dataplane.flush()
    t.same([...bob.sink.taken(), ...device.toHost], [])
    t.equal(count('drop-client-to-client-forbidden'), 1)
    t.equal(alice.port.counters.droppedPackets, 1)
  })

  t.test('the last hop is answered: time exceeded', async t => {
    const { dataplane, alice, bob, count } = setUp()
    alice.send(udp({ ...aliceToBob, ttl: 1 }))
    alice.send(udp({ source: '2001:db8:2::1', destination: '2001:db8:3::1', ttl: 1 }))
    dataplane.flush()
    t.same(bob.sink.taken(), [])
    const [answer, answer6] = alice.sink.taken().map(readPacket)
    t.same([...(answer?.message.subarray(0, 2) ?? [])], [11, 0])
    t.same([...(answer6?.message.subarray(0, 2) ?? [])], [3, 0])
    t.equal(count('drop-ttl-expired'), 2)
  })

  t.test('what does not fit the other tunnel is answered or fragmented', async t => {
    const { dataplane, alice, bob } = setUp()
    alice.sink.mtuBytes = 1500
    bob.sink.mtuBytes = 1000
    alice.send(udp({ ...aliceToBob, payload: pattern(1200) }))
    alice.send(udp({ ...aliceToBob, df: false, payload: pattern(1200) }))
    alice.send(tcp({ ...aliceToBob, flags: SYN, options: Uint8Array.of(2, 4, 5, 180) }))
    dataplane.flush()
    const answer = readPacket(alice.sink.taken()[0] ?? new Uint8Array(0))
    t.same([...(answer?.message.subarray(0, 2) ?? [])], [3, 4])
    t.equal(u16(answer?.message ?? new Uint8Array(8), 6), 1000)
    const [first, second, syn] = bob.sink.taken()
    t.same(
      reassembled(
        [first, second].flatMap(p => (p ? [p] : [])),
        20,
      ).subarray(8),
      pattern(1200),
    )
    t.equal(mssOf(readTcp(syn ?? new Uint8Array(0))?.options ?? new Uint8Array(0)), 960)
  })

  t.test('a packet to the session itself goes nowhere', async t => {
    const { dataplane, alice, count } = setUp()
    alice.send(udp({ source: '10.0.0.2', destination: '10.0.0.2' }))
    dataplane.flush()
    t.equal(count('drop-hairpin'), 1)
  })
})

t.test('a port', async t => {
  t.test('that is our own way out brings packets for this host', async t => {
    const { dataplane, device, alice } = setUp()
    const sink = new CollectingSink(dataplane.memory)
    const uplink = dataplane.attach({
      label: 'uplink',
      sink,
      isUplink: true,
      onLinkPacket: () => {},
    })
    uplink.addIpv4Network(0, 0)
    const receive = (packet: Uint8Array) => {
      const at = dataplane.intake(packet.length)
      dataplane.memory.bytes.set(packet, at)
      uplink.deliver(at, packet.length)
    }
    const forUs = udp({ source: '198.51.100.1', destination: '10.50.0.1' })
    receive(forUs)
    receive(udp({ source: '198.51.100.1', destination: '10.0.0.2' }))
    dataplane.flush()
    t.same(device.toHost, [forUs], 'though the way back leads out again')
    t.equal(alice.sink.taken().length, 1, 'a session is still nearer')
  })

  t.test('transmits what we make ourselves', async t => {
    const { dataplane, alice, count } = setUp()
    const advertisement = icmp('fe80::1', 'ff02::1', 134)
    alice.port.transmit(advertisement)
    dataplane.flush()
    t.same(alice.sink.taken(), [advertisement])
    alice.port.transmit(new Uint8Array(1401))
    t.equal(count('drop-too-big'), 1)
    alice.sink.room = 0
    alice.port.transmit(advertisement)
    t.equal(count('drop-no-room'), 1)
  })

  t.test('carries nothing after detach, and its routes are gone', async t => {
    const { dataplane, device, alice, count } = setUp()
    t.equal(dataplane.portCounters().length, 2)
    alice.port.detach()
    alice.port.detach()
    device.fromHost(udp(toAlice))
    t.equal(count('drop-no-route'), 1)
    alice.send(udp(fromAlice))
    alice.port.transmit(udp(toAlice))
    t.equal(count('drop-detached'), 2)
    t.throws(() => alice.port.addIpv4(1), InvariantError)
    t.same(alice.sink.taken(), [])
    t.same(
      dataplane.portCounters().map(port => port.label),
      ['bob'],
    )
  })

  t.test('may be detached while its packets wait for the flush', async t => {
    const { dataplane, alice, bob } = setUp()
    alice.send(udp({ source: '10.0.0.2', destination: '10.0.0.3' }))
    bob.port.detach()
    dataplane.flush()
    t.equal(bob.sink.flushCount, 0)
  })

  t.test('refuses routes that make no sense', async t => {
    const { alice } = setUp()
    t.throws(() => alice.port.addIpv4Network(0, 33), InvariantError)
    t.throws(() => alice.port.addIpv6(new Uint8Array(16), -1), InvariantError)
    t.throws(() => alice.port.addIpv6(new Uint8Array(4), 64), InvariantError)
  })
})

t.test('a device that is lost says so once', async t => {
  const reasons: string[] = []
  const { device, dataplane, alice } = setUp({ onDeviceLost: reason => reasons.push(reason) })
  device.lose('deleted')
  t.same(reasons, ['deleted'])
  alice.send(udp(fromAlice))
  dataplane.flush()
  t.equal(dataplane.status().counters['drop-device-stopped'], 1)
  dataplane.stop()
  t.same(reasons, ['deleted'])
})

t.test('status names backend, device and offloads', async t => {
  const { dataplane } = setUp({ offloads: { checksum: true, tso4: true, tso6: false, uso: false } })
  const status = dataplane.status()
  t.equal(status.backend, 'memory')
  t.same(status.offloads, ['checksum', 'tso4'])
  t.equal(status.tunName, 'memory')
  t.equal(status.mtuBytes, 1500)
  t.equal(dataplane.memory.address, 0)
  t.equal(dataplane.streamSlots.slotBytes, 65_536)
})

/** The packet as a host with checksum offload would hand it over. */
function unfinished(
  packet: Uint8Array,
  checksumOffset: number,
  gsoType: number,
  segmentBytes: number,
): { undone: Uint8Array; metadata: FrameMetadata } {
  const undone = packet.slice()
  const isIpv6 = (packet[0] ?? 0) >> 4 === 6
  const checksumStart = isIpv6 ? 40 : 20
  const message = packet.slice(checksumStart)
  const addresses = packet.slice(isIpv6 ? 8 : 12, checksumStart)
  const tail = Uint8Array.of(0, (isIpv6 ? packet[6] : packet[9]) ?? 0, 0, 0)
  tail[2] = message.length >> 8
  tail[3] = message.length & 255
  const sum = referenceSum(addresses, tail)
  undone[checksumStart + checksumOffset] = sum >> 8
  undone[checksumStart + checksumOffset + 1] = sum & 255
  return {
    undone,
    metadata: { gsoType, segmentBytes, needsChecksum: true, checksumStart, checksumOffset },
  }
}

function mssOf(options: Uint8Array): number | undefined {
  for (let at = 0; at < options.length; ) {
    if (options[at] === 0) return undefined
    if (options[at] === 1) at++
    else if (options[at] === 2) return u16(options, at + 2)
    else at += options[at + 1] ?? 1
  }
  return undefined
}

/** The payload of fragments that are all there. */
function reassembled(fragments: readonly Uint8Array[], headerBytes: number): Uint8Array {
  const out: number[] = []
  for (const fragment of fragments) {
    const at = (u16(fragment, 6) & 0x1fff) * 8
    fragment.subarray(headerBytes).forEach((byte, i) => {
      out[at + i] = byte
    })
  }
  return Uint8Array.from(out)
}
