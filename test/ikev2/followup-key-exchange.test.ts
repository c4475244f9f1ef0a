/** A peer that rekeys the IKE SA with ML-KEM: CREATE_CHILD_SA, then IKE_FOLLOWUP_KE (RFC 9370 §2.2.4). */
import { createHmac } from 'node:crypto'
import t from 'tap'
import { fromHex, toHex } from '../../lib/core/bytes.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { Secret } from '../../lib/core/secret.ts'
import { keyExchange } from '../../lib/crypto/key-exchanges.ts'
import { createPrf } from '../../lib/crypto/prf.ts'
import { KeyExchangeId, PrfId } from '../../lib/crypto/transforms.ts'
import { ikeKeys, rekeySkeyseed } from '../../lib/ikev2/key-schedule.ts'
import { defaultFeatures } from '../../lib/ikev2/options.ts'
import { ikeProposals } from '../../lib/ikev2/proposal.ts'
import { defaultIkeAlgorithms } from '../../lib/ikev2/suite.ts'
import { TicketOffice } from '../../lib/ikev2/ticket-office.ts'
import { ExchangeType } from '../../lib/ikev2/wire/exchange-type.ts'
import { findNotify, findPayload } from '../../lib/ikev2/wire/message.ts'
import { notify } from '../../lib/ikev2/wire/notify.ts'
import { NotifyType } from '../../lib/ikev2/wire/notify-type.ts'
import type { Payload } from '../../lib/ikev2/wire/payload.ts'
import { ask, established, random } from './crafted-peer.ts'
import { defaultGrant } from './pair.ts'

const { CREATE_CHILD_SA, IKE_FOLLOWUP_KE, INFORMATIONAL } = ExchangeType
const { x25519, mlKem768 } = KeyExchangeId
const ikeAlgorithms = { ...defaultIkeAlgorithms, additionalKeyExchange: [mlKem768] }
const theirSpi = new Uint8Array(8).fill(5)
const theirNonce = new Uint8Array(32).fill(0x77)

function offerOf(id: number) {
  const offer = keyExchange(id)?.offer(random)
  if (offer === undefined) throw new Error('no such key exchange')
  return offer
}

/** An IKE SA made with ML-KEM, whose SK_d is known: it came with a ticket. */
function setUp() {
  const { pair, keys } = established({
    initiator: {
      ikeAlgorithms,
      features: { ...defaultFeatures, keyLog: true, requestsTicket: true },
    },
    responder: { ikeAlgorithms, tickets: new TicketOffice(new SeededRandom(1), 3_600_000, 0) },
    grant: { type: 'grant', grant: { ...defaultGrant, resumeMemo: Uint8Array.of(1) } },
  })
  const [ticket] = pair.initiator.of('ticket')
  if (ticket === undefined) throw new Error('no ticket')
  let id = 3
  const request = (exchange: number, payloads: Payload[]) =>
    ask(pair, keys, exchange, id++, payloads) ?? []
  const first = offerOf(x25519)
  const begin = () =>
    request(CREATE_CHILD_SA, [
      { type: 'SA', proposals: ikeProposals(ikeAlgorithms, theirSpi) },
      { type: 'Nonce', data: theirNonce },
      { type: 'KE', group: x25519, publicValue: first.publicValue },
    ])
  const linkOf = (answer: readonly Payload[]) =>
    findNotify(answer, NotifyType.ADDITIONAL_KEY_EXCHANGE)?.data ?? new Uint8Array(0)
  const followUp = (link: Uint8Array, publicValue: Uint8Array, group: number = mlKem768) =>
    request(IKE_FOLLOWUP_KE, [
      { type: 'KE', group, publicValue },
      notify(NotifyType.ADDITIONAL_KEY_EXCHANGE, link),
    ])
  return {
    pair,
    oldD: ticket.session.d,
    suite: ticket.session.suite,
    request,
    first,
    begin,
    linkOf,
    followUp,
  }
}

t.test('SKEYSEED covers all secrets: SK(0) | Ni | Nr | SK(1)', async t => {
  const [d, s0, s1] = [1, 2, 3].map(fill => new Uint8Array(32).fill(fill))
  if (!d || !s0 || !s1) throw new Error('three')
  const nonces = { initiator: theirNonce, responder: new Uint8Array(16).fill(9) }
  const expected = createHmac('sha256', d)
    .update(s0)
    .update(nonces.initiator)
    .update(nonces.responder)
    .update(s1)
    .digest('hex')
  const prf = createPrf(PrfId.hmacSha256)
  const seed = rekeySkeyseed(prf, new Secret(d), nonces, new Secret(s0), [new Secret(s1)])
  t.equal(toHex(seed.expose()), expected)
})

t.test('the new IKE SA stands after the last key exchange, under keys of both', async t => {
  const { pair, oldD, suite, first, begin, linkOf, followUp } = setUp()
  const answer = begin()
  const ke = findPayload(answer, 'KE')
  const nonce = findPayload(answer, 'Nonce')
  const spi = findPayload(answer, 'SA')?.proposals[0]?.spi
  if (!ke || !nonce || !spi) throw new Error('refused')
  t.equal(pair.responder.spis.size, 1, 'nothing has changed yet')
  const second = offerOf(mlKem768)
  const reply = followUp(linkOf(answer), second.publicValue)
  const last = findPayload(reply, 'KE')
  if (last === undefined) throw new Error('refused')
  t.equal(pair.responder.spis.size, 2)
  t.equal(pair.responder.of('ike-rekeyed').length, 1)
  const [s0, s1] = [first.finish(ke.publicValue), second.finish(last.publicValue)]
  if (typeof s0 === 'number' || typeof s1 === 'number') throw new Error('bad value')
  const nonces = { initiator: theirNonce, responder: nonce.data }
  const spis = { initiatorSpi: theirSpi, responderSpi: spi }
  const keys = ikeKeys(suite, rekeySkeyseed(suite.prf, oldD, nonces, s0, [s1]), nonces, spis)
  const line = pair.responder.of('key-log').at(-1)?.line ?? ''
  t.ok(line.startsWith(`${toHex(theirSpi)},${toHex(spi)},${toHex(keys.ei.expose())},`))
})

t.test('what was not agreed on is refused, and nothing is kept of it', async t => {
  const { pair, request, begin, linkOf, followUp } = setUp()
  const value = offerOf(mlKem768).publicValue
  const says = (answer: readonly Payload[], type: number) => t.ok(findNotify(answer, type))
  says(followUp(fromHex('00'), value), NotifyType.STATE_NOT_FOUND)
  const link = linkOf(begin())
  says(followUp(fromHex('0011223344556677'), value), NotifyType.STATE_NOT_FOUND)
  says(followUp(link, value, x25519), NotifyType.INVALID_SYNTAX)
  says(followUp(link, value), NotifyType.STATE_NOT_FOUND)
  const again = linkOf(begin())
  says(followUp(link, value), NotifyType.STATE_NOT_FOUND)
  says(followUp(again, value.subarray(1)), NotifyType.INVALID_SYNTAX)
  begin()
  const newest = linkOf(begin())
  t.same(request(INFORMATIONAL, []), [], 'other exchanges go on meanwhile')
  t.ok(findPayload(followUp(newest, value), 'KE'))
  t.ok(findNotify(followUp(newest, value), NotifyType.TEMPORARY_FAILURE), 'it is replaced')
  t.equal(pair.responder.spis.size, 2)
  t.equal(pair.responder.machine.state, 'established')
})
