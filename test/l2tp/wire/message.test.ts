import fc from 'fast-check'
import t from 'tap'
import { fromHex, toHex, utf8 } from '../../../lib/core/bytes.ts'
import { WireFault } from '../../../lib/core/faults.ts'
import { SeededRandom } from '../../../lib/core/random.ts'
import { Secret } from '../../../lib/core/secret.ts'
import { challengeResponse, createAvpHiding, isResponseGood } from '../../../lib/l2tp/avp-hiding.ts'
import { avpTable, messageTable } from '../../../lib/l2tp/wire/avp-table.ts'
import type { AvpFormat } from '../../../lib/l2tp/wire/avp-value.ts'
import {
  checkHeader,
  encodeControlHeader,
  encodeDataHeader,
  encodeSequencedDataHeader,
  hasSequence,
  headerBytes,
  isControl,
  isPriority,
  messageBytes,
  nrOf,
  nsOf,
  sessionIdOf,
  tunnelIdOf,
} from '../../../lib/l2tp/wire/header.ts'
import { type ControlMessage, encodeControl, parseControl } from '../../../lib/l2tp/wire/message.ts'

const secret = Secret.fromText('secret')

function framed(body: Uint8Array): Uint8Array {
  encodeControlHeader(body, 0, body.length, 1, 2, 3, 4)
  return body
}

/** A control message with the given AVPs in hexadecimal. */
function control(...avps: string[]): Uint8Array {
  return framed(fromHex(`${'00'.repeat(12)}${avps.join('')}`))
}

const formats: { readonly [F in AvpFormat]: fc.Arbitrary<unknown> } = {
  u16: fc.nat(0xffff),
  u32: fc.integer({ min: 0, max: 0xffffffff }),
  octets: fc.uint8Array({ maxLength: 200 }),
  'tie-breaker': fc.uint8Array({ minLength: 8, maxLength: 8 }),
  'md5-digest': fc.uint8Array({ minLength: 16, maxLength: 16 }),
  text: fc.string({ maxLength: 60 }),
  empty: fc.constant(true),
  version: fc.nat(0xffff),
  result: fc.record({
    result: fc.nat(255),
    error: fc.nat(255),
    message: fc.string({ maxLength: 30 }),
  }),
  'q931-cause': fc.record({
    cause: fc.nat(0xffff),
    message: fc.nat(255),
    advisory: fc.string({ maxLength: 30 }),
  }),
  'proxy-id': fc.nat(255),
  'call-errors': fc.record({
    crcErrors: fc.nat(),
    framingErrors: fc.nat(),
    hardwareOverruns: fc.nat(),
    bufferOverruns: fc.nat(),
    timeoutErrors: fc.nat(),
    alignmentErrors: fc.nat(),
  }),
  accm: fc.record({ send: fc.nat(), receive: fc.nat() }),
  'ppp-cause': fc.record({
    code: fc.nat(0xffff),
    controlProtocol: fc.nat(0xffff),
    direction: fc.nat(2),
    message: fc.string({ maxLength: 30 }),
  }),
}

const messages: fc.Arbitrary<ControlMessage> = fc.oneof(
  ...(Object.keys(messageTable) as (keyof typeof messageTable)[]).map(type => {
    const { required, allowed } = messageTable[type]
    const fields: Record<string, fc.Arbitrary<unknown>> = { type: fc.constant(type) }
    for (const name of [...required, ...allowed]) fields[name] = formats[avpTable[name].format]
    return fc.record(fields, {
      requiredKeys: ['type', ...required],
    }) as unknown as fc.Arbitrary<ControlMessage>
  }),
)

