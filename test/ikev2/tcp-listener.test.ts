/** IKE and ESP in TCP streams on loopback: our dialler against our listener, and strangers. */
import { connect, createServer, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { concatBytes, toHex } from '../../lib/core/bytes.ts'
import { ManualClock } from '../../lib/core/clock.ts'
import { BindError } from '../../lib/core/errors.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { TimerWheel } from '../../lib/core/timers.ts'
import { PacketMemory } from '../../lib/dataplane/pinned-memory.ts'
import { Ikev2Dialler } from '../../lib/ikev2/dialler.ts'
import type { IkeSaEvent } from '../../lib/ikev2/event.ts'
import type { IkeConnection, IkeSettings } from '../../lib/ikev2/ike-connection.ts'
import { defaultHalfOpenLimits, Ikev2Listener } from '../../lib/ikev2/listener.ts'
import { defaultFeatures } from '../../lib/ikev2/options.ts'
import { defaultTcpLimits, type TcpLimits, TcpListener } from '../../lib/ikev2/tcp-listener.ts'
import { frameMessage, STREAM_PREFIX } from '../../lib/ikev2/wire/tcp-stream.ts'
import { type EspOwner, EspReceiver } from '../../lib/ipsec/esp-receiver.ts'
import { IkeSockets } from '../../lib/ipsec/ike-sockets.ts'
import { SaDatabase } from '../../lib/ipsec/sa-database.ts'
import { DatagramLink, LinkPlane } from '../support/datagram-link.ts'
import { eventually } from '../support/eventually.ts'
import { optionsFor } from './pair.ts'

const here = '127.0.0.1'
const tunnelLimits = { mtuBytes: 1400, rekeyBytes: Number.POSITIVE_INFINITY }

function settingsOf(role: 'initiator' | 'responder'): IkeSettings {
  return { ...optionsFor(role), features: defaultFeatures }
}

/** One host whose UDP goes nowhere. */
function host(t: Test, seed: number, limits: TcpLimits = defaultTcpLimits) {
  const memory = new PacketMemory({ sizeBytes: 1024 * 1024 })
  const intakeAt = memory.allocate(70_000)
  const database = new SaDatabase<EspOwner>()
  const clock = new ManualClock(1000)
  const wheel = new TimerWheel(clock.nowMs())
  const plane = new TcpListener({
    plane: new LinkPlane(new DatagramLink(), memory),
    dataplane: { memory, intake: () => intakeAt, flush: () => {} },
    limits,
  })
  const sockets = new IkeSockets({
    ...{ plane, memory, esp: new EspReceiver(memory, database), hosts: [here] },
    ...{ takesPlainEsp: false, onLost: () => {} },
  })
  sockets.open()
  t.teardown(() => plane.close())
  const delivered: string[] = []
  const hear = ({ tunnel }: IkeConnection) =>
    tunnel.connect({
      deliver: (at, lengthBytes) => delivered.push(toHex(memory.bytes.slice(at, at + lengthBytes))),
    })
  const send = ({ tunnel }: IkeConnection, packet: Uint8Array) => {
    const at = tunnel.reserve(packet.length)
    memory.bytes.set(packet, at)
    tunnel.commit(at, packet.length)
    tunnel.flush()
  }
  const random = new SeededRandom(seed)
  const services = { sockets, sender: plane, memory, database, clock, wheel, random }
  return { plane, services, delivered, hear, send }
}

async function setUp(t: Test, limits?: TcpLimits) {
  const [server, client] = [host(t, 1, limits), host(t, 2)]
  const calls: IkeConnection[] = []
  const listener = new Ikev2Listener({
    ...server.services,
    halfOpen: { ...defaultHalfOpenLimits, cookieThreshold: 0 },
    calls: {
      accept: () => {
        let connection: IkeConnection | undefined
        return {
          ...{ settings: settingsOf('responder'), limits: tunnelLimits },
          connect: made => {
            connection = made
            calls.push(made)
            server.hear(made)
          },
          event: event => {
            if (event.type !== 'need-grant') return
            const { ticket, proposedLocalSelectors, proposedRemoteSelectors } = event
            const grant = {
              localSelectors: proposedLocalSelectors,
              remoteSelectors: proposedRemoteSelectors,
            }
            connection?.handle({
              ...{ type: 'grant-verdict', ticket, verdict: { type: 'grant', grant } },
            })
          },
        }
      },
    },
  })
  await server.plane.listen([here], 0)
  const port = server.plane.addresses[0]?.port ?? 0
  const dialler = new Ikev2Dialler(client.services)
  const dial = async (to = port) => {
    const peer = await client.plane.connect({ address: here, port: to })
    const events: IkeSaEvent[] = []
    const owner = { event: (event: IkeSaEvent) => void events.push(event) }
    const made = dialler.dial(here, peer, settingsOf('initiator'), tunnelLimits, owner)
    if (made === undefined) throw new Error('no route')
    client.hear(made)
    made.handle({ type: 'start' })
    await until(() => events.some(({ type }) => type === 'established'))
    return { connection: made, events, peer }
  }
  return { server, client, listener, calls, port, dial }
}

const until = (holds: () => boolean) => eventually(holds, () => 'it does not')

function packetOf(fill: number, lengthBytes = 100): Uint8Array {
  const packet = new Uint8Array(lengthBytes).fill(fill)
  packet.set([0x45, 0, lengthBytes >>> 8, lengthBytes & 255])
  packet[9] = 17
  packet.set([10, 0, 0, 1, 10, 0, 0, 2], 12)
  return packet
}

t.test('a call over TCP: cookies, keys, packets both ways, rekeying, and its end', async t => {
  const { server, client, listener, calls, port, dial } = await setUp(t)
  const { connection, events, peer } = await dial()
  const [call] = calls
  if (call === undefined) throw new Error('no call')
  t.same(peer, { address: here, port, isTcp: true })
  t.equal(listener.status().counters['cookies-asked'], 1)
  t.match(call.path.peer, { address: here, isTcp: true }, 'the way back is the connection')
  t.ok(call.path.peer.port < 65_536, 'under its own port')
  t.same(call.path.local, { address: here, port, isTcp: true })
  for (let i = 0; i < 50; i++) client.send(connection, packetOf(i, 100 + 20 * i))
  await until(() => server.delivered.length === 50)
  t.same(
    server.delivered,
    Array.from({ length: 50 }, (_, i) => toHex(packetOf(i, 100 + 20 * i))),
  )
  server.send(call, packetOf(7))
  await until(() => client.delivered.length === 1)
  t.same(client.delivered, [toHex(packetOf(7))])
  connection.handle({ type: 'rekey-ike' })
  await until(() => events.some(({ type }) => type === 'ike-rekeyed'))
  client.send(connection, packetOf(8))
  await until(() => server.delivered.length === 51)
  connection.handle({ type: 'close', cause: 'user-request', detail: 'test' })
  await until(() => listener.status().established === 0)
  t.equal(server.plane.size, 1)
  await client.plane.close()
  await until(() => server.plane.size === 0)
})

/** A middlebox that passes streams on until it forgets them. */
async function middlebox(t: Test, port: number) {
  const sockets = new Set<Socket>()
  const forget = () => {
    for (const socket of sockets) socket.destroy()
    sockets.clear()
  }
  const server = createServer(near => {
    const far = connect(port, here)
    for (const socket of [near, far]) {
      sockets.add(socket)
      socket.on('error', () => undefined)
    }
    near.pipe(far)
    far.pipe(near)
  })
  await new Promise<void>(resolve => server.listen(0, here, resolve))
  t.teardown(() => {
    forget()
    server.close()
  })
  const bound = server.address()
  return { forget, port: typeof bound === 'object' && bound !== null ? bound.port : 0 }
}

t.test('an IKE SA outlives its connection and goes on over the next', async t => {
  const { server, client, calls, dial, port } = await setUp(t)
  const box = await middlebox(t, port)
  const { connection } = await dial(box.port)
  const [call] = calls
  if (call === undefined) throw new Error('no call')
  box.forget()
  await until(() => server.plane.size === 0 && client.plane.size === 0)
  server.send(call, packetOf(1))
  t.equal(server.plane.counters.get('tcp-not-writable'), 1, 'counted while there is none')
  const before = call.path.peer.port
  connection.handle({ type: 'check-liveness' })
  await until(() => call.path.peer.port !== before)
  t.equal(client.plane.counters.get('tcp-reopened'), 1, 'by who opened the first')
  client.send(connection, packetOf(2))
  await until(() => server.delivered.length === 1)
  server.send(call, packetOf(3))
  await until(() => client.delivered.length === 1)
  t.same(client.delivered, [toHex(packetOf(3))])
  t.equal(server.plane.size, 1)
})

t.test(
  'what is not for it is dropped and counted: IKEv1, and what a slow reader leaves',
  async t => {
    const { server, port, client, calls, dial } = await setUp(t, {
      ...defaultTcpLimits,
      queueBytes: 2000,
    })
    const header = new Uint8Array(28)
    header[17] = 0x10
    const stranger = connect(port, here)
    t.teardown(() => stranger.destroy())
    stranger.write(concatBytes(STREAM_PREFIX, frameMessage({ type: 'ike', bytes: header })))
    await until(() => server.plane.counters.get('tcp-other-version') === 1)
    const { connection } = await dial()
    const [call] = calls
    if (call === undefined) throw new Error('no call')
    // More than the kernel takes of a reader that has no turn.
    const isFull = () => server.plane.counters.get('tcp-queue-full') > 0
    for (let i = 0; i < 100_000 && !isFull(); i++) server.send(call, packetOf(i, 1400))
    t.ok(isFull())
    await until(() => client.delivered.length > 0)
    client.send(connection, packetOf(9))
    await until(() => server.delivered.length === 1)
  },
)

t.test('strangers are bounded: garbage, silence, and too many of one source', async t => {
  const limits = { ...defaultTcpLimits, perSource: 3, firstMessageMs: 500 }
  const { server, port } = await setUp(t, limits)
  const open = (bytes: Uint8Array) => {
    const socket = connect(port, here)
    socket.on('error', () => undefined)
    socket.write(bytes)
    t.teardown(() => socket.destroy())
    return new Promise<void>(resolve => socket.once('close', () => resolve()))
  }
  await open(Uint8Array.of(0x47, 0x45, 0x54))
  t.equal(server.plane.counters.get('tcp-malformed-bad-magic'), 1)
  await open(concatBytes(STREAM_PREFIX, Uint8Array.of(0, 1, 0)))
  t.equal(server.plane.counters.get('tcp-malformed-length-too-small'), 1)
  await Promise.all(Array.from({ length: 5 }, () => open(STREAM_PREFIX)))
  t.equal(server.plane.counters.get('tcp-refused-source'), 2)
  t.equal(server.plane.counters.get('tcp-idle'), 3, 'who says nothing is not waited for')
  await until(() => server.plane.size === 0)
  await t.rejects(server.plane.listen([here], port), BindError)
})
