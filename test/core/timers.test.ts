import fc from 'fast-check'
import t from 'tap'
import { ManualClock, systemClock, systemWallClock } from '../../lib/core/clock.ts'
import { Driver } from '../../lib/core/driver.ts'
import { type Machine, Outbox, type Timeout } from '../../lib/core/machine.ts'
import { TimerTable, TimerWheel, type WheelEntry } from '../../lib/core/timers.ts'

t.test('a manual clock stands still and never goes back', async t => {
  const clock = new ManualClock(5)
  t.equal(clock.nowMs(), 5)
  clock.advance(10)
  clock.set(12)
  t.equal(clock.nowMs(), 15)
  clock.set(20)
  t.equal(clock.nowMs(), 20)
  const earlierMs = systemClock.nowMs()
  t.ok(systemClock.nowMs() >= earlierMs, 'the system clock does not either')
  t.type(systemWallClock.now(), Date)
})

t.test('a timer table gives out the earliest expired timer, once', async t => {
  const table = new TimerTable<'restart' | 'echo' | 'idle'>()
  t.equal(table.nextDeadlineMs(), Number.POSITIVE_INFINITY)
  t.equal(table.takeExpired(1e9), undefined)
  table.set('restart', 30)
  table.set('echo', 10)
  table.set('idle', 20)
  t.equal(table.nextDeadlineMs(), 10)
  t.equal(table.takeExpired(9), undefined, 'not before its time')
  t.equal(table.takeExpired(25), 'echo')
  t.equal(table.takeExpired(25), 'idle')
  t.equal(table.takeExpired(25), undefined)
  t.ok(table.isSet('restart'))
  table.set('restart', 5)
  t.equal(table.takeExpired(5), 'restart', 'a later set replaces')
  table.set('echo', 1)
  table.clear('echo')
  table.set('idle', 1)
  table.clearAll()
  t.notOk(table.isSet('echo'))
  t.equal(table.takeExpired(1e9), undefined)
})

/** Fires every entry at the first advance at or after its deadline and one tick; plain and slow. */
class SlowWheel {
  readonly deadlines = new Map<number, number>()

  due(nowMs: number): number[] {
    return [...this.deadlines].filter(([, deadlineMs]) => deadlineMs <= nowMs).map(([id]) => id)
  }
}

t.test('the wheel agrees with a plain list of deadlines', async t => {
  const tickMs = 50
  const step = fc.oneof(
    fc.record({ type: fc.constant('schedule' as const), id: fc.nat(9), inMs: fc.nat(4000) }),
    fc.record({ type: fc.constant('cancel' as const), id: fc.nat(9) }),
    fc.record({ type: fc.constant('advance' as const), byMs: fc.nat(700) }),
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), fc.nat(1000), (steps, startMs) => {
      let nowMs = startMs
      // Fewer slots than the deadlines need: they go round more than once.
      const wheel = new TimerWheel(nowMs, { tickMs, slots: 16 })
      const slow = new SlowWheel()
      const fired: number[] = []
      const entries = Array.from(
        { length: 10 },
        (_, id): WheelEntry => ({
          onDeadline: () => {
            fired.push(id)
          },
        }),
      )
      for (const one of steps) {
        const entry = 'id' in one ? entries[one.id] : undefined
        if (one.type === 'schedule' && entry !== undefined) {
          wheel.schedule(entry, nowMs + one.inMs)
          slow.deadlines.set(one.id, nowMs + one.inMs)
        } else if (one.type === 'cancel' && entry !== undefined) {
          wheel.cancel(entry)
          slow.deadlines.delete(one.id)
        } else if (one.type === 'advance') {
          nowMs += one.byMs
          wheel.advance(nowMs)
          for (const id of fired.splice(0)) {
            const deadlineMs = slow.deadlines.get(id) ?? Number.POSITIVE_INFINITY
            t.ok(deadlineMs <= nowMs, 'never early, and only what was scheduled')
            slow.deadlines.delete(id)
          }
          t.same(slow.due(nowMs - tickMs), [], 'at most one tick late')
        }
        t.equal(wheel.size, slow.deadlines.size)
      }
    }),
    { seed: 512, numRuns: 200 },
  )
})

