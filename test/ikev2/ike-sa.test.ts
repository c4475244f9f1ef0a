import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import t from 'tap'
import { toHex, utf8 } from '../../lib/core/bytes.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { Secret } from '../../lib/core/secret.ts'
import { EncryptionId, IntegrityId, KeyExchangeId, PrfId } from '../../lib/crypto/transforms.ts'
import { Md5PeerMethod, Md5ServerMethod } from '../../lib/eap/md5-method.ts'
import { Mschapv2PeerMethod, Mschapv2ServerMethod } from '../../lib/eap/mschapv2-method.ts'
import { CookieJar, readFirstRequest } from '../../lib/ikev2/cookie-jar.ts'
import { identityOf } from '../../lib/ikev2/identity.ts'
import { acceptedRequests } from '../../lib/ikev2/ike-sa.ts'
import type { IkeSaOptions } from '../../lib/ikev2/options.ts'
import { defaultEspAlgorithms, defaultIkeAlgorithms } from '../../lib/ikev2/suite.ts'
import { everything, ipv4Selector } from '../../lib/ikev2/traffic-selectors.ts'
import { ExchangeType } from '../../lib/ikev2/wire/exchange-type.ts'
import { type End, optionsFor, Pair, type PairOptions, publicOf } from './pair.ts'

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
const weakRsa = generateKeyPairSync('rsa', { modulusLength: 1024 })
const p256 = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const p384 = generateKeyPairSync('ec', { namedCurve: 'P-384' })
const p521 = generateKeyPairSync('ec', { namedCurve: 'P-521' })
const ed25519 = generateKeyPairSync('ed25519')

const serverCertificate = utf8('certificate of vpn.example.com')
const deviceCertificate = utf8('certificate of device-7')

function certificateIdentity(name: string, certificate: Uint8Array, key: KeyObject) {
  return {
    identity: identityOf(name),
    credential: { type: 'certificate', chain: [certificate, utf8('its issuer')], key },
  } as const
}

function known(server: KeyObject, device?: KeyObject): Map<string, KeyObject> {
  const map = new Map([[toHex(serverCertificate), publicOf(server)]])
  if (device) map.set(toHex(deviceCertificate), publicOf(device))
  return map
}

function basePeer(role: 'initiator' | 'responder') {
  return optionsFor(role).peer
}

interface EapChoices {
  readonly server?: 'mschapv2' | 'md5' | 'both'
  readonly client?: 'mschapv2' | 'md5'
  readonly password?: string
  readonly userName?: string
  readonly serverKey?: KeyObject
  readonly isEapOnly?: boolean
}

/** Users with a name and a password, a server with a certificate: what Windows and Apple do. */
function eapOptions(choices: EapChoices = {}): PairOptions {
  const random = new SeededRandom(99)
  const userName = choices.userName ?? 'alice'
  const password = Secret.fromText(choices.password ?? 'correct horse')
  const mschapv2 = () => new Mschapv2ServerMethod({ random, serverName: 'vpn' })
  const md5 = () => new Md5ServerMethod(random, 'vpn')
  const serverKey = choices.serverKey ?? rsa.privateKey
  const methods =
    choices.server === 'md5' ? [md5] : choices.server === 'both' ? [mschapv2, md5] : [mschapv2]
  const client =
    choices.client === 'md5'
      ? () => new Md5PeerMethod(userName, password)
      : () => new Mschapv2PeerMethod({ random, userName, password })
  const acceptsEapOnly = choices.isEapOnly === true
  return {
    certificates: known(serverKey),
    initiator: {
      localIdentities: [
        {
          identity: identityOf('10.1.2.3'),
          credential: { type: 'eap', userName, methods: [client] },
        },
      ],
      peer: {
        ...basePeer('initiator'),
        expectedIdentity: identityOf('vpn.example.com'),
        ...(acceptsEapOnly ? { eap: { methods: [], acceptsEapOnly } } : {}),
      },
    },
    responder: {
      localIdentities: [certificateIdentity('vpn.example.com', serverCertificate, serverKey)],
      peer: { ...basePeer('responder'), eap: { methods, acceptsEapOnly } },
    },
  }
}

function mutual(server: KeyObject, device: KeyObject): PairOptions {
  return {
    certificates: known(server, device),
    initiator: {
      localIdentities: [certificateIdentity('device-7', deviceCertificate, device)],
    },
    responder: {
      localIdentities: [certificateIdentity('vpn.example.com', serverCertificate, server)],
    },
  }
}

const lossy = { loss: 0.05, duplication: 0.05, latencyMs: 20, jitterMs: 60 }

t.test('a preshared key brings both sides up with working Child SAs', async t => {
  const pair = new Pair()
  t.ok(pair.dial())
  t.ok(pair.carriesTraffic())
  const up = pair.responder.of('established')[0]
  t.equal(up?.authenticatedBy, 'psk')
  t.equal(up?.userName, 'branch@example.com')
  t.equal(up?.isPeerBehindNat, false)
  t.equal(pair.initiator.of('established')[0]?.configuration.ipv4Address, 0x0a090001)
  t.same(pair.initiator.of('established')[0]?.configuration.ipv4Dns, [0x01010101, 0x08080808])
  const child = [...pair.initiator.children.values()][0]
  t.same(child?.localSelectors, [ipv4Selector({ address: 0x0a090001, prefixLength: 32 })])
  t.equal(child?.isUdpEncapsulated, false)
  t.equal(child?.path.peer.port, 4500, 'MOBIKE moves IKE to port 4500')
  t.equal(pair.datagrams.length, 4)
})