t.test('every message survives encoding, in clear and hidden, and fills its length', async t => {
  const hiding = createAvpHiding(secret, new SeededRandom(7))
  fc.assert(
    fc.property(messages, fc.boolean(), (message, isHidden) => {
      const used = isHidden ? hiding : undefined
      const bytes = framed(encodeControl(message, used))
      if (checkHeader(bytes, 0, bytes.length) !== WireFault.none) return false
      const parsed = parseControl(bytes, 0, bytes.length, used)
      t.same(parsed, { type: 'message', message, ignoredAvps: 0 })
      return messageBytes(bytes, 0, bytes.length) === bytes.length
    }),
    { seed: 2661, numRuns: 400 },
  )
})

t.test('a hidden value shows nothing of itself, and a wrong secret does not reveal it', async t => {
  const hiding = createAvpHiding(secret, new SeededRandom(1))
  const vector = hiding.randomVector()
  const value = utf8('a called number that takes more than one block of sixteen bytes')
  const hidden = hiding.hide(21, value, vector)
  t.equal(hidden.length % 16, 0)
  t.same(hiding.reveal(21, hidden, vector), value)
  t.not(toHex(hiding.reveal(22, hidden, vector) ?? new Uint8Array()), toHex(value))
  const other = createAvpHiding(Secret.fromText('other'), new SeededRandom(1))
  const wrong = other.reveal(21, hidden, vector)
  t.ok(wrong === undefined || toHex(wrong) !== toHex(value))
  t.equal(hiding.reveal(21, Uint8Array.of(1), vector), undefined, 'shorter than its length field')
})

t.test('tunnel authentication gives the known responses (test vectors, derived)', async t => {
  const challenge = fromHex('000102030405060708090a0b0c0d0e0f')
  t.equal(toHex(challengeResponse('sccrp', secret, challenge)), 'dd4186e2196f00124a9d588f02701259')
  t.equal(toHex(challengeResponse('scccn', secret, challenge)), '8f3c2fa6fcfea72215ae83ea89ec2b77')
  t.ok(isResponseGood('sccrp', secret, challenge, fromHex('dd4186e2196f00124a9d588f02701259')))
  t.notOk(isResponseGood('scccn', secret, challenge, fromHex('dd4186e2196f00124a9d588f02701259')))
  t.notOk(isResponseGood('sccrp', secret, challenge, new Uint8Array(3)))
})

t.test('a hidden AVP without a secret is unknown: its M bit decides (RFC 2661 4.1)', async t => {
  const hiding = createAvpHiding(secret, new SeededRandom(3))
  const hello = '80080000 0000 0006'
  const vector = 'c0 0a 0000 0024 01020304'.replace('c0', '80')
  t.equal(parseControl(control(hello, vector), 0, 30).type, 'message')
  const ids = hiding.hide(9, Uint8Array.of(0, 5), fromHex('01020304'))
  const mandatory = `c0${(6 + ids.length).toString(16).padStart(2, '0')}00000009${toHex(ids)}`
  const bytes = control(hello, vector, mandatory)
  t.match(parseControl(bytes, 0, bytes.length), {
    type: 'malformed',
    error: 'unknown-mandatory-avp',
    attribute: 9,
  })
  const optional = control(hello, vector, mandatory.replace(/^c/, '4'))
  t.match(parseControl(optional, 0, optional.length), { type: 'message', ignoredAvps: 1 })
  const early = control(hello, mandatory, vector)
  t.match(
    parseControl(early, 0, early.length, hiding),
    { type: 'malformed', error: 'unknown-mandatory-avp' },
    'no Random Vector before it',
  )
})

t.test('a deciphered length that does not fit is malformed', async t => {
  const hiding = createAvpHiding(secret, new SeededRandom(3))
  const vector = fromHex('01020304')
  // Deciphers to a length of 0xffff: hide() of a value that begins so, less its own length field.
  const shifted = hiding.hide(9, Uint8Array.of(0, 5), vector)
  shifted[0] = (shifted[0] ?? 0) ^ 0xff
  const avp = `c0${(6 + shifted.length).toString(16)}00000009${toHex(shifted)}`
  const bytes = control('8008000000000006', '800a0000002401020304', avp)
  t.match(parseControl(bytes, 0, bytes.length, hiding), {
    type: 'malformed',
    fault: WireFault['length-overrun'],
    attribute: 9,
  })
})

