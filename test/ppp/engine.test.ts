/** The engine: pairs over a bad link, the peers of the field by name, malformed input, every ending. */
import { inspect } from 'node:util'
import fc from 'fast-check'
import t from 'tap'
import type { RejectReason, Verdict } from '../../lib/aaa/authenticator.ts'
import { concatBytes, copyBytes, fromHex, toHex, utf8, utf8Text } from '../../lib/core/bytes.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { Secret } from '../../lib/core/secret.ts'
import { generateNtResponse, ntPasswordHash } from '../../lib/crypto/ms-chap.ts'
import {
  encodeChapValue,
  encodeMschapv2Value,
  parseChapValue,
  parseMschapv2Failure,
} from '../../lib/ppp/wire/chap.ts'
import {
  acceptedByPap,
  clientSettings,
  type HandPlayed,
  handPlayedClient,
  handPlayedServer,
  network,
  OneUser,
  Pair,
  password,
  type Seen,
  serverSettings,
  upByPap,
  userName,
} from './ppp-pair.ts'
import { WholeEngine } from './whole-engine.ts'

const methods = ['mschapv2', 'chap-md5', 'pap'] as const
const hex = (packet: Seen | undefined) => (packet === undefined ? 'none' : toHex(packet.data))

// ---- pairs

for (const method of methods) {
  t.test(`client and server agree with ${method} on a perfect link within a second`, async t => {
    const pair = new Pair({ server: { authentication: [method] } }).open()
    t.ok(pair.run(1000, () => pair.isUp() && pair.client.of('ipv6-up').length > 0))
    const [serverUp] = pair.server.of('ipv4-up')
    const [clientUp] = pair.client.of('ipv4-up')
    t.match(serverUp, { localAddress: 0x0a000001, peerAddress: 0x0a000042, mtuBytes: 1400 })
    t.match(clientUp, { localAddress: 0x0a000042, peerAddress: 0x0a000001, mtuBytes: 1400 })
    t.same(clientUp?.dns, [0x0a000035, 0x0a000036])
    t.same(clientUp?.wins, [])
    const [serverIpv6] = pair.server.of('ipv6-up')
    const [clientIpv6] = pair.client.of('ipv6-up')
    t.same(serverIpv6?.localIdentifier, clientIpv6?.peerIdentifier)
    t.same(serverIpv6?.peerIdentifier, clientIpv6?.localIdentifier)
    const [serverKey] = pair.server.of('authenticated')
    const [clientKey] = pair.client.of('authenticated')
    t.same(serverKey?.higherLayerKey, clientKey?.higherLayerKey, 'both make the same key')
    t.equal(serverKey?.higherLayerKey.length, 32)
    t.equal(serverKey?.higherLayerKey.some(byte => byte !== 0) ?? false, method === 'mschapv2')
    t.same(serverKey?.keys, clientKey?.keys)
    t.equal(serverKey?.userName, 'alice')
    t.equal(pair.server.engine.phase, 'network')

    pair.client.handle({ type: 'close', cause: 'user-request' }, pair.nowMs)
    pair.run(pair.nowMs + 10_000)
    t.same(
      pair.server.of('closed').map(e => e.cause),
      ['user-request'],
    )
    t.same(
      pair.client.of('closed').map(e => e.cause),
      ['user-request'],
    )
    t.equal(pair.server.of('ipv4-down').length, 1)
    t.equal(pair.server.of('ipv6-down').length, 1)
    t.equal(pair.server.engine.nextDeadlineMs(), Number.POSITIVE_INFINITY)
  })

  t.test(`${method} converges at 5 % loss, 2 % duplicates, 5 % reorder within 30 s`, async t => {
    const impairment = { lossPercent: 5, duplicatePercent: 2, reorderPercent: 5 }
    let up = 0
    const seeds = 100
    for (let seed = 1; seed <= seeds; seed++) {
      const pair = new Pair({ seed, impairment, server: { authentication: [method] } }).open()
      if (pair.run(30_000, () => pair.isUp())) up++
      t.ok(pair.server.of('closed').length <= 1)
    }
    t.ok(up >= seeds * 0.99, `${up} of ${seeds}`)
  })

  t.test(`${method} at 25 % loss comes up, or ends once with a cause, within 70 s`, async t => {
    const impairment = { lossPercent: 25, duplicatePercent: 10, reorderPercent: 20 }
    let up = 0
    for (let seed = 1; seed <= 40; seed++) {
      const pair = new Pair({ seed, impairment, server: { authentication: [method] } }).open()
      pair.run(70_000, () => pair.isUp())
      const hasEnded = pair.server.of('closed').length === 1
      t.ok(pair.isUp() || hasEnded, `seed ${seed}`)
      if (pair.isUp()) up++
    }
    t.ok(up >= 36, `${up} of 40 came up`)
  })
}

t.test('a link survives 20 renegotiations, from either side, with the same addresses', async t => {
  for (const impairment of [
    { lossPercent: 0, duplicatePercent: 0, reorderPercent: 0 },
    { lossPercent: 3, duplicatePercent: 3, reorderPercent: 3 },
  ]) {
    const pair = new Pair({ seed: 3, impairment }).open()
    t.ok(pair.run(30_000, () => pair.isUp()))
    for (let i = 1; i <= 20; i++) {
      const side = i % 2 === 0 ? pair.server : pair.client
      const before = pair.upCount()
      side.handle({ type: 'renegotiate' }, pair.nowMs)
      t.ok(
        pair.run(pair.nowMs + 30_000, () => pair.isUp() && pair.upCount() > before),
        `renegotiation ${i}`,
      )
      pair.run(pair.nowMs + 5000)
    }
    t.equal(pair.server.of('closed').length, 0)
    t.ok(pair.server.of('authenticated').length >= 21, 'each time anew')
    const addresses = (side: typeof pair.server) =>
      new Set(side.of('ipv4-up').map(e => `${e.localAddress} ${e.peerAddress}`))
    t.equal(addresses(pair.server).size, 1)
    t.equal(addresses(pair.client).size, 1)
    t.equal(new Set(pair.client.of('ipv6-up').map(e => toHex(e.localIdentifier))).size, 1)
  }
})

t.test('renegotiation without end is ended', async t => {
  const pair = new Pair().open()
  pair.run(5000, () => pair.isUp())
  for (let i = 0; i < 60 && pair.server.of('closed').length === 0; i++) {
    pair.client.handle({ type: 'renegotiate' }, pair.nowMs)
    pair.run(pair.nowMs + 500)
  }
  pair.run(pair.nowMs + 10_000)
  t.same(
    pair.server.of('closed').map(e => e.cause),
    ['protocol-error'],
  )
})

t.test('IPCP that goes down and up without end is ended too', async t => {
  const server = upByPap()
  for (let i = 0; i < 60 && server.engine.phase === 'network'; i++) {
    server.play('ipcp', 1, i + 2, '0306 0a000042')
    server.acknowledge('ipcp')
    server.nowMs += 100
  }
  server.waitUntil(server.nowMs + 10_000)
  t.match(server.of('closed')[0], { cause: 'protocol-error', detail: /renegotiations/ })
  t.equal(server.of('ipv4-up').length, server.of('ipv4-down').length)
  t.ok(server.of('ipv4-up').length >= 20)
})

t.test('a slow users database does not cost the peer a restart period', async t => {
  const pair = new Pair({ verdictMs: 1200 }).open()
  t.ok(pair.run(1700, () => pair.isUp()))
})

