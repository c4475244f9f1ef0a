import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { Ipv4Pool, type Ipv4PoolOptions, networksOf } from '../../lib/address/ipv4-pool.ts'
import { Ipv4Pools } from '../../lib/address/ipv4-pools.ts'
import { Ipv6Pool } from '../../lib/address/ipv6-pool.ts'
import { readLeases, writeLeases } from '../../lib/address/lease-file.ts'
import { InvariantError } from '../../lib/core/errors.ts'
import {
  formatIpv4,
  formatIpv4Network,
  formatIpv6Network,
  parseIpv4,
  parseIpv6Network,
} from '../../lib/core/ip-address.ts'

const address = (text: string) => parseIpv4(text) ?? 0
const range = (from: string, to: string) => ({ first: address(from), last: address(to) })

function pool(options: Partial<Ipv4PoolOptions> = {}): Ipv4Pool {
  return new Ipv4Pool({
    ranges: [range('10.0.0.0', '10.0.0.255')],
    serverAddress: address('10.0.0.1'),
    ...options,
  })
}

/** The address as text, or the reason of the refusal. */
function lease(from: Ipv4Pool, userName: string, extra: object = {}): string {
  const answer = from.lease({ userName, ...extra })
  return answer.type === 'leased' ? formatIpv4(answer.address) : answer.reason
}

t.test('addresses come in order, without network, broadcast and the server itself', async t => {
  const small = pool()
  const given = Array.from({ length: 253 }, (_, i) => lease(small, `u${i}`))
  t.equal(given[0], '10.0.0.2')
  t.equal(given[252], '10.0.0.254')
  t.equal(new Set(given).size, 253)
  t.equal(lease(small, 'late'), 'exhausted')
  t.equal(small.leasedCount, 253)
  t.ok(small.release(address('10.0.0.77')))
  t.notOk(small.release(address('10.0.0.77')), 'once')
  t.notOk(small.release(address('10.9.9.9')))
  t.equal(lease(small, 'late'), '10.0.0.77')
})

t.test('several ranges are used one after the other, less what is excluded', async t => {
  const several = pool({
    ranges: [
      range('10.0.2.5', '10.0.2.6'),
      range('10.0.1.8', '10.0.1.12'),
      range('10.0.1.12', '10.0.1.13'),
      range('10.0.3.0', '10.0.3.0'),
    ],
    exclude: [range('10.0.1.9', '10.0.1.10'), range('10.0.1.13', '10.0.2.5')],
  })
  const given = Array.from({ length: 6 }, (_, i) => lease(several, `u${i}`))
  t.same(given, ['10.0.1.8', '10.0.1.11', '10.0.1.12', '10.0.2.6', '10.0.3.0', 'exhausted'])
  t.equal(several.size, 5)
})

t.test('the same user gets the same address again while nobody needs it', async t => {
  const small = pool({ ranges: [range('10.0.0.2', '10.0.0.4')] })
  const first = lease(small, 'alice')
  lease(small, 'bob')
  small.release(address(first))
  t.equal(lease(small, 'carol'), '10.0.0.4', 'a fresh one, so that it stays free for alice')
  t.equal(lease(small, 'alice'), first)
  small.release(address(first))
  small.release(address('10.0.0.3'))
  t.equal(lease(small, 'dave'), first, 'the one that is free the longest')
  t.equal(lease(small, 'alice'), '10.0.0.3')
  t.equal(lease(small, 'bob'), 'exhausted')
})

t.test("a user's own address is given to nobody else, in the ranges or not", async t => {
  const own = new Set([address('10.0.0.2'), address('172.16.0.9')])
  const reserving = pool({ reserved: () => own, isRequestable: true })
  t.equal(lease(reserving, 'bob'), '10.0.0.3')
  t.equal(lease(reserving, 'bob', { requestedAddress: address('10.0.0.2') }), '10.0.0.4')
  t.equal(lease(reserving, 'alice', { fixedAddress: address('10.0.0.2') }), '10.0.0.2')
  t.equal(lease(reserving, 'alice', { fixedAddress: address('10.0.0.2') }), 'in-use')
  t.ok(reserving.isLeased(address('10.0.0.2')))
  reserving.release(address('10.0.0.2'))
  t.notOk(reserving.isLeased(address('10.0.0.2')))
  t.equal(lease(reserving, 'eve', { fixedAddress: address('172.16.0.9') }), '172.16.0.9')
  t.equal(lease(reserving, 'eve', { fixedAddress: address('172.16.0.9') }), 'in-use')
  t.equal(reserving.leasedCount, 3)
  t.ok(reserving.release(address('172.16.0.9')))
  t.equal(lease(reserving, 'x', { fixedAddress: address('10.0.0.1') }), 'in-use', 'the server')
  const tiny = pool({ ranges: [range('10.0.0.2', '10.0.0.3')], reserved: () => own })
  t.equal(lease(tiny, 'a', { fixedAddress: address('10.0.0.2') }), '10.0.0.2')
  tiny.release(address('10.0.0.2'))
  t.equal(lease(tiny, 'b'), '10.0.0.3')
  t.equal(lease(tiny, 'c'), 'exhausted', 'free, but not for everybody')
})

