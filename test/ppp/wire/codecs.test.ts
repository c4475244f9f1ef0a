/** Every PPP codec: round trip, exact length, and no exception on any bytes. */
import fc from 'fast-check'
import t from 'tap'
import { concatBytes, fromHex, toHex, utf8, utf8Text } from '../../../lib/core/bytes.ts'
import { WireFault } from '../../../lib/core/faults.ts'
import {
  changePasswordBytes,
  checkChangePassword,
  checkChapValue,
  checkMschapv2Value,
  encodeChangePassword,
  encodeChapValue,
  encodeMschapv2Failure,
  encodeMschapv2Value,
  mschapv2ValueBytes,
  parseChangePassword,
  parseChapValue,
  parseMschapv2Failure,
  parseMschapv2Value,
} from '../../../lib/ppp/wire/chap.ts'
import {
  checkControlPacket,
  controlPacketBytes,
  encodeControlPacket,
  parseControlPacket,
  putControlPacket,
} from '../../../lib/ppp/wire/control-packet.ts'
import {
  encodeFrame,
  frameHeaderBytes,
  PppProtocol,
  peel,
  protocolName,
  putFrameHeader,
} from '../../../lib/ppp/wire/frame.ts'
import {
  type AuthenticationProtocol,
  authenticationOf,
  authenticationOptionOf,
  lcpOptions,
  mruOf,
  mruOption,
} from '../../../lib/ppp/wire/lcp-options.ts'
import {
  checkMagicPacket,
  checkProtocolReject,
  checkTimeRemaining,
  encodeMagicPacket,
  encodeProtocolReject,
  magicOf,
  printableText,
  rejectedProtocolOf,
  restOf,
  secondsRemaining,
} from '../../../lib/ppp/wire/link-packet.ts'
import {
  checkOptions,
  encodeOptions,
  isSameOption,
  isWellFormed,
  maxOptions,
  optionsBytes,
  optionU32,
  parseOptions,
  putOptions,
  u32OfOption,
} from '../../../lib/ppp/wire/option.ts'
import {
  checkPapRequest,
  encodePapMessage,
  encodePapRequest,
  papMessage,
  parsePapRequest,
} from '../../../lib/ppp/wire/pap.ts'

const seeded = { seed: 1661, numRuns: 400 }
const anyBytes = fc.uint8Array({ maxLength: 600 })
const sized = (length: number) => fc.uint8Array({ minLength: length, maxLength: length })
const byte = fc.nat(255)

/** A buffer of 0xa5 with a margin, so that a byte too few or too many shows. */
function dirty(length: number): Uint8Array {
  return new Uint8Array(length + 8).fill(0xa5)
}

function isOnlyFilled(out: Uint8Array, at: number, end: number): boolean {
  return [...out.subarray(0, at), ...out.subarray(end)].every(b => b === 0xa5)
}

t.test('a frame is peeled with and without address, control and long protocol', async t => {
  const peelHex = (hex: string) => peel(fromHex(hex), 0, fromHex(hex).length)
  t.equal(peelHex('ff03c021 01'), (4 << 16) | 0xc021)
  t.equal(peelHex('c021 01'), (2 << 16) | 0xc021)
  t.equal(peelHex('ff03 21 45'), (3 << 16) | 0x0021)
  t.equal(peelHex('21 45'), (1 << 16) | 0x0021)
  t.equal(peelHex('ff030021 45'), (4 << 16) | 0x0021)
  t.equal(peelHex('ff0380fd'), (4 << 16) | 0x80fd, 'an empty information field is one')
})

t.test('what is no frame peels to 0', async t => {
  for (const hex of ['', 'ff', 'ff03', 'ff03c0', 'c0', 'ff03c020', 'c020 01', 'ff01', '0000']) {
    t.equal(peel(fromHex(hex), 0, fromHex(hex).length), 0, `"${hex}"`)
  }
})

t.test('peel stays inside its frame, wherever that stands', async () => {
  fc.assert(
    fc.property(anyBytes, anyBytes, anyBytes, (before, frame, after) => {
      const peeled = peel(concatBytes(before, frame, after), before.length, frame.length)
      const alone = peel(frame, 0, frame.length)
      return peeled === alone && peeled >>> 16 <= frame.length
    }),
    seeded,
  )
})

