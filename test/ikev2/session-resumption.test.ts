/** Coming back with a ticket, RFC 5723: its codec and seal, both machines, and what is refused. */
import { createHmac } from 'node:crypto'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { concatBytes, toHex, utf8, utf8Text } from '../../lib/core/bytes.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { Secret } from '../../lib/core/secret.ts'
import { createPrf } from '../../lib/crypto/prf.ts'
import {
  EncryptionId,
  encryptionTransform,
  IntegrityId,
  integrityTransform,
  KeyExchangeId,
  PrfId,
} from '../../lib/crypto/transforms.ts'
import { CookieJar, readFirstRequest } from '../../lib/ikev2/cookie-jar.ts'
import { identityOf, isSameIdentity } from '../../lib/ikev2/identity.ts'
import { resumedSkeyseed } from '../../lib/ikev2/key-schedule.ts'
import { defaultFeatures, defaultTiming, type ResumableSession } from '../../lib/ikev2/options.ts'
import { defaultIkeAlgorithms } from '../../lib/ikev2/suite.ts'
import {
  encodeTicket,
  isAcceptable,
  parseTicket,
  type TicketState,
} from '../../lib/ikev2/ticket.ts'
import { TICKET_MAX_BYTES, TicketOffice } from '../../lib/ikev2/ticket-office.ts'
import { ExchangeType } from '../../lib/ikev2/wire/exchange-type.ts'
import { parseHeader } from '../../lib/ikev2/wire/header.ts'
import { encodeMessage, findNotify, parseMessage } from '../../lib/ikev2/wire/message.ts'
import { notify } from '../../lib/ikev2/wire/notify.ts'
import { NotifyType } from '../../lib/ikev2/wire/notify-type.ts'
import { encodeTicketLifetime, parseTicketLifetime } from '../../lib/ikev2/wire/ticket-lifetime.ts'
import { defaultGrant, Pair, type PairOptions } from './pair.ts'

const hourMs = 3_600_000

function stateOf(changes: Partial<TicketState> = {}): TicketState {
  const encryption = encryptionTransform(EncryptionId.aesCbc)
  if (encryption === undefined) throw new Error('no AES')
  return {
    suite: {
      ...{ encryption, keyBits: 256, prf: createPrf(PrfId.hmacSha256) },
      integrity: integrityTransform(IntegrityId.hmacSha256_128),
      keyExchangeId: KeyExchangeId.x25519,
      additionalKeyExchanges: [],
    },
    d: new Secret(new Uint8Array(32).fill(7)),
    initiatorIdentity: identityOf('branch@example.com'),
    responderIdentity: identityOf('vpn.example.com'),
    memo: utf8('alice'),
    ...changes,
  }
}

const officeOf = (seed = 1, lifetimeMs = hourMs) =>
  new TicketOffice(new SeededRandom(seed), lifetimeMs, 0)

function issued(office: TicketOffice, nowMs = 0): Uint8Array {
  const ticket = office.issue(stateOf(), nowMs)
  if (ticket === undefined) throw new Error('no ticket')
  return ticket
}

t.test('SKEYSEED is prf(SK_d, "Resumption" | Ni | Nr) (RFC 5723 §5.1)', async t => {
  const d = new Uint8Array(32).fill(1)
  const nonces = { initiator: new Uint8Array(24).fill(2), responder: new Uint8Array(32).fill(3) }
  const expected = createHmac('sha256', d)
    .update('Resumption')
    .update(nonces.initiator)
    .update(nonces.responder)
    .digest('hex')
  const seed = resumedSkeyseed(createPrf(PrfId.hmacSha256), new Secret(d), nonces)
  t.equal(toHex(seed.expose()), expected)
})

