/** What the section `ikev2` turns on, in calls of our own initiator with the server as it is composed. */
import { createHash, X509Certificate } from 'node:crypto'
import t, { type Test } from 'tap'
import { ConfigUserStore } from '../../lib/aaa/users/config-user-store.ts'
import type { UserConfig } from '../../lib/config.ts'
import { utf8 } from '../../lib/core/bytes.ts'
import { Secret } from '../../lib/core/secret.ts'
import { TimerWheel } from '../../lib/core/timers.ts'
import { KeyExchangeId } from '../../lib/crypto/transforms.ts'
import { createMemoryDataplane } from '../../lib/dataplane/index.ts'
import { Ikev2Dialler } from '../../lib/ikev2/dialler.ts'
import { identityOf } from '../../lib/ikev2/identity.ts'
import type { IkeConnection, IkeSettings } from '../../lib/ikev2/ike-connection.ts'
import { everything, ipv4Selector } from '../../lib/ikev2/traffic-selectors.ts'
import { ExchangeType } from '../../lib/ikev2/wire/exchange-type.ts'
import { Ikev2Dial, type Ikev2DialSettings } from '../../lib/server/ikev2-dial.ts'
import { judgeResumption, resumeMemo } from '../../lib/server/ikev2-resumption.ts'
import { loadIkeParts } from '../../lib/server/ikev2-service.ts'
import { insecureChoices } from '../../lib/server/insecure-choices.ts'
import { udp } from '../dataplane/packets.ts'
import { secretWord, userConfig } from '../support/dial-in.ts'
import { createIkeSite } from '../support/ike-site.ts'
import { configOf, IpsecServer, serverAddress } from '../support/ipsec-server.ts'
import { machineCertificate } from '../support/machine-certificate.ts'

const stateDirectory = `${t.testdir()}/state`
const firstAddress = '198.51.100.7'
const secondAddress = '198.51.100.8'
const limits = { mtuBytes: 1400, rekeyBytes: Number.POSITIVE_INFINITY }
const siteKey = 'a long and random key'

interface Dialled {
  readonly call: Ikev2Dial
  readonly connection: IkeConnection
}

function setUp(t: Test, ikev2 = '', users?: readonly UserConfig[]) {
  const config = ikev2 === '' ? '' : `ikev2: {${ikev2}}`
  const server = new IpsecServer(t, { stateDirectory, config, ...(users && { users }) })
  const { clock } = server.home
  // Its own: what the server forgets without a word goes on here.
  const wheel = new TimerWheel(clock.nowMs())
  server.waiting.add({ onTime: nowMs => wheel.advance(nowMs) })
  const { dataplane, memoryDevice } = createMemoryDataplane({ clock })
  dataplane.start()
  t.teardown(() => dataplane.stop())
  const hosts = [firstAddress, secondAddress]
  const { memory } = dataplane
  const plane = server.network.host(hosts, memory, () => dataplane.flush())
  const site = createIkeSite({ plane, memory, hosts, clock, wheel, seed: 5 })
  site.sockets.open()
  const dialler = new Ikev2Dialler(site)
  const [pair] = server.parts.certificates
  const pin = createHash('sha256')
    .update(new X509Certificate(pair?.chainPem ?? '').raw)
    .digest()
  const dial = (
    more: Partial<Ikev2DialSettings> = {},
    change: (settings: IkeSettings) => IkeSettings = one => one,
    from = firstAddress,
  ): Dialled => {
    const password = Secret.fromText(secretWord)
    const base = { userName: 'alice', password, serverSha256: pin, wantsIpv6: false }
    const call = new Ikev2Dial({ ...base, ...more }, dataplane)
    const settings = change(call.ikeSettings(site.random))
    const peer = { address: serverAddress, port: 500 }
    const connection = dialler.dial(from, peer, settings, limits, call)
    if (connection === undefined) throw new Error('no socket')
    call.start(connection)
    return { call, connection }
  }
  const up = async (...args: Parameters<typeof dial>) => {
    const dialled = dial(...args)
    await server.run(dialled.call.up)
    await server.settle()
    return dialled
  }
  /** Exchanges in clear bytes: kinds of all messages since the last look. */
  let seen = 0
  const exchanges = () => {
    const kinds = server.network.sent.slice(seen).map(({ bytes, to, from }) => {
      const at = to.port === 4500 || from.port === 4500 ? 4 : 0
      return bytes[at + 18]
    })
    seen = server.network.sent.length
    return kinds
  }
  const established = () => server.home.of('ike-established')
  return { server, dial, up, exchanges, established, memoryDevice, dataplane, site }
}