t.test('a client with another password is told so, once, after its Failure', async t => {
  for (const method of methods) {
    const pair = new Pair({
      server: { authentication: [method] },
      client: { password: Secret.fromText('wrong') },
    }).open()
    pair.run(20_000)
    const [closed] = pair.client.of('closed')
    t.equal(closed?.cause, 'authentication-failed', method)
    t.equal(pair.client.of('closed').length, 1)
    t.equal(pair.server.of('closed').length, 1)
    t.equal(pair.server.of('authenticated').length, 0)
    t.equal(pair.server.of('ipv4-up').length, 0)
  }
})

t.test('an expired password is changed on the link, and the new one holds afterwards', async t => {
  const users = new OneUser()
  users.isExpired = true
  const pair = new Pair({ users, client: { newPassword: Secret.fromText('n€w-canary') } }).open()
  t.ok(pair.run(5000, () => pair.isUp()))
  t.equal(users.password, 'n€w-canary')
  t.same(
    pair.server.of('authenticate').map(e => e.proof.method),
    ['mschapv2', 'mschapv2-change-password'],
  )
  t.same(
    pair.server.of('authenticated')[0]?.higherLayerKey,
    pair.client.of('authenticated')[0]?.higherLayerKey,
  )
  pair.client.handle({ type: 'renegotiate' }, pair.nowMs)
  t.ok(pair.run(pair.nowMs + 5000, () => pair.upCount() === 2))
})

t.test('an expired password that the client cannot change ends the call', async t => {
  const users = new OneUser()
  users.isExpired = true
  const pair = new Pair({ users }).open()
  pair.run(20_000)
  t.match(pair.client.of('closed')[0], { cause: 'authentication-failed', detail: /648/ })
})

t.test('a client refuses a server that cannot prove that it knows the password', async t => {
  const liar = new OneUser()
  const judge = liar.judge.bind(liar)
  liar.judge = (name, proof): Verdict => {
    const verdict = judge(name, proof)
    return verdict.type === 'accept'
      ? { ...verdict, authenticatorResponse: `S=${'0'.repeat(40)}` }
      : verdict
  }
  const pair = new Pair({ users: liar, server: { authentication: ['mschapv2'] } }).open()
  pair.run(20_000)
  t.equal(pair.client.of('authenticated').length, 0)
  t.match(pair.client.of('closed')[0], { cause: 'authentication-failed', detail: /prove/ })
})

t.test(
  'a client that may not use what the server wants, and a server that wants nothing',
  async t => {
    const apart = new Pair({
      server: { authentication: ['mschapv2'] },
      client: { authentication: ['pap'] },
    }).open()
    apart.run(30_000)
    t.equal(apart.server.of('closed')[0]?.cause, 'protocol-error')
    t.match(apart.server.of('closed')[0]?.detail, /authentication|gave up/)
    const client = handPlayedClient().openLink()
    client.waitUntil(10_000)
    t.match(client.of('closed')[0], { cause: 'protocol-error', detail: /did not ask/ })
    const lenient = handPlayedClient({ authentication: ['pap', 'none'] }).openLink()
    t.equal(lenient.of('authenticated')[0]?.method, 'none')
  },
)

t.test('client and server walk down to what both allow', async t => {
  const pair = new Pair({ client: { authentication: ['chap-md5'] } }).open()
  t.ok(pair.run(5000, () => pair.isUp()))
  t.equal(pair.server.of('link-up')[0]?.authentication, 'chap-md5')
})

t.test('two engines of one seed see a loop in their magic numbers and get past it', async t => {
  const server = new Pair({ seed: 9 })
  t.ok(server.open().run(5000, () => server.isUp()))
  const looped = handPlayedServer()
  looped.handle({ type: 'open' }, 0)
  for (let i = 0; i < 50 && looped.closed() === ''; i++) {
    const frames = looped.takeSent()
    for (const bytes of frames) looped.handle({ type: 'frame', bytes }, looped.nowMs)
    if (frames.length === 0) looped.waitUntil(looped.nowMs + 3000)
  }
  t.equal(looped.closed(), 'setup-timeout', 'a line that returns everything')
  t.ok(looped.of('unexpected').some(event => event.counter === 'lcp-looped-request'))
})

t.test('a pty that echoes until pppd is ready costs one restart timer, not the call', async t => {
  const server = handPlayedServer()
  server.handle({ type: 'open' }, 0)
  for (const bytes of server.takeSent()) server.handle({ type: 'frame', bytes }, server.nowMs)
  t.same(server.takeSent(), [], 'our own request is not answered')
  server.waitUntil(server.nowMs + 3000)
  server.acknowledge('lcp')
  server.play('lcp', 1, 1, '0506 5a5a0102')
  t.match(server.take()[0], { code: 2 })
  t.equal(server.closed(), '')
})

// ---- the peers of the field

t.test(
  'Windows over SSTP: MRU 4091 and callback are rejected, then Naked, then agreed',
  async t => {
    const server = handPlayedServer()
    server.handle({ type: 'open' }, 0)
    server.acknowledge('lcp')
    server.play('lcp', 1, 0, '0104 0ffb 0506 5a5a0102 0702 0802 0d03 06')
    const [reject] = server.take()
    t.equal(reject?.code, 4)
    t.equal(hex(reject), '0d0306', 'callback alone, before any Nak')
    server.play('lcp', 1, 1, '0104 0ffb 0506 5a5a0102 0702 0802')
    const [nak] = server.take()
    t.equal(nak?.code, 3)
    t.equal(hex(nak), '01040578', 'to our 1400')
    server.play('lcp', 1, 2, '0104 0578 0506 5a5a0102 0702 0802')
    const [ack, challenge] = server.take()
    t.equal(ack?.code, 2)
    t.equal(hex(ack), '0104057805065a5a010207020802')
    t.match(challenge, { protocol: 'chap', code: 1 })
    t.match(server.of('link-up')[0], { peerMruBytes: 1400, authentication: 'mschapv2' })
  },
)

t.test('Windows with multilink: MRRU, endpoint and short numbers in one Reject', async t => {
  const server = handPlayedServer()
  server.handle({ type: 'open' }, 0)
  server.acknowledge('lcp')
  const endpoint = `1317 01${'aa'.repeat(20)}`
  server.play('lcp', 1, 0, `0104 0578 0506 5a5a0102 0702 0802 0d03 06 1104 064e ${endpoint} 1202`)
  t.equal(hex(server.take()[0]), `0d03061104064e${endpoint.replace(/ /g, '')}1202`)
})

t.test('Windows identifies itself three times; only text becomes text', async t => {
  const server = acceptedByPap()
  server.play('lcp', 12, 2, concatBytes(fromHex('5a5a0102'), utf8('MSRASV5.20')))
  server.play('lcp', 12, 3, concatBytes(fromHex('5a5a0102'), utf8('MSRAS-0-HOST')))
  server.play('lcp', 12, 4, `5a5a0102 ${'90ab'.repeat(8)}`)
  t.same(
    server.of('identification').map(e => e.text),
    ['MSRASV5.20', 'MSRAS-0-HOST', undefined],
  )
  for (let i = 0; i < 20; i++) server.play('lcp', 12, i, '5a5a0102 41')
  t.equal(server.of('identification').length, 8)
  t.same(server.take(), [], 'nothing is answered')
  t.equal(server.closed(), '')
})

