import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { ManualClock, systemClock } from '../../lib/core/clock.ts'
import { BindError, InvariantError, SystemError } from '../../lib/core/errors.ts'
import { noRoom } from '../../lib/core/packet-sink.ts'
import { DatagramHub } from '../../lib/dataplane/datagram-hub.ts'
import type { DatagramPort, DatagramRoute } from '../../lib/dataplane/datagrams.ts'
import type { Kernel } from '../../lib/dataplane/kernel.ts'
import { createMemoryDataplane } from '../../lib/dataplane/open-dataplane.ts'
import { PacketMemory } from '../../lib/dataplane/pinned-memory.ts'
import { SOCKET_ADDRESS_BYTES, SocketAddress } from '../../lib/dataplane/socket-address.ts'
import { eventually, turn } from '../support/eventually.ts'
import { createKernelDataplane, freePort, systemCalls } from '../support/kernel-dataplane.ts'

const EINTR = 4
const EIO = 5
const EAGAIN = 11
const SOL_SOCKET = 1
const SO_NO_CHECK = 11
const SOL_UDP = 17
const UDP_GRO = 104

interface Arrival {
  /** As they stood when the burst ended. */
  bytes: Uint8Array
  readonly from: string
  readonly to: string
}

const textOf = (address: SocketAddress) => `${address.text} ${address.port}`

/** A hub with its mailbox: every datagram copied, with the addresses of its envelope. */
class Station {
  readonly host
  readonly hub: DatagramHub
  readonly arrivals: Arrival[] = []
  readonly lost: string[] = []
  readonly ports: DatagramPort[] = []
  readonly #standing: { readonly at: number; readonly arrival: Arrival }[] = []
  lastRoute: DatagramRoute | undefined
  onArrival: () => void = () => {}

  constructor(t: Test, clock = systemClock) {
    this.host = createKernelDataplane({ clock })
    this.hub = new DatagramHub(this.host.dataplane, clock)
    t.teardown(() => {
      for (const port of this.ports) port.close()
      this.host.dataplane.stop()
    })
  }

  open(address: string, port: number, ipProtocol?: number): DatagramPort {
    const { bytes } = this.host.memory
    const opened = this.hub.open(
      SocketAddress.of(address, port),
      {
        receive: (at, lengthBytes, envelope) => {
          this.lastRoute ??= this.hub.route(envelope)
          const arrival = {
            bytes: bytes.slice(at, at + lengthBytes),
            from: textOf(envelope.peer),
            to: textOf(envelope.local),
          }
          this.arrivals.push(arrival)
          this.#standing.push({ at, arrival })
          this.onArrival()
        },
        endBurst: () => {
          for (const { at, arrival } of this.#standing.splice(0)) {
            arrival.bytes = bytes.slice(at, at + arrival.bytes.length)
          }
        },
        lost: reason => this.lost.push(reason),
      },
      ipProtocol,
    )
    this.ports.push(opened)
    return opened
  }

  routeTo(port: DatagramPort, address: string, number: number): DatagramRoute {
    return this.hub.route({ port, peer: SocketAddress.of(address, number), local: port.bound })
  }

  /** Queues one datagram; `flush` sends. */
  put(route: DatagramRoute, datagram: Uint8Array): void {
    const at = this.hub.reserve(datagram.length)
    if (at === noRoom) throw new RangeError(`no room for ${datagram.length}`)
    this.host.memory.bytes.set(datagram, at)
    this.hub.commit(at, datagram.length, route)
  }

  async received(count: number): Promise<void> {
    await eventually(
      () => this.arrivals.length >= count,
      () => `${this.arrivals.length} of ${count} datagrams`,
    )
  }
}

const datagram = (number: number, lengthBytes: number) =>
  Uint8Array.from({ length: lengthBytes }, (_, i) => (number * 31 + i * 7) & 0xff)

