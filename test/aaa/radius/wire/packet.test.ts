import fc from 'fast-check'
import t from 'tap'
import {
  checkAccessRequest,
  checkDynamicRequest,
  checkResponse,
  sealAccessRequest,
  sealAccountingRequest,
  sealDynamicRequest,
  sealResponse,
} from '../../../../lib/aaa/radius/authenticity.ts'
import {
  hideKey,
  hidePassword,
  revealKey,
  revealPassword,
} from '../../../../lib/aaa/radius/hiding.ts'
import {
  AttributeList,
  bytesOf,
  joinedOf,
  prefixOf,
  textOf,
  textsOf,
  u32Of,
} from '../../../../lib/aaa/radius/wire/attributes.ts'
import {
  checkRadiusPacket,
  encodeRadiusPacket,
  parseRadiusPacket,
  RadiusCode,
  type RadiusPacket,
} from '../../../../lib/aaa/radius/wire/packet.ts'
import { fromHex, putU16, toHex, utf8, utf8Text } from '../../../../lib/core/bytes.ts'
import { faultName } from '../../../../lib/core/faults.ts'
import { Secret } from '../../../../lib/core/secret.ts'
import { digest } from '../../../../lib/crypto/hash.ts'

const seed = 20261121
/** RFC 2865 §7. */
const secret = Secret.fromText('xyzzy5461')
const rfcRequest = fromHex(
  '010000380f403f9473978057bd83d5cb98f4227a01066e656d6f02120dbe708d93d413ce3196e43f782a0aee0406c0a80110050600000003',
)
const rfcAccept = fromHex(
  '0200002686fe220e7624ba2a1005f6bf9b55e0b20606000000010f06000000000e06c0a80103',
)
const requestAuthenticator = rfcRequest.slice(4, 20)

function fault(packet: Uint8Array): string {
  return faultName(checkRadiusPacket(packet))
}

/** An Access-Accept with these attribute bytes. */
function withAttributes(hex: string): Uint8Array {
  const body = fromHex(hex)
  const out = new Uint8Array(20 + body.length)
  out[0] = 2
  putU16(out, 2, out.length)
  out.set(body, 20)
  return out
}

t.test('the packets of RFC 2865 §7.1 are read and written', async t => {
  t.equal(fault(rfcRequest), 'none')
  const request = parseRadiusPacket(rfcRequest)
  t.equal(textOf(request.attributes, 'User-Name'), 'nemo')
  t.equal(u32Of(request.attributes, 'NAS-IP-Address'), 0xc0a80110)
  t.equal(toHex(encodeRadiusPacket(request) ?? new Uint8Array(0)), toHex(rfcRequest))
  const hidden = bytesOf(request.attributes, 'User-Password') ?? new Uint8Array(0)
  const password = revealPassword(hidden, secret, request.authenticator)
  t.equal(utf8Text(password ?? new Uint8Array(0)), 'arctangent\0\0\0\0\0\0')
  t.same(hidePassword(Secret.fromText('arctangent'), secret, request.authenticator), hidden)
  t.equal(checkResponse(rfcAccept, requestAuthenticator, secret, false), undefined)
  t.equal(
    checkResponse(rfcAccept, requestAuthenticator, secret, true),
    'missing-message-authenticator',
  )
  const other = requestAuthenticator.map((byte, i) => (i === 3 ? byte ^ 1 : byte))
  t.equal(checkResponse(rfcAccept, other, secret, false), 'bad-authenticator')
})

t.test('Message-Authenticator comes first and is that of the vector', async t => {
  const sealed = sealAccessRequest(parseRadiusPacket(rfcRequest), secret) ?? new Uint8Array(0)
  t.equal(
    toHex(sealed),
    '0100004a0f403f9473978057bd83d5cb98f4227a50128f16b45f90d3494989a4f14f4421c61801066e656d6f02120dbe708d93d413ce3196e43f782a0aee0406c0a80110050600000003',
  )
  t.equal(checkAccessRequest(sealed, secret), undefined)
  t.equal(checkAccessRequest(sealed, Secret.fromText('other')), 'bad-message-authenticator')
  t.equal(checkAccessRequest(rfcRequest, secret), 'missing-message-authenticator')
})

