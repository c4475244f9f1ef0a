/** Listener and dialler with their ESP tunnels, over a link without a kernel. */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t from 'tap'
import { putU32, toHex } from '../../lib/core/bytes.ts'
import { ManualClock } from '../../lib/core/clock.ts'
import { type RandomSource, SeededRandom } from '../../lib/core/random.ts'
import { TimerWheel } from '../../lib/core/timers.ts'
import { PacketMemory } from '../../lib/dataplane/pinned-memory.ts'
import { SocketAddress } from '../../lib/dataplane/socket-address.ts'
import { Ikev2Dialler } from '../../lib/ikev2/dialler.ts'
import type { IkeSaEvent } from '../../lib/ikev2/event.ts'
import type { IkeConnection, IkeSettings } from '../../lib/ikev2/ike-connection.ts'
import {
  defaultHalfOpenLimits,
  type HalfOpenLimits,
  Ikev2Listener,
} from '../../lib/ikev2/listener.ts'
import { defaultFeatures } from '../../lib/ikev2/options.ts'
import { type EspOwner, EspReceiver } from '../../lib/ipsec/esp-receiver.ts'
import { IkeSockets } from '../../lib/ipsec/ike-sockets.ts'
import { SaDatabase } from '../../lib/ipsec/sa-database.ts'
import { copyOf, DatagramLink, LinkPlane } from '../support/datagram-link.ts'
import { optionsFor } from './pair.ts'

const serverAddress = '192.0.2.1'
const clientAddress = '198.51.100.10'
const limits = { mtuBytes: 1400, rekeyBytes: Number.POSITIVE_INFINITY }
const generous: HalfOpenLimits = { cookieThreshold: 100, total: 1000, perSource: 100 }

function settingsOf(role: 'initiator' | 'responder'): IkeSettings {
  return { ...optionsFor(role), features: { ...defaultFeatures, forcesEncapsulation: true } }
}

class Host {
  readonly memory = new PacketMemory({ sizeBytes: 1024 * 1024 })
  readonly database = new SaDatabase<EspOwner>()
  readonly plane: LinkPlane
  readonly sockets: IkeSockets
  readonly delivered: string[] = []

  constructor(link: DatagramLink, address: string) {
    this.plane = new LinkPlane(link, this.memory)
    this.sockets = new IkeSockets({
      plane: this.plane,
      memory: this.memory,
      esp: new EspReceiver(this.memory, this.database),
      hosts: [address],
      takesPlainEsp: false,
      onLost: () => {},
    })
    this.sockets.open()
  }

  /** Hears what comes out of a tunnel. */
  connect({ tunnel }: IkeConnection): void {
    tunnel.connect({
      deliver: (at, lengthBytes) =>
        this.delivered.push(toHex(this.memory.bytes.slice(at, at + lengthBytes))),
    })
  }

  /** Sends an IP packet into a tunnel; false when it has no room for it. */
  send({ tunnel }: IkeConnection, packet: Uint8Array): boolean {
    const at = tunnel.reserve(packet.length)
    if (at < 0) return false
    this.memory.bytes.set(packet, at)
    tunnel.commit(at, packet.length)
    tunnel.flush()
    return true
  }
}

setFlagsFromString('--expose-gc')
const collectGarbage: () => void = runInNewContext('gc')

function heapBytes(): number {
  collectGarbage()
  return process.memoryUsage().heapUsed
}

interface Call {
  readonly connection: IkeConnection
  readonly events: IkeSaEvent[]
}

