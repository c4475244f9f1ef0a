import { createPrivateKey, X509Certificate } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import { createAuthority, issueServerCertificate } from '../../lib/certificates/authority.ts'
import { concatBytes, fromHex, putU32, toHex } from '../../lib/core/bytes.ts'
import { Counters, FaultCounters } from '../../lib/core/faults.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { Secret } from '../../lib/core/secret.ts'
import { createTrust, type IkeCredential } from '../../lib/ikev1/certificates.ts'
import type { Child, IsakmpEvent, IsakmpInput } from '../../lib/ikev1/event.ts'
import { IsakmpMachine } from '../../lib/ikev1/isakmp-machine.ts'
import type { IsakmpOptions } from '../../lib/ikev1/isakmp-options.ts'
import { IsakmpTable } from '../../lib/ikev1/isakmp-table.ts'
import { type MainModeEvent, type MainModeState, mainModeTable } from '../../lib/ikev1/main-mode.ts'
import type { Path } from '../../lib/ikev1/path.ts'
import { Phase1 } from '../../lib/ikev1/phase1.ts'
import { createPolicy } from '../../lib/ikev1/policy.ts'
import type { PreSharedKey } from '../../lib/ikev1/pre-shared-keys.ts'
import { CbcChain } from '../../lib/ikev1/protection.ts'
import {
  type QuickModeEvent,
  type QuickModeState,
  quickModeTable,
} from '../../lib/ikev1/quick-mode.ts'
import { QuickModeExchange, spiBytes } from '../../lib/ikev1/quick-mode-exchange.ts'
import { encodeHeader, HEADER_BYTES, parseHeader } from '../../lib/ikev1/wire/header.ts'
import { encodePayloads, firstPayloadType, type Payload } from '../../lib/ikev1/wire/payload.ts'
import { LossyLink, type LossyLinkOptions } from '../support/lossy-link.ts'

const now = new Date('2026-06-01T00:00:00Z')
const psk = (text: string): PreSharedKey => ({
  scope: { type: 'anyone' },
  key: Secret.fromText(text),
})
const shared = psk('a long shared secret')

let nextSeed = 1
let nextSpi = 0x1000

class Station {
  readonly counters = new Counters()
  readonly faults = new FaultCounters()
  readonly machine: IsakmpMachine
  readonly events: IsakmpEvent[] = []
  readonly sent: { bytes: Uint8Array; path: Path }[] = []
  nowMs = 0

  constructor(options: Partial<IsakmpOptions> = {}) {
    this.machine = new IsakmpMachine({
      policy: createPolicy(),
      random: new SeededRandom(nextSeed++),
      preSharedKeys: [shared],
      counters: this.counters,
      faults: this.faults,
      allocateSpi: () => nextSpi++,
      ...options,
    })
  }

  input(input: IsakmpInput | { type: 'timeout' }): void {
    this.machine.handle(input, this.nowMs)
    for (let out = this.machine.poll(); out !== undefined; out = this.machine.poll()) {
      if (out.type === 'event') this.events.push(out.event)
      else this.sent.push({ bytes: out.bytes, path: this.machine.path })
    }
  }

  all<T extends IsakmpEvent['type']>(type: T): Extract<IsakmpEvent, { type: T }>[] {
    return this.events.filter(
      (event): event is Extract<IsakmpEvent, { type: T }> => event.type === type,
    )
  }

  last<T extends IsakmpEvent['type']>(type: T): Extract<IsakmpEvent, { type: T }> | undefined {
    return this.all(type).at(-1)
  }

  get newest(): Child | undefined {
    return this.last('child-up')?.child
  }
}

const clientAddress = '10.0.0.2'
const natAddress = '203.0.113.5'
const serverAddress = '198.51.100.1'

interface PairOptions extends Partial<LossyLinkOptions> {
  readonly client?: Partial<IsakmpOptions>
  readonly server?: Partial<IsakmpOptions>
  /** The client stands behind a NAT, which maps its ports upwards by this. */
  readonly natShift?: number
}

/** Our initiator against our responder over a simulated network, with a NAT between if asked for. */
class Pair {
  readonly link: LossyLink
  readonly client: Station
  readonly server: Station
  natShift: number | undefined
  /** Which of the server's addresses is dialled. */
  dialled = serverAddress

  constructor(options: PairOptions = {}) {
    this.link = new LossyLink({ seed: 42, ...options })
    this.client = new Station(options.client)
    this.server = new Station(options.server)
    this.natShift = options.natShift
    for (const [mine, peer] of [
      [this.client, this.server],
      [this.server, this.client],
    ] as const) {
      this.link.add({
        nextDeadlineMs: () => mine.machine.nextDeadlineMs(),
        onDeadline: () => this.input(mine, peer, { type: 'timeout' }),
      })
    }
  }

  input(mine: Station, peer: Station, input: IsakmpInput | { type: 'timeout' }): void {
    mine.nowMs = this.link.clock.nowMs()
    mine.input(input)
    for (const { bytes, path } of mine.sent.splice(0)) {
      this.link.send(bytes, copy => {
        this.input(peer, mine, { type: 'packet', bytes: copy, path: this.arrival(mine, path) })
      })
    }
  }

  /** How a datagram of `mine` looks where it arrives. */
  arrival(mine: Station, path: Path): Path {
    const { isFloated } = path
    const shift = this.natShift ?? 0
    const isBehindNat = this.natShift !== undefined
    if (mine === this.client) {
      const address = isBehindNat ? natAddress : path.local.address
      return { local: path.peer, peer: { address, port: path.local.port + shift }, isFloated }
    }
    const address = isBehindNat ? clientAddress : path.peer.address
    return {
      local: { address, port: path.peer.port - shift },
      peer: path.local,
      isFloated,
    }
  }

  fromClient(input: IsakmpInput): void {
    this.input(this.client, this.server, input)
  }

  fromServer(input: IsakmpInput): void {
    this.input(this.server, this.client, input)
  }

  get openPath(): Path {
    return {
      local: { address: clientAddress, port: 500 },
      peer: { address: this.dialled, port: 500 },
      isFloated: false,
    }
  }

  dial(isPerfectForwardSecret = false): boolean {
    this.fromClient({ type: 'open', path: this.openPath })
    this.fromClient({ type: 'open-child', request: { reference: 1, isPerfectForwardSecret } })
    return this.link.run(60_000, () => this.isUp)
  }

