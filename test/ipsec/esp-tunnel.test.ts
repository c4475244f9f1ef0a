import t, { type Test } from 'tap'
import { toHex } from '../../lib/core/bytes.ts'
import { BindError } from '../../lib/core/errors.ts'
import { noRoom } from '../../lib/core/packet-sink.ts'
import type { PacketSuite } from '../../lib/crypto/packet-cipher.ts'
import { EncryptionId, IntegrityId } from '../../lib/crypto/transforms.ts'
import { DatagramHub } from '../../lib/dataplane/datagram-hub.ts'
import type { DatagramSender, Envelope } from '../../lib/dataplane/datagrams.ts'
import { SocketAddress } from '../../lib/dataplane/socket-address.ts'
import { EspChild } from '../../lib/ipsec/esp-child.ts'
import { type EspOwner, EspReceiver } from '../../lib/ipsec/esp-receiver.ts'
import { EspTunnel, type EspTunnelOptions } from '../../lib/ipsec/esp-tunnel.ts'
import { IkeSockets } from '../../lib/ipsec/ike-sockets.ts'
import { SaDatabase } from '../../lib/ipsec/sa-database.ts'
import type { TrafficSelector } from '../../lib/ipsec/traffic-selectors.ts'
import { keysOf, suiteOf } from '../crypto/suites.ts'
import { DatagramNetwork, type Flight } from '../support/datagram-network.ts'
import { eventually } from '../support/eventually.ts'
import { createKernelDataplane, freePort, systemCalls } from '../support/kernel-dataplane.ts'
import { ipv4Packet, ipv6Packet } from './sa-pair.ts'

const gcm = suiteOf(EncryptionId.aesGcm16, 256)
const [west, east] = ['192.0.2.1', '198.51.100.1'] as const
const [west6, east6] = ['2001:db8::1', '2001:db8::2'] as const

function range(start: readonly number[], end: readonly number[], protocol = 0): TrafficSelector {
  return {
    protocol,
    startPort: 0,
    endPort: 65_535,
    startAddress: Uint8Array.from(start),
    endAddress: Uint8Array.from(end),
  }
}
const any4 = range([0, 0, 0, 0], [255, 255, 255, 255])
const any6 = range(new Array(16).fill(0), new Array(16).fill(255))
const everything = [any4, any6]

interface ChildOptions {
  readonly suite?: PacketSuite
  readonly mode?: 'tunnel' | 'transport'
  readonly rekeyBytes?: number
  readonly localSelectors?: readonly TrafficSelector[]
  readonly remoteSelectors?: readonly TrafficSelector[]
}

const memories: ReturnType<typeof createKernelDataplane>[] = []

/** One host with its sockets, its SAs, and one tunnel to the other. */
class Site {
  readonly memory
  readonly plane
  readonly database = new SaDatabase<EspOwner>()
  readonly sockets: IkeSockets
  readonly tunnel: EspTunnel
  readonly delivered: Uint8Array[] = []
  readonly otherPaths: string[] = []

  constructor(
    network: DatagramNetwork,
    addresses: readonly [string, string],
    number: number,
    peer: string,
    more: Partial<EspTunnelOptions> & { readonly port?: number } = {},
  ) {
    // Packet memory is big: the sites of all tests share two.
    memories[number] ??= createKernelDataplane()
    this.memory = memories[number].memory
    this.plane = network.host(addresses, this.memory)
    this.sockets = new IkeSockets({
      plane: this.plane,
      memory: this.memory,
      esp: new EspReceiver(this.memory, this.database),
      hosts: addresses,
      takesPlainEsp: true,
      onLost: () => {},
    })
    this.sockets.open()
    const isIpv6 = peer.includes(':')
    const { port = 4500, ...options } = more
    this.tunnel = new EspTunnel({
      memory: this.memory,
      sender: this.plane,
      database: this.database,
      route: this.routeTo(peer, port, addresses[isIpv6 ? 1 : 0]),
      mtuBytes: 1400,
      observer: {
        onOtherPath: ({ peer }: Envelope) => this.otherPaths.push(`${peer.text} ${peer.port}`),
      },
      ...options,
    })
    this.tunnel.connect({
      deliver: (at, lengthBytes) =>
        this.delivered.push(this.memory.bytes.slice(at, at + lengthBytes)),
    })
  }

