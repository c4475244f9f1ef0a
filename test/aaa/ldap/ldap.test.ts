/** Users of a directory: against one that is played on loopback, TLS and all. */
import fc from 'fast-check'
import t, { type Test } from 'tap'
import type { Authenticator, Proof } from '../../../lib/aaa/authenticator.ts'
import { LdapDirectory } from '../../../lib/aaa/ldap/directory.ts'
import { type Directory, LdapAuthenticator } from '../../../lib/aaa/ldap/ldap-authenticator.ts'
import {
  filterFor,
  groupName,
  isDirectoryName,
  nameFor,
} from '../../../lib/aaa/ldap/user-template.ts'
import { Lockout } from '../../../lib/aaa/lockout.ts'
import { parseConfig } from '../../../lib/config.ts'
import { ManualClock, systemClock } from '../../../lib/core/clock.ts'
import { createLogger, silentLogger } from '../../../lib/core/log.ts'
import { Secret } from '../../../lib/core/secret.ts'
import { TimerWheel } from '../../../lib/core/timers.ts'
import { eventually } from '../../support/eventually.ts'
import { ecdsaCertificate } from '../../support/sstp-certificates.ts'
import { TestDirectory, type TestDirectoryOptions, type TestEntry } from './ldap-server.ts'

const certificate = ecdsaCertificate()
const stranger = ecdsaCertificate()
const base = 'dc=example,dc=net'
const alice: TestEntry = {
  dn: `uid=alice,ou=people,${base}`,
  password: 'correct horse',
  attributes: {
    uid: ['alice'],
    memberOf: [`CN=staff,OU=groups,${base}`, 'CN=R\\C3\\A4te\\, alle,DC=x', 'plain'],
  },
}
const service: TestEntry = { dn: `cn=vpn,${base}`, password: 'of the service' }
const twin = (ou: string): TestEntry => ({
  dn: `uid=twin,ou=${ou},${base}`,
  password: 'same',
  attributes: { uid: ['twin'] },
})
const staff: TestEntry = {
  dn: `cn=admins,ou=groups,${base}`,
  attributes: { member: [alice.dn] },
}
const entries = [alice, service, twin('a'), twin('b'), staff]
const bindAs = `bindAs: 'uid={user},ou=people,${base}'`
const search = `search: {base: '${base}', filter: '(uid={user})', bindName: '${service.dn}', bindPassword: of the service}`

interface Setting extends Partial<TestDirectoryOptions> {
  /** Of the section `ldap`. */
  readonly config?: string
  readonly authority?: string
  readonly more?: readonly string[]
}

async function setUp(t: Test, setting: Setting = {}) {
  const { config = bindAs, authority = certificate.cert, more = [], ...options } = setting
  const server = new TestDirectory({ entries, certificate, ...options })
  const urls = [...more, await server.listen()]
  const wheel = new TimerWheel(systemClock.nowMs())
  wheel.start(systemClock)
  t.teardown(() => {
    wheel.stop()
    server.close()
  })
  const { ldap } = parseConfig(
    `ldap: {servers: [${urls.map(url => `'${url}'`).join()}], ${config}}`,
    'x',
  )
  if (ldap === undefined) throw new Error('no directory')
  const lines: string[] = []
  const log = createLogger('debug', { write: line => lines.push(line) })
  const directory = new LdapDirectory({
    ...{ config: ldap, authorityPem: authority, clock: systemClock, wheel, log },
  })
  const judge = (user: string, password: string, ms = 10_000) =>
    directory.judge(user, Secret.fromText(password), ms)
  return { server, judge, directory, lines }
}

const groups = ['staff', 'Räte, alle', 'plain']

