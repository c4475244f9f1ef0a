/** Listener and dialler on loopback, GRE over arrays; and what strangers may do to the listener. */
import { connect, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { fromHex, toHex } from '../../lib/core/bytes.ts'
import { type Clock, systemClock } from '../../lib/core/clock.ts'
import { BindError, ConnectError } from '../../lib/core/errors.ts'
import { silentLogger } from '../../lib/core/log.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { TimerWheel } from '../../lib/core/timers.ts'
import { createMemoryDataplane } from '../../lib/dataplane/index.ts'
import { PptpDialler, type PptpLimits, PptpListener } from '../../lib/pptp/index.ts'
import { FakeLinks } from '../support/sstp-link.ts'
import { FakePacketSocket, join } from './packet-socket.ts'

const lcp = fromHex('ff03c021 01010004')
const ipv4Packet = fromHex('45000014 00000000 40110000 0a000001 0a000002')
const memoryBytes = 8 * 1024 * 1024

async function setUp(t: Test, limits: Partial<PptpLimits> = {}, clock: Clock = systemClock) {
  const wheel = new TimerWheel(systemClock.nowMs(), { tickMs: 5 })
  wheel.start(systemClock)
  const { dataplane } = createMemoryDataplane({ memoryBytes, streamSlotCount: 16 })
  const links = new FakeLinks(dataplane.memory)
  const socket = new FakePacketSocket(dataplane.memory)
  const listener = new PptpListener({
    addresses: [{ host: '127.0.0.1', port: 0 }],
    hostName: 'openras',
    links,
    dataplane,
    socket,
    clock,
    wheel,
    random: new SeededRandom(3),
    log: silentLogger,
    limits,
  })
  await listener.start()
  const port = listener.status().addresses[0]?.port ?? 0
  const client = createMemoryDataplane({ memoryBytes, streamSlotCount: 16 }).dataplane
  const clientLinks = new FakeLinks(client.memory)
  const clientSocket = new FakePacketSocket(client.memory)
  join(socket, clientSocket)
  const dialler = new PptpDialler({
    dataplane: client,
    socket: clientSocket,
    clock,
    wheel,
    random: new SeededRandom(4),
  })
  t.teardown(async () => {
    await listener.stop()
    wheel.stop()
    dialler.close()
    if (!socket.isClosed) throw new Error('the raw socket is still open')
    if (!socket.isWhole || !clientSocket.isWhole) throw new Error('a slot was not given back')
  })
  return {
    ...{ listener, links, clientLinks, socket, port, dialler },
    dial: () => dialler.dial({ host: '127.0.0.1', port, links: clientLinks }),
  }
}

/** A bare TCP connection, and what came back on it. */
function stranger(port: number): { socket: Socket; closed: Promise<Uint8Array> } {
  const socket = connect({ host: '127.0.0.1', port })
  const chunks: Uint8Array[] = []
  socket.on('data', chunk => chunks.push(chunk))
  socket.on('error', () => {})
  const closed = new Promise<Uint8Array>(resolve => {
    socket.once('close', () => resolve(Buffer.concat(chunks)))
  })
  return { socket, closed }
}

t.test('a call: frames and packets both ways, then the client hangs up', async t => {
  const { listener, links, clientLinks, dial } = await setUp(t)
  const call = await dial()
  const server = await links.at(0)
  const client = await clientLinks.at(0)
  t.ok(server.isPermitted)
  t.match(server.carrier, { protocol: 'pptp', peerAddress: '127.0.0.1', mruBytes: 1436 })
  server.carrier.sendFrame(lcp)
  await client.until(link => link.frames.length === 1)
  client.carrier.sendFrame(lcp)
  await server.until(link => link.frames.length === 1)
  t.equal(server.received[0], toHex(lcp))
  t.ok(client.send(ipv4Packet))
  client.carrier.sink.flush()
  await server.until(link => link.frames.length === 2)
  t.equal(server.received[1], `ff030021${toHex(ipv4Packet)}`)
  t.match(listener.status(), { connections: 1, unfinished: 0, calls: 1 })
  call.hangUp('user-request')
  await server.until(link => link.lost !== undefined)
  await call.closed
  t.match(listener.status(), { connections: 0, calls: 0, counters: { receivedPackets: 2 } })
})

t.test('the server ends a call: the client hears of it', async t => {
  const { links, clientLinks, dial } = await setUp(t)
  const call = await dial()
  const client = await clientLinks.at(0)
  ;(await links.at(0)).carrier.close('idle-timeout')
  await client.until(link => link.lost !== undefined)
  t.equal(client.lost, 'nas-reboot')
  await call.closed
})

t.test(
  'a refused link, a closed port and a dead server are ConnectErrors or BindErrors',
  async t => {
    const { links, dial, dialler, port, clientLinks } = await setUp(t)
    links.isRefusing = true
    // The call comes up before PPP is asked for, as the protocol has it.
    const call = await dial()
    await call.closed
    links.isRefusing = false
    clientLinks.isRefusing = true
    await t.rejects(dial(), ConnectError)
    await t.rejects(dialler.dial({ host: '127.0.0.1', port: 1, links: clientLinks }), ConnectError)
    const { dataplane } = createMemoryDataplane({ memoryBytes, streamSlotCount: 16 })
    const second = new PptpListener({
      addresses: [{ host: '127.0.0.1', port }],
      hostName: '',
      links,
      dataplane,
      socket: new FakePacketSocket(dataplane.memory),
      clock: systemClock,
      wheel: new TimerWheel(0),
      random: new SeededRandom(1),
      log: silentLogger,
    })
    await t.rejects(second.start(), BindError)
  },
)

t.test('stop ends the calls in an orderly way and waits for them', async t => {
  const { listener, links, clientLinks, dial } = await setUp(t)
  const calls = await Promise.all([dial(), dial(), dial()])
  t.equal(listener.status().calls, 3)
  const ids = new Set(links.links.map(link => link.carrier.peerLabel))
  t.equal(ids.size, 3)
  await listener.stop()
  await Promise.all(calls.map(call => call.closed))
  t.ok(clientLinks.links.every(link => link.lost !== undefined))
  t.ok(links.links.every(link => link.lost === 'nas-reboot'))
})

t.test('a wrong cookie, a wrong first message and a cut connection cost nothing', async t => {
  const { listener, port, dial } = await setUp(t)
  for (const hex of ['16030100', 'ff'.repeat(300), '00100001 1a2b3c4d 0005 0000 00000001']) {
    const { socket, closed } = stranger(port)
    socket.write(fromHex(hex))
    socket.end()
    t.equal((await closed).length, 0, 'nothing is answered')
  }
  const { socket, closed } = stranger(port)
  socket.once('connect', () => socket.resetAndDestroy())
  await closed
  const call = await dial()
  t.equal(listener.status().calls, 1)
  call.hangUp('user-request')
  await call.closed
  t.match(listener.status().counters, { 'malformed-bad-magic': 1, 'closed-violation': 1 })
})

t.test('unfinished strangers make room, and one address has its limit', async t => {
  let aheadMs = 0
  const clock = { nowMs: () => systemClock.nowMs() + aheadMs }
  const { listener, port, dial } = await setUp(
    t,
    { unfinished: 3, connectionsPerAddress: 5 },
    clock,
  )
  const first = [stranger(port), stranger(port), stranger(port)]
  await Promise.all(
    first.map(({ socket }) => new Promise(resolve => socket.once('connect', resolve))),
  )
  while (listener.status().connections < 3) await new Promise(setImmediate)
  const early = stranger(port)
  await early.closed
  t.equal(listener.status().counters['refused-unfinished'], 1, 'they are left alone for a while')
  aheadMs = 1001
  const call = await dial()
  await first[0]?.closed
  t.equal(listener.status().counters['evicted-unfinished'], 1)
  const second = await dial()
  t.match(listener.status(), { connections: 4, calls: 2 })
  for (const one of [call, second]) one.hangUp('user-request')
  await Promise.all([call.closed, second.closed])
  for (const { socket } of first) socket.destroy()
})
