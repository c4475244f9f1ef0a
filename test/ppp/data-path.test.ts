/** MPPE and MPPC: published and derived vectors, and two ends of a link that loses packets. */
import fc from 'fast-check'
import t from 'tap'
import { concatBytes, copyBytes, fromHex, toHex, u16, utf8 } from '../../lib/core/bytes.ts'
import { Counters } from '../../lib/core/faults.ts'
import { randomBytes, SeededRandom } from '../../lib/core/random.ts'
import { Rc4 } from '../../lib/crypto/rc4.ts'
import type { FrameSealer } from '../../lib/ppp/carrier.ts'
import type { CompressionAgreement, DirectionAgreement } from '../../lib/ppp/ccp.ts'
import { DataPath } from '../../lib/ppp/data-path.ts'
import { Opened } from '../../lib/ppp/frame-opener.ts'
import { MppcCompressor } from '../../lib/ppp/mppc/compressor.ts'
import { MppcDecompressor } from '../../lib/ppp/mppc/decompressor.ts'
import { Decryption, MppeDecryptor } from '../../lib/ppp/mppe/mppe-decryptor.ts'
import { MppeEncryptor } from '../../lib/ppp/mppe/mppe-encryptor.ts'
import { MppeKey } from '../../lib/ppp/mppe/mppe-key.ts'
import { MppeBit } from '../../lib/ppp/mppe/mppe-packet.ts'

// RFC 3079 §3.5: the start key of the server's send direction.
const sendMaster = fromHex('8B7CDC149B993A1BA118CB153F56DCCB')
const receiveMaster = fromHex('D5F0E9521E3EA9589645E86051C82226')
const strengths = [128, 56, 40] as const

function encrypted(encryptor: MppeEncryptor, plain: Uint8Array): { head: number; hex: string } {
  const bytes = copyBytes(plain)
  const head = encryptor.encrypt(bytes, 0, bytes.length)
  return { head, hex: toHex(bytes) }
}

// ---- vectors

t.test('session keys are those of RFC 3079 §3.5 and its erratum', async t => {
  const vectors = [
    [128, '405cb2247a7956e6e211007ae27b22d4', '81848317df68846272fb5abe'],
    [56, 'd15c00c49fa62e3e', '3f106833fa448da842bc57b8'],
    [40, 'd1269ec49fa62e3e', '929137917e5803d668d75898'],
  ] as const
  for (const [bits, key, cipherText] of vectors) {
    const session = new MppeKey(sendMaster, bits)
    t.equal(toHex(session.bytes), key, `${bits} bits`)
    const text = utf8('test message')
    new Rc4(session.bytes).process(text)
    t.equal(toHex(text), cipherText, `${bits} bits`)
  }
  const other = new MppeKey(receiveMaster, 128)
  t.equal(toHex(other.bytes), '49d11d0f0cc6befba2a9b4b688f91eee', 'the other direction')
})

t.test('stateless keys change before each packet, the first included (RFC 3078 §7.3)', async t => {
  const vectors = {
    128: ['7058132be0', '353ca429a6', 'ccd975db31'],
    56: ['68dab65ba5', 'b23cb706b0'],
    40: ['9edc946694', 'f2031b6c4d'],
  } as const
  for (const bits of strengths) {
    const encryptor = new MppeEncryptor(sendMaster, bits, true)
    vectors[bits].forEach((hex, count) => {
      t.same(encrypted(encryptor, fromHex('0021450000')), { head: 0x9000 | count, hex })
    })
  }
})

t.test('MPPC codes "for whom the bell tolls" as RFC 2118 §4.3 explains', async t => {
  const plain = utf8('for whom the bell tolls, the bell tolls for thee.')
  const coded = fromHex('666F722077686F6D207468652062656C6C20746F6C6C732C F43720FA23D3329700')
  const decompressor = new MppcDecompressor()
  const head = MppeBit.flushed | MppeBit.atFront | MppeBit.compressed
  t.equal(decompressor.decompress(head, coded, 0, coded.length), plain.length)
  const out = new Uint8Array(plain.length).fill(0xa5)
  decompressor.copyLast(out, 0)
  t.same(out, plain)
  const compressor = new MppcCompressor(false)
  const bytes = copyBytes(plain)
  t.equal(compressor.compress(bytes, 0, bytes.length), head)
  const ours = copyBytes(bytes, 0, compressor.compressedBytes)
  t.ok(ours.length < plain.length)
  const again = new MppcDecompressor()
  t.equal(again.decompress(head, ours, 0, ours.length), plain.length)
})