/** Replaces a system call for the time of a test. */
function intercept<Name extends 'sendmmsg' | 'recvmmsg' | 'errno' | 'setsockopt'>(
  t: Test,
  name: Name,
  replacement: (original: Kernel[Name]) => Kernel[Name],
): void {
  const kernel = systemCalls()
  const original = kernel[name]
  kernel[name] = replacement(original)
  t.teardown(() => {
    kernel[name] = original
  })
}

/** How many messages each successful `sendmmsg` and `recvmmsg` moved. */
function countMessages(t: Test) {
  const moved = { sent: 0, received: 0, sendCalls: 0 }
  intercept(t, 'sendmmsg', original => (...args) => {
    const count = original(...args)
    moved.sendCalls++
    if (count > 0) moved.sent += count
    return count
  })
  intercept(t, 'recvmmsg', original => (...args) => {
    const count = original(...args)
    if (count > 0) moved.received += count
    return count
  })
  return moved
}

/** Two stations on one loopback address, and a route from the first to the second. */
async function twoStations(t: Test, address = '127.0.0.1', clock = systemClock) {
  const [sender, receiver] = [new Station(t), new Station(t, clock)]
  const [from, to] = [await freePort(address), await freePort(address)]
  const port = sender.open(address, from)
  const listening = receiver.open(address, to)
  return { sender, receiver, port, listening, route: sender.routeTo(port, address, to) }
}

for (const address of ['127.0.0.1', '::1']) {
  t.test(`Equal datagrams to ${address} are a few messages, and arrive singly`, async t => {
    const moved = countMessages(t)
    const { sender, receiver, port, listening, route } = await twoStations(t, address)
    t.ok(sender.hub.isSegmenting)
    const datagrams = Array.from({ length: 150 }, (_, i) => datagram(i, 1000))
    // A shorter one ends its message.
    datagrams.push(datagram(150, 400), datagram(151, 1000), datagram(152, 1000))
    for (const one of datagrams) sender.put(route, one)
    sender.hub.flush()
    t.equal(moved.sendCalls, 1)
    t.equal(moved.sent, 4, '64, 64, 23 and 2')
    await receiver.received(datagrams.length)
    t.same(
      receiver.arrivals.map(({ bytes }) => bytes),
      datagrams,
    )
    t.ok(moved.received < 20, `${moved.received} messages received`)
    t.equal(receiver.arrivals[0]?.from, textOf(port.bound))
    t.equal(receiver.arrivals[0]?.to, textOf(listening.bound))
    const totalBytes = 152 * 1000 + 400
    t.match(port.counters, { sentDatagrams: 153, sentBytes: totalBytes, droppedRefused: 0 })
    t.match(listening.counters, { receivedDatagrams: 153, receivedBytes: totalBytes })
  })
}

t.test('Datagrams of growing length leave one by one in one system call', async t => {
  const moved = countMessages(t)
  const { sender, receiver, route } = await twoStations(t)
  const datagrams = Array.from({ length: 120 }, (_, i) => datagram(i, i + 1))
  for (const one of datagrams) sender.put(route, one)
  sender.hub.flush()
  t.match(moved, { sendCalls: 1, sent: 120 })
  await receiver.received(120)
  t.same(
    receiver.arrivals.map(({ bytes }) => bytes),
    datagrams,
  )
  t.equal(moved.received, 120)
  sender.hub.flush()
  t.equal(moved.sendCalls, 1, 'a flush of nothing is no system call')
})

t.test('A kernel that joins nothing hands over the same datagrams', async t => {
  intercept(
    t,
    'setsockopt',
    original => (fd, level, name, value, lengthBytes) =>
      level === SOL_UDP && name === UDP_GRO ? -1 : original(fd, level, name, value, lengthBytes),
  )
  const moved = countMessages(t)
  const { sender, receiver, route } = await twoStations(t)
  const datagrams = Array.from({ length: 100 }, (_, i) => datagram(i, 900))
  for (const one of datagrams) sender.put(route, one)
  sender.hub.flush()
  await receiver.received(100)
  t.match(moved, { sent: 2, received: 100 })
  t.same(
    receiver.arrivals.map(({ bytes }) => bytes),
    datagrams,
  )
})

