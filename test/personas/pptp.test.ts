/** Stock PPTP clients against the server that answers them, over a path that loses and reorders GRE. */
import t, { type Test } from 'tap'
import { concatBytes, putU32, toHex, u32 } from '../../lib/core/bytes.ts'
import { formatIpv4 } from '../../lib/core/ip-address.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { udp } from '../dataplane/packets.ts'
import { secretWord } from '../support/dial-in.ts'
import { mppeRequired, PptpSite, type PptpSiteOptions } from '../support/pptp-site.ts'
import { PptpClient, type PptpClientOptions } from './pptp-client.ts'
import { type PptpPersona, pptpPersona, pptpPersonas } from './pptp-personas.ts'

t.setTimeout(120_000)

async function setUp(t: Test, options: PptpSiteOptions = {}) {
  const site = await PptpSite.open(t, options)
  const dial = (who: PptpPersona, more: Partial<PptpClientOptions> = {}) =>
    new PptpClient(who, { site, userName: 'alice', password: secretWord, ...more })
  return { site, dial }
}

const random = new SeededRandom(4)
const beyond = '192.0.2.9'

function numbered(client: PptpClient, isUp: boolean, sizes: readonly number[]): Uint8Array[] {
  const own = formatIpv4(client.ppp.address)
  return sizes.map((bytes, i) => {
    const payload = new Uint8Array(bytes - 28)
    random.fill(payload)
    payload.set([i >>> 8, i])
    const [source, destination] = isUp ? [own, beyond] : [beyond, own]
    return udp({ source, destination, payload })
  })
}

/** Packets of several sizes both ways, compared byte by byte. */
function exchange(t: Test, site: PptpSite, client: PptpClient): void {
  const sizes = [30, 576, 1280, 1396]
  const { toHost } = site.home.host
  toHost.length = 0
  const up = numbered(client, true, sizes)
  for (const packet of up) client.send(packet)
  site.settle()
  t.same(toHost.map(toHex), up.map(toHex), 'what the client sent reached the host')
  const down = numbered(client, false, sizes)
  client.packets.length = 0
  site.fromHost(...down)
  t.same(client.packets.map(toHex), down.map(toHex), 'what the host sent reached the client')
}

/** Numbers of the packets that arrived, each of which must be one that was sent. */
function numbersOf(arrived: readonly Uint8Array[], sent: readonly Uint8Array[]): number[] {
  const known = new Map(sent.map((packet, i) => [toHex(packet), i]))
  return arrived.map(packet => known.get(toHex(packet)) ?? -1)
}

for (const who of pptpPersonas) {
  t.test(`${who.name}: connects with MPPE-128, moves packets, loses some, leaves`, async t => {
    const { site, dial } = await setUp(t)
    const client = await dial(who).up()
    t.match(site.listener.status(), { connections: 1, unfinished: 0, calls: 1 })
    t.equal(client.ppp.mppe?.isStateless, true, 'encrypted')
    t.match(formatIpv4(client.ppp.address), /^10\.87\.0\.\d+$/)
    t.equal(client.has('call-disconnect-notify'), false)
    exchange(t, site, client)
    const [session] = site.home.sessions.list()

    // GRE is lost and overtaken: what arrives is right, and towards the host in order.
    site.impairment = { lossPercent: 5, reorderPercent: 10 }
    site.home.host.toHost.length = 0
    client.packets.length = 0
    const sizes = Array.from({ length: 150 }, (_, i) => 40 + ((i * 53) % 1300))
    const [up, down] = [numbered(client, true, sizes), numbered(client, false, sizes)]
    for (let i = 0; i < sizes.length; i++) {
      client.send(up[i] ?? new Uint8Array(0))
      site.fromHost(down[i] ?? new Uint8Array(0))
      if (i % 10 === 9) await site.elapse(250)
    }
    site.impairment = { lossPercent: 0, reorderPercent: 0 }
    await site.elapse(1000)
    t.ok(site.lostPackets > 5 && site.reorderedPackets > 10, 'the path is a bad one')
    const arrived = numbersOf(site.home.host.toHost, up)
    t.ok(arrived.length > 125, `${arrived.length} of 150 up`)
    t.ok(
      arrived.every((n, i) => n > (arrived[i - 1] ?? -1)),
      'in order',
    )
    const received = numbersOf(client.packets, down)
    t.ok(received.length > 110, `${received.length} of 150 down`)
    t.notOk(received.includes(-1), 'nothing that was not sent')
    exchange(t, site, client)

    // Ten quiet minutes: echoes of both connections go on, and nothing ends.
    await site.elapse(600_000, 2000)
    t.equal(client.has(who.asksForEcho ? 'echo-reply' : 'echo-request'), true)
    exchange(t, site, client)
    t.equal(site.home.sessions.list()[0]?.id, session?.id, 'one session all the time')
    t.ok(client.acknowledgedByServer > 0)

    await client.leave()
    await site.until(() => site.home.sessions.size === 0)
    await site.until(() => site.listener.status().connections === 0)
    t.same(site.home.causes(), [who.leaves.length === 0 ? 'lost-carrier' : 'user-request'])
    t.same(client.complaints, [])
    const { counters } = site.listener.status()
    if (who.setsLinkInfo) t.ok((counters['set-link-info'] ?? 0) >= 1)
    t.ok((counters['receivedReordered'] ?? 0) > 0)
    t.equal(counters['gre-droppedUnknownCall'] ?? 0, 0)
    t.equal(site.home.of('ppp-closed').length, 1)
  })
}