t.test('MPPC reads the 8 KiB stream of another implementation', async t => {
  // FreeRDP, TestFreeRDPCodecMppc.c: TEST_MPPC_BELLS_RDP4.
  const coded = fromHex('666F722E77686F6D2E7468652E62656C6C2E746F6C6C732CF4372E66FA1F199484')
  const plain = utf8('for.whom.the.bell.tolls,.the.bell.tolls.for.thee!')
  const decompressor = new MppcDecompressor()
  const head = MppeBit.flushed | MppeBit.atFront | MppeBit.compressed
  t.equal(decompressor.decompress(head, coded, 0, coded.length), plain.length)
  const out = new Uint8Array(plain.length)
  decompressor.copyLast(out, 0)
  t.same(out, plain)
})

// ---- MPPC alone

t.test('MPPC gives back what went in, and never expands', async t => {
  const chunk = fc.oneof(
    fc.uint8Array({ minLength: 1, maxLength: 1500 }),
    fc.array(fc.constantFrom(0x20, 0x41, 0xe4, 0x00), { minLength: 1, maxLength: 1500 }),
    fc.tuple(fc.nat(255), fc.integer({ min: 1, max: 8191 })).map(([b, n]) => Array(n).fill(b)),
  )
  const property = fc.property(fc.array(chunk, { maxLength: 12 }), fc.boolean(), (chunks, bare) => {
    const compressor = new MppcCompressor(bare)
    const decompressor = new MppcDecompressor()
    for (const given of chunks) {
      const plain = Uint8Array.from(given)
      const packet = copyBytes(plain)
      const head = compressor.compress(packet, 0, packet.length)
      const isCompressed = (head & MppeBit.compressed) !== 0
      const length = isCompressed ? compressor.compressedBytes : plain.length
      if (isCompressed && length >= plain.length) return false
      const got = decompressor.decompress(head, packet, 0, length)
      if (got !== plain.length) return false
      const out = new Uint8Array(got)
      if (isCompressed) decompressor.copyLast(out, 0)
      else out.set(packet)
      if (toHex(out) !== toHex(plain)) return false
    }
    return true
  })
  t.doesNotThrow(() => fc.assert(property, { seed: 2118, numRuns: 300 }))
})

t.test('MPPC never reads or writes outside its history, whatever arrives', async t => {
  const property = fc.property(
    fc.array(fc.tuple(fc.nat(15), fc.uint8Array({ maxLength: 600 })), { maxLength: 20 }),
    packets => {
      const decompressor = new MppcDecompressor()
      for (const [bits, bytes] of packets) {
        const length = decompressor.decompress(bits << 12, bytes, 0, bytes.length)
        if (length > 8192) return false
        if (length >= 0) decompressor.copyLast(new Uint8Array(8192), 0)
      }
      return true
    },
  )
  t.doesNotThrow(() => fc.assert(property, { seed: 8192, numRuns: 500 }))
})

t.test('a match before the history, of no distance, or past its end is malformed', async t => {
  const head = MppeBit.flushed | MppeBit.atFront | MppeBit.compressed
  // A literal, then <offset 5>, <offset 0>: 1111 000101 0, 1111 000000 0.
  for (const [bits, why] of [
    ['01000001 1111000101 0 00000', 'before the history'],
    ['01000001 1111000000 0 00000', 'distance 0'],
    ['01000001 01000001 1111000001 111111111110111111111111', 'longer than the history'],
    ['01000001 1111000001 111111111111111111111111', 'no length begins so'],
  ] as const) {
    const digits = bits.replaceAll(' ', '')
    const bytes = new Uint8Array(Math.ceil(digits.length / 8)).map((_, i) =>
      Number.parseInt(digits.slice(8 * i, 8 * i + 8).padEnd(8, '0'), 2),
    )
    const decompressor = new MppcDecompressor()
    t.ok(decompressor.decompress(head, bytes, 0, bytes.length) < 0, why)
    const next = Uint8Array.of(0x41, 0x42)
    t.ok(decompressor.decompress(MppeBit.compressed, next, 0, 2) < 0, 'until it begins anew')
    t.equal(decompressor.decompress(head, next, 0, 2), 2)
  }
})