t.test('Two peers share a burst, and neighbours of one peer a message', async t => {
  const moved = countMessages(t)
  const { sender, receiver, port, route } = await twoStations(t)
  const other = new Station(t)
  const number = await freePort('127.0.0.1')
  other.open('127.0.0.1', number)
  const otherRoute = sender.routeTo(port, '127.0.0.1', number)
  for (let i = 0; i < 12; i++) sender.put(i % 4 < 2 ? route : otherRoute, datagram(i, 100))
  sender.hub.flush()
  t.match(moved, { sendCalls: 1, sent: 6 })
  await receiver.received(6)
  await other.received(6)
  t.same(
    other.arrivals.map(({ bytes }) => bytes),
    [2, 3, 6, 7, 10, 11].map(i => datagram(i, 100)),
  )
})

t.test('A way that takes no cut messages gets its datagrams singly from then on', async t => {
  const moved = countMessages(t)
  const { sender, receiver, port, route } = await twoStations(t)
  const other = sender.routeTo(port, route.peer.text, route.peer.port)
  // Linux refuses to cut for a socket that sends without checksums: EINVAL.
  const { memory } = sender.host
  const optionAt = memory.allocate(4)
  const set = (value: number) => {
    memory.view.setUint32(optionAt, value, true)
    const { fd } = port as DatagramPort & { readonly fd: number }
    t.equal(systemCalls().setsockopt(fd, SOL_SOCKET, SO_NO_CHECK, memory.address + optionAt, 4), 0)
  }
  set(1)
  const datagrams = Array.from({ length: 40 }, (_, i) => datagram(i, i === 19 ? 30 : 700))
  for (const one of datagrams.slice(0, 20)) sender.put(route, one)
  sender.hub.flush()
  set(0)
  for (const one of datagrams.slice(20)) sender.put(route, one)
  sender.hub.flush()
  await receiver.received(40)
  t.same(
    receiver.arrivals.map(({ bytes }) => bytes),
    datagrams,
  )
  t.equal(moved.sent, 20, 'the second half was not put together any more')
  t.match(port.counters, { sentDatagrams: 40, droppedRefused: 0, droppedQueueFull: 0 })
  t.ok(sender.hub.isSegmenting, 'that is a matter of this way only')
  for (let i = 0; i < 5; i++) sender.put(other, datagram(i, 300))
  sender.hub.flush()
  t.equal(moved.sent, 21)
})

t.test('A device without checksums ends cutting for the whole socket', async t => {
  let errno = 0
  const { sender, receiver, port, route } = await twoStations(t)
  intercept(t, 'errno', original => () => errno || original())
  intercept(t, 'sendmmsg', original => (...args) => {
    if (errno !== 0) return -1
    return original(...args)
  })
  errno = EIO
  for (let i = 0; i < 10; i++) sender.put(route, datagram(i, 500))
  sender.hub.flush()
  errno = 0
  await receiver.received(10)
  t.equal(sender.hub.isSegmenting, false)
  t.match(port.counters, { sentDatagrams: 10, sentBytes: 5000, droppedRefused: 0 })
})

t.test('A full queue of the kernel drops what waits, and an interrupted call goes on', async t => {
  const answers: number[] = []
  const { sender, receiver, port, route } = await twoStations(t)
  intercept(t, 'errno', original => () => answers.shift() ?? original())
  intercept(
    t,
    'sendmmsg',
    original =>
      (...args) =>
        answers.length > 0 ? -1 : original(...args),
  )
  answers.push(EINTR, EINTR)
  sender.put(route, datagram(1, 10))
  sender.hub.flush()
  t.match(port.counters, { sentDatagrams: 1, droppedQueueFull: 0, droppedRefused: 0 })
  answers.push(EAGAIN)
  for (let i = 0; i < 7; i++) sender.put(route, datagram(i, i < 4 ? 50 : 60 + i))
  sender.hub.flush()
  t.match(port.counters, { sentDatagrams: 1, droppedQueueFull: 7, droppedRefused: 0 })
  sender.put(route, datagram(2, 20))
  sender.hub.flush()
  await receiver.received(2)
  t.equal(receiver.arrivals[1]?.bytes.length, 20, 'nothing of what was dropped comes later')
})

