import fc from 'fast-check'
import t from 'tap'
import { fromHex, toHex, u16 } from '../../../lib/core/bytes.ts'
import { faultName, WireFault } from '../../../lib/core/faults.ts'
import {
  type Attribute,
  AttributeId,
  encodeAttribute,
  encodedAttributeBytes,
  Status,
  statusText,
} from '../../../lib/sstp/wire/attribute.ts'
import {
  FRAME_HEADER_BYTES,
  frameBytes,
  isControlFrame,
  MAX_FRAME_BYTES,
  needMore,
  putFrameHeader,
} from '../../../lib/sstp/wire/frame.ts'
import {
  checkMessage,
  complaintAbout,
  encodedMessageBytes,
  encodeMessage,
  type MessageName,
  MessageType,
  messageAttributes,
  messageBytes,
  parseMessage,
} from '../../../lib/sstp/wire/message.ts'

const seed = 20260101

const bytesOf = (length: number) => fc.uint8Array({ minLength: length, maxLength: length })

const attribute: fc.Arbitrary<Attribute> = fc.oneof(
  fc.record({
    type: fc.constant('encapsulated-protocol-id' as const),
    protocol: fc.integer({ min: 0, max: 0xffff }),
  }),
  fc.record({
    type: fc.constant('status-info' as const),
    attributeId: fc.integer({ min: 0, max: 255 }),
    status: fc.integer({ min: 0, max: 0xffffffff }),
    value: fc.uint8Array({ maxLength: 64 }),
  }),
  fc.record({
    type: fc.constant('crypto-binding-request' as const),
    hashBitmask: fc.integer({ min: 0, max: 255 }),
    nonce: bytesOf(32),
  }),
  fc.record({
    type: fc.constant('crypto-binding' as const),
    hashProtocol: fc.integer({ min: 0, max: 255 }),
    nonce: bytesOf(32),
    certificateHash: bytesOf(32),
    compoundMac: bytesOf(32),
  }),
  fc.record({
    type: fc.constant('unknown' as const),
    attributeId: fc.integer({ min: 5, max: 255 }),
    value: fc.uint8Array({ maxLength: 100 }),
  }),
)

t.test('a frame ends where its 12-bit length says, whatever the reserved bits', async t => {
  const frame = (hex: string) => {
    const bytes = fromHex(hex)
    return frameBytes(bytes, 0, bytes.length)
  }
  t.equal(frame('10'), needMore)
  t.equal(frame('100000'), needMore)
  t.equal(frame('10000004'), 4)
  t.equal(frame('10fe f00e'), 14, 'reserved bits are ignored')
  t.equal(frame('1000ffff'), MAX_FRAME_BYTES)
  t.equal(frame('11000008'), -WireFault['bad-version'])
  for (const length of ['0000', '0001', '0002', '0003', 'f003']) {
    t.equal(frame(`1000${length}`), -WireFault['length-too-small'], 'no progress is a fault')
  }
  t.equal(isControlFrame(fromHex('1001'), 0), true)
  t.equal(isControlFrame(fromHex('10fe'), 0), false)
})

t.test('a frame header is what is read back, at any offset', async t => {
  fc.assert(
    fc.property(
      fc.boolean(),
      fc.integer({ min: 4, max: 4095 }),
      fc.integer({ min: 0, max: 9 }),
      (isControl, length, at) => {
        const out = new Uint8Array(16).fill(0xa5)
        t.equal(putFrameHeader(out, at, isControl, length), at + FRAME_HEADER_BYTES)
        return (
          frameBytes(out, at, 16) === length &&
          isControlFrame(out, at) === isControl &&
          out[at + 4] === 0xa5
        )
      },
    ),
    { seed, numRuns: 200 },
  )
})

t.test('the messages of the specification are as long as it says ([MS-SSTP] 2.2)', async t => {
  const nonce = fromHex('412B489AEBD7ECC7D08966F26BE7CD72B231A0E9210D7C91B308862B0344C435')
  const request = messageBytes('call-connect-request', {
    type: 'encapsulated-protocol-id',
    protocol: 1,
  })
  // [MS-SSTP] 4.2, 4.3
  t.equal(toHex(request), '1001000e00010001000100060001')
  const ack = messageBytes('call-connect-ack', {
    type: 'crypto-binding-request',
    hashBitmask: 2,
    nonce,
  })
  t.equal(toHex(ack), `1001003000020001000400280000000${2}${toHex(nonce)}`)
  t.equal(messageBytes('call-abort').length, 8)
  const status = {
    type: 'status-info',
    attributeId: 0,
    status: 6,
    value: new Uint8Array(0),
  } as const
  t.equal(
    toHex(messageBytes('call-abort', status)),
    '1001001400050001 0002000c 00000000 00000006'.replaceAll(' ', ''),
  )
  for (const name of [
    'call-disconnect',
    'call-disconnect-ack',
    'echo-request',
    'echo-response',
  ] as const) {
    t.equal(toHex(messageBytes(name)), `10010008000${MessageType[name]}0000`)
  }
})

t.test('an encoded message is read back and fills exactly its length', async t => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 0xffff }),
      fc.array(attribute, { maxLength: 8 }),
      (code, attributes) => {
        const length = encodedMessageBytes(attributes)
        const out = new Uint8Array(length + 8).fill(0xa5)
        const end = encodeMessage(code, attributes, out, 4)
        t.equal(end, 4 + length)
        t.equal(checkMessage(out, 4, end), WireFault.none)
        t.same(parseMessage(out, 4).attributes, attributes)
        t.equal(parseMessage(out, 4).code, code)
        t.same([...out.subarray(0, 4), ...out.subarray(end)], Array(8).fill(0xa5))
      },
    ),
    { seed, numRuns: 100 },
  )
  fc.assert(
    fc.property(attribute, one => {
      const out = new Uint8Array(256).fill(0xa5)
      return encodeAttribute(one, out, 3) === 3 + encodedAttributeBytes(one) && u16(out, 5) > 3
    }),
    { seed, numRuns: 100 },
  )
})