for (const isTls of [false, true]) {
  t.test(
    `bound by name over ${isTls ? 'ldaps' : 'StartTLS'}: who has the password comes in`,
    async t => {
      const { server, judge, lines } = await setUp(t, { isTls })
      t.same(await judge('alice', 'correct horse'), { type: 'proven', groups })
      const refused = { type: 'refused', reason: 'bad-credentials' }
      t.same(await judge('alice', 'wrong horse'), refused)
      t.same(await judge('nobody', 'correct horse'), refused)
      t.equal(server.binds.length, 3)
      t.ok(server.binds.every(({ isClear }) => !isClear))
      t.same(await judge('alice', ''), refused, 'RFC 4513 §5.1.2')
      t.equal(server.binds.length, 3, 'nobody was asked')
      t.same(lines, [])
    },
  )
}

t.test('found by a search and then bound; a name of two is of nobody', async t => {
  const config = `${search}, groupSearch: {base: 'ou=groups,${base}', filter: '(member={dn})'}`
  const { server, judge, lines } = await setUp(t, { config })
  t.same(await judge('alice', 'correct horse'), { type: 'proven', groups: [...groups, 'admins'] })
  t.same(
    server.binds.map(({ name }) => name),
    [service.dn, alice.dn],
  )
  const refused = { type: 'refused', reason: 'bad-credentials' }
  t.same(await judge('alice', 'wrong'), refused)
  t.same(await judge('nobody', 'wrong'), refused)
  t.same(await judge('twin', 'same'), refused)
  t.match(lines, [/ldap-ambiguous/])
  t.notOk(server.binds.some(({ name }) => name.includes('twin')))
  t.same(await judge('*', 'correct horse'), refused)
  t.equal(server.filters.at(-1), '*', 'a character like others')
})

t.test('who is bound by name must be found too when there is a search', async t => {
  const config = `${bindAs}, search: {base: 'ou=people,${base}', filter: '(uid={user})'}`
  const { judge } = await setUp(t, { config })
  t.same(await judge('alice', 'correct horse'), { type: 'proven', groups })
  const elsewhere = `${bindAs}, search: {base: 'ou=a,${base}', filter: '(uid={user})'}`
  const other = await setUp(t, { config: elsewhere })
  t.same(await other.judge('alice', 'correct horse'), { type: 'refused', reason: 'no-dial-in' })
})

t.test('what Active Directory says of an account is understood', async t => {
  for (const [data, reason] of [
    ['52e', 'bad-credentials'],
    ['532', 'password-expired'],
    ['533', 'account-disabled'],
    ['775', 'locked-out'],
  ] as const) {
    const text = `80090308: LdapErr: DSID-0C09030F, comment: AcceptSecurityContext error, data ${data}, v2580`
    const { judge } = await setUp(t, { refusal: [49, text] })
    t.same(await judge('alice', 'wrong'), { type: 'refused', reason })
  }
  const { judge } = await setUp(t, { refusal: [51, 'busy'] })
  t.same(await judge('alice', 'wrong'), { type: 'unavailable' }, 'it says nothing of the user')
})

t.test('no password goes to whom we do not trust, nor in clear', async t => {
  for (const setting of [
    { authority: stranger.cert },
    { authority: stranger.cert, isTls: true },
    { hangsUpAfterTls: true },
    { config: search, authority: stranger.cert },
  ]) {
    const { server, judge, lines } = await setUp(t, setting)
    t.same(await judge('alice', 'correct horse'), { type: 'unavailable' })
    // The one that hangs up may have heard it, through TLS.
    t.same(
      server.binds.filter(({ isClear }) => isClear || setting.authority !== undefined),
      [],
    )
    t.match(lines, [/ldap-unavailable/])
    t.notOk(lines.some(line => line.includes('horse')))
  }
  const plain = new TestDirectory({ entries })
  t.teardown(() => plain.close())
  const { judge } = await setUp(t, { more: [await plain.listen()] })
  t.match(await judge('alice', 'correct horse'), { type: 'proven' }, 'the next server is asked')
  t.same(plain.binds, [], 'the first has no TLS')
  const clear = await setUp(t, { config: `${bindAs}, startTls: false` })
  t.match(await clear.judge('alice', 'correct horse'), { type: 'proven' })
  t.ok(clear.server.binds[0]?.isClear, 'who wants it')
})