t.test('One message that the kernel refuses takes no other along', async t => {
  const { sender, receiver, port, route } = await twoStations(t)
  // Without SO_BROADCAST: EACCES.
  const broadcast = sender.routeTo(port, '255.255.255.255', 9)
  sender.put(route, datagram(1, 100))
  for (let i = 0; i < 3; i++) sender.put(broadcast, datagram(i, 100))
  sender.put(route, datagram(2, 100))
  sender.hub.flush()
  await receiver.received(2)
  t.same(
    receiver.arrivals.map(({ bytes }) => bytes),
    [datagram(1, 100), datagram(2, 100)],
  )
  t.match(port.counters, { sentDatagrams: 2, droppedRefused: 3 })
})

t.test('The longest datagram fits and a longer one finds no room', async t => {
  for (const address of ['127.0.0.1', '::1']) {
    const { sender, receiver, port, route } = await twoStations(t, address)
    t.equal(sender.hub.reserve(65_508), noRoom)
    const longest = datagram(5, 65_507)
    sender.put(route, longest)
    sender.put(route, datagram(6, 65_507))
    sender.hub.flush()
    await receiver.received(2)
    t.same(receiver.arrivals[0]?.bytes, longest)
    t.match(port.counters, { sentDatagrams: 2, droppedRefused: 0 })
  }
})

t.test('A full arena and a full list of messages are sent to make room', async t => {
  const moved = countMessages(t)
  const { sender, receiver, port, route } = await twoStations(t)
  let count = 0
  while (moved.sendCalls === 0 && count < 1000) sender.put(route, datagram(count++, 65_000))
  t.ok(count > 2, `${count} messages`)
  t.equal(moved.sent + port.counters.droppedQueueFull, count - 1, 'the last one had no room')
  sender.hub.flush()
  moved.sendCalls = 0
  const short = Array.from({ length: 257 }, (_, i) => datagram(i, 10 + (i % 2) * 10 + (i >> 1)))
  for (const one of short) sender.put(route, one)
  t.ok(moved.sendCalls <= 1)
  sender.hub.flush()
  await eventually(
    () => receiver.arrivals.at(-1)?.bytes.length === short.at(-1)?.length,
    () => `${receiver.arrivals.length} arrivals`,
  )
})

async function nodeSocket(t: Test, address: string): Promise<{ socket: Socket; port: number }> {
  const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4')
  socket.bind(0, address)
  await once(socket, 'listening')
  t.teardown(() => socket.close())
  return { socket, port: socket.address().port }
}

t.test('Who asked a wildcard socket is answered from the address that it asked', async t => {
  for (const [any, asked] of [
    ['0.0.0.0', '127.0.0.53'],
    ['::', '::1'],
  ] as const) {
    const station = new Station(t)
    const client = await nodeSocket(t, asked.includes(':') ? '::1' : '127.0.0.1')
    const number = await freePort(any)
    const port = station.open(any, number)
    t.ok(port.bound.isAny)
    client.socket.send(Uint8Array.of(1, 2, 3), number, asked)
    await station.received(1)
    const own = client.socket.address()
    t.match(station.arrivals[0], {
      from: `${own.address} ${own.port}`,
      to: `${asked} ${number}`,
    })
    const route = station.lastRoute
    if (route === undefined) throw new Error('no route back')
    const answers: { size: number; address: string }[] = []
    client.socket.on('message', (message, { address }) =>
      answers.push({ size: message.length, address }),
    )
    // A cut message carries both: the source address and the length of its parts.
    for (let i = 0; i < 3; i++) station.put(route, datagram(i, 77))
    station.hub.flush()
    await eventually(
      () => answers.length === 3,
      () => `${answers.length} answers`,
    )
    t.same(answers, Array(3).fill({ size: 77, address: asked }))
  }
})

