import fc from 'fast-check'
import t from 'tap'
import { fromHex, toHex } from '../../../lib/core/bytes.ts'
import { faultName, WireFault } from '../../../lib/core/faults.ts'
import { exchangeRules, legality, unknownCritical } from '../../../lib/ikev2/wire/exchange-rules.ts'
import { ExchangeType, exchangeName } from '../../../lib/ikev2/wire/exchange-type.ts'
import {
  checkHeader,
  encodeHeader,
  HEADER_BYTES,
  type Header,
  parseHeader,
} from '../../../lib/ikev2/wire/header.ts'
import { encodeMessage, parseMessage } from '../../../lib/ikev2/wire/message.ts'
import { notify } from '../../../lib/ikev2/wire/notify.ts'
import { isErrorNotify, NotifyType, notifyName } from '../../../lib/ikev2/wire/notify-type.ts'
import type { Payload } from '../../../lib/ikev2/wire/payload.ts'
import {
  encodePayloadChain,
  PAYLOADS_MAX,
  parsePayloadChain,
  payloadChainBytes,
} from '../../../lib/ikev2/wire/payload-chain.ts'
import { PayloadType } from '../../../lib/ikev2/wire/payload-type.ts'

const seed = 20260731

const bytes = (minLength: number, maxLength: number) => fc.uint8Array({ minLength, maxLength })
const u8 = fc.integer({ min: 0, max: 255 })
const u16 = fc.integer({ min: 0, max: 65_535 })

const attribute = fc.record({
  attributeType: fc.integer({ min: 0, max: 0x7fff }),
  value: fc.oneof(u16, bytes(0, 12)),
})
const transform = fc.record({
  transformType: u8,
  transformId: u16,
  attributes: fc.array(attribute, { maxLength: 3 }),
})
const proposal = fc.record({
  proposalNumber: u8,
  protocolId: u8,
  spi: bytes(0, 8),
  transforms: fc.array(transform, { maxLength: 6 }),
})
const selector = fc.oneof(
  fc.record({
    family: fc.constant(4 as const),
    ipProtocol: u8,
    startPort: u16,
    endPort: u16,
    startAddress: bytes(4, 4),
    endAddress: bytes(4, 4),
  }),
  fc.record({
    family: fc.constant(6 as const),
    ipProtocol: u8,
    startPort: u16,
    endPort: u16,
    startAddress: bytes(16, 16),
    endAddress: bytes(16, 16),
  }),
)
const identification = fc.oneof(
  fc.record({ idType: fc.constantFrom(2, 3, 9, 10, 11, 13, 99), data: bytes(0, 40) }),
  fc.record({ idType: fc.constant(1), data: bytes(4, 4) }),
  fc.record({ idType: fc.constant(5), data: bytes(16, 16) }),
)

/** Any payload that may stand before others (SK and SKF end a chain). */
const payload: fc.Arbitrary<Payload> = fc.oneof(
  fc.record({
    type: fc.constant('SA' as const),
    proposals: fc.array(proposal, { minLength: 1, maxLength: 4 }),
  }),
  fc.record({ type: fc.constant('KE' as const), group: u16, publicValue: bytes(0, 60) }),
  identification.map(id => ({ type: 'IDi' as const, ...id })),
  identification.map(id => ({ type: 'IDr' as const, ...id })),
  fc.record({ type: fc.constant('CERT' as const), encoding: u8, data: bytes(0, 60) }),
  fc.record({
    type: fc.constant('CERTREQ' as const),
    encoding: fc.constantFrom(4, 7),
    authorities: fc.constantFrom(new Uint8Array(0), new Uint8Array(40).fill(3)),
  }),
  fc.record({ type: fc.constant('AUTH' as const), method: u8, data: bytes(0, 60) }),
  fc.record({ type: fc.constant('Nonce' as const), data: bytes(16, 256) }),
  fc.record({
    type: fc.constant('N' as const),
    protocolId: u8,
    spi: bytes(0, 8),
    notifyType: u16,
    data: bytes(0, 30),
  }),
  fc.oneof(
    fc.record({
      type: fc.constant('D' as const),
      protocolId: fc.constant(3),
      spis: fc.array(bytes(4, 4), { minLength: 1, maxLength: 5 }),
    }),
    fc.constant({ type: 'D' as const, protocolId: 1, spis: [] }),
  ),
  fc.record({ type: fc.constant('V' as const), data: bytes(0, 30) }),
  fc.record({
    type: fc.constant('TSi' as const),
    selectors: fc.array(selector, { minLength: 1, maxLength: 4 }),
  }),
  fc.record({
    type: fc.constant('TSr' as const),
    selectors: fc.array(selector, { minLength: 1, maxLength: 4 }),
  }),
  fc.record({
    type: fc.constant('CP' as const),
    configurationType: u8,
    attributes: fc.array(
      fc.record({ attributeType: fc.integer({ min: 0, max: 0x7fff }), value: bytes(0, 17) }),
      { maxLength: 5 },
    ),
  }),
  fc.record({ type: fc.constant('EAP' as const), data: bytes(4, 40) }),
  fc.record({
    type: fc.constant('unknown' as const),
    code: fc.constantFrom(1, 32, 49, 52, 54, 200, 255),
    isCritical: fc.boolean(),
    data: bytes(0, 20),
  }),
)
const ending: fc.Arbitrary<Payload | undefined> = fc.oneof(
  fc.constant(undefined),
  fc.record({ type: fc.constant('SK' as const), data: bytes(0, 40) }),
  fc.record({
    type: fc.constant('SKF' as const),
    fragmentNumber: fc.integer({ min: 1, max: 64 }),
    totalFragments: fc.constant(64),
    data: bytes(0, 40),
  }),
)

