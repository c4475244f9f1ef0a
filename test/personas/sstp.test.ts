import t, { type Test } from 'tap'
import type { Authenticator, Verdict } from '../../lib/aaa/authenticator.ts'
import { concatBytes, copyBytes, toHex } from '../../lib/core/bytes.ts'
import { formatIpv4, formatIpv6 } from '../../lib/core/ip-address.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { readPacket, udp } from '../dataplane/packets.ts'
import {
  DialIn,
  type DialInOptions,
  dnsServers,
  secretWord,
  serverIpv4,
} from '../support/dial-in.ts'
import { rsaCertificate } from '../support/sstp-certificates.ts'
import { type AuthenticationName, type Persona, persona, personas } from './personas.ts'
import { contentLength, headText, RawCall } from './raw-call.ts'
import { StockClient, type StockClientOptions } from './stock-client.ts'

const otherCertificate = rsaCertificate()

async function setUp(t: Test, options: DialInOptions = {}) {
  const server = new DialIn(options)
  await server.listener.start()
  t.teardown(async () => {
    await server.stop()
    const leaks = server.leaks()
    if (leaks.length > 0) throw new Error(`lost: ${leaks.join(', ')}`)
  })
  const dial = (who: Persona, more: Partial<StockClientOptions> = {}) =>
    StockClient.dial(who, {
      port: server.port,
      userName: 'alice',
      password: secretWord,
      ...more,
    })
  return { server, dial }
}

const random = new SeededRandom(4)

function payload(bytes: number): Uint8Array {
  const out = new Uint8Array(bytes)
  random.fill(out)
  return out
}

/** Packets of several sizes both ways, compared byte by byte. */
async function exchange(t: Test, server: DialIn, client: StockClient): Promise<void> {
  const own = formatIpv4(client.address)
  const sizes = [28, 29, 576, 1399, 1400]
  await move(t, server, client, sizes, (isUp, bytes) =>
    udp({
      source: isUp ? own : '192.0.2.9',
      destination: isUp ? '192.0.2.9' : own,
      payload: payload(bytes - 28),
    }),
  )
  if (!client.persona.networks.includes('ipv6cp')) return
  const prefix = await prefixOf(client)
  const own6 = formatIpv6(concatBytes(prefix, client.interfaceId))
  await move(t, server, client, [48, 1280, 1400], (isUp, bytes) =>
    udp({
      source: isUp ? own6 : '2001:db8::9',
      destination: isUp ? '2001:db8::9' : own6,
      payload: payload(bytes - 48),
    }),
  )
}

async function move(
  t: Test,
  server: DialIn,
  client: StockClient,
  sizes: readonly number[],
  make: (isUp: boolean, bytes: number) => Uint8Array,
): Promise<void> {
  const up = sizes.map(bytes => make(true, bytes))
  server.host.toHost.length = 0
  for (const packet of up) client.send(packet)
  await server.until(() => server.host.toHost.length >= up.length)
  t.same(server.host.toHost.map(toHex), up.map(toHex), 'what the client sent reached the host')
  const down = sizes.map(bytes => make(false, bytes))
  client.packets.length = 0
  server.host.burstFromHost(down)
  await client.until(({ packets }) => packets.length >= down.length)
  t.same(client.packets.map(toHex), down.map(toHex), 'what the host sent reached the client')
}

/** The /64 out of the newest router advertisement. */
async function prefixOf(client: StockClient): Promise<Uint8Array> {
  await client.until(({ advertisements }) => advertisements.length > 0)
  const packet = client.advertisements.at(-1) ?? new Uint8Array(0)
  // RFC 4861 §4.2: options from the 16th byte of the message on; 3 is Prefix Information.
  const message = readPacket(packet)?.message ?? new Uint8Array(0)
  for (let at = 16; at < message.length; at += 8 * (message[at + 1] ?? 1)) {
    if (message[at] === 3) return copyBytes(message, at + 16, at + 24)
  }
  throw new Error('an advertisement without prefix')
}