function setUp(halfOpen: HalfOpenLimits = generous) {
  const link = new DatagramLink()
  const clock = new ManualClock(1000)
  const wheel = new TimerWheel(clock.nowMs())
  const [server, client] = [new Host(link, serverAddress), new Host(link, clientAddress)]
  const calls: Call[] = []
  const services = ({ sockets, plane, memory, database }: Host, random: RandomSource) => ({
    ...{ sockets, sender: plane, memory, database, clock, wheel, random },
  })
  const listener = new Ikev2Listener({
    ...services(server, new SeededRandom(1)),
    halfOpen,
    calls: {
      accept: () => {
        const events: IkeSaEvent[] = []
        let connection: IkeConnection | undefined
        return {
          settings: settingsOf('responder'),
          limits,
          connect: made => {
            connection = made
            server.connect(made)
            calls.push({ connection: made, events })
          },
          event: event => {
            events.push(event)
            if (event.type !== 'need-grant') return
            const { ticket, proposedLocalSelectors, proposedRemoteSelectors } = event
            connection?.handle({
              type: 'grant-verdict',
              ticket,
              verdict: {
                type: 'grant',
                grant: {
                  localSelectors: proposedLocalSelectors,
                  remoteSelectors: proposedRemoteSelectors,
                },
              },
            })
          },
        }
      },
    },
  })
  const dialler = new Ikev2Dialler(services(client, new SeededRandom(2)))
  const dial = (): Call => {
    const events: IkeSaEvent[] = []
    const peer = { address: serverAddress, port: 500 }
    const connection = dialler.dial(clientAddress, peer, settingsOf('initiator'), limits, {
      event: event => events.push(event),
    })
    if (connection === undefined) throw new Error('no socket')
    client.connect(connection)
    connection.handle({ type: 'start' })
    return { connection, events }
  }
  const pass = async (ms: number) => {
    for (let passed = 0; passed < ms; passed += 500) {
      clock.advance(500)
      wheel.advance(clock.nowMs())
      await link.settle()
    }
  }
  return { link, clock, wheel, server, client, calls, listener, dialler, dial, pass }
}

function packetOf(fill: number, lengthBytes = 100): Uint8Array {
  const packet = new Uint8Array(lengthBytes).fill(fill)
  packet[0] = 0x45
  packet[2] = lengthBytes >>> 8
  packet[3] = lengthBytes
  packet[9] = 17
  putU32(packet, 12, 0x0a000001)
  putU32(packet, 16, 0x0a000002)
  return packet
}

const types = ({ events }: Call) => events.map(({ type }) => type)

t.test('a call comes up, carries packets both ways, and is hung up', async t => {
  const { link, server, client, calls, listener, dial, dialler } = setUp()
  const call = dial()
  t.notOk(client.send(call.connection, packetOf(1)), 'there is no room before there is a child')
  await link.settle()
  t.ok(types(call).includes('established'))
  const [answered] = calls
  if (answered === undefined) throw new Error('no call')
  t.match(listener.status(), { established: 1, halfOpen: 0, childSas: 1 })
  t.equal(call.connection.path.local.port, 4500, 'a NAT was feigned')
  for (let i = 1; i <= 3; i++) {
    t.ok(client.send(call.connection, packetOf(i, 90 + i)))
    t.ok(server.send(answered.connection, packetOf(0x80 + i, 90 + i)))
  }
  await link.settle()
  t.same(
    server.delivered,
    [1, 2, 3].map(i => toHex(packetOf(i, 90 + i))),
  )
  t.same(
    client.delivered,
    [1, 2, 3].map(i => toHex(packetOf(0x80 + i, 90 + i))),
  )
  t.ok(call.connection.tunnel.mtuBytes <= 1400)
  call.connection.handle({ type: 'close', cause: 'user-request', detail: 'bye' })
  await link.settle()
  t.match(calls[0]?.events.at(-1), { type: 'closed', cause: 'user-request' })
  t.match(listener.status(), { established: 0, halfOpen: 0, childSas: 0 })
  t.equal(dialler.size, 0)
  t.equal(client.database.size, 0)
})

t.test('rekeying of either kind loses nothing, and one Child SA is left', async t => {
  const { link, server, client, calls, listener, dial, pass } = setUp()
  const call = dial()
  await link.settle()
  const [answered] = calls
  if (answered === undefined) throw new Error('no call')
  let sent = 0
  for (let round = 0; round < 4; round++) {
    for (const { connection } of [call, answered]) {
      for (const { inbound } of connection.tunnel.children) {
        connection.handle({ type: 'rekey-child', inboundSpi: inbound.spi })
      }
      connection.handle({ type: 'rekey-ike' })
      for (let step = 0; step < 20; step++) {
        client.send(call.connection, packetOf(7))
        server.send(answered.connection, packetOf(9))
        sent++
        link.deliver()
      }
      await pass(2000)
    }
  }
  t.equal(server.delivered.length, sent)
  t.equal(client.delivered.length, sent)
  await pass(60_000)
  t.equal(listener.status().childSas, 1)
  t.equal(call.connection.tunnel.children.length, 1)
  t.ok(call.events.filter(({ type }) => type === 'ike-rekeyed').length >= 4)
})