const head = {
  initiatorSpi: fromHex('0102030405060708'),
  responderSpi: fromHex('1112131415161718'),
  exchangeType: ExchangeType.IKE_AUTH,
  isFromInitiator: true,
  isResponse: false,
  canHigherVersion: false,
  messageId: 7,
}

t.test('the header survives encoding, in exactly 28 bytes', async t => {
  const header: fc.Arbitrary<Header> = fc.record({
    initiatorSpi: bytes(8, 8),
    responderSpi: bytes(8, 8),
    nextPayload: u8,
    exchangeType: u8,
    isFromInitiator: fc.boolean(),
    isResponse: fc.boolean(),
    canHigherVersion: fc.boolean(),
    messageId: fc.integer({ min: 0, max: 0xffffffff }),
    lengthBytes: fc.constant(HEADER_BYTES),
  })
  fc.assert(
    fc.property(header, value => {
      const out = new Uint8Array(HEADER_BYTES + 2).fill(0xa5)
      t.equal(encodeHeader(value, out, 1), HEADER_BYTES + 1)
      t.equal(out[0], 0xa5)
      t.equal(out[HEADER_BYTES + 1], 0xa5)
      const wire = out.slice(1, HEADER_BYTES + 1)
      t.equal(checkHeader(wire), WireFault.none)
      t.same(parseHeader(wire), value)
    }),
    { seed, numRuns: 100 },
  )
})

t.test('a header with a wrong version or length is told by its fault', async t => {
  const good = encodeMessage(head, [notify(NotifyType.COOKIE)])
  const bad = (change: (copy: Uint8Array) => void) => {
    const copy = good.slice()
    change(copy)
    return faultName(checkHeader(copy))
  }
  t.equal(checkHeader(good), WireFault.none)
  t.equal(faultName(checkHeader(good.subarray(0, 27))), 'truncated')
  t.equal(
    bad(copy => copy.fill(0x10, 17, 18)),
    'bad-version',
  )
  t.equal(
    bad(copy => copy.fill(0x2f, 17, 18)),
    'none',
    'a higher minor version is read',
  )
  t.equal(
    bad(copy => copy.fill(27, 27, 28)),
    'length-too-small',
  )
  t.equal(
    bad(copy => copy.fill(200, 27, 28)),
    'length-overrun',
  )
  t.equal(
    bad(copy => copy.fill(30, 27, 28)),
    'bad-value',
    'bytes after the message',
  )
  t.equal(
    bad(copy => copy.fill(1, 24, 25)),
    'oversize',
  )
})