t.test('when the reservations cannot be read, those of before hold', async t => {
  let isReadable = true
  const reserving = pool({
    reserved: () => {
      if (!isReadable) throw new InvariantError('gone')
      return new Set([address('10.0.0.2'), address('10.0.0.4')])
    },
  })
  t.equal(lease(reserving, 'a'), '10.0.0.3')
  isReadable = false
  t.equal(lease(reserving, 'b'), '10.0.0.5')
})

t.test('a requested address is honoured when that is allowed, free and in the ranges', async t => {
  const asked = { requestedAddress: address('10.0.0.99') }
  t.equal(lease(pool(), 'alice', asked), '10.0.0.2', 'not allowed')
  const open = pool({ isRequestable: true })
  t.equal(lease(open, 'alice', asked), '10.0.0.99')
  t.equal(lease(open, 'bob', asked), '10.0.0.2', 'taken')
  for (const other of ['10.0.0.1', '10.0.0.0', '10.0.0.255', '10.1.0.1', '0.0.0.0']) {
    t.not(lease(open, other, { requestedAddress: address(other) }), other)
  }
  const rest = Array.from({ length: 247 }, (_, i) => lease(open, `u${i}`))
  t.notOk(rest.includes('10.0.0.99'))
  t.equal(lease(open, 'late'), 'exhausted')
})

t.test('a pool of sixteen million addresses costs no more than one of two hundred', async t => {
  const large = pool({
    ranges: [range('10.0.0.0', '10.255.255.255')],
    exclude: [range('10.0.0.2', '10.200.0.0')],
  })
  t.equal(lease(large, 'a'), '10.200.0.1')
  t.equal(lease(large, 'b', { fixedAddress: address('10.255.255.254') }), '10.255.255.254')
})

t.test('never two sessions with one address, whatever comes and goes', async t => {
  const step = fc.record({
    user: fc.integer({ min: 0, max: 9 }),
    isRelease: fc.boolean(),
    requested: fc.integer({ min: 0, max: 20 }),
  })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), steps => {
      const small = pool({
        ranges: [range('10.0.0.0', '10.0.0.16')],
        isRequestable: true,
        reserved: () => new Set([address('10.0.0.5')]),
      })
      const held: number[] = []
      for (const { user, isRelease, requested } of steps) {
        if (isRelease) {
          const back = held.shift()
          if (back !== undefined && !small.release(back)) return false
          continue
        }
        const answer = small.lease({
          userName: `u${user}`,
          requestedAddress: address('10.0.0.0') + requested,
        })
        if (answer.type === 'refused') {
          // 17 addresses, less .0, the server and the reserved one.
          if (held.length !== 14) return false
        } else {
          if (held.includes(answer.address) || answer.address === address('10.0.0.5')) return false
          held.push(answer.address)
        }
      }
      return small.leasedCount === held.length
    }),
    { seed: 11, numRuns: 300 },
  )
  t.pass()
})

t.test('users find their addresses again after a restart', async t => {
  const path = join(t.testdir({}), 'leases.json')
  t.same(readLeases(path), { ipv4: [], ipv6: [] })
  const before = pool()
  for (const user of ['alice', 'bob', 'carol']) lease(before, user)
  before.release(address('10.0.0.3'))
  const v6 = new Ipv6Pool(
    parseIpv6Network('fd00::/48') ?? { address: new Uint8Array(16), prefixLength: 48 },
  )
  v6.lease('alice')
  writeLeases(path, { ipv4: before.history(), ipv6: v6.history() })
  const after = pool()
  const restored = readLeases(path)
  after.restore(restored.ipv4)
  after.restore([
    { address: '192.0.2.1', owner: 'x' },
    { address: 'nonsense', owner: 'y' },
  ])
  t.equal(lease(after, 'dave'), '10.0.0.5', 'one that nobody had')
  t.equal(lease(after, 'carol'), '10.0.0.4')
  t.equal(lease(after, 'bob'), '10.0.0.3')
  t.equal(lease(after, 'alice'), '10.0.0.2')
  t.same(restored.ipv6, [{ address: 'fd00:0:0:1::/64', owner: 'alice' }])
  for (const bad of ['', '[]', '{"version":2}', '{"version":1,"ipv4":[1,{"address":2}]}', 'null']) {
    writeFileSync(path, bad)
    t.same(readLeases(path), { ipv4: [], ipv6: [] }, bad)
  }
})

