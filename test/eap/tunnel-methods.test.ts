/** EAP-TLS, PEAP and EAP-TTLS: vectors, keys, mapping of certificates, bad input, and eapol_test. */
import { execFile, execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { concatBytes, fromHex, toHex, utf8 } from '../../lib/core/bytes.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { TlsLimit, TlsTerminal } from '../../lib/crypto/tls-engine.ts'
import { EapAuthenticator } from '../../lib/eap/authenticator.ts'
import { serverKeysOfMsk } from '../../lib/eap/conversation.ts'
import type { EapServerMethod, EapServerMethodMaker, EapServerStep } from '../../lib/eap/method.ts'
import { Mschapv2ServerMethod } from '../../lib/eap/mschapv2-method.ts'
import { type EapPacket, EapType, eapPacketOf, parseEapPacket } from '../../lib/eap/packet.ts'
import {
  compoundSessionKey,
  cryptobindingTlv,
  isBindingResponse,
  parseExtensions,
  resultTlv,
} from '../../lib/eap/peap-binding.ts'
import { peapServerMethod } from '../../lib/eap/peap-method.ts'
import { TlsCarriage } from '../../lib/eap/tls-carriage.ts'
import { type CertificateJudge, tlsServerMethod } from '../../lib/eap/tls-method.ts'
import { encodeAvps, parseAvps } from '../../lib/eap/ttls-avp.ts'
import { ttlsServerMethod } from '../../lib/eap/ttls-method.ts'
import { judge as judgeUser } from '../ikev2/pair.ts'
import { makeEapPki } from '../support/eap-pki.ts'
import { EapRadiusFront } from '../support/eap-radius-front.ts'
import { EapTlsPeer } from '../support/eap-tls-peer.ts'

const seed = 20261121
const pki = makeEapPki()
t.teardown(() => pki.remove())
const random = new SeededRandom(seed)
const limit = new TlsLimit(3)
const base = { chainPem: pki.text('server.pem'), keyPem: pki.secret('server.key'), limit }
const clientAuthoritiesPem = pki.text('ca.pem')
const asking = new TlsTerminal({
  ...base,
  clientAuthoritiesPem,
  sessionContext: 'tls',
  isResumable: true,
})
const tunnel = new TlsTerminal({ ...base, sessionContext: 'tunnel', isResumable: false })
let judged = 0
const judge: CertificateJudge = chain => {
  judged++
  return chain.length > 0
    ? { type: 'accept', authorization: { userName: 'alice' } }
    : { type: 'reject', reason: 'bad-credentials' }
}
const mschapv2: EapServerMethodMaker = () => new Mschapv2ServerMethod({ random, serverName: 'vpn' })
const tls: EapServerMethodMaker = size => tlsServerMethod(asking, judge, size)
const peap: EapServerMethodMaker = size =>
  peapServerMethod({ terminal: tunnel, methods: [mschapv2, tls], random }, size)
const ttls: EapServerMethodMaker = size =>
  ttlsServerMethod(
    { terminal: tunnel, inner: ['mschapv2', 'chap', 'pap'], methods: [mschapv2] },
    size,
  )
const client = { ca: pki.text('ca.pem'), cert: pki.text('client.pem'), key: pki.text('client.key') }

/** What a method wants once its TLS has computed. */
async function settled(step: EapServerStep): Promise<EapServerStep> {
  return step.type === 'pending' ? settled(await step.next) : step
}

const accept = { type: 'accept', authorization: { userName: 'alice' } } as const

/** Plays EAP-TLS to its end; `change` may damage what the peer sends in each round. */
async function play(
  method: EapServerMethod,
  peer: EapTlsPeer,
  change: (typeData: Uint8Array, round: number) => Uint8Array = typeData => typeData,
): Promise<{ readonly last: EapServerStep; readonly rounds: number; readonly peak: number }> {
  let step = await settled(method.start('anonymous', 1))
  let peak = 0
  for (let round = 0; round < 60; round++) {
    if (step.type === 'authorize') {
      step = await settled(method.verdict(accept, 0))
      continue
    }
    if (step.type !== 'request') return { last: step, rounds: round, peak }
    peak = Math.max(peak, step.typeData.length)
    const answer = await peer.answer(step.typeData)
    step = await settled(method.response(change(answer, round), 0))
  }
  throw new Error('it never ends')
}

for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
  for (const packetBytes of [200, 1020]) {
    t.test(
      `EAP-TLS ${maxVersion} in packets of ${packetBytes}: both have the same MSK`,
      async t => {
        const peer = new EapTlsPeer({ ...client, maxVersion })
        const { last, peak } = await play(tls(packetBytes), peer)
        t.equal(last.type, 'success')
        if (last.type !== 'success') return
        t.ok(peak <= packetBytes - 5, 'no packet is longer than the lower layer carries')
        const is13 = maxVersion === 'TLSv1.3'
        const label = is13 ? 'EXPORTER_EAP_TLS_Key_Material' : 'client EAP encryption'
        const context = (is13 ? [Buffer.from([13])] : []) as [Buffer]
        const theirs = peer.socket.exportKeyingMaterial(128, label, ...context)
        t.equal(toHex(last.msk?.expose() ?? fromHex('')), theirs.subarray(0, 64).toString('hex'))
        t.same(peer.heard, is13 ? [Buffer.from([0])].map(one => Uint8Array.from(one)) : [])
        peer.destroy()
        t.equal(limit.open, 0)
      },
    )
  }
}

