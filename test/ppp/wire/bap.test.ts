/** BAP datagrams (RFC 2125 §5.5, §6): as the diagrams of the RFC have them, and as strangers send them. */
import fc from 'fast-check'
import t from 'tap'
import { fromHex, toHex } from '../../../lib/core/bytes.ts'
import { faultName, type WireFault } from '../../../lib/core/faults.ts'
import {
  type BapOptions,
  type BapPacket,
  BapResponse,
  BapType,
  checkBapPacket,
  encodeBapPacket,
  isBapResponse,
  LinkKind,
  parseBapPacket,
} from '../../../lib/ppp/wire/bap.ts'

/** Packet and bytes: written by hand after the diagrams of RFC 2125 §5.5.1 to §5.5.8 and §6.1 to §6.6. */
const vectors: readonly (readonly [string, BapPacket, string])[] = [
  [
    'Call-Request: 64 kbit/s of ISDN or analog, no number needed, a reason',
    {
      type: BapType.callRequest,
      identifier: 7,
      options: {
        link: { kilobitsPerSecond: 64, kinds: LinkKind.isdn | LinkKind.analog },
        isNumberNeedless: true,
        reason: 'busy',
      },
    },
    '01 07 0011  01 05 0040 05  03 02  04 06 62757379',
  ],
  [
    'Call-Response: Request-Ack with the last two digits of a number',
    {
      type: BapType.callResponse,
      identifier: 7,
      response: BapResponse.ack,
      options: { phoneDeltas: [{ uniqueDigits: 2, subscriberNumber: '42', subAddress: '' }] },
    },
    '02 07 000e 00  02 09 01 03 02 02 04 3432',
  ],
  [
    'Callback-Request: a number with its sub-address',
    {
      type: BapType.callbackRequest,
      identifier: 8,
      options: {
        link: { kilobitsPerSecond: 10_000, kinds: LinkKind.switchedDigital },
        phoneDeltas: [{ uniqueDigits: 1, subscriberNumber: '7', subAddress: '5' }],
      },
    },
    '03 08 0014  01 05 2710 08  02 0b 01 03 01 02 03 37 03 03 35',
  ],
  [
    'Callback-Response: Request-Rej',
    {
      type: BapType.callbackResponse,
      identifier: 8,
      response: BapResponse.reject,
      options: {},
    },
    '04 08 0005 02',
  ],
  [
    'Link-Drop-Query-Request for link 0x1234',
    {
      type: BapType.linkDropQueryRequest,
      identifier: 255,
      options: { discriminator: 0x1234 },
    },
    '05 ff 0008  05 04 1234',
  ],
  [
    'Link-Drop-Query-Response: Request-Full-Nak',
    {
      type: BapType.linkDropQueryResponse,
      identifier: 255,
      response: BapResponse.fullNak,
      options: {},
    },
    '06 ff 0005 03',
  ],
  [
    'Call-Status-Indication: failed, and will be tried again',
    {
      type: BapType.callStatusIndication,
      identifier: 0,
      options: { callStatus: { status: 255, action: 1 } },
    },
    '07 00 0008  06 04 ff 01',
  ],
  [
    'Call-Status-Response: Request-Ack',
    { type: BapType.callStatusResponse, identifier: 0, response: BapResponse.ack, options: {} },
    '08 00 0005 00',
  ],
]

t.test('every packet is written and read as the RFC draws it', async t => {
  for (const [name, packet, hex] of vectors) {
    const bytes = fromHex(hex)
    t.equal(toHex(encodeBapPacket(packet)), toHex(bytes), name)
    t.equal(checkBapPacket(bytes, 0, bytes.length), 0, name)
    t.same(parseBapPacket(bytes, 0), packet, name)
  }
})

