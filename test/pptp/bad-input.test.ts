/** What strangers and hostile clients send to a whole server with PPTP: bounded, counted, outlived. */
import { connect } from 'node:net'
import t, { type Test } from 'tap'
import { concatBytes, fromHex, putU32, toHex } from '../../lib/core/bytes.ts'
import { formatIpv4 } from '../../lib/core/ip-address.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { encodeFrame, PppProtocol } from '../../lib/ppp/wire/frame.ts'
import { encodeMessage } from '../../lib/pptp/wire/control-message.ts'
import { greCallId, putGreAcknowledgment, putGreData } from '../../lib/pptp/wire/gre.ts'
import { udp } from '../dataplane/packets.ts'
import { PptpClient } from '../personas/pptp-client.ts'
import { pptpPersona } from '../personas/pptp-personas.ts'
import { secretWord } from '../support/dial-in.ts'
import { PptpSite } from '../support/pptp-site.ts'

const loopback = 0x7f000001

/** A server with a Windows client, and GRE as that client would send it. */
async function setUp(t: Test) {
  const site = await PptpSite.open(t)
  const client = await new PptpClient(pptpPersona('Windows 10'), {
    ...{ site, userName: 'alice', password: secretWord },
  }).up()
  const packet = udp({ source: formatIpv4(client.ppp.address), destination: '192.0.2.9' })
  let sequence = 100_000
  // What a packet of the client looks like tells its call id.
  client.send(packet)
  const callId = greCallId(client.outgoing.at(-1) ?? new Uint8Array(8), 0)
  site.settle()
  const { toHost } = site.home.host
  /** Whether the client's packets pass, at once or within a minute. */
  const passes = async () => {
    toHost.length = 0
    await site.within(60_000, () => {
      client.send(packet)
      site.settle()
      return toHost.length > 0
    })
    return toHex(toHost[0] ?? new Uint8Array(0)) === toHex(packet)
  }
  return {
    ...{ site, client, callId, passes },
    count: (name: string) => site.listener.status().counters[name] ?? 0,
    gre: (...packets: Uint8Array[]) => site.socket.receive(packets, loopback),
    skip(count: number): void {
      sequence += count
    },
    /** A frame of the client with the next number, of which the first jumps. */
    frame(payload: Uint8Array): Uint8Array {
      const header = new Uint8Array(12)
      putGreData(header, 0, payload.length, callId, sequence++)
      return concatBytes(header, payload)
    },
  }
}

t.test('A TCP peer that sends a byte a second is closed, before and after it began', async t => {
  const site = await PptpSite.open(t)
  const start = encodeMessage({
    type: 'start-control-connection-request',
    protocolVersion: 0x0100,
    ...pptpPersona('Windows 10').start,
  })
  for (const [begun, counter] of [
    [0, 'closed-setup-timeout'],
    [start.length, 'closed-message-timeout'],
  ] as const) {
    const socket = connect({ host: '127.0.0.1', port: site.port })
    let isClosed = false
    socket.on('error', () => {})
    socket.on('close', () => {
      isClosed = true
    })
    socket.resume()
    await site.until(() => site.listener.status().connections === 1)
    socket.write(start.subarray(0, begun))
    for (let i = 0; i < 60 && site.listener.status().counters[counter] === undefined; i++) {
      if (!isClosed) socket.write(start.subarray(i, i + 1))
      await site.elapse(1000)
    }
    t.equal(site.listener.status().counters[counter], 1)
    await site.until(() => isClosed && site.listener.status().connections === 0)
  }
  t.equal(site.home.sessions.size, 0)
})

t.test('GRE that is none, of no call or from elsewhere is counted; the call goes on', async t => {
  const { site, client, callId, passes, count, gre } = await setUp(t)
  const id = callId.toString(16).padStart(4, '0')
  const acknowledgment = new Uint8Array(12)
  putGreAcknowledgment(acknowledgment, 0, callId ^ 1, 7)
  gre(
    fromHex(`3000880b 0004 ${id} 00000001 ff03c021`),
    fromHex(`3002880b 0004 ${id} 00000001 ff03c021`),
    fromHex(`b001880b 0004 ${id} 00000001 ff03c021`),
    fromHex(`2001880b 0004 ${id} ff03c021`),
    fromHex(`3001880b ffff ${id} 00000001 ff03c021`),
    fromHex(`3001880b 0005 ${id} 00000001 ff03c021`),
    fromHex('3001880b 00'),
    new Uint8Array(0),
    acknowledgment,
  )
  site.socket.receive([fromHex(`3001880b 0004 ${id} 00000001 ff03c021`)], 0xc6336401)
  t.match(
    {
      version: count('gre-malformed-bad-version'),
      flags: count('gre-malformed-bad-flags'),
      overrun: count('gre-malformed-length-overrun'),
      truncated: count('gre-malformed-truncated'),
      unknown: count('gre-droppedUnknownCall'),
      elsewhere: count('gre-droppedWrongSource'),
    },
    { version: 2, flags: 2, overrun: 2, truncated: 2, unknown: 1, elsewhere: 1 },
  )
  t.ok(await passes())
  await client.leave()
})