t.test('the keys of MPPE and SSTP, by method: which bytes of the MSK they are', async t => {
  const { Secret } = await import('../../lib/core/secret.ts')
  const msk = new Secret(Uint8Array.from({ length: 64 }, (_, i) => i))
  const cases = [
    [26, '101112131415161718191a1b1c1d1e1f'],
    [13, '202122232425262728292a2b2c2d2e2f'],
    [21, '202122232425262728292a2b2c2d2e2f'],
    [25, '202122232425262728292a2b2c2d2e2f'],
  ] as const
  for (const [eapType, send] of cases) {
    const keys = serverKeysOfMsk(eapType, msk)
    t.equal(toHex(keys.receive), '000102030405060708090a0b0c0d0e0f', `type ${eapType}`)
    t.equal(toHex(keys.send), send, `type ${eapType}`)
  }
})

t.test('what the judge of certificates refuses is refused, in both versions', async t => {
  for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
    const refusing: CertificateJudge = () => ({ type: 'reject', reason: 'no-dial-in' })
    const peer = new EapTlsPeer({ ...client, maxVersion })
    const { last } = await play(tlsServerMethod(asking, refusing, 1020), peer)
    t.same(last, { type: 'failure', reason: 'no-dial-in' })
    peer.destroy()
  }
  t.equal(limit.open, 0)
})

t.test(
  'cut or damaged anywhere: it ends, without an exception, and gives everything back',
  async t => {
    const damages: ((bytes: Uint8Array) => Uint8Array)[] = [
      () => new Uint8Array(0),
      bytes => bytes.slice(0, Math.max(1, bytes.length >> 1)),
      bytes => concatBytes(bytes, Uint8Array.of(0x16, 3, 3, 0xff)),
      bytes => concatBytes(Uint8Array.of(0x20), bytes.slice(1)),
      bytes => concatBytes(Uint8Array.of(0x80, 0, 0, 0, 1), bytes.slice(1)),
      bytes => concatBytes(Uint8Array.of(0x80, 0xff, 0xff, 0xff, 0xff), bytes.slice(1)),
      bytes => concatBytes(Uint8Array.of(0x80, 0, 1), bytes.slice(4)),
      bytes => bytes.map((byte, i) => (i > 6 && i % 7 === 0 ? byte ^ 0x55 : byte)),
      bytes => Uint8Array.of(0x40, ...bytes.slice(1, 2)),
    ]
    for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
      for (const [index, damage] of damages.entries()) {
        for (let at = 0; at < 3; at++) {
          const peer = new EapTlsPeer({ ...client, maxVersion })
          const method = tls(1020)
          const { last } = await play(method, peer, (bytes, round) =>
            round >= at ? damage(bytes) : bytes,
          )
          t.not(last.type, 'success', `${maxVersion}, damage ${index} from round ${at}`)
          method.destroy()
          peer.destroy()
        }
      }
    }
    t.equal(limit.open, 0)
  },
)