t.test('a wrong preshared key is told once and ends both sides', async t => {
  const pair = new Pair({
    initiator: {
      localIdentities: [
        {
          identity: identityOf('branch@example.com'),
          credential: { type: 'psk', secret: Secret.fromText('another key') },
        },
      ],
    },
  })
  t.notOk(pair.dial())
  pair.settle()
  t.equal(pair.responder.closed?.cause, 'authentication-failed')
  t.equal(pair.responder.closed?.detail, 'wrong-preshared-key')
  t.equal(pair.initiator.closed?.cause, 'authentication-failed')
  t.equal(pair.initiator.closed?.detail, 'AUTHENTICATION_FAILED')
  t.equal(pair.responder.spis.size + pair.initiator.spis.size, 0, 'no SPI is left behind')
})

t.test('users come with EAP-MSCHAPv2 and are authorised by its name', async t => {
  const pair = new Pair(eapOptions())
  t.ok(pair.dial())
  t.ok(pair.carriesTraffic())
  const up = pair.responder.of('established')[0]
  t.equal(up?.authenticatedBy, 'eap')
  t.equal(up?.userName, 'alice')
  t.equal(up?.identity.idType, 1, 'IDi is the private address, as Windows sends it')
  t.equal(pair.initiator.of('verify-certificate')[0]?.certificates.length, 2, 'with its issuer')
})

t.test('EAP-MD5 works where policy names it, and a Nak finds it', async t => {
  for (const server of ['md5', 'both'] as const) {
    const pair = new Pair(eapOptions({ server, client: 'md5' }))
    t.ok(pair.dial(), server)
    t.ok(pair.carriesTraffic())
  }
  const refused = new Pair(eapOptions({ server: 'mschapv2', client: 'md5' }))
  t.notOk(refused.dial())
  t.equal(refused.responder.closed?.detail, 'eap-method-not-allowed')
})

t.test('a wrong password and an unknown user look the same and end in EAP-Failure', async t => {
  const details: unknown[] = []
  for (const choices of [{ password: 'wrong' }, { userName: 'mallory' }]) {
    const pair = new Pair(eapOptions(choices))
    t.notOk(pair.dial())
    pair.settle()
    t.equal(pair.initiator.closed?.detail, 'eap-failure')
    t.equal(pair.responder.closed?.cause, 'authentication-failed')
    details.push(pair.responder.closed?.detail, pair.datagrams.length)
  }
  t.same(details.slice(0, 2), details.slice(2))
})

t.test('EAP-only needs a method with keys on both sides (RFC 5998)', async t => {
  const pair = new Pair(eapOptions({ isEapOnly: true }))
  t.ok(pair.dial())
  t.ok(pair.carriesTraffic())
  t.equal(pair.initiator.of('verify-certificate').length, 0)
  const keyless = new Pair(eapOptions({ isEapOnly: true, server: 'md5', client: 'md5' }))
  t.notOk(keyless.dial())
})

t.test('certificates of every kind prove both sides', async t => {
  const kinds = { rsa, p256, p384, p521, ed25519 }
  for (const [name, key] of Object.entries(kinds)) {
    const pair = new Pair(mutual(key.privateKey, p256.privateKey))
    t.ok(pair.dial(), `server with ${name}`)
    t.equal(pair.responder.of('established')[0]?.userName, 'device-7')
    const device = new Pair(mutual(p256.privateKey, key.privateKey))
    t.ok(device.dial(), `client with ${name}`)
    t.ok(device.carriesTraffic())
  }
})

t.test('a weak key, an unknown certificate or a wrong name proves nothing', async t => {
  const weak = new Pair(mutual(p256.privateKey, weakRsa.privateKey))
  t.notOk(weak.dial())
  t.equal(weak.responder.closed?.detail, 'signature-weak-key')
  const unknown = new Pair({
    ...mutual(rsa.privateKey, p256.privateKey),
    certificates: known(rsa.privateKey),
  })
  t.notOk(unknown.dial())
  t.equal(unknown.responder.closed?.detail, 'certificate-unknown-authority')
  const other = mutual(rsa.privateKey, p256.privateKey)
  const stolen = new Pair({ ...other, certificates: known(p256.privateKey, p256.privateKey) })
  t.notOk(stolen.dial())
  stolen.settle()
  t.equal(stolen.initiator.closed?.detail, 'signature-key-type', 'a key of another type')
  t.equal(stolen.responder.closed?.cause, 'authentication-failed', 'the server is told')
  const misnamed = eapOptions()
  const named = new Pair({
    ...misnamed,
    initiator: {
      ...misnamed.initiator,
      peer: { ...basePeer('initiator'), expectedIdentity: identityOf('bank.example.com') },
    },
  })
  t.notOk(named.dial())
  named.settle()
  t.equal(named.initiator.closed?.detail, 'other-identity')
})

t.test('a user types no password for a server that has not proved itself', async t => {
  const options = eapOptions()
  const pair = new Pair({ ...options, certificates: new Map() })
  t.notOk(pair.dial())
  pair.settle()
  t.equal(pair.initiator.closed?.detail, 'certificate-unknown-authority')
  t.equal(pair.responder.of('authenticate').length, 0)
})