t.test('arbitrary bytes, and valid messages with a byte changed, never throw', async t => {
  const survives = (bytes: Uint8Array) => {
    if (checkMessage(bytes, 0, bytes.length) === WireFault.none) {
      const message = parseMessage(bytes, 0)
      if (message.name !== undefined) complaintAbout(message.name, message.attributes)
    }
    return true
  }
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), survives), { seed, numRuns: 5000 })
  fc.assert(
    fc.property(
      fc.array(attribute, { maxLength: 4 }),
      fc.nat(),
      fc.nat(255),
      (attributes, at, value) => {
        const out = new Uint8Array(encodedMessageBytes(attributes))
        encodeMessage(4, attributes, out, 0)
        out[at % out.length] = value
        return survives(out)
      },
    ),
    { seed, numRuns: 5000 },
  )
  t.pass('all survived')
})

t.test('lengths that lie are faults', async t => {
  const cases: [string, string][] = [
    ['10010008 0001', 'truncated'],
    ['10010007 000100', 'truncated'],
    ['10010008 00010000 00', 'length-overrun'],
    ['10000008 00010000', 'bad-flags'],
    ['20010008 00010000', 'bad-version'],
    ['10010008 00010001', 'truncated'],
    ['1001000a 00010001 0001', 'truncated'],
    ['1001000c 00010001 00010000', 'length-too-small'],
    ['1001000c 00010001 00010003', 'length-too-small'],
    ['1001000c 00010001 0001f003', 'length-too-small'],
    ['1001000e 00010001 0001ffff 0001', 'length-overrun'],
    ['1001000e 00010001 00010007 0001', 'length-overrun'],
    ['1001000e 00010000 00010006 0001', 'length-overrun'],
    ['10010008 0001ffff', 'too-many'],
  ]
  for (const [hex, fault] of cases) {
    const bytes = fromHex(hex)
    t.equal(faultName(checkMessage(bytes, 0, bytes.length)), fault, hex)
  }
})

t.test('each message allows the attributes of its section and no other', async t => {
  const samples: Record<number, Attribute> = {
    [AttributeId.encapsulatedProtocolId]: { type: 'encapsulated-protocol-id', protocol: 1 },
    [AttributeId.statusInfo]: {
      type: 'status-info',
      attributeId: 0,
      status: 0,
      value: new Uint8Array(0),
    },
    [AttributeId.cryptoBindingRequest]: {
      type: 'crypto-binding-request',
      hashBitmask: 2,
      nonce: new Uint8Array(32),
    },
    [AttributeId.cryptoBinding]: {
      type: 'crypto-binding',
      hashProtocol: 2,
      nonce: new Uint8Array(32),
      certificateHash: new Uint8Array(32),
      compoundMac: new Uint8Array(32),
    },
  }
  for (const name of Object.keys(MessageType) as MessageName[]) {
    const rules = messageAttributes[name]
    const required = rules
      .filter(({ isRequired }) => isRequired)
      .flatMap(({ attributeId }) => samples[attributeId] ?? [])
    t.equal(complaintAbout(name, required), undefined, `${name} is complete`)
    if (required.length > 0) {
      t.match(complaintAbout(name, []), { status: 'required-attribute-missing' })
    }
    for (const [id, sample] of Object.entries(samples)) {
      const rule = rules.find(({ attributeId }) => attributeId === Number(id))
      const complaint = complaintAbout(name, [sample, ...required])
      if (rule === undefined) {
        const isStatus = Number(id) === AttributeId.statusInfo
        t.equal(
          complaint?.status,
          isStatus ? 'status-info-not-supported-in-msg' : 'attrib-not-supported-in-msg',
        )
        continue
      }
      const twice = complaintAbout(name, [
        sample,
        sample,
        ...required.filter(one => one !== sample),
      ])
      t.equal(twice?.status, rule.canRepeat === true ? undefined : 'duplicate-attribute')
      const short: Attribute = {
        type: 'wrong-length',
        attributeId: Number(id),
        value: Uint8Array.of(1),
      }
      t.equal(complaintAbout(name, [short])?.status, 'invalid-attrib-value-length')
    }
    const unknown: Attribute = { type: 'unknown', attributeId: 77, value: Uint8Array.of(1) }
    t.match(complaintAbout(name, [unknown]), { status: 'unrecognized-attribute', attributeId: 77 })
  }
})

t.test('known attributes of a wrong length are kept as such', async t => {
  for (const id of [1, 2, 3, 4]) {
    const bytes = fromHex(`1001000f00010001 000${id}0007 010203`)
    t.equal(checkMessage(bytes, 0, bytes.length), WireFault.none)
    const [parsed] = parseMessage(bytes, 0).attributes
    t.same(parsed, { type: 'wrong-length', attributeId: id, value: fromHex('010203') })
  }
  const message = parseMessage(fromHex('10010008 00630000'), 0)
  t.same(message, { name: undefined, code: 0x63, attributes: [] })
})

t.test('a status has a name or is a number', async t => {
  t.equal(statusText(Status['value-not-supported']), 'value-not-supported')
  t.equal(statusText(4000), 'status 4000')
})
