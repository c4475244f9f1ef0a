import fc from 'fast-check'
import t from 'tap'
import type { Verdict } from '../../lib/aaa/authenticator.ts'
import type { EapRelayAnswer, EapRelayRequest } from '../../lib/aaa/eap-relay.ts'
import { utf8 } from '../../lib/core/bytes.ts'
import { timeout } from '../../lib/core/machine.ts'
import { Secret } from '../../lib/core/secret.ts'
import type { EapConversationEvent } from '../../lib/eap/conversation.ts'
import { EapType, eapPacketOf, parseEapPacket } from '../../lib/eap/packet.ts'
import { relayedConversations } from '../../lib/eap/relay.ts'
import { turn } from '../support/eventually.ts'

const call = { protocol: 'ikev2', peerAddress: '198.51.100.7', sessionId: 's1' }

class Rig {
  readonly asked: EapRelayRequest[] = []
  readonly sent: Uint8Array[] = []
  readonly events: EapConversationEvent[] = []
  readonly conversation
  answers: EapRelayAnswer[] = []

  constructor(answers: EapRelayAnswer[] = [], retransmit = { afterMs: 3000, tries: 2 }) {
    this.answers = answers
    const relay = {
      relayEap: (request: EapRelayRequest): Promise<EapRelayAnswer> => {
        this.asked.push(request)
        const reject: EapRelayAnswer = { type: 'reject', reason: 'backend-unavailable' }
        return Promise.resolve(this.answers.shift() ?? reject)
      },
    }
    this.conversation = relayedConversations(relay)({
      call,
      packetBytes: 1400,
      firstIdentifier: 40,
      retransmit,
    })
    this.feed({ type: 'start' })
  }

  feed(input: Parameters<typeof this.conversation.handle>[0], nowMs = 0): void {
    this.conversation.handle(input, nowMs)
    for (let out = this.conversation.poll(); out; out = this.conversation.poll()) {
      if (out.type === 'transmit') this.sent.push(out.bytes)
      else this.events.push(out.event)
    }
  }

  respond(identifier: number, eapType: number, typeData: Uint8Array): void {
    const bytes = eapPacketOf({ code: 'response', identifier, eapType, typeData })
    this.feed({ type: 'packet', bytes })
  }

  /** Lets the server's answer come back. */
  async wake(): Promise<void> {
    const { events } = this
    const event = events.at(-1)
    if (event?.type !== 'pending') throw new Error(`not pending but ${event?.type}`)
    await event.settled
    this.feed({ type: 'wake', ticket: event.ticket })
  }

  verdict(verdict: Verdict): void {
    const event = this.events.at(-1)
    if (event?.type !== 'authorize') throw new Error(`not authorizing but ${event?.type}`)
    this.feed({ type: 'verdict', ticket: event.ticket, verdict })
  }

  get last() {
    return parseEapPacket(this.sent.at(-1) ?? new Uint8Array(0))
  }

  what(): string[] {
    return this.events.map(event => (event.type === 'unexpected' ? event.what : event.type))
  }
}

const request = (identifier: number, eapType: number, text: string) =>
  eapPacketOf({ code: 'request', identifier, eapType, typeData: utf8(text) })

const challenge = (identifier: number, state?: number): EapRelayAnswer => ({
  type: 'challenge',
  packet: request(identifier, EapType.TLS, 'hello'),
  ...(state !== undefined && { state: Uint8Array.of(state) }),
})

const authorization = { userName: 'alice', sessionTimeoutSeconds: 60 }

t.test(
  'packets go to the server whole, with its State, and its Accept lets the peer in',
  async t => {
    const msk = new Secret(new Uint8Array(64).fill(1))
    const rig = new Rig([challenge(7, 1), challenge(8, 2), { type: 'accept', authorization, msk }])
    t.same(parseEapPacket(rig.sent[0] ?? new Uint8Array(0)).identifier, 40)
    rig.respond(40, EapType.Identity, utf8('alice'))
    await rig.wake()
    t.equal(rig.last.identifier, 7, 'the Request of the server, as it is')
    rig.respond(7, EapType.TLS, utf8('one'))
    await rig.wake()
    rig.respond(8, EapType.TLS, utf8('two'))
    await rig.wake()
    t.same(
      rig.asked.map(({ state }) => state?.[0]),
      [undefined, 1, 2],
    )
    t.ok(rig.asked.every(one => one.identity === 'alice' && one.call === call))
    rig.verdict({ type: 'accept', authorization })
    t.equal(rig.last.code, 'success')
    t.equal(rig.last.identifier, 8)
    t.match(rig.events.at(-1), { type: 'success', identity: 'alice', eapType: EapType.TLS, msk })
    t.equal(msk.length, 64, 'the receiver owns the key')
  },
)