t.test('all algorithms that we negotiate work end to end', async t => {
  const ciphers = [
    { id: EncryptionId.aesGcm16, keyBits: 128 },
    { id: EncryptionId.aesGcm12, keyBits: 256 },
    { id: EncryptionId.chacha20Poly1305, keyBits: 256 },
    { id: EncryptionId.aesCbc, keyBits: 192 },
    { id: EncryptionId.aesCtr, keyBits: 256 },
    { id: EncryptionId.tripleDes, keyBits: 192 },
  ]
  const macs = [
    IntegrityId.hmacSha1_96,
    IntegrityId.aesXcbc96,
    IntegrityId.aesCmac96,
    IntegrityId.hmacSha384_192,
    IntegrityId.hmacSha512_256,
    IntegrityId.hmacSha256_128,
  ]
  const prfs = [
    PrfId.hmacSha1,
    PrfId.aesXcbc,
    PrfId.hmacSha384,
    PrfId.aesCmac,
    PrfId.hmacSha512,
    PrfId.hmacSha256,
  ]
  const groups = [
    KeyExchangeId.modp1024,
    KeyExchangeId.modp2048,
    KeyExchangeId.ecp256,
    KeyExchangeId.ecp384,
    KeyExchangeId.ecp521,
    KeyExchangeId.x25519,
  ]
  for (const [i, cipher] of ciphers.entries()) {
    const ikeAlgorithms = {
      encryption: [cipher],
      integrity: macs.slice(i, i + 1),
      prf: prfs.slice(i, i + 1),
      keyExchange: groups.slice(i, i + 1),
    }
    const algorithms = {
      ...defaultEspAlgorithms,
      encryption: [cipher],
      integrity: ikeAlgorithms.integrity,
    }
    const child = { ...optionsFor('responder').child, algorithms }
    const pair = new Pair({
      initiator: { ikeAlgorithms, child },
      responder: { ikeAlgorithms, child },
    })
    t.ok(pair.dial(), JSON.stringify(ikeAlgorithms))
    t.ok(pair.carriesTraffic())
    pair.send('initiator', { type: 'rekey-ike' })
    pair.settle(1000)
    pair.send('initiator', { type: 'check-liveness' })
    pair.settle(1000)
    t.ok(pair.isEstablished && pair.initiator.of('ike-rekeyed').length === 1)
  }
})

t.test('ML-KEM joins the key exchange in IKE_INTERMEDIATE', async t => {
  const additionalKeyExchange = [KeyExchangeId.mlKem768]
  const ikeAlgorithms = { ...defaultIkeAlgorithms, additionalKeyExchange }
  for (let seed = 1; seed <= 6; seed++) {
    const options = seed % 2 ? {} : eapOptions()
    const kem = new Pair({
      ...options,
      seed,
      link: seed > 2 ? { ...lossy, loss: 0.15 } : lossy,
      initiator: { ...options.initiator, ikeAlgorithms },
      responder: { ...options.responder, ikeAlgorithms },
    })
    t.ok(kem.dial(), `seed ${seed}`)
    t.ok(kem.carriesTraffic())
    const exchanges = new Set(kem.datagrams.map(item => item.bytes[18]))
    t.ok(exchanges.has(ExchangeType.IKE_INTERMEDIATE))
    t.equal(kem.initiator.of('key-log').length, 2, 'keys before and after')
    kem.send('initiator', { type: 'rekey-ike' })
    kem.settle(100_000)
    t.ok(kem.isEstablished && kem.initiator.of('ike-rekeyed').length === 1)
  }
  t.test('and it stays out when one side does not have it', async t => {
    for (const side of ['initiator', 'responder'] as const) {
      const pair = new Pair({ [side]: { ikeAlgorithms } })
      t.ok(pair.dial())
      t.equal(pair.datagrams.length, 4)
    }
  })
})

t.test('a post-quantum preshared key is used when both have it (RFC 8784)', async t => {
  const key = (name: string, secret: string) => ({
    identity: utf8(name),
    secret: Secret.fromText(secret),
  })
  const ppk = (isMandatory: boolean, ...keys: ReturnType<typeof key>[]) => ({ isMandatory, keys })
  const a = key('a', 'first')
  const dial = (initiator: object, responder: object) => {
    const pair = new Pair({ initiator, responder })
    const isUp = pair.dial()
    pair.settle(1000)
    if (isUp) t.ok(pair.carriesTraffic())
    return isUp && pair.isEstablished
  }
  t.ok(dial({ ppk: ppk(true, a) }, { ppk: ppk(true, key('b', 'other'), a) }))
  t.ok(dial({ ppk: ppk(false, a) }, { ppk: ppk(false, key('b', 'other')) }), 'falls back')
  t.ok(dial({ ppk: ppk(false, a) }, {}))
  t.notOk(dial({ ppk: ppk(true, a) }, { ppk: ppk(false, key('b', 'other')) }))
  t.notOk(dial({ ppk: ppk(false, a) }, { ppk: ppk(true, key('b', 'other')) }))
  t.notOk(dial({ ppk: ppk(false, a) }, { ppk: ppk(false, key('a', 'wrong')) }), 'another secret')
  t.notOk(dial({}, { ppk: ppk(true, a) }))
  t.notOk(dial({ ppk: ppk(true, a) }, {}), 'a mandatory key that the responder does not know')
})

