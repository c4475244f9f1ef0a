/** Raw sockets on loopback, with an IP protocol number that is kept for experiments (RFC 3692). */
import t from 'tap'
import { copyBytes, toHex } from '../../lib/core/bytes.ts'
import { SystemError } from '../../lib/core/errors.ts'
import { loadKernel } from '../../lib/dataplane/kernel.ts'
import { PacketMemory } from '../../lib/dataplane/pinned-memory.ts'
import { openRawSocket, RAW_SLOT_BYTES } from '../../lib/dataplane/raw-socket.ts'

const protocol = 253
const [first, second] = [0x7f00fd01, 0x7f00fd02]
const isRoot = process.getuid?.() === 0
const skip = isRoot ? false : 'needs root'

function makeMemory() {
  const kernel = loadKernel()
  if (kernel instanceof SystemError) throw kernel
  return new PacketMemory({
    sizeBytes: 4 * 1024 * 1024,
    addressOf: bytes => kernel.addressOf(bytes),
  })
}

t.test(
  'packets go in batches from the address that is named, and come whole',
  { skip },
  async t => {
    const memory = makeMemory()
    const socket = openRawSocket(memory, protocol)
    t.teardown(() => socket.close())
    const total = 200
    const lengths = (i: number) => (i === 7 ? 0 : 20 + ((i * 37) % 1400))
    const got: { source: number; destination: number; hex: string }[] = []
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
    t.ok((socket.counters['sendCalls'] ?? total) <= 5, 'many packets a call')
    t.ok(bursts < total / 4, `${bursts} wake-ups`)
  },
)

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

t.test('without a native address there is no raw socket', async t => {
  const memory = new PacketMemory({ sizeBytes: 65_536 })
  t.throws(() => openRawSocket(memory, protocol), SystemError)
})
