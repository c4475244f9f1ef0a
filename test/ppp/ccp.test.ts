/** CCP on a link: what is agreed, what is insisted on, and that nobody gets around it. */
import fc from 'fast-check'
import t from 'tap'
import { concatBytes, fromHex, toHex, utf8 } from '../../lib/core/bytes.ts'
import { generateNtResponse, ntPasswordHash } from '../../lib/crypto/ms-chap.ts'
import type { CompressionSettings } from '../../lib/ppp/settings.ts'
import { encodeChapValue, encodeMschapv2Value, parseChapValue } from '../../lib/ppp/wire/chap.ts'
import { encodeFrame, PppProtocol } from '../../lib/ppp/wire/frame.ts'
import {
  acceptedByPap,
  type HandPlayed,
  handPlayedServer,
  network,
  OneUser,
  Pair,
  type PairOptions,
  password,
  upByPap,
  userName,
} from './ppp-pair.ts'

const required: CompressionSettings = {
  encryption: 'required',
  strengths: [128],
  allowsStateful: false,
  prefersStateful: false,
  hasMppc: false,
}
const optional: CompressionSettings = { ...required, encryption: 'optional' }

const stateless128 = '1206 01000040'

function pairOf(
  server: CompressionSettings | undefined,
  client: CompressionSettings | undefined,
  others: PairOptions = {},
): Pair {
  return new Pair({
    ...others,
    server: { ...others.server, ...(server !== undefined && { compression: server }) },
    client: { ...others.client, ...(client !== undefined && { compression: client }) },
  }).open()
}

/** What the right client answers to a challenge. */
function clientProof(challenge: Uint8Array): Uint8Array {
  const peerChallenge = new Uint8Array(16).fill(7)
  const { value: authenticatorChallenge } = parseChapValue(challenge)
  const exchange = { userName, authenticatorChallenge, peerChallenge }
  const ntResponse = generateNtResponse(exchange, ntPasswordHash(password))
  const value = encodeMschapv2Value({ peerChallenge, ntResponse })
  return encodeChapValue({ value, name: utf8(userName) })
}

/** A server that wants `compression`, with a client that has proved itself with MS-CHAPv2. */
function accepted(compression: CompressionSettings): HandPlayed {
  const server = handPlayedServer({ compression, authentication: ['mschapv2'] }).openLink()
  const [challenge] = server.take().filter(packet => packet.protocol === 'chap')
  if (challenge === undefined) throw new Error('no challenge')
  server.play('chap', 2, challenge.identifier, clientProof(challenge.data))
  const [asked] = server.of('authenticate')
  if (asked === undefined) throw new Error('nothing to judge')
  const verdict = new OneUser().judge(asked.userName, asked.proof)
  server.handle({ type: 'verdict', attempt: asked.attempt, verdict }, server.nowMs)
  return server
}

/** The same with CCP open as `required` has it. */
function open(compression: CompressionSettings = required): HandPlayed {
  const server = accepted(compression)
  const [request] = server.take().filter(packet => packet.protocol === 'ccp')
  if (request === undefined) throw new Error('no ccp request')
  server.play('ccp', 2, request.identifier, request.data)
  server.play('ccp', 1, 1, stateless128)
  server.handle({ type: 'network', network }, server.nowMs)
  return server
}

const sentProtocols = (server: HandPlayed) => [...new Set(server.take().map(p => p.protocol))]

// ---- pairs

t.test('both sides agree, before any network protocol, and packets get shorter', async t => {
  const variants = [
    [required, required, 128, true],
    [optional, required, 128, true],
    [{ ...required, strengths: [40, 56, 128] }, { ...required, strengths: [56, 40] }, 56, true],
    [{ ...optional, allowsStateful: true }, { ...required, allowsStateful: true }, 128, true],
    [
      { ...required, allowsStateful: true, prefersStateful: true },
      { ...required, allowsStateful: true, prefersStateful: true },
      128,
      false,
    ],
  ] as const
  for (const [server, client, keyBits, isStateless] of variants) {
    const pair = pairOf(server, client)
    t.ok(pair.run(5000, () => pair.isUp()))
    const direction = { keyBits, isStateless, isCompressed: false }
    for (const side of [pair.server, pair.client]) {
      const [up] = side.of('compression-up')
      t.same(up?.agreement, { send: direction, receive: direction })
      const types = side.events.map(event => event.type)
      t.ok(types.indexOf('compression-up') < types.indexOf('ipv4-up'))
      t.equal(side.of('ipv4-up')[0]?.mtuBytes, 1396)
    }
  }
})

t.test('MPPC is agreed on alone or inside MPPE, and only when both have it', async t => {
  const mppc: CompressionSettings = { ...required, encryption: 'none', hasMppc: true }
  for (const [server, client, isCompressed, keyBits] of [
    [mppc, mppc, true, 0],
    [{ ...required, hasMppc: true }, { ...required, hasMppc: true }, true, 128],
    [{ ...required, hasMppc: true }, required, false, 128],
  ] as const) {
    const pair = pairOf(server, client)
    t.ok(pair.run(5000, () => pair.isUp()))
    t.match(pair.server.of('compression-up')[0]?.agreement, {
      send: { isCompressed, keyBits },
      receive: { isCompressed, keyBits },
    })
  }
})