t.test('the first KE payload in the wrong group is answered with the right one', async t => {
  const pair = new Pair({
    initiator: {
      ikeAlgorithms: {
        ...defaultIkeAlgorithms,
        keyExchange: [KeyExchangeId.modp4096, KeyExchangeId.x25519],
      },
    },
    responder: {
      ikeAlgorithms: { ...defaultIkeAlgorithms, keyExchange: [KeyExchangeId.x25519] },
    },
  })
  // The refused attempt leaves nothing behind: a listener makes a new machine for the next one.
  pair.send('initiator', { type: 'start' })
  pair.run(20)
  t.equal(pair.responder.closed?.detail, 'INVALID_KE_PAYLOAD')
  t.equal(pair.datagrams[2]?.bytes[2 * 8 + 2], ExchangeType.IKE_SA_INIT)
  t.equal(pair.initiator.machine.state, 'initiating', 'it tries again')
  const acceptable = new Pair({
    initiator: {
      ikeAlgorithms: {
        ...defaultIkeAlgorithms,
        keyExchange: [KeyExchangeId.modp2048, KeyExchangeId.x25519],
      },
    },
  })
  t.ok(acceptable.dial())
  t.equal(acceptable.datagrams.length, 4, 'a group that is acceptable saves the round trip')
})

t.test('nothing in common is NO_PROPOSAL_CHOSEN', async t => {
  const pair = new Pair({
    responder: {
      ikeAlgorithms: { ...defaultIkeAlgorithms, prf: [PrfId.aesXcbc] },
    },
  })
  t.notOk(pair.dial())
  pair.settle()
  t.equal(pair.initiator.closed?.detail, 'NO_PROPOSAL_CHOSEN')
})

t.test('a cookie is asked for, shown, and bound to address, SPI and nonce', async t => {
  const jar = new CookieJar(new SeededRandom(5), 0)
  const pair = new Pair({ link: { ...lossy, loss: 1 } })
  pair.send('initiator', { type: 'start' })
  pair.link = { ...lossy, loss: 0 }
  const first = pair.datagrams[0]?.bytes ?? new Uint8Array(0)
  const request = readFirstRequest(first)
  t.equal(request.fault, 0)
  t.notOk(jar.isValid(request, '198.51.100.10', 0), 'no cookie yet')
  const challenge = jar.challenge(request, '198.51.100.10', 0)
  t.ok(challenge.length < first.length, 'no amplification')
  pair.send('initiator', {
    type: 'datagram',
    bytes: challenge,
    path: pair.initiator.path,
  })
  const second = readFirstRequest(pair.datagrams[1]?.bytes ?? new Uint8Array(0))
  t.ok(jar.isValid(second, '198.51.100.10', 0))
  t.notOk(jar.isValid(second, '198.51.100.11', 0), 'another address')
  t.notOk(jar.isValid({ ...second, nonce: new Uint8Array(32) }, '198.51.100.10', 0))
  t.notOk(jar.isValid({ ...second, initiatorSpi: new Uint8Array(8) }, '198.51.100.10', 0))
  t.ok(jar.isValid(second, '198.51.100.10', 100_000), 'the last secret still counts')
  t.notOk(jar.isValid(second, '198.51.100.10', 200_000), 'an old one does not')
  t.ok(
    pair.run(10_000, () => pair.isEstablished),
    'AUTH covers the request with the cookie',
  )
})

t.test('lost, repeated and reordered datagrams delay but do not hurt', async t => {
  let up = 0
  for (let seed = 1; seed <= 40; seed++) {
    const pair = new Pair({
      ...(seed % 2 ? {} : eapOptions()),
      seed,
      link: { loss: 0.2, duplication: 0.2, latencyMs: 20, jitterMs: 200 },
    })
    if (pair.dial() && pair.carriesTraffic()) up++
  }
  t.ok(up >= 39, `${up} of 40 at 20 % loss`)
})

t.test('a repeated request gets the identical bytes and is done once', async t => {
  const pair = new Pair({ link: { loss: 0, duplication: 1, latencyMs: 5, jitterMs: 0 } })
  t.ok(pair.dial())
  pair.settle(1000)
  t.equal(pair.responder.of('established').length, 1)
  t.equal(pair.responder.of('child-up').length, 1)
  const answers = pair.datagrams
    .filter(item => item.from === 'responder')
    .map(item => toHex(item.bytes))
  t.ok(answers.length > new Set(answers).size, 'there were repetitions')
  t.equal(new Set(answers).size, 2)
})

t.test('the answer to INIT is repeated from another port, too', async t => {
  const pair = new Pair()
  pair.send('initiator', { type: 'start' })
  pair.run(6)
  const first = pair.datagrams[0]?.bytes ?? new Uint8Array(0)
  const path = {
    local: { address: '192.0.2.1', port: 500 },
    peer: { address: '203.0.113.99', port: 1024 },
  }
  pair.send('responder', { type: 'datagram', bytes: first, path })
  const repeated = pair.responder.of('datagram')
  t.equal(repeated.length, 2)
  t.same(repeated[1]?.path.peer, path.peer)
  t.same(repeated[1]?.bytes, repeated[0]?.bytes)
})

for (const side of ['initiator', 'responder'] as const) {
  t.test(`twenty rekeyings of each kind by the ${side}`, async t => {
    for (const requiresKeyExchange of [false, true]) {
      const options = optionsFor(side)
      const child = {
        ...options.child,
        algorithms: { ...defaultEspAlgorithms, requiresKeyExchange },
      }
      const pair = new Pair({ [side]: { child }, link: lossy, seed: 3 })
      t.ok(pair.dial())
      for (let i = 0; i < 20; i++) {
        const inboundSpi = pair.end(side).activeChild ?? 0
        pair.send(side, { type: 'rekey-child', inboundSpi })
        pair.settle(90_000)
        t.not(pair.end(side).activeChild, inboundSpi)
        pair.send(side, { type: 'rekey-ike' })
        pair.settle(90_000)
        if (!pair.carriesTraffic()) t.fail(`no traffic after ${i}`)
      }
      t.ok(pair.isEstablished)
      t.equal(pair.initiator.of('ike-rekeyed').length, 20)
      t.equal(pair.initiator.children.size, 1)
      t.equal(pair.responder.children.size, 1)
      t.equal(pair.initiator.spis.size, 1)
      t.equal(pair.responder.spis.size, 1)
      const last = [...pair.end(side).children.values()][0]
      t.equal((last?.suite.keyExchangeId ?? 0) !== 0, requiresKeyExchange)
    }
  })
}