t.test('a peer cannot have us hold more than 64 KiB, nor send without end', async t => {
  const piece = concatBytes(Uint8Array.of(0x40), new Uint8Array(1000))
  const carriage = new TlsCarriage(1020)
  let replies = 0
  while (carriage.receive(piece).type === 'reply') replies++
  t.equal(replies, 65)
  const tiny = new TlsCarriage(1020)
  let pieces = 0
  while (tiny.receive(Uint8Array.of(0x40, 1)).type === 'reply') pieces++
  t.equal(pieces, 128)
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 12 }), packets => {
      const any = new TlsCarriage(64)
      for (const packet of packets) any.receive(packet)
    }),
    { seed, numRuns: 500 },
  )
})

t.test('more TLS conversations than allowed fail at once, and only they', async t => {
  const methods = [tls(1020), peap(1020), ttls(1020)]
  t.same(
    methods.map(method => method.start('x', 1).type),
    ['request', 'request', 'request'],
  )
  t.same(tls(1020).start('x', 1), { type: 'failure', reason: 'backend-unavailable' })
  for (const method of methods) method.destroy()
  t.equal(tls(1020).start('x', 1).type, 'request')
  t.equal(limit.open, 1)
  limit.give()
})

t.test('a peer that falls silent at any step gives its place back in time', async t => {
  const makers: readonly (readonly [string, EapServerMethodMaker])[] = [
    ['tls', tls],
    ['peap', peap],
    ['ttls', ttls],
  ]
  for (const [name, method] of makers) {
    for (const silentFrom of [0, 1, 2]) {
      const conversation = new EapAuthenticator({
        call: { protocol: 'test', peerAddress: '192.0.2.1', sessionId: '1' },
        methods: [method],
        firstIdentifier: 1,
        retransmit: { afterMs: 3000, tries: 2 },
      })
      const peer = new EapTlsPeer(client)
      let outcome: string | undefined
      const requests: EapPacket[] = []
      const drain = async () => {
        for (let out = conversation.poll(); out !== undefined; out = conversation.poll()) {
          if (out.type === 'transmit') requests.push(parseEapPacket(out.bytes))
          else if (out.event.type === 'failure') outcome = out.event.reason
          else if (out.event.type === 'pending') {
            await out.event.settled
            conversation.handle({ type: 'wake', ticket: out.event.ticket }, 0)
          }
        }
      }
      conversation.handle({ type: 'start' }, 0)
      await drain()
      for (let step = 0; step <= silentFrom; step++) {
        const request = requests.at(-1)
        if (request === undefined || !('eapType' in request)) break
        const { identifier, eapType } = request
        const isIdentity = eapType === EapType.Identity
        const typeData = isIdentity ? utf8('anon') : await peer.answer(request.typeData)
        const bytes = eapPacketOf({ code: 'response', identifier, eapType, typeData })
        conversation.handle({ type: 'packet', bytes }, 0)
        await drain()
      }
      t.equal(limit.open, 1, `${name}: it has its place`)
      const before = requests.length
      for (const nowMs of [3000, 6000, 9000]) conversation.handle({ type: 'timeout' }, nowMs)
      await drain()
      t.equal(requests.length, before + 2, `${name}: asked again twice`)
      t.equal(outcome, 'bad-credentials')
      t.equal(limit.open, 0, `${name}, silent from step ${silentFrom}`)
      t.equal(conversation.nextDeadlineMs(), Number.POSITIVE_INFINITY)
      peer.destroy()
    }
  }
})

