import { execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { type Socket, connect as tcpConnect } from 'node:net'
import {
  type ConnectionOptions,
  createServer as createTlsServer,
  type TLSSocket,
  connect as tlsConnect,
} from 'node:tls'
import t, { type Test } from 'tap'
import { fromHex, toHex } from '../../lib/core/bytes.ts'
import { ManualClock, systemClock } from '../../lib/core/clock.ts'
import { ConnectError } from '../../lib/core/errors.ts'
import { silentLogger } from '../../lib/core/log.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { TimerWheel } from '../../lib/core/timers.ts'
import { callConnectedBytes } from '../../lib/sstp/crypto-binding.ts'
import { HandshakeRate } from '../../lib/sstp/handshake-rate.ts'
import {
  type CertificatePair,
  SstpDialler,
  type SstpLimits,
  SstpListener,
  type SstpListenerOptions,
  type SstpTarget,
} from '../../lib/sstp/index.ts'
import { requestText } from '../../lib/sstp/wire/http-head.ts'
import { messageBytes } from '../../lib/sstp/wire/message.ts'
import {
  ecdsaCertificate,
  rsaCertificate,
  type TestCertificate,
} from '../support/sstp-certificates.ts'
import { landingBytes, StreamDataplane } from '../support/sstp-dataplane.ts'
import { FakeLinks } from '../support/sstp-link.ts'

const rsa = rsaCertificate()
const ecdsa = ecdsaCertificate()
const zeros = new Uint8Array(32)
const lcp = fromHex('ff03c021 01010004')
const ipv4Packet = fromHex('45000014 00000000 40110000 0a000001 0a000002')

/** A listener on a free port of loopback, and a dialler, each with a dataplane and links of its own. */
async function setUp(
  t: Test,
  options: Partial<SstpListenerOptions> & { limits?: Partial<SstpLimits>; slots?: number } = {},
) {
  const clock = systemClock
  const wheel = new TimerWheel(clock.nowMs(), { tickMs: 5 })
  wheel.start(clock)
  const random = new SeededRandom(7)
  const dataplane = new StreamDataplane({
    slots: options.slots ?? 64,
    allocatableBytes: landingBytes,
  })
  const links = new FakeLinks(dataplane.memory)
  const listener = new SstpListener({
    addresses: [{ host: '127.0.0.1', port: 0 }],
    certificates: [rsa, ecdsa],
    hashes: ['sha256', 'sha1'],
    links,
    dataplane,
    clock,
    wheel,
    random,
    log: silentLogger,
    ...options,
  })
  await listener.start()
  const port = listener.status().addresses[0]?.port ?? 0
  const clientDataplane = new StreamDataplane({ allocatableBytes: landingBytes })
  const clientLinks = new FakeLinks(clientDataplane.memory)
  const dialler = new SstpDialler({
    dataplane: clientDataplane,
    clock,
    wheel,
    random: new SeededRandom(8),
    log: silentLogger,
  })
  const dial = (target: Partial<SstpTarget> = {}) =>
    dialler.dial({
      host: '127.0.0.1',
      port,
      proof: { type: 'pinned', sha256: ecdsa.sha256 },
      links: clientLinks,
      ...target,
    })
  const count = (name: string) => listener.status().counters[name] ?? 0
  /** A call whose binding is verified. */
  const callUp = async (target: Partial<SstpTarget> = {}) => {
    const index = links.links.length
    const call = await dial(target)
    const client = clientLinks.links.at(-1)
    const server = await links.at(index)
    if (client === undefined) throw new Error('no client link')
    server.carrier.authenticated(zeros)
    client.carrier.authenticated(zeros)
    await server.until(link => link.isPermitted || link.lost !== undefined)
    return { call, client, server }
  }
  t.teardown(async () => {
    await listener.stop()
    wheel.stop()
    const { freeCount, totalCount } = dataplane.streamSlots
    if (freeCount !== totalCount) throw new Error(`${totalCount - freeCount} slots are lost`)
  })
  return { listener, port, links, clientLinks, dial, callUp, count, dataplane, wheel }
}

function secure(port: number, options: ConnectionOptions = {}): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const socket = tlsConnect({ port, host: '127.0.0.1', rejectUnauthorized: false, ...options })
    socket.once('secureConnect', () => resolve(socket))
    socket.once('error', reject)
  })
}