t.test('Datagrams without payload and from strangers in turn keep their envelopes', async t => {
  const station = new Station(t)
  const number = await freePort('127.0.0.1')
  station.open('127.0.0.1', number)
  const clients = [await nodeSocket(t, '127.0.0.1'), await nodeSocket(t, '127.0.0.2')]
  for (let i = 0; i < 10; i++) {
    clients[i % 2]?.socket.send(new Uint8Array(i === 4 ? 0 : 5).fill(i), number, '127.0.0.1')
  }
  await eventually(
    () => station.arrivals.length >= 9,
    () => `${station.arrivals.length} arrivals`,
  )
  for (const { bytes, from } of station.arrivals) {
    const client = clients[(bytes[0] ?? 0) % 2]
    t.equal(from, `${client?.socket.address().address} ${client?.port}`)
  }
})

t.test('A wake-up ends in time, and the rest waits for the next turn', async t => {
  const clock = new ManualClock(0)
  const { sender, receiver, route } = await twoStations(t, '127.0.0.1', clock)
  let flushes = 0
  const { dataplane } = receiver.host
  const flush = dataplane.flush.bind(dataplane)
  dataplane.flush = () => {
    flushes++
    flush()
  }
  // The work on one datagram takes a millisecond.
  receiver.onArrival = () => clock.advance(1)
  for (let i = 0; i < 100; i++) sender.put(route, datagram(i, 10 + i))
  sender.hub.flush()
  const steps: number[] = []
  for (let before = 0; receiver.arrivals.length < 100; before = receiver.arrivals.length) {
    await eventually(
      () => receiver.arrivals.length > before,
      () => `${before} arrivals`,
    )
    steps.push(receiver.arrivals.length - before)
  }
  t.ok(Math.max(...steps) <= 32, `${steps}`)
  t.ok(steps.length >= 4)
  t.equal(flushes, steps.length, 'every burst was ended')
})

t.test('A closed socket sends nothing, receives nothing, and counts what it refused', async t => {
  const { sender, receiver, port, route } = await twoStations(t)
  sender.put(route, datagram(1, 100))
  sender.hub.flush()
  await receiver.received(1)
  for (let i = 0; i < 3; i++) sender.put(route, datagram(i, 100))
  port.close()
  sender.hub.flush()
  t.match(port.counters, { sentDatagrams: 1, droppedRefused: 3 })
  port.close()
  const client = await nodeSocket(t, '127.0.0.1')
  client.socket.send('x', port.number, '127.0.0.1')
  for (let i = 0; i < 20; i++) await turn()
  t.same(sender.arrivals, [])
  t.equal(port.counters.receivedDatagrams, 0)
  // The port is free again.
  const again = sender.open('127.0.0.1', port.number)
  client.socket.send('y', again.number, '127.0.0.1')
  await sender.received(1)
  t.same(sender.lost, [])
})

t.test('A receiver may close its socket from within', async t => {
  const { sender, receiver, listening, route } = await twoStations(t)
  receiver.onArrival = () => listening.close()
  for (let i = 0; i < 50; i++) sender.put(route, datagram(i, 10 + i))
  sender.hub.flush()
  await receiver.received(1)
  for (let i = 0; i < 20; i++) await turn()
  t.equal(receiver.arrivals.length, 1, 'also of what was read with it, nothing more is handed on')
  t.equal(receiver.hub.size, 0, 'a closed socket is not counted')
  t.ok(receiver.hub.isSegmenting)
  listening.close()
  t.equal(receiver.hub.size, 0)
})