  get isUp(): boolean {
    return this.client.newest !== undefined && this.server.last('child-confirmed') !== undefined
  }

  settle(ms = 1_000): void {
    this.link.run(ms)
  }
}

/** The newest pairs of both sides are two ends of the same SAs. */
function matches(a: Child | undefined, b: Child | undefined): boolean {
  if (a === undefined || b === undefined) return false
  const hex = (child: Child, side: 'inboundKeys' | 'outboundKeys') =>
    toHex(concatBytes(child[side].encryptionKey, child[side].integrityKey))
  return (
    a.inboundSpi === b.outboundSpi &&
    a.outboundSpi === b.inboundSpi &&
    hex(a, 'inboundKeys') === hex(b, 'outboundKeys') &&
    hex(a, 'outboundKeys') === hex(b, 'inboundKeys') &&
    a.suite.encryption.id === b.suite.encryption.id &&
    a.isUdpEncapsulated === b.isUdpEncapsulated
  )
}

const authority = createAuthority({ name: 'Test', now, rsaBits: 2048 })
function credentialFor(name: string): IkeCredential {
  const issued = issueServerCertificate(authority, { names: [name], now })
  const der = (pem: string) => Uint8Array.from(new X509Certificate(pem).raw)
  return {
    privateKey: createPrivateKey(issued.keyPem.exposeText()),
    chain: [der(issued.certificatePem), der(authority.certificatePem)],
  }
}
const serverCredential = credentialFor('vpn.example.com')
const clientCredential = credentialFor('client.example.com')
const clock = { now: () => now }
const trust = createTrust({ authorities: [authority.certificatePem], clock })

t.test('main mode and quick mode with a pre-shared key, NAT or none', async t => {
  for (const natShift of [undefined, 0, 20_000]) {
    const pair = new Pair(natShift === undefined ? {} : { natShift })
    const name = `NAT: ${natShift ?? 'none'}`
    t.ok(pair.dial(), name)
    t.ok(matches(pair.client.newest, pair.server.newest), `${name}: keys`)
    const isNat = natShift !== undefined
    t.match(pair.server.last('phase1-up'), {
      isInitiator: false,
      method: 'pre-shared-key',
      nat: { isPeerBehindNat: isNat, isLocalBehindNat: false },
      path: { isFloated: isNat },
    })
    t.match(pair.client.last('phase1-up'), { nat: { isLocalBehindNat: isNat } })
    t.equal(pair.client.newest?.isUdpEncapsulated, isNat)
    t.match(pair.server.newest?.peerSelector, { protocol: 17, port: 1701 })
    t.match(pair.server.newest?.localSelector, { protocol: 17, port: 1701 })
    t.equal(pair.server.last('child-up')?.canSend, false, 'not before message 3')
    t.equal(pair.client.last('child-up')?.canSend, true)
    t.equal(pair.server.newest?.originalAddresses.length, isNat ? 2 : 0)
    if (isNat) t.equal(pair.server.machine.path.peer.port, 4500 + natShift)
  }
})

t.test('a server that forces encapsulation makes every client float', async t => {
  const pair = new Pair({ server: { forcesEncapsulation: true } })
  t.ok(pair.dial())
  t.equal(pair.client.newest?.isUdpEncapsulated, true)
  t.equal(pair.server.machine.path.isFloated, true)
  t.ok(matches(pair.client.newest, pair.server.newest))
})

t.test('RSA signatures with certificates: chains go in fragments', async t => {
  const server = { credential: serverCredential, trust, preSharedKeys: [] }
  const client = {
    credential: clientCredential,
    trust: createTrust({
      authorities: [authority.certificatePem],
      clock,
      peerName: 'vpn.example.com',
    }),
    preSharedKeys: [],
  }
  for (const natShift of [undefined, 1_000]) {
    const pair = new Pair({ client, server, ...(natShift === undefined ? {} : { natShift }) })
    let fragments = 0
    const counted = pair.arrival.bind(pair)
    pair.arrival = (mine, path) => {
      fragments++
      return counted(mine, path)
    }
    t.ok(pair.dial())
    t.ok(fragments > 9, 'more datagrams than messages')
    t.match(pair.server.last('phase1-up'), { method: 'rsa-signatures' })
    t.match(pair.server.last('phase1-up')?.subject, 'client.example.com')
    t.ok(matches(pair.client.newest, pair.server.newest))
  }
})

t.test('certificates that prove nothing are refused, with the reason', async t => {
  const other = createAuthority({ name: 'Other', now, rsaBits: 2048 })
  const names = (trusted: Partial<Parameters<typeof createTrust>[0]>) =>
    createTrust({ authorities: [authority.certificatePem], clock, ...trusted })
  const server = { credential: serverCredential, trust, preSharedKeys: [] }
  const cases: [string, Partial<IsakmpOptions>, Partial<IsakmpOptions>, RegExp][] = [
    [
      'unknown authority',
      {},
      { trust: names({ authorities: [other.certificatePem] }) },
      /authority/,
    ],
    ['another name', { trust: names({ peerName: 'evil.example.com' }) }, {}, /name/],
    [
      'expired',
      {},
      { trust: names({ clock: { now: () => new Date('2040-01-01T00:00:00Z') } }) },
      /date/,
    ],
    [
      "somebody else's certificate",
      { credential: { ...clientCredential, chain: serverCredential.chain } },
      {},
      /signature/,
    ],
    [
      'not a certificate',
      { credential: { ...clientCredential, chain: [fromHex('3003020101')] } },
      {},
      /unreadable/,
    ],
  ]
  for (const [name, client, changes, detail] of cases) {
    const pair = new Pair({
      client: { credential: clientCredential, trust, preSharedKeys: [], ...client },
      server: { ...server, ...changes },
    })
    t.notOk(pair.dial(), name)
    pair.settle(60_000)
    const closed = [pair.client.last('closed'), pair.server.last('closed')].filter(
      one => one?.cause === 'authentication-failed',
    )
    t.ok(
      closed.some(one => detail.test(one?.detail ?? '')),
      `${name}: ${closed[0]?.detail}`,
    )
  }
})

