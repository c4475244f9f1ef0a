import t, { type Test } from 'tap'
import type { Authenticator, Verdict } from '../../lib/aaa/authenticator.ts'
import { FilterCatalogue } from '../../lib/aaa/filter-catalogue.ts'
import { AccessPolicies } from '../../lib/aaa/policy/access-policies.ts'
import { parseConfig } from '../../lib/config.ts'
import { concatBytes, fromHex, toHex, u16, utf8 } from '../../lib/core/bytes.ts'
import { formatIpv4, formatIpv6 } from '../../lib/core/ip-address.ts'
import { encodeFrame, PppProtocol } from '../../lib/ppp/wire/frame.ts'
import { udp } from '../dataplane/packets.ts'
import { type AuthenticationName, type Persona, persona } from '../personas/personas.ts'
import { StockClient, type StockClientOptions } from '../personas/stock-client.ts'
import { DialIn, type DialInOptions, ipv4, secretWord, userConfig } from '../support/dial-in.ts'

const linux = persona('sstp-client with pppd')
const asking = (address: string): Persona => ({
  ...linux,
  ipcp: [[3, Buffer.from(address.split('.').map(Number)).toString('hex')]],
})

async function setUp(t: Test, options: DialInOptions = {}) {
  const server = new DialIn(options)
  await server.listener.start()
  t.teardown(async () => {
    await server.stop()
    const leaks = server.leaks()
    if (leaks.length > 0) throw new Error(`lost: ${leaks.join(', ')}`)
  })
  const dial = (more: Partial<StockClientOptions> = {}, who: Persona = linux) =>
    StockClient.dial(who, { port: server.port, userName: 'alice', password: secretWord, ...more })
  const over = () => server.until(() => server.sessions.size === 0)
  return { server, dial, over }
}

/** An authenticator that answers when the test says so. */
function patient(judge: Authenticator) {
  const waiting: (() => Promise<void>)[] = []
  const authenticator: Authenticator = {
    authenticate: request =>
      new Promise<Verdict>(resolve => {
        waiting.push(async () => resolve(await judge.authenticate(request)))
      }),
  }
  return { authenticator, waiting }
}

t.test('A call takes an address and a prefix, and gives both back with one line down', async t => {
  const { server, dial, over } = await setUp(t)
  const client = await (await dial()).up()
  t.equal(server.ipv4Pool.leasedCount, 1)
  t.equal(server.ipv6Pool?.leasedCount, 1)
  t.match(server.sessions.list(), [{ state: 'up', userName: 'alice', protocol: 'sstp' }])
  t.equal(server.sessions.disconnect('alice'), 1)
  await client.until(one => one.messages.includes('call-disconnect'))
  client.call.end()
  await over()
  t.same(server.causes(), ['admin-reset'])
  t.equal(server.of('session-up').length, 1)
  t.equal(server.of('session-down').length, 1)
  t.same(server.of('call-failed'), [])
})

t.test(
  'A user with too many sessions hears E=649, and the log says which limit it was',
  async t => {
    const { server, dial, over } = await setUp(t, { limits: { sessionsPerUser: 1 } })
    const first = await (await dial()).up()
    const second = await dial()
    await second.until(one => one.failure !== undefined)
    t.match(second.failure, /^E=649 R=0 /)
    await second.until(one => one.messages.includes('call-disconnect'))
    second.call.end()
    await server.until(() => server.sessions.size === 1)
    t.match(server.of('call-refused'), [{ reason: /1 session\(s\) of user alice/ }])
    t.equal(server.of('call-failed').at(-1)?.cause, 'session-limit')
    await first.leave()
    await over()
    const third = await (await dial()).up()
    await third.leave()
  },
)

