import t from 'tap'
import type {
  AuthenticationRequest,
  Proof,
  RejectReason,
  Verdict,
} from '../../../lib/aaa/authenticator.ts'
import { FallbackAuthenticator } from '../../../lib/aaa/fallback-authenticator.ts'
import { Lockout } from '../../../lib/aaa/lockout.ts'
import { authorizationOf, messageOfReply } from '../../../lib/aaa/radius/authorization.ts'
import type { RadiusAnswer, RadiusRequest } from '../../../lib/aaa/radius/client-machine.ts'
import { hideKey } from '../../../lib/aaa/radius/hiding.ts'
import { RadiusAuthenticator } from '../../../lib/aaa/radius/radius-authenticator.ts'
import {
  AttributeList,
  bytesOf,
  bytesOfAll,
  textOf,
  u32Of,
} from '../../../lib/aaa/radius/wire/attributes.ts'
import { RadiusCode } from '../../../lib/aaa/radius/wire/packet.ts'
import { concatBytes, fromHex, toHex, utf8 } from '../../../lib/core/bytes.ts'
import { ManualClock } from '../../../lib/core/clock.ts'
import { parseIpv4 } from '../../../lib/core/ip-address.ts'
import { silentLogger } from '../../../lib/core/log.ts'
import { Secret } from '../../../lib/core/secret.ts'
import { testSecret } from './radius-server.ts'

const requestAuthenticator = fromHex('0f403f9473978057bd83d5cb98f4227a')
const call = {
  protocol: 'sstp',
  peerAddress: '198.51.100.7',
  sessionId: '00112233445566778899aabb',
}
const code = {
  accept: RadiusCode['Access-Accept'],
  reject: RadiusCode['Access-Reject'],
  challenge: RadiusCode['Access-Challenge'],
}

/** A server that answers so, and what it was asked. */
class Backend {
  readonly asked: RadiusRequest[] = []
  answer: { code: number; list: AttributeList } | undefined

  request(request: RadiusRequest): Promise<RadiusAnswer | undefined> {
    this.asked.push(request)
    return Promise.resolve(
      this.answer && {
        code: this.answer.code,
        attributes: this.answer.list.attributes,
        requestAuthenticator,
        secret: testSecret,
        server: 'test',
      },
    )
  }

  get last() {
    return this.asked.at(-1)?.attributes ?? []
  }
}

const lockoutLimits = {
  attemptsPerUser: 10,
  attemptsPerAddress: 30,
  windowMs: 60_000,
  durationMs: 60_000,
}

function setUp(answer?: { code: number; list: AttributeList }) {
  const backend = new Backend()
  backend.answer = answer
  const clock = new ManualClock(0)
  const lockout = new Lockout(lockoutLimits, clock)
  const authenticator = new RadiusAuthenticator({
    exchange: backend,
    nas: { name: 'vpn.test', address: '192.0.2.1' },
    methods: ['mschapv2', 'chap', 'pap'],
    lockout,
    log: silentLogger,
  })
  return { backend, authenticator, clock }
}

const pap: Proof = { method: 'pap', password: Secret.fromText('secret word') }
const mschapv2: Proof = {
  method: 'mschapv2',
  identifier: 9,
  authenticatorChallenge: new Uint8Array(16).fill(1),
  peerChallenge: new Uint8Array(16).fill(2),
  ntResponse: new Uint8Array(24).fill(3),
}

function asking(proof: Proof, userName = 'CORP\\alice'): AuthenticationRequest {
  return { userName, proof, call }
}

function keys(list: AttributeList, receive = 16, send = 16): AttributeList {
  const hidden = (length: number, fill: number, salt: number) =>
    hideKey(
      new Uint8Array(length).fill(fill),
      Uint8Array.of(0x80, salt),
      testSecret,
      requestAuthenticator,
    )
  return list
    .bytes('MS-MPPE-Recv-Key', hidden(receive, 0xaa, 1))
    .bytes('MS-MPPE-Send-Key', hidden(send, 0xbb, 2))
}

const success = () =>
  keys(
    new AttributeList().bytes(
      'MS-CHAP2-Success',
      concatBytes(Uint8Array.of(9), utf8(`S=${'0123456789ABCDEF'.repeat(3).slice(0, 40)}`)),
    ),
  )

function reasonOf(verdict: Verdict): string {
  return verdict.type === 'accept' ? 'accept' : `${verdict.reason}${verdict.canRetry ? '+' : ''}`
}