t.test('a wrong key is named as the likely reason, and nothing comes up', async t => {
  const pair = new Pair({ client: { preSharedKeys: [psk('wrong')] } })
  t.notOk(pair.dial())
  pair.settle(60_000)
  t.match(pair.server.last('closed'), {
    wasUp: false,
    cause: 'authentication-failed',
    detail: /pre-shared keys differ/,
  })
  t.match(pair.client.last('closed'), { wasUp: false, cause: 'setup-timeout' })
  t.match(pair.client.last('child-failed'), { reference: 1 })
})

t.test('of several keys the one that fits is found', async t => {
  const keys = [psk('first'), psk('second'), shared]
  const pair = new Pair({ server: { preSharedKeys: keys }, natShift: 7 })
  t.ok(pair.dial())
  t.ok(matches(pair.client.newest, pair.server.newest))
})

t.test('perfect forward secrecy, asked for or insisted on', async t => {
  const asked = new Pair()
  t.ok(asked.dial(true))
  t.ok(matches(asked.client.newest, asked.server.newest))
  const group = asked.server.newest?.group
  t.ok(group)
  asked.fromServer({ type: 'rekey-child', inboundSpi: asked.server.newest?.inboundSpi ?? 0 })
  asked.settle()
  t.equal(asked.server.all('child-up').length, 2)
  t.equal(asked.server.newest?.group, group, 'a rekey keeps to it')
  const policy = createPolicy({ requiresPfs: true })
  const insisted = new Pair({ server: { policy }, client: { policy } })
  t.ok(insisted.dial())
  const refused = new Pair({ server: { policy } })
  t.notOk(refused.dial())
  t.match(refused.client.last('child-failed'), { detail: 'NO-PROPOSAL-CHOSEN' })
  t.equal(refused.client.machine.state, 'established', 'phase 1 lives')
})

t.test('no common proposal closes both sides with the reason', async t => {
  const client = { policy: createPolicy() }
  const server = { policy: { ...createPolicy(), phase1: [] } }
  const pair = new Pair({ client, server })
  t.notOk(pair.dial())
  t.match(pair.server.last('closed'), { detail: 'no-proposal-chosen' })
  t.equal(pair.client.counters.get('ikev1-unprotected-informational'), 1, 'not believed')
  pair.settle(60_000)
  t.match(pair.client.last('closed'), { cause: 'setup-timeout' })
})

t.test('set-up over loss, duplication and reordering: nearly always, never twice', async t => {
  let isUp = 0
  const runs = 40
  for (let seed = 1; seed <= runs; seed++) {
    const pair = new Pair({
      seed,
      lossPercent: 10,
      duplicatePercent: 10,
      reorderPercent: 20,
      ...(seed % 2 === 0 ? { natShift: seed } : {}),
    })
    if (pair.dial()) isUp++
    pair.settle(60_000)
    t.ok(pair.server.all('child-up').length <= 1, `seed ${seed}: at most one pair`)
    t.ok(pair.server.all('phase1-up').length <= 1)
    if (pair.isUp) t.ok(matches(pair.client.newest, pair.server.newest), `seed ${seed}: keys`)
  }
  t.ok(isUp >= runs * 0.95, `${isUp} of ${runs} up`)
})

t.test('twenty rekeys of phase 2 by each side, with keys that fit every time', async t => {
  for (const [natShift, by] of [
    [undefined, 'client'],
    [3, 'client'],
    [undefined, 'server'],
    [3, 'server'],
  ] as const) {
    const pair = new Pair(natShift === undefined ? {} : { natShift })
    t.ok(pair.dial())
    const seen = new Set<number>()
    for (let i = 0; i < 20; i++) {
      const mine = by === 'client' ? pair.client : pair.server
      const before = mine.newest?.inboundSpi ?? 0
      seen.add(before)
      const input: IsakmpInput = { type: 'rekey-child', inboundSpi: before }
      if (by === 'client') pair.fromClient(input)
      else pair.fromServer(input)
      pair.settle(1_000)
      t.equal(mine.newest?.replaces, before)
      t.ok(matches(pair.client.newest, pair.server.newest), `rekey ${i} by the ${by}`)
      t.equal(pair.client.machine.children.length, 2, 'the older one still receives')
      pair.settle(15_000)
      t.equal(pair.client.machine.children.length, 1)
      t.equal(pair.server.machine.children.length, 1)
    }
    t.equal(seen.size, 20)
  }
})

t.test('lifetimes run out by themselves: rekeys go on for hours, nothing piles up', async t => {
  const policy = createPolicy({ phase2LifetimeSeconds: 600 })
  const pair = new Pair({ client: { policy }, server: { policy }, natShift: 9 })
  t.ok(pair.dial())
  pair.settle(4 * 3_600_000)
  t.ok(pair.server.all('child-up').length > 20)
  t.ok(pair.server.machine.children.length <= 2)
  t.ok(matches(pair.client.newest, pair.server.newest))
  t.equal(pair.server.all('closed').length, 0)
})

t.test('twenty rekeys of phase 1 by either side: children are handed on', async t => {
  const pair = new Pair({ natShift: 11 })
  t.ok(pair.dial())
  const firstSpi = pair.client.newest?.inboundSpi
  let client = pair.client
  let server = pair.server
  for (let i = 0; i < 20; i++) {
    const isByClient = i % 2 === 0
    const next = new Pair({ natShift: 11 })
    const begin = isByClient ? client : server
    const opener = isByClient ? next.client : next.server
    const peer = isByClient ? next.server : next.client
    next.input(opener, peer, { type: 'open', path: begin.machine.path })
    t.ok(
      next.link.run(
        20_000,
        () => peer.last('phase1-up') !== undefined && opener.last('phase1-up') !== undefined,
      ),
      `phase 1 rekey ${i}`,
    )
    for (const [old, fresh] of [
      [client, next.client],
      [server, next.server],
    ] as const) {
      old.input({ type: 'replaced' })
      const closed = old.last('closed')
      t.equal(closed?.children.length, 1)
      t.equal(closed?.cause, 'replaced')
      fresh.input({ type: 'adopt', children: closed?.children ?? [] })
    }
    client = next.client
    server = next.server
    t.equal(client.machine.children[0]?.inboundSpi, firstSpi)
  }
  t.equal(server.machine.children.length, 1)
})