/** As the gateway of a site, with its preshared key. */
function asSite(settings: IkeSettings): IkeSettings {
  const secret = Secret.fromText(siteKey)
  const { configurationAttributes: _none, ...rest } = settings
  return {
    ...rest,
    localIdentities: [
      { identity: identityOf('branch.example.net'), credential: { type: 'psk', secret } },
    ],
    peer: { ...rest.peer, presharedKeys: [{ identity: undefined, secret }] },
    child: {
      ...rest.child,
      localSelectors: [ipv4Selector({ address: 0x0a580000, prefixLength: 24 })],
      remoteSelectors: everything,
    },
  }
}

const site = `sites: [{identity: branch.example.net, presharedKey: ${siteKey}, remoteNetworks: [10.88.0.0/24]}]`
const one = [userConfig('alice', { maxSessions: 1 })]
const { IKE_INTERMEDIATE, IKE_SA_INIT, IKE_SESSION_RESUME } = ExchangeType

t.test(
  'resumptionSeconds: who lost its network comes back without a proof, in its old place',
  async t => {
    const { server, dial, up, exchanges, established } = setUp(t, 'resumptionSeconds: 3600', one)
    const { call: first } = await up({ wantsTicket: true })
    t.equal(first.ticketSeconds, 3600)
    const { ticket } = first
    if (ticket === undefined) throw new Error('no ticket')
    const [before] = server.home.sessions.list()
    // It says no farewell.
    server.network.onPath = flight => (flight.to.address === firstAddress ? undefined : flight)
    exchanges()
    const back = { wantsTicket: true, resume: ticket }
    const { call: second } = await up(back, undefined, secondAddress)
    t.same(exchanges().slice(0, 4), [38, 38, 35, 35])
    t.same(
      established().map(line => 'by' in line && line.by),
      ['eap', 'resumption'],
    )
    t.match(server.home.sessions.list(), [
      { state: 'up', userName: 'alice', ipv4: before?.ipv4, peer: `${secondAddress}:500` },
    ])
    t.same(server.home.causes(), ['replaced'], 'the limit of one session does not keep it out')
    t.match(server.ikev2.status().counters, { 'ticket-issued': 2, 'ticket-taken': 1 })
    t.ok(second.ticket && second.ticket !== ticket)
    second.hangUp()
    await server.run(second.closed)
    t.test('once: the second time it has to prove itself', async t => {
      exchanges()
      const again = dial(back, undefined, secondAddress)
      await server.run(again.call.up)
      const kinds = exchanges()
      t.same(kinds.slice(0, 3), [IKE_SESSION_RESUME, IKE_SESSION_RESUME, IKE_SA_INIT])
      t.equal(server.ikev2.status().counters['ticket-used-twice'], 1)
      t.match(established().at(-1), { by: 'eap' })
      again.call.hangUp()
      await server.run(again.call.closed)
    })
  },
)

