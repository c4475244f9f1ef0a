import fc from 'fast-check'
import t from 'tap'
import { AccessPolicies, type PolicyFacts } from '../../../lib/aaa/policy/access-policies.ts'
import { splitUserName } from '../../../lib/aaa/policy/user-name.ts'
import { parseWeekTime } from '../../../lib/config/week-time.ts'
import { InvalidConfigError, parseConfig } from '../../../lib/config.ts'

/** A Monday. */
const monday = (time: string) => new Date(`2026-06-01T${time}`)

const facts: PolicyFacts = {
  protocol: 'sstp',
  peerAddress: '192.0.2.7',
  method: 'mschapv2',
  loginName: 'CORP\\alice',
  now: monday('09:30'),
}
const alice = { userName: 'alice', groups: ['Staff'] }

function policies(...texts: string[]): AccessPolicies {
  const list = texts.map((text, i) => `  - {name: p${i}, ${text}}`).join('\n')
  return new AccessPolicies(parseConfig(`policies:\n${list}\n`, 'x').policies)
}

t.test('without a policy that fits, the account decides', async t => {
  const none = policies('when: {users: [bob]}, access: deny')
  t.same(none.decide(facts, alice), { type: 'permit', authorization: alice })
  t.match(none.decide(facts, { ...alice, isPolicyRequired: true }), {
    type: 'deny',
    reason: 'no-dial-in',
  })
  const all = policies('access: permit')
  t.match(all.decide(facts, { ...alice, isPolicyRequired: true }), { type: 'permit', policy: 'p0' })
})

t.test('the first policy whose conditions all hold decides', async t => {
  const ordered = policies(
    'when: {groups: [staff], protocols: [pptp]}, access: deny',
    'when: {groups: [staff]}, give: {idleTimeoutSeconds: 60}',
    'access: deny, reason: account-disabled',
  )
  t.match(ordered.decide(facts, alice), { policy: 'p1', authorization: { idleTimeoutSeconds: 60 } })
  t.match(ordered.decide({ ...facts, protocol: 'pptp' }, alice), { type: 'deny', policy: 'p0' })
  t.match(ordered.decide(facts, { userName: 'bob' }), {
    type: 'deny',
    reason: 'account-disabled',
    policy: 'p2',
  })
})

t.test('each condition is looked at', async t => {
  const cases: readonly (readonly [string, object, object])[] = [
    ['users: [al*e]', {}, { userName: 'bob' }],
    ['users: [ALICE]', {}, { userName: 'alice2' }],
    ['groups: ["st*"]', {}, { groups: ['guests'] }],
    ['realms: [corp]', { loginName: 'alice@other.example' }, {}],
    ['protocols: [sstp]', { protocol: 'ikev2' }, {}],
    ['sources: [192.0.2.0/24]', { peerAddress: '198.51.100.1' }, {}],
    ['times: [Mon-Fri 08:00-18:00]', { now: monday('18:00') }, {}],
    ['methods: [mschapv2, chap]', { method: 'pap' }, {}],
    ['methods: [mschapv2]', { method: undefined }, {}],
  ]
  for (const [condition, otherFacts, otherUser] of cases) {
    const one = policies(`when: {${condition}}, access: deny`)
    t.equal(one.decide(facts, alice).type, 'deny', condition)
    const other = one.decide({ ...facts, ...otherFacts }, { ...alice, ...otherUser })
    t.equal(other.type, 'permit', `not ${condition}`)
  }
  const eap = policies('when: {eapTypes: [13, 25], portTypes: [virtual]}, access: deny')
  t.equal(eap.decide({ ...facts, eapType: 25 }, alice).type, 'deny')
  t.equal(eap.decide({ ...facts, eapType: 26 }, alice).type, 'permit')
  t.equal(
    policies('when: {portTypes: [wireless]}, access: deny').decide(facts, alice).type,
    'permit',
  )
  const mapped = policies('when: {sources: [192.0.2.0/24, "2001:db8::/32"]}, access: deny')
  t.equal(mapped.decide({ ...facts, peerAddress: '::ffff:192.0.2.9' }, alice).type, 'deny')
  t.equal(mapped.decide({ ...facts, peerAddress: '2001:db8::9' }, alice).type, 'deny')
  t.equal(mapped.decide({ ...facts, peerAddress: '2001:db9::9' }, alice).type, 'permit')
})

t.test('a certificate is matched by the parts of its names', async t => {
  const staff = policies(
    'when: {certificate: {subject: "OU=Staff", issuer: "CN=Corp*"}}, access: deny',
  )
  const certificate = { subject: 'C=XX\nOU=Staff\nCN=alice', issuer: 'O=Corp\nCN=Corp CA 1' }
  t.equal(staff.decide({ ...facts, certificate }, alice).type, 'deny')
  t.equal(staff.decide(facts, alice).type, 'permit', 'without a certificate it does not hold')
  const other = { ...certificate, subject: 'CN=OU=Staff' }
  t.equal(staff.decide({ ...facts, certificate: other }, alice).type, 'permit')
})