t.test('Too many calls in all, of a protocol or from a source are refused before PPP', async t => {
  for (const limits of [
    { sessions: 1 },
    { sessionsPerSource: 1 },
    { sessionsPerProtocol: new Map([['sstp', 1]]) },
  ]) {
    const { server, dial } = await setUp(t, { limits })
    const first = await (await dial()).up()
    const second = await dial({ userName: 'bob' })
    await second.until(one => one.messages.includes('call-disconnect'))
    second.call.end()
    t.equal(server.count('link-refused'), 1)
    t.equal(server.of('call-refused').at(-1)?.cause, 'session-limit')
    t.equal(server.sessions.size, 1)
    await first.leave()
  }
})

t.test('A wrong password: R=1 with a new challenge, and no account is told apart', async t => {
  const users = [userConfig('alice'), userConfig('denied', { dialIn: 'deny' })]
  const { server, dial } = await setUp(t, { users })
  const texts: string[] = []
  for (const [userName, password] of [
    ['alice', 'wrong'],
    ['nobody', 'wrong'],
    ['denied', 'wrong'],
  ] as const) {
    const client = await dial({ userName, password })
    await client.until(one => one.failure !== undefined)
    texts.push((client.failure ?? '').replace(/C=[0-9A-F]{32}/, 'C='))
    client.call.destroy()
  }
  t.same(texts, Array(3).fill('E=691 R=1 C= V=3'))
  const denied = await dial({ userName: 'denied' })
  await denied.until(one => one.failure !== undefined)
  t.match(denied.failure, /^E=649 R=0 /)
  denied.call.destroy()
  await server.until(() => server.sessions.size === 0)
  t.equal(server.of('call-failed').length, 4)
})

t.test('A fixed address is always given, kept from others, and refused while in use', async t => {
  const users = [userConfig('alice', { ipv4Address: ipv4('10.87.0.10') }), userConfig('bob')]
  const { server, dial, over } = await setUp(t, { users, isRequestable: true, hasIpv6: false })
  const bob = await dial({ userName: 'bob' }, { ...asking('10.87.0.10'), networks: ['ipcp'] })
  await bob.up()
  t.not(formatIpv4(bob.address), '10.87.0.10')
  const alice = await dial({}, { ...asking('10.87.0.11'), networks: ['ipcp'] })
  await alice.up()
  t.equal(formatIpv4(alice.address), '10.87.0.10')
  const again = await dial({}, { ...linux, networks: ['ipcp'] })
  await again.until(one => one.messages.includes('call-disconnect') || one.call.isClosed)
  again.call.end()
  await server.until(() => server.sessions.size === 2)
  t.equal(server.of('call-failed').at(-1)?.cause, 'no-address')
  await alice.leave()
  await bob.leave()
  await over()
})

t.test('A client gets the address that it asks for only where that is allowed', async t => {
  for (const isRequestable of [true, false]) {
    const { dial, over } = await setUp(t, { isRequestable })
    const client = await dial({}, { ...asking('10.87.0.33'), networks: ['ipcp'] })
    await client.up()
    t.equal(formatIpv4(client.address) === '10.87.0.33', isRequestable)
    await client.leave()
    await over()
  }
  const { server, dial } = await setUp(t, { isRequestable: true })
  const silent = await dial({}, { ...linux, networks: [] })
  await silent.until(one => one.authenticatedCount === 1)
  t.equal(server.ipv4Pool.leasedCount, 0, 'it may still ask')
  await server.elapse(2_500)
  t.equal(server.ipv4Pool.leasedCount, 1, 'it gets any')
  silent.call.destroy()
})

t.test('No address left ends the call; with IPv6 alone it comes up', async t => {
  const { server, dial } = await setUp(t, { ipv4: '10.87.0.10', hasIpv6: false })
  const who: Persona = { ...linux, networks: ['ipcp'] }
  const first = await (await dial({}, who)).up()
  const second = await dial({ userName: 'bob' }, who)
  await second.until(one => one.messages.includes('call-disconnect'))
  second.call.end()
  await server.until(() => server.sessions.size === 1)
  t.equal(server.of('call-failed').at(-1)?.cause, 'no-address')
  await first.leave()

  const only6 = await setUp(t, { ipv4: '' })
  const third = await only6.dial({}, { ...linux, networks: ['ipv6cp'] })
  await third.up()
  await third.until(one => one.advertisements.length === 2)
  t.match(only6.server.sessions.list(), [{ ipv6: /^fd87:.*\/64$/, state: 'up' }])
  t.equal(only6.server.sessions.list()[0]?.ipv4, undefined)
  await third.leave()
})