t.test('a peer that may not come in hears Failure, and its key is wiped', async t => {
  const msk = new Secret(new Uint8Array(64))
  const rig = new Rig([{ type: 'accept', authorization, msk }])
  rig.respond(40, EapType.Identity, utf8('alice'))
  await rig.wake()
  rig.verdict({ type: 'reject', reason: 'no-dial-in', canRetry: false })
  t.equal(rig.last.code, 'failure')
  t.match(rig.events.at(-1), { type: 'failure', reason: 'no-dial-in' })
  t.equal(msk.length, 0)
})

t.test('a Reject ends it with the Failure of the server', async t => {
  const packet = eapPacketOf({ code: 'failure', identifier: 99 })
  const rig = new Rig([{ type: 'reject', reason: 'bad-credentials', packet }])
  rig.respond(40, EapType.Identity, utf8('alice'))
  await rig.wake()
  t.same(rig.sent.at(-1), packet)
  const forged = new Rig([
    {
      type: 'reject',
      reason: 'bad-credentials',
      packet: eapPacketOf({ code: 'success', identifier: 1 }),
    },
  ])
  forged.respond(40, EapType.Identity, utf8('alice'))
  await forged.wake()
  t.equal(forged.last.code, 'failure', 'never its Success')
})

t.test('what the server sends must be a Request that fits', async t => {
  for (const packet of [
    Uint8Array.of(1, 2, 3),
    eapPacketOf({ code: 'success', identifier: 7 }),
    request(7, EapType.TLS, 'x'.repeat(1400)),
  ]) {
    const rig = new Rig([{ type: 'challenge', packet }])
    rig.respond(40, EapType.Identity, utf8('alice'))
    await rig.wake()
    t.equal(rig.last.code, 'failure')
    t.ok(rig.what().includes('eap-server-request'))
  }
  const endless = new Rig(Array.from({ length: 70 }, () => challenge(7)))
  endless.respond(40, EapType.Identity, utf8('alice'))
  for (let i = 0; endless.events.at(-1)?.type === 'pending' && i < 70; i++) {
    await endless.wake()
    if (endless.last.code === 'request') endless.respond(7, EapType.TLS, utf8('more'))
  }
  t.equal(endless.last.code, 'failure', 'and not for ever')
})

t.test('packets out of place are counted, and late answers find nobody', async t => {
  const rig = new Rig([challenge(7)])
  rig.feed({ type: 'start' })
  rig.feed({ type: 'packet', bytes: Uint8Array.of(2, 40, 0, 9) })
  rig.feed({ type: 'packet', bytes: request(40, EapType.Identity, '') })
  rig.respond(41, EapType.Identity, utf8('alice'))
  rig.respond(40, EapType.TLS, utf8('alice'))
  rig.respond(40, EapType.Identity, utf8('alice'))
  rig.respond(40, EapType.Identity, utf8('alice'))
  rig.feed({ type: 'wake', ticket: 99 })
  rig.feed({ type: 'verdict', ticket: 99, verdict: { type: 'accept', authorization } })
  t.same(rig.what(), [
    'eap-start-twice',
    'eap-malformed',
    'eap-request-from-peer',
    'eap-identifier',
    'eap-not-identity',
    'pending',
    'eap-response-while-asking',
    'eap-late-wake',
    'eap-late-verdict',
  ])
  const late = new Secret(new Uint8Array(64))
  const gone = new Rig([{ type: 'accept', authorization, msk: late }])
  gone.respond(40, EapType.Identity, utf8('alice'))
  gone.conversation.destroy()
  await turn()
  t.equal(late.length, 0, 'a key for nobody is wiped')
  const long = new Rig()
  long.respond(40, EapType.Identity, utf8('x'.repeat(254)))
  t.equal(long.last.code, 'failure')
})

t.test('a lost Request is repeated, then the peer is gone', async t => {
  const rig = new Rig()
  rig.feed(timeout, 2999)
  t.equal(rig.sent.length, 1)
  for (const nowMs of [3000, 6000, 9000]) rig.feed(timeout, nowMs)
  t.equal(rig.sent.length, 3)
  t.match(rig.events.at(-1), { type: 'failure' })
  t.equal(rig.conversation.nextDeadlineMs(), Number.POSITIVE_INFINITY)
})

t.test('arbitrary packets never throw', async t => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.uint8Array({ maxLength: 30 }), { maxLength: 20 }),
      fc.uint8Array({ maxLength: 30 }),
      async (packets, fromServer) => {
        const rig = new Rig([{ type: 'challenge', packet: fromServer }])
        for (const bytes of packets) rig.feed({ type: 'packet', bytes })
        rig.respond(40, EapType.Identity, utf8('alice'))
        if (rig.events.at(-1)?.type === 'pending') await rig.wake()
      },
    ),
    { seed: 20261121, numRuns: 200 },
  )
  t.pass()
})
