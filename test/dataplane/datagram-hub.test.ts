/** Real sockets on the loopback interface of a namespace of our own. */
import { setTimeout as delay } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { BindError, SystemError } from '../../lib/core/errors.ts'
import { noRoom } from '../../lib/core/packet-sink.ts'
import { DatagramHub } from '../../lib/dataplane/datagram-hub.ts'
import type { DatagramRoute, Envelope } from '../../lib/dataplane/datagrams.ts'
import { loadKernel } from '../../lib/dataplane/kernel.ts'
import { PacketMemory } from '../../lib/dataplane/pinned-memory.ts'
import { SocketAddress } from '../../lib/dataplane/socket-address.ts'
import { Namespace, whyNoNamespaces } from './namespace.ts'

const skip = whyNoNamespaces() ?? false

interface Received {
  readonly bytes: Uint8Array
  readonly peer: string
  readonly local: string
}

let count = 0

function bench(t: Test) {
  const kernel = loadKernel()
  if (kernel instanceof SystemError) throw kernel
  const namespace = new Namespace(`udp${count++}`)
  const memory = new PacketMemory({
    sizeBytes: 8 * 1024 * 1024,
    addressOf: bytes => kernel.addressOf(bytes),
  })
  let bursts = 0
  const hub = new DatagramHub({ memory, flush: () => bursts++ })
  const received: Received[] = []
  const last: { route?: DatagramRoute } = {}
  const receiver = {
    receive: (at: number, lengthBytes: number, envelope: Envelope) => {
      received.push({
        bytes: memory.bytes.slice(at, at + lengthBytes),
        peer: envelope.peer.text,
        local: envelope.local.text,
      })
      last.route = hub.route(envelope)
    },
    lost: (reason: string) => t.fail(reason),
  }
  const opened: { close(): void }[] = []
  const open = (address: string, port: number, ipProtocol?: number) => {
    const socket = namespace.enter(() =>
      hub.open(SocketAddress.of(address, port), receiver, ipProtocol),
    )
    opened.push(socket)
    return socket
  }
  const send = (route: DatagramRoute, ...lengths: number[]) => {
    lengths.forEach((lengthBytes, i) => {
      const at = hub.reserve(lengthBytes)
      memory.bytes.fill(i & 255, at, at + lengthBytes)
      hub.commit(at, lengthBytes, route)
    })
    hub.flush()
  }
  const until = async (count: number) => {
    for (let i = 0; i < 200 && received.length < count; i++) await delay(5)
  }
  t.teardown(() => {
    for (const socket of opened) socket.close()
    namespace.remove()
  })
  return { hub, memory, namespace, received, last, open, send, until, bursts: () => bursts }
}

function routeTo(
  hub: DatagramHub,
  port: DatagramRoute['port'],
  from: string,
  to: string,
  toPort: number,
) {
  return hub.route({
    port,
    peer: SocketAddress.of(to, toPort),
    local: SocketAddress.of(from, port.number),
  })
}

t.test('runs of equal length travel as one message and arrive one by one', { skip }, async t => {
  const { hub, received, open, send, until, bursts } = bench(t)
  const a = open('127.0.0.1', 4500)
  open('127.0.0.2', 4500)
  const lengths = [...Array.from({ length: 100 }, () => 1400), 700, 1400, 1400, 60, 61, 1]
  send(routeTo(hub, a, '127.0.0.1', '127.0.0.2', 4500), ...lengths)
  await until(lengths.length)
  t.same(
    received.map(({ bytes }) => bytes.length),
    lengths,
  )
  t.ok(received.every(({ bytes }, i) => bytes.every(byte => byte === (i & 255))))
  t.ok(received.every(({ peer }) => peer === '127.0.0.1'))
  t.ok(received.every(({ local }) => local === '127.0.0.2'))
  t.match(a.counters, { sentDatagrams: lengths.length, droppedRefused: 0, droppedQueueFull: 0 })
  t.ok(bursts() > 0, 'each burst was ended')
  t.equal(hub.reserve(65_508), noRoom)
  t.ok(hub.isSegmenting)
})

