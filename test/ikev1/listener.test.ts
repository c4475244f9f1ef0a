/** The listener with its peers and their ESP, over a link without a kernel. */
import t from 'tap'
import { putU16 } from '../../lib/core/bytes.ts'
import type { DisconnectCause } from '../../lib/core/disconnect-cause.ts'
import type { Ikev1Listener, Ikev1Status } from '../../lib/ikev1/listener.ts'
import type { SecuredPeer } from '../../lib/ikev1/secured-peer.ts'
import { type HostOptions, SecuredHost, World } from '../support/secured-hosts.ts'

/** Without the counters. */
function standing(listener: Ikev1Listener): Omit<Ikev1Status, 'counters'> {
  const { established, halfOpen, peers } = listener.status()
  return { established, halfOpen, peers }
}

/** UDP from and to port 1701 with these bytes in it. */
function udp(...content: number[]): Uint8Array {
  const packet = new Uint8Array(8 + content.length)
  putU16(packet, 0, 1701)
  putU16(packet, 2, 1701)
  putU16(packet, 4, packet.length)
  packet.set(content, 8)
  return packet
}

/** A host that notes what its peers send, and how they end. */
function hear(world: World, address: string, options: HostOptions) {
  const received: string[] = []
  const ends: DisconnectCause[] = []
  const host: SecuredHost = new SecuredHost(world, address, {
    open: (peer: SecuredPeer) => ({
      receive: (at, lengthBytes) => {
        const bytes = host.memory.bytes.slice(at + 8, at + lengthBytes)
        received.push(`${peer.key}: ${[...bytes].join(' ')}`)
      },
      closed: cause => ends.push(cause),
    }),
    ...options,
  })
  return { host, received, ends }
}

function setUp(more: Partial<HostOptions> = {}) {
  const world = new World()
  const server = hear(world, '192.0.2.1', { seed: 1, ...more })
  const client = hear(world, '10.0.0.2', { seed: 2, ...more })
  return { world, server, client }
}

function peerOf({ peers }: SecuredHost): SecuredPeer {
  const peer = peers.at(-1)
  if (peer === undefined) throw new Error('no peer')
  return peer
}

t.test('a dialled peer has ESP both ways, and what comes out is the packet', async t => {
  const { world, server, client } = setUp()
  client.host.dial()
  world.link.deliver()
  t.same(standing(server.host.listener), { established: 1, halfOpen: 0, peers: 1 })
  t.ok(client.host.send(peerOf(client.host), udp(1, 2, 3)))
  world.link.deliver()
  t.same(server.received, ['peer-1: 1 2 3'])
  t.ok(server.host.send(peerOf(server.host), udp(4)))
  world.link.deliver()
  t.same(client.received, ['peer-1: 4'])
})

t.test('two clients behind one NAT are two peers', async t => {
  const { world, server, client } = setUp()
  const other = hear(world, '10.0.0.3', { seed: 3 })
  client.host.dial()
  other.host.dial()
  world.link.deliver()
  t.equal(server.host.listener.status().peers, 2)
  client.host.send(peerOf(client.host), udp(1))
  other.host.send(peerOf(other.host), udp(2))
  world.link.deliver()
  t.same(server.received, ['peer-1: 1', 'peer-2: 2'])
  for (const [i, peer] of server.host.peers.entries()) server.host.send(peer, udp(i))
  world.link.deliver()
  t.same([client.received, other.received], [['peer-1: 0'], ['peer-1: 1']])
})

t.test('a wrong key makes no peer, and is forgotten', async t => {
  const world = new World()
  const server = hear(world, '192.0.2.1', { seed: 1 })
  const client = hear(world, '10.0.0.2', { seed: 2, key: 'another key' })
  client.host.dial()
  world.link.deliver()
  t.equal(server.host.peers.length, 0)
  t.equal(server.host.listener.status().halfOpen, 1)
  world.elapse(60_000)
  t.match(server.host.listener.status(), { established: 0, halfOpen: 0 })
  t.equal(server.host.database.size, 0)
})

t.test('pairs and ISAKMP SAs are replaced in time, and nothing is lost or left', async t => {
  const { world, server, client } = setUp({
    policy: { phase1LifetimeSeconds: 300, phase2LifetimeSeconds: 100 },
  })
  client.host.dial()
  world.link.deliver()
  for (let sent = 0; sent < 900; sent++) {
    client.host.send(peerOf(client.host), udp(sent & 0xff))
    server.host.send(peerOf(server.host), udp(sent & 0xff))
    world.link.deliver()
    world.elapse(1000)
  }
  t.equal(server.received.length, 900)
  t.equal(client.received.length, 900)
  t.ok(server.host.count('child-up') > 6, `${server.host.count('child-up')} pairs`)
  t.ok(server.host.count('phase1-up') > 2, `${server.host.count('phase1-up')} ISAKMP SAs`)
  t.equal(server.host.peers.length, 1, 'it is the same peer all the time')
  t.same(server.ends, [])
  t.match(server.host.listener.status(), { peers: 1, established: 1 })
  t.ok(server.host.database.size <= 2, `${server.host.database.size} inbound SAs`)
})

t.test('a NAT that changes ports is followed by ESP', async t => {
  const { world, server, client } = setUp()
  client.host.dial()
  world.link.deliver()
  const before = peerOf(server.host).label
  world.rebind()
  world.elapse(2000)
  client.host.send(peerOf(client.host), udp(7))
  world.link.deliver()
  t.not(peerOf(server.host).label, before)
  server.host.send(peerOf(server.host), udp(8))
  world.link.deliver()
  t.same(client.received, ['peer-1: 8'])
})

t.test('a peer that is gone is found out, and what ran over it is told', async t => {
  const { world, server, client } = setUp()
  client.host.dial()
  world.link.deliver()
  world.link.onWay = () => undefined
  world.elapse(120_000)
  t.same(server.ends, ['lost-carrier'])
  t.same(client.ends, ['lost-carrier'])
  t.match(server.host.listener.status(), { peers: 0, established: 0 })
  t.equal(server.host.database.size, 0)
  t.equal(world.wheel.size, 0, 'no timer is left')
})

t.test('a client that starts anew replaces what it was', async t => {
  const { world, server, client } = setUp({ sendsInitialContact: true })
  client.host.dial()
  world.link.deliver()
  client.host.dial()
  world.link.deliver()
  t.same(server.ends, ['replaced'])
  t.match(server.host.listener.status(), { peers: 1, established: 1 })
})

t.test('a stop tells the peers', async t => {
  const { world, server, client } = setUp()
  client.host.dial()
  world.link.deliver()
  const stopped = server.host.listener.stop()
  world.link.deliver()
  await stopped
  t.same(client.ends, ['user-request'])
  t.same(server.ends.length, 1)
  client.host.dial()
  world.link.deliver()
  t.equal(server.host.listener.status().established, 0, 'and nobody comes in any more')
})

t.test('a flood of first messages is bounded by address', async t => {
  const { world, server } = setUp()
  for (let i = 0; i < 40; i++) {
    hear(world, `10.0.1.${i}`, { seed: 100 + i, key: 'another key' }).host.dial()
  }
  world.link.deliver()
  const { halfOpen, counters } = server.host.listener.status()
  t.equal(halfOpen, 20)
  t.ok((counters['ikev1-too-many-half-open-of-address'] ?? 0) >= 20)
})