// ---- MPPE alone

function packetOf(index: number, length = 40): Uint8Array {
  const packet = randomBytes(new SeededRandom(index + 1), length)
  packet.set([0x00, 0x21, 0x45, 0x00, 0x00, length - 2])
  return packet
}

for (const bits of strengths) {
  t.test(`stateless MPPE-${bits} survives loss over the wrap of its count`, async t => {
    const encryptor = new MppeEncryptor(sendMaster, bits, true)
    const decryptor = new MppeDecryptor(sendMaster, bits, true, false)
    const random = new SeededRandom(bits)
    let delivered = 0
    for (let i = 0; i < 9000; i++) {
      const plain = packetOf(i)
      const packet = copyBytes(plain)
      const head = encryptor.encrypt(packet, 0, packet.length)
      if (random.next() % 10 === 0) continue
      if (decryptor.decrypt(head, packet, 0, packet.length) !== Decryption.ok) break
      if (toHex(packet) !== toHex(plain)) break
      delivered++
    }
    t.ok(delivered > 7900, `${delivered}`)
  })

  for (const isLinux of [false, true]) {
    const how = isLinux ? 'a new key, as Linux' : 'the same key, as RFC 3078 §8.2'
    t.test(`stateful MPPE-${bits} resumes after loss: flush with ${how}`, async t => {
      const encryptor = new MppeEncryptor(sendMaster, bits, false)
      encryptor.changesKeyOnFlush = isLinux
      const decryptor = new MppeDecryptor(sendMaster, bits, false, false)
      const random = new SeededRandom(bits + 7)
      let delivered = 0
      let wrong = 0
      let resets = 0
      for (let i = 0; i < 9000; i++) {
        const plain = packetOf(i)
        const packet = copyBytes(plain)
        const head = encryptor.encrypt(packet, 0, packet.length)
        if (random.next() % 50 === 0) continue
        const got = decryptor.decrypt(head, packet, 0, packet.length)
        if (got === Decryption.ok) {
          delivered++
          if (toHex(packet) !== toHex(plain)) wrong++
        } else {
          resets++
          encryptor.reset()
        }
      }
      t.equal(wrong, 0)
      t.ok(resets > 50, `${resets}`)
      t.ok(delivered > 8400, `${delivered}`)
      t.equal(decryptor.changesKeyOnFlush, isLinux, 'learnt')
    })
  }
}

t.test('the stateful key changes at each count that ends in ff, and not before', async t => {
  const encryptor = new MppeEncryptor(sendMaster, 128, false)
  const key = new MppeKey(sendMaster, 128)
  const cipher = new Rc4(key.bytes)
  for (let i = 0; i < 600; i++) {
    const isFlag = (i & 0xff) === 0xff
    if (isFlag) {
      key.change()
      cipher.rekey(key.bytes)
    }
    const expected = packetOf(i)
    cipher.process(expected)
    const head = 0x1000 | (isFlag ? 0x8000 : 0) | i
    t.same(encrypted(encryptor, packetOf(i)), { head, hex: toHex(expected) })
  }
})

t.test('what makes no sense changes nothing: forged, stale, plain and short packets', async t => {
  const encryptor = new MppeEncryptor(sendMaster, 128, true)
  const decryptor = new MppeDecryptor(sendMaster, 128, true, false)
  const next = () => {
    const packet = packetOf(0)
    return { head: encryptor.encrypt(packet, 0, packet.length), packet }
  }
  const first = next()
  const copy = copyBytes(first.packet)
  t.equal(decryptor.decrypt(first.head, first.packet, 0, 40), Decryption.ok)
  t.equal(decryptor.decrypt(first.head, copy, 0, 40), Decryption.stale, 'a replay')
  for (let i = 1; i < 2000; i += 97) {
    const forged = randomBytes(new SeededRandom(i), 40)
    const got = decryptor.decrypt(0x9000 | i, forged, 0, 40)
    t.equal(got, Decryption.garbage, `forged ${i} ahead`)
  }
  const head = (bits: number) => decryptor.decrypt(bits, new Uint8Array(4), 0, 4)
  t.equal(head(0x9fff), Decryption.stale, 'far behind')
  t.equal(head(0x8001), Decryption.malformed, 'not encrypted')
  t.equal(head(0x1001), Decryption.malformed, 'not flushed')
  t.equal(head(0xb001), Decryption.malformed, 'compressed without agreement')
  t.equal(decryptor.decrypt(0x9001, new Uint8Array(0), 0, 0), Decryption.malformed, 'empty')
  const second = next()
  t.equal(decryptor.decrypt(second.head, second.packet, 0, 40), Decryption.ok)
})

