import fc from 'fast-check'
import t from 'tap'
import { isFilterRule, parseFilterRule } from '../../lib/config/filter-rule.ts'

function errorOf(text: string): string | undefined {
  const parsed = parseFilterRule(text)
  return isFilterRule(parsed) ? undefined : parsed.error
}

t.test('a rule of RFC 6733 section 4.3.1 is read with all its parts', async t => {
  t.match(parseFilterRule('permit in tcp from any to 192.0.2.77/24 80,8000-8080 setup'), {
    action: 'permit',
    direction: 'in',
    protocol: 6,
    source: { network: 'any', isNegated: false, ports: [] },
    destination: {
      network: { family: 4, address: 0xc0000200, prefixLength: 24 },
      ports: [
        { first: 80, last: 80 },
        { first: 8000, last: 8080 },
      ],
    },
    tcpFlagsSet: 0x02,
    tcpFlagsClear: 0x10,
  })
  const all = parseFilterRule('deny out ip from !2001:db8::1/32 to assigned')
  t.ok(isFilterRule(all) && all.protocol === undefined, 'ip is every protocol')
  t.match(all, {
    action: 'deny',
    direction: 'out',
    source: { isNegated: true, network: { family: 6, prefixLength: 32 } },
    destination: { network: 'assigned' },
  })
  t.match(parseFilterRule('deny in icmp from any to any icmptypes 0,8-10'), {
    icmpTypes: [0, 8, 9, 10],
  })
  t.match(parseFilterRule('deny in 47 from any to any'), { protocol: 47 })
  t.match(parseFilterRule('deny in tcp from any to any tcpflags syn,!ack,!rst'), {
    tcpFlagsSet: 0x02,
    tcpFlagsClear: 0x14,
  })
  t.match(parseFilterRule('deny in ip from ! 10.0.0.1 to any frag'), {
    isFragment: true,
    source: { isNegated: true, network: { family: 4, address: 0x0a000001, prefixLength: 32 } },
  })
})

t.test('what is not understood or can never match is refused with what was expected', async t => {
  const refused: readonly (readonly [string, RegExp])[] = [
    ['', /permit or deny/],
    ['allow in ip from any to any', /permit or deny, not "allow"/],
    ['permit both ip from any to any', /in or out/],
    ['permit in 256 from any to any', /protocol/],
    ['permit in constructor from any to any', /protocol/],
    ['permit in ip to any', /from/],
    ['permit in ip from any any', /to, not "any"/],
    ['permit in ip from 10.0.0.300 to any', /address/],
    ['permit in ip from 10.0.0.1/33 to any', /address/],
    ['permit in ip from fe80::1/129 to any', /address/],
    ['permit in tcp from any to any 80-70', /ports/],
    ['permit in tcp from any to any 65536', /ports/],
    ['permit in icmp from any to any 80', /no ports/],
    ['permit in tcp from any 80 to any frag', /frag without/],
    ['permit in udp from any to any established', /protocol tcp/],
    ['permit in tcp from any to any tcpflags xyz', /TCP flags/],
    ['permit in tcp from any to any icmptypes 8', /icmp/],
    ['permit in icmp from any to any icmptypes 256', /ICMP types/],
    ['permit in ip from 10.0.0.1 to 2001:db8::1', /one address family/],
    ['permit in ip from any to any ipoptions ssrr', /an option, not "ipoptions"/],
    [`permit in ip from any to ${'x'.repeat(5000)}`, /shorter/],
  ]
  for (const [text, expected] of refused) t.match(errorOf(text), expected, text.slice(0, 60))
})

t.test('no text makes it throw', async t => {
  const word = fc.constantFrom(
    ...['permit', 'deny', 'in', 'out', 'ip', 'tcp', 'from', 'to', 'any', 'assigned', '!', '!any'],
    ...[
      '10.0.0.0/8',
      '::/0',
      '80',
      '1-2',
      ',',
      'frag',
      'setup',
      'tcpflags',
      'icmptypes',
      '__proto__',
    ],
  )
  const text = fc.oneof(
    fc.string(),
    fc.array(word, { maxLength: 14 }).map(words => words.join(' ')),
  )
  fc.assert(
    fc.property(text, input => {
      const parsed = parseFilterRule(input)
      return isFilterRule(parsed) || parsed.error.length > 0
    }),
    { seed: 6733, numRuns: 2000 },
  )
  t.pass()
})