t.test('ESP follows a NAT that changes its mapping, and keeps the peer alive', async t => {
  const { link, server, client, calls, dial } = setUp()
  const outside = SocketAddress.of('203.0.113.5', 0)
  let natPort = 20_000
  link.onWay = flight => {
    const [from, to] = [copyOf(flight.from), copyOf(flight.to)]
    if (from.text === clientAddress) {
      const { port } = from
      from.set(outside)
      from.port = natPort + (port === 500 ? 1 : 0)
    }
    if (to.text === outside.text) {
      if (to.port < natPort || to.port > natPort + 1) return undefined
      const isIke = to.port === natPort + 1
      to.set(SocketAddress.of(clientAddress, isIke ? 500 : 4500))
    }
    return { from, to, bytes: flight.bytes }
  }
  const call = dial()
  await link.settle()
  const [answered] = calls
  if (answered === undefined) throw new Error('no call')
  natPort = 30_000
  server.send(answered.connection, packetOf(1))
  await link.settle()
  t.equal(client.delivered.length, 0, 'the old mapping is gone')
  client.send(call.connection, packetOf(2))
  await link.settle()
  server.send(answered.connection, packetOf(3))
  await link.settle()
  t.same(client.delivered, [toHex(packetOf(3))])
  t.equal(answered.connection.path.peer.port, 30_000)
  t.equal(answered.connection.tunnel.strayEnvelopes, 1)
})

t.test('silence is asked about, ESP is an answer, and no answer ends the call', async t => {
  const { link, client, calls, listener, dial, pass } = setUp()
  const call = dial()
  await link.settle()
  let requests = 0
  link.onWay = flight => {
    if (flight.from.text === serverAddress && flight.bytes[0] === 0) requests++
    return flight
  }
  for (let i = 0; i < 8; i++) {
    client.send(call.connection, packetOf(1))
    await pass(20_000)
  }
  const whileBusy = requests
  await pass(130_000)
  t.ok(requests > whileBusy, 'a silent peer is asked')
  link.onWay = () => undefined
  await pass(600_000)
  t.match(calls[0]?.events.at(-1), { type: 'closed', cause: 'lost-carrier' })
  t.equal(listener.status().established, 0)
})

t.test('beyond a threshold strangers must show a cookie', async t => {
  const { link, listener, dial } = setUp({ ...generous, cookieThreshold: 0 })
  const call = dial()
  await link.settle()
  t.ok(types(call).includes('established'))
  t.equal(listener.status().counters['cookies-asked'], 1)
})

t.test('half-open calls are bounded, in all and per source, and run out', async t => {
  const { link, listener, server, calls, pass } = setUp({
    cookieThreshold: 1000,
    total: 30,
    perSource: 10,
  })
  // First requests of many initiators whose machines do not go on.
  const requests: Uint8Array[] = []
  for (let i = 0; i < 60; i++) {
    const one = setUp()
    one.link.onWay = () => undefined
    const call = one.dial()
    const [flight] = one.link.flights
    if (flight === undefined) throw new Error('no request')
    const bytes = flight.bytes.slice()
    // Another initiator: another SPI.
    putU32(bytes, 0, 0x1000 + i)
    requests.push(bytes)
    call.connection.handle({ type: 'close', cause: 'user-request', detail: 'test' })
  }
  requests.forEach((bytes, i) => {
    const from = SocketAddress.of(`203.0.113.${Math.floor(i / 15)}`, 500)
    link.flights.push({ from, to: SocketAddress.of(serverAddress, 500), bytes })
  })
  link.deliver()
  t.match(listener.status(), {
    halfOpen: 30,
    counters: { 'refused-half-open-source': 10, 'refused-half-open-total': 20 },
  })
  const [first] = requests
  if (first === undefined) return
  link.flights.push({
    from: SocketAddress.of('203.0.113.0', 500),
    to: SocketAddress.of(serverAddress, 500),
    bytes: first,
  })
  link.deliver()
  t.equal(calls.length, 30, 'a repetition is no new call')
  await pass(120_000)
  t.match(listener.status(), { halfOpen: 0, established: 0 })
  t.equal(server.database.size, 0)
})