t.test('who may not come in any more does not come back either', async t => {
  const { server, dial, up } = setUp(t, 'resumptionSeconds: 3600')
  const changes: [Partial<UserConfig>, string][] = [
    [{ dialIn: 'deny' }, 'no-dial-in'],
    [{ isDisabled: true }, 'account-disabled'],
    [{ expires: new Date(0) }, 'account-expired'],
    [{ password: Secret.fromText('another') }, 'password-changed'],
  ]
  const { users } = server
  for (const [change, reason] of changes) {
    server.users = users
    const { call } = await up({ wantsTicket: true })
    const { ticket } = call
    call.hangUp()
    await server.run(call.closed)
    if (ticket === undefined) throw new Error('no ticket')
    server.users = new ConfigUserStore([userConfig('alice', change)])
    const refused = dial({ resume: ticket })
    await t.rejects(server.run(refused.call.up), /AUTHENTICATION_FAILED/)
    await server.settle()
    t.match(server.home.of('not-resumed').at(-1), { reason })
  }
  server.users = new ConfigUserStore([])
  const { call } = await up({ wantsTicket: true })
  t.equal(call.ticket, undefined, 'nor does whom nobody knows any more get a ticket')
  t.equal(server.home.sessions.size, 1)
})

t.test('without resumptionSeconds there are no tickets; a reload gives and takes them', async t => {
  const { server, dial, up } = setUp(t)
  const { call } = await up({ wantsTicket: true })
  t.equal(call.ticket, undefined)
  const reload = (ikev2: string) => {
    const config = configOf({ stateDirectory, config: ikev2 })
    server.ikev2.reload(config, loadIkeParts(config), server.home.services)
  }
  reload('ikev2: {resumptionSeconds: 60}')
  const { call: given } = await up({ userName: 'bob', wantsTicket: true })
  t.equal(given.ticketSeconds, 60)
  reload('')
  const { ticket } = given
  const late = dial({ userName: 'bob', ...(ticket && { resume: ticket }) })
  await server.run(late.call.up)
  t.match(server.home.of('ike-established').at(-1), { by: 'eap' })
})

t.test('a site comes back with a ticket until its key is another', async t => {
  const { server, dial, up, established } = setUp(t, `resumptionSeconds: 3600, ${site}`)
  const { call } = await up({ wantsTicket: true }, asSite)
  const { ticket } = call
  if (ticket === undefined) throw new Error('no ticket')
  const again = await up({ wantsTicket: true, resume: ticket }, asSite)
  t.match(established().at(-1), { by: 'resumption' })
  t.match(server.home.sessions.list(), [{ userName: 'branch.example.net', state: 'up' }])
  const packet = udp({ source: '10.87.0.1', destination: '10.88.0.5', payload: new Uint8Array(9) })
  await server.fromHost(packet)
  t.match(server.home.sessions.list(), [{ sentPackets: 1 }], 'its network is routed to it')
  const config = configOf({
    stateDirectory,
    config: `ikev2: {resumptionSeconds: 3600, ${site.replace(siteKey, 'another long key')}}`,
  })
  server.ikev2.reload(config, loadIkeParts(config), server.home.services)
  const next = again.call.ticket
  const refused = dial({ ...(next && { resume: next }) }, asSite)
  await t.rejects(server.run(refused.call.up), /AUTHENTICATION_FAILED/)
  t.match(server.home.of('not-resumed'), [{ reason: 'site-changed' }])
})

t.test('a certificate is looked at again when its owner comes back', async t => {
  const folder = t.testdir()
  const { chain, authorityFile } = machineCertificate(folder, 'pc7.example.net')
  const config = configOf({
    stateDirectory,
    config: `ikev2: {resumptionSeconds: 3600, clientAuthorities: [${authorityFile}]}`,
  })
  const { authorities } = loadIkeParts(config)
  const identity = identityOf('pc7.example.net')
  const at = (days: number) => ({
    ...{ config, authorities },
    wallClock: { now: () => new Date(Date.now() + 60_000 + days * 86_400_000) },
  })
  const memo = resumeMemo(
    at(0),
    { by: 'certificate', chain },
    { sessionId: 's', loginName: 'pc7.example.net', userName: 'pc7.example.net', identity },
  )
  if (memo === undefined) throw new Error('no memo')
  t.match(judgeResumption(at(1), memo, identity), {
    ...{ type: 'accept', proof: { by: 'certificate' }, oldSessionId: 's' },
    authorization: { userName: 'pc7.example.net' },
  })
  t.match(judgeResumption(at(25), memo, identity), { type: 'reject', detail: 'expired' })
  const other = { ...at(1), authorities: loadIkeParts(configOf({ stateDirectory })).authorities }
  t.match(judgeResumption(other, memo, identity), { detail: 'unknown-authority' })
  t.match(judgeResumption(at(1), memo, identityOf('x.example.net')), { detail: 'other-identity' })
  const inRadius = configOf({
    stateDirectory,
    config:
      'radius: {authentication: {servers: [{address: 192.0.2.9, secret: radsecret-radsecret}]}}',
  })
  const holder = { sessionId: 's', loginName: 'alice', userName: 'alice', identity }
  const users = () => new ConfigUserStore([userConfig('alice')])
  t.ok(resumeMemo({ ...at(0), users }, { by: 'eap' }, holder))
  t.equal(resumeMemo({ ...at(0), users, config: inRadius }, { by: 'eap' }, holder), undefined)
})

