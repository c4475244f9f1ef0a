import fc from 'fast-check'
import t from 'tap'
import type { Verdict } from '../../lib/aaa/authenticator.ts'
import { fromHex, toHex, utf8 } from '../../lib/core/bytes.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { Secret } from '../../lib/core/secret.ts'
import { EapAuthenticator } from '../../lib/eap/authenticator.ts'
import type { EapConversationEvent } from '../../lib/eap/conversation.ts'
import { Md5PeerMethod, Md5ServerMethod } from '../../lib/eap/md5-method.ts'
import type { EapServerMethod, EapServerStep } from '../../lib/eap/method.ts'
import { Mschapv2PeerMethod, Mschapv2ServerMethod } from '../../lib/eap/mschapv2-method.ts'
import {
  checkMschapv2Packet,
  type Mschapv2Packet,
  mschapv2PacketOf,
  parseMschapv2Packet,
} from '../../lib/eap/mschapv2-packet.ts'
import {
  checkEapPacket,
  type EapPacket,
  eapPacketBytes,
  eapPacketOf,
  encodeEapPacket,
  parseEapPacket,
} from '../../lib/eap/packet.ts'
import { EapPeer, type EapPeerEvent } from '../../lib/eap/peer.ts'
import { judge } from '../ikev2/pair.ts'

const seed = 20260802
const call = { protocol: 'test', peerAddress: '198.51.100.1', sessionId: 's1' }

/** Two conversations wired to each other; `judge` plays the authenticator's backend. */
class Conversation {
  readonly server: EapAuthenticator
  readonly peer: EapPeer
  readonly serverEvents: EapConversationEvent[] = []
  readonly peerEvents: EapPeerEvent[] = []
  readonly packets: EapPacket[] = []
  verdict: (event: Extract<EapConversationEvent, { type: 'authenticate' }>) => Verdict | undefined =
    event => judge(event.request)

  constructor(server: EapAuthenticator, peer: EapPeer) {
    this.server = server
    this.peer = peer
  }

  run(): void {
    this.server.handle({ type: 'start' }, 0)
    this.pump()
  }

  pump(): void {
    for (let isBusy = true; isBusy; ) {
      isBusy = false
      for (let out = this.server.poll(); out; out = this.server.poll()) {
        isBusy = true
        if (out.type === 'transmit') this.#packet(out.bytes, 'peer')
        else this.#serverEvent(out.event)
      }
      for (let out = this.peer.poll(); out; out = this.peer.poll()) {
        isBusy = true
        if (out.type === 'transmit') this.#packet(out.bytes, 'server')
        else this.peerEvents.push(out.event)
      }
    }
  }

  #packet(bytes: Uint8Array, to: 'peer' | 'server'): void {
    this.packets.push(parseEapPacket(bytes.slice()))
    if (to === 'peer') this.peer.handle({ type: 'packet', bytes })
    else this.server.handle({ type: 'packet', bytes }, 0)
    bytes.fill(0xee)
  }

  #serverEvent(event: EapConversationEvent): void {
    this.serverEvents.push(event)
    if (event.type !== 'authenticate') return
    const verdict = this.verdict(event)
    if (verdict) this.server.handle({ type: 'verdict', ticket: event.ticket, verdict }, 0)
  }

  get success() {
    return this.serverEvents.find(event => event.type === 'success')
  }

  get failure() {
    return this.serverEvents.find(event => event.type === 'failure')
  }
}

function conversation(
  options: {
    server?: (() => EapServerMethod)[]
    password?: string
    userName?: string
    peerMethod?: 'md5' | 'mschapv2' | 'none'
    requiresMsk?: boolean
    identity?: string
  } = {},
): Conversation {
  const random = new SeededRandom(7)
  const userName = options.userName ?? 'alice'
  const password = Secret.fromText(options.password ?? 'correct horse')
  const mschapv2 = () => new Mschapv2PeerMethod({ random, userName, password })
  const md5 = () => new Md5PeerMethod(userName, password)
  const { peerMethod = 'mschapv2' } = options
  const methods = peerMethod === 'none' ? [] : peerMethod === 'md5' ? [md5] : [mschapv2]
  return new Conversation(
    new EapAuthenticator({
      call,
      methods: options.server ?? [() => new Mschapv2ServerMethod({ random, serverName: 'vpn' })],
      firstIdentifier: 250,
    }),
    new EapPeer({
      identity: options.identity ?? 'outer',
      methods,
      requiresMsk: options.requiresMsk ?? false,
    }),
  )
}

