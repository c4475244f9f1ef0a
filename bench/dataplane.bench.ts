/** What a packet costs in the dataplane, step by step, and two TUN devices forwarded through it. */

import { isFilterRule, parseFilterRule } from '../lib/config/filter-rule.ts'
import { InvariantError } from '../lib/core/errors.ts'
import type { PacketSink } from '../lib/core/packet-sink.ts'
import { Coalescer } from '../lib/dataplane/coalescer.ts'
import type { RateLimits } from '../lib/dataplane/dataplane.ts'
import { type Device, type DeviceEvents, noOffloads } from '../lib/dataplane/device.ts'
import { Frame, Gso } from '../lib/dataplane/frame.ts'
import { openDataplane } from '../lib/dataplane/open-dataplane.ts'
import { DirtyOutlets, Outlet } from '../lib/dataplane/outlet.ts'
import { PacketEngine } from '../lib/dataplane/packet-engine.ts'
import { PacketFilter } from '../lib/dataplane/packet-filter.ts'
import { PacketMemory } from '../lib/dataplane/pinned-memory.ts'
import { RouteTable } from '../lib/dataplane/route-table.ts'
import { Segmenter } from '../lib/dataplane/segmenter.ts'
import { Tally } from '../lib/dataplane/tally.ts'
import { join } from '../test/dataplane/join.ts'
import { enterNamespace, whyNoNamespaces } from '../test/dataplane/namespace.ts'
import { ip4, ip6, pattern, tcp, udp } from '../test/dataplane/packets.ts'
import type { Bench, BenchContext } from './bench.ts'
import { type FlowResult, measureFlow, serveIperf } from './iperf.ts'
import { Wire } from './namespaces.ts'
import {
  allocatedBytesPer,
  type Contender,
  interleave,
  nsPer,
  packetSizes,
} from './packet-suites.ts'
import { median, ratioOfPairs } from './statistics.ts'

export const bench: Bench = {
  name: 'dataplane',
  about: 'packets through kernels, segmenter, coalescer, routes, ports, and two TUN devices',
  async run(context) {
    measureSteps(context)
    await measureForwarding(context)
  },
}

const repeats = 4000
const all = { checksum: true, tso4: true, tso6: true, uso: true }
const toClient = { source: '192.0.2.1', destination: '10.0.0.2' }
const fromClient = { source: '10.0.0.2', destination: '192.0.2.1' }

/** Takes packets and forgets them. */
class NullSink implements PacketSink {
  readonly mtuBytes = 1500
  readonly #at: number

  constructor(memory: PacketMemory) {
    this.#at = memory.allocate(2048)
  }

  reserve(): number {
    return this.#at
  }

  commit(): void {}

  flush(): void {}
}

/** A host that has the same packet again and again, and takes everything. */
class NullDevice implements Device {
  readonly name = 'null'
  readonly backend = 'memory'
  readonly mtuBytes = 1500
  readonly offloads = noOffloads
  left = 0
  events: DeviceEvents | undefined
  readonly #at: number
  readonly #lengthBytes: number

