/** What every backend of the dataplane must do, told from outside: packets at the host, packets at sessions. */
import type { Test } from 'tap'
import { u16 } from '../../lib/core/bytes.ts'
import type { PacketEngine } from '../../lib/dataplane/packet-engine.ts'
import { CollectingSink, ip4, ip6, pattern, readPacket, readTcp, tcp, udp } from './packets.ts'

/** The host beside the device: sends into it and sees what comes out of it. */
export interface HostSide {
  send(packet: Uint8Array): void
  /** What came out since the last call. */
  received(): Uint8Array[]
  close(): void
}

export interface Backend {
  readonly dataplane: PacketEngine
  readonly host: HostSide
}

/** Our addresses for the dataplane under test: MTU 1500, own 10.99.0.1 and 2001:db8:99::1. */
export const complianceOptions = {
  mtuBytes: 1500,
  ipv4Address: ip4('10.99.0.1'),
  ipv6Address: ip6('2001:db8:99::1'),
}

const DEADLINE_MS = 3000

export async function compliance(
  t: Test,
  name: string,
  open: () => Backend | Promise<Backend>,
): Promise<void> {
  await t.test(`${name} complies`, async t => {
    const { dataplane, host } = await open()
    dataplane.start()
    const session = (label: string, ipv4: string, ipv6: string) => {
      const sink = new CollectingSink(dataplane.memory)
      const port = dataplane.attach({ label, sink, onLinkPacket: () => {} })
      port.addIpv4(ip4(ipv4))
      port.addIpv6(ip6(ipv6), 64)
      const send = (packet: Uint8Array) => {
        const at = dataplane.intake(packet.length)
        dataplane.memory.bytes.set(packet, at)
        port.deliver(at, packet.length)
      }
      return { port, sink, send }
    }
    const alice = session('alice', '10.99.0.2', '2001:db8:99:2::')
    const bob = session('bob', '10.99.0.3', '2001:db8:99:3::')
    const remote = '198.51.100.7'
    const remote6 = '2001:db8:77::7'

    await t.test('packets of the host reach their session unchanged and in order', async t => {
      const packets = Array.from({ length: 40 }, (_, i) => [
        udp({ source: remote, destination: '10.99.0.2', id: i, payload: pattern(i * 20, i) }),
        tcp({ source: remote6, destination: '2001:db8:99:2::5', payload: pattern(i * 20, i) }),
      ]).flat()
      for (const packet of packets) host.send(packet)
      const got = await until(() => alice.sink.packets.length >= packets.length, alice.sink.packets)
      t.same(got, packets)
      alice.sink.taken()
    })

    await t.test('packets of a session reach the host unchanged', async t => {
      const packets = [
        udp({ source: '10.99.0.2', destination: remote, payload: pattern(1300) }),
        tcp({ source: '2001:db8:99:2::5', destination: remote6, flags: 0x18, payload: pattern(9) }),
        tcp({ source: '10.99.0.2', destination: remote, flags: 0x04 }),
      ]
      for (const packet of packets) {
        alice.send(packet)
        // Order is kept within a flow and between bursts.
        dataplane.flush()
      }
      t.same(await collect(host, packets.length), packets)
    })

    await t.test('a TCP burst of a session reaches the host as the same stream', async t => {
      for (const [source, destination] of [
        ['10.99.0.2', remote],
        ['2001:db8:99:2::5', remote6],
      ] as const) {
        const bytes = 30 * 1200
        for (let at = 0; at < bytes; at += 1200) {
          alice.send(tcp({ source, destination, sequence: 1 + at, payload: pattern(1200, at) }))
        }
        dataplane.flush()
        const stream = new Uint8Array(bytes)
        let have = 0
        await until(() => {
          for (const packet of host.received()) {
            const header = source.includes(':') ? 60 : 40
            const sequence =
              ((packet[header - 16] ?? 0) * 0x1000000 +
                (packet[header - 15] ?? 0) * 0x10000 +
                u16(packet, header - 14)) >>>
              0
            stream.set(packet.subarray(header), sequence - 1)
            have += packet.length - header
          }
          return have >= bytes
        }, [])
        t.same(stream, pattern(bytes))
      }
    })

    await t.test('what does not fit a tunnel is answered to the host', async t => {
      host.send(udp({ source: remote, destination: '10.99.0.2', payload: pattern(1440) }))
      host.send(udp({ source: remote6, destination: '2001:db8:99:2::5', payload: pattern(1440) }))
      const answers = (await collect(host, 2)).map(readPacket)
      t.same(
        answers.map(answer => [...(answer?.message.subarray(0, 2) ?? [])]),
        [
          [3, 4],
          [2, 0],
        ],
      )
      t.same(alice.sink.taken(), [])
    })

    await t.test('a SYN of the host is clamped', async t => {
      const options = Uint8Array.of(2, 4, 5, 180)
      host.send(tcp({ source: remote, destination: '10.99.0.2', flags: 2, options }))
      await until(() => alice.sink.packets.length > 0, [])
      const segment = readTcp(alice.sink.taken()[0] ?? new Uint8Array(0))
      t.equal(u16(segment?.options ?? new Uint8Array(4), 2), 1360)
    })

    await t.test('sessions reach each other without the host; forgeries reach nobody', async t => {
      alice.send(udp({ source: '10.99.0.2', destination: '10.99.0.3' }))
      alice.send(udp({ source: '10.99.0.3', destination: remote }))
      alice.send(udp({ source: '2001:db8:99:3::1', destination: remote6 }))
      dataplane.flush()
      t.equal(readPacket(bob.sink.taken()[0] ?? new Uint8Array(0))?.ttl, 63)
      // A packet behind them shows that they did not come.
      const last = udp({ source: '10.99.0.2', destination: remote })
      alice.send(last)
      dataplane.flush()
      t.same(await collect(host, 1), [last])
      t.equal(dataplane.status().counters['drop-spoofed-source'], 2)
    })

    await t.test('a tunnel without room costs counted packets only', async t => {
      alice.sink.room = 1
      for (let i = 0; i < 3; i++) host.send(udp({ source: remote, destination: '10.99.0.2' }))
      await until(() => dataplane.status().counters['drop-no-room'] === 2, [])
      t.equal(alice.sink.taken().length, 1)
      alice.sink.room = Number.POSITIVE_INFINITY
    })

    await t.test('a detached session is out of reach', async t => {
      bob.port.detach()
      const before = dataplane.status().counters['drop-no-route'] ?? 0
      host.send(udp({ source: remote, destination: '10.99.0.3' }))
      await until(() => (dataplane.status().counters['drop-no-route'] ?? 0) > before, [])
      t.same(bob.sink.taken(), [])
    })

    await t.test('after stop nothing moves, and stopping again is harmless', async t => {
      dataplane.stop()
      dataplane.stop()
      alice.send(udp({ source: '10.99.0.2', destination: remote }))
      dataplane.flush()
      t.equal(dataplane.status().counters['drop-device-stopped'], 1)
    })
    host.close()
  })

  async function collect(host: HostSide, count: number): Promise<Uint8Array[]> {
    const got: Uint8Array[] = []
    await until(() => {
      got.push(...host.received())
      return got.length >= count
    }, [])
    return got
  }
}

/** Turns the event loop until `isDone`, then gives `result`. */
async function until<Result>(isDone: () => boolean, result: Result): Promise<Result> {
  const deadlineMs = performance.now() + DEADLINE_MS
  while (!isDone()) {
    if (performance.now() > deadlineMs) throw new Error('nothing came in time')
    await new Promise(resolve => setImmediate(resolve))
  }
  return result
}