t.test('a silent server is left in time, and asked last from then on', async t => {
  const deaf = new TestDirectory({ entries, isDeaf: true })
  t.teardown(() => deaf.close())
  const { judge, lines } = await setUp(t, { more: [await deaf.listen()] })
  t.match(await judge('alice', 'correct horse', 1000), { type: 'proven' })
  t.match(lines, [/ldap-unavailable/])
  t.match(await judge('alice', 'correct horse', 1000), { type: 'proven' })
  t.equal(deaf.connections, 1)
  const alone = await setUp(t, { isDeaf: true, config: `${bindAs}, startTls: false` })
  t.same(await alone.judge('alice', 'correct horse', 200), { type: 'unavailable' })
  await eventually(
    () => alone.server.open === 0,
    () => `${alone.server.open} connections are left`,
  )
})

t.test('names are escaped, and blanks make no second name', async t => {
  const template = 'uid={user},ou=people'
  t.equal(
    nameFor(template, 'a,b+c="d"\\<e>;f'),
    'uid=a\\2cb\\2bc\\3d\\22d\\22\\5c\\3ce\\3e\\3bf,ou=people',
  )
  t.equal(nameFor('{user}@ad.example', 'a+b'), 'a+b@ad.example')
  t.equal(nameFor(template, '$&'), 'uid=$&,ou=people', 'no pattern of ours')
  t.equal(filterFor('(uid={user})', '{user}', '*)(uid=\\\0'), '(uid=\\2a\\29\\28uid=\\5c\\00)')
  for (const name of [
    '',
    ' alice',
    'alice ',
    'al  ice',
    'a\tb',
    'a\0b',
    'a\u00a0b',
    'x'.repeat(257),
  ]) {
    t.notOk(isDirectoryName(name), JSON.stringify(name))
  }
  for (const name of ['alice', 'Alice Liddell', "o'neil", '名前']) t.ok(isDirectoryName(name))
  t.equal(groupName('CN=a\\2Cb,DC=x'), 'a,b')
  t.equal(groupName('staff'), 'staff')
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), text => {
      const filter = filterFor('(uid={user})', '{user}', text)
      groupName(text)
      isDirectoryName(text)
      return !/[()*\0]/.test(filter.slice(5, -1)) && !/[,+"<>;\0]/.test(nameFor('uid={user}', text))
    }),
    { seed: 4515, numRuns: 2000 },
  )
})

// Who judges

const call = { protocol: 'sstp', peerAddress: '198.51.100.7', sessionId: 's' }
const pap = (password: string): Proof => ({ method: 'pap', password: Secret.fromText(password) })

function makeAuthenticator(directory: Directory, mostQuestions = 2) {
  const clock = new ManualClock()
  const wheel = new TimerWheel(0, { tickMs: 10 })
  const limits = {
    attemptsPerUser: 3,
    attemptsPerAddress: 100,
    windowMs: 60_000,
    durationMs: 60_000,
  }
  const local: Authenticator = {
    authenticate: async ({ userName }) => ({
      type: 'accept',
      authorization: { userName, groups: ['ours'] },
    }),
  }
  const authenticator = new LdapAuthenticator({
    ...{ directory, local, clock, wheel, log: silentLogger, mostQuestions },
    isLocal: name => {
      if (name === 'broken') throw new Error('the store cannot be read')
      return name === 'root'
    },
    methods: ['pap', 'mschapv2'],
    lockout: new Lockout(limits, clock),
    timeoutMs: 5000,
  })
  const ask = (userName: string, proof = pap('x')) =>
    authenticator.authenticate({ userName, proof, call })
  const elapse = (ms: number) => {
    clock.advance(ms)
    wheel.advance(clock.nowMs())
  }
  return { ask, elapse }
}

