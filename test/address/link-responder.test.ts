import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { LinkResponder, linkLocalAddress } from '../../lib/address/link-responder.ts'
import {
  checkLinkMessage,
  encodedBytes,
  encodeRouterMessage,
  type RouterMessage,
} from '../../lib/address/wire/icmpv6.ts'
import { concatBytes, copyBytes, fromHex, putU16, toHex } from '../../lib/core/bytes.ts'
import { WireFault } from '../../lib/core/faults.ts'
import { parseIpv6 } from '../../lib/core/ip-address.ts'

const ip = (text: string) => parseIpv6(text) ?? new Uint8Array(0)
const client = ip('fe80::1111:2222:3333:4444')
const router = ip('fe80::a00:1')
const options = {
  interfaceId: fromHex('000000000a000001'),
  prefix: { address: ip('fd00:1:2:3::'), prefixLength: 64 },
  mtuBytes: 1400,
  dnsServers: [ip('2001:db8::53')],
}

/** RFC 1071 over the pseudo-header of RFC 8200 §8.1, written down whole and summed as big integers. */
function referenceChecksum(packet: Uint8Array): number {
  const body = packet.slice(40)
  const pseudo = concatBytes(packet.slice(8, 40), new Uint8Array(7), Uint8Array.of(58), body)
  const view = new DataView(new ArrayBuffer(pseudo.length + 1))
  pseudo.forEach((byte, i) => {
    view.setUint8(i, byte)
  })
  view.setUint32(32, body.length)
  let sum = 0n
  for (let at = 0; at < pseudo.length; at += 2) {
    // A checksum field that is already there is not part of the sum.
    if (at !== 40 + 2) sum += BigInt(view.getUint16(at))
  }
  const folded = sum % 0xffffn
  return Number(folded === 0n ? 0n : 0xffffn - folded)
}

/** A whole packet around an ICMPv6 message whose checksum is filled in. */
function packet(
  source: Uint8Array,
  destination: Uint8Array,
  message: Uint8Array,
  hopLimit = 255,
): Uint8Array {
  const head = fromHex(`60000000 0000 3a ${hopLimit.toString(16).padStart(2, '0')}`)
  const whole = concatBytes(head, source, destination, message)
  putU16(whole, 4, message.length)
  putU16(whole, 42, referenceChecksum(whole))
  return whole
}

const routerSolicitation = packet(client, ip('ff02::2'), fromHex('85000000 00000000'))
const neighborSolicitation = (target: Uint8Array, source = client) =>
  packet(source, ip('ff02::1:ff00:1'), concatBytes(fromHex('87000000 00000000'), target))
const echoRequest = (destination: Uint8Array, source = client) =>
  packet(source, destination, fromHex('80000000 12340001 68656c6c6f'), 64)

t.test('a router solicitation is answered with prefix, MTU and DNS servers', async t => {
  const answer = new LinkResponder(options).answer(routerSolicitation)
  t.equal(
    answer && toHex(answer),
    toHex(
      fromHex(`
        60000000 0050 3a ff
        fe80000000000000 000000000a000001
        fe80000000000000 1111222233334444
        86 00 ${answer && toHex(copyBytes(answer, 42, 44))}
        40 00 0708 00000000 00000000
        03 04 40 40 00278d00 00093a80 00000000 fd000001000200030000000000000000
        05 01 0000 00000578
        19 03 0000 00000708 20010db8000000000000000000000053`),
    ),
    'A without L, lifetimes of RFC 4861 §6.2.1',
  )
  t.equal(answer && referenceChecksum(answer), answer && new DataView(answer.buffer).getUint16(42))
})

t.test('who has no address yet is answered through all nodes', async t => {
  const responder = new LinkResponder(options)
  const anonymous = packet(new Uint8Array(16), ip('ff02::2'), fromHex('85000000 00000000'))
  t.same(responder.answer(anonymous)?.slice(24, 40), ip('ff02::1'))
  t.same(responder.advertisement(), responder.answer(anonymous), 'as the periodic one')
  t.equal(responder.advertisement()[45], 0)
  const other = new LinkResponder({ ...options, hasDhcpv6: true }).advertisement()
  t.equal(other[45], 0x40, 'the O flag: ask by DHCPv6')
})