t.test('what stands in a ticket survives it, and no bytes break its reader', async t => {
  const bytes = encodeTicket(stateOf(), 77)
  const parsed = parseTicket(bytes)
  t.equal(parsed?.expirySeconds, 77)
  t.ok(parsed?.state.d.equals(stateOf().d))
  t.ok(parsed && isSameIdentity(parsed.state.initiatorIdentity, stateOf().initiatorIdentity))
  t.ok(parsed && isSameIdentity(parsed.state.responderIdentity, stateOf().responderIdentity))
  t.equal(parsed && utf8Text(parsed.state.memo), 'alice')
  t.match(parsed?.state.suite, {
    ...{ keyBits: 256, keyExchangeId: KeyExchangeId.x25519, prf: { id: PrfId.hmacSha256 } },
    ...{ encryption: { id: EncryptionId.aesCbc }, integrity: { id: IntegrityId.hmacSha256_128 } },
  })
  for (let end = 0; end < bytes.length; end++)
    t.equal(parseTicket(bytes.subarray(0, end)), undefined)
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), noise => {
      parseTicket(noise)
      parseTicket(concatBytes(bytes, noise))
      parseTicketLifetime(noise)
      officeOf().open(noise, 0)
    }),
    { seed: 5723, numRuns: 500 },
  )
  const data = encodeTicketLifetime({ lifetimeSeconds: 3600, ticket: Uint8Array.of(9, 8, 7) })
  t.equal(toHex(data), '00000e10090807', 'RFC 5723 §7.2')
  t.same(parseTicketLifetime(data), { lifetimeSeconds: 3600, ticket: Uint8Array.of(9, 8, 7) })
  t.equal(parseTicketLifetime(data.subarray(0, 4)), undefined, 'no ticket')
  t.equal(parseTicketLifetime(Uint8Array.of(0, 0, 0, 0, 1)), undefined, 'no time')
  const { suite } = stateOf()
  t.ok(isAcceptable(suite, defaultIkeAlgorithms))
  t.notOk(isAcceptable(suite, { ...defaultIkeAlgorithms, prf: [PrfId.hmacSha512] }))
  t.notOk(isAcceptable(suite, { ...defaultIkeAlgorithms, encryption: [] }))
  t.notOk(isAcceptable(suite, { ...defaultIkeAlgorithms, integrity: [] }))
  t.notOk(isAcceptable(suite, { ...defaultIkeAlgorithms, keyExchange: [] }))
})

t.test('a ticket opens where it was made, once, in its time, and unchanged', async t => {
  const office = officeOf()
  const ticket = issued(office)
  t.equal(toHex(ticket).includes(toHex(stateOf().d.expose())), false, 'nothing of it can be read')
  t.notSame(issued(office), ticket, 'no two are alike')
  t.equal(utf8Text(office.open(ticket, 0)?.memo ?? utf8('')), 'alice')
  for (let i = 0; i < ticket.length; i++) {
    const changed = Uint8Array.from(ticket)
    changed[i] = (changed[i] ?? 0) ^ 1
    t.equal(office.open(changed, 0), undefined, `byte ${i}`)
  }
  t.equal(officeOf(2).open(ticket, 0), undefined, 'of another gateway')
  t.equal(office.open(ticket, hourMs), undefined, 'too old')
  t.ok(office.spend(ticket, 10))
  t.notOk(office.spend(ticket, 11))
  t.equal(office.open(ticket, 12), undefined, 'used')
  const counted = { 'ticket-expired': 1, 'ticket-used-twice': 2, 'ticket-taken': 1 }
  t.match(office.counters.toJSON(), { 'ticket-issued': 2, ...counted })
  t.ok(office.counters.get('ticket-forged') > 50)
})

t.test('keys change in time, tickets outlive one change, and what is kept is bounded', async t => {
  const office = officeOf()
  const [early, late] = [issued(office), issued(office, hourMs - 1000)]
  t.ok(office.open(early, hourMs - 2000))
  t.ok(office.open(late, hourMs + 1000), 'under the key before')
  t.ok(office.open(issued(office, hourMs + 1000), hourMs + 1000))
  const old = issued(office, 1.5 * hourMs)
  t.equal(office.open(old, 4 * hourMs), undefined)
  t.ok(office.counters.get('ticket-other-key') > 0, 'keys that are too old are gone')
  const long = office.issue(stateOf({ memo: new Uint8Array(TICKET_MAX_BYTES) }), 4 * hourMs)
  t.equal(long, undefined)
  t.equal(office.counters.get('ticket-too-long'), 1)
  const many = Array.from({ length: 10_050 }, () => issued(office, 4 * hourMs))
  for (const one of many) office.spend(one, 4 * hourMs)
  t.notOk(office.spend(many.at(-1) ?? early, 4 * hourMs))
  t.ok(office.spend(many[0] ?? early, 4 * hourMs), 'the oldest was forgotten')
})

const memo = utf8('what the composer knows')
const features = { ...defaultFeatures, keyLog: true, requestsTicket: true }

function pairOf(
  office: TicketOffice | undefined,
  resume?: ResumableSession,
  more: PairOptions = {},
) {
  return new Pair({
    ...more,
    initiator: { features, ...(resume && { resume }), ...more.initiator },
    responder: { ...(office && { tickets: office }), ...more.responder },
    grant: more.grant ?? { type: 'grant', grant: { ...defaultGrant, resumeMemo: memo } },
  })
}

/** A first call, and its ticket. */
function ticketOf(t: Test, office: TicketOffice): ResumableSession {
  const pair = pairOf(office)
  t.ok(pair.dial())
  const [event] = pair.initiator.of('ticket')
  if (event === undefined) throw new Error('no ticket')
  t.equal(event.lifetimeSeconds, office.lifetimeMs / 1000)
  return event.session
}

const exchanges = (pair: Pair) => pair.datagrams.map(({ bytes }) => bytes[18])

