/**
 * Compression, encryption and bundles over links that lose, repeat, delay and reorder: whatever the links
 * do, what comes out was sent, comes out once, and flows again when they are well. Seeds are fixed.
 */
import fc from 'fast-check'
import t from 'tap'
import { copyBytes, equalBytes, putU16, putU32, u16, u32 } from '../../../lib/core/bytes.ts'
import { ManualClock } from '../../../lib/core/clock.ts'
import { noRoom, type PacketSink } from '../../../lib/core/packet-sink.ts'
import { SeededRandom } from '../../../lib/core/random.ts'
import { TimerWheel } from '../../../lib/core/timers.ts'
import { createMemoryDataplane, StackSlotPool } from '../../../lib/dataplane/index.ts'
import type { FrameSealer } from '../../../lib/ppp/carrier.ts'
import type { CompressionAgreement, DirectionAgreement } from '../../../lib/ppp/ccp.ts'
import { DataPath } from '../../../lib/ppp/data-path.ts'
import { Opened } from '../../../lib/ppp/frame-opener.ts'
import { BundleTable } from '../../../lib/ppp/multilink/bundle-table.ts'
import { LinkInBundle } from '../../../lib/ppp/multilink/link-in-bundle.ts'
import { windowFragments } from '../../../lib/ppp/multilink/reassembler.ts'
import { PppProtocol, peel } from '../../../lib/ppp/wire/frame.ts'

const slotCount = 256
const tickMs = 10

/** One packet memory for all ends: what they take is given back, or little. */
const { dataplane } = createMemoryDataplane({ clock: new ManualClock(1000) })
const slotsOf = {
  server: new StackSlotPool(dataplane.memory, 2048, slotCount),
  client: new StackSlotPool(dataplane.memory, 2048, slotCount),
}

/** What a tunnel would send, one frame a packet. */
class ArraySink implements PacketSink {
  readonly mtuBytes = 1500
  readonly frames: Uint8Array[] = []
  sealer: FrameSealer = { headerBytes: 0, seal: () => 0 }
  readonly #bytes: Uint8Array
  readonly #at: number

  constructor(bytes: Uint8Array, at: number) {
    this.#bytes = bytes
    this.#at = at
  }

  reserve(): number {
    return this.#at + this.sealer.headerBytes
  }

