import fc from 'fast-check'
import t from 'tap'
import {
  concatBytes,
  copyBytes,
  equalBytes,
  fromHex,
  packBytes,
  putBytes,
  putU16,
  putU32,
  toHex,
  u16,
  u32,
  unpackBytes,
  utf8,
  utf8Text,
  utf16le,
} from '../../lib/core/bytes.ts'

t.test('numbers are read and written in network byte order', async t => {
  fc.assert(
    fc.property(fc.nat(0xffff), fc.nat({ max: 0xffffffff }), fc.nat(20), (short, long, at) => {
      const out = new Uint8Array(32).fill(0xa5)
      const end = putU32(out, putU16(out, at, short), long)
      t.equal(end, at + 6)
      const view = new DataView(out.buffer)
      t.equal(view.getUint16(at), short)
      t.equal(view.getUint32(at + 2), long)
      t.equal(u16(out, at), short)
      t.equal(u32(out, at + 2), long)
      t.ok(
        out.every((byte, i) => (i >= at && i < end) || byte === 0xa5),
        'and nothing else',
      )
    }),
    { seed: 1071, numRuns: 100 },
  )
})

t.test('a read past the end yields zero bits, a write past it nothing', async t => {
  const bytes = Uint8Array.of(0x12, 0x34, 0x56)
  t.equal(u16(bytes, 2), 0x5600)
  t.equal(u32(bytes, 1), 0x34560000)
  t.equal(u16(bytes, 3), 0)
  t.equal(u32(new Uint8Array(0), 0), 0)
  t.equal(putU32(bytes, 1, 0xffffffff), 5)
  t.same([...bytes], [0x12, 0xff, 0xff])
})

t.test('parts are joined, copied and compared by value', async t => {
  const source = Uint8Array.of(1, 2, 3, 4)
  t.same(concatBytes(), new Uint8Array(0))
  t.same(concatBytes(source, new Uint8Array(0), Uint8Array.of(5)), Uint8Array.of(1, 2, 3, 4, 5))
  const out = new Uint8Array(6).fill(0xa5)
  t.equal(putBytes(out, 1, source), 5)
  t.same([...out], [0xa5, 1, 2, 3, 4, 0xa5])

  const copy = copyBytes(source, 1, 3)
  source.fill(9)
  t.same([...copy], [2, 3], 'outlives its burst')
  const buffer = Buffer.from([1, 2, 3])
  const copied = copyBytes(buffer)
  buffer.fill(0)
  t.same([...copied], [1, 2, 3], 'of a Buffer too, whose slice would be a view')
})

t.test('equalBytes says what a plain comparison says', async t => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 8 }), fc.uint8Array({ maxLength: 8 }), (a, b) => {
      t.equal(equalBytes(a, b), toHex(a) === toHex(b))
      t.equal(equalBytes(a, Uint8Array.from(a)), true)
    }),
    { seed: 2104, numRuns: 100 },
  )
  for (let i = 0; i < 16; i++) {
    const other = new Uint8Array(16)
    other[i] = 1
    t.equal(equalBytes(new Uint8Array(16), other), false, `one bit at ${i}`)
  }
})

t.test('hexadecimal goes both ways', async t => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), bytes => {
      t.equal(toHex(bytes), Buffer.from(bytes).toString('hex'))
      t.same(fromHex(toHex(bytes)), bytes)
      t.same(unpackBytes(packBytes(bytes)), bytes)
      t.equal(packBytes(bytes).length, bytes.length)
    }),
    { seed: 16, numRuns: 50 },
  )
  t.same([...fromHex(' 0A ff\n00\t')], [10, 255, 0])
  for (const text of ['0', 'zz', '0x00', '0-']) t.throws(() => fromHex(text), TypeError, text)
})

t.test('text becomes UTF-8 and UTF-16LE', async t => {
  t.same([...utf8('é€')], [0xc3, 0xa9, 0xe2, 0x82, 0xac])
  t.equal(utf8Text(Uint8Array.of(0x61, 0xff, 0x62)), 'a\u{fffd}b', 'what is not UTF-8 is marked')
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), text => {
      t.equal(utf8Text(utf8(text)), text)
      t.same(Buffer.from(utf16le(text)), Buffer.from(text, 'utf16le'))
    }),
    { seed: 8, numRuns: 50 },
  )
})