t.test('the CHAP response of RFC 2865 §7.2 is over identifier, secret and challenge', async t => {
  const challenge = fromHex('2aee86f08d0d55969ca5978e0d3367a2')
  const response = digest('md5', Uint8Array.of(0x16), utf8('arctangent'), challenge)
  t.equal(toHex(response), 'e97557c316185895f293ff6344077275')
})

t.test('the passwords of RFC 2865 §7.3 are hidden as printed there', async t => {
  const hide = (text: string, authenticator: string) =>
    toHex(hidePassword(Secret.fromText(text), secret, fromHex(authenticator)) ?? new Uint8Array(0))
  t.equal(hide('challenge', 'f3a47a1f6a6d76710b947ab93041a039'), '33657573778289b570885e15084825c5')
  t.equal(hide('99101462', 'b122556d428a13d0d6253807c457ecf0'), '692c1f205fc081b919b95195f561a581')
  const sixteen = hidePassword(Secret.fromText('0123456789abcdef'), secret, requestAuthenticator)
  t.equal(sixteen?.length, 16, 'a whole block gets no empty one behind it')
  t.equal(hidePassword(Secret.fromText(''), secret, requestAuthenticator)?.length, 16)
  t.equal(hidePassword(Secret.fromText('x'.repeat(129)), secret, requestAuthenticator), undefined)
})

t.test('an Accounting-Request proves itself with its authenticator', async t => {
  const { attributes } = new AttributeList().u32('Acct-Status-Type', 7)
  const sealed =
    sealAccountingRequest({ code: 4, identifier: 1, attributes }, secret) ?? new Uint8Array(0)
  t.equal(toHex(sealed.slice(4, 20)), 'dd92ddb322b1ae3bbfa6c3b3e10b917e')
  t.equal(checkDynamicRequest(sealed, secret, false), undefined)
})

t.test('MPPE keys are hidden under salt and revealed, and nothing else passes for one', async t => {
  // RFC 3079 §3.5.3 names the keys; the hidden forms were made by another implementation.
  const receive = fromHex('8001d79a2691370fa15e9f906ae186d24f01e5fd246a87a50b05ec37dfaf0fdb6000')
  const send = fromHex('800281464d014d584bcc3a46d7a3f0d9b9c78d69cd929d10eadb4ea12cff688baf5d')
  for (const hidden of [receive, send]) {
    const key = revealKey(hidden, secret, requestAuthenticator) ?? new Uint8Array(0)
    t.equal(key.length, 16)
    t.same(hideKey(key, hidden.slice(0, 2), secret, requestAuthenticator), hidden)
  }
  t.match(
    toHex(revealKey(receive, secret, requestAuthenticator) ?? new Uint8Array(0)),
    /^d5f0.*2226$/,
  )
  t.match(toHex(revealKey(send, secret, requestAuthenticator) ?? new Uint8Array(0)), /^8b7c.*dccb$/)
  t.equal(revealKey(receive.slice(0, 33), secret, requestAuthenticator), undefined, 'odd length')
  t.equal(revealKey(receive.slice(0, 2), secret, requestAuthenticator), undefined, 'salt only')
  const noSalt = receive.map((byte, i) => (i === 0 ? 0 : byte))
  t.equal(revealKey(noSalt, secret, requestAuthenticator), undefined, 'salt without its bit')
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 64 }), key => {
      const hidden = hideKey(key, Uint8Array.of(0x80, 9), secret, requestAuthenticator)
      t.same(revealKey(hidden, secret, requestAuthenticator), key)
    }),
    { seed, numRuns: 50 },
  )
})