/** Everything that comes until the other side closes. */
function drain(socket: Socket): Promise<string> {
  return new Promise(resolve => {
    let text = ''
    socket.on('data', chunk => {
      text += chunk.toString('latin1')
    })
    socket.on('error', () => {})
    socket.on('close', () => resolve(text))
  })
}

/** A hand-made client that has sent its request and `frames`, and collects what comes. */
async function rawCall(port: number, ...frames: Uint8Array[]) {
  const socket = await secure(port)
  const received: Buffer[] = []
  let wake = () => {}
  let isClosed = false
  socket.on('data', chunk => {
    received.push(chunk)
    wake()
  })
  socket.on('error', () => {})
  socket.on('close', () => {
    isClosed = true
    wake()
  })
  socket.write(requestText({ host: 'localhost', correlationId: '0'.repeat(36) }))
  for (const frame of frames) socket.write(frame)
  const bytes = () => {
    const all = Buffer.concat(received)
    const headEnd = all.indexOf('\r\n\r\n')
    return headEnd < 0 ? Buffer.alloc(0) : all.subarray(headEnd + 4)
  }
  const until = async (holds: () => boolean) => {
    while (!holds()) {
      await new Promise<void>(resolve => {
        wake = resolve
      })
    }
  }
  return {
    socket,
    bytes,
    atLeast: (length: number) => until(() => bytes().length >= length || isClosed),
    closed: () => until(() => isClosed),
  }
}

const connectRequest = messageBytes('call-connect-request', {
  type: 'encapsulated-protocol-id',
  protocol: 1,
})

const until = async (holds: () => boolean) => {
  for (let i = 0; i < 1000 && !holds(); i++) await new Promise(resolve => setTimeout(resolve, 5))
  if (!holds()) throw new Error('it did not happen within five seconds')
}

t.test('a call comes up, carries packets both ways and ends in an orderly way', async t => {
  for (const maxTlsVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
    for (const hashes of [['sha1'], ['sha256']] as const) {
      const certificate = hashes[0] === 'sha1' ? rsa : ecdsa
      const { callUp, count, listener } = await setUp(t, { certificates: [certificate] })
      const { call, client, server } = await callUp({
        habits: { maxTlsVersion, hashes },
        proof: { type: 'pinned', sha256: certificate.sha256 },
      })
      t.equal(server.isPermitted, true)
      t.equal(server.carrier.peerAddress, '127.0.0.1')
      t.equal(listener.status().established, 1)
      server.carrier.sendFrame(lcp)
      await client.until(link => link.frames.length === 1)
      t.same(client.received, [toHex(lcp)])
      for (const [from, to] of [
        [client, server],
        [server, client],
      ] as const) {
        const before = to.frames.length
        const packets = Array.from({ length: 500 }, () => ipv4Packet)
        t.ok(packets.every(packet => from.send(packet)))
        from.carrier.sink.flush()
        await to.until(link => link.frames.length >= before + 500)
        t.equal(to.received.at(-1), `ff030021${toHex(ipv4Packet)}`)
      }
      call.hangUp('user-request')
      await server.until(link => link.lost !== undefined)
      t.equal(server.lost, 'user-request')
      t.equal(await call.closed, 'user-request')
      t.equal(count('established'), 1)
      t.equal(count(`binding-${hashes[0]}`), 1)
      t.equal(count('droppedNoRoom'), 0)
    }
  }
})

