/**
 * What RFC 7296 §2.25 says of requests that meet requests of our own, case by case: our side has asked
 * something that is on its way, and the peer asks what does not go with it.
 */
import t from 'tap'
import { toHex } from '../../lib/core/bytes.ts'
import { keyExchange } from '../../lib/crypto/key-exchanges.ts'
import { KeyExchangeId } from '../../lib/crypto/transforms.ts'
import { spiBytes } from '../../lib/ikev2/child-sa.ts'
import type { IkeSaInput } from '../../lib/ikev2/input.ts'
import { ikeProposals } from '../../lib/ikev2/proposal.ts'
import { defaultIkeAlgorithms } from '../../lib/ikev2/suite.ts'
import { everything } from '../../lib/ikev2/traffic-selectors.ts'
import { ExchangeType } from '../../lib/ikev2/wire/exchange-type.ts'
import { allPayloads, findNotify, findPayload } from '../../lib/ikev2/wire/message.ts'
import { NotifyType } from '../../lib/ikev2/wire/notify-type.ts'
import type { Payload } from '../../lib/ikev2/wire/payload.ts'
import { ask, childRequest, established, random } from './crafted-peer.ts'
import { Pair } from './pair.ts'

const { CREATE_CHILD_SA, INFORMATIONAL } = ExchangeType

/** The responder, with a request of its own on its way, and a peer that asks. */
function meeting(own: 'rekey-child' | 'delete-child' | 'create-child' | 'rekey-ike' | 'close') {
  const { pair, keys } = established()
  const inboundSpi = pair.responder.activeChild ?? 0
  const theirSpi = pair.initiator.activeChild ?? 0
  const inputs: Record<typeof own, IkeSaInput> = {
    'rekey-child': { type: 'rekey-child', inboundSpi },
    'delete-child': { type: 'delete-child', inboundSpi },
    'create-child': {
      ...{ type: 'create-child', localSelectors: everything, remoteSelectors: everything },
    },
    'rekey-ike': { type: 'rekey-ike' },
    close: { type: 'close', cause: 'admin-reset', detail: 'test' },
  }
  pair.send('responder', inputs[own])
  let id = 2
  const request = (exchange: number, payloads: Payload[]) =>
    ask(pair, keys, exchange, id++, payloads) ?? []
  const rekey: Payload = {
    ...{ type: 'N', protocolId: 3, spi: spiBytes(theirSpi) },
    ...{ notifyType: NotifyType.REKEY_SA, data: new Uint8Array(0) },
  }
  return {
    pair,
    inboundSpi,
    asks: {
      child: () => request(CREATE_CHILD_SA, childRequest(pair, '00002000')),
      'child rekey': () => request(CREATE_CHILD_SA, [rekey, ...childRequest(pair, '00002000')]),
      'child delete': () =>
        request(INFORMATIONAL, [{ type: 'D', protocolId: 3, spis: [spiBytes(theirSpi)] }]),
      'ike rekey': () => request(CREATE_CHILD_SA, ikeRekey()),
      'ike delete': () => request(INFORMATIONAL, [{ type: 'D', protocolId: 1, spis: [] }]),
    },
  }
}

function ikeRekey(): Payload[] {
  const group = KeyExchangeId.x25519
  const offer = keyExchange(group)?.offer(random)
  if (offer === undefined) throw new Error('no X25519')
  return [
    { type: 'SA', proposals: ikeProposals(defaultIkeAlgorithms, new Uint8Array(8).fill(5)) },
    { type: 'Nonce', data: new Uint8Array(32).fill(0xff) },
    { type: 'KE', group, publicValue: offer.publicValue },
  ]
}

const deletedSpis = (answer: readonly Payload[]) =>
  allPayloads(answer, 'D').flatMap(({ spis }) => spis.map(toHex))
const isBusy = (answer: readonly Payload[]) =>
  findNotify(answer, NotifyType.TEMPORARY_FAILURE) !== undefined && answer.length === 1

t.test('§2.25.1: while we close a Child SA', async t => {
  t.test('its rekeying is answered with TEMPORARY_FAILURE', async t => {
    t.ok(isBusy(meeting('delete-child').asks['child rekey']()))
  })
  t.test('its deletion is answered without a Delete', async t => {
    const { pair, inboundSpi, asks } = meeting('delete-child')
    t.same(deletedSpis(asks['child delete']()), [])
    t.notOk(pair.responder.children.has(inboundSpi))
    t.equal(pair.responder.machine.state, 'established')
  })
})

t.test('§2.25.1: while we rekey a Child SA', async t => {
  t.test('its rekeying is answered as usual; the nonces decide (§2.8.1)', async t => {
    const { pair, asks } = meeting('rekey-child')
    t.ok(findPayload(asks['child rekey'](), 'SA'))
    t.equal(pair.responder.children.size, 2)
  })
  t.test('its deletion is answered as usual, with our half', async t => {
    const { pair, inboundSpi, asks } = meeting('rekey-child')
    t.same(deletedSpis(asks['child delete']()), [toHex(spiBytes(inboundSpi))])
    t.notOk(pair.responder.children.has(inboundSpi))
    t.equal(pair.responder.machine.state, 'established')
  })
})

t.test('§2.25.1: rekeying what is not there is answered with CHILD_SA_NOT_FOUND', async t => {
  const { asks } = meeting('delete-child')
  asks['child delete']()
  t.ok(findNotify(asks['child rekey'](), NotifyType.CHILD_SA_NOT_FOUND))
})