for (const who of personas) {
  t.test(
    `${who.name}: dials, moves packets, renegotiates, outlives a certificate, leaves`,
    async t => {
      const { server, dial } = await setUp(t)
      const client = await dial(who)
      await client.up()
      t.equal(client.call.tlsVersion, who.tls)
      t.match(client.call.status, /^HTTP\/1\.1 200 /)
      t.equal(formatIpv4(client.serverAddress), serverIpv4)
      const asksForDns = who.ipcp.filter(([type]) => type === 129 || type === 131).length
      t.same(client.dns.map(formatIpv4), dnsServers.slice(0, asksForDns))
      t.equal(client.authenticatedCount, 1)
      await exchange(t, server, client)
      const { address } = client
      const before = server.sessions.list()[0]

      // The link is negotiated anew, twenty times: same address, one session, nothing forgotten.
      for (let i = 1; i <= 20; i++) {
        await server.elapse(2000)
        client.packets.length = 0
        client.renegotiate()
        await client.until(
          one => one.isUp && one.ipv4Count === i + 1 && one.authenticatedCount === i + 1,
        )
        if (i % 10 === 0) await exchange(t, server, client)
      }
      t.equal(client.address, address, 'the address stayed')
      t.equal(server.sessions.list().length, 1)
      t.equal(server.of('session-up').length, 1)
      const after = server.sessions.list()[0]
      t.equal(after?.id, before?.id)
      t.ok((after?.receivedBytes ?? 0) > (before?.receivedBytes ?? 0), 'usage went on, not back')

      // Another certificate: the call stays, the next one is bound to it.
      server.listener.reloadCertificates([otherCertificate])
      await server.elapse(2000)
      client.packets.length = 0
      client.renegotiate()
      await client.until(one => one.isUp && one.ipv4Count === 22)
      await exchange(t, server, client)
      const second = await dial(who, { userName: 'bob' })
      await second.up()
      t.strictSame(second.call.certificate, otherCertificate.leaf)
      t.not(second.address, address)
      await exchange(t, server, second)
      await second.leave()

      // Keep-alives of PPP and of SSTP.
      client.echo()
      client.call.message('echo-request')
      await client.until(one => one.echoReplies === 1 && one.messages.includes('echo-response'))

      const usage = server.sessions.list()[0]
      await client.leave()
      await server.until(() => server.sessions.size === 0)
      t.same(server.causes(), [who.cause, who.cause])
      const line = server.of('session-down').at(-1)
      t.match(line, {
        user: 'alice',
        ipv4: formatIpv4(address),
        receivedBytes: usage?.receivedBytes,
        sentBytes: usage?.sentBytes,
      })
      t.same(client.complaints, [])
      const speaksIpv6 = who.networks.includes('ipv6cp')
      t.equal(typeof usage?.ipv6, speaksIpv6 ? 'string' : 'undefined')
      t.same(
        client.rejectedProtocols,
        who.triesProtocol === undefined ? [] : Array(22).fill(who.triesProtocol),
      )
    },
  )
}

for (const method of ['pap', 'chap-md5'] as const) {
  const names = { pap: 'pap', 'chap-md5': 'chap' } as const
  const able = personas.filter(who => who.authentication.includes(method))
  t.test(
    `${able.map(who => who.name).join(', ')}: asks for ${method} and binds with zeros`,
    async t => {
      const { server, dial } = await setUp(t, { methods: ['mschapv2', names[method]] })
      for (const who of able) {
        const authentication: readonly AuthenticationName[] = [method]
        const client = await (await dial(who, { authentication })).up()
        await exchange(t, server, client)
        client.renegotiate()
        await client.until(one => one.isUp && one.ipv4Count === 2)
        await client.leave()
      }
      await server.until(() => server.sessions.size === 0)
      t.same(
        server.causes(),
        able.map(who => who.cause),
      )
    },
  )
}

t.test('A client that knows only PAP is not let in where only MS-CHAPv2 is allowed', async t => {
  const { server, dial } = await setUp(t, { methods: ['mschapv2'] })
  const client = await dial(persona('Open SSTP Client (Android)'), { authentication: ['pap'] })
  await client.until(one => one.messages.includes('call-disconnect') || one.call.isClosed)
  t.same(server.of('session-up'), [])
  client.call.destroy()
  await server.until(() => server.sessions.size === 0)
  t.equal(server.of('call-failed').length, 1)
})

t.test('Every persona waits for a slow verdict and repeats its proof meanwhile', async t => {
  const waiting: (() => void)[] = []
  const judge = new DialIn().authenticator
  const slow: Authenticator = {
    authenticate: request =>
      new Promise<Verdict>(resolve => {
        waiting.push(() => {
          judge.authenticate(request).then(resolve, () => undefined)
        })
      }),
  }
  const { server, dial } = await setUp(t, { authenticator: slow })
  for (const who of personas) {
    const client = await dial(who, { proofs: 3 })
    await server.until(() => waiting.length === 1)
    await server.elapse(9_000)
    t.equal(client.authenticatedCount, 0, `${who.name} knows nothing yet`)
    for (const go of waiting.splice(0)) go()
    await client.up()
    t.equal(waiting.length, 0, 'a repeated proof is not judged again')
    await exchange(t, server, client)
    await client.leave()
  }
  await server.until(() => server.sessions.size === 0)
  t.equal(server.of('session-up').length, personas.length)
})

