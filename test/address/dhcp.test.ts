/** Addresses from DHCP servers, by hand and from Debian's dnsmasq; DHCPINFORM passed on. */
import { execFileSync, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import t from 'tap'
import { readJournal, writeJournal } from '../../lib/address/dhcp/dhcp-journal.ts'
import { InformRelay } from '../../lib/address/dhcp/inform-relay.ts'
import { DhcpMessageType, DhcpOption } from '../../lib/address/wire/dhcp.ts'
import {
  checkDhcpMessage,
  type DhcpMessage,
  dhcpMessageBytes,
  encodeDhcpMessage,
  linkSelection,
  parseDhcpMessage,
  relayed,
} from '../../lib/address/wire/dhcp-message.ts'
import { putUdpHeaders, udpPayloadAt } from '../../lib/address/wire/udp-packet.ts'
import { fromHex, toHex, u16, u32 } from '../../lib/core/bytes.ts'
import { ManualClock } from '../../lib/core/clock.ts'
import { WireFault } from '../../lib/core/faults.ts'
import { bytesOf, DhcpLine, dhcpServer, four, ip, link, relay } from './dhcp-line.ts'

const seed = 20261121
const first = ip('10.87.0.20')
const alice = { userName: 'Alice' }

t.test('messages survive encoding, and any bytes are parsed or refused', async t => {
  const message = fc.record({
    op: fc.constantFrom(1, 2),
    transactionId: fc.nat(0xffffffff),
    seconds: fc.nat(0xffff),
    clientAddress: fc.nat(0xffffffff),
    yourAddress: fc.nat(0xffffffff),
    relayAddress: fc.nat(0xffffffff),
    hardwareAddress: fc.uint8Array({ minLength: 6, maxLength: 6 }),
    options: fc
      .uniqueArray(fc.tuple(fc.integer({ min: 1, max: 254 }), fc.uint8Array({ maxLength: 600 })), {
        selector: ([code]) => code,
        maxLength: 6,
      })
      .map(list => {
        const others = list.filter(([code]) => code !== DhcpOption.messageType)
        return new Map([[DhcpOption.messageType, Uint8Array.of(2)], ...others])
      }),
  })
  fc.assert(
    fc.property(message, one => {
      const bytes = new Uint8Array(dhcpMessageBytes(one) + 3).fill(0xa5)
      t.equal(encodeDhcpMessage(one, bytes), bytes.length - 3)
      t.equal(toHex(bytes.subarray(-3)), 'a5a5a5', 'not one byte more')
      const whole = bytes.subarray(0, -3)
      t.equal(checkDhcpMessage(whole), WireFault.none)
      t.same(parseDhcpMessage(whole), one)
    }),
    { seed, numRuns: 60 },
  )
  const good = bytesOf(discover())
  fc.assert(
    fc.property(fc.nat(good.length - 1), fc.nat(255), fc.nat(good.length), (at, value, end) => {
      const bad = good.slice(0, end)
      bad[at] = value
      if (checkDhcpMessage(bad) === WireFault.none) parseDhcpMessage(bad)
      relayed(bad, first, relay, linkSelection(link))
    }),
    { seed, numRuns: 2000 },
  )
})

t.test('an address is asked for, taken, renewed in time and given back', async t => {
  const line = new DhcpLine()
  const leased = line.leases.lease(alice)
  t.type(leased, Promise)
  const [asked] = line.sent
  t.equal(asked?.server, undefined, 'all servers are asked')
  t.equal(asked?.client, 'vpn/alice/1')
  t.equal(asked?.message.relayAddress, relay)
  t.same(asked?.message.options.get(DhcpOption.relayAgentInformation), linkSelection(link))
  t.equal((asked?.message.hardwareAddress[0] ?? 0) & 3, 2, 'a locally administered address')
  line.give(first)
  t.same(await leased, { type: 'leased', address: first })
  const [, requested] = line.sent
  t.equal(requested?.message.transactionId, asked?.message.transactionId)
  t.same(requested?.message.options.get(DhcpOption.requestedAddress), four(first))
  t.same(requested?.message.options.get(DhcpOption.serverIdentifier), four(dhcpServer))
  t.same(line.take(), ['discover', 'request'])

  line.advance(1_799_000)
  t.same(line.take(), [])
  line.advance(1100)
  const renewal = line.sent.at(-1)
  t.equal(renewal?.server, dhcpServer, 'the server that gave it')
  t.equal(renewal?.message.clientAddress, first)
  t.notOk(renewal?.message.options.has(DhcpOption.requestedAddress), 'RFC 2131 table 5')
  line.answer(renewal, 'ack', first)
  line.take()
  line.advance(1_700_000)
  t.same(line.take(), [], 'the time begins anew')

  t.ok(line.leases.release(first))
  const released = line.sent.at(-1)
  t.equal(released?.server, dhcpServer)
  t.equal(released?.message.clientAddress, first)
  t.same(line.take(), ['release'])
  t.notOk(line.leases.release(first))
  line.advance(4_000_000)
  t.same(line.take(), [], 'and that is all')
  t.same(line.leases.counters.toJSON(), {
    'dhcp-leased': 1,
    'dhcp-released': 1,
    'dhcp-renewed': 1,
  })
})

t.test('the server may say when to renew and when to ask others', async t => {
  const line = new DhcpLine()
  line.ask('Alice')
  line.give(first, [
    [DhcpOption.renewalTime, four(5)],
    [DhcpOption.rebindingTime, four(30)],
    [DhcpOption.leaseTime, four(300)],
  ])
  line.take()
  line.advance(5000)
  t.equal(line.sent.at(-1)?.server, dhcpServer)
  line.advance(25_000)
  t.equal(line.sent.at(-1)?.server, undefined, 'now all')
  t.same(line.take(), ['request', 'request'])
  line.advance(240_000)
  t.ok(line.take().length >= 1, 'again after a while')
  line.advance(31_000)
  t.same(line.lost, [[first, 'expired']])
  t.equal(line.leases.leasedCount, 0)
  t.same(line.leases.journal(), [])
})

t.test('what gets lost is sent again after 1 and 2 seconds; after 7 it is given up', async t => {
  const line = new DhcpLine()
  const leased = line.leases.lease(alice)
  line.advance(8000)
  t.same(
    line.sent.map(({ atMs }) => Math.round(atMs / 1000)),
    [0, 1, 3],
  )
  t.equal(new Set(line.sent.map(({ message }) => message.transactionId)).size, 1)
  t.equal(line.sent.at(-1)?.message.seconds, 3)
  t.same(await leased, { type: 'refused', reason: 'no-answer' })
  line.answer(line.sent.at(-1), 'offer', first)
  t.same(line.leases.counters.toJSON(), { 'dhcp-refused-no-answer': 1 })
})

t.test('a refusal begins anew while asking, and ends the lease later', async t => {
  const line = new DhcpLine()
  const leased = line.leases.lease(alice)
  line.answer(line.sent.at(-1), 'offer', first)
  line.answer(line.sent.at(-1), 'nak', 0)
  t.same(line.take(), ['discover', 'request', 'discover'])
  line.ask('bob')
  line.take()
  line.advance(1000)
  line.sent.splice(1)
  line.give(first)
  t.same(await leased, { type: 'leased', address: first })
  line.advance(1_800_100)
  const renewal = line.sent.filter(({ client }) => client === 'vpn/alice/1').at(-1)
  line.answer(renewal, 'nak', 0)
  t.same(line.lost, [[first, 'taken-back']])
})

t.test(
  'an address that is in use here is declined, one that is not routed here ignored',
  async t => {
    const line = new DhcpLine()
    t.same(line.leases.lease({ userName: 'fixed', fixedAddress: first }), {
      type: 'leased',
      address: first,
    })
    const leased = line.leases.lease(alice)
    line.answer(line.sent.at(-1), 'offer', ip('192.168.1.5'))
    t.same(line.take().length, 1, 'no request for it')
    line.advance(1000)
    line.give(first)
    const declined = line.sent.find(({ type }) => type === DhcpMessageType.decline)
    t.same(declined?.message.options.get(DhcpOption.requestedAddress), four(first))
    t.equal(declined?.message.clientAddress, 0)
    t.same(line.take(), ['discover', 'request', 'decline', 'discover'])
    line.advance(1000)
    line.give(first + 1)
    t.same(await leased, { type: 'leased', address: first + 1 })
    const own = line.leases.lease({ userName: 'bob', fixedAddress: first + 1 })
    t.same(own, { type: 'refused', reason: 'in-use' })
    t.match(line.leases.counters.toJSON(), { 'dhcp-declined-in-use': 1, 'dhcp-offer-outside': 1 })
    t.ok(line.leases.release(first), 'that of the user')

    const stubborn = line.leases.lease({ userName: 'carol' })
    for (let i = 0; i < 3; i++) line.give(first + 1)
    t.same(await stubborn, { type: 'refused', reason: 'in-use' }, 'not for ever')
  },
)

t.test('users have as many clients as sessions; pools with a name stay ours', async t => {
  const line = new DhcpLine()
  const one = line.leases.lease(alice)
  line.give(first)
  const two = line.leases.lease({ userName: 'ALICE', requestedAddress: first + 9 })
  t.same(line.sent.at(-1)?.message.options.get(DhcpOption.requestedAddress), four(first + 9))
  line.give(first + 1)
  t.same([(await one).type, (await two).type], ['leased', 'leased'])
  t.same([...new Set(line.sent.map(({ client }) => client))], ['vpn/alice/1', 'vpn/alice/2'])
  line.leases.release(first)
  line.take()
  line.ask('Alice')
  t.equal(line.sent.at(-1)?.client, 'vpn/alice/1', 'the free name again')
  const pooled = line.leases.lease({ ...alice, poolName: 'staff' })
  t.same(pooled, { type: 'leased', address: ip('10.88.0.1') })
  t.ok(line.leases.release(ip('10.88.0.1')))
})

t.test('what a killed server had is found again by its users, or given back', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'openras-dhcp-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const file = join(folder, 'dhcp-leases.json')
  t.same(readJournal(file), [])
  writeFileSync(file, '{"version":1,"leases":[{"client":5}]}', { mode: 0o600 })
  t.same(readJournal(file), [], 'what cannot be understood is nothing')

  const line = new DhcpLine()
  for (const [i, userName] of ['alice', 'bob', 'carol'].entries()) {
    line.ask(userName)
    line.give(first + i)
  }
  t.equal(line.changes, 3)
  writeJournal(file, line.leases.journal())
  line.take()

  const after = line.restart()
  after.restore(readJournal(file))
  t.same(after.journal(), readJournal(file), 'a second death loses nothing')
  const again = after.lease(alice)
  const rebooting = line.sent.at(-1)
  t.same(rebooting?.message.options.get(DhcpOption.requestedAddress), four(first))
  t.notOk(rebooting?.message.options.has(DhcpOption.serverIdentifier), 'INIT-REBOOT, table 5')
  line.answer(rebooting, 'ack', first)
  t.same(await again, { type: 'leased', address: first })
  const refused = after.lease({ userName: 'bob' })
  line.answer(line.sent.at(-1), 'nak', 0)
  line.give(first + 7)
  t.same(await refused, { type: 'leased', address: first + 7 }, 'another one')
  t.same(line.take(), ['request', 'request', 'discover', 'request'])

  line.advance(299_000)
  t.same(line.take(), [])
  line.advance(2000)
  t.equal(line.sent.at(-1)?.client, 'vpn/carol/1')
  t.same(line.take(), ['release'])
  t.same(
    after.journal().map(({ client }) => client),
    ['vpn/alice/1', 'vpn/bob/1'],
  )

  const waiting = after.lease({ userName: 'dave' })
  after.stop()
  t.same(await waiting, { type: 'refused', reason: 'no-answer' })
  t.same(line.take(), ['discover', 'release', 'release'])
  t.same(after.journal(), [])
})