  routeTo(address: string, port: number, from: string) {
    const route = this.sockets.routeTo({ address: from, port }, { address, port })
    if (route === undefined) throw new Error(`no socket at ${from}`)
    return route
  }

  /** Gives it to the tunnel without a flush; false when the tunnel has no room. */
  put(packet: Uint8Array): boolean {
    const at = this.tunnel.reserve(packet.length)
    if (at === noRoom) return false
    this.memory.bytes.set(packet, at)
    this.tunnel.commit(at, packet.length)
    return true
  }

  send(...packets: readonly Uint8Array[]): void {
    for (const packet of packets) this.put(packet)
    this.tunnel.flush()
  }
}

/** Both halves of a pair of SAs; `generation` makes its SPIs and keys. */
function connect(a: Site, b: Site, generation: number, options: ChildOptions = {}) {
  const { suite = gcm } = options
  const spis = [0x1000 + generation, 0x2000 + generation] as const
  const keys = [keysOf(suite, generation), keysOf(suite, generation + 100)] as const
  const selectors = [options.localSelectors ?? everything, options.remoteSelectors ?? everything]
  const child = (site: Site, own: 0 | 1) => {
    const other = own === 0 ? 1 : 0
    const made = EspChild.make(site.memory, {
      suite,
      ...(options.mode && { mode: options.mode }),
      inboundSpi: spis[own],
      outboundSpi: spis[other],
      inboundKeys: keys[own],
      outboundKeys: keys[other],
      localSelectors: selectors[own] ?? [],
      remoteSelectors: selectors[other] ?? [],
      rekeyBytes: options.rekeyBytes ?? Number.POSITIVE_INFINITY,
      nowMs: 0,
    })
    if (made === undefined) throw new Error('nobody carries the suite')
    site.tunnel.add(made)
    return made
  }
  return { a: child(a, 0), b: child(b, 1), spis }
}

function twoSites(options: ChildOptions = {}) {
  const network = new DatagramNetwork()
  const a = new Site(network, [west, west6], 0, east)
  const b = new Site(network, [east, east6], 1, west)
  const first = connect(a, b, 1, options)
  a.tunnel.activate(first.spis[0])
  b.tunnel.activate(first.spis[1])
  return { network, a, b, first }
}

const hexes = (packets: readonly Uint8Array[]) => packets.map(toHex)

t.teardown(() => {
  for (const { dataplane } of memories) dataplane.stop()
})

t.test('Packets go both ways intact, and none is readable in between', async t => {
  const cbc = suiteOf(EncryptionId.aesCbc, 256, IntegrityId.hmacSha256_128)
  const withEsn = suiteOf(EncryptionId.aesGcm16, 128, 0, true)
  for (const suite of [gcm, cbc, withEsn, suiteOf(EncryptionId.chacha20Poly1305, 256)]) {
    const { network, a, b } = twoSites({ suite })
    const packets = [ipv4Packet(28), ipv4Packet(1400), ipv6Packet(48), ipv6Packet(1333)]
    a.send(...packets)
    t.equal(network.flying.length, 4)
    for (const { bytes, from, to } of network.flying) {
      t.same(
        [from, to],
        [
          { address: west, port: 4500 },
          { address: east, port: 4500 },
        ],
      )
      t.equal(toHex(bytes.slice(0, 4)), '00002001')
      t.notOk(toHex(bytes).includes('0102030405060708'))
    }
    network.settle()
    t.same(hexes(b.delivered), hexes(packets))
    b.send(...packets.toReversed())
    network.settle()
    t.same(hexes(a.delivered), hexes(packets.toReversed()))
    t.same([a.tunnel.drops, b.tunnel.drops, b.database.drops.toJSON()], [{}, {}, {}])
    t.equal(b.tunnel.authenticPackets, 4)
    t.same(a.otherPaths, [])
  }
})

