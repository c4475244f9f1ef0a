import { mkdtempSync, openSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { SystemError } from '../../lib/core/errors.ts'
import { SeededRandom } from '../../lib/core/random.ts'
import { FaultInjector } from '../../lib/dataplane/fault-injector.ts'
import { Frame } from '../../lib/dataplane/frame.ts'
import { MemoryDevice } from '../../lib/dataplane/memory-device.ts'
import { createMemoryDataplane } from '../../lib/dataplane/open-dataplane.ts'
import { PcapFile } from '../../lib/dataplane/pcap.ts'
import { PacketMemory } from '../../lib/dataplane/pinned-memory.ts'
import { CollectingSink, ip4, pattern, readPacket, udp } from './packets.ts'

const never = { drop: 0, duplicate: 0, reorder: 0, corrupt: 0 }
const COUNT = 400

interface Passage {
  readonly device: FaultInjector
  /** What came through when numbered packets were read, and when they were written. */
  readonly read: number[]
  readonly written: number[]
}

function pass(chances: typeof never, seed: number): Passage {
  const memory = new PacketMemory({ sizeBytes: 2 << 20 })
  const inner = new MemoryDevice(memory, { mtuBytes: 1500, schedule: () => {} })
  const device = new FaultInjector(inner, memory, chances, new SeededRandom(seed))
  for (let i = 0; i < COUNT; i++) inner.fromHost(numbered(i))
  const read: number[] = []
  const frame = new Frame()
  while (device.read(frame)) {
    const at = frame.pieceAt[0] ?? 0
    read.push(numberOf(memory.bytes.slice(at, at + frame.lengthBytes)))
  }
  const at = memory.allocate(100)
  for (let i = 0; i < COUNT; i++) {
    memory.bytes.set(numbered(i), at)
    frame.setPacket(at, 40)
    frame.append(at + 40, 60)
    device.write(frame)
  }
  return { device, read, written: inner.toHost.map(numberOf) }
}

t.test('nothing happens to packets unless it is asked for', async t => {
  const { device, read, written } = pass(never, 1)
  const all = Array.from({ length: COUNT }, (_, i) => i)
  t.same(read, all)
  t.same(written, all)
  t.same(device.injected, { dropped: 0, duplicated: 0, reordered: 0, corrupted: 0 })
})

t.test('losses are as many as were counted, and the order stays', async t => {
  const { device, read, written } = pass({ ...never, drop: 6554 }, 2)
  t.equal(read.length + written.length + device.injected.dropped, 2 * COUNT)
  t.ok(device.injected.dropped > 40 && device.injected.dropped < 140, 'about one in ten')
  for (const passed of [read, written]) t.same(passed, sorted(passed))
})

t.test('doubles come right behind their originals', async t => {
  const { device, read, written } = pass({ ...never, duplicate: 6554 }, 3)
  t.equal(read.length + written.length - device.injected.duplicated, 2 * COUNT)
  t.ok(device.injected.duplicated > 40)
  for (const passed of [read, written]) t.same(passed, sorted(passed))
})

t.test('swapped packets change places, and none is lost', async t => {
  const { device, read, written } = pass({ ...never, reorder: 6554 }, 4)
  t.ok(device.injected.reordered > 40)
  t.notSame(read, sorted(read))
  t.notSame(written, sorted(written))
  t.equal(read.length, COUNT)
  t.ok(written.length >= COUNT - 1, 'the last may still wait')
})

t.test('spoilt packets differ in one bit', async t => {
  const { device, read, written } = pass({ ...never, corrupt: 6554 }, 5)
  const spoilt = [...read, ...written].filter(number => number < 0)
  t.equal(spoilt.length, device.injected.corrupted)
  t.ok(spoilt.length > 40)
})

t.test('the same seed gives the same faults', async t => {
  const chances = { drop: 3000, duplicate: 3000, reorder: 3000, corrupt: 3000 }
  const [first, again, other] = [pass(chances, 6), pass(chances, 6), pass(chances, 7)]
  t.same(first.read, again.read)
  t.same(first.written, again.written)
  t.notSame(first.read, other.read)
})

t.test('a dataplane over a faulty device still counts every packet', async t => {
  const { dataplane, memoryDevice } = createMemoryDataplane({
    memoryBytes: 24 << 20,
    faults: {
      chances: { drop: 6000, duplicate: 6000, reorder: 6000, corrupt: 20_000 },
      random: new SeededRandom(8),
    },
    schedule: action => action(),
  })
  const sink = new CollectingSink(dataplane.memory)
  const port = dataplane.attach({ label: 'alice', sink, onLinkPacket: () => {} })
  port.addIpv4(ip4('10.0.0.2'))
  dataplane.start()
  memoryDevice.burstFromHost(Array.from({ length: 500 }, (_, i) => numbered(i)))
  const { counters } = dataplane.status()
  const read = counters['tun-read-frames'] ?? 0
  t.ok(read > 300)
  t.equal(read, (counters['sent-packets'] ?? 0) + (counters['dropped-packets'] ?? 0))
  dataplane.stop()
})

t.test('a capture', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'openras-pcap-'))
  t.teardown(() => rmSync(folder, { recursive: true }))

  t.test('holds what passed the device, both ways, while it ran', async t => {
    const path = join(folder, 'both.pcap')
    const { dataplane, memoryDevice } = createMemoryDataplane({
      memoryBytes: 24 << 20,
      offloads: { checksum: true, tso4: true, tso6: true, uso: true },
      wallClock: { now: () => new Date(1_700_000_000_250) },
    })
    const sink = new CollectingSink(dataplane.memory)
    const port = dataplane.attach({ label: 'alice', sink, onLinkPacket: () => {} })
    port.addIpv4(ip4('10.0.0.2'))
    dataplane.start()
    const deliver = (packet: Uint8Array) => {
      const at = dataplane.intake(packet.length)
      dataplane.memory.bytes.set(packet, at)
      port.deliver(at, packet.length)
    }
    memoryDevice.fromHost(numbered(1))
    const capture = dataplane.capture({ path, maxBytes: 1 << 20 })
    memoryDevice.fromHost(numbered(2))
    const back = { source: '10.0.0.2', destination: '192.0.2.1', payload: pattern(500) }
    for (let i = 0; i < 3; i++) deliver(udp(back))
    dataplane.flush()
    capture.stop()
    memoryDevice.fromHost(numbered(3))

    const records = readCapture(readFileSync(path))
    t.equal(statSync(path).mode & 0o777, 0o600, 'users’ traffic is private')
    t.equal(records.length, 2)
    t.same(records[0]?.bytes, numbered(2))
    t.equal(records[0]?.timeMs, 1_700_000_000_250)
    t.equal(records[1]?.bytes.length, 28 + 1500, 'a super-packet is one record')
    t.equal(sink.taken().length, 3, 'and traffic went on')
  })

  t.test('ends before it grows too large, and cuts packets when asked', async t => {
    const path = join(folder, 'small.pcap')
    const memory = new PacketMemory({ sizeBytes: 1 << 20 })
    const at = memory.allocate(100)
    memory.bytes.set(numbered(5), at)
    const frame = new Frame()
    frame.setPacket(at, 30)
    frame.append(at + 30, 70)
    const file = new PcapFile(
      { path, maxBytes: 24 + 3 * (16 + 64), snapBytes: 64 },
      { now: () => new Date(0) },
    )
    for (let i = 0; i < 10; i++) file.record(memory, frame)
    t.notOk(file.isOpen)
    file.close()
    const records = readCapture(readFileSync(path))
    t.equal(records.length, 3)
    t.same(records[0]?.bytes, numbered(5).slice(0, 64))
    t.equal(records[0]?.originalBytes, 100)
  })

  t.test('writes blocks as they fill', async t => {
    const path = join(folder, 'blocks.pcap')
    const memory = new PacketMemory({ sizeBytes: 1 << 20 })
    const at = memory.allocate(60_000)
    const frame = new Frame()
    frame.setPacket(at, 60_000)
    const file = new PcapFile({ path, maxBytes: 10 << 20 }, { now: () => new Date(0) })
    for (let i = 0; i < 9; i++) file.record(memory, frame)
    t.ok(statSync(path).size > 400_000, 'before it is closed')
    file.close()
    t.equal(readCapture(readFileSync(path)).length, 9)
  })

  t.test('never overwrites a file', async t => {
    const path = join(folder, 'both.pcap')
    const { dataplane } = createMemoryDataplane({ memoryBytes: 24 << 20 })
    t.throws(() => dataplane.capture({ path, maxBytes: 1000 }), SystemError)
  })

  t.test('gives way to a second one', async t => {
    const { dataplane, memoryDevice } = createMemoryDataplane({ memoryBytes: 24 << 20 })
    dataplane.start()
    const first = dataplane.capture({ path: join(folder, 'first.pcap'), maxBytes: 10_000 })
    const second = dataplane.capture({ path: join(folder, 'second.pcap'), maxBytes: 10_000 })
    memoryDevice.fromHost(numbered(1))
    first.stop()
    memoryDevice.fromHost(numbered(2))
    second.stop()
    t.equal(readCapture(readFileSync(join(folder, 'first.pcap'))).length, 0)
    t.equal(readCapture(readFileSync(join(folder, 'second.pcap'))).length, 2)
    dataplane.stop()
  })
})