t.test(
  'additionalKeyExchanges: ML-KEM with peers that propose it, unless it is turned off',
  async t => {
    const withKem = (settings: IkeSettings): IkeSettings => ({
      ...settings,
      ikeAlgorithms: {
        ...settings.ikeAlgorithms,
        additionalKeyExchange: [KeyExchangeId.mlKem512, KeyExchangeId.mlKem768],
      },
    })
    const usual = setUp(t)
    await usual.up({}, withKem)
    t.ok(usual.exchanges().includes(IKE_INTERMEDIATE))
    await usual.up({ userName: 'bob' })
    t.notOk(usual.exchanges().includes(IKE_INTERMEDIATE), 'who does not ask is left alone')
    const off = setUp(t, 'additionalKeyExchanges: []')
    await off.up({}, withKem)
    t.notOk(off.exchanges().includes(IKE_INTERMEDIATE))
  },
)

t.test('postQuantumKeys: mixed in by name; required, nobody comes in without', async t => {
  const keys = 'postQuantumKeys: [{identity: ppk-1, key: a post quantum key of 32 bytes}]'
  const withKey = (identity: string, isMandatory: boolean) => (settings: IkeSettings) => ({
    ...asSite(settings),
    ppk: {
      keys: [
        { identity: utf8(identity), secret: Secret.fromText('a post quantum key of 32 bytes') },
      ],
      isMandatory,
    },
  })
  const free = setUp(t, `${keys}, ${site}`)
  await free.up({}, withKey('ppk-1', true))
  await free.up({}, withKey('ppk-9', false))
  await t.rejects(free.server.run(free.dial({}, withKey('ppk-9', true)).call.up), /ended/)
  await free.up()
  const strict = setUp(t, `${keys}, requirePostQuantumKey: true, ${site}`)
  await strict.up({}, withKey('ppk-1', true))
  await t.rejects(strict.server.run(strict.dial({}, asSite).call.up), /AUTHENTICATION_FAILED/)
  await t.rejects(strict.server.run(strict.dial().call.up), /AUTHENTICATION_FAILED/)
})

t.test('eapOnly: a peer that asks gets no signature, and EAP proves the server', async t => {
  const alone = (settings: IkeSettings): IkeSettings => ({
    ...settings,
    peer: {
      ...{ acceptsCertificates: false, authorities: [], presharedKeys: [] },
      eap: { methods: [], acceptsEapOnly: true },
    },
  })
  const on = setUp(t, 'eapOnly: true')
  await on.up({}, alone)
  t.match(on.established(), [{ by: 'eap' }])
  await on.up({ userName: 'bob' }, undefined)
  const off = setUp(t)
  await t.rejects(off.server.run(off.dial({}, alone).call.up), /ended/)
})

t.test('what is not safe is said: short keys, and EAP without a certificate', async t => {
  const warnings = (ikev2: string) =>
    insecureChoices(configOf({ stateDirectory, config: `ikev2: {${ikev2}}` }))
  t.same(warnings(site), [])
  t.match(warnings(site.replace(siteKey, 'short')), [/ikev2\.sites has a key shorter than 20/])
  t.match(warnings('postQuantumKeys: [{identity: a, key: short}], eapOnly: true'), [
    /ikev2\.postQuantumKeys has one shorter than 32/,
    /ikev2\.eapOnly is on/,
  ])
})