t.test('an encoded frame peels to its protocol and information', async () => {
  fc.assert(
    fc.property(fc.constantFrom(...Object.values(PppProtocol)), anyBytes, (protocol, info) => {
      const frame = encodeFrame(protocol, info)
      const peeled = peel(frame, 0, frame.length)
      const out = dirty(frameHeaderBytes)
      const end = putFrameHeader(out, 3, protocol)
      return (
        peeled === ((frameHeaderBytes << 16) | protocol) &&
        toHex(frame.subarray(frameHeaderBytes)) === toHex(info) &&
        end === 3 + frameHeaderBytes &&
        isOnlyFilled(out, 3, end)
      )
    }),
    seeded,
  )
})

t.test('protocols have names for people', async t => {
  t.equal(protocolName(0xc021), 'lcp')
  t.equal(protocolName(0x8281), '0x8281')
  t.equal(protocolName(0x004b), '0x004b')
})

t.test('a control packet round-trips, padding behind it ignored', async () => {
  fc.assert(
    fc.property(byte, byte, anyBytes, anyBytes, (code, identifier, data, padding) => {
      const packet = { code, identifier, data }
      const bytes = concatBytes(encodeControlPacket(packet), padding)
      if (checkControlPacket(bytes, 0, bytes.length)) return false
      const parsed = parseControlPacket(bytes, 0)
      const out = dirty(controlPacketBytes(packet))
      const end = putControlPacket(packet, out, 2)
      return (
        parsed.code === code &&
        parsed.identifier === identifier &&
        toHex(parsed.data) === toHex(data) &&
        end - 2 === controlPacketBytes(packet) &&
        isOnlyFilled(out, 2, end)
      )
    }),
    seeded,
  )
})

t.test('lengths of a control packet that cannot be are faults', async t => {
  const check = (hex: string) => checkControlPacket(fromHex(hex), 0, fromHex(hex).length)
  t.equal(check('010100'), WireFault.truncated)
  t.equal(check('01010000'), WireFault['length-too-small'])
  t.equal(check('01010003'), WireFault['length-too-small'])
  t.equal(check('01010005'), WireFault['length-overrun'])
  t.equal(check('0101ffff'), WireFault['length-overrun'])
  t.equal(check('01010004'), WireFault.none)
})

t.test('options round-trip byte for byte, the unknown ones too', async () => {
  const option = fc.record({ type: byte, data: fc.uint8Array({ maxLength: 20 }) })
  fc.assert(
    fc.property(fc.array(option, { maxLength: maxOptions }), options => {
      const bytes = encodeOptions(options)
      const out = dirty(optionsBytes(options))
      const end = putOptions(options, out, 5)
      const parsed = parseOptions(bytes)
      return (
        checkOptions(bytes) === WireFault.none &&
        parsed.length === options.length &&
        parsed.every((own, i) => isSameOption(own, options[i] ?? own)) &&
        toHex(encodeOptions(parsed)) === toHex(bytes) &&
        end - 5 === bytes.length &&
        isOnlyFilled(out, 5, end)
      )
    }),
    seeded,
  )
})

t.test('option lists that do not add up are faults and take no time', async t => {
  t.equal(checkOptions(fromHex('01')), WireFault.truncated)
  t.equal(checkOptions(fromHex('0100')), WireFault['length-too-small'])
  t.equal(checkOptions(fromHex('0101')), WireFault['length-too-small'])
  t.equal(checkOptions(fromHex('0104 05')), WireFault['length-overrun'])
  t.equal(checkOptions(fromHex('0702 0802 01')), WireFault.truncated)
  t.equal(checkOptions(fromHex('0702'.repeat(maxOptions))), WireFault.none)
  t.equal(checkOptions(fromHex('0702'.repeat(maxOptions + 1))), WireFault['too-many'])
})

