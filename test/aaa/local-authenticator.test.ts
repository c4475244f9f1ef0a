import { join } from 'node:path'
import { pino } from 'pino'
import t from 'tap'
import type { Proof, Verdict } from '../../lib/aaa/authenticator.ts'
import { LocalAuthenticator } from '../../lib/aaa/local-authenticator.ts'
import { FailureWindow, Lockout, sourceKey } from '../../lib/aaa/lockout.ts'
import { oneTimePassword, timeStep } from '../../lib/aaa/totp.ts'
import { ConfigUserStore } from '../../lib/aaa/users/config-user-store.ts'
import { SqliteUserStore } from '../../lib/aaa/users/sqlite-user-store.ts'
import type { UserStore } from '../../lib/aaa/users/user-store.ts'
import { formatBase32, parseBase32 } from '../../lib/config/base32.ts'
import { parseConfig } from '../../lib/config.ts'
import { fromHex, toHex, utf8 } from '../../lib/core/bytes.ts'
import { ManualClock } from '../../lib/core/clock.ts'
import { StoreError } from '../../lib/core/errors.ts'
import { Secret } from '../../lib/core/secret.ts'
import { digest } from '../../lib/crypto/hash.ts'
import {
  checkAuthenticatorResponse,
  encryptNewPassword,
  encryptOldNtHash,
  generateNtResponse,
  ntPasswordHash,
} from '../../lib/crypto/ms-chap.ts'

const limits = { attemptsPerUser: 10, attemptsPerAddress: 30, windowMs: 60_000, durationMs: 60_000 }
const call = { protocol: 'sstp', peerAddress: '192.0.2.1', sessionId: 's1' }
/** RFC 2759 §9.2. */
const authenticatorChallenge = fromHex('5B5D7C7D7B3F2F3E3C2C602132262628')
const peerChallenge = fromHex('21402324255E262A28295F2B3A337C7E')

function configUsers(extra = ''): ConfigUserStore {
  const { users = [] } = parseConfig(
    `users: [{name: User, password: clientPass${extra}}, {name: bob, password: secret}]`,
    'x',
  )
  return new ConfigUserStore(users)
}

interface Rig {
  readonly clock: ManualClock
  readonly lockout: Lockout
  readonly lines: string[]
  try(userName: string, proof: Proof, peerAddress?: string): Promise<Verdict>
}

function rig(users: UserStore, today = '2026-06-01'): Rig {
  const clock = new ManualClock(1_000_000)
  const lockout = new Lockout(limits, clock)
  const lines: string[] = []
  const authenticator = new LocalAuthenticator({
    users,
    methods: ['mschapv2', 'chap', 'pap'],
    lockout,
    wallClock: { now: () => new Date(today) },
    log: pino({ level: 'trace' }, { write: line => lines.push(line) }),
  })
  return {
    clock,
    lockout,
    lines,
    try: (userName, proof, peerAddress = call.peerAddress) =>
      authenticator.authenticate({ userName, proof, call: { ...call, peerAddress } }),
  }
}

const pap = (password: string): Proof => ({ method: 'pap', password: Secret.fromText(password) })

function chap(password: string): Proof {
  const challenge = utf8('sixteen octets!!')
  const response = digest('md5', Uint8Array.of(7), utf8(password), challenge)
  return { method: 'chap-md5', identifier: 7, challenge, response }
}

function mschapv2(userName: string, password: string): Proof {
  const ntHash = ntPasswordHash(password)
  return {
    method: 'mschapv2',
    identifier: 1,
    authenticatorChallenge,
    peerChallenge,
    ntResponse: generateNtResponse({ userName, authenticatorChallenge, peerChallenge }, ntHash),
  }
}

function changePassword(userName: string, oldPassword: string, newPassword: string): Proof {
  const oldHash = ntPasswordHash(oldPassword)
  const newHash = ntPasswordHash(newPassword)
  const exchange = { userName, authenticatorChallenge, peerChallenge }
  return {
    method: 'mschapv2-change-password',
    identifier: 2,
    authenticatorChallenge,
    peerChallenge,
    ntResponse: generateNtResponse(exchange, newHash),
    encryptedPassword: encryptNewPassword(newPassword, oldHash, new Uint8Array(512).fill(0x5c)),
    encryptedHash: encryptOldNtHash(oldHash, newHash),
  }
}