t.test('§2.25.2: while we create, rekey or close a Child SA the IKE SA', async t => {
  for (const own of ['create-child', 'rekey-child', 'delete-child'] as const) {
    t.test(`is not rekeyed (${own}): TEMPORARY_FAILURE`, async t => {
      const { pair, asks } = meeting(own)
      t.ok(isBusy(asks['ike rekey']()))
      t.equal(pair.responder.spis.size, 1)
    })
    t.test(`is closed (${own}), and our request is forgotten`, async t => {
      const { pair, asks } = meeting(own)
      t.same(asks['ike delete'](), [])
      t.match(pair.responder.closed, { detail: 'deleted-by-peer' })
      t.equal(pair.responder.machine.nextDeadlineMs(), Number.POSITIVE_INFINITY)
    })
  }
})

t.test('§2.25.2: while we rekey the IKE SA', async t => {
  t.test('its rekeying is answered as usual; the nonces decide (§2.8.2)', async t => {
    const { pair, asks } = meeting('rekey-ike')
    t.ok(findPayload(asks['ike rekey'](), 'KE'))
    t.equal(pair.responder.spis.size, 2)
    t.equal(pair.responder.of('ike-rekeyed').length, 0, 'which one stays is not known yet')
  })
  t.test('its deletion is answered as usual, and our rekeying forgotten', async t => {
    const { pair, asks } = meeting('rekey-ike')
    t.same(asks['ike delete'](), [])
    t.match(pair.responder.closed, { detail: 'deleted-by-peer' })
    t.equal(pair.responder.spis.size, 0)
  })
  t.test('no Child SA is made or rekeyed: TEMPORARY_FAILURE', async t => {
    const { pair, asks } = meeting('rekey-ike')
    t.ok(isBusy(asks.child()))
    t.ok(isBusy(asks['child rekey']()))
    t.equal(pair.responder.children.size, 1)
  })
  t.test('a Child SA is deleted as usual', async t => {
    const { inboundSpi, asks } = meeting('rekey-ike')
    t.same(deletedSpis(asks['child delete']()), [toHex(spiBytes(inboundSpi))])
  })
})

t.test('§2.25.2: while we close the IKE SA', async t => {
  t.test('it is not rekeyed, and no Child SA is made: TEMPORARY_FAILURE', async t => {
    const { asks } = meeting('close')
    t.ok(isBusy(asks['ike rekey']()))
    t.ok(isBusy(asks.child()))
    t.ok(isBusy(asks['child rekey']()))
  })
  t.test('its deletion is answered, and ours forgotten', async t => {
    const { pair, asks } = meeting('close')
    t.same(asks['ike delete'](), [])
    t.match(pair.responder.closed, { cause: 'admin-reset' }, 'our reason was first')
    t.equal(pair.responder.machine.state, 'closed')
  })
})

/** Both sides ask; what one says first is lost `lost` times. */
function bothRekey(what: 'ike' | 'child', seed: number, loses: 'initiator' | 'responder' | 'none') {
  let isOn = false
  let lost = 0
  const pair: Pair = new Pair({
    seed,
    onPath: (bytes, from) => {
      if (!isOn || from !== loses || lost > 0) return bytes
      lost++
      return undefined
    },
  })
  pair.dial()
  pair.settle(1000)
  isOn = true
  for (const side of ['initiator', 'responder'] as const) {
    const inboundSpi = pair.end(side).activeChild ?? 0
    pair.send(side, what === 'ike' ? { type: 'rekey-ike' } : { type: 'rekey-child', inboundSpi })
  }
  return pair
}

t.test(
  '§2.8.1, §2.8.2: of two rekeyings the one with the lowest nonce goes, by its maker',
  async t => {
    const wins = new Set<boolean>()
    for (const what of ['ike', 'child'] as const) {
      for (let seed = 1; seed <= 12; seed++) {
        const pair = bothRekey(what, seed, 'none')
        pair.run(7)
        const made = what === 'ike' ? pair.initiator.spis.size : pair.initiator.children.size
        t.ok(made >= 2, 'for a moment both stand')
        pair.settle(60_000)
        t.equal(pair.initiator.spis.size + pair.responder.spis.size, 2)
        t.equal(pair.initiator.children.size + pair.responder.children.size, 2)
        t.ok(pair.carriesTraffic())
        const [spi = ''] = pair.initiator.spis
        const first = pair.initiator.of('spi-added').find(({ localSpi }) => toHex(localSpi) === spi)
        if (what === 'ike') wins.add(first?.isInitiatorSpi === true)
      }
    }
    t.equal(wins.size, 2, 'either side wins now and then')
  },
)

t.test(
  '§2.8.1, §2.8.2: a request that is lost and comes late meets what is rekeyed already',
  async t => {
    for (const what of ['ike', 'child'] as const) {
      for (const loses of ['initiator', 'responder'] as const) {
        for (let seed = 1; seed <= 6; seed++) {
          const pair = bothRekey(what, seed, loses)
          pair.settle(120_000)
          t.equal(pair.initiator.spis.size, 1, `${what}, ${loses} loses, seed ${seed}`)
          t.equal(pair.responder.spis.size, 1)
          t.equal(pair.initiator.children.size, 1)
          t.equal(pair.responder.children.size, 1)
          t.ok(pair.isEstablished && pair.carriesTraffic())
        }
      }
    }
  },
)
