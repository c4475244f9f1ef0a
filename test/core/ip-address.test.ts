import { BlockList, isIPv4, isIPv6 } from 'node:net'
import fc from 'fast-check'
import t from 'tap'
import {
  formatIpv4,
  formatIpv4Network,
  formatIpv6,
  formatIpv6Network,
  ipv4Mask,
  ipv4NetworksOfRange,
  isInIpv4Network,
  isInIpv6Network,
  parseIpv4,
  parseIpv4Network,
  parseIpv6,
  parseIpv6Network,
  unmapped,
} from '../../lib/core/ip-address.ts'

const ipv4 = fc.nat({ max: 0xffffffff })
/** Bytes with many zeros, so that runs to be shortened occur. */
const ipv6 = fc
  .uint8Array({ minLength: 8, maxLength: 8 })
  .chain(kinds =>
    fc
      .uint8Array({ minLength: 16, maxLength: 16 })
      .map(bytes => bytes.map((byte, i) => ((kinds[i >> 1] ?? 0) < 128 ? 0 : byte))),
  )

t.test('IPv4 text and numbers go both ways', async t => {
  t.equal(parseIpv4('192.0.2.1'), 0xc0000201)
  t.equal(parseIpv4('255.255.255.255'), 0xffffffff)
  fc.assert(
    fc.property(ipv4, address => {
      const text = formatIpv4(address)
      t.ok(isIPv4(text))
      t.equal(parseIpv4(text), address)
    }),
    { seed: 791, numRuns: 100 },
  )
  fc.assert(
    fc.property(fc.string(), text => t.equal(parseIpv4(text) === undefined, !isIPv4(text))),
    { seed: 792, numRuns: 100 },
  )
  for (const text of ['', '1.2.3', '1.2.3.4.5', '01.2.3.4', '256.1.1.1', '::1', ' 1.2.3.4']) {
    t.equal(parseIpv4(text), undefined, JSON.stringify(text))
  }
})

t.test('IPv6 is written as the platform writes it (RFC 5952)', async t => {
  const platform = (text: string) => new URL(`http://[${text}]/`).hostname.slice(1, -1)
  fc.assert(
    fc.property(ipv6, bytes => {
      const text = formatIpv6(bytes)
      t.ok(isIPv6(text), text)
      t.equal(text, platform(text))
      t.same(parseIpv6(text), bytes)
      t.same(parseIpv6(text.toUpperCase()), bytes)
    }),
    { seed: 5952, numRuns: 200 },
  )
  const full = (text: string) => formatIpv6(parseIpv6(text) ?? new Uint8Array(0))
  t.equal(full('2001:db8:0:0:1:0:0:1'), '2001:db8::1:0:0:1', 'the first of two equal runs')
  t.equal(full('2001:db8:0:1:1:1:1:1'), '2001:db8:0:1:1:1:1:1', 'one zero group is written out')
  t.equal(full('0:0:0:0:0:0:0:0'), '::')
  t.equal(full('1::'), '1::')
  t.equal(full('::ffff:192.0.2.1'), '::ffff:c000:201')
  for (const text of ['', ':', '1::2::3', 'fe80::1%eth0', '1.2.3.4', 'g::', '1:2:3:4:5:6:7']) {
    t.equal(parseIpv6(text), undefined, text)
  }
})

t.test('a network holds what BlockList says that it holds', async t => {
  fc.assert(
    fc.property(ipv4, ipv4, fc.nat(32), (base, other, prefixLength) => {
      const network = { address: (base & ipv4Mask(prefixLength)) >>> 0, prefixLength }
      const list = new BlockList()
      list.addSubnet(formatIpv4(network.address), prefixLength)
      // An address that differs in one bit is near the edge more often than any other.
      for (const address of [base, other, (base ^ (1 << (31 - (other & 31)))) >>> 0]) {
        t.equal(isInIpv4Network(network, address), list.check(formatIpv4(address)))
      }
      t.same(parseIpv4Network(formatIpv4Network(network)), network)
    }),
    { seed: 1519, numRuns: 100 },
  )
  fc.assert(
    fc.property(ipv6, fc.nat(127), fc.integer({ min: 1, max: 128 }), (base, bit, prefixLength) => {
      const address = base.map((byte, i) => byte & (0xff00 >>> clamp(prefixLength - 8 * i)))
      const network = { address, prefixLength }
      const list = new BlockList()
      list.addSubnet(formatIpv6(address), prefixLength, 'ipv6')
      const near = Uint8Array.from(base)
      near[bit >> 3] = (near[bit >> 3] ?? 0) ^ (0x80 >> (bit & 7))
      for (const one of [base, near]) {
        t.equal(isInIpv6Network(network, one), list.check(formatIpv6(one), 'ipv6'))
      }
      t.same(parseIpv6Network(formatIpv6Network(network)), network)
    }),
    { seed: 4291, numRuns: 100 },
  )
  t.ok(
    isInIpv6Network({ address: new Uint8Array(16), prefixLength: 0 }, new Uint8Array(16).fill(9)),
  )
})

t.test('network text with host bits or nonsense is refused', async t => {
  t.same(parseIpv4Network('10.1.2.3'), { address: 0x0a010203, prefixLength: 32 })
  t.same(parseIpv4Network('0.0.0.0/0'), { address: 0, prefixLength: 0 })
  t.same(parseIpv6Network('fd00::1')?.prefixLength, 128)
  for (const text of [
    '10.0.0.1/8',
    '10.0.0.0/33',
    '10.0.0.0/',
    '10.0.0.0/8/8',
    '/8',
    '10.0.0.0/-1',
  ]) {
    t.equal(parseIpv4Network(text), undefined, text)
  }
  for (const text of ['fd00::1/64', 'fd00::/129', 'fd00::/x', '10.0.0.0/8', 'fd00::/64/1']) {
    t.equal(parseIpv6Network(text), undefined, text)
  }
})

t.test('a range becomes the fewest networks that hold exactly it', async t => {
  t.same(ipv4NetworksOfRange(0x0a000001, 0x0a000006).map(formatIpv4Network), [
    '10.0.0.1/32',
    '10.0.0.2/31',
    '10.0.0.4/31',
    '10.0.0.6/32',
  ])
  t.same(ipv4NetworksOfRange(0, 0xffffffff).map(formatIpv4Network), ['0.0.0.0/0'])
  t.same(ipv4NetworksOfRange(5, 4), [])
  fc.assert(
    fc.property(ipv4, fc.nat(5000), (first, length) => {
      const last = Math.min(first + length, 0xffffffff)
      const networks = ipv4NetworksOfRange(first, last)
      let next = first
      for (const { address, prefixLength } of networks) {
        t.equal(address, next, 'one joins the next')
        t.equal((address & ipv4Mask(prefixLength)) >>> 0, address)
        next = address + 2 ** (32 - prefixLength)
      }
      t.equal(next, last + 1)
      t.ok(networks.length <= 62)
    }),
    { seed: 4632, numRuns: 100 },
  )
})

t.test('an IPv4-mapped address is named as IPv4', async t => {
  t.equal(unmapped('::ffff:192.0.2.1'), '192.0.2.1')
  t.equal(unmapped('::ffff:c000:201'), '192.0.2.1')
  for (const text of [
    '192.0.2.1',
    '2001:db8::1',
    '::1',
    '::fffe:1.2.3.4',
    'name',
    '::ffff:0:1.2.3.4',
  ]) {
    t.equal(unmapped(text), text)
  }
})

/** A shift of 0 to 8 bits. */
function clamp(bits: number): number {
  return Math.max(0, Math.min(8, bits))
}