t.test('a ticket brings the IKE SA back in two exchanges, without a key exchange', async t => {
  const office = officeOf()
  const session = ticketOf(t, office)
  const pair = pairOf(office, session, { seed: 9 })
  t.ok(pair.dial())
  t.same(exchanges(pair).slice(0, 4), [38, 38, 35, 35])
  for (const end of [pair.initiator, pair.responder]) {
    t.match(end.of('established'), [{ authenticatedBy: 'resumption' }])
  }
  t.same(pair.responder.of('need-grant')[0]?.resumed, memo, 'the composer sees what it put in')
  t.ok(pair.carriesTraffic())
  t.ok(
    pair.datagrams.every(({ bytes }, i) => i % 2 === 0 || bytes.length <= 1280),
    'answers are small',
  )
  t.equal(office.counters.get('ticket-taken'), 1)
  t.test('and there is a next ticket, and a newer one after a rekeying', async t => {
    t.equal(pair.initiator.of('ticket').length, 1)
    pair.send('initiator', { type: 'rekey-ike' })
    pair.settle()
    t.equal(pair.initiator.of('ticket').length, 2)
    const newest = pair.initiator.of('ticket')[1]?.session
    t.notOk(newest?.d.equals(session.d))
    pair.send('responder', { type: 'rekey-ike' })
    pair.settle()
    t.equal(pair.initiator.of('ticket').length, 3, 'whoever rekeys')
    const again = pairOf(office, newest, { seed: 10 })
    t.ok(again.dial())
    t.match(again.responder.of('established'), [{ authenticatedBy: 'resumption' }])
  })
})

t.test('lost and repeated datagrams delay a resumption but do not hurt', async t => {
  for (let seed = 1; seed <= 10; seed++) {
    const office = officeOf(seed)
    const session = ticketOf(t, office)
    const link = { loss: 0.2, duplication: 0.2, latencyMs: 20, jitterMs: 50 }
    const pair = pairOf(office, session, { seed, link, nat: true })
    t.ok(pair.dial(), `seed ${seed}`)
    pair.settle()
    t.ok(pair.carriesTraffic())
    t.equal(office.counters.get('ticket-taken'), 1)
    t.equal(pair.responder.of('established')[0]?.isPeerBehindNat, true)
  }
})

t.test('a ticket that does not do is refused, and all starts from scratch', async t => {
  const refused = (t: Test, pair: Pair) => {
    // A refused attempt leaves nothing at the responder: what follows is a stranger's.
    const end = pair.responder
    t.ok(pair.run(1000, () => pair.initiator.count('resume-refused-TICKET_NACK') === 1))
    t.match(end.closed, { detail: 'TICKET_NACK' })
    const [, answer] = pair.datagrams
    const note = answer && parseMessage(answer.bytes).payloads
    t.ok(note && findNotify(note, NotifyType.TICKET_NACK))
    t.ok((answer?.bytes.length ?? 0) < (pair.datagrams[0]?.bytes.length ?? 0))
    t.equal(pair.initiator.count('resume-refused-TICKET_NACK'), 1)
    t.equal(exchanges(pair)[2], ExchangeType.IKE_SA_INIT)
    t.equal(pair.initiator.machine.state, 'initiating')
  }
  const start = (pair: Pair) => {
    pair.send('initiator', { type: 'start' })
    return pair
  }
  const office = officeOf()
  const session = ticketOf(t, office)
  t.test('by a gateway that gives none', async t => refused(t, start(pairOf(undefined, session))))
  t.test('by another gateway', async t => refused(t, start(pairOf(officeOf(2), session))))
  t.test('of algorithms that are not wanted any more', async t => {
    const ikeAlgorithms = { ...defaultIkeAlgorithms, prf: [PrfId.hmacSha512] }
    const responder = { ikeAlgorithms }
    refused(t, start(pairOf(office, session, { responder })))
  })
  t.test('that is out of its time', async t => {
    const early = officeOf(6)
    const pair = pairOf(early, ticketOf(t, early))
    pair.nowMs = 2 * hourMs
    refused(t, start(pair))
  })
  t.test('that was used', async t => {
    t.ok(pairOf(office, session, { seed: 3 }).dial())
    refused(t, start(pairOf(office, session, { seed: 4 })))
    t.equal(office.counters.get('ticket-used-twice'), 1)
  })
})

t.test('of two that come with one ticket at once, one gets in', async t => {
  const office = officeOf()
  const session = ticketOf(t, office)
  const pairs = [1, 2].map(seed => pairOf(office, session, { seed: 20 + seed }))
  for (const pair of pairs) {
    pair.send('initiator', { type: 'start' })
    pair.run(12, () => pair.responder.machine.state === 'authenticating')
  }
  for (const pair of pairs) pair.settle()
  const [first, second] = pairs
  t.ok(first?.isEstablished)
  t.match(second?.responder.closed, { detail: 'ticket-used-twice' })
  t.match(second?.initiator.closed, { cause: 'authentication-failed' })
})