t.test('every payload survives encoding and fills exactly its length', async t => {
  fc.assert(
    fc.property(fc.array(payload, { maxLength: 8 }), ending, (list, last) => {
      const payloads = last === undefined ? list : [...list, last]
      const lengthBytes = payloadChainBytes(payloads)
      const out = new Uint8Array(lengthBytes + 2).fill(0xa5)
      t.equal(encodePayloadChain(payloads, out, 1), lengthBytes + 1)
      t.equal(out[0], 0xa5)
      t.equal(out[lengthBytes + 1], 0xa5)
      if (payloads.length === 0) return
      const message = encodeMessage(head, payloads)
      const parsed = parseMessage(message)
      t.equal(parsed.fault, WireFault.none)
      t.same(parsed.payloads, payloads)
      t.equal(parsed.encryptedAt >= 0, last !== undefined)
    }),
    { seed, numRuns: 400 },
  )
})

t.test('arbitrary bytes never throw, and make progress', async t => {
  fc.assert(
    fc.property(bytes(0, 300), u8, (buf, type) => {
      const chain = parsePayloadChain(buf, 0, type)
      t.ok(chain.payloads.length <= PAYLOADS_MAX)
      if (chain.fault) t.equal(chain.payloads.length, 0)
    }),
    { seed, numRuns: 3000 },
  )
  for (const type of Object.values(PayloadType)) {
    fc.assert(
      fc.property(bytes(0, 120), body => {
        const chain = new Uint8Array(4 + body.length)
        chain[3] = chain.length
        chain.set(body, 4)
        parsePayloadChain(chain, 0, type)
      }),
      { seed, numRuns: 500 },
    )
  }
})

t.test('each payload, cut or with a false length, is a fault or another value', async t => {
  fc.assert(
    fc.property(payload, fc.nat(200), u8, (item, at, value) => {
      const message = encodeMessage(head, [item])
      const cut = message.slice(0, Math.max(HEADER_BYTES, message.length - 1 - (at % 20)))
      t.not(parseMessage(cut).fault, WireFault.none)
      const changed = message.slice()
      changed[HEADER_BYTES + (at % (message.length - HEADER_BYTES))] = value
      const parsed = parseMessage(changed)
      // Whatever was read can be written again.
      if (!parsed.fault) payloadChainBytes(parsed.payloads)
    }),
    { seed, numRuns: 2000 },
  )
})

t.test(
  'too many payloads, proposals, transforms, selectors and attributes are refused',
  async t => {
    const many = Array.from({ length: PAYLOADS_MAX + 1 }, () => notify(NotifyType.COOKIE))
    t.equal(faultName(parseMessage(encodeMessage(head, many)).fault), 'too-many')
    const proposalOf = (transforms: number) => ({
      proposalNumber: 1,
      protocolId: 1,
      spi: new Uint8Array(0),
      transforms: Array.from({ length: transforms }, () => ({
        transformType: 1,
        transformId: 12,
        attributes: [],
      })),
    })
    const sa = (proposals: ReturnType<typeof proposalOf>[]) =>
      faultName(parseMessage(encodeMessage(head, [{ type: 'SA', proposals }])).fault)
    t.equal(sa([proposalOf(128)]), 'none')
    t.equal(sa([proposalOf(129)]), 'too-many')
    t.equal(sa(Array.from({ length: 65 }, () => proposalOf(1))), 'too-many')
    const selectors = Array.from({ length: 129 }, () => ({
      family: 4 as const,
      ipProtocol: 0,
      startPort: 0,
      endPort: 1,
      startAddress: new Uint8Array(4),
      endAddress: new Uint8Array(4),
    }))
    t.equal(
      faultName(parseMessage(encodeMessage(head, [{ type: 'TSi', selectors }])).fault),
      'too-many',
    )
    const skf = {
      type: 'SKF',
      fragmentNumber: 1,
      totalFragments: 65,
      data: new Uint8Array(4),
    } as const
    t.equal(faultName(parseMessage(encodeMessage(head, [skf])).fault), 'too-many')
    const beyond = { ...skf, fragmentNumber: 3, totalFragments: 2 }
    t.equal(faultName(parseMessage(encodeMessage(head, [beyond])).fault), 'bad-value')
    const zero = { ...skf, fragmentNumber: 0, totalFragments: 2 }
    t.equal(faultName(parseMessage(encodeMessage(head, [zero])).fault), 'bad-value')
  },
)