t.test('A router advertisement comes again in time, and not any more after the end', async t => {
  const { server, dial } = await setUp(t)
  const client = await (await dial()).up()
  await client.until(one => one.advertisements.length === 2)
  await server.elapse(601_000, 5_000)
  await client.until(one => one.advertisements.length === 3)
  await client.leave()
  await server.elapse(601_000, 20_000)
  t.equal(client.advertisements.length, 3)
})

t.test('A router gets a prefix by DHCPv6, and what is behind it is reached', async t => {
  const { server, dial, over } = await setUp(t)
  const client = await (await dial()).up()
  await client.until(one => one.advertisements.length > 0)
  t.equal((client.advertisements[0]?.[45] ?? 0) & 0x40, 0x40, 'it is told that DHCPv6 is there')
  const source = formatIpv6(concatBytes(fromHex('fe80000000000000'), client.interfaceId))
  const [rapid, prefixes] = ['000e 0000', '0019 000c 00000007 00000000 00000000']
  const solicit = fromHex(`01 a1b2c3 0001 000a 00030001020304050607 ${rapid} ${prefixes}`)
  const toServers = { source, destination: 'ff02::1:2', sourcePort: 546, destinationPort: 547 }
  client.send(udp({ ...toServers, payload: solicit }))
  const isReply = (packet: Uint8Array) => packet[6] === 17 && packet[48] === 7
  await client.until(one => one.packets.some(isReply))
  const reply = client.packets.find(isReply) ?? new Uint8Array(0)
  t.match(toHex(reply), `38fd8800000000010000${'00'.repeat(7)}`, 'fd88:0:0:100::/56')
  t.equal(server.delegationPool.leasedCount, 1)

  const behind = udp({ source: 'fd99::1', destination: 'fd88:0:0:1aa::5' })
  server.host.fromHost(behind)
  await client.until(one => one.packets.some(packet => toHex(packet) === toHex(behind)))
  client.send(udp({ source: 'fd88:0:0:1aa::5', destination: 'fd99::1' }))
  await server.until(() => server.host.toHost.length === 1)
  await client.leave()
  await over()
  t.equal(server.delegationPool.leasedCount, 0)
})

t.test('One protocol that flaps keeps the other, the session and the usage', async t => {
  const { server, dial } = await setUp(t)
  const client = await (await dial()).up()
  const packet = udp({ source: formatIpv4(client.address), destination: '192.0.2.9' })
  client.send(packet)
  await server.until(() => server.host.toHost.length === 1)
  client.control('ipcp', 1, 200, Uint8Array.of(3, 6, 10, 87, 0, client.address & 255))
  await client.until(one => one.ipv4Count === 2)
  client.send(packet)
  await server.until(() => server.host.toHost.length === 2)
  t.equal(server.sessions.list()[0]?.receivedPackets, 3, 'with the router solicitation')
  t.equal(server.of('session-up').length, 1)
  await client.leave()
})

t.test('A renegotiated link belongs to whom it belonged before', async t => {
  const { server, dial, over } = await setUp(t)
  const options = { port: server.port, userName: 'alice', password: secretWord }
  const client = await StockClient.dial(linux, options)
  await client.up()
  options.userName = 'bob'
  client.renegotiate()
  await client.until(one => one.failure !== undefined)
  t.match(client.failure, /^E=649 R=0 /)
  await client.until(one => one.messages.includes('call-disconnect'))
  client.call.end()
  await over()
  t.same(server.causes(), ['not-authorized'])
  t.equal(server.of('session-down')[0]?.user, 'alice')
  await (await (await dial({ userName: 'bob' })).up()).leave()
})