t.test('what is no answer to a question changes nothing and is counted', async t => {
  const line = new DhcpLine()
  line.ask('Alice')
  const [asked] = line.sent
  if (asked === undefined) return
  line.leases.receive(new Uint8Array(10))
  line.leases.receive(bytesOf({ ...asked.message, op: 1 }))
  line.leases.receive(bytesOf({ ...asked.message, op: 2, transactionId: 5 }))
  line.leases.receive(bytesOf({ ...asked.message, op: 2 }))
  line.answer(asked, 'ack', first)
  t.notOk(
    line.leases.receive(bytesOf({ ...asked.message, hardwareAddress: new Uint8Array(6) })),
    'of nobody here',
  )
  line.answer(asked, 'offer', first)
  line.answer(asked, 'offer', first + 1)
  line.answer(asked, 'ack', first + 1)
  line.answer(asked, 'ack', first, [[DhcpOption.leaseTime, four(0)]])
  line.answer(asked, 'release', first)
  t.equal(line.leases.leasedCount, 0)
  line.answer(asked, 'ack', first)
  line.answer(asked, 'ack', first)
  t.same(line.leases.counters.toJSON(), {
    'dhcp-answer-while-bound': 1,
    'dhcp-bad-ack': 2,
    'dhcp-leased': 1,
    'dhcp-malformed-truncated': 1,
    'dhcp-not-answer': 1,
    'dhcp-not-offer': 1,
    'dhcp-not-reply': 1,
    'dhcp-other-transaction': 1,
    'dhcp-without-server': 1,
  })
  fc.assert(
    fc.property(
      fc.nat(asked.message.hardwareAddress.length),
      fc.uint8Array({ maxLength: 400 }),
      (_, any) => {
        line.leases.receive(any)
      },
    ),
    { seed, numRuns: 300 },
  )
})

