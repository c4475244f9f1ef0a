/** The IKEv2 service of the server on sockets of the kernel, dialled by our own initiator. */
import { createHash, X509Certificate } from 'node:crypto'
import t, { type Test } from 'tap'
import type { Authenticator } from '../../lib/aaa/authenticator.ts'
import { parseConfig } from '../../lib/config.ts'
import { BindError, CertificateError } from '../../lib/core/errors.ts'
import { formatIpv4 } from '../../lib/core/ip-address.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { Secret } from '../../lib/core/secret.ts'
import { DatagramHub } from '../../lib/dataplane/datagram-hub.ts'
import { Ikev2Dialler } from '../../lib/ikev2/dialler.ts'
import type { Endpoint } from '../../lib/ikev2/path.ts'
import { TcpListener } from '../../lib/ikev2/tcp-listener.ts'
import { Ikev2Dial } from '../../lib/server/ikev2-dial.ts'
import { Ikev2Service, loadIkeParts } from '../../lib/server/ikev2-service.ts'
import { IpsecService } from '../../lib/server/ipsec-service.ts'
import type { CallServices } from '../../lib/server/ppp-call.ts'
import { udp } from '../dataplane/packets.ts'
import { DialIn, type DialInOptions, ipv4, secretWord, serverIpv4 } from '../support/dial-in.ts'
import { eventually } from '../support/eventually.ts'
import { createIkeSite } from '../support/ike-site.ts'
import { createKernelDataplane, systemCalls } from '../support/kernel-dataplane.ts'

const [here, there] = ['127.77.2.1', '127.77.2.2'] as const

/** Whether UDP 500 may be bound here. */
function whyNoSockets(): string | false {
  try {
    systemCalls()
  } catch (error) {
    return String(error)
  }
  return process.getuid?.() === 0 ? false : 'UDP 500 needs root'
}

const skip = whyNoSockets()
const directory = `${t.testdir()}/state`
const configOf = (more = '') =>
  parseConfig(
    `
server: {name: vpn.example.net, listen: [${here}]}
state: {directory: ${directory}}
addresses: {dns: [10.87.0.53]}
users: []
${more}`,
    'test',
  )
const parts = loadIkeParts(configOf())
const pin = createHash('sha256')
  .update(new X509Certificate(parts.certificates[0]?.chainPem ?? '').raw)
  .digest()

function setUp(t: Test, options: DialInOptions = {}, more = '') {
  const server = new DialIn(options)
  const { clock, wheel, log, sessions, ipv4Pool, ipv6Pool } = server
  const mine = createKernelDataplane({ clock, ipv4Address: ipv4(serverIpv4) })
  const services: CallServices = {
    ...{ clock, wheel, sessions, ipv4Pool, ipv6Pool, dataplane: mine.dataplane },
    random: new SeededRandom(41),
    authenticator: options.authenticator ?? server.authenticator,
    settings: {
      serverName: 'openras',
      authentication: ['mschapv2'],
      mtuBytes: 1400,
      serverIpv4: ipv4(serverIpv4),
      dnsIpv4: [],
      dnsIpv6: [],
      winsIpv4: [],
      isRequestable: false,
    },
  }
  const ipsec = new IpsecService(configOf(more), services, log)
  const service = new Ikev2Service(configOf(more), parts, services, ipsec)
  ipsec.open()

  const theirs = createKernelDataplane({ clock })
  const { memory } = theirs
  const plane = new TcpListener({
    plane: new DatagramHub(theirs.dataplane, clock),
    dataplane: theirs.dataplane,
  })
  const site = createIkeSite({ plane, memory, hosts: [there], clock, wheel, seed: 42 })
  site.sockets.open()
  const dialler = new Ikev2Dialler(site)
  const dial = (
    userName = 'alice',
    password = secretWord,
    peer: Endpoint = { address: here, port: 500 },
  ) => {
    const call = new Ikev2Dial(
      { userName, password: Secret.fromText(password), serverSha256: pin, wantsIpv6: true },
      theirs.dataplane,
    )
    const connection = dialler.dial(
      there,
      peer,
      call.ikeSettings(site.random),
      { mtuBytes: 1400, rekeyBytes: Number.POSITIVE_INFINITY },
      call,
    )
    if (connection === undefined) throw new Error('no socket')
    call.start(connection)
    return call
  }
  let isStopped = false
  const stop = async () => {
    if (isStopped) return
    isStopped = true
    sessions.disconnectAll('nas-reboot')
    await service.stop()
    await ipsec.close()
    site.sockets.close()
    await plane.close()
    mine.dataplane.stop()
    theirs.dataplane.stop()
    await server.stop()
  }
  t.teardown(stop)
  /** Everything that a call took is back. */
  const over = async () => {
    const { established, halfOpen, childSas } = service.status()
    const taken = () => [sessions.size, ipv4Pool.leasedCount, ipv6Pool?.leasedCount ?? 0]
    await eventually(
      () => taken().every(count => count === 0),
      () => JSON.stringify([established, halfOpen, childSas, ...taken()]),
    )
  }
  return { server, service, services, ipsec, mine, theirs, plane, dial, over, stop, dialler }
}

