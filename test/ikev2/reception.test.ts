import fc from 'fast-check'
import t from 'tap'
import { fromHex, toHex } from '../../lib/core/bytes.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { CookieJar, readFirstRequest } from '../../lib/ikev2/cookie-jar.ts'
import { sealFragments, sealMessage } from '../../lib/ikev2/protection.ts'
import { answerStranger } from '../../lib/ikev2/stranger.ts'
import { ExchangeType } from '../../lib/ikev2/wire/exchange-type.ts'
import {
  findNotify,
  findPayload,
  type MessageHead,
  parseMessage,
} from '../../lib/ikev2/wire/message.ts'
import { notify } from '../../lib/ikev2/wire/notify.ts'
import { NotifyType } from '../../lib/ikev2/wire/notify-type.ts'
import type { Payload } from '../../lib/ikev2/wire/payload.ts'
import { encodePayloadChain, payloadChainBytes } from '../../lib/ikev2/wire/payload-chain.ts'
import { PayloadType } from '../../lib/ikev2/wire/payload-type.ts'
import {
  frameMessage,
  STREAM_PREFIX,
  type StreamMessage,
  StreamReader,
} from '../../lib/ikev2/wire/tcp-stream.ts'
import {
  ask,
  askBytes,
  childRequest,
  established,
  headOf,
  type Keys,
  keysOf,
  random,
} from './crafted-peer.ts'
import { Pair } from './pair.ts'

const seed = 20260801

/** A pair after IKE_SA_INIT, before IKE_AUTH. */
function halfOpen(): { pair: Pair; keys: Keys } {
  const pair = new Pair()
  pair.send('initiator', { type: 'start' })
  pair.run(6)
  pair.link = { ...pair.link, loss: 1 }
  pair.run(5)
  return { pair, keys: keysOf(pair.responder) }
}

const unknown = (isCritical: boolean): Payload => ({
  type: 'unknown',
  code: 200,
  isCritical,
  data: new Uint8Array(3),
})

t.test('unknown payloads: critical ones are refused by number, others are ignored', async t => {
  const { pair, keys } = established()
  const refused = ask(pair, keys, ExchangeType.INFORMATIONAL, 2, [unknown(true)])
  const note = findNotify(refused ?? [], NotifyType.UNSUPPORTED_CRITICAL_PAYLOAD)
  t.same(note?.data, Uint8Array.of(200))
  t.equal(pair.responder.machine.state, 'established')
  t.same(ask(pair, keys, ExchangeType.INFORMATIONAL, 3, [unknown(false)]), [])
})

t.test('a message that its exchange does not allow is INVALID_SYNTAX and ends the SA', async t => {
  const cases: [number, Payload[]][] = [
    [ExchangeType.INFORMATIONAL, [{ type: 'Nonce', data: new Uint8Array(32) }]],
    [ExchangeType.CREATE_CHILD_SA, []],
    [
      ExchangeType.CREATE_CHILD_SA,
      [
        { type: 'Nonce', data: new Uint8Array(32) },
        { type: 'Nonce', data: new Uint8Array(32) },
      ],
    ],
    [ExchangeType.INFORMATIONAL, [{ type: 'IDi', idType: 1, data: new Uint8Array(4) }]],
  ]
  for (const [exchange, payloads] of cases) {
    const { pair, keys } = established()
    const answer = ask(pair, keys, exchange, 2, payloads)
    t.ok(findNotify(answer ?? [], NotifyType.INVALID_SYNTAX))
    t.equal(pair.responder.closed?.detail, 'invalid-syntax')
    t.equal(pair.responder.children.size, 0)
  }
})

t.test('a rekeying before authentication is refused (CVE-2014-2338 class)', async t => {
  const { pair, keys } = halfOpen()
  t.equal(ask(pair, keys, ExchangeType.CREATE_CHILD_SA, 1, []), undefined)
  t.equal(pair.responder.count('CREATE_CHILD_SA-while-authenticating'), 1)
  t.equal(pair.responder.machine.state, 'authenticating')
})