t.test('a range is cut into the fewest networks', async t => {
  const texts = (from: string, to: string) => networksOf(range(from, to)).map(formatIpv4Network)
  t.same(texts('10.0.0.0', '10.0.255.255'), ['10.0.0.0/16'])
  t.same(texts('10.0.0.10', '10.0.0.20'), [
    '10.0.0.10/31',
    '10.0.0.12/30',
    '10.0.0.16/30',
    '10.0.0.20/32',
  ])
  t.same(texts('10.0.0.7', '10.0.0.7'), ['10.0.0.7/32'])
  t.same(texts('0.0.0.0', '255.255.255.255'), ['0.0.0.0/0'])
  t.same(texts('128.0.0.0', '255.255.255.255'), ['128.0.0.0/1'])
})

t.test('each session gets a /64 of its own out of the prefix', async t => {
  const prefix = (text: string) =>
    parseIpv6Network(text) ?? { address: new Uint8Array(16), prefixLength: 0 }
  const text = (network?: { address: Uint8Array; prefixLength: number }) =>
    network && formatIpv6Network(network)
  const v6 = new Ipv6Pool(prefix('fd00:1:2:fffc::/62'))
  const first = v6.lease('alice')
  t.equal(text(first), 'fd00:1:2:fffd::/64', 'the first is the server’s')
  t.equal(text(v6.lease('bob')), 'fd00:1:2:fffe::/64')
  t.equal(text(v6.lease('carol')), 'fd00:1:2:ffff::/64')
  t.equal(v6.lease('dave'), undefined)
  t.equal(v6.leasedCount, 3)
  t.ok(first && v6.release(first))
  t.notOk(first && v6.release(first))
  t.notOk(v6.release(prefix('fd00:1:3::/64')))
  t.notOk(v6.release(prefix('fd00:1:2:fffd::/63')))
  t.equal(text(v6.lease('dave')), 'fd00:1:2:fffd::/64')
  t.equal(text(new Ipv6Pool(prefix('fd00:1:2:3::/64')).lease('x')), 'fd00:1:2:3::/64')
  const again = new Ipv6Pool(prefix('fd00:1:2:fffc::/62'))
  again.restore([
    ...v6.history(),
    { address: 'fd00::/64', owner: 'z' },
    { address: 'x', owner: 'z' },
  ])
  t.equal(text(again.lease('carol')), 'fd00:1:2:ffff::/64')
  t.throws(() => new Ipv6Pool(prefix('fd00::/32')), InvariantError)
  t.throws(() => new Ipv6Pool(prefix('fd00::/48'), 65), InvariantError)

  const sites = new Ipv6Pool(prefix('2001:db0::/28'), 44)
  const given = Array.from({ length: 4097 }, (_, i) => sites.lease(`site ${i}`))
  t.equal(text(given[0]), '2001:db0:10::/44')
  t.equal(text(given[4096]), '2001:db1:10::/44', 'over the boundary of 32 bits')
  t.ok(given[4096] && sites.release(given[4096]))
  t.equal(text(sites.lease('site 4096')), '2001:db1:10::/44')
})

t.test(
  'named pools give their own addresses, and the next goes on when one is used up',
  async t => {
    const pools = new Ipv4Pools({
      ranges: [range('10.0.0.0', '10.0.0.255')],
      serverAddress: 0x0a000001,
      pools: new Map([
        ['staff', { ranges: [range('10.1.0.1', '10.1.0.2')], next: 'more' }],
        [
          'more',
          { ranges: [range('10.2.0.1', '10.2.0.1'), range('10.3.0.1', '10.3.0.1')], next: 'staff' },
        ],
      ]),
    })
    const lease = (userName: string, poolName?: string) => {
      const answer = pools.lease({ userName, ...(poolName !== undefined && { poolName }) })
      return answer.type === 'leased' ? formatIpv4(answer.address) : answer.reason
    }
    t.equal(lease('a'), '10.0.0.2')
    t.same(
      ['b', 'c', 'd', 'e', 'f'].map(name => lease(name, 'staff')),
      ['10.1.0.1', '10.1.0.2', '10.2.0.1', '10.3.0.1', 'exhausted'],
      'a circle of pools ends',
    )
    t.equal(lease('g', 'unknown'), 'exhausted', 'a name that there is not gives nothing')
    t.equal(pools.leasedCount, 5)
    t.ok(pools.release(0x0a020001))
    t.notOk(pools.release(0x0a020001))
    t.equal(lease('d', 'staff'), '10.2.0.1', 'its last user finds it again')
    t.same(pools.lease({ userName: 'x', fixedAddress: 0x0a010001 }), {
      type: 'refused',
      reason: 'in-use',
    })
    t.ok(pools.release(0x0a010001))
    t.match(pools.lease({ userName: 'x', fixedAddress: 0x0a010001 }), { type: 'leased' })
    t.equal(lease('b', 'staff'), 'exhausted', 'a fixed address is given to nobody else')
    const next = new Ipv4Pools({
      ranges: [range('10.0.0.0', '10.0.0.255')],
      serverAddress: 0x0a000001,
      pools: new Map([['staff', { ranges: [range('10.1.0.0', '10.1.0.255')] }]]),
    })
    next.restore(pools.history())
    t.match(next.lease({ userName: 'c', poolName: 'staff' }), { address: 0x0a010002 })
  },
)