t.test('A call that dies while its user is looked up takes nothing', async t => {
  const { authenticator, waiting } = patient(new DialIn().authenticator)
  const { server, dial, over } = await setUp(t, { authenticator })
  const client = await dial()
  await server.until(() => waiting.length === 1)
  client.call.destroy()
  await over()
  t.equal(server.of('call-failed').at(-1)?.cause, 'lost-carrier')
  await waiting.shift()?.()
  await server.elapse(1_000)
  t.equal(server.ipv4Pool.leasedCount, 0)
  t.same(server.of('session-up'), [])

  const slow = await dial()
  await server.until(() => waiting.length === 1)
  await server.elapse(61_000, 1_000)
  await slow.until(one => one.messages.includes('call-disconnect') || one.call.isClosed)
  await waiting.shift()?.()
  slow.call.destroy()
  await over()
  t.equal(server.of('call-failed').at(-1)?.cause, 'setup-timeout', 'a verdict after the end')

  const ended = await dial()
  await server.until(() => waiting.length === 1)
  server.sessions.disconnectAll('admin-reset')
  await waiting.shift()?.()
  await ended.until(one => one.messages.includes('call-disconnect') || one.call.isClosed)
  ended.call.end()
  await over()
  t.equal(ended.authenticatedCount, 0)
  t.equal(server.of('call-failed').at(-1)?.cause, 'admin-reset')
})

t.test('An authenticator that breaks its promise ends the call, not the server', async t => {
  const authenticator: Authenticator = {
    authenticate: () => Promise.reject(new Error('the backend broke')),
  }
  const { server, dial, over } = await setUp(t, { authenticator })
  const client = await dial()
  await client.until(one => one.messages.includes('call-disconnect'))
  client.call.end()
  await over()
  t.equal(server.of('call-fault').length, 1)
  t.equal(server.of('call-failed').at(-1)?.cause, 'nas-error')
})

t.test('Idle and session timeouts end a call; IP keeps it and makes echoes needless', async t => {
  const users = [userConfig('alice', { idleTimeoutMs: 120_000, sessionTimeoutMs: 600_000 })]
  const { server, dial, over } = await setUp(t, { users })
  const busy = await (await dial()).up()
  for (let i = 0; i < 12; i++) {
    busy.send(udp({ source: formatIpv4(busy.address), destination: '192.0.2.9' }))
    await server.until(() => server.host.toHost.length === i + 1)
    await server.elapse(19_000, 1_000)
  }
  t.equal(server.sessions.upCount, 1)
  t.notOk(busy.messages.includes('echo-request'))
  t.equal(busy.echoRequests, 0, 'who sends IP is not asked whether it lives')
  await server.elapse(130_000, 1_000)
  await busy.until(one => one.messages.includes('call-disconnect'))
  busy.call.end()
  await over()
  t.same(server.causes(), ['idle-timeout'])

  const long = await (await dial()).up()
  for (let i = 0; !long.messages.includes('call-disconnect') && i < 40; i++) {
    long.send(udp({ source: formatIpv4(long.address), destination: '192.0.2.9' }))
    await server.elapse(19_000, 1_000)
  }
  await long.until(one => one.messages.includes('call-disconnect'))
  long.call.end()
  await over()
  t.same(server.causes(), ['idle-timeout', 'session-timeout'], 'however busy it is')
})

/** A secret as it might stand in a text. */
function traces(secret: string): string[] {
  const utf16 = Buffer.from(secret, 'utf16le')
  const plain = Buffer.from(secret)
  return [
    secret,
    plain.toString('hex'),
    plain.toString('base64').replace(/=+$/, ''),
    utf16.toString('hex'),
    utf16.toString('base64').replace(/=+$/, ''),
    utf16.toString('latin1'),
    [...plain].join(','),
  ]
}

