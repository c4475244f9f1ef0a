import { createHash, createHmac } from 'node:crypto'
import fc from 'fast-check'
import t from 'tap'
import { concatBytes, fromHex, toHex, utf8 } from '../../../lib/core/bytes.ts'
import { WireFault } from '../../../lib/core/faults.ts'
import { SeededRandom } from '../../../lib/core/random.ts'
import { Secret } from '../../../lib/core/secret.ts'
import {
  EncryptionId,
  encryptionTransform,
  IntegrityId,
  integrityTransform,
} from '../../../lib/crypto/transforms.ts'
import { fragment, Reassembly } from '../../../lib/ikev1/fragments.ts'
import { exchangeIv, Phase1Keys, phase1Iv } from '../../../lib/ikev1/key-schedule.ts'
import { detectNat, natPayloads } from '../../../lib/ikev1/path.ts'
import {
  choosePhase1,
  choosePhase2,
  createPolicy,
  phase1Offer,
  phase2Offer,
} from '../../../lib/ikev1/policy.ts'
import { keysFor } from '../../../lib/ikev1/pre-shared-keys.ts'
import { CbcChain } from '../../../lib/ikev1/protection.ts'
import { newestNatTraversal, vendorIdName, vendorIds } from '../../../lib/ikev1/vendor-ids.ts'
import type { Attribute } from '../../../lib/ikev1/wire/attributes.ts'
import {
  checkHeader,
  encodeHeader,
  HEADER_BYTES,
  type IsakmpHeader,
  parseHeader,
} from '../../../lib/ikev1/wire/header.ts'
import {
  encodePayloads,
  firstPayloadType,
  idPayload,
  type Payload,
  parsePayloads,
  saPayload,
} from '../../../lib/ikev1/wire/payload.ts'
import { encodeProposals, type Proposal, parseProposals } from '../../../lib/ikev1/wire/sa.ts'

const bytes = (max: number, min = 0) => fc.uint8Array({ minLength: min, maxLength: max })
const attributes: fc.Arbitrary<Attribute> = fc.record({
  type: fc.nat(0x7fff),
  value: fc.oneof(fc.nat(0xffff), fc.integer({ min: 0x1_0000, max: 0xffffffff }), bytes(20, 5)),
})
const proposals: fc.Arbitrary<Proposal> = fc.record({
  number: fc.nat(255),
  protocolId: fc.nat(255),
  spi: bytes(16),
  transforms: fc.array(
    fc.record({
      number: fc.nat(255),
      id: fc.nat(255),
      attributes: fc.array(attributes, { maxLength: 6 }),
    }),
    { maxLength: 6 },
  ),
})
const payloads: fc.Arbitrary<Payload> = fc.oneof(
  fc.array(proposals, { minLength: 1, maxLength: 4 }).map(saPayload),
  ...(['KE', 'HASH', 'SIG', 'NONCE', 'VID'] as const).map(type =>
    bytes(100).map((data): Payload => ({ type, data })),
  ),
  fc
    .record({ idType: fc.nat(255), protocol: fc.nat(255), port: fc.nat(0xffff), data: bytes(30) })
    .map(idPayload),
  fc.record({ type: fc.constant('CERT' as const), encoding: fc.nat(255), data: bytes(100) }),
  fc.record({ type: fc.constant('CR' as const), encoding: fc.nat(255), data: bytes(50) }),
  fc.record({
    type: fc.constant('N' as const),
    protocolId: fc.nat(255),
    notifyType: fc.nat(0xffff),
    spi: bytes(16),
    data: bytes(40),
  }),
  fc.record({
    type: fc.constant('D' as const),
    protocolId: fc.nat(255),
    spis: fc.array(bytes(4, 4), { minLength: 1, maxLength: 5 }),
  }),
  fc.record({ type: fc.constant('NAT-D' as const), isDraft: fc.boolean(), data: bytes(20) }),
  fc.record({
    type: fc.constant('NAT-OA' as const),
    isDraft: fc.boolean(),
    idType: fc.nat(255),
    data: bytes(16),
  }),
  bytes(30).map((data): Payload => ({ type: 'unknown', payloadType: 99, data })),
)