t.test('both sides rekey the same Child SA at once', async t => {
  for (let seed = 1; seed <= 20; seed++) {
    const pair = new Pair({ seed, link: seed > 10 ? lossy : { ...lossy, loss: 0, duplication: 0 } })
    t.ok(pair.dial())
    for (let i = 0; i < 5; i++) {
      pair.send('initiator', { type: 'rekey-child', inboundSpi: pair.initiator.activeChild ?? 0 })
      pair.run(seed % 3 === 0 ? 10 : 0)
      pair.send('responder', { type: 'rekey-child', inboundSpi: pair.responder.activeChild ?? 0 })
      pair.settle(200_000)
      if (!pair.carriesTraffic()) t.fail(`seed ${seed}: no traffic after collision ${i}`)
      if (pair.initiator.children.size !== 1) t.fail(`seed ${seed}: Child SAs left`)
      if (pair.responder.children.size !== 1) t.fail(`seed ${seed}: Child SAs left`)
    }
    t.ok(pair.isEstablished, `seed ${seed}`)
  }
})

t.test('both sides rekey the IKE SA at once', async t => {
  for (let seed = 1; seed <= 20; seed++) {
    const pair = new Pair({ seed, link: seed > 10 ? lossy : { ...lossy, loss: 0, duplication: 0 } })
    t.ok(pair.dial())
    for (let i = 0; i < 5; i++) {
      pair.send('initiator', { type: 'rekey-ike' })
      pair.run(seed % 3 === 0 ? 10 : 0)
      pair.send('responder', { type: 'rekey-ike' })
      pair.settle(200_000)
      if (pair.initiator.spis.size !== 1)
        t.fail(`seed ${seed}: ${pair.initiator.spis.size} IKE SAs`)
      if (pair.responder.spis.size !== 1)
        t.fail(`seed ${seed}: ${pair.responder.spis.size} IKE SAs`)
      pair.send('responder', { type: 'check-liveness' })
      pair.settle(1000)
    }
    t.ok(pair.isEstablished && pair.carriesTraffic(), `seed ${seed}`)
  }
})

t.test('an IKE rekeying meets a Child rekeying and both get done', async t => {
  for (let seed = 1; seed <= 10; seed++) {
    const pair = new Pair({ seed, link: lossy })
    t.ok(pair.dial())
    const before = pair.initiator.activeChild
    pair.send('initiator', { type: 'rekey-child', inboundSpi: before ?? 0 })
    pair.send('responder', { type: 'rekey-ike' })
    pair.settle(200_000)
    t.ok(pair.isEstablished && pair.carriesTraffic(), `seed ${seed}`)
    t.not(pair.initiator.activeChild, before)
    t.equal(pair.initiator.of('ike-rekeyed').length, 1)
  }
})

t.test('a Child SA that one side deletes while the other rekeys it is gone on both', async t => {
  const pair = new Pair()
  t.ok(pair.dial())
  const spi = pair.initiator.activeChild ?? 0
  const other = pair.responder.activeChild ?? 0
  pair.send('initiator', { type: 'delete-child', inboundSpi: spi })
  pair.send('responder', { type: 'rekey-child', inboundSpi: other })
  pair.settle(200_000)
  t.notOk(pair.initiator.children.has(spi))
  t.notOk(pair.responder.children.has(other))
  t.equal(pair.initiator.children.size, pair.responder.children.size)
  t.ok(pair.isEstablished)
  t.test('and both deleting it at once is no error', async t => {
    const both = new Pair()
    t.ok(both.dial())
    both.send('initiator', { type: 'delete-child', inboundSpi: both.initiator.activeChild ?? 0 })
    both.send('responder', { type: 'delete-child', inboundSpi: both.responder.activeChild ?? 0 })
    both.settle()
    t.equal(both.initiator.children.size + both.responder.children.size, 0)
    t.ok(both.isEstablished)
  })
})

t.test('rekeying an unknown Child SA is CHILD_SA_NOT_FOUND and removes it here', async t => {
  const pair = new Pair()
  t.ok(pair.dial())
  pair.send('responder', { type: 'delete-child', inboundSpi: pair.responder.activeChild ?? 0 })
  // The initiator asks before it hears of the deletion.
  pair.send('initiator', { type: 'rekey-child', inboundSpi: pair.initiator.activeChild ?? 0 })
  pair.settle()
  t.equal(pair.initiator.children.size, 0)
  t.ok(pair.isEstablished)
})

t.test('a further Child SA with its own selectors stands beside the first', async t => {
  const pair = new Pair()
  t.ok(pair.dial())
  pair.send('initiator', {
    type: 'create-child',
    localSelectors: everything,
    remoteSelectors: [ipv4Selector({ address: 0x0a140000, prefixLength: 16 })],
  })
  pair.settle(1000)
  t.equal(pair.initiator.children.size, 2)
  t.equal(pair.responder.children.size, 2)
})