t.test('faults of AVPs have a code each', async t => {
  const parse = (...avps: string[]) => {
    const bytes = control(...avps)
    return parseControl(bytes, 0, bytes.length)
  }
  const hello = '8008000000000006'
  const cases: [string, ReturnType<typeof parse>, object][] = [
    ['no AVPs', parse(), { type: 'zero-length-body' }],
    ['half an AVP header', parse('800800'), { fault: WireFault.truncated }],
    ['length 0', parse('800000000000'), { fault: WireFault['length-too-small'] }],
    ['length 5', parse('800500000000'), { fault: WireFault['length-too-small'] }],
    ['length past the end', parse('80090000000000'), { fault: WireFault['length-overrun'] }],
    ['an empty Message Type', parse('800600000000'), { fault: WireFault['bad-value'] }],
    ['another AVP first', parse('8008000000090001', hello), { fault: WireFault.missing }],
    ['a hidden Message Type', parse('c008000000000006'), { fault: WireFault.missing }],
    ['unknown message', parse('80080000000000ff'), { type: 'unknown-message', isMandatory: true }],
    ['optional unknown message', parse('00080000000000ff'), { isMandatory: false }],
    ['unknown mandatory AVP', parse(hello, '800600000063'), { error: 'unknown-mandatory-avp' }],
    ['unknown optional AVP', parse(hello, '000600000063'), { type: 'message', ignoredAvps: 1 }],
    ["a vendor's AVP", parse(hello, '800600090001'), { error: 'unknown-mandatory-avp' }],
    ['reserved bits', parse(hello, '84080000 0009 0001'), { error: 'unknown-mandatory-avp' }],
    [
      'wrong value length',
      parse('8008000000000001', '8007000000090001'.slice(0, 14)),
      {
        fault: WireFault['bad-value'],
      },
    ],
    ['an AVP is missing', parse('8008000000000001'), { fault: WireFault.missing, attribute: 2 }],
    [
      'the first of two counts',
      parse('800800000000000b', '8008 0000 000e 0007', '8008 0000 000e 0009'),
      { message: { type: 'icrp', assignedSessionId: 7 }, ignoredAvps: 1 },
    ],
    ['65 AVPs', parse(hello, '000600000063'.repeat(64)), { fault: WireFault['too-many'] }],
    [
      '5 KB',
      parse(hello, `03ff00000063${'00'.repeat(1017)}`.repeat(5)),
      {
        fault: WireFault.oversize,
      },
    ],
  ]
  for (const [name, parsed, wanted] of cases) t.match(parsed, wanted, name)
})

t.test('Result Codes come short, without an error, and in the wrong byte order', async t => {
  const result = (value: string) => {
    const avp = `80${(6 + value.length / 2).toString(16).padStart(2, '0')}00000001${value}`
    const bytes = control('800800000000000e', avp)
    const parsed = parseControl(bytes, 0, bytes.length)
    return parsed.type === 'message' && parsed.message.type === 'cdn' && parsed.message.resultCode
  }
  t.same(result('0003'), { result: 3, error: 0, message: '' })
  t.same(result('00030001'), { result: 3, error: 1, message: '' })
  t.same(result(`00020006${toHex(utf8('busy'))}`), { result: 2, error: 6, message: 'busy' })
  t.same(result('0300'), { result: 3, error: 0, message: '' }, 'macOS, iOS')
  t.same(result('01000000'), { result: 1, error: 0, message: '' }, 'macOS, iOS')
})