  constructor(memory: PacketMemory, packet: Uint8Array) {
    this.#at = memory.allocate(packet.length)
    this.#lengthBytes = packet.length
    memory.bytes.set(packet, this.#at)
  }

  read(frame: Frame): boolean {
    if (this.left === 0) return false
    this.left--
    frame.setPacket(this.#at, this.#lengthBytes)
    return true
  }

  write(): boolean {
    return true
  }

  start(events: DeviceEvents): void {
    this.events = events
  }

  stop(): void {}
}

interface Step extends Contender {
  readonly operations: number
  readonly work: () => void
}

function step(name: string, operations: number, work: () => void): Step {
  return { name, samples: [], operations, work, run: () => nsPer(operations, work) }
}

function measureSteps(context: BenchContext): void {
  const rounds = context.isQuick ? 3 : 15
  const steps = [
    ...kernelSteps('wasm'),
    ...kernelSteps('plain'),
    routeStep(),
    segmentStep(Gso.tcp4),
    segmentStep(Gso.udp),
    coalesceStep(),
    ...packetSizes.flatMap(bytes => pathSteps(bytes)),
    ...pathSteps(1400, 'filter-4', { filter: filterOf(4) }),
    ...pathSteps(1400, 'filter-100', { filter: filterOf(100) }),
    ...pathSteps(1400, 'rate', { rates: { receiveBitsPerSecond: 1e15, sendBitsPerSecond: 1e15 } }),
  ]
  interleave(steps, rounds)
  for (const { name, samples } of steps) {
    context.row({ name: `dataplane/${name}`, unit: 'ns/packet', samples })
  }
  for (const { name, operations, work } of steps) {
    if (!name.startsWith('path')) continue
    const samples = Array.from({ length: 9 }, () => allocatedBytesPer(operations, work))
    context.row({ name: `dataplane/allocated/${name}`, unit: 'bytes/packet', samples })
  }
}

function kernelSteps(kernels: 'wasm' | 'plain'): Step[] {
  const memory = new PacketMemory({ sizeBytes: 1 << 20, kernels })
  const from = memory.allocate(4096)
  const to = memory.allocate(4096)
  let sum = 0
  return packetSizes.flatMap(bytes => [
    step(`checksum/${kernels}/${bytes}`, repeats, () => {
      for (let i = 0; i < repeats; i++) sum = memory.checksum(from, bytes, sum)
    }),
    step(`copy/${kernels}/${bytes}`, repeats, () => {
      for (let i = 0; i < repeats; i++) memory.copy(to, from, bytes)
    }),
    step(`copy-checksum/${kernels}/${bytes}`, repeats, () => {
      for (let i = 0; i < repeats; i++) sum = memory.copyChecksum(to, from, bytes, sum)
    }),
  ])
}

function routeStep(): Step {
  const table = new RouteTable<object>()
  const hosts = 10_000
  const first = ip4('10.64.0.0')
  for (let i = 0; i < hosts; i++) table.addIpv4(first + i, 32, {})
  return step('route/ipv4/10000-hosts', repeats, () => {
    for (let i = 0; i < repeats; i++) {
      if (table.lookupIpv4(first + ((i * 7919) % hosts)) === undefined)
        throw new InvariantError('no route')
    }
  })
}

function segmentStep(gsoType: number): Step {
  const memory = new PacketMemory({ sizeBytes: 1 << 20 })
  const segmenter = new Segmenter(memory)
  const outlet = new Outlet(new NullSink(memory), new Tally(), memory, new DirtyOutlets())
  const isUdp = gsoType === Gso.udp
  const segmentBytes = isUdp ? 1372 : 1360
  const count = 46
  const payload = pattern(segmentBytes * count)
  const packet = isUdp ? udp({ ...toClient, payload }) : tcp({ ...toClient, payload })
  const at = memory.allocate(packet.length)
  memory.bytes.set(packet, at)
  const frame = new Frame()
  const frames = 20
  return step(`segment/${isUdp ? 'udp' : 'tcp'}/1400`, frames * count, () => {
    for (let i = 0; i < frames; i++) {
      frame.setPacket(at, packet.length)
      frame.gsoType = gsoType
      frame.segmentBytes = segmentBytes
      frame.checksumStart = 20
      segmenter.cut(frame, segmenter.headerBytes(frame), outlet, count)
    }
  })
}

function coalesceStep(): Step {
  const memory = new PacketMemory({ sizeBytes: 1 << 20 })
  const coalescer = new Coalescer(memory, all, { writeFrame: () => {} }, new Tally())
  const count = 40
  const bytes = 1400
  const at = memory.allocate(bytes * count)
  const packets = Array.from({ length: count }, (_, i) =>
    tcp({ ...fromClient, sequence: 1 + i * 1360, payload: pattern(1360, i) }),
  )
  packets.forEach((packet, i) => {
    memory.bytes.set(packet, at + i * bytes)
  })
  // Joining writes into the first header only: a copy of it is put back before each burst.
  const head = memory.allocate(40)
  memory.copy(head, at, 40)
  const bursts = 20
  return step('coalesce/tcp/1400', bursts * count, () => {
    for (let burst = 0; burst < bursts; burst++) {
      memory.copy(at, head, 40)
      for (let i = 0; i < count; i++) coalescer.add(at + i * bytes, bytes)
      coalescer.flush()
    }
  })
}

/** The last of `count` rules permits what is sent, both ways. */
function filterOf(count: number): PacketFilter {
  const texts = ['in', 'out'].flatMap(direction => [
    ...Array.from(
      { length: count - 1 },
      (_, i) => `deny ${direction} udp from 10.99.${i}.0/24 to any 53,8000-8100`,
    ),
    `permit ${direction} udp from any to any`,
  ])
  return new PacketFilter(texts.map(parseFilterRule).filter(isFilterRule))
}

interface Limits {
  readonly filter?: PacketFilter
  readonly rates?: RateLimits
}

/** A packet from the host to a sink, and from a session to the host, with all their checks. */
function pathSteps(bytes: number, suffix = '', limits: Limits = {}): Step[] {
  const memory = new PacketMemory({ sizeBytes: 4 << 20 })
  const down = udp({ ...toClient, payload: pattern(bytes - 28) })
  const up = udp({ ...fromClient, payload: pattern(bytes - 28) })
  const device = new NullDevice(memory, down)
  const engine = new PacketEngine(memory, device, {
    own: { ipv4Address: ip4('10.0.0.1'), ipv6Address: undefined },
    allowsClientToClient: true,
    clock: { nowMs: () => 0 },
    wallClock: { now: () => new Date(0) },
    streamSlotCount: 1,
    intakeBytes: 1 << 20,
    onDeviceLost: () => {},
  })
  const port = engine.attach({ label: 'x', sink: new NullSink(memory), onLinkPacket: () => {} })
  port.addIpv4(ip4('10.0.0.2'))
  port.limit(limits.filter, limits.rates)
  const name = suffix === '' ? `${bytes}` : `${bytes}/${suffix}`
  engine.start()
  const upAt = memory.allocate(bytes)
  memory.bytes.set(up, upAt)
  const burst = 64
  return [
    step(`path/down/${name}`, repeats, () => {
      for (let i = 0; i < repeats; i += burst) {
        device.left = Math.min(burst, repeats - i)
        device.events?.onReadable()
      }
    }),
    step(`path/up/${name}`, repeats, () => {
      for (let i = 0; i < repeats; i += burst) {
        const end = Math.min(i + burst, repeats)
        for (let packet = i; packet < end; packet++) {
          const at = engine.intake(bytes)
          memory.copy(at, upAt, bytes)
          port.deliver(at, bytes)
        }
        engine.flush()
      }
    }),
  ]
}

interface Forwarder {
  readonly name: string
  readonly target: string
  readonly streams: number
  readonly results: FlowResult[]
}

const mtuBytes = 1440

/** iperf3 over two TUN devices that this process forwards, in turn with the bare wire. */
async function measureForwarding(context: BenchContext): Promise<void> {
  const why = whyNoNamespaces()
  if (why !== undefined) {
    context.say(`tun/forward is left out: it ${why}`)
    return
  }
  const wire = new Wire('dpb')
  const stops: (() => void)[] = []
  try {
    const openPair = (backend: 'offload' | 'plain', net: number) => {
      const near = { ipv4: ip4(`10.${net}.0.1`), ipv6: ip6(`fd00:${net}::1`) }
      const far = { ipv4: ip4(`10.${net}.0.2`), ipv6: ip6(`fd00:${net}::2`) }
      const tunName = `dp-${backend}`
      const [a, b] = [wire.a, wire.b].map((end, i) => {
        const dataplane = enterNamespace(end.namespace, () =>
          openDataplane({ backend, tunName, mtuBytes, memoryBytes: 32 << 20 }),
        )
        stops.push(() => dataplane.stop())
        wire.exec(end, 'ip', 'addr', 'add', `10.${net}.0.${i + 1}/24`, 'dev', tunName)
        return dataplane
      })
      if (a === undefined || b === undefined) throw new InvariantError('a wire has two ends')
      join(a, near, b, far, mtuBytes)
      a.start()
      b.start()
    }
    openPair('offload', 201)
    openPair('plain', 202)
    const stopServer = await serveIperf(wire, wire.b)
    const flows: Forwarder[] = [
      { name: 'ceiling', target: wire.b.address, streams: 1, results: [] },
      { name: 'offload/1', target: '10.201.0.2', streams: 1, results: [] },
      { name: 'offload/4', target: '10.201.0.2', streams: 4, results: [] },
      { name: 'plain/1', target: '10.202.0.2', streams: 1, results: [] },
    ]
    const seconds = context.isQuick ? 1 : 3
    for (let round = 0; round < (context.isQuick ? 1 : 3); round++) {
      for (const { target, streams, results } of flows) {
        const flow = { from: wire.a, target, streams, seconds, isReverse: false }
        results.push(await measureFlow(flow, process.pid))
      }
    }
    await stopServer()
    const speeds = (of: Forwarder | undefined) => of?.results.map(r => r.gbitPerSecond) ?? []
    for (const flow of flows) {
      const isCeiling = flow === flows[0]
      context.row({
        name: `tun/forward/${flow.name}`,
        unit: 'Gbit/s',
        samples: speeds(flow),
        ...(!isCeiling && {
          ratio: { ceiling: ratioOfPairs(speeds(flow), speeds(flows[0])) },
          gbitPerCpuSecond: median(flow.results.map(result => result.gbitPerCpuSecond)),
        }),
      })
    }
  } finally {
    for (const stop of stops) stop()
    await wire.close()
  }
}
