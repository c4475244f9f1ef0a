/** RC4 and SHA-1 of packets: OpenSSL's and ours against published vectors and against each other. */
import fc from 'fast-check'
import t from 'tap'
import { copyBytes, equalBytes, fromHex, toHex, utf8 } from '../../lib/core/bytes.ts'
import { libcrypto } from '../../lib/crypto/libcrypto.ts'
import { createPacketRc4, OpensslRc4, type PacketRc4 } from '../../lib/crypto/packet-rc4.ts'
import { Rc4 } from '../../lib/crypto/rc4.ts'
import {
  createRepeatedSha1,
  OpensslRepeatedSha1,
  PortableRepeatedSha1,
} from '../../lib/crypto/repeated-sha1.ts'

const library = libcrypto()
const calls = library?.rc4
const hash = library?.hashes.sha1

/** Both where OpenSSL is there, the portable one always. */
const providers: readonly (readonly [string, (key: Uint8Array) => PacketRc4])[] = [
  ['portable', key => new Rc4(key)],
  ...(library === undefined || calls === undefined
    ? []
    : ([['openssl', (key: Uint8Array) => new OpensslRc4(library, calls, key)]] as const)),
]

t.test('Node carries the RC4 and SHA-1 of OpenSSL, and packets take them', async t => {
  t.type(createPacketRc4(Uint8Array.of(1)), calls === undefined ? Rc4 : OpensslRc4)
  t.type(createRepeatedSha1(1), hash === undefined ? PortableRepeatedSha1 : OpensslRepeatedSha1)
  if (process.release.name === 'node' && process.platform === 'linux') t.equal(providers.length, 2)
})

for (const [name, create] of providers) {
  t.test(`RC4 (${name}) gives the key streams of RFC 6229 at the start and far in`, async t => {
    for (const [key, first, at1024] of [
      ['0102030405', 'b2396305f03dc027ccc3524a0a1118a8', '30abbcc7c20b01609f23ee2d5f6bb7df'],
      [
        '0102030405060708090a0b0c0d0e0f10',
        '9ac7cc9a609d1ef7b2932899cde41b97',
        'bdf0324e6083dcc6d3cedd3ca8c53c16',
      ],
    ] as const) {
      const stream = new Uint8Array(1040)
      create(fromHex(key)).process(stream, 0, stream.length)
      t.equal(toHex(copyBytes(stream, 0, 16)), first)
      t.equal(toHex(copyBytes(stream, 1024)), at1024)
    }
  })

  t.test(`RC4 (${name}) in pieces is RC4 in one, and touches nothing beside`, async t => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 1, maxLength: 256 }),
        fc.uint8Array({ maxLength: 1600 }),
        fc.nat(1600),
        fc.nat(80),
        (key, bytes, cut, before) => {
          const expected = copyBytes(bytes)
          new Rc4(key).process(expected)
          const room = new Uint8Array(before + bytes.length + 3).fill(0xa5)
          room.set(bytes, before)
          const middle = Math.min(cut, bytes.length)
          const cipher = create(Uint8Array.of(9))
          cipher.rekey(key)
          cipher.process(room, before, middle)
          cipher.process(room, before + middle, bytes.length - middle)
          return (
            equalBytes(room.subarray(before, before + bytes.length), expected) &&
            room.subarray(0, before).every(byte => byte === 0xa5) &&
            room.subarray(before + bytes.length).every(byte => byte === 0xa5)
          )
        },
      ),
      { seed: 3078, numRuns: 200 },
    )
    const cipher = create(Uint8Array.of(1))
    t.throws(() => cipher.rekey(new Uint8Array(0)), { code: 'ERR_INVARIANT' })
    t.throws(() => cipher.rekey(new Uint8Array(257)), { code: 'ERR_INVARIANT' })
    const other = create(fromHex('0102030405'))
    other.destroy()
    const silence = new Uint8Array(100)
    other.process(silence, 0, 100)
    const stream = new Uint8Array(100)
    create(fromHex('0102030405')).process(stream, 0, 100)
    t.notSame(silence, stream, 'the key is forgotten')
  })
}

t.test(
  'RC4 of OpenSSL never reaches beyond the bytes it was given',
  { skip: (library === undefined || calls === undefined) && 'no RC4 in this OpenSSL' },
  async t => {
    if (library === undefined || calls === undefined) return
    const cipher = new OpensslRc4(library, calls, Uint8Array.of(1))
    t.throws(() => cipher.process(new Uint8Array(100), 50, 80), { code: 'ERR_INVARIANT' })
  },
)

t.test(
  'SHA-1 of a message that changes: RFC 3174 §7.3, and ours is what OpenSSL gives',
  async t => {
    const vectors = {
      abc: 'a9993e364706816aba3e25717850c26c9cd0d89d',
      abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq:
        '84983e441c3bd26ebaae4aa1f95129e5e54670f1',
    }
    const makers = [
      (bytes: number) => new PortableRepeatedSha1(bytes),
      (bytes: number) => createRepeatedSha1(bytes),
    ]
    for (const make of makers) {
      for (const [text, digest] of Object.entries(vectors)) {
        const sha1 = make(text.length)
        for (let round = 0; round < 2; round++) {
          sha1.message.set(utf8(text))
          sha1.compute()
          t.equal(toHex(sha1.digest), digest)
        }
        sha1.destroy()
        t.ok(sha1.message.every(byte => byte === 0) && sha1.digest.every(byte => byte === 0))
      }
    }
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 200 }), message => {
        const [portable, fastest] = [
          new PortableRepeatedSha1(message.length),
          createRepeatedSha1(message.length),
        ]
        for (const sha1 of [portable, fastest]) {
          sha1.message.set(message)
          sha1.compute()
        }
        return equalBytes(portable.digest, fastest.digest)
      }),
      { seed: 3174, numRuns: 200 },
    )
  },
)