  commit(at: number, lengthBytes: number): void {
    const frameBytes = this.sealer.seal(at, lengthBytes)
    const frameAt = at - this.sealer.headerBytes
    if (frameBytes > 0) this.frames.push(copyBytes(this.#bytes, frameAt, frameAt + frameBytes))
  }

  flush(): void {}
}

/** A packet that says its number, and can be told from a damaged one. */
function packetOf(number: number, lengthBytes: number): Uint8Array {
  const packet = new Uint8Array(lengthBytes)
  for (let i = 24; i < lengthBytes; i++) packet[i] = (i & 0x3f) ^ number
  packet[0] = 0x45
  putU16(packet, 2, lengthBytes)
  putU32(packet, 20, number)
  return packet
}

/** One end of a bundle: all its links, and the data path above them. */
class End {
  readonly #clock: ManualClock
  readonly wheel: TimerWheel
  readonly slots: StackSlotPool
  readonly path: DataPath
  readonly sinks: ArraySink[] = []
  readonly received: number[] = []
  readonly wrong: string[] = []
  readonly #links: LinkInBundle<undefined>[] = []
  readonly #bytes: Uint8Array
  readonly #inbox: number
  #resetWanted = false
  #sealer: FrameSealer = { headerBytes: 0, seal: () => 0 }

  constructor(
    role: 'server' | 'client',
    linkCount: number,
    mrus: readonly number[],
    isShort: boolean,
  ) {
    this.#clock = new ManualClock(1000)
    this.wheel = new TimerWheel(this.#clock.nowMs())
    const { memory } = dataplane
    this.#bytes = memory.bytes
    this.#inbox = memory.allocate(4096)
    this.slots = slotsOf[role]
    const table = new BundleTable({
      ...{ dataplane, slots: this.slots, clock: this.#clock, wheel: this.wheel },
      ...{ random: new SeededRandom(5), mrruBytes: 1600, linksPerBundle: 4 },
    })
    for (let i = 0; i < linkCount; i++) {
      const sink = new ArraySink(memory.bytes, memory.allocate(4096) + 64)
      this.sinks.push(sink)
      const link = new LinkInBundle(table, {
        ...{ bytes: memory.bytes, sink },
        setSealer: sealer => {
          sink.sealer = sealer
        },
        end: () => {},
      })
      this.#links.push(link)
    }
    this.path = new DataPath({
      bytes: memory.bytes,
      role,
      intake: lengthBytes => dataplane.intake(lengthBytes),
      setSealer: sealer => {
        this.#sealer = sealer
        this.#links[0]?.bundle?.setSealer(sealer)
      },
    })
    this.path.setKeys({ send: new Uint8Array(16).fill(1), receive: new Uint8Array(16).fill(2) })
    for (const [i, link] of this.#links.entries()) {
      const form = { sendsShort: isShort, receivesShort: isShort }
      const agreement = { peerMrruBytes: 1600, ...form, endpoint: Uint8Array.of(1, 7) }
      link.agreed(agreement, mrus[i] ?? 1400)
      link.enter({
        ...{ userKey: 'alice', needsEncryption: false, owner: undefined, sealer: this.#sealer },
        deliver: (at, lengthBytes) => this.#receive(at, lengthBytes),
      })
      link.carry()
    }
  }

  agree(direction: DirectionAgreement): void {
    const agreement: CompressionAgreement = { send: direction, receive: direction }
    if (direction.keyBits > 0 || direction.isCompressed) this.path.open(agreement)
  }

  send(packet: Uint8Array): void {
    const bundle = this.#links[0]?.bundle
    const at = bundle?.reserve(packet.length) ?? noRoom
    if (at === noRoom || bundle === undefined) return
    this.#bytes.set(packet, at)
    bundle.commit(at, packet.length)
  }

  /** A frame of the peer on one link. */
  frame(index: number, frame: Uint8Array): void {
    this.#bytes.set(frame, this.#inbox)
    const link = this.#links[index]
    if (frame[3] === 0x3d) link?.receiveFragment(this.#inbox + 4, frame.length - 4)
    else this.#receive(this.#inbox, frame.length)
    this.#bytes.fill(0xa5, this.#inbox, this.#inbox + 4096)
  }

  takeReset(): boolean {
    const isWanted = this.#resetWanted
    this.#resetWanted = false
    return isWanted
  }

  pass(): void {
    this.#clock.advance(tickMs)
    this.wheel.advance(this.#clock.nowMs())
  }

  close(): void {
    for (const link of [...this.#links].reverse()) link.leave()
    this.path.destroy()
  }

  #receive(at: number, lengthBytes: number): void {
    const peeled = peel(this.#bytes, at, lengthBytes)
    const headerBytes = peeled >>> 16
    if ((peeled & 0xffff) === PppProtocol.ipv4)
      this.#take(at + headerBytes, lengthBytes - headerBytes)
    else if ((peeled & 0xffff) === PppProtocol.compressed) {
      const { opener } = this.path
      const opened = opener?.open(at + headerBytes, lengthBytes - headerBytes)
      if (opened === Opened.ok && opener !== undefined) {
        this.#take(opener.openedAt + 2, opener.openedBytes - 2)
      } else if (opened === Opened.needsReset) this.#resetWanted = true
    } else this.wrong.push(`protocol ${peeled & 0xffff}`)
  }

  #take(at: number, lengthBytes: number): void {
    const packet = copyBytes(this.#bytes, at, at + lengthBytes)
    const number = lengthBytes < 24 ? -1 : u32(packet, 20)
    if (u16(packet, 2) !== lengthBytes) this.wrong.push(`length of ${number}`)
    else if (!equalBytes(packet, packetOf(number, lengthBytes)))
      this.wrong.push(`bytes of ${number}`)
    this.received.push(number)
  }
}

interface Weather {
  readonly seed: number
  readonly links: number
  readonly lossPercent: number
  readonly duplicatePercent: number
  /** A frame is under way for so many ticks at most. */
  readonly mostDelay: number
  /** Each link keeps its own order, as RFC 1990 §4 wants it; otherwise not. */
  readonly isOrdered: boolean
  readonly isShort: boolean
  readonly mrus: readonly number[]
}

const weather: fc.Arbitrary<Weather> = fc.record({
  seed: fc.nat(0xffff),
  links: fc.integer({ min: 2, max: 4 }),
  lossPercent: fc.nat(20),
  duplicatePercent: fc.nat(10),
  mostDelay: fc.nat(12),
  isOrdered: fc.boolean(),
  isShort: fc.boolean(),
  mrus: fc.array(fc.integer({ min: 200, max: 1500 }), { minLength: 4, maxLength: 4 }),
})

const roughTicks = 160
const calmTicks = 160
/** Longer than fragments are waited for, and than a reset takes. */
const settlingTicks = 60

/** Undefined when all went as it must. */
function trouble(direction: DirectionAgreement, given: Weather): string | undefined {
  const { seed, links, mrus, isShort, isOrdered, mostDelay } = given
  const [from, to] = [
    new End('client', links, mrus, isShort),
    new End('server', links, mrus, isShort),
  ]
  from.agree(direction)
  to.agree(direction)
  const random = new SeededRandom(seed + 1)
  const chance = (percent: number) => random.next() % 100 < percent
  const flying: { readonly dueTick: number; readonly link: number; readonly frame: Uint8Array }[] =
    []
  const lastDue = new Array<number>(links).fill(0)
  let resetDueTick = Number.POSITIVE_INFINITY
  let leastFree = slotCount
  const total = roughTicks + calmTicks
  for (let tick = 0; tick < total + settlingTicks; tick++) {
    const isRough = tick < roughTicks
    if (tick < total) from.send(packetOf(tick, 40 + (random.next() % 1300)))
    for (const [link, sink] of from.sinks.entries()) {
      for (const frame of sink.frames.splice(0)) {
        if (isRough && chance(given.lossPercent)) continue
        const copies = isRough && chance(given.duplicatePercent) ? 2 : 1
        for (let copy = 0; copy < copies; copy++) {
          const delay = isRough && mostDelay > 0 ? random.next() % (mostDelay + 1) : 1
          const dueTick = isOrdered ? Math.max(lastDue[link] ?? 0, tick + delay) : tick + delay
          lastDue[link] = dueTick
          flying.push({ dueTick, link, frame })
        }
      }
    }
    for (const one of flying.splice(0)) {
      if (one.dueTick > tick) flying.push(one)
      else to.frame(one.link, one.frame)
    }
    leastFree = Math.min(leastFree, to.slots.freeCount)
    if (to.takeReset()) resetDueTick = Math.min(resetDueTick, tick + 5)
    if (tick >= resetDueTick) {
      resetDueTick = Number.POSITIVE_INFINITY
      from.path.reset()
    }
    from.pass()
    to.pass()
  }
  const inOrder = to.received.every((number, i) => i === 0 || number > (to.received[i - 1] ?? 0))
  const last = to.received.slice(-80)
  from.close()
  to.close()
  if (to.wrong.length > 0) return to.wrong.join()
  if (!inOrder) return `order ${to.received.join()}`
  if (last[0] !== total - 80) return `the end is missing: ${last[0]}`
  if (leastFree < slotCount - windowFragments) return `${slotCount - leastFree} slots at once`
  return to.slots.freeCount === slotCount ? undefined : 'slots are missing'
}

const directions: readonly (readonly [string, DirectionAgreement])[] = [
  ['in clear', { keyBits: 0, isStateless: true, isCompressed: false }],
  ['MPPE-128 stateless', { keyBits: 128, isStateless: true, isCompressed: false }],
  ['MPPE-128 stateful', { keyBits: 128, isStateless: false, isCompressed: false }],
  ['MPPC in MPPE-128 stateful', { keyBits: 128, isStateless: false, isCompressed: true }],
  ['MPPC alone', { keyBits: 0, isStateless: false, isCompressed: true }],
]

/** Throws what went wrong, and under which weather. */
function check(direction: DirectionAgreement, seed: number, links?: 1): void {
  fc.assert(
    fc.property(weather, given => {
      // Nothing puts packets of one link into order again: late ones are lost.
      const alone = { links: 1, isOrdered: true, duplicatePercent: 0 }
      const failure = trouble(direction, links === 1 ? { ...given, ...alone } : given)
      if (failure !== undefined) throw new Error(failure)
    }),
    { seed, numRuns: 8 },
  )
}

for (const [index, [name, direction]] of directions.entries()) {
  t.test(`a bundle over links that lose, repeat, delay and reorder, ${name}`, async () => {
    check(direction, 1990 + index)
  })
}

t.test('one link alone, with compression and encryption, is no different', async () => {
  for (const [index, [, direction]] of directions.entries()) check(direction, 2118 + index, 1)
})