t.test(
  'No log line, status or error holds a password, whatever the method and outcome',
  async t => {
    const { server, dial, over } = await setUp(t, { methods: ['mschapv2', 'chap', 'pap'] })
    const wrong = 'Wr0ng-canary.dial'
    const methods: readonly AuthenticationName[] = ['mschapv2', 'chap-md5', 'pap']
    for (const method of methods) {
      const good = await (await dial({ authentication: [method] })).up()
      const status = JSON.stringify([server.sessions.list(), server.listener.status()])
      for (const trace of traces(secretWord)) t.notOk(status.includes(trace))
      await good.leave()
      const bad = await dial({ authentication: [method], password: wrong })
      await bad.until(one => one.failure !== undefined)
      bad.call.destroy()
      await over()
    }
    // A password in a place where none belongs: a user name is logged, a password of PAP never is.
    const odd = await dial({ authentication: ['pap'] })
    await odd.until(one => one.isOpen)
    odd.call.frame(encodeFrame(PppProtocol.pap, utf8(`\x01\x01\x00\xff${secretWord}`)))
    odd.call.frame(encodeFrame(0x4321, utf8(secretWord)))
    odd.call.destroy()
    await over()
    const log = server.rawLines.join('')
    t.ok(server.lines.length > 30, 'the log was on')
    for (const secret of [secretWord, wrong]) {
      for (const trace of traces(secret)) t.notOk(log.includes(trace))
    }
  },
)

function setPolicies(server: DialIn, text: string): void {
  const { policies, filters } = parseConfig(text, 'x')
  server.sessions.setPolicies(new AccessPolicies(policies), new FilterCatalogue(filters))
}

const udpTo = (client: StockClient, port: number) =>
  udp({ source: formatIpv4(client.address), destination: '192.0.2.1', destinationPort: port })

t.test('A policy keeps a proven user out with its own reason', async t => {
  const { server, dial, over } = await setUp(t)
  setPolicies(server, 'policies: [{name: closed, access: deny, reason: restricted-hours}]')
  const client = await dial()
  await client.until(one => one.failure !== undefined)
  t.match(client.failure, /^E=646 R=0 /)
  client.call.end()
  await over()
  t.match(server.of('call-refused'), [{ reason: 'policy closed' }])
  t.match(server.of('call-failed'), [{ cause: 'not-authorized' }])
})

t.test('What a policy gives holds for packets and can change while they flow', async t => {
  const { server, dial, over } = await setUp(t)
  setPolicies(
    server,
    `filters: {dns: [permit in udp from assigned to any 53], web: [permit in udp from any to any 443]}
policies:
  - name: all
    give: {filter: web, address: 10.87.0.99, dns: [192.0.2.53], quarantine: {filter: dns, timeoutSeconds: 60}}
`,
  )
  const client = await (await dial()).up()
  t.equal(formatIpv4(client.address), '10.87.0.99')
  t.same(client.dns.map(formatIpv4), ['192.0.2.53'])
  const reached = () => server.host.toHost.map(packet => u16(packet, 22))
  const filtered = () => server.dataplane.status().counters['drop-filtered'] ?? 0
  client.send(udpTo(client, 443))
  client.send(udpTo(client, 53))
  await server.until(() => reached().length === 1)
  t.same(reached(), [53], 'in quarantine')
  t.equal(filtered(), 1)
  t.match(server.sessions.list(), [{ isQuarantined: true, policy: 'all' }])
  client.renegotiate()
  await client.until(one => one.ipv4Count === 2)
  client.send(udpTo(client, 443))
  client.send(udpTo(client, 53))
  await server.until(() => reached().length === 2)
  t.same(reached(), [53, 53], 'a renegotiated link is in quarantine, too')
  t.equal(server.sessions.release('alice'), 1)
  client.send(udpTo(client, 53))
  client.send(udpTo(client, 443))
  await server.until(() => reached().length === 3)
  t.same(reached(), [53, 53, 443], 'and has its filter when it is released')
  const [session] = server.sessions.find('alice')
  session?.change({ filterName: undefined, sessionTimeoutSeconds: 10 })
  client.send(udpTo(client, 123))
  await server.until(() => reached().length === 4)
  await server.elapse(11_000)
  await client.until(one => one.messages.includes('call-disconnect'))
  client.call.end()
  await over()
  t.same(server.causes(), ['session-timeout'])
})