function discover(): DhcpMessage {
  return {
    op: 1,
    transactionId: 0x11223344,
    seconds: 0,
    clientAddress: first,
    yourAddress: 0,
    relayAddress: 0,
    hardwareAddress: fromHex('0200c0a80001'),
    options: new Map([
      [DhcpOption.messageType, Uint8Array.of(DhcpMessageType.inform)],
      [DhcpOption.parameterRequestList, Uint8Array.of(6, 15, 249)],
    ]),
  }
}

function packetOf(message: DhcpMessage): Uint8Array {
  const payload = bytesOf(message)
  const packet = new Uint8Array(udpPayloadAt + payload.length)
  packet.set(payload, udpPayloadAt)
  const ends = { source: first, destination: 0xffffffff, sourcePort: 68, destinationPort: 67 }
  putUdpHeaders(packet, packet.length, ends)
  return packet
}

t.test(
  'DHCPINFORM goes to the servers with our address, and the answer into the tunnel',
  async t => {
    const clock = new ManualClock()
    const sent: Uint8Array[] = []
    const heard: Uint8Array[] = []
    const relaying = new InformRelay({
      relayAddress: relay,
      linkAddress: link,
      clock,
      send: bytes => sent.push(bytes),
    })
    const session = relaying.link(first, packet => heard.push(packet))
    session.answer(packetOf(discover()))
    const [asked] = sent
    if (asked === undefined) throw new Error('nothing was sent')
    t.equal(checkDhcpMessage(asked), WireFault.none)
    t.equal(asked[3], 1, 'one hop')
    const { relayAddress, options, transactionId } = parseDhcpMessage(asked)
    t.equal(relayAddress, relay)
    t.same([...options.keys()], [53, 55, 82])

    const answer = bytesOf({
      ...discover(),
      op: 2,
      transactionId,
      options: new Map([
        [DhcpOption.messageType, Uint8Array.of(DhcpMessageType.ack)],
        [DhcpOption.serverIdentifier, four(dhcpServer)],
      ]),
    })
    relaying.receive(answer)
    const [packet] = heard
    if (packet === undefined) throw new Error('nothing was heard')
    t.same([u32(packet, 12), u32(packet, 16)], [link, first])
    t.same([u16(packet, 20), u16(packet, 22)], [67, 68])
    t.same(packet.subarray(udpPayloadAt), answer, 'as the server wrote it')

    relaying.receive(answer)
    session.answer(packetOf(discover()))
    clock.advance(1000)
    session.answer(packetOf({ ...discover(), clientAddress: first + 1 }))
    session.answer(packetOf({ ...discover(), relayAddress: link }))
    session.answer(packetOf({ ...discover(), options: new Map([[53, Uint8Array.of(1)]]) }))
    session.answer(packetOf(discover()).subarray(0, 100))
    session.answer(new Uint8Array(40))
    relaying.receive(new Uint8Array(40))
    t.equal(sent.length, 1)
    session.answer(packetOf({ ...discover(), clientAddress: 0 }))
    t.equal(sent.length, 2)
    t.equal(parseDhcpMessage(sent[1] ?? asked).clientAddress, first, 'Windows does not tell it')
    session.close()
    relaying.receive(answer)
    t.equal(heard.length, 1, 'nobody is there')
    t.same(relaying.counters.toJSON(), {
      'dhcp-inform-answered': 1,
      'dhcp-inform-relayed': 2,
      'dhcp-inform-too-often': 1,
      'dhcp-inform-unasked': 2,
      'dhcp-malformed-length-overrun': 1,
      'dhcp-malformed-truncated': 1,
      'dhcp-not-inform': 1,
      'dhcp-other-address': 1,
      'dhcp-relayed': 1,
    })
  },
)