t.test('a pair that was being replaced when phase 1 changed still goes', async t => {
  const pair = new Pair()
  t.ok(pair.dial())
  const old = pair.client.newest?.inboundSpi ?? 0
  pair.fromClient({ type: 'rekey-child', inboundSpi: old })
  pair.settle()
  const next = new Pair()
  next.fromClient({ type: 'open', path: next.openPath })
  next.settle()
  for (const [before, after] of [
    [pair.client, next.client],
    [pair.server, next.server],
  ] as const) {
    before.input({ type: 'replaced' })
    after.input({ type: 'adopt', children: before.last('closed')?.children ?? [] })
    t.equal(after.machine.children.length, 2)
  }
  next.settle(15_000)
  t.match(next.client.last('child-down'), { inboundSpi: old, detail: 'replaced' })
  t.match(next.server.last('child-down'), { outboundSpi: old, by: 'peer' })
  t.equal(next.client.machine.children.length, 1)
})

t.test('phase 1 says when it grows old, and ends with its children handed over', async t => {
  const policy = createPolicy({ phase1LifetimeSeconds: 1_000 })
  const pair = new Pair({ client: { policy }, server: { policy } })
  t.ok(pair.dial())
  pair.settle(900_000)
  t.equal(pair.client.all('rekey-due').length, 1)
  pair.settle(110_000)
  t.match(pair.server.last('closed'), { cause: 'session-timeout' })
  t.equal(pair.server.last('closed')?.children.length, 1)
})

t.test('closing deletes both phases, protected', async t => {
  const pair = new Pair()
  t.ok(pair.dial())
  pair.fromClient({ type: 'close', cause: 'user-request' })
  pair.settle()
  t.match(pair.server.last('child-down'), { by: 'peer' })
  t.match(pair.server.last('closed'), { by: 'peer', cause: 'user-request', children: [] })
  t.match(pair.client.last('closed'), { by: 'us', cause: 'user-request' })
  t.equal(pair.client.machine.nextDeadlineMs(), Number.POSITIVE_INFINITY)
  t.equal(pair.server.machine.nextDeadlineMs(), Number.POSITIVE_INFINITY)
})

t.test('one pair can be closed alone; a delete of a foreign one is passed on', async t => {
  const pair = new Pair()
  t.ok(pair.dial())
  const child = pair.client.newest
  pair.fromClient({ type: 'close-child', inboundSpi: child?.inboundSpi ?? 0 })
  pair.settle()
  t.match(pair.server.last('child-down'), { by: 'peer' })
  t.equal(pair.server.machine.state, 'established')
  if (child === undefined) return
  pair.client.input({ type: 'adopt', children: [child] })
  pair.fromClient({ type: 'close-child', inboundSpi: child.inboundSpi })
  pair.settle()
  t.match(pair.server.last('foreign-delete'), { outboundSpi: child.inboundSpi })
})

t.test('a peer that vanishes is noticed by DPD, one that is silent is kept', async t => {
  const pair = new Pair()
  t.ok(pair.dial())
  pair.settle(600_000)
  t.equal(pair.server.last('closed'), undefined, 'answers keep it')
  const alone = new Pair()
  t.ok(alone.dial())
  for (let i = 0; i < 60; i++) {
    alone.server.nowMs += 1_000
    alone.server.input({ type: 'timeout' })
  }
  const asked = alone.server.sent.length
  t.ok(asked >= 5)
  t.match(alone.server.last('closed'), { cause: 'lost-carrier', detail: /R-U-THERE/, children: [] })
  t.equal(alone.server.all('child-down').length, 1)
  const busy = new Pair()
  t.ok(busy.dial())
  const inboundSpi = busy.server.newest?.inboundSpi ?? 0
  for (let i = 0; i < 60; i++) {
    busy.server.nowMs += 10_000
    busy.server.input({ type: 'traffic', inboundSpi })
    busy.server.input({ type: 'timeout' })
  }
  t.equal(busy.server.last('closed'), undefined, 'traffic is life')
})

t.test('traffic on a new pair confirms it when message 3 is lost', async t => {
  const pair = new Pair()
  pair.fromClient({ type: 'open', path: pair.openPath })
  pair.link.run(5_000, () => pair.server.last('phase1-up') !== undefined)
  pair.settle()
  pair.fromClient({ type: 'open-child', request: { reference: 1 } })
  pair.link.run(5_000, () => pair.server.newest !== undefined)
  const inboundSpi = pair.server.newest?.inboundSpi ?? 0
  t.equal(pair.server.last('child-confirmed'), undefined)
  pair.fromServer({ type: 'traffic', inboundSpi })
  t.match(pair.server.last('child-confirmed'), { inboundSpi })
  pair.settle(60_000)
  t.equal(pair.server.all('child-confirmed').length, 1)
  t.equal(pair.server.last('child-down'), undefined)
})

t.test('a pair that the initiator never confirms is taken down', async t => {
  const pair = new Pair()
  pair.fromClient({ type: 'open', path: pair.openPath })
  pair.link.run(5_000, () => pair.server.last('phase1-up') !== undefined)
  pair.settle()
  pair.fromClient({ type: 'open-child', request: { reference: 1 } })
  pair.link.run(5_000, () => pair.server.newest !== undefined)
  for (let i = 0; i < 120; i++) {
    pair.server.nowMs += 1_000
    pair.server.input({ type: 'timeout' })
  }
  t.ok(pair.server.all('child-down').length === 1)
  t.equal(pair.server.machine.children.length, 0)
})

t.test('a NAT that changes its port is followed, by authentic messages only', async t => {
  const pair = new Pair({ natShift: 100 })
  t.ok(pair.dial())
  pair.settle()
  pair.natShift = 300
  pair.fromClient({ type: 'rekey-child', inboundSpi: pair.client.newest?.inboundSpi ?? 0 })
  pair.settle()
  t.equal(pair.server.machine.path.peer.port, 4_800)
  t.match(pair.server.last('path-changed'), { path: { peer: { port: 4_800 } } })
  t.ok(matches(pair.client.newest, pair.server.newest))
  const { path } = pair.server.machine
  const forged = { ...path, peer: { address: '192.0.2.66', port: 4_500 } }
  for (const exchangeType of [2, 5, 32]) {
    const bytes = new Uint8Array(HEADER_BYTES + 64)
    encodeHeader(
      {
        ...pair.server.machine.cookies,
        nextPayload: 8,
        exchangeType,
        flags: 1,
        messageId: 77,
        length: bytes.length,
      },
      bytes,
      0,
    )
    pair.server.input({ type: 'packet', bytes, path: forged })
  }
  t.same(pair.server.machine.path, path)
  pair.server.input({ type: 'peer-moved', path: forged })
  t.same(pair.server.machine.path, forged, 'the ESP side may say so')
})

