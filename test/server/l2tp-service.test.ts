/** L2TP/IPsec as the server composes it, on imagined sockets, called by stock clients. */
import t, { type Test } from 'tap'
import { concatBytes, fromHex, putU16, toHex } from '../../lib/core/bytes.ts'
import { BindError, CertificateError } from '../../lib/core/errors.ts'
import { formatIpv4 } from '../../lib/core/ip-address.ts'
import { encodeMessage } from '../../lib/ikev1/message.ts'
import type { Payload } from '../../lib/ikev1/wire/payload.ts'
import { IpsecService } from '../../lib/server/ipsec-service.ts'
import { L2tpService } from '../../lib/server/l2tp-service.ts'
import { udp } from '../dataplane/packets.ts'
import { L2tpClient, type L2tpClientOptions } from '../personas/l2tp-client.ts'
import { type L2tpPersona, l2tpPersona } from '../personas/l2tp-personas.ts'
import { secretWord } from '../support/dial-in.ts'
import { configOf, IpsecServer, serverIpv6Address, sharedKey } from '../support/ipsec-server.ts'
import { machineCertificate } from '../support/machine-certificate.ts'

// RSA keys are made, and the machine may be busy.
t.setTimeout(120_000)
const folder = t.testdir()
const stateDirectory = `${folder}/state`
const machine = machineCertificate(folder, 'pc-7.example.net')
const stranger = machineCertificate(folder, 'pc-8.example.net')
const withKey = `l2tp: {preSharedKeys: [{key: ${sharedKey}}]}`
const windows = l2tpPersona('Windows 10')
const macos = l2tpPersona('macOS')

function setUp(t: Test, config = withKey) {
  const server = new IpsecServer(t, { stateDirectory, config })
  let seed = 0
  const dial = (who: L2tpPersona, more: Partial<L2tpClientOptions> = {}) =>
    new L2tpClient(who, {
      ...{ server, userName: 'alice', password: secretWord, seed: ++seed },
      ...more,
    })
  return { server, dial }
}

/** A packet each way. */
async function isCarrying(server: IpsecServer, client: L2tpClient): Promise<boolean> {
  const own = formatIpv4(client.ppp.address)
  const up = udp({ source: own, destination: '192.0.2.9', payload: new Uint8Array(500) })
  const down = udp({ source: '192.0.2.9', destination: own, payload: new Uint8Array(600) })
  server.home.host.toHost.length = 0
  client.packets.length = 0
  client.send(up)
  await server.settle()
  await server.fromHost(down)
  const [arrived] = client.packets
  const [received] = server.home.host.toHost
  return (
    arrived !== undefined &&
    received !== undefined &&
    toHex(arrived) === toHex(down) &&
    toHex(received) === toHex(up)
  )
}

t.test('Outside is IPv6: UDP checksums, encapsulation, rekeys of both phases', async t => {
  const { server, dial } = setUp(t)
  const client = await dial(windows, { address: '2001:db8:7::2' }).up()
  t.ok(await isCarrying(server, client))
  t.match(server.home.sessions.list(), [{ peer: '[2001:db8:7::2]:4500', protocol: 'l2tp' }])
  for (let i = 0; i < 3; i++) {
    await server.run(client.isakmp.phase2())
    t.ok(await isCarrying(server, client), 'a new pair')
    await server.run(client.isakmp.phase1())
    t.ok(await isCarrying(server, client), 'a new ISAKMP SA')
  }
  t.ok(client.isakmp.received.every(({ from }) => from.address === serverIpv6Address))
  await server.run(client.leave())
  await server.settle()
  t.same(server.home.causes(), ['user-request'])
  t.same(client.complaints, [])
})

t.test('Machines with a certificate need no key, and get the chain in fragments', async t => {
  const config = `l2tp: {clientAuthorities: ['${machine.authorityFile}']}`
  const { server, dial } = setUp(t, config)
  const client = await dial(windows, { certificate: machine }).up()
  t.ok(await isCarrying(server, client))
  const largest = Math.max(...client.isakmp.received.map(({ bytes }) => bytes.length))
  t.ok(largest < 1400, `${largest} bytes`)
  const fragments = client.isakmp.received.filter(({ bytes }) => bytes[4 + 16] === 132)
  t.ok(fragments.length >= 2)
  t.match(server.home.of('phase1-up'), [{ method: 'rsa-signatures' }])
  for (let i = 0; i < 3; i++) {
    await server.run(client.isakmp.phase1())
    await server.run(client.isakmp.phase2())
  }
  t.ok(await isCarrying(server, client))
  await server.run(client.leave())
  t.same(client.complaints, [])

  const unknown = dial(windows, { certificate: stranger, address: '10.0.0.3' })
  await t.rejects(unknown.up(), /no answer in main mode/)
  unknown.vanish()
  t.match(server.home.of('isakmp-closed').at(-1), {
    cause: 'authentication-failed',
    detail: 'no known authority',
  })
  const keyed = dial(windows, { address: '10.0.0.4' })
  await t.rejects(keyed.up(), /no answer in main mode/, 'and keys are not taken')
  keyed.vanish()
})

