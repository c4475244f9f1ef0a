import fc from 'fast-check'
import t from 'tap'
import { DhcpResponder } from '../../lib/address/dhcp-responder.ts'
import {
  checkDhcpRequest,
  classlessRoutes,
  type DhcpReply,
  dhcpReplyBytes,
  encodeDhcpReply,
  isForDhcpServer,
  parseDhcpRequest,
} from '../../lib/address/wire/dhcp.ts'
import { concatBytes, fromHex, putU16, toHex, u16, utf8 } from '../../lib/core/bytes.ts'
import { WireFault } from '../../lib/core/faults.ts'
import { type Ipv4Network, parseIpv4, parseIpv4Network } from '../../lib/core/ip-address.ts'

const ip = (text: string) => parseIpv4(text) ?? 0
const network = (text: string): Ipv4Network =>
  parseIpv4Network(text) ?? { address: 0, prefixLength: 0 }
const settings = {
  serverAddress: ip('10.87.0.1'),
  dnsServers: [ip('10.87.0.1'), ip('9.9.9.9')],
  domain: 'corp.example',
  routes: [network('10.0.0.0/8'), network('192.168.128.0/17'), network('0.0.0.0/0')],
}
const client = ip('10.87.0.9')

/** Options as a Windows client of a VPN sends them: type, client id, host name, vendor class, list. */
const windowsOptions = `35 01 08  3d 07 01 000000000000  0c 02 5043
  3c 08 4d53465420352e30  37 0d 0103060f1f2b2c2e2f7779f9fc`

function request(
  options: string,
  shape: {
    ciaddr?: string
    source?: string
    giaddr?: string
    op?: string
    end?: string
    port?: string
  } = {},
): Uint8Array {
  const { ciaddr = '0a570009', source = '0a570009', giaddr = '00000000' } = shape
  const { op = '01', end = 'ff', port = '0043' } = shape
  const message = concatBytes(
    fromHex(`${op} 01 06 00 11223344 0000 8000 ${ciaddr} 00000000 00000000 ${giaddr}`),
    fromHex('0200c0a80001'),
    new Uint8Array(10 + 64 + 128),
    fromHex(`63825363 ${options} ${end}`),
  )
  const packet = concatBytes(
    fromHex(`45000000 00000000 8011 0000 ${source} ffffffff 0044 ${port} 0000 0000`),
    message,
  )
  putU16(packet, 2, packet.length)
  putU16(packet, 24, packet.length - 20)
  return packet
}

function optionsOf(packet: Uint8Array): Record<number, string> {
  const found: Record<number, string> = {}
  for (let at = 28 + 240; at < packet.length && packet[at] !== 255; ) {
    const code = packet[at] ?? 0
    const end = at + 2 + (packet[at + 1] ?? 0)
    found[code] = (found[code] ?? '') + toHex(packet.subarray(at + 2, end))
    at = end
  }
  return found
}

/** One's-complement sum of all 16-bit words, checksum included: ffff when it is right. */
function sumOf(bytes: Uint8Array): number {
  let sum = 0
  for (let at = 0; at < bytes.length; at += 2) {
    sum += (bytes[at] ?? 0) * 256 + (bytes[at + 1] ?? 0)
  }
  while (sum > 0xffff) sum = (sum % 65536) + Math.floor(sum / 65536)
  return sum
}

t.test('a Windows client learns routes, DNS servers and suffix by DHCPINFORM', async t => {
  const responder = new DhcpResponder(settings, client)
  const answer = responder.answer(request(windowsOptions)) ?? new Uint8Array(0)
  t.equal(toHex(answer.subarray(12, 24)), '0a5700010a57000900430044', 'addresses and ports')
  t.equal(sumOf(answer.subarray(0, 20)), 0xffff)
  const pseudo = concatBytes(answer.slice(12, 20), Uint8Array.of(0, 17), answer.slice(24, 26))
  t.equal(sumOf(concatBytes(pseudo, answer.slice(20))), 0xffff)
  t.equal(u16(answer, 2), answer.length)
  const message = answer.subarray(28)
  t.equal(
    toHex(message.subarray(0, 34)),
    `02010600112233440000800${'0'}0a570009${'00'.repeat(12)}0200c0a80001`,
  )
  t.same(optionsOf(answer), {
    53: '05',
    54: '0a570001',
    6: '0a57000109090909',
    15: toHex(utf8('corp.example')),
    249: '080a0a570001' + '11c0a8800a570001' + '000a570001',
  })
  t.same(responder.counters.toJSON(), { 'dhcp-answered': 1 })
})