t.test('lengths that lie are faults, and every step makes progress', async t => {
  t.equal(fault(new Uint8Array(19)), 'truncated')
  const header = (length: number, size = length) => {
    const out = new Uint8Array(size)
    out[0] = 2
    putU16(out, 2, length)
    return out
  }
  t.equal(fault(header(19, 20)), 'length-too-small')
  t.equal(fault(header(21, 20)), 'length-overrun')
  t.equal(fault(header(4097, 5000)), 'oversize')
  t.equal(fault(header(20, 4000)), 'none', 'bytes behind the length are padding')
  t.equal(fault(withAttributes('01')), 'truncated')
  t.equal(fault(withAttributes('0100')), 'length-too-small')
  t.equal(fault(withAttributes('0101')), 'length-too-small')
  t.equal(fault(withAttributes('010361 0105ff')), 'length-overrun')
  t.equal(fault(withAttributes('0a02'.repeat(513))), 'too-many')
  t.equal(fault(withAttributes('0805c0a801')), 'bad-value', 'an address of three bytes')
  t.equal(fault(withAttributes('612b'.padEnd(86, '0'))), 'bad-value')
  t.equal(fault(withAttributes('61060081ff00')), 'bad-value', 'a prefix of 129 bits')
  const unknownCode = Uint8Array.from(withAttributes(''))
  unknownCode[0] = 99
  t.equal(fault(unknownCode), 'unknown-type')
})

t.test('vendor attributes are opened when they keep to the layout', async t => {
  const read = (hex: string) => parseRadiusPacket(withAttributes(hex)).attributes
  // Two of Microsoft in one: DNS servers 192.0.2.1 and 192.0.2.2.
  const two = read('1a120000 0137 1c06c0000201 1d06c0000202'.replace(/\s/g, ''))
  t.equal(u32Of(two, 'MS-Primary-DNS-Server'), 0xc0000201)
  t.equal(u32Of(two, 'MS-Secondary-DNS-Server'), 0xc0000202)
  for (const [title, hex] of [
    ['an inner length of 0', '1a0c00000137 1c00c0000201'],
    ['an inner length past the end', '1a0c00000137 1c07c0000201'],
    ['a DNS server of 3 bytes', '1a0b00000137 1c05c00002'],
    ['nothing inside', '1a0600000137'],
    ['too short for a vendor', '1a040000'],
  ] as const) {
    const list = read(hex.replace(/\s/g, ''))
    t.equal(list.length, 1, title)
    t.equal(list[0]?.vendor, 0, `${title}: stays closed`)
    t.equal(u32Of(list, 'MS-Primary-DNS-Server'), undefined, title)
  }
})

t.test('prefixes may be cut short and bits behind them do not count', async t => {
  const { attributes } = new AttributeList().prefix('Delegated-IPv6-Prefix', {
    address: fromHex('20010db8aabbcc000000000000000000'),
    prefixLength: 56,
  })
  t.equal(toHex(attributes[0]?.value ?? new Uint8Array(0)), '003820010db8aabbcc')
  const odd = [{ vendor: 0, type: 123, value: fromHex('003420010db8aabbcf') }]
  t.same(prefixOf(odd, 'Delegated-IPv6-Prefix'), {
    address: fromHex('20010db8aabbc0000000000000000000'),
    prefixLength: 52,
  })
  const short = [{ vendor: 0, type: 97, value: fromHex('004020010db8') }]
  t.same(prefixOf(short, 'Framed-IPv6-Prefix')?.address, fromHex(`20010db8${'00'.repeat(12)}`))
})

t.test('long EAP packets are split and put together again', async t => {
  const packet = Uint8Array.from({ length: 700 }, (_, i) => i)
  const { attributes } = new AttributeList().split('EAP-Message', packet)
  t.same(
    attributes.map(({ value }) => value.length),
    [253, 253, 194],
  )
  t.same(joinedOf(attributes, 'EAP-Message'), packet)
  t.equal(joinedOf([], 'EAP-Message'), undefined)
})

