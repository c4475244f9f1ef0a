import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import t, { type Test } from 'tap'
import { toHex, utf8 } from '../../lib/core/bytes.ts'
import { systemClock } from '../../lib/core/clock.ts'
import { BindError } from '../../lib/core/errors.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { Secret } from '../../lib/core/secret.ts'
import { TimerWheel } from '../../lib/core/timers.ts'
import { DatagramHub } from '../../lib/dataplane/datagram-hub.ts'
import { Mschapv2PeerMethod, Mschapv2ServerMethod } from '../../lib/eap/mschapv2-method.ts'
import { Ikev2Dialler } from '../../lib/ikev2/dialler.ts'
import type { IkeSaEvent } from '../../lib/ikev2/event.ts'
import { identityOf } from '../../lib/ikev2/identity.ts'
import type {
  IkeConnection,
  IkeConnectionOwner,
  IkeServices,
  IkeSettings,
  TunnelLimits,
} from '../../lib/ikev2/ike-connection.ts'
import type { Grant } from '../../lib/ikev2/input.ts'
import {
  type AcceptedCall,
  defaultHalfOpenLimits,
  type HalfOpenLimits,
  Ikev2Listener,
} from '../../lib/ikev2/listener.ts'
import type { Path } from '../../lib/ikev2/path.ts'
import { ipv4Packet } from '../ipsec/sa-pair.ts'
import { DatagramNetwork, type Flight } from '../support/datagram-network.ts'
import { eventually } from '../support/eventually.ts'
import { createIkeSite, SiteTime } from '../support/ike-site.ts'
import { createKernelDataplane } from '../support/kernel-dataplane.ts'
import { defaultGrant, judge, optionsFor, publicOf } from './pair.ts'

const server = '192.0.2.1'
const client = '198.51.100.10'
const p256 = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
const device = generateKeyPairSync('ec', { namedCurve: 'P-384' }).privateKey
const serverCertificate = utf8('certificate of vpn.example.com')
const deviceCertificate = utf8('certificate of device-7')
const known = new Map([
  [toHex(serverCertificate), publicOf(p256)],
  [toHex(deviceCertificate), publicOf(device)],
])
const limits: TunnelLimits = { mtuBytes: 1400, rekeyBytes: Number.POSITIVE_INFINITY }

const certificateIdentity = (name: string, certificate: Uint8Array, key: KeyObject) =>
  ({
    identity: identityOf(name),
    credential: { type: 'certificate', chain: [certificate], key },
  }) as const

type Proof = 'psk' | 'eap' | 'certificate'

/** Our side of both ends, by what proves them. */
function settingsOf(role: 'initiator' | 'responder', proof: Proof, password = 'correct horse') {
  const options = optionsFor(role)
  // A user's ESP goes in UDP, that of others bare where no NAT is between.
  const features = { ...options.features, forcesEncapsulation: proof === 'eap' }
  const settings = { ...options, features }
  const seeded = new SeededRandom(role === 'initiator' ? 5 : 6)
  if (proof === 'psk') return settings
  if (role === 'responder') {
    const methods = [() => new Mschapv2ServerMethod({ random: seeded, serverName: 'vpn' })]
    return {
      ...settings,
      localIdentities: [certificateIdentity('vpn.example.com', serverCertificate, p256)],
      peer: { ...settings.peer, eap: { methods, acceptsEapOnly: false } },
    } satisfies IkeSettings
  }
  if (proof === 'certificate') {
    return {
      ...settings,
      localIdentities: [certificateIdentity('device-7', deviceCertificate, device)],
    } satisfies IkeSettings
  }
  const user = { random: seeded, userName: 'alice', password: Secret.fromText(password) }
  return {
    ...settings,
    localIdentities: [
      {
        identity: identityOf('10.1.2.3'),
        credential: {
          type: 'eap',
          userName: 'alice',
          methods: [() => new Mschapv2PeerMethod(user)],
        },
      },
    ],
  } satisfies IkeSettings
}

/** Plays the part that knows users, certificates and addresses. */
class Composer implements IkeConnectionOwner {
  readonly events: IkeSaEvent[] = []
  readonly delivered: Uint8Array[] = []
  readonly #memory: { readonly bytes: Uint8Array }
  connection: IkeConnection | undefined
  grant: Grant = defaultGrant

