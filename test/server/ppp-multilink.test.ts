/** Multilink through the whole server: calls of one user, over any tunnel, become one port of the dataplane. */
import { createHash, X509Certificate } from 'node:crypto'
import t, { type Test } from 'tap'
import type { SessionLimits } from '../../lib/aaa/session-registry.ts'
import { parseConfig } from '../../lib/config.ts'
import { concatBytes, toHex } from '../../lib/core/bytes.ts'
import { formatIpv4 } from '../../lib/core/ip-address.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { Secret } from '../../lib/core/secret.ts'
import { createMemoryDataplane, StackSlotPool } from '../../lib/dataplane/index.ts'
import { SocketAddress } from '../../lib/dataplane/socket-address.ts'
import { L2tpListener } from '../../lib/l2tp/index.ts'
import { PlainPath } from '../../lib/l2tp/plain-path.ts'
import type { LinkFactory } from '../../lib/ppp/carrier.ts'
import { BundleTable } from '../../lib/ppp/multilink/bundle-table.ts'
import type { LoadSettings } from '../../lib/ppp/multilink/load-watch.ts'
import type { CompressionSettings } from '../../lib/ppp/settings.ts'
import { PptpDialler, PptpListener } from '../../lib/pptp/index.ts'
import { makeBundles } from '../../lib/server/bundles.ts'
import { PppCalls } from '../../lib/server/ppp-call.ts'
import { PppDial } from '../../lib/server/ppp-dial.ts'
import type { PppNetwork } from '../../lib/server/ppp-network.ts'
import { SstpDialler } from '../../lib/sstp/index.ts'
import { udp } from '../dataplane/packets.ts'
import { FakePacketSocket, join } from '../pptp/packet-socket.ts'
import { DatagramNetwork } from '../support/datagram-network.ts'
import { DialIn, firstCertificate, secretWord } from '../support/dial-in.ts'

const encrypted: CompressionSettings = {
  encryption: 'required',
  strengths: [128],
  allowsStateful: false,
  prefersStateful: false,
  hasMppc: false,
}

type Tunnel = 'pptp' | 'sstp' | 'l2tp'

/** L2TP between `server` and one client, over a network that delivers every 10 ms. */
function l2tpBetween(server: DialIn, client: ReturnType<typeof createMemoryDataplane>) {
  const { clock, wheel, dataplane } = server
  const network = new DatagramNetwork()
  const endOf = (address: string, plane: typeof dataplane, seed: number, links: LinkFactory) => {
    const { memory } = plane
    const sockets = network.host([address], memory, () => plane.flush())
    const listener = new L2tpListener({
      ...{ memory, clock, wheel, links, random: new SeededRandom(seed) },
      settings: { hostName: address },
      event: () => {},
    })
    listener.openPlain(sockets, [address])
    return { listener, sockets }
  }
  const answering = endOf('192.0.2.1', dataplane, 7, new PppCalls(server.services))
  const refusing = { open: () => undefined }
  const dialling = endOf('198.51.100.2', client.dataplane, 8, refusing)
  const courier = {
    onDeadline: (nowMs: number) => {
      network.settle()
      wheel.schedule(courier, nowMs + 10)
    },
  }
  courier.onDeadline(clock.nowMs())
  const dial = (links: LinkFactory) => {
    const [port] = dialling.sockets.ports
    if (port === undefined) throw new TypeError('no port')
    const peer = SocketAddress.of('192.0.2.1', 1701)
    const path = new PlainPath(dialling.sockets, { port, peer, local: port.bound })
    dialling.listener.dial(path, links)
  }
  const stop = () => Promise.all([dialling.listener.stop(), answering.listener.stop()])
  return { dial, stop, status: () => answering.listener.status() }
}