/** A datagram in the name of `station`'s peer, unprotected. */
function plain(station: Station, exchangeType: number, payloads: readonly Payload[]): Uint8Array {
  const body = encodePayloads(payloads)
  const bytes = new Uint8Array(HEADER_BYTES + body.length)
  encodeHeader(
    {
      ...station.machine.cookies,
      nextPayload: firstPayloadType(payloads),
      exchangeType,
      flags: 0,
      messageId: 99,
      length: bytes.length,
    },
    bytes,
    0,
  )
  bytes.set(body, HEADER_BYTES)
  return bytes
}

t.test('unprotected deletes, notifies and DPD are counted and change nothing', async t => {
  const pair = new Pair()
  t.ok(pair.dial())
  const { server } = pair
  const { cookies, path } = server.machine
  const cookieSpi = concatBytes(cookies.initiatorCookie, cookies.responderCookie)
  const none = new Uint8Array(0)
  const attacks: Payload[] = [
    { type: 'D', protocolId: 1, spis: [cookieSpi] },
    { type: 'D', protocolId: 3, spis: [spiBytes(server.newest?.outboundSpi ?? 0)] },
    { type: 'N', protocolId: 1, notifyType: 14, spi: none, data: none },
    { type: 'N', protocolId: 1, notifyType: 4, spi: none, data: none },
    { type: 'N', protocolId: 1, notifyType: 36_136, spi: cookieSpi, data: new Uint8Array(4) },
    { type: 'N', protocolId: 1, notifyType: 24_578, spi: cookieSpi, data: none },
  ]
  const before = server.events.length
  for (const attack of attacks) {
    server.input({ type: 'packet', bytes: plain(server, 5, [attack]), path })
  }
  t.equal(server.events.length, before)
  t.equal(server.sent.length, 0, 'no answer')
  t.equal(server.counters.get('ikev1-unprotected-informational'), attacks.length)
  for (const exchangeType of [1, 3, 4, 6, 33]) {
    server.input({ type: 'packet', bytes: plain(server, exchangeType, attacks), path })
  }
  t.equal(server.counters.get('ikev1-aggressive-refused'), 1)
  t.equal(server.counters.get('ikev1-xauth-refused'), 1)
  t.equal(server.counters.get('ikev1-unknown-exchange'), 3)
  t.equal(server.machine.state, 'established')
})

t.test('a replayed protected message is not acted upon twice', async t => {
  const pair = new Pair()
  t.ok(pair.dial())
  pair.settle()
  const recorded: Uint8Array[] = []
  const send = pair.link.send.bind(pair.link)
  pair.link.send = (bytes, receive) => {
    recorded.push(Uint8Array.from(bytes))
    send(bytes, receive)
  }
  pair.fromClient({ type: 'close-child', inboundSpi: pair.client.newest?.inboundSpi ?? 0 })
  pair.settle()
  t.equal(pair.server.all('child-down').length, 1)
  const { path } = pair.server.machine
  for (const bytes of recorded) {
    pair.server.input({ type: 'packet', bytes: Uint8Array.from(bytes), path })
  }
  t.equal(pair.server.all('foreign-delete').length, 0)
  t.equal(pair.server.counters.get('ikev1-replay'), recorded.length)
})

t.test('guesses at keys and bad public values are few: then the attempt is over', async t => {
  const halfOpen = () => {
    const pair = new Pair()
    pair.client.input({ type: 'open', path: pair.openPath })
    const path = pair.arrival(pair.client, pair.openPath)
    const hand = (from: Station, to: Station, way: Path) => {
      const bytes = from.sent.shift()?.bytes ?? new Uint8Array(0)
      to.input({ type: 'packet', bytes, path: way })
    }
    hand(pair.client, pair.server, path)
    return { pair, path, hand }
  }
  const values = halfOpen()
  const none = new Uint8Array(8)
  for (let i = 0; i < 5; i++) {
    const bytes = plain(values.pair.server, 2, [
      { type: 'KE', data: new Uint8Array(64).fill(i + 1) },
      { type: 'NONCE', data: none },
    ])
    bytes.fill(0, 20, 24)
    values.pair.server.input({ type: 'packet', bytes, path: values.path })
  }
  t.equal(values.pair.server.counters.get('ikev1-bad-public-value'), 3)
  t.match(values.pair.server.last('closed'), { cause: 'protocol-error' })
  const { pair, path, hand } = halfOpen()
  hand(pair.server, pair.client, pair.openPath)
  hand(pair.client, pair.server, path)
  t.equal(pair.server.machine.state, 'ke-answered')
  for (let i = 0; i < 20; i++) {
    const bytes = plain(pair.server, 2, [
      { type: 'ID', idType: 1, protocol: 0, port: 0, data: none, body: new Uint8Array(28).fill(i) },
    ])
    bytes[19] = 1
    bytes.fill(0, 20, 24)
    pair.server.input({ type: 'packet', bytes, path })
  }
  t.equal(pair.server.counters.get('ikev1-undecryptable'), 10)
  t.match(pair.server.last('closed'), { cause: 'authentication-failed' })
})

t.test('the commit bit is tolerated', async t => {
  const pair = new Pair()
  const send = pair.link.send.bind(pair.link)
  pair.link.send = (bytes, receive) => {
    if (parseHeader(bytes, 0).exchangeType === 32) bytes[19] = (bytes[19] ?? 0) | 2
    send(bytes, receive)
  }
  t.ok(pair.dial())
  t.ok(matches(pair.client.newest, pair.server.newest))
})

t.test(
  'traffic that is not the service is refused; an ephemeral port of the client is not',
  async t => {
    const dial = (port: number, serverPort: number, protocol = 17) => {
      const pair = new Pair({ natShift: 1 })
      pair.fromClient({ type: 'open', path: pair.openPath })
      const selector = (data: string, one: number) => ({
        idType: 1,
        protocol,
        port: one,
        data: fromHex(data),
      })
      pair.fromClient({
        type: 'open-child',
        request: {
          reference: 1,
          localSelector: selector('c0a80105', port),
          peerSelector: selector('c6336401', serverPort),
        },
      })
      pair.link.run(20_000, () => pair.isUp)
      return pair
    }
    t.ok(dial(51_239, 1701).isUp, 'macOS')
    t.ok(dial(0, 1701).isUp, 'any port')
    t.match(dial(51_239, 1701).server.newest?.peerSelector, { port: 51_239 })
    t.match(dial(1000, 80).client.last('child-failed'), { detail: 'INVALID-ID-INFORMATION' })
    t.notOk(dial(1701, 1701, 6).isUp, 'TCP')
  },
)