t.test('A client that lost power is found out by DPD, and its tunnel is freed', async t => {
  const { server, dial } = setUp(t)
  const client = await dial(macos).up()
  await server.elapse(90_000, 1000)
  t.equal(server.home.sessions.size, 1)
  client.vanish()
  await server.elapse(120_000, 1000)
  t.same(server.home.causes(), ['lost-carrier'])
  t.match(server.home.of('isakmp-closed'), [{ detail: 'no answer to R-U-THERE' }])
  t.match(server.l2tp.status(), { tunnels: 0, ikev1: { established: 0, peers: 0 } })
  t.equal(server.ipsec.database.size, 0)
  t.equal(server.home.ipv4Pool.leasedCount, 0)
})

t.test('A client without DPD that lost power is found out by L2TP', async t => {
  const { server, dial } = setUp(t)
  const client = await dial(windows).up()
  client.vanish()
  await server.elapse(240_000, 1000)
  t.same(server.home.causes(), ['lost-carrier'])
  t.match(server.l2tp.status(), { tunnels: 0, sessions: 0 })
  t.equal(server.home.ipv4Pool.leasedCount, 0)
})

t.test('INITIAL-CONTACT of a client that started anew frees what it had at once', async t => {
  const { server, dial } = setUp(t)
  const before = await dial(macos).up()
  before.vanish()
  const after = await dial(macos).up()
  t.same(server.home.causes(), ['replaced'])
  t.match(server.l2tp.status(), { tunnels: 1, sessions: 1, ikev1: { established: 1, peers: 1 } })
  t.ok(await isCarrying(server, after))
  await server.run(after.leave())
  t.same(after.complaints, [])
})

t.test('Windows says nothing of the kind: started anew, it is let in beside its past', async t => {
  const { server, dial } = setUp(t)
  const before = await dial(windows).up()
  before.vanish()
  await server.elapse(45_000, 1000)
  const after = await dial(windows).up()
  t.ok(await isCarrying(server, after))
  await server.elapse(240_000, 1000)
  t.ok(await isCarrying(server, after), 'the end of the old tunnel is not that of the new one')
  t.equal(server.home.sessions.upCount, 1)
  await server.run(after.leave())
})

t.test('Another preshared key is for new peers; those that are up stay', async t => {
  const { server, dial } = setUp(t)
  const first = await dial(windows).up()
  const other = 'l2tp: {preSharedKeys: [{key: a new one and a longer one}]}'
  const apply = server.l2tp.prepare(configOf({ stateDirectory, config: other }))
  apply()
  t.ok(await isCarrying(server, first))
  const old = dial(windows, { address: '10.0.0.3' })
  await t.rejects(old.up(), /no answer in main mode/)
  old.vanish()
  const second = await dial(windows, {
    ...{ address: '10.0.0.4', userName: 'bob', key: 'a new one and a longer one' },
  }).up()
  t.ok(await isCarrying(server, second))
  t.ok(await isCarrying(server, first))
  await server.run(first.leave())
  await server.run(second.leave())
  const missing = configOf({
    stateDirectory,
    config: "l2tp: {clientAuthorities: ['/nowhere.pem']}",
  })
  t.throws(() => server.l2tp.prepare(missing), CertificateError)
})

t.test('A stop ends the call, the tunnel and IPsec, and tells the client of each', async t => {
  const { server, dial } = setUp(t)
  const client = await dial(macos).up()
  await server.stop()
  t.ok(client.messages.includes('stopccn'), client.messages.join())
  t.ok(client.isakmp.isDeleted)
  t.equal(client.isakmp.esp.inboundSpis.length, 0)
  t.equal(server.ipsec.database.size, 0)
})