t.test('others get the routes of RFC 3442, and only what they asked for', async t => {
  const responder = new DhcpResponder(settings, client)
  const rfc = responder.answer(request('350108 370179')) ?? new Uint8Array(0)
  t.same(Object.keys(optionsOf(rfc)), ['53', '54', '121'])
  const silent = responder.answer(request('350108')) ?? new Uint8Array(0)
  t.same(Object.keys(optionsOf(silent)), ['6', '15', '53', '54', '121'])
  const bare = { serverAddress: settings.serverAddress, dnsServers: [], routes: [] }
  const nothing = new DhcpResponder(bare, client).answer(request(windowsOptions))
  t.same(Object.keys(optionsOf(nothing ?? new Uint8Array(0))), ['53', '54'])
  t.equal(nothing?.length, 28 + 300, 'never shorter than BOOTP')
})

t.test('the example of RFC 3442: descriptors are as long as they must be', async t => {
  const row = (text: string) => toHex(classlessRoutes([network(text)], 0))
  t.equal(row('0.0.0.0/0'), '00' + '00000000')
  t.equal(row('10.0.0.0/8'), '080a' + '00000000')
  t.equal(row('10.0.0.0/24'), '180a0000' + '00000000')
  t.equal(row('10.17.0.0/16'), '100a11' + '00000000')
  t.equal(row('10.27.129.0/24'), '180a1b81' + '00000000')
  t.equal(row('10.229.0.128/25'), '190ae50080' + '00000000')
  t.equal(row('10.198.122.47/32'), '200ac67a2f' + '00000000')
})

t.test('more routes than one option holds are options in a row (RFC 3396)', async t => {
  const routes = Array.from({ length: 64 }, (_, i) => network(`10.0.${i}.1/32`))
  const answer = new DhcpResponder({ ...settings, routes }, client).answer(request(windowsOptions))
  t.equal(
    optionsOf(answer ?? new Uint8Array(0))[249],
    toHex(classlessRoutes(routes, ip('10.87.0.1'))),
  )
  t.ok((answer?.length ?? 9999) < 1280)
})

t.test('what is not for us is counted and not answered', async t => {
  const responder = new DhcpResponder(settings, client)
  const ignored = [
    request('350101'),
    request('350108', { giaddr: '0a000001' }),
    request('350108', { ciaddr: '0a570008' }),
    request('350108', { source: '0a570008' }),
    request('350108', { op: '02' }),
    request('3501'),
    request('350108 350108'),
    request('37017f', {}),
    request('350108 f9ff00', { end: '' }),
  ]
  for (const packet of ignored) t.equal(responder.answer(packet), undefined)
  t.same(responder.counters.toJSON(), {
    'dhcp-not-inform': 2,
    'dhcp-relayed': 1,
    'dhcp-other-address': 2,
    'dhcp-malformed-bad-value': 1,
    'dhcp-malformed-length-overrun': 1,
    'dhcp-malformed-duplicate': 1,
    'dhcp-malformed-missing': 1,
  })
  t.equal(responder.answer(request('350108', { port: '0044' })), undefined)
  t.equal(responder.answer(Uint8Array.of(0x60, 0, 0)), undefined)
})

t.test('arbitrary and damaged packets never throw, and answers fill their length', async () => {
  const responder = new DhcpResponder(settings, client)
  const good = request(windowsOptions)
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(good.length - 1), fc.nat(255)), { maxLength: 8 }),
      fc.nat(good.length),
      (changes, end) => {
        const packet = good.slice(0, end)
        for (const [at, value] of changes) if (at < end) packet[at] = value
        const before = toHex(packet)
        responder.answer(packet)
        return toHex(packet) === before
      },
    ),
    { seed: 67, numRuns: 2000 },
  )
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 600 }), bytes => {
      if (isForDhcpServer(bytes) && checkDhcpRequest(bytes) === WireFault.none) {
        parseDhcpRequest(bytes)
      }
      return true
    }),
    { seed: 68, numRuns: 500 },
  )
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 600 }), { maxLength: 5 }), values => {
      const reply: DhcpReply = {
        request: parseDhcpRequest(good),
        messageType: 5,
        serverAddress: 1,
        clientAddress: 2,
        options: values.map((value, i) => ({ code: 128 + i, value })),
      }
      const out = new Uint8Array(dhcpReplyBytes(reply) + 8).fill(0xa5)
      const written = encodeDhcpReply(reply, out)
      const found = optionsOf(out.subarray(0, written))
      return (
        written === out.length - 8 &&
        out.subarray(written).every(byte => byte === 0xa5) &&
        values.every((value, i) => found[128 + i] === toHex(value))
      )
    }),
    { seed: 69, numRuns: 300 },
  )
})