t.test('Without an SA there is no room, and nothing leaves', async t => {
  const network = new DatagramNetwork()
  const a = new Site(network, [west, west6], 0, east)
  const b = new Site(network, [east, east6], 1, west)
  t.equal(a.tunnel.reserve(100), noRoom)
  const { spis } = connect(a, b, 1)
  t.equal(a.tunnel.reserve(100), noRoom, 'it is only heard until it is active')
  a.tunnel.activate(0x1077)
  t.equal(a.tunnel.reserve(100), noRoom, 'nobody knows that one')
  b.tunnel.activate(spis[1])
  b.send(ipv4Packet(100))
  network.settle()
  t.equal(a.delivered.length, 1)
  a.tunnel.activate(spis[0])
  const at = a.tunnel.reserve(100)
  a.memory.bytes.set(ipv4Packet(100), at)
  // The SA goes in the middle of a packet.
  a.tunnel.remove(spis[0])
  a.tunnel.remove(spis[0])
  a.tunnel.commit(at, 100)
  a.tunnel.flush()
  t.same(network.flying, [])
  t.equal(a.put(ipv4Packet(100)), false)
  t.equal(a.database.size, 0)
  b.send(ipv4Packet(100))
  network.settle()
  t.equal(a.delivered.length, 1)
  t.same(a.database.drops.toJSON(), { 'unknown-spi': 1 })
  b.tunnel.close()
  t.equal(b.database.size, 0)
  t.equal(b.put(ipv4Packet(100)), false)
})

t.test('The MTU is what fits a link of 1500 bytes outside, and follows the way', async t => {
  for (const [peer, from, port, overheadBytes] of [
    [east, west, 4500, 28],
    [east6, west6, 4500, 48],
    [east, west, 0, 20],
    [east6, west6, 0, 40],
  ] as const) {
    const network = new DatagramNetwork()
    const a = new Site(network, [west, west6], 0, peer, { mtuBytes: 9000, port })
    const b = new Site(network, [east, east6], 1, from, { mtuBytes: 9000, port })
    t.equal(a.tunnel.mtuBytes, 9000)
    a.tunnel.activate(connect(a, b, 1).spis[0])
    const { mtuBytes } = a.tunnel
    a.send(ipv4Packet(mtuBytes), ipv4Packet(mtuBytes + 1))
    const [fitting = 0, tooLong = 0] = network.flying.map(({ bytes }) => bytes.length)
    t.ok(fitting + overheadBytes <= 1500, `${fitting} bytes over ${peer} ${port}`)
    t.ok(tooLong + overheadBytes > 1500)
    network.settle()
    t.same(hexes(b.delivered), hexes([ipv4Packet(mtuBytes), ipv4Packet(mtuBytes + 1)]))
  }
  const { a } = twoSites()
  t.equal(a.tunnel.mtuBytes, 1400, 'never more than the configured one')
  a.tunnel.moveTo(a.routeTo(east6, 4500, west6))
  t.equal(a.tunnel.mtuBytes, 1400)
})