t.test('encryption converges at 5 % loss, 2 % duplicates, 5 % reorder', async t => {
  const impairment = { lossPercent: 5, duplicatePercent: 2, reorderPercent: 5 }
  let up = 0
  for (let seed = 1; seed <= 40; seed++) {
    const pair = pairOf(required, required, { seed, impairment })
    if (pair.run(60_000, () => pair.isUp())) up++
    const [agreed] = pair.server.of('compression-up')
    if (pair.upCount() > 0 && agreed?.agreement.send.keyBits !== 128) t.fail(`seed ${seed}`)
  }
  t.ok(up >= 39, `${up} of 40`)
})

t.test(
  'who does not encrypt is turned away where it is required, and served where not',
  async t => {
    const refused = pairOf(required, undefined)
    refused.run(60_000, () => refused.server.of('closed').length > 0)
    t.match(refused.server.of('closed')[0]?.detail, /no encryption/)
    t.equal(refused.server.of('ipv4-up').length, 0)

    const served = pairOf(optional, undefined)
    t.ok(
      served.run(5000, () => served.isUp()),
      'at once: the client says that it does not know ccp',
    )
    t.equal(served.server.of('compression-up').length, 0)
    t.equal(served.server.of('ipv4-up')[0]?.mtuBytes, 1400)

    const weak = pairOf({ ...required, strengths: [128] }, { ...required, strengths: [40] })
    weak.run(60_000, () => weak.server.of('closed').length > 0)
    t.equal(weak.server.of('closed').length, 1)
    t.equal(weak.server.of('ipv4-up').length, 0)
  },
)

t.test('a proof without keys is no proof where encryption is required', async t => {
  const pair = pairOf(required, required, { server: { authentication: ['pap'] } })
  pair.run(60_000, () => pair.server.of('closed').length > 0)
  t.match(pair.server.of('closed')[0]?.detail, /makes no keys/)
  const plain = pairOf(optional, optional, { server: { authentication: ['pap'] } })
  t.ok(plain.run(5000, () => plain.isUp()))
  t.equal(plain.server.of('compression-up').length, 0)
})

t.test('keys are new after a renegotiation of the link, and of ccp alone', async t => {
  const pair = pairOf(required, required)
  t.ok(pair.run(5000, () => pair.isUp()))
  pair.server.handle({ type: 'renegotiate-compression' }, pair.nowMs)
  t.ok(pair.run(pair.nowMs + 10_000, () => pair.server.of('compression-up').length === 2))
  t.match(pair.client.of('compression-down'), [{ isEncryptionDue: true }])
  t.equal(pair.client.of('ipv4-down').length, 0, 'the networks stay up')
  pair.client.handle({ type: 'renegotiate' }, pair.nowMs)
  t.ok(pair.run(pair.nowMs + 20_000, () => pair.server.of('compression-up').length === 3))
  t.equal(pair.server.of('authenticated').length, 2)
})

// ---- by hand

t.test('the request is what stock clients expect, and networks wait for its end', async t => {
  const server = accepted(required)
  server.handle({ type: 'network', network }, server.nowMs)
  server.play('ipcp', 1, 1, '0306 00000000')
  const packets = server.take()
  const [request] = packets.filter(packet => packet.protocol === 'ccp')
  t.equal(toHex(request?.data ?? new Uint8Array(0)), '120601000040')
  t.notOk(packets.some(packet => packet.protocol === 'ipcp'))
  server.play('ccp', 2, request?.identifier ?? 0, request?.data ?? '')
  t.notOk(sentProtocols(server).includes('ipcp'), 'one direction is not enough')
  server.play('ccp', 1, 1, stateless128)
  t.ok(sentProtocols(server).includes('ipcp'), 'and the early request is answered, too')
})

t.test('counter-offers have one strength, no history, nothing that we do not speak', async t => {
  const answerTo = (optionsHex: string, compression = required) => {
    const server = accepted(compression)
    server.take()
    server.play('ccp', 1, 7, optionsHex)
    const [answer] = server.take().filter(packet => packet.protocol === 'ccp')
    return `${answer?.code} ${toHex(answer?.data ?? new Uint8Array(0))}`
  }
  t.equal(answerTo('1206 010000e0'), '3 120601000040', 'Windows offers every strength')
  t.equal(answerTo('1206 01000041'), '3 120601000040', 'and compression')
  t.equal(answerTo('1206 00000040'), '3 120601000040', 'stateful')
  t.equal(answerTo('1206 01000020'), '3 120601000040', 'too weak')
  t.equal(answerTo('1206 01000050'), '3 120601000040', 'the obsolete bit')
  t.equal(answerTo(''), '3 120601000040', 'nothing')
  t.equal(answerTo(stateless128), '2 120601000040')
  t.equal(answerTo('1105 000104 1206 01000040'), '4 1105000104', 'Stac beside it')
  t.equal(answerTo('1204 0100'), '4 12040100', 'a length that it does not have')
  t.equal(answerTo('1206 00000040', { ...required, allowsStateful: true }), '2 120600000040')
})