t.test('INFORMATIONAL before authentication only ends the attempt', async t => {
  const { pair, keys } = halfOpen()
  const note = notify(NotifyType.AUTHENTICATION_FAILED)
  t.same(ask(pair, keys, ExchangeType.INFORMATIONAL, 1, [note]), [])
  t.equal(pair.responder.closed?.detail, 'peer-gave-up')
  t.equal(pair.responder.of('established').length, 0)
})

t.test('IKE_AUTH with wrong rounds never establishes anything', async t => {
  const idi: Payload = { type: 'IDi', idType: 2, data: fromHex('61') }
  const shapes: Payload[][] = [
    [{ type: 'AUTH', method: 2, data: new Uint8Array(32) }],
    [{ type: 'EAP', data: fromHex('03010004') }],
    [idi, { type: 'AUTH', method: 13, data: new Uint8Array(0) }],
    [idi, { type: 'AUTH', method: 1, data: new Uint8Array(256) }],
    [idi, { type: 'AUTH', method: 2, data: new Uint8Array(0) }],
    [idi],
  ]
  for (const payloads of shapes) {
    const { pair, keys } = halfOpen()
    const answer = ask(pair, keys, ExchangeType.IKE_AUTH, 1, payloads)
    t.ok(findNotify(answer ?? [], NotifyType.AUTHENTICATION_FAILED))
    t.ok(pair.responder.closed)
    t.equal(pair.responder.of('established').length, 0)
    t.equal(pair.responder.spis.size, 0)
  }
})

t.test(
  'a message ID that is not the next one is dropped; a repetition is answered again',
  async t => {
    const { pair, keys } = established()
    for (const id of [0, 3, 4, 0xffffffff]) {
      t.equal(ask(pair, keys, ExchangeType.INFORMATIONAL, id, []), undefined, `${id}`)
    }
    t.equal(pair.responder.count('message-id'), 4)
    const bytes = sealMessage(keys.fromInitiator, headOf(keys, 37, 2), [], random)
    t.same(askBytes(pair, keys, bytes.slice()), [])
    t.same(askBytes(pair, keys, bytes.slice()), [])
    const answers = pair.responder.of('datagram').slice(-2)
    t.equal(toHex(answers[0]?.bytes ?? bytes), toHex(answers[1]?.bytes ?? bytes))
    const forged = bytes.slice()
    forged[forged.length - 1] = (forged[forged.length - 1] ?? 0) ^ 1
    t.equal(askBytes(pair, keys, forged), undefined, 'a forged repetition gets nothing')
  },
)

t.test('cleartext beside or instead of SK is dropped', async t => {
  const { pair, keys } = established()
  const sealed = sealMessage(keys.fromInitiator, headOf(keys, 37, 2), [], random)
  const beside = new Uint8Array(sealed.length + 8)
  beside.set(sealed.subarray(0, 28))
  beside.set(fromHex('2e00000800004000'), 28)
  beside.set(sealed.subarray(28), 36)
  beside[16] = PayloadType.N
  beside[27] = beside.length
  t.equal(askBytes(pair, keys, beside), undefined)
  t.equal(pair.responder.count('cleartext-beside-encrypted'), 1)
})

t.test('fragments: out of order, missing, repeated, contradictory', async t => {
  const { pair, keys } = established()
  const payloads = [notify(NotifyType.COOKIE2, new Uint8Array(60).fill(1))]
  const filler: Payload = { type: 'V', data: new Uint8Array(2000) }
  const cut = (id: number, room: number) =>
    sealFragments(keys.fromInitiator, headOf(keys, 37, id), [...payloads, filler], room, random)
  const fragments = cut(2, 300)
  t.ok(fragments.length > 7)
  const [first, second] = fragments
  if (first === undefined || second === undefined) return
  for (const fragment of [...fragments].reverse().slice(0, -1)) {
    t.equal(askBytes(pair, keys, fragment.slice()), undefined, 'not complete yet')
  }
  t.equal(askBytes(pair, keys, second.slice()), undefined)
  t.equal(pair.responder.count('fragment-duplicate'), 1)
  const smaller = cut(2, 900)
  t.equal(askBytes(pair, keys, (smaller[0] ?? first).slice()), undefined)
  t.equal(pair.responder.count('fragment-smaller-total'), 1)
  const answer = askBytes(pair, keys, first.slice())
  t.ok(findNotify(answer ?? [], NotifyType.COOKIE2), 'all together make the message')
  t.equal(askBytes(pair, keys, second.slice()), undefined, 'a late fragment is not answered')
  t.ok(askBytes(pair, keys, first.slice()), 'the first one calls for the answer again')
  t.test('and an incomplete set goes after a while', async t => {
    askBytes(pair, keys, (cut(3, 300)[1] ?? first).slice())
    pair.settle(20_000)
    t.equal(pair.responder.count('fragments-incomplete'), 1)
  })
})

