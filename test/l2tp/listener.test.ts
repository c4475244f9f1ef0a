/** L2TP in the ESP of IKEv1, from one listener to another, over a link without a kernel. */
import t from 'tap'
import type { DisconnectCause } from '../../lib/core/disconnect-cause.ts'
import { Counters } from '../../lib/core/faults.ts'
import { Secret } from '../../lib/core/secret.ts'
import { SocketAddress } from '../../lib/dataplane/socket-address.ts'
import { EspPath } from '../../lib/l2tp/esp-path.ts'
import { L2tpListener, type TunnelSettings } from '../../lib/l2tp/index.ts'
import { PlainPath } from '../../lib/l2tp/plain-path.ts'
import type { Carrier, Link, LinkFactory } from '../../lib/ppp/carrier.ts'
import { SecuredHost, serverAddress, World } from '../support/secured-hosts.ts'

/** Stands for PPP: notes what comes, and sends what it is told to. */
class TestLink implements Link {
  readonly carrier: Carrier
  readonly #host: SecuredHost
  readonly received: string[] = []
  readonly lost: DisconnectCause[] = []
  isPermitted = false

  constructor(carrier: Carrier, host: SecuredHost) {
    this.carrier = carrier
    this.#host = host
  }

  receive(at: number, lengthBytes: number): void {
    const frame = this.#host.memory.bytes.slice(at, at + lengthBytes)
    this.received.push(Buffer.from(frame).toString('hex'))
  }

  permitTraffic(): void {
    this.isPermitted = true
  }

  carrierLost(cause: DisconnectCause): void {
    this.lost.push(cause)
  }

  /** False when the sink has no room. */
  send(packet: Uint8Array): boolean {
    const { sink } = this.carrier
    const at = sink.reserve(packet.length)
    if (at < 0) return false
    this.#host.memory.bytes.set(packet, at)
    sink.commit(at, packet.length)
    sink.flush()
    return true
  }
}

class Station implements LinkFactory {
  readonly links: TestLink[] = []
  readonly host: SecuredHost
  readonly l2tp: L2tpListener
  isFull = false

  constructor(world: World, address: string, seed: number, settings: Partial<TunnelSettings> = {}) {
    this.host = new SecuredHost(world, address, { seed, open: peer => this.l2tp.open(peer) })
    this.l2tp = new L2tpListener({
      memory: this.host.memory,
      clock: world.clock,
      wheel: world.wheel,
      random: this.host.random,
      links: this,
      settings: { hostName: address, ...settings },
      event: () => {},
    })
  }

  open(carrier: Carrier): Link | undefined {
    if (this.isFull) return undefined
    const link = new TestLink(carrier, this.host)
    this.links.push(link)
    return link
  }

  /** Opens ESP and a call in it. */
  dial(world: World, server?: string): void {
    this.host.dial(server)
    world.link.deliver()
    const [peer] = this.host.peers.slice(-1)
    if (peer === undefined) throw new Error('no ESP')
    this.l2tp.dial(new EspPath(peer, this.host.memory, new Counters()), this)
    world.link.deliver()
  }

  get link(): TestLink {
    const link = this.links.at(-1)
    if (link === undefined) throw new Error('no link')
    return link
  }
}

function setUp(server: Partial<TunnelSettings> = {}, client: Partial<TunnelSettings> = {}) {
  const world = new World()
  return {
    world,
    server: new Station(world, serverAddress, 1, server),
    client: new Station(world, '10.0.0.2', 2, client),
  }
}

const ipv4Packet = Uint8Array.of(0x45, 1, 2, 3)
const ipv6Packet = Uint8Array.of(0x60, 1, 2, 3)

t.test('a call in ESP carries frames and packets both ways', async t => {
  const { world, server, client } = setUp()
  client.dial(world)
  t.match(server.l2tp.status(), { addresses: [], tunnels: 1, sessions: 1 })
  t.ok(server.link.isPermitted)
  t.match(server.link.carrier, { protocol: 'l2tp', peerAddress: '203.0.113.5' })
  client.link.carrier.sendFrame(Uint8Array.of(0xff, 3, 0xc0, 0x21, 1))
  client.link.send(ipv4Packet)
  client.link.send(ipv6Packet)
  world.link.deliver()
  t.same(server.link.received, ['ff03c02101', 'ff03002145010203', 'ff03005760010203'])
  server.link.send(ipv4Packet)
  world.link.deliver()
  t.same(client.link.received, ['ff03002145010203'])
  t.same(server.l2tp.status().counters, {})
})