const rejected = (reason: string) => ({ type: 'reject', reason })

t.test('MS-CHAPv2 gives the answer and the keys of RFC 2759 §9.2 and RFC 3079 §3.5', async t => {
  const verdict = await rig(configUsers()).try('User', {
    method: 'mschapv2',
    identifier: 1,
    authenticatorChallenge,
    peerChallenge,
    ntResponse: fromHex('82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF'),
  })
  t.match(verdict, {
    type: 'accept',
    authorization: { userName: 'User' },
    authenticatorResponse: 'S=407A5589115FD0D6209F510FE9C04566932CDA56',
  })
  if (verdict.type !== 'accept' || verdict.keys === undefined) throw new Error('no keys')
  t.equal(toHex(verdict.keys.send), '8b7cdc149b993a1ba118cb153f56dccb')
  t.equal(toHex(verdict.keys.receive), 'd5f0e9521e3ea9589645e86051c82226')
})

t.test('each method takes the password and nothing else', async t => {
  for (const proofOf of [pap, chap, (password: string) => mschapv2('bob', password)]) {
    const { try: attempt } = rig(configUsers())
    t.match(await attempt('bob', proofOf('secret')), { type: 'accept' })
    t.match(await attempt('bob', proofOf('Secret')), rejected('bad-credentials'))
    t.match(await attempt('nobody', proofOf('secret')), rejected('bad-credentials'))
  }
})

t.test('DOMAIN\\user is the user, and only what follows the backslash is hashed', async t => {
  const { try: attempt } = rig(configUsers())
  const verdict = await attempt('CORP\\User', mschapv2('User', 'clientPass'))
  t.match(verdict, { type: 'accept', authorization: { userName: 'User' } })
  t.match(await attempt('CORP\\bob', pap('secret')), { type: 'accept' })
  t.match(await attempt('USER', mschapv2('USER', 'clientPass')), {
    type: 'accept',
    authorization: { userName: 'User' },
  })
})

t.test(
  'CHAP-MD5 needs a reversibly stored password, and says no more than that it is wrong',
  async t => {
    const store = SqliteUserStore.open(join(t.testdir({}), 'state'))
    store.add({ name: 'hashed', password: Secret.fromText('secret') })
    store.add({ name: 'kept', password: Secret.fromText('secret'), isReversible: true })
    const { try: attempt } = rig(store)
    t.match(await attempt('kept', chap('secret')), { type: 'accept' })
    t.match(await attempt('hashed', chap('secret')), rejected('bad-credentials'))
    const { ntHash } = store.secretsOf(store.find('hashed') ?? store.decoy)
    const challenge = utf8('c')
    const response = digest('md5', Uint8Array.of(7), ntHash.expose(), challenge)
    t.match(
      await attempt('hashed', { method: 'chap-md5', identifier: 7, challenge, response }),
      rejected('bad-credentials'),
      'the hash is no password',
    )
  },
)

t.test('what an account may not do is told only to who knows its password', async t => {
  const cases: [string, string][] = [
    [', disabled: true', 'account-disabled'],
    [', expires: 2026-01-01', 'account-expired'],
    [', dialIn: deny', 'no-dial-in'],
  ]
  for (const [extra, reason] of cases) {
    const { try: attempt } = rig(configUsers(extra))
    t.match(await attempt('User', pap('clientPass')), { ...rejected(reason), canRetry: false })
    t.match(await attempt('User', pap('guess')), rejected('bad-credentials'))
  }
  t.match(await rig(configUsers(', expires: 2027-01-01')).try('User', pap('clientPass')), {
    type: 'accept',
  })
})

t.test(
  'a name with domain or realm is the account without it, and proves itself as it was sent',
  async t => {
    const { try: attempt } = rig(configUsers())
    for (const name of ['bob', 'CORP\\bob', 'bob@example.net', 'BOB@EXAMPLE.NET']) {
      t.match(await attempt(name, mschapv2(name, 'secret')), {
        type: 'accept',
        authorization: { userName: 'bob' },
      })
      t.match(await attempt(name, pap('secret')), { type: 'accept' })
    }
    t.match(
      await attempt('bob@example.net', mschapv2('bob', 'secret')),
      rejected('bad-credentials'),
      'a proof for another name is none',
    )
    t.match(await attempt('nobody@example.net', pap('secret')), rejected('bad-credentials'))
  },
)

