/** The head of a multilink fragment (RFC 1990 §3), both forms. */
import fc from 'fast-check'
import t from 'tap'
import { toHex } from '../../../lib/core/bytes.ts'
import {
  FragmentBit,
  fragmentSequence,
  longSequence,
  putFragmentHeader,
  sequenceDistance,
  shortSequence,
} from '../../../lib/ppp/wire/multilink.ts'

t.test(
  'the figures of RFC 1990 §3: bits B and E, then 24 or 12 bits of sequence number',
  async t => {
    const write = (form: typeof longSequence, flags: number, sequence: number) => {
      const out = new Uint8Array(6).fill(0xa5)
      const end = putFragmentHeader(form, out, 1, flags, sequence)
      t.equal(end, 1 + form.headerBytes)
      t.equal(out[0], 0xa5)
      t.equal(out[end], 0xa5)
      return toHex(out.subarray(1, end))
    }
    t.equal(write(longSequence, FragmentBit.begin, 0x123456), '80123456')
    t.equal(write(longSequence, FragmentBit.begin | FragmentBit.end, 0xffffff), 'c0ffffff')
    t.equal(write(shortSequence, FragmentBit.end, 0xabc), '4abc')
    t.equal(write(shortSequence, 0, 1), '0001')
  },
)

t.test('what is written is read, and numbers wrap', async t => {
  for (const form of [longSequence, shortSequence]) {
    fc.assert(
      fc.property(fc.nat(form.mask), fc.constantFrom(0, 0x40, 0x80, 0xc0), (sequence, flags) => {
        const out = new Uint8Array(4)
        putFragmentHeader(form, out, 0, flags, sequence)
        return fragmentSequence(form, out, 0) === sequence && ((out[0] ?? 0) & 0xc0) === flags
      }),
      { seed: 1990, numRuns: 100 },
    )
    t.equal(sequenceDistance(form, form.mask, 0), 1)
    t.equal(sequenceDistance(form, 0, form.mask), -1)
    t.equal(sequenceDistance(form, 5, 9), 4)
  }
})
