import { generateKeyPairSync, sign } from 'node:crypto'
import t from 'tap'
import { fromHex, toHex, utf8 } from '../../lib/core/bytes.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { Secret } from '../../lib/core/secret.ts'
import { PayloadCipher } from '../../lib/crypto/payload-cipher.ts'
import { createPrf, prfPlus } from '../../lib/crypto/prf.ts'
import {
  EncryptionId,
  encryptionTransform,
  IntegrityId,
  integrityTransform,
  KeyExchangeId,
  PrfId,
} from '../../lib/crypto/transforms.ts'
import { sharedKeyAuth, signedOctets, verifySharedKeyAuth } from '../../lib/ikev2/auth-octets.ts'
import { compareNonces, lowestNonce } from '../../lib/ikev2/child-sa.ts'
import { FragmentSet } from '../../lib/ikev2/fragments.ts'
import {
  childKeys,
  destroyPpkPart,
  ikeKeys,
  initialSkeyseed,
  rekeySkeyseed,
  withPpk,
} from '../../lib/ikev2/key-schedule.ts'
import { detectNat, natHash, natNotifies } from '../../lib/ikev2/nat-detection.ts'
import {
  chooseEsp,
  chooseIke,
  espProposals,
  ikeProposals,
  isAnswer,
} from '../../lib/ikev2/proposal.ts'
import { openMessage, parseInner, sealFragments, sealMessage } from '../../lib/ikev2/protection.ts'
import {
  isStrongKey,
  parseSignatureHashes,
  SignatureHash,
  signatureHashes,
  signOctets,
  verifySignature,
} from '../../lib/ikev2/signature.ts'
import { defaultEspAlgorithms, defaultIkeAlgorithms } from '../../lib/ikev2/suite.ts'
import {
  describeSelector,
  everything,
  hostSelector,
  ipv4Selector,
  ipv6Selector,
  isWithin,
  narrow,
} from '../../lib/ikev2/traffic-selectors.ts'
import { parseMessage } from '../../lib/ikev2/wire/message.ts'
import { notify } from '../../lib/ikev2/wire/notify.ts'
import { NotifyType } from '../../lib/ikev2/wire/notify-type.ts'
import type { Payload } from '../../lib/ikev2/wire/payload.ts'

// NIST CAVP SP 800-135 IKEv2, HMAC-SHA2-256.
const nist = {
  gir: '42968E5D0CCC3CFC5A3E4BC1BBA370CEA1FAE0D54C49CCBA34B2BEE804BEEB2E9E8C57A4E01BD45102CF2433AACC6CFEC06792F363E5170E6AA6650274E906648E449D27A8F00B5B44261982C9835C748A751EC5138EAACC5E025661339538A61BF418E454699E19C32DB8D9CE5DD86B220F1E89AFC5872E68BE36CB1A0C8866',
  nonces: 'ED80DC79912C32A935FB6D1A3FEAC078',
  spis: '47C1858EFC932EA4606FD05609624002',
  skeyseed: '37FDE90B81D63692620F67367B62092E3EFDC6A03509137D731004767FF35010',
  stream:
    '63D018A08F7A29DAA7D1F92CB63F45FA39BBAF5E5F1A78139613BB891E3E6BF9D0448F7C74E05B4C1A25C0B61E62C875E852F287E192D4AE536112DB5197216400BD5E123470EFC15F53161865FE8B19A1416518A157D651ECD2CADDAB6A9EAE6A27A55AF088218D5156EDAA9789F934D9836ED43EDFFDA553822202FF9F7D4860CA72E0',
}

const prf = createPrf(PrfId.hmacSha256)

function suiteOf(encryptionId: number, keyBits: number, integrityId?: number) {
  const encryption = encryptionTransform(encryptionId)
  const integrity = integrityId === undefined ? undefined : integrityTransform(integrityId)
  if (encryption === undefined) throw new Error('no such cipher')
  return {
    encryption,
    keyBits,
    prf,
    integrity,
    keyExchangeId: KeyExchangeId.x25519,
    additionalKeyExchanges: [],
  }
}

