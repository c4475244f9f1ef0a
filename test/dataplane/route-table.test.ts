import fc from 'fast-check'
import t from 'tap'
import { ipv4Mask, isInIpv4Network, isInIpv6Network } from '../../lib/core/ip-address.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { RouteTable } from '../../lib/dataplane/route-table.ts'
import { ip4, ip6 } from './packets.ts'

interface Owner {
  readonly name: string
}

t.test('the longest prefix wins, and deleting it uncovers the next', async t => {
  const table = new RouteTable<Owner>()
  const all: Owner = { name: 'all' }
  const site: Owner = { name: 'site' }
  const host: Owner = { name: 'host' }
  table.addIpv4(0, 0, all)
  table.addIpv4(ip4('10.1.0.0'), 16, site)
  table.addIpv4(ip4('10.1.2.3'), 32, host)
  t.equal(table.lookupIpv4(ip4('10.1.2.3')), host)
  t.equal(table.lookupIpv4(ip4('10.1.2.4')), site)
  t.equal(table.lookupIpv4(ip4('192.0.2.1')), all)
  table.deleteOwner(host)
  t.equal(table.lookupIpv4(ip4('10.1.2.3')), site)
  table.deleteOwner(all)
  t.equal(table.lookupIpv4(ip4('192.0.2.1')), undefined)
})

t.test('a network belongs to its newest owner, and the older cannot take it away', async t => {
  const table = new RouteTable<Owner>()
  const older: Owner = { name: 'older' }
  const newer: Owner = { name: 'newer' }
  table.addIpv6(ip6('2001:db8:1::'), 64, older)
  table.addIpv6(ip6('2001:db8:1::ffff'), 64, newer)
  table.deleteOwner(older)
  t.equal(table.lookupIpv6(ip6('2001:db8:1::42'), 0), newer)
})

t.test('IPv4: a thousand changes agree with a list that is searched', async () => {
  fc.assert(
    fc.property(fc.integer(), seed => {
      const random = new SeededRandom(seed)
      const table = new RouteTable<Owner>()
      let plain: { address: number; prefixLength: number; owner: Owner }[] = []
      const owners = Array.from({ length: 12 }, (_, i) => ({ name: String(i) }))
      // Few distinct bits, so that networks nest and hashes collide.
      const address = () => ((random.next() & 0x0f0000ff) | 0x0a000000) >>> 0
      const pick = () => owners[random.next() % owners.length] ?? { name: 'none' }
      for (let step = 0; step < 120; step++) {
        if (random.next() % 10 === 0) {
          const owner = pick()
          table.deleteOwner(owner)
          plain = plain.filter(entry => entry.owner !== owner)
        } else {
          const prefixLength = [0, 8, 24, 28, 30, 32, 32, 32][random.next() % 8] ?? 32
          const network = (address() & ipv4Mask(prefixLength)) >>> 0
          const owner = pick()
          table.addIpv4(network, prefixLength, owner)
          plain = plain.filter(e => e.address !== network || e.prefixLength !== prefixLength)
          plain.push({ address: network, prefixLength, owner })
        }
        for (let look = 0; look < 6; look++) {
          const wanted = address()
          const best = plain
            .filter(entry => isInIpv4Network(entry, wanted))
            .sort((a, b) => b.prefixLength - a.prefixLength)[0]
          if (table.lookupIpv4(wanted) !== best?.owner) return false
          if (table.lookupIpv4(wanted) !== best?.owner) return false
        }
      }
      return true
    }),
    { seed: 7, numRuns: 60 },
  )
})

t.test('IPv6: the same', async () => {
  fc.assert(
    fc.property(fc.integer(), seed => {
      const random = new SeededRandom(seed)
      const table = new RouteTable<Owner>()
      let plain: { address: Uint8Array; prefixLength: number; owner: Owner }[] = []
      const owners = Array.from({ length: 8 }, (_, i) => ({ name: String(i) }))
      const address = () => {
        const bytes = ip6('2001:db8::')
        bytes[5] = random.next() & 3
        bytes[7] = random.next() & 3
        bytes[15] = random.next() & 3
        return bytes
      }
      for (let step = 0; step < 100; step++) {
        const owner = owners[random.next() % owners.length] ?? { name: 'none' }
        if (random.next() % 10 === 0) {
          table.deleteOwner(owner)
          plain = plain.filter(entry => entry.owner !== owner)
        } else {
          const prefixLength = [32, 48, 62, 64, 64, 128][random.next() % 6] ?? 64
          const network = masked(address(), prefixLength)
          table.addIpv6(network, prefixLength, owner)
          plain = plain.filter(
            e => e.prefixLength !== prefixLength || Buffer.compare(e.address, network) !== 0,
          )
          plain.push({ address: network, prefixLength, owner })
        }
        for (let look = 0; look < 6; look++) {
          const wanted = address()
          const best = plain
            .filter(entry => isInIpv6Network(entry, wanted))
            .sort((a, b) => b.prefixLength - a.prefixLength)[0]
          if (table.lookupIpv6(wanted, 0) !== best?.owner) return false
        }
      }
      return true
    }),
    { seed: 7, numRuns: 40 },
  )
})

t.test('ten thousand hosts are all found, and all forgotten', async t => {
  const table = new RouteTable<Owner>()
  const owners = Array.from({ length: 10_000 }, (_, i) => ({ name: String(i) }))
  const first = ip4('10.64.0.0')
  owners.forEach((owner, i) => {
    table.addIpv4(first + i, 32, owner)
  })
  t.ok(owners.every((owner, i) => table.lookupIpv4(first + i) === owner))
  owners.forEach((owner, i) => {
    if (i % 2 === 0) table.deleteOwner(owner)
  })
  t.ok(
    owners.every((owner, i) => table.lookupIpv4(first + i) === (i % 2 === 0 ? undefined : owner)),
  )
})

function masked(address: Uint8Array, prefixLength: number): Uint8Array {
  return address.map((byte, i) => byte & (0xff00 >> Math.max(0, Math.min(8, prefixLength - 8 * i))))
}
