import fc from 'fast-check'
import t from 'tap'
import { DisconnectCause } from '../../lib/core/disconnect-cause.ts'
import * as errors from '../../lib/core/errors.ts'
import { Counters, FaultCounters, faultName, WireFault } from '../../lib/core/faults.ts'
import { noRoom } from '../../lib/core/packet-sink.ts'
import {
  type RandomSource,
  randomBytes,
  randomU32,
  SeededRandom,
  systemRandom,
} from '../../lib/core/random.ts'

t.test('faults are small numbers in a row, and none is falsy', async t => {
  const values = Object.values(WireFault)
  t.same(
    values,
    values.map((_, i) => i),
  )
  t.equal(WireFault.none, 0)
  for (const [name, fault] of Object.entries(WireFault)) t.equal(faultName(fault), name)
})

t.test('counters show what happened and nothing else', async t => {
  const faults = new FaultCounters()
  faults.count(WireFault.truncated)
  faults.count(WireFault.truncated)
  faults.count(WireFault['bad-text'])
  faults.count(WireFault.none)
  t.same(faults.toJSON(), { truncated: 2, 'bad-text': 1 })
  t.equal(faults.get(WireFault.oversize), 0)

  const counters = new Counters()
  counters.count('refused')
  counters.count('dropped', 5)
  counters.count('refused')
  t.equal(JSON.stringify(counters), '{"dropped":5,"refused":2}', 'sorted by name')
  t.equal(counters.get('never'), 0)
})

t.test('every error has a name, a code of its own and keeps its cause', async t => {
  const cause = new TypeError('why')
  const classes = [
    errors.BindError,
    errors.TunError,
    errors.SystemError,
    errors.MissingToolError,
    errors.AuthBackendError,
    errors.StoreError,
    errors.CertificateError,
    errors.ControlError,
    errors.UsageError,
    errors.ConnectError,
    errors.InvariantError,
  ]
  const codes = new Set<string>(['ERR_CONFIG'])
  for (const ErrorClass of classes) {
    const error = new ErrorClass('what', { cause })
    t.equal(error.name, ErrorClass.name)
    t.equal(error.cause, cause)
    t.ok(error instanceof errors.OpenRasError)
    t.match(error.code, /^ERR_[A-Z_]+$/)
    codes.add(error.code)
  }
  t.equal(codes.size, classes.length + 1)
  t.match(new errors.ConfigError('a.b[2]', 'expected a port'), {
    message: 'a.b[2]: expected a port',
    path: 'a.b[2]',
    code: 'ERR_CONFIG',
  })
  t.equal(new errors.ConfigError('', 'empty').message, 'empty')
  t.equal(errors.messageOf(cause), 'why')
  t.equal(errors.messageOf('thrown text'), 'thrown text')
  t.throws(() => errors.assertNever('surprise' as never), errors.InvariantError)
})

t.test('disconnect causes carry RADIUS numbers that exist (RFC 2866 5.10)', async t => {
  for (const [name, number] of Object.entries(DisconnectCause)) {
    t.ok(Number.isInteger(number) && number >= 1 && number <= 18, name)
  }
  t.ok(noRoom < 0, 'no offset is negative')
})

t.test('seeded randomness repeats, and differs between seeds', async t => {
  fc.assert(
    fc.property(fc.integer(), fc.nat(64), (seed, length) => {
      t.same(
        randomBytes(new SeededRandom(seed), length),
        randomBytes(new SeededRandom(seed), length),
      )
    }),
    { seed: 32, numRuns: 30 },
  )
  t.notSame(randomBytes(new SeededRandom(1), 16), randomBytes(new SeededRandom(2), 16))
  t.not(new SeededRandom(0).next(), 0, 'a seed of zero would never move')
  const random = new SeededRandom(7)
  const seen = new Set(Array.from({ length: 1000 }, () => random.next()))
  t.equal(seen.size, 1000)
  t.ok([...seen].every(value => value >= 0 && value <= 0xffffffff))
})

t.test('system randomness fills exactly what it is given', async t => {
  const out = new Uint8Array(64)
  systemRandom.fill(out.subarray(16, 48))
  t.ok(out.subarray(0, 16).every(byte => byte === 0) && out.subarray(48).every(byte => byte === 0))
  t.notSame(out.subarray(16, 48), new Uint8Array(32))
})

t.test('a random number that must not be zero is drawn again', async t => {
  let draws = 0
  const zeroFirst: RandomSource = {
    fill: out => {
      out.fill(draws++ === 0 ? 0 : 1)
    },
  }
  t.equal(randomU32(zeroFirst), 0x01010101)
  t.equal(draws, 2)
})