t.test('INITIAL-CONTACT is reported, and so is a silent first one', async t => {
  const pair = new Pair({ client: { sendsInitialContact: true } })
  t.ok(pair.dial())
  t.equal(pair.server.all('initial-contact').length, 1)
  const without = new Pair()
  t.ok(without.dial())
  t.equal(without.server.all('initial-contact').length, 0)
})

t.test('a half-open SA ends by its deadline; late and early timeouts are harmless', async t => {
  const pair = new Pair()
  pair.client.input({ type: 'open', path: pair.openPath })
  const first = pair.client.sent[0]?.bytes ?? new Uint8Array(0)
  const path = pair.arrival(pair.client, pair.openPath)
  pair.server.input({ type: 'packet', bytes: Uint8Array.from(first), path })
  t.equal(pair.server.machine.state, 'sa-answered')
  t.ok((pair.server.sent[0]?.bytes.length ?? 9_999) <= first.length, 'no amplification')
  for (let i = 0; i < 20; i++) pair.server.input({ type: 'timeout' })
  t.equal(pair.server.sent.length, 1, 'a responder does not repeat by itself')
  pair.server.input({ type: 'packet', bytes: Uint8Array.from(first), path })
  t.equal(pair.server.sent.length, 2, 'a repetition gets the same answer')
  t.same(pair.server.sent[0]?.bytes, pair.server.sent[1]?.bytes)
  pair.server.nowMs = 31_000
  pair.server.input({ type: 'timeout' })
  t.match(pair.server.last('closed'), { cause: 'setup-timeout', wasUp: false })
  pair.server.input({ type: 'timeout' })
  pair.server.input({ type: 'packet', bytes: first, path })
  t.equal(pair.server.all('closed').length, 1)
})

t.test('every cell of the main mode table does what it says', async t => {
  const states = Object.keys(mainModeTable) as MainModeState[]
  const events = Object.keys(mainModeTable.idle) as MainModeEvent[]
  for (const state of states) {
    for (const event of events) {
      const cell = mainModeTable[state][event]
      const log: string[] = []
      const { side, feed } = phase1In(state, log)
      if (side === undefined || feed === undefined) continue
      t.equal(side.state, state)
      log.length = 0
      feed(event)
      const name = `${state} / ${event}`
      if (cell === null) {
        t.equal(side.state, state, `${name}: nothing changes`)
        continue
      }
      t.equal(side.state, cell.next, name)
      const wanted = cell.actions.map(action => {
        if (action.startsWith('send-notify')) return 'notify'
        if (action === 'send-delete') return 'delete'
        return action === 'up' || action === 'down' ? action : 'send'
      })
      t.same(log, wanted, `${name}: actions`)
    }
  }
})

/** A pair of negotiators, one of them in `state`, and a way to cause each event in it. */
function phase1In(state: MainModeState, log: string[]) {
  const none = new Uint8Array(0)
  interface Box {
    plain: Payload[][]
    sealed: Uint8Array[]
    first: number[]
  }
  const inbox: Record<'i' | 'r', Box> = {
    i: { plain: [], sealed: [], first: [] },
    r: { plain: [], sealed: [], first: [] },
  }
  const initiatorCookie = fromHex('0101010101010101')
  const responderCookie = fromHex('0202020202020202')
  const path = (mine: string, theirs: string): Path => ({
    local: { address: mine, port: 500 },
    peer: { address: theirs, port: 500 },
    isFloated: false,
  })
  const make = (who: 'i' | 'r') => {
    const box = inbox[who === 'i' ? 'r' : 'i']
    return new Phase1(
      {
        policy: createPolicy(),
        random: new SeededRandom(who === 'i' ? 5 : 6),
        preSharedKeys: [shared],
      },
      { initiatorCookie, responderCookie: who === 'i' ? fromHex('00'.repeat(8)) : responderCookie },
      who === 'i' ? path('192.0.2.1', '192.0.2.2') : path('192.0.2.2', '192.0.2.1'),
      {
        send: payloads => {
          log.push('send')
          box.plain.push([...payloads])
        },
        sendSealed: (payloads, chain) => {
          log.push('send')
          box.sealed.push(chain.seal(encodePayloads(payloads)) ?? new Uint8Array(0))
          box.first.push(firstPayloadType(payloads))
        },
        sendNotify: () => log.push('notify'),
        sendDelete: () => log.push('delete'),
        up: () => log.push('up'),
        down: () => log.push('down'),
        unexpected: () => {},
        count: () => {},
      },
    )
  }
  const initiator = make('i')
  const responder = make('r')
  const deliver = (to: 'i' | 'r') => {
    const box = inbox[to]
    const target = to === 'i' ? initiator : responder
    const payloads = box.plain.shift()
    if (payloads !== undefined) {
      target.receive(payloads, responderCookie)
      return
    }
    const sealed = box.sealed.shift()
    if (sealed !== undefined) target.receiveSealed(sealed, box.first.shift() ?? 5, target.path)
  }
  const steps: Record<MainModeState, (() => void)[]> = {
    idle: [],
    'sa-sent': [() => initiator.open()],
    'sa-answered': [() => initiator.open(), () => deliver('r')],
    'ke-sent': [() => initiator.open(), () => deliver('r'), () => deliver('i')],
    'ke-answered': [
      () => initiator.open(),
      () => deliver('r'),
      () => deliver('i'),
      () => deliver('r'),
    ],
    'auth-sent': [
      () => initiator.open(),
      () => deliver('r'),
      () => deliver('i'),
      () => deliver('r'),
      () => deliver('i'),
    ],
    established: [
      () => initiator.open(),
      () => deliver('r'),
      () => deliver('i'),
      () => deliver('r'),
      () => deliver('i'),
      () => deliver('r'),
    ],
    closed: [() => responder.close('user-request', '')],
  }
  for (const step of steps[state]) step()
  const isInitiator = state === 'sa-sent' || state === 'ke-sent' || state === 'auth-sent'
  const side = isInitiator ? initiator : responder
  const me = isInitiator ? 'i' : 'r'
  const feed = (event: MainModeEvent) => {
    switch (event) {
      case 'open':
        if (state === 'idle') side.open()
        return
      case 'sa':
        if (state === 'idle') initiator.open()
        if (state === 'sa-sent') deliver('r')
        log.length = 0
        if (state === 'idle' || state === 'sa-sent') deliver(me)
        else side.receive([{ type: 'SA', proposals: [], body: none }], responderCookie)
        return
      case 'sa-bad':
        side.receive([{ type: 'SA', proposals: [], body: new Uint8Array(0) }], responderCookie)
        return
      case 'ke':
        if (state === 'sa-answered') deliver('i')
        if (state === 'ke-sent') deliver('r')
        log.length = 0
        if (state === 'sa-answered' || state === 'ke-sent') deliver(me)
        else {
          side.receive(
            [
              { type: 'KE', data: new Uint8Array(64) },
              { type: 'NONCE', data: new Uint8Array(16) },
            ],
            responderCookie,
          )
        }
        return
      case 'auth':
        if (state === 'ke-answered') deliver('i')
        if (state === 'auth-sent') deliver('r')
        log.length = 0
        if (state === 'ke-answered' || state === 'auth-sent') deliver(me)
        else side.receiveSealed(new Uint8Array(32), 5, side.path)
        return
      case 'auth-bad': {
        // The right key, and an identity without a proof.
        const id: Payload = { type: 'ID', idType: 1, protocol: 0, port: 0, data: none, body: none }
        const sealed = sealWithout(side, encodePayloads([{ ...id, body: new Uint8Array(8) }]))
        side.receiveSealed(sealed, 5, side.path)
        return
      }
      case 'expire':
        side.expire()
        return
      case 'close':
        side.close('user-request', '')
        return
    }
  }
  return { side, feed }
}