t.test('a stolen ticket without the keys of its IKE SA is worth nothing', async t => {
  const office = officeOf()
  const session = ticketOf(t, office)
  const timing = { ...defaultTiming, setupMs: 20_000 }
  const thief = { ...session, d: new Secret(new Uint8Array(32).fill(9)) }
  const pair = pairOf(office, thief, { initiator: { timing }, responder: { timing } })
  t.notOk(pair.dial())
  pair.settle()
  t.same(pair.responder.of('need-grant'), [])
  t.equal(office.counters.get('ticket-taken'), 0)
  t.ok(pairOf(office, session, { seed: 5 }).dial(), 'it is still its owner’s')
  t.test('nor is another identity let in with it', async t => {
    const own = ticketOf(t, office)
    const [mine] = pair.initiator.options.localIdentities
    const other = { ...mine, identity: identityOf('somebody@example.com') }
    const impostor = pairOf(office, own, { initiator: { localIdentities: [other] } })
    t.notOk(impostor.dial())
    t.match(impostor.responder.closed, { detail: 'other-identity' })
  })
})

t.test('who may not come back gets no ticket, and is told so', async t => {
  const pair = pairOf(officeOf(), undefined, { grant: { type: 'grant', grant: defaultGrant } })
  t.ok(pair.dial())
  t.same(pair.initiator.of('ticket'), [])
  const office = officeOf()
  const silent = new Pair({
    responder: { tickets: office },
    grant: { type: 'grant', grant: { ...defaultGrant, resumeMemo: memo } },
  })
  t.ok(silent.dial())
  t.equal(office.counters.get('ticket-issued'), 0, 'nor does who did not ask')
  const session = ticketOf(t, office)
  const refused = pairOf(office, session, { grant: { type: 'refuse', cause: 'not-authorized' } })
  t.notOk(refused.dial())
  refused.settle()
  t.match(refused.initiator.closed, { cause: 'authentication-failed' }, 'the composer has its say')
})

t.test('under load a cookie is asked for before a ticket is looked at', async t => {
  const office = officeOf()
  const session = ticketOf(t, office)
  const jar = new CookieJar(new SeededRandom(3), 0)
  const asked: number[] = []
  const pair: Pair = pairOf(office, session, {
    onPath: (bytes, from) => {
      const request = readFirstRequest(bytes)
      if (from === 'responder' || request.fault) return bytes
      if (jar.isValid(request, 'x', 0)) return bytes
      const answer = jar.challenge(request, 'x', 0)
      asked.push(parseHeader(answer).exchangeType)
      const { path } = pair.responder
      pair.transmit(pair.responder, answer, path)
      return undefined
    },
  })
  t.ok(pair.dial())
  t.same(asked, [ExchangeType.IKE_SESSION_RESUME])
  t.match(pair.responder.of('established'), [{ authenticatedBy: 'resumption' }])
})

t.test('a wrong request leaves nothing behind', async t => {
  const office = officeOf()
  const session = ticketOf(t, office)
  const head = {
    initiatorSpi: new Uint8Array(8).fill(1),
    responderSpi: new Uint8Array(8),
    exchangeType: ExchangeType.IKE_SESSION_RESUME,
    ...{ isFromInitiator: true, isResponse: false, canHigherVersion: false, messageId: 0 },
  }
  const nonce = { type: 'Nonce', data: new Uint8Array(32) } as const
  const whole = encodeMessage(head, [nonce, notify(NotifyType.TICKET_OPAQUE, session.ticket)])
  const bad = [
    encodeMessage(head, [nonce]),
    encodeMessage(head, [notify(NotifyType.TICKET_OPAQUE, session.ticket)]),
    encodeMessage(head, [nonce, nonce, notify(NotifyType.TICKET_OPAQUE, session.ticket)]),
  ]
  for (const bytes of bad) t.ok(readFirstRequest(bytes).fault, 'the listener lets it not pass')
  const pair = () => pairOf(office)
  const give = (bytes: Uint8Array) => {
    const { responder } = pair()
    const { path } = responder
    responder.machine.handle({ type: 'datagram', bytes, path }, 0)
    return responder.machine.state
  }
  t.equal(give(whole), 'authenticating')
  const noTicket = encodeMessage(head, [nonce, notify(NotifyType.MOBIKE_SUPPORTED)])
  t.equal(give(noTicket), 'closed')
  const random = new SeededRandom(57)
  for (let i = 0; i < 300; i++) {
    const changed = Uint8Array.from(whole)
    const at = random.next() % changed.length
    changed[at] = (changed[at] ?? 0) ^ (1 << (random.next() % 8))
    t.ok(['authenticating', 'closed', 'fresh'].includes(give(changed)))
  }
})