t.test('Windows asks IPCP for DNS and WINS: WINS is rejected, the rest is Naked', async t => {
  const server = acceptedByPap()
  server.handle({ type: 'network', network }, 0)
  t.equal(hex(server.acknowledge('ipcp').find(p => p.protocol === 'ipcp')), '03060a000001')
  server.play('ipcp', 1, 6, '0306 00000000 8106 00000000 8206 00000000 8306 00000000 8406 00000000')
  const [reject] = server.take()
  t.match(reject, { code: 4, identifier: 6 })
  t.equal(hex(reject), '820600000000840600000000')
  server.play('ipcp', 1, 7, '0306 00000000 8106 00000000 8306 00000000')
  const [nak] = server.take()
  t.equal(nak?.code, 3)
  t.equal(hex(nak), '03060a00004281060a00003583060a000036')
  server.play('ipcp', 1, 8, '0306 0a000042 8106 0a000035 8306 0a000036')
  t.equal(server.take()[0]?.code, 2)
  t.equal(server.of('ipv4-up').length, 1)
})

t.test('Windows sends IPV6CP and IPCP at once: kept until the networks open', async t => {
  const server = handPlayedServer({ authentication: ['pap'] }).openLink()
  server.play('pap', 1, 1, '0161 0162')
  server.take()
  server.play('ipv6cp', 1, 5, '010a 0123456789abcdef').play('ipcp', 1, 6, '0306 c0a80005')
  server.play('ccp', 1, 4, '1206 01000001')
  t.same(server.take(), [], 'silence before the verdict (RFC 1661 §3.5)')
  const accept = { type: 'accept', authorization: { userName: 'a' } } as const
  server.handle({ type: 'verdict', attempt: 1, verdict: accept }, 0)
  t.same(server.of('ipv4-requested')[0]?.address, 0xc0a80005)
  server.take()
  server.handle({ type: 'network', network }, 0)
  const answers = server.take()
  t.match(
    answers.find(p => p.protocol === 'ipv6cp' && p.identifier === 5),
    { code: 2 },
  )
  const nak = answers.find(p => p.protocol === 'ipcp' && p.identifier === 6)
  t.equal(nak?.code, 3)
  t.equal(hex(nak), '03060a000042', 'to the address that was granted')
  const reject = answers.find(p => p.protocol === 'lcp')
  t.equal(hex(reject), '80fd0104000a120601000001', 'CCP is not spoken')
})

t.test('the address that the client asked for is granted when the server says so', async t => {
  const server = acceptedByPap()
  server.play('ipcp', 1, 6, '0306 c0a80005')
  t.equal(server.of('ipv4-requested')[0]?.address, 0xc0a80005)
  const ipv4 = { localAddress: 1, peerAddress: 0xc0a80005, dns: [], wins: [] }
  server.handle({ type: 'network', network: { ipv4, ipv6: null } }, 0)
  t.match(
    server.take().find(p => p.identifier === 6),
    { protocol: 'ipcp', code: 2 },
  )
})

t.test('macOS: asyncmap, and no DNS option in our request', async t => {
  const server = handPlayedServer()
  server.handle({ type: 'open' }, 0)
  server.acknowledge('lcp')
  server.play('lcp', 1, 1, '0206 00000000 0506 0a0b0c0d 0702 0802')
  t.equal(server.take()[0]?.code, 2)
  const up = upByPap()
  up.play('acscp', 1, 1, '0306 00000000')
  t.equal(hex(up.take()[0]), '82350101000a030600000000', 'ACSCP is rejected, the call goes on')
  t.equal(up.closed(), '')
})

t.test('macOS and Windows Nak to MS-CHAPv2 when another method is offered first', async t => {
  const server = handPlayedServer({ authentication: ['chap-md5', 'mschapv2'] })
  server.handle({ type: 'open' }, 0)
  const [request] = server.take()
  t.equal(hex(request).slice(8, 18), '0305c22305')
  server.play('lcp', 3, request?.identifier ?? 0, '0305 c22381')
  t.equal(hex(server.take()[0]).slice(8, 18), '0305c22381')
})

t.test('pppd: PAP wished for where it is not allowed is offered again, then given up', async t => {
  const server = handPlayedServer({ authentication: ['mschapv2'] })
  server.handle({ type: 'open' }, 0)
  for (let i = 0; i < 10 && server.engine.phase === 'establish'; i++) {
    const [request] = server.take()
    t.equal(hex(request).slice(8, 18), '0305c22381', 'never weaker')
    server.play('lcp', 3, request?.identifier ?? 0, '0304 c023')
  }
  server.waitUntil(10_000)
  t.equal(server.closed(), 'protocol-error')
})

t.test('EAP and MS-CHAPv1 wished for by a client do not end the call', async t => {
  for (const wish of ['0304 c227', '0305 c22380']) {
    const server = handPlayedServer({ authentication: ['mschapv2'] })
    server.handle({ type: 'open' }, 0)
    const [request] = server.take()
    server.play('lcp', 3, request?.identifier ?? 0, wish)
    t.equal(hex(server.acknowledge('lcp')[0]).slice(8, 18), '0305c22381')
    server.play('lcp', 1, 1, '')
    t.equal(server.of('link-up').length, 1)
  }
})

t.test('a client Naks EAP and MS-CHAPv1 to what it has', async t => {
  for (const demand of ['0304 c227', '0305 c22380']) {
    const client = handPlayedClient()
    client.handle({ type: 'open' }, 0)
    client.acknowledge('lcp')
    client.play('lcp', 1, 1, demand)
    t.match(client.take()[0], { code: 3 })
    client.play('lcp', 1, 2, '0305 c22381')
    t.equal(client.of('link-up')[0]?.authentication, 'mschapv2')
  }
})

t.test('a client that wants us to authenticate to it is rejected', async t => {
  const server = handPlayedServer()
  server.handle({ type: 'open' }, 0)
  server.take()
  server.play('lcp', 1, 1, '0305 c22381 0506 00000001')
  t.same(
    server.take().map(p => [p.code, toHex(p.data)]),
    [[4, '0305c22381']],
  )
})

t.test('a client that rejects authentication is turned away', async t => {
  const server = handPlayedServer()
  server.handle({ type: 'open' }, 0)
  const [request] = server.take()
  server.play('lcp', 4, request?.identifier ?? 0, '0305 c22381')
  server.waitUntil(10_000)
  t.match(server.of('closed')[0], { cause: 'protocol-error', detail: /authentication/ })
})

t.test(
  'SoftEther: an empty Configure-Request is acknowledged; MRU and magic may be refused',
  async t => {
    const server = handPlayedServer()
    server.handle({ type: 'open' }, 0)
    const [request] = server.take()
    const options = toHex(request?.data ?? new Uint8Array(0))
    server.play('lcp', 4, request?.identifier ?? 0, options.slice(0, 8) + options.slice(18))
    const [smaller] = server.acknowledge('lcp')
    t.equal(hex(smaller), '0305c22381', 'only authentication is left')
    server.play('lcp', 1, 3, '')
    t.match(server.take()[0], { code: 2, identifier: 3 })
    t.match(server.of('link-up')[0], { peerMruBytes: 1500 })
  },
)

t.test('RouterOS: a PAP Ack with trailing bytes and lengths that fit nothing', async t => {
  for (const packet of ['02010005 00 dead', '02010040 05 41', '02010000 ffff', '02010005 40']) {
    const client = handPlayedClient({ authentication: ['pap'] }).openLink('0304 c023')
    client.frame(`ff03c023 ${packet}`)
    t.equal(client.of('authenticated').length, 1, packet)
  }
})

