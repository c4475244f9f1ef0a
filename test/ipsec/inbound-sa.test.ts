import fc from 'fast-check'
import t from 'tap'
import { SeededRandom } from '../../lib/core/random.ts'
import { suiteIcvBytes, suiteName } from '../../lib/crypto/packet-cipher.ts'
import { packetCipherProviders } from '../../lib/crypto/packet-ciphers.ts'
import { nodePacketCiphers } from '../../lib/crypto/portable-packet-cipher.ts'
import { EncryptionId, IntegrityId } from '../../lib/crypto/transforms.ts'
import { NextHeader } from '../../lib/ipsec/esp.ts'
import { EspDrop, espDropName } from '../../lib/ipsec/esp-drop.ts'
import type { InboundSa } from '../../lib/ipsec/inbound-sa.ts'
import { unlimited } from '../../lib/ipsec/lifetime.ts'
import type { OutboundSa } from '../../lib/ipsec/outbound-sa.ts'
import { allSuites, keysOf, suiteOf } from '../crypto/suites.ts'
import { ipv4Packet, ipv6Packet, memory, pairOf } from './sa-pair.ts'

const at = 4096
const gcm = suiteOf(EncryptionId.aesGcm16, 128)
const cbc = suiteOf(EncryptionId.aesCbc, 128, IntegrityId.hmacSha1_96)
const gcmEsn = suiteOf(EncryptionId.aesGcm16, 256, 0, true)

/** Seals a payload and returns the ESP packet. */
function sealed(sa: OutboundSa, payload: Uint8Array, nextHeader: number): Uint8Array {
  memory.bytes.set(payload, at)
  const length = sa.seal(at, payload.length, nextHeader)
  if (length < 0) throw new Error(`not sealed: ${espDropName(length)}`)
  return memory.bytes.slice(at - sa.headroomBytes, at - sa.headroomBytes + length)
}

/** Opens a packet at another place than it was sealed at. */
function opened(sa: InboundSa, packet: Uint8Array): { length: number; payload: Uint8Array } {
  const place = 20_000
  memory.bytes.fill(0xa5, place - 64, place + packet.length + 64)
  memory.bytes.set(packet, place)
  const length = sa.open(place, packet.length)
  const from = place + sa.payloadOffset
  return { length, payload: memory.bytes.slice(from, from + Math.max(0, length)) }
}

t.test('every suite and provider carries IPv4 and IPv6 of every length', async t => {
  for (const suite of allSuites()) {
    for (const provider of packetCipherProviders) {
      if (!provider.supports(suite, memory)) continue
      if (provider.name === 'noble' && suite.keyBits !== suite.encryption.keyBits[0]) continue
      const { outbound, inbound } = pairOf(suite, { provider: provider.name })
      t.equal(outbound.provider, provider.name)
      t.equal(inbound.provider, provider.name)
      for (const length of [48, 49, 50, 51, 52, 63, 64, 65, 576]) {
        for (const packet of [ipv4Packet(length), ipv6Packet(length)]) {
          const next = packet[0] === 0x60 ? NextHeader.ipv6 : NextHeader.ipv4
          const esp = sealed(outbound, packet, next)
          if (esp.length !== outbound.sealedBytes(length)) t.fail('sealedBytes is wrong')
          const result = opened(inbound, esp)
          if (result.length !== length || inbound.nextHeader !== next) {
            t.fail(`${suiteName(suite)} ${provider.name} ${length}: ${result.length}`)
          }
          if (!packet.every((byte, i) => byte === result.payload[i])) t.fail('another packet')
        }
      }
      t.equal(inbound.authenticPackets, 18)
      t.same(inbound.drops.toJSON(), {})
      outbound.close()
      inbound.close()
    }
  }
})

t.test('a packet cut at any length is refused with a reason and delivers nothing', async t => {
  for (const suite of [
    gcm,
    cbc,
    gcmEsn,
    suiteOf(EncryptionId.aesCtr, 256, IntegrityId.hmacSha512_256),
  ]) {
    const { outbound, inbound } = pairOf(suite)
    const esp = sealed(outbound, ipv4Packet(100), NextHeader.ipv4)
    for (let length = 0; length < esp.length; length++) {
      const result = opened(inbound, esp.slice(0, length))
      if (result.length >= 0) t.fail(`${suiteName(suite)} cut to ${length} was delivered`)
    }
    t.equal(inbound.authenticPackets, 0)
    const counted = Object.values(inbound.drops.toJSON()).reduce((sum, count) => sum + count, 0)
    t.equal(counted, esp.length, 'every drop is counted')
    t.equal(opened(inbound, esp).length, 100, 'and the whole packet is still good')
  }
})