t.test('traffic selectors of unknown types are left out, wrong lengths refused', async t => {
  // One selector of type 9 (FC address range), one IPv4 range.
  const body = fromHex(`
    02000000
    09000010 00000000 0000000000000000
    07000010 0000ffff 0a000000 0a0000ff`)
  const chain = new Uint8Array(4 + body.length)
  chain[3] = chain.length
  chain.set(body, 4)
  const parsed = parsePayloadChain(chain, 0, PayloadType.TSi)
  t.equal(parsed.fault, WireFault.none)
  const first = parsed.payloads[0]
  t.equal(first?.type === 'TSi' && first.selectors.length, 1)
  chain[4 + 4] = 8
  t.equal(faultName(parsePayloadChain(chain, 0, PayloadType.TSi).fault), 'bad-value')
})

t.test(
  'a Delete with SPIs of the wrong size is refused (libreswan CVE-2023-38710 and kin)',
  async t => {
    const check = (hex: string) => {
      const body = fromHex(hex)
      const chain = new Uint8Array(4 + body.length)
      chain[3] = chain.length
      chain.set(body, 4)
      return faultName(parsePayloadChain(chain, 0, PayloadType.D).fault)
    }
    t.equal(check('03040001 11223344'), 'none')
    t.equal(check('01000000'), 'none')
    t.equal(check('01080001 1122334455667788'), 'bad-value')
    t.equal(check('03080001 1122334455667788'), 'bad-value')
    t.equal(check('03040002 11223344'), 'length-overrun')
    t.equal(check('0304ffff 11223344'), 'too-many')
  },
)

t.test(
  'the real first message of Windows is read (field notes: 18 proposals, vendor IDs)',
  async t => {
    const transforms = (encr: number, keyBits: number | undefined, integ: number, prf: number) => [
      {
        transformType: 1,
        transformId: encr,
        attributes: keyBits === undefined ? [] : [{ attributeType: 14, value: keyBits }],
      },
      { transformType: 3, transformId: integ, attributes: [] },
      { transformType: 2, transformId: prf, attributes: [] },
      { transformType: 4, transformId: 2, attributes: [] },
    ]
    const suites = [
      [3, undefined],
      [12, 128],
      [12, 192],
      [12, 256],
    ] as const
    const hashes = [
      [2, 2],
      [12, 5],
      [13, 6],
    ] as const
    const proposals = suites.flatMap(([encr, keyBits]) =>
      hashes.map(([integ, prf]) => ({ encr, keyBits, integ, prf })),
    )
    const payloads: Payload[] = [
      {
        type: 'SA',
        proposals: proposals.map((row, i) => ({
          proposalNumber: i + 1,
          protocolId: 1,
          spi: new Uint8Array(0),
          transforms: transforms(row.encr, row.keyBits, row.integ, row.prf),
        })),
      },
      { type: 'KE', group: 2, publicValue: new Uint8Array(128).fill(1) },
      { type: 'Nonce', data: new Uint8Array(48) },
      notify(NotifyType.IKEV2_FRAGMENTATION_SUPPORTED),
      notify(NotifyType.NAT_DETECTION_SOURCE_IP, new Uint8Array(20)),
      notify(NotifyType.NAT_DETECTION_DESTINATION_IP, new Uint8Array(20)),
      { type: 'V', data: fromHex('1e2b516905991c7d7c96fcbfb587e46100000009') },
      { type: 'V', data: fromHex('fb1de3cdf341b7ea16b7e5be0855f120') },
      { type: 'V', data: fromHex('26244d38eddb61b3172a36e3d0cfb819') },
      { type: 'V', data: fromHex('01528bbbc00696121849ab9a1c5b2a5100000001') },
    ]
    const message = encodeMessage({ ...head, exchangeType: ExchangeType.IKE_SA_INIT }, payloads)
    const parsed = parseMessage(message)
    t.same(parsed.payloads, payloads)
    t.same(legality('IKE_SA_INIT', 'request', false, parsed.payloads), {
      fault: WireFault.none,
      form: 'initial',
    })
  },
)

t.test('the wire image of a small message, byte by byte', async t => {
  const message = encodeMessage(head, [
    { type: 'KE', group: 31, publicValue: fromHex('aabb') },
    notify(NotifyType.COOKIE, fromHex('c0ffee')),
  ])
  t.equal(
    toHex(message),
    // header: SPIs, next KE, version 2.0, IKE_AUTH, flag I, ID 7, length 49
    '01020304050607081112131415161718' +
      '22202308' +
      '00000007' +
      '00000031' +
      // KE: next N, length 10, group 31, reserved, value
      '2900000a001f0000aabb' +
      // N: last, length 11, protocol 0, SPI size 0, COOKIE, data
      '0000000b00004006c0ffee',
  )
})

