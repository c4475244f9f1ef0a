/** EAP on a PPP link: RFC 3748 over the protocol number 0xc227, in both roles. */
import t from 'tap'
import type { Verdict } from '../../lib/aaa/authenticator.ts'
import { concatBytes, fromHex, toHex, utf8 } from '../../lib/core/bytes.ts'
import { Outbox } from '../../lib/core/machine.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { Secret } from '../../lib/core/secret.ts'
import { EapAuthenticator } from '../../lib/eap/authenticator.ts'
import type {
  EapConversation,
  EapConversationEvent,
  EapConversationInput,
} from '../../lib/eap/conversation.ts'
import { Md5ServerMethod } from '../../lib/eap/md5-method.ts'
import { Mschapv2ServerMethod } from '../../lib/eap/mschapv2-method.ts'
import { eapPacketOf } from '../../lib/eap/packet.ts'
import type { PppServerSettings } from '../../lib/ppp/settings.ts'
import { handPlayedServer, Pair, userName } from './ppp-pair.ts'

const random = new SeededRandom(99)
const call = { protocol: 'sstp', peerAddress: '198.51.100.1', sessionId: 's1' }

const eap: NonNullable<PppServerSettings['eap']> = lowerLayer =>
  new EapAuthenticator({
    ...lowerLayer,
    call,
    methods: [
      () => new Mschapv2ServerMethod({ random, serverName: 'openras' }),
      () => new Md5ServerMethod(random, 'openras'),
    ],
  })
const server = { authentication: ['eap', 'mschapv2'], eap } as const

t.test('EAP-MSCHAPv2 proves both sides and makes the keys of MPPE and of SSTP', async t => {
  const pair = new Pair({ server, client: { authentication: ['eap'] } }).open()
  t.ok(pair.run(30_000, () => pair.isUp()))
  const [ours] = pair.server.of('authenticated')
  const [theirs] = pair.client.of('authenticated')
  t.equal(ours?.method, 'eap')
  t.equal(ours?.keys?.receive.length, 16)
  t.same(ours?.higherLayerKey, concatBytes(...Object.values(ours?.keys ?? {})))
  t.same(theirs?.keys, ours?.keys, 'one pair of keys on both sides')
  t.not(toHex(ours?.higherLayerKey ?? new Uint8Array(0)), '00'.repeat(32))
  t.notMatch(JSON.stringify(pair.server.events), toHex(ours?.keys?.receive ?? new Uint8Array(1)))
})

t.test('it survives loss, copies and reordering', async t => {
  for (let seed = 1; seed <= 10; seed++) {
    const impairment = { lossPercent: 20, duplicatePercent: 20, reorderPercent: 20 }
    const pair = new Pair({ seed, server, client: { authentication: ['eap'] }, impairment }).open()
    t.ok(
      pair.run(60_000, () => pair.isUp()),
      `seed ${seed}: ${pair.server.of('closed')[0]?.detail}`,
    )
  }
})

t.test('a peer without EAP walks down to what both have, unless EAP is all there is', async t => {
  const both = new Pair({ server, client: { authentication: ['mschapv2'] } }).open()
  t.ok(both.run(30_000, () => both.isUp()))
  t.equal(both.server.of('authenticated')[0]?.method, 'mschapv2')
  const only = new Pair({
    server: { ...server, authentication: ['eap'] },
    client: { authentication: ['mschapv2'] },
  }).open()
  only.run(60_000)
  t.equal(only.server.of('closed').length, 1)
  t.equal(only.server.of('authenticated').length, 0)
})

t.test('a wrong password ends the call', async t => {
  const pair = new Pair({
    server,
    client: { authentication: ['eap'], password: Secret.fromText('wrong') },
  }).open()
  pair.run(60_000)
  t.equal(pair.server.of('closed')[0]?.cause, 'authentication-failed')
  t.same(
    pair.server.of('refused').map(({ reason }) => reason),
    ['bad-credentials'],
  )
})

t.test('EAP-MD5 makes no keys, and the higher-layer key is zeros', async t => {
  const pair = new Pair({
    server: { ...server, eap: layer => md5Only(layer) },
    client: { authentication: ['eap'] },
  }).open()
  t.ok(pair.run(30_000, () => pair.isUp()))
  t.equal(pair.server.of('authenticated')[0]?.keys, undefined)
  t.equal(
    toHex(pair.server.of('authenticated')[0]?.higherLayerKey ?? fromHex('01')),
    '00'.repeat(32),
  )
})

const md5Only: typeof eap = layer =>
  new EapAuthenticator({ ...layer, call, methods: [() => new Md5ServerMethod(random, 'openras')] })

t.test('a Request is repeated ten times, then the call ends for silence', async t => {
  const hand = handPlayedServer({ ...server, authentication: ['eap'] }).openLink()
  hand.waitUntil(44_000)
  const requests = hand.take().filter(({ protocol }) => protocol === 'eap')
  t.equal(requests.length, 10)
  t.equal(new Set(requests.map(({ identifier }) => identifier)).size, 1)
  t.same(
    hand.of('closed').map(({ cause }) => cause),
    ['setup-timeout'],
  )
})