t.test('a changed bit anywhere but in the SPI is refused', async t => {
  for (const suite of [gcm, cbc, gcmEsn]) {
    const { outbound, inbound } = pairOf(suite)
    const esp = sealed(outbound, ipv4Packet(60), NextHeader.ipv4)
    for (let bit = 0; bit < 8 * esp.length; bit++) {
      const changed = Uint8Array.from(esp)
      changed[bit >>> 3] = (changed[bit >>> 3] ?? 0) ^ (0x80 >>> (bit & 7))
      if (opened(inbound, changed).length >= 0) t.fail(`${suiteName(suite)} bit ${bit}`)
    }
    t.equal(inbound.authenticPackets, 0)
    t.equal(opened(inbound, esp).length, 60)
  }
})

t.test('arbitrary bytes never throw, and nothing is delivered', async t => {
  const inbounds = [gcm, cbc, gcmEsn].map(suite => pairOf(suite).inbound)
  fc.assert(
    fc.property(
      fc.constantFrom(...inbounds),
      fc.uint8Array({ maxLength: 300 }),
      (sa, packet) => opened(sa, packet).length < 0,
    ),
    { seed: 31, numRuns: 3000 },
  )
  t.pass('no exception')
})

t.test('replays and old packets are refused before and after the wrap of the window', async t => {
  for (const suite of [gcm, cbc, gcmEsn]) {
    const { outbound, inbound } = pairOf(suite, { replayWindowPackets: 64 })
    const packets = Array.from({ length: 200 }, () =>
      sealed(outbound, ipv4Packet(40), NextHeader.ipv4),
    )
    for (const packet of packets) t.equal(opened(inbound, packet).length, 40)
    for (const packet of packets) {
      if (opened(inbound, packet).length >= 0) t.fail('a replay was delivered')
    }
    t.equal(inbound.drops.get(EspDrop.replayed), 64)
    // With ESN a number behind the window can only mean the next round, where the ICV is wrong.
    const behind = suite.hasEsn ? EspDrop['not-authentic'] : EspDrop['too-old']
    t.equal(inbound.drops.get(behind), 136)
  }
})

t.test('loss, reordering and duplicates inside the window lose nothing that arrived', async t => {
  const { outbound, inbound } = pairOf(gcm, { replayWindowPackets: 1024 })
  const random = new SeededRandom(77)
  const waiting: Uint8Array[] = []
  let arrived = 0
  let delivered = 0
  const arrive = (packet: Uint8Array) => {
    arrived++
    if (opened(inbound, packet).length === 40) delivered++
  }
  for (let i = 0; i < 5000; i++) {
    const packet = sealed(outbound, ipv4Packet(40), NextHeader.ipv4)
    const fate = random.next() % 100
    if (fate < 1) continue
    if (fate < 4) waiting.push(packet)
    else arrive(packet)
    if (fate === 50 && opened(inbound, packet).length >= 0) t.fail('a duplicate was delivered')
    if (waiting.length > 20) for (const late of waiting.splice(0)) arrive(late)
  }
  t.equal(delivered, arrived)
  t.ok(inbound.drops.get(EspDrop.replayed) > 10, 'the duplicates')
})

t.test('without ESN the last number is 2^32 - 1, then nothing is sent', async t => {
  for (const suite of [gcm, cbc]) {
    const startSequence = { high: 0, low: 0xffff_fffd }
    const { outbound, inbound } = pairOf(suite, { startSequence })
    t.equal(outbound.remainingPackets, 2)
    for (let i = 0; i < 2; i++) {
      t.equal(opened(inbound, sealed(outbound, ipv4Packet(40), NextHeader.ipv4)).length, 40)
    }
    t.equal(outbound.seal(at, 40, NextHeader.ipv4), EspDrop['sequence-exhausted'])
    t.equal(outbound.seal(at, 40, NextHeader.ipv4), EspDrop['sequence-exhausted'])
    t.equal(outbound.drops.get(EspDrop['sequence-exhausted']), 2)
    t.equal(inbound.replay.top, 0xffff_ffff)
  }
})