t.test('a sealer makes the frames of packets', async t => {
  const { world, server, client } = setUp()
  client.dial(world)
  const { carrier } = client.link
  const { bytes } = client.host.memory
  t.equal(carrier.isProtected, true)
  carrier.setSealer?.({
    headerBytes: 6,
    seal: (at, lengthBytes) => {
      bytes.set([0xff, 3, 0, 0x3d, 0xc0, 7], at - 6)
      return 6 + lengthBytes
    },
  })
  client.link.send(ipv4Packet)
  world.link.deliver()
  t.same(server.link.received, ['ff03003dc00745010203'])
})

t.test('the largest packet fits one datagram of an ordinary link', async t => {
  const { world, server, client } = setUp()
  client.dial(world)
  const { mruBytes, sink } = server.link.carrier
  t.equal(sink.mtuBytes, mruBytes)
  let largestBytes = 0
  const { onWay } = world.link
  world.link.onWay = flight => {
    largestBytes = Math.max(largestBytes, flight.bytes.length)
    return onWay(flight)
  }
  const packet = new Uint8Array(mruBytes)
  packet[0] = 0x45
  server.link.send(packet)
  world.link.deliver()
  t.equal(client.link.received[0]?.length, 2 * (mruBytes + 4))
  t.ok(largestBytes <= 1472 && largestBytes > 1400, `${largestBytes} bytes`)
  server.link.carrier.setMtu(1300)
  t.equal(sink.mtuBytes, 1300)
})

t.test('two clients behind one NAT, with the same ports inside, have a call each', async t => {
  const { world, server, client } = setUp()
  const other = new Station(world, '10.0.0.3', 3)
  client.dial(world)
  other.dial(world)
  t.match(server.l2tp.status(), { tunnels: 2, sessions: 2 })
  client.link.send(ipv4Packet)
  other.link.send(ipv6Packet)
  world.link.deliver()
  t.same(
    server.links.map(({ received }) => received),
    [['ff03002145010203'], ['ff03005760010203']],
  )
})

t.test('over IPv6 every message has the UDP checksum that receivers insist on', async t => {
  const world = new World()
  const server = new Station(world, '2001:db8::1', 1)
  const client = new Station(world, '2001:db8::2', 2)
  client.dial(world, '2001:db8::1')
  t.match(server.link.carrier, { peerAddress: '2001:db8::2', peerLabel: '[2001:db8::2]:4500' })
  const sums: number[] = []
  const [peer] = client.host.peers
  peer?.esp.connect({
    deliver: (at, lengthBytes) => {
      const { bytes } = client.host.memory
      const udp = bytes.slice(at, at + lengthBytes)
      const pseudo = [0x2001, 0xdb8, 1, 0x2001, 0xdb8, 2, 17, lengthBytes]
      let sum = pseudo.reduce((a, b) => a + b)
      for (let i = 0; i < udp.length; i += 2) sum += ((udp[i] ?? 0) << 8) | (udp[i + 1] ?? 0)
      while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
      sums.push(sum)
      t.not((udp[6] ?? 0) | (udp[7] ?? 0), 0, 'there is one')
    },
  })
  server.link.send(ipv4Packet)
  server.link.send(Uint8Array.of(0x60, 9, 8, 7, 6))
  world.link.deliver()
  t.same(sums, [0xffff, 0xffff])
})

t.test('the end of a call is told to PPP on the other side, whoever ends it', async t => {
  for (const isServer of [true, false]) {
    const { world, server, client } = setUp()
    client.dial(world)
    const [near, far] = isServer ? [server, client] : [client, server]
    near.link.carrier.close('admin-reset')
    t.equal(near.link.send(ipv4Packet), false, 'nothing more goes in')
    world.link.deliver()
    t.equal(far.link.lost.length, 1)
    t.same(near.link.lost, [], 'who closes is not told')
    t.equal(server.l2tp.status().sessions, 0)
  }
})

t.test('the end of the ESP ends the calls in it', async t => {
  const { world, server, client } = setUp()
  client.dial(world)
  world.link.onWay = () => undefined
  world.elapse(120_000)
  t.same(server.link.lost, ['lost-carrier'])
  t.match(server.l2tp.status(), { tunnels: 0, sessions: 0 })
  t.equal(world.wheel.size, 0, 'no timer is left')
})

t.test('a call that PPP does not take is closed', async t => {
  const { world, server, client } = setUp()
  server.isFull = true
  client.dial(world)
  t.equal(client.link.lost.length, 1)
  t.equal(server.l2tp.status().sessions, 0)
})