t.test('a capture file that cannot be made is an error', async t => {
  const options = { path: '/nowhere/at/all.pcap', maxBytes: 1000 }
  t.throws(() => new PcapFile(options, { now: () => new Date(0) }), SystemError)
})

t.test('a disk that is full ends the capture, not the traffic', async t => {
  const memory = new PacketMemory({ sizeBytes: 1 << 20 })
  const frame = new Frame()
  frame.setPacket(memory.allocate(60_000), 60_000)
  const file = new PcapFile(
    { fd: openSync('/dev/full', 'w'), maxBytes: 10 << 20 },
    { now: () => new Date(0) },
  )
  for (let i = 0; i < 9; i++) file.record(memory, frame)
  t.notOk(file.isOpen)
})

interface CaptureRecord {
  readonly timeMs: number
  readonly originalBytes: number
  readonly bytes: Uint8Array
}

/** The plain reader of capture files. */
function readCapture(file: Buffer): CaptureRecord[] {
  if (file.readUInt32LE(0) !== 0xa1b2c3d4 || file.readUInt32LE(20) !== 101) {
    throw new Error('no capture of raw IP')
  }
  const records: CaptureRecord[] = []
  for (let at = 24; at < file.length; ) {
    const kept = file.readUInt32LE(at + 8)
    records.push({
      timeMs: file.readUInt32LE(at) * 1000 + file.readUInt32LE(at + 4) / 1000,
      originalBytes: file.readUInt32LE(at + 12),
      bytes: Uint8Array.from(file.subarray(at + 16, at + 16 + kept)),
    })
    at += 16 + kept
  }
  return records
}

/** A packet of 100 bytes that knows its number. */
function numbered(number: number): Uint8Array {
  const payload = pattern(72, number)
  payload[0] = number >> 8
  payload[1] = number & 255
  return udp({ source: '192.0.2.1', destination: '10.0.0.2', id: 1, payload })
}

/** The number of a whole packet, -1 for a spoilt one. */
function numberOf(packet: Uint8Array): number {
  const read = readPacket(packet)
  if (read === undefined) return -1
  const number = (read.message[8] ?? 0) * 256 + (read.message[9] ?? 0)
  return Buffer.compare(packet, numbered(number)) === 0 ? number : -1
}

function sorted(numbers: readonly number[]): number[] {
  return [...numbers].sort((a, b) => a - b)
}
