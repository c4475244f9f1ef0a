import fc from 'fast-check'
import t, { type Test } from 'tap'
import { concatBytes, fromHex, utf8 } from '../../lib/core/bytes.ts'
import { faultName } from '../../lib/core/faults.ts'
import { PROXY_HEADER_MAX_BYTES, parseProxyHeader } from '../../lib/sstp/proxy-protocol.ts'

const signature = fromHex('0d0a0d0a000d0a515549540a')
const tcp4 = fromHex('c0000207 c0000201 c350 01bb')
const tcp6 = fromHex('20010db8000000000000000000000007 20010db8000000000000000000000001 c350 01bb')

function version2(command: number, family: number, body: Uint8Array): Uint8Array {
  const head = Uint8Array.of(command, family, body.length >>> 8, body.length)
  return concatBytes(signature, head, body)
}

const faultOf = (bytes: Uint8Array) => {
  const result = parseProxyHeader(bytes)
  return result.type === 'fault' ? faultName(result.fault) : result.type
}

/** Nothing but the whole header is enough, and what follows it is left alone. */
function checkHeader(test: Test, header: Uint8Array, source: unknown) {
  for (let length = 0; length < header.length; length++) {
    test.equal(parseProxyHeader(header.subarray(0, length)).type, 'incomplete')
  }
  const withRest = concatBytes(header, fromHex('160301'))
  test.same(parseProxyHeader(withRest), { type: 'header', usedBytes: header.length, source })
}

t.test('version 1 names the client', async t => {
  const client = { type: 'client', address: '192.0.2.7', port: 50000 }
  checkHeader(t, utf8('PROXY TCP4 192.0.2.7 192.0.2.1 50000 443\r\n'), client)
  const client6 = { type: 'client', address: '2001:db8::7', port: 1 }
  checkHeader(t, utf8('PROXY TCP6 2001:db8::7 2001:db8::1 1 443\r\n'), client6)
  for (const rest of ['', ' ffff::1 ffff::2 65535 65535', ' anything']) {
    checkHeader(t, utf8(`PROXY UNKNOWN${rest}\r\n`), { type: 'local' })
  }
  const mapped = parseProxyHeader(utf8('PROXY TCP6 ::ffff:192.0.2.7 ::1 1 443\r\n'))
  t.match(mapped, { source: { address: '192.0.2.7' } })
})

t.test('version 1 with anything wrong is a fault', async t => {
  const cases: [string, string][] = [
    ['GET / HTTP/1.1\r\n', 'bad-magic'],
    ['PROXY TCP4 192.0.2.7 192.0.2.1 50000 443\n', 'bad-text'],
    ['PROXY TCP4 192.0.2.7 192.0.2.1 50000\r\n', 'bad-value'],
    ['PROXY TCP4 192.0.2.7 192.0.2.1 50000 443 1\r\n', 'bad-value'],
    ['PROXY TCP4 192.0.2.700 192.0.2.1 50000 443\r\n', 'bad-value'],
    ['PROXY TCP4 2001:db8::7 192.0.2.1 50000 443\r\n', 'bad-value'],
    ['PROXY TCP6 192.0.2.7 192.0.2.1 50000 443\r\n', 'bad-value'],
    ['PROXY TCP4 192.0.2.7 192.0.2.1 65536 443\r\n', 'bad-value'],
    ['PROXY TCP4 192.0.2.7 192.0.2.1 050 443\r\n', 'bad-value'],
    ['PROXY TCP4 192.0.2.7 192.0.2.1 -1 443\r\n', 'bad-value'],
    ['PROXY UDP4 192.0.2.7 192.0.2.1 1 443\r\n', 'bad-value'],
    [`PROXY UNKNOWN ${'x'.repeat(100)}\r\n`, 'oversize'],
  ]
  for (const [text, fault] of cases) t.equal(faultOf(utf8(text)), fault, text)
  t.equal(faultOf(utf8(`PROXY UNKNOWN ${'x'.repeat(92)}`)), 'incomplete')
})

t.test('version 2 names the client, and its TLVs are skipped', async t => {
  const client = { type: 'client', address: '192.0.2.7', port: 50000 }
  checkHeader(t, version2(0x21, 0x11, tcp4), client)
  checkHeader(t, version2(0x21, 0x11, concatBytes(tcp4, fromHex('04000100ff'))), client)
  const client6 = { type: 'client', address: '2001:db8::7', port: 50000 }
  checkHeader(t, version2(0x21, 0x21, tcp6), client6)
  // LOCAL: health checks of the balancer itself. AF_UNSPEC and others: the connection's own address.
  checkHeader(t, version2(0x20, 0x00, new Uint8Array(0)), { type: 'local' })
  checkHeader(t, version2(0x20, 0x11, tcp4), { type: 'local' })
  checkHeader(t, version2(0x21, 0x31, new Uint8Array(216)), { type: 'local' })
})

t.test('version 2 with anything wrong is a fault', async t => {
  t.equal(faultOf(version2(0x11, 0x11, tcp4)), 'bad-version')
  t.equal(faultOf(version2(0x22, 0x11, tcp4)), 'bad-value')
  t.equal(faultOf(version2(0x21, 0x11, tcp4.subarray(1))), 'length-too-small')
  t.equal(faultOf(version2(0x21, 0x21, tcp6.subarray(1))), 'length-too-small')
  t.equal(faultOf(version2(0x21, 0x11, new Uint8Array(PROXY_HEADER_MAX_BYTES - 15))), 'oversize')
  t.equal(faultOf(version2(0x21, 0x11, new Uint8Array(0xffff)).subarray(0, 16)), 'oversize')
})

t.test('arbitrary bytes never throw and a header never claims more than there is', async t => {
  const prefix = fc.constantFrom(new Uint8Array(0), signature, utf8('PROXY '), utf8('PROXY TCP4 '))
  fc.assert(
    fc.property(prefix, fc.uint8Array({ maxLength: 300 }), (start, rest) => {
      const bytes = concatBytes(start, rest)
      const result = parseProxyHeader(bytes)
      return result.type !== 'header' || result.usedBytes <= bytes.length
    }),
    { seed: 20260103, numRuns: 5000 },
  )
  t.pass('all survived')
})
