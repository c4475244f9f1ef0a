import fc from 'fast-check'
import t from 'tap'
import { createMemoryDataplane } from '../../lib/dataplane/index.ts'
import { LandingPlaces, MAX_RECORD_BYTES } from '../../lib/sstp/landing-places.ts'
import { MAX_FRAME_BYTES } from '../../lib/sstp/wire/frame.ts'

t.test('places are in packet memory, apart, each with room for a frame before it', async t => {
  const { dataplane } = createMemoryDataplane()
  const places = new LandingPlaces(dataplane, 8)
  const starts: number[] = []
  for (let place = places.take(); place !== undefined; place = places.take()) {
    t.equal(place.buffer, dataplane.memory.bytes.buffer)
    t.equal(place.length, MAX_RECORD_BYTES)
    starts.push(place.byteOffset)
  }
  t.equal(starts.length, 4, 'half of them may be held')
  t.equal(places.heldCount, 4)
  const stepBytes = MAX_FRAME_BYTES + MAX_RECORD_BYTES
  for (const [i, at] of starts.toSorted((a, b) => a - b).entries()) {
    t.ok(at >= (i === 0 ? MAX_FRAME_BYTES : (starts[i - 1] ?? 0) + stepBytes))
  }
})

t.test('nobody gets a place in which something landed before the burst has ended', async t => {
  const steps = fc.array(fc.constantFrom('take', 'give', 'end'), { maxLength: 200 })
  fc.assert(
    fc.property(steps, fc.integer({ min: 2, max: 9 }), (actions, count) => {
      const { dataplane } = createMemoryDataplane({ memoryBytes: 20 * 1024 * 1024 })
      const places = new LandingPlaces(dataplane, count)
      const held: Uint8Array[] = []
      const inUse = new Set<Uint8Array>()
      for (const action of actions) {
        if (action === 'end') {
          dataplane.flush()
          inUse.clear()
        } else if (action === 'give') {
          const place = held.shift()
          if (place === undefined) continue
          places.give(place)
          inUse.add(place)
        } else {
          const place = places.take()
          if (place === undefined) {
            t.ok(held.length === count >>> 1 || held.length + inUse.size === count)
            continue
          }
          t.notOk(held.includes(place) || inUse.has(place))
          held.push(place)
        }
        t.equal(places.heldCount, held.length)
      }
    }),
    { seed: 20261121, numRuns: 50 },
  )
})