t.test('a fragment that was not agreed on is dropped', async t => {
  const features = { ...new Pair().responder.options.features, fragmentation: false }
  const pair = new Pair({ responder: { features } })
  pair.dial()
  const keys = keysOf(pair.initiator)
  const filler: Payload = { type: 'V', data: new Uint8Array(2000) }
  const [first] = sealFragments(keys.fromInitiator, headOf(keys, 37, 2), [filler], 300, random)
  t.equal(askBytes(pair, keys, first ?? new Uint8Array(0)), undefined)
  t.equal(pair.responder.count('fragment-not-agreed'), 1)
})

t.test('the order of payloads means nothing, and what we do not speak is left out', async t => {
  const { pair, keys } = established()
  const payloads = childRequest(pair, '00002000')
  const aggfrag = 16_442
  const made = [payloads, [...payloads].reverse(), [...payloads, notify(aggfrag, Uint8Array.of(0))]]
  made.forEach((request, i) => {
    const answer = ask(pair, keys, ExchangeType.CREATE_CHILD_SA, 2 + i, request) ?? []
    t.ok(findPayload(answer, 'SA'), `request ${i}`)
    t.equal(findNotify(answer, aggfrag), undefined, 'AGGFRAG (RFC 9347) is not agreed to')
    t.equal(pair.responder.children.size, 2 + i)
  })
})

t.test('CREATE_CHILD_SA: bad values are answered, not obeyed', async t => {
  const { pair, keys } = established()
  const rekey = (protocolId: number, spi: string): Payload => ({
    type: 'N',
    protocolId,
    spi: fromHex(spi),
    notifyType: NotifyType.REKEY_SA,
    data: new Uint8Array(0),
  })
  const child = (spi: string) => childRequest(pair, spi)
  let id = 2
  const says = (payloads: Payload[], notifyType: number) => {
    const answer = ask(pair, keys, ExchangeType.CREATE_CHILD_SA, id++, payloads)
    t.ok(findNotify(answer ?? [], notifyType), JSON.stringify(answer))
  }
  says([rekey(3, '00000000'), ...child('00002000')], NotifyType.CHILD_SA_NOT_FOUND)
  says([rekey(2, '11223344'), ...child('00002000')], NotifyType.CHILD_SA_NOT_FOUND)
  says([rekey(1, '1122334455667788'), ...child('00002000')], NotifyType.CHILD_SA_NOT_FOUND)
  says([rekey(3, ''), ...child('00002000')], NotifyType.CHILD_SA_NOT_FOUND)
  says(child('000000ff'), NotifyType.NO_PROPOSAL_CHOSEN)
  says(child('0000000000002000'), NotifyType.NO_PROPOSAL_CHOSEN)
  const far: Payload = {
    type: 'TSi',
    selectors: [
      {
        family: 4,
        ipProtocol: 0,
        startPort: 0,
        endPort: 65_535,
        startAddress: fromHex('01010101'),
        endAddress: fromHex('01010102'),
      },
    ],
  }
  const foreign = child('00002000').map(item => (item.type === 'TSi' ? far : item))
  says(foreign, NotifyType.TS_UNACCEPTABLE)
  t.equal(pair.responder.children.size, 1)
  for (let i = 0; i < 20; i++) {
    ask(pair, keys, ExchangeType.CREATE_CHILD_SA, id++, child('00003000'))
  }
  t.equal(pair.responder.children.size, 16, 'Child SAs are bounded')
  says(child('00003001'), NotifyType.NO_ADDITIONAL_SAS)
})