t.test(
  'identifiers and lengths that do not fit, at every step: counted, and it goes on',
  async t => {
    for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
      const conversation = new EapAuthenticator({
        call: { protocol: 'test', peerAddress: '192.0.2.1', sessionId: '1' },
        methods: [tls],
        firstIdentifier: 200,
      })
      const peer = new EapTlsPeer({ ...client, maxVersion })
      let outcome = 'pending'
      let unexpected: string[] = []
      let request: EapPacket | undefined
      const drain = async () => {
        for (let out = conversation.poll(); out !== undefined; out = conversation.poll()) {
          if (out.type === 'transmit') request = parseEapPacket(out.bytes)
          else if (out.event.type === 'unexpected') unexpected.push(out.event.what)
          else if (out.event.type === 'success' || out.event.type === 'failure') {
            outcome = out.event.type
          } else if (out.event.type === 'pending') {
            // While TLS computes, whatever comes is too early.
            conversation.handle({ type: 'packet', bytes: fromHex('02c800050d') }, 0)
            conversation.handle({ type: 'wake', ticket: out.event.ticket + 1 }, 0)
            await out.event.settled
            conversation.handle({ type: 'wake', ticket: out.event.ticket }, 0)
          } else if (out.event.type === 'authorize') {
            const { authorization, ticket } = out.event
            const verdict = { type: 'accept', authorization } as const
            conversation.handle({ type: 'verdict', ticket: ticket + 1, verdict }, 0)
            conversation.handle({ type: 'verdict', ticket, verdict }, 0)
          }
        }
      }
      conversation.handle({ type: 'start' }, 0)
      await drain()
      let steps = 0
      for (; outcome === 'pending' && steps < 12; steps++) {
        if (request === undefined || !('eapType' in request)) break
        const { identifier, eapType } = request
        const isIdentity = eapType === EapType.Identity
        const typeData = isIdentity ? utf8('anon') : await peer.answer(request.typeData)
        const right = eapPacketOf({ code: 'response', identifier, eapType, typeData })
        const wrong: readonly (readonly [string, Uint8Array])[] = [
          ['eap-identifier', changed(right, 1, identifier + 1)],
          ['eap-identifier', changed(right, 1, identifier - 1)],
          ['eap-request-from-peer', changed(right, 0, 1)],
          ['eap-malformed', changed(right, 0, 9)],
          ['eap-malformed', right.slice(0, right.length - 1)],
          ['eap-malformed', changed(changed(right, 2, 0), 3, 3)],
          ['eap-malformed', right.slice(0, 3)],
          [isIdentity ? 'eap-not-identity' : 'eap-other-type', changed(right, 4, EapType.GTC)],
        ]
        for (const [counter, bytes] of wrong) {
          unexpected = []
          request = undefined
          conversation.handle({ type: 'packet', bytes }, 0)
          await drain()
          t.same([...unexpected], [counter], `${maxVersion}, step ${steps}`)
          t.equal(request, undefined, 'nothing is said')
        }
        conversation.handle({ type: 'packet', bytes: right }, 0)
        await drain()
      }
      t.equal(outcome, 'success', maxVersion)
      t.ok(steps > 4, `${steps} steps`)
      conversation.destroy()
      peer.destroy()
    }
    t.equal(limit.open, 0)
  },
)

function changed(bytes: Uint8Array, at: number, value: number): Uint8Array {
  const copy = bytes.slice()
  copy[at] = value
  return copy
}