t.test('an MRU below 576 is Naked to 576, and rejected when the peer insists', async t => {
  const server = handPlayedServer()
  server.handle({ type: 'open' }, 0)
  server.take()
  server.play('lcp', 1, 0, '0104 0100')
  t.equal(hex(server.take()[0]), '01040240')
  for (let i = 1; i < 5; i++) server.play('lcp', 1, i, '0104 0100')
  server.take()
  server.play('lcp', 1, 9, '0104 0100')
  t.equal(server.take()[0]?.code, 4)
})

t.test('our MRU goes down when the peer asks for it, never below 576', async t => {
  for (const [wish, expected] of [
    ['04b0', '04b0'],
    ['0100', '0240'],
    ['0fff', '0578'],
  ] as const) {
    const server = handPlayedServer()
    server.handle({ type: 'open' }, 0)
    const [request] = server.take()
    server.play('lcp', 3, request?.identifier ?? 0, `0104 ${wish}`)
    t.equal(hex(server.take()[0]).slice(0, 8), `0104${expected}`)
  }
})

t.test('VJ compression, the two old addresses and Mobile IPv4 are rejected', async t => {
  const server = acceptedByPap()
  server.handle({ type: 'network', network }, 0)
  server.take()
  server.play('ipcp', 1, 1, '0306 0a000042 0206 002d0f01 010a 0000000000000000 0406 00000000')
  t.equal(hex(server.take()[0]), '0206002d0f01010a0000000000000000040600000000')
})

t.test('a client that insists on its address ends with a cause', async t => {
  const server = acceptedByPap()
  server.handle({ type: 'network', network: { ...network, ipv6: null } }, 0)
  server.acknowledge('ipcp')
  for (let i = 0; i < 6; i++) server.play('ipcp', 1, i, '0306 c0a80101')
  server.waitUntil(20_000)
  t.match(server.of('closed')[0], { cause: 'protocol-error', detail: /ipcp/ })
})

t.test('IPCP without an address is told one', async t => {
  const server = acceptedByPap()
  server.handle({ type: 'network', network }, 0)
  server.acknowledge('ipcp')
  server.play('ipcp', 1, 1, '')
  t.same(
    server.take().map(p => [p.code, toHex(p.data)]),
    [[3, '03060a000042']],
  )
})

t.test('IPV6CP: zero, ours and absent identifiers are Naked with another one', async t => {
  const server = acceptedByPap()
  server.handle({ type: 'network', network }, 0)
  const own = hex(server.take().find(p => p.protocol === 'ipv6cp'))
  for (const options of ['010a 0000000000000000', own, '']) {
    server.play('ipv6cp', 1, 1, options)
    const [nak] = server.take()
    t.equal(nak?.code, 3)
    t.equal(nak?.data.length, 10)
    t.not(hex(nak), own)
    t.not(hex(nak).slice(4), '0000000000000000')
  }
  server.play('ipv6cp', 1, 2, '010a 0000000000000001 0204 004f')
  t.equal(hex(server.take()[0]), '0204004f')
})

t.test('IPv6 off: one Protocol-Reject, and IPv4 goes on (VyOS)', async t => {
  const server = acceptedByPap()
  server.handle({ type: 'network', network: { ...network, ipv6: null } }, 0)
  server.acknowledge('ipcp')
  server.play('ipv6cp', 1, 5, '010a 0000000000000001')
  t.equal(hex(server.take()[0]).slice(0, 4), '8057')
  server.play('ipcp', 1, 6, '0306 0a000042')
  t.equal(server.of('ipv4-up').length, 1)
  t.equal(server.of('ipv6-up').length, 0)
})

t.test('a peer without IPv6 rejects it and keeps IPv4; without both the call ends', async t => {
  const server = acceptedByPap()
  server.handle({ type: 'network', network }, 0)
  server.play('lcp', 8, 9, '8057 01010004')
  t.equal(server.closed(), '')
  server.play('lcp', 8, 10, '8021 01010004')
  server.waitUntil(10_000)
  t.match(server.of('closed')[0], { cause: 'protocol-error' })
})

// ---- authentication by hand

/** Answers the last challenge as `name` with `secret`. */
function respond(server: HandPlayed, identifier: number, challenge: Uint8Array, secret: string) {
  const peerChallenge = new Uint8Array(16).fill(7)
  const exchange = { userName, authenticatorChallenge: challenge, peerChallenge }
  const ntResponse = generateNtResponse(exchange, ntPasswordHash(secret))
  const value = encodeMschapv2Value({ peerChallenge, ntResponse })
  server.play('chap', 2, identifier, encodeChapValue({ value, name: utf8(userName) }))
}

function judge(server: HandPlayed, users = new OneUser()) {
  const event = server.of('authenticate').at(-1)
  if (event === undefined) return
  const verdict = users.judge(event.userName, event.proof)
  server.handle({ type: 'verdict', attempt: event.attempt, verdict }, server.nowMs)
}

t.test(
  'MS-CHAPv2 may be retried three times, each with a new challenge and identifier',
  async t => {
    const server = handPlayedServer({ authentication: ['mschapv2'] }).openLink()
    const first = server.take().find(p => p.protocol === 'chap')
    let identifier = first?.identifier ?? 0
    let challenge = parseChapValue(first?.data ?? new Uint8Array(1)).value
    t.equal(challenge.length, 16)
    const challenges = new Set([toHex(challenge)])
    for (let i = 0; i < 3; i++) {
      respond(server, identifier, challenge, 'wrong')
      judge(server)
      const [failure] = server.take()
      t.equal(failure?.identifier, identifier)
      const parsed = parseMschapv2Failure(utf8Text(failure?.data ?? new Uint8Array(0)))
      t.match(parsed, { errorCode: 691, canRetry: true })
      challenge = parsed?.challenge ?? challenge
      challenges.add(toHex(challenge))
      const before = server.of('authenticate').length
      respond(server, identifier, challenge, password)
      t.equal(server.of('authenticate').length, before, 'the old identifier is the old question')
      t.match(server.take()[0], { code: 4, identifier }, 'and gets the old answer')
      identifier = (identifier + 1) & 0xff
      server.waitUntil(server.nowMs + 30_000)
      t.same(
        server.take().filter(p => p.protocol === 'chap'),
        [],
        'no timer hurries the user',
      )
    }
    t.equal(challenges.size, 4)
    respond(server, identifier, challenge, 'wrong')
    judge(server)
    const [failure] = server.take()
    t.match(parseMschapv2Failure(utf8Text(failure?.data ?? new Uint8Array(0))), { canRetry: false })
    server.waitUntil(server.nowMs + 10_000)
    t.equal(server.closed(), 'authentication-failed')
  },
)

t.test('a retry with the right password succeeds', async t => {
  const server = handPlayedServer({ authentication: ['mschapv2'] }).openLink()
  const first = server.take().find(p => p.protocol === 'chap')
  const identifier = first?.identifier ?? 0
  respond(server, identifier, parseChapValue(first?.data ?? new Uint8Array(1)).value, 'wrong')
  judge(server)
  const text = utf8Text(server.take()[0]?.data ?? new Uint8Array(0))
  const challenge = parseMschapv2Failure(text)?.challenge ?? new Uint8Array(16)
  respond(server, identifier + 1, challenge, password)
  judge(server)
  const [success] = server.take()
  t.match(success, { code: 3, identifier: identifier + 1 })
  t.match(utf8Text(success?.data ?? new Uint8Array(0)), /^S=[0-9A-F]{40}$/)
  t.equal(server.of('authenticated').length, 1)
})

