import fc from 'fast-check'
import t from 'tap'
import { concatBytes, u16, u32 } from '../../lib/core/bytes.ts'
import { parseIpv4, parseIpv6 } from '../../lib/core/ip-address.ts'
import { EncryptionId } from '../../lib/crypto/transforms.ts'
import { NextHeader } from '../../lib/ipsec/esp.ts'
import { EspDrop } from '../../lib/ipsec/esp-drop.ts'
import { type TrafficSelector, TrafficSelectors } from '../../lib/ipsec/traffic-selectors.ts'
import { suiteOf } from '../crypto/suites.ts'
import { ipv4Packet, ipv6Packet, memory, pairOf } from './sa-pair.ts'

function address(text: string): Uint8Array {
  const ipv4 = parseIpv4(text)
  if (ipv4 !== undefined) return Uint8Array.of(ipv4 >>> 24, ipv4 >>> 16, ipv4 >>> 8, ipv4)
  return parseIpv6(text) ?? new Uint8Array(16)
}

function range(start: string, end = start, ports: Partial<TrafficSelector> = {}): TrafficSelector {
  return {
    protocol: 0,
    startPort: 0,
    endPort: 0xffff,
    startAddress: address(start),
    endAddress: address(end),
    ...ports,
  }
}

const everything = [range('0.0.0.0', '255.255.255.255'), range('::', `${'ffff:'.repeat(7)}ffff`)]
const packet4 = ipv4Packet(60)
const packet6 = ipv6Packet(60)

function allows(
  remote: readonly TrafficSelector[],
  local: readonly TrafficSelector[],
  packet: Uint8Array,
): boolean {
  return new TrafficSelectors(remote, local).allows(packet, 0, packet.length)
}

t.test('everything is everything, nothing is nothing', async t => {
  t.ok(allows(everything, everything, packet4))
  t.ok(allows(everything, everything, packet6))
  t.notOk(allows([], everything, packet4))
  t.notOk(allows(everything, [], packet6))
  t.notOk(allows(everything.slice(0, 1), everything, packet6), 'IPv4 alone lets no IPv6 out')
})

t.test('the source is held to the remote side, the destination to the local one', async t => {
  const client = [range('10.0.0.1')]
  t.ok(allows(client, everything, packet4))
  t.notOk(allows([range('10.0.0.2')], everything, packet4), 'a spoofed source')
  t.notOk(allows([range('10.0.0.0')], everything, packet4))
  t.ok(allows(client, [range('192.0.2.0', '192.0.2.255')], packet4))
  t.notOk(allows(client, [range('192.0.2.10', '192.0.2.255')], packet4))
  t.notOk(allows(client, [range('192.0.2.0', '192.0.2.8')], packet4))
  t.ok(allows([range('fd00::1')], [range('fd00::2')], packet6))
  t.notOk(allows([range('fd00::2')], everything, packet6))
  t.notOk(allows([range('fd00::')], everything, packet6))
})

t.test('one of several ranges is enough', async t => {
  const ranges = [range('10.1.0.0', '10.1.255.255'), range('10.0.0.0', '10.0.0.1')]
  t.ok(allows(ranges, everything, packet4))
  t.notOk(allows(ranges.slice(0, 1), everything, packet4))
})

t.test('ports and protocols, with each side its own', async t => {
  const udp = { protocol: 17 }
  const any4 = (ports: Partial<TrafficSelector>) => [range('0.0.0.0', '255.255.255.255', ports)]
  t.ok(allows(any4(udp), everything, packet4))
  t.notOk(allows(any4({ protocol: 6 }), everything, packet4))
  t.ok(allows(any4({ ...udp, startPort: 1000, endPort: 1000 }), everything, packet4))
  t.notOk(allows(any4({ ...udp, startPort: 53, endPort: 53 }), everything, packet4))
  t.ok(allows(everything, any4({ ...udp, startPort: 53, endPort: 53 }), packet4))
  t.notOk(allows(everything, any4({ ...udp, startPort: 54, endPort: 60 }), packet4))
})