t.test(
  'what is malformed is named and goes no further; unknown options are passed over',
  async t => {
    const faults: readonly (readonly [string, string, WireFault | string])[] = [
      ['no room for a head', '01 07 00', 'truncated'],
      ['a length beyond the packet', '01 07 0009', 'length-overrun'],
      ['a length below the head', '01 07 0003', 'length-too-small'],
      ['type 0', '00 07 0004', 'unknown-type'],
      ['type 9', '09 07 0004', 'unknown-type'],
      ['a response without a code', '02 07 0004', 'truncated'],
      ['half an option', '05 07 0005 05', 'truncated'],
      ['an option of length 0', '05 07 0006 05 00', 'length-too-small'],
      ['an option beyond the packet', '05 07 0006 05 04', 'length-overrun'],
      ['a discriminator of one octet', '05 07 0007 05 03 01', 'bad-value'],
      ['a Link-Type without its kind', '01 07 0008 01 04 0040', 'bad-value'],
      ['No-Phone-Number-Needed with a number', '01 07 0007 03 03 31', 'bad-value'],
      ['a Call-Status without action', '07 07 0007 06 03 00', 'bad-value'],
      ['a Phone-Delta without Unique-Digits', '02 07 000a 00 02 05 02 03 31', 'missing'],
      ['Unique-Digits of two octets', '02 07 000b 00 02 06 01 04 0001', 'bad-value'],
      ['a part beyond its Phone-Delta', '02 07 0009 00 02 04 01 09', 'length-overrun'],
      ['forty-nine options', `01 07 0066 ${'0302'.repeat(49)}`, 'too-many'],
    ]
    for (const [name, hex, fault] of faults) {
      const bytes = fromHex(hex)
      t.equal(faultName(checkBapPacket(bytes, 0, bytes.length)), fault, name)
    }
    const unknown = fromHex('05 07 000c  63 04 abcd  05 04 0009')
    t.equal(checkBapPacket(unknown, 0, unknown.length), 0)
    t.same(parseBapPacket(unknown, 0).options, { discriminator: 9 })
  },
)

const byte = fc.nat(255)
const digits = fc.stringMatching(/^[0-9]{0,12}$/)
const options: fc.Arbitrary<BapOptions> = fc.record(
  {
    link: fc.record({ kilobitsPerSecond: fc.nat(0xffff), kinds: byte }),
    phoneDeltas: fc.array(
      fc.record({ uniqueDigits: byte, subscriberNumber: digits, subAddress: digits }),
      { minLength: 1, maxLength: 3 },
    ),
    isNumberNeedless: fc.constant(true),
    reason: fc.stringMatching(/^[ -~]{1,40}$/),
    discriminator: fc.nat(0xffff),
    callStatus: fc.record({ status: byte, action: byte }),
  },
  { requiredKeys: [] },
)

t.test('what is written is read again, and arbitrary bytes never throw', async () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...Object.values(BapType)),
      byte,
      fc.nat(3),
      options,
      (type, identifier, response, given) => {
        const packet = {
          ...{ type, identifier, options: given },
          ...(isBapResponse(type) && { response }),
        }
        const bytes = encodeBapPacket(packet)
        const around = new Uint8Array(bytes.length + 16).fill(0xa5)
        around.set(bytes, 5)
        if (checkBapPacket(around, 5, bytes.length + 11) !== 0) return false
        return JSON.stringify(sorted(parseBapPacket(around, 5))) === JSON.stringify(sorted(packet))
      },
    ),
    { seed: 2125, numRuns: 400 },
  )
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), byte, (tail, type) => {
      const bytes = Uint8Array.from([type % 10, 1, 0, tail.length + 4, ...tail])
      if (checkBapPacket(bytes, 0, bytes.length) === 0) parseBapPacket(bytes, 0)
      return true
    }),
    { seed: 2126, numRuns: 2000 },
  )
})

/** The same with its keys in one order. */
function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted)
  if (value === null || typeof value !== 'object') return value
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, one]) => [key, sorted(one)]),
  )
}