t.test('what does not fit is not written', async t => {
  const packet = (count: number, length: number): RadiusPacket => ({
    code: 1,
    identifier: 0,
    authenticator: new Uint8Array(16),
    attributes: Array.from({ length: count }, () => ({
      vendor: 0,
      type: 79,
      value: new Uint8Array(length),
    })),
  })
  t.equal(encodeRadiusPacket(packet(1, 254)), undefined)
  t.equal(encodeRadiusPacket(packet(16, 253)), undefined)
  t.equal(sealAccessRequest(packet(16, 253), secret), undefined)
  t.equal(encodeRadiusPacket(packet(15, 253))?.length, 20 + 15 * 255)
  const name = new AttributeList().text('User-Name', 'é'.repeat(200)).attributes[0]
  t.equal(name?.value.length, 253, 'texts are cut')
})

const arbitraryAttribute = fc.oneof(
  fc.record({
    vendor: fc.constant(0),
    // Numbers without a kind of their own.
    type: fc.integer({ min: 200, max: 240 }),
    value: fc.uint8Array({ maxLength: 253 }),
  }),
  fc.record({
    vendor: fc.integer({ min: 20_000, max: 0xffff_ffff }),
    type: fc.nat(255),
    value: fc.uint8Array({ maxLength: 247 }),
  }),
)

t.test('packets survive being written and read', async t => {
  fc.assert(
    fc.property(
      fc.record({
        code: fc.constantFrom(...Object.values(RadiusCode)),
        identifier: fc.nat(255),
        authenticator: fc.uint8Array({ minLength: 16, maxLength: 16 }),
        attributes: fc.array(arbitraryAttribute, { maxLength: 12 }),
      }),
      packet => {
        const bytes = encodeRadiusPacket(packet)
        if (bytes === undefined) return
        t.equal(fault(bytes), 'none')
        t.same(parseRadiusPacket(bytes), packet)
      },
    ),
    { seed, numRuns: 100 },
  )
})

t.test('arbitrary bytes never throw, and what passes can be read', async t => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.boolean(), (bytes, isPlausible) => {
      const packet = Uint8Array.from(bytes)
      if (isPlausible && packet.length >= 20) {
        packet[0] = 2
        putU16(packet, 2, packet.length)
      }
      if (checkRadiusPacket(packet)) return
      const { attributes } = parseRadiusPacket(packet)
      textsOf(attributes, 'Reply-Message')
      prefixOf(attributes, 'Framed-IPv6-Prefix')
      checkResponse(packet, requestAuthenticator, secret, true)
    }),
    { seed, numRuns: 2000 },
  )
  t.pass()
})

t.test('answers and dynamic requests prove themselves, and one flipped bit shows', async t => {
  const { attributes } = new AttributeList().text('Reply-Message', 'hello')
  const answer =
    sealResponse({ code: 2, identifier: 7, attributes }, requestAuthenticator, secret) ??
    new Uint8Array(0)
  t.equal(checkResponse(answer, requestAuthenticator, secret, true), undefined)
  const coa =
    sealDynamicRequest({ code: 43, identifier: 7, attributes }, secret) ?? new Uint8Array(0)
  t.equal(checkDynamicRequest(coa, secret, true), undefined)
  for (let at = 0; at < answer.length; at++) {
    const flip = (packet: Uint8Array) => packet.map((byte, i) => (i === at ? byte ^ 1 : byte))
    if (checkRadiusPacket(flip(answer))) continue
    t.ok(checkResponse(flip(answer), requestAuthenticator, secret, true), `answer, byte ${at}`)
    if (checkRadiusPacket(flip(coa))) continue
    t.ok(checkDynamicRequest(flip(coa), secret, true), `request, byte ${at}`)
  }
})