t.test('New keys take over without losing what is under way', async t => {
  const { network, a, b, first } = twoSites()
  const sentByA: Uint8Array[] = []
  const sentByB: Uint8Array[] = []
  const traffic = () => {
    sentByA.push(ipv4Packet(100 + sentByA.length))
    sentByB.push(ipv6Packet(100 + sentByB.length))
    a.send(...sentByA.slice(-1))
    b.send(...sentByB.slice(-1))
  }
  const spisOf = (flights: readonly Flight[]) =>
    flights.map(({ bytes }) => toHex(bytes.slice(0, 4)))
  traffic()
  const second = connect(a, b, 2)
  traffic()
  // The initiator of the rekeying has the answer and switches; the responder still waits.
  a.tunnel.activate(second.spis[0], first.spis[0])
  traffic()
  t.same(spisOf(network.flying), [
    ...['00002001', '00001001', '00002001', '00001001'],
    ...['00002002', '00001001'],
  ])
  b.tunnel.activate(second.spis[1], first.spis[1])
  traffic()
  // Everything arrives late and in the wrong order; both SAs are still heard.
  network.flying.reverse()
  network.settle()
  t.same(hexes(b.delivered).sort(), hexes(sentByA).sort())
  t.same(hexes(a.delivered).sort(), hexes(sentByB).sort())
  a.tunnel.remove(first.spis[0])
  b.tunnel.remove(first.spis[1])
  traffic()
  network.settle()
  t.equal(b.delivered.length, sentByA.length)
  t.equal(a.delivered.length, sentByB.length)
  t.equal(a.tunnel.authenticPackets, sentByB.length, 'those of the old SA count on')
  t.same([a.tunnel.drops, b.tunnel.drops], [{}, {}])
  t.equal(a.database.size, 1)
  t.same(
    a.tunnel.children.map(({ inbound }) => inbound.spi),
    [second.spis[0]],
  )
})

t.test('A child that ends before its successor speaks leaves the one before in use', async t => {
  const { network, a, b, first } = twoSites()
  const second = connect(a, b, 2)
  a.tunnel.activate(second.spis[0])
  a.tunnel.remove(second.spis[0])
  a.send(ipv4Packet(60))
  network.settle()
  t.equal(b.delivered.length, 1)
  t.equal(a.tunnel.child(first.spis[0]), first.a)
})

t.test('Of several children the newest whose selectors fit takes a packet', async t => {
  const network = new DatagramNetwork()
  const a = new Site(network, [west, west6], 0, east)
  const b = new Site(network, [east, east6], 1, west)
  const wide = connect(a, b, 1, { localSelectors: [any4], remoteSelectors: [any4] })
  const narrow = connect(a, b, 2, {
    localSelectors: [any4],
    remoteSelectors: [range([192, 0, 2, 9], [192, 0, 2, 9])],
  })
  a.tunnel.activate(wide.spis[0])
  a.tunnel.activate(narrow.spis[0])
  const inside = ipv4Packet(80)
  const outside = ipv4Packet(81)
  outside[19] = 10
  a.send(inside, outside, ipv6Packet(82))
  t.same(
    network.flying.map(({ bytes }) => toHex(bytes.slice(0, 4))),
    ['00002002', '00002001'],
  )
  t.same(a.tunnel.drops, { 'selector-mismatch': 1 })
  network.settle()
  t.same(hexes(b.delivered), hexes([inside, outside]))
  // What the peer may not send through this SA is dropped where it comes out.
  t.same(b.tunnel.drops, {})
  a.tunnel.remove(wide.spis[0])
  a.send(outside)
  network.settle()
  t.equal(b.delivered.length, 2)
  t.same(b.tunnel.drops, { 'selector-mismatch': 1 })
})

t.test('Replayed, forged, foreign and short packets are dropped and counted', async t => {
  const { network, a, b, first } = twoSites()
  a.send(ipv4Packet(90), ipv4Packet(91))
  const [one, two] = network.flying.splice(0)
  if (one === undefined || two === undefined) throw new Error('two packets')
  network.deliver(one)
  network.deliver(one)
  t.same(b.tunnel.drops, { replayed: 1 })
  const changed = (at: number, base = two) => {
    const bytes = base.bytes.slice()
    const index = at < 0 ? bytes.length + at : at
    bytes[index] = (bytes[index] ?? 0) ^ 1
    return { ...base, bytes }
  }
  network.deliver(changed(-1))
  network.deliver(changed(20))
  // A sequence number far ahead must not move the window before its packet is authentic.
  network.deliver(changed(5))
  t.same(b.tunnel.drops, { replayed: 1, 'not-authentic': 3 })
  network.deliver(changed(3))
  t.same(b.database.drops.toJSON(), { 'unknown-spi': 1 })
  network.deliver({ ...two, bytes: two.bytes.slice(0, 20) })
  t.match(b.tunnel.drops, { truncated: 1 })
  for (const length of [0, 2, 3]) network.deliver({ ...two, bytes: two.bytes.slice(0, length) })
  t.same(b.sockets.counters.toJSON(), { malformed: 3 })
  t.equal(b.delivered.length, 1)
  t.same(b.otherPaths, [])
  network.deliver(two)
  t.equal(b.delivered.length, 2, 'the real one still comes through')
  b.tunnel.remove(first.spis[1])
  t.match(b.tunnel.drops, { replayed: 1, 'not-authentic': 3, truncated: 1 }, 'drops are kept')
})