t.test('EAP packets survive encoding; trailing bytes of the carrier are ignored', async t => {
  const typed = fc.record({
    code: fc.constantFrom('request' as const, 'response' as const),
    identifier: fc.integer({ min: 0, max: 255 }),
    eapType: fc.integer({ min: 0, max: 255 }),
    typeData: fc.uint8Array({ maxLength: 80 }),
  })
  const bare = fc.record({
    code: fc.constantFrom('success' as const, 'failure' as const),
    identifier: fc.integer({ min: 0, max: 255 }),
  })
  fc.assert(
    fc.property(fc.oneof(typed, bare), fc.nat(5), (packet: EapPacket, padding) => {
      const lengthBytes = eapPacketBytes(packet)
      const out = new Uint8Array(lengthBytes + padding).fill(0xa5)
      t.equal(encodeEapPacket(packet, out, 0), lengthBytes)
      t.equal(checkEapPacket(out), 0)
      t.same(parseEapPacket(out), packet)
    }),
    { seed, numRuns: 200 },
  )
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 40 }), bytes => {
      if (!checkEapPacket(bytes)) parseEapPacket(bytes)
    }),
    { seed, numRuns: 2000 },
  )
  t.not(checkEapPacket(fromHex('01010004')), 0, 'a Request has a type')
  t.not(checkEapPacket(fromHex('0101000601')), 0, 'longer than it is')
  t.not(checkEapPacket(fromHex('0501000501')), 0, 'unknown code')
})

t.test('MSCHAPv2 packets survive encoding and never throw', async t => {
  const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length })
  const id = fc.integer({ min: 0, max: 255 })
  const text = fc.string({ minLength: 1, maxLength: 20 })
  const packet: fc.Arbitrary<Mschapv2Packet> = fc.oneof(
    fc.record({
      type: fc.constant('challenge' as const),
      mschapv2Id: id,
      challenge: bytes(16),
      name: text,
    }),
    fc.record({
      type: fc.constant('response' as const),
      mschapv2Id: id,
      peerChallenge: bytes(16),
      ntResponse: bytes(24),
      flags: id,
      name: text,
    }),
    fc.record({ type: fc.constant('success-request' as const), mschapv2Id: id, message: text }),
    fc.record({ type: fc.constant('failure-request' as const), mschapv2Id: id, message: text }),
    fc.constant({ type: 'success-response' as const }),
    fc.constant({ type: 'failure-response' as const }),
    fc.record({
      type: fc.constant('change-password' as const),
      mschapv2Id: id,
      encryptedPassword: bytes(516),
      encryptedHash: bytes(16),
      peerChallenge: bytes(16),
      ntResponse: bytes(24),
      flags: fc.integer({ min: 0, max: 65_535 }),
    }),
  )
  fc.assert(
    fc.property(packet, value => {
      const data = mschapv2PacketOf(value)
      t.equal(checkMschapv2Packet(data), 0)
      t.same(parseMschapv2Packet(data), value)
    }),
    { seed, numRuns: 200 },
  )
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 90 }), data => {
      if (data.length > 0) data[0] = (data[0] ?? 0) % 9
      if (!checkMschapv2Packet(data)) parseMschapv2Packet(data)
    }),
    { seed, numRuns: 3000 },
  )
})

t.test('the flow of EAP-MSCHAPv2, and an MSK that both sides have', async t => {
  const talk = conversation()
  talk.run()
  const { success } = talk
  t.equal(success?.type === 'success' && success.identity, 'outer')
  t.equal(success?.type === 'success' && success.authorization.userName, 'alice')
  const peerEnd = talk.peerEvents[0]
  t.equal(peerEnd?.type, 'success')
  if (success?.type !== 'success' || peerEnd?.type !== 'success') return
  t.equal(success.msk?.length, 64)
  t.ok(success.msk && peerEnd.msk?.equals(success.msk))
  t.same(
    talk.packets.map(packet => packet.code),
    ['request', 'response', 'request', 'response', 'request', 'response', 'success'],
  )
  const identifiers = talk.packets
    .filter(packet => packet.code === 'request')
    .map(p => p.identifier)
  t.same(identifiers, [250, 251, 252], 'each Request has a new identifier')
  t.equal(talk.packets.at(-1)?.identifier, 252, 'Success repeats that of the last Response')
  const acknowledgement = talk.packets[5]
  t.ok(acknowledgement && 'typeData' in acknowledgement)
  if (acknowledgement && 'typeData' in acknowledgement)
    t.same(acknowledgement.typeData, fromHex('03'))
})