t.test('an option is well formed when type and length are in the table', async t => {
  t.ok(isWellFormed(lcpOptions, mruOption(1400)))
  t.notOk(isWellFormed(lcpOptions, { type: 1, data: new Uint8Array(3) }))
  t.notOk(isWellFormed(lcpOptions, { type: 13, data: Uint8Array.of(6) }))
  t.equal(mruOf(mruOption(4091)), 4091)
  t.equal(u32OfOption(optionU32(3, 0xfffffffe)), 0xfffffffe)
})

t.test('authentication options have the values of RFC 1994, 2759, 1334 and 2284', async t => {
  const hexOf = (name: AuthenticationProtocol) => toHex(authenticationOptionOf(name).data)
  t.equal(hexOf('mschapv2'), 'c22381')
  t.equal(hexOf('chap-md5'), 'c22305')
  t.equal(hexOf('pap'), 'c023')
  t.equal(hexOf('eap'), 'c227')
  for (const name of ['mschapv2', 'chap-md5', 'pap', 'eap'] as const) {
    t.equal(authenticationOf(authenticationOptionOf(name)), name)
  }
  for (const hex of ['c22380', 'c228', 'c22700', 'c223', 'c2238100', 'c02300', '']) {
    t.equal(authenticationOf({ type: 3, data: fromHex(hex) }), undefined, `"${hex}"`)
  }
  t.equal(authenticationOf({ type: 4, data: fromHex('c023') }), undefined)
})

t.test('echo, identification and time-remaining data begin with the magic number', async t => {
  const data = encodeMagicPacket(0x12345678, utf8('MSRASV5.20'))
  t.equal(checkMagicPacket(data), WireFault.none)
  t.equal(magicOf(data), 0x12345678)
  t.equal(utf8Text(restOf(data)), 'MSRASV5.20')
  t.equal(checkMagicPacket(new Uint8Array(3)), WireFault.truncated)
  t.equal(checkTimeRemaining(fromHex('00000000 0000003c')), WireFault.none)
  t.equal(secondsRemaining(fromHex('00000000 0000003c')), 60)
  t.equal(checkTimeRemaining(new Uint8Array(7)), WireFault.truncated)
})

t.test('only printable ASCII is text', async t => {
  t.equal(printableText(utf8('MSRAS-0-HOST')), 'MSRAS-0-HOST')
  t.equal(printableText(fromHex('41001b')), undefined)
  t.equal(printableText(utf8('ä')), undefined)
  t.equal(printableText(new Uint8Array(0)), undefined)
})

t.test('a Protocol-Reject quotes no more than it may', async () => {
  fc.assert(
    fc.property(fc.nat(0xffff), anyBytes, fc.nat(400), (protocol, information, maxBytes) => {
      const data = encodeProtocolReject(protocol, information, maxBytes)
      return (
        checkProtocolReject(data) === WireFault.none &&
        rejectedProtocolOf(data) === protocol &&
        data.length === 2 + Math.max(0, Math.min(information.length, maxBytes - 2))
      )
    }),
    seeded,
  )
})

t.test('PAP requests and messages round-trip and are cut at 255 bytes', async t => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.uint8Array({ maxLength: 300 }), (a, b) => {
      const data = encodePapRequest({ peerId: a, password: b })
      if (checkPapRequest(data)) return false
      const parsed = parsePapRequest(data)
      return (
        toHex(parsed.peerId) === toHex(a.subarray(0, 255)) &&
        toHex(parsed.password) === toHex(b.subarray(0, 255)) &&
        toHex(papMessage(encodePapMessage(a))) === toHex(a.subarray(0, 255))
      )
    }),
    seeded,
  )
  t.equal(checkPapRequest(fromHex('00')), WireFault.truncated)
  t.equal(checkPapRequest(fromHex('0541 42')), WireFault['length-overrun'])
  t.equal(checkPapRequest(fromHex('0141 0541')), WireFault['length-overrun'])
  t.equal(toHex(papMessage(fromHex('ff4142'))), '4142', 'a Msg-Length beyond the end (RouterOS)')
  t.equal(toHex(papMessage(new Uint8Array(0))), '')
})