t.test('A peer on another path is reported by authentic packets only, and followed', async t => {
  const { network, a, b } = twoSites()
  const nat = { address: '203.0.113.9', port: 40_123 }
  network.onPath = flight => (flight.from.address === west ? { ...flight, from: nat } : flight)
  a.send(ipv4Packet(70))
  const [flight] = network.flying
  if (flight === undefined) throw new Error('one packet')
  const forged = flight.bytes.slice()
  forged[forged.length - 1] = ~(forged.at(-1) ?? 0)
  network.deliver({ ...flight, from: { address: '203.0.113.66', port: 1 }, bytes: forged })
  t.same(b.otherPaths, [])
  network.settle()
  // The same packet from somewhere else proves nothing.
  network.deliver({ ...flight, from: { address: '203.0.113.66', port: 1 } })
  t.same(b.otherPaths, ['203.0.113.9 40123'])
  t.equal(b.tunnel.strayEnvelopes, 1)
  t.equal(b.delivered.length, 1, 'it is carried all the same')
  b.send(ipv4Packet(71))
  t.same(network.flying.pop()?.to, { address: west, port: 4500 }, 'not before it is told to')
  const route = b.sockets.routeTo({ address: east, port: 4500 }, nat)
  if (route === undefined) throw new Error('no route')
  b.tunnel.moveTo(route)
  b.send(ipv4Packet(72))
  t.same(network.flying.pop()?.to, nat)
  a.send(ipv4Packet(73))
  network.settle()
  t.equal(b.otherPaths.length, 1)
  // From UDP to plain ESP is another path too.
  const [last] = network.sent.slice(-1)
  if (last === undefined) throw new Error('one packet')
  a.send(ipv4Packet(74))
  const plain = network.flying.pop()
  if (plain === undefined) throw new Error('one packet')
  network.deliver({
    from: { address: west, port: 0 },
    to: { address: east, port: 0 },
    bytes: plain.bytes,
  })
  t.equal(b.otherPaths.at(-1), `${west} 0`)
})

t.test('Transport mode carries one protocol, and keeps its payload whole', async t => {
  const network = new DatagramNetwork()
  const more = { transportProtocol: 17 }
  const a = new Site(network, [west, west6], 0, east, more)
  const b = new Site(network, [east, east6], 1, west, more)
  const udp = [range([0, 0, 0, 0], [255, 255, 255, 255], 17)]
  const { spis } = connect(a, b, 1, {
    mode: 'transport',
    localSelectors: udp,
    remoteSelectors: udp,
  })
  a.tunnel.activate(spis[0])
  const datagram = ipv4Packet(120).slice(20)
  a.send(datagram)
  network.settle()
  t.same(hexes(b.delivered), [toHex(datagram)])
  t.same(b.tunnel.drops, {})
})

t.test('A volume in either direction asks for new keys once', async t => {
  const { network, a, b, first } = twoSites({ rekeyBytes: 5000 })
  t.equal(first.a.needsRekey(0), false)
  for (let i = 0; i < 6; i++) a.send(ipv4Packet(1000))
  network.settle()
  t.equal(first.a.needsRekey(0), true, 'what it sent')
  t.equal(first.b.needsRekey(0), true, 'what it received')
  t.equal(first.a.needsRekey(0), false)
  a.send(ipv4Packet(1000))
  network.settle()
  t.equal(b.delivered.length, 7, 'the old keys go on meanwhile')
})