t.test('our own users and other proofs are judged here, the rest there', async t => {
  const asked: string[] = []
  const { ask } = makeAuthenticator({
    judge: async user => {
      asked.push(user)
      return { type: 'proven', groups: ['theirs'] }
    },
  })
  const ours = { type: 'accept', authorization: { groups: ['ours'] } }
  for (const name of ['root', 'root@example.net', 'EXAMPLE\\root', 'EXAMPLE\\root@x', 'broken']) {
    t.match(await ask(name), ours, name)
  }
  const chap = {
    method: 'chap-md5',
    identifier: 1,
    challenge: new Uint8Array(16),
    response: new Uint8Array(16),
  } as const
  t.match(await ask('alice', chap), ours)
  t.same(asked, [])
  const theirs = { type: 'accept', authorization: { userName: 'alice', groups: ['theirs'] } }
  for (const name of ['alice', 'alice@example.net', 'EXAMPLE\\alice'])
    t.same(await ask(name), theirs)
  t.same(asked, ['alice', 'alice', 'alice'])
})

t.test('failures lock out, also those of an empty password or a strange name', async t => {
  let asked = 0
  const { ask, elapse } = makeAuthenticator({
    judge: async (_user, password) => {
      asked++
      return password.exposeText() === 'right'
        ? { type: 'proven', groups: [] }
        : { type: 'refused', reason: 'bad-credentials' }
    },
  })
  const refused = (reason: string, canRetry: boolean) => ({ type: 'reject', reason, canRetry })
  t.same(await ask('alice'), refused('bad-credentials', true))
  t.same(await ask('alice', pap('')), refused('bad-credentials', true))
  t.equal(asked, 1)
  t.same(await ask('alice@x'), refused('bad-credentials', false))
  t.same(await ask('alice', pap('right')), refused('locked-out', false))
  t.same(await ask(' alice', pap('right')), refused('bad-credentials', true))
  t.equal(asked, 2)
  elapse(60_001)
  t.match(await ask('alice', pap('right')), { type: 'accept' })
})

t.test('an account that is disabled or expired is no guess', async t => {
  const { ask } = makeAuthenticator({
    judge: async () => ({ type: 'refused', reason: 'account-disabled' }),
  })
  for (let i = 0; i < 5; i++) t.match(await ask('alice'), { reason: 'account-disabled' })
  const away = makeAuthenticator({ judge: async () => ({ type: 'unavailable' }) })
  for (let i = 0; i < 5; i++) t.match(await away.ask('alice'), { reason: 'backend-unavailable' })
})

t.test('questions wait for their turn, and not longer than they may', async t => {
  const open: ((answer: 'proven') => void)[] = []
  const left: number[] = []
  const { ask, elapse } = makeAuthenticator({
    judge: async (_user, _password, leftMs) => {
      left.push(leftMs)
      await new Promise(resolve => open.push(resolve))
      return { type: 'proven', groups: [] }
    },
  })
  const turn = () => new Promise(resolve => setImmediate(resolve))
  const [first, second, third, fourth] = ['a', 'b', 'c', 'd'].map(name => ask(name))
  await turn()
  t.equal(open.length, 2)
  elapse(1000)
  open[0]?.('proven')
  t.match(await first, { type: 'accept' })
  await turn()
  t.same(left, [5000, 5000, 4000])
  elapse(4000)
  t.match(await fourth, { reason: 'backend-unavailable' })
  open[1]?.('proven')
  open[2]?.('proven')
  t.match(await Promise.all([second, third]), [{ type: 'accept' }, { type: 'accept' }])
  const again = ask('e')
  await turn()
  t.equal(open.length, 4, 'all turns are given back')
  open[3]?.('proven')
  await again
  const crowd = Array.from({ length: 1030 }, (_, i) => ask(`user${i}`))
  await turn()
  const settled = await Promise.race([Promise.all(crowd.slice(1027)), turn().then(() => undefined)])
  t.match(settled, [{ reason: 'backend-unavailable' }, {}, {}], 'there is an end to waiting')
  elapse(5000)
  for (const resolve of open) resolve('proven')
  await Promise.all(crowd)
})