t.test('L2TP without IPsec: closed unless it is opened, and never by itself', async t => {
  const { server } = setUp(t)
  const ports = server.plane.ports.map(({ number }) => number)
  t.ok(
    ports.every(port => port === 500 || port === 4500),
    ports.join(),
  )
  t.same(server.l2tp.status().addresses, [])
  const request = { from: { address: '198.51.100.7', port: 1701 }, bytes: sccrq(7) }
  server.network.send({ ...request, to: { address: '192.0.2.1', port: 1701 } })
  await server.settle()
  t.equal(server.network.sent.length, 1, 'no answer')
  const open = setUp(t, `l2tp: {preSharedKeys: [{key: ${sharedKey}}], withoutIpsec: true}`)
  t.same(
    open.server.l2tp.status().addresses.map(({ port }) => port),
    [1701, 1701],
  )
})

t.test('A port that somebody else has is an error, and nothing stays open', async t => {
  const { server } = setUp(t)
  const { services, log } = server.home
  for (const port of [500, 4500]) {
    const plane = server.network.host(['192.0.2.77'], services.dataplane.memory)
    plane.takenPorts.add(port)
    const ipsec = new IpsecService(server.config, services, log, plane)
    t.throws(() => ipsec.open(), BindError, `port ${port}`)
    t.ok(plane.ports.every(({ isOpen }) => !isOpen))
  }
  const plane = server.network.host(['192.0.2.78'], services.dataplane.memory)
  plane.takenPorts.add(1701)
  const config = configOf({
    ...{ stateDirectory, config: `l2tp: {preSharedKeys: [{key: x}], withoutIpsec: true}` },
  })
  const ipsec = new IpsecService(config, services, log, plane)
  t.throws(() => new L2tpService(config, services, ipsec, log), BindError)
})

/** An SCCRQ of a tunnel with this ID. */
function sccrq(tunnelId: number): Uint8Array {
  const id = new Uint8Array(2)
  putU16(id, 0, tunnelId)
  const avps = fromHex(
    '8008000000000001 8008000000020100 800a0000000300000003 8007000000 0778 8008000000 09'.replaceAll(
      ' ',
      '',
    ),
  )
  return control(0, 0, 0, concatBytes(avps, id))
}

function control(tunnelId: number, ns: number, nr: number, avps: Uint8Array): Uint8Array {
  const out = new Uint8Array(12 + avps.length)
  for (const [i, value] of [0xc802, out.length, tunnelId, 0, ns, nr].entries()) {
    putU16(out, 2 * i, value)
  }
  out.set(avps, 12)
  return out
}

t.test('Bad L2TP in good ESP: a counter or an answer each, and the call goes on', async t => {
  const { server, dial } = setUp(t)
  const client = await dial(macos).up()
  const { peerTunnelId } = client
  const count = (name: string) => server.l2tp.status().counters[name] ?? 0
  const hello = fromHex('8008000000000006')
  const counted = async (name: string, messages: readonly Uint8Array[], what: string) => {
    const before = count(name)
    for (const message of messages) client.sendMessage(message)
    await server.settle()
    t.ok(count(name) >= before + messages.length, `${what}: ${name} ${count(name) - before}`)
  }
  const far = [20, 1000, 32_000].map(ns => control(peerTunnelId, ns, 0, hello))
  await counted('l2tp-out-of-window', far, 'Ns far out of the window')
  const nothing = new Uint8Array(0)
  const empty = [1, 77, 65_535].map(ns => control(0, ns, ns, nothing))
  await counted('l2tp-unknown-tunnel', empty, 'zero-length bodies for no tunnel')
  const scccn = control(0, 0, 0, fromHex('8008000000000003'))
  await counted('l2tp-unknown-tunnel', [scccn], 'an SCCCN before any SCCRP')
  const data = (session: number) => {
    const out = fromHex('4002000d 0000 0000 ff03c02101'.replaceAll(' ', ''))
    putU16(out, 4, peerTunnelId)
    putU16(out, 6, session)
    return out
  }
  await counted('l2tp-unknown-session', [data(0), data(65_535)], 'data for sessions that are not')
  // Three fit beside the one that is up.
  for (let i = 0; i < 3; i++) client.sendMessage(sccrq(900 + i))
  await server.settle()
  const flood = Array.from({ length: 500 }, (_, i) => sccrq(1000 + i))
  await counted('l2tp-too-many-of-peer', flood, 'a flood of SCCRQs')
  t.equal(server.l2tp.status().tunnels, 4)
  const timers = server.home.wheel.size
  for (let i = 0; i < 500; i++) client.sendMessage(sccrq(2000 + i))
  await server.settle()
  t.equal(server.home.wheel.size, timers, 'nothing was kept of another flood')
  for (let bytes = 0; bytes < 1024; bytes++) {
    // An AVP of every length, whatever there is behind its header.
    const avp = fromHex('8000000000091234')
    putU16(avp, 0, 0x8000 | bytes)
    client.sendMessage(control(0, 0, 0, concatBytes(fromHex('8008000000000001'), avp)))
  }
  await server.elapse(120_000, 2000)
  t.ok(await isCarrying(server, client))
  t.match(server.l2tp.status(), { tunnels: 1, sessions: 1 })
  await server.run(client.leave())
})