t.test('the server hangs up when PPP is over, and when it stops', async t => {
  const { callUp, listener } = await setUp(t)
  const first = await callUp()
  first.server.carrier.close('idle-timeout')
  await first.client.until(link => link.lost !== undefined)
  t.equal(first.server.lost, undefined, 'PPP asked for it and is not told')
  const second = await callUp()
  await listener.stop()
  t.equal(second.server.lost, 'nas-reboot')
  t.equal(second.client.lost, 'user-request')
  t.equal(listener.status().connections, 0)
})

t.test('a link factory that refuses ends the call before PPP', async t => {
  const { dial, links, clientLinks, count } = await setUp(t)
  links.isRefusing = true
  const call = await dial()
  const client = clientLinks.links[0]
  await client?.until(link => link.lost !== undefined)
  await call.closed
  t.equal(count('link-refused'), 1)
})

t.test('the dialler wants the right certificate', async t => {
  const { dial, listener } = await setUp(t, { certificates: [rsa] })
  await t.rejects(dial(), ConnectError, 'another pin')
  await t.rejects(dial({ proof: { type: 'chain' } }), ConnectError, 'no chain')
  const wrongName = { type: 'chain', ca: rsa.cert, serverName: 'vpn.example' } as const
  await t.rejects(dial({ proof: wrongName }), ConnectError, 'another name')
  const wrongAddress = { type: 'chain', ca: rsa.cert, serverName: '127.0.0.2' } as const
  await t.rejects(dial({ proof: wrongAddress }), ConnectError, 'another address')
  await t.rejects(dial({ port: 70_000 }), ConnectError, 'no port')
  const call = await dial({ proof: { type: 'chain', ca: rsa.cert } })
  t.same(toHex(call.certificate), toHex(rsa.leaf))
  const named = await dial({ proof: { type: 'chain', ca: rsa.cert, serverName: 'localhost' } })
  t.match(named.correlationId, /^[0-9a-f-]{36}$/)
  listener.reloadCertificates([ecdsa])
  await t.rejects(dial({ proof: { type: 'chain', ca: rsa.cert } }), ConnectError)
})

t.test('a client that asks is shown what OCSP says, until a reload takes it away', async t => {
  const says = Uint8Array.of(0x30, 3, 0x0a, 1, 6)
  const stapled = { ...ecdsa, staple: () => says }
  const { port, listener } = await setUp(t, { certificates: [stapled] })
  const shown = async (options: ConnectionOptions) => {
    const socket = tlsConnect({
      ...{ port, host: '127.0.0.1', rejectUnauthorized: false, requestOCSP: true },
      ...options,
    })
    const [response] = await once(socket, 'OCSPResponse')
    socket.destroy()
    return toHex(Uint8Array.from(response ?? []))
  }
  t.equal(await shown({ maxVersion: 'TLSv1.2' }), toHex(says))
  t.equal(await shown({ minVersion: 'TLSv1.3' }), toHex(says))
  listener.reloadCertificates([rsa, stapled])
  t.equal(await shown({}), '', 'which of the two a client is shown is not known')
  listener.reloadCertificates([{ ...ecdsa, staple: () => undefined }])
  t.equal(await shown({}), '')
})