t.test('payloads survive encoding, with padding behind them', async t => {
  fc.assert(
    fc.property(fc.array(payloads, { minLength: 1, maxLength: 8 }), bytes(15), (list, padding) => {
      const encoded = encodePayloads(list)
      const padded = concatBytes(encoded, padding)
      const parsed = parsePayloads(padded, 0, padded.length, firstPayloadType(list))
      if (typeof parsed === 'number') return false
      t.same(parsed.payloads, list)
      return parsed.end === encoded.length
    }),
    { seed: 2408, numRuns: 300 },
  )
})

t.test('headers survive encoding, and wrong ones have a fault each', async t => {
  const header: IsakmpHeader = {
    initiatorCookie: fromHex('0102030405060708'),
    responderCookie: fromHex('1112131415161718'),
    nextPayload: 1,
    exchangeType: 2,
    flags: 1,
    messageId: 0xdeadbeef,
    length: 40,
  }
  const out = new Uint8Array(40).fill(0xa5)
  t.equal(encodeHeader(header, out, 0), HEADER_BYTES)
  t.same(parseHeader(out, 0), header)
  t.equal(checkHeader(out, 0, 40), WireFault.none)
  t.equal(checkHeader(out, 0, 39), WireFault['length-overrun'])
  t.equal(checkHeader(out, 0, 27), WireFault.truncated)
  out[17] = 0x20
  t.equal(checkHeader(out, 0, 40), WireFault['bad-version'], 'IKEv2')
  out[17] = 0x10
  out[27] = 20
  t.equal(checkHeader(out, 0, 40), WireFault['length-too-small'])
  const huge = new Uint8Array(20_000)
  encodeHeader({ ...header, length: 20_000 }, huge, 0)
  t.equal(checkHeader(huge, 0, 20_000), WireFault.oversize)
})

t.test('malformed payloads have a fault each', async t => {
  const parse = (hex: string, first: number) => {
    const buf = fromHex(hex)
    return parsePayloads(buf, 0, buf.length, first)
  }
  const cases: [string, string, number, WireFault][] = [
    ['no room for a header', '0000', 13, WireFault.truncated],
    ['length 0', '00000000', 13, WireFault['length-too-small']],
    ['length 3', '00000003', 13, WireFault['length-too-small']],
    ['past the end', '00000009aabb', 13, WireFault['length-overrun']],
    ['nothing follows', '0d000004', 13, WireFault.truncated],
    ['64 and one more', '0d000004'.repeat(65), 13, WireFault['too-many']],
    ['a short ID', '000000070102', 5, WireFault['length-overrun']],
    ['an ID without its fields', '00000006 0102', 5, WireFault.truncated],
    ['a certificate without encoding', '00000004', 6, WireFault.truncated],
    ['a notify without its fields', '00000008 00000001', 11, WireFault.truncated],
    ['a notify with a long SPI', '0000000c 00000001 01 11 0001', 11, WireFault.oversize],
    ['an SPI past the end', '0000000c 00000001 01 04 0001', 11, WireFault['length-overrun']],
    ['a delete of 65,535', '0000000c 00000001 03 04 ffff', 12, WireFault['too-many']],
    ['a delete past the end', '0000000c 00000001 03 04 0001', 12, WireFault['length-overrun']],
    ['a short NAT-OA', '00000006 0100', 21, WireFault.truncated],
    ['an SA without a DOI', '00000006 0000', 1, WireFault.truncated],
    ['another DOI', '0000000c 00000002 00000001', 1, WireFault['bad-value']],
    ['another situation', '0000000c 00000001 00000004', 1, WireFault['bad-value']],
    ['no proposal', '0000000c 00000001 00000001', 1, WireFault.truncated],
  ]
  for (const [name, hex, first, fault] of cases) t.equal(parse(hex, first), fault, name)
  const sa = (hex: string) => {
    const buf = fromHex(`0000000100000001${hex}`)
    return parseProposals(buf, 0, buf.length)
  }
  t.equal(sa('0000000701010000'), WireFault['length-too-small'])
  t.equal(sa('0000000801010100'), WireFault['length-too-small'], 'the SPI does not fit')
  t.equal(sa('0000000a01010000'), WireFault['length-overrun'])
  t.equal(sa('00000008 01 01 00 01'), WireFault.truncated, 'a promised transform')
  t.equal(sa('00000010 01 01 00 01 00000007 01010000'), WireFault['length-too-small'])
  t.equal(sa('00000010 01 01 00 01 00000009 01010000'), WireFault['length-overrun'])
  t.equal(sa('00000012 01 01 00 01 0000000a 01010000 8001'), WireFault.truncated)
  t.equal(sa('00000014 01 01 00 01 0000000c 01010000 00010009'), WireFault['length-overrun'])
  t.equal(sa('05000008 01 01 00 00'), WireFault['bad-value'])
  t.equal(sa(`02000008 01010000`.repeat(65)), WireFault['too-many'])
  const many = { number: 1, protocolId: 1, spi: fromHex(''), transforms: [] }
  const transforms = Array.from({ length: 100 }, (_, i) => ({ number: i, id: 1, attributes: [] }))
  const hundred = encodeProposals([{ ...many, transforms }])
  const parsed = parseProposals(hundred, 0, hundred.length)
  t.ok(typeof parsed !== 'number' && parsed[0]?.transforms.length === 100)
  const body = encodeProposals([many, many, many].map(one => ({ ...one, transforms })))
  t.equal(parseProposals(body, 0, body.length), WireFault['too-many'])
})