t.test('a stranger: every change of the first request is refused or harmless', async t => {
  const first = (() => {
    const pair = new Pair()
    pair.send('initiator', { type: 'start' })
    return pair.datagrams[0]?.bytes ?? new Uint8Array(0)
  })()
  let refused = 0
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(first.length - 1), fc.integer({ min: 0, max: 255 })), {
        minLength: 1,
        maxLength: 4,
      }),
      fc.option(fc.nat(first.length)),
      (changes, cut) => {
        const bytes = first.slice(0, cut ?? first.length)
        for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value
        if (readFirstRequest(bytes).fault) refused++
        const pair = new Pair()
        const path = pair.responder.path
        pair.responder.machine.handle({ type: 'datagram', bytes, path }, 0)
        pair.drain('responder')
        const answers = pair.responder.of('datagram')
        if (answers.length > 1) t.fail('more than one answer')
        const answered = answers[0]?.bytes.length ?? 0
        if (answered > bytes.length) t.fail(`amplified to ${answered}`)
        if (pair.responder.of('established').length > 0) t.fail('established by a stranger')
      },
    ),
    { seed, numRuns: 400 },
  )
  t.ok(refused > 0)
})

t.test('fuzz inside SK: any plaintext of a known peer leaves the machine sane', async t => {
  const samples: Payload[][] = [
    [notify(NotifyType.UPDATE_SA_ADDRESSES), notify(NotifyType.COOKIE2, new Uint8Array(16))],
    [{ type: 'D', protocolId: 3, spis: [new Uint8Array(4)] }],
    [
      { type: 'Nonce', data: new Uint8Array(32) },
      { type: 'KE', group: 31, publicValue: new Uint8Array(32).fill(9) },
    ],
    [{ type: 'CP', configurationType: 1, attributes: [] }],
  ]
  const kinds = [
    ExchangeType.INFORMATIONAL,
    ExchangeType.CREATE_CHILD_SA,
    ExchangeType.IKE_AUTH,
  ] as const
  for (const make of [established, halfOpen]) {
    let { pair, keys } = make()
    let id = make === established ? 2 : 1
    fc.assert(
      fc.property(
        fc.constantFrom(...kinds),
        fc.constantFrom(...samples),
        fc.array(fc.tuple(fc.nat(80), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }),
        fc.option(fc.uint8Array({ maxLength: 200 })),
        fc.constantFrom(...Object.values(PayloadType), 0, 200),
        (exchange, payloads, changes, raw, firstType) => {
          const head = headOf(keys, exchange, id)
          let bytes: Uint8Array
          if (raw) {
            // A chain of our making, as bytes: seal it as one opaque payload and cut its header off.
            bytes = sealRaw(keys, head, raw, firstType)
          } else {
            const sealed = rawChain(payloads)
            for (const [at, value] of changes) if (at < sealed.length) sealed[at] = value
            bytes = sealRaw(keys, head, sealed, firstCode(payloads))
          }
          const path = pair.responder.path
          pair.send('responder', { type: 'datagram', bytes, path })
          const { state } = pair.responder.machine
          if (make === halfOpen && state === 'established') t.fail('established without proof')
          const isConsumed = pair.responder.of('datagram').length > 0
          if (state === 'closed') {
            if (pair.responder.spis.size + pair.responder.children.size > 0) t.fail('leak')
            ;({ pair, keys } = make())
            id = make === established ? 2 : 1
          } else if (isConsumed && exchange !== ExchangeType.IKE_AUTH) {
            id = Math.max(id, nextId(pair, id))
          }
        },
      ),
      { seed, numRuns: 300 },
    )
  }
  t.pass('nothing thrown')
})

/** The message ID that the responder expects, from its answers. */
function nextId(pair: Pair, id: number): number {
  const last = pair.responder.of('datagram').at(-1)?.bytes
  const answered = last !== undefined && last[23] === id && (last[19] ?? 0) === 0x20
  return answered ? id + 1 : id
}

function firstCode(payloads: readonly Payload[]): number {
  const type = payloads[0]?.type
  return type === undefined || type === 'unknown' ? 0 : PayloadType[type]
}

/** A chain of payloads as bytes, to be damaged. */
function rawChain(payloads: readonly Payload[]): Uint8Array {
  const out = new Uint8Array(payloadChainBytes(payloads))
  encodePayloadChain(payloads, out, 0)
  return out
}