t.test('cryptobinding has the MACs and the keys of [MS-PEAP] §4.4.1.3', async t => {
  const keys = {
    ipmk: fromHex(
      '3A911C255473E83E9A0CC333AE1F8A35CDC74163E7F60F6C65EF71C26442AAACA2B6F1EB4F25ECA3',
    ),
    cmk: fromHex('3355353B6920D074C782E475DFB0999D4DB467EB'),
  }
  const nonce = fromHex('BDA7A599FA816521AD3064C2BDDBD16EAA949E7D98A8D7943147CF425D85DA7B')
  const mac = '0CBF105E91755748224FBB83000626911CFB1B0F'
  t.equal(
    toHex(cryptobindingTlv('request', nonce, keys)).toUpperCase(),
    `000C003800000000${toHex(nonce).toUpperCase()}${mac}`,
  )
  const response = fromHex(
    '000C0038000000016C6BA38784237457CCC90B1A908CBDF4711B69994D0CFE8D3DB44ECBCDAD37E942E086071D1C8B8C8E458F7021F06A6EAB16B646',
  )
  t.ok(isBindingResponse(response, keys))
  for (let at = 0; at < response.length; at += 5) {
    const forged = response.map((byte, i) => (i === at ? byte ^ 1 : byte))
    t.notOk(isBindingResponse(forged, keys), `byte ${at}`)
  }
  t.equal(
    toHex(compoundSessionKey(keys).subarray(0, 64)).toUpperCase(),
    '6A02D782201BC7138BF8EFF733B496970D7CAB300AC9577278E1DDD5AEF766971752D4E584A1C895039B4D05E3BC9A8484DDC2AA6E2CE162765C4068BFF65A45',
  )
  t.match(parseExtensions(concatBytes(resultTlv(true), response)), { isSuccess: true })
  t.match(parseExtensions(resultTlv(false)), { isSuccess: false, binding: undefined })
})

t.test('TLVs and AVPs of any bytes: no exception, and what is whole comes back', async t => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), bytes => {
      parseExtensions(bytes)
      parseAvps(bytes)
    }),
    { seed, numRuns: 2000 },
  )
  fc.assert(
    fc.property(
      fc.array(
        fc.record({
          code: fc.nat(0xffff),
          vendorId: fc.constantFrom(0, 311),
          isMandatory: fc.boolean(),
          data: fc.uint8Array({ maxLength: 40 }),
        }),
        { maxLength: 8 },
      ),
      avps => {
        t.same(parseAvps(encodeAvps(avps)), avps)
      },
    ),
    { seed, numRuns: 100 },
  )
  t.equal(parseAvps(fromHex('0000000140ffffff')), undefined, 'a length beyond the end')
  t.equal(parseAvps(fromHex('0000000140000007')), undefined, 'a length within its header')
})

const hasClient = (() => {
  try {
    execFileSync('which', ['eapol_test'])
    return true
  } catch {
    return false
  }
})()

const certificate = `ca_cert="${pki.folder}/ca.pem"\n client_cert="${pki.folder}/client.pem"\n private_key="${pki.folder}/client.key"`
const inner = `ca_cert2="${pki.folder}/ca.pem"\n client_cert2="${pki.folder}/client.pem"\n private_key2="${pki.folder}/client.key"`
const user = `identity="User"\n password="clientPass"\n ca_cert="${pki.folder}/ca.pem"`
const v13 = 'tls_disable_tlsv1_3=0'
const binding = 'peapver=0 crypto_binding=2'