t.test(
  'A call gets addresses, carries packets, and ends with one line that counts them',
  { skip },
  async t => {
    const { server, service, mine, theirs, dial, over } = setUp(t)
    t.same(service.status().addresses, [
      { host: here, port: 500 },
      { host: here, port: 4500 },
    ])
    const call = dial()
    const grant = await call.up
    t.match(formatIpv4(grant.ipv4Address ?? 0), /^10\.87\.0\.\d+$/)
    t.same(grant.ipv4Dns?.map(formatIpv4), ['10.87.0.53'])
    t.equal(grant.ipv6Address?.prefixLength, 64)
    await server.until(() => server.of('session-up').length === 1)
    t.match(server.sessions.list(), [{ state: 'up', userName: 'alice', protocol: 'ikev2' }])
    t.match(service.status(), { established: 1, halfOpen: 0, childSas: 1 })
    const source = formatIpv4(grant.ipv4Address ?? 0)
    const request = udp({ source, destination: '192.0.2.9', payload: new Uint8Array(300) })
    for (let i = 0; i < 10; i++) theirs.host.fromHost(request)
    theirs.dataplane.flush()
    await server.until(() => mine.host.toHost.length === 10)
    t.same(mine.host.toHost[9], request)
    const answer = udp({ source: '192.0.2.9', destination: source, payload: new Uint8Array(99) })
    mine.host.fromHost(answer)
    mine.dataplane.flush()
    await server.until(() => theirs.host.toHost.length === 1)
    t.same(theirs.host.toHost[0], answer)
    t.equal(server.sessions.disconnect('alice'), 1)
    t.match(await call.closed, { detail: 'deleted-by-peer' })
    await over()
    t.same(server.causes(), ['admin-reset'])
    t.match(server.of('session-down'), [
      { user: 'alice', receivedPackets: 10, sentPackets: 1, receivedBytes: 3280, sentBytes: 127 },
    ])
    t.equal(server.of('session-up').length, 1)
    t.same(server.of('call-failed'), [])
    await server.until(() => service.status().established === 0)
    t.match(service.status(), { halfOpen: 0, childSas: 0 })
    t.notOk(server.rawLines.some(line => line.includes(secretWord)))
  },
)

t.test('Who hangs up is logged as the one who asked for it', { skip }, async t => {
  const { server, dial, over, dialler } = setUp(t)
  const call = dial()
  await call.up
  await server.until(() => server.of('session-up').length === 1)
  call.rekey('child')
  call.rekey('ike')
  await server.until(() => server.of('ike-rekeyed').length === 1)
  call.hangUp()
  t.match(await call.closed, { cause: 'user-request', detail: 'hung-up' })
  await over()
  t.same(server.causes(), ['user-request'])
  t.equal(dialler.size, 0)
})

t.test('A wrong password and a stranger fail alike, and take nothing', { skip }, async t => {
  const { server, dial, over } = setUp(t)
  for (const call of [dial('alice', 'wrong'), dial('nobody')]) await t.rejects(call.up, /ended/)
  await over()
  t.same(
    server.of('call-failed').map(({ cause }) => cause),
    ['authentication-failed', 'authentication-failed'],
  )
  t.same(server.of('session-up'), [])
})

t.test('The limit of a user refuses a call with its cause', { skip }, async t => {
  const { server, dial, over } = setUp(t, { limits: { sessionsPerUser: 1 } })
  const first = dial()
  await first.up
  await server.until(() => server.sessions.upCount === 1)
  await t.rejects(dial().up, /ended/)
  await server.until(() => server.sessions.size === 1)
  t.equal(server.of('call-refused').at(0)?.cause, 'session-limit')
  t.equal(server.ipv4Pool.leasedCount, 1)
  first.hangUp()
  await first.closed
  await over()
  await dial().up
})

t.test('No address left is the cause, and the next one gets the address', { skip }, async t => {
  const { server, dial, over } = setUp(t, { ipv4: '10.87.0.10', hasIpv6: false })
  const first = dial()
  const { ipv4Address, ipv6Address } = await first.up
  t.equal(formatIpv4(ipv4Address ?? 0), '10.87.0.10')
  t.equal(ipv6Address, undefined)
  await t.rejects(dial('bob').up, /ended/)
  await server.until(() => server.sessions.size === 1)
  t.equal(server.of('call-failed').at(-1)?.cause, 'no-address')
  first.hangUp()
  await over()
  t.equal(formatIpv4((await dial('bob').up).ipv4Address ?? 0), '10.87.0.10')
})

t.test('An authenticator that breaks ends its call, and no other', { skip }, async t => {
  const judge = new DialIn()
  t.teardown(() => judge.stop())
  let isBroken = false
  const authenticator: Authenticator = {
    authenticate: async request => {
      if (isBroken) throw new Error('the database is gone')
      return judge.authenticator.authenticate(request)
    },
  }
  const { server, dial } = setUp(t, { authenticator })
  await dial().up
  isBroken = true
  dial('bob')
  await server.until(() => server.of('call-fault').length === 1)
  t.match(server.of('call-fault'), [{ reason: 'the database is gone' }])
  await server.until(() => server.sessions.size === 1)
  t.equal(server.of('call-failed').at(-1)?.cause, 'nas-error')
  t.match(server.sessions.list(), [{ userName: 'alice', state: 'up' }])
})