t.test('PAP hands the password to the client, and the call is described', async t => {
  const { backend, authenticator } = setUp({ code: code.accept, list: new AttributeList() })
  const verdict = await authenticator.authenticate(asking(pap))
  t.match(verdict, { type: 'accept', authorization: { userName: 'CORP\\alice' } })
  t.equal(backend.asked[0]?.password?.exposeText(), 'secret word')
  const sent = backend.last
  t.equal(textOf(sent, 'User-Name'), 'CORP\\alice', 'the name as it was sent')
  t.equal(textOf(sent, 'NAS-Identifier'), 'vpn.test')
  t.equal(u32Of(sent, 'NAS-IP-Address'), 0xc0000201)
  t.equal(u32Of(sent, 'NAS-Port-Type'), 5)
  t.equal(textOf(sent, 'Calling-Station-Id'), '198.51.100.7')
  t.equal(textOf(sent, 'Acct-Session-Id'), call.sessionId)
  t.equal(toHex(bytesOf(sent, 'Tunnel-Type') ?? new Uint8Array(0)), '00013701')
  t.equal(u32Of(sent, 'MS-Network-Access-Server-Type'), 2)
  t.equal(
    Buffer.from(bytesOf(sent, 'MS-RAS-Correlation') ?? []).toString(),
    '{00112233-4455-6677-8899-AABB00000000}',
  )
})

t.test('CHAP goes as identifier and response, with its challenge', async t => {
  const { backend, authenticator } = setUp({ code: code.accept, list: new AttributeList() })
  const challenge = new Uint8Array(16).fill(5)
  const response = new Uint8Array(16).fill(6)
  await authenticator.authenticate(
    asking({ method: 'chap-md5', identifier: 0x16, challenge, response }),
  )
  t.equal(
    toHex(bytesOf(backend.last, 'CHAP-Password') ?? new Uint8Array(0)),
    `16${'06'.repeat(16)}`,
  )
  t.same(bytesOf(backend.last, 'CHAP-Challenge'), challenge)
})

t.test('MS-CHAPv2 goes as RFC 2548 lays it out, and brings proof and keys back', async t => {
  const { backend, authenticator } = setUp({ code: code.accept, list: success() })
  const verdict = await authenticator.authenticate(asking(mschapv2))
  const response = toHex(bytesOf(backend.last, 'MS-CHAP2-Response') ?? new Uint8Array(0))
  t.equal(response, `0900${'02'.repeat(16)}${'00'.repeat(8)}${'03'.repeat(24)}`)
  t.equal(bytesOf(backend.last, 'MS-CHAP-Challenge')?.length, 16)
  t.match(verdict, {
    type: 'accept',
    authenticatorResponse: /^S=[0-9A-F]{40}$/,
    keys: { receive: new Uint8Array(16).fill(0xaa), send: new Uint8Array(16).fill(0xbb) },
  })
})

t.test('an Accept that cannot be used is a fault of the backend', async t => {
  for (const [title, list] of [
    ['no proof', keys(new AttributeList())],
    ['no keys', new AttributeList().bytes('MS-CHAP2-Success', utf8(`9S=${'0'.repeat(40)}`))],
    [
      '39 digits',
      keys(new AttributeList().bytes('MS-CHAP2-Success', utf8(`9S=${'0'.repeat(39)}`))),
    ],
    [
      'short keys',
      keys(new AttributeList().bytes('MS-CHAP2-Success', utf8(`9S=${'0'.repeat(40)}`)), 8, 8),
    ],
  ] as const) {
    const { authenticator } = setUp({ code: code.accept, list })
    t.equal(
      reasonOf(await authenticator.authenticate(asking(mschapv2))),
      'backend-unavailable',
      title,
    )
  }
})