t.test('a later fragment has no port: only any port and OPAQUE let it out', async t => {
  const fragment = Uint8Array.from(packet4)
  fragment[7] = 1
  const ports = (startPort: number, endPort: number) => [
    range('0.0.0.0', '255.255.255.255', { protocol: 17, startPort, endPort }),
  ]
  t.ok(allows(ports(0, 65535), everything, fragment))
  t.ok(allows(ports(65535, 0), everything, fragment), 'OPAQUE')
  t.notOk(allows(ports(1000, 1000), everything, fragment))
  t.notOk(allows(ports(65535, 0), everything, packet4), 'OPAQUE is not for what has a port')
})

t.test('ICMP type and code stand for ports; other protocols have none', async t => {
  const icmp = Uint8Array.from(packet4)
  icmp[9] = 1
  icmp.set([8, 0], 20)
  const echo = { protocol: 1, startPort: 0x0800, endPort: 0x08ff }
  t.ok(allows([range('10.0.0.1', '10.0.0.1', echo)], everything, icmp))
  icmp[20] = 3
  t.notOk(allows([range('10.0.0.1', '10.0.0.1', echo)], everything, icmp))
  const gre = Uint8Array.from(packet4)
  gre[9] = 47
  const onlyGre = { protocol: 47 }
  t.ok(allows([range('10.0.0.1', '10.0.0.1', onlyGre)], everything, gre))
  t.notOk(allows([range('10.0.0.1', '10.0.0.1', { ...onlyGre, endPort: 1000 })], everything, gre))
})

t.test('IPv6 extension headers are stepped over, and the steps end', async t => {
  const head = packet6.slice(0, 40)
  head[6] = 0
  const udp = packet6.slice(40)
  const withExtensions = concatBytes(
    head,
    Uint8Array.of(60, 0, 1, 4, 0, 0, 0, 0),
    Uint8Array.of(51, 1, ...new Uint8Array(14)),
    Uint8Array.of(44, 1, ...new Uint8Array(10)),
    Uint8Array.of(17, 0, 0, 0, 0, 0, 0, 9),
    udp,
  )
  const dns = { protocol: 17, startPort: 53, endPort: 53 }
  const local = [range('fd00::2', 'fd00::2', dns)]
  t.ok(allows(everything, local, withExtensions))
  const later = Uint8Array.from(withExtensions)
  later[40 + 8 + 16 + 12 + 3] = 8
  t.notOk(allows(everything, local, later), 'a later fragment')
  const endless = Uint8Array.from({ length: 1400 }, () => 0)
  endless[0] = 0x60
  t.notOk(allows(everything, [range('::', 'ff::', dns)], endless))
})

t.test('transport mode compares protocol and ports, for a NAT changes addresses', async t => {
  const l2tp = { protocol: 17, startPort: 1701, endPort: 1701 }
  const anyUdp = { protocol: 17 }
  const selectors = new TrafficSelectors(
    [range('192.168.1.5', '192.168.1.5', anyUdp)],
    [range('203.0.113.1', '203.0.113.1', l2tp)],
  )
  const udp = (source: number, destination: number) => {
    const bytes = new Uint8Array(20)
    new DataView(bytes.buffer).setUint16(0, source)
    new DataView(bytes.buffer).setUint16(2, destination)
    bytes[5] = 20
    return bytes
  }
  t.ok(selectors.allowsTransport(17, udp(1701, 1701), 0, 20))
  t.ok(selectors.allowsTransport(17, udp(33333, 1701), 0, 20))
  t.notOk(selectors.allowsTransport(17, udp(1701, 22), 0, 20))
  t.notOk(selectors.allowsTransport(6, udp(1701, 1701), 0, 20))
  // What was allowed last is known again; nothing else passes for it.
  for (let i = 0; i < 2; i++) t.ok(selectors.allowsTransport(17, udp(1701, 1701), 0, 20))
  t.notOk(selectors.allowsTransport(6, udp(1701, 1701), 0, 20))
  t.notOk(selectors.allowsTransport(17, udp(1701, 22), 0, 20))
  t.notOk(selectors.allowsTransport(17, udp(1701, 1701), 0, 3), 'cut before its ports end')
  t.ok(selectors.allowsTransport(17, udp(1701, 1701), 0, 20))
  const { outbound, inbound } = pairOf(suiteOf(EncryptionId.aesGcm16, 128), {
    mode: 'transport',
    selectors,
  })
  for (const [port, expected] of [
    [1701, 20],
    [500, EspDrop['selector-mismatch']],
  ] as const) {
    memory.bytes.set(udp(1701, port), 4096)
    const length = outbound.seal(4096, 20, NextHeader.udp)
    t.equal(inbound.open(4096 - outbound.headroomBytes, length), expected)
  }
})

