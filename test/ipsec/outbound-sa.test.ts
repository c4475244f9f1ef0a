import t from 'tap'
import { u32 } from '../../lib/core/bytes.ts'
import { suiteName } from '../../lib/crypto/packet-cipher.ts'
import { nodePacketCiphers } from '../../lib/crypto/portable-packet-cipher.ts'
import { EncryptionId, IntegrityId } from '../../lib/crypto/transforms.ts'
import { NextHeader } from '../../lib/ipsec/esp.ts'
import { EspDrop, espDropName } from '../../lib/ipsec/esp-drop.ts'
import { HeldKeys } from '../../lib/ipsec/held-keys.ts'
import { unlimited } from '../../lib/ipsec/lifetime.ts'
import { OutboundSa } from '../../lib/ipsec/outbound-sa.ts'
import { allSuites, keysOf, suiteOf } from '../crypto/suites.ts'
import { ipv4Packet, ipv6Packet, memory, pairOf } from './sa-pair.ts'

const at = 8192
const suites = allSuites().filter(
  suite => !suite.hasEsn && suite.keyBits === suite.encryption.keyBits[0],
)

t.test('sealing touches the headroom, the payload and the tailroom, nothing else', async t => {
  for (const suite of suites) {
    const { outbound } = pairOf(suite)
    for (let length = 0; length <= 70; length++) {
      memory.bytes.fill(0xa5, at - 200, at + 400)
      const total = outbound.seal(at, length, 17)
      const start = at - outbound.headroomBytes
      if (total !== outbound.sealedBytes(length)) t.fail(`${suiteName(suite)} ${length}: ${total}`)
      if (start + total > at + length + outbound.tailroomBytes) t.fail('more than the tailroom')
      for (let i = at - 200; i < at + 400; i++) {
        if ((i < start || i >= start + total) && memory.bytes[i] !== 0xa5) t.fail(`wrote at ${i}`)
      }
      if ((total - outbound.headroomBytes) % 4 !== 0) t.fail('the trailer is not aligned')
    }
    outbound.close()
  }
  t.pass(`${suites.length} suites`)
})

t.test('the header has the SPI and numbers from 1 up', async t => {
  const { outbound } = pairOf(suiteOf(EncryptionId.aesGcm16, 128), { spi: 0xdeadbeef })
  for (let sequence = 1; sequence <= 3; sequence++) {
    outbound.seal(at, 20, 17)
    t.equal(u32(memory.bytes, at - outbound.headroomBytes), 0xdeadbeef)
    t.equal(u32(memory.bytes, at - outbound.headroomBytes + 4), sequence)
  }
  t.equal(outbound.remainingPackets, 2 ** 32 - 1 - 3)
})

t.test('the largest payload for a packet size just fits', async t => {
  for (const suite of suites) {
    const { outbound } = pairOf(suite)
    for (let limit = 120; limit < 160; limit++) {
      const payload = outbound.largestPayload(limit)
      if (outbound.sealedBytes(payload) > limit) t.fail(`${suiteName(suite)} ${limit} is too much`)
      if (outbound.sealedBytes(payload + 1) <= limit)
        t.fail(`${suiteName(suite)} ${limit} has room`)
    }
    outbound.close()
  }
  t.pass(`${suites.length} suites`)
})

t.test('overheads are those of the RFCs', async t => {
  const sizes = (encryption: number, bits: number, integrity = 0) => {
    const { outbound } = pairOf(suiteOf(encryption, bits, integrity))
    return [outbound.headroomBytes, outbound.sealedBytes(1400)]
  }
  t.same(sizes(EncryptionId.aesGcm16, 128), [16, 16 + 1404 + 16])
  t.same(sizes(EncryptionId.aesCbc, 256, IntegrityId.hmacSha256_128), [24, 24 + 1408 + 16])
  t.same(sizes(EncryptionId.tripleDes, 192, IntegrityId.hmacSha1_96), [16, 16 + 1408 + 12])
})

t.test('an IP packet says its own next header', async t => {
  const { outbound, inbound } = pairOf(suiteOf(EncryptionId.aesGcm16, 256))
  for (const [packet, nextHeader] of [
    [ipv4Packet(60), NextHeader.ipv4],
    [ipv6Packet(60), NextHeader.ipv6],
  ] as const) {
    memory.bytes.set(packet, at)
    const total = outbound.sealIp(at, packet.length)
    t.equal(inbound.open(at - outbound.headroomBytes, total), packet.length)
    t.equal(inbound.nextHeader, nextHeader)
  }
})

t.test('what the library refuses is not sent, and counted', async t => {
  const suite = suiteOf(EncryptionId.aesGcm16, 256)
  const sa = new OutboundSa({
    spi: 0x1234,
    suite,
    keys: HeldKeys.of(keysOf(suite)),
    provider: {
      ...nodePacketCiphers,
      sealer: () => ({ provider: 'node', seal: () => false, destroy: () => undefined }),
    },
    memory,
    lifetime: { soft: unlimited, hard: unlimited },
    nowMs: 0,
  })
  t.equal(sa.seal(at, 20, 17), EspDrop['cipher-failed'])
  t.equal(sa.lifetime.packets, 0)
  t.same(sa.drops.toJSON(), { 'cipher-failed': 1 })
  t.equal(espDropName(EspDrop['cipher-failed']), 'cipher-failed')
  t.equal(espDropName(0), 'none')
})

t.test('a place outside the memory is our own mistake, not a write somewhere else', async t => {
  const { outbound, inbound } = pairOf(suiteOf(EncryptionId.aesGcm16, 256))
  const end = memory.bytes.length
  for (const at of [-1, 0, outbound.headroomBytes - 1, end - 20, end, Number.NaN]) {
    t.throws(() => outbound.seal(at, 20, 17), RangeError, `seal at ${at}`)
  }
  for (const at of [-1, end - 99, end, Number.NaN]) {
    t.throws(() => inbound.open(at, 100), RangeError, `open at ${at}`)
  }
  t.equal(outbound.lifetime.packets, 0)
  t.ok(outbound.seal(outbound.headroomBytes, 20, 17) > 0, 'the first place that fits')
  t.ok(outbound.seal(end - 20 - outbound.tailroomBytes, 20, 17) > 0, 'the last one')
})