t.test(
  'Every persona connects over a path that loses and reorders from the first packet',
  async t => {
    for (const who of pptpPersonas) {
      const { site, dial } = await setUp(t)
      site.impairment = { lossPercent: 10, reorderPercent: 10 }
      const client = await dial(who).up(120_000)
      site.impairment = { lossPercent: 0, reorderPercent: 0 }
      await site.elapse(6000)
      t.ok(client.ppp.isUp, who.name)
      t.ok(client.ppp.mppe !== undefined, 'encrypted')
      exchange(t, site, client)
      t.equal(site.home.sessions.size, 1)
      await client.leave()
      await site.until(() => site.home.sessions.size === 0)
      t.same(client.complaints, [], who.name)
    }
  },
)

t.test('Control messages that come byte by byte are the same messages', async t => {
  const { site, dial } = await setUp(t)
  for (const who of pptpPersonas) {
    const client = await dial(who, { writeBytes: 1 }).up()
    exchange(t, site, client)
    await client.leave()
    await site.until(() => site.home.sessions.size === 0)
    t.same(client.complaints, [], who.name)
  }
})

t.test(
  'Every persona that does not encrypt is turned away; where it may, it is served',
  async t => {
    const withoutCcp = (who: PptpPersona): Partial<PptpClientOptions> => ({
      ppp: { networks: who.networks.filter(one => one !== 'ccp'), waitsForEncryption: false },
    })
    const strict = await setUp(t)
    for (const who of pptpPersonas) {
      const client = strict.dial(who, withoutCcp(who))
      await client.connect()
      await strict.site.within(60_000, () => client.ppp.isTerminated || client.isClosed)
      t.notOk(client.ppp.isUp, who.name)
      await strict.site.within(10_000, () => client.has('call-disconnect-notify'))
      client.vanish()
      await strict.site.until(() => strict.site.home.sessions.size === 0)
    }
    t.equal(strict.site.home.of('session-up').length, 0)
    t.equal(strict.site.home.of('call-failed').length, pptpPersonas.length)
    t.match(strict.site.home.of('ppp-closed')[0]?.detail, /no encryption/)
    const lax = await setUp(t, { compression: { ...mppeRequired, encryption: 'optional' } })
    for (const who of pptpPersonas) {
      const client = await lax.dial(who, withoutCcp(who)).up()
      t.equal(client.ppp.mppe, undefined)
      exchange(t, lax.site, client)
      await client.leave()
      await lax.site.until(() => lax.site.home.sessions.size === 0)
    }
  },
)

t.test('A wrong password is told with its code, and the right one is let in after it', async t => {
  const { site, dial } = await setUp(t)
  for (const who of pptpPersonas) {
    const wrong = dial(who, { password: 'not this' })
    await t.rejects(wrong.up(), /E=691/, who.name)
    wrong.vanish()
    await site.until(() => site.listener.status().connections === 0)
    const right = await dial(who).up()
    exchange(t, site, right)
    await right.leave()
    await site.until(() => site.home.sessions.size === 0)
  }
})

t.test('Two clients behind one NAT with the same call id, and one beside them', async t => {
  const { site, dial } = await setUp(t)
  const first = await dial(pptpPersona('Windows 10')).up()
  const second = await dial(pptpPersona('pptp-linux'), {
    ...{ address: '127.0.0.2', userName: 'bob' },
  }).up()
  const third = await dial(pptpPersona('Android 11'), { callId: 0x4001, userName: 'bob' }).up()
  t.equal(site.listener.status().calls, 3)
  t.equal(new Set([first, second, third].map(one => one.ppp.address)).size, 3)
  for (const client of [first, second, third, first]) exchange(t, site, client)
  await first.leave()
  for (const client of [second, third]) exchange(t, site, client)
  for (const client of [second, third]) await client.leave()
  await site.until(() => site.home.sessions.size === 0)
  t.same(
    [first, second, third].flatMap(one => one.complaints),
    [],
  )
})