t.test('arbitrary bytes never throw', async t => {
  fc.assert(
    fc.property(bytes(200), fc.nat(140), (buf, first) => {
      parsePayloads(buf, 0, buf.length, first)
      parseProposals(buf, 0, buf.length)
      checkHeader(buf, 0, buf.length)
    }),
    { seed: 5, numRuns: 5_000 },
  )
  fc.assert(
    fc.property(
      fc.array(payloads, { minLength: 1, maxLength: 4 }),
      fc.nat(),
      fc.nat(255),
      (list, at, value) => {
        const buf = encodePayloads(list)
        if (buf.length > 0) buf[at % buf.length] = value
        parsePayloads(buf, 0, buf.length, firstPayloadType(list))
      },
    ),
    { seed: 6, numRuns: 2_000 },
  )
  t.pass('nothing was thrown')
})

t.test('vendor IDs are the digests of their texts, and are recognised', async t => {
  const texts = {
    'RFC 3947': 'RFC 3947',
    'draft-ietf-ipsec-nat-t-ike-03': 'draft-ietf-ipsec-nat-t-ike-03',
    'draft-ietf-ipsec-nat-t-ike-02-lf': 'draft-ietf-ipsec-nat-t-ike-02\n',
    'draft-ietf-ipsec-nat-t-ike-02': 'draft-ietf-ipsec-nat-t-ike-02',
    'draft-ietf-ipsec-nat-t-ike-00': 'draft-ietf-ipsec-nat-t-ike-00',
    'MS NT5 ISAKMPOAKLEY': 'MS NT5 ISAKMPOAKLEY',
    FRAGMENTATION: 'FRAGMENTATION',
    'MS-Negotiation Discovery Capable': 'MS-Negotiation Discovery Capable',
    'Vid-Initial-Contact': 'Vid-Initial-Contact',
    'IKE CGA version 1': 'IKE CGA version 1',
    strongSwan: 'strongSwan',
  } as const
  for (const [name, text] of Object.entries(texts)) {
    const hash = Uint8Array.from(createHash('md5').update(text).digest())
    t.equal(toHex(vendorIds[name as keyof typeof texts].bytes), toHex(hash), name)
  }
  t.equal(vendorIdName(fromHex('AFCAD71368A1F1C96B8696FC77570100')), 'DPD')
  t.equal(vendorIdName(fromHex('1E2B516905991C7D7C96FCBFB587E46100000009')), 'MS NT5 ISAKMPOAKLEY')
  t.equal(vendorIdName(fromHex('4A131C81070358455C5728F20E95452F00')), undefined)
  t.equal(vendorIdName(fromHex('')), undefined)
  t.equal(
    newestNatTraversal(new Set(['draft-ietf-ipsec-nat-t-ike-02-lf', 'RFC 3947'] as const)),
    'RFC 3947',
    'Windows lists both',
  )
})