t.test('an account that leaves it to the policies says so, and its groups', async t => {
  const users = configUsers(', dialIn: policy, groups: [staff, admins]')
  t.match(await rig(users).try('User', pap('clientPass')), {
    type: 'accept',
    authorization: { isPolicyRequired: true, groups: ['staff', 'admins'] },
  })
})

t.test('an accepted user brings address, limits and timeouts', async t => {
  const users = configUsers(
    ', address: 10.0.0.1, maxSessions: 2, idleTimeoutSeconds: 60, sessionTimeoutSeconds: 0',
  )
  t.match(await rig(users).try('User', pap('clientPass')), {
    authorization: {
      userName: 'User',
      ipv4Address: 0x0a000001,
      maxSessions: 2,
      idleTimeoutSeconds: 60,
      sessionTimeoutSeconds: Number.POSITIVE_INFINITY,
    },
  })
})

t.test('a method that is not configured is refused without a look at the password', async t => {
  const authenticator = new LocalAuthenticator({
    users: configUsers(),
    methods: ['mschapv2'],
    lockout: new Lockout(limits, new ManualClock()),
  })
  for (const proof of [pap('secret'), chap('secret')]) {
    t.match(
      await authenticator.authenticate({ userName: 'bob', proof, call }),
      rejected('method-not-allowed'),
    )
  }
})

t.test('an expired password is changed on the same link, once and for good', async t => {
  const store = SqliteUserStore.open(join(t.testdir({}), 'state'))
  store.add({ name: 'bob', password: Secret.fromText('old password'), mustChangePassword: true })
  const { try: attempt } = rig(store)
  t.match(await attempt('bob', mschapv2('bob', 'old password')), {
    ...rejected('password-expired'),
    canRetry: true,
  })
  t.match(await attempt('bob', pap('old password')), {
    ...rejected('password-expired'),
    canRetry: false,
  })
  t.match(
    await attempt('bob', changePassword('bob', 'wrong', 'new password')),
    rejected('bad-credentials'),
  )
  t.match(
    await attempt('bob', changePassword('bob', 'old password', 'short')),
    rejected('change-password-failed'),
  )
  t.match(
    await attempt('bob', changePassword('bob', 'old password', 'old password')),
    rejected('bad-credentials'),
    'the same again is no change',
  )
  const verdict = await attempt('CORP\\bob', changePassword('bob', 'old password', 'new password'))
  if (verdict.type !== 'accept') throw new Error('refused')
  t.ok(verdict.keys)
  t.ok(
    checkAuthenticatorResponse(
      { userName: 'bob', authenticatorChallenge, peerChallenge },
      ntPasswordHash('new password'),
      generateNtResponse(
        { userName: 'bob', authenticatorChallenge, peerChallenge },
        ntPasswordHash('new password'),
      ),
      verdict.authenticatorResponse ?? '',
    ),
  )
  t.match(await attempt('bob', mschapv2('bob', 'new password')), { type: 'accept' })
  t.match(await attempt('bob', mschapv2('bob', 'old password')), rejected('bad-credentials'))
  t.match(
    await attempt('bob', changePassword('bob', 'new password', 'newer password')),
    rejected('change-password-failed'),
    'nobody asked for it',
  )
})

t.test('a change whose parts do not fit together is refused', async t => {
  const store = SqliteUserStore.open(join(t.testdir({}), 'state'))
  store.add({ name: 'bob', password: Secret.fromText('old password'), mustChangePassword: true })
  const { try: attempt } = rig(store)
  const good = changePassword('bob', 'old password', 'new password')
  const other = changePassword('bob', 'old password', 'another one')
  if (good.method !== 'mschapv2-change-password') return
  if (other.method !== 'mschapv2-change-password') return
  for (const broken of [
    { ...good, ntResponse: other.ntResponse },
    { ...good, encryptedHash: other.encryptedHash },
    { ...good, encryptedPassword: other.encryptedPassword },
    { ...good, encryptedPassword: new Uint8Array(0) },
    { ...good, encryptedHash: new Uint8Array(0) },
    { ...good, ntResponse: new Uint8Array(0) },
  ]) {
    t.match(await attempt('bob', broken), rejected('bad-credentials'))
  }
})