  constructor(memory: { readonly bytes: Uint8Array }) {
    this.#memory = memory
  }

  connect(connection: IkeConnection): void {
    this.connection = connection
    connection.tunnel.connect({
      deliver: (at, lengthBytes) =>
        this.delivered.push(this.#memory.bytes.slice(at, at + lengthBytes)),
    })
  }

  event(event: IkeSaEvent): void {
    this.events.push(event)
    if (event.type === 'authenticate') {
      this.connection?.handle({
        type: 'verdict',
        ticket: event.ticket,
        verdict: judge(event.request),
      })
    } else if (event.type === 'verify-certificate') {
      const publicKey = known.get(toHex(event.certificates[0] ?? new Uint8Array(0)))
      this.connection?.handle({
        type: 'certificate-verdict',
        ticket: event.ticket,
        verdict: publicKey
          ? { type: 'accept', publicKey, authorization: { userName: 'device-7' } }
          : { type: 'reject', detail: 'unknown-authority' },
      })
    } else if (event.type === 'need-grant') {
      this.connection?.handle({
        type: 'grant-verdict',
        ticket: event.ticket,
        verdict: { type: 'grant', grant: this.grant },
      })
    }
  }

  of<Type extends IkeSaEvent['type']>(type: Type): Extract<IkeSaEvent, { type: Type }>[] {
    return this.events.filter(
      (event): event is Extract<IkeSaEvent, { type: Type }> => event.type === type,
    )
  }

  get isUp(): boolean {
    return this.of('established').length > 0 && this.of('closed').length === 0
  }

  get end(): string | undefined {
    const [closed] = this.of('closed')
    return closed && `${closed.cause} ${closed.detail}`
  }

  send(packet: Uint8Array): void {
    const { tunnel } = this.connection ?? {}
    const at = tunnel?.reserve(packet.length) ?? -1
    if (tunnel === undefined || at < 0) throw new Error('no room')
    this.#memory.bytes.set(packet, at)
    tunnel.commit(at, packet.length)
    tunnel.flush()
  }
}

class Call extends Composer implements AcceptedCall {
  readonly settings: IkeSettings
  readonly limits = limits

  constructor(memory: { readonly bytes: Uint8Array }, settings: IkeSettings) {
    super(memory)
    this.settings = settings
  }
}

interface SceneOptions {
  readonly proof?: Proof
  readonly halfOpen?: Partial<HalfOpenLimits>
  readonly refuses?: boolean
}

/** Packet memory is big: all tests share these. */
const hosts = [createKernelDataplane(), createKernelDataplane()]
t.teardown(() => {
  for (const { dataplane } of hosts) dataplane.stop()
})

class Answering {
  readonly calls: Call[] = []
  readonly paths: Path[] = []
  readonly listener: Ikev2Listener

  constructor(services: IkeServices, { proof = 'psk', halfOpen, refuses }: SceneOptions) {
    this.listener = new Ikev2Listener({
      ...services,
      halfOpen: { ...defaultHalfOpenLimits, ...halfOpen },
      calls: {
        accept: path => {
          this.paths.push(path)
          if (refuses === true) return undefined
          const call = new Call(services.memory, settingsOf('responder', proof))
          this.calls.push(call)
          return call
        },
      },
    })
  }