/** A server with PPTP, SSTP and L2TP, and a client of ours that dials it as often as it likes. */
async function setUp(
  t: Test,
  compression?: CompressionSettings,
  linksPerBundle = 3,
  limits: Partial<SessionLimits> = {},
  bandwidth?: LoadSettings,
) {
  const server = new DialIn({ ipv4: '10.87.0.10-10.87.0.20', hasIpv6: false, limits })
  const { clock, wheel, dataplane } = server
  const bundlesOf = (plane: typeof dataplane, seed: number) =>
    new BundleTable<PppNetwork>({
      ...{ dataplane: plane, clock, wheel, linksPerBundle, mrruBytes: 1600 },
      slots: new StackSlotPool(plane.memory, 2048, 64),
      random: new SeededRandom(seed),
      ...(bandwidth !== undefined && { bandwidth }),
    })
  const bundles = bundlesOf(dataplane, 1)
  const socket = new FakePacketSocket(dataplane.memory)
  // The calls of both listeners see the same.
  Object.assign(server.services, {
    bundles,
    settings: { ...server.services.settings, ...(compression !== undefined && { compression }) },
  })
  await server.listener.start()
  const listener = new PptpListener({
    addresses: [{ host: '127.0.0.1', port: 0 }],
    hostName: 'openras',
    links: new PppCalls(server.services),
    ...{ dataplane, socket, clock, wheel },
    random: new SeededRandom(2),
    log: server.log,
  })
  await listener.start()
  const port = listener.status().addresses[0]?.port ?? 0
  const other = createMemoryDataplane({ mtuBytes: 1400, clock })
  other.dataplane.start()
  const otherSocket = new FakePacketSocket(other.dataplane.memory)
  join(socket, otherSocket)
  const l2tp = l2tpBetween(server, other)
  let fragmentCount = 0
  // behind a GRE header of 12 or of 16 bytes
  const isFragment = ({ bytes }: { bytes: Uint8Array }) =>
    /^.{24}(.{8})?ff03003d/.test(toHex(bytes))
  for (const one of [socket, otherSocket]) {
    const { onSent } = one
    one.onSent = () => {
      fragmentCount += one.sent.filter(isFragment).length
      onSent()
    }
  }
  const services = {
    ...{ dataplane: other.dataplane, clock, wheel, random: new SeededRandom(3) },
    bundles: bundlesOf(other.dataplane, 4),
  }
  const dialler = new PptpDialler({ ...services, socket: otherSocket })
  const { raw } = new X509Certificate(firstCertificate.cert)
  const sha256 = Uint8Array.from(createHash('sha256').update(raw).digest())
  const sstpDialler = new SstpDialler({ ...services, log: server.log })
  const dial = async (
    userName = 'alice',
    tunnel: Tunnel = 'pptp',
    addLink?: () => Promise<void>,
  ) => {
    const call = new PppDial(
      {
        userName,
        password: Secret.fromText(secretWord),
        authentication: ['mschapv2'],
        mruBytes: 1400,
        wantsIpv6: false,
        ...(compression !== undefined && { compression }),
        ...(addLink !== undefined && { addLink }),
      },
      services,
    )
    const target = { host: '127.0.0.1', links: call }
    if (tunnel === 'pptp') await dialler.dial({ ...target, port })
    else if (tunnel === 'l2tp') l2tp.dial(call)
    else {
      const proof = { type: 'pinned', sha256 } as const
      await sstpDialler.dial({ ...target, port: server.port, proof })
    }
    return call
  }
  t.teardown(async () => {
    server.sessions.drain()
    server.sessions.disconnectAll('nas-reboot')
    const stopped = Promise.all([listener.stop(), server.listener.stop(), l2tp.stop()])
    const connections = () =>
      listener.status().connections + server.listener.status().connections + l2tp.status().tunnels
    for (let i = 0; i < 60 && connections() > 0; i++) await server.elapse(500)
    await stopped
    dialler.close()
    other.dataplane.stop()
    dataplane.stop()
    if (!socket.isWhole || !otherSocket.isWhole) throw new Error('a slot was not given back')
    if (server.sessions.size + server.ipv4Pool.leasedCount > 0) throw new Error('something is left')
  })
  /** GRE may overtake the control connection: LCP's restart timer has to run. */
  const meanwhile = async <T>(promise: Promise<T>): Promise<T> => {
    let isOver = false
    const end = () => {
      isOver = true
    }
    promise.then(end, end)
    for (let i = 0; i < 120 && !isOver; i++) await server.elapse(500, 100)
    return promise
  }
  return { server, bundles, dial, client: other, fragments: () => fragmentCount, meanwhile }
}