function whyNoDnsmasq(): string | false {
  if (process.getuid?.() !== 0) return 'network namespaces need root'
  return existsSync('/usr/sbin/dnsmasq') ? false : 'dnsmasq is not installed'
}

t.test(
  "Debian's dnsmasq leases, renews, knows users again and gets everything back",
  { skip: whyNoDnsmasq() },
  async t => {
    const folder = mkdtempSync(join(tmpdir(), 'openras-dnsmasq-'))
    const [here, there] = [`eap${process.pid}a`, `eap${process.pid}b`]
    for (const name of [here, there]) execFileSync('ip', ['netns', 'add', name])
    t.teardown(() => {
      for (const name of [here, there]) execFileSync('ip', ['netns', 'del', name])
      rmSync(folder, { recursive: true })
    })
    const run = (name: string, ...args: string[]) => execFileSync('ip', ['-n', name, ...args])
    run(here, 'link', 'add', 'veth0', 'type', 'veth', 'peer', 'name', 'veth0', 'netns', there)
    for (const [name, address] of [
      [here, '192.0.2.2/24'],
      [there, '192.0.2.1/24'],
    ] as const) {
      run(name, 'addr', 'add', address, 'dev', 'veth0')
      run(name, 'link', 'set', 'veth0', 'up')
      run(name, 'link', 'set', 'lo', 'up')
    }
    const leaseFile = join(folder, 'leases')
    const options =
      '--keep-in-foreground --conf-file=/dev/null --port=0 --interface=veth0 --bind-interfaces ' +
      '--user=root --no-ping --dhcp-range=10.87.0.20,10.87.0.60,255.255.0.0,120 ' +
      `--pid-file=${folder}/pid --dhcp-leasefile=${leaseFile}`
    const inside = ['netns', 'exec', there, '/usr/sbin/dnsmasq', ...options.split(' ')]
    const dnsmasq = spawn('ip', inside, { stdio: 'ignore' })
    t.teardown(() => dnsmasq.kill())
    const program = fileURLToPath(new URL('./dhcp-process.ts', import.meta.url))
    const child = spawn(
      'ip',
      ['netns', 'exec', here, process.execPath, ...process.execArgv, program, leaseFile, folder],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    let said = ''
    child.stdout.on('data', chunk => {
      said += String(chunk)
    })
    await new Promise(resolve => child.once('exit', resolve))
    const told: unknown = JSON.parse(said)
    t.match(told, {
      relay: '192.0.2.2',
      users: [/^10\.87\.0\.[2-6]\d$/, /^10\.87\.0\.[2-6]\d$/, /^10\.87\.0\.[2-6]\d$/],
      isApart: true,
      held: 3,
      isRenewed: true,
      isSameAgain: true,
      isSameAfterRestart: true,
      inform: { type: 'ack', isLinkSource: true },
    })
    t.equal(readFileSync(leaseFile, 'utf8').trim(), '', 'dnsmasq has everything back')
  },
)