const aesCbc = encryptionTransform(EncryptionId.aesCbc)
const sha1 = integrityTransform(IntegrityId.hmacSha1_96)
const cookies = {
  initiatorCookie: fromHex('0102030405060708'),
  responderCookie: fromHex('1112131415161718'),
}

t.test('keys are those of RFC 2409 section 5 and appendix B', async t => {
  if (aesCbc === undefined || sha1 === undefined) return
  const suite = { encryption: aesCbc, keyBits: 256, hash: 'sha1' as const, group: 14 }
  const nonceI = fromHex('aa'.repeat(16))
  const nonceR = fromHex('bb'.repeat(20))
  const shared = fromHex('cc'.repeat(256))
  const hmac = (key: Uint8Array, ...parts: Uint8Array[]) => {
    const state = createHmac('sha1', key)
    for (const part of parts) state.update(part)
    return Uint8Array.from(state.digest())
  }
  const { initiatorCookie: ckyI, responderCookie: ckyR } = cookies
  for (const psk of [Secret.fromText('secret'), undefined]) {
    const keys = new Phase1Keys(suite, { nonceI, nonceR, shared, cookies }, psk)
    const skeyid =
      psk === undefined
        ? hmac(concatBytes(nonceI, nonceR), shared)
        : hmac(utf8('secret'), nonceI, nonceR)
    const d = hmac(skeyid, shared, ckyI, ckyR, fromHex('00'))
    const a = hmac(skeyid, d, shared, ckyI, ckyR, fromHex('01'))
    const e = hmac(skeyid, a, shared, ckyI, ckyR, fromHex('02'))
    const k1 = hmac(e, fromHex('00'))
    const k2 = hmac(e, k1)
    t.equal(toHex(keys.cipherKey), toHex(concatBytes(k1, k2).slice(0, 32)))
    const rest = utf8('rest')
    t.same(keys.messageHash(0x01020304, rest), hmac(a, fromHex('01020304'), rest))
    t.same(
      keys.confirmationHash(0x01020304, nonceI, nonceR),
      hmac(a, fromHex('0001020304'), nonceI, nonceR),
    )
    const child = { encryption: aesCbc, keyBits: 256, integrity: sha1, hasEsn: false }
    const spi = fromHex('c0ffee01')
    const made = keys.childKeys(child, 3, spi, nonceI, nonceR, undefined)
    const seed = concatBytes(fromHex('03'), spi, nonceI, nonceR)
    const m1 = hmac(d, seed)
    const m2 = hmac(d, m1, seed)
    const m3 = hmac(d, m2, seed)
    const material = concatBytes(m1, m2, m3)
    t.same(made.encryptionKey, material.slice(0, 32))
    t.same(made.integrityKey, material.slice(32, 52))
    keys.destroy()
    t.equal(toHex(keys.cipherKey), '00'.repeat(32), 'wiped')
  }
  const iv = Uint8Array.from(createHash('sha1').update(nonceI).update(nonceR).digest())
  t.same(phase1Iv(suite, nonceI, nonceR), iv.slice(0, 16))
  const other = createHash('sha1').update(nonceI).update(fromHex('01020304')).digest()
  t.same(exchangeIv(suite, nonceI, 0x01020304), Uint8Array.from(other).slice(0, 16))
})