t.test('forged packets far ahead cost key changes only while there are some to spare', async t => {
  const encryptor = new MppeEncryptor(sendMaster, 128, true)
  const decryptor = new MppeDecryptor(sendMaster, 128, true, false)
  const receive = (skip: number) => {
    const packet = packetOf(0)
    let head = encryptor.encrypt(packet, 0, packet.length)
    for (let i = 0; i < skip; i++) {
      packet.set(packetOf(0))
      head = encryptor.encrypt(packet, 0, packet.length)
    }
    return decryptor.decrypt(head, packet, 0, packet.length)
  }
  t.equal(receive(0), Decryption.ok)
  t.equal(receive(2000), Decryption.ok, 'a long gap')
  for (let i = 0; i < 3; i++) {
    const forged = randomBytes(new SeededRandom(i + 1), 40)
    t.equal(decryptor.decrypt(0x9000 | ((2001 + 2000) & 0xfff), forged, 0, 40), Decryption.garbage)
  }
  t.equal(receive(2000), Decryption.garbage, 'nothing is left for a gap as long')
  // The count that is due is 2001 further on by now; whoever sends goes on with keys that are near.
  const near = new MppeEncryptor(sendMaster, 128, true)
  for (let i = 0; i <= 2001; i++) near.encrypt(packetOf(0), 0, 40)
  const results = Array.from({ length: 130 }, () => {
    const packet = packetOf(1)
    return decryptor.decrypt(near.encrypt(packet, 0, 40), packet, 0, 40)
  })
  t.ok(
    results.every(result => result === Decryption.ok),
    'short gaps are free',
  )
  for (let i = 0; i < 1500; i++) near.encrypt(packetOf(0), 0, 40)
  const late = packetOf(2)
  const head = near.encrypt(late, 0, 40)
  t.equal(decryptor.decrypt(head, late, 0, 40), Decryption.ok, 'and pay for long ones again')
})

// ---- both ends of a link

const memoryBytes = 64 * 1024
const packetAt = 1024
const ipPacket = (i: number, length: number) => {
  const packet = randomBytes(new SeededRandom(i + 5), length)
  packet.fill(i, 20)
  packet.set([0x45, 0x00, length >>> 8, length])
  return packet
}

/** One end: its memory, its data path, its sealer. */
function makeEnd(role: 'server' | 'client') {
  const bytes = new Uint8Array(memoryBytes).fill(0xa5)
  let sealer: FrameSealer = { headerBytes: 0, seal: () => 0 }
  let taken = memoryBytes / 2
  const path = new DataPath({
    bytes,
    role,
    intake: length => {
      taken = taken + length > memoryBytes ? memoryBytes / 2 : taken
      taken += length
      return taken - length
    },
    setSealer: given => {
      sealer = given
    },
  })
  path.setKeys({ send: sendMaster, receive: receiveMaster })
  return {
    path,
    seal(packet: Uint8Array): Uint8Array {
      bytes.set(packet, packetAt)
      const length = sealer.seal(packetAt, packet.length)
      const at = packetAt - sealer.headerBytes
      return copyBytes(bytes, at, at + length)
    },
    open(frame: Uint8Array): { opened: Opened; inner: string } {
      bytes.set(frame, packetAt)
      const opener = path.opener
      const opened = opener?.open(packetAt + 4, frame.length - 4) ?? Opened.dropped
      const { openedAt = 0, openedBytes = 0 } = opener ?? {}
      return { opened, inner: toHex(copyBytes(bytes, openedAt, openedAt + openedBytes)) }
    },
  }
}

const same = (direction: DirectionAgreement): CompressionAgreement => ({
  send: direction,
  receive: direction,
})

const statelessOnly: DirectionAgreement = { keyBits: 128, isStateless: true, isCompressed: false }