t.test('the published exchange of RFC 2759 §9.2 gives its response and MSK', async t => {
  const fixed = {
    fill: (out: Uint8Array) => out.set(fromHex('21402324255E262A28295F2B3A337C7E')),
  }
  const method = new Mschapv2PeerMethod({
    random: fixed,
    userName: 'User',
    password: Secret.fromText('clientPass'),
  })
  const answer = method.request(
    mschapv2PacketOf({
      type: 'challenge',
      mschapv2Id: 1,
      challenge: fromHex('5B5D7C7D7B3F2F3E3C2C602132262628'),
      name: 'server',
    }),
  )
  const response = answer.type === 'response' ? parseMschapv2Packet(answer.typeData) : undefined
  t.equal(
    response?.type === 'response' && toHex(response.ntResponse).toUpperCase(),
    '82309ECD8D708B5EA08FAA3981CD83544233114A3D85D6DF',
  )
  t.notOk(method.isComplete)
  method.request(
    mschapv2PacketOf({
      type: 'success-request',
      mschapv2Id: 1,
      message: 'S=407A5589115FD0D6209F510FE9C04566932CDA56 M=Welcome',
    }),
  )
  t.ok(method.isComplete)
  const msk = method.takeMsk()
  t.equal(
    msk && toHex(msk.expose()).toUpperCase(),
    `D5F0E9521E3EA9589645E86051C822268B7CDC149B993A1BA118CB153F56DCCB${'00'.repeat(32)}`,
  )
  t.equal(method.takeMsk(), undefined, 'it is handed out once')
})

t.test('a server that does not know the password is refused by the peer', async t => {
  const talk = conversation()
  talk.verdict = event => {
    const genuine = judge(event.request)
    return genuine.type === 'accept'
      ? { ...genuine, authenticatorResponse: `S=${'0'.repeat(40)}` }
      : genuine
  }
  talk.run()
  t.equal(talk.success, undefined)
  t.equal(talk.peerEvents.at(-1)?.type, 'failure')
})

t.test('a wrong password ends in E=691 R=0 and Failure', async t => {
  const talk = conversation({ password: 'wrong' })
  talk.run()
  t.equal(talk.failure?.type === 'failure' && talk.failure.reason, 'bad-credentials')
  const message = talk.packets.flatMap(packet => {
    if (!('typeData' in packet) || packet.code !== 'request' || packet.eapType !== 26) return []
    const parsed = parseMschapv2Packet(packet.typeData)
    return parsed.type === 'failure-request' ? [parsed.message] : []
  })[0]
  t.match(message, /^E=691 R=0 C=[0-9A-F]{32} V=3 M=/)
  t.equal(talk.packets.at(-1)?.code, 'failure')
})

t.test('an accept without keys never becomes a Success (CVE-2021-45079 class)', async t => {
  const talk = conversation()
  talk.verdict = () => ({ type: 'accept', authorization: { userName: 'alice' } })
  talk.run()
  t.equal(talk.success, undefined)
  t.equal(talk.failure?.type === 'failure' && talk.failure.reason, 'backend-unavailable')
})

t.test('a peer believes no early Success', async t => {
  const peer = new EapPeer({ identity: 'x', methods: [], requiresMsk: false })
  peer.handle({ type: 'packet', bytes: eapPacketOf({ code: 'success', identifier: 1 }) })
  const out = peer.poll()
  t.equal(out?.type === 'event' && out.event.type, 'failure')
  const md5 = conversation({
    server: [() => new Md5ServerMethod(new SeededRandom(1), 'vpn')],
    peerMethod: 'md5',
    requiresMsk: true,
  })
  md5.run()
  t.equal(md5.peerEvents.at(-1)?.type, 'failure', 'nor one without keys where keys are needed')
})

t.test('Nak finds a common method, or ends; a late Nak is ignored', async t => {
  const random = new SeededRandom(3)
  const server = [
    () => new Mschapv2ServerMethod({ random, serverName: 'vpn' }),
    () => new Md5ServerMethod(random, 'vpn'),
  ]
  const common = conversation({ server, peerMethod: 'md5', identity: 'alice' })
  common.run()
  t.equal(common.success?.type === 'success' && common.success.eapType, 4)
  const none = conversation({ peerMethod: 'none' })
  none.run()
  t.equal(none.failure?.type === 'failure' && none.failure.reason, 'method-not-allowed')
  const late = conversation()
  late.verdict = () => undefined
  late.run()
  t.equal(late.server.state, 'judging')
  late.server.handle(
    {
      type: 'packet',
      bytes: eapPacketOf({
        code: 'response',
        identifier: 251,
        eapType: 3,
        typeData: fromHex('04'),
      }),
    },
    0,
  )
  late.pump()
  t.equal(late.server.state, 'judging')
})