t.test('100,000 first requests from invented addresses leave a server that works', async t => {
  const { link, listener, server, dial } = setUp(defaultHalfOpenLimits)
  // One request of a real initiator; each of the flood has another SPI and another source.
  const one = setUp()
  one.link.onWay = () => undefined
  const { connection } = one.dial()
  const template = one.link.flights[0]?.bytes ?? new Uint8Array(0)
  connection.handle({ type: 'close', cause: 'user-request', detail: 'test' })
  const to = SocketAddress.of(serverAddress, 500)
  const answers = { count: 0, longest: 0 }
  link.onWay = flight => {
    if (!flight.from.equals(to)) return flight
    answers.count++
    answers.longest = Math.max(answers.longest, flight.bytes.length)
    return flight
  }
  const flood = (first: number, count: number) => {
    for (let i = first; i < first + count; i++) {
      const bytes = template.slice()
      putU32(bytes, 0, i + 1)
      const from = SocketAddress.of(`203.0.${(i >>> 8) & 255}.${i & 255}`, 500)
      link.flights.push({ from, to, bytes })
      link.deliver()
    }
  }
  flood(0, 20_000)
  const early = heapBytes()
  flood(20_000, 80_000)
  const grown = heapBytes() - early
  const { halfOpen, counters } = listener.status()
  t.equal(halfOpen, defaultHalfOpenLimits.cookieThreshold)
  t.equal(counters['cookies-asked'], 100_000 - halfOpen, 'nothing is kept of the others')
  t.equal(answers.count, 100_000)
  t.ok(answers.longest <= template.length, 'no answer is longer than its question')
  t.ok(grown < 2_000_000, `the heap grew by ${grown} bytes over 80,000 requests`)
  t.equal(server.database.size, 0)
  const call = dial()
  await link.settle()
  t.ok(types(call).includes('established'))
})

t.test('noise of strangers is counted and answered by nothing', async t => {
  const { link, server, listener } = setUp()
  const random = new SeededRandom(5)
  const bytes = new Uint8Array(200)
  let answers = 0
  link.onWay = flight => {
    if (flight.from.text === serverAddress) answers++
    return flight
  }
  for (let i = 0; i < 2000; i++) {
    random.fill(bytes)
    if (i % 3 === 0) putU32(bytes, 0, 0)
    if (i % 2 === 0) bytes[i % 4 === 0 ? 17 : 21] = 0x20
    const lengthBytes = i % 200
    link.flights.push({
      from: SocketAddress.of('203.0.113.9', 500 + i),
      to: SocketAddress.of(serverAddress, i % 2 === 0 ? 500 : 4500),
      bytes: bytes.slice(0, lengthBytes),
    })
    link.deliver()
  }
  t.equal(answers, 0)
  t.match(listener.status(), { halfOpen: 0, established: 0 })
  const { counters } = listener.status()
  t.ok((counters['unknown-spi'] ?? 0) > 0)
  t.ok((counters['ike-truncated'] ?? 0) > 0)
  t.ok((counters['ike-other-version'] ?? 0) > 0)
  link.flights.push({
    from: SocketAddress.of('203.0.113.9', 4500),
    to: SocketAddress.of(serverAddress, 4500),
    bytes: Uint8Array.of(0xff),
  })
  link.deliver()
  t.equal(server.sockets.counters.get('keepalive'), 1)
})

t.test('stopping ends calls in order and takes no more', async t => {
  const { link, calls, listener, dial } = setUp()
  const call = dial()
  await link.settle()
  calls[0]?.connection.handle({ type: 'close', cause: 'nas-reboot', detail: 'stop' })
  const stopped = listener.stop()
  await link.settle()
  await stopped
  t.match(call.events.at(-1), { type: 'closed' })
  const late = dial()
  await link.settle()
  t.notOk(types(late).includes('established'))
})