t.test('Who goes without a word is gone with its connection, or when echoes stay away', async t => {
  const { site, dial } = await setUp(t)
  const cut = await dial(pptpPersona('Windows 11')).up()
  cut.vanish()
  await site.until(() => site.home.sessions.size === 0)
  const deaf = await dial(pptpPersona('Windows 10')).up()
  deaf.goDeaf()
  await site.elapse(200_000, 2000)
  t.equal(site.home.sessions.size, 0)
  t.same(site.home.causes(), ['lost-carrier', 'lost-carrier'])
  deaf.vanish()
  await site.until(() => site.listener.status().connections === 0)
})

t.test('Where windows are obeyed, no persona is left without its packets', async t => {
  const { site, dial } = await setUp(t, { obeysWindow: true })
  for (const who of pptpPersonas) {
    const client = await dial(who).up()
    client.packets.length = 0
    const down = numbered(client, false, Array(60).fill(400))
    for (const packet of down) {
      site.fromHost(packet)
      await site.elapse(250)
    }
    await site.elapse(20_000)
    t.same(numbersOf(client.packets, down), [...down.keys()], who.name)
    await client.leave()
    await site.until(() => site.home.sessions.size === 0)
  }
  t.ok((site.listener.status().counters['receivedAcknowledgments'] ?? 0) > 0)
})

t.test('Forged GRE from the address of a client disturbs it for packets, not for good', async t => {
  const { site, dial } = await setUp(t)
  const client = await dial(pptpPersona('Windows 10')).up()
  exchange(t, site, client)
  // Whoever guesses call id and sequence number chooses the coherency count, too.
  const last = client.outgoing.length
  client.send(numbered(client, true, [100])[0] ?? new Uint8Array(0))
  const [genuine] = client.outgoing.splice(last)
  const header = genuine?.slice(0, 12) ?? new Uint8Array(0)
  const sequence = u32(header, 8)
  for (let i = 0; i < 10; i++) {
    const forged = concatBytes(header, new Uint8Array((genuine?.length ?? 16) - 12))
    random.fill(forged.subarray(12))
    putU32(forged, 8, sequence + i)
    const ahead = 1 + 199 * i
    forged.set([0xff, 0x03, 0x00, 0xfd, 0x90 | (ahead >>> 8), ahead & 0xff], 12)
    site.socket.receive([forged], 0x7f000001)
  }
  for (let i = 0; i < 40; i++) client.send(numbered(client, true, [60])[0] ?? new Uint8Array(0))
  await site.elapse(500)
  exchange(t, site, client)
  await client.leave()
  await site.until(() => site.home.sessions.size === 0)
})

t.test('Whatever a client and the server lose track of, they find each other again', async t => {
  for (const [what, gap] of [
    ['less than half of all counts', 1500],
    ['more than half of them', 3000],
    ['all of them', 4096],
  ] as const) {
    const { site, dial } = await setUp(t)
    const client = await dial(pptpPersona('Windows 10')).up()
    const [packet = new Uint8Array(0)] = numbered(client, true, [60])
    for (let i = 0; i < gap; i++) client.send(packet)
    client.outgoing.length = 0
    const { toHost } = site.home.host
    toHost.length = 0
    let sent = 0
    for (; sent < 200 && toHost.length === 0; sent++) {
      client.send(packet)
      site.settle()
    }
    t.ok(toHost.length > 0, `${what}: after ${sent} packets`)
    await site.elapse(1000)
    exchange(t, site, client)
    await client.leave()
    await site.until(() => site.home.sessions.size === 0)
    t.equal(site.home.of('session-up').length, 1)
  }
})

t.test('Stateful MPPE: garbage and loss ask for a reset, which the client obeys', async t => {
  const compression = { ...mppeRequired, allowsStateful: true, prefersStateful: true }
  const { site, dial } = await setUp(t, { compression })
  const windows = pptpPersona('Windows 7')
  const stateful = { ...windows, encryption: { request: '00000040', wish: '00000040' } }
  const client = await dial(stateful).up()
  t.equal(client.ppp.mppe?.isStateless, false)
  exchange(t, site, client)
  const { toHost } = site.home.host
  const [packet = new Uint8Array(0)] = numbered(client, true, [100])
  // One packet is lost, one is changed on its way: each costs a reset, and no more.
  for (const damage of ['lost', 'changed'] as const) {
    client.send(packet)
    const [frame = new Uint8Array(0)] = client.outgoing.splice(-1)
    if (damage === 'changed') {
      frame.fill(0x5a, 20)
      client.outgoing.push(frame)
      site.settle()
    }
    toHost.length = 0
    for (let i = 0; i < 20 && toHost.length === 0; i++) {
      client.send(packet)
      await site.elapse(250)
    }
    t.ok(toHost.length > 0, damage)
    exchange(t, site, client)
  }
  t.equal(client.ppp.resets, 2)
  client.ppp.askForReset()
  site.settle()
  exchange(t, site, client)
  await client.leave()
  await site.until(() => site.home.sessions.size === 0)
  t.equal(site.home.of('session-up').length, 1)
})