t.test('SKEYSEED and the seven keys (NIST CAVP SP 800-135)', async t => {
  const nonces = {
    initiator: fromHex(nist.nonces).subarray(0, 8),
    responder: fromHex(nist.nonces).subarray(8),
  }
  const skeyseed = initialSkeyseed(prf, nonces, new Secret(fromHex(nist.gir)))
  t.equal(toHex(skeyseed.expose()).toUpperCase(), nist.skeyseed)
  const spis = {
    initiatorSpi: fromHex(nist.spis).subarray(0, 8),
    responderSpi: fromHex(nist.spis).subarray(8),
  }
  const stream = prfPlus(prf, skeyseed.expose(), fromHex(nist.nonces + nist.spis), 132)
  t.equal(toHex(stream).toUpperCase(), nist.stream)
  const suite = suiteOf(EncryptionId.aesGcm16, 128)
  const keys = ikeKeys(suite, skeyseed, nonces, spis)
  // SK_d 32, SK_ei 20, SK_er 20, SK_pi 32: the first 104 bytes of the stream.
  const cut = [keys.d, keys.ai, keys.ar, keys.ei, keys.er, keys.pi].map(key => toHex(key.expose()))
  t.equal(cut.join('').toUpperCase(), nist.stream.slice(0, 208))
  t.equal(keys.ai.length, 0)
  t.equal(keys.ei.length, 20, 'an AEAD key ends with its salt')
})

t.test('a PRF with keys of fixed size takes half of them from each nonce', async t => {
  const xcbc = createPrf(PrfId.aesXcbc)
  const nonces = { initiator: new Uint8Array(32).fill(1), responder: new Uint8Array(32).fill(2) }
  const key = new Uint8Array(16).fill(1, 0, 8).fill(2, 8)
  const secret = new Secret(new Uint8Array(32).fill(9))
  t.same(initialSkeyseed(xcbc, nonces, secret).expose(), xcbc.compute(key, secret.expose()))
})

t.test('rekeying, KEYMAT and PPK follow their formulas', async t => {
  const nonces = { initiator: new Uint8Array(16).fill(1), responder: new Uint8Array(16).fill(2) }
  const d = new Secret(new Uint8Array(32).fill(3))
  const gir = new Secret(new Uint8Array(32).fill(4))
  t.same(
    rekeySkeyseed(prf, d, nonces, gir).expose(),
    prf.compute(d.expose(), gir.expose(), nonces.initiator, nonces.responder),
  )
  const suite = {
    encryption: suiteOf(EncryptionId.aesCbc, 256).encryption,
    keyBits: 256,
    integrity: integrityTransform(IntegrityId.hmacSha256_128),
    hasEsn: false,
    keyExchangeId: 0,
  }
  const keys = childKeys(prf, d, suite, nonces, undefined)
  const stream = prfPlus(prf, d.expose(), fromHex('01'.repeat(16) + '02'.repeat(16)), 2 * (32 + 32))
  t.equal(
    toHex(stream),
    [
      keys.fromInitiator.encryption,
      keys.fromInitiator.integrity,
      keys.fromResponder.encryption,
      keys.fromResponder.integrity,
    ]
      .map(key => toHex(key.expose()))
      .join(''),
    'initiator first, encryption before integrity (RFC 7296 §2.17)',
  )
  const ikeSuite = suiteOf(EncryptionId.aesGcm16, 256)
  const spis = { initiatorSpi: new Uint8Array(8).fill(1), responderSpi: new Uint8Array(8).fill(2) }
  const before = ikeKeys(ikeSuite, new Secret(new Uint8Array(32).fill(5)), nonces, spis)
  const oldD = before.d.expose().slice()
  const ppk = new Secret(utf8('a post-quantum preshared key'))
  const after = withPpk(prf, before, ppk)
  t.same(after.d.expose(), prfPlus(prf, ppk.expose(), oldD, 32))
  t.equal(before.d.length, 32, 'the plain keys stay until the peer has chosen')
  destroyPpkPart(before)
  t.equal(before.d.length, 0)
  t.ok(after.er.length > 0)
  t.equal(after.ei, before.ei)
})

t.test('AUTH by shared key: the pad vector, and any changed part fails', async t => {
  const pad = prf.compute(utf8('secret'), utf8('Key Pad for IKEv2'))
  t.equal(
    toHex(pad).toUpperCase(),
    '5FD8819CD79C7D1470058863CDDC51BA31B4B8C876E6A7A803C3C95AAF71C10D',
  )
  const input = {
    message: utf8('message'),
    otherNonce: utf8('nonce'),
    macKey: new Secret(utf8('mac key')),
    idBody: utf8('identity'),
    intermediateAuth: undefined,
  }
  const octets = signedOctets(prf, input)
  const auth = sharedKeyAuth(prf, Secret.fromText('secret'), octets)
  t.same(auth, prf.compute(pad, octets))
  t.ok(verifySharedKeyAuth(prf, Secret.fromText('secret'), octets, auth))
  t.notOk(verifySharedKeyAuth(prf, Secret.fromText('Secret'), octets, auth))
  for (const change of [
    { message: utf8('massage') },
    { otherNonce: utf8('noncf') },
    { idBody: utf8('identitz') },
    { intermediateAuth: utf8('x') },
  ]) {
    const other = signedOctets(prf, { ...input, ...change })
    t.notOk(verifySharedKeyAuth(prf, Secret.fromText('secret'), other, auth))
  }
})

