/** Stock IKEv2 clients against the server that answers them, over a network with a NAT. */
import t, { type Test } from 'tap'
import { defaults } from '../../lib/config/defaults.ts'
import { toHex } from '../../lib/core/bytes.ts'
import { formatIpv4, formatIpv6 } from '../../lib/core/ip-address.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { ExchangeType } from '../../lib/ikev2/wire/exchange-type.ts'
import { udp } from '../dataplane/packets.ts'
import { secretWord } from '../support/dial-in.ts'
import { IpsecServer } from '../support/ipsec-server.ts'
import { machineCertificate } from '../support/machine-certificate.ts'
import { Ikev2Client, type Ikev2ClientOptions } from './ikev2-client.ts'
import { type Ikev2Persona, ikev2Persona, ikev2Personas } from './ikev2-personas.ts'

// RSA keys are made, and the machine may be busy.
t.setTimeout(120_000)
const folder = t.testdir()
const stateDirectory = `${folder}/state`
const device = machineCertificate(folder, 'laptop-7.example.net')

function setUp(t: Test, who: Ikev2Persona) {
  const ikev2 = [
    `legacyAlgorithms: ${who.needsLegacy}`,
    ...(who.proof === 'certificate' ? [`clientAuthorities: ['${device.authorityFile}']`] : []),
  ]
  const config = `ikev2: {${ikev2.join(', ')}}`
  const server = new IpsecServer(t, { stateDirectory, config })
  let seed = 0
  const client = (more: Partial<Ikev2ClientOptions> = {}) =>
    new Ikev2Client(who, {
      server,
      userName: 'alice',
      password: secretWord,
      certificate: device,
      seed: ++seed,
      ...more,
    })
  return { server, client }
}

const random = new SeededRandom(4)

function payload(bytes: number): Uint8Array {
  const out = new Uint8Array(bytes)
  random.fill(out)
  return out
}

/** Packets of several sizes both ways and in both families, compared byte by byte. */
async function exchange(t: Test, server: IpsecServer, client: Ikev2Client): Promise<void> {
  const { ipv4Address, ipv6Address } = client.grant
  const ends: [string, string, number[]][] = []
  if (ipv4Address !== undefined) ends.push([formatIpv4(ipv4Address), '192.0.2.9', [28, 576, 1400]])
  if (ipv6Address !== undefined) {
    ends.push([formatIpv6(ipv6Address.address), '2001:db8::9', [48, 1280, 1400]])
  }
  for (const [own, far, sizes] of ends) {
    const head = own.includes(':') ? 48 : 28
    const up = sizes.map(bytes =>
      udp({ source: own, destination: far, payload: payload(bytes - head) }),
    )
    const { toHost } = server.home.host
    toHost.length = 0
    for (const packet of up) client.send(packet)
    await server.settle()
    t.same(toHost.map(toHex), up.map(toHex), 'what the client sent reached the host')
    const down = sizes.map(bytes =>
      udp({ source: far, destination: own, payload: payload(bytes - head) }),
    )
    client.packets.length = 0
    await server.fromHost(...down)
    t.same(client.packets.map(toHex), down.map(toHex), 'what the host sent reached the client')
  }
}

