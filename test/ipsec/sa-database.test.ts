import fc from 'fast-check'
import t from 'tap'
import type { RandomSource } from '../../lib/core/random.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { EncryptionId } from '../../lib/crypto/transforms.ts'
import { EspDrop } from '../../lib/ipsec/esp-drop.ts'
import { SaDatabase } from '../../lib/ipsec/sa-database.ts'
import { DatagramKind, datagramKind } from '../../lib/ipsec/udp-encapsulation.ts'
import { suiteOf } from '../crypto/suites.ts'
import { ipv4Packet, memory, pairOf } from './sa-pair.ts'

const gcm = suiteOf(EncryptionId.aesGcm16, 128)

t.test('a packet finds its SA by SPI, and the owner with it', async t => {
  const database = new SaDatabase<string>()
  const pairs = [0x1000, 0xfffffff0].map(spi => pairOf(gcm, { spi }))
  for (const { inbound } of pairs) database.add(inbound, `owner of ${inbound.spi}`)
  t.equal(database.size, 2)
  for (const { outbound, inbound } of pairs) {
    memory.bytes.set(ipv4Packet(40), 512)
    const length = outbound.sealIp(512, 40)
    const from = 512 - outbound.headroomBytes
    const entry = database.find(memory.view, from, length)
    t.equal(entry?.sa, inbound)
    t.equal(entry?.owner, `owner of ${inbound.spi}`)
    t.equal(entry?.sa.open(from, length), 40)
  }
})

t.test('unknown SPIs and scraps are counted', async t => {
  const database = new SaDatabase<string>()
  t.equal(database.find(viewOf(1, 2, 3, 4, 5, 6, 7), 0, 7), undefined)
  t.equal(database.find(viewOf(...new Uint8Array(40).fill(1)), 0, 40), undefined)
  t.equal(database.drops.get(EspDrop.truncated), 1)
  t.equal(database.drops.get(EspDrop['unknown-spi']), 1)
})

t.test('reserved SPIs are above 255 and never handed out twice', async t => {
  const database = new SaDatabase<string>()
  const draws = [0, 255, 0x1000, 0x1000, 0x2000, 0x3000]
  const random: RandomSource = {
    fill: out => new DataView(out.buffer, out.byteOffset).setUint32(0, draws.shift() ?? 0),
  }
  t.equal(database.reserveSpi(random), 0x1000)
  database.add(pairOf(gcm, { spi: 0x2000 }).inbound, 'taken')
  t.equal(database.reserveSpi(random), 0x3000)
  t.throws(() => database.reserveSpi(random), RangeError, 'a source that only says 0')
  database.release(0x1000)
  draws.push(0x1000)
  t.equal(database.reserveSpi(random), 0x1000)
})

t.test('a removed SA is closed and no longer found', async t => {
  const database = new SaDatabase<string>()
  const { inbound } = pairOf(gcm, { spi: 0x5000 })
  database.add(inbound, 'x')
  t.equal(database.get(0x5000)?.owner, 'x')
  database.remove(0x5000)
  database.remove(0x5000)
  t.equal(database.get(0x5000), undefined)
  t.equal(inbound.open(0, 100), EspDrop.closed)
})

t.test('datagrams on the NAT traversal port: RFC 3948 §2', async t => {
  const kind = (...bytes: number[]) => datagramKind(Uint8Array.from(bytes), 0, bytes.length)
  t.equal(kind(0xff), DatagramKind.keepalive)
  t.equal(kind(0xfe), DatagramKind.malformed)
  t.equal(kind(), DatagramKind.malformed)
  t.equal(kind(0xff, 0xff), DatagramKind.malformed)
  t.equal(kind(0, 0, 0, 0), DatagramKind.malformed, 'a marker with nothing behind it')
  t.equal(kind(0, 0, 0, 0, 1), DatagramKind.ike)
  t.equal(kind(0, 0, 1, 0, ...new Uint8Array(30)), DatagramKind.esp)
  t.equal(kind(0, 0, 1, 0, 1, 1, 1, 1), DatagramKind.malformed, 'too short for ESP')
  t.equal(datagramKind(Uint8Array.of(9, 9, 0xff, 9), 2, 1), DatagramKind.keepalive, 'at an offset')
})

t.test('any datagram is of exactly one kind', async t => {
  const random = new SeededRandom(1)
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), bytes => {
      const kind = datagramKind(bytes, 0, bytes.length)
      return kind >= 0 && kind <= 3
    }),
    { seed: random.next() | 0, numRuns: 500 },
  )
  t.pass('500 datagrams')
})

function viewOf(...bytes: number[]): DataView {
  return new DataView(Uint8Array.from(bytes).buffer)
}