t.test('each reason has its Windows error and its cause', async t => {
  const table: [RejectReason, number, string][] = [
    ['bad-credentials', 691, 'authentication-failed'],
    ['locked-out', 691, 'authentication-failed'],
    ['account-disabled', 647, 'not-authorized'],
    ['account-expired', 647, 'not-authorized'],
    ['password-expired', 648, 'authentication-failed'],
    ['no-dial-in', 649, 'not-authorized'],
    ['restricted-hours', 646, 'not-authorized'],
    ['change-password-failed', 709, 'authentication-failed'],
    ['method-not-allowed', 691, 'not-authorized'],
    ['backend-unavailable', 691, 'service-unavailable'],
  ]
  for (const [reason, errorCode, cause] of table) {
    const server = handPlayedServer({ authentication: ['mschapv2'] }).openLink()
    const challenge = server.take().find(p => p.protocol === 'chap')
    respond(server, challenge?.identifier ?? 0, new Uint8Array(16), 'x')
    const verdict = { type: 'reject', reason, canRetry: false } as const
    server.handle({ type: 'verdict', attempt: 1, verdict }, 0)
    const [failure, terminate] = server.take()
    const text = utf8Text(failure?.data ?? new Uint8Array(0))
    t.match(parseMschapv2Failure(text), { errorCode, canRetry: false }, reason)
    t.match(terminate, { protocol: 'lcp', code: 5 })
    server.play('lcp', 6, terminate?.identifier ?? 0, '')
    t.equal(server.closed(), cause, reason)
  }
})

t.test('copies of a Response are judged once and answered alike', async t => {
  const server = handPlayedServer({ authentication: ['mschapv2'] }).openLink()
  const challenge = server.take().find(p => p.protocol === 'chap')
  const identifier = challenge?.identifier ?? 0
  const { value } = parseChapValue(challenge?.data ?? new Uint8Array(1))
  for (let i = 0; i < 3; i++) respond(server, identifier, value, password)
  t.equal(server.of('authenticate').length, 1)
  judge(server)
  const [success] = server.take()
  respond(server, identifier, value, password)
  t.same(server.take()[0], success)
  for (let i = 0; i < 100; i++) respond(server, identifier, value, password)
  t.ok(server.take().length < 20, 'but not without end')
  t.equal(server.of('authenticated').length, 1)
})

t.test('a challenge is repeated ten times, three seconds apart', async t => {
  const server = handPlayedServer({ authentication: ['chap-md5'] }).openLink()
  server.waitUntil(31_000)
  const challenges = server.take().filter(p => p.protocol === 'chap')
  t.equal(challenges.length, 10)
  t.equal(new Set(challenges.map(p => `${p.identifier} ${toHex(p.data)}`)).size, 1)
  server.waitUntil(40_000)
  t.equal(server.closed(), 'setup-timeout')
})

t.test('a change of password that nobody asked for is dropped', async t => {
  const server = handPlayedServer({ authentication: ['mschapv2'] }).openLink()
  const challenge = server.take().find(p => p.protocol === 'chap')
  server.play('chap', 7, challenge?.identifier ?? 0, new Uint8Array(582))
  t.same(server.of('authenticate'), [])
  t.ok(server.counters().includes('chap-change-not-asked-for'))
})

t.test('a verdict for an older attempt, or when nobody waits, is ignored', async t => {
  const server = handPlayedServer({ authentication: ['pap'] }).openLink()
  const verdict = { type: 'accept', authorization: { userName: 'a' } } as const
  server.handle({ type: 'verdict', attempt: 0, verdict }, 0)
  server.play('pap', 1, 1, '0161 0162')
  server.handle({ type: 'verdict', attempt: 7, verdict }, 0)
  // The link is renegotiated while the database thinks.
  server.play('lcp', 1, 9, '0506 99999999')
  server.handle({ type: 'verdict', attempt: 1, verdict }, 0)
  t.equal(server.of('authenticated').length, 0)
  t.equal(server.counters().filter(name => name === 'stale-verdict').length, 3)
  const gone = handPlayedServer({ authentication: ['pap'] }).openLink()
  gone.play('pap', 1, 1, '0161 0162')
  gone.handle({ type: 'carrier-lost' }, 0)
  gone.handle({ type: 'verdict', attempt: 1, verdict }, 0)
  t.equal(gone.of('authenticated').length, 0)
  t.equal(gone.of('closed').length, 1)
})

t.test('a renegotiated link is never authenticated by less, nor as somebody else', async t => {
  const server = handPlayedServer({ authentication: ['chap-md5', 'pap'] })
  server.handle({ type: 'open' }, 0)
  const accept = (name: string, attempt: number) =>
    server.handle(
      { type: 'verdict', attempt, verdict: { type: 'accept', authorization: { userName: name } } },
      0,
    )
  server.acknowledge('lcp')
  server.play('lcp', 1, 1, '0506 00000001')
  const challenge = server.take().find(p => p.protocol === 'chap')
  const value = new Uint8Array(16)
  server.play('chap', 2, challenge?.identifier ?? 0, encodeChapValue({ value, name: utf8('a') }))
  accept('a', 1)
  server.takeSent()
  server.play('lcp', 1, 2, '0506 00000002')
  t.equal(server.of('renegotiating').length, 1)
  const request = server.take().find(p => p.protocol === 'lcp' && p.code === 1)
  server.play('lcp', 3, request?.identifier ?? 0, '0304 c023')
  const again = server.acknowledge('lcp').find(p => p.code === 1)
  t.match(hex(again), /0305c22305/, 'a wish for PAP is not followed any more')
  const second = server.take().find(p => p.protocol === 'chap')
  server.play('chap', 2, second?.identifier ?? 0, encodeChapValue({ value, name: utf8('b') }))
  accept('b', 2)
  server.waitUntil(10_000)
  t.equal(server.closed(), 'not-authorized')
})

t.test('a verdict without what MS-CHAPv2 needs is a fault of ours', async t => {
  const server = handPlayedServer({ authentication: ['mschapv2'] }).openLink()
  const challenge = server.take().find(p => p.protocol === 'chap')
  respond(server, challenge?.identifier ?? 0, new Uint8Array(16), 'x')
  const verdict = { type: 'accept', authorization: { userName: 'a' } } as const
  server.handle({ type: 'verdict', attempt: 1, verdict }, 0)
  server.waitUntil(10_000)
  t.equal(server.closed(), 'nas-error')
})

t.test('success is computed, never received', async t => {
  const client = handPlayedClient().openLink('0305 c22381')
  client.play('chap', 3, 1, utf8(`S=${'0'.repeat(40)}`))
  t.equal(client.of('authenticated').length, 0)
  client.play('chap', 1, 1, encodeChapValue({ value: new Uint8Array(16), name: utf8('s') }))
  client.play('chap', 3, 2, utf8(`S=${'0'.repeat(40)}`))
  t.equal(client.of('authenticated').length, 0)
  t.equal(client.closed(), '')
  client.play('chap', 3, 1, utf8(`S=${'0'.repeat(40)}`))
  client.waitUntil(10_000)
  t.equal(client.closed(), 'authentication-failed')
})