/** Seals under a side's own key and IV without moving its chain. */
function sealWithout(side: Phase1, plaintext: Uint8Array): Uint8Array {
  const { chain, keys } = side
  if (chain === undefined || keys === undefined) return new Uint8Array(32)
  return new CbcChain(keys, chain.iv).seal(plaintext) ?? new Uint8Array(32)
}

t.test('every cell of the quick mode table does what it says', async t => {
  const events = Object.keys(quickModeTable.idle) as QuickModeEvent[]
  for (const state of Object.keys(quickModeTable) as QuickModeState[]) {
    for (const event of events) {
      const pair = new Pair()
      pair.fromClient({ type: 'open', path: pair.openPath })
      pair.link.run(5_000, () => pair.client.last('phase1-up') !== undefined)
      const clientPhase1 = pair.client.machine.phase1
      const serverPhase1 = pair.server.machine.phase1
      if (clientPhase1?.chain === undefined || serverPhase1?.chain === undefined) {
        t.fail('phase 1 did not come up')
        return
      }
      const { chain } = serverPhase1
      const log: string[] = []
      const toServer: (readonly Payload[])[] = []
      const toClient: (readonly Payload[])[] = []
      const make = (phase1: typeof clientPhase1, out: (readonly Payload[])[]) =>
        new QuickModeExchange(
          7,
          chain,
          phase1,
          {
            policy: createPolicy(),
            random: new SeededRandom(3),
            service: { protocol: 17, port: 1701 },
            allocateSpi: () => nextSpi++,
            sendsOriginalAddresses: false,
          },
          {
            send: payloads => {
              log.push('send')
              out.push(payloads)
            },
            sendConfirmation: () => log.push('send-confirmation'),
            sendNotify: () => log.push('send-notify'),
            childUp: () => log.push('child-up'),
            childConfirmed: () => log.push('child-confirmed'),
            childDown: () => log.push('child-down'),
            failed: () => log.push('report'),
            unexpected: () => log.push('unexpected'),
          },
        )
      const intent = {
        localSelector: undefined,
        peerSelector: undefined,
        group: undefined,
        replaces: undefined,
        reference: 1,
      }
      const client = make(clientPhase1, toServer)
      const server = make(serverPhase1, toClient)
      const helper = make(clientPhase1, toServer)
      const isInitiator = state === 'request-sent' || state === 'done'
      const side = isInitiator ? client : server
      helper.open(intent)
      if (isInitiator) client.open(intent)
      const request = toServer[0] ?? []
      const ownRequest = toServer.at(-1) ?? []
      if (state === 'answered' || state === 'failed') server.receiveRequest(request, 0, undefined)
      if (state === 'failed') server.expire()
      if (isInitiator) server.receiveRequest(ownRequest, 0, undefined)
      const answer = toClient[0] ?? request
      if (state === 'done') client.receiveAnswer(answer, 0)
      t.equal(side.state, state)
      log.length = 0
      switch (event) {
        case 'open':
          if (state === 'idle') side.open(intent)
          break
        case 'request':
          side.receiveRequest(request, 0, undefined)
          break
        case 'request-bad':
          side.receiveRequest([], 0, undefined)
          break
        case 'answer':
          side.receiveAnswer(answer, 0)
          break
        case 'answer-bad':
          side.receiveAnswer([], 0)
          break
        case 'confirmation':
          side.confirm()
          break
        case 'refusal':
          side.refused('x')
          break
        case 'expire':
          side.expire()
          break
      }
      const cell = quickModeTable[state][event]
      const name = `${state} / ${event}`
      t.equal(side.state, cell?.next ?? state, name)
      const quiet = event === 'expire' || event === 'open'
      const wanted =
        cell?.actions.map(action =>
          action === 'send-request' || action === 'send-answer' ? 'send' : action,
        ) ?? (quiet ? [] : ['unexpected'])
      t.same(log, wanted, `${name}: actions`)
    }
  }
})