t.test('the IV chain moves with good messages only', async t => {
  if (aesCbc === undefined) return
  const suite = { encryption: aesCbc, keyBits: 128, hash: 'sha256' as const, group: 14 }
  const secrets = { nonceI: fromHex('01'), nonceR: fromHex('02'), shared: fromHex('03'), cookies }
  const keys = new Phase1Keys(suite, secrets, Secret.fromText('x'))
  const iv = fromHex('00'.repeat(16))
  const ours = new CbcChain(keys, iv)
  const theirs = new CbcChain(keys, iv)
  for (const text of ['first', 'the second message, of two blocks', 'third']) {
    const sealed = ours.seal(utf8(text)) ?? new Uint8Array(0)
    t.equal(sealed.length % 16, 0)
    t.not(theirs.open(fromHex('ff'.repeat(16))), undefined, 'anybody can send a block')
    const opened = theirs.open(sealed)
    t.equal(toHex(opened?.plaintext.slice(0, text.length) ?? iv), toHex(utf8(text)))
    opened?.accept()
    t.same(theirs.iv, ours.iv)
  }
  t.equal(theirs.open(fromHex('00'.repeat(15))), undefined)
  t.equal(theirs.open(fromHex('')), undefined)
})

t.test('proposals are chosen by our order', async t => {
  const policy = createPolicy()
  const legacy = createPolicy({ allowsModp1024: true, allowsTripleDes: true })
  const transform = (...pairs: number[]) => ({
    number: 1,
    id: 1,
    attributes: Array.from(
      { length: pairs.length / 2 },
      (_, i): Attribute => ({
        type: pairs[2 * i] ?? 0,
        value: pairs[2 * i + 1] ?? 0,
      }),
    ),
  })
  const isakmp = (...transforms: ReturnType<typeof transform>[]): Proposal[] => [
    { number: 1, protocolId: 1, spi: fromHex(''), transforms },
  ]
  const life = [11, 1, 12, 28_800]
  // Field notes §2: Windows 10 and 11.
  const windows = isakmp(
    transform(1, 7, 14, 256, 2, 2, 4, 20, 3, 1, ...life),
    transform(1, 7, 14, 128, 2, 2, 4, 19, 3, 1, ...life),
    transform(1, 7, 14, 256, 2, 2, 4, 14, 3, 1, ...life),
    transform(1, 5, 2, 2, 4, 14, 3, 1, ...life),
    transform(1, 5, 2, 2, 4, 2, 3, 1, ...life),
  )
  const choice = choosePhase1(windows, policy, ['pre-shared-key'])
  if (typeof choice === 'string') return t.fail(choice)
  t.match(choice.suite, { keyBits: 256, hash: 'sha1', group: 14 })
  t.equal(choice.lifetimes.seconds, 28_800)
  t.same(choice.answer.transforms, [windows[0]?.transforms[2]], 'unchanged')
  const android = isakmp(
    transform(1, 7, 14, 256, 2, 4, 4, 2, 3, 1, ...life),
    transform(1, 5, 2, 2, 4, 2, 3, 1, ...life),
  )
  t.equal(choosePhase1(android, policy, ['pre-shared-key']), 'no-proposal-chosen')
  t.match(choosePhase1(android, legacy, ['pre-shared-key']), { suite: { keyBits: 256, group: 2 } })
  const des = isakmp(transform(1, 1, 2, 1, 4, 1, 3, 1))
  t.equal(choosePhase1(des, legacy, ['pre-shared-key']), 'no-proposal-chosen')
  const xauth = isakmp(transform(1, 7, 14, 256, 2, 2, 4, 14, 3, 65_001))
  t.equal(choosePhase1(xauth, policy, ['pre-shared-key']), 'xauth-refused')
  const noSha1 = createPolicy({ allowsSha1: false })
  t.equal(choosePhase1(windows, noSha1, ['pre-shared-key']), 'no-proposal-chosen')
  const own = phase1Offer(policy, 'rsa-signatures')
  t.equal(choosePhase1(own, policy, ['pre-shared-key']), 'no-proposal-chosen', 'other method')
  t.match(choosePhase1(own, policy, ['rsa-signatures']), { method: 'rsa-signatures' })
  t.ok(encodeProposals(own).length < 1_000, 'fits into one datagram')
  return undefined
})