t.test('what does not fit is counted and changes nothing', async t => {
  const talk = conversation()
  const server = talk.server
  server.handle({ type: 'start' }, 0)
  server.poll()
  const feed = (bytes: Uint8Array) => {
    server.handle({ type: 'packet', bytes }, 0)
    const out = server.poll()
    return out?.type === 'event' && out.event.type === 'unexpected' ? out.event.what : undefined
  }
  t.equal(feed(fromHex('0201')), 'eap-malformed')
  t.equal(feed(fromHex('01fa000501')), 'eap-request-from-peer')
  t.equal(feed(fromHex('020a000501')), 'eap-identifier')
  t.equal(feed(fromHex('02fa000604aa')), 'eap-not-identity')
  t.equal(feed(fromHex('03fa0004')), 'eap-success-from-peer')
  t.equal(server.state, 'identity')
  server.handle({ type: 'verdict', ticket: 0, verdict: judgeReject }, 0)
  const late = server.poll()
  t.equal(
    late?.type === 'event' && late.event.type === 'unexpected' && late.event.what,
    'eap-late-verdict',
  )
  server.handle({ type: 'start' }, 0)
  t.ok(server.poll())
  t.equal(server.state, 'identity')
})

const judgeReject: Verdict = { type: 'reject', reason: 'bad-credentials', canRetry: false }

const guessed = {
  type: 'response',
  mschapv2Id: 1,
  peerChallenge: new Uint8Array(16),
  ntResponse: new Uint8Array(24),
  flags: 0,
} as const

t.test('a retry with R=1 gets a new challenge, once the backend allows it', async t => {
  const server = new Mschapv2ServerMethod({ random: new SeededRandom(8), serverName: 'vpn' })
  server.start('alice', 1)
  const respond = () => server.response(mschapv2PacketOf({ ...guessed, name: 'CORP\\alice' }))
  const first = respond()
  t.equal(first.type === 'authenticate' && first.userName, 'CORP\\alice')
  const failure = server.verdict({ ...judgeReject, canRetry: true }, 2)
  const packet = failure.type === 'request' ? parseMschapv2Packet(failure.typeData) : undefined
  t.match(packet?.type === 'failure-request' && packet.message, /R=1/)
  const again = respond()
  t.equal(again.type, 'authenticate')
  if (first.type !== 'authenticate' || again.type !== 'authenticate') return
  if (first.proof.method !== 'mschapv2' || again.proof.method !== 'mschapv2') return
  t.notSame(first.proof.authenticatorChallenge, again.proof.authenticatorChallenge)
  server.verdict(judgeReject, 3)
  t.equal(respond().type, 'failure', 'R=0 means no more')

  const patient = new Mschapv2ServerMethod({ random: new SeededRandom(8), serverName: 'vpn' })
  patient.start('alice', 1)
  const guess = () => patient.response(mschapv2PacketOf({ ...guessed, name: 'alice' }))
  const told: string[] = []
  for (let i = 0; i < 10 && guess().type === 'authenticate'; i++) {
    const step = patient.verdict({ ...judgeReject, canRetry: true }, i + 2)
    const refused = step.type === 'request' ? parseMschapv2Packet(step.typeData) : undefined
    told.push(refused?.type === 'failure-request' ? (/R=./.exec(refused.message)?.[0] ?? '') : '')
  }
  t.same(told, ['R=1', 'R=1', 'R=1', 'R=0'], 'nobody guesses for ever in one conversation')
})

t.test('an expired password may be changed (RFC 2759 §7)', async t => {
  const server = new Mschapv2ServerMethod({ random: new SeededRandom(8), serverName: 'vpn' })
  server.start('alice', 1)
  const response = mschapv2PacketOf({
    type: 'response',
    mschapv2Id: 1,
    peerChallenge: new Uint8Array(16),
    ntResponse: new Uint8Array(24),
    flags: 0,
    name: 'alice',
  })
  const change = mschapv2PacketOf({
    type: 'change-password',
    mschapv2Id: 2,
    encryptedPassword: new Uint8Array(516).fill(1),
    encryptedHash: new Uint8Array(16).fill(2),
    peerChallenge: new Uint8Array(16).fill(3),
    ntResponse: new Uint8Array(24).fill(4),
    flags: 0,
  })
  server.response(response)
  const failure = server.verdict({ type: 'reject', reason: 'password-expired', canRetry: true }, 2)
  const packet = failure.type === 'request' ? parseMschapv2Packet(failure.typeData) : undefined
  t.match(packet?.type === 'failure-request' && packet.message, /E=648/)
  const step = server.response(change)
  t.equal(step.type === 'authenticate' && step.proof.method, 'mschapv2-change-password')
  t.equal(step.type === 'authenticate' && step.userName, 'alice')
})