const ids = (packets: readonly Uint8Array[]) => packets.map(packet => toHex(packet.slice(28, 30)))

for (const [name, compression] of [
  ['in clear', undefined],
  ['with MPPE-128 over the bundle', encrypted],
] as const) {
  t.test(`two calls of a user are one port and one address, ${name}`, async t => {
    const { server, bundles, dial, client, fragments, meanwhile } = await setUp(t, compression)
    const first = await dial()
    const up = await meanwhile(first.up)
    const second = await dial()
    await meanwhile(second.joined)
    await server.until(() => server.sessions.list()[0]?.bundle?.links.length === 2)
    t.equal(server.sessions.upCount, 1, 'one session')
    t.equal(server.ipv4Pool.leasedCount, 1)
    t.equal(bundles.size, 1)
    const [address, host] = [formatIpv4(up.localAddress), '10.1.2.3']
    const payload = (i: number) => concatBytes(Uint8Array.of(i >>> 8, i), new Uint8Array(1200))
    const towardsHost = Array.from({ length: 20 }, (_, i) =>
      udp({ source: address, destination: host, payload: payload(i) }),
    )
    for (const packet of towardsHost) {
      client.memoryDevice.fromHost(packet)
      await server.elapse(20, 10)
    }
    await server.until(() => server.host.toHost.length >= 20)
    t.same(ids(server.host.toHost), ids(towardsHost), 'up, in order')
    for (let i = 0; i < 20; i++) {
      server.host.fromHost(udp({ source: host, destination: address, payload: payload(i) }))
      await server.elapse(20, 10)
    }
    await server.until(() => client.memoryDevice.toHost.length >= 20)
    t.same(ids(client.memoryDevice.toHost), ids(towardsHost), 'down')
    t.ok(fragments() >= 40, 'as fragments')
    second.hangUp()
    await meanwhile(second.closed)
    await server.until(() => server.sessions.size === 1)
    t.equal(server.ipv4Pool.leasedCount, 1, 'the bundle goes on')
    first.hangUp()
    await meanwhile(first.closed)
    await server.until(() => server.sessions.size === 0)
    t.equal(bundles.size, 0)
  })
}

const uplinkPackets = (address: string, count: number) =>
  Array.from({ length: count }, (_, i) =>
    udp({
      source: address,
      destination: '10.1.2.3',
      payload: concatBytes(Uint8Array.of(i >>> 8, i), new Uint8Array(1200)),
    }),
  )