t.test('phase 2 takes neither DES nor NULL nor half a combination', async t => {
  const policy = createPolicy()
  const spi = fromHex('01020304')
  const esp = (id: number, ...pairs: number[]): Proposal => ({
    number: 1,
    protocolId: 3,
    spi,
    transforms: [
      {
        number: 1,
        id,
        attributes: Array.from(
          { length: pairs.length / 2 },
          (_, i): Attribute => ({
            type: pairs[2 * i] ?? 0,
            value: pairs[2 * i + 1] ?? 0,
          }),
        ),
      },
    ],
  })
  const choose = (...list: Proposal[]) => choosePhase2(list, policy, ['udp-transport'])
  t.match(choose(esp(12, 4, 4, 5, 2, 6, 256)), { suite: { keyBits: 256 } })
  t.match(choose(esp(20, 4, 4, 6, 128)), { suite: { keyBits: 128, integrity: undefined } })
  const bad: [string, Proposal][] = [
    ['AES-CBC without integrity', esp(12, 4, 4, 6, 256)],
    ['AES-GCM with integrity', esp(20, 4, 4, 5, 2, 6, 256)],
    ['AES without a key length', esp(12, 4, 4, 5, 2)],
    ['AES with 64 bits', esp(12, 4, 4, 5, 2, 6, 64)],
    ['DES', esp(2, 4, 4, 5, 2)],
    ['NULL', esp(11, 4, 4, 5, 2)],
    ['3DES without the switch', esp(3, 4, 4, 5, 2)],
    ['MD5', esp(12, 4, 4, 5, 1, 6, 256)],
    ['tunnel mode', esp(12, 4, 3, 5, 2, 6, 256)],
    ['plain transport behind a NAT', esp(12, 4, 2, 5, 2, 6, 256)],
    ['a group that we do not know', esp(12, 4, 4, 5, 2, 6, 256, 3, 1)],
    ['AH', { ...esp(12, 4, 4, 5, 2, 6, 256), protocolId: 2 }],
    ['an SPI of 8 bytes', { ...esp(12, 4, 4, 5, 2, 6, 256), spi: fromHex('0102030405060708') }],
  ]
  for (const [name, proposal] of bad) t.equal(choose(proposal), 'no-proposal-chosen', name)
  const good = esp(12, 4, 4, 5, 2, 6, 256)
  t.equal(choose(good, { ...good, protocolId: 2 }), 'no-proposal-chosen', 'ESP and AH')
  t.match(choose({ ...good, number: 2 }, esp(3, 4, 4, 5, 2)), { encapsulation: 'udp-transport' })
  const draft = esp(12, 4, 61_444, 5, 2, 6, 256)
  t.match(choosePhase2([draft], policy, ['udp-transport-draft']), { suite: { keyBits: 256 } })
  t.equal(
    choosePhase2([good], createPolicy({ requiresPfs: true }), ['udp-transport']),
    'no-proposal-chosen',
  )
  const offer = phase2Offer(policy, spi, 'transport', 14)
  t.match(choosePhase2(offer, policy, ['transport']), { group: 14, lifetimes: { seconds: 3_600 } })
})

