/** Raw sockets on loopback, with an IP protocol number that is kept for experiments (RFC 3692). */
import t, { type Test } from 'tap'
import { copyBytes, toHex } from '../../lib/core/bytes.ts'
import { SystemError } from '../../lib/core/errors.ts'
import { loadKernel } from '../../lib/dataplane/kernel.ts'
import { openRawSocket } from '../../lib/dataplane/open-raw-socket.ts'
import { type PacketSocket, RAW_SLOT_BYTES } from '../../lib/dataplane/packet-socket.ts'
import { PacketMemory } from '../../lib/dataplane/pinned-memory.ts'
import {
  loadRawSocketPackage,
  type PackageSocket,
  PortableRawSocket,
} from '../../lib/dataplane/portable-raw-socket.ts'
import { RawSocket } from '../../lib/dataplane/raw-socket.ts'
import { eventually } from '../support/eventually.ts'

const protocol = 253
const [first, second] = [0x7f00fd01, 0x7f00fd02]
const isRoot = process.getuid?.() === 0
const skip = isRoot ? false : 'needs root'

const portable = loadRawSocketPackage()
const skipPortable =
  skip || (portable instanceof SystemError ? 'the package raw-socket is not installed' : false)

/** Memory that system calls reach, or not. */
function makeMemory(hasAddress = true): PacketMemory {
  const kernel = loadKernel()
  if (kernel instanceof SystemError) throw kernel
  return new PacketMemory({
    sizeBytes: 4 * 1024 * 1024,
    ...(hasAddress && { addressOf: bytes => kernel.addressOf(bytes) }),
  })
}

interface Got {
  readonly source: number
  readonly destination: number
  readonly hex: string
}

/** Sends packets of many lengths from one address of loopback to another, and compares all. */
async function exchange(t: Test, memory: PacketMemory, socket: PacketSocket): Promise<number> {
  const total = 200
  const lengths = (i: number) => (i === 7 ? 0 : 20 + ((i * 37) % 1400))
  const got: Got[] = []
  let bursts = 0
  const all = new Promise<void>(resolve => {
    socket.start({
      onPacket: (at, length, source, destination) => {
        got.push({ source, destination, hex: toHex(copyBytes(memory.bytes, at, at + length)) })
        if (got.length === total) resolve()
      },
      onBurstEnd: () => bursts++,
      onLost: reason => t.fail(reason),
    })
  })
  for (let i = 0; i < total; i++) {
    const at = socket.reserve()
    t.ok(at > 0)
    memory.bytes.fill(i, at + 100, at + 100 + lengths(i))
    socket.commit(at + 100, lengths(i), first, second)
  }
  socket.flush()
  await all
  for (let i = 0; i < total; i++) {
    const hex = i.toString(16).padStart(2, '0').repeat(lengths(i))
    t.same(got[i], { source: first, destination: second, hex }, `packet ${i}`)
  }
  t.match(socket.counters, { sentPackets: total, receivedPackets: total, droppedSendError: 0 })
  return bursts
}

t.test(
  'packets go in batches from the address that is named, and come whole',
  { skip },
  async t => {
    const memory = makeMemory()
    const socket = openRawSocket(memory, protocol)
    t.teardown(() => socket.close())
    t.type(socket, RawSocket)
    const bursts = await exchange(t, memory, socket)
    t.ok((socket.counters['sendCalls'] ?? 200) <= 5, 'many packets a call')
    t.ok(bursts < 50, `${bursts} wake-ups`)
  },
)

t.test(
  'without a native address they go one by one through raw-socket',
  { skip: skipPortable },
  async t => {
    const memory = makeMemory(false)
    const socket = openRawSocket(memory, protocol)
    t.teardown(() => socket.close())
    t.type(socket, PortableRawSocket)
    t.equal(await exchange(t, memory, socket), 200)
    // Longer than any packet here may be, from a socket of the other kind.
    const other = makeMemory()
    const sender = new RawSocket(kernelOf(), other, protocol)
    const at = sender.reserve()
    sender.commit(at, RAW_SLOT_BYTES, first, second)
    sender.flush()
    sender.close()
    await eventually(
      () => socket.counters['receivedTruncated'] === 1,
      () => JSON.stringify(socket.counters),
    )
  },
)

function kernelOf() {
  const kernel = loadKernel()
  if (kernel instanceof SystemError) throw kernel
  return kernel
}