for (const [firstTunnel, secondTunnel] of [
  ['sstp', 'pptp'],
  ['pptp', 'sstp'],
] as const) {
  t.test(`links join across tunnels: ${firstTunnel} leads, ${secondTunnel} follows`, async t => {
    const { server, dial, client, fragments, meanwhile } = await setUp(t, undefined, 3, {
      sessionsPerUser: 1,
    })
    const first = await dial('alice', firstTunnel)
    const up = await meanwhile(first.up)
    const second = await dial('alice', secondTunnel)
    await meanwhile(second.joined)
    await server.until(() => server.sessions.list()[0]?.bundle?.links.length === 2)
    const [status, ...others] = server.sessions.list()
    t.same(others, [], 'one session, although the user may have no second one')
    t.same(
      status?.bundle?.links.map(({ protocol }) => protocol),
      [firstTunnel, secondTunnel],
    )
    t.equal(server.ipv4Pool.leasedCount, 1)
    t.equal(server.sessions.countOf('alice'), 1)
    const packets = uplinkPackets(formatIpv4(up.localAddress), 20)
    for (const packet of packets) {
      client.memoryDevice.fromHost(packet)
      await server.elapse(20, 10)
    }
    await server.until(() => server.host.toHost.length >= 20)
    t.same(ids(server.host.toHost), ids(packets), 'all, in order')
    t.ok(fragments() >= 5, 'some of them over PPTP')
    t.equal(server.sessions.list()[0]?.receivedPackets, 20, 'counted once')
    const link = status?.bundle?.links[1]?.number ?? 0
    t.equal(server.sessions.disconnect(String(link)), 1, 'a link alone can be ended')
    await meanwhile(second.closed)
    await server.until(() => server.sessions.size === 1)
    t.equal(server.sessions.list()[0]?.bundle?.linkCount, 2, 'links that there have been')
    const third = await dial('alice', secondTunnel)
    await meanwhile(third.joined)
    await server.until(() => server.of('link-joined').length === 2)
    t.equal(server.sessions.disconnect('alice'), 1, 'the session ends as one')
    await meanwhile(Promise.all([first.closed, third.closed]))
    await server.until(() => server.sessions.size === 0)
    t.same(server.causes(), ['admin-reset'], 'one line for all of it')
    t.equal(server.of('link-left').length, 2)
  })
}

t.test(
  'L2TP links are one bundle, alone and with others, and any of them may be the last',
  async t => {
    for (const tunnels of [
      ['l2tp', 'l2tp'],
      ['sstp', 'l2tp', 'pptp'],
      ['l2tp', 'pptp', 'sstp'],
    ] as const) {
      const { server, bundles, dial, client, meanwhile } = await setUp(t)
      const calls: PppDial[] = []
      for (const tunnel of tunnels) {
        const call = await dial('alice', tunnel)
        calls.push(call)
        await meanwhile<unknown>(calls.length === 1 ? call.up : call.joined)
        const count = calls.length
        await server.until(() => server.sessions.list()[0]?.bundle?.links.length === count)
      }
      const [first] = calls
      const { localAddress } = (await first?.up) ?? { localAddress: 0 }
      const own = formatIpv4(localAddress)
      t.same(
        server.sessions.list()[0]?.bundle?.links.map(({ protocol }) => protocol),
        [...tunnels],
      )
      for (const [gone, call] of calls.entries()) {
        const title = `${tunnels.slice(gone).join(' and ')} of ${tunnels.join(', ')}`
        const sent = uplinkPackets(own, 12)
        server.host.toHost.length = 0
        client.memoryDevice.toHost.length = 0
        for (const packet of sent) {
          client.memoryDevice.fromHost(packet)
          server.host.fromHost(
            udp({ source: '10.1.2.3', destination: own, payload: packet.slice(28) }),
          )
          await server.elapse(40, 10)
        }
        await server.until(() => server.host.toHost.length >= sent.length)
        await server.until(() => client.memoryDevice.toHost.length >= sent.length)
        t.same(ids(server.host.toHost), ids(sent), `up: ${title}`)
        t.same(ids(client.memoryDevice.toHost), ids(sent), `down: ${title}`)
        t.equal(server.ipv4Pool.leasedCount, 1)
        call.hangUp()
        await meanwhile(call.closed)
        await server.until(() => server.sessions.size === tunnels.length - 1 - gone)
      }
      t.equal(bundles.size, 0)
      t.same(server.causes(), ['user-request'], 'one line for all of it')
      const [down] = server.of('session-down')
      t.match(down, { receivedPackets: 12 * tunnels.length, sentPackets: 12 * tunnels.length })
    }
  },
)

t.test('what must be encrypted by PPP joins no session that is not', async t => {
  const { server, bundles, dial, meanwhile } = await setUp(t, encrypted)
  await meanwhile((await dial('alice', 'sstp')).up)
  const second = await dial('alice', 'pptp')
  await meanwhile(second.closed)
  t.equal(bundles.counters.get('multilink-not-encrypted'), 1)
  t.equal(server.sessions.upCount, 1)
  t.equal(server.sessions.countOf('alice'), 1)
})