t.test('CHAP values round-trip', async t => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 255 }), anyBytes, (value, name) => {
      const data = encodeChapValue({ value, name })
      if (checkChapValue(data)) return false
      const parsed = parseChapValue(data)
      return toHex(parsed.value) === toHex(value) && toHex(parsed.name) === toHex(name)
    }),
    seeded,
  )
  t.equal(checkChapValue(new Uint8Array(0)), WireFault.truncated)
  t.equal(checkChapValue(fromHex('00 41')), WireFault['length-too-small'])
  t.equal(checkChapValue(fromHex('03 4142')), WireFault['length-overrun'])
})

t.test('MS-CHAPv2 responses and password changes round-trip at their exact lengths', async t => {
  fc.assert(
    fc.property(
      sized(16),
      sized(24),
      sized(516),
      sized(16),
      (peerChallenge, nt, password, hash) => {
        const value = encodeMschapv2Value({ peerChallenge, ntResponse: nt })
        const change = {
          peerChallenge,
          ntResponse: nt,
          encryptedPassword: password,
          encryptedHash: hash,
        }
        const data = encodeChangePassword(change)
        const parsed = parseMschapv2Value(value)
        const parsedChange = parseChangePassword(data)
        return (
          value.length === mschapv2ValueBytes &&
          data.length === changePasswordBytes &&
          !checkMschapv2Value(value) &&
          !checkChangePassword(data) &&
          toHex(parsed.peerChallenge) === toHex(peerChallenge) &&
          toHex(parsed.ntResponse) === toHex(nt) &&
          toHex(parsedChange.encryptedPassword) === toHex(password) &&
          toHex(parsedChange.encryptedHash) === toHex(hash) &&
          toHex(parsedChange.peerChallenge) === toHex(peerChallenge) &&
          toHex(parsedChange.ntResponse) === toHex(nt)
        )
      },
    ),
    { ...seeded, numRuns: 50 },
  )
  t.equal(checkMschapv2Value(new Uint8Array(48)), WireFault['bad-value'])
  t.equal(checkMschapv2Value(new Uint8Array(50)), WireFault['bad-value'])
  t.equal(checkChangePassword(new Uint8Array(581)), WireFault.truncated)
})

t.test('a failure text is written as RFC 2759 §6 and read in any order', async t => {
  const challenge = fromHex('00112233445566778899aabbccddeeff')
  const text = encodeMschapv2Failure({
    errorCode: 691,
    canRetry: true,
    challenge,
    message: 'no, E=1 R=0',
  })
  t.equal(text, 'E=691 R=1 C=00112233445566778899AABBCCDDEEFF V=3 M=no, E=1 R=0')
  t.same(parseMschapv2Failure(text), {
    errorCode: 691,
    canRetry: true,
    challenge,
    message: 'no, E=1 R=0',
  })
  t.same(parseMschapv2Failure('R=0 E=648'), { errorCode: 648, canRetry: false })
  t.same(parseMschapv2Failure('E=691 R=1 C=12'), { errorCode: 691, canRetry: true })
  for (const nonsense of ['', 'M=E=691', 'E=', 'E=abc', 'E=123456', 'R=1']) {
    t.equal(parseMschapv2Failure(nonsense), undefined, `"${nonsense}"`)
  }
})

t.test('nothing that is checked or parsed throws, whatever the bytes', async () => {
  fc.assert(
    fc.property(anyBytes, bytes => {
      peel(bytes, 0, bytes.length)
      if (!checkControlPacket(bytes, 0, bytes.length)) parseControlPacket(bytes, 0)
      if (!checkOptions(bytes)) parseOptions(bytes)
      if (!checkPapRequest(bytes)) parsePapRequest(bytes)
      papMessage(bytes)
      if (!checkChapValue(bytes)) parseChapValue(bytes)
      if (!checkMschapv2Value(bytes)) parseMschapv2Value(bytes)
      if (!checkChangePassword(bytes)) parseChangePassword(bytes)
      if (!checkMagicPacket(bytes)) restOf(bytes)
      parseMschapv2Failure(utf8Text(bytes))
      printableText(bytes)
    }),
    { ...seeded, numRuns: 2000 },
  )
})