t.test('every combination of the L, S, O and P bits of data headers is parsed', async t => {
  for (let bits = 0; bits < 16; bits++) {
    const hasL = (bits & 1) !== 0
    const hasS = (bits & 2) !== 0
    const hasO = (bits & 4) !== 0
    const isP = (bits & 8) !== 0
    const flags =
      2 | (hasL ? 0x4000 : 0) | (hasS ? 0x800 : 0) | (hasO ? 0x200 : 0) | (isP ? 0x100 : 0)
    const header = `${flags.toString(16).padStart(4, '0')}${hasL ? 'LLLL' : ''}00210043${
      hasS ? '00070009' : ''
    }${hasO ? '0003aabbcc' : ''}`
    const length = header.length / 2 + 4
    const bytes = fromHex(`${header.replace('LLLL', length.toString(16).padStart(4, '0'))}ff03c021`)
    const at = 5
    const placed = new Uint8Array(bytes.length + at + 3).fill(0xa5)
    placed.set(bytes, at)
    const room = hasL ? bytes.length + 3 : bytes.length
    t.equal(checkHeader(placed, at, room), WireFault.none)
    t.equal(isControl(placed, at), false)
    t.equal(isPriority(placed, at), isP)
    t.equal(tunnelIdOf(placed, at), 0x21)
    t.equal(sessionIdOf(placed, at), 0x43)
    t.equal(hasSequence(placed, at), hasS)
    if (hasS) t.same([nsOf(placed, at), nrOf(placed, at)], [7, 9])
    t.equal(headerBytes(placed, at), header.length / 2)
    t.equal(messageBytes(placed, at, room), length)
    for (let cut = 0; cut < header.length / 2; cut++) {
      t.not(checkHeader(placed, at, cut), WireFault.none, `cut to ${cut}`)
    }
  }
})

t.test('headers with wrong versions, flags and lengths are refused', async t => {
  const check = (hex: string) => {
    const bytes = fromHex(hex)
    return checkHeader(bytes, 0, bytes.length)
  }
  t.equal(check('c803000c0000000000000000'), WireFault['bad-version'], 'L2TPv3')
  t.equal(check('8802000c0000000000000000'), WireFault['bad-flags'], 'control without L')
  t.equal(check('c002000c0000000000000000'), WireFault['bad-flags'], 'control without S')
  t.equal(check('ca02000c00000000000000000000'), WireFault['bad-flags'], 'control with O')
  t.equal(check('c802000b0000000000000000'), WireFault['length-too-small'])
  t.equal(check('c802000d0000000000000000'), WireFault['length-overrun'])
  t.equal(check('c802000c00000000'), WireFault.truncated)
  t.equal(check('0202000000000010'), WireFault['length-overrun'], 'offset past the end')
  t.equal(check(''), WireFault.truncated)
})

t.test('data headers go into the headroom before the payload', async t => {
  const out = new Uint8Array(32).fill(0xa5)
  t.equal(encodeDataHeader(out, 20, 6, 0x1122, 0x3344), 12)
  t.equal(toHex(out.slice(11, 21)), 'a54002000e11223344a5')
  out.fill(0xa5)
  t.equal(encodeSequencedDataHeader(out, 20, 6, 0x1122, 0x3344, 9), 8)
  t.equal(toHex(out.slice(7, 21)), 'a54802001211223344000900' + '00a5')
})

t.test('arbitrary bytes never throw', async t => {
  const hiding = createAvpHiding(secret, new SeededRandom(5))
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.boolean(), (body, isMessage) => {
      const bytes = isMessage ? framed(Uint8Array.of(...new Uint8Array(12), ...body)) : body
      if (checkHeader(bytes, 0, bytes.length) === WireFault.none && isControl(bytes, 0)) {
        parseControl(bytes, 0, bytes.length, hiding)
      }
    }),
    { seed: 3, numRuns: 5_000 },
  )
  fc.assert(
    fc.property(messages, fc.nat(), fc.nat(255), (message, where, value) => {
      const bytes = framed(encodeControl(message, hiding))
      bytes[where % bytes.length] = value
      if (checkHeader(bytes, 0, bytes.length) === WireFault.none) {
        parseControl(bytes, 0, bytes.length, hiding)
      }
    }),
    { seed: 4, numRuns: 2_000 },
  )
  t.pass('nothing was thrown')
})
