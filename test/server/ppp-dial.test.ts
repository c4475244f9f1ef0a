import { createHash, X509Certificate } from 'node:crypto'
import t from 'tap'
import { SeededRandom } from '../../lib/core/random.ts'
import { Secret } from '../../lib/core/secret.ts'
import { createMemoryDataplane } from '../../lib/dataplane/index.ts'
import { PppDial } from '../../lib/server/ppp-dial.ts'
import { SstpDialler } from '../../lib/sstp/index.ts'
import { udp } from '../dataplane/packets.ts'
import { DialIn, firstCertificate, ipv4, secretWord } from '../support/dial-in.ts'

/** Our client with a dataplane of its own, dialling `server` in the same process. */
function dialler(server: DialIn, password = secretWord) {
  const { clock, wheel, log } = server
  const { dataplane, memoryDevice: host } = createMemoryDataplane({ mtuBytes: 1400, clock })
  dataplane.start()
  const services = { dataplane, clock, wheel, log, random: new SeededRandom(4) }
  const dial = new PppDial(
    {
      userName: 'alice',
      password: Secret.fromText(password),
      authentication: ['mschapv2'],
      mruBytes: 1400,
      wantsIpv6: true,
    },
    services,
  )
  const { raw } = new X509Certificate(firstCertificate.cert)
  const sha256 = Uint8Array.from(createHash('sha256').update(raw).digest())
  const call = new SstpDialler(services).dial({
    host: '127.0.0.1',
    port: server.port,
    proof: { type: 'pinned', sha256 },
    links: dial,
  })
  return { dial, call, dataplane, host }
}

t.test('we dial ourselves: addresses, packets both ways, a new negotiation, the end', async t => {
  const server = new DialIn()
  await server.listener.start()
  t.teardown(() => server.stop())
  const { dial, call, dataplane, host } = dialler(server)
  await call
  const up = await dial.up
  t.equal(up.peerAddress, ipv4('10.87.0.1'))
  t.same(up.dns, ['10.87.0.53', '10.87.0.54'].map(ipv4))
  const ours = '10.87.0.10'
  t.equal(up.localAddress, ipv4(ours))
  const out = udp({ source: ours, destination: '192.0.2.1' })
  const back = udp({ source: '192.0.2.1', destination: ours })
  for (const round of ['at first', 'after a renegotiation']) {
    host.fromHost(out)
    dataplane.flush()
    await server.until(() => server.host.toHost.length > 0)
    t.same(server.host.toHost.splice(0), [out], `the server's host got it ${round}`)
    server.host.fromHost(back)
    server.dataplane.flush()
    await server.until(() => host.toHost.length > 0)
    t.same(host.toHost.splice(0), [back], `and we its answer ${round}`)
    if (round !== 'at first') break
    dial.renegotiate()
    await server.until(() => server.of('renegotiating').length > 0)
    await server.elapse(1000, 100)
  }
  dial.hangUp()
  t.match(await dial.closed, { cause: 'user-request' })
  await server.until(() => server.sessions.size === 0)
  t.same(server.causes(), ['user-request'])
})

t.test('a wrong password is a failed call with its reason, and a dial dials once', async t => {
  const server = new DialIn()
  await server.listener.start()
  t.teardown(() => server.stop())
  const { dial, call } = dialler(server, 'wrong')
  await call
  await t.rejects(dial.up, { code: 'ERR_CONNECT' })
  t.equal((await dial.closed).cause, 'authentication-failed')
  await server.until(() => server.sessions.size === 0)
  t.equal(server.of('session-up').length, 0)
})
