/** Stock L2TP/IPsec clients against the server that answers them, over a network with a NAT. */
import t, { type Test } from 'tap'
import { toHex } from '../../lib/core/bytes.ts'
import { formatIpv4 } from '../../lib/core/ip-address.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { udp } from '../dataplane/packets.ts'
import { secretWord } from '../support/dial-in.ts'
import { IpsecServer, sharedKey } from '../support/ipsec-server.ts'
import { L2tpClient, type L2tpClientOptions } from './l2tp-client.ts'
import { type L2tpPersona, l2tpPersona, l2tpPersonas } from './l2tp-personas.ts'

// RSA keys are made, and the machine may be busy.
t.setTimeout(120_000)
const stateDirectory = `${t.testdir()}/state`

function setUp(t: Test, who: L2tpPersona) {
  const config = `l2tp: {preSharedKeys: [{key: ${sharedKey}}], legacyAlgorithms: ${who.needsLegacy}}`
  const server = new IpsecServer(t, { stateDirectory, config })
  let seed = 0
  const dial = (more: Partial<L2tpClientOptions> = {}) =>
    new L2tpClient(who, {
      ...{ server, userName: 'alice', password: secretWord, seed: ++seed },
      ...more,
    })
  const up = (client: L2tpClient) => client.up()
  return { server, dial, up }
}

const random = new SeededRandom(4)

/** Packets of several sizes both ways, compared byte by byte. */
async function exchange(t: Test, server: IpsecServer, client: L2tpClient): Promise<void> {
  const own = formatIpv4(client.ppp.address)
  const sizes = [28, 576, 1280]
  const make = (isUp: boolean) =>
    sizes.map(bytes => {
      const payload = new Uint8Array(bytes - 28)
      random.fill(payload)
      return udp({
        source: isUp ? own : '192.0.2.9',
        destination: isUp ? '192.0.2.9' : own,
        payload,
      })
    })
  const { toHost } = server.home.host
  toHost.length = 0
  const up = make(true)
  for (const packet of up) client.send(packet)
  await server.settle()
  t.same(toHost.map(toHex), up.map(toHex), 'what the client sent reached the host')
  const down = make(false)
  client.packets.length = 0
  await server.fromHost(...down)
  const arrived = client.packets.filter(packet => (packet[0] ?? 0) >>> 4 === 4)
  t.same(arrived.map(toHex), down.map(toHex), 'what the host sent reached the client')
}

for (const who of l2tpPersonas) {
  t.test(
    `${who.name}: connects, moves packets, rekeys both phases 20 times, follows its NAT, leaves`,
    async t => {
      const { server, dial, up } = setUp(t, who)
      const client = await up(dial())
      t.match(server.l2tp.status(), {
        tunnels: 1,
        sessions: 1,
        ikev1: { established: 1, peers: 1 },
      })
      t.match(formatIpv4(client.ppp.address), /^10\.87\.0\.\d+$/)
      await exchange(t, server, client)
      const [session] = server.home.sessions.list()

      for (let i = 1; i <= 20; i++) {
        await server.run(client.isakmp.phase2())
        await server.elapse(5000, 1000)
        if (i % 5 === 0) await exchange(t, server, client)
      }
      t.equal(client.isakmp.esp.inboundSpis.length, 1)
      for (let i = 1; i <= 20; i++) {
        await server.run(client.isakmp.phase1())
        if (i % 10 === 0) await exchange(t, server, client)
      }
      // Pairs of before and after hang on the newest ISAKMP SA.
      await server.run(client.isakmp.phase2())
      await exchange(t, server, client)
      t.match(server.l2tp.status(), { sessions: 1, ikev1: { established: 1, peers: 1 } })

      // The NAT forgets: ESP tells where the client is now.
      server.nat.rebind()
      await server.elapse(2000)
      await exchange(t, server, client)
      server.nat.rebind()
      client.isakmp.keepAlive()
      await server.elapse(2000)
      await exchange(t, server, client)

      if (who.speaksDpd) {
        client.isakmp.areYouThere()
        await server.settle()
        t.equal(client.isakmp.answered, 1)
      }
      // Ten quiet minutes: echoes of PPP go on, Hello and DPD are answered or not, and nothing ends.
      await server.elapse(600_000, 2000)
      await exchange(t, server, client)
      t.equal(server.home.sessions.list()[0]?.id, session?.id, 'one session all the time')
      t.equal(client.isakmp.repetitions, 0)

      await server.run(client.leave())
      await server.settle()
      t.equal(server.home.sessions.size, 0)
      t.equal(server.home.causes().length, 1)
      t.match(server.l2tp.status(), { sessions: 0, ikev1: { established: 0 } })
      // Pairs that nobody deletes live on without their ISAKMP SA (RFC 2408 §5.15), until their time.
      const restMs = who.leaves.includes('delete-esp') ? 40_000 : 1000 * who.phase2Seconds
      await server.elapse(restMs, 5000)
      t.match(server.l2tp.status(), { tunnels: 0, ikev1: { peers: 0 } })
      t.same(client.complaints, [])
    },
  )
}