/** Name, network block, what the front must say, how often the peer comes back on the same session. */
const networks: readonly (readonly [string, string, string, number])[] = [
  ['MSCHAPv2', `eap=MSCHAPV2\n ${user}`, 'success User by 26', 0],
  ['TLS 1.2', `eap=TLS\n identity="x"\n ${certificate}`, 'success alice by 13', 1],
  [
    'TLS 1.3, resumed',
    `eap=TLS\n identity="x"\n ${certificate}\n phase1="${v13}"`,
    'success alice by 13',
    1,
  ],
  [
    'PEAP MSCHAPv2',
    `eap=PEAP\n ${user}\n anonymous_identity="anon"\n phase1="${binding}"\n phase2="auth=MSCHAPV2"`,
    'success User by 25',
    0,
  ],
  [
    'PEAP MSCHAPv2 in 1.3',
    `eap=PEAP\n ${user}\n phase1="${binding} ${v13}"\n phase2="auth=MSCHAPV2"`,
    'success User by 25',
    0,
  ],
  [
    'PEAP TLS',
    `eap=PEAP\n ${user}\n ${inner}\n phase1="${binding}"\n phase2="auth=TLS"`,
    'success alice by 25',
    0,
  ],
  ['TTLS PAP', `eap=TTLS\n ${user}\n phase2="auth=PAP"`, 'success User by 21', 0],
  ['TTLS CHAP', `eap=TTLS\n ${user}\n phase2="auth=CHAP"`, 'success User by 21', 0],
  ['TTLS MSCHAPv2', `eap=TTLS\n ${user}\n phase2="auth=MSCHAPV2"`, 'success User by 21', 0],
  ['TTLS EAP', `eap=TTLS\n ${user}\n phase2="autheap=MSCHAPV2"`, 'success User by 21', 0],
  [
    'TTLS MSCHAPv2 in 1.3',
    `eap=TTLS\n ${user}\n phase1="${v13}"\n phase2="auth=MSCHAPV2"`,
    'success User by 21',
    0,
  ],
  // A peer that insists on cryptobinding answers no refusal, which has none: it leaves.
  [
    'a wrong password in PEAP',
    `eap=PEAP\n ${user.replace('clientPass', 'wrong')}\n phase1="peapver=0 crypto_binding=1"\n phase2="auth=MSCHAPV2"`,
    'failure bad-credentials',
    0,
  ],
  [
    'a wrong password in TTLS',
    `eap=TTLS\n ${user.replace('clientPass', 'wrong')}\n phase2="auth=PAP"`,
    'failure bad-credentials',
    0,
  ],
  [
    'an authority that the peer does not know',
    `eap=PEAP\n ${user.replace('/ca.pem', '/other.pem')}\n phase2="auth=MSCHAPV2"`,
    'failure bad-credentials',
    0,
  ],
  ['nothing in common', `eap=GTC\n ${user}`, 'failure method-not-allowed', 0],
]

t.test('eapol_test', { skip: hasClient ? false : 'eapol_test is not installed' }, async t => {
  const front = new EapRadiusFront(
    layer => new EapAuthenticator({ ...layer, methods: [tls, peap, ttls, mschapv2] }),
    request => {
      const { proof, userName } = request
      if (proof.method !== 'pap') return judgeUser(request)
      const isRight = userName === 'User' && proof.password.exposeText() === 'clientPass'
      return isRight
        ? { type: 'accept', authorization: { userName } }
        : { type: 'reject', reason: 'bad-credentials', canRetry: false }
    },
  )
  const port = await front.listen()
  t.teardown(() => front.close())
  for (const [name, network, outcome, again] of networks) {
    await t.test(name, async t => {
      const file = join(pki.folder, 'eapol.conf')
      writeFileSync(file, `network={\n key_mgmt=IEEE8021X\n eapol_flags=0\n ${network}\n}\n`)
      const before = judged
      front.outcome = ''
      const args = ['-c', file, '-a', '127.0.0.1', '-p', String(port), '-s', 'front-secret']
      const said = await new Promise<string>(resolve => {
        const more = ['-t', '20', '-r', String(again)]
        execFile('eapol_test', [...args, ...more], { maxBuffer: 1e8 }, (_, out) => resolve(out))
      })
      t.equal(front.outcome, outcome)
      t.equal(said.trim().split('\n').at(-1), outcome.startsWith('success') ? 'SUCCESS' : 'FAILURE')
      if (outcome.startsWith('success')) {
        t.match(said, new RegExp(`MPPE keys OK: ${again + 1} +mismatch: 0`))
      }
      if (name === 'TLS 1.3, resumed') {
        t.match(said, /resumed=1/)
        t.equal(judged - before, 2, 'a resumed session is judged anew')
      }
    })
  }
  t.equal(limit.open, 0)
})