t.test(
  'ten failures in a minute lock a name, known or not, even for the right password',
  async t => {
    for (const name of ['bob', 'nobody']) {
      const { try: attempt, clock, lockout } = rig(configUsers())
      for (let i = 0; i < 9; i++) {
        t.match(await attempt(name, pap('x')), { ...rejected('bad-credentials'), canRetry: true })
      }
      t.match(await attempt(name, pap('x')), { ...rejected('bad-credentials'), canRetry: false })
      t.match(await attempt(`X\\${name.toUpperCase()}`, pap('secret')), rejected('locked-out'))
      t.same([...lockout.status().users], [[name, 60_000]])
      clock.advance(60_001)
      t.match(await attempt(name, pap('secret')), {
        type: name === 'bob' ? 'accept' : 'reject',
      })
    }
  },
)

t.test('failures count within a sliding window, and a success forgets them', async t => {
  const { try: attempt, clock } = rig(configUsers())
  for (let i = 0; i < 40; i++) {
    t.match(await attempt('bob', pap('x'), `192.0.2.${i}`), rejected('bad-credentials'))
    clock.advance(6700)
  }
  t.match(await attempt('bob', pap('secret')), { type: 'accept' }, 'nine a minute never lock')
  for (let i = 0; i < 9; i++) await attempt('bob', pap('x'))
  t.match(await attempt('bob', pap('secret')), { type: 'accept' })
  t.match(await attempt('bob', pap('x')), { canRetry: true })
})

t.test(
  'thirty failures from one address lock it for all names, and a success does not help',
  async t => {
    const { try: attempt, lockout } = rig(configUsers())
    for (let i = 0; i < 29; i++) await attempt(`user${i}`, pap('x'), '::ffff:198.51.100.7')
    t.match(await attempt('bob', pap('secret'), '198.51.100.7'), { type: 'accept' })
    t.notOk(lockout.isAddressLocked('198.51.100.7'))
    await attempt('another', pap('x'), '198.51.100.7')
    t.ok(lockout.isAddressLocked('198.51.100.7'))
    t.match(await attempt('bob', pap('secret'), '198.51.100.7'), rejected('locked-out'))
    t.match(await attempt('bob', pap('secret'), '198.51.100.8'), { type: 'accept' })
    t.ok(lockout.unlock('198.51.100.7'))
    t.notOk(lockout.unlock('198.51.100.7'))
    t.match(await attempt('bob', pap('secret'), '198.51.100.7'), { type: 'accept' })
  },
)

t.test('10,000 log-ins a minute against one user: ten guesses, and others come in', async t => {
  const { try: attempt, clock } = rig(configUsers())
  const reasons = new Map<string, number>()
  for (let i = 0; i < 10_000; i++) {
    const verdict = await attempt('bob', pap(`guess${i}`), `198.51.${i >> 8}.${i & 0xff}`)
    const reason = verdict.type === 'reject' ? verdict.reason : 'accepted'
    reasons.set(reason, (reasons.get(reason) ?? 0) + 1)
    clock.advance(6)
  }
  t.same(Object.fromEntries(reasons), { 'bad-credentials': 10, 'locked-out': 9990 })
  t.match(await attempt('User', pap('clientPass')), { type: 'accept' })
  clock.advance(60_000)
  t.match(await attempt('bob', pap('secret')), { type: 'accept' })
})

t.test('one IPv6 network of 64 bits is one source', async t => {
  t.equal(sourceKey('2001:db8::1:2:3:4'), '2001:db8::/64')
  t.equal(sourceKey('::ffff:192.0.2.1'), '192.0.2.1')
})

t.test('a flood of names is forgotten from its oldest on, so memory has an end', async t => {
  const window = new FailureWindow(2, { windowMs: 1000, durationMs: 1000 }, 100)
  for (let i = 0; i < 1000; i++) window.fail(`name${i}`, 0)
  t.equal(window.size, 100)
  t.ok(window.fail('name999', 1), 'the latest are remembered')
  t.notOk(window.fail('name0', 1))
})

t.test('a store that fails is a refusal, never an exception', async t => {
  const users = configUsers()
  const broken: UserStore = Object.create(users, {
    find: {
      value: () => {
        throw new StoreError('gone')
      },
    },
  })
  const { try: attempt, lines } = rig(broken)
  t.match(await attempt('bob', pap('secret')), rejected('backend-unavailable'))
  t.match(lines.join(''), 'user-store-failed')
})