for (const who of ikev2Personas) {
  t.test(
    `${who.name}: connects, moves packets, rekeys 20 times of each kind, follows its NAT, leaves`,
    async t => {
      const { server, client: dial } = setUp(t, who)
      const client = dial()
      await server.run(client.connect())
      t.match(server.ikev2.status(), { established: 1, halfOpen: 0, childSas: 1 })
      const wantsIpv6 = who.configuration.includes(8)
      t.match(formatIpv4(client.grant.ipv4Address ?? 0), /^10\.87\.0\.\d+$/)
      t.equal(client.grant.ipv6Address?.prefixLength, wantsIpv6 ? 64 : undefined)
      t.same(client.grant.ipv4Dns?.map(formatIpv4), ['10.87.0.53'])
      const families = wantsIpv6 ? [4, 6] : [4]
      t.same(
        client.selectors.theirs.map(({ family }) => family),
        families,
        'no family without an address, or routes of Apple go wrong',
      )
      t.equal(client.selectors.mine.length, families.length)
      await exchange(t, server, client)
      const session = server.home.sessions.list()[0]

      for (const withKe of [false, true]) {
        for (let i = 1; i <= 20; i++) {
          await server.run(client.rekeyChild(withKe))
          if (i % 10 === 0) await exchange(t, server, client)
        }
      }
      for (let i = 1; i <= 20; i++) {
        await server.run(client.rekeyIke())
        if (i % 10 === 0) await exchange(t, server, client)
      }
      t.match(server.ikev2.status(), { established: 1, childSas: 1 })
      t.equal(server.home.of('ike-rekeyed').length, 20)
      t.equal(client.esp.inboundSpis.length, 1, 'nothing piled up')

      // The NAT forgets: ESP tells where the client is now, then IKE does.
      server.nat.rebind()
      await server.elapse(2000)
      await exchange(t, server, client)
      server.nat.rebind()
      await server.elapse(2000)
      client.keepAlive()
      await server.run(client.checkLiveness())
      await exchange(t, server, client)

      if (who.usesMobike) {
        client.changeAddress('10.0.0.77')
        await server.run(client.updateAddresses())
        t.ok(client.requests.includes(ExchangeType.INFORMATIONAL), 'it had to show itself')
        await exchange(t, server, client)
      }
      t.equal(server.home.sessions.list()[0]?.id, session?.id, 'one session all the time')
      t.equal(client.repetitions, 0)
      const usage = server.home.sessions.list()[0]
      await server.run(client.leave())
      await server.settle()
      t.same(server.home.causes(), ['user-request'])
      t.match(server.home.of('session-down'), [
        { receivedBytes: usage?.receivedBytes, sentBytes: usage?.sentBytes },
      ])
      t.match(server.ikev2.status(), { established: 0, childSas: 0 })
      t.same(client.complaints, [])
    },
  )
}

t.test('Every persona repeats what is lost, and is answered with the same bytes', async t => {
  for (const who of ikev2Personas) {
    const { server, client: dial } = setUp(t, who)
    const client = dial()
    // The first answer to each message is lost.
    const seen = new Set<string>()
    const answers = new Map<string, string>()
    server.network.onPath = flight => {
      const passed = server.nat.pass(flight)
      if (passed === undefined || flight.from.address.startsWith('10.')) return passed
      const { bytes } = flight
      const at = flight.from.port === 4500 ? 4 : 0
      const id = toHex(bytes.slice(at, at + 28))
      const fragment = bytes[at + 16] === 53 ? toHex(bytes.slice(at + 32, at + 36)) : ''
      const key = id + fragment
      const before = answers.get(key)
      if (before !== undefined && before !== toHex(bytes)) t.fail('an answer that has changed')
      answers.set(key, toHex(bytes))
      if (seen.has(key)) return passed
      seen.add(key)
      return undefined
    }
    await server.run(client.connect())
    t.ok(client.repetitions >= 2, `${who.name}: ${client.repetitions} repetitions`)
    server.network.onPath = flight => server.nat.pass(flight)
    await server.run(client.leave())
    t.same(client.complaints, [], who.name)
    await server.stop()
  }
})

t.test('Windows rekeys a Child SA twice before it deletes: all go on, and are cleaned', async t => {
  const { server, client: dial } = setUp(t, ikev2Persona('Windows 10'))
  const client = dial()
  await server.run(client.connect())
  const [first = 0] = client.esp.inboundSpis
  await server.run(client.rekeyChild(false, false))
  await exchange(t, server, client)
  await server.run(client.rekeyChild(true, false))
  await exchange(t, server, client)
  t.equal(client.esp.inboundSpis.length, 3)
  await server.elapse(300_000, 5000)
  for (const spi of client.esp.inboundSpis.slice(0, -1)) {
    if (client.esp.inboundSpis.includes(spi)) await server.run(client.deleteChild(spi))
  }
  t.notOk(client.esp.inboundSpis.includes(first))
  await exchange(t, server, client)
  t.match(server.ikev2.status(), { established: 1, childSas: 1 })
  await server.run(client.leave())
  t.same(client.complaints, [])
})

t.test('Windows behind a NAT refuses our rekeying with 13863: we ask only at the end', async t => {
  const { server, client: dial } = setUp(t, ikev2Persona('Windows 11, provisioned'))
  const client = dial()
  await server.run(client.connect())
  const lifetimeMs = 1000 * defaults.ikev2.saLifetimeSeconds
  const asked = () => client.requests.filter(type => type === ExchangeType.CREATE_CHILD_SA).length
  // It rekeys by itself, as it does by volume: then nobody asks it.
  for (let gone = 0; gone < 0.8 * lifetimeMs; gone += lifetimeMs / 8) {
    await server.elapse(lifetimeMs / 8, 20_000)
    await server.run(client.rekeyChild(true))
    await exchange(t, server, client)
  }
  t.equal(asked(), 0)
  // It does not: the refusal ends nothing.
  await server.run(client.rekeyIke())
  await server.elapse(0.99 * lifetimeMs, 20_000)
  t.ok(asked() > 0)
  await exchange(t, server, client)
  t.equal(server.home.sessions.size, 1)
  await server.run(client.leave())
  t.same(client.complaints, [])
})