t.test('an SA drops what its selectors do not let out (RFC 4301 §5.2)', async t => {
  const selectors = new TrafficSelectors([range('10.0.0.1')], everything)
  const { outbound, inbound } = pairOf(suiteOf(EncryptionId.aesGcm16, 128), { selectors })
  for (const [source, expected] of [
    [1, 60],
    [2, EspDrop['selector-mismatch']],
  ] as const) {
    const packet = ipv4Packet(60)
    packet[15] = source
    memory.bytes.set(packet, 4096)
    const length = outbound.sealIp(4096, 60)
    t.equal(inbound.open(4096 - outbound.headroomBytes, length), expected)
  }
  t.equal(inbound.drops.get(EspDrop['selector-mismatch']), 1)
})

t.test('IPv4 ranges decide as plain comparison does', async t => {
  const one = fc.uint8Array({ minLength: 4, maxLength: 4 })
  fc.assert(
    fc.property(
      one,
      one,
      one,
      fc.nat({ max: 65535 }),
      fc.nat({ max: 65535 }),
      (a, b, source, p, q) => {
        const packet = ipv4Packet(60)
        packet.set(source, 12)
        const selector = {
          protocol: 17,
          startPort: p,
          endPort: q,
          startAddress: a,
          endAddress: b,
        }
        const port = u16(packet, 20)
        const isInside =
          u32(source, 0) >= u32(a, 0) &&
          u32(source, 0) <= u32(b, 0) &&
          ((p === 0 && q === 65535) || (port >= p && port <= q))
        return allows([selector], everything, packet) === isInside
      },
    ),
    { seed: 41, numRuns: 3000 },
  )
  t.pass('3000 ranges')
})

t.test('IPv6 ranges decide as plain comparison does', async t => {
  // Few values per byte, so that common prefixes happen.
  const one = fc.array(fc.constantFrom(0, 1, 255), { minLength: 16, maxLength: 16 })
  const asNumber = (bytes: number[]) => bytes.reduce((sum, byte) => sum * 256n + BigInt(byte), 0n)
  fc.assert(
    fc.property(one, one, one, fc.nat({ max: 15 }), (a, b, source, common) => {
      for (let i = 0; i < common; i++) a[i] = b[i] = source[i] ?? 0
      const packet = ipv6Packet(60)
      packet.set(source, 8)
      const selector = range('::')
      const ranges = [
        { ...selector, startAddress: Uint8Array.from(a), endAddress: Uint8Array.from(b) },
      ]
      const value = asNumber(source)
      return allows(ranges, everything, packet) === (value >= asNumber(a) && value <= asNumber(b))
    }),
    { seed: 43, numRuns: 3000 },
  )
  t.pass('3000 ranges')
})

t.test('arbitrary packets never throw', async t => {
  const selectors = new TrafficSelectors(
    [range('::', 'ff::', { protocol: 6, startPort: 1, endPort: 2 })],
    everything,
  )
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 120 }), bytes => {
      selectors.allows(bytes, 0, bytes.length)
      selectors.allowsTransport(bytes[0] ?? 0, bytes, 0, bytes.length)
    }),
    { seed: 42, numRuns: 2000 },
  )
  t.pass('no exception')
})