t.test('data keeps a tunnel alive whose peer acknowledges nothing', async t => {
  const { world, server, client } = setUp({ helloAfterMs: 5000 })
  client.dial(world)
  for (let i = 0; i < 60; i++) {
    client.link.send(ipv4Packet)
    world.link.deliver()
    world.elapse(1000)
  }
  t.equal(server.l2tp.status().sessions, 1)
  t.same(server.link.lost, [])
})

t.test('the tunnel secret is insisted on', async t => {
  for (const [theirs, sessions] of [
    ['a secret', 1],
    ['another', 0],
  ] as const) {
    const secret = Secret.fromText('a secret')
    const { world, server, client } = setUp({ secret }, { secret: Secret.fromText(theirs) })
    client.dial(world)
    t.equal(server.l2tp.status().sessions, sessions, theirs)
  }
})

t.test('a wrong UDP checksum is a counted drop, a right one and none are not', async t => {
  const { world, server, client } = setUp()
  client.dial(world)
  const [peer] = client.host.peers
  if (peer === undefined) throw new Error('no ESP')
  // A hello-like message of an unknown tunnel: it gets as far as the tunnel table.
  const message = [0xc8, 2, 0, 12, 0x7f, 0xff, 0, 0, 0, 0, 0, 0]
  const udp = (high: number, low: number) =>
    Uint8Array.of(6, 0xa5, 6, 0xa5, 0, 20, high, low, ...message)
  const [a, b] = server.host.peers[0]?.originalAddresses ?? []
  if (a === undefined || b === undefined) throw new Error('no original addresses')
  let sum = 17 + 20
  for (const bytes of [a, b, udp(0, 0)]) {
    for (let i = 0; i < bytes.length; i += 2) sum += ((bytes[i] ?? 0) << 8) | (bytes[i + 1] ?? 0)
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
  const right = ~sum & 0xffff
  for (const checksum of [0, right, right ^ 1]) {
    client.host.send(peer, udp(checksum >>> 8, checksum & 0xff))
    world.link.deliver()
  }
  t.match(server.l2tp.status().counters, { 'l2tp-unknown-tunnel': 2, 'udp-bad-checksum': 1 })
})

t.test('garbage in ESP is counted and changes nothing', async t => {
  const { world, server, client } = setUp()
  client.dial(world)
  const [peer] = client.host.peers
  if (peer === undefined) throw new Error('no ESP')
  for (let length = 8; length < 40; length++) {
    const packet = new Uint8Array(length).fill(length)
    packet.set([6, 0xa5, 6, 0xa5, 0, length, 0, 0])
    client.host.send(peer, packet)
  }
  world.link.deliver()
  t.equal(server.l2tp.status().sessions, 1)
  t.ok(Object.keys(server.l2tp.status().counters).length > 0)
})

t.test('without IPsec: only where it is opened, and each source is its own peer', async t => {
  const { world, server, client } = setUp()
  const port = client.host.plane.open(SocketAddress.of('10.0.0.2', 1701), {
    receive: (at, lengthBytes, envelope) => answer(at, lengthBytes, envelope.peer.port),
    lost: () => {},
  })
  const route = client.host.plane.route({
    port,
    peer: SocketAddress.of(serverAddress, 1701),
    local: port.bound,
  })
  const path = new PlainPath(client.host.plane, route)
  // What comes back goes in as if it were from the peer that was dialled.
  const receiver = { receive: (_at: number, _length: number, _port: number) => {} }
  function answer(at: number, lengthBytes: number, peerPort: number): void {
    receiver.receive(at, lengthBytes, peerPort)
  }
  const dialled = client.l2tp.dial(path, client)
  receiver.receive = (at, lengthBytes, peerPort) =>
    dialled.control(client.host.memory.bytes.slice(at, at + lengthBytes), peerPort)
  world.link.deliver()
  t.equal(server.l2tp.status().tunnels, 0)
  server.l2tp.openPlain(server.host.plane, [serverAddress])
  world.elapse(10_000)
  t.match(server.l2tp.status(), { addresses: [{ port: 1701 }], tunnels: 1, sessions: 1 })
  client.link.send(ipv4Packet)
  world.link.deliver()
  t.same(server.link.received, ['ff03002145010203'])
  const stopped = server.l2tp.stop()
  world.link.deliver()
  await stopped
  t.equal(server.l2tp.status().tunnels, 0)
})