t.test('lifetimes rekey by themselves, jitter keeps the sides apart, hard limits end', async t => {
  const timing = {
    ...optionsFor('initiator').timing,
    childRekeyMs: 100_000,
    childExpireMs: 120_000,
    ikeRekeyMs: 330_000,
    ikeExpireMs: 400_000,
  }
  const pair = new Pair({ initiator: { timing }, responder: { timing } })
  t.ok(pair.dial())
  pair.settle(3_600_000)
  t.ok(pair.isEstablished && pair.carriesTraffic())
  t.ok(pair.initiator.of('ike-rekeyed').length >= 10)
  t.ok(pair.initiator.of('child-up').length >= 36)
  t.equal(pair.initiator.children.size, 1)
  const noRekey = { ...timing, ikeRekeyMs: 0, childRekeyMs: 0, childExpireMs: 0 }
  const ending = new Pair({ initiator: { timing: noRekey }, responder: { timing: noRekey } })
  t.ok(ending.dial())
  ending.settle(500_000)
  t.equal(ending.responder.closed?.cause, 'session-timeout')
})

t.test('Windows behind a NAT is not rekeyed by us before its Child SA would end', async t => {
  const vendor = Uint8Array.from([
    ...Buffer.from('1e2b516905991c7d7c96fcbfb587e461', 'hex'),
    0,
    0,
    0,
    9,
  ])
  const timing = {
    ...optionsFor('responder').timing,
    childRekeyMs: 100_000,
    childExpireMs: 1_000_000,
  }
  const pair = new Pair({ nat: true, initiator: { vendorIds: [vendor] }, responder: { timing } })
  t.ok(pair.dial())
  t.ok(pair.responder.of('established')[0]?.isWindows)
  pair.settle(900_000)
  t.equal(pair.responder.of('child-up').length, 1)
  pair.settle(100_000)
  t.equal(pair.responder.of('child-up').length, 2)
})

t.test('closing by either side tells the other', async t => {
  for (const side of ['initiator', 'responder'] as const) {
    const pair = new Pair()
    t.ok(pair.dial())
    pair.send(side, { type: 'close', cause: 'admin-reset', detail: 'operator' })
    pair.settle()
    const other = side === 'initiator' ? pair.responder : pair.initiator
    t.equal(pair.end(side).closed?.cause, 'admin-reset')
    t.equal(pair.end(side).closed?.detail, 'operator')
    t.equal(other.closed?.cause, 'user-request')
    for (const end of [pair.initiator, pair.responder]) {
      t.equal(end.children.size + end.spis.size, 0)
      t.equal(end.machine.nextDeadlineMs(), Number.POSITIVE_INFINITY)
      t.equal(end.of('child-down')[0]?.reason, 'ike-closed')
    }
  }
})

t.test('both sides close at once', async t => {
  const pair = new Pair()
  t.ok(pair.dial())
  pair.send('initiator', { type: 'close', cause: 'user-request', detail: 'x' })
  pair.send('responder', { type: 'close', cause: 'admin-reset', detail: 'y' })
  pair.settle()
  t.ok(pair.initiator.closed)
  t.equal(pair.responder.closed?.cause, 'admin-reset', 'its own reason')
})

t.test('a peer that falls silent is missed after the liveness check', async t => {
  const pair = new Pair()
  t.ok(pair.dial())
  pair.settle(300_000)
  t.ok(pair.isEstablished, 'liveness checks are answered')
  pair.link = { ...pair.link, loss: 1 }
  pair.settle(600_000)
  t.equal(pair.responder.closed?.cause, 'lost-carrier')
  t.equal(pair.initiator.closed?.cause, 'lost-carrier')
})

t.test('a server that never answers is given up with growing pauses', async t => {
  const pair = new Pair({ link: { ...lossy, loss: 1 } })
  t.notOk(pair.dial())
  t.equal(pair.initiator.closed?.cause, 'setup-timeout')
  const times = pair.datagrams.map(item => item.atMs)
  t.ok(times.length >= 5)
  const pauses = times.slice(1).map((at, i) => at - (times[i] ?? 0))
  t.same(
    [...pauses].sort((a, b) => a - b),
    pauses,
  )
  t.ok(Math.max(...pauses) <= 30_000)
})

t.test('a half-open SA ends by itself', async t => {
  const pair = new Pair()
  pair.send('initiator', { type: 'start' })
  pair.run(6)
  pair.link = { ...pair.link, loss: 1 }
  pair.settle(200_000)
  t.equal(pair.responder.closed?.cause, 'setup-timeout')
})

t.test('large messages are cut and put together, in any order, down to 576 bytes', async t => {
  const big = new Uint8Array(3000).fill(7)
  const chain = {
    identity: identityOf('vpn.example.com'),
    credential: { type: 'certificate', chain: [serverCertificate, big, big], key: rsa.privateKey },
  } as const
  for (const fragmentPacketBytes of [1280, 576]) {
    const base = eapOptions()
    const features = { ...optionsFor('responder').features, fragmentPacketBytes }
    const pair = new Pair({
      ...base,
      seed: 9,
      link: { loss: 0.02, duplication: 0.1, latencyMs: 5, jitterMs: 50 },
      responder: { ...base.responder, localIdentities: [chain], features },
    })
    t.ok(pair.dial(), `${fragmentPacketBytes}`)
    const sizes = pair.datagrams
      .filter(item => item.from === 'responder')
      .map(item => item.bytes.length)
    t.ok(Math.max(...sizes) + 20 + 12 <= fragmentPacketBytes)
    t.ok(sizes.length > 6)
  }
})