t.test('who proved itself otherwise than the policy allows is refused', async t => {
  const strict = policies('allowedMethods: [eap, certificate]')
  t.match(strict.decide(facts, alice), { type: 'deny', reason: 'method-not-allowed' })
  t.equal(strict.decide({ ...facts, method: 'certificate' }, alice).type, 'permit')
  const { method: _method, ...unknown } = facts
  t.equal(strict.decide(unknown, alice).type, 'deny')
})

t.test('settings become an authorization, where the account does not say otherwise', async t => {
  const text = `filters: {web: [permit in tcp from any to any 443], jail: [deny in ip from any to any]}
policies:
  - name: all
    give:
      address: 10.87.0.9
      routes: [172.16.0.0/16, "2001:db8:7::/48"]
      dns: [192.0.2.53, "2001:db8::53"]
      filter: web
      receiveBitsPerSecond: 8000
      sendBurstBytes: 100000
      idleTimeoutSeconds: 60
      mppeKeyBits: [128]
      encryptionRequired: true
      quarantine: {filter: jail, timeoutSeconds: 300}
`
  const config = parseConfig(text, 'x')
  const decided = new AccessPolicies(config.policies).decide(facts, {
    ...alice,
    idleTimeoutSeconds: 5,
  })
  t.match(decided, {
    authorization: {
      userName: 'alice',
      ipv4Address: 0x0a570009,
      ipv4Routes: [{ address: 0xac100000, prefixLength: 16 }],
      ipv6Routes: [{ prefixLength: 48 }],
      dnsIpv4: [0xc0000235],
      filterName: 'web',
      receiveBitsPerSecond: 8000,
      sendBurstBytes: 100_000,
      idleTimeoutSeconds: 5,
      mppeKeyBits: [128],
      isEncryptionRequired: true,
      quarantine: { filterName: 'jail', timeoutSeconds: 300 },
    },
  })
  t.equal(config.filters.get('web')?.length, 1)
})

t.test('the configuration says what is wrong with a policy or a filter', async t => {
  const wrong: readonly (readonly [string, RegExp])[] = [
    ['policies: [{name: a, when: {times: [Mon-Fri 25:00-26:00]}}]', /expected days/],
    ['policies: [{name: a, give: {filter: web}}]', /one of filters, not "web"/],
    ['policies: [{name: a, give: {quarantine: {filter: x}}}]', /one of filters, not "x"/],
    ['filters: {web: [permit all]}', /expected in or out, not "all"/],
    ['filters: {"a b": []}', /filters.a b: expected a known name/],
    ['policies: [{name: a, when: {user: [bob]}}]', /users/],
  ]
  for (const [text, expected] of wrong) {
    t.throws(() => parseConfig(text, 'x'), { message: expected }, text)
    t.throws(() => parseConfig(text, 'x'), InvalidConfigError)
  }
})

t.test('times of the week hold from their first minute to before their last', async t => {
  const at = (text: string, date: string) => parseWeekTime(text)?.holds(new Date(date))
  t.equal(at('Mon-Fri 08:00-18:00', '2026-06-01T08:00'), true)
  t.equal(at('Mon-Fri 08:00-18:00', '2026-06-01T07:59'), false)
  t.equal(at('Mon-Fri 08:00-18:00', '2026-06-06T12:00'), false, 'Saturday')
  t.equal(at('fri-mon', '2026-06-07T12:00'), true, 'Sunday')
  t.equal(at('fri-mon', '2026-06-02T12:00'), false, 'Tuesday')
  t.equal(at('22:00-06:00', '2026-06-03T05:59'), true)
  t.equal(at('22:00-06:00', '2026-06-03T06:00'), false)
  t.equal(at('Sat 22:00-06:00', '2026-06-07T03:00'), true, 'into Sunday, over the end of the week')
  t.equal(at('Sun 22:00-06:00', '2026-06-07T03:00'), false)
  t.equal(at('Sat,Sun 00:00-24:00', '2026-06-06T23:59'), true)
  for (const text of ['', 'Xyz', 'Mon 8-18', 'Mon 08:00-08:00', 'Mon 08:61-09:00', '24:01-25:00']) {
    t.equal(parseWeekTime(text), undefined, text)
  }
})

t.test('names are split into user and realm', async t => {
  t.same(splitUserName('alice'), { user: 'alice' })
  t.same(splitUserName('CORP\\alice'), { user: 'alice', realm: 'CORP' })
  t.same(splitUserName('alice@a@example.net'), { user: 'alice@a', realm: 'example.net' })
  t.same(splitUserName('@x'), { user: '@x' })
})

t.test('no pattern makes it slow or throw', async t => {
  const text = fc.string({ maxLength: 40 }).map(part => `${part}*a*${part}*`)
  fc.assert(
    fc.property(text, fc.string({ maxLength: 80 }), (pattern, userName) => {
      const one = policies(`when: {users: [${JSON.stringify(pattern)}]}`)
      return one.decide(facts, { userName }).type === 'permit'
    }),
    { seed: 17, numRuns: 200 },
  )
  const slow = policies(`when: {users: ["${'a*'.repeat(100)}b"]}, access: deny`)
  t.equal(slow.decide(facts, { userName: 'a'.repeat(256) }).type, 'permit')
})