t.test('without a Child SA first, and with one later (RFC 6023)', async t => {
  const { server, up, memoryDevice, dataplane } = setUp(t)
  const { call, connection } = await up({}, settings => ({
    ...settings,
    features: { ...settings.features, startsChildless: true },
  }))
  t.equal(connection.tunnel.children.length, 0)
  t.match(server.ikev2.status(), { established: 1, childSas: 0 })
  const { ipv4Address = 0 } = await call.up
  const own = ipv4Selector({ address: ipv4Address, prefixLength: 32 })
  connection.handle({
    ...{ type: 'create-child', localSelectors: [own], remoteSelectors: everything },
  })
  await server.settle()
  t.equal(connection.tunnel.children.length, 1)
  const [session] = server.home.sessions.list()
  const source = session?.ipv4 ?? ''
  memoryDevice.fromHost(udp({ source, destination: '10.87.0.1', payload: new Uint8Array(20) }))
  dataplane.flush()
  await server.settle()
  t.match(server.home.sessions.list(), [{ receivedPackets: 1 }])
})

t.test(
  'redirectTo: who would go is sent, who would not is served, and a reload sends all',
  async t => {
    const { server, dial, up } = setUp(t, 'redirectTo: gateway-2.example.net')
    const sent = dial()
    await t.rejects(server.run(sent.call.up), /redirected/)
    t.equal(sent.call.redirectedTo, 'gateway-2.example.net')
    t.match(server.ikev2.status(), {
      established: 0,
      halfOpen: 0,
      counters: { 'refused-REDIRECT': 1 },
    })
    t.same(
      server.home.lines.filter(({ event }) => event === 'call-failed'),
      [],
    )
    await up({}, settings => ({
      ...settings,
      features: { ...settings.features, redirect: false },
    }))
    const stays = setUp(t)
    const { call } = await stays.up()
    const settings = { stateDirectory, config: 'ikev2: {redirectTo: 192.0.2.77}' }
    const config = configOf(settings)
    stays.server.ikev2.reload(config, loadIkeParts(config), stays.server.home.services)
    await stays.server.settle()
    t.equal(call.redirectedTo, '192.0.2.77')
  },
)

t.test('INITIAL_CONTACT: what a user had from this address is gone at once', async t => {
  const { server, up } = setUp(t, '', one)
  const started = (settings: IkeSettings): IkeSettings => ({
    ...settings,
    features: { ...settings.features, sendsInitialContact: true },
  })
  const { call } = await up({}, started)
  const { ipv4Address } = await call.up
  const { call: second } = await up({}, started)
  t.equal((await second.up).ipv4Address, ipv4Address, 'and is given again')
  t.same(server.home.causes(), ['replaced'])
  t.equal(server.home.sessions.size, 1)
})

t.test(
  'networkOutageSeconds: a peer out of reach for less goes on, for more it is gone',
  async t => {
    const { server, up, memoryDevice, dataplane } = setUp(t, 'networkOutageSeconds: 120')
    await up()
    const [session] = server.home.sessions.list()
    const send = async () => {
      const source = session?.ipv4 ?? ''
      memoryDevice.fromHost(udp({ source, destination: '10.87.0.1', payload: new Uint8Array(20) }))
      dataplane.flush()
      await server.settle()
    }
    const { onPath } = server.network
    server.network.onPath = () => undefined
    await server.elapse(115_000, 1000)
    server.network.onPath = onPath
    await server.elapse(35_000, 1000)
    await send()
    t.match(server.home.sessions.list(), [{ state: 'up', receivedPackets: 1 }])
    server.network.onPath = () => undefined
    await server.elapse(300_000, 1000)
    t.same(server.home.causes(), ['lost-carrier'])
    t.equal(server.home.sessions.size, 0)
  },
)