t.test('fragments come back together in any order, and are bounded', async t => {
  const whole = new Uint8Array(5_000)
  new SeededRandom(3).fill(whole)
  encodeHeader(
    { ...cookies, nextPayload: 5, exchangeType: 2, flags: 1, messageId: 0, length: 5_000 },
    whole,
    0,
  )
  const parts = fragment(whole, 7)
  t.equal(parts.length, 5)
  for (const part of parts) t.equal(checkHeader(part, 0, part.length), WireFault.none)
  const reassembly = new Reassembly()
  const order = [4, 0, 0, 2, 3, 1]
  const results = order.map(i => reassembly.add(parts[i] ?? whole))
  t.same(results.slice(0, -1), [undefined, undefined, undefined, undefined, undefined])
  t.same(results.at(-1), whole)
  const bad = (at: number, value: number) => {
    const copy = Uint8Array.from(parts[0] ?? whole)
    copy[at] = value
    return new Reassembly().add(copy)
  }
  t.equal(bad(HEADER_BYTES + 6, 0), WireFault['too-many'], 'number 0')
  t.equal(bad(HEADER_BYTES + 6, 33), WireFault['too-many'], 'number 33')
  t.equal(bad(HEADER_BYTES + 2, 0xff), WireFault['length-overrun'])
  const short = Uint8Array.from(parts[0] ?? whole)
  short[HEADER_BYTES + 2] = 0
  short[HEADER_BYTES + 3] = 8
  t.equal(new Reassembly().add(short), WireFault['length-too-small'])
  const greedy = new Reassembly()
  let fault: unknown
  for (let i = 1; i <= 20; i++) {
    const copy = Uint8Array.from(parts[0] ?? whole)
    copy[HEADER_BYTES + 6] = i
    fault = greedy.add(copy) ?? fault
  }
  t.equal(fault, WireFault.oversize)
  const last = Uint8Array.from(parts[0] ?? whole)
  last[HEADER_BYTES + 7] = 1
  const odd = new Reassembly()
  odd.add(parts[2] ?? whole)
  t.equal(odd.add(last) instanceof Uint8Array, false, 'a last number below the others')
  fc.assert(
    fc.property(fc.array(bytes(60, 36), { maxLength: 10 }), list => {
      const one = new Reassembly()
      for (const datagram of list) {
        encodeHeader(
          {
            ...cookies,
            nextPayload: 132,
            exchangeType: 2,
            flags: 0,
            messageId: 0,
            length: datagram.length,
          },
          datagram,
          0,
        )
        one.add(datagram)
      }
    }),
    { seed: 8, numRuns: 2_000 },
  )
})

t.test('NAT detection sees each side, and a lie looks like a NAT', async t => {
  const path = {
    local: { address: '192.0.2.1', port: 500 },
    peer: { address: '198.51.100.7', port: 500 },
    isFloated: false,
  }
  const mirrored = { local: path.peer, peer: path.local, isFloated: false }
  const found = (sent: typeof path, lies = false) =>
    detectNat(natPayloads('sha1', cookies, sent, false, lies), 'sha1', cookies, path)
  t.same(found(mirrored), { isLocalBehindNat: false, isPeerBehindNat: false })
  t.same(found({ ...mirrored, local: { address: '10.0.0.2', port: 500 } }), {
    isLocalBehindNat: false,
    isPeerBehindNat: true,
  })
  t.same(found({ ...mirrored, peer: { address: '203.0.113.9', port: 500 } }), {
    isLocalBehindNat: true,
    isPeerBehindNat: false,
  })
  t.same(found(mirrored, true), { isLocalBehindNat: false, isPeerBehindNat: true })
  t.equal(detectNat([], 'sha1', cookies, path), undefined)
})

t.test('pre-shared keys: the most specific first', async t => {
  const anyone = { scope: { type: 'anyone' as const }, key: Secret.fromText('any') }
  const net = (address: number, prefixLength: number, text: string) => ({
    scope: { type: 'ipv4' as const, network: { address, prefixLength } },
    key: Secret.fromText(text),
  })
  const keys = [anyone, net(0xc6336400, 24, 'net'), net(0xc6336407, 32, 'host')]
  const names = (address: string) => keysFor(keys, address).map(key => key.exposeText())
  t.same(names('198.51.100.7'), ['host', 'net', 'any'])
  t.same(names('198.51.100.8'), ['net', 'any'])
  t.same(names('192.0.2.1'), ['any'])
  t.same(names('2001:db8::1'), ['any'])
  t.same(keysFor([], '192.0.2.1'), [])
})