t.test('without DNS servers the option is left out', async t => {
  const plain = new LinkResponder({ ...options, dnsServers: [] }).advertisement()
  t.equal(plain.length, new LinkResponder(options).advertisement().length - 24)
  t.equal(checkLinkMessage(plain), WireFault.none)
})

t.test('a neighbour solicitation for the router is answered, any other is not', async t => {
  const responder = new LinkResponder(options)
  t.same(responder.linkLocalAddress, router)
  t.same(linkLocalAddress(options.interfaceId), router)
  const answer = responder.answer(neighborSolicitation(router))
  t.equal(answer && toHex(copyBytes(answer, 44, 48)), 'c0000000', 'router, solicited')
  t.same(answer?.slice(24, 40), client)
  t.same(answer?.slice(48, 64), router)
  t.equal(answer?.length, 64, 'no link-layer address: the link has none')
  const detection = responder.answer(neighborSolicitation(router, new Uint8Array(16)))
  t.equal(detection && toHex(copyBytes(detection, 44, 48)), '80000000', 'router, not solicited')
  t.same(detection?.slice(24, 40), ip('ff02::1'))
  t.equal(responder.answer(neighborSolicitation(client)), undefined)
  t.equal(responder.answer(neighborSolicitation(ip('fd00:1:2:3::1'))), undefined)
  t.same(responder.faults.toJSON(), {})
})

t.test('an echo request to the router comes back with its data', async t => {
  const responder = new LinkResponder(options)
  const answer = responder.answer(echoRequest(router))
  t.equal(answer && toHex(answer.slice(44)), '1234000168656c6c6f')
  t.equal(answer?.[40], 129)
  t.equal(answer && referenceChecksum(answer), answer && new DataView(answer.buffer).getUint16(42))
  t.equal(responder.answer(echoRequest(ip('ff02::1'))), undefined)
  t.equal(responder.answer(echoRequest(router, new Uint8Array(16))), undefined)
  t.equal(responder.answer(echoRequest(router, ip('ff02::1'))), undefined)
})

t.test('what is not for a router to answer is ignored without a fault', async t => {
  const responder = new LinkResponder(options)
  const others = [
    packet(client, ip('ff02::16'), fromHex('8f000000 00000000')),
    packet(client, router, fromHex('88000000 c0000000')),
    fromHex('4500001c 00000000 40010000 0a000001 0a000002 08000000 00000000'),
    fromHex(`60000000 0008 11 40 ${'00'.repeat(32)} 0222 0223 0008 0000`),
    new Uint8Array(0),
  ]
  for (const other of others) t.equal(responder.answer(other), undefined)
  t.same(responder.faults.toJSON(), {})
})

t.test('malformed messages are counted and not answered', async t => {
  const responder = new LinkResponder(options)
  const damaged = (change: (bytes: Uint8Array) => void, from = routerSolicitation) => {
    const bytes = Uint8Array.from(from)
    change(bytes)
    return bytes
  }
  const zeroOption = packet(client, ip('ff02::2'), fromHex('85000000 00000000 01 00 000000000000'))
  const longOption = packet(client, ip('ff02::2'), fromHex('85000000 00000000 01 02 000000000000'))
  const cases: [keyof typeof WireFault, Uint8Array][] = [
    ['bad-checksum', damaged(bytes => bytes.fill(1, 46, 47))],
    ['length-overrun', damaged(bytes => putU16(bytes, 4, 9))],
    ['length-too-small', damaged(bytes => putU16(bytes, 4, 3))],
    ['truncated', routerSolicitation.slice(0, 43)],
    ['truncated', packet(client, ip('ff02::2'), fromHex('85000000'))],
    ['truncated', packet(client, router, fromHex('87000000 00000000 fe80'))],
    ['truncated', packet(client, router, fromHex('80000000'))],
    ['bad-value', packet(client, ip('ff02::2'), fromHex('85000000 00000000'), 254)],
    ['bad-value', packet(client, ip('ff02::2'), fromHex('85010000 00000000'))],
    ['bad-value', packet(client, router, fromHex('80010000 00000000'))],
    ['bad-value', neighborSolicitation(ip('ff02::1'))],
    ['length-too-small', zeroOption],
    ['length-overrun', longOption],
  ]
  for (const [name, bytes] of cases) {
    const before = responder.faults.get(WireFault[name])
    t.equal(responder.answer(bytes), undefined, name)
    t.equal(responder.faults.get(WireFault[name]), before + 1, name)
  }
})