t.test('Jumps of 65,535 numbers are not followed, and do not stop the client', async t => {
  const { client, callId, passes, count, gre } = await setUp(t)
  for (let i = 1; i <= 50; i++) {
    const packet = new Uint8Array(16)
    putGreData(packet, 0, 4, callId, (i * 65_535) >>> 0)
    packet.set([0xff, 0x03, 0xc0, 0x21], 12)
    gre(packet)
  }
  t.equal(count('droppedJump'), 50)
  t.ok(await passes())
  t.equal(count('lostPackets'), 0)
  await client.leave()
})

t.test('Random GRE payloads, a thousand of them, throw nothing', async t => {
  const { site, client, gre, frame, count } = await setUp(t)
  const random = new SeededRandom(2637)
  for (let i = 0; i < 1000; i++) {
    const payload = new Uint8Array(1 + (random.next() % 120))
    random.fill(payload)
    if (i % 2 === 0) payload.set([0xff, 0x03, 0xc0 & random.next(), 0x21].slice(0, payload.length))
    gre(frame(payload))
  }
  await site.elapse(1000)
  t.ok(count('receivedPackets') >= 990)
  client.vanish()
  await site.until(() => site.home.sessions.size === 0)
})

t.test('A flood of CCP requests, options and resets costs answers, not memory', async t => {
  const { site, client, gre, frame } = await setUp(t)
  const option = fromHex('120601000040')
  const many = concatBytes(...Array.from({ length: 200 }, () => option))
  const ccp = (code: number, id: number, options: Uint8Array) => {
    const head = Uint8Array.of(code, id, (options.length + 4) >>> 8, options.length + 4)
    return encodeFrame(PppProtocol.ccp, concatBytes(head, options))
  }
  const before = site.socket.sent.length
  for (let i = 0; i < 300; i++) gre(frame(ccp(14, i & 0xff, new Uint8Array(0))))
  t.ok(site.socket.sent.length - before <= 10, 'no answers but acknowledgments of GRE')
  for (let i = 0; i < 300; i++) {
    gre(frame(ccp(1, i & 0xff, i % 3 === 0 ? many : i % 3 === 1 ? fromHex('1200') : option)))
  }
  t.ok(site.socket.sent.length - before <= 700, `${site.socket.sent.length - before} answers`)
  await site.elapse(60_000, 1000)
  t.same(site.home.causes(), ['protocol-error'], 'who never settles is ended')
  client.vanish()
  await site.until(() => site.listener.status().connections === 0)
})

t.test(
  'A flood of packets that decrypt to garbage interrupts a call, and does not end it',
  async t => {
    const { site, client, gre, frame, skip, passes } = await setUp(t)
    const random = new SeededRandom(3078)
    for (let burst = 0; burst < 40; burst++) {
      for (let i = 0; i < 250; i++) {
        const payload = new Uint8Array(60)
        random.fill(payload)
        payload.set([0xff, 0x03, 0x00, 0xfd, 0x90 | (random.next() & 15), random.next() & 0xff])
        gre(frame(payload))
      }
      // Whoever forges leaves room for the numbers of the client: it is heard, too.
      client.skipTo(frame(new Uint8Array(0)))
      await site.elapse(250)
      skip(20)
    }
    t.equal(site.home.sessions.size, 1, 'ten thousand of them')
    client.skipTo(frame(new Uint8Array(0)))
    t.ok(await passes())
    t.ok(client.ppp.mppe !== undefined, 'and still encrypted')
    await client.leave()
    await site.until(() => site.home.sessions.size === 0)
    const [closed] = site.home.of('ppp-closed')
    const { 'mppe-garbage': garbage = 0, 'mppe-stale': stale = 0 } = closed?.dropped ?? {}
    t.ok(garbage + stale > 5000, JSON.stringify(closed?.dropped))
    t.equal(site.home.of('compression-down').length, 3, 'new keys every six seconds, and the end')
  },
)

t.test('Whoever forges acknowledgments moves no window', async t => {
  const site = await PptpSite.open(t, { obeysWindow: true })
  const client = await new PptpClient(pptpPersona('MikroTik RouterOS'), {
    ...{ site, userName: 'alice', password: secretWord },
  }).up()
  client.send(udp({ source: formatIpv4(client.ppp.address), destination: '192.0.2.9' }))
  const packet = new Uint8Array(12)
  putGreAcknowledgment(packet, 0, greCallId(client.outgoing.at(-1) ?? packet, 0), 0)
  for (let i = 0; i < 20; i++) {
    putU32(packet, 8, 1_000_000 + i)
    site.socket.receive([packet], loopback)
  }
  t.equal(site.listener.status().counters['droppedAcknowledgments'], 20)
  client.packets.length = 0
  site.fromHost(udp({ source: '192.0.2.9', destination: formatIpv4(client.ppp.address) }))
  t.equal(client.packets.length, 1)
  await client.leave()
})