t.test('without fragmentation on one side nothing is cut', async t => {
  const base = eapOptions()
  const big = new Uint8Array(3000).fill(7)
  const pair = new Pair({
    ...base,
    initiator: {
      ...base.initiator,
      features: { ...optionsFor('initiator').features, fragmentation: false },
    },
    responder: {
      ...base.responder,
      localIdentities: [
        {
          identity: identityOf('vpn.example.com'),
          credential: { type: 'certificate', chain: [serverCertificate, big], key: rsa.privateKey },
        },
      ],
    },
  })
  t.ok(pair.dial())
  t.ok(Math.max(...pair.datagrams.map(item => item.bytes.length)) > 3000)
})

t.test('unanswered large requests are cut smaller after a while', async t => {
  const base = mutual(rsa.privateKey, rsa.privateKey)
  const chain = [deviceCertificate, new Uint8Array(2000)]
  const pair = new Pair({
    ...base,
    initiator: {
      localIdentities: [
        {
          identity: identityOf('device-7'),
          credential: { type: 'certificate', chain, key: rsa.privateKey },
        },
      ],
    },
    // The path drops everything above 700 bytes.
    onPath: bytes => (bytes.length > 700 ? undefined : bytes),
  })
  t.ok(pair.dial())
  t.ok(pair.carriesTraffic())
})

t.test('behind a NAT all goes to port 4500 and ESP is encapsulated', async t => {
  const pair = new Pair({ ...eapOptions(), nat: true })
  t.ok(pair.dial())
  t.ok(pair.responder.of('established')[0]?.isPeerBehindNat)
  for (const end of [pair.initiator, pair.responder]) {
    t.equal([...end.children.values()][0]?.isUdpEncapsulated, true)
  }
  t.same(pair.responder.of('established')[0]?.path.peer, {
    address: '203.0.113.5',
    port: 40_001,
  })
  t.test('and a changed mapping is followed', async t => {
    pair.natPort = 50_000
    pair.send('initiator', { type: 'check-liveness' })
    pair.settle(1000)
    t.equal(pair.responder.of('moved')[0]?.path.peer.port, 50_001)
    pair.send('responder', { type: 'check-liveness' })
    pair.settle(1000)
    t.ok(pair.isEstablished)
    const path = {
      local: { address: '192.0.2.1', port: 4500 },
      peer: { address: '203.0.113.5', port: 51_001 },
    }
    pair.send('responder', { type: 'esp-received', path })
    t.equal(pair.responder.of('moved')[1]?.path.peer.port, 51_001)
  })
})

t.test('a forced encapsulation finds a NAT where there is none', async t => {
  const features = { ...optionsFor('initiator').features, forcesEncapsulation: true }
  const pair = new Pair({ initiator: { features } })
  t.ok(pair.dial())
  t.equal([...pair.responder.children.values()][0]?.isUdpEncapsulated, true)
})

t.test('MOBIKE takes the SA to another address after a check of the way back', async t => {
  const pair = new Pair()
  t.ok(pair.dial())
  const path = {
    local: { address: '198.51.100.77', port: 4500 },
    peer: { address: '192.0.2.1', port: 4500 },
  }
  pair.send('initiator', { type: 'path-changed', path })
  pair.settle(5000)
  t.equal(pair.initiator.of('moved')[0]?.path.local.address, '198.51.100.77')
  t.equal(pair.responder.of('moved')[0]?.path.peer.address, '198.51.100.77')
  t.equal(pair.responder.of('moved').length, 1)
  t.ok(pair.isEstablished && pair.carriesTraffic())
  t.test('also while the IKE SA is being rekeyed and datagrams get lost', async t => {
    for (let seed = 1; seed <= 10; seed++) {
      const moving = new Pair({ seed, link: lossy })
      t.ok(moving.dial())
      moving.send('responder', { type: 'rekey-ike' })
      moving.send('initiator', { type: 'path-changed', path })
      moving.settle(200_000)
      t.ok(moving.isEstablished, `seed ${seed}`)
      t.equal(moving.responder.of('moved').at(-1)?.path.peer.address, '198.51.100.77')
    }
  })
})

t.test('selectors are narrowed to the grant, and nothing in common is told', async t => {
  const localSelectors = [ipv4Selector({ address: 0x0a000000, prefixLength: 8 })]
  const pair = new Pair({
    grant: { type: 'grant', grant: { ipv4Address: 0x0a090002, localSelectors } },
  })
  t.ok(pair.dial())
  t.same([...pair.initiator.children.values()][0]?.remoteSelectors, localSelectors)
  const none = new Pair({ grant: { type: 'grant', grant: { localSelectors } } })
  t.ok(none.dial(), 'the IKE SA stands')
  t.equal(none.initiator.count('child-refused-TS_UNACCEPTABLE'), 1)
  t.equal(none.initiator.children.size, 0)
})

t.test('site to site: networks on both sides, no addresses', async t => {
  const left = ipv4Selector({ address: 0x0a010000, prefixLength: 16 })
  const right = ipv4Selector({ address: 0x0a020000, prefixLength: 16 })
  const child = {
    ...optionsFor('initiator').child,
    localSelectors: [left],
    remoteSelectors: [right],
  }
  const { configurationAttributes, ...rest } = optionsFor('initiator')
  t.ok(configurationAttributes)
  const pair = new Pair({
    grant: { type: 'grant', grant: { localSelectors: [right], remoteSelectors: [left] } },
  })
  const site = new Pair({
    initiator: { ...rest, child },
    grant: { type: 'grant', grant: { localSelectors: [right], remoteSelectors: [left] } },
  })
  t.ok(pair.dial())
  t.ok(site.dial())
  t.same([...site.responder.children.values()][0]?.remoteSelectors, [left])
  t.ok(site.carriesTraffic())
})