t.test('arbitrary bytes never throw, and keep nothing of the buffer', async t => {
  const responder = new LinkResponder(options)
  const near = fc
    .record({
      base: fc.constantFrom(routerSolicitation, neighborSolicitation(router), echoRequest(router)),
      at: fc.nat(80),
      byte: fc.nat(255),
      cut: fc.nat(80),
    })
    .map(({ base, at, byte, cut }) => {
      const bytes = Uint8Array.from(base)
      bytes[at] = byte
      return bytes.slice(0, Math.max(cut, 1))
    })
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 120 }), near), bytes => {
      const answer = responder.answer(bytes)
      const copy = answer && Uint8Array.from(answer)
      bytes.fill(0xa5)
      return answer === undefined || toHex(answer) === toHex(copy ?? answer)
    }),
    { seed: 5, numRuns: 2000 },
  )
  t.pass()
})

t.test(
  'encoding fills exactly its length, with a checksum that an independent sum agrees with',
  async t => {
    const address16 = fc.uint8Array({ minLength: 16, maxLength: 16 })
    const word = fc.integer({ min: 0, max: 0xffff_ffff })
    const message: fc.Arbitrary<RouterMessage> = fc.oneof(
      fc.record({
        type: fc.constant('router-advertisement' as const),
        source: address16,
        destination: address16,
        routerLifetimeSeconds: fc.integer({ min: 0, max: 0xffff }),
        hasDhcpv6: fc.boolean(),
        prefix: address16,
        prefixLength: fc.integer({ min: 0, max: 128 }),
        validLifetimeSeconds: word,
        preferredLifetimeSeconds: word,
        mtuBytes: word,
        dnsServers: fc.array(address16, { maxLength: 4 }),
        dnsLifetimeSeconds: word,
      }),
      fc.record({
        type: fc.constant('neighbor-advertisement' as const),
        source: address16,
        destination: address16,
        target: address16,
        isSolicited: fc.boolean(),
      }),
      fc.record({
        type: fc.constant('echo-reply' as const),
        source: address16,
        destination: address16,
        body: fc.uint8Array({ minLength: 4, maxLength: 64 }),
      }),
    )
    fc.assert(
      fc.property(message, value => {
        const length = encodedBytes(value)
        const filled = [0xa5, 0x5a].map(fill => {
          const out = new Uint8Array(length + 8).fill(fill)
          const end = encodeRouterMessage(value, out)
          return {
            out: out.slice(0, end),
            isRestUntouched: out.slice(end).every(byte => byte === fill),
          }
        })
        const [first, second] = filled
        if (first === undefined || second === undefined) return false
        const checksum = new DataView(first.out.buffer).getUint16(42)
        return (
          first.out.length === length &&
          first.isRestUntouched &&
          toHex(first.out) === toHex(second.out) &&
          checksum % 0xffff === referenceChecksum(first.out) % 0xffff
        )
      }),
      { seed: 6, numRuns: 500 },
    )
    t.pass()
  },
)

const hasTshark = spawnSync('tshark', ['--version']).status === 0
t.test(
  'Wireshark reads the advertisement as we mean it',
  hasTshark ? {} : { skip: 'tshark is not installed: apt-get install tshark' },
  async t => {
    const bytes = new LinkResponder(options).advertisement()
    const file = join(t.testdir({}), 'ra.pcap')
    // LINKTYPE_IPV6 is 229.
    const head = new DataView(new ArrayBuffer(40))
    const words = [0xa1b2c3d4, 0x00020004, 0, 0, 65535, 229, 0, 0, bytes.length, bytes.length]
    words.forEach((value, i) => {
      head.setUint32(4 * i, value)
    })
    writeFileSync(file, concatBytes(new Uint8Array(head.buffer), bytes))
    const { stdout } = spawnSync('tshark', ['-r', file, '-V', '-o', 'ipv6.use_geoip:FALSE'], {
      encoding: 'utf8',
    })
    t.match(stdout, /Router Advertisement \(134\)/)
    t.match(stdout, /\[Checksum Status: Good\]/)
    t.match(stdout, /Prefix: fd00:1:2:3::/)
    t.match(stdout, /MTU: 1400/)
    t.match(stdout, /Recursive DNS Server.*2001:db8::53/)
    t.notMatch(stdout, /Malformed/)
  },
)