t.test('Packets of equal length leave as a few messages, and arrive in order', async t => {
  const addresses = ['127.0.0.1', '127.0.0.1'] as const
  const numbers = [await freePort(addresses[0]), await freePort(addresses[1])] as const
  const kernel = systemCalls()
  const { sendmmsg } = kernel
  let messages = 0
  kernel.sendmmsg = (...args) => {
    const count = sendmmsg(...args)
    messages += Math.max(count, 0)
    return count
  }
  t.teardown(() => {
    kernel.sendmmsg = sendmmsg
  })
  const ends = addresses.map((address, i) => {
    const { memory, dataplane } = createKernelDataplane()
    const hub = new DatagramHub(dataplane)
    const database = new SaDatabase<EspOwner>()
    const esp = new EspReceiver(memory, database)
    const port = hub.open(SocketAddress.of(address, numbers[i] ?? 0), {
      receive: (at, lengthBytes, envelope) => esp.receive(at, lengthBytes, envelope),
      endBurst: () => esp.deliver(),
      lost: reason => t.fail(reason),
    })
    t.teardown(() => {
      port.close()
      dataplane.stop()
    })
    const sender: DatagramSender = hub
    const peer = SocketAddress.of(addresses[1 - i] ?? '', numbers[1 - i] ?? 0)
    const tunnel = new EspTunnel({
      memory,
      sender,
      database,
      route: hub.route({ port, peer, local: port.bound }),
      mtuBytes: 1400,
      observer: { onOtherPath: () => t.fail('no other path') },
    })
    const delivered: Uint8Array[] = []
    tunnel.connect({
      deliver: (at, lengthBytes) => delivered.push(memory.bytes.slice(at, at + lengthBytes)),
    })
    return { memory, tunnel, delivered }
  })
  const [a, b] = ends
  if (a === undefined || b === undefined) throw new Error('two ends')
  // What `connect` needs of a site.
  const { spis } = connect(a as unknown as Site, b as unknown as Site, 1)
  a.tunnel.activate(spis[0])
  const packets = Array.from({ length: 100 }, (_, i) => {
    // An acknowledgement in between has the length of another message.
    const packet = ipv4Packet(i === 50 ? 52 : 600)
    packet[27] = i
    return packet
  })
  for (const packet of packets) {
    const at = a.tunnel.reserve(packet.length)
    a.memory.bytes.set(packet, at)
    a.tunnel.commit(at, packet.length)
  }
  a.tunnel.flush()
  t.equal(messages, 2, '50 and the short one, 49')
  await eventually(
    () => b.delivered.length === 100,
    () => `${b.delivered.length} packets, ${JSON.stringify(b.tunnel.drops)}`,
  )
  t.same(hexes(b.delivered), hexes(packets))
})

// The sockets of all of IPsec

function ikeMessage(majorVersion: number, lengthBytes = 28): Uint8Array {
  const bytes = new Uint8Array(lengthBytes).fill(7)
  bytes[17] = majorVersion << 4
  return bytes
}

function socketsOf(t: Test, more: { hosts?: string[]; takesPlainEsp?: boolean } = {}) {
  const network = new DatagramNetwork()
  memories[0] ??= createKernelDataplane()
  const { memory } = memories[0]
  const plane = network.host([west, west6], memory)
  const lost: string[] = []
  const sockets = new IkeSockets({
    plane,
    memory,
    esp: new EspReceiver(memory, new SaDatabase<EspOwner>()),
    hosts: more.hosts ?? ['0.0.0.0', '::'],
    takesPlainEsp: more.takesPlainEsp ?? false,
    onLost: reason => lost.push(reason),
  })
  t.teardown(() => sockets.close())
  return { network, plane, memory, sockets, lost }
}

