/** What SSTP framing and the PPP header cost per packet, without TLS, TUN or a peer. */
import { ManualClock } from '../lib/core/clock.ts'
import { noRoom } from '../lib/core/packet-sink.ts'
import { TimerWheel } from '../lib/core/timers.ts'
import { createMemoryDataplane } from '../lib/dataplane/index.ts'
import type { Link } from '../lib/ppp/carrier.ts'
import { peel } from '../lib/ppp/wire/frame.ts'
import { Call } from '../lib/sstp/call.ts'
import type { CallInput, CallOutput } from '../lib/sstp/call-state.ts'
import { PacketPacker } from '../lib/sstp/packet-packer.ts'

/** The size of a published figure: 380 ns for a kernel-assisted SSTP server. */
export const packetBytes = 1452
/** One TLS record of our own packing. */
const packetsPerChunk = 11
const frameBytes = 8 + packetBytes

/** ns per packet from an IP packet in memory to bytes for the TLS socket. */
export function measureFramingOut(packets: number): number {
  const { dataplane } = createMemoryDataplane()
  const { memory, streamSlots } = dataplane
  const packer = new PacketPacker(memory, streamSlots, { ...nowhere, write: callBack }, 64)
  packer.permit(true)
  const from = memory.allocate(packetBytes)
  memory.bytes[from] = 0x45
  const startedNs = process.hrtime.bigint()
  for (let i = 0; i < packets; i++) {
    const at = packer.reserve(packetBytes)
    if (at === noRoom) break
    memory.copy(at, from, packetBytes)
    packer.commit(at, packetBytes)
    if (i % packetsPerChunk === 0) packer.flush()
  }
  packer.flush()
  return Number(process.hrtime.bigint() - startedNs) / packets
}

/** ns per packet from bytes of the TLS socket to a peeled IP packet in pinned memory. */
export function measureFramingIn(packets: number): number {
  const { dataplane } = createMemoryDataplane()
  const chunk = new Uint8Array(packetsPerChunk * frameBytes)
  for (let at = 0; at < chunk.length; at += frameBytes) {
    chunk.set([0x10, 0, frameBytes >>> 8, frameBytes & 255, 0xff, 3, 0, 0x21, 0x45], at)
  }
  const { bytes } = dataplane.memory
  let seen = 0
  const link: Link = {
    receive: (at, length) => {
      const peeled = peel(bytes, at, length)
      if ((peeled & 0xffff) === 0x21) seen += length - (peeled >>> 16)
    },
    permitTraffic: () => {},
    carrierLost: () => {},
  }
  const outputs: CallOutput[] = [{ type: 'link-open' }]
  const machine = {
    handle: (_input: CallInput | { type: 'timeout' }) => {},
    poll: () => {
      const event = outputs.shift()
      return event === undefined ? undefined : ({ type: 'event', event } as const)
    },
    nextDeadlineMs: () => Number.POSITIVE_INFINITY,
  }
  const clock = new ManualClock()
  const call = new Call({ address: '192.0.2.1', port: 1 }, machine, {
    dataplane,
    links: { open: () => link },
    clock,
    wheel: new TimerWheel(0),
    stream: { ...nowhere, write: callBack },
    remark: () => {},
    established: () => {},
    ended: () => {},
  })
  call.start()
  const startedNs = process.hrtime.bigint()
  for (let i = 0; i < packets; i += packetsPerChunk) call.receive(chunk)
  const ns = Number(process.hrtime.bigint() - startedNs) / packets
  if (seen < packets * packetBytes) throw new RangeError('packets were lost in the framing bench')
  return ns
}

const nowhere = { end: () => {}, destroy: () => {} }

function callBack(_bytes: Uint8Array, callback: () => void): void {
  callback()
}