t.test('A socket that cannot be bound says why, and leaves nothing open', async t => {
  const station = new Station(t)
  const number = await freePort('127.0.0.1')
  station.open('127.0.0.1', number)
  const open = (address: string) => () => station.open(address, number)
  t.throws(open('127.0.0.1'), BindError)
  t.throws(open('127.0.0.1'), /UDP port \d+ on 127\.0\.0\.1: bind: EADDRINUSE: another program/)
  // TEST-NET-1, RFC 5737: no address of ours.
  t.throws(open('192.0.2.77'), /bind: EADDRNOTAVAIL/)
  t.throws(open('no address'), InvariantError)
  t.equal(station.ports.length, 1)
  // IPv4 and IPv6 are told apart: both wildcards may be bound.
  const both = await freePort('0.0.0.0')
  station.open('0.0.0.0', both)
  station.open('::', both)
  const { dataplane } = createMemoryDataplane()
  t.throws(() => new DatagramHub(dataplane), SystemError)
  t.throws(() => new DatagramHub(dataplane), /memory that the kernel can reach/)
  dataplane.stop()
})

t.test(
  'A raw IP protocol gives its payload, without the header in front',
  process.getuid?.() === 0 ? {} : { skip: 'raw sockets need root' },
  async t => {
    // RFC 3692: for experiments.
    const experimental = 253
    for (const [here, there] of [
      ['127.0.0.41', '127.0.0.42'],
      ['::1', '::1'],
    ] as const) {
      const [sender, receiver] = [new Station(t), new Station(t)]
      const port = sender.open(here, 0, experimental)
      const listening = receiver.open(there, 0, experimental)
      const route = sender.routeTo(port, there, 0)
      for (let i = 1; i <= 5; i++) sender.put(route, datagram(i, 100))
      sender.hub.flush()
      await receiver.received(5)
      t.same(
        receiver.arrivals.map(({ bytes }) => bytes),
        [1, 2, 3, 4, 5].map(i => datagram(i, 100)),
      )
      t.equal(receiver.arrivals[0]?.from.split(' ')[0], here)
      t.match(listening.counters, { receivedDatagrams: 5 })
      t.ok(sender.hub.isSegmenting, 'raw sockets have no say in it')
    }
    const station = new Station(t)
    const port = station.open('127.0.0.43', 0, experimental)
    port.close()
    t.throws(() => station.open('192.0.2.77', 0, experimental), /a raw IP socket on 192\.0\.2\.77/)
  },
)

const seed = 20261121
const anyAddress = fc.record({
  address: fc.oneof(fc.ipV4(), fc.ipV6()),
  port: fc.integer({ min: 0, max: 65_535 }),
})

t.test('Socket addresses round-trip in the form of the kernel, within their length', async t => {
  const memory = new PacketMemory({ sizeBytes: 65_536, kernels: 'plain' })
  const at = memory.allocate(64)
  fc.assert(
    fc.property(anyAddress, ({ address, port }) => {
      memory.bytes.fill(0xa5, at, at + 64)
      const before = SocketAddress.of(address, port)
      const lengthBytes = before.put(memory, at)
      const after = SocketAddress.of('2001:db8:ffff::ffff', 1)
      after.scope = 9
      after.take(memory, at)
      const rest = memory.bytes.slice(at + lengthBytes, at + 64)
      const bare = SocketAddress.of('2001:db8:ffff::ffff', port)
      before.putAddress(memory, at)
      bare.takeAddress(memory, at, before.family)
      return (
        lengthBytes === (before.family === 4 ? 16 : SOCKET_ADDRESS_BYTES) &&
        rest.every(byte => byte === 0xa5) &&
        after.equals(before) &&
        after.scope === 0 &&
        SocketAddress.of(after.text, port).equals(before) &&
        bare.equals(before)
      )
    }),
    { seed },
  )
  fc.assert(
    fc.property(anyAddress, anyAddress, (a, b) => {
      const [one, other] = [
        SocketAddress.of(a.address, a.port),
        SocketAddress.of(b.address, b.port),
      ]
      const isSame = one.text === other.text && a.port === b.port
      return one.equals(other) === isSame && other.equals(one) === isSame
    }),
    { seed },
  )
  t.notOk(SocketAddress.of('0.0.0.0', 1).equals(SocketAddress.of('::', 1)))
  t.notOk(SocketAddress.of('::1', 1).isAny)
})
