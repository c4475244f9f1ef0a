import fc from 'fast-check'
import t from 'tap'
import { ConflictProbe } from '../../lib/address/conflict-probe.ts'
import {
  arpPacketBytes,
  encodeArpAnnouncement,
  encodeArpProbe,
  parseArp,
} from '../../lib/address/wire/arp.ts'
import { fromHex, toHex } from '../../lib/core/bytes.ts'
import { ManualClock } from '../../lib/core/clock.ts'
import { parseIpv4 } from '../../lib/core/ip-address.ts'
import { TimerWheel } from '../../lib/core/timers.ts'

const ours = fromHex('02 00 00 00 00 01')
const theirs = fromHex('02 00 00 00 00 02')
const address = parseIpv4('192.0.2.50') ?? 0

function setUp() {
  const clock = new ManualClock()
  const wheel = new TimerWheel(0, { tickMs: 10 })
  const sent: Uint8Array[] = []
  const send = (packet: Uint8Array) => sent.push(packet)
  const probe = new ConflictProbe({ hardware: ours, send, clock, wheel })
  const elapse = (ms: number) => {
    clock.advance(ms)
    wheel.advance(clock.nowMs())
  }
  return { probe, sent, elapse }
}

/** As the host with `hardware` would answer for `owner`. */
function reply(hardware: Uint8Array, owner: number): Uint8Array {
  const packet = encodeArpAnnouncement(hardware, owner)
  packet[7] = 2
  return packet
}

t.test('packets are those of RFC 826 and RFC 5227', async t => {
  const probe = encodeArpProbe(ours, address)
  t.equal(
    toHex(probe),
    toHex(fromHex('0001 0800 06 04 0001 020000000001 00000000 000000000000 c0000232')),
  )
  const announcement = encodeArpAnnouncement(ours, address)
  t.equal(
    toHex(announcement),
    toHex(fromHex('0001 0800 06 04 0001 020000000001 c0000232 000000000000 c0000232')),
  )
  t.same(parseArp(announcement), {
    operation: 'request',
    senderHardware: ours,
    senderAddress: address,
    targetAddress: address,
  })
  for (const [at, value] of [
    [1, 6],
    [3, 6],
    [4, 8],
    [5, 16],
    [7, 3],
  ] as const) {
    const strange = probe.slice()
    strange[at] = value
    t.equal(parseArp(strange), undefined)
  }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), bytes => {
      const packet = parseArp(bytes)
      return packet === undefined || bytes.length >= arpPacketBytes
    }),
    { seed: 826, numRuns: 1000 },
  )
})

t.test('an address that nobody answers for is free after three questions', async t => {
  const { probe, sent, elapse } = setUp()
  let owner: Uint8Array | undefined | 'open' = 'open'
  const asked = probe.ownerOf(address).then(found => {
    owner = found
  })
  t.same(sent, [encodeArpProbe(ours, address)])
  elapse(100)
  elapse(100)
  t.equal(sent.length, 3)
  await Promise.resolve()
  t.equal(owner, 'open')
  elapse(100)
  await asked
  t.equal(owner, undefined)
  t.same(probe.counters.toJSON(), { probed: 1 })
  elapse(1000)
  t.equal(sent.length, 3)
})

t.test('who answers for it has it, and who asks for it at the same time', async t => {
  const { probe } = setUp()
  for (const packet of [
    reply(theirs, address),
    encodeArpAnnouncement(theirs, address),
    encodeArpProbe(theirs, address),
  ]) {
    const asked = probe.ownerOf(address)
    probe.receive(packet)
    t.same(await asked, theirs)
  }
  t.same(probe.counters.toJSON(), { conflict: 3, probed: 3 })
})

t.test('what is not about it, our own packets and damaged ones say nothing', async t => {
  const { probe, elapse } = setUp()
  const asked = probe.ownerOf(address)
  const question = encodeArpAnnouncement(theirs, address + 1)
  question.set(encodeArpProbe(theirs, address).slice(24), 24)
  for (const packet of [
    reply(theirs, address + 1),
    encodeArpProbe(theirs, address + 1),
    encodeArpProbe(ours, address),
    question,
    reply(theirs, address).slice(0, 27),
  ]) {
    probe.receive(packet)
  }
  for (let i = 0; i < 3; i++) elapse(100)
  t.equal(await asked, undefined)
  t.same(probe.counters.toJSON(), { 'arp-malformed': 1, probed: 1 })
})

t.test('questions are bounded, and answered when the probe is closed', async t => {
  const { probe, sent } = setUp()
  const asked = Array.from({ length: 256 }, (_, i) => probe.ownerOf(address + i))
  t.equal(await probe.ownerOf(address), undefined, 'asked for already')
  t.equal(await probe.ownerOf(address + 256), undefined, 'one too many')
  t.equal(sent.length, 256)
  t.equal(probe.counters.get('probe-skipped'), 2)
  probe.close()
  t.ok((await Promise.all(asked)).every(owner => owner === undefined))
})