t.test('Bad ISAKMP beside a good SA: nothing is believed, and nothing is kept', async t => {
  const { server, dial } = setUp(t)
  const client = await dial(macos).up()
  const { isakmp } = client
  const { cookies } = isakmp
  const spi = concatBytes(cookies.initiatorCookie, cookies.responderCookie)
  const none = new Uint8Array(0)
  const count = (name: string) => server.l2tp.status().ikev1.counters[name] ?? 0
  const send = async (exchange: number, messageId: number, payloads: Payload[], flags = 0) => {
    const message = encodeMessage(cookies, exchange, messageId, payloads, undefined)
    if (message === undefined) throw new Error('no message')
    message[19] = flags
    isakmp.transmitIke(message)
    await server.settle()
  }
  const sent = server.network.sent.filter(({ from }) => from.address === '192.0.2.1').length
  await send(5, 1, [{ type: 'D', protocolId: 1, spis: [spi] }])
  await send(5, 2, [{ type: 'N', protocolId: 1, notifyType: 36_136, spi, data: new Uint8Array(4) }])
  await send(5, 3, [{ type: 'N', protocolId: 1, notifyType: 24_578, spi, data: none }])
  t.equal(count('ikev1-unprotected-informational'), 3)
  // Said to be encrypted, by somebody without the key: a spoofed DPD and a delete.
  const noise = (length: number): Payload[] => [{ type: 'HASH', data: new Uint8Array(length) }]
  for (let id = 10; id < 20; id++) await send(5, id, noise(44), 1)
  await send(5, 20, noise(45), 1)
  t.ok(count('ikev1-bad-ciphertext') >= 1)
  await send(4, 0, [{ type: 'VID', data: none }])
  await send(6, 21, [{ type: 'VID', data: none }])
  t.ok(count('ikev1-aggressive-refused') >= 1)
  const answers = server.network.sent.filter(({ from }) => from.address === '192.0.2.1').length
  t.ok(answers - sent <= 1, `${answers - sent} answers`)
  t.ok(await isCarrying(server, client))
  t.match(server.l2tp.status(), { ikev1: { established: 1, halfOpen: 0 } })
  await server.run(client.leave())
  t.same(client.complaints, [])
})

t.test('100 transforms are chosen from, 300 are refused, and a flood is bounded', async t => {
  const { server, dial } = setUp(t)
  const suite = ['aes256', 'md5', 'modp1024'] as const
  const many = (transforms: number): L2tpPersona => ({
    ...windows,
    phase1: [...Array(transforms - 1).fill(suite), ['aes256', 'sha256', 'ecp256']],
  })
  const hundred = await dial(many(100)).up()
  t.equal(hundred.isakmp.suite?.group, 19)
  await server.run(hundred.leave())
  const tooMany = dial(many(300), { address: '10.0.0.3' })
  await t.rejects(tooMany.up(), /no answer in main mode/)
  tooMany.vanish()
  t.match(server.l2tp.status().ikev1, { established: 0, halfOpen: 0 })
  const guesses = Array.from({ length: 60 }, (_, i) =>
    dial(windows, { address: `10.0.1.${i}`, key: 'a guess' }),
  )
  for (const one of guesses) one.connect().catch(() => undefined)
  await server.settle()
  t.ok(server.l2tp.status().ikev1.halfOpen <= 20, 'one address has a share')
  for (const one of guesses) one.vanish()
  await server.elapse(60_000, 1000)
  t.match(server.l2tp.status().ikev1, { established: 0, halfOpen: 0 })
})