t.test('more than the arena holds is sent on the way', { skip }, async t => {
  const { hub, received, open, send, until } = bench(t)
  const a = open('127.0.0.1', 4500)
  open('127.0.0.2', 4500)
  const lengths = Array.from({ length: 600 }, (_, i) => 1000 + (i % 300))
  send(routeTo(hub, a, '127.0.0.1', '127.0.0.2', 4500), ...lengths)
  await until(lengths.length)
  t.same(
    received.map(({ bytes }) => bytes.length),
    lengths,
  )
})

t.test('a socket for all addresses answers from the one that was asked', { skip }, async t => {
  const { hub, received, last, open, send, until } = bench(t)
  for (const [any, asked, other] of [
    ['0.0.0.0', '127.0.0.9', '127.0.0.5'],
    ['::', '::1', '::1'],
  ] as const) {
    received.length = 0
    const wild = open(any, 500)
    const peer = open(other, 501)
    send(routeTo(hub, peer, other, asked, 500), 100)
    await until(1)
    t.match(received, [{ local: asked, peer: other }])
    if (last.route === undefined) return
    t.equal(last.route.port, wild)
    send(last.route, 50)
    await until(2)
    t.match(received[1], { peer: asked, local: other })
  }
})

t.test('a way that is too narrow for the segments gets them singly', { skip }, async t => {
  const { hub, namespace, received, open, send, until } = bench(t)
  namespace.ip('link', 'set', 'lo', 'mtu', '1300')
  const a = open('127.0.0.1', 4500)
  open('127.0.0.2', 4500)
  const route = routeTo(hub, a, '127.0.0.1', '127.0.0.2', 4500)
  for (let round = 1; round <= 2; round++) {
    send(route, 1400, 1400, 900)
    await until(3 * round)
  }
  t.same(
    received.map(({ bytes }) => bytes.length),
    [1400, 1400, 900, 1400, 1400, 900],
  )
  t.equal(a.counters.droppedRefused, 0)
})

t.test('what the kernel refuses is counted', { skip }, async t => {
  const { hub, open, send } = bench(t)
  const a = open('127.0.0.1', 4500)
  send(routeTo(hub, a, '127.0.0.1', '192.0.2.1', 4500), 100, 100)
  t.equal(a.counters.droppedRefused, 2)
  a.close()
  send(routeTo(hub, a, '127.0.0.1', '127.0.0.2', 4500), 100)
  t.equal(a.counters.droppedRefused, 3)
})

t.test('a raw protocol comes without its IP header', { skip }, async t => {
  const { hub, received, open, send, until } = bench(t)
  const [a] = [open('127.0.0.1', 0, 50), open('127.0.0.2', 0, 50)]
  send(routeTo(hub, a, '127.0.0.1', '127.0.0.2', 0), 100, 100)
  await until(2)
  t.match(
    received.map(({ bytes, peer }) => [bytes.length, bytes[0], peer]),
    [
      [100, 0, '127.0.0.1'],
      [100, 1, '127.0.0.1'],
    ],
  )
})

t.test('an address in use and a memory out of reach are told', { skip }, async t => {
  const { open } = bench(t)
  open('127.0.0.1', 4500)
  t.throws(() => open('127.0.0.1', 4500), BindError)
  t.throws(() => open('192.0.2.1', 4500), BindError)
  const memory = new PacketMemory({ sizeBytes: 65_536 })
  t.throws(() => new DatagramHub({ memory, flush: () => {} }), SystemError)
})

t.test('addresses are text, numbers and the kernel’s form', async t => {
  const memory = new PacketMemory({ sizeBytes: 65_536 })
  for (const text of ['192.0.2.1', '2001:db8::1', '::', '0.0.0.0']) {
    const address = SocketAddress.of(text, 4500)
    const lengthBytes = address.put(memory, 128)
    t.equal(lengthBytes, text.includes(':') ? 28 : 16)
    const read = new SocketAddress()
    read.take(memory, 128)
    t.equal(read.text, text)
    t.ok(read.equals(address))
    t.equal(read.isAny, text === '::' || text === '0.0.0.0')
  }
  t.notOk(SocketAddress.of('192.0.2.1', 1).equals(SocketAddress.of('192.0.2.1', 2)))
  t.throws(() => SocketAddress.of('example.net', 1))
})