t.test('packets of wrong identifier, type, code and length change nothing', async t => {
  const hand = handPlayedServer({ ...server, authentication: ['eap'] }).openLink()
  const id = hand.take().find(({ protocol }) => protocol === 'eap')?.identifier ?? 0
  hand.play('eap', 2, (id + 1) & 0xff, concatBytes(Uint8Array.of(1), utf8(userName)))
  hand.play('eap', 2, id, '26 01')
  hand.play('eap', 1, id, '01')
  hand.play('eap', 3, id, '')
  hand.play('eap', 9, id, '01')
  hand.play('eap', 2, id, '')
  hand.frame('ff03c227 02')
  t.same(hand.take(), [])
  t.same(
    new Set(hand.counters()),
    new Set([
      'eap-identifier',
      'eap-not-identity',
      'eap-request-from-peer',
      'eap-success-from-peer',
      'eap-malformed',
      'malformed-authentication-truncated',
    ]),
  )
  hand.play('eap', 2, id, concatBytes(Uint8Array.of(1), utf8(userName)))
  t.equal(hand.take()[0]?.data[0], 26, 'and the conversation goes on')
})

/** What a relay does: asks elsewhere, then asks whether the peer may come in. */
class Relay implements EapConversation {
  readonly #outbox = new Outbox<EapConversationEvent>()
  isDestroyed = false
  arrive = () => {}

  handle(input: EapConversationInput | { type: 'timeout' }): void {
    const request = { code: 'request', identifier: 7, eapType: 1 } as const
    switch (input.type) {
      case 'start':
        this.#outbox.transmit(eapPacketOf({ ...request, typeData: new Uint8Array(0) }))
        return
      case 'packet': {
        const settled = new Promise<void>(resolve => {
          this.arrive = resolve
        })
        this.#outbox.event({ type: 'pending', ticket: 5, settled })
        return
      }
      case 'wake':
        this.#outbox.event({ type: 'authorize', ticket: 6, authorization: { userName: 'bob' } })
        return
      case 'verdict':
        this.#end(input.verdict)
        return
      case 'timeout':
        return
    }
  }

  #end(verdict: Verdict): void {
    const isAccepted = verdict.type === 'accept'
    this.#outbox.transmit(eapPacketOf({ code: isAccepted ? 'success' : 'failure', identifier: 7 }))
    const identity = 'outer'
    if (!isAccepted) {
      this.#outbox.event({ type: 'failure', identity, reason: verdict.reason })
      return
    }
    const msk = new Secret(Uint8Array.from({ length: 64 }, (_, i) => i))
    const { authorization } = verdict
    this.#outbox.event({ type: 'success', identity, eapType: 13, authorization, msk })
  }

  poll() {
    return this.#outbox.poll()
  }

  nextDeadlineMs(): number {
    return Number.POSITIVE_INFINITY
  }

  destroy(): void {
    this.isDestroyed = true
  }
}

t.test('a relay drives the same link: it waits, asks for admission, and brings keys', async t => {
  const relay = new Relay()
  const hand = handPlayedServer({ ...server, authentication: ['eap'], eap: () => relay }).openLink()
  hand.take()
  hand.play('eap', 2, 7, '01 61')
  const [pending] = hand.of('pending')
  relay.arrive()
  await pending?.settled
  hand.handle({ type: 'wake', ticket: pending?.ticket ?? 0 }, 0)
  const [asked] = hand.of('authorize')
  t.equal(asked?.authorization.userName, 'bob')
  t.same(hand.take(), [], 'no Success before the admission')
  const verdict = { type: 'accept', authorization: { userName: 'bob' } } as const
  hand.handle({ type: 'verdict', attempt: asked?.attempt ?? 0, verdict }, 0)
  t.equal(hand.take()[0]?.code, 3)
  const [authenticated] = hand.of('authenticated')
  t.equal(authenticated?.userName, 'bob')
  t.equal(
    toHex(authenticated?.higherLayerKey ?? new Uint8Array(0)),
    '000102030405060708090a0b0c0d0e0f202122232425262728292a2b2c2d2e2f',
    'the first 16 bytes of each half of the MSK, receive before send',
  )
})

t.test('who ends the link ends the conversation', async t => {
  const relay = new Relay()
  const hand = handPlayedServer({ ...server, authentication: ['eap'], eap: () => relay }).openLink()
  hand.play('eap', 2, 7, '01 61')
  hand.handle({ type: 'carrier-lost' }, 0)
  t.ok(relay.isDestroyed)
  const ours = hand.of('pending').length
  hand.handle({ type: 'wake', ticket: 5 }, 0)
  t.equal(hand.of('authorize').length, 0)
  t.equal(hand.of('pending').length, ours)
})

t.test('EAP without a way to converse is a configuration error', async t => {
  t.throws(() => handPlayedServer({ authentication: ['eap'] }), { message: /EAP/ })
})