t.test('Windows wants its IPv6 address back: it gets one, and nobody loses his', async t => {
  const { server, client: dial } = setUp(t, ikev2Persona('Windows 11'))
  const first = dial()
  await server.run(first.connect())
  const { ipv6Address } = first.grant
  const second = dial({ address: '10.0.0.3', userName: 'bob' })
  const wish = new Uint8Array(17)
  wish.set(ipv6Address?.address ?? [])
  wish[16] = 64
  second.wishes.set(8, wish)
  await server.run(second.connect())
  t.notSame(second.grant.ipv6Address, ipv6Address, "not somebody else's")
  await exchange(t, server, first)
  await exchange(t, server, second)
  await server.run(first.leave())
  await server.run(second.leave())
  t.same([...first.complaints, ...second.complaints], [])
})

t.test('Windows before 1803 knows no fragments: it gets whole messages', async t => {
  const windows = ikev2Persona('Windows 10')
  const old: Ikev2Persona = {
    ...windows,
    init: windows.init.filter(part => part !== 'fragmentation'),
  }
  const { server, client: dial } = setUp(t, old)
  const client = dial()
  await server.run(client.connect())
  const ike = client.received.filter(({ bytes }) => bytes.length > 1300)
  t.equal(ike.length, 1, 'the chain came in one datagram')
  await exchange(t, server, client)
  await server.run(client.leave())
  t.same(client.complaints, [])
})

t.test('A group that is not ours is named back, not forced on Android', async t => {
  const android = ikev2Persona('Android 12')
  const samsung: Ikev2Persona = {
    ...android,
    name: 'Samsung',
    // "CBC with DH24 first, ECP384, ECP256, MODP2048, MODP1536 and GCM second"
    ike: (['aes256', 'aes256-gcm16'] as const).map(cipher => ({
      ciphers: [cipher],
      integrity: cipher === 'aes256' ? ['sha256'] : [],
      prf: ['sha256'],
      groups: ['dh24', 'ecp384', 'ecp256', 'modp2048', 'modp1536'],
    })),
  }
  for (const [who, sent] of [
    [samsung, 2],
    [android, 1],
  ] as const) {
    const { server, client: dial } = setUp(t, who)
    const client = dial()
    await server.run(client.connect())
    const requests = server.network.sent.filter(
      ({ from, to, bytes }) =>
        from.address === client.address && to.port === 500 && bytes[18] === 34,
    )
    t.equal(requests.length, sent, who.name)
    if (who === android) t.equal(client.suite?.keyExchangeId, 16, 'MODP4096 as it asked')
    t.not(client.suite?.encryption.name, 'AES-CTR', 'CTR comes first with Android, not with us')
    await exchange(t, server, client)
    await server.run(client.leave())
    t.same(client.complaints, [])
  }
})

t.test('Two laptops behind one NAT, one user each, and one that is refused', async t => {
  const { server, client: dial } = setUp(t, ikev2Persona('macOS 14'))
  const first = dial()
  const second = dial({ address: '10.0.0.3', userName: 'bob' })
  await Promise.all([server.run(first.connect()), server.run(second.connect())])
  await exchange(t, server, first)
  await exchange(t, server, second)
  const stranger = dial({ address: '10.0.0.4', password: 'not this' })
  await t.rejects(server.run(stranger.connect()), /EAP|AUTHENTICATION_FAILED/)
  stranger.close()
  t.match(server.ikev2.status(), { established: 2 })
  await server.run(first.leave())
  await server.run(second.leave())
  t.same(server.home.causes(), ['user-request', 'user-request'])
})

t.test(
  'Stock Windows is told to be provisioned: MODP1024 is off unless it is switched on',
  async t => {
    const { server, client: dial } = setUp(t, { ...ikev2Persona('Windows 10'), needsLegacy: false })
    const client = dial()
    await t.rejects(server.run(client.connect()), /NO_PROPOSAL_CHOSEN/)
    client.close()
    t.match(server.ikev2.status(), { established: 0, halfOpen: 0 })
  },
)