t.test('NAT detection hashes (derived vector) and what they tell', async t => {
  const spis = {
    initiatorSpi: fromHex('0102030405060708'),
    responderSpi: fromHex('1112131415161718'),
  }
  const local = { address: '192.0.2.1', port: 500 }
  const peer = { address: '198.51.100.2', port: 500 }
  t.equal(toHex(natHash(spis, local)).toUpperCase(), 'D798D986143F878F70765E0E869C80BBC375F701')
  const sent = natNotifies(spis, { local, peer }, false)
  const seen = (at: { address: string; port: number }, from: { address: string; port: number }) =>
    detectNat(sent, spis, { local: at, peer: from })
  t.same(seen(peer, local), { isLocalBehindNat: false, isPeerBehindNat: false })
  t.same(seen(peer, { ...local, port: 1024 }), { isLocalBehindNat: false, isPeerBehindNat: true })
  t.same(seen({ address: '10.0.0.1', port: 500 }, local), {
    isLocalBehindNat: true,
    isPeerBehindNat: false,
  })
  t.equal(detectNat([], spis, { local, peer }), undefined)
  const forced = natNotifies(spis, { local, peer }, true)
  t.equal(detectNat(forced, spis, { local: peer, peer: local })?.isPeerBehindNat, true)
})

t.test('a sealed message opens, and one changed bit anywhere refuses it', async t => {
  const head = {
    initiatorSpi: fromHex('0102030405060708'),
    responderSpi: fromHex('1112131415161718'),
    exchangeType: 37,
    isFromInitiator: true,
    isResponse: false,
    canHigherVersion: false,
    messageId: 3,
  }
  const random = new SeededRandom(1)
  for (const suite of [
    suiteOf(EncryptionId.aesGcm16, 256),
    suiteOf(EncryptionId.aesCbc, 128, IntegrityId.hmacSha256_128),
  ]) {
    const cipher = new PayloadCipher({
      encryption: suite.encryption,
      integrity: suite.integrity,
      encryptionKey: new Uint8Array(suite.keyBits / 8 + suite.encryption.saltBytes).fill(7),
      integrityKey: new Uint8Array(suite.integrity?.keyBytes ?? 0).fill(8),
    })
    const payloads: Payload[] = [notify(NotifyType.COOKIE2, new Uint8Array(3000).fill(5))]
    const message = sealMessage(cipher, head, payloads, random)
    const outer = parseMessage(message)
    const opened = openMessage(cipher, message.slice(), outer.encryptedAt, false)
    t.same(parseInner(opened.plaintext, outer.innerType).payloads, payloads)
    for (let at = 0; at < message.length; at += 97) {
      const changed = message.slice()
      changed[at] = (changed[at] ?? 0) ^ 1
      t.not(openMessage(cipher, changed, 28, false).fault, 0, `${at}`)
    }
    const fragments = sealFragments(cipher, head, payloads, 548, random)
    t.ok(fragments.length > 5)
    const set = new FragmentSet(3)
    for (const fragment of [...fragments].reverse()) {
      t.ok(fragment.length <= 548)
      const chain = parseMessage(fragment)
      const skf = chain.payloads[0]
      if (skf?.type !== 'SKF') {
        t.fail('not a fragment')
        return
      }
      const swapped = fragment.slice()
      swapped[33] = (swapped[33] ?? 0) ^ 1
      t.not(openMessage(cipher, swapped, 28, true).fault, 0, 'the fragment number is covered')
      const part = openMessage(cipher, fragment.slice(), 28, true)
      set.add(skf.fragmentNumber, skf.totalFragments, chain.innerType, part.plaintext, 548)
    }
    t.same(parseInner(set.join(), set.innerType).payloads, payloads)
  }
})

t.test('fragments: duplicates, other totals and too much', async t => {
  const set = new FragmentSet(1)
  const part = new Uint8Array(1000)
  t.equal(set.add(1, 3, 41, part, 100), 'stored')
  t.equal(set.add(1, 3, 41, part, 100), 'duplicate')
  t.equal(set.add(1, 2, 41, part, 100), 'smaller-total')
  t.equal(set.add(2, 4, 0, part, 100), 'stored', 'a larger total starts anew')
  t.equal(set.add(1, 4, 41, part, 100), 'stored')
  t.equal(set.add(3, 4, 0, part, 100), 'stored')
  t.equal(set.add(4, 4, 0, new Uint8Array(65_000), 100), 'oversize')
  t.equal(set.add(4, 4, 0, part, 100), 'complete')
  t.equal(set.join().length, 4000)
})