t.test('refusals say what MS-CHAP-Error says', async t => {
  const errors: readonly [string, RejectReason | `${RejectReason}+`][] = [
    ['E=691 R=1 C=00112233445566778899AABBCCDDEEFF V=3 M=no', 'bad-credentials+'],
    ['E=691 R=0', 'bad-credentials'],
    ['E=648 R=0', 'password-expired+'],
    ['E=647', 'account-disabled'],
    ['E=646', 'restricted-hours'],
    ['E=649', 'no-dial-in'],
    ['E=709 R=0', 'change-password-failed'],
    ['nonsense', 'bad-credentials'],
  ]
  for (const [text, expected] of errors) {
    const list = new AttributeList().bytes(
      'MS-CHAP-Error',
      concatBytes(Uint8Array.of(9), utf8(text)),
    )
    const { authenticator } = setUp({ code: code.reject, list })
    t.equal(reasonOf(await authenticator.authenticate(asking(mschapv2))), expected, text)
  }
  const plain = setUp({ code: code.reject, list: new AttributeList() })
  t.equal(reasonOf(await plain.authenticator.authenticate(asking(pap))), 'bad-credentials')
  const otp = setUp({ code: code.challenge, list: new AttributeList() })
  t.equal(reasonOf(await otp.authenticator.authenticate(asking(pap))), 'method-not-allowed')
  const silent = setUp()
  t.equal(reasonOf(await silent.authenticator.authenticate(asking(pap))), 'backend-unavailable')
  const shell = setUp({ code: code.accept, list: new AttributeList().u32('Service-Type', 6) })
  t.equal(reasonOf(await shell.authenticator.authenticate(asking(pap))), 'no-dial-in')
})

t.test('10,000 log-ins a minute against one user: ten guesses reach the server', async t => {
  const { backend, authenticator, clock } = setUp({
    code: code.reject,
    list: new AttributeList(),
  })
  const attempt = (userName: string, peerAddress: string) =>
    authenticator.authenticate({ userName, proof: pap, call: { ...call, peerAddress } })
  const reasons = new Map<string, number>()
  for (let i = 0; i < 10_000; i++) {
    const from = `198.51.${i >> 8}.${i & 0xff}`
    const names = ['alice', 'CORP\\Alice', `DOM${i}\\alice`, 'alice@corp.example']
    const verdict = await attempt(names[i % names.length] ?? '', from)
    const reason = verdict.type === 'reject' ? verdict.reason : 'accepted'
    reasons.set(reason, (reasons.get(reason) ?? 0) + 1)
    clock.advance(6)
  }
  t.same(Object.fromEntries(reasons), { 'bad-credentials': 10, 'locked-out': 9990 })
  t.equal(backend.asked.length, 10)
  backend.answer = { code: code.accept, list: new AttributeList() }
  t.match(await attempt('bob', '203.0.113.1'), { type: 'accept' }, 'others come in')
  t.match(await attempt('alice', '203.0.113.1'), { reason: 'locked-out' })
  clock.advance(60_000)
  t.match(await attempt('alice', '203.0.113.1'), { type: 'accept' }, 'and so does she, later')
})

t.test('a server that is silent locks nobody out', async t => {
  const { backend, authenticator } = setUp()
  for (let i = 0; i < 50; i++) {
    const verdict = await authenticator.authenticate({ userName: 'alice', proof: pap, call })
    t.match(verdict, { reason: 'backend-unavailable' })
  }
  backend.answer = { code: code.accept, list: new AttributeList() }
  const verdict = await authenticator.authenticate({ userName: 'alice', proof: pap, call })
  t.match(verdict, { type: 'accept' })
})

t.test('a method that is not allowed asks nobody', async t => {
  const backend = new Backend()
  const authenticator = new RadiusAuthenticator({
    exchange: backend,
    nas: { name: 'vpn' },
    methods: ['mschapv2'],
    lockout: new Lockout(lockoutLimits, new ManualClock(0)),
    log: silentLogger,
  })
  t.equal(reasonOf(await authenticator.authenticate(asking(pap))), 'method-not-allowed')
  t.equal(backend.asked.length, 0)
})

t.test('a new password goes in three parts with its proof', async t => {
  const { backend, authenticator } = setUp({ code: code.accept, list: success() })
  const { method: _, ...rest } = mschapv2
  await authenticator.authenticate(
    asking({
      ...rest,
      method: 'mschapv2-change-password',
      encryptedPassword: Uint8Array.from({ length: 516 }, (_, i) => i),
      encryptedHash: new Uint8Array(16).fill(4),
    }),
  )
  const parts = bytesOfAll(backend.last, 'MS-CHAP-NT-Enc-PW')
  t.same(
    parts.map(part => [part.length, ...part.slice(0, 4)]),
    [
      [247, 6, 9, 0, 1],
      [247, 6, 9, 0, 2],
      [34, 6, 9, 0, 3],
    ],
  )
  const proof = bytesOf(backend.last, 'MS-CHAP2-CPW') ?? new Uint8Array(0)
  t.equal(proof.length, 68)
  t.equal(
    toHex(proof),
    `0709${'04'.repeat(16)}${'02'.repeat(16)}${'00'.repeat(8)}${'03'.repeat(24)}0000`,
  )
})