t.test('the table of SAs', async t => {
  const path: Path = {
    local: { address: serverAddress, port: 500 },
    peer: { address: natAddress, port: 500 },
    isFloated: false,
  }
  const first = (seed: number) => {
    const station = new Station({ random: new SeededRandom(seed) })
    station.input({ type: 'open', path })
    return station.sent[0]?.bytes ?? new Uint8Array(0)
  }
  const table = (limits = {}) => {
    const counters = new Counters()
    const faults = new FaultCounters()
    const made = new IsakmpTable<string>(counters, faults, limits)
    const receive = (bytes: Uint8Array, from = path) => {
      const route = made.route(bytes, from)
      if (route.type === 'new') {
        if (route.evicted !== undefined) made.remove(route.evicted)
        const station = new Station()
        station.input({ type: 'packet', bytes: Uint8Array.from(bytes), path: from })
        const { initiatorCookie } = parseHeader(bytes, 0)
        made.addResponder(station.machine, initiatorCookie, from, 'owner')
      }
      return route
    }
    return { made, counters, faults, receive }
  }
  t.test('a first message makes an SA, its repetition finds it', async t => {
    const { made, receive } = table()
    const bytes = first(1)
    t.equal(receive(bytes).type, 'new')
    t.equal(receive(bytes).type, 'sa')
    t.equal(made.size, 1)
    const elsewhere = { ...path, peer: { address: '192.0.2.99', port: 500 } }
    t.equal(receive(bytes, elsewhere).type, 'drop', 'a cookie seen by somebody else')
    const [entry] = made.entries()
    if (entry === undefined) return
    const reply = Uint8Array.from(bytes)
    reply.set(entry.machine.ownCookie, 8)
    t.equal(receive(reply).type, 'sa')
    made.remove(entry)
    t.equal(made.size, 0)
    t.equal(receive(reply).type, 'drop')
  })
  t.test('limits: the oldest half-open one makes room, an address has a share', async t => {
    const { made, receive, counters } = table({ mostHalfOpen: 3, mostHalfOpenPerAddress: 2 })
    const from = (i: number) => ({ ...path, peer: { address: `192.0.2.${i}`, port: 500 } })
    t.equal(receive(first(1), from(1)).type, 'new')
    t.equal(receive(first(2), from(1)).type, 'new')
    t.equal(receive(first(3), from(1)).type, 'drop')
    t.equal(receive(first(4), from(2)).type, 'new')
    const route = receive(first(5), from(3))
    t.equal(route.type === 'new' && route.evicted?.peerAddress, '192.0.2.1')
    t.equal(made.halfOpenCount, 3)
    for (let i = 0; i < 500; i++) receive(first(100 + i), from(i % 250))
    t.equal(made.halfOpenCount, 3)
    t.equal(made.size, 3)
    t.ok(counters.get('ikev1-half-open-evicted') > 0)
    t.equal(counters.get('ikev1-too-many-half-open-of-address') > 0, true)
    const [entry] = made.entries()
    if (entry !== undefined) made.established(entry)
    t.equal(made.halfOpenCount, 2)
  })
  t.test('aggressive mode is refused with less than was sent; the rest is silence', async t => {
    const { receive, counters, made } = table()
    const aggressive = Uint8Array.from(first(7))
    aggressive[18] = 4
    const route = receive(aggressive)
    t.equal(route.type, 'refuse')
    if (route.type === 'refuse') {
      t.match(route.reason, 'aggressive')
      t.ok(route.reply.length < aggressive.length)
      t.same(
        parseHeader(route.reply, 0).initiatorCookie,
        parseHeader(aggressive, 0).initiatorCookie,
      )
    }
    t.equal(counters.get('ikev1-aggressive-refused'), 1)
    for (const exchangeType of [1, 3, 5, 6, 32, 33, 200]) {
      const bytes = Uint8Array.from(first(8))
      bytes[18] = exchangeType
      t.equal(receive(bytes).type, 'drop')
    }
    const withId = Uint8Array.from(first(9))
    putU32(withId, 20, 5)
    t.equal(receive(withId).type, 'drop')
    const noCookie = Uint8Array.from(first(9)).fill(0, 0, 8)
    t.equal(receive(noCookie).type, 'drop')
    t.equal(receive(fromHex('00')).type, 'drop')
    t.equal(receive(first(10).fill(0xff, 28)).type, 'drop')
    t.equal(made.size, 0)
  })
  t.test('an SA that a client makes anew finds its predecessor', async t => {
    const { made } = table()
    const one = new Pair({ natShift: 5 })
    const two = new Pair({ natShift: 5 })
    const other = new Pair({ natShift: 6 })
    const elsewhere = new Pair({ natShift: 5 })
    elsewhere.dialled = '203.0.113.77'
    const entries = [one, two, other, elsewhere].map(pair => {
      t.ok(pair.dial())
      const { machine } = pair.server
      return made.addResponder(machine, machine.cookies.initiatorCookie, path, '')
    })
    const [first1, second, third, fourth] = entries
    if (!first1 || !second || !third || !fourth) return
    t.equal(made.predecessorOf(second), first1)
    t.equal(made.predecessorOf(third), undefined, 'another port of the same NAT')
    t.equal(made.predecessorOf(fourth), undefined, 'another address of ours')
  })
})

t.test('mangled datagrams in every state never throw and never authenticate', async t => {
  const original: Uint8Array[] = []
  const recorder = new Pair({ natShift: 2 })
  const send = recorder.link.send.bind(recorder.link)
  recorder.link.send = (bytes, receive) => {
    original.push(Uint8Array.from(bytes))
    send(bytes, receive)
  }
  t.ok(recorder.dial())
  fc.assert(
    fc.property(
      fc.nat(8),
      fc.array(fc.tuple(fc.nat(20), fc.nat(400), fc.nat(255)), { maxLength: 12 }),
      fc.uint8Array({ maxLength: 120 }),
      (steps, changes, noise) => {
        const pair = new Pair({ natShift: 2, seed: steps })
        pair.fromClient({ type: 'open', path: pair.openPath })
        pair.fromClient({ type: 'open-child', request: { reference: 1 } })
        pair.link.run(steps * 21)
        const { server } = pair
        const wasUp = server.all('phase1-up').length
        const hadChildren = server.all('child-up').length
        const { cookies } = server.machine
        for (const [index, at, value] of changes) {
          const bytes = Uint8Array.from(original[index % original.length] ?? noise)
          bytes.set(cookies.initiatorCookie, 0)
          if (index % 3 !== 0) bytes.set(cookies.responderCookie, 8)
          bytes[28 + (at % Math.max(bytes.length - 28, 1))] = value
          server.input({ type: 'packet', bytes, path: server.machine.path })
        }
        server.input({ type: 'packet', bytes: noise, path: server.machine.path })
        return (
          server.all('phase1-up').length === wasUp && server.all('child-up').length === hadChildren
        )
      },
    ),
    { seed: 2409, numRuns: 150 },
  )
})