/** A protected message with any plaintext. */
function sealRaw(keys: Keys, head: MessageHead, chain: Uint8Array, innerType: number): Uint8Array {
  const cipher = keys.fromInitiator
  const bodyBytes = cipher.bodyBytes(chain.length)
  const out = new Uint8Array(32 + bodyBytes)
  out.set(head.initiatorSpi)
  out.set(head.responderSpi, 8)
  out[16] = PayloadType.SK
  out[17] = 0x20
  out[18] = head.exchangeType
  out[19] = 0x08
  out[23] = head.messageId
  new DataView(out.buffer).setUint32(24, out.length)
  out[28] = innerType
  new DataView(out.buffer).setUint16(30, out.length - 28)
  out.set(chain, 32 + cipher.ivBytes)
  cipher.seal(out, 32, chain.length, random)
  return out
}

t.test('20,000 spoofed first requests cost a cookie each when cookies are asked', async t => {
  const jar = new CookieJar(new SeededRandom(6), 0)
  const pair = new Pair()
  pair.send('initiator', { type: 'start' })
  const bytes = pair.datagrams[0]?.bytes.slice() ?? new Uint8Array(0)
  let answered = 0
  for (let i = 0; i < 20_000; i++) {
    new DataView(bytes.buffer).setUint32(0, i + 1)
    const request = readFirstRequest(bytes)
    if (request.fault || jar.isValid(request, '203.0.113.1', i)) continue
    const reply = jar.challenge(request, '203.0.113.1', i)
    if (reply.length < bytes.length) answered++
  }
  t.equal(answered, 20_000)
})

t.test('strangers: a newer version and an unknown SPI are told, the rest is silence', async t => {
  const { pair, keys } = established()
  const bytes = sealMessage(keys.fromInitiator, headOf(keys, 37, 2), [], random)
  const answer = answerStranger(bytes)
  const parsed = parseMessage(answer ?? bytes)
  t.ok(findNotify(parsed.payloads, NotifyType.INVALID_IKE_SPI))
  t.ok(answer && answer.length <= bytes.length)
  t.equal(
    answer && answerStranger(answer),
    undefined,
    'two hosts do not answer each other for ever',
  )
  const newer = bytes.slice()
  newer[17] = 0x30
  const told = parseMessage(answerStranger(newer) ?? bytes)
  t.ok(findNotify(told.payloads, NotifyType.INVALID_MAJOR_VERSION))
  const older = bytes.slice()
  older[17] = 0x10
  t.equal(answerStranger(older), undefined, 'IKEv1 is not ours to answer')
  t.equal(answerStranger(bytes.subarray(0, 20)), undefined)
  t.equal(answerStranger(pair.datagrams[0]?.bytes ?? bytes), undefined)
})

t.test('the TCP stream is cut into messages however it arrives (RFC 9329)', async t => {
  const messages: StreamMessage[] = [
    { type: 'ike', bytes: new Uint8Array(300).fill(7) },
    { type: 'esp', bytes: new Uint8Array(40).fill(8) },
    { type: 'esp', bytes: Uint8Array.of(0xff) },
    { type: 'ike', bytes: new Uint8Array(60_000).fill(9) },
  ]
  const stream = [STREAM_PREFIX, ...messages.map(frameMessage)].flatMap(part => [...part])
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 5000 }), { minLength: 1 }), sizes => {
      const reader = new StreamReader(true)
      const seen: StreamMessage[] = []
      for (let at = 0, i = 0; at < stream.length; i++) {
        const size = sizes[i % sizes.length] ?? 1
        seen.push(...reader.push(Uint8Array.from(stream.slice(at, at + size))))
        at += size
      }
      t.same(seen, messages)
      t.equal(reader.fault, 0)
    }),
    { seed, numRuns: 10 },
  )
  const tls = new StreamReader(true)
  t.same(tls.push(fromHex('160301')), [])
  t.not(tls.fault, 0, 'another protocol')
  const short = new StreamReader(false)
  t.same(short.push(fromHex('000200020002')), [])
  t.not(short.fault, 0, 'a length that makes no progress')
})