  count(name: string): number {
    return this.listener.status().counters[name] ?? 0
  }
}

function scene(options: SceneOptions = {}) {
  const network = new DatagramNetwork()
  const time = new SiteTime(network)
  const [serverHost, clientHost] = hosts
  if (serverHost === undefined || clientHost === undefined) throw new Error('two hosts')
  const site = (address: string, memory: (typeof serverHost)['memory'], seed: number) =>
    createIkeSite({
      plane: network.host([address], memory),
      memory,
      hosts: [address],
      seed,
      takesPlainEsp: true,
      ...time,
    })
  const serverSite = site(server, serverHost.memory, 11)
  const clientSite = site(client, clientHost.memory, 12)
  const answering = new Answering(serverSite, options)
  const dialler = new Ikev2Dialler(clientSite)
  serverSite.sockets.open()
  clientSite.sockets.open()
  const dial = (proof: Proof = options.proof ?? 'psk', password?: string) => {
    const owner = new Composer(clientSite.memory)
    const settings = settingsOf('initiator', proof, password)
    const peer = { address: server, port: 500 }
    const connection = dialler.dial(client, peer, settings, limits, owner)
    if (connection === undefined) throw new Error('no socket')
    owner.connect(connection)
    connection.handle({ type: 'start' })
    return owner
  }
  const up = async (owner: Composer) => {
    const isUp = () => owner.isUp && (answering.calls.at(-1)?.isUp ?? false)
    if (!(await time.run(5_000, isUp))) {
      throw new Error(`not up: ${owner.end} ${JSON.stringify(answering.listener.status())}`)
    }
    return answering.calls.at(-1) as Call
  }
  return { network, time, serverSite, clientSite, dialler, dial, up, ...answering, answering }
}

/** The first request of a dialler, to be repeated in other names. */
function firstRequest(from: ReturnType<typeof scene>): Flight {
  from.dial()
  const [flight] = from.network.flying.splice(0)
  if (flight === undefined) throw new Error('no request')
  return flight
}

function forged(flight: Flight, number: number, address = client): Flight {
  const bytes = flight.bytes.slice()
  bytes[7] = number & 0xff
  bytes[6] = number >> 8
  return { ...flight, from: { address, port: 500 }, bytes }
}

for (const proof of ['psk', 'eap', 'certificate'] as const) {
  t.test(`Our dialler and our listener come up by ${proof}, and carry packets`, async t => {
    const { time, dial, up, listener, dialler, network, clientSite, serverSite } = scene({ proof })
    const caller = dial()
    const call = await up(caller)
    t.equal(call.of('established')[0]?.authenticatedBy, proof)
    t.match(listener.status(), { established: 1, halfOpen: 0, childSas: 1 })
    t.equal(dialler.size, 1)
    const packet = ipv4Packet(500)
    // From the address that was given.
    new DataView(packet.buffer).setUint32(12, defaultGrant.ipv4Address ?? 0)
    caller.send(packet)
    const answer = ipv4Packet(700)
    new DataView(answer.buffer).setUint32(16, defaultGrant.ipv4Address ?? 0)
    call.send(answer)
    network.settle()
    t.same(call.delivered.map(toHex), [toHex(packet)])
    t.same(caller.delivered.map(toHex), [toHex(answer)])
    caller.connection?.handle({ type: 'close', cause: 'user-request', detail: 'hung-up' })
    await time.run(1_000)
    t.equal(caller.end, 'user-request hung-up')
    t.match(call.end, /^user-request /)
    t.match(listener.status(), { established: 0, halfOpen: 0, childSas: 0 })
    t.equal(dialler.size, 0)
    t.equal(clientSite.database.size + serverSite.database.size, 0)
    t.equal(time.wheel.size, 0, 'no timer is left')
  })
}

t.test('A wrong password ends both sides, and nothing is left of the call', async t => {
  const { time, dial, calls, listener, serverSite } = scene({ proof: 'eap' })
  const caller = dial('eap', 'wrong')
  await time.run(5_000, () => caller.end !== undefined && calls[0]?.end !== undefined)
  t.match(caller.end, /^authentication-failed /)
  t.match(calls[0]?.end, /^authentication-failed /)
  await time.run(61_000, () => false, 1000)
  t.match(listener.status(), { established: 0, halfOpen: 0, childSas: 0 })
  t.equal(serverSite.database.size, 0)
  t.equal(time.wheel.size, 0)
})

t.test('A rekeyed Child SA, then a rekeyed IKE SA carry on without a lost packet', async t => {
  const { time, dial, up, network, listener } = scene()
  const caller = dial()
  const call = await up(caller)
  let sent = 0
  const traffic = () => {
    const packet = ipv4Packet(100 + sent++)
    new DataView(packet.buffer).setUint32(12, defaultGrant.ipv4Address ?? 0)
    caller.send(packet)
  }
  const [before = 0] = caller.connection?.tunnel.children.map(child => child.inbound.spi) ?? []
  caller.connection?.handle({ type: 'rekey-child', inboundSpi: before })
  for (let i = 0; i < 30; i++) {
    traffic()
    const next = network.flying.shift()
    if (next !== undefined) network.deliver(next)
  }
  await time.run(1_000)
  const [after = 0] = caller.connection?.tunnel.children.map(child => child.inbound.spi) ?? []
  t.not(after, before)
  t.equal(caller.connection?.tunnel.children.length, 1)
  call.connection?.handle({ type: 'rekey-ike' })
  await time.run(1_000)
  t.equal(caller.of('ike-rekeyed').length, 1)
  // The messages of the new SA find their connections by the new SPIs.
  caller.connection?.handle({ type: 'check-liveness' })
  await time.run(40_000, () => false, 1000)
  traffic()
  await time.run(0)
  t.equal(call.delivered.length, sent)
  t.same(call.connection?.tunnel.drops, {})
  t.equal(caller.end, undefined)
  t.equal(listener.status().counters['unknown-ike-spi'], undefined)
  caller.connection?.handle({ type: 'close', cause: 'user-request', detail: 'hung-up' })
  await time.run(1_000)
  t.match(listener.status(), { established: 0, childSas: 0 })
  t.equal(time.wheel.size, 0)
})

t.test('A peer whose NAT gives it another port is followed', async t => {
  const { time, dial, up, network } = scene()
  let port = 40_000
  const nat = '203.0.113.5'
  network.onPath = flight => {
    if (flight.from.address === client) {
      return { ...flight, from: { address: nat, port: port + (flight.from.port === 500 ? 0 : 1) } }
    }
    // What goes to a mapping that is no more is lost.
    if (flight.to.address !== nat) return flight
    if (flight.to.port !== port && flight.to.port !== port + 1) return undefined
    return { ...flight, to: { address: client, port: flight.to.port === port ? 500 : 4500 } }
  }
  const caller = dial()
  const call = await up(caller)
  t.equal(call.of('established')[0]?.isPeerBehindNat, true)
  t.equal(call.connection?.path.peer.port, 40_001)
  port = 50_000
  const packet = ipv4Packet(90)
  new DataView(packet.buffer).setUint32(12, defaultGrant.ipv4Address ?? 0)
  caller.send(packet)
  await time.run(10_000, () => call.of('moved').length > 0)
  t.equal(call.connection?.path.peer.port, 50_001)
  const answer = ipv4Packet(91)
  new DataView(answer.buffer).setUint32(16, defaultGrant.ipv4Address ?? 0)
  call.send(answer)
  network.settle()
  t.equal(caller.delivered.length, 1)
  // The initiator keeps the mapping alive (RFC 3948 §4).
  network.sent.length = 0
  await time.run(31_000, () => false, 1000)
  const keepalives = network.sent.filter(({ bytes }) => bytes.length === 1 && bytes[0] === 0xff)
  t.ok(keepalives.length >= 1, `${keepalives.length} keepalives`)
})

t.test('Garbage costs nothing and is counted', async t => {
  const { network, listener, paths, time, clientSite, dialler } = scene()
  const random = new SeededRandom(31)
  for (let i = 0; i < 2000; i++) {
    const bytes = Uint8Array.from({ length: random.next() % 200 }, () => random.next() & 0xff)
    // Half of them look like IKEv2 from far away.
    if (i % 2 === 0 && bytes.length >= 28) {
      bytes[17] = 0x20
      bytes[18] = 34 + (i % 4)
      new DataView(bytes.buffer).setUint32(24, bytes.length)
      if (i % 3 === 0) bytes.fill(0, 8, 16)
    }
    const port = i % 5 === 0 ? 4500 : 500
    network.deliver({ from: { address: client, port: 9 }, to: { address: server, port }, bytes })
    if (i % 10 === 0) {
      network.deliver({
        from: { address: server, port: 500 },
        to: { address: client, port },
        bytes,
      })
    }
  }
  t.match(listener.status(), { established: 0, halfOpen: 0, childSas: 0 })
  t.same(paths, [])
  t.same(network.sent, [], 'nobody is answered')
  t.equal(time.wheel.size, 0)
  t.equal(clientSite.database.size + dialler.size, 0)
  const { counters } = listener.status()
  t.ok((counters['malformed-length'] ?? 0) + (counters['unknown-ike-spi'] ?? 0) > 100)
})

t.test('Requests in forged names are bounded per source and gone in time', async t => {
  const it = scene({ halfOpen: { cookieThreshold: 1000, perSource: 4 } })
  const request = firstRequest(it)
  for (let i = 0; i < 50; i++) it.network.deliver(forged(request, i))
  t.equal(it.listener.status().halfOpen, 4)
  t.equal(it.answering.count('refused-half-open-source'), 46)
  it.network.deliver(forged(request, 51, '203.0.113.1'))
  t.equal(it.listener.status().halfOpen, 5, 'another source has its own share')
  // A repetition is answered again, and is not another one.
  const answers = it.network.flying.length
  it.network.deliver(forged(request, 0))
  t.equal(it.listener.status().halfOpen, 5)
  t.equal(it.network.flying.length, answers + 1)
  it.network.flying.length = 0
  await it.time.run(62_000, () => false, 1000)
  t.match(it.listener.status(), { halfOpen: 0, established: 0 })
  t.same(
    it.calls.map(({ end }) => end),
    Array(5).fill('setup-timeout setup-timeout'),
  )
  it.network.flying.length = 0
  it.network.deliver(forged(request, 60))
  t.equal(it.listener.status().halfOpen, 1, 'the share of the source is free again')
})

t.test('Beyond all half-open calls nobody is let in, whoever it is', async t => {
  const it = scene({ halfOpen: { cookieThreshold: 1000, total: 6 } })
  const request = firstRequest(it)
  for (let i = 0; i < 20; i++) it.network.deliver(forged(request, i, `203.0.113.${i + 1}`))
  t.equal(it.listener.status().halfOpen, 6)
  t.equal(it.answering.count('refused-half-open-total'), 14)
})

t.test('Under load a cookie is asked for, and who shows it comes up', async t => {
  const it = scene({ halfOpen: { cookieThreshold: 3 } })
  const request = firstRequest(it)
  for (let i = 0; i < 40; i++) it.network.deliver(forged(request, i, `203.0.113.${i + 1}`))
  t.equal(it.listener.status().halfOpen, 3)
  t.equal(it.calls.length, 3, 'no call costs a key exchange any more')
  t.equal(it.answering.count('cookies-asked'), 37)
  const answers = it.network.flying.splice(0).slice(3)
  t.ok(
    answers.every(({ bytes }) => bytes.length < request.bytes.length),
    'no answer is longer than its question',
  )
  const caller = it.dial()
  await it.up(caller)
  t.equal(it.answering.count('cookies-asked'), 38)
  // With the cookie of another address nobody gets in.
  const before = it.calls.length
  it.network.onPath = flight => {
    if (flight.from.address !== client) return flight
    return { ...flight, from: { address: '203.0.113.99', port: 500 } }
  }
  const other = it.dial()
  const [bare] = it.network.flying.splice(0)
  if (bare === undefined) throw new Error('no request')
  it.network.deliver({ ...bare, from: { address: '203.0.113.98', port: 500 } })
  const challenge = it.network.flying.pop()
  if (challenge === undefined) throw new Error('no challenge')
  it.network.deliver({ ...challenge, to: { address: client, port: 500 } })
  it.network.settle()
  t.equal(it.calls.length, before)
  t.ok(it.answering.count('cookies-asked') >= 40)
  t.equal(other.isUp, false)
})

t.test('A call that is turned away gets no answer', async t => {
  const { network, dial, answering, listener } = scene({ refuses: true })
  dial()
  network.settle()
  t.equal(answering.count('refused-call'), 1)
  t.match(answering.paths, [{ local: { address: server }, peer: { address: client, port: 500 } }])
  t.equal(listener.status().halfOpen, 0)
  t.equal(network.sent.length, 1)
})

t.test('Algorithms that do not fit are told, and leave nothing half-open', async t => {
  const it = scene()
  const owner = new Composer(it.clientSite.memory)
  const settings = settingsOf('initiator', 'psk')
  const { ikeAlgorithms } = settings
  const connection = it.dialler.dial(
    client,
    { address: server, port: 500 },
    { ...settings, ikeAlgorithms: { ...ikeAlgorithms, encryption: [{ id: 3, keyBits: 192 }] } },
    limits,
    owner,
  )
  if (connection === undefined) throw new Error('no socket')
  owner.connect(connection)
  connection.handle({ type: 'start' })
  await it.time.run(1_000)
  t.ok(owner.end, 'the dialler knows')
  t.match(it.listener.status(), { established: 0, halfOpen: 0 })
  t.equal(it.time.wheel.size, 0)
})

t.test('A dialler without a socket of that address says so', async t => {
  const { dialler } = scene()
  const owner = new Composer({ bytes: new Uint8Array(0) })
  const peer = { address: server, port: 500 }
  const settings = settingsOf('initiator', 'psk')
  t.equal(dialler.dial('192.0.2.200', peer, settings, limits, owner), undefined)
  t.same(owner.events, [])
})

t.test('A server that does not answer ends the call in time', async t => {
  const { dial, network, time, dialler } = scene()
  network.onPath = () => undefined
  const caller = dial()
  await time.run(240_000, () => caller.end !== undefined, 1000)
  t.ok(caller.end)
  t.ok(network.sent.length > 3, 'it was asked again')
  t.equal(dialler.size, 0)
  t.equal(time.wheel.size, 0)
})

t.test('Stopping lets nobody in, ends what is half-open and says goodbye', async t => {
  const it = scene()
  const caller = it.dial()
  const call = await it.up(caller)
  const request = firstRequest(it)
  it.network.deliver(forged(request, 1, '203.0.113.7'))
  t.match(it.listener.status(), { halfOpen: 1, established: 1 })
  let isStopped = false
  const stopped = it.listener.stop().then(() => {
    isStopped = true
  })
  t.equal(it.listener.status().halfOpen, 0)
  t.equal(it.calls.at(-1)?.end, 'nas-reboot stopping')
  it.network.deliver(forged(request, 2, '203.0.113.8'))
  t.equal(it.listener.status().halfOpen, 0)
  // Those that are up are ended by their sessions.
  call.connection?.handle({ type: 'close', cause: 'nas-reboot', detail: 'stopping' })
  await it.time.run(1_000, () => isStopped)
  await stopped
  t.match(caller.end, /./)
  t.match(it.listener.status(), { established: 0, childSas: 0 })
})

t.test('On the sockets of the kernel a user comes up and packets go both ways', async t => {
  const [here, there] = ['127.77.1.1', '127.77.1.2']
  const wheel = new TimerWheel(systemClock.nowMs())
  const realSite = (t: Test, address: string, seed: number) => {
    const { dataplane, memory } = createKernelDataplane()
    const plane = new DatagramHub(dataplane)
    const site = createIkeSite({
      plane,
      memory,
      hosts: [address],
      clock: systemClock,
      wheel,
      seed,
    })
    t.teardown(() => {
      site.sockets.close()
      dataplane.stop()
    })
    return site
  }
  const [serverSite, clientSite] = [realSite(t, here, 21), realSite(t, there, 22)]
  const { listener, calls } = new Answering(serverSite, { proof: 'eap' })
  const dialler = new Ikev2Dialler(clientSite)
  try {
    serverSite.sockets.open()
    clientSite.sockets.open()
  } catch (error) {
    if (!(error instanceof BindError)) throw error
    return t.comment(`UDP 500 is not ours: ${error.message}`)
  }
  wheel.start(systemClock)
  t.teardown(() => wheel.stop())
  const owner = new Composer(clientSite.memory)
  const peer = { address: here, port: 500 }
  const connection = dialler.dial(there, peer, settingsOf('initiator', 'eap'), limits, owner)
  if (connection === undefined) throw new Error('no socket')
  owner.connect(connection)
  connection.handle({ type: 'start' })
  const state = () => JSON.stringify([owner.end, listener.status()])
  await eventually(() => owner.isUp && calls[0]?.isUp === true, state)
  const packet = ipv4Packet(1200)
  new DataView(packet.buffer).setUint32(12, defaultGrant.ipv4Address ?? 0)
  const answer = ipv4Packet(900)
  new DataView(answer.buffer).setUint32(16, defaultGrant.ipv4Address ?? 0)
  for (let i = 0; i < 20; i++) {
    owner.send(packet)
    calls[0]?.send(answer)
  }
  await eventually(() => owner.delivered.length === 20 && calls[0]?.delivered.length === 20, state)
  t.same(toHex(owner.delivered[19] ?? new Uint8Array(0)), toHex(answer))
  t.same(toHex(calls[0]?.delivered[19] ?? new Uint8Array(0)), toHex(packet))
  t.match(listener.status().addresses, [
    { host: here, port: 500 },
    { host: here, port: 4500 },
  ])
  owner.connection?.handle({ type: 'close', cause: 'user-request', detail: 'hung-up' })
  await eventually(() => listener.status().established === 0 && dialler.size === 0, state)
  await listener.stop()
})