t.test('entries may cancel, move and schedule one another while they fire', async t => {
  const wheel = new TimerWheel(0, { tickMs: 10, slots: 8 })
  const log: string[] = []
  const victim: WheelEntry = { onDeadline: () => log.push('victim') }
  const moved: WheelEntry = { onDeadline: nowMs => log.push(`moved ${nowMs}`) }
  const first: WheelEntry = {
    onDeadline: nowMs => {
      log.push('first')
      wheel.cancel(victim)
      wheel.schedule(moved, nowMs + 30)
      wheel.schedule(first, nowMs)
    },
  }
  for (const entry of [first, victim, moved]) wheel.schedule(entry, 10)
  wheel.advance(10)
  t.same(log, ['first'])
  wheel.cancel(first)
  wheel.advance(39)
  t.same(log, ['first'])
  wheel.advance(40)
  t.same(log, ['first', 'moved 40'])
  wheel.schedule(victim, Number.POSITIVE_INFINITY)
  t.equal(wheel.size, 0, 'infinity is never')
})

t.test('a wheel tied to a clock fires by itself until it is stopped', async t => {
  const clock = new ManualClock()
  const wheel = new TimerWheel(0, { tickMs: 1, slots: 4 })
  const fired = new Promise<number>(resolve => wheel.schedule({ onDeadline: resolve }, 7))
  clock.set(7)
  wheel.start(clock)
  wheel.start(clock)
  t.equal(await fired, 7)
  wheel.stop()
  wheel.stop()
})

/** Counts down, and says everything it is told. */
class EchoMachine implements Machine<string, string> {
  readonly #out = new Outbox<string>()
  readonly #timers = new TimerTable<'late'>()

  handle(input: string | Timeout, nowMs: number): void {
    if (typeof input === 'string') {
      this.#out.transmit(new TextEncoder().encode(input))
      this.#out.event(`said ${input}`)
      this.#timers.set('late', nowMs + 100)
    } else if (this.#timers.takeExpired(nowMs) !== undefined) this.#out.event('late')
  }

  poll() {
    return this.#out.poll()
  }

  nextDeadlineMs(): number {
    return this.#timers.nextDeadlineMs()
  }
}

t.test('the driver does what its machine asks, in order, even from inside a port', async t => {
  const clock = new ManualClock()
  const wheel = new TimerWheel(0, { tickMs: 10 })
  const log: string[] = []
  const driver: Driver<string, string> = new Driver(new EchoMachine(), clock, wheel, {
    transmit: bytes => {
      log.push(`> ${new TextDecoder().decode(bytes)}`)
      if (bytes.length === 1) driver.handle('again')
    },
    event: event => {
      log.push(event)
    },
  })
  driver.handle('a')
  t.same(log.splice(0), ['> a', 'said a', '> again', 'said again'])
  t.equal(wheel.size, 1, 'its deadline hangs on the wheel')
  clock.advance(90)
  wheel.advance(90)
  t.same(log, [])
  driver.onDeadline(clock.nowMs())
  t.same(log, [], 'an early timeout is harmless')
  clock.set(100)
  wheel.advance(100)
  t.same(log.splice(0), ['late'])
  t.equal(wheel.size, 0)
  driver.handle('bb')
  driver.close()
  t.equal(wheel.size, 0, 'closing takes it off the wheel')
  log.length = 0
  driver.handle('c')
  driver.onDeadline(1e9)
  t.same(log, [], 'after close nothing goes in or out')
})

t.test('a driver closed from inside a port sends nothing more', async t => {
  const wheel = new TimerWheel(0)
  const log: string[] = []
  const driver: Driver<string, string> = new Driver(new EchoMachine(), new ManualClock(), wheel, {
    transmit: () => {
      log.push('sent')
      driver.close()
    },
    event: event => {
      log.push(event)
    },
  })
  driver.handle('x')
  t.same(log, ['sent'])
  t.equal(wheel.size, 0, 'and leaves no timer behind')
})

t.test('a port that throws does not lock the driver', async t => {
  let isBroken = true
  const log: string[] = []
  const driver = new Driver(new EchoMachine(), new ManualClock(), new TimerWheel(0), {
    transmit: () => {
      if (isBroken) throw new TypeError('broken port')
      log.push('sent')
    },
    event: () => undefined,
  })
  t.throws(() => driver.handle('x'), /broken port/)
  isBroken = false
  driver.handle('y')
  t.same(log, ['sent'])
})