t.test('a session is idle when no link carries anything, however many there are', async t => {
  const { server, dial, meanwhile } = await setUp(t, undefined, 3, { idleTimeoutMs: 60_000 })
  const first = await dial()
  await meanwhile(first.up)
  const second = await dial('alice', 'sstp')
  await meanwhile(second.joined)
  await meanwhile(Promise.all([first.closed, second.closed]))
  t.same(server.causes(), ['idle-timeout'])
})

const load: LoadSettings = {
  linkKilobitsPerSecond: 100,
  addAbovePercent: 75,
  addAfterMs: 10_000,
  dropBelowPercent: 30,
  dropAfterMs: 20_000,
}

t.test(
  'with BAP a client that is told to add a link does, and drops it when it is idle',
  async t => {
    const { server, dial, client, meanwhile } = await setUp(t, undefined, 2, {}, load)
    const added: PppDial[] = []
    const addLink = async () => {
      const call = await dial('alice', 'sstp')
      added.push(call)
      await call.joined
    }
    const first = await dial('alice', 'pptp', addLink)
    const up = await meanwhile(first.up)
    const packets = uplinkPackets(formatIpv4(up.localAddress), 400)
    const links = () => server.sessions.list()[0]?.bundle?.links.length ?? 0
    for (const packet of packets) {
      if (links() === 2) break
      // 1230 bytes each 80 ms: 123 kbit/s
      client.memoryDevice.fromHost(packet)
      await server.elapse(80, 40)
    }
    t.equal(links(), 2, 'the client asked, the server agreed, the call joined')
    t.equal(added.length, 1)
    t.equal(server.of('link-joined').length, 1)
    for (const { closed } of added) await meanwhile(closed)
    await server.until(() => server.of('link-left').length === 1)
    t.ok(['port-unneeded', 'user-request'].includes(server.of('link-left')[0]?.cause ?? ''))
    t.equal(server.sessions.upCount, 1, 'the session goes on')
    t.equal(server.ipv4Pool.leasedCount, 1)
  },
)

t.test('a busy client that cannot dial is asked to, refuses, and keeps its one link', async t => {
  const { server, dial, bundles, meanwhile } = await setUp(t, undefined, 2, {}, load)
  t.match(bundles.bandwidth({ maxLinks: 1 }), { mostLinks: 1, addAbovePercent: 75 })
  const settings = { mrruBytes: 1600, endpoint: bundles.settings.endpoint, wantsShort: false }
  t.match(bundles.linkSettings(), { ...settings, discriminator: 1 })
  t.match(bundles.linkSettings(), { ...settings, discriminator: 2 })
  const call = await dial()
  const { localAddress } = await meanwhile(call.up)
  const destination = formatIpv4(localAddress)
  for (let i = 0; i < 300; i++) {
    server.host.fromHost(udp({ source: '10.1.2.3', destination, payload: new Uint8Array(1200) }))
    await server.elapse(80, 80)
  }
  t.equal(server.sessions.list()[0]?.bundle?.links.length, 1)
  call.hangUp()
  await meanwhile(call.closed)
  await server.until(() => server.of('ppp-closed').length === 1)
  t.match(server.of('ppp-closed')[0]?.dropped, { 'bacp-opened': 1 })
  t.notOk(server.of('ppp-closed')[0]?.dropped?.['bap-unanswered'])
})