t.test('exchange rules: every least and greatest number holds (RFC 7296 Appendix C)', async t => {
  const sample: Record<string, Payload> = {
    SA: { type: 'SA', proposals: [] },
    KE: { type: 'KE', group: 31, publicValue: new Uint8Array(32) },
    IDi: { type: 'IDi', idType: 2, data: new Uint8Array(1) },
    IDr: { type: 'IDr', idType: 2, data: new Uint8Array(1) },
    CERT: { type: 'CERT', encoding: 4, data: new Uint8Array(1) },
    CERTREQ: { type: 'CERTREQ', encoding: 4, authorities: new Uint8Array(0) },
    AUTH: { type: 'AUTH', method: 2, data: new Uint8Array(1) },
    Nonce: { type: 'Nonce', data: new Uint8Array(32) },
    N: notify(NotifyType.COOKIE),
    D: { type: 'D', protocolId: 1, spis: [] },
    V: { type: 'V', data: new Uint8Array(1) },
    TSi: { type: 'TSi', selectors: [] },
    TSr: { type: 'TSr', selectors: [] },
    CP: { type: 'CP', configurationType: 1, attributes: [] },
    EAP: { type: 'EAP', data: new Uint8Array(5) },
    SK: { type: 'SK', data: new Uint8Array(1) },
  }
  const repeat = (name: string, count: number) =>
    Array.from({ length: count }, () => sample[name]).filter(item => item !== undefined)
  for (const [exchange, directions] of Object.entries(exchangeRules)) {
    for (const [direction, forms] of Object.entries(directions)) {
      for (const form of forms) {
        const rows = Object.entries(form.payloads as Record<string, readonly [number, number]>)
        const least = rows.flatMap(([name, [min]]) => repeat(name, min))
        const judge = (payloads: Payload[], isProtected = form.isProtected) =>
          legality(
            exchange as keyof typeof exchangeRules,
            direction as 'request' | 'response',
            isProtected,
            payloads,
          )
        t.equal(judge(least).form, form.name, `${exchange} ${direction} ${form.name}`)
        t.equal(judge(least, !form.isProtected).form, undefined, 'protected or not')
        for (const [name, [min, max]] of rows) {
          const others = rows.flatMap(([other, [count]]) =>
            other === name ? [] : repeat(other, count),
          )
          if (min > 0) t.not(judge([...others, ...repeat(name, min - 1)]).form, form.name)
          t.not(judge([...others, ...repeat(name, max + 1)]).form, form.name, `${name} > ${max}`)
        }
        t.not(judge([...least, ...repeat('SK', 1)]).form, form.name, 'what is not named is illegal')
        t.equal(judge([...least].reverse()).form, form.name, 'order does not matter')
      }
    }
  }
})

t.test('critical bits matter on unknown payloads only (RFC 7296 §2.5)', async t => {
  const message = encodeMessage(head, [notify(NotifyType.COOKIE)])
  message[HEADER_BYTES + 1] = 0x80
  t.equal(unknownCritical(parseMessage(message).payloads), undefined)
  const data = new Uint8Array(0)
  t.equal(unknownCritical([{ type: 'unknown', code: 200, isCritical: true, data }]), 200)
  t.equal(unknownCritical([{ type: 'unknown', code: 200, isCritical: false, data }]), undefined)
})

t.test('numbers have their IANA names', async t => {
  t.equal(notifyName(17), 'INVALID_KE_PAYLOAD')
  t.equal(notifyName(16_431), 'SIGNATURE_HASH_ALGORITHMS')
  t.equal(notifyName(9999), '9999')
  t.ok(isErrorNotify(NotifyType.TEMPORARY_FAILURE))
  t.notOk(isErrorNotify(NotifyType.INITIAL_CONTACT))
  t.equal(exchangeName(36), 'CREATE_CHILD_SA')
  t.equal(exchangeName(33), undefined)
  t.equal(new Set(Object.values(NotifyType)).size, Object.keys(NotifyType).length)
})