t.test('over PPP a lost Request is repeated with the same identifier, then given up', async t => {
  const server = new EapAuthenticator({
    call,
    methods: [],
    firstIdentifier: 9,
    retransmit: { afterMs: 3000, tries: 10 },
  })
  server.handle({ type: 'start' }, 0)
  const sent: string[] = []
  let failure: string | undefined
  for (let nowMs = 0; nowMs <= 60_000; nowMs += 1000) {
    server.handle({ type: 'timeout' }, nowMs)
    for (let out = server.poll(); out; out = server.poll()) {
      if (out.type === 'transmit') sent.push(toHex(out.bytes))
      else if (out.event.type === 'failure') failure = out.event.reason
    }
  }
  t.equal(sent.length, 11)
  t.same(new Set(sent), new Set(['0109000501']))
  t.equal(failure, 'bad-credentials')
  t.equal(server.nextDeadlineMs(), Number.POSITIVE_INFINITY)
})

t.test('a method that computes elsewhere goes on when its step is handed in', async t => {
  let hand = (_step: EapServerStep) => {}
  const next = new Promise<EapServerStep>(resolve => {
    hand = resolve
  })
  const steps: EapServerStep[] = [{ type: 'pending', next }]
  const method: EapServerMethod = {
    eapType: 13,
    start: () => ({ type: 'request', typeData: utf8('start') }),
    response: () => steps.shift() ?? { type: 'ignore', unexpected: 'x' },
    verdict: () => ({ type: 'ignore', unexpected: 'x' }),
    destroy: () => {},
  }
  const server = new EapAuthenticator({ call, methods: [() => method], firstIdentifier: 1 })
  server.handle({ type: 'start' }, 0)
  server.handle({ type: 'packet', bytes: fromHex('0201000561') }, 0)
  t.equal(server.state, 'identity', 'a type that is not Identity changes nothing')
  server.handle({ type: 'packet', bytes: fromHex('020100060161') }, 0)
  server.handle({ type: 'packet', bytes: fromHex('020200060d61') }, 0)
  t.equal(server.state, 'judging')
  const step: EapServerStep = { type: 'success', authorization: { userName: 'a' }, msk: undefined }
  server.handle({ type: 'wake', ticket: 1 }, 0)
  t.equal(server.state, 'judging', 'woken too early')
  hand(step)
  await next
  server.handle({ type: 'wake', ticket: 99 }, 0)
  t.equal(server.state, 'judging', 'another ticket')
  server.handle({ type: 'wake', ticket: 1 }, 0)
  t.equal(server.state, 'done')
})

t.test('a repeated Request gets the same Response', async t => {
  const peer = new EapPeer({
    identity: 'alice',
    methods: [() => new Md5PeerMethod('alice', Secret.fromText('x'))],
    requiresMsk: false,
  })
  const request = fromHex('01070016041011223344556677889900aabbccddeeff')
  const answers: string[] = []
  for (let i = 0; i < 2; i++) {
    peer.handle({ type: 'packet', bytes: request })
    const out = peer.poll()
    if (out?.type === 'transmit') answers.push(toHex(out.bytes))
  }
  t.equal(answers.length, 2)
  t.equal(answers[0], answers[1])
  const { poll } = peer
  t.equal(poll.call(peer), undefined)
})

t.test('CHAP-MD5 inside EAP follows RFC 1994 §4.1', async t => {
  // RFC 2865 §7.2: id 0x16, password "arctangent", challenge = Request Authenticator.
  const method = new Md5PeerMethod('flopsy', Secret.fromText('arctangent'))
  const challenge = fromHex('2AEE86F08D0D55969CA5978E0D3367A2')
  const step = method.request(Uint8Array.from([16, ...challenge]), 0x16)
  t.equal(
    step.type === 'response' && toHex(step.typeData.subarray(1, 17)).toUpperCase(),
    'E97557C316185895F293FF6344077275',
  )
})