t.test('PAP: copies of a request are judged once and answered alike', async t => {
  const server = handPlayedServer({ authentication: ['pap'] }).openLink()
  server.take()
  server.play('pap', 1, 5, '0161').play('pap', 2, 5, '00')
  server.play('pap', 1, 5, `fe${'61'.repeat(254)} 00`)
  t.equal(server.of('authenticate').length, 0, 'malformed, an answer, a name too long')
  server.play('pap', 1, 5, '0161 0162').play('pap', 1, 6, '0161 0162')
  t.equal(server.of('authenticate').length, 1)
  const authorization = { userName: 'a' }
  const verdict = { type: 'accept', authorization, message: 'hello' } as const
  server.handle({ type: 'verdict', attempt: 1, verdict }, 0)
  t.match(server.take()[0], { code: 2, identifier: 5 })
  server.play('pap', 1, 6, '0161 0162')
  t.same(
    server.take().map(p => [p.code, p.identifier, toHex(p.data)]),
    [[2, 6, '0568656c6c6f']],
  )
  for (let i = 0; i < 100; i++) server.play('pap', 1, 6, '0161 0162')
  t.ok(server.take().length < 20)
  t.equal(server.of('authenticated').length, 1)
})

t.test('a PAP client repeats its request, and believes only the answer to it', async t => {
  const client = handPlayedClient({ authentication: ['pap'] }).openLink('0304 c023')
  client.play('pap', 1, 1, '').play('pap', 2, 77, '00')
  t.equal(client.of('authenticated').length, 0)
  client.waitUntil(6500)
  const requests = client.take().filter(p => p.protocol === 'pap')
  t.equal(requests.length, 3)
  client.play('pap', 3, requests[0]?.identifier ?? 0, '026e6f').play('pap', 2, 1, '00')
  client.waitUntil(20_000)
  t.match(client.of('closed')[0], { cause: 'authentication-failed', detail: /no/ })
  t.equal(client.of('authenticated').length, 0)
  const ignored = handPlayedClient({ authentication: ['pap'] }).openLink('0304 c023')
  ignored.waitUntil(45_000)
  t.match(ignored.of('closed')[0], { cause: 'setup-timeout' })
})

t.test(
  'a CHAP client answers a challenge in the middle of a call, and nothing changes',
  async t => {
    const client = handPlayedClient({ authentication: ['chap-md5'] }).openLink('0305 c22305')
    for (const identifier of [1, 2]) {
      const value = new Uint8Array(16).fill(identifier)
      client.play('chap', 1, identifier, encodeChapValue({ value, name: utf8('s') }))
      t.match(
        client.take().find(p => p.protocol === 'chap'),
        { code: 2, identifier },
      )
      client.play('chap', 3, identifier, '')
    }
    t.equal(client.of('authenticated').length, 1)
    client.play('chap', 9, 1, '').play('chap', 1, 3, '').play('chap', 1, 3, '00')
    t.equal(client.closed(), '')
  },
)

t.test('a name of 254 bytes and values of a wrong size are not judged', async t => {
  for (const method of ['chap-md5', 'mschapv2'] as const) {
    const server = handPlayedServer({ authentication: [method] }).openLink()
    const identifier = server.take().find(p => p.protocol === 'chap')?.identifier ?? 0
    const valueBytes = method === 'chap-md5' ? 16 : 49
    const name = new Uint8Array(254).fill(0x61)
    const answers = [
      encodeChapValue({ value: new Uint8Array(valueBytes), name }),
      encodeChapValue({ value: new Uint8Array(valueBytes + 1), name: utf8('a') }),
      encodeChapValue({ value: new Uint8Array(valueBytes - 1), name: utf8('a') }),
      new Uint8Array(0),
    ]
    for (const data of answers) server.play('chap', 2, identifier, data)
    server.play('chap', 2, identifier + 1, answers[0] ?? '')
    server.play('chap', 4, identifier, '')
    t.equal(server.of('authenticate').length, 0)
    t.equal(server.counters().filter(name => name.includes('chap')).length, 6)
  }
})

// ---- the link

t.test('echoes are answered with our magic number and cut to the MRU of the peer', async t => {
  const server = acceptedByPap()
  server.play('lcp', 9, 77, `11223344 ${'ab'.repeat(10)}`)
  const [reply] = server.take()
  t.match(reply, { code: 10, identifier: 77 })
  t.equal(hex(reply).slice(8), 'ab'.repeat(10))
  t.not(hex(reply).slice(0, 8), '11223344')
  server.play('lcp', 9, 78, `11223344 ${'ab'.repeat(3000)}`)
  t.equal(server.takeSent()[0]?.length, 4 + 1500)
  server.play('lcp', 9, 79, '1122')
  server.play('lcp', 10, 80, '11223344').play('lcp', 11, 81, '11223344 00')
  server.play('lcp', 13, 82, '11223344 0000003c')
  t.same(server.take(), [], 'replies, discards and time-remaining say nothing back')
})

t.test('silence is asked about and then ends the call; any frame is life', async t => {
  const server = upByPap()
  server.waitUntil(60_000)
  t.ok(server.take().filter(p => p.code === 9).length >= 1)
  t.equal(server.closed(), '')
  server.waitUntil(200_000)
  t.match(server.of('closed')[0], { cause: 'lost-carrier', detail: /80 s/ })
  t.equal(server.of('ipv4-down').length, 1)
  const alive = upByPap()
  for (let i = 0; i < 30; i++) {
    alive.waitUntil(alive.nowMs + 15_000)
    if (i % 2 === 0) alive.handle({ type: 'alive' }, alive.nowMs)
    else alive.play('lcp', 11, i, '00000000')
  }
  t.equal(alive.closed(), '')
  t.same(alive.take(), [], 'who speaks is not asked')
})

t.test('a peer that rejects Echo-Request is not asked again, nor held dead', async t => {
  const server = upByPap()
  server.play('lcp', 7, 3, '09 01 0008 00000000')
  server.waitUntil(600_000)
  t.equal(server.closed(), '')
})

t.test('unknown protocols are rejected, at a bounded rate, and never fatal', async t => {
  const server = upByPap()
  for (let i = 0; i < 1000; i++) server.frame('ff038281 0101000a', server.nowMs)
  const rejects = server.take()
  t.equal(rejects.length, 10)
  t.equal(hex(rejects[0]), '82810101000a')
  t.equal(server.counters().filter(name => name === 'lcp-unknown-protocol').length, 1000)
  server.nowMs += 1000
  server.frame('ff038281 0101000a', server.nowMs)
  t.equal(server.take().length, 1, 'later some more')
  server.frame(`ff038281 ${'00'.repeat(4000)}`, server.nowMs)
  t.ok((server.takeSent()[0]?.length ?? 0) <= 4 + 1500, 'cut to the MRU')
  t.equal(server.closed(), '')
})

t.test('nothing but LCP and authentication is answered before the networks', async t => {
  const server = handPlayedServer({ authentication: ['pap'] })
  server.handle({ type: 'open' }, 0)
  server.take()
  for (const protocol of ['ipcp', 'ipv6cp', 'ccp', 'pap', 'chap', 'eap', 'ipv4'] as const) {
    server.play(protocol, 1, 1, '')
  }
  t.same(server.take(), [])
  const linked = handPlayedServer({ authentication: ['pap'] }).openLink()
  linked.take()
  for (const protocol of ['ipcp', 'ipv6cp', 'ccp', 'eap', 'chap', 'ipv4', 'ipv6'] as const) {
    linked.play(protocol, 1, 1, '')
  }
  t.same(
    linked.take().filter(p => p.protocol !== 'lcp'),
    [],
  )
  t.ok(linked.counters().includes('early-request-kept'))
  t.ok(linked.counters().includes('early-frame-dropped'))
  t.ok(linked.counters().includes('eap-not-agreed'))
})

t.test('IP before its network protocol is open is dropped in silence', async t => {
  const server = acceptedByPap()
  server.handle({ type: 'network', network: { ...network, ipv6: null } }, 0)
  server.take()
  server.frame('0021 45000014')
  t.same(server.take(), [])
  server.frame('0057 60000000')
  t.equal(hex(server.take()[0]).slice(0, 4), '0057', 'IPv6 is off: rejected')
})