t.test('EAP packets go whole, with State, and the MSK comes back', async t => {
  const { backend, authenticator } = setUp()
  const packet = Uint8Array.from({ length: 600 }, (_, i) => i)
  const request = { identity: 'alice', packet, call }
  backend.answer = {
    code: code.challenge,
    list: new AttributeList().split('EAP-Message', packet).bytes('State', Uint8Array.of(7, 7)),
  }
  t.same(await authenticator.relayEap(request), {
    type: 'challenge',
    packet,
    state: Uint8Array.of(7, 7),
  })
  t.equal(bytesOfAll(backend.last, 'EAP-Message').length, 3)
  t.equal(backend.asked[0]?.password, undefined)
  await authenticator.relayEap({ ...request, state: Uint8Array.of(7, 7) })
  t.same(bytesOf(backend.last, 'State'), Uint8Array.of(7, 7))
  backend.answer = {
    code: code.accept,
    list: keys(new AttributeList().bytes('EAP-Message', Uint8Array.of(3, 1, 0, 4)), 32, 32).u32(
      'Session-Timeout',
      60,
    ),
  }
  const accepted = await authenticator.relayEap(request)
  t.match(accepted, { type: 'accept', authorization: { sessionTimeoutSeconds: 60 } })
  if (accepted.type === 'accept') {
    t.equal(
      toHex(accepted.msk?.expose() ?? new Uint8Array(0)),
      `${'aa'.repeat(32)}${'bb'.repeat(32)}`,
    )
  }
  backend.answer = { code: code.accept, list: keys(new AttributeList()) }
  const short = await authenticator.relayEap(request)
  t.equal(short.type === 'accept' ? short.msk?.length : 0, 64, 'EAP-MSCHAPv2: 16, 16 and zeros')
  backend.answer = { code: code.challenge, list: new AttributeList() }
  t.match(await authenticator.relayEap(request), { reason: 'backend-unavailable' })
  backend.answer = { code: code.reject, list: new AttributeList() }
  t.match(await authenticator.relayEap(request), { reason: 'bad-credentials' })
  backend.answer = { code: code.accept, list: new AttributeList().u32('Service-Type', 1) }
  t.match(await authenticator.relayEap(request), { reason: 'no-dial-in' })
  backend.answer = undefined
  t.match(await authenticator.relayEap(request), { reason: 'backend-unavailable' })
})

t.test('what an Accept gives is taken over', async t => {
  const address = (text: string) => parseIpv4(text) ?? 0
  const prefix = { address: fromHex(`20010db8${'00'.repeat(12)}`), prefixLength: 56 }
  const list = new AttributeList()
    .text('User-Name', 'alice@corp.example')
    .ipv4('Framed-IP-Address', address('10.9.9.9'))
    .text('Framed-Pool', 'staff')
    .text('Framed-IPv6-Pool', 'staff6')
    .prefix('Framed-IPv6-Prefix', prefix)
    .prefix('Delegated-IPv6-Prefix', prefix)
    .text('Framed-Route', '192.168.5.0/24 0.0.0.0 1')
    .text('Framed-Route', '172.16.0.0')
    .text('Framed-Route', '10.1.2.3')
    .text('Framed-Route', '203.0.113.77')
    .text('Framed-Route', '0.0.0.0/0 0.0.0.0 1')
    .text('Framed-Route', '10.0.0.0/33')
    .text('Framed-Route', 'rubbish')
    .text('Framed-IPv6-Route', '2001:db8:1::/48 :: 1')
    .text('Framed-IPv6-Route', '::/0 :: 1')
    .ipv4('MS-Primary-DNS-Server', address('192.0.2.53'))
    .ipv4('MS-Secondary-DNS-Server', address('192.0.2.54'))
    .ipv4('MS-Primary-NBNS-Server', address('192.0.2.55'))
    .ipv6('DNS-Server-IPv6-Address', prefix.address)
    .u32('Session-Timeout', 3600)
    .u32('Idle-Timeout', 300)
    .u32('Port-Limit', 2)
    .u32('MS-BAP-Usage', 1)
    .u32('MS-Link-Utilization-Threshold', 25)
    .u32('MS-Link-Drop-Time-Limit', 60)
    .u32('Acct-Interim-Interval', 5)
    .text('Filter-Id', 'guests')
    .text('NAS-Filter-Rule', 'permit in ip from any to any\0deny out ')
    .text('NAS-Filter-Rule', 'ip from any to any\0')
    .text('MikroTik-Rate-Limit', '2M/512k 4M/1M')
    .u32('WISPr-Bandwidth-Max-Up', 1)
    .u32('MS-MPPE-Encryption-Policy', 2)
    .u32('MS-MPPE-Encryption-Types', 6)
    .bytes('MS-Quarantine-IPFilter', utf8('jail'))
    .u32('MS-Quarantine-Session-Timeout', 90)
    .bytes('Class', Uint8Array.of(1))
    .bytes('Class', Uint8Array.of(2))
  t.same(authorizationOf(list.attributes, 'alice'), {
    userName: 'alice@corp.example',
    ipv4Address: address('10.9.9.9'),
    ipv4Pool: 'staff',
    ipv6Pool: 'staff6',
    ipv6Prefix: prefix,
    delegatedIpv6Prefix: prefix,
    ipv4Routes: [
      { address: address('192.168.5.0'), prefixLength: 24 },
      { address: address('172.16.0.0'), prefixLength: 16 },
      { address: address('10.0.0.0'), prefixLength: 8 },
      { address: address('203.0.113.0'), prefixLength: 24 },
    ],
    ipv6Routes: [{ address: fromHex(`20010db80001${'00'.repeat(10)}`), prefixLength: 48 }],
    dnsIpv4: [address('192.0.2.53'), address('192.0.2.54')],
    winsIpv4: [address('192.0.2.55')],
    dnsIpv6: [prefix.address],
    sessionTimeoutSeconds: 3600,
    idleTimeoutSeconds: 300,
    maxSessions: 2,
    maxLinks: 2,
    linkLoad: { usesBap: true, dropBelowPercent: 25, dropAfterSeconds: 60 },
    interimIntervalSeconds: 60,
    filterName: 'guests',
    filterRules: ['permit in ip from any to any', 'deny out ip from any to any'],
    receiveBitsPerSecond: 2e6,
    sendBitsPerSecond: 512e3,
    isEncryptionRequired: true,
    mppeKeyBits: [40, 128],
    quarantine: { filterName: 'jail', timeoutSeconds: 90 },
    accountingClass: [Uint8Array.of(1), Uint8Array.of(2)],
  })
})