t.test('proposals: our order decides, one transform per type comes back', async t => {
  const offer = ikeProposals(defaultIkeAlgorithms, new Uint8Array(0))
  const choice = chooseIke(
    offer,
    defaultIkeAlgorithms,
    KeyExchangeId.modp2048,
    new Uint8Array(0),
    0,
  )
  t.equal(choice?.suite.encryption.id, EncryptionId.aesGcm16)
  t.equal(choice?.suite.keyExchangeId, KeyExchangeId.modp2048, 'the group that was sent')
  t.ok(choice && isAnswer([choice.answer]))
  t.notOk(isAnswer(offer))
  const cbcFirst = {
    ...defaultIkeAlgorithms,
    encryption: [{ id: EncryptionId.aesCbc, keyBits: 256 }],
  }
  const cbc = chooseIke(offer, cbcFirst, undefined, new Uint8Array(0), 0)
  t.equal(cbc?.answer.proposalNumber, 2, "the peer's number is kept")
  t.equal(cbc?.suite.integrity?.id, IntegrityId.hmacSha256_128)
  const withUnknown = offer.map(row => ({
    ...row,
    transforms: [...row.transforms, { transformType: 99, transformId: 1, attributes: [] }],
  }))
  t.equal(chooseIke(withUnknown, defaultIkeAlgorithms, 31, new Uint8Array(0), 0), undefined)
  const noLength = offer.map(row => ({
    ...row,
    transforms: row.transforms.map(item => ({ ...item, attributes: [] })),
  }))
  const bare = chooseIke(noLength, defaultIkeAlgorithms, 31, new Uint8Array(0), 0)
  t.equal(bare?.suite.encryption.id, EncryptionId.chacha20Poly1305, 'AES needs a key length')
  t.equal(chooseIke(offer, defaultIkeAlgorithms, 31, new Uint8Array(0), 8), undefined, 'SPI size')
})

t.test('ESP proposals: with and without a key exchange (macOS, iOS, Windows)', async t => {
  const spi = fromHex('00001001')
  const context = (sentGroup: number | undefined) => ({ spi, keyExchange: { sentGroup } })
  const none = espProposals(defaultEspAlgorithms, spi, [])
  const both = espProposals(defaultEspAlgorithms, spi, [14, 0])
  const only = espProposals(defaultEspAlgorithms, spi, [14])
  const group = (offer: typeof none, sent: number | undefined, required = false) =>
    chooseEsp(offer, { ...defaultEspAlgorithms, requiresKeyExchange: required }, context(sent))
      ?.suite.keyExchangeId
  t.equal(group(none, undefined), 0)
  t.equal(group(both, 14), 14)
  t.equal(group(both, undefined), 0)
  t.equal(group(only, 14), 14)
  t.equal(group(only, undefined), 14, 'the answer will be INVALID_KE_PAYLOAD')
  t.equal(group(none, undefined, true), undefined)
  t.equal(group(both, undefined, true), 14)
  t.equal(
    chooseEsp(only, defaultEspAlgorithms, { spi, keyExchange: 'ignore' })?.suite.keyExchangeId,
    0,
    'in IKE_AUTH groups mean nothing',
  )
})

t.test('traffic selectors narrow as sets', async t => {
  const net = (address: number, prefixLength: number) => ipv4Selector({ address, prefixLength })
  const show = (list: ReturnType<typeof narrow>) => list.map(describeSelector)
  t.same(show(narrow(everything, [net(0x0a000000, 8)])), ['10.0.0.0-10.255.255.255'])
  t.same(show(narrow([net(0x0a000000, 8)], [net(0x0a010000, 16), net(0x0b000000, 8)])), [
    '10.1.0.0-10.1.255.255',
  ])
  t.same(show(narrow([net(0x0a000000, 8)], [net(0x0b000000, 8)])), [])
  const dns = { ...net(0x0a000001, 32), ipProtocol: 17, startPort: 53, endPort: 53 }
  t.same(show(narrow([dns, ...everything], [net(0x0a000000, 8)])), ['10.0.0.0-10.255.255.255'])
  t.same(show(narrow([dns], everything)), ['10.0.0.1/17:53-53'])
  t.ok(isWithin([dns], everything))
  t.notOk(isWithin(everything, [dns]))
  t.same(
    show(
      narrow(everything, [
        ipv6Selector({ address: fromHex('fd'.padEnd(32, '0')), prefixLength: 8 }),
      ]),
    ),
    ['fd00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'],
  )
  t.equal(describeSelector(hostSelector(fromHex('01010101'))), '1.1.1.1')
  const opaque = { ...net(0, 0), startPort: 65_535, endPort: 0 }
  t.same(narrow([opaque], everything), [])
})