t.test('IKE goes by its version, on 500 bare and on 4500 behind its marker', async t => {
  const { network, sockets } = socketsOf(t)
  const got: string[] = []
  for (const version of [1, 2] as const) {
    sockets.handle(version, {
      message: (bytes, { port, peer }) =>
        got.push(`v${version} ${bytes.length} ${bytes[0]} on ${port.number} of ${peer.port}`),
    })
  }
  sockets.open()
  const from = { address: east, port: 777 }
  const arrive = (port: number, bytes: Uint8Array) =>
    network.deliver({ from, to: { address: west, port }, bytes })
  const marked = (bytes: Uint8Array) => Uint8Array.of(0, 0, 0, 0, ...bytes)
  arrive(500, ikeMessage(1))
  arrive(500, ikeMessage(2, 40))
  arrive(4500, marked(ikeMessage(2, 50)))
  arrive(4500, marked(ikeMessage(1, 60)))
  t.same(got, [
    'v1 28 7 on 500 of 777',
    'v2 40 7 on 500 of 777',
    'v2 50 7 on 4500 of 777',
    'v1 60 7 on 4500 of 777',
  ])
  arrive(500, ikeMessage(3))
  arrive(500, ikeMessage(2, 27))
  arrive(4500, marked(ikeMessage(2, 27)))
  arrive(4500, Uint8Array.of(0xff))
  arrive(4500, Uint8Array.of(1, 2))
  arrive(4500, new Uint8Array(0))
  arrive(500, new Uint8Array(0))
  t.equal(got.length, 4)
  t.same(sockets.counters.toJSON(), {
    'ike-other-version': 1,
    'ike-truncated': 3,
    keepalive: 1,
    malformed: 2,
  })
})

t.test('Messages leave with the marker on 4500 only, and too long ones are counted', async t => {
  const { network, sockets } = socketsOf(t)
  sockets.open()
  const bytes = ikeMessage(2, 40)
  for (const port of [500, 4500]) {
    const route = sockets.routeTo({ address: west, port }, { address: east, port: 9 })
    if (route === undefined) throw new Error('no route')
    sockets.send(route, bytes)
  }
  const [bare, marked] = network.flying
  t.same(bare, { from: { address: west, port: 500 }, to: { address: east, port: 9 }, bytes })
  t.same(marked?.bytes, Uint8Array.of(0, 0, 0, 0, ...bytes))
  const route = sockets.routeTo({ address: west6, port: 4500 }, { address: east6, port: 9 })
  if (route === undefined) throw new Error('no route')
  sockets.send(route, new Uint8Array(65_504))
  t.same(sockets.counters.toJSON(), { 'ike-too-long': 1 })
  sockets.sendKeepalive(route)
  t.same(network.flying.at(-1)?.bytes, Uint8Array.of(0xff))
  t.equal(network.flying.length, 3)
})

t.test('A route starts at the socket of its address, or is none', async t => {
  const { sockets, plane } = socketsOf(t, { hosts: [west], takesPlainEsp: true })
  sockets.open()
  const to = { address: east, port: 4500 }
  t.equal(sockets.routeTo({ address: west, port: 4500 }, to)?.port.number, 4500)
  const plain = sockets.routeTo({ address: west, port: 0 }, to)
  t.match(plain, { port: { number: 0 }, peer: { port: 0 } })
  t.equal(sockets.routeTo({ address: east, port: 4500 }, to), undefined)
  t.equal(sockets.routeTo({ address: west, port: 4501 }, to), undefined)
  t.equal(sockets.routeTo({ address: west6, port: 4500 }, to), undefined)
  t.equal(sockets.ports.length, 3)
  sockets.close()
  t.equal(sockets.routeTo({ address: west, port: 4500 }, to), undefined)
  t.ok(plane.ports.every(({ isOpen }) => !isOpen))
})

t.test('Either all sockets open or none, and a lost one is told', async t => {
  const { sockets, plane, lost } = socketsOf(t)
  plane.takenPorts.add(4500)
  t.throws(() => sockets.open(), BindError)
  t.equal(plane.ports.length, 1)
  t.ok(plane.ports.every(({ isOpen }) => !isOpen))
  t.equal(sockets.ports.length, 0)
  plane.takenPorts.clear()
  sockets.open()
  plane.ports.at(-1)?.receiver.lost('ENETDOWN')
  t.same(lost, ['ENETDOWN'])
})