t.test('A call that is ended while its user is looked up takes nothing', { skip }, async t => {
  const waiting: (() => void)[] = []
  const judge = new DialIn()
  t.teardown(() => judge.stop())
  const authenticator: Authenticator = {
    authenticate: request =>
      new Promise(resolve => {
        waiting.push(() => resolve(judge.authenticator.authenticate(request)))
      }),
  }
  const { server, dial, over } = setUp(t, { authenticator })
  const call = dial()
  await server.until(() => waiting.length === 1)
  server.sessions.disconnectAll('admin-reset')
  await server.until(() => server.sessions.size === 0)
  for (const answer of waiting) answer()
  await over()
  t.same(server.of('session-up'), [])
  t.equal(server.of('call-failed').at(-1)?.cause, 'admin-reset')
  call.hangUp()
})

t.test('A reload holds for new calls and leaves the others as they are', { skip }, async t => {
  const { server, service, services, dial } = setUp(t)
  const first = dial()
  t.same((await first.up).ipv4Dns?.map(formatIpv4), ['10.87.0.53'])
  const changed = parseConfig(
    `
server: {name: vpn.example.net, listen: [${here}]}
state: {directory: ${directory}}
addresses: {dns: [10.87.0.99]}
users: []
`,
    'test',
  )
  service.reload(changed, loadIkeParts(changed), services)
  t.same((await dial('bob').up).ipv4Dns?.map(formatIpv4), ['10.87.0.99'])
  await server.until(() => server.sessions.upCount === 2)
})

t.test('Stopping says goodbye to every caller and frees the ports', { skip }, async t => {
  const { server, service, dial, over, services, ipsec } = setUp(t)
  const calls = [dial(), dial('bob')]
  for (const call of calls) await call.up
  await server.until(() => server.sessions.upCount === 2)
  const other = new IpsecService(configOf(), services, server.log)
  t.throws(() => other.open(), BindError)
  server.sessions.disconnectAll('nas-reboot')
  await service.stop()
  for (const call of calls) t.match(await call.closed, { detail: 'deleted-by-peer' })
  await over()
  t.same(server.causes(), ['nas-reboot', 'nas-reboot'])
  await ipsec.close()
  other.open()
  await other.close()
})

t.test('Where no UDP passes a call comes over TCP, and says so', { skip }, async t => {
  const more = 'ikev2: {tcpPort: 4500}'
  const { server, service, ipsec, mine, theirs, plane, dial, over, services } = setUp(t, {}, more)
  await ipsec.openStreams()
  t.match(service.status().addresses, [
    { host: here, port: 500 },
    { host: here, port: 4500, isTcp: undefined },
    { host: here, port: 4500, isTcp: true },
  ])
  const call = dial('alice', secretWord, await plane.connect({ address: here, port: 4500 }))
  const { ipv4Address } = await call.up
  await server.until(() => server.of('session-up').length === 1)
  const source = formatIpv4(ipv4Address ?? 0)
  const request = udp({ source, destination: '192.0.2.9', payload: new Uint8Array(300) })
  theirs.host.fromHost(request)
  theirs.dataplane.flush()
  await server.until(() => mine.host.toHost.length === 1)
  t.same(mine.host.toHost[0], request)
  const answer = udp({ source: '192.0.2.9', destination: source, payload: new Uint8Array(99) })
  mine.host.fromHost(answer)
  mine.dataplane.flush()
  await server.until(() => theirs.host.toHost.length === 1)
  t.same(theirs.host.toHost[0], answer)
  const status = service.status()
  t.match(status, { established: 1, streams: 1 })
  t.notOk('receivedDatagrams' in status.counters, 'nothing came by UDP')
  const [session] = server.sessions.list()
  const port = Number(/^127\.0\.0\.1:(\d+)\/tcp$/.exec(session?.peer ?? '')?.[1])
  t.ok(port > 0 && port < 65_536)
  call.rekey('child')
  call.rekey('ike')
  await server.until(() => server.of('ike-rekeyed').length === 1)
  server.sessions.disconnect('alice')
  t.match(await call.closed, { detail: 'deleted-by-peer' })
  await over()
  t.match(server.of('session-down'), [{ peer: session?.peer, receivedPackets: 1, sentPackets: 1 }])
  t.notOk(server.rawLines.some(line => line.includes(String(port + 0x10000))))
  const other = new IpsecService(configOf(more), services, server.log)
  await t.rejects(other.openStreams(), BindError, 'somebody has the port')
})

t.test('The parts of the service are read, or the fault is named', async t => {
  t.equal(parts.certificates.length, 1)
  t.ok(parts.authorities.isEmpty)
  const missing = configOf('ikev2: {clientAuthorities: [/nowhere/ca.pem]}')
  t.throws(() => loadIkeParts(missing), CertificateError)
  t.throws(() => loadIkeParts(missing), /nowhere\/ca\.pem/)
})