t.test('with ESN packets go on across 2^32, in order and out of it', async t => {
  for (const suite of [
    gcmEsn,
    suiteOf(EncryptionId.aesCbc, 256, IntegrityId.hmacSha256_128, true),
    suiteOf(EncryptionId.chacha20Poly1305, 256, 0, true),
  ]) {
    for (const provider of packetCipherProviders) {
      if (!provider.supports(suite, memory)) continue
      const startSequence = { high: 0, low: 0xffff_ffe0 }
      const { outbound, inbound } = pairOf(suite, { startSequence, provider: provider.name })
      const packets = Array.from({ length: 80 }, () =>
        sealed(outbound, ipv4Packet(40), NextHeader.ipv4),
      )
      // The receiver has followed so far; now pairs come in reverse.
      inbound.replay.accept(0, 0xffff_ffe0)
      let delivered = 0
      for (let i = 0; i < packets.length; i += 2) {
        for (const packet of [packets[i + 1], packets[i]]) {
          if (packet !== undefined && opened(inbound, packet).length === 40) delivered++
        }
      }
      t.equal(delivered, 80, `${suiteName(suite)} ${provider.name}`)
      t.equal(inbound.replay.top, 2 ** 32 + 48)
      t.equal(opened(inbound, packets[40] ?? new Uint8Array(0)).length, EspDrop.replayed)
    }
  }
})

t.test('ESN ends where its arithmetic does', async t => {
  const { outbound } = pairOf(gcmEsn, { startSequence: { high: 0x1f_ffff, low: 0xffff_fffe } })
  memory.bytes.set(ipv4Packet(40), at)
  t.ok(outbound.seal(at, 40, NextHeader.ipv4) > 0)
  t.equal(outbound.remainingPackets, 0)
  t.equal(outbound.seal(at, 40, NextHeader.ipv4), EspDrop['sequence-exhausted'])
})

t.test('padding for traffic flow confidentiality is cut off (RFC 4303 §2.7)', async t => {
  const { outbound, inbound } = pairOf(gcm)
  for (const packet of [ipv4Packet(60), ipv6Packet(60)]) {
    const padded = new Uint8Array(1300).fill(0x77)
    padded.set(packet)
    const next = packet[0] === 0x60 ? NextHeader.ipv6 : NextHeader.ipv4
    const result = opened(inbound, sealed(outbound, padded, next))
    t.equal(result.length, 60)
    t.same(result.payload, packet)
  }
})

t.test('dummy packets are discarded without fault, IP-TFS is refused', async t => {
  const { outbound, inbound } = pairOf(gcm)
  memory.bytes.fill(0, at, at + 100)
  const length = outbound.sealDummy(at, 100)
  const dummy = memory.bytes.slice(
    at - outbound.headroomBytes,
    at - outbound.headroomBytes + length,
  )
  t.equal(opened(inbound, dummy).length, EspDrop.dummy)
  t.equal(
    opened(inbound, sealed(outbound, new Uint8Array(0), NextHeader.none)).length,
    EspDrop.dummy,
  )
  t.equal(
    opened(inbound, sealed(outbound, ipv4Packet(60), NextHeader.aggfrag)).length,
    EspDrop.aggfrag,
  )
  t.equal(inbound.authenticPackets, 3, 'they show that the peer lives')
})

t.test('tunnel mode: what is no IP packet, or another one than the next header says', async t => {
  const { outbound, inbound } = pairOf(cbc)
  const changed = (packet: Uint8Array, at: number, value: number) => {
    packet[at] = value
    return packet
  }
  const bad: [string, Uint8Array, number, number][] = [
    ['TCP in tunnel mode', ipv4Packet(40), 6, EspDrop['wrong-next-header']],
    ['IPv6 as IPv4', ipv6Packet(60), 4, EspDrop['bad-inner-packet']],
    ['IPv4 as IPv6', ipv4Packet(60), 41, EspDrop['bad-inner-packet']],
    ['empty', new Uint8Array(0), 4, EspDrop['bad-inner-packet']],
    ['19 bytes', ipv4Packet(40).subarray(0, 19), 4, EspDrop['bad-inner-packet']],
    ['39 bytes of IPv6', ipv6Packet(60).subarray(0, 39), 41, EspDrop['bad-inner-packet']],
    ['header length 16', changed(ipv4Packet(40), 0, 0x44), 4, EspDrop['bad-inner-packet']],
    ['total length over', changed(ipv4Packet(40), 3, 41), 4, EspDrop['bad-inner-packet']],
    ['total length under', changed(ipv4Packet(40), 3, 19), 4, EspDrop['bad-inner-packet']],
    ['IPv6 length over', changed(ipv6Packet(60), 5, 21), 41, EspDrop['bad-inner-packet']],
  ]
  for (const [name, payload, nextHeader, reason] of bad) {
    t.equal(opened(inbound, sealed(outbound, payload, nextHeader)).length, reason, name)
  }
})