t.test('each refusal is a log line with its reason, and no line shows a secret', async t => {
  const { try: attempt, lines } = rig(configUsers())
  await attempt('bob', pap('canary-password'))
  await attempt('bob', mschapv2('bob', 'canary-password'))
  for (let i = 0; i < 9; i++) await attempt('bob', pap('canary-password'))
  t.match(JSON.parse(lines[0] ?? ''), {
    event: 'login-refused',
    reason: 'bad-credentials',
    user: 'bob',
    peer: '192.0.2.1',
    sessionId: 's1',
  })
  t.ok(lines.some(line => line.includes('"event":"locked-out"')))
  t.notMatch(lines.join(''), 'canary-password')
  t.notMatch(lines.join(''), toHex(ntPasswordHash('canary-password')))
})

t.test('an unknown name and a wrong password take the same time', async t => {
  const store = SqliteUserStore.open(join(t.testdir({}), 'state'))
  for (let i = 0; i < 20; i++) store.add({ name: `user${i}`, password: Secret.fromText('x') })
  const authenticator = new LocalAuthenticator({
    users: store,
    methods: ['mschapv2'],
    lockout: new Lockout(
      { ...limits, attemptsPerUser: 1e6, attemptsPerAddress: 1e6 },
      new ManualClock(),
    ),
  })
  const timesMs = { known: [] as number[], unknown: [] as number[] }
  for (let i = 0; i < 400; i++) {
    const kind = i % 2 === 0 ? 'known' : 'unknown'
    const userName = kind === 'known' ? 'user7' : 'nobody'
    const proof = mschapv2(userName, 'wrong')
    const startMs = performance.now()
    await authenticator.authenticate({ userName, proof, call })
    timesMs[kind].push(performance.now() - startMs)
  }
  const median = (times: number[]) => times.sort((a, b) => a - b)[times.length >> 1] ?? 0
  const ratio = median(timesMs.known) / median(timesMs.unknown)
  t.ok(ratio > 0.5 && ratio < 2, `medians differ by a factor of ${ratio.toFixed(2)}`)
})

t.test('one-time passwords are those of RFC 6238 appendix B', async t => {
  const secret = Secret.fromText('12345678901234567890')
  const vectors: readonly (readonly [number, string])[] = [
    [59, '94287082'],
    [1_111_111_109, '07081804'],
    [1_234_567_890, '89005924'],
    [20_000_000_000, '65353130'],
  ]
  for (const [seconds, expected] of vectors) {
    t.equal(oneTimePassword(secret, timeStep(new Date(seconds * 1000)), 8), expected)
  }
})

t.test('a user with one-time passwords needs both, by PAP, and each once', async t => {
  const key = 'GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ'
  const store = SqliteUserStore.open(join(t.testdir({}), 'state'))
  const secret = new Secret(parseBase32(key) ?? new Uint8Array(0))
  store.add({ name: 'User', password: Secret.fromText('clientPass'), totpKey: secret })
  t.equal(formatBase32(secret.expose()), key)
  for (const users of [configUsers(`, totp: ${key}`), store]) {
    const { try: attempt } = rig(users)
    const step = timeStep(new Date('2026-06-01'))
    const code = (at: number) => oneTimePassword(secret, at)
    t.match(await attempt('User', pap('clientPass')), rejected('bad-credentials'))
    t.match(await attempt('User', pap(code(step))), rejected('bad-credentials'))
    t.match(await attempt('User', pap(`clientPass${code(step + 2)}`)), rejected('bad-credentials'))
    t.match(await attempt('User', pap(`wrong${code(step)}`)), rejected('bad-credentials'))
    t.match(await attempt('User', pap(`clientPass${code(step)}`)), { type: 'accept' })
    t.match(await attempt('User', pap(`clientPass${code(step)}`)), rejected('bad-credentials'))
    t.match(
      await attempt('User', pap(`clientPass${code(step - 1)}`)),
      rejected('bad-credentials'),
      'nor an older one',
    )
    t.match(await attempt('User', pap(`clientPass${code(step + 1)}`)), { type: 'accept' })
    t.match(await attempt('User', mschapv2('User', 'clientPass')), rejected('method-not-allowed'))
    t.match(await attempt('User', mschapv2('User', 'wrong')), rejected('bad-credentials'))
  }
  store.set('User', { totpKey: undefined })
  t.match(await rig(store).try('User', pap('clientPass')), { type: 'accept' })
  t.equal(parseBase32('not base32!'), undefined)
})