t.test(
  'both kinds of key serve TLS 1.2 and 1.3, nothing older, and no session is resumed',
  async t => {
    const { port } = await setUp(t)
    const wanted: [ConnectionOptions, TestCertificate][] = [
      [{ maxVersion: 'TLSv1.2', ciphers: 'ECDHE-RSA-AES256-GCM-SHA384' }, rsa],
      [{ maxVersion: 'TLSv1.2', ciphers: 'ECDHE-ECDSA-AES256-GCM-SHA384' }, ecdsa],
      [{ minVersion: 'TLSv1.3', sigalgs: 'rsa_pss_rsae_sha256' }, rsa],
      [{ minVersion: 'TLSv1.3', sigalgs: 'ecdsa_secp256r1_sha256' }, ecdsa],
    ]
    for (const [options, certificate] of wanted) {
      let session: Buffer | undefined
      const remember = (socket: TLSSocket) =>
        socket.on('session', ticket => {
          session = ticket
        })
      for (let round = 0; round < 2; round++) {
        const socket = await secure(port, session === undefined ? options : { ...options, session })
        remember(socket)
        t.equal(toHex(socket.getPeerX509Certificate()?.raw ?? zeros), toHex(certificate.leaf))
        t.equal(socket.isSessionReused(), false)
        socket.write('GET / HTTP/1.1\r\n\r\n')
        await drain(socket)
        session ??= socket.getSession()
      }
    }
    await t.rejects(
      secure(port, { minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1', ciphers: 'ALL:@SECLEVEL=0' }),
    )
    await t.rejects(secure(port, { maxVersion: 'TLSv1.2', ciphers: 'AES128-SHA' }))
    await t.rejects(secure(port, { maxVersion: 'TLSv1.2', ciphers: 'ECDHE-RSA-AES128-SHA256' }))
  },
)

t.test('everybody else gets a 404, and garbage gets nothing', async t => {
  const { port, count } = await setUp(t)
  const uri = '/sra_{BA195980-CD49-458b-9E23-C84EE0ADCD75}/'
  const strangers = [
    'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n',
    'SSTP_DUPLEX_POST /elsewhere/ HTTP/1.1\r\n\r\n',
    `POST ${uri} HTTP/1.1\r\n\r\n`,
    `SSTP_DUPLEX_POST ${uri} HTTP/2.0\r\n\r\n`,
    `SSTP_DUPLEX_POST ${uri} HTTP/1.1\r\nContent-Length: 10\r\n\r\n`,
    'POST /x HTTP/1.1\r\nContent-Length: 100000\r\n\r\n'.padEnd(60_000, 'x'),
  ]
  for (const request of strangers) {
    const socket = await secure(port)
    socket.write(request)
    const expected = 'HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
    t.equal(await drain(socket), expected, request.slice(0, 40))
  }
  t.equal(count('not-sstp'), strangers.length)
  for (const garbage of ['\0\x01\x02', 'hello\r\n\r\n', 'x'.repeat(9000)]) {
    const socket = await secure(port)
    socket.write(garbage)
    t.equal(await drain(socket), '')
  }
  t.equal(count('not-http'), 2)
  t.equal(count('http-oversize'), 1)
  const plain = tcpConnect(port, '127.0.0.1')
  plain.write('GET / HTTP/1.1\r\n\r\n')
  t.notMatch(await drain(plain), /HTTP/)
  await until(() => count('tls-failed') > 0)
})

t.test('those who are slow with TLS or HTTP are closed, others are served meanwhile', async t => {
  const { port, callUp, count, listener } = await setUp(t, {
    limits: { handshakeMs: 700, httpHeadMs: 700 },
  })
  const slow: Promise<string>[] = []
  for (let i = 0; i < 20; i++) {
    const socket = tcpConnect(port, '127.0.0.1')
    // The first bytes of a ClientHello record.
    socket.write(Uint8Array.of(0x16, 0x03, 0x01))
    slow.push(drain(socket))
    const http = await secure(port)
    http.write('SSTP_DUPLEX_POST /sra')
    slow.push(drain(http))
  }
  const { server } = await callUp()
  t.ok(server.isPermitted)
  await Promise.all(slow)
  t.equal(count('tls-timeout'), 20)
  t.equal(count('http-timeout'), 20)
  await until(() => listener.status().connections === 1)
})

t.test(
  'a thousand half-open connections stay within their bound, and a good client gets in',
  async t => {
    const { port, callUp, count, listener } = await setUp(t, {
      limits: { unfinished: 100, unfinishedGraceMs: 50, handshakesPerSecond: 5000 },
    })
    const sockets: Socket[] = []
    for (let i = 0; i < 1000; i++) {
      const socket = tcpConnect(port, '127.0.0.1')
      socket.on('error', () => {})
      sockets.push(socket)
    }
    await until(() => count('accepted') === 1000)
    t.ok(listener.status().connections <= 110, `${listener.status().connections} connections`)
    t.ok(count('refused-unfinished') + count('evicted-unfinished') >= 890)
    await new Promise(resolve => setTimeout(resolve, 60))
    const { server } = await callUp()
    t.ok(server.isPermitted)
    t.ok(count('evicted-unfinished') > 0)
    for (const socket of sockets) socket.destroy()
  },
)

t.test('connections are limited in all and per address', async t => {
  const all = await setUp(t, { limits: { connections: 2 } })
  await all.callUp()
  await all.callUp()
  await t.rejects(all.dial(), ConnectError)
  t.equal(all.count('refused-connections'), 1)
  const each = await setUp(t, { limits: { connectionsPerAddress: 1 } })
  const { call } = await each.callUp()
  await t.rejects(each.dial(), ConnectError)
  t.equal(each.count('refused-address'), 1)
  await each.callUp({ localAddress: '127.0.0.2' })
  call.hangUp('user-request')
  await call.closed
  await until(() => each.listener.status().connections === 1)
  await each.callUp()
})

t.test('an address may start so many handshakes a second', async t => {
  const clock = new ManualClock(5)
  const rate = new HandshakeRate(clock, 2)
  const take = () => rate.take('192.0.2.1')
  t.same([take(), take(), take(), rate.take('192.0.2.2')], [true, true, false, true])
  clock.advance(999)
  t.equal(take(), false)
  clock.advance(1)
  t.equal(take(), true)
  const { dial, count } = await setUp(t, { limits: { handshakesPerSecond: 0 } })
  await t.rejects(dial(), ConnectError)
  t.equal(count('refused-rate'), 1)
})

t.test('every wrong binding is refused', async t => {
  const { port, links, count } = await setUp(t, { hashes: ['sha256'] })
  const forgeries: [string, (nonce: Uint8Array) => Uint8Array][] = [
    ['binding-nonce', () => callConnectedBytes('sha256', zeros, ecdsa.leaf, zeros)],
    ['binding-certificate', nonce => callConnectedBytes('sha256', nonce, rsa.leaf, zeros)],
    ['binding-hash-not-offered', nonce => callConnectedBytes('sha1', nonce, ecdsa.leaf, zeros)],
    [
      'binding-mac',
      nonce =>
        callConnectedBytes(
          'sha256',
          nonce,
          ecdsa.leaf,
          zeros.map(() => 1),
        ),
    ],
  ]
  for (const [reason, forge] of forgeries) {
    const index = links.links.length
    const client = await rawCall(port, connectRequest)
    const server = await links.at(index)
    server.carrier.authenticated(zeros)
    await client.atLeast(48)
    client.socket.write(forge(Uint8Array.from(client.bytes().subarray(16, 48))))
    await server.until(link => link.lost !== undefined)
    await client.atLeast(48 + 20)
    t.equal(client.bytes()[48 + 5], 5, 'Call-Abort')
    t.equal(count(reason), 1, reason)
    t.equal(server.isPermitted, false)
    t.equal(server.send(ipv4Packet), false)
    client.socket.destroy()
  }
})

t.test('a certificate is swapped under a live call and under one that is being set up', async t => {
  const next = ecdsaCertificate()
  const { callUp, dial, listener, links, clientLinks } = await setUp(t, { certificates: [ecdsa] })
  const old = await callUp()
  const halfway = await dial()
  listener.reloadCertificates([next])
  const fresh = await callUp({ proof: { type: 'pinned', sha256: next.sha256 } })
  t.ok(fresh.server.isPermitted)
  const [, server] = links.links
  server?.carrier.authenticated(zeros)
  clientLinks.links[1]?.carrier.authenticated(zeros)
  await server?.until(link => link.isPermitted || link.lost !== undefined)
  t.equal(server?.isPermitted, true, 'bound to the certificate of its own handshake')
  t.same(toHex(halfway.certificate), toHex(ecdsa.leaf))
  t.ok(old.client.send(ipv4Packet))
  old.client.carrier.sink.flush()
  await old.server.until(link => link.frames.length === 1)
  const broken: CertificatePair = { cert: next.cert, key: rsa.key }
  t.throws(() => listener.reloadCertificates([broken]), { code: 'ERR_CERTIFICATE' })
  t.throws(() => listener.reloadCertificates([]), { code: 'ERR_CERTIFICATE' })
  t.throws(() => listener.reloadCertificates([next, ecdsa]), { code: 'ERR_CERTIFICATE' })
  const garbage = { cert: 'no PEM', key: next.key }
  t.throws(() => listener.reloadCertificates([garbage]), { code: 'ERR_CERTIFICATE' })
  await callUp({ proof: { type: 'pinned', sha256: next.sha256 } })
})

t.test('the PROXY protocol is believed from its networks only, and mandatory there', async t => {
  const proxyNetworks = [{ family: 4, address: 0x7f000000, prefixLength: 8 }] as const
  const proxied = await setUp(t, { proxyNetworks })
  const version1 = Buffer.from('PROXY TCP4 192.0.2.7 192.0.2.1 50000 443\r\n')
  const version2 = Buffer.from(
    fromHex('0d0a0d0a000d0a515549540a 21 11 0010 c0000208 c0000201 c351 01bb 04 0001 00'),
  )
  const local = Buffer.from(fromHex('0d0a0d0a000d0a515549540a 20 00 0000'))
  const cases = [
    [version1, '192.0.2.7:50000'],
    [version2, '192.0.2.8:50001'],
    [local, undefined],
  ] as const
  for (const [header, label] of cases) {
    for (const isWhole of [true, false]) {
      const index = proxied.links.links.length
      const socket = tcpConnect(proxied.port, '127.0.0.1')
      if (isWhole) socket.write(header)
      else {
        socket.setNoDelay(true)
        for (const byte of header) socket.write(Uint8Array.of(byte))
      }
      const tls = tlsConnect({ socket, rejectUnauthorized: false })
      tls.on('error', () => {})
      tls.write(requestText({ host: 'localhost', correlationId: '0'.repeat(36) }))
      tls.write(connectRequest)
      const link = await proxied.links.at(index)
      if (label === undefined) t.equal(link.carrier.peerAddress, '127.0.0.1')
      else t.equal(link.carrier.peerLabel, label)
      tls.destroy()
    }
  }
  await t.rejects(proxied.dial(), ConnectError, 'no header')
  t.equal(proxied.count('bad-proxy-header'), 1)
  const direct = await setUp(t)
  const socket = tcpConnect(direct.port, '127.0.0.1')
  socket.write(version1)
  await drain(socket)
  await until(() => direct.count('tls-failed') === 1)
})

t.test('a client that never reads has bounded memory, and others do not notice', async t => {
  const { port, links, callUp, count, dataplane } = await setUp(t, { slots: 32 })
  const client = await rawCall(port, connectRequest)
  const server = await links.at(0)
  server.carrier.authenticated(zeros)
  await client.atLeast(48)
  const nonce = Uint8Array.from(client.bytes().subarray(16, 48))
  client.socket.write(callConnectedBytes('sha256', nonce, ecdsa.leaf, zeros))
  await server.until(link => link.isPermitted)
  client.socket.pause()
  const packet = new Uint8Array(1400)
  packet[0] = 0x45
  let dropped = 0
  for (let burst = 0; burst < 400; burst++) {
    for (let i = 0; i < 64; i++) if (!server.send(packet)) dropped++
    server.carrier.sink.flush()
    await new Promise(resolve => setImmediate(resolve))
  }
  t.ok(dropped > 1000, `${dropped} dropped`)
  t.equal(count('droppedNoRoom'), dropped)
  const free = dataplane.streamSlots.freeCount
  t.ok(free >= 16, `half of the slots are left for others (${free} of 32)`)
  const other = await callUp()
  for (let i = 0; i < 50; i++) t.ok(other.server.send(packet))
  other.server.carrier.sink.flush()
  await other.client.until(link => link.frames.length === 50)
  // Control is never dropped; what piles up ends the call instead.
  for (let i = 0; i < 200 && server.lost === undefined; i++) {
    server.carrier.sendFrame(new Uint8Array(4000))
  }
  t.equal(server.lost, 'lost-carrier')
  t.equal(count('control-backlog'), 1)
  client.socket.destroy()
})

t.test('malformed frames end their own call only', async t => {
  const { port, links, callUp, count } = await setUp(t)
  const good = await callUp()
  const malformed = [
    '10000000',
    '10000001',
    '10000003',
    '10010000',
    '11000008 00000000',
    '16030100 00',
    '10010007 000100',
    '10010008 00010001',
    '1001000c 00010001 00010000',
    '1001000e 00010001 0001ffff 0001',
  ]
  for (const hex of malformed) {
    const client = await rawCall(port, fromHex(hex))
    await client.closed()
    t.equal(client.bytes().length, 0, hex)
  }
  t.equal(count('undelineable'), malformed.length)
  t.equal(links.links.length, 1)
  good.client.send(ipv4Packet)
  good.client.carrier.sink.flush()
  await good.server.until(link => link.frames.length === 1)
})

t.test('request and frames may come in one piece, or byte by byte', async t => {
  const { port, links } = await setUp(t)
  const data = fromHex('1000000c ff03c021 01010004')
  const whole = [
    Buffer.from(requestText({ host: 'localhost', correlationId: '0'.repeat(36) })),
    connectRequest,
    data,
  ]
  for (const isWhole of [true, false]) {
    const index = links.links.length
    const socket = await secure(port)
    socket.setNoDelay(true)
    const bytes = Buffer.concat(whole)
    if (isWhole) socket.write(bytes)
    else for (const byte of bytes) socket.write(Uint8Array.of(byte))
    const link = await links.at(index)
    await link.until(({ frames }) => frames.length === 1)
    t.same(link.received, ['ff03c02101010004'])
    socket.destroy()
    await link.until(({ lost }) => lost !== undefined)
    t.equal(link.lost, 'lost-carrier')
  }
})

t.test('a port that is taken is a BindError and leaves nothing open', async t => {
  const { port, links, dataplane, wheel } = await setUp(t)
  const second = new SstpListener({
    addresses: [
      { host: '127.0.0.1', port: 0 },
      { host: '127.0.0.1', port },
    ],
    certificates: [rsa],
    hashes: ['sha256'],
    links,
    dataplane,
    clock: systemClock,
    wheel,
    random: new SeededRandom(1),
    log: silentLogger,
  })
  await t.rejects(second.start(), { code: 'ERR_BIND' })
  t.same(second.status().addresses, [])
  t.equal(createHash('sha256').update(rsa.leaf).digest('hex'), toHex(rsa.sha256))
})

t.test('a client that vanishes at any step of its set-up leaves nothing behind', async t => {
  const { port, links, listener, wheel, callUp } = await setUp(t)
  const request = Buffer.from(requestText({ host: 'localhost', correlationId: '0'.repeat(36) }))
  const idleEntries = wheel.size
  const plain = tcpConnect(port, '127.0.0.1')
  plain.on('error', () => {})
  plain.write(Uint8Array.of(0x16, 3, 1, 2, 0))
  await until(() => listener.status().connections === 1)
  plain.resetAndDestroy()
  const steps: Uint8Array[][] = [
    [],
    [request.subarray(0, 30)],
    [request],
    [request, connectRequest.subarray(0, 3)],
    [request, connectRequest],
    [request, connectRequest, fromHex('1000000c ff03c021')],
    [request, connectRequest, messageBytes('call-disconnect')],
  ]
  for (const isReset of [true, false]) {
    for (const pieces of steps) {
      const raw = tcpConnect(port, '127.0.0.1')
      const socket = await secure(port, { socket: raw })
      socket.on('error', () => {})
      const isAnswered = pieces.includes(request)
      const answered = new Promise(resolve => socket.once('data', resolve))
      for (const piece of pieces) socket.write(piece)
      if (isAnswered) await answered
      if (isReset) raw.resetAndDestroy()
      else socket.destroy()
    }
  }
  const established = await callUp()
  established.call.hangUp('user-request')
  await established.call.closed
  await until(() => listener.status().connections === 0)
  await until(() => wheel.size === idleEntries)
  t.same(listener.status().unfinished, 0)
  t.ok(links.links.length >= 1)
  t.ok(
    links.links.every(link => link.lost !== undefined),
    'every link was told',
  )
})

t.test(
  'out of file descriptors the listener stays, and serves again when there are some',
  async t => {
    const { port, listener, callUp } = await setUp(t)
    const open = readdirSync('/proc/self/fd').length
    const [, soft = ''] =
      /Max open files\s+(\d+)/.exec(readFileSync('/proc/self/limits', 'latin1')) ?? []
    const setLimit = (limit: string | number) =>
      execFileSync('prlimit', ['--pid', String(process.pid), `--nofile=${limit}:`])
    const script = `const { connect } = require('node:net')
    for (let i = 0; i < 100; i++) connect(${port}, '127.0.0.1').on('error', () => {})`
    const clients = spawn(process.execPath, ['-e', script], { stdio: 'ignore' })
    setLimit(open + 20)
    await until(() => listener.status().connections >= 5)
    await new Promise(resolve => setTimeout(resolve, 200))
    const { connections } = listener.status()
    t.ok(connections < 100, `${connections} of 100 were accepted`)
    clients.kill()
    await until(() => listener.status().connections === 0)
    const { server } = await callUp()
    t.ok(server.isPermitted)
    setLimit(soft)
  },
)

t.test('a dialler that is not answered as it should be says why', async t => {
  const answers: [string, RegExp][] = [
    ['HTTP/1.1 404 Not Found\r\n\r\n', /HTTP status 404/],
    ['HTTP/1.1 200\r\n\r\n\x10\x00\x00\x03', /undelineable: length-too-small/],
    ['\0', /does not speak HTTP/],
    ['x'.repeat(9000), /does not speak HTTP/],
    ['hello\r\n\r\n', /does not speak HTTP/],
    ['', /closed the connection/],
  ]
  const clock = new ManualClock(0)
  const wheel = new TimerWheel(0)
  const dataplane = new StreamDataplane({ allocatableBytes: landingBytes })
  const random = new SeededRandom(1)
  const dialler = new SstpDialler({ dataplane, clock, wheel, random, log: silentLogger })
  let answer: string | undefined
  let onRequest = () => {}
  const key = Buffer.from(rsa.key.expose())
  const server = createTlsServer({ cert: rsa.cert, key }, socket => {
    socket.on('error', () => {})
    socket.once('data', () => {
      if (answer !== undefined) socket.end(answer)
      onRequest()
    })
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  const bound = server.address()
  const port = typeof bound === 'object' && bound !== null ? bound.port : 0
  const links = new FakeLinks(dataplane.memory)
  const proof = { type: 'pinned', sha256: rsa.sha256 } as const
  const dial = () => dialler.dial({ host: '127.0.0.1', port, proof, links })
  for (const [text, message] of answers) {
    answer = text
    await t.rejects(dial(), { name: 'ConnectError', message })
  }
  answer = undefined
  onRequest = () => {
    clock.advance(60_050)
    wheel.advance(clock.nowMs())
  }
  await t.rejects(dial(), { message: /no answer in time while waiting for HTTP/ })
  server.close()
  await t.rejects(dial(), { message: /ECONNREFUSED/ })
  t.equal(wheel.size, 0)
})