t.test('Windows asks for the address of before and for routes; neither does harm', async t => {
  const { server, dial } = await setUp(t)
  const windows = persona('Windows 10')
  const wishful: Persona = {
    ...windows,
    ipcp: [[3, toHex(Uint8Array.of(192, 168, 77, 5))], ...windows.ipcp.slice(1)],
  }
  const client = await (await dial(wishful)).up()
  t.ok(server.ipv4Pool.isLeased(client.address), 'it got one of ours')
  await client.until(({ advertisements }) => advertisements.length === 2)
  t.equal(server.of('identification').length, 3)
  t.same(
    server.of('identification').map(line => line.text),
    ['MSRASV5.20', 'MSRAS-0-DESKTOP-7F3K2', undefined],
    'the raw bytes are no text',
  )
  t.same(server.host.toHost, [], 'DHCPINFORM is a matter of the link, not of the host')
  await exchange(t, server, client)
  await client.leave()
})

t.test('No IPv6 here: Windows hears a Protocol-Reject and goes on with IPv4', async t => {
  const { server, dial } = await setUp(t, { hasIpv6: false })
  const client = await dial(persona('Windows 11'))
  await client.until(one => one.isBound && one.ipv4Count === 1)
  await client.until(one => one.rejectedProtocols.includes(0x8057))
  const down = udp({ source: '192.0.2.9', destination: formatIpv4(client.address) })
  server.host.fromHost(down)
  await client.until(one => one.packets.length === 1)
  t.strictSame(client.packets[0], down)
  await client.leave()
})

t.test('A peer that asks for an echo every 2.5 s is answered each time (SoftEther)', async t => {
  const { server, dial } = await setUp(t)
  const client = await (await dial(persona('MikroTik RouterOS'))).up()
  for (let i = 1; i <= 20; i++) {
    await server.elapse(2_500)
    client.call.message('echo-request')
    const answers = () => client.messages.filter(name => name === 'echo-response').length
    await client.until(() => answers() === i)
  }
  t.equal(server.sessions.upCount, 1)
  await client.leave()
})

t.test(
  'A silent client is asked by LCP, lives while it answers, and is gone when it does not',
  async t => {
    const { server, dial } = await setUp(t)
    const client = await (await dial(persona('sstp-client with pppd'))).up()
    await server.elapse(600_000, 5_000)
    t.equal(server.sessions.upCount, 1, 'ten minutes of answers to Echo-Requests')
    client.call.stopReading()
    await server.elapse(200_000, 5_000)
    t.same(server.causes(), ['lost-carrier'])
    client.call.destroy()
    await server.until(() => server.listener.status().connections === 0)
  },
)

t.test('An abort is an end too, and a call that was never bound carries no IP', async t => {
  const { server, dial } = await setUp(t)
  const client = await (await dial({ ...persona('Windows 10'), leaves: 'abort' })).up()
  await client.leave()
  await server.until(() => server.sessions.size === 0)
  t.same(server.causes(), ['protocol-error'])

  const unbound = await dial(persona('Windows 10'), { doesNotBind: true })
  await unbound.until(one => one.ipv4Count === 1 && one.ipv6Count === 1)
  unbound.send(udp({ source: formatIpv4(unbound.address), destination: '192.0.2.9' }))
  server.host.fromHost(udp({ source: '192.0.2.9', destination: formatIpv4(unbound.address) }))
  unbound.echo()
  await unbound.until(one => one.echoReplies === 1)
  t.same(server.host.toHost, [])
  t.same(unbound.packets, [])
  await server.elapse(61_000, 1_000)
  await unbound.until(one => one.messages.includes('call-abort'))
  unbound.call.destroy()
  await server.until(() => server.sessions.size === 0)
  t.equal(server.of('session-up').length, 1, 'it never came up')
  t.equal(server.of('call-failed').at(-1)?.cause, 'setup-timeout')
  const dropped = server.of('ppp-closed').at(-1)
  t.ok(Number(dropped?.droppedIpPackets) >= 1, 'what came was counted')
})

t.test('Somebody else gets a 404, also when the request is almost right', async t => {
  const { server } = await setUp(t)
  for (const head of [
    'GET / HTTP/1.1\r\nHost: vpn.example.net\r\n\r\n',
    headText('Content-Length: 0').replace('SSTP_DUPLEX_POST', 'POST'),
    headText(contentLength).replace('sra_', 'sra-'),
  ]) {
    const call = await RawCall.open({ port: server.port, head })
    await server.until(() => call.status !== '')
    t.match(call.status, /^HTTP\/1\.1 404 /)
    await server.until(() => call.isClosed)
  }
  t.equal(server.count('not-sstp'), 3)
})
