/** Whole IKEv2 calls: our dialler, the listener, users, addresses, sites; no kernel. */
import { execFileSync } from 'node:child_process'
import { createHash, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import t, { type Test } from 'tap'
import { LocalAuthenticator } from '../../lib/aaa/local-authenticator.ts'
import { Lockout } from '../../lib/aaa/lockout.ts'
import { SessionRegistry } from '../../lib/aaa/session-registry.ts'
import { ConfigUserStore } from '../../lib/aaa/users/config-user-store.ts'
import { Ipv4Pool } from '../../lib/address/ipv4-pool.ts'
import { Ipv6Pool } from '../../lib/address/ipv6-pool.ts'
import { ClientAuthorities } from '../../lib/certificates/client-authorities.ts'
import { ensureOwnCertificate } from '../../lib/certificates/own-certificate.ts'
import { parseConfig } from '../../lib/config.ts'
import { toHex } from '../../lib/core/bytes.ts'
import { ManualClock, systemWallClock } from '../../lib/core/clock.ts'
import { formatIpv4 } from '../../lib/core/ip-address.ts'
import { silentLogger } from '../../lib/core/log.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { Secret } from '../../lib/core/secret.ts'
import { TimerWheel } from '../../lib/core/timers.ts'
import { createMemoryDataplane } from '../../lib/dataplane/index.ts'
import { Ikev2Dialler } from '../../lib/ikev2/dialler.ts'
import { identityOf } from '../../lib/ikev2/identity.ts'
import type { IkeSettings } from '../../lib/ikev2/ike-connection.ts'
import { defaultHalfOpenLimits, Ikev2Listener } from '../../lib/ikev2/listener.ts'
import { ipv4Selector } from '../../lib/ikev2/traffic-selectors.ts'
import { type EspOwner, EspReceiver } from '../../lib/ipsec/esp-receiver.ts'
import { IkeSockets } from '../../lib/ipsec/ike-sockets.ts'
import { SaDatabase } from '../../lib/ipsec/sa-database.ts'
import { clientSelectors } from '../../lib/server/client-networks.ts'
import { type Ikev2CallServices, Ikev2Calls } from '../../lib/server/ikev2-call.ts'
import { judgeCertificate } from '../../lib/server/ikev2-certificates.ts'
import { Ikev2Dial } from '../../lib/server/ikev2-dial.ts'
import { responderSettings, tunnelLimits } from '../../lib/server/ikev2-settings.ts'
import { udp } from '../dataplane/packets.ts'
import { dhcpInform } from '../personas/stock-client.ts'
import { DatagramLink, LinkPlane } from '../support/datagram-link.ts'

const serverAddress = '192.0.2.1'
const clientAddress = '198.51.100.10'
const siteKey = 'a long and random key'
const configText = `
server: {name: vpn.example.net}
users:
  - {name: alice, password: secret, maxSessions: 1}
  - {name: bob, password: secret, address: 10.87.0.77}
addresses: {ipv6: 'fd87:1:2::/48', dns: [10.87.0.1]}
ikev2:
  idleTimeoutSeconds: 600
  sites:
    - {identity: branch.example.net, presharedKey: ${siteKey}, remoteNetworks: [10.88.0.0/24]}
`

const directory = `${t.testdir()}/state`
const certificate = ensureOwnCertificate({
  stateDirectory: directory,
  names: ['vpn.example.net'],
  addresses: [serverAddress],
  now: new Date(),
}).pair
const pin = createHash('sha256').update(new X509Certificate(certificate.chainPem).raw).digest()

function setUp(t: Test, more = '', text = configText) {
  const config = parseConfig(text + more, 'test')
  const link = new DatagramLink()
  const clock = new ManualClock(1000)
  const wheel = new TimerWheel(clock.nowMs())
  const host = (address: string, seed: number) => {
    const { dataplane, memoryDevice } = createMemoryDataplane({
      ipv4Address: address === serverAddress ? config.addresses.server : 0,
      clock,
    })
    const { memory } = dataplane
    const database = new SaDatabase<EspOwner>()
    const plane = new LinkPlane(link, memory)
    const sockets = new IkeSockets({
      ...{ plane, memory, esp: new EspReceiver(memory, database), hosts: [address] },
      ...{ takesPlainEsp: false, onLost: () => {} },
    })
    sockets.open()
    dataplane.start()
    t.teardown(() => dataplane.stop())
    const random = new SeededRandom(seed)
    const services = { sockets, sender: plane, memory, database, clock, wheel, random }
    return { dataplane, memoryDevice, services }
  }
  const [server, client] = [host(serverAddress, 1), host(clientAddress, 2)]
  const sessions = new SessionRegistry({ limits: config.limits, clock, wheel })
  const ipv4Pool = new Ipv4Pool({
    ranges: config.addresses.ipv4,
    exclude: [],
    serverAddress: config.addresses.server,
    reserved: () => new Set(),
    isRequestable: false,
  })
  const ipv6Pool = config.addresses.ipv6 && new Ipv6Pool(config.addresses.ipv6)
  const { random } = server.services
  const authorities = new ClientAuthorities([])
  const callServices: Ikev2CallServices = {
    dataplane: server.dataplane,
    sessions,
    authenticator: new LocalAuthenticator({
      users: new ConfigUserStore(config.users ?? []),
      methods: config.auth.methods,
      lockout: new Lockout(config.auth.lockout, clock),
      log: silentLogger,
    }),
    authorities,
    ipv4Pool,
    ipv6Pool,
    wallClock: systemWallClock,
    config,
    settings: responderSettings({ config, certificates: [certificate], authorities, random }),
    limits: tunnelLimits(config),
    reachable: { ipv4: clientSelectors(config, 4), ipv6: clientSelectors(config, 6) },
  }
  const listener = new Ikev2Listener({
    ...server.services,
    calls: new Ikev2Calls(() => callServices),
    halfOpen: defaultHalfOpenLimits,
  })
  const dialler = new Ikev2Dialler(client.services)
  const limits = tunnelLimits(config)
  const peer = { address: serverAddress, port: 500 }
  const dial = (
    userName: string,
    password = 'secret',
    wantsIpv6 = true,
    serverSha256: Uint8Array = pin,
  ) => {
    const call = new Ikev2Dial(
      { userName, password: Secret.fromText(password), serverSha256, wantsIpv6 },
      client.dataplane,
    )
    const settings = call.ikeSettings(client.services.random)
    const connection = dialler.dial(clientAddress, peer, settings, limits, call)
    if (connection === undefined) throw new Error('no socket')
    call.start(connection)
    return call
  }
  return {
    config,
    link,
    clock,
    wheel,
    server,
    client,
    sessions,
    ipv4Pool,
    ipv6Pool,
    listener,
    dialler,
    dial,
  }
}

t.test(
  'a user comes in, gets addresses, carries packets, and everything is given back',
  async t => {
    const { link, server, client, sessions, ipv4Pool, ipv6Pool, dial } = setUp(t)
    const call = dial('alice')
    await link.settle()
    const up = await call.up
    t.equal(formatIpv4(up.ipv4Address ?? 0), '10.87.0.2')
    t.equal(up.ipv6Address?.prefixLength, 64)
    t.same(up.ipv4Dns, [0x0a570001])
    t.match(sessions.list(), [
      {
        state: 'up',
        userName: 'alice',
        protocol: 'ikev2',
        ipv4: '10.87.0.2',
        peer: `${clientAddress}:500`,
      },
    ])
    client.memoryDevice.fromHost(
      udp({ source: '10.87.0.2', destination: '10.87.0.1', payload: new Uint8Array(200) }),
    )
    client.dataplane.flush()
    await link.settle()
    server.dataplane.flush()
    t.match(sessions.list(), [{ receivedPackets: 1, receivedBytes: 228 }])
    client.memoryDevice.fromHost(
      udp({ source: '10.9.9.9', destination: '10.87.0.1', payload: new Uint8Array(10) }),
    )
    client.dataplane.flush()
    await link.settle()
    t.match(sessions.list(), [{ receivedPackets: 1 }], 'another source is outside the selectors')
    t.equal(sessions.disconnect('alice'), 1)
    await link.settle()
    t.match(await call.closed, { detail: 'deleted-by-peer' })
    t.equal(sessions.size, 0)
    t.equal(ipv4Pool.leasedCount, 0)
    t.equal(ipv6Pool?.leasedCount, 0)
    t.equal(server.services.database.size, 0)
  },
)

t.test('a fixed address, IPv4 alone', async t => {
  const { link, dial } = setUp(t)
  const call = dial('bob', 'secret', false)
  await link.settle()
  const up = await call.up
  t.equal(formatIpv4(up.ipv4Address ?? 0), '10.87.0.77')
  t.equal(up.ipv6Address, undefined)
})

t.test('wrong passwords, strangers and too many sessions are refused', async t => {
  const { link, sessions, listener, dial } = setUp(t)
  const wrong = dial('alice', 'wrong')
  const nobody = dial('mallory')
  await link.settle()
  await t.rejects(wrong.up, /ended/)
  await t.rejects(nobody.up, /ended/)
  t.equal(sessions.size, 0)
  const first = dial('alice')
  await link.settle()
  await first.up
  const second = dial('alice')
  await link.settle()
  await t.rejects(second.up, /ended/)
  t.equal(sessions.size, 1)
  t.match(listener.status(), { established: 1, halfOpen: 0 })
})

t.test('who is turned away is told so at once, and does not ask again', async t => {
  const full = setUp(t, 'limits: {sessions: 1}')
  const first = full.dial('alice')
  await full.link.settle()
  await first.up
  const second = full.dial('bob')
  await full.link.settle()
  await t.rejects(second.up, /AUTHENTICATION_FAILED \(authentication-failed\)/, 'too many sessions')
  t.match(full.listener.status(), { established: 1, halfOpen: 0 })
  const small = setUp(t, 'access: all')
  small.ipv4Pool.lease({ userName: 'x', requestedAddress: 0, fixedAddress: 0x0a57004d })
  const bob = small.dial('bob', 'secret', false)
  await small.link.settle()
  await t.rejects(bob.up, /INTERNAL_ADDRESS_FAILURE \(no-address\)/, 'his address is taken')
  t.equal(small.sessions.size, 0)
})

t.test('a split tunnel: selectors tell of it, and so does DHCP inside the tunnel', async t => {
  const split = configText.replace('dns: [10.87.0.1]', 'dns: [9.9.9.9], routes: [10.0.0.0/8]')
  const { config, link, client, dial } = setUp(t, '', split)
  t.same(
    clientSelectors(config, 4).map(({ startAddress, endAddress }) =>
      [startAddress, endAddress].map(toHex),
    ),
    [
      ['0a000000', '0affffff'],
      ['09090909', '09090909'],
      ['ffffffff', 'ffffffff'],
    ],
    'networks, DNS server, and where Windows sends its request to',
  )
  t.same(clientSelectors(config, 6).length, 1, 'all of IPv6')
  const closed = parseConfig(`${configText}access: serveronly`, 'test')
  t.same(
    clientSelectors(closed, 4).map(one => toHex(one.endAddress)),
    ['0a570001', 'ffffffff'],
  )
  const call = dial('bob', 'secret', false)
  await link.settle()
  await call.up
  const inform = dhcpInform(0x0a57004d)
  // The broadcast is Windows' own; our dialler's host only sends to hosts.
  inform.set([10, 87, 0, 1], 16)
  client.memoryDevice.fromHost(inform)
  client.dataplane.flush()
  await link.settle()
  client.dataplane.flush()
  const [answer] = client.memoryDevice.toHost
  t.match(toHex(answer ?? new Uint8Array(0)), /^4500.{20}0a5700010a57004d00430044/)
  t.match(toHex(answer ?? new Uint8Array(0)), /f90f080a0a57000120090909090a570001ff/)
})

/** A client of `name` and the PEM file of its authority, made with the openssl command. */
function clientCertificate(folder: string, name: string) {
  const openssl = (...args: string[]) =>
    execFileSync('openssl', args, { cwd: folder, stdio: ['ignore', 'pipe', 'pipe'] })
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
  openssl(
    ...['req', '-x509', ...key, '-subj', '/CN=ca', '-keyout', 'ca.key', '-out', 'ca.pem'],
    ...['-addext', 'basicConstraints=critical,CA:true'],
  )
  openssl('req', ...key, '-subj', `/CN=${name}`, '-keyout', 'c.key', '-out', 'c.csr')
  openssl(
    ...['x509', '-req', '-in', 'c.csr', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial'],
    ...['-out', 'c.pem'],
  )
  const chain = [Uint8Array.from(new X509Certificate(readFileSync(`${folder}/c.pem`)).raw)]
  return { chain, authorityFile: `${folder}/ca.pem` }
}

t.test('a certificate lets in the user that it names, as that user', async t => {
  const { chain, authorityFile } = clientCertificate(t.testdir(), 'pc7.example.net')
  const { users } = parseConfig(
    `
users:
  - {name: pc7.example.net, password: x, address: 10.87.0.70, groups: [machines], maxSessions: 1}
  - {name: other, password: x}`,
    'test',
  )
  const authorities = ClientAuthorities.load([authorityFile])
  const wallClock = { now: () => new Date(Date.now() + 60_000) }
  const judge = (identity: string, store = new ConfigUserStore(users ?? [])) =>
    judgeCertificate({ authorities, wallClock, users: () => store }, chain, identityOf(identity))
  t.match(judge('PC7.example.net'), {
    type: 'accept',
    authorization: {
      ...{ userName: 'pc7.example.net', ipv4Address: 0x0a570046, maxSessions: 1 },
      groups: ['machines'],
    },
  })
  t.match(judge('10.1.2.3'), { type: 'accept' }, 'an address is no claim')
  t.match(judge('other'), { type: 'reject', detail: 'other-identity' })
  t.match(
    judge('pc7.example.net', new ConfigUserStore([])),
    { type: 'accept', authorization: { userName: 'pc7.example.net', ipv4Address: undefined } },
    'a machine that is no user',
  )
  const [user] = users ?? []
  const judgeAs = (changes: object) =>
    judge('pc7.example.net', new ConfigUserStore(user ? [{ ...user, ...changes }] : []))
  t.match(judgeAs({ dialIn: 'deny' }), { type: 'reject', detail: 'no-dial-in' })
  t.match(judgeAs({ isDisabled: true }), { type: 'reject', detail: 'account-disabled' })
  t.match(judgeAs({ expires: new Date(0) }), { type: 'reject', detail: 'account-expired' })
  const subject = { idType: 9, data: Uint8Array.of(0x30, 0) }
  t.match(judgeCertificate({ authorities, wallClock }, chain, subject), { type: 'reject' })
})

t.test('a server with another certificate is not dialled', async t => {
  const { link, sessions, dial } = setUp(t)
  const call = dial('alice', 'secret', true, new Uint8Array(32))
  await link.settle()
  await t.rejects(call.up, /ended/)
  t.equal(sessions.size, 0)
})

t.test(
  'of a stream with loss, overtaking and repetition everything in the window arrives',
  async t => {
    const { link, client, server, sessions, listener, dial } = setUp(t)
    const call = dial('bob', 'secret', false)
    await link.settle()
    await call.up
    const random = new SeededRandom(1000)
    const share = () => random.next() / 2 ** 32
    const late: { flight: (typeof link.flights)[number]; dueAt: number }[] = []
    const onTime = new Set<object>()
    let [sent, lost, overtaken, repeated] = [0, 0, 0, 0]
    link.onWay = flight => {
      if (flight.to.text !== serverAddress || onTime.has(flight)) return flight
      const luck = share()
      if (luck < 0.01) {
        lost++
        return undefined
      }
      if (luck < 0.04) {
        overtaken++
        late.push({ flight, dueAt: sent + 1 + Math.floor(60 * share()) })
        return undefined
      }
      if (luck < 0.05) {
        repeated++
        late.push({ flight, dueAt: sent + 1 })
      }
      return flight
    }
    const release = (until: number) => {
      for (const one of late.filter(({ dueAt }) => dueAt <= until)) {
        late.splice(late.indexOf(one), 1)
        onTime.add(one.flight)
        link.flights.push(one.flight)
      }
      link.deliver()
    }
    for (; sent < 10_000; sent++) {
      const payload = new Uint8Array(40 + (sent % 1000))
      client.memoryDevice.fromHost(
        udp({ source: '10.87.0.77', destination: '10.87.0.1', payload, id: sent & 0xffff }),
      )
      client.dataplane.flush()
      release(sent)
      server.dataplane.flush()
    }
    release(Number.POSITIVE_INFINITY)
    server.dataplane.flush()
    t.ok(lost > 50 && overtaken > 200 && repeated > 50, `${lost}, ${overtaken}, ${repeated}`)
    t.match(sessions.list(), [{ receivedPackets: sent - lost }])
    const [session] = sessions.list()
    t.equal(session?.receivedPackets, sent - lost, 'each once')
    call.hangUp()
    await link.settle()
    t.match(listener.status().counters, { 'esp-replayed': repeated })
  },
)

t.test('the idle timeout of IKEv2 ends a call', async t => {
  const { link, clock, wheel, dial } = setUp(t)
  const call = dial('alice')
  await link.settle()
  await call.up
  for (let i = 0; i < 70; i++) {
    clock.advance(10_000)
    wheel.advance(clock.nowMs())
    await link.settle()
  }
  t.match(await call.closed, { detail: 'deleted-by-peer' })
})

t.test('a site with a preshared key brings its network, and no address is given', async t => {
  const { config, link, client, server, sessions, ipv4Pool, dialler } = setUp(t)
  const user = new Ikev2Dial(
    {
      ...{ userName: 'x', password: Secret.fromText('x') },
      ...{ serverSha256: pin, wantsIpv6: false },
    },
    client.dataplane,
  )
  const { configurationAttributes: _none, ...base } = user.ikeSettings(client.services.random)
  const secret = Secret.fromText(siteKey)
  const [site] = config.ikev2.sites
  const settings: IkeSettings = {
    ...base,
    localIdentities: [
      { identity: identityOf(site?.identity ?? ''), credential: { type: 'psk', secret } },
    ],
    peer: {
      ...base.peer,
      presharedKeys: [{ identity: identityOf('vpn.example.net'), secret }],
    },
    child: {
      ...base.child,
      localSelectors: [ipv4Selector({ address: 0x0a580000, prefixLength: 24 })],
      remoteSelectors: [ipv4Selector({ address: 0x0a570000, prefixLength: 16 })],
    },
  }
  const limits = tunnelLimits(config)
  const peer = { address: serverAddress, port: 500 }
  const connection = dialler.dial(clientAddress, peer, settings, limits, user)
  if (connection === undefined) throw new Error('no socket')
  user.start(connection)
  await link.settle()
  await user.up
  t.match(sessions.list(), [{ state: 'up', userName: 'branch.example.net' }])
  t.equal(ipv4Pool.leasedCount, 0)
  server.memoryDevice.fromHost(
    udp({ source: '10.87.0.1', destination: '10.88.0.5', payload: new Uint8Array(30) }),
  )
  server.dataplane.flush()
  await link.settle()
  t.match(sessions.list(), [{ sentPackets: 1 }])
  user.hangUp()
  await link.settle()
  t.equal(sessions.size, 0)
})