t.test('a refused grant ends with its cause', async t => {
  const full = new Pair({ grant: { type: 'refuse', cause: 'no-address' } })
  t.notOk(full.dial())
  full.settle()
  t.equal(full.responder.closed?.cause, 'no-address')
  t.equal(full.initiator.closed?.detail, 'INTERNAL_ADDRESS_FAILURE')
  const limited = new Pair({ grant: { type: 'refuse', cause: 'session-limit' } })
  t.notOk(limited.dial())
  t.equal(limited.responder.closed?.cause, 'session-limit')
})

t.test('transport mode when both sides want it', async t => {
  const child = { ...optionsFor('initiator').child, transportMode: true }
  const pair = new Pair({ initiator: { child }, responder: { child } })
  t.ok(pair.dial())
  t.equal([...pair.initiator.children.values()][0]?.mode, 'transport')
  t.equal([...pair.responder.children.values()][0]?.mode, 'transport')
  const refused = new Pair({ initiator: { child } })
  t.ok(refused.dial())
  t.equal([...refused.responder.children.values()][0]?.mode, 'tunnel')
})

t.test('INITIAL_CONTACT reaches the composer, but only when authenticated', async t => {
  const features = { ...optionsFor('initiator').features, sendsInitialContact: true }
  const pair = new Pair({ initiator: { features } })
  t.ok(pair.dial())
  t.equal(pair.responder.of('need-grant')[0]?.isInitialContact, true)
  t.equal(new Pair().responder.of('need-grant').length, 0)
})

t.test('a gateway sends its peer elsewhere', async t => {
  const pair = new Pair()
  t.ok(pair.dial())
  pair.send('responder', { type: 'redirect', gateway: 'vpn2.example.com' })
  pair.settle(1000)
  t.equal(pair.initiator.of('redirected')[0]?.gateway, 'vpn2.example.com')
})

t.test('late answers from outside find nobody and change nothing', async t => {
  const pair = new Pair(eapOptions())
  t.ok(pair.dial())
  const asked = pair.responder.of('authenticate')[0]
  pair.send('responder', {
    type: 'verdict',
    ticket: asked?.ticket ?? 0,
    verdict: { type: 'reject', reason: 'bad-credentials', canRetry: false },
  })
  pair.send('responder', {
    type: 'grant-verdict',
    ticket: 1,
    verdict: { type: 'refuse', cause: 'no-address' },
  })
  t.equal(pair.responder.count('late-verdict'), 1)
  t.equal(pair.responder.count('late-grant-verdict'), 1)
  t.ok(pair.isEstablished)
  pair.send('responder', { type: 'close', cause: 'admin-reset', detail: 'x' })
  pair.settle()
  const events = pair.responder.events.length
  pair.send('responder', { type: 'rekey-ike' })
  pair.send('responder', {
    type: 'datagram',
    bytes: new Uint8Array(28),
    path: pair.responder.path,
  })
  t.equal(pair.responder.events.length, events, 'a closed machine says nothing')
})

t.test('requests outside their state are dropped and counted', async t => {
  for (const [role, states] of Object.entries(acceptedRequests)) {
    t.same(
      Object.keys(states).sort((a, b) => a.localeCompare(b)),
      ['authenticating', 'closed', 'established', 'fresh', 'initiating'],
      role,
    )
  }
  const pair = new Pair()
  pair.send('initiator', { type: 'start' })
  pair.run(6)
  const forged = pair.datagrams[0]?.bytes.slice() ?? new Uint8Array(0)
  const answer = pair.datagrams[1]?.bytes ?? new Uint8Array(0)
  forged.set(answer.subarray(8, 16), 8)
  forged[18] = ExchangeType.CREATE_CHILD_SA
  pair.send('responder', { type: 'datagram', bytes: forged, path: pair.responder.path })
  t.equal(pair.responder.count('CREATE_CHILD_SA-while-authenticating'), 1)
  forged[18] = ExchangeType.INFORMATIONAL
  pair.send('responder', { type: 'datagram', bytes: forged, path: pair.responder.path })
  t.equal(pair.responder.count('cleartext-in-protected-exchange'), 1)
  t.ok(pair.run(10_000, () => pair.isEstablished))
})

t.test('late and early timeouts are harmless', async t => {
  const pair = new Pair()
  t.ok(pair.dial())
  const before = pair.datagrams.length
  for (const end of [pair.initiator, pair.responder] as End[]) {
    for (let i = 0; i < 5; i++) end.machine.handle({ type: 'timeout' }, pair.nowMs)
  }
  t.equal(pair.datagrams.length, before)
})

t.test('no secret of a session is printed by its events', async t => {
  const quiet = (role: 'initiator' | 'responder'): Partial<IkeSaOptions> => ({
    features: { ...optionsFor(role).features, keyLog: false },
  })
  const pair = new Pair({ initiator: quiet('initiator'), responder: quiet('responder') })
  t.ok(pair.dial())
  t.equal(pair.responder.of('key-log').length, 0)
  const shown = JSON.stringify(pair.responder.of('child-up'))
  t.match(shown, '[secret]')
})