/** The package as a double: what was asked to be sent, and the listeners of its events. */
function doubleOfPackage() {
  const listeners = new Map<string, (given: never) => void>()
  const waiting: ((error?: Error) => void)[] = []
  let isClosed = false
  const socket = {
    on: (event: string, listener: (given: never) => void) => listeners.set(event, listener),
    setOption: () => {},
    pauseRecv: () => {},
    resumeRecv: () => {},
    send: (_buffer: Uint8Array, _at: number, _length: number, _to: string, sent: () => void) =>
      waiting.push(sent),
    close: () => {
      isClosed = true
      tell('close')
    },
  }
  const tell = (event: string, given?: unknown) => listeners.get(event)?.(given as never)
  const made = { createSocket: () => socket as unknown as PackageSocket }
  return { made, tell, waiting, isClosed: () => isClosed }
}

t.test('the portable socket: places, refusals, malformed packets, and its loss', async t => {
  const { made, tell, waiting, isClosed } = doubleOfPackage()
  const socket = new PortableRawSocket(made, makeMemory(false), protocol)
  const seen: number[] = []
  const lost: string[] = []
  tell('message', new Uint8Array(20).fill(0x45))
  socket.start({
    onPacket: (_at, length) => seen.push(length),
    onBurstEnd: () => {},
    onLost: reason => lost.push(reason),
  })
  const places: number[] = []
  for (let at = socket.reserve(); at >= 0; at = socket.reserve()) places.push(at)
  t.equal(places.length, 512)
  for (const at of places) socket.release(at + RAW_SLOT_BYTES - 1)
  for (let i = 0; i < 2; i++) socket.commit(socket.reserve(), 20, first, second)
  waiting[0]?.(new Error('no route'))
  waiting[1]?.()
  tell('message', new Uint8Array(30).fill(0x45))
  tell('message', new Uint8Array(30).fill(0x41))
  tell('message', new Uint8Array(0))
  tell('message', new Uint8Array(RAW_SLOT_BYTES + 1).fill(0x45))
  t.same(seen, [10], 'nothing before start, nothing malformed')
  tell('error', new Error('ENETDOWN'))
  t.same(socket.counters, {
    receivedPackets: 1,
    receivedTruncated: 1,
    receivedMalformed: 3,
    sentPackets: 1,
    droppedNoSlot: 1,
    droppedSendError: 1,
  })
  const late = socket.reserve()
  tell('close')
  t.same(lost, ['ENETDOWN'])
  t.equal(socket.reserve(), -1)
  socket.commit(late, 20, first, second)
  t.equal(waiting.length, 2, 'nothing is sent any more')
  socket.close()
  t.notOk(isClosed(), 'it was closed already')
  const other = doubleOfPackage()
  const closing = new PortableRawSocket(other.made, makeMemory(false), protocol)
  closing.start({ onPacket: () => {}, onBurstEnd: () => {}, onLost: reason => lost.push(reason) })
  closing.close()
  closing.close()
  t.ok(other.isClosed())
  t.equal(lost.length, 1, 'who closes it has not lost it')
})

t.test('who may not have raw sockets hears why', async t => {
  const refusing = {
    createSocket: () => {
      throw new Error('Operation not permitted')
    },
  }
  t.throws(() => new PortableRawSocket(refusing, makeMemory(false), protocol), {
    name: 'BindError',
    message: /needs root or CAP_NET_RAW/,
  })
  t.throws(() => new RawSocket(kernelOf(), makeMemory(false), protocol), SystemError)
})

t.test('places run out, come back, and a closed socket has none', { skip }, async t => {
  const memory = makeMemory()
  const socket = openRawSocket(memory, protocol)
  const places: number[] = []
  for (let at = socket.reserve(); at >= 0; at = socket.reserve()) places.push(at)
  t.equal(new Set(places).size, 512)
  t.equal(socket.counters['droppedNoSlot'], 1)
  for (const at of places) socket.release(at + RAW_SLOT_BYTES - 1)
  const again = socket.reserve()
  t.ok(again >= 0)
  // A destination that no packet may have: it concerns this packet only.
  socket.commit(again, 20, 0x01020304, 0x7f000001)
  socket.flush()
  t.equal(socket.counters['droppedSendError'], 1)
  socket.close()
  socket.close()
  t.equal(socket.reserve(), -1)
})
