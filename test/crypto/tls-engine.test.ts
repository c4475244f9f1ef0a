/** TLS without a network: an engine against Node's own client. */
import t from 'tap'
import { toHex, utf8, utf8Text } from '../../lib/core/bytes.ts'
import { TlsLimit, TlsTerminal } from '../../lib/crypto/tls-engine.ts'
import { makeEapPki } from '../support/eap-pki.ts'
import { EapTlsPeer } from '../support/eap-tls-peer.ts'

const pki = makeEapPki()
t.teardown(() => pki.remove())
const limit = new TlsLimit(2)
const terminal = new TlsTerminal({
  chainPem: pki.text('server.pem'),
  keyPem: pki.secret('server.key'),
  clientAuthoritiesPem: pki.text('ca.pem'),
  sessionContext: 'test',
  isResumable: true,
  limit,
})
const client = { ca: pki.text('ca.pem'), cert: pki.text('client.pem'), key: pki.text('client.key') }

for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
  t.test(`${version}: handshake, data both ways, equal keys, the peer's certificate`, async t => {
    const engine = terminal.open()
    if (engine === undefined) throw new Error('no engine')
    const peer = new EapTlsPeer({ ...client, minVersion: version, maxVersion: version })
    let out = (await peer.flight()).slice(1)
    for (let i = 0; i < 6; i++) {
      const flight = await engine.receive(out)
      t.equal(flight.fault, undefined)
      out = (await peer.answer(Uint8Array.of(0, ...flight.records))).slice(1)
      if (flight.isOpen && out.length === 0) break
    }
    t.equal(engine.isTls13, version === 'TLSv1.3')
    t.equal(engine.peerChain().length, 2)
    const said = await engine.send(utf8('to the peer'))
    await peer.answer(Uint8Array.of(0, ...said.records))
    t.equal(utf8Text(peer.heard.at(-1) ?? utf8('')), 'to the peer')
    const heard = await engine.receive((await peer.say(utf8('to us'))).slice(1))
    t.equal(utf8Text(heard.plain), 'to us')
    const theirs = Uint8Array.from(peer.socket.exportKeyingMaterial(32, 'label', Buffer.from([13])))
    t.equal(toHex(engine.exportKey(32, 'label', Uint8Array.of(13))), toHex(theirs))
    engine.destroy()
    peer.destroy()
    t.equal((await engine.receive(out)).fault, 'destroyed')
    t.equal(limit.open, 0)
  })
}

t.test(
  'no certificate, garbage and nothing: a fault with an alert, never an exception',
  async t => {
    const bare = new EapTlsPeer({ ca: client.ca, maxVersion: 'TLSv1.2' })
    const engine = terminal.open()
    if (engine === undefined) throw new Error('no engine')
    let out = (await bare.flight()).slice(1)
    let fault: string | undefined
    for (let i = 0; i < 4 && fault === undefined; i++) {
      const flight = await engine.receive(out)
      fault = flight.fault
      if (fault !== undefined) t.equal(flight.records[0], 21, 'the peer gets an alert')
      out = (await bare.answer(Uint8Array.of(0, ...flight.records))).slice(1)
    }
    t.match(fault, /CERTIFICATE/)
    engine.destroy()
    bare.destroy()
    const second = terminal.open()
    const garbled = await second?.receive(new Uint8Array(2000).fill(0xa5))
    t.type(garbled?.fault, 'string')
    second?.destroy()
  },
)

for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
  t.test(`${version}: who asks for it is shown what OCSP says of us`, async t => {
    const says = { response: Uint8Array.of(0x30, 3, 0x0a, 1, 6) as Uint8Array | undefined }
    const stapling = new TlsTerminal({
      chainPem: pki.text('server.pem'),
      keyPem: pki.secret('server.key'),
      sessionContext: 'staple',
      isResumable: false,
      limit,
      staple: () => says.response,
    })
    for (const response of [says.response, undefined]) {
      says.response = response
      const engine = stapling.open()
      if (engine === undefined) throw new Error('no engine')
      const peer = new EapTlsPeer({
        ...{ ca: client.ca, minVersion: version, maxVersion: version, requestOCSP: true },
      })
      let stapled: Uint8Array | null | undefined
      peer.socket.on('OCSPResponse', der => {
        stapled = der
      })
      let out = (await peer.flight()).slice(1)
      let isOpen = false
      for (let i = 0; i < 6 && !isOpen; i++) {
        const flight = await engine.receive(out)
        isOpen = flight.isOpen
        out = (await peer.answer(Uint8Array.of(0, ...flight.records))).slice(1)
      }
      t.ok(isOpen)
      t.equal(toHex(Uint8Array.from(stapled ?? [])), toHex(response ?? new Uint8Array(0)))
      engine.destroy()
      peer.destroy()
    }
  })
}

t.test('more conversations than allowed are not begun', async t => {
  const engines = [terminal.open(), terminal.open()]
  t.equal(terminal.open(), undefined)
  engines[0]?.destroy()
  engines[0]?.destroy()
  t.equal(limit.open, 1, 'given back once')
  engines[1]?.destroy()
})