t.test('Every persona repeats a message whose answer is lost, and gets the same', async t => {
  for (const who of l2tpPersonas) {
    const { server, dial, up } = setUp(t, who)
    const client = dial()
    const seen = new Set<string>()
    server.network.onPath = flight => {
      const passed = server.nat.pass(flight)
      const at = flight.from.port === 4500 ? 4 : 0
      const isIke = at === 0 || toHex(flight.bytes.slice(0, 4)) === '00000000'
      if (flight.from.address.startsWith('10.') || !isIke) return passed
      const id = toHex(flight.bytes)
      if (seen.has(id)) return passed
      seen.add(id)
      return undefined
    }
    await up(client)
    // Where the client is slow, the server repeats its second message of quick mode first.
    t.ok(client.isakmp.repetitions >= 3, `${who.name}: ${client.isakmp.repetitions} repetitions`)
    await exchange(t, server, client)
    server.network.onPath = flight => server.nat.pass(flight)
    await server.run(client.leave())
    await server.settle()
    t.same(client.complaints, [], who.name)
  }
})

t.test('Two Windows clients behind one NAT, with the same ports and tunnel IDs inside', async t => {
  const { server, dial, up } = setUp(t, l2tpPersona('Windows 10'))
  const first = await up(dial())
  const second = await up(dial({ address: '10.0.0.3', userName: 'bob' }))
  t.match(server.l2tp.status(), { tunnels: 2, sessions: 2, ikev1: { established: 2, peers: 2 } })
  for (const client of [first, second, first]) await exchange(t, server, client)
  await server.run(first.isakmp.phase2())
  for (const client of [second, first]) await exchange(t, server, client)
  await server.run(first.leave())
  await exchange(t, server, second)
  await server.run(second.leave())
  await server.settle()
  t.same([...first.complaints, ...second.complaints], [])
})

t.test('Android 11 never acknowledges a Hello: while packets come, it stays', async t => {
  const { server, dial, up } = setUp(t, l2tpPersona('Android 11'))
  const client = await up(dial())
  for (let i = 0; i < 30; i++) {
    await server.elapse(20_000, 2000)
    await exchange(t, server, client)
  }
  t.equal(server.home.sessions.size, 1)
  t.notOk(client.messages.includes('stopccn'))
  await server.run(client.leave())
  t.same(client.complaints, [])
})

t.test('A wrong preshared key, a wrong password, and MODP1024 where it is off', async t => {
  const { server, dial, up } = setUp(t, l2tpPersona('Windows 11'))
  const guess = dial({ key: 'another key' })
  await t.rejects(server.run(guess.connect()), /no answer in main mode/)
  guess.vanish()
  const wrong = dial({ password: 'not this', address: '10.0.0.3' })
  await t.rejects(up(wrong), /E=691/)
  wrong.vanish()
  const android = new L2tpClient(l2tpPersona('Android 11'), {
    ...{ server, userName: 'alice', password: secretWord, address: '10.0.0.4' },
  })
  await t.rejects(server.run(android.connect()), /no answer in main mode/)
  android.vanish()
  await server.elapse(200_000, 2000)
  t.equal(server.home.of('session-up').length, 0)
})