t.test(
  'one table serves all tunnels of a server, and without multilink nothing is set up',
  async t => {
    const server = new DialIn({ ipv4: '10.87.0.10-10.87.0.20', hasIpv6: false })
    const bundlesOf = (text: string) => makeBundles(parseConfig(text, 'x'), server.services)
    t.equal(bundlesOf(''), undefined)
    const plain = bundlesOf('ppp: {multilink: {enabled: true, bap: false}}')
    t.match(plain?.settings, { mrruBytes: 1600, wantsShort: false })
    t.equal(plain?.bandwidth(), undefined)
    const large = bundlesOf(
      'ppp: {multilink: {enabled: true, linksPerBundle: 4}}\ntun: {mtu: 3000}',
    )
    t.equal(large?.settings.mrruBytes, 3064)
    t.match(large?.bandwidth(), { mostLinks: 4, dropBelowPercent: 50, dropAfterMs: 120_000 })
    const linkLoad = { usesBap: true, dropBelowPercent: 90, dropAfterSeconds: 30 }
    const own = { mostLinks: 2, addAbovePercent: 75, dropBelowPercent: 74, dropAfterMs: 30_000 }
    t.match(large?.bandwidth({ maxLinks: 2, linkLoad }), own, 'as the user is given it')
    t.equal(large?.bandwidth({ linkLoad: { usesBap: false } }), undefined)
  },
)

t.test('users never share a bundle, and a bundle takes no more links than it may have', async t => {
  const { server, bundles, dial, meanwhile } = await setUp(t, undefined, 1)
  await meanwhile((await dial('alice')).up)
  await meanwhile((await dial('bob')).up)
  t.equal(bundles.size, 2)
  t.equal(server.ipv4Pool.leasedCount, 2)
  const third = await dial('alice')
  await meanwhile(third.closed)
  t.equal(bundles.counters.get('multilink-too-many-links'), 1)
  t.equal(bundles.size, 2)
})

for (const [name, compression] of [
  ['in clear', undefined],
  ['with the keys of its proof', encrypted],
] as const) {
  t.test(`the first call of a bundle may go, and the session goes on, ${name}`, async t => {
    const { server, bundles, dial, client, meanwhile } = await setUp(t, compression, 3, {
      sessionsPerUser: 1,
    })
    const first = await dial()
    const { localAddress } = await meanwhile(first.up)
    const second = await dial()
    await meanwhile(second.joined)
    await server.until(() => server.sessions.list()[0]?.bundle?.links.length === 2)
    const [before] = server.sessions.list()
    const own = formatIpv4(localAddress)
    const flows = async (title: string) => {
      const [sent, answers] = [server.host.toHost.length, client.memoryDevice.toHost.length]
      for (const packet of uplinkPackets(own, 10)) {
        client.memoryDevice.fromHost(packet)
        server.host.fromHost(
          udp({ source: '10.1.2.3', destination: own, payload: new Uint8Array(1200) }),
        )
        await server.elapse(20, 10)
      }
      await server.until(() => server.host.toHost.length >= sent + 10)
      await server.until(() => client.memoryDevice.toHost.length >= answers + 10)
      t.pass(title)
    }
    await flows('over two links')
    t.equal(server.sessions.disconnect(`${before?.number}.1`), 1, 'the first link by its name')
    await meanwhile(first.closed)
    await server.until(() => server.sessions.size === 1)
    t.match(server.sessions.list(), [
      { id: before?.id, ipv4: own, state: 'up', bundle: { linkCount: 2, links: [{ number: 2 }] } },
    ])
    t.equal(server.of('link-left').length, 1)
    t.same(server.of('session-down'), [])
    await flows('over the one that is left')
    const third = await dial()
    await meanwhile(third.joined)
    await server.until(() => server.sessions.list()[0]?.bundle?.links.length === 2)
    await flows('over two again')
    t.equal(server.ipv4Pool.leasedCount, 1)
    second.hangUp()
    await meanwhile(second.closed)
    await flows('over the third')
    t.equal(server.sessions.disconnect('alice'), 1)
    await meanwhile(third.closed)
    await server.until(() => server.sessions.size === 0)
    t.equal(bundles.size, 0)
    t.equal(server.ipv4Pool.leasedCount, 0)
    t.match(server.of('session-down'), [{ cause: 'admin-reset', receivedPackets: 40 }])
    t.equal(server.sessions.countOf('alice'), 0)
  })
}