t.test('the peer hangs up: Ack, one restart period, one cause', async t => {
  const server = upByPap()
  server.play('lcp', 5, 33, utf8('user request'))
  t.match(server.take()[0], { code: 6, identifier: 33 })
  t.equal(server.closed(), '')
  server.waitUntil(3000)
  t.match(server.of('closed')[0], { cause: 'user-request', detail: /hung up: user request/ })
  t.equal(server.of('ipv4-down').length, 1)
})

t.test('closing says goodbye twice, then goes', async t => {
  const server = upByPap()
  server.handle({ type: 'close', cause: 'admin-reset', detail: 'kicked' }, 0)
  server.handle({ type: 'close', cause: 'idle-timeout' }, 0)
  server.waitUntil(7000)
  t.equal(server.take().filter(p => p.code === 5).length, 2)
  t.same(server.of('closed'), [{ type: 'closed', cause: 'admin-reset', detail: 'kicked' }])
})

t.test('a call ends once, whatever comes afterwards', async t => {
  const server = upByPap()
  server.handle({ type: 'carrier-lost', detail: 'TCP reset' }, 0)
  t.match(server.of('closed')[0], { cause: 'lost-carrier', detail: 'TCP reset' })
  const count = server.events.length
  server.play('lcp', 1, 1, '').play('ipcp', 5, 1, '')
  server.handle({ type: 'close', cause: 'admin-reset' }, 0)
  server.handle({ type: 'carrier-lost' }, 0)
  server.handle({ type: 'open' }, 0)
  server.waitUntil(1e6)
  t.equal(server.events.length, count)
  t.same(server.take(), [])
  const unopened = handPlayedServer()
  unopened.handle({ type: 'close', cause: 'nas-reboot' }, 0)
  t.equal(unopened.closed(), 'nas-reboot')
})

t.test('a peer that says nothing is given up', async t => {
  const server = handPlayedServer()
  server.handle({ type: 'open' }, 0)
  server.waitUntil(31_000)
  t.equal(server.closed(), 'setup-timeout')
  t.equal(server.take().filter(p => p.code === 1).length, 10)
})

t.test('each phase that does not move on ends by the clock', async t => {
  const silent = handPlayedServer({ authentication: ['pap'] }).openLink()
  silent.waitUntil(52_000)
  t.match(silent.of('closed')[0], { cause: 'setup-timeout', detail: /authentication/ })
  const noNetwork = acceptedByPap({ timing: { echoIntervalMs: 1e9 } })
  noNetwork.waitUntil(67_000)
  t.match(noNetwork.of('closed')[0], { cause: 'setup-timeout', detail: /network/ })
  const up = upByPap({ timing: { echoIntervalMs: 1e9 } })
  up.waitUntil(600_000)
  t.equal(up.closed(), '', 'a link that is up has no such clock')
})

t.test('settings that cannot work are refused', async t => {
  const random = new SeededRandom(1)
  t.throws(() => new WholeEngine({ ...serverSettings, authentication: [] }, random), {
    code: 'ERR_CONFIG',
  })
  const newPassword = Secret.fromText('x'.repeat(257))
  t.throws(() => new WholeEngine({ ...clientSettings, newPassword }, random), {
    code: 'ERR_CONFIG',
  })
})

t.test('Protocol-Reject of LCP or of the agreed authentication ends the call', async t => {
  const lcp = upByPap().play('lcp', 8, 1, 'c021 01010004')
  lcp.waitUntil(10_000)
  t.equal(lcp.closed(), 'protocol-error')
  const chap = handPlayedServer({ authentication: ['mschapv2'] }).openLink()
  chap.play('lcp', 8, 1, 'c023 01010004').play('lcp', 8, 2, '80fd 01010004').play('lcp', 8, 3, 'c2')
  t.equal(chap.closed(), '')
  chap.play('lcp', 8, 1, 'c223 01010004')
  chap.waitUntil(10_000)
  t.equal(chap.closed(), 'protocol-error')
})

t.test('a network of nothing ends the call; one given to a client is ignored', async t => {
  const server = acceptedByPap()
  server.handle({ type: 'network', network: { ipv4: null, ipv6: null } }, 0)
  server.waitUntil(10_000)
  t.match(server.of('closed')[0], { cause: 'protocol-error', detail: /no network protocol/ })
  const client = handPlayedClient()
  client.handle({ type: 'network', network }, 0)
  client.handle({ type: 'renegotiate' }, 0)
  client.handle({ type: 'open' }, 0)
  client.handle({ type: 'open' }, 0)
  t.same(client.counters(), ['network-given-to-client', 'renegotiate-not-opened', 'open-twice'])
})

t.test('a network that is given again holds from the next negotiation on', async t => {
  const server = upByPap()
  const ipv4 = { localAddress: 1, peerAddress: 0x0a000043, dns: [], wins: [] }
  server.handle({ type: 'network', network: { ipv4, ipv6: {} } }, 0)
  t.same(server.take(), [])
  server.play('ipcp', 1, 9, '0306 0a000042')
  t.equal(hex(server.take().find(p => p.code === 3)), '03060a000043')
})

t.test('our address may be refused by the client; a client must be given one', async t => {
  const server = acceptedByPap()
  server.handle({ type: 'network', network: { ...network, ipv6: null } }, 0)
  const request = server.take().find(p => p.protocol === 'ipcp')
  server.play('ipcp', 3, request?.identifier ?? 0, '0306 01020304')
  const same = server.take().find(p => p.protocol === 'ipcp')
  t.equal(hex(same), hex(request), 'our address is not the choice of the client')
  server.play('ipcp', 4, same?.identifier ?? 0, same?.data ?? '')
  t.equal(hex(server.acknowledge('ipcp')[0]), '')
  server.play('ipcp', 1, 1, '0306 0a000042')
  t.equal(server.of('ipv4-up').length, 1)

  for (const answer of ['ack', 'reject'] as const) {
    const client = handPlayedClient({
      authentication: ['none'],
      network: { ipv4: { wantsDns: false, wantsWins: false }, ipv6: null },
    }).openLink()
    const asked = client.take().find(p => p.protocol === 'ipcp')
    t.equal(hex(asked), '030600000000')
    client.play('ipcp', 1, 1, '0306 00000000')
    t.match(client.take()[0], { code: 4 }, 'a server without an address need not say so')
    client.play('ipcp', 1, 2, '')
    client.play('ipcp', answer === 'ack' ? 2 : 4, asked?.identifier ?? 0, asked?.data ?? '')
    client.waitUntil(20_000)
    t.equal(client.of('ipv4-up').length, 0)
    t.equal(client.closed(), 'protocol-error')
  }
})

t.test('our interface identifier gives way to a better one, and to a collision', async t => {
  const server = acceptedByPap()
  server.handle({ type: 'network', network: { ipv4: null, ipv6: {} } }, 0)
  const asked = server.take().find(p => p.protocol === 'ipv6cp')
  server.play('ipv6cp', 3, asked?.identifier ?? 0, '010a 00000000000000aa')
  const again = server.take().find(p => p.protocol === 'ipv6cp')
  t.equal(hex(again), '010a00000000000000aa')
  server.play('ipv6cp', 3, again?.identifier ?? 0, '010a 0000000000000000')
  const random = server.take().find(p => p.protocol === 'ipv6cp')
  t.not(hex(random), '010a0000000000000000')
  server.play('ipv6cp', 4, random?.identifier ?? 0, random?.data ?? '')
  server.waitUntil(20_000)
  t.equal(server.closed(), 'protocol-error')
})

