/** DHCPv6 on a link: what there is beside the address, and one prefix for a client that is a router. */
import fc from 'fast-check'
import t from 'tap'
import { Dhcpv6Responder, serverDuid } from '../../lib/address/dhcpv6-responder.ts'
import {
  checkDhcpv6Request,
  isForDhcpv6Server,
  parseDhcpv6Request,
} from '../../lib/address/wire/dhcpv6.ts'
import { concatBytes, fromHex, putU16, toHex, u16 } from '../../lib/core/bytes.ts'
import { type Ipv6Network, parseIpv6, parseIpv6Network } from '../../lib/core/ip-address.ts'

const seed = 20261121
const ip6 = (text: string) => parseIpv6(text) ?? new Uint8Array(16)
const prefix = (text: string): Ipv6Network =>
  parseIpv6Network(text) ?? { address: new Uint8Array(16), prefixLength: 0 }
const ours = ip6('fe80::1')
const client = ip6('fe80::c1')
const serverId = serverDuid('vpn')
const serverOption = `0002 0012 ${toHex(serverId)}`
const clientOption = '0001 000a 00030001020304050607'
const delegated = prefix('2001:db8:8000:100::/56')

/** One's-complement sum over pseudo-header and UDP: ffff when the checksum is right. */
function sumOf(packet: Uint8Array): number {
  let sum = packet.length - 40 + 17
  for (let at = 8; at < packet.length; at += 2) {
    sum += (packet[at] ?? 0) * 256 + (packet[at + 1] ?? 0)
  }
  while (sum > 0xffff) sum = (sum % 65_536) + Math.floor(sum / 65_536)
  return sum
}

function request(message: string, source = client): Uint8Array {
  const payload = fromHex(message)
  const packet = concatBytes(
    fromHex('60000000 0000 1101'),
    source,
    ip6('ff02::1:2'),
    fromHex('0222 0223 0000 0000'),
    payload,
  )
  putU16(packet, 4, payload.length + 8)
  putU16(packet, 44, payload.length + 8)
  putU16(packet, 46, 0xffff - sumOf(packet))
  return packet
}

/** Code and hexadecimal value of each option; those of an association in brackets behind it. */
function optionsOf(bytes: Uint8Array, from: number): string[] {
  const options: string[] = []
  for (let at = from; at < bytes.length; at += 4 + u16(bytes, at + 2)) {
    const code = u16(bytes, at)
    const data = bytes.slice(at + 4, at + 4 + u16(bytes, at + 2))
    const isAssociation = code === 3 || code === 25
    options.push(
      isAssociation
        ? `${code}:${toHex(data.slice(0, 12))}[${optionsOf(data, 12).join(' ')}]`
        : `${code}:${toHex(data)}`,
    )
  }
  return options
}

function setUp(given: Ipv6Network | undefined = delegated) {
  let asked = 0
  const responder = new Dhcpv6Responder({
    linkLocalAddress: ours,
    serverId,
    dnsServers: [ip6('fd87::1'), ip6('2001:db8::53')],
    domain: 'corp.example',
    delegate: () => {
      asked++
      return given
    },
  })
  const ask = (message: string, source?: Uint8Array) => {
    const packet = responder.answer(request(message, source))
    return packet === undefined ? [] : [toHex(packet.slice(48, 52)), ...optionsOf(packet, 52)]
  }
  return { responder, ask, asked: () => asked }
}

const told = [
  `23:${toHex(ip6('fd87::1'))}${toHex(ip6('2001:db8::53'))}`,
  '24:04636f7270076578616d706c6500',
]
const ids = ['1:00030001020304050607', `2:${toHex(serverId)}`]

t.test('a host that has its address learns DNS servers and domain', async t => {
  const { responder, ask, asked } = setUp()
  const packet = responder.answer(request(`0b a1b2c3 ${clientOption} 0006 0004 00170018`))
  if (packet === undefined) throw new Error('no answer')
  t.equal(toHex(packet.slice(0, 8)), `60000000${toHex(packet.slice(4, 6))}11ff`)
  t.same([packet.slice(8, 24), packet.slice(24, 40)], [ours, client])
  t.equal(toHex(packet.slice(40, 44)), '02230222', 'from 547 to 546')
  t.equal(u16(packet, 4), packet.length - 40)
  t.equal(u16(packet, 44), packet.length - 40)
  t.equal(sumOf(packet), 0xffff)
  t.same(ask(`0b a1b2c3 ${clientOption}`), ['07a1b2c3', ...ids, ...told])
  t.same(ask('0b a1b2c3'), ['07a1b2c3', ids[1], ...told], 'also without a name')
  t.equal(asked(), 0)
  t.equal(serverId.length, 18)
  t.same(serverDuid('vpn'), serverId)
  t.notSame(serverDuid('other'), serverId)
})

const wanted = '0019 000c 00000007 00000000 00000000'
const held = (text: string, bits: string) =>
  `0019 0029 00000007 00000000 00000000 001a 0019 00000000 00000000 ${bits} ${toHex(ip6(text))}`
const given = `25:${'00000007'}00000708${'00000b40'}[26:00000e1000001c2038${toHex(delegated.address)}]`