const directions: readonly [string, DirectionAgreement][] = [
  ['MPPE-128 stateless', statelessOnly],
  ['MPPE-128 stateful', { keyBits: 128, isStateless: false, isCompressed: false }],
  ['MPPE-56 stateless', { keyBits: 56, isStateless: true, isCompressed: false }],
  ['MPPC alone', { keyBits: 0, isStateless: false, isCompressed: true }],
  ['MPPC in MPPE-128 stateless', { keyBits: 128, isStateless: true, isCompressed: true }],
  ['MPPC in MPPE-128 stateful', { keyBits: 128, isStateless: false, isCompressed: true }],
]

for (const [name, direction] of directions) {
  t.test(
    `${name}: both ways, with loss and resets, every packet that arrives is right`,
    async t => {
      const server = makeEnd('server')
      const client = makeEnd('client')
      t.ok(server.path.open(same(direction)))
      t.ok(client.path.open(same(direction)))
      t.equal(server.path.isPlainAllowed, direction.keyBits === 0)
      const random = new SeededRandom(11)
      let delivered = 0
      let wrong = 0
      const sent = 3000
      for (let i = 0; i < sent; i++) {
        const [from, to] = i % 2 === 0 ? [server, client] : [client, server]
        const packet = ipPacket(i & 0x7f, 40 + (random.next() % 1300))
        const frame = from.seal(packet)
        if (frame.length > packet.length + 8) wrong++
        if (u16(frame, 2) !== 0x00fd) wrong++
        if (random.next() % 40 === 0) continue
        const { opened, inner } = to.open(frame)
        if (opened === Opened.ok) {
          delivered++
          if (inner !== toHex(concatBytes(Uint8Array.of(0, 0x21), packet))) wrong++
        } else if (opened === Opened.needsReset) from.path.reset()
      }
      t.equal(wrong, 0)
      t.ok(delivered > sent * 0.85, `${delivered} of ${sent}`)
    },
  )
}

t.test('no plain packet leaves while encryption is due, nor after the end', async t => {
  const server = makeEnd('server')
  const packet = ipPacket(1, 100)
  t.equal(toHex(copyBytes(server.seal(packet), 0, 5)), 'ff03002145', 'plain before any agreement')
  server.path.open(same(statelessOnly))
  t.equal(u16(server.seal(packet), 2), 0x00fd)
  server.path.close(true)
  t.equal(server.seal(packet).length, 0, 'ccp is down')
  t.equal(server.path.isPlainAllowed, false)
  t.equal(server.path.opener, undefined)
  server.path.open(same(statelessOnly))
  const restarted = server.seal(packet)
  t.equal(u16(restarted, 4), 0x9000, 'count and keys begin anew')
  server.path.destroy()
  t.equal(server.seal(packet).length, 0)
  t.equal(server.path.droppedPackets, 2)
  t.equal(server.path.open(same(statelessOnly)), false, 'no keys are left')
})

t.test('64 packets in a row from before the last ask for new keys, a few do not', async t => {
  const [client, server] = [makeEnd('client'), makeEnd('server')]
  for (const end of [client, server]) end.path.open(same(statelessOnly))
  const early = Array.from({ length: 64 }, (_, i) => client.seal(ipPacket(i, 60)))
  const late = client.seal(ipPacket(64, 60))
  t.equal(server.open(late).opened, Opened.ok)
  const results = early.slice(0, 63).map(frame => server.open(frame).opened)
  t.ok(results.every(result => result === Opened.dropped))
  t.equal(
    server.open(client.seal(ipPacket(65, 60))).opened,
    Opened.ok,
    'the next begins the count anew',
  )
  const again = early.map(frame => server.open(frame).opened)
  t.equal(again.at(-1), Opened.needsKeys)
  t.equal(server.path.counters.get('mppe-stale'), 127)
})

t.test('64 packets in a row that make no sense ask for new keys', async t => {
  const server = makeEnd('server')
  server.path.open(same(statelessOnly))
  const results = []
  for (let i = 0; i < 65; i++) {
    const frame = concatBytes(fromHex('ff0300fd 9001'), randomBytes(new SeededRandom(i + 77), 60))
    results.push(server.open(frame).opened)
  }
  t.same(
    results.filter(result => result === Opened.needsKeys),
    [Opened.needsKeys],
  )
  t.ok(server.path.counters.get('mppe-garbage') >= 64)
  t.type(server.path.counters, Counters)
  t.equal(server.open(fromHex('ff0300fd 9001')).opened, Opened.dropped, 'nothing inside')
})