t.test('transport mode: UDP is cut to its length, other protocols come as they are', async t => {
  const { outbound, inbound } = pairOf(cbc, { mode: 'transport' })
  const udp = new Uint8Array(60).fill(9)
  udp.set([6, 165, 6, 165, 0, 30, 0, 0])
  t.equal(opened(inbound, sealed(outbound, udp, NextHeader.udp)).length, 30)
  t.equal(inbound.nextHeader, 17)
  t.equal(opened(inbound, sealed(outbound, udp, 6)).length, 60)
  udp[5] = 61
  t.equal(opened(inbound, sealed(outbound, udp, 17)).length, EspDrop['bad-inner-packet'])
  udp[5] = 7
  t.equal(opened(inbound, sealed(outbound, udp, 17)).length, EspDrop['bad-inner-packet'])
  t.equal(
    opened(inbound, sealed(outbound, udp.subarray(0, 7), 17)).length,
    EspDrop['bad-inner-packet'],
  )
})

t.test('authentic padding that is too long or not 1, 2, 3 is refused (RFC 4303 §2.4)', async t => {
  // The trailer is written by hand: a sealer below the SA takes any body.
  const { outbound, inbound } = pairOf(gcm)
  const sealer = nodePacketCiphers.sealer(gcm, keysOf(gcm), memory)
  const craft = (sequence: number, tail: number[]): Uint8Array => {
    const start = at - outbound.headroomBytes
    memory.view.setUint32(start, inbound.spi)
    memory.view.setUint32(start + 4, sequence)
    memory.bytes.set(ipv4Packet(40), at)
    memory.bytes.set(tail, at + 48 - tail.length)
    sealer.seal(start, 48, 0)
    return memory.bytes.slice(start, at + 48 + suiteIcvBytes(gcm))
  }
  t.equal(opened(inbound, craft(1, [1, 2, 3, 4, 5, 6, 6, 4])).length, 40, 'as it should be')
  t.equal(opened(inbound, craft(2, [1, 2, 3, 4, 5, 7, 6, 4])).length, EspDrop['bad-padding'])
  t.equal(opened(inbound, craft(3, [0, 0, 0, 0, 0, 0, 6, 4])).length, EspDrop['bad-padding'])
  t.equal(opened(inbound, craft(4, [47, 4])).length, EspDrop['bad-padding'], 'one too many')
  t.equal(opened(inbound, craft(5, [255, 4])).length, EspDrop['bad-padding'])
  t.equal(opened(inbound, craft(5, [0, 4])).length, EspDrop.replayed, 'it was authentic')
})

t.test('a hard volume limit stops both halves', async t => {
  const hard = { ...unlimited, packets: 3 }
  const { outbound, inbound } = pairOf(gcm, { lifetime: { soft: unlimited, hard } })
  for (let i = 0; i < 3; i++) {
    t.equal(opened(inbound, sealed(outbound, ipv4Packet(40), NextHeader.ipv4)).length, 40)
  }
  t.equal(outbound.seal(at, 40, NextHeader.ipv4), EspDrop.expired)
  const other = pairOf(gcm, { startSequence: { high: 0, low: 10 } })
  const late = sealed(other.outbound, ipv4Packet(40), NextHeader.ipv4)
  t.equal(opened(inbound, late).length, EspDrop.expired)
  t.same(inbound.lifetime.poll(2000), { limit: 'hard', measure: 'packets' })
  t.equal(inbound.lifetime.bytes, 120)
})

t.test('closed halves drop and count', async t => {
  const { outbound, inbound } = pairOf(gcm)
  const esp = sealed(outbound, ipv4Packet(40), NextHeader.ipv4)
  outbound.close()
  inbound.close()
  outbound.close()
  inbound.close()
  t.equal(opened(inbound, esp).length, EspDrop.closed)
  t.equal(outbound.seal(at, 40, NextHeader.ipv4), EspDrop.closed)
  t.same(inbound.drops.toJSON(), { closed: 1 })
})
