import t from 'tap'
import { SeededRandom } from '../../lib/core/random.ts'
import { ActivityWatch } from '../../lib/ipsec/activity-watch.ts'
import { Lifetime, softLimits, unlimited } from '../../lib/ipsec/lifetime.ts'

t.test('time: soft once, hard once, then silence', async t => {
  const lifetime = new Lifetime(
    { soft: { ...unlimited, timeMs: 100 }, hard: { ...unlimited, timeMs: 150 } },
    1000,
  )
  t.equal(lifetime.nextDeadlineMs(), 1100)
  t.equal(lifetime.poll(1099), undefined)
  t.same(lifetime.poll(1100), { limit: 'soft', measure: 'time' })
  t.equal(lifetime.nextDeadlineMs(), 1150)
  t.equal(lifetime.poll(1149), undefined)
  t.same(lifetime.poll(1150), { limit: 'hard', measure: 'time' })
  t.equal(lifetime.poll(5000), undefined)
  t.equal(lifetime.nextDeadlineMs(), Number.POSITIVE_INFINITY)
})

t.test('volume: bytes and packets, and a spent SA', async t => {
  const lifetime = new Lifetime(
    { soft: { ...unlimited, bytes: 100 }, hard: { ...unlimited, bytes: 200, packets: 3 } },
    0,
  )
  lifetime.count(99)
  t.equal(lifetime.poll(1), undefined)
  lifetime.count(1)
  t.same(lifetime.poll(1), { limit: 'soft', measure: 'bytes' })
  t.notOk(lifetime.isSpent)
  lifetime.count(1)
  t.ok(lifetime.isSpent)
  t.same(lifetime.poll(1), { limit: 'hard', measure: 'packets' })
  t.equal(lifetime.packets, 3)
  t.equal(lifetime.bytes, 101)
})

t.test('a hard limit that comes with a soft one is the one that is told', async t => {
  const limits = { ...unlimited, timeMs: 10 }
  const lifetime = new Lifetime({ soft: limits, hard: limits }, 0)
  t.same(lifetime.poll(10), { limit: 'hard', measure: 'time' })
  t.equal(lifetime.poll(11), undefined)
})

t.test('soft limits lie one to two margins before the hard ones, at random', async t => {
  const hard = { timeMs: 1000, bytes: 2000, packets: Number.POSITIVE_INFINITY }
  const random = new SeededRandom(3)
  const seen = new Set<number>()
  for (let i = 0; i < 200; i++) {
    const soft = softLimits(hard, 0.1, random)
    if (soft.timeMs > 900 || soft.timeMs <= 800) t.fail(`${soft.timeMs} ms`)
    t.equal(soft.packets, Number.POSITIVE_INFINITY)
    seen.add(soft.timeMs)
  }
  t.ok(seen.size > 100, 'they differ')
})

t.test('idle: no packet either way, told once until there is use again', async t => {
  const watch = new ActivityWatch({ idleMs: 100, outageMs: Number.POSITIVE_INFINITY }, 0)
  t.equal(watch.nextDeadlineMs(), 100)
  t.equal(watch.poll(50, 1, 0), undefined)
  t.equal(watch.nextDeadlineMs(), 150)
  t.equal(watch.poll(149, 1, 0), undefined)
  t.equal(watch.poll(150, 1, 0), 'idle')
  t.equal(watch.poll(151, 1, 0), undefined)
  t.equal(watch.nextDeadlineMs(), Number.POSITIVE_INFINITY)
  t.equal(watch.poll(160, 1, 1), undefined, 'sending is use')
  t.equal(watch.lastUsedMs, 160)
  t.equal(watch.poll(260, 1, 1), 'idle')
})

t.test('outage: nothing is heard, whatever we send', async t => {
  const watch = new ActivityWatch({ idleMs: Number.POSITIVE_INFINITY, outageMs: 100 }, 0)
  for (let now = 10; now < 100; now += 10) t.equal(watch.poll(now, 0, now), undefined)
  t.equal(watch.poll(100, 0, 100), 'outage')
  watch.heard(105)
  t.equal(watch.poll(110, 0, 110), undefined, 'an answered liveness check counts')
  t.equal(watch.lastHeardMs, 105)
  t.equal(watch.poll(205, 0, 110), 'outage')
  t.equal(watch.poll(206, 1, 110), undefined)
  t.equal(watch.poll(300, 0, 0), undefined, 'counters that start anew after a rekey are use')
})