t.test('nonces are compared byte by byte, a prefix is lower', async t => {
  const a = fromHex('0102')
  t.ok(compareNonces(a, fromHex('0103')) < 0)
  t.ok(compareNonces(a, fromHex('010200')) < 0)
  t.ok(compareNonces(fromHex('ff'), a) > 0)
  t.equal(lowestNonce(fromHex('ff'), a, fromHex('0103')), a)
})

t.test('signatures: every scheme signs and verifies, none verifies for another', async t => {
  const octets = utf8('octets')
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const p384 = generateKeyPairSync('ec', { namedCurve: 'P-384' })
  const ed = generateKeyPairSync('ed25519')
  const policy = { acceptsSha1: true, prefersPss: false }
  const all = parseSignatureHashes(signatureHashes(policy))
  const cases = [
    { pair: rsa, hashes: all, prefersPss: false, scheme: 'RSA-PKCS1-SHA256' },
    { pair: rsa, hashes: all, prefersPss: true, scheme: 'RSA-PSS-SHA256' },
    { pair: rsa, hashes: [SignatureHash.sha512], prefersPss: true, scheme: 'RSA-PSS-SHA512' },
    { pair: rsa, hashes: [], prefersPss: true, scheme: 'RSA-PKCS1-SHA1' },
    { pair: p384, hashes: all, prefersPss: false, scheme: 'ECDSA-SHA384' },
    { pair: p384, hashes: [], prefersPss: false, scheme: 'ECDSA-384' },
    { pair: ed, hashes: all, prefersPss: false, scheme: 'Ed25519' },
  ]
  for (const { pair, hashes, prefersPss, scheme } of cases) {
    const signature = signOctets(pair.privateKey, octets, hashes, { ...policy, prefersPss })
    if (signature === undefined) {
      t.fail(scheme)
      return
    }
    const verdict = verifySignature(pair.publicKey, octets, signature, policy)
    t.equal(verdict.type === 'valid' && verdict.scheme, scheme)
    t.equal(verifySignature(pair.publicKey, utf8('octet5'), signature, policy).type, 'invalid')
    for (const other of [rsa, p384, ed]) {
      if (other === pair) continue
      t.equal(verifySignature(other.publicKey, octets, signature, policy).type, 'invalid')
    }
    for (let at = 0; at < signature.data.length; at += 5) {
      const changed = signature.data.slice()
      changed[at] = (changed[at] ?? 0) ^ 0x40
      const result = verifySignature(
        pair.publicKey,
        octets,
        { ...signature, data: changed },
        policy,
      )
      t.equal(result.type, 'invalid', `${scheme} byte ${at}`)
    }
    for (const length of [0, 1, 5, signature.data.length - 1]) {
      const data = signature.data.slice(0, length)
      t.equal(
        verifySignature(pair.publicKey, octets, { ...signature, data }, policy).type,
        'invalid',
      )
    }
  }
  t.equal(signOctets(ed.privateKey, octets, [], policy), undefined, 'no old method for Ed25519')
  t.test('Android signs PKCS #1 with SHA-1 in the general form: a switch decides', async t => {
    const identifier = fromHex('300d06092a864886f70d0101050500')
    const data = Uint8Array.from([15, ...identifier, ...sign('sha1', octets, rsa.privateKey)])
    const signature = { method: 14, data }
    t.equal(verifySignature(rsa.publicKey, octets, signature, policy).type, 'valid')
    const strict = { ...policy, acceptsSha1: false }
    t.same(verifySignature(rsa.publicKey, octets, signature, strict), {
      type: 'invalid',
      detail: 'sha1',
    })
  })
  t.test('small keys are weak', async t => {
    t.notOk(isStrongKey(generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey))
    const exponent = { modulusLength: 2048, publicExponent: 3 }
    t.notOk(isStrongKey(generateKeyPairSync('rsa', exponent).publicKey))
    t.notOk(isStrongKey(generateKeyPairSync('ec', { namedCurve: 'secp256k1' }).publicKey))
    t.ok(isStrongKey(rsa.publicKey))
  })
})