t.test('a router gets a prefix in four messages, or in two, and renews it', async t => {
  const { ask } = setUp()
  t.same(ask(`01 000001 ${clientOption} ${wanted}`), ['02000001', ...ids, given, ...told])
  t.same(ask(`03 000002 ${clientOption} ${serverOption} ${wanted}`), [
    '07000002',
    ...ids,
    given,
    ...told,
  ])
  t.same(
    ask(`01 000003 ${clientOption} 000e 0000 ${wanted}`),
    ['07000003', ...ids, '14:', given, ...told],
    'rapid commit',
  )
  const renewal = `${clientOption} ${serverOption} ${held('2001:db8:8000:100::', '38')}`
  t.same(ask(`05 000004 ${renewal}`), ['07000004', ...ids, given, ...told])
  t.same(ask(`06 000005 ${clientOption} ${wanted}`), ['07000005', ...ids, given, ...told])
  t.same(ask(`08 000006 ${renewal}`), ['07000006', ...ids, '13:0000', ...told])
})

t.test('what a client had elsewhere it is told to give up; addresses there are none', async t => {
  const { ask, responder } = setUp()
  const [, , , association] = ask(
    `05 000004 ${clientOption} ${serverOption} ${held('2001:db8:9000::', '30')}`,
  )
  t.equal(
    association,
    given.replace(']', ` 26:000000000000000030${toHex(ip6('2001:db8:9000::'))}]`),
  )
  const addresses = '0003 000c 00000001 00000000 00000000'
  const second = wanted.replace('00000007', '00000008')
  t.same(ask(`01 000001 ${clientOption} ${addresses} ${wanted} ${second} 0004 0004 00000009`), [
    '02000001',
    ...ids,
    '3:000000010000000000000000[13:0002]',
    given,
    '25:000000080000000000000000[13:0006]',
    '4:00000009000d00020002',
    ...told,
  ])
  t.match(responder.counters.toJSON(), { 'dhcpv6-delegated': 2, 'dhcpv6-no-prefix': 1 })
  const none = new Dhcpv6Responder({
    linkLocalAddress: ours,
    serverId,
    dnsServers: [],
    delegate: () => undefined,
  })
  const packet = none.answer(request(`01 000001 ${clientOption} ${wanted}`)) ?? new Uint8Array(0)
  t.same(optionsOf(packet, 52), [...ids, '25:000000070000000000000000[13:0006]'])
})

t.test('what may not be said (RFC 8415 §16) is counted and not answered', async t => {
  const { ask, responder } = setUp()
  const other = serverOption.replace(/..$/, 'ff')
  const wrong: readonly (readonly [string, string])[] = [
    ['dhcpv6-unknown-type', `04 000001 ${clientOption}`],
    ['dhcpv6-unknown-type', `0c 000001 ${clientOption}`],
    ['dhcpv6-without-client', '01 000001'],
    ['dhcpv6-with-server', `01 000001 ${clientOption} ${serverOption}`],
    ['dhcpv6-with-server', `06 000001 ${clientOption} ${serverOption}`],
    ['dhcpv6-other-server', `03 000001 ${clientOption}`],
    ['dhcpv6-other-server', `05 000001 ${clientOption} ${other}`],
    ['dhcpv6-other-server', `0b 000001 ${other}`],
    ['dhcpv6-information-with-ia', `0b 000001 ${clientOption} ${wanted}`],
    ['dhcpv6-malformed-duplicate', `0b 000001 ${clientOption} ${clientOption}`],
    ['dhcpv6-malformed-truncated', '0b 000001 0001'],
    ['dhcpv6-malformed-length-overrun', '0b 000001 0001 00ff 00'],
    ['dhcpv6-malformed-bad-value', '0b 000001 0001 0002 0001'],
    ['dhcpv6-malformed-truncated', `01 000001 ${clientOption} 0019 0004 00000001`],
    ['dhcpv6-malformed-too-many', `01 000001 ${clientOption} ${wanted.repeat(9)}`],
    ['dhcpv6-malformed-bad-value', `01 000001 ${clientOption} ${held('2001:db8::', 'ff')}`],
  ]
  for (const [counter, message] of wrong) {
    const before = responder.counters.get(counter)
    t.same(ask(message), [], message)
    t.equal(responder.counters.get(counter), before + 1, counter)
  }
  t.same(ask('0b 000001', ip6('2001:db8::5')), [])
  t.equal(responder.counters.get('dhcpv6-not-from-link'), 1)
  const damaged = request('0b 000001')
  damaged[50] = 9
  t.equal(responder.answer(damaged), undefined)
  t.equal(responder.counters.get('dhcpv6-malformed-bad-checksum'), 1)
  t.equal(responder.answer(new Uint8Array(60)), undefined, 'no packet of ours')
})

t.test('any bytes are parsed or refused', async t => {
  const { responder } = setUp()
  const good = request(`05 000004 ${clientOption} ${serverOption} ${held('2001:db8::', '30')}`)
  fc.assert(
    fc.property(fc.integer({ min: 48, max: good.length - 1 }), fc.nat(255), (at, value) => {
      const bad = good.slice()
      bad[at] = value
      putU16(bad, 46, 0)
      putU16(bad, 46, 0xffff - sumOf(bad))
      if (isForDhcpv6Server(bad) && !checkDhcpv6Request(bad)) parseDhcpv6Request(bad)
      responder.answer(bad)
      responder.answer(bad.slice(0, at))
    }),
    { seed, numRuns: 2000 },
  )
  t.ok(responder.counters.get('dhcpv6-answered') > 0, 'some were good')
})