// ---- malformed input

/** Frames of every kind that a good peer sends, each to a server in the phase where it belongs. */
const goodFrames: readonly [string, () => HandPlayed, string][] = (() => {
  const opened = () => handPlayedServer({ authentication: ['mschapv2'] }).openLink()
  const pap = () => handPlayedServer({ authentication: ['pap'] }).openLink()
  const fresh = () => {
    const server = handPlayedServer()
    server.handle({ type: 'open' }, 0)
    return server
  }
  const client = () => handPlayedClient().openLink('0305 c22381')
  const challenged = () =>
    client().play('chap', 1, 1, encodeChapValue({ value: new Uint8Array(16), name: utf8('s') }))
  return [
    [
      'LCP Configure-Request',
      fresh,
      'ff03c021 01010018 0104 0ffb 0506 5a5a0102 0702 0802 0d03 06 00',
    ],
    ['LCP Configure-Ack', fresh, 'ff03c021 02010013 01040578 0305c22381 0506 00000000'],
    ['LCP Configure-Nak', fresh, 'ff03c021 0301000d 01040578 0305c22381'],
    ['LCP Configure-Reject', fresh, 'ff03c021 04010009 0305c22381'],
    ['LCP Terminate-Request', upByPap, 'ff03c021 05010008 41424344'],
    ['LCP Code-Reject', upByPap, 'ff03c021 0701000c 09010008 00000000'],
    ['LCP Protocol-Reject', upByPap, 'ff03c021 0801000a 8057 01010004'],
    ['LCP Echo-Request', upByPap, 'ff03c021 0901000c 11223344 aabbccdd'],
    ['LCP Identification', upByPap, 'ff03c021 0c01000c 11223344 41424344'],
    ['LCP Time-Remaining', upByPap, 'ff03c021 0d01000c 11223344 0000003c'],
    ['PAP request', pap, 'ff03c023 0101000c 03616263 03646566'],
    ['CHAP response', opened, `ff03c223 0201003a 31 ${'5a'.repeat(49)} 616c696365`],
    ['CHAP change', opened, `ff03c223 0701024a ${'5a'.repeat(582)}`],
    ['IPCP request', upByPap, 'ff038021 01010010 0306 0a000042 8106 00000000'],
    ['IPV6CP request', upByPap, 'ff038057 0101000e 010a 0123456789abcdef'],
    ['CHAP challenge', client, `ff03c223 01010016 10 ${'5a'.repeat(16)} 6e`],
    ['CHAP success', challenged, `ff03c223 0301002e ${toHex(utf8(`S=${'0'.repeat(40)}`))}`],
    ['CHAP failure', challenged, `ff03c223 04010014 ${toHex(utf8('E=691 R=1 C=0 V3'))}`],
    ['IPCP Nak', upByPap, 'ff038021 0301000a 0306 0a000042'],
    ['unknown protocol', upByPap, 'ff0380fd 0101000a 120601000001'],
  ]
})()

t.test('one wrong byte anywhere, or one cut anywhere, never throws nor authenticates', async t => {
  for (const [name, make, text] of goodFrames) {
    const frame = fromHex(text)
    const before = make().of('authenticated').length
    for (let at = 0; at < frame.length; at++) {
      for (const value of [0x00, 0x01, 0x03, 0x7f, 0x80, 0xff, (frame[at] ?? 0) ^ 1]) {
        const wrong = copyBytes(frame)
        wrong[at] = value
        const side = make()
        side.handle({ type: 'frame', bytes: wrong }, 0)
        if (side.of('authenticated').length !== before) t.fail(`${name} at ${at}`)
        if (side.of('closed').length > 1) t.fail(`${name} at ${at}: closed twice`)
      }
      const side = make()
      side.handle({ type: 'frame', bytes: copyBytes(frame, 0, at) }, 0)
      if (side.of('authenticated').length !== before) t.fail(`${name} cut at ${at}`)
    }
    t.pass(name)
  }
})

t.test('a malformed frame is counted and changes nothing else', async t => {
  for (const text of [
    '',
    'ff',
    'ff03',
    'ff03c020',
    'ff03c021',
    'ff03c021 010100',
    'ff03c021 0101ffff',
  ]) {
    const server = upByPap()
    const { length } = server.events
    server.frame(text)
    t.same(
      server.events.slice(length).map(e => e.type),
      ['unexpected'],
      `"${text}"`,
    )
    t.same(server.take(), [])
    t.equal(server.engine.phase, 'network')
  }
})

t.test(
  'any frames in any order: no exception, one end at most, memory of a few frames',
  async t => {
    const protocols = ['c021', 'c023', 'c223', '8021', '8057', '80fd', '0021', 'c227']
    const frame = fc
      .tuple(
        fc.constantFrom(...protocols),
        fc.integer({ min: 0, max: 14 }),
        fc.nat(4),
        fc.uint8Array({ maxLength: 60 }),
        fc.boolean(),
      )
      .map(([protocol, code, identifier, data, isHonest]) =>
        concatBytes(
          fromHex(`ff03${protocol}`),
          Uint8Array.of(code, identifier, 0, isHonest ? data.length + 4 : data.length),
          data,
        ),
      )
    const makers = [
      () => handPlayedServer().openLink(),
      () => handPlayedClient().openLink('0305 c22381'),
      acceptedByPap,
      upByPap,
    ]
    fc.assert(
      fc.property(
        fc.nat(makers.length - 1),
        fc.array(frame, { maxLength: 40 }),
        (which, frames) => {
          const side = makers[which]?.() ?? upByPap()
          let sent = 0
          for (const bytes of frames) {
            side.handle({ type: 'frame', bytes }, side.nowMs)
            const answers = side.takeSent()
            sent += answers.length
            if (answers.length > 8) return false
            side.nowMs += 100
          }
          side.waitUntil(side.nowMs + 300_000)
          return side.of('closed').length <= 1 && sent < 200
        },
      ),
      { seed: 20, numRuns: 1500 },
    )
    t.pass()
  },
)

// ---- secrets

t.test('no password, hash, key or response is visible in an event', async t => {
  const users = new OneUser()
  const newPassword = Secret.fromText('n3w-canary')
  for (const method of methods) {
    const pair = new Pair({ users, server: { authentication: [method] } }).open()
    users.isExpired = false
    pair.run(5000, () => pair.isUp())
    const proof = pair.server.of('authenticate')[0]?.proof
    const secrets = [
      utf8(password),
      ntPasswordHash(password),
      pair.server.of('authenticated')[0]?.keys?.receive,
      pair.server.of('authenticated')[0]?.keys?.send,
      proof?.method === 'mschapv2' ? proof.ntResponse : undefined,
      proof?.method === 'chap-md5' ? proof.response : undefined,
    ].filter(secret => secret !== undefined)
    const events = [...pair.server.events, ...pair.client.events]
    const shown = [JSON.stringify(events), inspect(events, { depth: 9 })].join('\n')
    for (const secret of secrets) {
      t.notOk(shown.includes(toHex(secret)))
      t.notOk(shown.includes([...secret].join(',')))
      t.notOk(shown.includes([...secret].join(', ')))
      t.notOk(shown.includes(`"0":${secret[0]},"1":${secret[1]},"2":${secret[2]}`))
    }
    t.notOk(shown.includes('canary'))
    t.ok(shown.includes('alice'))
  }
  t.equal(`${newPassword}`, '[secret]')
})
