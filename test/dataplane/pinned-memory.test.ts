import fc from 'fast-check'
import t from 'tap'
import { InvariantError } from '../../lib/core/errors.ts'
import { plainChecksum, swap16, updatedChecksum } from '../../lib/dataplane/checksum.ts'
import { PacketMemory } from '../../lib/dataplane/pinned-memory.ts'
import { StackSlotPool } from '../../lib/dataplane/slot-pool.ts'
import { referenceSum } from './packets.ts'

const seed = 20_261

for (const kernels of ['wasm', 'plain'] as const) {
  t.test(
    `${kernels}: the checksum equals the sum of RFC 1071 at any offset and length`,
    async t => {
      const memory = new PacketMemory({ sizeBytes: 1 << 20, kernels })
      t.equal(memory.isAccelerated, kernels === 'wasm')
      fc.assert(
        fc.property(
          fc.uint8Array({ maxLength: 300 }),
          fc.integer({ min: 0, max: 67 }),
          fc.integer({ min: 0, max: 0xfffff }),
          (data, shift, seedSum) => {
            const at = 1000 + shift
            memory.bytes.fill(0xa5, 900, 1500)
            memory.bytes.set(data, at)
            const seedBytes = Uint8Array.of(0, seedSum >> 16, (seedSum >> 8) & 255, seedSum & 255)
            const expected = referenceSum(data, swapped(seedBytes))
            const sum = swap16(memory.checksum(at, data.length, seedSum))
            // 0 and 0xffff are the same number in one's complement.
            return sum % 0xffff === expected % 0xffff
          },
        ),
        { seed, numRuns: 500 },
      )
    },
  )

  t.test(`${kernels}: full-size packets of ones do not overflow the sum`, async t => {
    const memory = new PacketMemory({ sizeBytes: 1 << 20, kernels })
    memory.bytes.fill(0xff)
    for (const length of [65_535, 65_536, 65_534, 1, 0]) {
      const expected = length === 0 ? 0 : length % 2 === 0 ? 0xffff : 0x00ff
      t.equal(memory.checksum(3, length, 0), expected, `${length} bytes`)
    }
  })

  t.test(`${kernels}: copies fill exactly their length, and sum what they copy`, async () => {
    const memory = new PacketMemory({ sizeBytes: 1 << 20, kernels })
    fc.assert(
      fc.property(
        fc.uint8Array({ maxLength: 2000 }),
        fc.integer({ min: 0, max: 40 }),
        fc.integer({ min: 0, max: 40 }),
        (data, fromShift, toShift) => {
          const from = 4096 + fromShift
          const to = 16_384 + toShift
          memory.bytes.fill(0xa5, to - 64, to + data.length + 64)
          memory.bytes.set(data, from)
          const sum = memory.copyChecksum(to, from, data.length, 5)
          const copied = memory.bytes.slice(to, to + data.length)
          memory.copy(to + 8192, from, data.length)
          const copiedToo = memory.bytes.slice(to + 8192, to + 8192 + data.length)
          return (
            Buffer.compare(copied, data) === 0 &&
            Buffer.compare(copiedToo, data) === 0 &&
            memory.bytes[to - 1] === 0xa5 &&
            memory.bytes[to + data.length] === 0xa5 &&
            sum === memory.checksum(from, data.length, 5)
          )
        },
      ),
      { seed, numRuns: 300 },
    )
  })

  t.test(`${kernels}: a copy may overlap itself`, async t => {
    const memory = new PacketMemory({ sizeBytes: 1 << 20, kernels })
    for (let i = 0; i < 100; i++) memory.bytes[1000 + i] = i
    memory.copy(1010, 1000, 100)
    t.same(
      [...memory.bytes.subarray(1010, 1110)],
      Array.from({ length: 100 }, (_, i) => i),
    )
  })
}

t.test('an updated checksum is the checksum of the updated data (RFC 1624)', async () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 20, maxLength: 20 }),
      fc.integer({ min: 0, max: 0xffff }),
      (data, newWord) => {
        const before = ~referenceSum(data) & 0xffff
        const oldWord = (data[6] ?? 0) * 256 + (data[7] ?? 0)
        data[6] = newWord >> 8
        data[7] = newWord & 255
        const after = ~referenceSum(data) & 0xffff
        return updatedChecksum(before, oldWord, newWord) % 0xffff === after % 0xffff
      },
    ),
    { seed },
  )
})

t.test('the plain checksum takes its seed folded', async t => {
  t.equal(plainChecksum(new Uint8Array(0), 0, 0, 0xfffff), 0xf + 0xffff - 0xffff)
})

t.test('memory is given out aligned, once, and refused when used up', async t => {
  const memory = new PacketMemory({ sizeBytes: 65_536 })
  const first = memory.allocate(100)
  const second = memory.allocate(100, 4096)
  t.ok(first > 0, 'offset 0 means none')
  t.equal(second % 4096, 0)
  t.ok(second >= first + 100)
  t.equal(memory.address, 0, 'no kernel to tell it to')
  t.throws(() => memory.allocate(70_000), InvariantError)
  t.throws(() => memory.allocate(-1), InvariantError)
})

t.test('slots are taken, given back once, and never shared', async t => {
  const memory = new PacketMemory({ sizeBytes: 65_536 })
  const pool = new StackSlotPool(memory, 1024, 3)
  const slots = [pool.take(), pool.take(), pool.take()]
  t.equal(new Set(slots).size, 3)
  t.equal(pool.take(), -1)
  t.equal(pool.freeCount, 0)
  pool.give(slots[1] ?? -1)
  t.throws(() => pool.give(slots[1] ?? -1), InvariantError, 'given twice')
  t.throws(() => pool.give(5), InvariantError, 'no slot')
  t.equal(pool.take(), slots[1])
  t.equal(pool.totalCount, 3)
})

/** The seed is a number in memory order: its bytes count the other way round. */
function swapped(bytes: Uint8Array): Uint8Array {
  return Uint8Array.of(bytes[1] ?? 0, bytes[0] ?? 0, bytes[3] ?? 0, bytes[2] ?? 0)
}