t.test('special addresses, empty limits and unreadable rates give nothing', async t => {
  for (const address of [0xffff_ffff, 0xffff_fffe, 0]) {
    const { attributes } = new AttributeList().ipv4('Framed-IP-Address', address)
    t.same(authorizationOf(attributes, 'bob'), { userName: 'bob' })
  }
  const { attributes } = new AttributeList()
    .text('User-Name', '')
    .u32('Port-Limit', 0)
    .u32('MS-BAP-Usage', 0)
    .u32('MS-Link-Utilization-Threshold', 101)
    .u32('MS-Link-Drop-Time-Limit', 1)
    .text('MikroTik-Rate-Limit', 'fast')
    .bytes('MS-Quarantine-IPFilter', Uint8Array.of(0, 1))
    .u32('MS-MPPE-Encryption-Types', 0)
    .u32('WISPr-Bandwidth-Max-Down', 64_000)
  t.same(authorizationOf(attributes, 'bob'), {
    userName: 'bob',
    linkLoad: { usesBap: false },
    quarantine: {},
    mppeKeyBits: [],
    sendBitsPerSecond: 64_000,
  })
})

t.test('a message is text that a terminal and a log can stand', async t => {
  const { attributes } = new AttributeList()
    .text('Reply-Message', 'Your password\r\n\u001b[31mexpires')
    .text('Reply-Message', 'soon')
  t.equal(messageOfReply(attributes), 'Your password [31mexpires soon')
  t.equal(messageOfReply([]), undefined)
  const { attributes: long } = new AttributeList()
    .text('Reply-Message', 'x'.repeat(253))
    .text('Reply-Message', 'y')
  t.equal(messageOfReply(long)?.length, 240)
})

t.test('local users are asked when no server answers, and only then', async t => {
  const { backend, authenticator } = setUp()
  let asked = 0
  const local = {
    authenticate: () => {
      asked++
      return Promise.resolve<Verdict>({ type: 'accept', authorization: { userName: 'local' } })
    },
  }
  const both = new FallbackAuthenticator(authenticator, local)
  t.equal(reasonOf(await both.authenticate(asking(pap))), 'accept')
  t.equal(asked, 1)
  backend.answer = { code: code.reject, list: new AttributeList() }
  t.equal(reasonOf(await both.authenticate(asking(pap))), 'bad-credentials')
  t.equal(asked, 1)
})