for (const [what, act] of [
  ['a Protocol-Reject of CCP', (s: HandPlayed) => s.play('lcp', 8, 1, '80fd')],
  [
    'a Configure-Reject of the option',
    (s: HandPlayed) => {
      const [request] = s.take().filter(packet => packet.protocol === 'ccp')
      return s.play('ccp', 4, request?.identifier ?? 0, request?.data ?? '')
    },
  ],
  ['a Terminate-Request of CCP', (s: HandPlayed) => s.play('ccp', 5, 9, '')],
] as const) {
  t.test(`${what} ends a call that must be encrypted`, async t => {
    for (const server of [accepted(required), ...(what.includes('option') ? [] : [open()])]) {
      act(server)
      server.waitUntil(server.nowMs + 45_000)
      t.equal(server.closed(), 'protocol-error')
      t.equal(server.of('ipv4-up').length, 0)
    }
  })
}

t.test('after an agreement encryption stays due where it was only optional', async t => {
  const server = open(optional)
  t.equal(server.of('compression-up').length, 1)
  server.play('ccp', 5, 9, '')
  t.match(server.of('compression-down'), [{ isEncryptionDue: true }])
  server.waitUntil(server.nowMs + 30_000)
  t.equal(server.closed(), 'protocol-error')
})

t.test('a request in Opened stops data until it is agreed on again', async t => {
  const server = open()
  server.take()
  server.play('ccp', 1, 2, stateless128)
  t.match(server.of('compression-down'), [{ isEncryptionDue: true }])
  const [request] = server.take().filter(packet => packet.protocol === 'ccp' && packet.code === 1)
  server.play('ccp', 2, request?.identifier ?? 0, request?.data ?? '')
  t.equal(server.of('compression-up').length, 2)
})

t.test('resets: asked for, answered by the data path, not in a flood', async t => {
  const server = open()
  server.play('ccp', 14, 3, '')
  t.equal(server.of('reset-requested').length, 1)
  server.play('ccp', 15, 3, '')
  t.ok(server.counters().includes('ccp-reset-ack'))
  server.take()
  for (let i = 0; i < 100; i++) server.handle({ type: 'request-reset' }, server.nowMs)
  t.same(
    server.take().map(packet => packet.code),
    [14],
  )
  const early = accepted(required)
  early.play('ccp', 14, 3, '')
  t.equal(early.of('reset-requested').length, 0)
})

t.test('a peer that never settles is ended; floods cost answers, not memory', async t => {
  const server = accepted(required)
  for (let i = 0; i < 200 && server.closed() === ''; i++) {
    server.play('ccp', 1, i & 0xff, '1206 01000020')
  }
  server.waitUntil(server.nowMs + 30_000)
  t.equal(server.closed(), 'protocol-error')
  const flapping = open()
  for (let i = 0; i < 200 && flapping.closed() === ''; i++) {
    flapping.play('ccp', 1, i & 0xff, stateless128)
    for (const packet of flapping.take()) {
      if (packet.protocol === 'ccp' && packet.code === 1) {
        flapping.play('ccp', 2, packet.identifier, packet.data)
      }
    }
  }
  flapping.waitUntil(flapping.nowMs + 30_000)
  t.equal(flapping.closed(), 'protocol-error', 'too many renegotiations')
})

t.test('an optional peer that keeps silent costs seconds, not the call', async t => {
  const server = accepted(optional)
  server.handle({ type: 'network', network }, server.nowMs)
  server.take()
  server.waitUntil(7_000)
  t.ok(sentProtocols(server).includes('ipcp'))
})

t.test('on a link without ccp nothing has changed: it is rejected as ever', async t => {
  for (const server of [acceptedByPap(), upByPap()]) {
    server.handle({ type: 'network', network }, server.nowMs)
    server.take()
    server.play('ccp', 1, 1, stateless128)
    t.match(server.take(), [{ protocol: 'lcp', code: 8 }])
    server.handle({ type: 'request-reset' }, server.nowMs)
    server.handle({ type: 'renegotiate-compression' }, server.nowMs)
    t.same(server.take(), [])
  }
})

t.test('arbitrary ccp packets never throw', async t => {
  const property = fc.property(fc.uint8Array({ maxLength: 60 }), fc.boolean(), (bytes, isOpen) => {
    const server = isOpen ? open() : accepted(required)
    server.handle(
      { type: 'frame', bytes: encodeFrame(PppProtocol.ccp, concatBytes(bytes, fromHex('00'))) },
      server.nowMs,
    )
    return true
  })
  t.doesNotThrow(() => fc.assert(property, { seed: 1962, numRuns: 60 }))
})
